from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from machineos.build.recipe.sandbox import run_script
from machineos.build.recipe.script import Script
from machineos.core.run import find
from machineos.errors import ArchiveError, ToolError, ToolTimeoutError, UsageError
from machineos.host.kernel.mount import Flag, mount, unmount
from machineos.host.pack.caller import container_ids
from waiting import PATIENCE, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = [pytest.mark.system, pytest.mark.tool("slirp4netns"), pytest.mark.tool("busybox")]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with a static shell and its tools."""
    tree = tmp_path / "root"
    (tree / "bin").mkdir(parents=True)
    shutil.copy(str(find("busybox")), tree / "bin/busybox")
    for name in (
        "sh",
        "cat",
        "ls",
        "mkdir",
        "mknod",
        "mount",
        "chown",
        "sleep",
        "id",
        "ip",
        "wc",
        "mv",
        "ln",
    ):
        (tree / "bin" / name).symlink_to("busybox")
    (tmp_path / "seen/imports").mkdir(parents=True)
    (tmp_path / "seen/imports/hello").write_text("hi")
    own(tree)
    return tree


def own(tree: Path) -> None:
    """Give a tree to the root of a container."""
    ids = container_ids("a test")
    for path in (tree, *tree.rglob("*")):
        os.chown(path, ids.uid, ids.gid, follow_symlinks=False)


def script(
    root: Path,
    text: str,
    *,
    network: bool = True,
    timeout: float = PATIENCE,
    proxies: Mapping[str, str] | None = None,
) -> str:
    log = root.parent / "log"
    try:
        run_script(
            Script(text, "test", network=network, timeout=timeout),
            root,
            root.parent / "seen",
            environment={"GIVEN": "value"},
            proxies=proxies,
            log=log,
            ids=container_ids("a test"),
        )
    finally:
        # Nothing of ours; other tests mount what they like meanwhile.
        assert str(root.parent) not in Path("/proc/self/mountinfo").read_text()
    return log.read_text()


def test_a_script_sees_its_imports_and_writes_its_root(root: Path) -> None:
    said = script(root, "cat /stacker/imports/hello > /made\necho $GIVEN-$HOME\n")
    assert (root / "made").read_text() == "hi"
    assert "value-/root" in said
    assert names(root) == ["bin", "made"]


def test_a_script_that_moves_etc_touches_nothing_outside(root: Path, tmp_path: Path) -> None:
    """What was put there for it is taken away again: not by name, which now leads elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "resolv.conf").write_text("the host's")
    (root / "etc").mkdir()
    (root / "etc/resolv.conf").write_text("the image's")
    own(root / "etc")
    script(root, f"#!/bin/sh -e\nmv /etc /moved\nln -s {elsewhere} /etc\n")
    assert (elsewhere / "resolv.conf").read_text() == "the host's"
    assert names(elsewhere) == ["resolv.conf"]
    assert (root / "etc").readlink() == elsewhere
    assert (root / "moved/resolv.conf").read_text() == "the image's"
    assert names(root / "moved") == ["resolv.conf"]


def test_a_script_opens_its_own_output_anew(root: Path) -> None:
    """As many scripts do, with /dev/stderr."""
    said = script(root, "#!/bin/sh -e\necho once >> /dev/stdout\necho more >> /dev/stderr\n")
    assert said == "once\nmore\n"


def test_the_first_line_chooses_the_interpreter(root: Path) -> None:
    assert "+ echo" in script(root, "echo plain\n")
    assert script(root, "#!/bin/busybox sh\necho $0\n") == "/stacker/run\n"


def test_only_five_devices(root: Path) -> None:
    said = script(root, "#!/bin/sh -e\nls /dev\necho x > /dev/null\n")
    links = {"fd", "stdin", "stdout", "stderr"}
    assert set(said.split()) == {"null", "zero", "full", "random", "urandom"} | links


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -t tmpfs x /bin",
        "mknod /disk b 254 0",
        "echo x > /stacker/imports/hello",
        "echo x > /stacker/run",
        "echo c > /proc/sysrq-trigger",
        "echo x > /proc/sys/kernel/core_pattern",
        "cat /etc/shadow",
        f"ls {Path(__file__).parent}",
        "ls /proc/1/root/../work",
    ],
)
def test_the_host_is_out_of_reach(root: Path, attempt: str) -> None:
    assert "refused" in script(root, f"#!/bin/sh\n{attempt} || echo refused\n")


def test_processes_of_the_host_are_not_seen(root: Path) -> None:
    assert script(root, "#!/bin/sh\necho $$\n").strip() == "2"


def test_the_network_can_be_taken_away(root: Path) -> None:
    command = "#!/bin/sh\ncat /proc/net/dev | wc -l\n"
    assert script(root, command, network=False).strip() == "3"


def test_the_users_proxies_are_known_where_there_is_a_network(root: Path) -> None:
    """And are in no argument, where everybody could read the password."""
    proxies = {"https_proxy": "http://me:hush@p.example:3128", "GIVEN": "of the recipe", "X": "y"}
    text = "#!/bin/sh\necho $https_proxy $GIVEN $X\ncat /proc/*/cmdline\n"
    said = script(root, text, proxies=proxies)
    assert said.startswith("http://me:hush@p.example:3128 value\n")
    assert said.count("hush") == 1
    assert script(root, text, proxies=proxies, network=False).startswith("value\n")


def test_where_no_program_may_run_it_is_said(root: Path) -> None:
    """A cache in a home that is mounted noexec."""
    shutil.rmtree(root)
    root.mkdir()
    mount("tmpfs", root, "tmpfs", Flag.NOEXEC)
    seen, log, ids = root.parent / "seen", root / "log", container_ids("a test")
    try:
        with pytest.raises(UsageError, match="is mounted noexec: no program") as caught:
            run_script(Script("true", "test"), root, seen, environment={}, log=log, ids=ids)
    finally:
        unmount(root)
    assert caught.value.hint == "--cache DIR builds in another folder"


def test_a_failure_shows_the_end_of_the_log(root: Path) -> None:
    with pytest.raises(ToolError, match="test: the script ended with status 7:\nwhat went wrong"):
        script(root, "#!/bin/sh\necho what went wrong\nexit 7\n")
    assert names(root) == ["bin"]


def test_a_failure_shows_no_escape_of_the_terminal(root: Path) -> None:
    """What a script prints is somebody else's text; the log keeps it as it was."""
    text = "#!/bin/sh\nprintf '\\033[2J\\033]0;x\\007all is well\\r\\n'\nexit 7\n"
    with pytest.raises(ToolError) as caught:
        script(root, text)
    assert caught.value.message.endswith("\n\\x1b[2J\\x1b]0;x\\x07all is well")


def runs(argument: bytes) -> bool:
    """Whether a process with this argument runs."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if argument in path.read_bytes().split(b"\0"):
                return True
    return False


def test_processes_left_behind_are_ended(root: Path) -> None:
    script(root, "#!/bin/sh\nsleep 1234567 &\n")
    wait_for(lambda: not runs(b"1234567"), what="the kernel ends what the script left")


def test_a_script_that_takes_too_long_is_ended(root: Path) -> None:
    with pytest.raises(ToolTimeoutError):
        script(root, "#!/bin/sh\nsleep 60\n", timeout=0.5)
    assert names(root) == ["bin"]


def test_an_interrupt_ends_everything(root: Path) -> None:
    def interrupt() -> None:
        wait_for(lambda: runs(b"1234568"), what="the script sleeps")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        script(root, "#!/bin/sh\nsleep 1234568\n")
    assert names(root) == ["bin"]
    wait_for(lambda: not runs(b"1234568"), what="the kernel ends what the script left")


@pytest.mark.parametrize("name", ["proc", "dev", "stacker"])
def test_mount_points_that_are_links_are_refused(root: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (root / name).symlink_to(target)
    with pytest.raises(ArchiveError, match=f"something else than a folder at /{name}"):
        script(root, "echo")
    assert list(target.iterdir()) == []


def test_the_resolver_of_the_image_comes_back(root: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc/resolv.conf").symlink_to("../run/x")
    said = script(root, "#!/bin/sh\ncat /etc/resolv.conf\n")
    assert said == "nameserver 10.0.2.3\n"
    assert (root / "etc/resolv.conf").readlink() == Path("../run/x")
    assert names(root / "etc") == ["resolv.conf"]
