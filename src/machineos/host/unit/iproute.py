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

    A bridge that exists keeps what is attached to it.
    """
    lines = [] if exists else [f"link add {name} type bridge stp_state 0 forward_delay 0"]
    for address in addresses:
        flags = " nodad" if ":" in address else ""
        lines.append(f"address replace {address} dev {name}{flags}")
    lines.append(f"link set {name} addrgenmode none")
    lines.append(f"link set {name} up")
    return "\n".join(lines) + "\n"
