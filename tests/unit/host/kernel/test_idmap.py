"""User namespaces by a helper process: nothing of it depends on how many threads we have."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from machineos.core.idrange import IdRange
from machineos.errors import MissingToolError, ToolError
from machineos.host.kernel import mount
from machineos.host.kernel.idmap import PROGRAM, user_namespace

IDS = IdRange(165536, 65536)


def children() -> set[int]:
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@pytest.mark.root
def test_an_idmapped_mount_is_made_beside_a_second_thread(tmp_path: Path) -> None:
    """A fork would have copied one thread of two, and whatever lock the other one held."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    try:
        mount.mount("tmpfs", tmp_path / "a", "tmpfs")
        os.chown(tmp_path / "a", 5, 7)
        assert threading.active_count() > 1
        with user_namespace(IDS) as namespace:
            mount.clone_idmapped(tmp_path / "a", tmp_path / "b", namespace, read_only=True)
        status = (tmp_path / "b").stat()
        assert (status.st_uid, status.st_gid) == (165541, 165543)
    finally:
        end.set()
        other.join()
        for name in ("b", "a"):
            if mount.is_mounted(tmp_path / name):
                mount.unmount(tmp_path / name)


@pytest.mark.root
def test_nothing_is_left_behind() -> None:
    before = (children(), descriptors())
    with user_namespace(IDS) as namespace:
        made = Path(f"/proc/self/fd/{namespace}").readlink()
        assert str(made).startswith("user:[")
        assert made != Path("/proc/self/ns/user").readlink()
        assert children() == before[0]
        assert not os.get_inheritable(namespace)
    assert (children(), descriptors()) == before


@pytest.mark.parametrize(
    ("program", "error", "text"),
    [
        (("sh", "-c", "echo not permitted >&2"), ToolError, "user namespace: not permitted"),
        (("true",), ToolError, "user namespace: its program has ended"),
        (("no-such-program",), MissingToolError, "no-such-program is not installed"),
    ],
)
def test_a_refusal_is_said_and_leaves_nothing(
    program: tuple[str, ...], error: type[Exception], text: str
) -> None:
    before = (children(), descriptors())
    with pytest.raises(error) as caught, user_namespace(IDS, program=program):
        pytest.fail("it was made")
    assert str(caught.value) == text
    assert (children(), descriptors()) == before


def test_a_map_that_the_kernel_refuses() -> None:
    """cat alone stays in our own namespace, whose map is written already."""
    with (
        pytest.raises(ToolError, match=r"user namespace 165536\+65536: "),
        user_namespace(IDS, program=PROGRAM[-1:]),
    ):
        pytest.fail("it was made")
