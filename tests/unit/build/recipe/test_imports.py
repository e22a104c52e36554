from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from machineos.build.recipe.imports import copy, digest_of, download, gather, place, resolve_in
from machineos.build.recipe.recipe import Import
from machineos.errors import (
    DigestError,
    MissingError,
    PolicyError,
    TransferError,
    VerificationError,
)
from waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

SHA = hashlib.sha256(b"hello").hexdigest()


def take(item: Import, base: Path) -> tuple[Path, str]:
    return gather(
        item, base=base, downloads=base / "downloads", stage_tree=lambda name: base / name
    )


def test_files_and_folders_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    assert take(Import("f"), tmp_path) == (tmp_path / "f", SHA)
    assert take(Import("f", sha256=SHA), tmp_path)[1] == SHA
    with pytest.raises(DigestError, match=f"import f: sha256 is {SHA}, the recipe says 1111"):
        take(Import("f", sha256="1" * 64), tmp_path)
    with pytest.raises(MissingError, match="import g does not exist"):
        take(Import("g"), tmp_path)


def test_files_of_other_stages_never_lead_out_of_them(tmp_path: Path) -> None:
    (tmp_path / "stage/usr").mkdir(parents=True)
    (tmp_path / "stage/usr/f").write_bytes(b"hello")
    (tmp_path / "stage/bin").symlink_to("/usr")
    (tmp_path / "stage/out").symlink_to("../../../../etc")
    assert take(Import("stacker://stage/bin/f"), tmp_path) == (tmp_path / "stage/usr/f", SHA)
    with pytest.raises(MissingError):
        take(Import("stacker://stage/out/passwd"), tmp_path)


def test_the_digest_of_a_folder_is_over_names_modes_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    (folder / "s").mkdir(parents=True)
    (folder / "s/f").write_text("x")
    seen = {digest_of(folder)}
    (folder / "s/f").write_text("y")
    seen.add(digest_of(folder))
    (folder / "s/f").chmod(0o700)
    seen.add(digest_of(folder))
    (folder / "s/f").rename(folder / "s/g")
    seen.add(digest_of(folder))
    (folder / "l").symlink_to("s")
    seen.add(digest_of(folder))
    assert len(seen) == 5
    assert digest_of(folder) in seen
    os.mkfifo(folder / "fifo")
    with pytest.raises(VerificationError, match="neither a file nor a folder"):
        digest_of(folder)


def test_a_download_that_is_there_is_checked_and_not_fetched(tmp_path: Path) -> None:
    (tmp_path / SHA).write_bytes(b"hello")
    url = "https://127.0.0.1:1/hello"
    assert download(url, SHA, tmp_path, allow_unpinned=False) == (tmp_path / SHA, SHA)
    (tmp_path / SHA).write_bytes(b"changed")
    with pytest.raises(TransferError):
        download(url, SHA, tmp_path, allow_unpinned=False)
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_https_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="away from https"):
        download("http://127.0.0.1:1/x", SHA, tmp_path, allow_unpinned=True)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", "a/b"),
        ("/abs/f", "real/f"),
        ("/rel/f", "real/f"),
        ("/up/f", "f"),
        ("/../../f", "f"),
        ("/deep/x", "real/x"),
        ("/missing/x", "missing/x"),
    ],
)
def test_paths_resolve_inside_the_tree(tmp_path: Path, path: str, expected: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "abs").symlink_to("/real")
    (tmp_path / "rel").symlink_to("./real")
    (tmp_path / "up").symlink_to("../../..")
    (tmp_path / "deep").symlink_to("abs")
    assert resolve_in(tmp_path, path) == tmp_path / expected


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(VerificationError, match="too many symbolic links"):
        resolve_in(tmp_path, "/a/x")


@pytest.mark.root
def test_place_follows_links_of_the_image_only_inside_it(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "bin").symlink_to("usr/bin")
    (tree / "out").symlink_to("/etc")
    (tmp_path / "f").write_text("x")
    item = Import("f", dest="/bin/", mode=0o751, uid=3, gid=4)
    place(tmp_path / "f", item, tree, epoch=77)
    status = (tree / "usr/bin/f").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o751, 3, 4)
    assert status.st_mtime == 77
    place(tmp_path / "f", Import("f", dest="/out/made/g"), tree, epoch=77)
    assert (tree / "etc/made/g").read_text() == "x"
    assert not Path("/etc/made").exists()
    with pytest.raises(VerificationError, match="/usr/bin/f is no folder"):
        place(tmp_path / "f", Import("f", dest="/usr/bin/f/g"), tree, epoch=77)


@pytest.mark.root
def test_copies_are_owned_by_root_and_have_the_epoch(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("x")
    os.chown(tmp_path / "d/f", 1000, 1000)
    (tmp_path / "d/l").symlink_to("f")
    copy(tmp_path / "d", tmp_path / "e", epoch=5)
    assert (tmp_path / "e/f").stat().st_uid == 0
    assert (tmp_path / "e/l").readlink() == Path("f")
    assert {path.lstat().st_mtime for path in (tmp_path / "e").rglob("*")} == {5.0}


class _Served:
    """An https server on loopback with a certificate of its own, and what it answers."""

    def __init__(self, folder: Path) -> None:
        import http.server
        import ssl
        import threading

        from machineos.core.run import run

        key, certificate = folder / "key.pem", folder / "cert.pem"
        run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
                *("ec_paramgen_curve:P-256", "-nodes", "-keyout", str(key), "-out"),
                *(str(certificate), "-days", "2", "-subj", "/CN=test"),
                *("-addext", "subjectAltName=IP:127.0.0.1"),
            ],
            timeout=PATIENCE,
        )
        answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.answers = answers

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, headers, body = answers[self.path]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

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
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[_Served]:
    server = _Served(tmp_path)
    yield server
    server.close()


@pytest.mark.tool("openssl")
def test_downloads_need_a_checksum_and_keep_to_it(served: _Served, tmp_path: Path) -> None:
    served.answers["/f"] = (200, {}, b"hello")
    served.answers["/moved"] = (302, {"Location": "/f"}, b"")
    served.answers["/away"] = (302, {"Location": "http://127.0.0.1:1/f"}, b"")
    served.answers["/round"] = (302, {"Location": "/round"}, b"")
    served.answers["/gone"] = (404, {}, b"")
    cache = tmp_path / "cache"

    def get(path: str, sha256: str, **options: int) -> tuple[Path, str]:
        unpinned = bool(options.pop("unpinned", 0))
        url, ca_file = served.url + path, served.ca_file
        return download(url, sha256, cache, allow_unpinned=unpinned, ca_file=ca_file, **options)

    with pytest.raises(PolicyError, match=f"what came now has the sha256 {SHA}") as caught:
        get("/f", "")
    assert f"hash: {SHA}" in caught.value.hint
    with pytest.raises(DigestError, match=f"sha256 is {SHA}, the recipe says 1111"):
        get("/f", "1" * 64)
    with pytest.raises(TransferError, match="is larger than 4 bytes"):
        get("/f", SHA, limit=4)
    for path, message in (("/away", "away from"), ("/round", "redirects"), ("/gone", "404")):
        with pytest.raises(TransferError, match=message):
            get(path, SHA)
    assert list(cache.iterdir()) == []
    assert get("/moved", SHA) == (cache / SHA, SHA)
    assert get("/f", "", unpinned=1) == (cache / SHA, SHA)
    with pytest.raises(TransferError, match="certificate"):
        download(served.url + "/f", "1" * 64, cache, allow_unpinned=False)
