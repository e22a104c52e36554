"""Requests that root left in the configuration volume, read by a real initrd."""

from __future__ import annotations

from vm.guest import Guest


def test_what_root_asks_for_is_told_and_changes_nothing(spoiled: Guest) -> None:
    """Root writes into the volume, past its mount: the next boot reads that between the doors. The
    good request reads the kernel image in the bootkit, whose version is that of the floor."""
    code = r"""
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
    options = spoiled.must("findmnt -n -o OPTIONS /config").split(",")
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options)
    spoiled.must("mount -o remount,rw /config")
    spoiled.python(code)
    spoiled.must("sync; mount -o remount,ro /config")
    spoiled.reboot()
    said = spoiled.vm.console_text.rpartition("initrd for run")[2]
    for name in ("value", "kind", "object"):
        assert f"request {name}.json is not carried out: " in said
    assert "request good.json" not in said
    assert "images from policy version 0001 on boot, as before" in said
    assert "the TPM gives out no secret any more" in said
