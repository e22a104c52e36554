from __future__ import annotations

import pytest

from machineos.boot.identity import check_machine
from machineos.errors import PolicyError
from machineos.trust.verify.chain import verify_sudi
from vectors.certificates import NOW, SUDI_CA_NAME, ca, device


def identity(serial: str):
    return verify_sudi(device(serial).pem(), ca_pem=ca(SUDI_CA_NAME, "sudi-ca").pem(), at=NOW)


def test_this_machine() -> None:
    check_machine(identity("SN0001"), "SN0001")


@pytest.mark.parametrize("serial", ["", "SN0002", "sn0001", "SN0001 ", "SN00011"])
def test_another_machine(serial: str) -> None:
    with pytest.raises(PolicyError, match="'SN0001', this machine is"):
        check_machine(identity("SN0001"), serial)
