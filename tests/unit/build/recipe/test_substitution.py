from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.build.recipe.substitution import MAX_RECIPE, parse_values, substitute
from machineos.errors import DocumentError


def faults(text: str, **values: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        substitute(text, values, name="n")
    return [str(fault) for fault in caught.value.faults]


def test_values_and_defaults() -> None:
    text = "a${{X}}b ${{Y:def:1}} ${{Z:}} $X ${X} ${{X}}"
    assert substitute(text, {"X": "1"}, name="n") == "a1b def:1  $X ${X} 1"


def test_what_a_value_says_is_not_looked_at_again() -> None:
    assert substitute("${{X:no}}", {"X": "${{X}}"}, name="n") == "${{X}}"


def test_a_default_may_hold_variables() -> None:
    text = "${{A:oci:${{B}}:x}}"
    assert substitute(text, {"B": "/o"}, name="n") == "oci:/o:x"
    assert substitute(text, {"A": "docker://h/x"}, name="n") == "docker://h/x"
    assert substitute("${{A:${{B:${{C:c}}}}}}!", {}, name="n") == "c!"
    assert faults(text) == ["line 1: B: has no value; give one with --substitute"]


def test_what_does_not_end_on_its_line_is_no_variable() -> None:
    for text in ("${{A", "${{A}", "a ${{A\n}} b", "}} ${{"):
        assert substitute(text, {"A": "1"}, name="n") == text
    assert substitute("${{B ${{A}}", {"A": "1"}, name="n") == "${{B 1"


@pytest.mark.parametrize("bad", ["${{}}", "${{a-b}}", "${{1:x}}", "${{:x}}"])
def test_names_of_variables(bad: str) -> None:
    assert faults(bad)[0].endswith("is not a variable name")


def test_a_value_is_one_line() -> None:
    assert faults("${{X}}", X="a\nb: c") == [
        "X: its value holds a line break or a control character"
    ]


def test_our_insides_have_no_value_and_the_message_says_what_to_write() -> None:
    assert "stacker://STAGE/PATH" in faults("a\n${{STACKER_ROOTFS_DIR}}")[0]
    assert substitute("${{STACKER_ROOTFS_DIR}}", {"STACKER_ROOTFS_DIR": "/r"}, name="n") == "/r"


def test_a_recipe_cannot_make_much_of_a_value() -> None:
    text = "${{X}}" * 100_000
    assert faults(text, X="x" * 1000) == [
        f"document: is larger than {MAX_RECIPE} bytes with its values"
    ]


def test_faults_and_depth_are_bounded() -> None:
    assert len(faults("${{X}}" * 1000)) == 50
    deep = "${{A:" * 20 + "}}" * 20
    assert faults(deep) == ["line 1: A: is nested too deeply"]


@given(st.text(st.sampled_from("${}:AB \n"), max_size=60))
def test_any_text_ends(text: str) -> None:
    try:
        result = substitute(text, {"A": "v"}, name="n")
    except DocumentError as error:
        assert error.faults
    else:
        assert result.count("\n") == text.count("\n")


def test_a_file_of_values() -> None:
    assert parse_values(b"A: 1.10\nB: 'x: y'\nC:\n", name="f") == {
        "A": "1.10",
        "B": "x: y",
        "C": "",
    }
    for data, message in (
        (b"- A\n", "document: must be a mapping"),
        (b"A: [1]\n", "line 1: A: must be a single value"),
        (b"ok: 1\nA-B: 1\n", "line 2: A-B: is not the name of a variable"),
    ):
        with pytest.raises(DocumentError) as caught:
            parse_values(data, name="f")
        assert message in [str(caught.value.faults[0]), str(caught.value.faults[0])[8:]]
