"""NOT COLLECTED BY DEFAULT: written and never run; name this file to run it.

The main path of ``trust launch`` with a registry that dies half-way.
"""

from __future__ import annotations

import pytest
from appliance import CLOCK, DISK
from test_install import place, registry

from machineos.image import appliance
from machineos.launch.machine import Request, launch_machine
from machineos.launch.place import Place

pytestmark = [pytest.mark.vm, pytest.mark.root]
__all__ = ["registry"]


def test_a_whole_launch_from_a_registry_that_dies_half_way(bench, boot, registry):
    """The main path of ``trust launch`` with a registry; its big blobs come in pieces."""
    name = "fromregistry"
    bench.discard(name)
    address = Place.parse(place(registry), plain_http=True)
    request = Request(
        name, address, bench.keyset, bench.project, disk=DISK, variant=appliance.DEBUG
    )
    said = []

    def say(text):
        said.append(text)
        if text == "installing":  # what came before were this host's own small requests
            registry.faults.die_after.extend([200, 5_000, 3_000_000, 100_000, 20_000_000])

    try:
        launch_machine(request, bench.store, CLOCK, credentials=None, say=say)
        assert registry.faults.die_after == []
        assert any(one.startswith("installed successfully") for one in said)
        ranges = [one for one in registry.seen if "Range" in one.headers]
        assert ranges, "nothing was resumed"
        with boot(name) as guest:
            guest.wait_answer(300)
    finally:
        registry.faults.die_after.clear()
        bench.discard(name)
