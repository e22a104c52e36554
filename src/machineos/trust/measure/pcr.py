"""What PCR 7 and 14 will hold: the events of a boot with our keys alone, and their fold.

Pure. PCR 7 follows the TCG PC Client Platform Firmware Profile (UEFI_VARIABLE_DATA) and, after the
separator, what shim measures; PCR 14 is shim's alone, and is about the keys that the machine's
owner enrolled (MOK). Invariant: a prediction is the fold of a list of events that can be compared,
one by one, with the event log of a real boot.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from machineos.trust.measure.secureboot import (
    EFI_GLOBAL,
    IMAGE_SECURITY,
    NO_OWNER,
    SHIM_LOCK,
    sha256_list,
    signature_data,
    x509_list,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_EMPTY_HASH = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
DUMMY_DBX = sha256_list(UUID("a0baa8a3-041d-48a8-bc87-c36d121b5e3d"), [_EMPTY_HASH])
"""The deny list of one hash that no binary has, which virt-fw-vars enrolls."""
PREDECESSOR_SBAT = b"sbat,1,2021030218\n"
SHIM_16_1_SBAT = b"sbat,1,2025021800\nshim,4\ngrub,5\n"
"""What shim 16.1 of Debian 13 writes where no SbatLevel was set before."""


@dataclass(frozen=True, slots=True)
class Event:
    """One measurement: the SHA-256 that a PCR is extended with, and what it is of."""

    name: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Owned:
    """A certificate (DER) and the GUID of its owner, as the firmware's variables hold it."""

    der: bytes
    owner: UUID


@dataclass(frozen=True, slots=True)
class SecureBootCerts:
    """What the firmware's variables hold: one certificate each, and the deny list."""

    pk: Owned
    kek: Owned
    db: Owned
    dbx: bytes = DUMMY_DBX


def variable_event(guid: UUID, name: str, data: bytes) -> Event:
    """Return the measurement of a UEFI variable (or of what is measured in the same form)."""
    text = name.encode("utf-16-le")
    header = guid.bytes_le + struct.pack("<QQ", len(text) // 2, len(data))
    return Event(name, hashlib.sha256(header + text + data).digest())


def separator_event() -> Event:
    """Return the measurement between the firmware's configuration and what it then verifies."""
    return Event("separator", hashlib.sha256(bytes(4)).digest())


def firmware_events(certs: SecureBootCerts) -> list[Event]:
    """Return what the firmware measures: its configuration, then the key that vouches for shim."""
    return [
        variable_event(EFI_GLOBAL, "SecureBoot", b"\1"),
        variable_event(EFI_GLOBAL, "PK", x509_list(certs.pk.owner, certs.pk.der)),
        variable_event(EFI_GLOBAL, "KEK", x509_list(certs.kek.owner, certs.kek.der)),
        variable_event(IMAGE_SECURITY, "db", x509_list(certs.db.owner, certs.db.der)),
        variable_event(IMAGE_SECURITY, "dbx", certs.dbx),
        separator_event(),
        variable_event(IMAGE_SECURITY, "db", signature_data(certs.db.owner, certs.db.der)),
    ]


def predecessor_shim_events(uki: bytes) -> list[Event]:
    """Return what the predecessor's shim (15.6, vendor database) measures before the UKI runs."""
    return [
        sbat_event(PREDECESSOR_SBAT),
        mok_list_trusted_event(),
        variable_event(IMAGE_SECURITY, "vendor_db", signature_data(NO_OWNER, uki)),
    ]


def shim_events(uki: bytes, *, sbat: bytes = SHIM_16_1_SBAT) -> list[Event]:
    """Return what Debian 13's shim (16.1, vendor certificate) measures before the UKI runs.

    shim mirrors its vendor certificate into MokListRT before it verifies anything, so the UKI is
    found there, under shim's own GUID, and never gets to the check of the vendor certificate. Its
    other variables go to PCR 14 (``mok_events``). Seen so in the event log of a boot.
    """
    return [
        sbat_event(sbat),
        variable_event(SHIM_LOCK, "MokListRT", signature_data(SHIM_LOCK, uki)),
    ]


def mok_events(uki: bytes) -> list[Event]:
    """Return what Debian 13's shim (16.1, vendor certificate) measures into PCR 14 when nobody has
    enrolled a key of their own: the two lists as it mirrors them for the kernel, and that the
    kernel may trust the first.

    Unlike PCR 7 these are of the bare content (shim's ``tpm_log_event``). What a machine's owner
    enrols stands behind the vendor certificate in MokList, or in MokListX in the place of the one
    hash of zeros; ``MokListTrusted``, ``MokPolicy`` and ``MokSBState`` leave out an event or add
    one. Seen so in the event log of a boot.
    """
    return [
        _content_event("MokList", x509_list(SHIM_LOCK, uki)),
        _content_event("MokListX", sha256_list(SHIM_LOCK, [bytes(32)])),
        _content_event("MokListTrusted", b"\1"),
    ]


def sbat_event(level: bytes) -> Event:
    """Return the measurement of the revocation level that shim enforces."""
    return variable_event(SHIM_LOCK, "SbatLevel", level)


def mok_list_trusted_event() -> Event:
    """Return the measurement that shim makes when the kernel may trust its list of keys."""
    return variable_event(SHIM_LOCK, "MokListTrusted", b"\1")


def fold(events: Iterable[Event]) -> bytes:
    """Return the PCR (SHA-256 bank) after these events."""
    value = bytes(32)
    for event in events:
        value = hashlib.sha256(value + event.digest).digest()
    return value


def boot_events(
    certs: SecureBootCerts, uki: bytes, *, sbat: bytes = SHIM_16_1_SBAT, predecessor: bool = False
) -> list[Event]:
    """Return all events up to the start of the UKI that the certificate ``uki`` (DER) verifies.

    ``predecessor`` selects what the predecessor's shim measures.
    """
    shim = predecessor_shim_events(uki) if predecessor else shim_events(uki, sbat=sbat)
    return [*firmware_events(certs), *shim]


def predict_pcr7(
    certs: SecureBootCerts, uki: bytes, *, sbat: bytes = SHIM_16_1_SBAT, predecessor: bool = False
) -> bytes:
    """Return PCR 7 (SHA-256) as it is when that UKI runs; arguments as for ``boot_events``."""
    return fold(boot_events(certs, uki, sbat=sbat, predecessor=predecessor))


def predict_pcr14(uki: bytes) -> bytes:
    """Return PCR 14 (SHA-256) as shim leaves it, with the certificate ``uki`` (DER) inside it and
    no other key enrolled."""
    return fold(mok_events(uki))


def _content_event(name: str, data: bytes) -> Event:
    return Event(name, hashlib.sha256(data).digest())
