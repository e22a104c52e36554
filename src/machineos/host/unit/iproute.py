"""Network links and addresses, through one ``ip -batch`` call. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.command import Command

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIMEOUT = 30.0


def batch(text: str) -> Command:
    """Return the call that runs the lines of a batch; the first that fails ends it."""
    return Command(("ip", "-batch", "-"), _TIMEOUT, input=text.encode())


def bridge_batch(name: str, addresses: Sequence[str], *, exists: bool) -> str:
    """Return the batch that makes a bridge with these addresses (CIDR) and puts it up.

    A bridge that exists keeps what is attached to it. Frames to the group addresses that bridges
    keep for themselves are treated as all others where the kernel allows it (0xfff8): a bridge
    would hand them to its host as received at the port, past all that filters a bridge. It does not
    listen to who wants which group: whoever asks for groups could keep them from the others.
    """
    options = "stp_state 0 forward_delay 0 mcast_snooping 0 group_fwd_mask 0xfff8"
    lines = [f"link {'set' if exists else 'add'} {name} type bridge {options}"]
    for address in addresses:
        flags = " nodad" if ":" in address else ""
        lines.append(f"address replace {address} dev {name}{flags}")
    lines.append(f"link set {name} addrgenmode none")
    lines.append(f"link set {name} up")
    return "\n".join(lines) + "\n"
