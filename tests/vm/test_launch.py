"""``trust launch`` from a registry that dies half-way, and the machine that it makes.

It is the second machine of its keyset and product, so it is also the one that an attacker puts
another's disk into.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
import pytest

from fakes.registry import fake_registry
from machineos.build.os import workshop
from machineos.launch.machine import launch_machine
from machineos.launch.request import Request
from machineos.oci.model.place import Place
from machineos.oci.registry.access import Access
from machineos.trust.keys.keyset import SystemRandomness
from vm.appliance import CLOCK, DISK, NAME, Bench, manifest_text, publish
from vm.attacks import Victim, reason, verdict
from vm.guest import Boot

pytestmark = pytest.mark.tool("sfdisk")
SECOND = "second"
SERIAL = "second-machine"


@pytest.fixture(scope="module")
def launched(bench: Bench) -> Iterator[list[str]]:
    """A machine launched from a registry; its big blobs come in pieces. Yields what was said."""
    bench.discard(SECOND)
    said: list[str] = []
    with fake_registry() as registry:
        publish(bench, manifest_text(bench), repo=registry.host)
        registry.seen.clear()

        def say(text: str) -> None:
            said.append(text)
            if text == "installing":  # what came before were this host's own small requests
                registry.faults.die_after.extend([200, 5_000, 3_000_000, 100_000, 20_000_000])

        place = Place.parse(f"10.0.2.2:{registry.server_address[1]}/{NAME}", plain_http=True)
        request = Request(
            SECOND, place, bench.keyset, bench.project, serial=SERIAL, disk=DISK,
            variant=workshop.DEBUG,
        )  # fmt: skip
        launch_machine(request, bench.provider, CLOCK, SystemRandomness(), access=Access(), say=say)
        assert registry.faults.die_after == []
        assert [one for one in registry.seen if "Range" in one.headers], "nothing was resumed"
    yield said
    bench.discard(SECOND)


def test_the_installer_shows_what_of_the_box_works(launched: list[str], bench: Bench) -> None:
    """On the screen of whoever stands before it, whatever comes of the installation."""
    assert launched
    screen = bench.store.paths(SECOND).console_log.read_text("utf-8", "replace")
    shown = screen[: screen.index("machineos install: ")]
    for line in (r"tpm +2\.0, virtual, ", r"secure boot +on", r"disk +vda +8\.6 GB, virtio",
                 r"network +\w+ +virtio_net, ", r"watchdog "):  # fmt: skip
        assert re.search(line, shown), (line, shown[-2000:])


@pytest.mark.attack(
    "registry",
    "the connection is cut in the middle of a layer",
    "resumed; the whole is checked by its digest",
)
def test_a_whole_launch_from_a_registry_that_dies_half_way(launched: list[str], boot: Boot) -> None:
    assert any(one.startswith("installed successfully") for one in launched), launched
    with boot(SECOND) as guest:
        guest.wait_answer()


@pytest.mark.attack(
    "disk",
    "the disk of another machine of the product, with its TPM",
    "boot ends: no configuration of this machine",
)
def test_the_disk_of_another_machine(
    launched: list[str], victim: Victim, boot: Boot, bench: Bench
) -> None:
    """Same keyset, same product, same images: its TPM gives out its key, and that opens nothing
    on this disk."""
    machine = bench.store.load(SECOND)
    disk = bench.store.load(victim.name).config.disks[0]
    moved = msgspec.structs.replace(disk, file=str(victim.disk))
    config = msgspec.structs.replace(machine.config, disks=(moved,))
    with bench.store.lock(SECOND):
        bench.store.replace(msgspec.structs.replace(machine, config=config))
    with boot(SECOND, no_reboot=True) as guest:
        text = reason(verdict(guest))
        assert f"this is {SERIAL} of product" in guest.vm.console_text
    assert "its LUKS header was not written by this machine" in text
