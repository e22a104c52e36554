"""An error that is told again, with the object that it was about, stays what it was."""

from __future__ import annotations

import pytest

from machineos import errors
from machineos.errors import (
    DocumentError,
    Fault,
    MachineOSError,
    SeveralError,
    SignatureError,
    TpmError,
    TransferError,
)

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, MachineOSError)
]


def told(error: MachineOSError) -> MachineOSError:
    """Tell an error again, and see that the first one is as it was."""
    before = error.message, str(error)
    again = error.about("hostfs")
    assert (error.message, str(error)) == before
    assert again is not error
    assert type(again) is type(error)
    assert again.message == str(again) == f"hostfs: {error.message}"
    return again


@pytest.mark.parametrize("kind", [one for one in KINDS if one not in {DocumentError, SeveralError}])
def test_class_and_hint_are_kept(kind: type[MachineOSError]) -> None:
    assert told(kind("it broke", hint="mend it")).hint == "mend it"


def test_several_errors_are_one() -> None:
    inner = (SignatureError("nobody signed it", hint="sign"), TpmError("no TPM"))
    again = told(SeveralError(inner))
    assert (again.hint, again.exit_code) == ("sign", SignatureError.exit_code)


def test_the_rule_is_kept() -> None:
    error = SignatureError("nobody signed it", rule="image-signed")
    assert (told(error).rule, told(error).hint) == ("image-signed", "")


def test_what_a_class_carries_besides_is_kept() -> None:
    faults = [Fault("a.b", 3, "is wrong"), Fault("c", 0, "is missing", "some-rule")]
    document = told(DocumentError("blob", faults, hint="write it anew"))
    assert isinstance(document, DocumentError)
    assert (document.name, document.faults) == ("blob", tuple(faults))
    assert document.hint == "write it anew"
    assert document.message.startswith("hostfs: blob: 2 faults\n")
    tpm, transfer = told(TpmError("refused", code=5)), told(TransferError("no", status=404))
    assert isinstance(tpm, TpmError)
    assert isinstance(transfer, TransferError)
    assert (tpm.code, transfer.status) == (5, 404)


def test_it_can_be_told_twice() -> None:
    error = SignatureError("broken", hint="h", rule="r").about("layer").about("hostfs")
    assert (error.message, error.hint, error.rule) == ("hostfs: layer: broken", "h", "r")
    assert error.args == ("hostfs: layer: broken",)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("docker://user:secret@h:5000/x:1", "docker://...@h:5000/x:1"),
        ("https://user:se/cret@h/x: 404", "https://...@h/x: 404"),
        ("https://user:se@cret@h/x", "https://...@h/x"),
        ("https://token@h/x and http://u:secret@p:3128", "https://...@h/x and http://...@p:3128"),
        ("docker://h[:port]/x, docker://a:t", None),
        ("docker://[::1]:5000/x:1", None),
        ("docker://h:5000/x:1@sha256:ab", None),
        ("http://h:80/", None),
        ("https://h:8443, then", None),
        ("docker://h/a@b", None),
        ("user@host", None),
        ("https://h/a@b and https://u:p@h", "https://h/a@b and https://...@h"),
        ("x://u:p@h,y://h:1/z@w", "x://...@h,y://h:1/z@w"),
        ("oci:d:a@b", None),
    ],
)
def test_no_error_tells_a_password(text: str, shown: str | None) -> None:
    shown = text if shown is None else shown
    assert errors.without_userinfo(text) == shown
    assert errors.without_userinfo(shown) == shown
    error = MachineOSError(f"{text}: broken", hint=f"look at {text}")
    assert (error.message, error.hint) == (f"{shown}: broken", f"look at {shown}")
    assert str(error) == error.message
    assert "secret" not in str(error.about(text))
    document = DocumentError(text, [Fault("a", 1, f"{text} is wrong")])
    assert (document.name, document.faults[0].message) == (shown, f"{shown} is wrong")
    assert "secret" not in document.message


def test_a_text_of_a_stranger_takes_no_time() -> None:
    """Each of these is quadratic for somebody who looks from every beginning to the end."""
    for piece in ("://", "://a:b", "a@", "://@", "@sha256:"):
        text = piece * 20_000 + "@://"
        assert errors.without_userinfo(text).endswith("@://")
