"""The accelerator is found by running a guest; the answer is kept for this boot."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from machineos.host.virt import qemu
from machineos.vm.accel import Accelerator, boot_id, find_accelerator

TOOL = pytest.mark.tool(qemu.PROGRAM)


def keep(folder: Path, **changes: object) -> None:
    answer = {"boot": boot_id(), "uid": os.getuid(), "kind": "kvm", "reason": ""} | changes
    (folder / "accelerator.json").write_text(json.dumps(answer))


def test_kept_answer_is_used(tmp_path: Path) -> None:
    keep(tmp_path)
    assert find_accelerator(tmp_path, deadline=0) == Accelerator("kvm")
    keep(tmp_path, kind="tcg", reason="slow")
    assert find_accelerator(tmp_path, deadline=0) == Accelerator("tcg", "slow")


@TOOL
@pytest.mark.parametrize("changes", [{"boot": "other"}, {"uid": -1}, {"kind": "xen"}, {"x": 1}])
def test_another_boot_or_a_damaged_answer_is_probed_again(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    keep(tmp_path, reason="left over", **changes)
    found = find_accelerator(tmp_path, deadline=0.01)  # nothing boots that fast
    assert found.kind == "tcg"
    assert found.reason != "left over"


def test_notice_is_one_line_for_emulation_only() -> None:
    assert Accelerator("kvm").notice == ""
    assert Accelerator("tcg").notice == ""
    notice = Accelerator("tcg", "it hangs").notice
    assert "it hangs" in notice
    assert "\n" not in notice
