"""What runs a guest's instructions: the answer of a probe, and for how long it is believed.

/dev/kvm can be there, open, and still never run a kernel, so the answer comes from running a guest
(``accel``). It holds until the host boots again. Nothing here touches the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from machineos.core.jsondoc import decode_json
from machineos.errors import MachineOSError

Kind = Literal["kvm", "tcg"]


@dataclass(frozen=True, slots=True)
class Accelerator:
    """``kvm`` or ``tcg``; ``reason`` says why it is not kvm."""

    kind: Kind
    reason: str = ""

    @property
    def notice(self) -> str:
        """One line for the user when guests will be slow, else the empty string."""
        if self.kind == "kvm" or not self.reason:
            return ""
        return f"KVM cannot be used ({self.reason}): falling back to emulation, which is slow"

    @property
    def lasting(self) -> bool:
        """Whether the answer holds until the host boots again: joining the group kvm cures a
        missing permission without that."""
        return "ermission" not in self.reason


class _Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    boot: str
    uid: int
    kind: Kind
    reason: str


def probed(reason: str) -> Accelerator:
    """Return the accelerator when the probe of kvm said ``reason``, empty when it ran."""
    return Accelerator("tcg", reason) if reason else Accelerator("kvm")


def remembered(data: bytes, *, boot: str, uid: int, name: str) -> Accelerator | None:
    """Return the kept answer in ``data``, None when it is damaged, or of another boot or user."""
    try:
        answer = decode_json(data, _Answer, name=name)
    except MachineOSError:
        return None  # it is a cache
    if (answer.boot, answer.uid) != (boot, uid):
        return None
    return Accelerator(answer.kind, answer.reason)


def to_remember(found: Accelerator, *, boot: str, uid: int) -> bytes:
    """Return the answer as it is kept."""
    return msgspec.json.encode(_Answer(boot, uid, found.kind, found.reason))
