"""Keysets as JSON and as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.digest import Digest
from machineos.trust.keys.x509 import certificate_der

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cryptography.x509 import Certificate

    from machineos.trust.keys.keyset import KeyPair, Project, Sudi


def pair_json(pair: KeyPair) -> dict[str, object]:
    """Return a key and its certificate."""
    certificate = pair.certificate()
    shown: dict[str, object] = {
        "certificate": str(pair.cert_path),
        "key": str(pair.key_path),
        "subject": certificate.subject.rfc4514_string(),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "fingerprint": str(Digest.of(certificate_der(certificate))),
    }
    if pair.guid is not None:
        shown["guid"] = str(pair.guid)
    return shown


def project_json(project: Project) -> dict[str, object]:
    """Return a project with its key."""
    return {"name": project.name, "uuid": str(project.uuid), **pair_json(project.pair)}


def sudi_json(sudi: Sudi) -> dict[str, object]:
    """Return the identity of a machine."""
    return {"serial": sudi.serial, **pair_json(sudi.pair)}


def keyset_json(
    name: str, root: Path, keys: Mapping[str, KeyPair], projects: Iterable[Project]
) -> dict[str, object]:
    """Return a whole keyset."""
    return {
        "name": name,
        "path": str(root),
        "keys": {role: pair_json(pair) for role, pair in keys.items()},
        "projects": [project_json(one) for one in projects],
    }


def pcr7_json(
    report: Mapping[str, tuple[str, list[dict[str, str]]]], *, events: bool
) -> dict[str, object]:
    """Return the value of PCR 7 by role, and what is measured into it where that was asked for."""
    return {
        role: {"pcr7": value, **({"events": shown} if events else {})}
        for role, (value, shown) in report.items()
    }


KEY_COLUMNS = ("KEY", "UNTIL", "SUBJECT")


def key_row(label: str, certificate: Certificate) -> tuple[str, ...]:
    """Return the row of one key."""
    ends = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    return (label, ends, certificate.subject.rfc4514_string())
