"""The installer's main program: from the command line to the phases."""

from __future__ import annotations

import pytest

from fakes.machine import FakeMachine
from machineos.errors import BootError, DocumentError, UsageError
from machineos.install import main
from machineos.install.main import wish_of
from machineos.install.source import Wish
from machineos.oci.model.place import Place

from . import conftest
from .conftest import PLACE

TEXT = "registry.example/machine/install:1.0.0"


def test_what_the_command_line_asks_for() -> None:
    assert wish_of(TEXT, from_medium=False, disk="", plain_http=False) == Wish(PLACE, "")
    assert wish_of(f"docker://{TEXT}", from_medium=False, disk="vdb", plain_http=True) == Wish(
        Place.parse_remote(TEXT, plain_http=True), "vdb"
    )
    assert wish_of("", from_medium=True, disk="vdb", plain_http=False) == Wish(None, "vdb")


def test_one_source_and_only_one() -> None:
    for source, from_medium in (("", False), (TEXT, True)):
        with pytest.raises(UsageError) as caught:
            wish_of(source, from_medium=from_medium, disk="", plain_http=False)
        assert caught.value.message == "say either SOURCE or --from-medium"
    with pytest.raises(DocumentError):
        wish_of("machine/install:1.0.0", from_medium=False, disk="", plain_http=False)


def test_a_machine_is_installed(machine: FakeMachine) -> None:
    host = machine.boot()
    main.install(Wish(PLACE), host, uuid=conftest.UUID)
    assert machine.installed(conftest.KEY, disk="vda")
    config = machine.format_of(machine.table("vda")[1].guid)
    assert config is not None
    assert config.label == conftest.UUID


def test_this_machine_was_not_started_by_a_medium() -> None:
    said: list[str] = []
    with pytest.raises(BootError, match="this machine was not booted from an install medium"):
        main.main(Wish(PLACE, "none"), said.append)
    assert said == []
