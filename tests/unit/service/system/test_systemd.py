"""The part of the contract that is systemd's, by a real one: this machine's own /usr, booted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from machineos.core.run import run
from machineos.host.unit.unitfile import exec_line

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[4]

pytestmark = [pytest.mark.system, pytest.mark.tool("systemd-nspawn")]


def boot(argv: Sequence[str], base: Path, result: Path) -> str:
    """Boot a systemd that runs one program and ends with it; return what that wrote."""
    units = base / "units"
    units.mkdir()
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
    (units / "contract-run.service").write_text(text)
    shown = {ROOT, Path(sys.prefix), Path(sys.base_prefix)}
    binds = [f"--bind-ro={path}" for path in sorted(shown) if not path.is_relative_to("/usr")]
    ended = run(
        [
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--link-journal=no",
            "--directory=/", "--volatile=yes", "--private-network", "--console=read-only", *binds,
            f"--bind={result}:/result", f"--bind-ro={units}:/etc/systemd/system", "--boot",
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
