"""What a contract of the boot needs around its host: a *bed* to prepare things in.

Groups say what they need: ``files`` nothing, ``mounts`` root and a mount namespace, ``tpm`` a TPM
that may be filled, ``kernel`` a booted appliance. Standard library and our package only: a guest
has nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol
from uuid import UUID

from machineos.boot.host import Host
from machineos.document.model.install import Target
from machineos.host.kernel.flags import Flag
from machineos.oci.model import atomfs
from machineos.trust.measure.tpm_policy import SignedPolicy
from machineos.trust.verify.chain import Publisher

Kind = Literal["file", "folder", "link", "fifo"]
SAFE = Flag.RDONLY | Flag.NOSUID | Flag.NODEV | Flag.NOEXEC
KEY, OTHER_KEY = bytes(range(32)), bytes(32)


class Bed(Protocol):
    """A host, and a folder of its own in which things can be prepared."""

    @property
    def host(self) -> Host: ...
    @property
    def folder(self) -> Path: ...
    def plant(
        self, path: Path, data: bytes = b"", *, mode: int = 0o644, kind: Kind = "file"
    ) -> None: ...
    def look(self, path: Path) -> tuple[bytes, int]: ...


class MountBed(Bed, Protocol):
    """One whose mounts can be seen."""

    def flags(self, target: Path) -> Flag | None: ...


class DiskBed(Bed, Protocol):
    """One with disk vda: vda1 ``esp``, vda2 ``machine-config``, vda3 without a name; disk vdb
    without partitions, drive sr0, and a loop device."""

    def labelled(self, kind: str, label: str) -> Path: ...
    def luks(self, key: bytes) -> Path: ...


class TpmBed(Protocol):
    """One with a TPM, and the policies of an image with the version that they ask for."""

    @property
    def host(self) -> Host: ...
    def reset(self, *, image: bytes = b"this image") -> None: ...
    def extend(self, pcr: int) -> None: ...
    def policies(
        self, *, version: str = "0001", by: Literal["product", "stranger"] = "product"
    ) -> tuple[SignedPolicy, ...]: ...
    @property
    def policy_keys(self) -> tuple[bytes, bytes]: ...


@dataclass(frozen=True)
class Layer:
    """A volume in a file, and what its signature is by whom."""

    blob: Path
    described: atomfs.Layer
    signature: bytes


class KernelBed(MountBed, Protocol):
    """One whose kernel enforces, and who is known to it."""

    def layer(self, which: Literal["good", "stranger", "changed"]) -> Layer: ...
    def certificate(self, which: Literal["publisher", "stranger"]) -> bytes: ...
    def device(self) -> Path: ...
    def policy(self) -> bytes: ...
    def secret(self, description: str) -> bytes: ...


class StoreBed(Protocol):
    """One with a store and a medium that something was published to."""

    @property
    def host(self) -> Host: ...
    @property
    def store(self) -> Path: ...
    @property
    def layouts(self) -> Path: ...
    @property
    def target(self) -> Target: ...
    @property
    def publisher(self) -> Publisher: ...
    @property
    def stranger(self) -> Publisher: ...
    @property
    def ca_pem(self) -> bytes: ...
    @property
    def product(self) -> UUID: ...
    def spoil(self) -> None: ...


def refused(kind: type[Exception], act: Callable[[], object]) -> str:
    """Return what the refusal says; it has to be of this kind."""
    try:
        act()
    except kind as error:
        return str(error)
    raise AssertionError(f"was not refused with {kind.__name__}")
