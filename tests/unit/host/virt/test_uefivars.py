from __future__ import annotations

from pathlib import Path
from uuid import UUID

from machineos.core.command import Command
from machineos.host.virt import uefivars
from machineos.host.virt.uefivars import Enrolled

GUID = UUID("00112233-4455-6677-8899-aabbccddeeff")


def test_the_command_enrolls_our_keys_and_no_others() -> None:
    pk, kek, db = (Enrolled(GUID, Path(f"{name}.pem")) for name in ("pk", "kek", "db"))
    command = uefivars.enroll_command("v", Path("in"), Path("out"), pk=pk, kek=kek, db=db)
    assert command == Command(
        (
            "v", "--input", "in", "--output", "out",
            "--set-pk", str(GUID), "pk.pem", "--add-kek", str(GUID), "kek.pem",
            "--add-db", str(GUID), "db.pem", "--sb", "--no-microsoft",
        ),
        60.0,
    )  # fmt: skip
