"""What a bootkit is built for: the kernel, the firmware of its drivers, microcode of processors.

``mosb bootkit build`` takes it from its options, or from ``hardware`` in ``manifest.yaml``
(docs/adr/0030).
"""

from __future__ import annotations

import json
import re
from typing import Literal, Self

import msgspec

# An annotation of the bootkit's image: what it was built for.
HARDWARE_LABEL = "org.machineos.hardware"
Kernel = Literal["generic", "cloud"]
Microcode = Literal["amd", "intel", "none"]
# Words in the place of packages. ``all`` are those with files for drivers of the layer, ``common``
# all but two large ones that serve cards of few machines.
FIRMWARE = {
    "none": (),
    "common": ("firmware-bnx2", "firmware-bnx2x", "firmware-intel-misc", "firmware-misc-nonfree",
               "firmware-qlogic", "firmware-realtek"),
    "all": ("firmware-bnx2", "firmware-bnx2x", "firmware-cavium", "firmware-intel-misc",
            "firmware-misc-nonfree", "firmware-netronome", "firmware-qlogic", "firmware-realtek"),
}  # fmt: skip


class PackageName(str):
    """The name of a Debian package (Debian policy 5.6.7)."""

    __slots__ = ()
    PATTERN = "[a-z0-9][a-z0-9+.-]{1,99}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name. Raises: ValueError."""
        if not re.fullmatch(cls.PATTERN, text):
            raise ValueError(f"{text[:80]!r} is not the name of a Debian package")
        return cls(text)


class Hardware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``kernel``: Debian's for every machine, or for guests only. ``firmware``: Debian packages, of
    which the files go in that a module names, or words of ``FIRMWARE``; empty is ``common`` with
    the generic kernel. ``microcode`` None is what costs nothing: AMD's with the generic kernel.
    With the other both are none: it runs where they would do nothing."""

    kernel: Kernel = "generic"
    firmware: tuple[PackageName, ...] = ()
    microcode: Microcode | None = None

    @property
    def updates(self) -> Microcode:
        """Whose microcode goes into the kernel images; with Intel's goes AMD's, which is small."""
        return self.microcode or ("amd" if self.kernel == "generic" else "none")

    @property
    def packages(self) -> tuple[str, ...]:
        """The Debian packages with firmware, sorted."""
        default = ("common",) if self.kernel == "generic" else ()
        named = (FIRMWARE.get(word, (word,)) for word in self.firmware or default)
        return tuple(sorted({package for packages in named for package in packages}))

    @property
    def label(self) -> str:
        """This as one line of JSON; what makes the same bootkit has the same line."""
        said = {
            "kernel": self.kernel,
            "firmware": self.packages,
            "microcode": self.updates,
        }
        return json.dumps(said, separators=(",", ":"))

    def changed(
        self, kernel: Kernel | None, firmware: tuple[PackageName, ...], microcode: Microcode | None
    ) -> Hardware:
        """Return this with what was given in its place: None and empty are not given."""
        return Hardware(
            kernel=kernel or self.kernel,
            firmware=firmware or self.firmware,
            microcode=microcode or self.microcode,
        )


GUEST = Hardware(kernel="cloud")
