"""The machine's own log in an appliance: on a volume of its own, locked, there after a reboot, and
no way back into the machine for who writes to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from machineos.state.volumes.sealed import KIND
from vm.guest import Guest

VOLUME = "/dev/machine-data/machine-log"
OPEN = "/run/machineos/volumes/machine-volume-machine-log"
FLUSHED = "test -e /run/systemd/journal/flushed"
WORD = "what-was-said-before-the-reboot"
# The journal in use becomes a link out of the volume, as root would leave it for the next boot.
PLANT = " && ".join(
    (
        f"echo {WORD} > /dev/kmsg",
        "journalctl --sync",
        "systemctl stop mosd-log.service",
        "cd /var/log/journal/*/",
        "mv system.journal kept@1-2-3.journal",
        "ln -s /run/machineos/planted.journal system.journal",
        "ln -s /run/machineos ../linked",
        "sync",
    )
)


def problems(guest: Guest) -> list[str]:
    found: dict[str, Any] = json.loads(guest.must("mosctl status --json"))
    return list(found["problems"])


def test_it_is_on_a_volume_of_its_own_which_is_locked(live: Guest) -> None:
    shown = json.loads(live.must("findmnt -J -o SOURCE,FSTYPE,OPTIONS /var/log"))["filesystems"][0]
    assert OPEN.rpartition("/")[2] in shown["source"] or "/dev/dm-" in shown["source"]
    assert shown["fstype"] == "ext4"
    assert {"nosuid", "nodev", "noexec", "nosymfollow"} <= set(shown["options"].split(","))
    dump = json.loads(live.must(f"cryptsetup luksDump --dump-json-metadata {VOLUME}"))
    assert [token["type"] for token in dump["tokens"].values()] == [KIND]
    live.must(f"echo {WORD} > /dev/kmsg; journalctl --sync; sync; sync -f /var/log")
    live.must(f"grep -qs {WORD} /var/log/journal/*/system.journal")
    # Where it lies it cannot be read; the control is what is open.
    look = "dd if={} bs=1M iflag=direct status=none | grep -c {} || true"
    assert int(live.must(look.format(OPEN, WORD), 300)) > 0
    assert int(live.must(look.format(VOLUME, WORD), 300)) == 0


@pytest.mark.attack(
    "disk",
    "leaves a link in place of the log's journal, for journald of the next boot to write through",
    "journald begins a file of its own, the link is set aside, and nothing appears where it led",
)
def test_it_is_there_after_a_reboot_and_leads_nowhere(spoiled: Guest) -> None:
    spoiled.must(PLANT)
    spoiled.reboot()
    spoiled.wait_answer()
    spoiled.wake()
    spoiled.wait_until(FLUSHED, 300)
    assert problems(spoiled) == []
    said = f"journalctl --no-pager -o cat {{}} 2>/dev/null | grep -c {WORD} || true"
    assert int(spoiled.must(said.format("-b"))) == 0
    assert int(spoiled.must(said.format(""))) > 0
    spoiled.must("cd /var/log/journal/*/ && test -f system.journal && ! test -L system.journal")
    spoiled.must("cd /var/log/journal/*/ && find . -type l -name 'system@*.journal~' | grep -q .")
    spoiled.must("! test -e /run/machineos/planted.journal")
    spoiled.must("! ls /run/machineos | grep journal")


def test_a_volume_that_does_not_open_keeps_nothing_from_running(spoiled: Guest) -> None:
    spoiled.must(f"dd if=/dev/zero of={VOLUME} bs=64k count=1 oflag=direct conv=notrunc")
    spoiled.reboot()
    spoiled.wait_answer()
    spoiled.wake()
    spoiled.wait_until("mosctl status --json | grep -q 'keeping the log'", 300)
    (problem,) = problems(spoiled)
    assert problem.startswith("keeping the log: storage machine-log: its volume is not open")
    assert spoiled.must("findmnt /var/log || echo no").strip() == "no"
    assert "storage machine-log stays closed" in spoiled.must("dmesg")
