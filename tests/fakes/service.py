"""A machine in memory that runs services: passes the contract of the real one (contracts.service).

What survives a power cut is apart from what does not: ``power_cut`` returns the machine after it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from changed import replace
from fakes.tree import Tree, see_file, see_folder
from machineos.core.digest import Digest
from machineos.errors import (
    ConflictError,
    DocumentError,
    Fault,
    MissingError,
    SignatureError,
    ToolError,
)
from machineos.host.kernel.flags import Flag
from machineos.host.unit.journal import aside
from machineos.host.unit.systemctl import UnitState
from machineos.service.plan.host import Around, Inside, Mounted, Persistent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from machineos.core.idrange import IdRange
    from machineos.document.model.names import Label, Unfinished, VolumeName
    from machineos.oci.model.atomfs import Layer
    from machineos.service.plan.model import Folders

LOG_UNIT = "mosd-log.service"
_SHIPPED = {LOG_UNIT: "ExecStart=:/usr/bin/journalctl --flush"}  # in the signed root
_KINDS = frozenset({"tmpfs", "squashfs", "erofs", "ext4"})


@dataclass
class Disk:
    """A volume; ``label`` is empty until it has a file system. Owners of folders by name."""

    size: int
    label: str = ""
    owners: dict[str, tuple[int, int]] = field(default_factory=dict)
    unfinished: bool = False


@dataclass(frozen=True)
class MemoryMount:
    """Something mounted: the file system under it, its flags, and the owner of its root."""

    kind: str
    source: str
    device: int
    flags: Flag
    data: str = ""
    uid: int = 0
    disk: Disk | None = None
    tree: str = ""


@dataclass
class MemoryUnit:
    """What systemd knows of a unit: the text it has read, and whether it runs."""

    text: str | None = None
    active: str = "inactive"
    pid: int = 0
    status: int = 0
    restarts: int = 0


class MemoryHost:
    """``service.plan.host.Host``. ``trees`` are the images, by digest of their layer (hex)."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.trees: dict[str, Tree] = {}
        self.unsigned: set[str] = set()
        self.group: dict[str, Disk] = {}
        self.opened: set[str] = set()
        self.lines: list[str] = []
        self.files: dict[Path, tuple[bytes, int]] = {}
        self.made: dict[Path, int] = {}
        self.mounts: dict[Path, MemoryMount] = {}
        self.layers: dict[str, Path] = {}
        self.bridges: dict[str, tuple[str, ...]] = {}
        self.tables: list[str] = []
        self.switches: dict[str, str] = {
            "ipv4/conf/all/accept_redirects": "1",
            "ipv4/conf/all/send_redirects": "1",
            "ipv4/conf/default/forwarding": "0",
            "ipv6/conf/all/forwarding": "0",
        }
        self.names: list[str] = []
        for name in ("eth0", "lo"):
            self.add_link(name)
        self.known: dict[str, MemoryUnit] = {}
        self.started: list[str] = []
        self.shared = False
        self.ran: dict[str, str] = {}
        self.unit_folder = Path("/run/systemd/system")
        self._numbers = iter(range(1, 1 << 30))

    def copy(self) -> MemoryHost:
        """Return a machine that is the same now, and goes its own way."""
        after = self.power_cut()
        after.group = copy.deepcopy(self.group)
        after.opened = set(self.opened)
        after.mounts = {
            path: replace(each, disk=self._same_disk(after, each))
            for path, each in self.mounts.items()
        }
        for name in ("lines", "files", "made", "layers", "bridges", "tables", "switches", "names"):
            setattr(after, name, copy.copy(getattr(self, name)))
        after.known = copy.deepcopy(self.known)
        after.started, after.ran = list(self.started), dict(self.ran)
        after.shared = self.shared
        after._numbers = iter(range(next(self._numbers), 1 << 30))
        return after

    def _same_disk(self, after: MemoryHost, mounted: MemoryMount) -> Disk | None:
        for name, disk in self.group.items():
            if disk is mounted.disk:
                return after.group[name]
        return copy.deepcopy(mounted.disk)

    def power_cut(self) -> MemoryHost:
        """Return the machine as it is when it starts again."""
        after = MemoryHost()
        after.blobs, after.trees, after.unsigned = self.blobs, self.trees, self.unsigned
        after.group = self.group
        after.opened = {name for name, disk in self.group.items() if disk.label}  # by the initrd
        return after

    @property
    def persistent(self) -> str:
        """All that outlives a power cut, as text."""
        return repr(sorted(self.group.items()))

    @property
    def state(self) -> dict[str, object]:
        """All that can be compared: without numbers that are given out as things come."""
        return {
            "files": dict(sorted(self.files.items())),
            "folders": dict(sorted(self.made.items())),
            "mounts": {
                path: (each.kind, each.source, each.flags, each.data, each.uid, repr(each.disk))
                for path, each in sorted(self.mounts.items())
            },
            "layers": sorted(self.layers),
            "bridges": self.bridges,
            "tables": self.tables,
            "switches": self.switches,
            "units": {
                name: (unit.active, unit.text, self.ran.get(name))
                for name, unit in sorted(self.known.items())
            },
            "volumes": self.persistent,
            "shared": self.shared,
        }

    def say(self, text: str) -> None:
        self.lines.append(text)

    def look(self, folders: Folders) -> Around:
        leases = self.files.get(folders.leases)
        return Around(
            units=self._names(folders.units),
            homes=self._names(folders.lxc),
            roots=self._names(folders.roots),
            images=self._names(folders.images),
            leases=leases[0] if leases is not None else None,
        )

    def read_blob(self, digest: Digest, limit: int) -> bytes | None:
        return _bounded(self.blobs.get(digest), limit, str(digest))

    def read_file(self, path: Path, limit: int) -> bytes | None:
        found = self.files.get(path)
        return _bounded(found[0] if found is not None else None, limit, str(path))

    def write_file(self, path: Path, data: bytes, mode: int) -> None:
        self._folder(path.parent)
        self.files[path] = (data, mode)

    def remove_file(self, path: Path) -> None:
        self.files.pop(path, None)

    def make_folder(self, path: Path, mode: int) -> None:
        for above in path.parents:
            self.made.setdefault(above, 0o755)
        self.made[path] = mode

    def remove_folder(self, path: Path) -> None:
        if path in self.mounts:
            raise OSError(f"{path}: busy")
        if not self._names(path):
            self.made.pop(path, None)

    def mounted(self, path: Path) -> Mounted | None:
        found = self.mounts.get(path)
        return Mounted(found.device, found.uid) if found is not None else None

    def mount(self, source: str, target: Path, fstype: str, flags: Flag, data: str) -> None:
        if target in self.mounts:
            return
        self._folder(target)
        if fstype not in _KINDS:
            raise ToolError(f"mount {fstype} {source} at {target}: No such device")
        found = MemoryMount(fstype, source, next(self._numbers), flags, data)
        if fstype == "tmpfs":
            disk: Disk | None = Disk(0, "tmpfs")
            tree = ""
        elif fstype == "ext4":
            name = Path(source).name.removeprefix("machine-volume-")
            disk = self.group.get(name) if name in self.opened else None
            tree = ""
            if disk is None or not disk.label:
                raise ToolError(f"mount ext4 {source} at {target}: Invalid argument")
        else:
            disk, tree = None, self._layer_of(source)
        self.mounts[target] = MemoryMount(
            found.kind, source, found.device, found.flags, data, 0, disk, tree
        )

    def clone(self, source: Path, target: Path, ids: IdRange | None) -> None:
        if target in self.mounts:
            return
        self._folder(target)
        below = self.mounts.get(source)
        if below is None:
            raise ToolError(f"clone the mount {source}: Invalid argument")
        flags = Flag.RDONLY | Flag.NOSUID | Flag.NODEV
        uid = below.uid if ids is None else ids.host(below.uid)
        self.mounts[target] = MemoryMount(
            below.kind, below.source, below.device, flags, "", uid, None, below.tree
        )

    def unmount(self, path: Path) -> None:
        self.mounts.pop(path, None)

    def look_inside(self, image: Path, folders: Sequence[str], files: Sequence[str]) -> Inside:
        tree = self.trees[self.mounts[image].tree]
        return Inside(
            folders=tuple((path, see_folder(tree, path)) for path in folders),
            files=tuple((path, see_file(tree, path)) for path in files),
        )

    def open_layer(self, layer: Layer, blob: Path, signature: Path) -> Path:
        name = layer.digest.hex
        if name in self.unsigned:
            raise SignatureError(f"{blob}: the kernel refuses the signature")
        if name not in self.trees:
            raise MissingError(f"{blob} does not exist")
        return self.layers.setdefault(name, Path(f"/dev/layer/{name}"))

    def close_layer(self, digest: Digest) -> None:
        if any(each.tree == digest.hex for each in self.mounts.values()):
            raise ToolError(f"{digest.hex}: device busy")
        self.layers.pop(digest.hex, None)

    def volume_device(self, label: Label) -> bool:
        return label in self.opened

    def volumes(self) -> tuple[Persistent, ...]:
        return tuple(Persistent(name, self.group[name].unfinished) for name in sorted(self.group))

    def create_volume(self, name: Unfinished, size: int) -> None:
        self.group.setdefault(name, Disk(size, unfinished=True))

    def format_volume(self, name: Unfinished, label: Label) -> None:
        disk = self.group.get(name)
        if disk is None:
            raise ToolError(f"{name} does not exist")
        disk.label, disk.owners = label, {}
        self.opened.add(name)

    def finish_volume(self, name: Unfinished) -> None:
        if name not in self.group:
            raise ToolError(f"{name} does not exist")
        self.group[name].unfinished = False

    def rename_volume(self, name: Unfinished, new: Label) -> None:
        if new in self.group and name not in self.group:
            return
        if new in self.group or name not in self.group:
            raise ToolError(f"{name} cannot become {new}")
        self.group[new] = self.group.pop(name)

    def open_volume(self, label: Label) -> None:
        if not self.opened & {label, f"{label}+new"}:
            raise MissingError(f"storage {label}: its volume is not open")
        self.opened = self.opened - {f"{label}+new"} | {label}

    def remove_volume(self, name: VolumeName) -> None:
        self.group.pop(name, None)
        self.opened.discard(name)

    def log_size(self) -> int:
        return 64 << 20

    def set_journals_aside(self, folder: Path) -> None:
        for path in [path for path in self.files if path.parent.parent == folder]:
            new = aside(path.name, 0, bytes(8))
            if new is not None:
                self.files[path.with_name(new)] = self.files.pop(path)

    def own_folder(self, path: Path, uid: int, gid: int) -> None:
        if path in self.files:
            raise ConflictError(f"storage {path.parent.name}: {path} is not a folder")
        self._owners(path).setdefault(path.name, (uid, gid))

    def make_bridge(self, name: str, addresses: tuple[str, ...]) -> None:
        self.bridges[name] = addresses
        if name not in self.names:
            self.add_link(name)

    def add_link(self, name: str) -> None:
        """Let a network link appear."""
        self.names.append(name)
        own = f"ipv4/conf/{name}"
        self.switches[f"{own}/forwarding"] = self.switches["ipv4/conf/default/forwarding"]
        self.switches |= {f"{own}/route_localnet": "0", f"{own}/send_redirects": "1"}

    def apply_rules(self, script: str) -> None:
        lines = script.splitlines()
        if any(line.split()[:1] == ["nonsense"] for line in lines):
            raise ToolError("nft: syntax error")
        self.tables = [script]

    def switch(self, name: str, value: bool, optional: bool) -> None:
        if name in self.switches:
            self.switches[name] = "1" if value else "0"
        elif not optional:
            raise MissingError(f"kernel parameter {name} does not exist")

    def share_disk(self) -> None:
        self.shared = True

    def links(self) -> tuple[str, ...]:
        return tuple(sorted(self.names))

    def reload_units(self) -> None:
        for name in tuple(self.known):
            self.known[name].text = self._text(name)
            self._collect(name)

    def reset_failed(self, units: Sequence[str]) -> None:
        for name in units:
            unit = self.known.get(name)
            if unit is not None and unit.active == "failed":
                unit.active, unit.status = "inactive", 0
                self._collect(name)

    def start_units(self, units: Sequence[str]) -> None:
        for name in units:
            unit = self._read(name)
            if unit is None or unit.text is None:
                raise ToolError(f"Failed to start {name}: Unit {name} not found.")
            if unit.active in {"active", "activating"}:
                continue
            self.started.append(name)
            self.ran[name] = unit.text
            self._begin(unit)
            self._collect(name)

    def run_unit(self, unit: str) -> None:
        self.start_units((unit,))
        if unit == LOG_UNIT and Path("/var/log") in self.mounts:
            self.files[Path("/run/systemd/journal/flushed")] = (b"", 0o644)

    def stop_units(self, units: Sequence[str]) -> None:
        for name in units:
            unit = self._read(name)
            if unit is None or unit.text is None:
                raise ToolError(f"Failed to stop {name}: Unit {name} not loaded.")
            if unit.active != "failed":
                unit.active, unit.pid = "inactive", 0
            self._collect(name)

    def show_units(self, units: Sequence[str]) -> tuple[UnitState, ...]:
        return tuple(self._show(name) for name in units)

    def fail(self, name: str, status: int = 1) -> None:
        """Let a unit that runs fail for good."""
        unit = self.known[name]
        unit.active, unit.pid, unit.status = "failed", 0, status

    def end(self, name: str) -> None:
        """Let a unit that runs come to its end."""
        self.known[name].active, self.known[name].pid = "inactive", 0
        self._collect(name)

    def _begin(self, unit: MemoryUnit) -> None:
        program = (unit.text or "").partition("ExecStart=:")[2].split("\n")[0].split(" ")[0]
        unit.pid, unit.status = 0, 0
        if program == "/usr/bin/false":
            unit.active, unit.status = "failed", 1
        elif program == "/usr/bin/true":
            unit.active = "inactive"
        else:
            unit.active, unit.pid = "active", next(self._numbers)

    def _show(self, name: str) -> UnitState:
        unit = self._read(name) or MemoryUnit()
        stale = unit.text is not None and self._text(name) != unit.text
        state = UnitState(
            name=name,
            load="loaded" if unit.text is not None else "not-found",
            active=unit.active,
            sub={"active": "running", "failed": "failed"}.get(unit.active, "dead"),
            result="exit-code" if unit.active == "failed" else "success",
            restarts=unit.restarts,
            main_pid=unit.pid,
            exit_code="1" if unit.status else "0",
            exit_status=unit.status,
            stale=stale,
        )
        self._collect(name)
        return state

    def _read(self, name: str) -> MemoryUnit | None:
        """Return the unit, read now if systemd has not got it."""
        text = self._text(name)
        if name not in self.known and text is not None:
            self.known[name] = MemoryUnit(text)
        return self.known.get(name)

    def _collect(self, name: str) -> None:
        """Forget a unit that does nothing, as systemd does."""
        unit = self.known.get(name)
        if unit is not None and unit.active == "inactive":
            del self.known[name]

    def _text(self, name: str) -> str | None:
        found = self.files.get(self.unit_folder / name)
        return found[0].decode() if found is not None else _SHIPPED.get(name)

    def _layer_of(self, source: str) -> str:
        name = Path(source).name
        if self.layers.get(name) != Path(source):
            raise MissingError(f"{source} does not exist")
        return name

    def _owners(self, path: Path) -> dict[str, tuple[int, int]]:
        found = self.mounts.get(path.parent)
        if found is None or found.disk is None:
            raise FileNotFoundError(f"{path.parent} is no volume")
        return found.disk.owners

    def _folder(self, path: Path) -> None:
        if path not in self.made:
            raise MissingError(f"{path} does not exist")

    def _names(self, folder: Path) -> tuple[str, ...]:
        # As text: of a path, a parent is made anew for every question.
        pairs = (str(path).rpartition("/") for path in (*self.files, *self.made))
        return tuple(sorted({name for parent, _, name in pairs if parent == str(folder)}))


def _bounded(data: bytes | None, limit: int, name: str) -> bytes | None:
    if data is not None and len(data) > limit:
        raise DocumentError(name, [Fault("", 0, f"is larger than {limit} bytes")])
    return data
