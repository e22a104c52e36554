"""Attacks on an installed machine: refused with one line that says why, or without any effect.

Issue 2, "What bad input gets"; peers section 5, rows 14, 16, 19, 20. Each works on its own copy.
"""

from __future__ import annotations

import shutil

import msgspec
import pytest
from attacks import reason

pytestmark = [
    pytest.mark.vm,
    pytest.mark.root,
    pytest.mark.tool("qemu-system-x86_64"),
    pytest.mark.tool("swtpm"),
    pytest.mark.tool("mcopy"),
    pytest.mark.tool("sfdisk"),
]


# --- the TPM and the machine around it


def test_no_tpm(victim, ends):
    victim.change(tpm=False)
    assert "TPM" in reason(ends())


def test_a_new_tpm(victim, ends, bench):
    shutil.rmtree(bench.store.paths(victim.name).tpm)
    assert "not provisioned" in reason(ends())


def test_another_serial_number(victim, ends, bench):
    config = bench.store.load(victim.name).config
    victim.change(smbios=msgspec.structs.replace(config.smbios, serial="somebody-else"))
    assert "this machine is 'somebody-else'" in reason(ends())
