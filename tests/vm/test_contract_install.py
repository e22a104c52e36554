"""The contract of the installer's host, all of it, in a guest: GPT, FAT, LUKS, LVM, the firmware.

The clauses are those of ``tests/contracts``, which the machine in memory keeps too. They run in the
running appliance, with its programs, on its spare disk and on loop devices; its own configuration
volume is taken away first, for the name of the new one is the same.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from contracts.install import CLAUSES, clauses
from vm.guest import Guest
from vm.test_door import whole_package

TESTS = Path(__file__).resolve().parent.parent
SENT = (
    "contracts/__init__.py", "contracts/install.py", "contracts/machine.py", "fakes/__init__.py",
    "fakes/disk.py", "unit/__init__.py", "unit/oci/__init__.py", "unit/oci/samples.py",
)  # fmt: skip
DISK = "/dev/vdb"
RUN = f"""
import json, shutil, sys, traceback
from pathlib import Path
sys.path[:0] = ["/run/package.zip", "/run/contracts.zip"]
from contracts.install import CLAUSES, clauses
from contracts.machine import RealMachine

base = Path("/dev/shm/contract")
outcomes = {{}}
for clause in clauses(CLAUSES):
    base.mkdir()
    machine = RealMachine(base, esp="vfat", disk=Path({DISK!r}))
    try:
        clause(machine)
        outcomes[clause.__name__] = ""
    except BaseException:
        outcomes[clause.__name__] = traceback.format_exc()[-2000:]
    finally:
        machine.close()
        shutil.rmtree(base)
print("outcomes", json.dumps(outcomes))
"""


def whole_contract() -> bytes:
    """Return the contract and what it needs as a zip that Python can import from."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in SENT:
            archive.write(TESTS / name, name)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def outcomes(spoiled: Guest) -> dict[str, str]:
    """How each clause ended, all of them in one go: empty, or the end of its trace."""
    spoiled.put(whole_package(), "/run/package.zip")
    spoiled.put(whole_contract(), "/run/contracts.zip")
    spoiled.put(RUN.encode(), "/run/contract.py")
    for module in ("vfat", "loop", "dm-crypt", "dm-integrity", "authenc"):
        spoiled.sh(f"modprobe -q {module}")
    spoiled.must("umount /config && cryptsetup close machine-config")
    # The keys of root are linked to the session that systemd gives a unit, not to the console's.
    unit = "systemd-run --quiet --pipe --wait -p KeyringMode=shared"
    done = spoiled.sh(f"{unit} python3 /run/contract.py 2>&1", timeout=600)
    assert done, done.output
    found = [line for line in done.output.splitlines() if line.startswith("outcomes ")]
    assert found, done.output
    ended: dict[str, str] = json.loads(found[0].removeprefix("outcomes "))
    return ended


@pytest.mark.parametrize("clause", [clause.__name__ for clause in clauses(CLAUSES)])
def test_the_appliance_keeps_it(outcomes: dict[str, str], clause: str) -> None:
    assert outcomes[clause] == "", outcomes[clause]
