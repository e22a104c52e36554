from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import UUID

import pytest

from machineos.trust.keys.enrolled import certs_of
from machineos.trust.keys.keyset import KeyPair, Keyset
from machineos.trust.measure import pcr
from machineos.trust.measure.secureboot import SHIM_LOCK

VECTORS = Path(__file__).parents[3] / "vectors" / "predecessor_keys"

# published with the predecessor's public keys
PUBLISHED = {
    "uki-production": "e5936c3e9f1b8f53d1ba5b597ed11ba0d66e29f9558d02c96e99a149b75dada8",
    "uki-limited": "cecf0859d0c82f9b074d48d300cc83dae05df98da4144f4beaef88faf967f38c",
    "uki-tpm": "254d1d3854f71ad22f7046d037a898a51880415b01ecdc577e242a146116eea0",
}


def owned(role: str) -> pcr.Owned:
    pair = KeyPair(VECTORS / f"{role}.pem", VECTORS / "none")
    guid = UUID((VECTORS / f"{role}.guid").read_text().strip())
    return pcr.Owned(pair.certificate_der(), guid)


def certs() -> pcr.SecureBootCerts:
    return pcr.SecureBootCerts(owned("uefi-pk"), owned("uefi-kek"), owned("uefi-db"))


@pytest.mark.parametrize("role", PUBLISHED)
def test_published_values(role: str) -> None:
    value = pcr.predict_pcr7(certs(), owned(role).der, predecessor=True)
    assert value.hex() == PUBLISHED[role]


def test_every_input_counts() -> None:
    uki = owned("uki-production").der
    base = certs()
    changed = pcr.Owned(base.pk.der + b"x", base.pk.owner)
    moved = pcr.Owned(base.pk.der, SHIM_LOCK)
    values = {
        pcr.predict_pcr7(base, uki),
        pcr.predict_pcr7(base, uki, predecessor=True),
        pcr.predict_pcr7(base, uki + b"x"),
        pcr.predict_pcr7(base, uki, sbat=b"sbat,1,2021030218\n"),
        *(
            pcr.predict_pcr7(pcr.SecureBootCerts(*keys), uki)
            for keys in (
                (changed, base.kek, base.db),
                (moved, base.kek, base.db),
                (base.pk, changed, base.db),
                (base.pk, base.kek, changed),
                (base.pk, base.kek, base.db, b""),
            )
        ),
    }
    assert len(values) == 9


def test_our_boot_measures_what_the_event_log_of_a_guest_showed() -> None:
    # names and order as in the log of: firmware, Debian 13's shim 16.1, a UKI; the two digests
    # that depend on no key are the ones of that log
    events = pcr.boot_events(certs(), owned("uki-production").der)
    assert [event.name for event in events] == [
        "SecureBoot", "PK", "KEK", "db", "dbx", "separator", "db", "SbatLevel", "MokListRT",
    ]  # fmt: skip
    by_name = {event.name: event.digest.hex() for event in events}
    assert by_name["SecureBoot"].startswith("ccfc4bb32888a345")
    assert by_name["dbx"].startswith("1963d580fcc0cede")
    assert by_name["separator"].startswith("df3f619804a92fdb")
    assert by_name["SbatLevel"].startswith("ef611239b24f977f")


def test_fold_is_that_of_the_tpm() -> None:
    event = pcr.separator_event()
    assert pcr.fold([]) == bytes(32)
    assert pcr.fold([event]) == hashlib.sha256(bytes(32) + event.digest).digest()


def test_certs_of_a_keyset(one: Keyset) -> None:
    found, uki = certs_of(one, "uki-tpm")
    assert found.db == pcr.Owned(one.key("uefi-db").certificate_der(), one.key("uefi-db").guid)
    assert uki == one.key("uki-tpm").certificate_der()
