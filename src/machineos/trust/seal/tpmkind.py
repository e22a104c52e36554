"""What kind of TPM this is: inside the processor, a chip of its own, or a program.

It matters for one promise (docs/trust, "What is not covered"): the wires of a chip of its own can
be cut and somebody put between. Pure, but for asking the TPM.

Invariant: "integrated" is said only when maker and driver both say so, and whatever is not known is
"unknown". It is what TPM and firmware claim, unsigned: good enough to keep an honest chip out of a
product that wants none, and no proof against somebody who sits on the bus while it is asked.
Shared with the initrd: standard library only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from machineos.errors import PolicyError
from machineos.host.tpm.wire import Property, u32

if TYPE_CHECKING:
    from machineos.trust.seal.chip import Tpm

Kind = Literal["integrated", "discrete", "virtual", "unknown"]
# What the kernel says of the device; "DRIVER=tpm_crb" is a line of it.
DEVICE = "/sys/class/tpm/tpm0/device/uevent"

# TCG Vendor ID Registry. AMD and Intel make none but those in their firmware and processors.
# Microsoft's (MSFT) is in processors (Pluton) and in Hyper-V, so it tells nothing.
_IN_PROCESSORS = frozenset({"AMD", "INTC", "QCOM"})
_CHIPS = frozenset(
    {"ATML", "BRCM", "FLYS", "IFX", "NSM", "NTC", "NTZ", "SINO", "SMSC", "STM", "TXN", "WEC"}
)
_PROGRAMS = frozenset({"AMZN", "GOOG", "IBM", "VMW"})
# A command buffer in memory, as firmware offers it; a chip behind a bus is spoken to in registers.
_BUFFERS = frozenset({"tpm_crb", "tpm_ftpm_tee"})
_WORDS: dict[Kind, str] = {
    "integrated": "in the processor or its firmware",
    "discrete": "a chip of its own, on a bus that can be listened to and written to",
    "virtual": "a program outside of this virtual machine",
    "unknown": "of a kind that cannot be told",
}


class Maker(msgspec.Struct, frozen=True):
    """Who made a TPM, by its own word: the registered name, and what the maker adds to it."""

    name: str
    model: str

    def __str__(self) -> str:
        return f"{self.name or 'nobody'} {self.model!r}"


def read_maker(tpm: Tpm) -> Maker:
    """Ask a TPM who made it. Raises: TpmError."""
    found = tpm.properties(Property.MANUFACTURER, 5)
    words = [u32(found.get(Property.MANUFACTURER + number, 0)) for number in range(5)]
    return Maker(_text(words[0]), _text(b"".join(words[1:])))


def driver_of(uevent: str) -> str:
    """Return the kernel's driver out of the text of a device's ``uevent``, empty for none."""
    for line in uevent.splitlines():
        if line.startswith("DRIVER="):
            return line.removeprefix("DRIVER=")
    return ""


def kind_of(maker: Maker, driver: str) -> Kind:
    """Return the kind; "unknown" when maker and driver do not agree."""
    if maker.name in _PROGRAMS:
        return "virtual"
    if maker.name in _CHIPS:
        return "discrete"
    if maker.name in _IN_PROCESSORS and driver in _BUFFERS:
        return "integrated"
    return "unknown"


def describe(maker: Maker, driver: str) -> str:
    """Return one line about a TPM."""
    return (
        f"the TPM is {_WORDS[kind_of(maker, driver)]} ({kind_of(maker, driver)}: "
        f"made by {maker}, driver {driver or 'none'})"
    )


def check_kind(maker: Maker, driver: str, required: str) -> None:
    """Refuse a TPM of another kind than ``required``, empty for any. Raises: PolicyError."""
    if required and kind_of(maker, driver) != required:
        raise PolicyError(
            f"this product wants a TPM of the kind {required}, and {describe(maker, driver)}: "
            "nothing was provisioned; use a machine that has one, or a medium that asks for none",
        )


def _text(data: bytes) -> str:
    text = data.replace(b"\0", b"").decode("ascii", "replace")
    return "".join(char if char.isprintable() else "?" for char in text).strip()
