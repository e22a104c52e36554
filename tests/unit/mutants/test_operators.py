"""The six kinds of mutant, each from a line of code; what is left alone; exact places."""

from __future__ import annotations

from textwrap import dedent

import pytest

from changed import replace
from mutants.operators import (
    BOUNDARY,
    CHANGED,
    NEGATED,
    OPERATORS,
    REMOVED,
    RETURNED,
    SWAPPED,
    is_valid,
    mutants,
)
from mutants.source import Source


def source(text: str) -> Source:
    return Source("m.py", dedent(text).encode())


def of(text: str, operator: str) -> list[str]:
    """Return the changed lines of one kind, in order."""
    return [one.after for one in mutants(source(text)) if one.operator == operator]


def test_there_are_six_kinds() -> None:
    assert OPERATORS == (
        "condition negated", "boundary moved", "call removed", "argument swapped",
        "constant changed", "early return",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("if a: b", ["if (not (a)): b"]),
        ("if not a: b", ["if bool(a): b"]),
        ("while a: b", ["while (not (a)): b"]),
        ("x = a if b else c", ["x = a if (not (b)) else c"]),
        ("x = [a for a in b if c]", ["x = [a for a in b if (not (c))]"]),
        ("assert a, b", ["assert (not (a)), b"]),
        ("return_ = a == b", ["return_ = a != b"]),
        ("x = a != b", ["x = a == b"]),
        ("x = a in b", ["x = a not in b"]),
        ("x = a not in b", ["x = a in b"]),
        ("x = a is b", ["x = a is not b"]),
        ("x = a is not b", ["x = a is b"]),
        ("x = a < b", ["x = (not (a < b))"]),
        ("x = a < b < c", ["x = (not (a < b < c))"]),
        ("x = (a) in (b)", ["x = (a) not in (b)"]),
        ("x = a or b", []),
        ("x = not a", ["x = bool(a)"]),
        ("x = f(a == b)", ["x = f(a != b)"]),
        (
            "if a and not b: c",
            ["if (not (a)) and not b: c", "if (not (a and not b)): c", "if a and bool(b): c"],
        ),
        ("x = a or b == c", ["x = a or b != c"]),
        ("if not (a or b): c", ["if bool(a or b): c"]),
    ],
)
def test_a_condition_is_negated(text: str, wanted: list[str]) -> None:
    assert of(text, NEGATED) == wanted


def test_a_guard_is_a_condition() -> None:
    text = """
    match a:
        case b if c:
            d
    """
    assert of(text, NEGATED) == ["case b if (not (c)):"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x = a < b", ["x = a <= b"]),
        ("x = a <= b", ["x = a < b"]),
        ("x = a > b", ["x = a >= b"]),
        ("x = a >= b", ["x = a > b"]),
        ("x = len(a) == 4", ["x = len(a) == 3", "x = len(a) == 5"]),
        ("x = 0 < a", ["x = (-1) < a", "x = 1 < a", "x = 0 <= a"]),
        ("x = a < b <= c", ["x = a <= b <= c", "x = a < b < c"]),
        ("x = a in (1,)", []),
        ("x = a == 'b'", []),
    ],
)
def test_a_boundary_is_moved(text: str, wanted: list[str]) -> None:
    assert of(text, BOUNDARY) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("f(a)", ["pass"]),
        ("a.f(b)", ["pass"]),
        ("x = f(a)", []),
        ("with f(a): b", []),
        ("async def g():\n    await f(a)", ["pass"]),
    ],
)
def test_a_call_whose_value_nobody_uses_is_removed(text: str, wanted: list[str]) -> None:
    assert of(text, REMOVED) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x = f(a, b)", ["x = f(b, a)"]),
        ("x = f(a, b, c)", ["x = f(b, a, c)", "x = f(a, c, b)"]),
        ("x = f(a, a)", []),
        ("x = f(a, 1)", []),
        ("x = f(1, 2)", ["x = f(2, 1)"]),
        ("x = f(1, 'a')", []),
        ("x = f('a', f'b')", ["x = f(f'b', 'a')"]),
        ("x = f(a.b, c)", ["x = f(c, a.b)"]),
        ("x = f(a, MAX)", []),
        ("x = f(*a, b)", []),
        ("x = f(a, [b])", []),
        ("x = f(g(a), h(b))", ["x = f(h(b), g(a))"]),
        ("x = f(g(a), b)", []),
        ("x = f(k=a, l=b)", ["x = f(k=b, l=a)"]),
        ("x = f(k=a, **b)", []),
        ("x = isinstance(a, b)", []),
        ("x = min(a, b)", []),
        ("raise SomeError(a, b)", []),
        ("x = Fault(a, b)", []),
    ],
)
def test_an_argument_is_swapped_with_its_neighbour(text: str, wanted: list[str]) -> None:
    assert of(text, SWAPPED) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x = 5", ["x = 4", "x = 6"]),
        ("x = 0", ["x = (-1)", "x = 1"]),
        ("x = 0x10", ["x = 15", "x = 17"]),
        ("x = 0.5", ["x = (-0.5)", "x = 1.5"]),
        ("x = True", ["x = False"]),
        ("x = 'ab'", ["x = 'ac'"]),
        ("x = 'az'", ["x = 'ay'"]),
        ("x = 'a9'", ["x = 'a8'"]),
        ("x = 'a.'", ["x = 'a.~'"]),
        ("x = ''", ["x = '~'"]),
        ("x = '\u00e4'", ["x = '\u00e4~'"]),
        ("x = b'a'", ["x = b'`'"]),
        ("x = b''", ["x = b'~'"]),
        ("x = f'a{b}c'", ["x = f'a{b}d'", "x = f'b{b}c'"]),
        ("x = f'{b}'", []),
        ("x = None", []),
        ("x = a == 'b'", ["x = a == 'c'"]),
        ("x = a[-1]", ["x = a[-0]", "x = a[-2]"]),
        ("def f(a: int = 3): ...", ["def f(a: int = 2): ...", "def f(a: int = 4): ..."]),
        ("x: int = 3", ["x: int = 2", "x: int = 4"]),
        ("class C(B, k=True): ...", ["class C(B, k=False): ..."]),
    ],
)
def test_a_constant_is_changed(text: str, wanted: list[str]) -> None:
    assert of(text, CHANGED) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "'a docstring'",
        "class C:\n    a: int\n    'what it is'",
        "def f(a: 'T') -> 'T': ...",
        "x: 'T'",
        "@g('a')\ndef f(): ...",
        "@g(frozen=True)\nclass C: ...",
        "class C(B, frozen=True): ...",
        "x = zip(a, b, strict=True)",
        "T = TypeVar('T', bound=B)",
        "x = cast('T', a)",
        "X = Literal['a']",
        "__all__ = ['a']",
        "class C:\n    __slots__ = ('a',)",
        "if TYPE_CHECKING:\n    x = 'a'",
        "if __name__ == '__main__':\n    x = 'a'",
        "import a",
        "raise E('a')",
        "raise E(f'a {b}', hint='c')",
        "x = OtherError('a')",
        "x.append(Fault('a', b, 'c'))",
        "say('a')",
        "console.say(f'a {b}')",
        "x = f(hint='a')",
        "assert a, 'b'",
        "...",
    ],
)
def test_types_and_words_for_people_are_left_alone(text: str) -> None:
    assert of(text, CHANGED) == []


def test_numbers_in_an_error_are_not_words() -> None:
    assert of("raise E('a', 1)", CHANGED) == ["raise E('a', 0)", "raise E('a', 2)"]


@pytest.mark.parametrize(
    ("annotation", "wanted"),
    [
        ("", ["return"]),
        (" -> None", ["return"]),
        (" -> bool", ["return False", "return True"]),
        (" -> int", ["return 0"]),
        (" -> str", ['return ""']),
        (" -> bytes", ['return b""']),
        (" -> list[int]", ["return []"]),
        (" -> dict[int, int]", ["return {}"]),
        (" -> tuple[int, ...]", ["return ()"]),
        (" -> set[int]", ["return set()"]),
        (" -> frozenset[int]", ["return frozenset()"]),
        (" -> int | None", ["return None"]),
        (" -> Thing", ["return None"]),
        (" -> a.Thing", ["return None"]),
    ],
)
def test_a_function_returns_early(annotation: str, wanted: list[str]) -> None:
    text = f"def f(){annotation}:\n    'words'\n    a = b\n    return c\n"
    assert of(text, RETURNED) == wanted
    one = next(one for one in mutants(source(text)) if one.operator == RETURNED)
    assert (one.before, one.line, one.lines) == ("def f", 3, range(3, 5))
    assert one.apply(text.encode()).decode() == text.replace("    a", f"    {wanted[0]}\n    a")


@pytest.mark.parametrize(
    "text",
    [
        "def f() -> bool:\n    return True",
        "def f() -> None:\n    pass",
        "def f() -> int:\n    ...",
        "def f() -> int:\n    'words'",
        "def f() -> None:\n    return",
        "def f() -> None: return",
    ],
)
def test_what_returns_that_anyway_does_not_return_early(text: str) -> None:
    assert "return" not in of(text, RETURNED)
    assert "return True" not in of(text, RETURNED)


def test_a_generator_ends_early() -> None:
    assert of("def f() -> Iterator[int]:\n    yield 1", RETURNED) == ["return"]
    text = "def f() -> int:\n    def g():\n        yield 1\n    return 2"
    assert of(text, RETURNED) == ["return 0", "return"]


def test_a_decorator_of_the_first_statement_comes_after_the_return() -> None:
    text = "def f() -> int:\n    @a\n    def g(): ...\n    return 1\n"
    one = next(one for one in mutants(source(text)) if one.operator == RETURNED)
    assert one.apply(text.encode()).decode() == text.replace("    @a", "    return 0\n    @a")


# -- places --------------------------------------------------------------------------------------


def test_a_mutant_is_exact_in_bytes() -> None:
    """Characters of several bytes before it move nothing."""
    text = 'x = "\u00e4\u00e4"; y = f(a, b)\n'
    found = next(one for one in mutants(source(text)) if one.operator == SWAPPED)
    assert found.apply(text.encode()).decode() == 'x = "\u00e4\u00e4"; y = f(b, a)\n'
    assert found.name == (
        "m.py:1: argument swapped: "
        'x = "\u00e4\u00e4"; y = f(a, b)  ->  x = "\u00e4\u00e4"; y = f(b, a)'
    )


def test_a_mutant_knows_its_function_and_the_lines_of_its_statement() -> None:
    text = """
    class C:
        def f(self):
            if a and (
                b
            ):
                return g(
                    1,
                )
    """
    found = {(one.operator, one.before): one for one in mutants(source(text))}
    inner = found[NEGATED, "b"]
    assert (inner.function, inner.line, inner.lines) == ("C.f", 5, range(4, 7))
    number = found[CHANGED, "1,"]
    assert (number.function, number.lines, number.at_import) == ("C.f", range(7, 10), False)


@pytest.mark.parametrize(
    ("text", "at_import"),
    [
        ("x = 1", True),
        ("class C:\n    x = 1", True),
        ("def f(a=1): ...", True),
        ("def f():\n    x = 1", False),
        ("f = lambda: 1", False),
        ("f = lambda a=1: a", True),
        ("def f():\n    def g(a=1): ...", False),
    ],
)
def test_a_mutant_knows_whether_it_acts_at_import(text: str, at_import: bool) -> None:
    found = [one for one in mutants(source(text)) if one.operator == CHANGED]
    assert {one.at_import for one in found} == {at_import}


def test_what_spans_lines_is_shown_alone() -> None:
    (found,) = mutants(source("x = f(\n    a,\n    b,\n)\n"))
    assert (found.before, found.after) == ("a, b", "b, a")


def test_the_same_change_is_one_mutant() -> None:
    found = mutants(source("if a == 1: b"))
    assert len({(one.start, one.end, one.new) for one in found}) == len(found)
    assert [one.start for one in found] == sorted(one.start for one in found)


@pytest.mark.parametrize(
    ("new", "valid"),
    [(b"b, a", True), (b"a,  b", False), (b"a b", False), (b"(a", False), (b"a\0, b", False)],
)
def test_what_is_no_other_program_is_not_valid(new: bytes, valid: bool) -> None:
    one = source("x = f(a, b)")
    (mutant,) = mutants(one)
    assert is_valid(replace(mutant, new=new), one) is valid
