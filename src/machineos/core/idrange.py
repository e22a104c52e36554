"""Ranges of user and group ids: what a group of services has to itself.

Invariant: a range that exists fits into the kernel's 32 bits, and no id of it means "no id".
"""

from __future__ import annotations

import msgspec

from machineos.errors import ToolError

RANGE = 65536  # ids of each group
FIRST_GUEST = 65536  # lower ones are the host's own
LAST_ID = (1 << 32) - 2  # the id after it means "no id" to the kernel


def needs_range(group: str) -> bool:
    """Whether the services of ``group`` run with ids of their own, in a user namespace."""
    return group not in {"", "none"}


class IdRange(msgspec.Struct, frozen=True):
    """``count`` ids: 0.. inside is ``first``.. on the host, for users and groups alike."""

    first: int
    count: int

    def __post_init__(self) -> None:
        if self.first < 0 or self.count < 1 or self.first + self.count - 1 > LAST_ID:
            raise ToolError(f"id range {self.first}+{self.count} is not possible")

    def host(self, inside: int) -> int:
        """Return the host's id for an id of the namespace. Raises: ToolError when not mapped."""
        if not 0 <= inside < self.count:
            raise ToolError(f"id {inside} is outside the {self.count} ids of the namespace")
        return self.first + inside

    @property
    def line(self) -> bytes:
        """The line for /proc/PID/uid_map."""
        return b"0 %d %d\n" % (self.first, self.count)
