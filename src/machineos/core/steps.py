"""Plan, steps, runner: deciding and acting are kept apart, and the order is checked.

- A *step* is a frozen value that names one effect with everything it takes. It does nothing.
- A *phase* says which facts it needs and which it gives. ``plan`` turns facts into steps, ``learn``
  turns the answers of those steps into more facts. Both are pure: same facts, same steps.
- A *dialogue* is a phase whose later steps depend on the answers of earlier ones, or that waits for
  something: ``act`` yields its steps one by one, and is pure in the same sense.
- A *runner* takes phases in order and is the only one that touches a host. It refuses an order in
  which a phase stands before what it needs, and does so before the first step is taken; and it
  refuses a step in a phase that does not need what must hold before such a step.

A step that changes what outlives a power cut has a *fault point*, a name of its own. The runner
tells it to ``watch`` right before and right after the step, so that a test can cut there; whoever
lists the points of a plan has listed every place where a machine can stop half-way.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeGuard, TypeVar, cast

from machineos.errors import MachineOSError, OrderError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

A = TypeVar("A", covariant=True)
T = TypeVar("T")
F = TypeVar("F")


class Step(Generic[A]):
    """One effect, as data; ``A`` is the type of its answer. Subclasses are frozen values.

    ``point`` is the name of its fault point, empty for what a power cut forgets by itself.
    ``after`` are facts that have to hold first: only a phase that needs them may take the step.
    """

    __slots__ = ()
    point: ClassVar[str] = ""
    after: ClassVar[frozenset[str]] = frozenset()

    @property
    def where(self) -> str:
        """The object of the step, for fault points that occur several times in a plan."""
        return ""

    @property
    def fault_point(self) -> str:
        """The fault point of this very step: its name, and its object behind a colon."""
        return f"{self.point}:{self.where}" if self.point and self.where else self.point


# What a dialogue is while it runs: it yields steps, is sent their answers, and returns a value.
Talk = Generator[Step[object], object, T]


def ask(step: Step[T]) -> Talk[T]:
    """Take one step of a dialogue: ``answer = yield from ask(step)``.

    Raises: whatever the step raised, so that a dialogue can go another way.
    """
    return cast("T", (yield step))


class Answers:
    """What the steps of one phase were answered, by step."""

    def __init__(self, pairs: Sequence[tuple[Step[object], object]]) -> None:
        self._pairs = tuple(pairs)

    def to(self, step: Step[T]) -> T:
        """Return the answer to ``step``, one of the steps that the phase planned.

        Raises: KeyError for any other.
        """
        for asked, answer in self._pairs:
            if asked == step:
                return cast("T", answer)
        raise KeyError(f"{type(step).__name__} was not asked")

    def all(self) -> tuple[object, ...]:
        """Return the answers in the order of the steps."""
        return tuple(answer for _, answer in self._pairs)


class Part(Protocol):
    """What every part of a plan says of itself. ``needs`` and ``gives`` are names of facts."""

    @property
    def name(self) -> str:
        """The name, for messages and for the documents."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """What must have been given by phases before this one."""
        ...

    @property
    def gives(self) -> frozenset[str]:
        """What is known, or holds, once this phase is over."""
        ...


class Phase(Part, Protocol[F]):
    """One part of a plan whose steps are known at once."""

    def plan(self, facts: F) -> tuple[Step[object], ...]:
        """Return what to do. Pure. Raises: MachineOSError (this cannot be gone on with)."""
        ...

    def learn(self, facts: F, answers: Answers) -> F:
        """Return the facts with what the answers add to them. Pure. Raises: MachineOSError."""
        ...


class Dialogue(Part, Protocol[F]):
    """One part of a plan whose steps depend on each other's answers."""

    def act(self, facts: F) -> Talk[F]:
        """Yield steps, and return the facts with what was learnt. Pure. Raises: MachineOSError.

        What a step raises (ours, and OSError) comes out of its ``yield``.
        """
        ...


def is_dialogue(phase: Phase[F] | Dialogue[F]) -> TypeGuard[Dialogue[F]]:
    """Tell the two kinds of phases apart."""
    return hasattr(phase, "act")


def check_order(phases: Iterable[Part], *, given: frozenset[str] = frozenset()) -> None:
    """Refuse phases of which one needs what no phase before it gives.

    A fact that is given twice is refused too: one of the two would be forgotten.
    Raises: OrderError.
    """
    known = set(given)
    for phase in phases:
        missing = phase.needs - known
        if missing:
            raise OrderError(f"phase {phase.name} comes before what it needs: {_names(missing)}")
        twice = phase.gives & known
        if twice:
            raise OrderError(f"phase {phase.name} gives what is there already: {_names(twice)}")
        known |= phase.gives


class Runner(Generic[F]):
    """Takes phases in order. ``perform`` does one step; ``watch`` hears of each fault point.

    ``begin`` hears of each phase before it starts.
    """

    def __init__(
        self,
        perform: Callable[[Step[object]], object],
        *,
        watch: Callable[[str], None] = lambda _point: None,
        begin: Callable[[Part], None] = lambda _phase: None,
    ) -> None:
        self._perform = perform
        self._watch = watch
        self._begin = begin

    def run(
        self,
        phases: Sequence[Phase[F] | Dialogue[F]],
        facts: F,
        *,
        given: frozenset[str] = frozenset(),
    ) -> F:
        """Run ``phases`` and return all that is known then.

        Raises: OrderError (nothing was done), and whatever a phase or a step raises.
        """
        check_order(phases, given=given)
        for phase in phases:
            sys.audit("machineos.phase", phase.name)  # for who listens (cli.debug)
            self._begin(phase)
            facts = self._listen(_talk(phase, facts), phase.needs, phase.name)
        return facts

    def take(self, step: Step[object]) -> object:
        """Perform one step between its two fault points and return the answer."""
        sys.audit("machineos.step", type(step).__name__, step.where)
        if not step.point:
            return self._perform(step)
        self._watch(f"before {step.fault_point}")
        answer = self._perform(step)
        self._watch(f"after {step.fault_point}")
        return answer

    def _listen(self, talk: Talk[F], needs: frozenset[str], name: str) -> F:
        """Take the steps of one phase until it has nothing more to say."""
        refusal: MachineOSError | OSError | None = None
        answer: object = None
        while True:
            try:
                step = talk.send(answer) if refusal is None else talk.throw(refusal)
            except StopIteration as end:
                return cast("F", end.value)
            missing = step.after - needs
            if missing:  # not thrown into the phase: nothing may go another way here
                raise OrderError(
                    f"phase {name} takes {type(step).__name__} without needing what must hold "
                    f"before it: {_names(missing)}"
                )
            answer, refusal = None, None
            try:
                answer = self.take(step)
            except (MachineOSError, OSError) as error:
                refusal = error


def _talk(phase: Phase[F] | Dialogue[F], facts: F) -> Talk[F]:
    """Return what ``phase`` says, whichever kind it is."""
    if is_dialogue(phase):
        return phase.act(facts)
    return _whole(cast("Phase[F]", phase), facts)


def _whole(phase: Phase[F], facts: F) -> Talk[F]:
    """Plan and learn as a dialogue."""
    pairs = []
    for step in phase.plan(facts):
        pairs.append((step, (yield step)))
    return phase.learn(facts, Answers(pairs))


def _names(facts: Iterable[str]) -> str:
    return ", ".join(sorted(facts))
