"""Integrity Policy Enforcement: have the kernel enforce a policy (kernel docs, LSM/ipe).

Shared with the initrd: standard library only. What a policy says is in ``ipepolicy``.
"""

from __future__ import annotations

import errno
from pathlib import Path

from machineos.errors import BootError, SignatureError
from machineos.host.kernel.ipepolicy import policy_name

SECURITYFS = Path("/sys/kernel/security")


def enforce(signed_policy: bytes, *, securityfs: Path = SECURITYFS) -> None:
    """Load a signed policy, activate it, and check that the kernel really enforces it.

    Raises: BootError (no IPE in this kernel, not enforcing), SignatureError (refused).
    """
    root = securityfs / "ipe"
    if not root.is_dir():
        raise BootError("the kernel runs without IPE; nothing would be enforced")
    name = policy_name(signed_policy)
    try:
        (root / "new_policy").write_bytes(signed_policy)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "?")
        raise SignatureError(f"the kernel refuses the IPE policy {name}: {code}") from error
    (root / "policies" / name / "active").write_bytes(b"1")
    if (root / "enforce").read_bytes().strip() != b"1":
        raise BootError("the kernel has IPE in permissive mode")
