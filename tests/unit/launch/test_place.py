from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from changed import replace
from fakes.registry import fake_registry
from machineos.errors import MachineOSError, MissingError, PolicyError, SignatureError
from machineos.launch.manifest import fetch_install
from machineos.oci.graph.copy import copy_graph
from machineos.oci.model.place import Place
from machineos.oci.registry.access import Access
from machineos.oci.registry.client import HttpRegistry
from machineos.trust.keys.keyset import Keyset, Project
from vectors.clock import FixedClock

from .conftest import Shelf


def test_places() -> None:
    local = Place.parse("oci:some/dir:machine/install:1.0.0", plain_http=False)
    assert (str(local.at.folder), local.name, local.tag) == ("some/dir", "machine/install", "1.0.0")
    assert (local.url, local.local) == ("", "oci:some/dir:machine/install:1.0.0")
    for text in (
        "10.0.2.2:5000/machine/install:1.0.0",
        "docker://10.0.2.2:5000/machine/install:1.0.0",
    ):
        far = Place.parse(text, plain_http=True)
        assert (far.url, far.local) == ("10.0.2.2:5000/machine/install:1.0.0", "")


@pytest.mark.parametrize(
    "text",
    ["", "oci:", "oci:dir", "oci:dir:name", "oci::name:tag", "oci:dir:name:", "name:tag",
     "host:5000/name", f"host:5000/name@sha256:{'0' * 64}", "http://host/name:tag", "host/../x:tag",
     "host:5000/name:../tag"],
)  # fmt: skip
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(MachineOSError):
        Place.parse(text, plain_http=False)


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    for prefix in ("", "oci:", "docker://", "oci:dir:", "host:5000/"):
        try:
            place = Place.parse(prefix + text, plain_http=False)
        except MachineOSError:
            continue
        assert place.name
        assert place.tag
        assert bool(place.url) != bool(place.local)


def test_a_good_manifest(shelf: Shelf, project: Project, clock: FixedClock) -> None:
    shelf.publish(project)
    install = fetch_install(shelf.place, project.keyset, project, clock, Access())
    assert [target.service_name for target in install.targets] == ["zot"]


def test_the_host_is_seen_from_both_sides(
    shelf: Shelf, project: Project, clock: FixedClock
) -> None:
    """What the guest calls 10.0.2.2 is this machine's own loopback."""
    shelf.publish(project)
    with fake_registry() as server, HttpRegistry(server.host) as client:
        for name in ("machine/install", "mos"):
            repository = shelf.registry.repository(name)
            for tag in repository.tags():
                copy_graph(repository, client.repository(name), tag, tag=tag, referrers=True)
        port = server.server_address[1]
        place = Place.parse(f"10.0.2.2:{port}/machine/install:1.0.0", plain_http=True)
        assert place.url.startswith(f"10.0.2.2:{port}/")
        assert fetch_install(place, project.keyset, project, clock, Access()).targets


def test_what_is_refused(shelf: Shelf, project: Project, two: Keyset, clock: FixedClock) -> None:
    with pytest.raises(MissingError):
        fetch_install(shelf.place, project.keyset, project, clock, Access())
    shelf.publish(two.project("default"))
    with pytest.raises(SignatureError, match="not issued by"):
        fetch_install(shelf.place, project.keyset, project, clock, Access())
    shelf.publish(project)
    another = replace(project, uuid=two.project("default").uuid)
    with pytest.raises(PolicyError, match="product"):
        fetch_install(shelf.place, project.keyset, another, clock, Access())
    late = FixedClock(datetime(2099, 1, 1, tzinfo=UTC))
    with pytest.raises(SignatureError, match="expired"):
        fetch_install(shelf.place, project.keyset, project, late, Access())
