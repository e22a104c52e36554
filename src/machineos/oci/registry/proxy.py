"""Which proxy a request goes through: the variables ``http_proxy``, ``https_proxy``, ``no_proxy``.

Owns their meaning, which is that of Go's ``httpproxy`` (so of skopeo, podman and Docker): either
case, the upper one first; what is on the loopback is never asked for through a proxy. Pure. No
password of a proxy is in a repr or a message.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from machineos.errors import UsageError
from machineos.oci.model.reference import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy: ``url`` is its place alone, ``login`` is ``user:password`` or empty."""

    url: str
    login: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.url.partition("://")[2]


@dataclass(frozen=True, slots=True)
class Proxies:
    """The user's proxies, as he wrote them; empty is none."""

    http: str = field(default="", repr=False)
    https: str = field(default="", repr=False)
    bypass: str = ""

    @classmethod
    def of_environment(cls, environ: Mapping[str, str]) -> Proxies:
        """Return the proxies of an environment.

        Where ``REQUEST_METHOD`` is set the variable ``HTTP_PROXY`` may be a header that a stranger
        has sent (CVE-2016-5385), and is not believed.
        """
        cgi = bool(environ.get("REQUEST_METHOD"))
        return cls(
            http=("" if cgi else environ.get("HTTP_PROXY", "")) or environ.get("http_proxy", ""),
            https=environ.get("HTTPS_PROXY", "") or environ.get("https_proxy", ""),
            bypass=environ.get("NO_PROXY", "") or environ.get("no_proxy", ""),
        )

    def environment(self) -> dict[str, str]:
        """Return the variables for a program of the user's own, in both cases."""
        said = {"http_proxy": self.http, "https_proxy": self.https, "no_proxy": self.bypass}
        lower = {name: value for name, value in said.items() if value}
        return lower | {name.upper(): value for name, value in lower.items()}

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy for ``url``, None where one goes straight there.

        Raises: UsageError (it is none that we can speak to).
        """
        parts = urlsplit(url)
        said = self.https if parts.scheme == "https" else self.http
        host = (parts.hostname or "").lower()
        if not said or is_loopback(host) or self._bypasses(host, parts):
            return None
        return _parse(said, f"{parts.scheme}_proxy")

    def _bypasses(self, host: str, parts: SplitResult) -> bool:
        port = parts.port or _PORTS.get(parts.scheme)
        return any(
            _matches(item.strip().lower(), host, str(port)) for item in self.bypass.split(",")
        )


DIRECT = Proxies()


def _matches(item: str, host: str, port: str) -> bool:
    """Whether an entry of ``no_proxy`` is about the host: ``*``, an address, a block of them
    (``10.0.0.0/8``), or a domain with all below it; a leading dot leaves the domain itself out."""
    if item == "*":
        return True
    address = _address(host)
    with suppress(ValueError):
        if "/" in item:
            return address is not None and address in ipaddress.ip_network(item, strict=False)
    name, wanted = _split(item)
    if not name or wanted not in {"", port}:
        return False
    known = _address(name)
    if address is not None or known is not None:
        return address is not None and address == known
    domain = name.removeprefix("*")
    return host.endswith(domain if domain.startswith(".") else f".{domain}") or host == name


def _split(item: str) -> tuple[str, str]:
    """Return the host and the port, if there is one, of an entry of ``no_proxy``."""
    if item.startswith("["):
        name, _, rest = item[1:].partition("]")
        return name, rest.removeprefix(":")
    if item.count(":") == 1:
        name, _, port = item.partition(":")
        return name, port
    return item, ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _parse(text: str, variable: str) -> Proxy:
    """Read the value of a variable; without a scheme it is ``http://``. Raises: UsageError."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if parts.scheme not in _PORTS and host:
        raise UsageError(
            f"{variable}: a proxy of the kind {parts.scheme[:20]!r} is not supported",
            hint="http://host:port and https://host:port are",
        )
    if not host or port is None:
        raise UsageError(f"{variable} is not the address of a proxy", hint="http://host:port")
    login = unquote(parts.netloc.rpartition("@")[0])
    shown = f"[{host}]" if ":" in host else host
    return Proxy(f"{parts.scheme}://{shown}:{port}", login)
