"""When a TPM counts as provisioned: only with everything in place, whatever interrupted it."""

from __future__ import annotations

import pytest

from fakes.swtpm import SoftwareTpm
from machineos.host.tpm.session import Auth
from machineos.host.tpm.wire import Handle, Hierarchy, NvAttribute, NvPublic, SessionKind
from machineos.trust.seal.layout import LAYOUT_VERSION, STORAGE_ROOT, Index, State, state
from unit.trust.sealing import Machine

pytestmark = pytest.mark.tool("swtpm")
OWNER = Handle.of(Hierarchy.OWNER)
OPEN = NvAttribute.OWNERWRITE | NvAttribute.AUTHREAD


def test_where_things_are() -> None:
    assert {one.name: one.value for one in Index} == {
        "ADMIN_PASSWORD": 0x1500001,
        "LAYOUT": 0x1500002,
        "POLICY_VERSION": 0x1500020,
        "SUDI_CERT": 0x1500021,
        "SUDI_KEY": 0x1500022,
        "STORAGE_KEY": 0x1500030,
        "CONFIGURATION_KEY": 0x1500040,
    }
    assert (STORAGE_ROOT, LAYOUT_VERSION) == (0x81000001, b"00000005")


def test_states_have_words() -> None:
    assert [one.value for one in State] == [
        "not provisioned", "half provisioned", "provisioned", "provisioned by another version",
    ]  # fmt: skip


def test_what_is_not_ours_does_not_count(chip: SoftwareTpm) -> None:
    chip.wipe()
    with chip.open() as tpm:
        assert state(tpm) is State.EMPTY
        tpm.nv_define(NvPublic(0x1500099, OPEN, b"", 8))
        assert state(tpm) is State.EMPTY


def test_anything_of_ours_without_the_layout_is_half(chip: SoftwareTpm) -> None:
    chip.wipe()
    with chip.open() as tpm:
        tpm.nv_define(NvPublic(Index.STORAGE_KEY, OPEN, b"", 8))
        assert state(tpm) is State.PARTIAL


def test_the_layout_must_be_written_and_ours(chip: SoftwareTpm) -> None:
    chip.wipe()
    layout = NvPublic(Index.LAYOUT, OPEN, b"", 8)
    with chip.open() as tpm:
        tpm.nv_define(layout)
        assert state(tpm) is State.PARTIAL
        tpm.nv_write(layout, b"00000004", by=OWNER)
        assert state(tpm) is State.FOREIGN
        tpm.nv_write(layout.written(), LAYOUT_VERSION, by=OWNER)
        assert state(tpm) is State.PARTIAL  # nothing else is there


@pytest.mark.parametrize("hierarchy", [Hierarchy.OWNER, Hierarchy.ENDORSEMENT, Hierarchy.LOCKOUT])
def test_each_password_must_be_set(machine: Machine, hierarchy: Hierarchy) -> None:
    password = machine.admin_password()
    with machine.chip.open() as tpm:
        assert state(tpm) is State.PROVISIONED
        key = tpm.read_storage_key(STORAGE_ROOT)
        with tpm.session(SessionKind.HMAC, key) as session:
            tpm.hierarchy_change_auth(hierarchy, b"", Auth(session, password, decrypt=True))
        assert state(tpm) is State.PARTIAL


@pytest.mark.parametrize("index", [one for one in Index if one is not Index.LAYOUT])
def test_each_index_must_be_there(machine: Machine, index: Index) -> None:
    password = machine.admin_password()
    with machine.chip.open() as tpm:
        tpm.nv_undefine(tpm.nv_read_public(index), Auth(None, password))
        assert state(tpm) is State.PARTIAL
