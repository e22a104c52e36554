"""Credentials for registries, and the answers to their challenges.

Owns the files of containers-auth.json(5) and the two schemes that registries use: Basic (RFC 7617)
and Bearer tokens fetched from a realm (distribution "Token Authentication"). Invariants: no secret
is in the repr of anything here, a password goes only to its own registry and to the realm that this
registry names, and never over plain HTTP to another machine unless that was asked for.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from machineos.core.files import read_named
from machineos.core.jsondoc import parse_json
from machineos.errors import AuthError, DocumentError, Fault, MissingError
from machineos.oci.model.reference import is_loopback
from machineos.oci.registry import credential_helper, hub

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_FILE_LIMIT = 1 << 20
_TOKEN_LIMIT = 64 << 10
_CHALLENGE_LIMIT = 8 << 10
_MIN_LIFE = 60  # seconds a token is valid when the realm does not say (distribution's default)
_MAX_LIFE = 3600
_PARAMETER = re.compile(r'([a-zA-Z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*,?\s*')
_SCHEME = re.compile(r"(basic|bearer)(?:\s+|$)", re.IGNORECASE)
# Another scheme, alone or with a token (RFC 9110, section 11.3); its parameters follow.
_OTHER = re.compile(r"[A-Za-z][\w.~-]*(?:\s+[\w.~+/-]+=*(?=\s*(?:,|$)))?(?:\s+|\s*,\s*|$)")


@dataclass(frozen=True, slots=True)
class Credential:
    """A user with a password, or an identity token of a registry that uses OAuth 2."""

    user: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """Return the value of an Authorization header."""
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


@dataclass(frozen=True, slots=True)
class Challenge:
    """One parsed WWW-Authenticate header; ``scheme`` is ``basic`` or ``bearer``."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


def default_auth_paths(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where credentials are looked for, first match first, as podman and skopeo do."""
    if chosen := environ.get("REGISTRY_AUTH_FILE"):
        return (Path(chosen),)
    paths = []
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        paths.append(Path(runtime) / "containers/auth.json")
    user = environ.get("HOME")
    if config := environ.get("XDG_CONFIG_HOME") or (user and f"{user}/.config"):
        paths.append(Path(config) / "containers/auth.json")
    if docker := environ.get("DOCKER_CONFIG") or (user and f"{user}/.docker"):
        paths.append(Path(docker) / "config.json")
    return tuple(paths)


class Credentials:
    """The credentials in ``paths``, read when a registry asks for them and not before.

    ``environ`` is what credential helpers get; they find their store through ``HOME``.
    """

    def __init__(
        self, paths: Sequence[Path] = (), environ: Mapping[str, str] | None = None
    ) -> None:
        self._paths = tuple(paths)
        self._environ = dict(environ or {})

    def __repr__(self) -> str:
        return f"Credentials({[str(path) for path in self._paths]})"

    def find(self, host: str, name: str) -> Credential | None:
        """Return the credential for a repository: its own, that of a folder above it, the host's.

        Raises: DocumentError for a file that cannot be understood, ToolError from a helper.
        """
        for path in self._paths:
            try:
                data = read_named(path, _FILE_LIMIT)
            except (MissingError, NotADirectoryError):
                continue
            body = parse_json(data, name=str(path))
            found = self._look(body, path, host, name)
            if found is not None:
                return found
        return None

    def _look(self, body: Any, path: Path, host: str, name: str) -> Credential | None:  # noqa: ANN401
        if not isinstance(body, dict):
            raise DocumentError(str(path), [Fault("", 0, "is not an object")])
        helpers = _mapping(body, "credHelpers", path)
        entries = {_key(key): value for key, value in _mapping(body, "auths", path).items()}
        for key in _keys(host, name):
            if isinstance(helper := helpers.get(key), str):
                return self._ask(helper, key)
            if key in entries:
                entry = entries[key]
                if isinstance(entry, dict) and (entry.get("auth") or entry.get("identitytoken")):
                    return _credential(entry, path, key)
        if isinstance(store := body.get("credsStore"), str) and store:
            return self._ask(store, hub.store_key(host))
        return None

    def _ask(self, helper: str, server: str) -> Credential | None:
        found = credential_helper.get(helper, server, environ=self._environ)
        if found is None:
            return None
        if found.user == credential_helper.TOKEN_USER:
            return Credential("", "", identity_token=found.secret)
        return Credential(found.user, found.secret)


def parse_challenges(headers: Sequence[str]) -> tuple[Challenge, ...]:
    """Return the challenges of WWW-Authenticate headers that we can answer; others are left out."""
    result = []
    for header in headers:
        text = header[:_CHALLENGE_LIMIT].strip()
        while text:
            known = _SCHEME.match(text)
            match = known or _OTHER.match(text)
            if match is None:
                break
            text = text[match.end() :]
            values: dict[str, str] = {}
            while not _SCHEME.match(text) and (item := _PARAMETER.match(text)):
                value = item[2] if item[2] is not None else item[3]
                values.setdefault(item[1].lower(), re.sub(r"\\(.)", r"\1", value))
                text = text[item.end() :]
            if known is not None:
                result.append(
                    Challenge(
                        scheme=known[1].lower(),
                        realm=values.get("realm", ""),
                        service=values.get("service", ""),
                        scope=values.get("scope", ""),
                    )
                )
    return tuple(result)


def check_realm(realm: str, *, host: str, plain_http: bool) -> None:
    """Refuse a realm that would carry credentials in the clear. Raises: AuthError.

    Plain HTTP is for loopback, and for the registry's own host when plain HTTP to it was asked for.
    """
    try:
        parts = urlsplit(realm)
    except ValueError as error:
        raise AuthError(f"{host}: wants a token from {realm[:200]!r}: {error}") from error
    where = parts.netloc.rpartition("@")[2]
    clear = is_loopback(where) or (plain_http and where == host)
    safe = parts.scheme == "https" or (parts.scheme == "http" and clear)
    if safe and parts.hostname and "@" not in parts.netloc:
        return
    raise AuthError(
        f"{host}: wants a token from {realm[:200]!r}, which is not reached over https",
        hint="the registry is set up wrongly, or someone in between wants your password",
    )


def token_request(
    challenge: Challenge, credential: Credential | None, scope: str
) -> tuple[str, str, dict[str, str], bytes | None]:
    """Return method, URL, headers and body that fetch a token for ``scope``."""
    if credential is not None and credential.identity_token:
        form = {
            "grant_type": "refresh_token",
            "service": challenge.service,
            "client_id": "machineos",
            "scope": scope,
            "refresh_token": credential.identity_token,
        }
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return "POST", challenge.realm, kind, urlencode(form).encode()
    query = [("service", challenge.service)] if challenge.service else []
    query += [("scope", part) for part in scope.split(" ") if part]
    joint = "&" if urlsplit(challenge.realm).query else "?"
    headers = {"Authorization": credential.basic()} if credential is not None else {}
    return "GET", f"{challenge.realm}{joint}{urlencode(query)}", headers, None


def parse_token(data: bytes, *, name: str) -> tuple[str, float]:
    """Return the token in a realm's answer and its life in seconds. Raises: AuthError."""
    try:
        body = parse_json(data, name=name, limit=_TOKEN_LIMIT)
    except DocumentError as error:
        raise AuthError(f"{name}: the answer is not a token: {error.message}") from error
    token = (body.get("token") or body.get("access_token")) if isinstance(body, dict) else None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise AuthError(f"{name}: the answer holds no token")
    life = body.get("expires_in")
    if not isinstance(life, int | float) or isinstance(life, bool):
        life = _MIN_LIFE
    return token, float(min(max(life, 0), _MAX_LIFE))


class Authenticator:
    """Authorization headers for one registry: remembers what worked, per scope.

    ``fetch(method, url, headers, body)`` performs the token request and returns its body. Used by
    several threads; the worst that two of them do is to fetch the same token twice.
    """

    def __init__(
        self,
        host: str,
        credentials: Credentials | None,
        *,
        plain_http: bool,
        fetch: Callable[[str, str, dict[str, str], bytes | None], bytes],
        monotonic: Callable[[], float],
    ) -> None:
        self._host = host
        self._credentials = credentials
        self._plain_http = plain_http
        self._fetch = fetch
        self._monotonic = monotonic
        self._headers: dict[tuple[str, str], tuple[str, float]] = {}

    def header(self, name: str, scope: str) -> str | None:
        """Return the header that worked last time, None when there is none that still holds."""
        found = self._headers.get((name, scope))
        if found is None or found[1] <= self._monotonic():
            return None
        return found[0]

    def answer(self, challenges: Sequence[Challenge], name: str, scope: str) -> str:
        """Return the header that answers the first challenge we can. Raises: AuthError."""
        credential = self._credentials.find(self._host, name) if self._credentials else None
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.realm:
                header, until = self._token(challenge, credential, scope)
                break
            if challenge.scheme == "basic" and credential is not None and credential.user:
                header, until = credential.basic(), float("inf")
                break
        else:
            raise AuthError(
                f"{self._host}/{name}: credentials are needed and there are none",
                hint=f"log in first, for example: skopeo login {self._host}",
                status=401,
            )
        self._headers[(name, scope)] = (header, until)
        return header

    def _token(
        self, challenge: Challenge, credential: Credential | None, scope: str
    ) -> tuple[str, float]:
        check_realm(challenge.realm, host=self._host, plain_http=self._plain_http)
        wanted = " ".join(dict.fromkeys([*scope.split(" "), *challenge.scope.split(" ")])).strip()
        method, url, headers, body = token_request(challenge, credential, wanted)
        token, life = parse_token(
            self._fetch(method, url, headers, body), name=f"{self._host}: token service"
        )
        return f"Bearer {token}", self._monotonic() + life * 0.9


def _keys(host: str, name: str) -> list[str]:
    parts = name.split("/") if name else []
    paths = [f"/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1)]
    return [f"{alias}{path}" for path in [*paths, ""] for alias in hub.names(host)]


def _key(key: str) -> str:
    """Old docker files have URLs as keys."""
    bare = re.sub(r"^https?://", "", key)
    return re.sub(r"/v[12]/?$", "", bare).rstrip("/")


def _mapping(body: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = body.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DocumentError(str(path), [Fault(key, 0, "is not an object")])
    return value


def _credential(entry: dict[str, Any], path: Path, key: str) -> Credential:
    fault = DocumentError(
        str(path), [Fault(f"auths[{key!r}].auth", 0, "is not the base64 of user:password")]
    )
    identity = entry.get("identitytoken") or ""
    text = entry.get("auth") or ""
    if not isinstance(identity, str) or not isinstance(text, str):
        raise fault
    try:
        # As Go's, which wrote it: line ends count for nothing.
        bare = text.replace("\r", "").replace("\n", "")
        user, colon, password = base64.b64decode(bare, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise fault from error
    if text and not colon:
        raise fault
    return Credential(user, password.rstrip("\0"), identity_token=identity)
