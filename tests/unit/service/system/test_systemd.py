"""The part of the contract that is systemd's, by a real one: this machine's own /usr, booted."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from machineos.core.run import run
from machineos.host.unit.unitfile import exec_line
from machineos.service.plan import unit
from unit.service.plan.cases import PLAIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[4]
HOSTFS = ROOT / "src/machineos/build/os/hostfs/systemd"

pytestmark = [pytest.mark.system, pytest.mark.tool("systemd-nspawn")]


def boot(
    argv: Sequence[str],
    base: Path,
    result: Path,
    *,
    units: Mapping[str, str] | None = None,
    root: Path | None = None,
) -> str:
    """Boot a systemd that runs one program and ends with it; return what that wrote.

    ``units`` and those in the folder ``root`` are there besides the machine's own.
    """
    there = base / "units"
    if root is None:
        there.mkdir()
    else:
        shutil.copytree(root, there)
    for name, written in (units or {}).items():
        (there / name).write_text(written)
    command = exec_line(["/usr/bin/env", f"PYTHONPATH={ROOT}/src:{ROOT}/tests", *argv])
    text = f"""\
[Unit]
DefaultDependencies=no
SuccessAction=exit
FailureAction=exit

[Service]
Type=oneshot
ExecStart={command}
StandardOutput=file:/result/output
StandardError=inherit
"""
    (there / "contract-run.service").write_text(text)
    shown = {ROOT, Path(sys.prefix), Path(sys.base_prefix)}
    binds = [f"--bind-ro={path}" for path in sorted(shown) if not path.is_relative_to("/usr")]
    ended = run(
        [
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--link-journal=no",
            "--directory=/", "--volatile=yes", "--private-network", "--console=read-only", *binds,
            f"--bind={result}:/result", f"--bind-ro={there}:/etc/systemd/system", "--boot",
            "systemd.unit=contract-run.service", "systemd.show_status=no",
        ],
        timeout=600,
        check=False,
    )  # fmt: skip
    output = result / "output"
    said = output.read_text() if output.exists() else ""
    assert ended.status == 0, said + ended.text[-2000:] + ended.stderr.decode()[-2000:]
    return said


def test_systemd_keeps_the_contract(tmp_path: Path) -> None:
    result = tmp_path / "result"
    result.mkdir()
    said = boot(
        [sys.executable, "-m", "contracts.here", "units", "/tmp/contract"], tmp_path, result
    )
    assert said == "0 failed\n"


# What is asked of the units of the root, and of two that mosd writes.
LOCKED = ("MemoryDenyWriteExecute", "LockPersonality")
OWN = ("mosd", "dbus", "systemd-journald", "systemd-logind", "systemd-networkd",
       "systemd-resolved", "systemd-udevd")  # fmt: skip


def test_what_systemd_makes_of_the_units_of_the_root(tmp_path: Path) -> None:
    """Files that add to units override each other by name: what holds in the end is asked."""
    names = [
        *(f"{name}.service" for name in OWN),
        "systemd-tmpfiles-setup.service",
        "machineos-modules.service",
        "machineos-install.service",
        "machineos-debug-console.service",
        "machineos-web.service",
        "machineos-my-web.service",
        "system.slice",
        "machineos.slice",
    ]
    result = tmp_path / "result"
    result.mkdir()
    written = unit.render(PLAIN, ["/usr/bin/lxc-start"])
    keys = (*LOCKED, "Id", "LoadState", "OOMScoreAdjust", "MemoryMin", "MemoryMax", "OOMPolicy",
            "SyslogLevelPrefix", "Delegate", "LogRateLimitBurst")  # fmt: skip
    said = boot(
        ["/usr/bin/systemctl", "show", f"--property={','.join(keys)}", *names],
        tmp_path,
        result,
        units={"machineos-web.service": written, "machineos-my-web.service": written},
        root=HOSTFS,
    )
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines()) for block in said.split("\n\n")
    ]
    found = {block["Id"]: block for block in blocks}
    assert found.keys() == {*names}
    # Not every machine has each of Debian's.
    found = {name: each for name, each in found.items() if each["LoadState"] == "loaded"}
    assert {f"{name}.service" for name in ("mosd", "systemd-udevd")} <= found.keys()
    services = {name: each for name, each in found.items() if name.endswith(".service")}
    locked = {name: tuple(each[key] for key in LOCKED) for name, each in services.items()}
    assert locked.pop("machineos-debug-console.service") == ("no", "no")
    assert {locked.pop(name) for name in ("machineos-web.service", "machineos-my-web.service")} == {
        ("yes", "no")  # the second is a filter, below which LXC may load none
    }
    assert set(locked.values()) == {("yes", "yes")}, locked
    scores = {
        name: int(each["OOMScoreAdjust"])
        for name, each in services.items()
        if name.removesuffix(".service") in OWN
    }
    assert {name for name, score in scores.items() if score > -900} == set()
    assert found["machineos-web.service"]["OOMScoreAdjust"] == "0"
    assert found["system.slice"]["MemoryMin"] == str(128 << 20)
    one, together = (
        int(found[name]["MemoryMax"]) for name in ("machineos-web.service", "machineos.slice")
    )
    assert 0 < one < together < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    web = found["machineos-web.service"]
    assert (web["OOMPolicy"], web["SyslogLevelPrefix"], web["Delegate"]) == ("kill", "no", "yes")
    assert web["LogRateLimitBurst"] == "1000"
