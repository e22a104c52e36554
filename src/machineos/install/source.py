"""Where an installation comes from: the medium's own layouts, or a registry that it names.

``trust launch`` attaches a small disk labelled ``inst-data`` with ``url.txt`` (the predecessor's
format: one line) and, ours, ``disk.txt``. Nothing here is trusted; it only says where to look.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.files import read_bounded
from machineos.document.between.medium import INDEX_FILE, LAYOUTS, parse_index
from machineos.errors import DocumentError, Fault, MissingError, StalledError, TransferError
from machineos.host.disk import blockdev
from machineos.host.kernel.mount import Flag, mount, unmount
from machineos.oci.layout.folder import LayoutRegistry
from machineos.oci.model.reference import Reference

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.clock import Clock
    from machineos.oci.model.repository import Registry

URL_LABEL = "inst-data"
_LIMIT = 65536
_SAFE = Flag.RDONLY | Flag.NOSUID | Flag.NODEV | Flag.NOEXEC
_NETWORK_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Request:
    """What to install. ``layouts`` is a folder of layouts, None for the registry ``host``."""

    name: str
    tag: str
    host: str = ""
    layouts: Path | None = None
    plain_http: bool = False
    disk: str = ""

    @property
    def shown(self) -> str:
        """The request for people."""
        return f"{self.host or 'the medium'}/{self.name}:{self.tag}"


def parse_source(text: str, *, plain_http: bool, disk: str = "") -> Request:
    """Return the request for ``[docker://]host[:port]/path:tag``. Raises: DocumentError."""
    reference = Reference.parse(text.removeprefix("docker://"))
    if not reference.host or not reference.tag:
        raise DocumentError(
            "install source", [Fault("", 0, f"{text[:200]!r} is not host/path:tag")]
        )
    return Request(reference.name, reference.tag, reference.host, None, plain_http, disk)


def parse_request_file(text: str, *, disk: str) -> Request:
    """Return the request in ``url.txt``: a source, and ``plain-http`` after a space for a registry
    in a closed network. Raises: DocumentError."""
    words = text.split()
    if not 1 <= len(words) <= 2 or words[1:] not in ([], ["plain-http"]):
        raise DocumentError("url.txt", [Fault("", 1, "is not: URL [plain-http]")])
    return parse_source(words[0], plain_http=len(words) == 2, disk=disk)


def from_medium(medium: Path, work: Path) -> Request:
    """Return what the small disk says, else what the medium holds.

    Raises: MissingError, DocumentError.
    """
    for disk in blockdev.disks():
        if blockdev.volume_label(disk.device) == URL_LABEL:
            files = _read(disk.device, work)
            return parse_request_file(files["url.txt"], disk=files["disk.txt"])
    index = parse_index(read_bounded(medium / INDEX_FILE, _LIMIT))
    if not index.install:
        raise MissingError(
            "this medium holds no manifest, and no disk says where to install from",
            hint="attach a disk labelled inst-data with url.txt, or build a medium with a manifest",
        )
    name, _, tag = index.install.rpartition(":")
    return Request(name, tag, layouts=medium / LAYOUTS)


def open_registry(request: Request, clock: Clock) -> Registry:
    """Return the registry of the request; waits for the network. Raises: TransferError."""
    if request.layouts is not None:
        return LayoutRegistry(request.layouts)
    from machineos.oci.registry.client import HttpRegistry

    registry = HttpRegistry(request.host, plain_http=request.plain_http, clock=clock)
    deadline = clock.monotonic() + _NETWORK_SECONDS
    while True:
        try:
            registry.repository(request.name).resolve(request.tag)
        except StalledError:
            raise
        except TransferError as error:
            if error.status or clock.monotonic() > deadline:
                raise
            clock.sleep(1.0)
        else:
            return registry


def staging_area(folder: Path) -> tuple[Path, int]:
    """Mount memory for the fetched images and return it with the bytes that fit."""
    folder.mkdir(parents=True, exist_ok=True)
    mount("tmpfs", folder, "tmpfs", Flag.NOSUID | Flag.NODEV | Flag.NOEXEC, "size=80%,mode=0700")
    info = os.statvfs(folder)
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return folder, min(info.f_bavail * info.f_frsize, available * 9 // 10)


def _read(device: Path, work: Path) -> dict[str, str]:
    work.mkdir(parents=True, exist_ok=True)
    mount(device, work, "vfat", _SAFE)
    try:
        texts = {"url.txt": read_bounded(work / "url.txt", _LIMIT).decode("ascii", "replace")}
        path = work / "disk.txt"
        texts["disk.txt"] = (
            read_bounded(path, _LIMIT).decode("ascii", "replace").strip() if path.exists() else ""
        )
        return texts
    finally:
        unmount(work)
