"""Doing the same with all targets, and telling the faults of all of them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from machineos.errors import MachineOSError, SeveralError, TransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

T = TypeVar("T")
R = TypeVar("R")


def each(do: Callable[[T], R], items: Iterable[T]) -> tuple[R, ...]:
    """Return what ``do`` makes of each item, in their order.

    The others are tried when one fails, but after a network that fails: each would wait for it.
    Raises: what ``do`` raised when that was one error, SeveralError when there were more.
    """
    done, errors = [], list[MachineOSError]()
    for item in items:
        try:
            done.append(do(item))
        except TransferError as error:
            errors.append(error)
            break
        except MachineOSError as error:
            errors.append(error)
    raise_all(errors)
    return tuple(done)


def raise_all(errors: Sequence[MachineOSError]) -> None:
    """Raise the one error, or one that has them all; nothing when there is none."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise SeveralError(errors)
