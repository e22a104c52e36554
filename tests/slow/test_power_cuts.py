"""The power fails at every command of provisioning a TPM."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from fakes.swtpm import Cut, PowerCutError, Recorder, SoftwareTpm, software_tpm
from machineos.core.secret import Secret
from machineos.errors import (
    ConflictError,
)
from machineos.host.tpm.transport import Transport
from machineos.trust.seal.unseal import Index, Report, State, opened, state
from unit.trust.sealing import (
    LUKS,
    SUDI_CERT,
    SUDI_KEY,
    Machine,
    both,
    give,
)

pytestmark = pytest.mark.tool("swtpm")


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("tpm")) as running:
        yield running


def _count(chip: SoftwareTpm) -> int:
    chip.wipe()
    probes: list[Recorder] = []

    def probe(wire: Transport) -> Recorder:
        probes.append(Recorder(wire))
        return probes[0]

    with chip.open(probe) as tpm:
        give(tpm)
    return len(probes[0].commands)


def test_a_power_cut_at_every_command(chip: SoftwareTpm) -> None:
    """After each command: that is also before each but the first, which changes nothing."""
    commands = _count(chip)
    assert commands > 30
    outcomes = []
    for at in range(commands):
        chip.wipe()
        with chip.open(partial(Cut, at=at)) as tpm:
            with pytest.raises(PowerCutError):
                give(tpm)
        chip.power_cycle()
        with chip.open() as tpm:
            outcomes.append(state(tpm))
            if outcomes[-1] is State.PROVISIONED:
                with pytest.raises(ConflictError, match="provisioned already"):
                    give(tpm)
            else:
                give(tpm)
            assert state(tpm) is State.PROVISIONED
        made = Machine(chip, Report(b"", "", ""))
        made.boot()
        with chip.open() as tpm:
            with opened(tpm, policies=both(), policy_key_pem=LUKS) as sealed:
                key = sealed.read(Index.CONFIGURATION_KEY)
                assert len(key) == 32
                assert key != Secret(bytes(32))
                sealed.close_door("first")
                assert sealed.read(Index.SUDI_KEY) == Secret(SUDI_KEY)
                assert sealed.read(Index.SUDI_CERT) == Secret(SUDI_CERT)
    # it counts as provisioned from one command on, and never before everything is there
    first = outcomes.index(State.PROVISIONED)
    assert set(outcomes[first:]) == {State.PROVISIONED}
    assert set(outcomes[:first]) == {State.EMPTY, State.PARTIAL}
    assert commands - first <= 9  # only closing the session and looking at the result come after
