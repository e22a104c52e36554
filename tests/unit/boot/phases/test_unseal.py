"""From the first driver to the key: what the TPM gives out, and to whom."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from changed import replace
from fakes.boot import FakeMachine
from fakes.bootparts.tpm import FakeTpm
from machineos.trust.measure.tpm_policy import Phase, render_policies
from machineos.trust.seal.layout import Index
from machineos.trust.seal.unseal import DOOR
from unit.boot.ends import handed_over, refusal
from unit.boot.worlds import (
    UKIS,
    changed,
    machine,
    of_kind,
    policies_of,
    provisioned_tpm,
    uki,
)
from unit.trust.sealing import ADMIN, signed
from vectors.certificates import NOW, device, key

RUN = Path("/run/machineos")
STRANGE = "its LUKS header was not written by this machine"
NO_CONFIG = "no configuration volume of this machine: "
Change = Callable[[FakeMachine], object]


# -- drivers, anchors, clock


def test_a_module_that_the_kernel_refuses() -> None:
    for name in ("loop.ko", "dm-verity.ko", "virtio_blk.ko"):
        reason = refusal(machine(refused={name}))
        assert reason == f"kernel module {name}: EKEYREJECTED"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-3600, 0), (-1, 0), (0, 0), (1, 1), (86400, 86400)]
)
def test_a_clock_is_never_before_the_build(seconds: int, expected: int) -> None:
    epoch = int(NOW.timestamp()) - 86400
    made = machine(wall=datetime.fromtimestamp(epoch + seconds, UTC))
    assert handed_over(made).host.wall == datetime.fromtimestamp(epoch + expected, UTC)


def test_a_clock_that_is_right_is_not_set() -> None:
    calls = [name for name, _ in handed_over(machine()).host.calls]
    assert "set_clock" not in calls
    just = machine(wall=datetime.fromtimestamp(int(NOW.timestamp()) - 86400, UTC))
    assert "set_clock" not in [name for name, _ in handed_over(just).host.calls]
    late = machine(wall=datetime(2000, 1, 1, tzinfo=UTC))
    assert [name for name, _ in late.boot().host.calls].count("set_clock") == 1


# -- unseal


def cleared(made: FakeMachine) -> None:
    made.tpm.nv, made.tpm.sealed_for = {}, b""


def no_policy(made: FakeMachine) -> None:
    made.uki = replace(made.uki, policies=None)


def bad_signature(made: FakeMachine) -> None:
    first, second = policies_of(UKIS["run"])
    wrong = key("stranger").sign(first.policy, padding.PKCS1v15(), hashes.SHA256())
    made.uki = replace(
        made.uki, policies=render_policies([replace(first, signature=wrong), second])
    )


def only_the_first(made: FakeMachine) -> None:
    made.uki = replace(made.uki, policies=render_policies(policies_of(UKIS["run"])[:1]))


def bad_second_signature(made: FakeMachine) -> None:
    first, second = policies_of(UKIS["run"])
    wrong = replace(second, signature=first.signature)
    made.uki = replace(made.uki, policies=render_policies([first, wrong]))


def strangers_policy(made: FakeMachine) -> None:
    theirs = signed(made.secure_boot, UKIS["run"], by="stranger", pcr12=bytes(32))
    made.uki = replace(made.uki, policies=render_policies([theirs]))


class Added(FakeTpm):
    """A machine whose firmware or stub has measured something more, before the initrd."""

    pcr = 12

    def power_cycle(self) -> None:
        super().power_cycle()
        self.pcrs[self.pcr] = b"\1" * 32


class Left(FakeTpm):
    """A machine that was left already: the door was closed before this boot asked."""

    def open(self, policies: object, key_pem: bytes, phase: Phase = "first") -> None:
        if self.pcrs[9] == bytes(32):
            self.pcrs[9] = b"\1" * 32
            for pcr, constant in DOOR.items():
                self.extend(pcr, constant)
        super().open(policies, key_pem, phase)  # type: ignore[arg-type]


UNSEALING: dict[str, tuple[Change, str]] = {
    "no TPM": (lambda m: setattr(m.tpm, "absent", True), "no TPM: /dev/tpmrm0 does not exist"),
    "cleared": (
        cleared,
        "the TPM is not provisioned, or was cleared: it has no storage root key",
    ),
    "half provisioned": (
        lambda m: m.tpm.nv.pop(Index.CONFIGURATION_KEY),
        "the TPM is not provisioned: it has no configuration_key",
    ),
    "half provisioned, behind the first door": (
        lambda m: m.tpm.nv.pop(Index.SUDI_CERT),
        "the TPM is not provisioned: it has no sudi_cert",
    ),
    "no policy for the second phase": (
        only_the_first,
        "the TPM was provisioned for another product: its policy version index is not ours",
    ),
    "bad signature of the second policy": (
        bad_second_signature,
        "the signature of this UKI's TPM policy is wrong",
    ),
    "other Secure Boot keys": (
        lambda m: setattr(m, "secure_boot", b"\7" * 32),
        "PCR 7 not as this product signed",
    ),
    "an altered image": (
        lambda m: setattr(m, "uki", replace(m.uki, measured=b"\7" * 32)),
        "PCR 11 not as this product signed",
    ),
    "something added": (
        lambda m: setattr(m, "tpm", of_kind(Added, m.tpm)),
        "PCR 12 not as this product signed",
    ),
    "left already": (
        lambda m: setattr(m, "tpm", of_kind(Left, m.tpm)),
        "the initrd has been left: the TPM's secrets can be read only inside it",
    ),
    "too old": (
        lambda m: m.tpm.nv.update({Index.POLICY_VERSION: b"0002"}),
        "this UKI is too old: its policy version is 0001, the TPM accepts 0002 and newer",
    ),
    "no policy": (no_policy, "this boot image carries no signed TPM policy"),
    "bad policy document": (
        lambda m: setattr(m, "uki", replace(m.uki, policies=b"{}")),
        "signed TPM policies (.pcrsig): Object missing required field `sha256`",
    ),
    "policy of a stranger": (
        strangers_policy,
        "this UKI carries no TPM policy signed with the product's key",
    ),
    "bad signature of the policy": (
        bad_signature,
        "the signature of this UKI's TPM policy is wrong",
    ),
    "sealed for another product": (
        lambda m: setattr(m.tpm, "sealed_for", ADMIN),
        "the TPM was provisioned for another product: its policy version index is not ours",
    ),
}


@pytest.mark.parametrize("name", sorted(UNSEALING))
def test_the_tpm_gives_nothing_out(name: str) -> None:
    change, reason = UNSEALING[name]
    made = changed(change)
    assert refusal(made) == reason
    assert not [one for one in made.boot().host.calls if one[0] in {"open_luks", "mount"}]


def test_the_policy_that_fits_is_used_among_several() -> None:
    policies = [*policies_of(UKIS["install"]), *policies_of(UKIS["run"])]
    made = machine(uki=replace(uki(), policies=render_policies(policies)))
    handed_over(made)


def test_a_newer_image_than_the_floor() -> None:
    policies = render_policies(policies_of(UKIS["run"], "0003"))
    handed_over(machine(uki=replace(uki(), policies=policies), tpm=provisioned_tpm(floor="0003")))
    old = machine(uki=replace(uki(), policies=policies), tpm=provisioned_tpm(floor="0004"))
    assert "too old" in refusal(old)


# -- identity


@pytest.mark.parametrize("serial", ["", "SN0002", "sn0001", "SN00011", "Not Specified"])
def test_another_machine(serial: str) -> None:
    made = machine(serial=serial)
    expected = f"the device identity is for serial 'SN0001', this machine is {serial!r}"
    assert refusal(made) == expected
    read = [arguments for name, arguments in made.boot().host.calls if name == "read_sealed"]
    tried = [(Index.CONFIGURATION_KEY,), (Index.STORAGE_KEY,)]
    assert read == [*tried, *tried, (Index.SUDI_CERT,)]
    names = {name for name, _ in made.boot().host.calls}
    assert not {"read_header", "open_luks", "mount"} & names, "of an unknown machine no disk counts"


def test_a_certificate_of_a_strangers_ca() -> None:
    strange = device().but(issuer_key=key("stranger")).pem()
    reason = refusal(machine(tpm=provisioned_tpm(certificate=strange)))
    assert reason.startswith("certificate ")
    assert reason.endswith(": not issued by certificate 'CN=SUDI rootCA'")


def test_a_certificate_that_has_expired_is_still_this_machines() -> None:
    """No clock can be trusted here: what ends an identity is not time."""
    old = device().but(end=NOW - timedelta(days=1)).pem()
    handed_over(machine(tpm=provisioned_tpm(certificate=old)))
