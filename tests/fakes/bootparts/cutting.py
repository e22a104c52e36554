"""A host of the boot whose power goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fakes.bootparts.ends import EndError

if TYPE_CHECKING:
    from fakes.boot import FakeHost


class PowerCutError(EndError):
    """The power went."""


class Cutting:
    """A host whose power goes after so many calls, and that remembers each."""

    def __init__(self, host: FakeHost, cut: int | None, *, late: bool) -> None:
        self._host = host
        self._cut = cut
        self._late = late

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._host, name)

        def call(*arguments: object) -> object:
            now = self._cut == len(self._host.calls)
            self._host.calls.append((name, arguments))
            if now and not self._late:
                raise PowerCutError
            answer = method(*arguments)
            if now:
                raise PowerCutError
            return answer

        return call
