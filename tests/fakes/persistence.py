"""What outlives a power cut, and what does not: a store of values with a kernel's memory before it.

``live`` is what the kernel shows, ``disk`` what is on the disk. A value that was put is *dirty*
until it is synced; a power cut decides about each dirty value by itself: lost, kept, or torn. Every
operation counts, and the power can fail before any of them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import Enum

Key = tuple[str, ...]


class PowerCutError(Exception):
    """The power is gone: whatever was going on is not going on any more."""


class Broken(Enum):
    """What is left of a value that was half written, when it is no file."""

    BROKEN = "broken"


@dataclass(frozen=True)
class Loss:
    """What becomes of dirty values: all ``lost``, all ``kept``, or each as ``seed`` has it."""

    name: str
    seed: int = 0


LOSSES = (Loss("lost"), Loss("kept"), *(Loss("torn", seed) for seed in range(3)))


@dataclass
class Persistence:
    """Values by key. ``cut_at`` is the operation before which the power fails, counted from 0."""

    live: dict[Key, object] = field(default_factory=dict)
    disk: dict[Key, object] = field(default_factory=dict)
    cut_at: int = -1
    operations: int = 0
    _dirty: dict[Key, bool] = field(default_factory=dict)  # whether it can be torn

    def put(self, key: Key, value: object) -> None:
        """Write a value; it may be lost or torn until it is synced."""
        self._operate()
        self.live[key] = value
        self._dirty[key] = True

    def rename(self, old: Key, new: Key) -> None:
        """Give a value another name, which is lost or kept until it is synced, but never torn."""
        self._operate()
        self.live[new] = self.live.pop(old)
        self._dirty[old] = self._dirty[new] = False

    def remove(self, key: Key) -> None:
        """Remove a value; that may be lost until it is synced."""
        self._operate()
        self.live.pop(key, None)
        self._dirty[key] = False

    def settle(self, key: Key) -> None:
        """Have the content of a value on the disk, not yet its name (fsync of a file)."""
        self._operate()
        if key in self._dirty:
            self._dirty[key] = False
            if key in self.disk:
                self.sync_now(key)

    def sync(self, *keys: Key) -> None:
        """Have values on the disk, with their names."""
        self._operate()
        for key in keys:
            self.sync_now(key)

    def sync_now(self, key: Key) -> None:
        """The same without being an operation, for what the kernel does by itself."""
        if self._dirty.pop(key, None) is None:
            return
        if key in self.live:
            self.disk[key] = self.live[key]
        else:
            self.disk.pop(key, None)

    def set_at_once(self, key: Key, value: object | None) -> None:
        """Write or remove (None) a value that is old or new at any time (a firmware variable)."""
        self._operate()
        for store in (self.live, self.disk):
            store.pop(key, None)
            if value is not None:
                store[key] = value

    def forget_cache(self, keys: list[Key]) -> None:
        """Have the kernel read these from the disk again."""
        for key in keys:
            self.sync_now(key)
            self.live.pop(key, None)
            if key in self.disk:
                self.live[key] = self.disk[key]

    def copy(self) -> Persistence:
        """Return another one that is as this one is now; nothing is dirty in it."""
        assert not self._dirty
        return Persistence(dict(self.live), dict(self.disk))

    def snapshot(self) -> tuple[dict[Key, object], dict[Key, object]]:
        """Return what is on the disk, and what is on its way there, to be compared."""
        return dict(self.disk), {key: self.live.get(key) for key in self._dirty}

    def power_cut(self, loss: Loss) -> None:
        """Decide about every dirty value, and start again from what is on the disk."""
        chance = random.Random(repr((loss.seed, sorted(self._dirty))))
        for key in sorted(self._dirty):
            fate = loss.name
            if fate == "torn":
                fate = chance.choice(["lost", "kept", "torn" if self._dirty[key] else "kept"])
            if fate == "lost":
                continue
            value = self.live.get(key)
            if fate == "torn":
                value = _torn(value, chance)
            if value is None:
                self.disk.pop(key, None)
            else:
                self.disk[key] = value
        self._dirty.clear()
        self.live = dict(self.disk)
        self.cut_at, self.operations = -1, 0

    def _operate(self) -> None:
        if self.operations == self.cut_at:
            raise PowerCutError(f"before operation {self.operations}")
        self.operations += 1


def _torn(value: object, chance: random.Random) -> object:
    """Return what is left of a value that was being written."""
    if not isinstance(value, bytes):
        return Broken.BROKEN
    whole = len(value)
    kept = chance.randrange(whole + 1)
    return chance.choice([value[:kept], value[:kept] + bytes(whole - kept), bytes(whole), b""])
