"""A registry on 127.0.0.1 that follows the distribution specification 1.1, or breaks it on request.

It passes the same contract test as Debian's docker-registry; ``Faults`` switches on one way of
misbehaving at a time.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, urlsplit

from fakes.faults import INDEX, Faults
from fakes.serving import served
from waiting import PATIENCE

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

USER, PASSWORD = "someone", "a secret"
TOKEN = "the-token"
_ROUTE = re.compile(r"/v2/(.+)/(blobs|manifests|referrers|tags)/(.*)")


class Request(Protocol):
    """What a habit sees of a request, and does instead of an answer."""

    command: str
    path: str
    server: FakeRegistry

    def header(self, name: str) -> str:
        """Return a header of the request, empty without."""
        ...

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> bool:
        """Answer, and return that it is done."""
        ...


@dataclass
class Seen:
    """One request that came in."""

    method: str
    path: str
    headers: dict[str, str]


class FakeRegistry(ThreadingHTTPServer):
    """The server with its content in memory."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults = Faults()
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.tags: dict[tuple[str, str], str] = {}
        self.uploads: dict[str, bytearray] = {}
        self.seen: list[Seen] = []
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.scheme = "http"

    @property
    def host(self) -> str:
        """``127.0.0.1:port``."""
        return f"127.0.0.1:{self.server_address[1]}"

    def count(self, method: str, part: str) -> int:
        """Return how many requests with ``part`` in the path came in."""
        return sum(1 for item in self.seen if item.method == method and part in item.path)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news here."""


@contextmanager
def fake_registry(tls: ssl.SSLContext | None = None) -> Iterator[FakeRegistry]:
    """Run a registry for the length of the block."""
    server = FakeRegistry()
    if tls is not None:
        server.scheme = "https"
    with served(server, tls):
        yield server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeRegistry

    def log_message(self, *_: object) -> None:
        pass

    def _any(self) -> None:
        registry = self.server
        parts = urlsplit(self.path)
        self.query = {key: value[0] for key, value in parse_qs(parts.query).items()}
        registry.seen.append(Seen(self.command, self.path, dict(self.headers)))
        if parts.path == "/token":
            self._token()
            return
        if registry.faults.busy:
            status, after = registry.faults.busy.pop(0)
            self._body_in()
            self._answer(status, b"", {"Retry-After": after} if after else {})
            return
        if not self._allowed():
            return
        if registry.faults.instead is not None and registry.faults.instead(self):
            return
        match = _ROUTE.fullmatch(parts.path)
        if match is None:
            self._error(404, "NOT_FOUND")
            return
        self.name = match[1]
        getattr(self, f"_{match[2]}")(match[3])

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815

    def header(self, name: str) -> str:
        return self.headers.get(name, "")

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> bool:
        self._body_in()
        self._answer(status, body, headers)
        return True

    # -- authorization

    def _allowed(self) -> bool:
        faults = self.server.faults
        given = self.headers.get("Authorization", "")
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        elsewhere = faults.open_host and self.header("Host").startswith(faults.open_host)
        if (
            not faults.auth
            or elsewhere
            or given
            in {
                f"Basic {basic}" * (faults.auth == "basic") or "-",
                f"Bearer {TOKEN}" * (faults.auth == "bearer") or "-",
            }
        ):
            return True
        self._body_in()
        realm = faults.realm or f"{self.server.scheme}://{self.server.host}/token"
        challenge = (
            'Basic realm="here"'
            if faults.auth == "basic"
            else f'Bearer realm="{realm}",service="fake",scope="repository:x:pull"'
        )
        self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})
        return False

    def _token(self) -> None:
        faults = self.server.faults
        if faults.token_elsewhere:
            self._answer(307, b"", {"Location": faults.token_elsewhere})
            return
        there = {name for name, _ in (*self.server.blobs, *self.server.manifests)}
        scopes = [scope.split(":") for scope in self.query.get("scope", "").split(" ") if scope]
        absent = [scope for scope in scopes if scope[1] not in there and scope[1] != "x"]
        if faults.creates_on_push and any(scope[2] == "pull" for scope in absent):
            self._error(403, "DENIED")
            return
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {basic}":
            self._error(401, "UNAUTHORIZED")
            return
        self._answer(200, json.dumps({"token": TOKEN, "expires_in": 300}).encode())

    # -- blobs

    def _blobs(self, rest: str) -> None:
        if rest.startswith("uploads/"):
            self._upload(rest.removeprefix("uploads/"))
            return
        data = self.server.blobs.get((self.name, rest))
        if data is None:
            self._error(404, "BLOB_UNKNOWN")
        elif self.server.faults.redirect and self.command == "GET":
            self._answer(307, b"", {"Location": f"{self.server.faults.redirect}{self.path}"})
        else:
            self._blob(rest, data)

    def _blob(self, digest: str, data: bytes) -> None:
        faults = self.server.faults
        headers = {"Docker-Content-Digest": digest, "Content-Type": "application/octet-stream"}
        if faults.encoding:
            headers["Content-Encoding"] = faults.encoding
        if faults.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        wanted = re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range", ""))
        status = 200
        if wanted and not faults.ignore_range:
            start, status = int(wanted[1]), 206
            shown = 0 if faults.wrong_range else start
            headers["Content-Range"] = f"bytes {shown}-{len(data) - 1}/{len(data)}"
            data = data[start:]
        elif faults.packs:
            data = gzip.compress(data, mtime=0)
            headers["Content-Encoding"] = "gzip"
        if self.command == "HEAD":
            self._answer(status, data, headers)
            return
        if faults.endless or faults.drip_chunk_size:
            self._endless(headers)
            return
        length = len(data) if faults.length is None else faults.length
        if faults.drip_headers:
            self._drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 10_000)
            return
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(length)}.items():
            if key not in faults.hides:
                self.send_header(key, value)
        self.end_headers()
        if faults.drip:
            self._drip(data)
        elif faults.stall_after is not None:
            self.wfile.write(data[: faults.stall_after])
            self.server.stopped.wait(PATIENCE)
            self.close_connection = True
        elif faults.die_after:
            self.wfile.write(data[: faults.die_after.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(data)

    def _drip(self, data: bytes) -> None:
        self.close_connection = True
        for byte in data:
            if self.server.stopped.wait(0.02):
                return
            self.wfile.write(bytes([byte]))

    def _endless(self, headers: dict[str, str]) -> None:
        self.close_connection = True
        self.send_response(200)
        for key, value in {**headers, "Transfer-Encoding": "chunked"}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.server.faults.drip_chunk_size:
            self._drip(b"1;" + b"x" * 60_000)
            return
        chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
        while not self.server.stopped.is_set():
            self.wfile.write(chunk)

    # -- uploads

    def _upload(self, session: str) -> None:
        registry = self.server
        if self.command == "POST":
            self._body_in()
            source = (self.query.get("from", ""), self.query.get("mount", ""))
            if source in registry.blobs:
                registry.blobs[(self.name, source[1])] = registry.blobs[source]
                self._answer(201, b"", {"Location": f"/v2/{self.name}/blobs/{source[1]}"})
                return
            session = uuid.uuid4().hex
            registry.uploads[session] = bytearray()
            self._session(202, session)
            return
        if registry.faults.upload_stalls:
            if registry.faults.upload_stalls == "mute":
                self._body_in()
            registry.stopped.wait(PATIENCE)
            self.close_connection = True
            return
        buffer = registry.uploads.get(session)
        if buffer is None:
            self._error(404, "BLOB_UPLOAD_UNKNOWN")
        elif self.command == "GET":
            self._session(204, session)
        elif self.command == "PATCH":
            self._patch(session, buffer)
        elif self.command == "PUT":
            self._finish(session, buffer)

    def _patch(self, session: str, buffer: bytearray) -> None:
        faults = self.server.faults
        start = int(self.headers.get("Content-Range", f"{len(buffer)}-").partition("-")[0])
        if start != len(buffer):
            self._body_in()
            self._error(416, "RANGE_INVALID")
            return
        if faults.upload_dies_after is not None:
            buffer += self.rfile.read(faults.upload_dies_after)
            faults.upload_dies_after = None
            if faults.loses_uploads:
                del self.server.uploads[session]
            self.close_connection = True
            self.connection.close()
            return
        buffer += self._body_in()
        self._session(faults.patch_status, session)

    def _finish(self, session: str, buffer: bytearray) -> None:
        buffer += self._body_in()
        digest = self.query.get("digest", "")
        algorithm, _, value = digest.partition(":")
        if hashlib.new(algorithm, buffer).hexdigest() != value:
            self._error(400, "DIGEST_INVALID")
            return
        status = self.server.faults.put_status
        if status == 201:
            self.server.blobs[(self.name, digest)] = bytes(buffer)
            del self.server.uploads[session]
        told = self.server.faults.told_digest or digest
        self._answer(status, b"", {"Docker-Content-Digest": told})

    def _session(self, status: int, session: str) -> None:
        size = len(self.server.uploads[session])
        headers = {"Location": f"/v2/{self.name}/blobs/uploads/{session}", "Range": f"0-{size - 1}"}
        if self.command == "PATCH" and self.server.faults.patch_range:
            headers["Range"] = self.server.faults.patch_range
        if self.command == "POST":
            headers |= self.server.faults.says_at_start
        self._answer(status, b"", headers)

    # -- manifests

    def _manifests(self, reference: str) -> None:
        registry = self.server
        if self.command == "PUT":
            self._put_manifest(reference)
            return
        digest = registry.tags.get((self.name, reference), reference)
        found = registry.manifests.get((self.name, digest))
        if found is None:
            self._error(404, "MANIFEST_UNKNOWN")
            return
        headers = {
            "Content-Type": registry.faults.content_type or found[0],
            "Docker-Content-Digest": registry.faults.told_digest or digest,
        }
        self._answer(200, found[1], headers)
        if registry.faults.move_tag is not None and reference != digest:
            registry.faults.move_tag()

    def _put_manifest(self, reference: str) -> None:
        registry = self.server
        data = self._body_in()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        body = json.loads(data)
        for part in [body.get("config"), *body.get("layers", [])]:
            if part and (self.name, part["digest"]) not in registry.blobs:
                self._error(400, "MANIFEST_BLOB_UNKNOWN")
                return
        status = registry.faults.put_status
        if status == 201:
            registry.manifests[(self.name, digest)] = (self.headers["Content-Type"], data)
            if reference != digest:
                registry.tags[(self.name, reference)] = digest
        headers = {"Docker-Content-Digest": registry.faults.told_digest or digest}
        if body.get("subject") and registry.faults.referrers_api:
            headers["OCI-Subject"] = body["subject"]["digest"]
        self._answer(status, b"", headers)

    def _referrers(self, digest: str) -> None:
        faults = self.server.faults
        if not faults.referrers_api:
            self._error(faults.referrers_status, "NOT_FOUND")
            return
        entries = self._made_up() if faults.flood else self._real_referrers(digest)
        wanted = self.query.get("artifactType")
        entries = [entry for entry in entries if wanted in {None, entry["artifactType"]}]
        start = int(self.query.get("start", "0"))
        page = entries if faults.flood_in_one else entries[start : start + faults.page]
        headers = {"Content-Type": faults.referrers_type}
        if start + len(page) < len(entries):
            path = urlsplit(self.path).path
            kind = f"&artifactType={wanted}" if wanted else ""
            headers["Link"] = f'<{path}?start={start + len(page)}{kind}>; rel="next"'
        body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": page}
        self._answer(200, json.dumps(body).encode(), headers)

    def _real_referrers(self, digest: str) -> list[dict[str, Any]]:
        result = []
        for (name, own), (kind, data) in self.server.manifests.items():
            body = json.loads(data)
            if name == self.name and (body.get("subject") or {}).get("digest") == digest:
                entry = {"mediaType": kind, "digest": own, "size": len(data)}
                entry["artifactType"] = body.get("artifactType") or body["config"]["mediaType"]
                if body.get("annotations"):
                    entry["annotations"] = body["annotations"]
                result.append(entry)
        return result

    def _made_up(self) -> list[dict[str, Any]]:
        return [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": f"sha256:{number:064x}",
                "size": 100,
                "artifactType": "application/x",
            }
            for number in range(self.server.faults.flood, 0, -1)
        ]

    def _tags(self, rest: str) -> None:
        tags = sorted(tag for name, tag in self.server.tags if name == self.name)
        if rest != "list" or not any(name == self.name for name, _ in self.server.manifests):
            self._error(404, "NAME_UNKNOWN")
            return
        self._answer(200, json.dumps({"name": self.name, "tags": tags}).encode())

    # -- answers

    def _body_in(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()
        self._answer(status, body, headers or {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        faults = self.server.faults
        if faults.documents == "endless" and self.command == "GET":
            self._endless(headers or {})
            return
        status = faults.status or status
        if faults.packs and self.command == "GET" and body:
            body = gzip.compress(body, mtime=0)
            headers = {**(headers or {}), "Content-Encoding": "gzip"}
        length = {} if status == 204 else {"Content-Length": str(len(body))}
        if faults.location is not None and headers and "Location" in headers:
            headers = {**headers, "Location": faults.location(headers["Location"], self.path)}
        self.send_response(status)
        for key, value in {**(headers or {}), **length, **faults.says}.items():
            if key not in faults.hides:
                self.send_header(key, value)
        self.end_headers()
        self.close_connection |= bool(faults.says)
        if self.command == "HEAD" or not body:
            return
        self.close_connection |= bool(faults.documents)
        if faults.documents == "drip":
            self._drip(body)
        elif faults.documents:
            self.wfile.write(body[:-1])
            if faults.documents == "stall":
                self.server.stopped.wait(PATIENCE)
        else:
            self.wfile.write(body)
