"""What an image was built of: the record that ``mosb image build`` leaves beside the image.

A file of the layout (docs/formats, "Inputs of an image"): the image, and what other programs see of
the layout, are the same with and without it. Only what decides the content is in it, so the same
build leaves the same record. Invariant: it holds no secret of a script or of a URL, and nothing of
the machine that built it. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit, urlunsplit

import msgspec

from machineos.build.recipe.stage import DebianBase, ImageBase, TarBase, stage_of
from machineos.build.recipe.stageplan import content_of
from machineos.core.digest import Digest
from machineos.core.jsondoc import parse_json
from machineos.errors import DocumentError, Fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from machineos.build.recipe.stage import Stage

FOLDER = "machineos-inputs"  # of a layout
MAX_INPUTS = 1 << 20
MAX_STATUS = 64 << 20
STATUS = "/var/lib/dpkg/status"
Kind = Literal["debian", "image", "import", "kernel", "modules", "script", "tar"]


class Input(msgspec.Struct, frozen=True):
    """One thing that went into an image: into which stage, of which kind, what it is called.

    ``digest`` is of its content: for a ``script`` of the stage as the recipe writes it; empty where
    there is no one content (packages are listed themselves).
    """

    stage: str
    kind: Kind
    name: str
    digest: Digest | None = None


class Inputs(msgspec.Struct, frozen=True):
    """All of an image: each in order. A package is ``name version``."""

    inputs: tuple[Input, ...] = ()
    packages: tuple[str, ...] = ()

    def with_(self, other: Inputs) -> Inputs:
        """Return what is in either."""
        inputs = {*self.inputs, *other.inputs}
        ordered = sorted(
            inputs, key=lambda item: (item.stage, item.kind, item.name, str(item.digest))
        )
        return Inputs(tuple(ordered), tuple(sorted({*self.packages, *other.packages})))


class _Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    stage: str
    kind: Kind
    name: str
    digest: str = ""


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    inputs: tuple[_Item, ...]
    packages: tuple[str, ...]


def of_stage(stage: Stage, base: str, imports: Sequence[str]) -> Inputs:
    """Return what a stage itself is made of: not what its parents are.

    ``base`` is the identity of what it starts from (``tar <hex>``, ``image sha256:<hex>``),
    ``imports`` the digest of each import, hex (of a folder the one that its ``hash`` would be).
    """
    body = content_of(stage)
    del body["build_environment"]  # where secrets are: a digest of a short one gives it away
    content = msgspec.json.encode(body, order="deterministic")
    found = [Input(stage.name, "script", stage.name, Digest.of(content))]
    match stage.base:
        case ImageBase(url=url):
            found.append(_based(stage, "image", url, base.removeprefix("image ")))
        case TarBase(url=url) if not stage_of(url):
            found.append(_based(stage, "tar", url, f"sha256:{base.removeprefix('tar ')}"))
        case DebianBase() as debian:
            words = (debian.suite, _bare(debian.mirror), debian.snapshot)
            found.append(Input(stage.name, "debian", " ".join(word for word in words if word)))
        case _:
            pass
    for item, digest in zip(stage.imports, imports, strict=True):
        if not item.stage:  # what comes from another stage is that stage's
            found.append(_based(stage, "import", item.path, f"sha256:{digest}"))
    return Inputs().with_(Inputs(tuple(found)))


def of_all(own: Inputs, below: Iterable[Inputs], status: bytes) -> Inputs:
    """Return what a stage is made of with what is ``below`` it. ``status`` is dpkg's list in its
    tree: where there is one, those are the packages, of whichever stage they came."""
    packages = parse_packages(status)
    for other in below:
        own = own.with_(other)
    return Inputs(own.inputs, packages or own.packages)


def parse_packages(status: bytes) -> tuple[str, ...]:
    """Return the packages that dpkg's ``status`` says are installed, ``name version``, sorted."""
    found = set()
    for paragraph in status.decode("utf-8", "replace").split("\n\n"):
        lines = (line.partition(": ") for line in paragraph.splitlines() if line[:1].strip())
        fields = {key: value.strip() for key, _, value in lines}
        name, version = fields.get("Package", ""), fields.get("Version", "")
        if name and version and fields.get("Status", "").endswith(" installed"):
            found.add(f"{name} {version}")
    return tuple(sorted(found))


def record_name(image: Digest) -> str:
    """Return the name of the record of an image in its folder."""
    return f"{image.algorithm}-{image.hex}.json"


def inputs_bytes(inputs: Inputs) -> bytes:
    """Return the record."""
    record = _Record(
        1,
        tuple(
            _Item(item.stage, item.kind, item.name, "" if item.digest is None else str(item.digest))
            for item in inputs.inputs
        ),
        inputs.packages,
    )
    return msgspec.json.encode(record)


def parse_inputs(data: bytes, *, name: str) -> Inputs:
    """Return the record in ``data``. Raises: DocumentError."""
    value = parse_json(data, name=name, limit=MAX_INPUTS)
    try:
        record = msgspec.convert(value, _Record)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        raise DocumentError(name, [Fault(path.rstrip("`").lstrip("$."), 0, message)]) from error
    items = tuple(
        Input(item.stage, item.kind, item.name, Digest.parse(item.digest) if item.digest else None)
        for item in record.inputs
    )
    return Inputs(items, record.packages)


def _order(item: Input) -> tuple[str, ...]:
    return item.stage, item.kind, item.name, str(item.digest)


def _based(stage: Stage, kind: Kind, url: str, digest: str) -> Input:
    return Input(stage.name, kind, _bare(url), Digest.parse(digest))


def _bare(url: str) -> str:
    """Return ``url`` without who asks and with what: a password is nobody's input."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
