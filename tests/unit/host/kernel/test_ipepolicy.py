"""The policy text is golden: what it says is what the kernel does."""

from __future__ import annotations

import pytest

from machineos.errors import BootError
from machineos.host.kernel.ipepolicy import policy_name, policy_text

GOLDEN = b"""\
policy_name=machineos policy_version=1.1.0
DEFAULT action=DENY
DEFAULT op=EXECUTE action=DENY
op=EXECUTE boot_verified=TRUE action=ALLOW
op=EXECUTE dmverity_signature=TRUE action=ALLOW
DEFAULT op=FIRMWARE action=DENY
op=FIRMWARE boot_verified=TRUE action=ALLOW
op=FIRMWARE dmverity_signature=TRUE action=ALLOW
DEFAULT op=KMODULE action=DENY
op=KMODULE boot_verified=TRUE action=ALLOW
op=KMODULE dmverity_signature=TRUE action=ALLOW
"""


def test_policy_text() -> None:
    assert policy_text(version="1.1.0") == GOLDEN


def test_the_name_is_read_from_the_signed_form() -> None:
    assert policy_name(b"\x30\x82der" + GOLDEN + b"\x00signature") == "machineos"
    assert policy_name(b"policy_name=a\xff policy_name=b") == "a\ufffd"
    with pytest.raises(BootError) as caught:
        policy_name(b"policy_name= DEFAULT")
    assert caught.value.message == "the IPE policy in this initrd has no name"
