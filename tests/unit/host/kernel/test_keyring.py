from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.secret import Secret
from machineos.errors import MissingError, ToolError
from machineos.host.kernel import keyring

# A guest under Secure Boot; the second line is what a user tried: a key, not a keyring.
KEYS = """\
0451b41c I--Q---     1 perm 0c030000     0 65534 keyring   .user_reg: 4
0a4f3c11 I--Q---     1 perm 3f010000  1000  1000 user      .secondary_trusted_keys: 32
0acedf06 I------     1 perm 1f030000     0     0 keyring   .dns_resolver: empty
1c3d9f00 I--Q---     1   2h 3f010000  1000    -1 keyring   x.secondary_trusted_keys: empty
2d1a5c9e I------     1 perm 1f0f0000     0     0 keyring   .secondary_trusted_keys: 2
2e77aa01 I------     1 perm 1f0b0000     0     0 keyring   .machine: 1
2f99bb02 I------     1 perm 1f010000     0     0 asymmetri machineOS db: 5a1c: X509.rsa 8a9b0c1d []
34480cbb I------     1 perm 1f0b0000     0     0 keyring   .platform: empty
"""


def test_recorded_text() -> None:
    assert keyring.parse_keyring(KEYS, keyring.SECONDARY) == 0x2D1A5C9E
    assert keyring.parse_keyring(KEYS, keyring.MACHINE) == 0x2E77AA01
    assert keyring.parse_keyring(KEYS, keyring.PLATFORM) == 0x34480CBB


@pytest.mark.parametrize("name", [".secondary", ".ima", "", "secondary_trusted_keys", "machineOS"])
def test_a_keyring_that_is_not_there(name: str) -> None:
    with pytest.raises(MissingError, match="no keyring"):
        keyring.parse_keyring(KEYS, name)


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(KEYS)
    assert keyring.find_keyring(keyring.MACHINE, proc_keys=path) == 0x2E77AA01


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    with pytest.raises(MissingError):
        keyring.parse_keyring(text, ".machine")


@pytest.mark.root
def test_a_secret_comes_back_until_it_is_revoked() -> None:
    name = f"machineos-test:{os.getpid()}"
    try:
        keyring.add_secret(name, Secret(b"\x00\xffsecret"))
    except ToolError as error:
        if errno.errorcode[errno.EPERM] in error.message or "ENOSYS" in error.message:
            pytest.skip(f"no key service in this container: {error.message}")
        raise
    assert keyring.read_secret(name) == Secret(b"\x00\xffsecret")
    keyring.revoke_secret(name)
    with pytest.raises((MissingError, ToolError)):
        keyring.read_secret(name)


@pytest.mark.root
def test_a_secret_that_is_not_there() -> None:
    with pytest.raises(MissingError, match="holds no key"):
        keyring.read_secret("machineos-test:none")


def kept() -> list[str]:
    """What is in root's user keyring; what another test revoked has no name any more."""
    found = []
    for serial in keyring._serials(keyring.USER_KEYRING, what="user keyring"):
        with suppress(ToolError):
            found.append(keyring._description(serial, what="user keyring"))
    return found


@pytest.mark.root
def test_a_key_that_is_kept_is_used_by_its_name_and_not_read() -> None:
    name = f"machineos-test:{os.getpid()}"
    made = keyring._add_key("user", "machineos-test:any", b"x", keyring.THREAD_KEYRING)
    if made[0] <= 0:
        pytest.skip(f"no key service in this container: {errno.errorcode[made[1]]}")
    with keyring.kept_key(name, Secret(bytes(64))):
        assert name not in kept()  # an older one of that name stays until this one was used
    assert name in kept()
    with pytest.raises(MissingError):
        keyring.read_secret(name)
    keyring.drop_key(name)
    keyring.drop_key(name)
    assert name not in kept()


@pytest.mark.root
def test_a_key_is_kept_only_where_it_was_used() -> None:
    name = f"machineos-test:{os.getpid()}"
    with pytest.raises((RuntimeError, ToolError)):
        with keyring.kept_key(name, Secret(bytes(64))):
            raise RuntimeError("the device was not made")
    assert name not in kept()
    with keyring.kept_key(name, Secret(bytes(64))):
        pass
    with pytest.raises(RuntimeError):
        with keyring.kept_key(name, Secret(b"x" * 64)):
            raise RuntimeError("a device of that name is there")
    assert name in kept()
    keyring.drop_key(name)


def test_what_a_keyring_holds_is_told_by_its_keys() -> None:
    """A keyring of this thread, with two keys in it and a keyring."""
    made = keyring._add_key("keyring", "machineos-test", b"", keyring.THREAD_KEYRING)
    if made[0] <= 0:
        pytest.skip(f"no key service in this container: {errno.errorcode[made[1]]}")
    assert keyring.keys_in(made[0], what="test") == ()
    for name in ("tests: UKI Production: fa98a1d1", "with; a semicolon"):
        assert keyring._add_key("user", name, b"x", made[0])[0] > 0
    assert keyring._add_key("keyring", "inner", b"", made[0])[0] > 0
    found = keyring.keys_in(made[0], what="test")
    assert sorted(found) == ["inner", "tests: UKI Production: fa98a1d1", "with; a semicolon"]


def test_a_system_keyring_is_listed_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(KEYS)
    with pytest.raises(MissingError, match=r"no keyring \.nobodys"):
        keyring.list_keys(".nobodys", proc_keys=path)
    with pytest.raises(ToolError, match=r"key \.machine: keyctl: E"):
        keyring.list_keys(keyring.MACHINE, proc_keys=path)  # the number is of another machine


@pytest.mark.parametrize(
    ("text", "name"),
    [
        # of a guest
        (
            b"asymmetric;0;0;1f010000;tests: UKI Production: fa98a1d1",
            "tests: UKI Production: fa98a1d1",
        ),
        (b"user;0;0;3f010000;a;b;c", "a;b;c"),
        (b"keyring;0;0;1f0b0000;", ""),
        (b"user;0;0;3f010000;\xff", "\ufffd"),
    ],
)
def test_a_description(text: bytes, name: str) -> None:
    assert keyring.parse_description(text) == name


@pytest.mark.parametrize("text", [b"", b"user;0;0;3f010000", b"x"])
def test_what_is_no_description(text: bytes) -> None:
    with pytest.raises(ToolError, match="cannot read the description"):
        keyring.parse_description(text)
