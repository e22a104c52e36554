"""The main chain in a guest: Secure Boot, TPM, verified root, a service that answers.

Issue 2, parts 8, 9 and 11, and "the demo's service".
"""

from __future__ import annotations

import json

import pytest

pytestmark = [
    pytest.mark.vm,
    pytest.mark.root,
    pytest.mark.tool("qemu-system-x86_64"),
    pytest.mark.tool("swtpm"),
]


def test_it_booted_under_secure_boot(live):
    guid = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
    live.sh("mkdir -p /run/efi; mount -t efivarfs none /run/efi")
    value = live.must(f"od -An -tu1 /run/efi/SecureBoot-{guid}").split()
    assert value[-1] == "1"
    assert "[integrity]" in live.must("cat /sys/kernel/security/lockdown")


def test_status_is_good(live):
    status = json.loads(live.must("mosctl status --json"))
    assert status["good"] is True, status
    assert {s["name"]: s["state"] for s in status["services"]} == {
        "registry": "running", "alone": "running", "direct": "running",
    }  # fmt: skip
