"""Files from the web: pinned, bounded in size and in time, and nothing but https."""

from __future__ import annotations

import hashlib
import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fakes.proxy import fake_proxy
from machineos.build.recipe.download import Downloads
from machineos.core.clock import SystemClock
from machineos.core.run import run
from machineos.errors import DigestError, PolicyError, StalledError, TransferError
from machineos.oci.registry.certificates import Certificates
from machineos.oci.registry.proxy import Proxies
from machineos.oci.registry.wire import Limits
from waiting import PATIENCE

SHA = hashlib.sha256(b"hello").hexdigest()
OTHER = "1" * 64
ONCE = Limits(attempts=1, window_seconds=0.2, answer_seconds=0.5)


@dataclass
class Answer:
    """What the server says to one request; ``drip`` seconds between its bytes."""

    status: int = 200
    body: bytes = b"hello"
    headers: dict[str, str] = field(default_factory=dict)
    drip: float = 0.0
    cut: bool = False


class Server:
    """An https server on loopback with a certificate of its own, and what it answers."""

    def __init__(self, folder: Path) -> None:
        key, certificate = folder / "key.pem", folder / "cert.pem"
        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        argv += ["-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2"]
        argv += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1,DNS:files.invalid"]
        run(argv, timeout=PATIENCE)
        answers: dict[str, list[Answer]] = {}
        self.answers = answers
        self.ended = ended = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                given = answers[self.path]
                answer = given.pop(0) if len(given) > 1 else given[0]
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body) + answer.cut))
                self.end_headers()
                if not answer.drip:
                    self.wfile.write(answer.body)
                    return
                for byte in answer.body:
                    if ended.wait(answer.drip):
                        return
                    try:
                        self.wfile.write(bytes([byte]))
                    except OSError:
                        return

            def log_message(self, *_: object) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        self.ca_file = certificate
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.close()


class Hasty(SystemClock):
    """Does not wait between attempts, and remembers how long it should have."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


Get = Callable[..., tuple[Path, str]]


@pytest.fixture
def get(served: Server, tmp_path: Path) -> Get:
    def call(
        path: str,
        sha256: str,
        *,
        unpinned: bool = False,
        most: int = 1 << 20,
        limits: Limits = ONCE,
        clock: SystemClock | None = None,
    ) -> tuple[Path, str]:
        downloads = Downloads(
            tmp_path / "cache",
            clock or SystemClock(),
            allow_unpinned=unpinned,
            limits=limits,
            certificates=Certificates((served.ca_file,)),
            most=most,
            seed=1,
        )
        return downloads.get(served.url + path, sha256)

    return call


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir())


def alone(folder: Path, *, unpinned: bool = False) -> Downloads:
    return Downloads(folder, Hasty(), allow_unpinned=unpinned, limits=ONCE)


def test_what_is_there_is_checked_and_not_fetched(tmp_path: Path) -> None:
    (tmp_path / SHA).write_bytes(b"hello")
    url = "https://127.0.0.1:1/hello"
    assert alone(tmp_path).get(url, SHA) == (tmp_path / SHA, SHA)
    (tmp_path / SHA).write_bytes(b"changed")
    with pytest.raises(TransferError, match="cannot connect"):
        alone(tmp_path).get(url, SHA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_no_password_of_a_url_is_told(tmp_path: Path, scheme: str) -> None:
    with pytest.raises(TransferError) as caught:
        alone(tmp_path).get(f"{scheme}://me:{'s3cret' * 99}@127.0.0.1:1/hello", SHA)
    assert caught.value.message.startswith(f"{scheme}://...@127.0.0.1:1/hello: ")


def test_nothing_but_https_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="away from https"):
        alone(tmp_path, unpinned=True).get("http://127.0.0.1:1/x", SHA)


@pytest.mark.tool("openssl")
def test_a_checksum_is_needed_and_kept_to(served: Server, get: Get, tmp_path: Path) -> None:
    served.answers["/f"] = [Answer()]
    with pytest.raises(PolicyError, match=f"what came now has the sha256 {SHA}") as caught:
        get("/f", "")
    assert f"hash: {SHA}" in caught.value.hint
    with pytest.raises(DigestError, match=f"sha256 is {SHA}, the recipe says 1111"):
        get("/f", OTHER)
    assert kept(tmp_path) == []
    assert get("/f", SHA) == (tmp_path / "cache" / SHA, SHA)
    (tmp_path / "cache" / SHA).unlink()
    assert get("/f", "", unpinned=True) == (tmp_path / "cache" / SHA, SHA)
    assert kept(tmp_path) == [SHA]


@pytest.mark.tool("openssl")
def test_redirects_are_followed_within_https_and_not_without_end(
    served: Server, get: Get, tmp_path: Path
) -> None:
    served.answers["/f"] = [Answer()]
    served.answers["/moved"] = [Answer(302, b"", {"Location": "/f"})]
    served.answers["/away"] = [Answer(302, b"", {"Location": "http://127.0.0.1:1/f"})]
    served.answers["/round"] = [Answer(302, b"", {"Location": "/round"})]
    served.answers["/gone"] = [Answer(404, b"")]
    with pytest.raises(TransferError, match="leads away from https"):
        get("/away", SHA)
    with pytest.raises(TransferError, match="more than 5 redirects"):
        get("/round", SHA)
    with pytest.raises(TransferError, match="status 404") as caught:
        get("/gone", SHA)
    assert caught.value.status == 404
    assert kept(tmp_path) == []
    assert get("/moved", SHA)[1] == SHA


@pytest.mark.tool("openssl")
def test_a_file_is_as_large_as_it_may_be_and_no_larger(served: Server, get: Get) -> None:
    served.answers["/f"] = [Answer()]
    with pytest.raises(TransferError, match="is larger than 4 bytes"):
        get("/f", SHA, most=4)
    assert get("/f", SHA, most=5)[1] == SHA


@pytest.mark.tool("openssl")
def test_a_stranger_is_not_believed(served: Server, tmp_path: Path) -> None:
    served.answers["/f"] = [Answer()]
    with pytest.raises(TransferError, match=r"TLS: .*certificate") as caught:
        alone(tmp_path / "cache").get(f"{served.url}/f", SHA)
    assert "CA that this system knows" in caught.value.hint


@pytest.mark.tool("openssl")
def test_a_body_that_drips_has_stalled(served: Server, get: Get, tmp_path: Path) -> None:
    """The client before had no rule for this: one byte a minute kept a build for ever."""
    served.answers["/slow"] = [Answer(body=b"x" * 1000, drip=0.05)]
    with pytest.raises(StalledError, match=r"less than 16384 bytes in 0 s"):
        get("/slow", SHA)
    assert kept(tmp_path) == []


@pytest.mark.tool("openssl")
def test_a_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/f"
        limits = Limits(attempts=1, read_seconds=0.2, connect_seconds=0.2)
        with pytest.raises(TransferError):
            Downloads(tmp_path, Hasty(), limits=limits).get(url, SHA)


@pytest.mark.tool("openssl")
def test_what_may_pass_is_tried_again_from_the_beginning(served: Server, get: Get) -> None:
    clock = Hasty()
    served.answers["/f"] = [
        Answer(503, b"", {"Retry-After": "7"}),
        Answer(body=b"hel", cut=True),
        Answer(),
    ]
    assert get("/f", SHA, limits=Limits(), clock=clock)[1] == SHA
    assert clock.slept[0] == 7
    assert len(clock.slept) == 2


@pytest.mark.tool("openssl")
def test_what_does_not_pass_is_not_tried_again(served: Server, get: Get) -> None:
    clock = Hasty()
    served.answers["/f"] = [Answer(403, b""), Answer()]
    with pytest.raises(TransferError, match="status 403"):
        get("/f", SHA, limits=Limits(), clock=clock)
    assert clock.slept == []


@pytest.mark.tool("openssl")
def test_a_file_comes_through_the_users_proxy(served: Server, tmp_path: Path) -> None:
    served.answers["/f"] = [Answer()]
    with fake_proxy() as proxy:
        proxy.login = "me:hush"
        for name in ("files.invalid", "another.invalid"):
            proxy.names[name] = ("127.0.0.1", urlsplit(served.url).port or 0)
        proxies = Proxies(https=f"http://me:hush@{proxy.host}")
        certificates = Certificates((served.ca_file,))
        downloads = Downloads(
            tmp_path, Hasty(), limits=ONCE, certificates=certificates, proxies=proxies
        )
        assert downloads.get("https://files.invalid/f", SHA)[1] == SHA
        assert proxy.seen == ["CONNECT files.invalid:443"]
        with pytest.raises(TransferError, match=f"through the proxy {proxy.host}: TLS: ") as caught:
            downloads.get("https://another.invalid/f", "")
    assert "hush" not in str(caught.value)
