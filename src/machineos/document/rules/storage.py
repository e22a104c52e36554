"""What a volume may be, and where a target may see it."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

import msgspec

from machineos.core.idrange import needs_range
from machineos.document.model.limits import MAX_DEST, MAX_STORAGE, MAX_VOLUME
from machineos.document.model.names import GroupName, Label
from machineos.document.rules.rule import DOCUMENT, Rule
from machineos.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machineos.document.model.install import Mount
    from machineos.document.rules.subject import Declaration

    Found = Iterator[tuple[str, str]]

# Names of the machine's own partitions and volumes.
RESERVED_LABELS = (
    "esp", "machine-config", "machine-data", "machine-log", "machine-mirror", "machine-scratch",
    "machine-store", "pool",
)  # fmt: skip
# What LVM keeps for its own volumes (lvm(8), "Valid names").
_LVM_STARTS = ("snapshot", "pvmove")
_LVM_PARTS = (
    "_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_imeta", "_iorig", "_mimage", "_mlog",
    "_pmspare", "_rimage", "_rmeta", "_tdata", "_tmeta", "_vdata", "_vorigin", "_wcorig",
)  # fmt: skip
# Folders that are mounted over in every container; a volume over one would hide what is there.
KERNEL_FOLDERS = ("/proc", "/sys", "/dev")
# Folders of a container that are writable and forgotten at its end, where its image has them.
SCRATCH = ("/tmp", "/run", "/var/tmp")  # noqa: S108 (paths inside the container)


class Tree(msgspec.Struct, frozen=True):
    """An image that can be looked into, and what is to be mounted in it.

    ``problem`` says of an absolute path why it is not a real folder of the image (``/x does not
    exist``, ``/x is a symbolic link``), empty when it is one.
    """

    problem: Callable[[str], str]
    mounts: tuple[Mount, ...]


def _count(declaration: Declaration) -> Found:
    if len(declaration.storage) > MAX_STORAGE:
        yield "storage", f"has more than {MAX_STORAGE} items"


def _label(declaration: Declaration) -> Found:
    for path, item in declaration.volumes():
        problem = Label.problem(item.label)
        if problem:
            yield f"{path}.label", problem


def _label_free(declaration: Declaration) -> Found:
    for path, item in declaration.volumes():
        if item.label.lower() in RESERVED_LABELS:
            message = f"{item.label!r} is reserved for the machine's own partitions"
            yield f"{path}.label", message
        elif _is_lvms(item.label):
            yield f"{path}.label", f"{item.label!r} is a name that LVM keeps for its own volumes"


def _is_lvms(label: str) -> bool:
    return label.startswith(_LVM_STARTS) or any(part in label for part in _LVM_PARTS)


def _label_once(declaration: Declaration) -> Found:
    seen: dict[str, str] = {}
    for path, item in declaration.volumes():
        # They are compared without case: they become labels of file systems.
        first = seen.setdefault(item.label.lower(), path)
        if first != path and item.label:
            yield f"{path}.label", f"{item.label!r} is the label of {first} already"


def _group(declaration: Declaration) -> Found:
    for path, item in declaration.volumes():
        problem = GroupName.problem(item.nsgroup) if item.nsgroup else ""
        if problem:
            yield f"{path}.nsgroup", problem


def _size(declaration: Declaration) -> Found:
    for path, item in declaration.volumes():
        if not 1 <= item.size <= MAX_VOLUME:
            yield f"{path}.size", f"{item.size} MiB is not between 1 MiB and 16 PiB"


def _mount_kind(declaration: Declaration) -> Found:
    for path, target in declaration.each():
        if target.storage and target.kind != "container":
            yield f"{path}.storage", f"a {target.kind} target mounts no storage"


def _mount_label(declaration: Declaration) -> Found:
    for path, _, mount in declaration.mounts():
        problem = Label.problem(mount.label)
        if problem:
            yield f"{path}.label", problem


def _mount_known(declaration: Declaration) -> Found:
    # A partial update may mount what an earlier manifest brought: judged when they are merged.
    if not declaration.complete:
        return
    known = {item.label for item in declaration.storage}
    for path, _, mount in declaration.mounts():
        if mount.label not in known:
            yield f"{path}.label", f"{mount.label!r:.80} is not the label of a storage item"


def group_problem(label: str, owner: str, group: str) -> str:
    """Return why services of ``group`` may not mount the volume ``label``, empty when they may.

    ``owner`` is the group that the volume names; one that names none is there for all.
    """
    if not owner or owner == group or not (needs_range(owner) or needs_range(group)):
        return ""
    return f"{label!r:.80} is a volume of nsgroup {owner!r:.80}, not of {group!r:.80}"


def _mount_group(declaration: Declaration) -> Found:
    owners = {item.label: item.nsgroup for item in declaration.storage}
    for path, target, mount in declaration.mounts():
        if target.nsgroup and GroupName.problem(target.nsgroup):
            continue  # which is said where it stands
        problem = group_problem(mount.label, owners.get(mount.label, ""), target.nsgroup)
        if problem:
            yield f"{path}.label", problem


def _dest(declaration: Declaration) -> Found:
    for path, _, mount in declaration.mounts():
        problem = _path_problem(mount.dest)
        if problem:
            yield f"{path}.dest", problem


def _path_problem(dest: str) -> str:
    if not dest:
        return "is missing or empty"
    if not dest.startswith("/"):
        return f"{dest!r:.80} is not an absolute path"
    if len(dest) > MAX_DEST or not dest.isascii() or not dest.isprintable() or " " in dest:
        return f"{dest!r:.80} is too long or holds white space or odd characters"
    if dest == "/" or dest.startswith("//") or posixpath.normpath(dest) != dest:
        return f"{dest!r:.80} is not the plain path of a folder below /"
    return ""


def _dest_kernel(declaration: Declaration) -> Found:
    for path, _, mount in declaration.mounts():
        for folder in KERNEL_FOLDERS:
            if mount.dest == folder or mount.dest.startswith(f"{folder}/"):
                message = f"{mount.dest!r:.80} is in {folder}, which belongs to the kernel"
                yield f"{path}.dest", message


def _dest_once(declaration: Declaration) -> Found:
    seen: dict[tuple[str, str], str] = {}
    for path, target in declaration.each():
        for index, mount in enumerate(target.storage):
            where = f"{path}.storage[{index}]"
            first = seen.setdefault((path, mount.dest), where)
            if first != where and mount.dest:
                yield f"{where}.dest", f"{mount.dest!r:.80} is taken by {first} already"


def _folders(tree: Tree) -> Found:
    scratch = []
    for path in SCRATCH:
        problem = tree.problem(path)
        if not problem:
            scratch.append(path)
        elif not problem.endswith("does not exist"):
            yield "", f"nothing can be mounted at {path}: {problem}"
    inside = [mount.dest for mount in tree.mounts if not _below(mount.dest, scratch)]
    for path in (*KERNEL_FOLDERS, *inside):
        problem = tree.problem(path)
        if problem:
            yield "", f"nothing can be mounted at {path}: {problem}"


def _below(path: str, folders: list[str]) -> bool:
    return any(path.startswith(f"{folder}/") for folder in folders)


BOUNDS: tuple[Rule[Declaration], ...] = (
    Rule("storage-count", f"A manifest has at most {MAX_STORAGE} volumes.", DOCUMENT, _count),
)
RULES: tuple[Rule[Declaration], ...] = (
    Rule("storage-label", "A volume has a label that a file system can have.", DOCUMENT, _label),
    Rule(
        "storage-label-free",
        "A volume is not called as a partition of the machine's own.",
        DOCUMENT,
        _label_free,
    ),
    Rule(
        "storage-label-once", "No two volumes have the same label, in any case.", DOCUMENT,
        _label_once,
    ),
    Rule("storage-group", "An nsgroup has a name that can be a file name.", DOCUMENT, _group),
    Rule("storage-size", "A volume is between 1 MiB and 16 PiB.", DOCUMENT, _size),
    Rule("mount-kind", "Only a container mounts volumes.", DOCUMENT, _mount_kind),
    Rule("mount-label", "A mount names a label.", DOCUMENT, _mount_label),
    Rule("mount-known", "A complete manifest has the volumes it mounts.", DOCUMENT, _mount_known),
    Rule(
        "mount-group",
        "A volume that names an nsgroup is mounted by its services only.",
        DOCUMENT,
        _mount_group,
    ),
    Rule("mount-dest", "A volume is seen at a plain path below /.", DOCUMENT, _dest),
    Rule("mount-kernel", "No volume hides /proc, /sys or /dev.", DOCUMENT, _dest_kernel),
    Rule("mount-once", "A target has one volume at one path.", DOCUMENT, _dest_once),
)  # fmt: skip

# An image has to be looked into for this.
FOLDERS: Rule[Tree] = Rule(
    "image-folders",
    "An image has a real folder wherever something is mounted in it.",
    ("publish", "verify", "mosd"),
    _folders,
    ArchiveError,
    "the image must have a real folder there",
)
