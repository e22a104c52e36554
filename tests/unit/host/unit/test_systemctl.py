from __future__ import annotations

import pytest

from machineos.core.command import Command
from machineos.errors import ToolError
from machineos.host.unit import systemctl
from machineos.host.unit.systemctl import UnitState

# In the form of systemctl show: a unit that runs, one that failed, one that is unknown.
SHOW = """\
Result=success
NRestarts=2
ExecMainCode=0
ExecMainStatus=0
MainPID=412
Id=machineos-zot.service
LoadState=loaded
ActiveState=active
SubState=running

Result=exit-code
NRestarts=5
ExecMainCode=1
ExecMainStatus=127
MainPID=0
Id=machineos-bad.service
LoadState=loaded
ActiveState=failed
SubState=failed

Result=success
NRestarts=0
ExecMainCode=0
ExecMainStatus=0
MainPID=0
Id=machineos-none.service
LoadState=not-found
ActiveState=inactive
SubState=dead
"""


def test_show_of_several_units() -> None:
    assert systemctl.parse_show(SHOW) == {
        "machineos-zot.service": UnitState(
            "machineos-zot.service", "loaded", "active", "running", "success", 2, 412, "0", 0
        ),
        "machineos-bad.service": UnitState(
            "machineos-bad.service", "loaded", "failed", "failed", "exit-code", 5, 0, "1", 127
        ),
        "machineos-none.service": UnitState(
            "machineos-none.service", "not-found", "inactive", "dead", "success", 0, 0, "0", 0
        ),
    }
    assert systemctl.parse_show("\n") == {}


def test_a_unit_whose_file_is_newer() -> None:
    text = "Id=a\nLoadState=loaded\nActiveState=active\nSubState=running\nNeedDaemonReload="
    assert systemctl.parse_show(f"{text}yes\n")["a"].stale
    assert not systemctl.parse_show(f"{text}no\n")["a"].stale


def test_what_systemd_leaves_out_is_nothing() -> None:
    text = "Id=a\nLoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=\nMainPID=\n"
    assert systemctl.parse_show(text) == {
        "a": UnitState("a", "loaded", "active", "running", "", 0, 0, "", 0)
    }


@pytest.mark.parametrize(
    "text",
    [
        "Id=x.service\n",
        "LoadState=loaded\nActiveState=active\nSubState=running\n",
        "Id=a\nLoadState=loaded\nActiveState=active\nSubState=running\nMainPID=x\n",
    ],
)
def test_another_shape(text: str) -> None:
    with pytest.raises(ToolError, match=r"systemctl show: cannot read '"):
        systemctl.parse_show(text)


def test_the_commands() -> None:
    units = ("a.service", "b.service")
    assert Command(("systemctl", "daemon-reload"), 60.0) == systemctl.RELOAD
    started = ("systemctl", "start", "--no-block", "--", *units)
    assert systemctl.start(units) == Command(started, 60.0)
    assert systemctl.stop(units) == Command(("systemctl", "stop", "--", *units), 120.0)
    reset = ("systemctl", "reset-failed", "--", *units)
    assert systemctl.reset_failed(units) == Command(reset, 60.0, success=None)
    wanted = (
        "--property=Id,LoadState,ActiveState,SubState,Result,NRestarts,NeedDaemonReload,"
        "MainPID,ExecMainStatus,ExecMainCode"
    )
    shown = ("systemctl", "show", wanted, "--", *units)
    assert systemctl.show(units) == Command(shown, 60.0)
