"""Everything that a manifest names, fetched and verified into memory before the disk is touched.

Invariant: what ``STAGED`` names is complete and verified: the signature over install.json, every
image manifest, configuration and layer by digest, a root hash signature for every layer. Touches
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.facts import Fact, Facts, Part
from machineos.core.size import show_size
from machineos.core.steps import ask
from machineos.document.rules.images import check_image
from machineos.document.rules.product import BOOTS, COMPLETE
from machineos.document.rules.subject import declared
from machineos.document.verify.images import image_name, require_signatures
from machineos.errors import SpaceError
from machineos.install.source import IDENTITY, PLACE, REACHABLE, RUN
from machineos.install.steps import (
    STAGED,
    FetchImage,
    FetchManifest,
    InspectImage,
    MakeStaging,
    Now,
    Say,
    Staged,
)

if TYPE_CHECKING:
    from machineos.core.steps import Talk
    from machineos.document.verify.published import Fetched
    from machineos.install.steps import Memory
    from machineos.oci.model.place import Place

STAGING = RUN / "stage"
LAYOUT = STAGING / "mos"
ROOM: Fact[int] = Fact("room")
FETCHED: Fact[Fetched] = Fact("fetched")


def room_in(memory: Memory) -> int:
    """Return how many bytes of images fit: what is fetched must not take the last page."""
    return min(memory.free, memory.unused * 9 // 10)


def check_complete(place: Place, fetched: Fetched) -> None:
    """Raise PolicyError unless a machine can be made of this manifest alone."""
    declaration = declared(fetched.verified.install)
    for rule in (COMPLETE, BOOTS):
        rule.require(declaration, f"{place.name}:{place.tag}")


def check_images(staged: Staged, room: int) -> None:
    """Raise unless a machine boots with these images, and there is room for them.

    Raises: VerificationError (layers), SpaceError, SignatureError.
    """
    for target, inspected in staged.images:
        # found at boot, it would not start
        check_image(inspected.image, image_name(target), target.service_name)
    if staged.size > room:
        raise SpaceError(
            f"the images take {show_size(staged.size)}, there is room for {show_size(room)}",
            hint="give the machine more memory for the installation",
        )
    for target, inspected in staged.images:
        signatures = {layer: pkcs7 for layer, _, pkcs7 in inspected.signatures}
        require_signatures(inspected.image, signatures, image_name(target))


def _make_room(_: Facts) -> Talk[Facts]:
    return Facts().plus(ROOM, room_in((yield from ask(MakeStaging(STAGING)))))


def _fetch_manifest(facts: Facts) -> Talk[Facts]:
    place, identity = facts[PLACE], facts[IDENTITY]
    at = yield from ask(Now())
    fetched = yield from ask(FetchManifest(place, identity.ca_pem, at, identity.product))
    verified = fetched.verified
    short, product = verified.sha256[:12], verified.install.product
    yield from ask(Say(f"manifest {short} of product {product} verified"))
    check_complete(place, fetched)
    return Facts().plus(FETCHED, fetched)


def _fetch_images(facts: Facts) -> Talk[Facts]:
    """All of them are looked at before the first is fetched."""
    place, fetched = facts[PLACE], facts[FETCHED]
    images = []
    for target in fetched.verified.install.targets:
        step = InspectImage(place, target, fetched.verified.publisher)
        images.append((target, (yield from ask(step))))
    staged = Staged(fetched, tuple(images))
    check_images(staged, facts[ROOM])
    for target, inspected in staged.images:
        yield from ask(Say(f"fetching {target.name} {target.release}"))
        yield from ask(FetchImage(place, target, inspected.signatures, LAYOUT))
    return Facts().plus(STAGED, staged)


PARTS = (
    Part("make room", frozenset(), frozenset({ROOM}), _make_room),
    Part(
        "fetch the manifest",
        frozenset({PLACE, IDENTITY, REACHABLE}),
        frozenset({FETCHED}),
        _fetch_manifest,
    ),
    Part("fetch the images", frozenset({PLACE, FETCHED, ROOM}), frozenset({STAGED}), _fetch_images),
)
