"""``manifest.lock``: which image each ``source`` of a manifest.yaml was when it was locked.

Owns the format (docs/formats, "manifest.lock"), its strict reader, its writer, and whether a lock
fits a manifest. Invariant: the same lock is the same bytes, one fact a line, so that a difference
in version control reads as what moved. Pure. Why it is as it is: docs/adr/0037.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

from machineos.build.recipe.inputs import Input, Kind
from machineos.core import yamldoc
from machineos.core.digest import Digest
from machineos.document.model.limits import MAX_TARGETS
from machineos.document.rules.product import KNOWN_VERSION
from machineos.errors import ConflictError, DocumentError, Fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from machineos.build.publish.source import ImageTarget

MAX_LOCK = 4 << 20
_MAX_TEXT = 1024
_RELOCK = "mosb manifest lock"
_HEAD = "# Written by `mosb manifest lock`; keep it beside manifest.yaml, and change it only so.\n"


class Builder(msgspec.Struct, frozen=True):
    """What decides the bytes of an image that has to be converted: versions of ``mosb`` and of the
    programs that pack; empty for one that is not installed."""

    mosb: str
    mksquashfs: str = ""
    veritysetup: str = ""


class LockedImage(msgspec.Struct, frozen=True):
    """What one ``source`` was: the digest of its manifest or index, whether whoever locked it had
    ``packed`` it, and what it was built of where that is known."""

    source: str
    digest: Digest
    inputs: tuple[Input, ...] = ()
    packages: tuple[str, ...] = ()
    packed: bool = False


class Lock(msgspec.Struct, frozen=True):
    """A whole lock; ``images`` in the order of the manifest."""

    builder: Builder
    images: tuple[LockedImage, ...]

    def to_bytes(self) -> bytes:
        """Return the document."""
        return (_HEAD + "".join(f"{line}\n" for line in _lines(self))).encode()

    def digest_of(self, target: ImageTarget) -> Digest | None:
        """Return which image the source of ``target`` was, None for one that is not in the lock."""
        found = self.image_of(target)
        return None if found is None else found.digest

    def image_of(self, target: ImageTarget) -> LockedImage | None:
        """Return what the lock has of the source of ``target``, None for nothing."""
        name = name_of(target)
        return next((image for image in self.images if image.source == name), None)


class _Document(msgspec.Struct, frozen=True):
    version: int
    builder: Builder
    images: tuple[LockedImage, ...] | None


def lock_path(manifest: Path) -> Path:
    """Return where the lock of a manifest is: beside it, with its name; of one that comes from
    standard input (``-``), ``manifest.lock`` in this folder."""
    return manifest.with_name("manifest.lock" if str(manifest) == "-" else f"{manifest.stem}.lock")


def name_of(target: ImageTarget) -> str:
    """Return what a lock calls the source of a target: the same on every machine."""
    return target.lock_name or str(target.source)


def parse_lock(data: bytes, *, name: str) -> Lock:
    """Return the lock in ``data``. Raises: DocumentError with every fault, its path and line."""
    node = yamldoc.parse_yaml(data, name=name, limit=MAX_LOCK)
    faults: list[Fault] = []
    version = node.items.get("version") if isinstance(node, yamldoc.Mapping) else None
    if isinstance(version, yamldoc.Scalar) and version.text != "1":
        # Before the shape: a later version may well have another one.
        text = int(version.text) if version.text.isdecimal() else version.text
        found = KNOWN_VERSION.faults(text)
        raise DocumentError(name, [Fault(f.path, version.line, f.message, f.rule) for f in found])
    document = yamldoc.decode(node, _Document, faults)
    if document is not None:
        faults += _judged(document, node)
    if faults:
        raise DocumentError(name, faults, hint=f"{_RELOCK} writes it anew")
    return Lock(document.builder, document.images or ())


def require_fit(lock: Lock, targets: Iterable[ImageTarget], *, name: str) -> None:
    """Raise ConflictError unless every one of ``targets`` is in the lock, called ``name``."""
    missing = {
        name_of(target): target.service_name for target in targets if lock.digest_of(target) is None
    }
    if missing:
        lines = "".join(f"\n  {service}: {source}" for source, service in missing.items())
        raise ConflictError(
            f"{name} does not fit the manifest, it has no image for{lines}",
            hint=f"{_RELOCK} writes it anew; --no-lock publishes without it",
        )


def differences(old: Lock, new: Lock) -> tuple[str, ...]:
    """Return what is not in ``new`` as it is in ``old``, a line each, in the order of ``new``."""
    return tuple(_differences(old, new))


def other_tools(old: Builder, new: Builder) -> tuple[str, ...]:
    """Return a line for each program that is of another version: images that are converted may
    come out otherwise."""
    return tuple(
        f"{field} is {after or 'not there'} here, the lock was made with {before or 'none'}"
        for field in Builder.__struct_fields__
        if (before := getattr(old, field)) != (after := getattr(new, field))
    )


def moved(source: str, locked: Digest, now: Digest | None) -> str:
    """Return the line for a source that is another image than the lock says; None: it is gone."""
    what = "is no longer there" if now is None else f"is now {now}"
    return f"{source} {what}, the lock has {locked}"


def _differences(old: Lock, new: Lock) -> Iterator[str]:
    known = {image.source: image for image in old.images}
    for image in new.images:
        before = known.pop(image.source, None)
        if before is None:
            yield f"{image.source} is not in the lock"
        elif before.digest != image.digest:
            yield moved(image.source, before.digest, image.digest)
        elif before != image:
            yield f"{image.source} is the same image, but what is known of it is not the same"
    for source in known:
        yield f"{source} is in the lock, but not in the manifest"


def _judged(document: _Document, node: yamldoc.Node) -> list[Fault]:
    def fault(path: str, message: str) -> Fault:
        return Fault(path, yamldoc.line_of(node, path), message)

    images = document.images or ()
    found = []
    if len(images) > MAX_TARGETS:
        found.append(fault("images", f"are more than {MAX_TARGETS}"))
    seen: set[str] = set()
    for index, image in enumerate(images):
        path = f"images[{index}]"
        if image.source in seen:
            found.append(fault(f"{path}.source", f"{image.source[:80]!r} is there already"))
        seen.add(image.source)
        texts = {f"{path}.source": image.source}
        texts |= {f"{path}.packages[{number}]": text for number, text in enumerate(image.packages)}
        for number, item in enumerate(image.inputs):
            texts |= {f"{path}.inputs[{number}].stage": item.stage}
            texts |= {f"{path}.inputs[{number}].name": item.name}
        found += [
            fault(where, f"{text[:80]!r} is empty, too long, or not printable")
            for where, text in texts.items()
            if not text or len(text) > _MAX_TEXT or not text.isprintable()
        ]
    return found


def _lines(lock: Lock) -> Iterator[str]:
    yield "version: 1"
    yield "builder:"
    for field in Builder.__struct_fields__:
        yield f"  {field}: {_text(getattr(lock.builder, field))}"
    yield "images:" if lock.images else "images: []"
    for image in lock.images:
        yield f"  - source: {_text(image.source)}"
        yield f"    digest: {_text(str(image.digest))}"
        if image.packed:
            yield "    packed: true"
        if image.inputs:
            yield "    inputs:"
        for item in image.inputs:
            digest = f", digest: {_text(str(item.digest))}" if item.digest is not None else ""
            kind: Kind = item.kind
            yield (
                f"      - {{stage: {_text(item.stage)}, kind: {kind}, "
                f"name: {_text(item.name)}{digest}}}"
            )
        if image.packages:
            yield "    packages:"
        for package in image.packages:
            yield f"      - {_text(package)}"


def _text(text: str) -> str:
    """Return a text as YAML and JSON both write it; it is printable, so nothing is escaped but the
    quote and the backslash."""
    return json.dumps(text, ensure_ascii=False)
