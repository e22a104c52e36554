"""Plan, steps, runner: deciding and acting are kept apart, and the order is checked.

- A *step* is a frozen value that names one effect with everything it takes. It does nothing.
- A *phase* says which facts it needs and which it gives. ``plan`` turns facts into steps, ``learn``
  turns the answers of those steps into more facts. Both are pure: same facts, same steps.
- A *runner* takes phases in order and is the only one that touches a host. It refuses an order in
  which a phase stands before what it needs, and does so before the first step is taken.

A step that changes what outlives a power cut has a *fault point*, a name of its own. The runner
tells it to ``watch`` right before and right after the step, so that a test can cut there; whoever
lists the points of a plan has listed every place where a machine can stop half-way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar, cast

from machineos.errors import OrderError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

A = TypeVar("A", covariant=True)
T = TypeVar("T")
F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Step(Generic[A]):
    """One effect, as data; ``A`` is the type of its answer.

    ``point`` is the name of its fault point, empty for what a power cut forgets by itself.
    """

    point: ClassVar[str] = ""

    @property
    def where(self) -> str:
        """The object of the step, for fault points that occur several times in a plan."""
        return ""

    @property
    def fault_point(self) -> str:
        """The fault point of this very step: its name, and its object behind a colon."""
        return f"{self.point}:{self.where}" if self.point and self.where else self.point


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


class Phase(Protocol[F]):
    """One part of a plan. ``needs`` and ``gives`` are names of facts."""

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

    def plan(self, facts: F) -> tuple[Step[object], ...]:
        """Return what to do. Pure. Raises: MachineOSError (this cannot be gone on with)."""
        ...

    def learn(self, facts: F, answers: Answers) -> F:
        """Return the facts with what the answers add to them. Pure. Raises: MachineOSError."""
        ...


def check_order(phases: Iterable[Phase[F]], *, given: frozenset[str] = frozenset()) -> None:
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
        begin: Callable[[Phase[F]], None] = lambda _phase: None,
    ) -> None:
        self._perform = perform
        self._watch = watch
        self._begin = begin

    def run(
        self, phases: Sequence[Phase[F]], facts: F, *, given: frozenset[str] = frozenset()
    ) -> F:
        """Run ``phases`` and return all that is known then.

        Raises: OrderError (nothing was done), and whatever a phase or a step raises.
        """
        check_order(phases, given=given)
        for phase in phases:
            self._begin(phase)
            pairs = [(step, self.take(step)) for step in phase.plan(facts)]
            facts = phase.learn(facts, Answers(pairs))
        return facts

    def take(self, step: Step[object]) -> object:
        """Perform one step between its two fault points and return the answer."""
        if not step.point:
            return self._perform(step)
        self._watch(f"before {step.fault_point}")
        answer = self._perform(step)
        self._watch(f"after {step.fault_point}")
        return answer


def _names(facts: Iterable[str]) -> str:
    return ", ".join(sorted(facts))
