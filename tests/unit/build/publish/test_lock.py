"""``manifest.lock``: its format and reader, and what is published with it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from machineos.build.publish.lock import (
    Builder,
    Lock,
    LockedImage,
    differences,
    lock_path,
    name_of,
    other_tools,
    parse_lock,
)
from machineos.build.publish.locking import make_lock, moved_since
from machineos.build.publish.plan import with_defaults
from machineos.build.publish.source import ImageTarget, parse_source
from machineos.build.recipe.inputs import Input, Inputs
from machineos.build.recipe.inputsfile import keep_inputs
from machineos.core.digest import Digest
from machineos.errors import ConflictError, DocumentError, MachineOSError, MissingError
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import Descriptor, Manifest
from machineos.oci.model.reference import ImageSource
from machineos.oci.model.repository import Repository
from unit.document.conftest import SOURCE, World, open_layout, put_image

BUILDER = Builder("1.0", "4.5.1", "2.6.1")
ONE, TWO = Digest.of(b"1"), Digest.of(b"2")

texts = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=30)
digests = st.binary(max_size=4).map(Digest.of)
kinds = st.sampled_from(["debian", "image", "import", "kernel", "modules", "script", "tar"])
inputs = st.builds(Input, texts, kinds, texts, st.none() | digests)
images = st.builds(
    LockedImage,
    texts,
    digests,
    st.lists(inputs, max_size=3).map(tuple),
    st.lists(texts, max_size=3).map(tuple),
)
locks = st.builds(
    Lock,
    st.builds(Builder, texts, texts, st.just("") | texts),
    st.lists(images, max_size=3, unique_by=lambda image: image.source).map(tuple),
)


@given(locks)
def test_what_is_written_is_read_again(lock: Lock) -> None:
    assert parse_lock(lock.to_bytes(), name="manifest.lock") == lock


@given(st.binary(max_size=200) | texts.map(str.encode))
def test_no_bytes_get_past_the_reader_but_as_a_fault(data: bytes) -> None:
    with pytest.raises(MachineOSError):
        parse_lock(data, name="manifest.lock")


def test_a_lock_is_one_fact_a_line() -> None:
    made = (Input("web", "import", "app.py", TWO), Input("base", "debian", "trixie 20260101"))
    image = LockedImage("oci:out:web", ONE, made, ("bash 5.2", "zlib1g 1:1.3"), packed=True)
    assert (
        Lock(BUILDER, (image,)).to_bytes().decode()
        == f"""\
# Written by `mosb manifest lock`; keep it beside manifest.yaml, and change it only so.
version: 1
builder:
  mosb: "1.0"
  mksquashfs: "4.5.1"
  veritysetup: "2.6.1"
images:
  - source: "oci:out:web"
    digest: "{ONE}"
    packed: true
    inputs:
      - {{stage: "web", kind: import, name: "app.py", digest: "{TWO}"}}
      - {{stage: "base", kind: debian, name: "trixie 20260101"}}
    packages:
      - "bash 5.2"
      - "zlib1g 1:1.3"
"""
    )


GOOD = f"""\
version: 1
builder:
  mosb: "1"
images:
  - source: "oci:a:b"
    digest: {ONE}
"""


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("version: 1", "version: 2"), "line 1: version: is 2, only 1 is known"),
        (("version: 1\n", ""), "line 1: version: is missing"),
        (("version: 1", "version: new"), "line 1: version: is 'new'"),
        (("digest:", "digst:"), "line 6: images[0].digst: is not a known key"),
        (("sha256:", "sha1:"), "line 6: images[0].digest: digest algorithm 'sha1'"),
        (("mosb:", "mosc:"), "line 3: builder.mosc: is not a known key"),
        (('"oci:a:b"', '""'), "line 5: images[0].source: '' is empty"),
        (('"oci:a:b"', r'"a\u202eb"'), "line 5: images[0].source: "),
        (("images:", "images: {}\nother:"), "line 4: images: must be a list"),
        (("    digest", '    packages: [""]\n    digest'), "line 6: images[0].packages[0]"),
        (("    digest", "    packages: &a []\n    digest"), "line 6: document: anchors"),
        (
            ("    digest", "    inputs: [{stage: a, kind: b, name: c}]\n    digest"),
            "line 6: images[0].inputs[0].kind: 'b' is not one of",
        ),
    ],
)
def test_a_fault_has_its_path_and_line(change: tuple[str, str], fault: str) -> None:
    parse_lock(GOOD.encode(), name="x")
    with pytest.raises(DocumentError) as caught:
        parse_lock(GOOD.replace(*change).encode(), name="manifest.lock")
    assert any(str(one).startswith(fault) for one in caught.value.faults), caught.value


def test_bounds() -> None:
    with pytest.raises(DocumentError, match="larger than"):
        parse_lock(GOOD.encode() + b"#" * (4 << 20), name="x")
    many = tuple(LockedImage(f"oci:a:{number}", ONE) for number in range(513))
    with pytest.raises(DocumentError, match="more than 512"):
        parse_lock(Lock(BUILDER, many).to_bytes(), name="x")
    twice = (LockedImage("oci:a:b", ONE), LockedImage("oci:a:b", TWO))
    with pytest.raises(DocumentError, match="is there already"):
        parse_lock(Lock(BUILDER, twice).to_bytes(), name="x")
    with pytest.raises(DocumentError, match="too long"):
        parse_lock(Lock(BUILDER, (LockedImage("a" * 1025, ONE),)).to_bytes(), name="x")


def test_differences_name_what_moved() -> None:
    old = Lock(BUILDER, (LockedImage("a", ONE), LockedImage("b", ONE), LockedImage("c", ONE)))
    other = LockedImage("c", ONE, packages=("x 1",))
    new = Lock(BUILDER, (LockedImage("a", TWO), other, LockedImage("d", ONE)))
    assert differences(old, old) == ()
    assert differences(old, new) == (
        f"a is now {TWO}, the lock has {ONE}",
        "c is the same image, but what is known of it is not the same",
        "d is not in the lock",
        "b is in the lock, but not in the manifest",
    )
    assert other_tools(BUILDER, BUILDER) == ()
    assert other_tools(BUILDER, Builder("1.0", "4.6", "")) == (
        "mksquashfs is 4.6 here, the lock was made with 4.5.1",
        "veritysetup is not there here, the lock was made with 2.6.1",
    )


def test_where_a_lock_is() -> None:
    names = {"a/manifest.yaml": "a/manifest.lock", "web.yml": "web.lock", "-": "manifest.lock"}
    assert {name: str(lock_path(Path(name))) for name in names} == names


def targets(world: World, text: str = SOURCE) -> tuple[ImageTarget, ...]:
    return with_defaults(parse_source(world.source(text).encode()).targets, world.defaults)


def nothing(_manifest: Manifest) -> bool:
    return False


def lock(world: World) -> Lock:
    return make_lock(targets(world), open_layout, BUILDER, packed=nothing)


def test_a_lock_names_no_place_of_this_machine_for_the_keyset(world: World) -> None:
    made = lock(world)
    names = [image.source for image in made.images]
    assert names == [f"oci:{world.images}:zot", "keyset:hostfs", "keyset:bootkit"]
    repository = LayoutRepository(world.images)
    for image, tag in zip(made.images, ("zot", "hostfs", "bootkit"), strict=True):
        assert image.digest == repository.resolve(tag).digest
    assert name_of(targets(world)[0]) == names[0]


def test_who_packed_an_image_stays_in_the_lock(world: World) -> None:
    first = make_lock(targets(world), open_layout, BUILDER, packed=lambda _: True)
    assert all(image.packed for image in first.images)
    assert not any(image.packed for image in lock(world).images)
    again = make_lock(targets(world), open_layout, BUILDER, packed=nothing, old=first)
    assert again == first
    other = Lock(BUILDER, tuple(replace(image, digest=ONE) for image in first.images))
    assert make_lock(targets(world), open_layout, BUILDER, packed=nothing, old=other) == lock(world)


def test_a_source_that_two_targets_have_is_asked_once(world: World) -> None:
    text = SOURCE + (
        '  - {service_name: two, source: "oci:{images}:zot", version: 1.0.0,'
        " service_type: container}\n"
    )
    opened = []

    def counting(source: object) -> Repository:
        opened.append(str(source))
        return LayoutRepository(world.images)

    made = make_lock(targets(world, text), counting, BUILDER, packed=nothing)
    assert len(made.images) == 3
    assert len(opened) == 3


def test_what_an_image_was_built_of_is_in_its_lock(world: World) -> None:
    repository = LayoutRepository(world.images, writable=True)
    record = Inputs((Input("zot", "import", "app", ONE),), ("bash 5.2",))
    keep_inputs(repository, repository.resolve("zot").digest, record)
    image = lock(world).images[0]
    assert (image.inputs, image.packages) == (record.inputs, record.packages)


def test_publishing_takes_what_is_locked_and_not_what_the_tag_has_become(world: World) -> None:
    made = lock(world)
    first = world.publish(lock=made)
    assert first == world.publish()
    repository = LayoutRepository(world.images, writable=True)
    before = repository.resolve("zot")
    after = put_image(repository, "zot", contents=(b"another",))
    assert moved_since(made, targets(world), open_layout, registries=False) == (
        f"oci:{world.images}:zot is now {after.digest}, the lock has {before.digest}",
    )
    again = world.publish(lock=made)
    assert again.descriptor.digest == first.descriptor.digest
    assert world.publish().verified.install.targets[0].image == after.digest
    assert world.publish(lock=lock(world)).verified.install.targets[0].image == after.digest


def test_a_lock_that_does_not_fit_publishes_nothing(world: World) -> None:
    made = lock(world)
    text = SOURCE.replace(":zot", ":two")
    with pytest.raises(ConflictError, match=r"zot: oci:.*:two") as caught:
        world.publish(text, lock=made)
    assert "mosb manifest lock" in caught.value.hint
    with pytest.raises(ConflictError, match="hostfs: keyset:hostfs"):
        world.publish(lock=Lock(BUILDER, made.images[:1]))
    assert not world.root.exists()
    fewer = world.publish(SOURCE.replace("complete", "partial"), lock=made, defaults=None)
    assert len(fewer.verified.install.targets) == 1


def test_a_locked_image_that_is_gone_says_what_to_do(world: World) -> None:
    gone = Lock(BUILDER, (LockedImage(f"oci:{world.images}:zot", TWO), *lock(world).images[1:]))
    with pytest.raises(MissingError, match=r"zot .*: the image that manifest.lock has") as caught:
        world.publish(lock=gone)
    assert "mosb manifest lock" in caught.value.hint
    elsewhere = parse_source(world.source(SOURCE.replace(":zot", ":none")).encode()).targets
    nothing = Lock(BUILDER, (LockedImage(f"oci:{world.images}:none", ONE),))
    assert moved_since(nothing, elsewhere, open_layout, registries=False) == (
        f"oci:{world.images}:none is no longer there, the lock has {ONE}",
    )


class Asked:
    """A registry in memory that remembers what it was asked for."""

    def __init__(self, world: World, tag: str) -> None:
        self.layout = LayoutRepository(world.images)
        self.tag = tag
        self.name = "registry.example/zot"
        self.references: list[str] = []

    def resolve(self, reference: str) -> Descriptor:
        self.references.append(reference)
        return self.layout.resolve(self.tag if reference == "1" else reference)

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        self.references.append(reference)
        return self.layout.manifest(self.tag if reference == "1" else reference)

    def __getattr__(self, name: str) -> object:
        return getattr(self.layout, name)


def test_a_registry_is_asked_for_no_tag_unless_somebody_wants_to_know(world: World) -> None:
    text = SOURCE.replace("oci:{images}:zot", "docker://registry.example/zot:1")
    asked = Asked(world, "zot")

    def opened(source: ImageSource) -> Repository:
        return open_layout(source) if source.folder else cast("Repository", asked)

    wanted = targets(world, text)
    made = make_lock(wanted, opened, BUILDER, packed=nothing)
    assert made.images[0].source == "docker://registry.example/zot:1"
    assert asked.references == ["1"]
    asked.references.clear()
    asked.tag = "two"
    assert moved_since(made, wanted, opened, registries=False) == ()
    world.publish(text, lock=made, open_source=opened)
    assert str(made.images[0].digest) in asked.references
    assert "1" not in asked.references
    (line,) = moved_since(made, wanted, opened, registries=True)
    assert line.startswith("docker://registry.example/zot:1 is now sha256:")
