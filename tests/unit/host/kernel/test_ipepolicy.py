"""The text of the policies is golden: what it says is what the kernel does."""

from __future__ import annotations

import pytest

from machineos.core.word import RootHash
from machineos.errors import BootError
from machineos.host.kernel.ipepolicy import (
    boot_policy_text,
    closed_policy_text,
    policy_name,
    policy_version,
)

VOLUME = RootHash("12" * 32)
BOOT = b"""\
policy_name=machineos policy_version=1.7.0
DEFAULT action=DENY
DEFAULT op=EXECUTE action=DENY
op=EXECUTE boot_verified=TRUE action=ALLOW
DEFAULT op=KMODULE action=DENY
op=KMODULE boot_verified=TRUE action=ALLOW
op=KMODULE dmverity_roothash=sha256:%(volume)s action=ALLOW
DEFAULT op=FIRMWARE action=DENY
op=FIRMWARE boot_verified=TRUE action=ALLOW
op=FIRMWARE dmverity_roothash=sha256:%(volume)s action=ALLOW
""" % {b"volume": VOLUME.encode()}
CLOSED = b"""\
policy_name=machineos policy_version=1.7.1
DEFAULT action=DENY
DEFAULT op=EXECUTE action=DENY
op=EXECUTE dmverity_signature=TRUE action=ALLOW
DEFAULT op=KMODULE action=DENY
op=KMODULE dmverity_roothash=sha256:%(volume)s action=ALLOW
DEFAULT op=FIRMWARE action=DENY
op=FIRMWARE dmverity_roothash=sha256:%(volume)s action=ALLOW
""" % {b"volume": VOLUME.encode()}


def test_the_texts() -> None:
    assert boot_policy_text(7, VOLUME) == BOOT
    assert closed_policy_text(7, VOLUME) == CLOSED


def test_name_and_version_are_read_from_the_signed_form() -> None:
    signed = b"\x30\x82der" + CLOSED + b"\x00signature"
    assert (policy_name(signed), policy_version(signed)) == ("machineos", "1.7.1")
    assert policy_name(b"policy_name=a\xff policy_name=b") == "a\ufffd"
    for read, what in ((policy_name, "name"), (policy_version, "version")):
        with pytest.raises(BootError) as caught:
            read(b"policy_name= policy_version= DEFAULT")
        assert caught.value.message == f"the IPE policy in this initrd has no {what}"
