"""Rooms are folders: what is written into one is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutants.rooms import ROOMS, choose, room_of

TOP = Path(__file__).resolve().parents[3]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in (
        ("trust/keys/disk.py", "import os"),
        ("trust/verify/chain.py", ""),
        ("boot/phases.py", ""),
        ("boot/host.py", "import os"),
        ("boot/runner.py", "from machineos.boot import host"),
        ("core/run.py", "import subprocess"),
        ("errors.py", ""),
    ):
        path = tmp_path / "src/machineos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_what_only_acts_is_left_to_the_guests(tree: Path) -> None:
    chosen = choose(tree, ("trust", "boot"))
    assert chosen.modules == (
        "src/machineos/trust/keys/disk.py",
        "src/machineos/trust/verify/chain.py",
        "src/machineos/boot/phases.py",
    )
    assert chosen.left_out == ("src/machineos/boot/host.py", "src/machineos/boot/runner.py")


def test_everything_is_looked_at_if_wanted(tree: Path) -> None:
    chosen = choose(tree, ("boot",), everything=True)
    assert len(chosen.modules) == 3
    assert chosen.left_out == ()


def test_a_room_may_be_one_module(tree: Path) -> None:
    assert choose(tree, ("trust/verify/chain", "trust/verify")).modules == (
        "src/machineos/trust/verify/chain.py",
    )


def test_a_room_that_is_not_there(tree: Path) -> None:
    with pytest.raises(ValueError, match=r"^there is no room nowhere$"):
        choose(tree, ("nowhere",))


@pytest.mark.parametrize(
    ("path", "room"),
    [
        ("src/machineos/trust/keys/x509.py", "trust/keys"),
        ("src/machineos/document/verify/a.py", "document/verify"),
        ("src/machineos/host/tpm/wire.py", "host/tpm"),
        ("src/machineos/boot/phases.py", "boot"),
        ("src/machineos/errors.py", "."),
    ],
)
def test_the_room_of_a_module(path: str, room: str) -> None:
    assert room_of(path) == room


def test_every_room_of_ours_is_there() -> None:
    assert len(choose(TOP).modules) > 30
    assert all((TOP / "src/machineos" / room).is_dir() for room in ROOMS)
