"""A guest of 154 bytes in the place of the firmware: real QEMU, running within milliseconds.

It writes ``tiny guest ready`` to the serial port and echoes what it reads there; ``q`` powers off,
``r`` resets, ``i`` makes it ignore the power button, which powers it off otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.vm.document import decode_machine

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.vm.model import Machine

_VARS = 128 << 10
_CODE = (2 << 20) - _VARS
_ENTRY = 0xFE00
_RESET = 0xFFF0
# 16-bit code; the comments are GNU as, the addresses offsets in the last 64 KiB of the flash.
_PROGRAM = (
    bytes.fromhex(
        "fa"  # fe00 cli
        "66b840f80080 baf80c 66ef"  # fe01 PCI 00:1f.0 register 40 (PMBASE)
        "66b801060000 bafc0c 66ef"  # fe0c := 0x600
        "66b844f80080 baf80c 66ef"  # fe17 register 44 (ACPI_CNTL)
        "b080 bafc0c ee"  # fe22 := enabled
        "ba0206 b80001 ef"  # fe28 PM1_EN := power button
        "30db"  # fe2f xor %bl,%bl
        "be7afe"  # fe31 mov $msg,%si
        "2eac 84c0 7406 baf803 ee ebf4"  # fe34 write msg to COM1
        "bafd03 ec a801 7413"  # fe40 main: nothing to read? then button
        "baf803 ec ee"  # fe48 read and echo
        "3c71 7417"  # fe4d q: off
        "3c72 741d"  # fe51 r: reset
        "3c69 7502 b301"  # fe55 i: %bl := 1
        "ba0006 ed f6c401 74dc"  # fe5b button: not pressed? main
        "84db 75d8"  # fe64 ignored? main
        "ba0406 b80020 ef f4 ebfd"  # fe68 off: PM1_CNT := S5; hlt
        "b006 baf90c ee ebf5"  # fe72 reset: port cf9 := 6
    )
    + b"tiny guest ready\r\n\0"
)
_JUMP = bytes.fromhex("e90dfe")  # fff0 jmp fe00


def write_firmware(folder: Path) -> tuple[Path, Path]:
    """Write the flash images ``tiny.fd`` (code) and ``vars.fd`` (empty) and return them."""
    code = bytearray(b"\xff" * _CODE)
    base = _CODE - 0x10000
    code[base + _ENTRY : base + _ENTRY + len(_PROGRAM)] = _PROGRAM
    code[base + _RESET : base + _RESET + len(_JUMP)] = _JUMP
    paths = folder / "tiny.fd", folder / "vars.fd"
    paths[0].write_bytes(code)
    paths[1].write_bytes(b"\xff" * _VARS)
    return paths


def tiny_machine(folder: Path, name: str = "tiny", more: str = "", top: str = "") -> Machine:
    """Return a machine that runs the tiny guest; ``more`` is added to its config."""
    code, variables = write_firmware(folder)
    text = f"""\
name: {name}
{top}
config:
  cpus: 1
  memory: 128
  secure-boot: false
  uefi-code: {code}
  uefi-vars: {variables}
{more}
"""
    return decode_machine(text.encode(), name="tiny.yaml")
