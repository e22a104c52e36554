"""A policy is loaded, made active, replaced, and looked at afterwards.

The files of securityfs are plain ones here, which nobody fills: each test says what the kernel
would show. What it really does is in tests/vm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from machineos.errors import BootError, SignatureError
from machineos.host.kernel.ipe import enforce, replace

from .test_ipepolicy import BOOT, CLOSED


class Act(Protocol):
    """Either of the two."""

    def __call__(self, signed_policy: bytes, *, securityfs: Path) -> None: ...


@pytest.fixture
def securityfs(tmp_path: Path) -> Path:
    """The files of securityfs/ipe as they are when the kernel has taken ``CLOSED``."""
    policy = tmp_path / "ipe/policies/machineos"
    policy.mkdir(parents=True)
    (policy / "active").write_bytes(b"1")
    (policy / "version").write_bytes(b"1.7.1")
    (policy / "update").write_bytes(b"")
    (tmp_path / "ipe/new_policy").write_bytes(b"")
    (tmp_path / "ipe/enforce").write_bytes(b"1\n")
    return tmp_path


def signed(text: bytes) -> bytes:
    return b"\x30\x82der" + text + b"\x00signature"


def test_it_is_loaded_and_made_active(securityfs: Path) -> None:
    (securityfs / "ipe/policies/machineos/active").write_bytes(b"0")
    enforce(signed(CLOSED), securityfs=securityfs)
    assert (securityfs / "ipe/new_policy").read_bytes() == signed(CLOSED)
    assert (securityfs / "ipe/policies/machineos/active").read_bytes() == b"1"
    assert (securityfs / "ipe/policies/machineos/update").read_bytes() == b""


def test_it_is_replaced(securityfs: Path) -> None:
    replace(signed(CLOSED), securityfs=securityfs)
    assert (securityfs / "ipe/policies/machineos/update").read_bytes() == signed(CLOSED)
    assert (securityfs / "ipe/new_policy").read_bytes() == b""


@pytest.mark.parametrize("act", [enforce, replace])
def test_permissive_mode_is_refused(securityfs: Path, act: Act) -> None:
    (securityfs / "ipe/enforce").write_bytes(b"0\n")
    with pytest.raises(BootError, match="permissive"):
        act(CLOSED, securityfs=securityfs)


@pytest.mark.parametrize("act", [enforce, replace])
def test_what_the_kernel_has_is_what_it_was_given(securityfs: Path, act: Act) -> None:
    with pytest.raises(BootError) as caught:
        act(BOOT, securityfs=securityfs)
    assert caught.value.message == (
        "the kernel has version 1.7.1 of the IPE policy machineos, not 1.7.0"
    )


def test_a_policy_that_stays_inactive(securityfs: Path) -> None:
    (securityfs / "ipe/policies/machineos/active").write_bytes(b"0")
    with pytest.raises(BootError, match="the IPE policy machineos is not active"):
        replace(CLOSED, securityfs=securityfs)


def test_no_second_policy_is_left(securityfs: Path) -> None:
    """Whoever has the capability could make it active."""
    (securityfs / "ipe/policies/older").mkdir()
    with pytest.raises(BootError, match="the kernel holds another IPE policy: older"):
        replace(CLOSED, securityfs=securityfs)


def test_a_kernel_without_ipe(tmp_path: Path) -> None:
    with pytest.raises(BootError, match="without IPE"):
        enforce(CLOSED, securityfs=tmp_path)


def test_a_policy_without_a_name(securityfs: Path) -> None:
    with pytest.raises(BootError, match="no name"):
        enforce(b"garbage", securityfs=securityfs)


def test_a_kernel_that_refuses(securityfs: Path) -> None:
    for act, file in ((enforce, "new_policy"), (replace, "policies/machineos/update")):
        (securityfs / "ipe" / file).unlink()
        (securityfs / "ipe" / file).mkdir()  # writing fails, as it does with a wrong signature
        with pytest.raises(SignatureError, match="refuses the IPE policy machineos: EISDIR"):
            act(CLOSED, securityfs=securityfs)
