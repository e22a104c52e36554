"""The first moments on a real kernel, in namespaces and a root of their own; and the way to the
end of PID 1, as far as nothing is switched off."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from machineos.boot.bringup import BringUp
from machineos.core.run import run
from machineos.document.between.bootsettings import FOLDER
from waiting import PATIENCE

# Imported before the root is changed: afterwards there is no Python any more.
FIRST = """
import json, os, signal, sys, time
from pathlib import Path
from machineos.boot.bringup import BringUp
from machineos.host.kernel.mount import mounts
os.chroot(sys.argv[1])
os.chdir("/")
Path("/run").mkdir()  # some are in the initrd already
first = BringUp()
first.mount_pseudo()
first.ignore_signals()
three = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ignored = [signal.getsignal(number) is signal.SIG_IGN for number in three]
rows = {str(m.target): [m.fstype, sorted(m.options)] for m in mounts()}
modes = {name: oct(os.stat("/" + name).st_mode & 0o7777) for name in ("dev", "run")}
print(json.dumps([rows, ignored, first.read_command_line(), modes]))
"""


@pytest.mark.system
def test_the_kernels_own_file_systems(tmp_path: Path) -> None:
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private",
            sys.executable, "-c", FIRST, tmp_path]  # fmt: skip
    env = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    result = run([str(one) for one in argv], timeout=PATIENCE, env=env, check=False)
    if b"No such device" in result.stderr or b"not permitted" in result.stderr:
        pytest.skip(f"not in this container: {result.stderr.decode().splitlines()[-1]}")
    assert result.status == 0, result.stderr.decode()
    rows, ignored, line, modes = json.loads(result.text)
    safe = {"rw", "nosuid", "nodev", "noexec", "relatime"}
    for target, kind, options in (
        ("/proc", "proc", safe),
        ("/sys", "sysfs", safe),
        ("/sys/kernel/security", "securityfs", safe),
        ("/dev", "devtmpfs", safe - {"nodev", "noexec"}),
        ("/run", "tmpfs", safe - {"noexec"}),
    ):
        assert (target, rows[target][0], set(rows[target][1])) == (target, kind, options)
    assert ignored == [True] * 3
    assert line == Path("/proc/cmdline").read_text().strip()
    assert modes == {"dev": "0o755", "run": "0o755"}


def test_the_settings_are_where_the_builder_puts_them() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        BringUp().read_settings()
    assert caught.value.filename == str(FOLDER / "settings.json")
    assert str(FOLDER) == "/usr/lib/machineos/boot"


def test_it_sleeps_and_is_woken_by_nobody() -> None:
    before = signal.getsignal(signal.SIGTERM)
    BringUp().sleep(0.0)
    assert signal.getsignal(signal.SIGTERM) is before
