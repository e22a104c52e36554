"""The same through a registry over HTTP: with the referrers API, without it, and misbehaving."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest

from fakes.registry import FakeRegistry, fake_registry
from machineos.core.digest import Digest
from machineos.document.model.limits import MAX_REFERRERS
from machineos.document.product.artifacts import CERTIFICATE, SIGNATURE
from machineos.document.verify.images import root_hash_signatures, verify_target
from machineos.document.verify.published import Fetched, fetch_verified
from machineos.errors import MachineOSError, MissingError, TransferError
from machineos.oci.registry.client import HttpRegistry, Limits
from unit.document.conftest import NOW, PRODUCT, World
from unit.document.verify.test_published import put_referrer
from waiting import PATIENCE

FAST = Limits(attempts=1, back_off=0.01, read_seconds=5, answer_seconds=5)


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with fake_registry() as server:
        yield server


@pytest.fixture
def registry(fake: FakeRegistry) -> Iterator[HttpRegistry]:
    with HttpRegistry(fake.host, limits=FAST, seed=1) as client:
        yield client


def fetch(registry: HttpRegistry, world: World) -> Fetched:
    return fetch_verified(
        registry.repository("machine/install"),
        "1.0.0",
        ca_pem=world.authority.pem,
        at=NOW,
        product=PRODUCT,
    )


@pytest.mark.parametrize("api", [True, False])
def test_publish_and_verify(
    fake: FakeRegistry, registry: HttpRegistry, world: World, api: bool
) -> None:
    fake.faults.referrers_api = api
    published = world.publish(registry=registry)
    fetched = fetch(registry, world)
    assert fetched.verified == published.verified
    store = registry.repository("mos")
    for target in fetched.verified.install.targets:
        image = verify_target(store, target)
        found = root_hash_signatures(store, target, image, fetched.verified.publisher)
        assert set(found) == {layer.digest for layer in image.layers}
    assert world.publish(registry=registry) == published


def test_the_seeds_own_request_lists_certificate_and_signature(
    fake: FakeRegistry, registry: HttpRegistry, world: World
) -> None:
    digest = world.publish(registry=registry).descriptor.digest
    address = f"http://{fake.host}/v2/machine/install/referrers/{digest}"
    with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
        body = json.load(answer)
    assert {entry["artifactType"] for entry in body["manifests"]} == {
        "application/vnd.machine.pubkeycrt",
        "application/vnd.machine.signature",
        "application/vnd.dev.cosign.artifact.sig.v1+json",  # ours, for others; no machine asks
    }
    assert all(
        entry["annotations"]["org.opencontainers.image.created"] == "2025-06-06T04:06:06Z"
        for entry in body["manifests"]
        if entry["artifactType"].startswith("application/vnd.machine.")
    )


@pytest.mark.parametrize("status", [200, 202, 400, 403, 404, 500])
def test_a_registry_that_does_not_say_created_is_an_error(
    fake: FakeRegistry, registry: HttpRegistry, world: World, status: int
) -> None:
    """The predecessor took a refused upload for a success."""
    fake.faults.put_status = status
    with pytest.raises((TransferError, MissingError)):
        world.publish(registry=registry)


@pytest.mark.parametrize("api", [True, False])
def test_what_others_attach_does_not_hide_the_good_ones(
    fake: FakeRegistry, registry: HttpRegistry, world: World, api: bool
) -> None:
    fake.faults.referrers_api = api
    published = world.publish(registry=registry)
    own = registry.repository("machine/install")
    for number in range(10):
        for kind in (CERTIFICATE, SIGNATURE):
            put_referrer(own, published.descriptor, kind, b"noise %d" % number)
    assert fetch(registry, world).verified == published.verified


def test_a_flood_of_made_up_referrers_is_a_refusal_and_few_requests(
    fake: FakeRegistry, registry: HttpRegistry, world: World
) -> None:
    world.publish(registry=registry)
    fake.faults.flood = 5000  # in place of the real ones
    before = fake.count("GET", "/manifests/")
    with pytest.raises(MachineOSError):
        fetch(registry, world)
    assert fake.count("GET", "/manifests/") - before <= 2 * MAX_REFERRERS + 1


@pytest.mark.parametrize("fault", ["corrupt", "endless"])
def test_bytes_that_are_not_what_was_asked_for(
    fake: FakeRegistry, registry: HttpRegistry, world: World, fault: str
) -> None:
    world.publish(registry=registry)
    setattr(fake.faults, fault, True)
    with pytest.raises(MachineOSError):
        fetch(registry, world)


def test_digests_are_told_wrong(fake: FakeRegistry, registry: HttpRegistry, world: World) -> None:
    world.publish(registry=registry)
    fake.faults.told_digest = str(Digest.of(b"other"))
    with pytest.raises(MachineOSError):
        fetch(registry, world)
