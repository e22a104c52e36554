"""Golden files: every call of every mode, with its arguments, in its order."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path

import pytest

from fakes.boot import FakeFirst, FakeHost, HandedOverError, Outcome
from fakes.bootparts.kernel import described
from machineos.boot.facts import GIVEN, SETTINGS, Fact, Facts, Phase
from machineos.boot.plan import plan
from machineos.boot.runner import perform
from machineos.core.steps import Part, Runner
from machineos.document.between.bootsettings import Mode
from unit.boot.ends import gives_out
from unit.boot.traces import GOLDEN, MODES, traces
from unit.boot.worlds import machine, settings


def test_what_a_boot_asks_of_its_host() -> None:
    """Read one as what the mode does. A change here is a change of the boot, or of its order."""
    names = {f"{mode}.txt" for mode in MODES} | {"phases.txt"}
    assert {path.name for path in GOLDEN.iterdir()} == names
    for name, text in traces().items():
        assert text.splitlines() == (GOLDEN / name).read_text().splitlines(), name


REQUESTS = Path("/config/requests")


def holds(host: FakeHost, fact: str) -> bool:
    """Whether a fact that has no value is true of the machine."""
    kernel, names = host.kernel, host.names
    truths = {
        "command line checked": host.settings is not None,
        "drivers loading": host.settings is not None,
        "scratch folder": host.is_folder(Path("/run/machineos")),
        "clock": host.settings is not None and host.wall.timestamp() >= host.settings.epoch,
        "drivers": {"loop.ko", "dm-verity.ko"} <= kernel.modules,
        "watchdog chosen": host.settings is not None,
        "no stranger's key": kernel.list_keys(".machine") == (described(host.machine.firmware),),
        "kind of TPM accepted": any(line.startswith("the TPM is ") for line in host.lines),
        "provisioned": host.machine.tpm.provisioned,
        "sealed session": host.machine.tpm._session is not None,
        "first door closed": "the TPM gives out no key any more" in host.lines,
        "keys handed over": Path("/dev/mapper/machine-config") in host.mapped
        or "machineos:configuration-key" in kernel.keyring,
        "volume keys derived": host.storage.storage is not None
        or "machineos:integrity-key" in kernel.keyring,
        "volumes begun": host.storage.storage is not None,
        "keys overwritten": host.forgotten >= 2,
        "requests carried out": REQUESTS in host.listed,
        "unsealed": any(line.startswith("this is SN0001 ") for line in host.lines),
        "configuration open": Path("/dev/mapper/machine-config") in host.mapped,
        "enforcing": kernel.enforcing,
        "certificates trusted": len(kernel.trusted) > 2,
        "first root untrusted": kernel.locked and "kernel/yama/ptrace_scope" in kernel.sysctls,
        "root": names.at(Path("/sysroot")) is not None,
        "fresh root": names.at(Path("/sysroot/etc")) is not None,
        "mac-admin dropped": not kernel.mac_admin,
        "door closed": not gives_out(Outcome(HandedOverError, host)),
    }
    return truths[fact]


@pytest.mark.parametrize("mode", MODES)
def test_what_a_phase_needs_is_true_of_the_machine(mode: Mode) -> None:
    """Facts are not only names: each that a phase gives is so when the next one needs it, and is
    not so before anything was done."""
    made = machine(mode)
    host = made.power_on()
    first = FakeFirst(host)
    first.mount_pseudo()
    first.load_drivers(settings(mode))
    seen: set[str] = set()
    untrue_at_first = {"enforcing", "root", "fresh root", "mac-admin dropped", "drivers"}
    assert not [fact for fact in untrue_at_first if holds(host, fact)]

    def begin(phase: Part) -> None:
        for fact in phase.needs:
            if fact == "sealed session" or type(fact) is str:
                assert holds(host, fact), f"{phase.name}: {fact}"
                seen.add(fact)

    runner: Runner[Facts] = Runner(partial(perform, host), begin=begin)
    phases: tuple[Phase, ...] = plan(mode)
    known = Facts().plus(SETTINGS, settings(mode))
    with contextlib.suppress(HandedOverError):
        runner.run(phases, known, given=GIVEN)
    assert seen == {fact for phase in phases for fact in phase.needs if not isinstance(fact, Fact)}
    assert len(seen) >= 5
