"""How mosd reaches the kernel: verity volumes, forwarding, the sysctls that forwarding needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.files import read_bounded
from machineos.errors import ToolError
from machineos.host.kernel import dmverity
from machineos.host.unit import iproute, nft
from machineos.service.plan.network import BRIDGE, BRIDGE_ADDRESSES, FAMILY, TABLE, render_table
from machineos.state.images.volume import image_volume

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from machineos.oci.model.documents import Descriptor
    from machineos.service.plan.network import Forward

_MAX_SIGNATURE = 64 << 10


class VerityVolumes:
    """dm-verity devices whose root hash somebody signed whom the kernel trusts."""

    def open(self, layer: Descriptor, *, blob: Path, signature: Path) -> Path:
        """Return the device of ``layer``. Raises: VerificationError, ConflictError, ToolError."""
        pkcs7 = read_bounded(signature, _MAX_SIGNATURE)
        return dmverity.open_volume(image_volume(blob, layer, signature=pkcs7).volume)

    def close(self, digest: str) -> None:
        """Close the device of a layer. Raises: ToolError when it is in use."""
        dmverity.close_volume(f"{digest}-verity")


class Forwarding:
    """The bridge of the services, the nftables table, and the kernel switches behind it.

    ``proc`` is /proc, ``sys`` is /sys.
    """

    def __init__(self, *, proc: Path, sys: Path) -> None:
        self._proc = proc
        self._sys = sys

    def __call__(self, forwards: Sequence[Forward]) -> None:
        """Make exactly ``forwards`` hold. Raises: ToolError (nothing has changed)."""
        exists = (self._sys / "class/net" / BRIDGE).exists()
        iproute.batch(iproute.bridge_batch(BRIDGE, BRIDGE_ADDRESSES, exists=exists))
        nft.apply(nft.replace_table(FAMILY, TABLE, render_table(forwards)))
        # After the table: its first chain is what makes route_localnet harmless.
        for name in (
            "ipv4/ip_forward",
            "ipv6/conf/all/forwarding",
            f"ipv4/conf/{BRIDGE}/route_localnet",
        ):
            self._switch_on(name)

    def _switch_on(self, name: str) -> None:
        path = self._proc / "sys/net" / name
        try:
            path.write_text("1")
        except FileNotFoundError as error:
            if name.startswith("ipv6/"):  # a kernel started without IPv6
                return
            raise ToolError(f"{path} does not exist") from error
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}") from error
