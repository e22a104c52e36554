"""qemu-img: the format is always named, and what it says is read strictly."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.command import Command
from machineos.errors import DocumentError
from machineos.host.virt import qemuimg


def test_the_commands() -> None:
    assert qemuimg.create_command(Path("/f/-o.raw"), "raw", 512) == Command(
        ("qemu-img", "create", "-q", "-f", "raw", "./-o.raw", "512"), 600.0, cwd=Path("/f")
    )
    assert qemuimg.convert_command(Path("a"), "raw", Path("b"), "qcow2") == Command(
        ("qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", "a", "b"), 600.0
    )
    assert qemuimg.info_command(Path("a"), "qcow2") == Command(
        ("qemu-img", "info", "-U", "--output=json", "-f", "qcow2", "a"), 60.0
    )


def test_what_it_says_of_an_image() -> None:
    text = b'{"virtual-size": 7, "format": "qcow2", "backing-filename": "b", "more": []}'
    assert qemuimg.parse_info(text, name="a") == qemuimg.Image("qcow2", 7, "b")
    alone = b'{"virtual-size": 7, "format": "raw"}'
    assert qemuimg.parse_info(alone, name="a") == qemuimg.Image("raw", 7, "")


@pytest.mark.parametrize("text", [b"", b"[]", b'{"format": "raw"}', b'{"virtual-size": "7"}'])
def test_what_it_cannot_have_said(text: bytes) -> None:
    with pytest.raises(DocumentError, match="img"):
        qemuimg.parse_info(text, name="img")
