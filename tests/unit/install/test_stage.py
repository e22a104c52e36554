"""Fetching and verifying before the disk is touched: every refusal, and what it leaves behind."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from changed import replace
from fakes.machine import FakeHost, FakeMachine
from machineos.core.digest import Digest
from machineos.core.facts import Facts
from machineos.document.product.artifacts import ROOT_HASH_SIGNATURE
from machineos.errors import (
    DigestError,
    MachineOSError,
    MissingError,
    PolicyError,
    SignatureError,
    SpaceError,
    VerificationError,
)
from machineos.install import source
from machineos.install.source import IDENTITY, PLACE, REACHABLE, Wish
from machineos.install.stage import (
    FETCHED,
    LAYOUT,
    PARTS,
    ROOM,
    STAGING,
    check_complete,
    check_images,
    room_in,
)
from machineos.install.steps import (
    STAGED,
    FetchImage,
    FetchManifest,
    InspectImage,
    Memory,
    Now,
    Say,
    Staged,
    size_of,
)
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRepository
from unit.document.conftest import (
    NOW,
    OTHER_PRODUCT,
    SOURCE,
    Authority,
    MemoryRepository,
    World,
    put_image,
)
from unit.oci.samples import put_artifact

from . import conftest
from .conftest import HOST, ONE_LAYER, MemoryRegistry, Watched, in_memory, make_machine
from .conftest import PLACE as THERE

MAKE_ROOM, FETCH_MANIFEST, FETCH_IMAGES = PARTS


def stage_on(machine: FakeMachine) -> tuple[Watched, Facts]:
    watched = Watched(machine.boot())
    return watched, watched.run(Wish(THERE), (*source.PARTS, *PARTS))


def staged_in(host: FakeHost) -> MemoryRepository:
    return host.staged[LAYOUT]


@pytest.fixture
def own(machine: FakeMachine, shelf: MemoryRegistry) -> MemoryRegistry:
    """A registry of the test's own, with what is on the shelf; the machine installs from it."""
    registry = MemoryRegistry()
    for name, repository in shelf.repositories.items():
        mine = registry.repository(name)
        mine._blobs.update(repository._blobs)
        mine._manifests.update(repository._manifests)
        mine._tags.update(repository._tags)
    machine.network[HOST] = registry
    return registry


def refusal(machine: FakeMachine, kind: type[MachineOSError]) -> MachineOSError:
    """Install, and return the error. Nothing is written, nothing that is wrong has a name."""
    watched = Watched(machine.boot())
    with pytest.raises(kind) as caught:
        watched.run(Wish(THERE))
    assert watched.points == []
    assert machine.kept.operations == 0
    return caught.value


def test_all_of_it_arrives(machine: FakeMachine, shelf: MemoryRegistry) -> None:
    watched, facts = stage_on(machine)
    staged = facts[STAGED]
    assert staged.fetched == facts[FETCHED]
    names = [target.service_name for target, _ in staged.images]
    assert names == ["zot", "hostfs", "bootkit"]
    arrived = staged_in(watched.host)
    total = 0
    for target, inspected in staged.images:
        for blob in (inspected.image.config, *inspected.image.layers):
            total += len(arrived.blob(blob, limit=1 << 20))
        assert arrived.resolve(target.tag).digest == target.image
        assert len(arrived.referrers(target.image, artifact_type=ROOT_HASH_SIGNATURE)) == 1
        signed = [layer for layer, _, _ in inspected.signatures]
        assert signed == [layer.digest for layer in inspected.image.layers]
        for _, root_hash, pkcs7 in inspected.signatures:
            assert len(root_hash) == 64
            assert Digest.of(pkcs7) in arrived._blobs
    assert staged.size == total == sum(size_of(one.image) for _, one in staged.images)


def test_what_is_asked_for_in_which_order(machine: FakeMachine) -> None:
    """All images are looked at before the first is fetched."""
    watched, facts = stage_on(machine)
    fetched, ca_pem = facts[FETCHED], machine.files[source.TRUST / "manifest-ca.pem"]
    at = watched.steps.index(Now())
    targets = fetched.verified.install.targets
    publisher = fetched.verified.publisher
    inspected = dict(facts[STAGED].images)
    expected: list[object] = [
        Now(),
        FetchManifest(THERE, ca_pem, NOW, fetched.verified.publisher.product),
        Say(f"manifest {fetched.verified.sha256[:12]} of product default verified"),
        *(InspectImage(THERE, target, publisher) for target in targets),
    ]
    for target in targets:
        expected.append(Say(f"fetching {target.service_name} {target.version}"))
        expected.append(FetchImage(THERE, target, inspected[target].signatures, LAYOUT))
    assert watched.steps[at:] == expected
    assert Path("/run/machineos/stage") == STAGING
    assert LAYOUT == STAGING / "mos"


def test_another_product(machine: FakeMachine) -> None:
    from vectors.certificates import device

    other = device().but(serial_number=f"PID:{OTHER_PRODUCT} SN:SN0001").pem()
    machine.files[source.TRUST / "device.pem"] = other
    machine.keys.update(conftest.host_ca_of(other))
    assert "product" in refusal(machine, PolicyError).message


def test_another_ca(machine: FakeMachine, stranger: Authority) -> None:
    machine.files[source.TRUST / "manifest-ca.pem"] = stranger.pem
    refusal(machine, SignatureError)


def published(world: World, text: str, **changes: object) -> FakeMachine:
    put_image(world_images(world), "single")
    world.publish(text, **changes)
    return make_machine(in_memory(world), world.authority)


def world_images(world: World) -> LayoutRepository:
    return LayoutRepository(world.images, writable=True)


def test_a_partial_manifest(world: World) -> None:
    machine = published(world, ONE_LAYER.replace("complete", "partial"))
    assert refusal(machine, PolicyError).message == (
        "machine/install:1.0.0: is partial; only a complete manifest can be installed"
    )


@pytest.mark.parametrize("missing", ["hostfs", "bootkit"])
def test_a_manifest_without_what_boots(world: World, missing: str) -> None:
    other = {"hostfs": "bootkit", "bootkit": "hostfs"}[missing]
    kind = {"hostfs": "hostfs", "bootkit": "fs-only"}[other]
    entry = (
        f'  - service_name: {other}\n    source: "oci:{{images}}:{other}"\n    version: 1.0.0\n'
        f"    service_type: {kind}\n    network:\n      type: host\n"
    )
    put_image(world_images(world), "single")
    world.publish_carelessly(ONE_LAYER + entry, boots=False)
    error = refusal(make_machine(in_memory(world), world.authority), PolicyError)
    assert error.message == f"machine/install:1.0.0: has no target {missing}"
    assert error.hint == ("publish it without --skip-bootkit, or as a partial update of services")


def test_the_manifest_is_said_to_be_verified_before_it_is_refused(world: World) -> None:
    machine = published(world, ONE_LAYER.replace("complete", "partial"))
    watched = Watched(machine.boot())
    with pytest.raises(PolicyError):
        watched.run(Wish(THERE))
    assert watched.host.said[-1].endswith(" of product default verified")


def test_an_image_that_no_machine_mounts(world: World) -> None:
    """Two layers, each signed: the initrd refuses such an image, when the old disk is gone."""
    world.publish_carelessly(SOURCE.replace("oci:{images}:zot", "oci:{images}:two"))
    machine = make_machine(in_memory(world), world.authority)
    error = refusal(machine, VerificationError)
    assert error.message == "image of zot: has 2 layers, a machine mounts only one"
    assert error.hint.startswith("publish it with `mosb manifest publish`, which makes one layer")


def test_room() -> None:
    """What fits into the file system, and not more than nine tenths of what nobody uses."""
    assert room_in(Memory(free=100, unused=1000)) == 100
    assert room_in(Memory(free=1000, unused=1000)) == 900
    assert room_in(Memory(free=900, unused=1000)) == 900
    assert room_in(Memory(free=901, unused=1000)) == 900
    assert room_in(Memory(free=10, unused=19)) == 10
    assert room_in(Memory(free=100, unused=19)) == 17


def test_no_room(machine: FakeMachine) -> None:
    size = stage_on(machine)[1][STAGED].size
    machine.memory = Memory(size, 1 << 40)
    assert stage_on(machine)[1][ROOM] == size
    machine.memory = Memory(size - 1, 1 << 40)
    error = refusal(machine, SpaceError)
    assert error.message.startswith("the images take ")
    assert ", there is room for " in error.message
    assert error.hint == "give the machine more memory for the installation"


def layer_of(registry: MemoryRegistry, name: str) -> tuple[MemoryRepository, Digest]:
    """Return the repository of images and the layer of one."""
    from machineos.oci.model.documents import parse_manifest

    images = registry.repository("mos")
    install = parse_manifest(registry.repository("machine/install").manifest("1.0.0")[1], name="x")
    document = registry.repository("machine/install").blob(install.layers[0], limit=1 << 20)
    targets = {one["service_name"]: one for one in msgspec.json.decode(document)["targets"]}
    digest = targets[name]["digest"]
    return images, parse_manifest(images.manifest(digest)[1], name="x").layers[0].digest


@pytest.mark.parametrize("name", ["zot", "hostfs", "bootkit"])
@pytest.mark.parametrize("change", ["flipped", "shorter", "longer", "gone"])
def test_a_wrong_blob(machine: FakeMachine, own: MemoryRegistry, name: str, change: str) -> None:
    """Refused, and never under its name."""
    images, digest = layer_of(own, name)
    data = images._blobs[digest]
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    del images._blobs[digest]
    wrong = {"flipped": flipped, "shorter": data[:-1], "longer": data + b"x"}
    if change in wrong:
        images._blobs[digest] = wrong[change]
    watched = Watched(machine.boot())
    with pytest.raises((DigestError, MissingError)):
        watched.run(Wish(THERE))
    assert watched.points == []
    staged = watched.host.staged.get(LAYOUT)  # not there where the first look found it
    assert staged is None or digest not in staged._blobs


def unsigned(registry: MemoryRegistry) -> MemoryRepository:
    """Take all signatures of root hashes out of a registry, and return what is left."""
    images = registry.repository("mos")
    for tag in images.tags():
        for entry in images.referrers(images.resolve(tag).digest):
            del images._manifests[entry.digest]
    return images


def test_a_layer_whose_root_hash_nobody_signed(machine: FakeMachine, own: MemoryRegistry) -> None:
    unsigned(own)
    _, digest = layer_of(own, "zot")
    assert refusal(machine, SignatureError).message == (
        f"image of zot: nobody signed the root hash of layer {digest}"
    )


def test_nothing_is_fetched_when_a_signature_is_missing(
    machine: FakeMachine, own: MemoryRegistry
) -> None:
    images = own.repository("mos")
    _, digest = layer_of(own, "bootkit")
    for tag in images.tags():
        for entry in images.referrers(images.resolve(tag).digest):
            body = images.manifest(str(entry.digest))[1]
            if str(digest).encode() in body:
                del images._manifests[entry.digest]
    assert "image of bootkit: nobody signed" in refusal(machine, SignatureError).message
    watched = Watched(machine.boot())
    with pytest.raises(SignatureError):
        watched.run(Wish(THERE))
    assert not [step for step in watched.steps if isinstance(step, FetchImage)]


def test_a_root_hash_signed_by_a_stranger(
    machine: FakeMachine, own: MemoryRegistry, world: World, stranger: Authority
) -> None:
    """Published a second time by somebody else, under another name: his signatures do not count."""
    images = unsigned(own)
    put_image(world_images(world), "single")
    world.publish(ONE_LAYER, name="other/thing", signer=stranger.publisher, ca_pem=stranger.pem)
    theirs = world.registry.repository("mos")
    for tag in theirs.tags():
        copy_graph(theirs, images, tag, tag=tag, referrers=True)
    refusal(machine, SignatureError)


def test_what_strangers_attached_is_left_behind(machine: FakeMachine, own: MemoryRegistry) -> None:
    """Memory is counted for the images only: a few large referrers would fill it."""
    alone = dict(staged_in(stage_on(machine)[0].host)._blobs)
    images = own.repository("mos")
    for tag in images.tags():
        for number in range(3):
            put_artifact(images, images.resolve(tag), b"%d" % number * 100_000, ROOT_HASH_SIGNATURE)
    watched, _ = stage_on(machine)
    assert staged_in(watched.host)._blobs == alone


def test_a_tag_that_is_not_there(machine: FakeMachine, own: MemoryRegistry) -> None:
    del own.repository("machine/install")._tags["1.0.0"]
    refusal(machine, MissingError)


def test_the_checks_by_themselves(machine: FakeMachine) -> None:
    """Each stands for itself, whoever calls it."""
    staged = stage_on(machine)[1][STAGED]
    check_complete(THERE, staged.fetched)
    check_images(staged, staged.size)
    target, inspected = staged.images[0]
    _, root_hash, signature = inspected.signatures[0]
    other = replace(inspected, signatures=((Digest.of(b"another"), root_hash, signature),))
    with pytest.raises(SignatureError):
        check_images(Staged(staged.fetched, ((target, other),)), staged.size)
    with pytest.raises(SpaceError):
        check_images(staged, staged.size - 1)
    bare = Staged(staged.fetched, (staged.images[1], (target, replace(inspected, signatures=()))))
    with pytest.raises(SignatureError, match="image of zot"):
        check_images(bare, staged.size)
    none = replace(inspected, image=msgspec.structs.replace(inspected.image, layers=()))
    with pytest.raises(VerificationError, match="has 0 layers"):
        check_images(Staged(staged.fetched, ((target, none),)), staged.size)


def test_the_phases_say_what_they_need() -> None:
    assert [(part.name, set(part.needs), set(part.gives)) for part in PARTS] == [
        ("make room", set(), {ROOM}),
        ("fetch the manifest", {PLACE, IDENTITY, REACHABLE}, {FETCHED}),
        ("fetch the images", {PLACE, FETCHED, ROOM}, {STAGED}),
    ]


def test_the_time_is_that_of_this_machine(machine: FakeMachine) -> None:
    class Late(FakeHost):
        def now(self) -> datetime:
            return NOW.replace(year=2099)

    with pytest.raises(SignatureError, match="expired"):
        Watched(Late(machine)).run(Wish(THERE))
