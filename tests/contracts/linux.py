"""A real host to check against the contract, in folders of its own, without a test framework."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.place import FOLDER, TREE
from machineos.core.digest import Digest
from machineos.core.run import find, run
from machineos.core.word import RootHash
from machineos.document.model.names import Label, Unfinished, VolumeName
from machineos.errors import MissingError, ToolError
from machineos.host.disk import tools
from machineos.host.kernel import loopdev, mount
from machineos.oci.model.atomfs import Layer, layer_media_type
from machineos.service.act.linux import LinuxHost
from machineos.service.plan.model import Folders

if TYPE_CHECKING:
    from machineos.service.act.linux import Units, Volumes


class PlainLayers:
    """Loop devices without verity, which this kernel may lack; guest tests have the real one."""

    def __init__(self) -> None:
        self.devices: dict[str, loopdev.LoopDevice] = {}

    def open(self, layer: Layer, *, blob: Path, signature: Path) -> Path:
        if not signature.is_file():
            raise ToolError(f"{signature} is not there")
        name = layer.digest.hex
        if name not in self.devices:
            with blob.open("rb") as file:
                self.devices[name] = loopdev.attach(file.fileno(), label=blob.name[:20])
        return self.devices[name].path

    def close(self, digest: Digest) -> None:
        device = self.devices.pop(digest.hex, None)
        if device is not None:
            device.close()


class FileVolumes:
    """Volumes as files with ext4, shown as loop devices: LVM without device mapper. The tag is a
    bit of the file's mode."""

    def __init__(self, folder: Path, dev: Path) -> None:
        self.folder = folder
        self.dev = dev
        self.devices: dict[str, loopdev.LoopDevice] = {}
        for path in (folder, dev):
            path.mkdir(parents=True, exist_ok=True)
        for name in self.names():
            self._show(name)
            # As the initrd does.
            (self.dev / VolumeName(name).mapped).symlink_to(self.devices[name].path)

    def has_device(self, label: VolumeName) -> bool:
        return (self.dev / label.mapped).exists()

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in self.folder.iterdir()))

    def unfinished(self) -> dict[str, bool]:
        modes = {name: (self.folder / name).stat().st_mode for name in self.names()}
        return {name: bool(mode & stat.S_ISVTX) for name, mode in modes.items()}

    def create(self, name: str, size: int) -> None:
        path = self.folder / name
        if not path.exists():
            with path.open("wb") as file:
                file.truncate(size)
            path.chmod(0o600 | stat.S_ISVTX)
            self._show(name)

    def finish(self, name: str) -> None:
        (self.folder / name).chmod(0o600)

    def format(self, name: Unfinished, label: Label) -> None:
        tools.make_filesystem("ext4", self.dev / name, label=label)
        (self.dev / name.mapped).unlink(missing_ok=True)
        (self.dev / name.mapped).symlink_to(self.devices[name].path)

    def open(self, label: Label) -> None:
        new = self.dev / Unfinished.of(label).mapped
        if not self.has_device(label):
            if not new.exists():
                raise MissingError(f"storage {label}: its volume is not open")
            new.rename(self.dev / label.mapped)

    def rename(self, name: str, new: str) -> None:
        if not (self.folder / new).exists():
            (self.folder / name).rename(self.folder / new)
            (self.dev / name).rename(self.dev / new)
            self.devices[new] = self.devices.pop(name)

    def remove(self, name: VolumeName) -> None:
        (self.dev / name.mapped).unlink(missing_ok=True)
        if (self.folder / name).exists():
            self.devices.pop(name).close()
            (self.dev / name).unlink()
            (self.folder / name).unlink()

    def log_size(self) -> int:
        return 16 << 20

    def close(self) -> None:
        """Let go of the devices, as a power cut does; the files stay."""
        for device in self.devices.values():
            device.close()
        shutil.rmtree(self.dev, ignore_errors=True)

    def _show(self, name: str) -> None:
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CLOEXEC)
        self.devices[name] = loopdev.attach(descriptor, read_only=False, label=name)
        os.close(descriptor)
        (self.dev / name).symlink_to(self.devices[name].path)


class LinuxPlace:
    """``contracts.service.Place`` on the real kernel; ``image`` is a squashfs with TREE."""

    def __init__(
        self,
        base: Path,
        image: bytes,
        *,
        units: Units,
        unit_folder: Path,
        volumes: Volumes,
        group: Path,
    ) -> None:
        self.store = base / "store"
        self.lines: list[str] = []
        self.folders = Folders(base / "run", unit_folder, data=base / "data", mapper=group)
        self.layers = PlainLayers()
        self.host = LinuxHost(
            self.store, layers=self.layers, volumes=volumes, units=units, log=self.lines.append
        )
        digest = self.put_blob(image)
        self.blob = Path("blobs/sha256") / digest.hex
        self.signature = Path("signature.p7s")
        (self.store / self.signature).write_bytes(b"not looked at without dm-verity")
        self.layer = Layer(
            digest, len(image), layer_media_type("squashfs", "zstd"), RootHash("1" * 64)
        )

    def put_blob(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        folder = self.store / "blobs/sha256"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / digest.hex).write_bytes(data)
        return digest

    def mode(self, path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    def names(self, folder: Path) -> list[Path]:
        return list(folder.iterdir())

    def owner(self, path: Path) -> tuple[int, int]:
        return (path.stat().st_uid, path.stat().st_gid)

    def options(self, path: Path) -> list[frozenset[str]]:
        return [frozenset(each.options) for each in mount.mounts() if each.target == path]

    def kind(self, path: Path) -> str:
        return next(each.fstype for each in reversed(mount.mounts()) if each.target == path)

    def rules(self) -> str:
        return run(["nft", "list", "ruleset"], timeout=60).text

    def addresses(self, bridge: str) -> set[str]:
        assert any(name == bridge for _, name in socket.if_nameindex())
        text = run(["ip", "-brief", "address", "show", "dev", bridge, "up"], timeout=60).text
        return {word for word in text.split() if "/" in word}

    def switch(self, name: str) -> str:
        return (Path("/proc/sys/net") / name).read_text().strip()


def build_image(folder: Path) -> bytes:
    """Return a squashfs with TREE, made in ``folder``."""
    tree = folder / "tree"
    for name, what in TREE.items():
        path = tree / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(what, bytes):
            path.write_bytes(what)
        elif isinstance(what, tuple):
            path.symlink_to(what[1])
        elif what == FOLDER:
            path.mkdir()
        else:
            os.mkfifo(path)
    return pack(tree, folder / "image")


def pack(tree: Path, image: Path) -> bytes:
    """Return a squashfs of ``tree``, packed without compressing, which takes no time."""
    image.unlink(missing_ok=True)
    quiet = ("-noappend", "-quiet", "-no-progress", "-all-root", "-noD", "-noF")
    run([find("mksquashfs") or "mksquashfs", tree, image, *quiet], timeout=120)
    return image.read_bytes()
