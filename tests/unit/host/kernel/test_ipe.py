"""A policy is loaded, made active, and looked at afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.errors import BootError, SignatureError
from machineos.host.kernel.ipe import enforce

from .test_ipepolicy import GOLDEN


@pytest.fixture
def securityfs(tmp_path: Path) -> Path:
    """The files of securityfs/ipe, as plain files."""
    policy = tmp_path / "ipe/policies/machineos"
    policy.mkdir(parents=True)
    (policy / "active").write_bytes(b"0")
    (tmp_path / "ipe/new_policy").write_bytes(b"")
    (tmp_path / "ipe/enforce").write_bytes(b"1\n")
    return tmp_path


def test_it_is_loaded_and_made_active(securityfs: Path) -> None:
    signed = b"\x30\x82der" + GOLDEN + b"\x00signature"
    enforce(signed, securityfs=securityfs)
    assert (securityfs / "ipe/new_policy").read_bytes() == signed
    assert (securityfs / "ipe/policies/machineos/active").read_bytes() == b"1"


def test_permissive_mode_is_refused(securityfs: Path) -> None:
    (securityfs / "ipe/enforce").write_bytes(b"0\n")
    with pytest.raises(BootError, match="permissive"):
        enforce(GOLDEN, securityfs=securityfs)


def test_a_kernel_without_ipe(tmp_path: Path) -> None:
    with pytest.raises(BootError, match="without IPE"):
        enforce(GOLDEN, securityfs=tmp_path)


def test_a_policy_without_a_name(securityfs: Path) -> None:
    with pytest.raises(BootError, match="no name"):
        enforce(b"garbage", securityfs=securityfs)


def test_a_kernel_that_refuses(securityfs: Path) -> None:
    (securityfs / "ipe/new_policy").unlink()
    (securityfs / "ipe/new_policy").mkdir()  # writing fails, as it does with a wrong signature
    with pytest.raises(SignatureError, match="refuses the IPE policy machineos: EISDIR"):
        enforce(GOLDEN, securityfs=securityfs)
