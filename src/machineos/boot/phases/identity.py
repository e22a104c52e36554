"""Who this machine is: the device identity in the TPM against what the firmware says.

It is sealed for the second phase; until it is known, no disk is looked at.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from machineos.boot.facts import (
    ANCHORS,
    BOOTS,
    CERTIFICATE,
    DRIVERS,
    FIRST_DOOR,
    IDENTITY,
    SEALED,
    UNSEALED,
    Facts,
    Phase,
)
from machineos.boot.steps import ReadSealed, ReadText, Say
from machineos.core.steps import Talk, ask
from machineos.errors import PolicyError
from machineos.trust.seal.layout import Index
from machineos.trust.verify.chain import verify_sudi

if TYPE_CHECKING:
    from machineos.trust.verify.chain import DeviceIdentity

DMI_SERIAL = Path("/sys/class/dmi/id/product_serial")


def check_machine(identity: DeviceIdentity, dmi_serial: str) -> None:
    """Refuse to run with the identity of another machine.

    Raises: PolicyError when the serial number in the certificate is not the firmware's.
    """
    if identity.serial != dmi_serial:
        raise PolicyError(
            f"the device identity is for serial {identity.serial!r}, this machine is {dmi_serial!r}"
        )


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        certificate = (yield from ask(ReadSealed(Index.SUDI_CERT))).reveal()
        identity = verify_sudi(certificate, ca_pem=facts[ANCHORS].sudi_ca, at=None)
        check_machine(identity, (yield from ask(ReadText(DMI_SERIAL))))
        yield from ask(Say(f"this is {identity.serial} of product {identity.product}"))
        return Facts().plus(CERTIFICATE, certificate).plus(IDENTITY, identity)


PHASE = _Phase(
    "identity",
    modes=BOOTS,
    needs=frozenset({ANCHORS, DRIVERS, SEALED, FIRST_DOOR}),
    gives=frozenset({CERTIFICATE, IDENTITY, UNSEALED}),
)
