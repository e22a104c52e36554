"""PCR 7, predicted: event by event, against published values and the log of a real boot."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from uuid import UUID

import pytest

from machineos.trust.keys.enrolled import certs_of
from machineos.trust.keys.keyset import KeyPair, Keyset
from machineos.trust.measure import pcr
from machineos.trust.measure.secureboot import SHIM_LOCK, sha256_list, x509_list

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


def event(guid: UUID, name: str, data: bytes) -> tuple[str, str]:
    """UEFI_VARIABLE_DATA, put together here."""
    text = name.encode("utf-16-le")
    sizes = struct.pack("<QQ", len(name), len(data))
    return name, hashlib.sha256(guid.bytes_le + sizes + text + data).hexdigest()


GLOBAL = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
SECURITY = UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
SHIM = UUID("605dab50-e046-4300-abb6-3dd810dd8b23")
FIRMWARE = [
    event(GLOBAL, "SecureBoot", b"\1"),
    event(GLOBAL, "PK", x509_list(certs().pk.owner, certs().pk.der)),
    event(GLOBAL, "KEK", x509_list(certs().kek.owner, certs().kek.der)),
    event(SECURITY, "db", x509_list(certs().db.owner, certs().db.der)),
    event(SECURITY, "dbx", pcr.DUMMY_DBX),
    ("separator", hashlib.sha256(bytes(4)).hexdigest()),
    event(SECURITY, "db", certs().db.owner.bytes_le + certs().db.der),
]


def shown(events: list[pcr.Event]) -> list[tuple[str, str]]:
    return [(one.name, one.digest.hex()) for one in events]


def test_each_event_is_the_variable_it_is_named_after() -> None:
    uki = owned("uki-production").der
    ours = [
        *FIRMWARE,
        event(SHIM, "SbatLevel", b"sbat,1,2025021800\nshim,4\ngrub,5\n"),
        event(SHIM, "MokListRT", SHIM.bytes_le + uki),
    ]
    assert shown(pcr.boot_events(certs(), uki)) == ours
    theirs = [
        *FIRMWARE,
        event(SHIM, "SbatLevel", b"sbat,1,2021030218\n"),
        event(SHIM, "MokListTrusted", b"\1"),
        event(SECURITY, "vendor_db", bytes(16) + uki),
    ]
    assert shown(pcr.boot_events(certs(), uki, predecessor=True)) == theirs
    older = pcr.boot_events(certs(), uki, sbat=b"sbat,1,2021030218\n")
    assert shown(older)[7] == theirs[7]


def test_the_deny_list_holds_one_hash_that_no_binary_has() -> None:
    nothing = hashlib.sha256(b"").digest()
    owner = UUID("a0baa8a3-041d-48a8-bc87-c36d121b5e3d")
    assert sha256_list(owner, [nothing]) == pcr.DUMMY_DBX


def test_a_prediction_is_the_fold_of_the_events() -> None:
    uki = owned("uki-tpm").der
    for predecessor in (False, True):
        found = pcr.predict_pcr7(certs(), uki, predecessor=predecessor)
        assert found == pcr.fold(pcr.boot_events(certs(), uki, predecessor=predecessor))
    assert pcr.predict_pcr7(certs(), uki, sbat=b"x") == pcr.fold(
        pcr.boot_events(certs(), uki, sbat=b"x")
    )


def test_fold_is_that_of_the_tpm() -> None:
    event = pcr.separator_event()
    assert pcr.fold([]) == bytes(32)
    assert pcr.fold([event]) == hashlib.sha256(bytes(32) + event.digest).digest()


def test_certs_of_a_keyset(one: Keyset) -> None:
    found, uki = certs_of(one, "uki-tpm")
    for role, held in (("uefi-pk", found.pk), ("uefi-kek", found.kek), ("uefi-db", found.db)):
        pair = one.key(role)
        assert (held.der, held.owner) == (pair.certificate_der(), pair.guid)
    assert found.dbx == pcr.DUMMY_DBX
    assert uki == one.key("uki-tpm").certificate_der()
    assert certs_of(one)[1] == one.key("uki-production").certificate_der()


def test_an_owner_that_is_not_known_is_nobody(own: Keyset) -> None:
    (own.root / "uefi-kek/guid").unlink()
    assert certs_of(own)[0].kek.owner == UUID(int=0)


def test_pcr_14_is_what_the_event_log_of_a_guest_showed() -> None:
    """Of the same boot: two of the three digests depend on no key, so they are of any."""
    uki = owned("uki-production").der
    listed = hashlib.sha256(x509_list(SHIM, uki)).hexdigest()
    assert shown(pcr.mok_events(uki)) == [
        ("MokList", listed),
        ("MokListX", "8d8a3aae50d5d25838c95c034aadce7b548c9a952eb7925e366eda537c59c3b0"),
        ("MokListTrusted", "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a"),
    ]
    assert pcr.predict_pcr14(uki) == pcr.fold(pcr.mok_events(uki))
    assert pcr.predict_pcr14(uki) != pcr.predict_pcr14(owned("uki-limited").der)


def test_what_is_enrolled_makes_another_pcr_14() -> None:
    """As shim measures it (mok.c): a key behind its own, a hash to deny, a setting."""
    uki, foreign = owned("uki-production").der, owned("uefi-pk")
    nobody = pcr.mok_events(uki)
    with_key = x509_list(SHIM, uki) + x509_list(foreign.owner, foreign.der)
    values = {
        pcr.fold(events)
        for events in (
            nobody,
            [content("MokList", with_key), *nobody[1:]],
            [nobody[0], content("MokListX", sha256_list(foreign.owner, [b"h" * 32])), nobody[2]],
            nobody[:2],
            [*nobody, content("MokPolicy", b"\1")],
        )
    }
    assert len(values) == 5


def test_pcr_14_alone_does_not_tell_one_setting_from_another() -> None:
    """shim hashes the content and not the name. With MokListTrusted there (then it is not
    measured, and the kernel does not take shim's list into .machine) and MokPolicy of the same
    byte, PCR 14 is as ours: why the boot looks at the keyrings as well."""
    uki = owned("uki-production").der
    imitated = [*pcr.mok_events(uki)[:2], content("MokPolicy", b"\1")]
    assert pcr.fold(imitated) == pcr.predict_pcr14(uki)


def content(name: str, data: bytes) -> pcr.Event:
    return pcr.Event(name, hashlib.sha256(data).digest())
