from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from machineos.errors import MissingError
from machineos.host.virt import uefivars
from machineos.host.virt.uefivars import Enrolled

GUID = UUID("00112233-4455-6677-8899-aabbccddeeff")


def test_argv() -> None:
    pk, kek, db = (Enrolled(GUID, Path(f"{name}.pem")) for name in ("pk", "kek", "db"))
    assert uefivars.argv_enroll("v", Path("in"), Path("out"), pk=pk, kek=kek, db=db) == [
        "v", "--input", "in", "--output", "out",
        "--set-pk", str(GUID), "pk.pem", "--add-kek", str(GUID), "kek.pem",
        "--add-db", str(GUID), "db.pem", "--sb", "--no-microsoft",
    ]  # fmt: skip


def test_missing_template(tmp_path: Path) -> None:
    key = Enrolled(GUID, tmp_path / "c.pem")
    with pytest.raises(MissingError):
        uefivars.enroll(tmp_path / "none", tmp_path / "out", pk=key, kek=key, db=key)
    assert list(tmp_path.iterdir()) == []
