"""What a rule is: a name, a sentence, a function, and the gates where a breach is refused.

A *gate* is a place where something from outside comes in: the publisher's tools (publish, convert,
verify), the installer, the initrd (boot), the service manager (mosd). All of them refuse by these
functions, so the words are the same, and what a machine refuses is refused by the publisher first.

A rule's function yields (path, message) for each breach; the path is empty where there is no
document to have one. ``faults`` is for documents, which tell all faults at once; ``require`` is for
things that are taken or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import msgspec

from machineos.errors import Fault, MachineOSError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

S = TypeVar("S", contravariant=True)
Gate = Literal["publish", "convert", "verify", "install", "boot", "mosd"]

# Who reads a document: all of them, since all of them verify it anew.
DOCUMENT: tuple[Gate, ...] = ("publish", "verify", "install", "boot")


class Rule(msgspec.Struct, Generic[S], frozen=True):
    """One reason to refuse an ``S``. ``statement`` is the rule in one sentence."""

    name: str
    statement: str
    gates: tuple[Gate, ...]
    breaches: Callable[[S], Iterable[tuple[str, str]]]
    error: type[MachineOSError] = VerificationError
    hint: str = ""

    def faults(self, subject: S) -> list[Fault]:
        """Return every breach as a fault without a line."""
        return [Fault(path, 0, message, self.name) for path, message in self.breaches(subject)]

    def require(self, subject: S, what: str) -> None:
        """Raise ``error``, about ``what``, at the first breach."""
        for _, message in self.breaches(subject):
            raise self.error(f"{what}: {message}", hint=self.hint, rule=self.name)
