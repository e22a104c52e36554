"""Programs in namespaces of their own, started by ``unshare`` (util-linux).

Invariant: when the command ends, or is killed, every process that it started is gone with its
process namespace, and every mount with its mount namespace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def argv_isolated(argv: Sequence[str], *, network: bool = True) -> list[str]:
    """Return ``argv`` in its own mount, process, IPC and host name namespaces.

    ``network=False`` takes the network away as well: only an unconfigured loopback is left.
    """
    flags = ["--mount-proc", "--propagation=private", "--uts", "--ipc", "--pid", "--fork"]
    flags.append("--kill-child")
    if not network:
        flags.append("--net")
    return ["unshare", *flags, "--", *argv]
