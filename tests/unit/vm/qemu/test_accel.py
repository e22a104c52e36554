"""The accelerator is found by running a guest; the answer is kept for this boot."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from machineos.host.virt import qemu
from machineos.vm.qemu.accel import find_accelerator
from machineos.vm.qemu.accelerator import (
    Accelerator,
    probed,
    remembered,
    to_remember,
)
from machineos.vm.qemu.process import boot_id

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


def test_what_the_kept_answer_cannot_be() -> None:
    def kept(text: bytes) -> Accelerator | None:
        return remembered(text, boot="b", uid=7, name="kept")

    good = to_remember(Accelerator("tcg", "slow"), boot="b", uid=7)
    assert kept(good) == Accelerator("tcg", "slow")
    assert remembered(good, boot="c", uid=7, name="kept") is None
    assert remembered(good, boot="b", uid=8, name="kept") is None
    assert kept(b"") is None
    assert kept(good.replace(b"tcg", b"xen")) is None


def test_a_probe_says_nothing_or_why_not() -> None:
    assert probed("") == Accelerator("kvm")
    assert probed("it hangs") == Accelerator("tcg", "it hangs")


def test_a_missing_permission_is_not_remembered() -> None:
    assert not Accelerator("tcg", "Could not access KVM: Permission denied").lasting
    assert Accelerator("tcg", "it hangs").lasting
    assert Accelerator("kvm").lasting


def test_notice_is_one_line_for_emulation_only() -> None:
    assert Accelerator("kvm").notice == ""
    assert Accelerator("tcg").notice == ""
    notice = Accelerator("tcg", "it hangs").notice
    assert "it hangs" in notice
    assert "\n" not in notice
