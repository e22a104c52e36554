"""What may be executed: the policy for IPE, as text (kernel docs, LSM/ipe). Touches nothing."""

from __future__ import annotations

import re

from machineos.errors import BootError

_NAME = re.compile(rb"policy_name=(\S+)")


def policy_text(*, version: str) -> bytes:
    """Return the policy: code comes from the initrd or from a dm-verity volume whose root hash
    carries a signature by a key that the kernel trusts; everything else is denied, also to root.

    ``version`` is ``major.minor.patch``; the kernel refuses to replace a policy by an older one.
    """
    lines = [f"policy_name=machineos policy_version={version}", "DEFAULT action=DENY"]
    for operation in ("EXECUTE", "FIRMWARE", "KMODULE"):
        lines.append(f"DEFAULT op={operation} action=DENY")
        lines.append(f"op={operation} boot_verified=TRUE action=ALLOW")
        lines.append(f"op={operation} dmverity_signature=TRUE action=ALLOW")
    return ("\n".join(lines) + "\n").encode()


def policy_name(signed_policy: bytes) -> str:
    """Return the name of a policy, from its signed form. Raises: BootError when it has none."""
    match = _NAME.search(signed_policy)
    if match is None:
        raise BootError("the IPE policy in this initrd has no name")
    return match[1].decode("ascii", "replace")
