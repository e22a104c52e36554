"""Places on the real kernel: folders that containers can reach, and what was left is taken away."""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contracts.linux import FileVolumes
from fakes.units import ProcessUnits
from machineos.host.kernel import mount
from unit.service.system.containers import Bed
from unit.service.system.machine import Machine, running_machine
from unit.service.system.store import Store, make_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder not below pytest's own, which only root can enter: containers have to."""
    with tempfile.TemporaryDirectory(prefix="machineos-test-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        try:
            yield folder
        finally:
            for left in reversed(mounts_below(folder)):
                mount.unmount(left.target, lazy=True)


@pytest.fixture
def own_network() -> Iterator[None]:
    """This thread, and all that it starts, in a network namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert libc.setns(before, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(before)


def mounts_below(folder: Path) -> list[mount.Mount]:
    """Return what is mounted below a folder, oldest first."""
    return [each for each in mount.mounts() if each.target.is_relative_to(folder)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty image store."""
    return Store(tmp_path / "store")


@pytest.fixture
def busybox_tree(tmp_path: Path) -> Path:
    """A root with one program."""
    return make_tree(tmp_path / "tree")


@pytest.fixture
def bed(base: Path, store: Store) -> Iterator[Bed]:
    """Managers of real containers."""
    for name in ("units", "log"):
        (base / name).mkdir()
    volumes = FileVolumes(base / "volumes", base / "dev")
    result = Bed(base, store, ProcessUnits(base / "units", base / "log"), volumes)
    try:
        yield result
        result.manager().reconcile()
        left = [each.target for each in mounts_below(base)]
        assert [each for each in left if not each.is_relative_to(result.folders.data)] == []
        assert result.layers.devices == {}
        assert list((base / "units").iterdir()) == []
        assert list(result.folders.lxc.iterdir()) == []
    finally:
        result.units.stop([name for name in result.units.processes if result.units.loaded[name]])
        for process in result.units.processes.values():
            process.kill()
        for device in result.layers.devices.values():
            device.close()
        volumes.close()


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A small machine in network namespaces."""
    with running_machine() as made:
        yield made
