"""An error that is told again, with the object that it was about, stays what it was."""

from __future__ import annotations

import pytest

from machineos import errors
from machineos.errors import (
    DocumentError,
    Fault,
    MachineOSError,
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


@pytest.mark.parametrize("kind", [one for one in KINDS if one is not DocumentError])
def test_class_and_hint_are_kept(kind: type[MachineOSError]) -> None:
    assert told(kind("it broke", hint="mend it")).hint == "mend it"


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
