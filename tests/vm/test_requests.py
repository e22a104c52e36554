"""What root leaves behind, and the next boot: requests in the configuration volume, read by a real
initrd, and what would bring root back."""

from __future__ import annotations

import pytest

from vm.guest import Guest

ASK = r"""
import json
from pathlib import Path
folder = Path("/config/requests")
folder.mkdir()
index = json.loads(Path("/run/machineos/boot.json").read_text())["generation"]
targets = json.loads(Path(f"/config/{index}.json").read_text())["targets"]
(digest,) = [one["digest"] for one in targets if one["service_name"] == "bootkit"]
good = {"version": 1, "kind": "raise-floor", "object": digest}
worst = {
    "value": good | {"value": "9999"},
    "kind": good | {"kind": "seal-anew"},
    "object": good | {"object": "sha256:" + "ab" * 32},
    "good": good,
}
for name, request in worst.items():
    (folder / f"{name}.json").write_text(json.dumps(request))
"""
# A unit and a rule that would run, a generator, and files wherever root can write some.
LEFT = ("/etc/left", "/var/lib/left", "/config/left", "/atomfs-store/left")
LEAVE = r"""
import os, subprocess
from pathlib import Path
unit = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo ran > /run/left'\n"
Path("/etc/systemd/system/left.service").write_text(unit + "[Install]\nWantedBy=basic.target\n")
subprocess.run(["systemctl", "enable", "left.service"], check=True)
Path("/etc/udev/rules.d").mkdir(exist_ok=True)
rule = 'SUBSYSTEM=="block", RUN+="/bin/sh -c \'echo ran > /run/left\'"\n'
Path("/etc/udev/rules.d/00-left.rules").write_text(rule)
for name in LEFT:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("left\n")
subprocess.run(["systemctl", "start", "left.service"], check=True)
print(Path("/run/left").read_text())
"""


@pytest.fixture(scope="module")
def rebooted(spoiled: Guest) -> Guest:
    """The appliance after root wrote what it likes, past the mounts, and started it again."""
    options = spoiled.must("findmnt -n -o OPTIONS /config").split(",")
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options)
    spoiled.must("mount -o remount,rw /config; mount -o remount,rw /atomfs-store")
    spoiled.python(ASK)
    assert spoiled.python(LEAVE.replace("LEFT", repr(LEFT))).endswith("ran"), "the unit works"
    spoiled.must("sync; mount -o remount,ro /config; mount -o remount,ro /atomfs-store")
    spoiled.reboot()
    spoiled.wait_answer()
    spoiled.wake()
    return spoiled


def test_what_root_asks_for_is_told_and_changes_nothing(rebooted: Guest) -> None:
    """Root writes into the volume, past its mount: the next boot reads that between the doors. The
    good request reads the kernel image in the bootkit, whose version is that of the floor."""
    said = rebooted.vm.console_text.rpartition("initrd for run")[2]
    for name in ("value", "kind", "object"):
        assert f"request {name}.json is not carried out: " in said
    assert "request good.json" not in said
    assert "images from policy version 0001 on boot, as before" in said
    assert "the TPM gives out no secret any more" in said


@pytest.mark.attack(
    "root",
    "leaves a unit, a rule of udev and files wherever it can write, for the time after a reboot",
    "gone, or lying in a volume where nothing looks; nothing of it runs",
)
def test_what_root_leaves_does_not_bring_it_back(rebooted: Guest) -> None:
    there = {name for name in LEFT if rebooted.sh(f"test -e {name}")}
    assert there == {"/config/left", "/atomfs-store/left"}
    for name in (
        "/run/left",
        "/etc/systemd/system/left.service",
        "/etc/udev/rules.d/00-left.rules",
    ):
        assert not rebooted.sh(f"test -e {name}"), name
    assert "left.service" not in rebooted.must("systemctl list-unit-files --no-pager")
