"""What the lines of the filter refuse together, each read as libseccomp reads it.

The real one is tried in containers (``unit.service.system.test_syscalls``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from machineos.service.plan import seccomp

_LINE = re.compile(r"(\w+) errno (\d+)(?: ((?:\[[^]]+\])+))?")
_CONDITION = re.compile(r"\[(\d),(0x[0-9a-f]+),SCMP_CMP_(EQ|NE|GT|MASKED_EQ)(?:,(0x[0-9a-f]+))?\]")
WORD = st.integers(0, (1 << 64) - 1)
NEAR = st.builds(lambda high, low: high << 32 | low, st.sampled_from([0, 1, 1 << 31]), WORD.map(
    lambda word: word & 0xFFFFFFFF
))  # fmt: skip
PERSONALITIES = (0, 8, 0xFFFFFFFF, 0x20000, 0x20008)


@dataclass(frozen=True)
class Line:
    """One line: all of its conditions have to hold, and no two are of one argument."""

    name: str
    errno: int
    conditions: tuple[tuple[int, int, str, int], ...]

    def refuses(self, words: tuple[int, ...]) -> bool:
        return all(self._holds(words[each[0]], *each[1:]) for each in self.conditions)

    def _holds(self, word: int, value: int, comparison: str, mask: int) -> bool:
        match comparison:
            case "EQ":
                return word == value
            case "NE":
                return word != value
            case "GT":
                return word > value
            case _:
                return word & mask == value & mask


def lines() -> list[Line]:
    """Return the lines of the filter behind its head; each has to be one that LXC can read."""
    head, kind, section, *rest = seccomp.policy().splitlines()
    assert (head, kind, section) == ("2", "denylist", "[all]")
    found = []
    for text in rest:
        match = _LINE.fullmatch(text)
        assert match is not None, text
        conditions = [
            (int(index), int(value, 16), comparison, int(mask or "0", 16))
            for index, value, comparison, mask in _CONDITION.findall(match[3] or "")
        ]
        assert "".join((match[3] or "").split("[")).count("]") == len(conditions), text
        assert len({index for index, *_ in conditions}) == len(conditions), text
        found.append(Line(match[1], int(match[2]), tuple(conditions)))
    return found


LINES = lines()


def errno(name: str, *words: int) -> int:
    """Return the error of a call, 0 when no line refuses it."""
    found = {line.errno for line in LINES if line.name == name and line.refuses(words)}
    assert len(found) < 2, (name, words)
    return found.pop() if found else 0


@given(WORD | NEAR | st.integers(0, 64))
@example(40)
@example((1 << 32) + 2)
@example((1 << 63) + 1)
def test_a_socket_has_one_of_four_families(family: int) -> None:
    good = {1, 2, 10, 16}
    for name in ("socket", "socketpair"):
        assert errno(name, family, 1, 0) == (0 if family in good else 97)


@given(WORD | st.integers(0, 40))
def test_netlink_only_routes(protocol: int) -> None:
    for name in ("socket", "socketpair"):
        assert errno(name, 16, 3, protocol) == (0 if protocol == 0 else 93)
        assert errno(name, 2, 3, protocol) == 0


@given(WORD | NEAR | st.sampled_from(PERSONALITIES) | st.integers(0, 31).map(lambda bit: 1 << bit))
@example((1 << 64) - 1)
@example(1 << 32 | 8)
@example(0x400000)
@example(0xFFFFFFFF ^ 0x20008)
@example(0xFFFFFFFF ^ 8)
@example(0xFFFFFFFF ^ 1)
def test_personalities(value: int) -> None:
    assert errno("personality", value) == (0 if value in PERSONALITIES else 1)


@pytest.mark.parametrize("bits", range(1 << 8))
def test_personalities_of_a_few_bits(bits: int) -> None:
    """Each set of eight bits, among them those that are allowed."""
    value = sum(1 << bit for index, bit in enumerate((0, 3, 12, 17, 18, 22, 27, 31))
                if bits >> index & 1)  # fmt: skip
    assert errno("personality", value) == (0 if value in PERSONALITIES else 1)


def test_no_new_user_namespace() -> None:
    for name in ("clone", "unshare"):
        assert errno(name, 0x10000000) == 1
        assert errno(name, 0x7E020000) == 1
        assert errno(name, 0x00000011) == 0
    assert errno("clone3", 0) == 38


def test_what_is_denied_is_denied_whole() -> None:
    assert list(seccomp.DENIED) == sorted(set(seccomp.DENIED))
    for name in seccomp.DENIED:
        assert errno(name) == 1
    # a 32-bit program's way to all sockets, whose arguments no filter sees
    assert "socketcall" in seccomp.DENIED
    assert not {"socket", "socketpair", "personality", "clone", "unshare"} & {*seccomp.DENIED}
