"""The names that documents give to things.

They become file names, unit names, host names and volume names later, so their grammar is narrow.
"""

from __future__ import annotations

from typing import Self

from machineos.core.serviceid import ServiceName as ServiceName  # the machine's names follow it
from machineos.core.word import Word


class Version(Word):
    """The version of a target, as its author writes it."""

    __slots__ = ()
    PATTERN = r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}"
    WHAT = f"a version ({PATTERN})"


class GroupName(Word):
    """The name of a group of services that share a range of ids (``nsgroup``)."""

    __slots__ = ()
    PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
    WHAT = f"a group name ({PATTERN})"


class VolumeName(Word):
    """What LVM calls a volume: its label, or that of one which is not finished."""

    __slots__ = ()
    PATTERN = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}"
    WHAT = f"a name of a volume ({PATTERN})"

    @property
    def mapped(self) -> str:
        """What it is called once it is open."""
        return f"machine-volume-{self}"


class Label(VolumeName):
    """The label of a volume; at most 36 characters, as a GPT partition has."""

    __slots__ = ()
    PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,35}"
    WHAT = f"a label ({PATTERN})"


class Unfinished(VolumeName):
    """The first name of a volume, in which no service looks for it: a label with an ending that
    LVM takes and no label has, so it is never the volume of somebody else. Whether the volume is
    finished its tag says, not its name."""

    __slots__ = ()
    PATTERN = rf"{Label.PATTERN}\+new"
    WHAT = f"a name of an unfinished volume ({PATTERN})"

    @classmethod
    def of(cls, label: Label) -> Self:
        """Return the name that the volume ``label`` has first."""
        return cls(f"{label}+new")

    @property
    def label(self) -> Label:
        """The label that it is to have."""
        return Label(self.removesuffix("+new"))


class ProductName(Word):
    """The name of a product."""

    __slots__ = ()
    PATTERN = r"[A-Za-z0-9][A-Za-z0-9._ -]{0,127}"
    WHAT = f"a product ({PATTERN})"
