"""What a manifest as a whole must say, and whose manifests may be on one machine.

Who signed a document, and for which product, is decided in ``trust.verify`` alone, before it is
read at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.document.model.names import ProductName
from machineos.document.rules.rule import DOCUMENT, Rule
from machineos.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from machineos.document.rules.rule import Gate
    from machineos.document.rules.subject import Declaration

    Found = Iterator[tuple[str, str]]

# Without these two no machine starts.
NEEDED = ("hostfs", "bootkit")


class Owned(msgspec.Struct, frozen=True):
    """Whose a document is: the product of its publisher's certificate, and the name it says."""

    publisher: UUID
    product: str


class Pair(msgspec.Struct, frozen=True):
    """A document that comes to a machine, and one that is there."""

    other: Owned
    ours: Owned


def _version(version: object) -> Found:
    if type(version) is not int or version != 1:
        yield "version", f"is {version!r:.40}, only 1 is known"


def _name(declaration: Declaration) -> Found:
    problem = ProductName.problem(declaration.product)
    if problem:
        yield "product", problem


def _complete(declaration: Declaration) -> Found:
    if not declaration.complete:
        yield "update_type", "is partial; only a complete manifest can be installed"


def _boots(declaration: Declaration) -> Found:
    names = {target.service_name for target in declaration.targets}
    if declaration.complete:
        for needed in NEEDED:
            if needed not in names:
                yield "targets", f"has no target {needed}"


def _publisher(pair: Pair) -> Found:
    if pair.other.publisher != pair.ours.publisher:
        yield "", f"is of product {pair.other.publisher}, not of {pair.ours.publisher}"


def _same_name(pair: Pair) -> Found:
    if pair.other.product != pair.ours.product:
        yield "", f"is for {pair.other.product!r}, the machine is {pair.ours.product!r}"


_EVERYONE: tuple[Gate, ...] = (*DOCUMENT, "mosd")
KNOWN_VERSION: Rule[object] = Rule(
    "document-version", "A document is of a version that is known.", _EVERYONE, _version
)
PRODUCT: Rule[Declaration] = Rule(
    "product-name", "A product has a name that can be printed in a line.", DOCUMENT, _name
)
COMPLETE: Rule[Declaration] = Rule(
    "product-complete",
    "A machine is installed from one manifest that has everything.",
    ("install",),
    _complete,
    PolicyError,
)
BOOTS: Rule[Declaration] = Rule(
    "product-boots",
    "A complete manifest has what a machine starts from: hostfs and bootkit.",
    ("publish", "verify", "install", "boot"),
    _boots,
    PolicyError,
    "publish it without --skip-bootkit, or as a partial update of services",
)
SAME_PUBLISHER: Rule[Pair] = Rule(
    "product-publisher",
    "All documents of a machine were signed for the same product.",
    ("boot",),
    _publisher,
    PolicyError,
)
SAME_NAME: Rule[Pair] = Rule(
    "product-same-name",
    "All documents of a machine name the same product.",
    ("boot",),
    _same_name,
    PolicyError,
)
