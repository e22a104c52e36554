"""Integrity Policy Enforcement, the kernel's rule on what may be executed (kernel docs, LSM/ipe).

Shared with the initrd: standard library only. The policy text is pure; loading needs securityfs.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

from machineos.errors import BootError, SignatureError

SECURITYFS = Path("/sys/kernel/security")
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


def enforce(signed_policy: bytes, *, securityfs: Path = SECURITYFS) -> None:
    """Load a signed policy, activate it, and check that the kernel really enforces it.

    Raises: BootError (no IPE in this kernel, not enforcing), SignatureError (refused).
    """
    root = securityfs / "ipe"
    if not root.is_dir():
        raise BootError("the kernel runs without IPE; nothing would be enforced")
    match = _NAME.search(signed_policy)
    if match is None:
        raise BootError("the IPE policy in this initrd has no name")
    name = match[1].decode("ascii", "replace")
    try:
        (root / "new_policy").write_bytes(signed_policy)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "?")
        raise SignatureError(f"the kernel refuses the IPE policy {name}: {code}") from error
    (root / "policies" / name / "active").write_bytes(b"1")
    if (root / "enforce").read_bytes().strip() != b"1":
        raise BootError("the kernel has IPE in permissive mode")
