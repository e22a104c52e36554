"""The contract of the host that services run on, on the appliance itself.

What the machine in memory of the unit tests does is what kernel, systemd, LVM and nft of the
appliance do: the same checks run there, by mosd's own code, in folders and with a volume of their
own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.linux import build_image
from vm.guest import BOOT, Guest

TESTS = Path(__file__).resolve().parents[1]
FOLDER = "/run/contract"
FILES = (
    "contracts/__init__.py", "contracts/here.py", "contracts/linux.py", "contracts/place.py",
    "contracts/service.py",
    "waiting.py",
)  # fmt: skip

pytestmark = pytest.mark.tool("mksquashfs")


def test_the_appliance_keeps_the_contract(fresh: Guest, tmp_path: Path) -> None:
    fresh.must(f"mkdir -p {FOLDER}/contracts")
    for name in FILES:
        fresh.put((TESTS / name).read_bytes(), f"{FOLDER}/{name}")
    fresh.put(build_image(tmp_path), f"{FOLDER}/image")
    run = f"PYTHONPATH={FOLDER} python3 -m contracts.here all {FOLDER}/base {FOLDER}/image"
    done = fresh.sh(f"{run} 2>&1", BOOT)
    assert done.output.endswith("0 failed"), done.output
    assert done.status == 0
