"""qemu-img: making, converting and inspecting disk images. The format is always named, never
probed, so that a raw disk cannot pose as a qcow2 image that points to another file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from machineos.core.command import Command
from machineos.core.jsondoc import parse_json
from machineos.errors import DocumentError, Fault

if TYPE_CHECKING:
    from pathlib import Path

Format = Literal["qcow2", "raw"]
_TIMEOUT = 600.0
_INFO_TIMEOUT = 60.0


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


def create_command(path: Path, kind: Format, size: int) -> Command:
    """Return the call that makes an empty image of ``size`` bytes."""
    argv = ("qemu-img", "create", "-q", "-f", kind, f"./{path.name}", str(size))
    return Command(argv, _TIMEOUT, cwd=path.parent)


def convert_command(source: Path, source_kind: Format, target: Path, kind: Format) -> Command:
    """Return the call that copies ``source`` to ``target``, holes kept."""
    formats = ("-f", source_kind, "-O", kind)
    return Command(("qemu-img", "convert", "-q", *formats, str(source), str(target)), _TIMEOUT)


def info_command(path: Path, kind: Format) -> Command:
    """Return the call that describes an image as JSON. ``-U`` reads it while a guest uses it."""
    argv = ("qemu-img", "info", "-U", "--output=json", "-f", kind, str(path))
    return Command(argv, _INFO_TIMEOUT)


def parse_info(data: bytes, *, name: str) -> Image:
    """Return what ``qemu-img info --output=json`` says. Raises: DocumentError."""
    value = parse_json(data, name=name)
    try:
        info = msgspec.convert(value, _Info)
    except msgspec.ValidationError as error:
        raise DocumentError(name, [Fault("", 0, str(error))]) from error
    return Image(info.format, info.size, info.backing)
