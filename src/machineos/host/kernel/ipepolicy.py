"""What may be executed: the two policies for IPE, as text (kernel docs, LSM/ipe). Touches nothing.

The *boot policy* holds while the initrd is the root: programs and modules are its own. The *closed
policy* takes its place as the last act before systemd and trusts no file of the first root any
more. Both have the same name, and each version of the second is one above its first, so the kernel
takes the step from one to the other and none back (docs/adr/0025).

In neither does a publisher's signature open anything but the execution of a file: modules and
firmware are those of one volume, named by its root hash, whoever signed it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from machineos.errors import BootError

if TYPE_CHECKING:
    from machineos.core.word import RootHash

_NAME = re.compile(rb"policy_name=(\S+)")
_VERSION = re.compile(rb"policy_version=(\S+)")
_FIRST_ROOT = "boot_verified=TRUE"
_SIGNED_VOLUME = "dmverity_signature=TRUE"


def boot_policy_text(minor: int, modules: RootHash) -> bytes:
    """Return the policy of the initrd: what is executed or loaded comes from it, or from the volume
    of modules with this root hash. ``minor`` is the version of the boot image."""
    return _text(
        f"1.{minor}.0",
        {
            "EXECUTE": [_FIRST_ROOT],
            "KMODULE": [_FIRST_ROOT, _volume(modules)],
            "FIRMWARE": [_FIRST_ROOT, _volume(modules)],
        },
    )


def closed_policy_text(minor: int, modules: RootHash) -> bytes:
    """Return the policy of the running system: a program comes from a dm-verity volume whose root
    hash carries a signature by a key that the kernel trusts, modules and firmware from the one with
    this root hash; everything else is denied, also to root."""
    return _text(
        f"1.{minor}.1",
        {
            "EXECUTE": [_SIGNED_VOLUME],
            "KMODULE": [_volume(modules)],
            "FIRMWARE": [_volume(modules)],
        },
    )


def policy_name(signed_policy: bytes) -> str:
    """Return the name of a policy, from its signed form. Raises: BootError when it has none."""
    return _said(_NAME, signed_policy, "name")


def policy_version(signed_policy: bytes) -> str:
    """Return the version of a policy, from its signed form. Raises: BootError when it has none."""
    return _said(_VERSION, signed_policy, "version")


def _text(version: str, allowed: dict[str, list[str]]) -> bytes:
    lines = [f"policy_name=machineos policy_version={version}", "DEFAULT action=DENY"]
    for operation, properties in allowed.items():
        lines.append(f"DEFAULT op={operation} action=DENY")
        lines += [f"op={operation} {one} action=ALLOW" for one in properties]
    return ("\n".join(lines) + "\n").encode()


def _volume(root_hash: RootHash) -> str:
    return f"dmverity_roothash=sha256:{root_hash}"


def _said(pattern: re.Pattern[bytes], signed_policy: bytes, what: str) -> str:
    match = pattern.search(signed_policy)
    if match is None:
        raise BootError(f"the IPE policy in this initrd has no {what}")
    return match[1].decode("ascii", "replace")
