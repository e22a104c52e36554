"""What a launch makes of its request and of the manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.errors import ConflictError
from machineos.launch.manifest import fetch_install
from machineos.launch.request import Request, hardware_of, published_ports, require_new
from machineos.oci.registry.access import Access
from machineos.trust.keys.keyset import Project
from machineos.vm.ports import Transport
from vectors.clock import FixedClock

from .conftest import Shelf


def test_a_name_is_taken_once() -> None:
    require_new("a", ())
    require_new("a", ("b",))
    with pytest.raises(ConflictError) as caught:
        require_new("a", ("a", "b"))
    assert caught.value.message == "machine a exists already"
    assert caught.value.hint == "machine start a, or machine delete a and launch again"


def test_the_machine_is_made_of_the_request_and_of_what_the_manifest_publishes(
    shelf: Shelf, project: Project, clock: FixedClock
) -> None:
    shelf.publish(project)
    install = fetch_install(shelf.place, project.keyset, project, clock, Access())
    published = published_ports(install)
    assert published
    request = Request("a", shelf.place, project.keyset, project, disk=7 << 30, memory=512, cpus=3)
    asked: list[int] = []

    def free(protocol: Transport, port: int, address: str = "127.0.0.1") -> bool:
        asked.append(port)
        return True

    made = hardware_of(request, install, serial="SN1", uefi_vars=Path("/v"), free=free)
    assert (made.serial, made.uefi_vars) == ("SN1", Path("/v"))
    assert (made.disk, made.memory, made.cpus) == (7 << 30, 512, 3)
    ports = made.ports.ports
    assert [(port.protocol, port.guest.port) for port in ports] == list(dict.fromkeys(published))
    assert [port.host.port for port in ports] == asked
