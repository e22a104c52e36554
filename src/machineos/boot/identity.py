"""Who this machine is: the device identity in the TPM against what the firmware says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.errors import PolicyError

if TYPE_CHECKING:
    from machineos.trust.verify.chain import DeviceIdentity

DMI_SERIAL = "/sys/class/dmi/id/product_serial"


def check_machine(identity: DeviceIdentity, dmi_serial: str) -> None:
    """Refuse to run with the identity of another machine.

    Raises: PolicyError when the serial number in the certificate is not the firmware's.
    """
    if identity.serial != dmi_serial:
        raise PolicyError(
            f"the device identity is for serial {identity.serial!r}, this machine is {dmi_serial!r}"
        )
