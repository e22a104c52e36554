"""qemu-img: making, converting and inspecting disk images. The format is always named, never
probed, so that a raw disk cannot pose as a qcow2 image that points to another file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from machineos.core import run
from machineos.core.jsondoc import parse_json
from machineos.errors import DocumentError, Fault

if TYPE_CHECKING:
    from pathlib import Path

Format = Literal["qcow2", "raw"]
_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class Image:
    """What an image file says about itself: size in bytes as the guest sees it."""

    format: str
    size: int
    backing: str


class _Info(msgspec.Struct, frozen=True):
    format: str
    size: int = msgspec.field(name="virtual-size")
    backing: str = msgspec.field(name="backing-filename", default="")


def argv_create(path: Path, kind: Format, size: int) -> list[str]:
    """Return the call that makes an empty image of ``size`` bytes."""
    return ["qemu-img", "create", "-q", "-f", kind, f"./{path.name}", str(size)]


def argv_convert(source: Path, source_kind: Format, target: Path, kind: Format) -> list[str]:
    """Return the call that copies ``source`` to ``target``, holes kept."""
    return [
        "qemu-img",
        "convert",
        "-q",
        "-f",
        source_kind,
        "-O",
        kind,
        str(source),
        str(target),
    ]


def argv_info(path: Path, kind: Format) -> list[str]:
    """Return the call that describes an image as JSON. ``-U`` reads it while a guest uses it."""
    return ["qemu-img", "info", "-U", "--output=json", "-f", kind, str(path)]


def parse_info(data: bytes, *, name: str) -> Image:
    """Return what ``qemu-img info --output=json`` says. Raises: DocumentError."""
    value = parse_json(data, name=name)
    try:
        info = msgspec.convert(value, _Info)
    except msgspec.ValidationError as error:
        raise DocumentError(name, [Fault("", 0, str(error))]) from error
    return Image(info.format, info.size, info.backing)


def create(path: Path, kind: Format, size: int) -> None:
    """Make an empty image. Raises: ToolError, MissingToolError."""
    run.run(argv_create(path, kind, size), timeout=_TIMEOUT, cwd=path.parent)


def convert(source: Path, source_kind: Format, target: Path, kind: Format) -> None:
    """Copy an image; the target appears only when it is whole. Raises: ToolError."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        run.run(argv_convert(source, source_kind, partial, kind), timeout=_TIMEOUT)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def info(path: Path, kind: Format) -> Image:
    """Describe an image. Raises: ToolError (also when it is not of this format), DocumentError."""
    result = run.run(argv_info(path, kind), timeout=60.0)
    return parse_info(result.stdout, name=str(path))
