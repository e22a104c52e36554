"""What a stranger's words become in the files of other programs: systemd and nft read them here.
For LXC the same is in ``test_containers``."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import pytest

from machineos.core.run import run
from machineos.core.serviceid import ServiceId
from machineos.errors import DocumentError, ToolError
from machineos.host.unit.unitfile import exec_line
from machineos.service.plan import ruleset
from machineos.service.plan.network import Forward
from unit.service.system.test_systemd import boot

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system

# Every control character, every character that means something to a program, ends of lines that
# only Unicode knows, and one of each length in UTF-8.
CHARS = [chr(code) for code in (*range(1, 0x80), 0x80, 0x85, 0xA0, 0x2028, 0x2029, 0xFEFF, 0x1F600)]
NO_TEXT = ("\0", "\udc80", "\udcff", "\ud800")  # a zero byte, and what stands for no UTF-8
WORDS = [
    "", " ", "%n", "%%i", "$HOME", "${PATH}", "$$", "~", ";", " ; ", "-x", "@/bin/false", "\\",
    "\\x41", "a\\", '"', "'", "'\"", "\\\"", "x\\\nUser=nobody",
    "\n[Service]\nExecStartPost=/bin/false",
    *(f"x{char}User=nobody{char}[Service]{char}ExecStartPost=/bin/false{char}" for char in CHARS),
]  # fmt: skip
_PRINT = "import os, sys; print(b'\\0'.join(map(os.fsencode, sys.argv[1:])).hex())"


@pytest.mark.attack(
    "image",
    "every control character, %, $, quotes and line ends in a word of a command, for systemd",
    "literal words; what is no text is refused",
)
@pytest.mark.tool("systemd-nspawn")
def test_no_character_of_a_word_is_a_setting_of_systemd(tmp_path: Path) -> None:
    result = tmp_path / "result"
    result.mkdir()
    said = boot([sys.executable, "-c", _PRINT, *WORDS], tmp_path, result)
    assert bytes.fromhex(said).split(b"\0") == [word.encode() for word in WORDS]
    for char in NO_TEXT:
        with pytest.raises(ToolError):
            exec_line(["/bin/true", f"x{char}y"])


def forwarded(name: str) -> str:
    """Return the tables for one forwarded port of a service."""
    found = Forward(
        ServiceId(name),
        "tcp",
        80,
        5000,
        IPv4Address("10.0.3.9"),
        IPv6Address("fd6d:6f73:3000:3::9"),
    )
    return ruleset.render([found], [])


@pytest.mark.attack(
    "image",
    "every control character, quotes and non-UTF-8 in a service's name, for nft",
    "refused, or literal text in a comment",
)
@pytest.mark.tool("nft")
def test_no_character_of_a_name_is_a_rule_of_nft() -> None:
    """A name is refused or stands in the listing as it was given, and no rule more or less."""
    taken = []
    for char in (*CHARS, *NO_TEXT):
        name = f'x{char}y" accept; add rule inet machineos heard accept; comment "'
        for each in (name, f"x{char}y", f"x{char}{char}"):
            try:
                ServiceId(each)
            except DocumentError:
                continue
            taken.append(each)
    assert "".join(sorted({name[1] for name in taken})) == "-.0123456789_abcdefghijklmnopqrstuvwxyz"
    plain = listing("web")
    for name in taken:
        assert listing(name) == plain.replace('"web"', f'"{name}"')


def listing(name: str) -> str:
    """Return what nft holds once the tables of this service are loaded, in a network of its own."""
    inside = "nft --file - && nft --stateless list ruleset"
    script = forwarded(name).encode()
    return run(["unshare", "--net", "sh", "-c", inside], input=script, timeout=60).text
