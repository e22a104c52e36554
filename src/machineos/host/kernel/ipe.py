"""Integrity Policy Enforcement: have the kernel enforce a policy, and replace it by a stricter one
(kernel docs, LSM/ipe).

Shared with the initrd: standard library only. What a policy says is in ``ipepolicy``.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from machineos.errors import BootError, SignatureError
from machineos.host.kernel.ipepolicy import policy_name, policy_version
from machineos.host.kernel.securityfs import SECURITYFS

if TYPE_CHECKING:
    from pathlib import Path


def enforce(signed_policy: bytes, *, securityfs: Path = SECURITYFS) -> None:
    """Load a signed policy, activate it, and check that the kernel really enforces it.

    Raises: BootError (no IPE in this kernel, not enforcing), SignatureError (refused).
    """
    root = securityfs / "ipe"
    if not root.is_dir():
        raise BootError("the kernel runs without IPE; nothing would be enforced")
    name = policy_name(signed_policy)
    _write(root / "new_policy", signed_policy, name)
    (root / "policies" / name / "active").write_bytes(b"1")
    _require_enforced(root, name, policy_version(signed_policy))


def replace(signed_policy: bytes, *, securityfs: Path = SECURITYFS) -> None:
    """Put a signed policy in the place of the active, older one of the same name, and check that
    the kernel enforces it and holds no other.

    What runs goes on; what is executed, mapped or loaded from now on is judged by the new one.
    Raises: BootError (not enforcing, another policy is there), SignatureError (refused).
    """
    root = securityfs / "ipe"
    name = policy_name(signed_policy)
    _write(root / "policies" / name / "update", signed_policy, name)
    _require_enforced(root, name, policy_version(signed_policy))
    if others := sorted(one.name for one in (root / "policies").iterdir() if one.name != name):
        raise BootError(f"the kernel holds another IPE policy: {others[0]}")


def _write(file: Path, signed_policy: bytes, name: str) -> None:
    try:
        file.write_bytes(signed_policy)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "?")
        raise SignatureError(f"the kernel refuses the IPE policy {name}: {code}") from error


def _require_enforced(root: Path, name: str, version: str) -> None:
    folder = root / "policies" / name
    if (folder / "active").read_bytes().strip() != b"1":
        raise BootError(f"the IPE policy {name} is not active")
    found = (folder / "version").read_text("ascii").strip()
    if found != version:
        raise BootError(f"the kernel has version {found} of the IPE policy {name}, not {version}")
    if (root / "enforce").read_bytes().strip() != b"1":
        raise BootError("the kernel has IPE in permissive mode")
