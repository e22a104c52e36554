"""The commands that sealing asks for are those that are spoken to a real TPM."""

from __future__ import annotations

import inspect

from machineos.host.tpm.commands import Tpm as Commands
from machineos.trust.seal.chip import Tpm
from unit.host.tpm.scripted import Scripted, answer, tpm_of


def test_a_real_tpm_speaks_every_command_that_sealing_asks_for() -> None:
    asked = {name: each for name, each in vars(Tpm).items() if not name.startswith("_")}
    assert len(asked) > 20
    for name, method in asked.items():
        real = inspect.signature(getattr(Commands, name)).parameters
        wanted = inspect.signature(method).parameters
        assert set(wanted) <= set(real), name
        assert [one for one in wanted if wanted[one].default is inspect.Parameter.empty] == [
            one for one in real if real[one].default is inspect.Parameter.empty
        ], name


def test_a_real_tpm_is_one_for_the_type_checker() -> None:
    tpm: Tpm = tpm_of(Scripted(answer(0)))
    tpm.flush(1)
