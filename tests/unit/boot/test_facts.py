"""A phase sees what it needs and no more, and gives what it says and no more."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from fakes.boot import FakeFirst, HandedOverError
from machineos.boot import facts
from machineos.boot.facts import (
    ALWAYS,
    BOOTS,
    DISK_FLAGS,
    DISK_SECONDS,
    ENFORCING,
    GIVEN,
    INSTALLS,
    KEY,
    PROVISIONS,
    RUN,
    RUNS,
    SETTINGS,
    STORE,
    Departure,
    Fact,
    Facts,
    Phase,
)
from machineos.boot.plan import found, plan
from machineos.boot.runner import perform, run
from machineos.boot.steps import Say
from machineos.core.secret import Secret
from machineos.core.steps import Runner, Step, Talk, ask
from machineos.document.between.bootsettings import Mode
from machineos.errors import OrderError
from machineos.host.kernel.flags import Flag
from machineos.trust.seal.layout import Index
from unit.boot.worlds import machine, settings

DISK: Fact[str] = Fact("disk")
KNOWN = Facts().plus(DISK, "vda").plus(STORE, Path("/store"))


def test_facts_are_values_and_never_change() -> None:
    more = KNOWN.plus(KEY, Secret(b"k"))
    assert KNOWN.names() == {DISK, STORE}
    assert more.names() == {DISK, STORE, KEY}
    assert (more[DISK], more[KEY]) == ("vda", Secret(b"k"))
    assert KNOWN.only({DISK, KEY, ENFORCING}).names() == {DISK}
    assert KNOWN.merged(Facts().plus(DISK, "vdb"))[DISK] == "vdb"
    assert KNOWN[DISK] == "vda"
    assert Facts({"disk": "vdc"})[DISK] == "vdc"


def test_what_is_not_known_is_not_made_up() -> None:
    with pytest.raises(OrderError, match="nothing is known here of: configuration key"):
        _ = KNOWN[KEY]


class Talking(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        yield from ask(Say(" ".join(sorted(facts.names()))))
        return KNOWN.only({DISK})


def phase(*gives: str, needs: frozenset[str] = frozenset()) -> Talking:
    return Talking("talking", modes=RUNS, needs=needs, gives=frozenset(gives))


def test_a_phase_is_shown_only_what_it_needs() -> None:
    talk = phase(DISK, needs=frozenset({STORE, ENFORCING})).act(KNOWN.plus(KEY, Secret(b"k")))
    assert next(talk) == Say("store")
    with pytest.raises(StopIteration) as end:
        talk.send(None)
    assert end.value.value.names() == {DISK, STORE, KEY}


@pytest.mark.parametrize("gives", [(), (DISK, STORE), (STORE,)])
def test_a_phase_gives_what_it_says(gives: tuple[str, ...]) -> None:
    talk = phase(*gives).act(Facts())
    next(talk)
    with pytest.raises(OrderError, match="phase talking did not give what it says"):
        talk.send(None)


def test_what_only_holds_has_no_value_to_give() -> None:
    host = machine().power_on()
    run(settings(), host, phases=[phase(DISK, ENFORCING)])
    assert host.lines == [""]
    assert not isinstance(ENFORCING, Fact)


def test_a_phase_that_says_nothing_is_no_phase() -> None:
    talk = Phase("none", modes=RUNS, needs=frozenset(), gives=frozenset())
    with pytest.raises(NotImplementedError):
        talk.talk(Facts())


def test_every_value_is_frozen() -> None:
    kinds = [kind for kind in vars(facts).values() if isinstance(kind, type)]
    structs = [kind for kind in kinds if issubclass(kind, msgspec.Struct)]
    assert len(structs) == 8
    assert all(kind.__struct_config__.frozen for kind in structs)
    assert all(type(one).__struct_config__.frozen for one in found())


def test_modes_places_and_limits() -> None:
    assert {"run", "install", "provision"} == ALWAYS
    assert {"run", "install"} == BOOTS
    single = [sorted(modes) for modes in (RUNS, INSTALLS, PROVISIONS)]
    assert single == [["run"], ["install"], ["provision"]]
    assert Path("/run/machineos") == RUN
    assert DISK_SECONDS == 20.0
    flags = Flag.RDONLY | Flag.NOSUID | Flag.NODEV | Flag.NOEXEC
    assert flags == DISK_FLAGS
    assert Departure((), "x").arguments == ()
    assert SETTINGS.upper() == "SETTINGS"


class Watched:
    """A phase that says with which facts it was begun."""

    def __init__(self, phase: Phase, seen: list[object]) -> None:
        self._phase = phase
        self._seen = seen
        self.name, self.needs, self.gives = phase.name, phase.needs, phase.gives

    def act(self, known: Facts) -> Talk[Facts]:
        self._seen += [known, *(known[Fact[object](name)] for name in sorted(known.names()))]
        return self._phase.act(known)


@pytest.mark.parametrize("mode", get_args(Mode))
def test_no_step_no_answer_and_no_fact_of_a_boot_shows_a_secret(mode: Mode) -> None:
    made = machine(mode)
    host = made.power_on()
    first = FakeFirst(host)
    first.mount_pseudo()
    first.load_drivers(settings(mode))
    seen: list[object] = []

    def watching(step: Step[object]) -> object:
        answer = perform(first.host(), step)
        seen.extend((step, answer))
        return answer

    runner: Runner[Facts] = Runner(watching)
    with suppress(HandedOverError):
        runner.run(
            [Watched(phase, seen) for phase in plan(mode)],
            Facts().plus(SETTINGS, settings(mode)),
            given=GIVEN,
        )
    text = "\n".join(map(repr, seen))
    assert "Secret(hidden)" in text
    public = {Index.SUDI_CERT, Index.POLICY_VERSION, Index.LAYOUT}
    secrets = [data for index, data in made.tpm.nv.items() if index not in public]
    assert len(secrets) == 4
    for secret in secrets:
        assert repr(secret)[2:-1] not in text
        assert secret.hex() not in text
