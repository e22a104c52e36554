"""Which provider a machine has, also one whose definition cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.clock import SystemClock
from machineos.errors import MissingError
from machineos.vm.model import default_machine
from machineos.vm.providers import provider_of
from machineos.vm.providers.qemu import QemuProvider
from machineos.vm.store import MachineStore


@pytest.fixture
def store(tmp_path: Path) -> MachineStore:
    return MachineStore(tmp_path / "config", tmp_path / "state", tmp_path / "run")


@pytest.mark.parametrize("text", ["name: another\n", "name: [\n", "name: vm1\ncpus: -1\n", "\0"])
def test_whatever_the_definition_says_the_machine_can_be_deleted(
    store: MachineStore, text: str
) -> None:
    """A folder that somebody copied by hand defines another machine, for one."""
    store.create(default_machine("vm1", secure=True)).definition.write_text(text)
    provider = provider_of("vm1", store, SystemClock())
    assert isinstance(provider, QemuProvider)
    assert provider.names() == ("vm1",)
    provider.delete("vm1")
    assert store.names() == ()


def test_a_machine_that_is_not_there(store: MachineStore) -> None:
    with pytest.raises(MissingError, match="no machine vm1"):
        provider_of("vm1", store, SystemClock())
