"""Mode provision: whose identity a machine may be given, and what its TPM holds then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from fakes.boot import FakeMachine, RestartedError
from fakes.bootparts.disks import Disk, Volume
from fakes.bootparts.files import Tree
from fakes.bootparts.tpm import FakeTpm
from machineos.boot.facts import CARRIER, Facts
from machineos.boot.phases import erase
from machineos.boot.steps import EraseFile, MountToErase, Say, Unmount
from machineos.host.kernel.flags import Flag
from machineos.trust.measure.tpm_policy import Phase
from machineos.trust.seal.layout import LAYOUT_VERSION, Index
from machineos.trust.seal.tpmkind import Maker
from machineos.trust.verify.chain import verify_sudi
from machineos.trust.verify.hostca import verify_host_ca
from unit.boot.ends import SAFE, handed_over, powered_off, refusal
from unit.boot.worlds import (
    carrier,
    device_pem,
    machine,
    medium,
    of_kind,
    provisioned_tpm,
    system_disk,
    uki,
)
from unit.trust.sealing import LUKS
from vectors.certificates import NOW, device, key

MISSING = "the disk trust-data with the device identity did not appear within 20 s"


def tree_of(made: FakeMachine) -> Tree:
    assert made.disks[0].whole is not None
    return made.disks[0].whole.tree


def test_the_tpm_holds_what_it_was_given() -> None:
    made = machine("provision")
    key_on_the_disk = tree_of(made).entries["privkey.pem"].data
    outcome = powered_off(made)
    assert made.tpm.sealed_for == LUKS
    assert made.tpm.nv[Index.SUDI_CERT] == device_pem()
    assert made.tpm.nv[Index.SUDI_KEY] == key_on_the_disk
    assert made.tpm.nv[Index.POLICY_VERSION] == b"0001"
    (given,) = [arguments[0] for name, arguments in outcome.host.calls if name == "provision_tpm"]
    anchors = made.uki.anchors
    assert (given.policy_key, given.admin_policy_key) == (  # type: ignore[attr-defined]
        anchors.policy_key, anchors.admin_policy_key,
    )  # fmt: skip
    assert "not for anybody" not in repr(given)


def test_the_policy_version_is_that_of_the_image() -> None:
    made = machine("provision", uki=uki("provision", policy_version="0042"))
    powered_off(made)
    assert made.tpm.nv[Index.POLICY_VERSION] == b"0042"


def test_the_disk_is_read_and_let_go_before_it_is_believed() -> None:
    made = machine("provision")
    outcome = made.boot()
    names = [name for name, _ in outcome.host.calls]
    mounting, again = [arguments for name, arguments in outcome.host.calls if name == "mount"]
    assert [str(one) for one in mounting[:3]] == ["/dev/vdb", "/run/machineos/identity", "vfat"]
    assert mounting[3] == SAFE
    assert names.index("unmount") < names.index("provision_tpm")
    assert not [one for one in outcome.host.names.mounts if one.kind == "vfat"]
    assert names.index("provision_tpm") < names.index("erase_file")
    assert again[3] == SAFE & ~Flag.RDONLY


def test_its_private_key_is_not_left_on_the_disk() -> None:
    made = machine("provision")
    outcome = powered_off(made)
    assert "privkey.pem" not in tree_of(made).entries
    assert tree_of(made).entries["cert.pem"].data == device_pem()
    assert "the private key on /dev/vdb was overwritten (flash may keep a copy)" in outcome.lines
    assert refusal(made) == "/run/machineos/identity/privkey.pem does not exist"


def test_a_disk_that_cannot_be_written_to_is_told() -> None:
    """The machine is provisioned all the same, and whoever did it knows what is left to do."""
    made = machine("provision")
    assert made.disks[0].whole is not None
    made.disks[0].whole.locked = True
    outcome = powered_off(made)
    assert made.tpm.provisioned
    assert "privkey.pem" in tree_of(made).entries
    assert [line for line in outcome.lines if "PRIVATE KEY" in line] == [
        "THE PRIVATE KEY IS STILL ON /dev/vdb: mount vfat /dev/vdb at /run/machineos/identity: "
        "Read-only file system; destroy that disk"
    ]
    assert not [line for line in outcome.lines if "overwritten" in line]
    assert not [one for one in outcome.host.names.mounts if one.kind == "vfat"]


def test_a_file_that_cannot_be_overwritten_is_told_and_the_disk_is_let_go() -> None:
    talk = erase.PHASE.talk(Facts().plus(CARRIER, Path("/dev/vdb")))
    assert isinstance(next(talk), MountToErase)
    assert isinstance(talk.send(None), EraseFile)
    assert isinstance(talk.throw(OSError(5, "Input/output error")), Unmount)
    said = talk.send(None)
    assert isinstance(said, Say)
    assert said.text.startswith("THE PRIVATE KEY IS STILL ON /dev/vdb: ")


@pytest.mark.parametrize("reason", ["somebody else's", "expired"])
def test_nothing_is_erased_before_the_tpm_has_it(reason: str) -> None:
    bad = {
        "somebody else's": lambda: machine("provision", disks=[carrier("SN0002")]),
        "expired": lambda: with_certificate(device().but(end=NOW - timedelta(days=1)).pem()),
    }
    made = bad[reason]()
    refusal(made)
    assert b"PRIVATE KEY" in tree_of(made).entries["privkey.pem"].data
    assert tree_of(made).writes == 0


CHIP, INTEL = Maker("IFX", "SLB9670"), Maker("INTC", "Intel")


@pytest.mark.parametrize(
    ("maker", "driver", "kind"),
    [
        (CHIP, "tpm_tis", "discrete"),
        (INTEL, "tpm_crb", "integrated"),
        (INTEL, "tpm_tis", "unknown"),
        (Maker("IBM", "SW TPM"), "tpm_crb", "virtual"),
        (Maker("", ""), "", "unknown"),
    ],
)
@pytest.mark.parametrize("wanted", ["", "integrated", "discrete", "virtual"])
def test_the_kind_of_tpm_is_told_and_may_be_refused(
    maker: Maker, driver: str, kind: str, wanted: str
) -> None:
    tpm = FakeTpm(maker=maker, driver=driver)
    made = machine("provision", tpm=tpm, uki=uki("provision", tpm_kind=wanted))
    outcome = made.boot()
    line = next(line for line in outcome.lines if "the TPM is " in line)
    assert f"({kind}: made by {maker}, driver {driver or 'none'})" in line
    assert tpm.provisioned == (wanted in {"", kind})
    assert ("privkey.pem" in tree_of(made).entries) == (not tpm.provisioned)
    if not tpm.provisioned:
        assert outcome.reason.startswith(f"this product wants a TPM of the kind {wanted}, and the")
        assert tpm.writes == 0


def test_both_doors_are_closed_after_it() -> None:
    calls = machine("provision").boot().host.calls
    place = [name for name, _ in calls].index("provision_tpm")
    assert calls[place + 1 : place + 3] == [
        ("close_door", ("first",)), ("close_door", ("second",)),
    ]  # fmt: skip


@pytest.mark.parametrize("at", [1.0, 3.0, 21.0])
def test_a_disk_that_comes_late(at: float) -> None:
    outcome = powered_off(machine("provision", disks=[carrier(at=at)]))
    assert at <= outcome.host.timer <= at + 0.06


def test_a_disk_that_comes_too_late() -> None:
    assert refusal(machine("provision", disks=[carrier(at=21.2)])) == MISSING


def test_a_disk_behind_a_driver() -> None:
    disk = carrier(name="sda", alias="usb:v1", driver="usb.ko")
    powered_off(machine("provision", disks=[disk]))


@pytest.mark.parametrize(
    "decoy",
    [
        Disk("sda", whole=Volume("vfat", Tree(), "TRUST-DATA")),
        Disk("sda", whole=Volume("vfat", Tree(), "inst-data")),
        Disk("sda"),
        carrier(name="sda", broken=True),
        carrier(name="sda", optical=True),
    ],
)
def test_another_disk_is_passed_over(decoy: Disk) -> None:
    assert refusal(machine("provision", disks=[decoy])) == MISSING
    powered_off(machine("provision", disks=[decoy, carrier()]))


@pytest.mark.parametrize("name", ["cert.pem", "privkey.pem"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda tree, name: tree.entries.pop(name), "does not exist"),
        (lambda tree, name: tree.put(name, bytes(65537)), "is larger than 65536 bytes"),
        (lambda tree, name: tree.put(name, kind="fifo"), "is not a regular file"),
    ],
)
def test_a_disk_without_its_files(
    name: str, spoil: Callable[[Tree, str], object], words: str
) -> None:
    made = machine("provision")
    spoil(tree_of(made), name)
    reason = refusal(made)
    assert reason.startswith(f"/run/machineos/identity/{name}")
    assert reason.endswith(words)
    outcome = made.boot()
    assert not [one for one in outcome.host.names.mounts if one.kind == "vfat"]
    assert not made.tpm.nv


def test_a_disk_that_is_no_fat() -> None:
    made = machine("provision", disks=[Disk("vdb", whole=Volume("ext4", Tree(), "trust-data"))])
    assert "mount vfat /dev/vdb at /run/machineos/identity" in refusal(made)


def test_the_identity_of_another_machine() -> None:
    made = machine("provision", disks=[carrier("SN0002")])
    assert refusal(made) == ("the device identity is for serial 'SN0002', this machine is 'SN0001'")
    assert not made.tpm.nv


def with_certificate(pem: bytes) -> FakeMachine:
    made = machine("provision")
    tree_of(made).put("cert.pem", pem)
    return made


def test_an_identity_that_our_ca_did_not_sign() -> None:
    made = with_certificate(device().but(issuer_key=key("stranger")).pem())
    assert "not issued by certificate 'CN=SUDI rootCA'" in refusal(made)
    assert not made.tpm.nv


def test_an_identity_is_valid_now_when_it_is_given() -> None:
    """Here somebody is there to set the clock; and a clock behind the build is set first."""
    over = with_certificate(device().but(end=NOW - timedelta(days=1)).pem())
    assert "expired at" in refusal(over)
    early = with_certificate(device().but(start=NOW + timedelta(days=1)).pem())
    assert "not valid before" in refusal(early)
    dead_battery = machine("provision", wall=NOW - timedelta(days=9000))
    powered_off(dead_battery)


@pytest.mark.parametrize(
    ("tpm", "reason"),
    [
        (provisioned_tpm(), "the TPM is provisioned already"),
        (FakeTpm(owned=True), "the TPM has an owner: its lockout password is set"),
        (FakeTpm(absent=True), "no TPM: /dev/tpmrm0 does not exist"),
    ],
)
def test_a_tpm_that_is_somebodys_is_left_alone(tpm: FakeTpm, reason: str) -> None:
    before = dict(tpm.nv)
    assert refusal(machine("provision", tpm=tpm)) == reason
    assert tpm.nv == before


def test_a_half_provisioned_tpm_is_repaired() -> None:
    tpm = FakeTpm(nv={Index.SUDI_CERT: b"half", Index.LAYOUT: LAYOUT_VERSION}, sealed_for=LUKS)
    powered_off(machine("provision", tpm=tpm))


def test_a_door_that_does_not_close() -> None:
    class Stuck(FakeTpm):
        def close_door(self, phase: Phase) -> None:
            self.stuck = True
            super().close_door(phase)

    made = machine("provision")
    made.tpm = of_kind(Stuck, made.tpm)
    outcome = made.boot()
    assert outcome.end is RestartedError
    assert outcome.reason == "PCR 11 did not change: the TPM's secrets are still readable"
    assert not [line for line in outcome.lines if line.startswith("provisioned")]


def test_what_mounting_the_disk_takes_is_loaded() -> None:
    assert "vfat.ko" in powered_off(machine("provision")).host.kernel.modules
    made = machine("provision", uki=uki("provision", filesystems={}))
    assert refusal(made) == "mount vfat: No such device"


def test_provisioned_and_installed_it_boots() -> None:
    """The three modes of one machine, one after the other."""
    made = machine("provision")
    powered_off(made)
    secret = made.tpm.nv[Index.CONFIGURATION_KEY]
    made.uki, made.disks = uki("install"), [medium()]
    keyring = handed_over(made).host.kernel.keyring
    assert keyring["machineos:configuration-key"] == secret
    identity = verify_sudi(device_pem(), ca_pem=made.uki.anchors.sudi_ca, at=None)
    certificate, signature = (
        keyring[f"machineos:host-ca-{one}"] for one in ("certificate", "signature")
    )
    assert verify_host_ca(certificate, signature, identity).certificate_der
    made.uki, made.disks = uki(), [system_disk(secret=secret)]
    handed_over(made)
