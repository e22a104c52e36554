"""``import`` of a recipe: files beside it, files from the web, files of other stages.

Invariant: what a script sees at ``/stacker/imports`` is exactly what its digests, and so the key of
the stage in the cache, were computed from; nothing from the web is used unless its checksum is in
the recipe, or the user said that it need not be.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import urllib3

from machineos.core.files import atomic
from machineos.errors import (
    DigestError,
    MissingError,
    PolicyError,
    TransferError,
    VerificationError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machineos.build.recipe.recipe import Import

MAX_DOWNLOAD = 4 << 30
_CHUNK = 1 << 20
_MAX_LINKS = 40
_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TIMEOUT = urllib3.Timeout(connect=30.0, read=60.0)


def gather(
    item: Import,
    *,
    base: Path,
    downloads: Path,
    stage_tree: Callable[[str], Path],
    allow_unpinned: bool = False,
) -> tuple[Path, str]:
    """Return where the file or folder of ``item`` is now, and its digest.

    ``base`` is the folder of the recipe, ``downloads`` a cache for URLs, ``stage_tree`` gives the
    tree of a stage that was built. Raises: MissingError, DigestError, PolicyError for a URL without
    a checksum, TransferError, VerificationError for a device, FIFO or socket.
    """
    if item.path.startswith("https://"):
        return download(item.path, item.sha256, downloads, allow_unpinned=allow_unpinned)
    if item.stage:
        inner = item.path.removeprefix(f"stacker://{item.stage}")
        path = resolve_in(stage_tree(item.stage), inner)
    else:
        path = base / item.path
    if not path.exists():
        raise MissingError(f"import {item.path} does not exist", hint=f"looked for {path}")
    digest = digest_of(path.resolve() if not item.stage else path)
    if item.sha256 and digest != item.sha256:
        raise DigestError(f"import {item.path}: sha256 is {digest}, the recipe says {item.sha256}")
    return path, digest


def download(
    url: str,
    sha256: str,
    folder: Path,
    *,
    allow_unpinned: bool,
    limit: int = MAX_DOWNLOAD,
    ca_file: Path | None = None,
) -> tuple[Path, str]:
    """Return the file behind an ``https://`` URL and its sha256, from ``folder`` if it is there.

    The server's certificate is checked against ``ca_file``, or against those of the system.

    Raises: PolicyError when no checksum is given and none is needed only with ``allow_unpinned``;
    DigestError; TransferError, also for more than ``limit`` bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if sha256 and (folder / sha256).is_file():
        if digest_of(folder / sha256) == sha256:
            return folder / sha256, sha256
        (folder / sha256).unlink()
    incoming = folder / "incoming"
    with atomic(incoming, durable=False) as file:
        hasher = hashlib.sha256()
        for chunk in _receive(url, limit, ca_file):
            hasher.update(chunk)
            file.write(chunk)
    found = hasher.hexdigest()
    if sha256 and found != sha256:
        incoming.unlink()
        raise DigestError(f"{url}: sha256 is {found}, the recipe says {sha256}")
    if not sha256 and not allow_unpinned:
        incoming.unlink()
        raise PolicyError(
            f"{url}: the recipe gives no checksum; what came now has the sha256 {found}",
            hint=f"write it as {{path: {url}, hash: {found}}}, or build with --allow-unpinned",
        )
    incoming.replace(folder / found)
    return folder / found, found


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, or one over names, modes and contents of a folder.

    Raises: VerificationError for anything that is neither file, folder nor symbolic link.
    """
    hasher = hashlib.sha256()
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
    elif stat.S_ISLNK(mode):
        hasher.update(b"link\0" + os.fsencode(path.readlink()))
    elif stat.S_ISDIR(mode):
        for child in sorted(path.iterdir()):
            permissions = stat.S_IMODE(child.lstat().st_mode)
            hasher.update(f"{permissions:o} {digest_of(child)} ".encode())
            hasher.update(os.fsencode(child.name) + b"\0")
    else:
        raise VerificationError(f"{path} is neither a file nor a folder")
    return hasher.hexdigest()


def copy(source: Path, target: Path, *, epoch: int) -> None:
    """Copy a file or folder, links as links, modes kept, owned by root, all times ``epoch``."""
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target, follow_symlinks=True)
    _own(target, epoch)


def place(source: Path, item: Import, tree: Path, *, epoch: int) -> None:
    """Copy an import to its ``dest`` in the folder ``tree``, with its owner and mode.

    Links in the tree are followed as the image itself would, never out of it. Raises:
    VerificationError when the way leads through something that is no folder.
    """
    wanted = item.dest + item.name if item.dest.endswith("/") else item.dest
    parent, _, name = wanted.rpartition("/")
    folder = tree
    for part in parent.split("/"):
        folder = resolve_in(tree, "/" + os.path.relpath(folder / part, tree)) if part else folder
        if not folder.exists():
            folder.mkdir(mode=0o755)
        if not folder.is_dir():
            raise VerificationError(f"import {item.path}: /{folder.relative_to(tree)} is no folder")
    target = folder / name
    if target.is_symlink() or target.is_file():
        target.unlink()
    copy(source, target, epoch=epoch)
    os.chown(target, item.uid, item.gid, follow_symlinks=False)
    if item.mode is not None:
        target.chmod(item.mode)


def resolve_in(tree: Path, path: str) -> Path:
    """Return where ``path`` leads when ``tree`` is the root: links and ``..`` stay inside.

    The result need not exist; it has no symbolic link in it. Raises: VerificationError for a circle
    of links.
    """
    left = [part for part in path.split("/") if part not in {"", "."}]
    done: list[str] = []
    links = 0
    while left:
        part = left.pop(0)
        if part == "..":
            done = done[:-1]
            continue
        here = tree.joinpath(*done, part)
        if not here.is_symlink():
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise VerificationError(f"{path}: too many symbolic links")
        target = os.fspath(here.readlink())
        if target.startswith("/"):
            done = []
        left = [part for part in target.split("/") if part not in {"", "."}] + left
    return tree.joinpath(*done)


def _own(target: Path, epoch: int) -> None:
    paths = [target]
    if target.is_dir() and not target.is_symlink():
        paths += target.rglob("*")
    for path in reversed(paths):
        os.chown(path, 0, 0, follow_symlinks=False)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _receive(url: str, limit: int, ca_file: Path | None) -> Iterator[bytes]:
    """Yield the body behind ``url``; every hop must be https."""
    certificates = None if ca_file is None else str(ca_file)
    with urllib3.PoolManager(timeout=_TIMEOUT, retries=False, ca_certs=certificates) as pool:
        for _hop in range(_MAX_REDIRECTS + 1):
            if urlsplit(url).scheme != "https":
                raise TransferError(f"{url}: leads away from https")
            try:
                response = pool.request("GET", url, preload_content=False, redirect=False)
                if response.status not in _REDIRECTS:
                    yield from _body(response, url, limit)
                    return
                url = urljoin(url, response.headers.get("Location", ""))
                response.release_conn()
            except urllib3.exceptions.HTTPError as error:
                raise TransferError(f"{url}: {error}") from error
    raise TransferError(f"{url}: more than {_MAX_REDIRECTS} redirects")


def _body(response: urllib3.BaseHTTPResponse, url: str, limit: int) -> Iterator[bytes]:
    if response.status != 200:
        raise TransferError(f"{url}: status {response.status}", status=response.status)
    seen = 0
    for chunk in response.stream(_CHUNK, decode_content=False):
        seen += len(chunk)
        if seen > limit:
            raise TransferError(f"{url}: is larger than {limit} bytes")
        yield chunk
