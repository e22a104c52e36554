"""What is known while phases run, by name, and a phase that is held to what it says.

A *fact* has a name, and most have a value. A phase sees the facts that it needs and no others, and
adds those that it gives and no others; so ``needs`` and ``gives``, from which the order follows
(``core.steps``), cannot be untrue. Touches nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

import msgspec

from machineos.errors import OrderError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from machineos.core.steps import Talk

T = TypeVar("T")


class Fact(str, Generic[T]):
    """The name of a fact with a value of type ``T``. A fact that only holds is a plain string."""

    __slots__ = ()


class Facts:
    """Facts with their values; a value of its own, never changed."""

    __slots__ = ("_known",)

    def __init__(self, known: Mapping[str, object] | None = None) -> None:
        self._known = dict(known or {})

    def __getitem__(self, fact: Fact[T]) -> T:
        """Return the value of ``fact``. Raises: OrderError when it is not known here."""
        if fact not in self._known:
            raise OrderError(f"nothing is known here of: {fact}")
        return cast("T", self._known[fact])

    def plus(self, fact: Fact[T], value: T) -> Facts:
        """Return these and one more."""
        return Facts({**self._known, fact: value})

    def only(self, names: Iterable[str]) -> Facts:
        """Return those of the facts that are among ``names``."""
        return Facts({name: self._known[name] for name in names if name in self._known})

    def names(self) -> frozenset[str]:
        """Return the names of the facts that have a value here."""
        return frozenset(self._known)

    def merged(self, learnt: Facts) -> Facts:
        """Return these with those of ``learnt``."""
        return Facts({**self._known, **learnt._known})


class Promise(Protocol):
    """What a phase says of itself: its name, and the facts that it needs and gives."""

    @property
    def name(self) -> str:
        """The name, for messages."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """What must have been given before."""
        ...

    @property
    def gives(self) -> frozenset[str]:
        """What is known, or holds, afterwards."""
        ...


def held_to(promise: Promise, talk: Callable[[Facts], Talk[Facts]], facts: Facts) -> Talk[Facts]:
    """Run ``talk`` with nothing but what is needed, and take nothing but what is given.

    Raises: OrderError (it learnt other facts than it gives), MachineOSError.
    """
    learnt = yield from talk(facts.only(promise.needs))
    promised = frozenset(name for name in promise.gives if isinstance(name, Fact))
    if learnt.names() != promised:
        raise OrderError(f"phase {promise.name} did not give what it says")
    return facts.merged(learnt)


class Part(msgspec.Struct, frozen=True):
    """A phase: its name, the facts it needs and gives, and ``talk``, the dialogue that it is.

    ``talk`` is given what the phase needs, and returns what it learnt.
    """

    name: str
    needs: frozenset[str]
    gives: frozenset[str]
    talk: Callable[[Facts], Talk[Facts]]

    def act(self, facts: Facts) -> Talk[Facts]:
        """Run the phase; it is held to what it says. Raises: OrderError, MachineOSError."""
        return held_to(self, self.talk, facts)
