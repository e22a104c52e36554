"""The contract of the machine's TPM, and of a kernel that enforces (``machineos.boot.host``)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from contracts.beds import KEY, SAFE, KernelBed, Layer, TpmBed, refused
from machineos.boot.steps import ProvisionTpm
from machineos.core.secret import Secret
from machineos.errors import (
    BootError,
    ConflictError,
    DocumentError,
    MissingError,
    PolicyError,
    SignatureError,
    VerificationError,
)
from machineos.host.kernel.flags import Flag
from machineos.state.volumes.header import HEADER_SIZE
from machineos.trust.measure.tpm_policy import PHASES
from machineos.trust.seal.layout import Index
from machineos.trust.seal.tpmkind import kind_of
from machineos.trust.verify.firmwarekeys import MACHINE, PLATFORM

CERTIFICATE = b"-----BEGIN CERTIFICATE-----\n" + b"public but ours " * 90
PRIVATE = b"-----BEGIN PRIVATE KEY-----\n" + b"not for anybody " * 90


# -- the TPM


def given(bed: TpmBed) -> ProvisionTpm:
    """Return what a machine is provisioned with."""
    policy_key, admin_key = bed.policy_keys
    return ProvisionTpm(policy_key, admin_key, CERTIFICATE, Secret(PRIVATE), "0001")


def a_tpm_without_our_secrets_gives_nothing(bed: TpmBed) -> None:
    policy_key, _ = bed.policy_keys
    text = refused(BootError, lambda: bed.host.open_sealed(bed.policies(), policy_key))
    assert text.startswith("the TPM is not provisioned, or was cleared")
    bed.host.close_sealed()
    refused(BootError, lambda: bed.host.read_sealed(Index.SUDI_CERT))


def a_provisioned_tpm_gives_its_secrets_to_the_image_that_was_signed(bed: TpmBed) -> None:
    policy_key, _ = bed.policy_keys
    bed.host.provision_tpm(given(bed))
    bed.reset()
    bed.host.open_sealed(bed.policies(), policy_key)
    key = bed.host.read_sealed(Index.CONFIGURATION_KEY)
    assert len(key.reveal()) == 32
    assert bed.host.read_sealed(Index.CONFIGURATION_KEY) == key
    assert bed.host.read_sealed(Index.STORAGE_KEY) != key
    bed.host.close_door("first")
    assert bed.host.read_sealed(Index.SUDI_CERT) == Secret(CERTIFICATE)
    assert bed.host.read_sealed(Index.SUDI_KEY) == Secret(PRIVATE)
    bed.host.close_sealed()
    bed.host.close_sealed()
    refused(BootError, lambda: bed.host.read_sealed(Index.SUDI_CERT))
    bed.reset()
    bed.host.open_sealed(bed.policies(), policy_key)
    assert bed.host.read_sealed(Index.CONFIGURATION_KEY) == key
    bed.host.close_sealed()


def it_says_who_made_it_before_and_after(bed: TpmBed) -> None:
    maker = bed.host.read_tpm_maker()
    assert maker.name
    assert kind_of(maker, "tpm_crb") == "virtual"
    bed.host.provision_tpm(given(bed))
    assert bed.host.read_tpm_maker() == maker


def it_is_provisioned_once(bed: TpmBed) -> None:
    policy_key, _ = bed.policy_keys
    bed.host.provision_tpm(given(bed))
    bed.reset()
    bed.host.open_sealed(bed.policies(), policy_key)
    key = bed.host.read_sealed(Index.CONFIGURATION_KEY)
    bed.host.close_sealed()
    text = refused(ConflictError, lambda: bed.host.provision_tpm(given(bed)))
    assert "provisioned already" in text
    bed.host.open_sealed(bed.policies(), policy_key)
    assert bed.host.read_sealed(Index.CONFIGURATION_KEY) == key
    bed.host.close_sealed()


def any_other_boot_gets_nothing(bed: TpmBed) -> None:
    policy_key, other_key = bed.policy_keys
    bed.host.provision_tpm(given(bed))
    for pcr in (7, 11, 12, 13, 14):
        bed.reset()
        bed.extend(pcr)
        text = refused(PolicyError, lambda: bed.host.open_sealed(bed.policies(), policy_key))
        assert f"PCR {pcr}" in text, text
    bed.reset(image=b"another image")
    refused(PolicyError, lambda: bed.host.open_sealed(bed.policies(), policy_key))
    bed.reset()
    strange = bed.policies(by="stranger")
    text = refused(PolicyError, lambda: bed.host.open_sealed(strange, policy_key))
    assert text == "this UKI carries no TPM policy signed with the product's key"
    refused(PolicyError, lambda: bed.host.open_sealed((), policy_key))
    text = refused(PolicyError, lambda: bed.host.open_sealed(bed.policies(), other_key))
    assert text == "this UKI carries no TPM policy signed with the product's key"
    bed.host.open_sealed((*strange, *bed.policies()), policy_key)
    bed.host.close_sealed()


def an_image_older_than_the_floor_gets_nothing(bed: TpmBed) -> None:
    policy_key, admin_key = bed.policy_keys
    newer = ProvisionTpm(policy_key, admin_key, CERTIFICATE, Secret(PRIVATE), "0003")
    bed.host.provision_tpm(newer)
    bed.reset()
    old = bed.policies(version="0002")
    text = refused(PolicyError, lambda: bed.host.open_sealed(old, policy_key))
    assert text.startswith("this UKI is too old: its policy version is 0002, the TPM accepts 0003")
    for version in ("0003", "0004"):
        bed.host.open_sealed((*old, *bed.policies(version=version)), policy_key)
        assert len(bed.host.read_sealed(Index.STORAGE_KEY)) == 32
        bed.host.close_sealed()


def a_session_ends_when_a_pcr_changes(bed: TpmBed) -> None:
    policy_key, _ = bed.policy_keys
    bed.host.provision_tpm(given(bed))
    bed.reset()
    bed.host.open_sealed(bed.policies(), policy_key)
    bed.host.read_sealed(Index.STORAGE_KEY)
    bed.extend(11)
    refused(PolicyError, lambda: bed.host.read_sealed(Index.CONFIGURATION_KEY))
    bed.host.close_sealed()


def behind_the_door_nobody_gets_anything_until_a_reset(bed: TpmBed) -> None:
    policy_key, _ = bed.policy_keys
    bed.host.provision_tpm(given(bed))
    bed.reset()
    bed.host.close_door("second")
    text = refused(PolicyError, lambda: bed.host.open_sealed(bed.policies(), policy_key))
    assert text.startswith("the initrd has been left")
    bed.host.close_sealed()
    bed.reset()
    bed.host.open_sealed(bed.policies(), policy_key)
    bed.host.close_sealed()


def each_door_ends_a_phase_and_the_session_goes_on(bed: TpmBed) -> None:
    policy_key, _ = bed.policy_keys
    bed.host.provision_tpm(given(bed))
    bed.reset()
    bed.host.open_sealed(bed.policies(), policy_key)
    text = refused(PolicyError, lambda: bed.host.read_sealed(Index.SUDI_KEY))
    assert text.startswith("the first door is still open")
    bed.host.read_sealed(Index.CONFIGURATION_KEY)
    bed.host.close_door("first")
    for index in (Index.CONFIGURATION_KEY, Index.STORAGE_KEY):
        refused(PolicyError, partial(bed.host.read_sealed, index))
    assert bed.host.read_sealed(Index.SUDI_KEY) == Secret(PRIVATE)
    bed.host.close_door("second")
    for index in (Index.CONFIGURATION_KEY, Index.SUDI_CERT, Index.SUDI_KEY):
        refused(PolicyError, partial(bed.host.read_sealed, index))
    bed.host.close_sealed()


def behind_the_first_door_another_session_gets_no_key(bed: TpmBed) -> None:
    policy_key, _ = bed.policy_keys
    bed.host.provision_tpm(given(bed))
    bed.reset()
    bed.host.close_door("first")
    text = refused(PolicyError, lambda: bed.host.open_sealed(bed.policies(), policy_key))
    assert text.startswith("the first door is closed")


def the_floor_rises_in_the_second_phase_and_never_falls(bed: TpmBed) -> None:
    policy_key, _ = bed.policy_keys
    refused(BootError, bed.host.read_floor)
    bed.host.provision_tpm(given(bed))
    bed.reset()
    policies = bed.policies(version="0003")
    bed.host.open_sealed(policies, policy_key)
    assert bed.host.read_floor() == "0001"
    text = refused(PolicyError, lambda: bed.host.raise_floor("0002"))
    assert text.startswith("the first door is still open")
    bed.host.close_door("first")
    refused(DocumentError, lambda: bed.host.raise_floor("2"))
    text = refused(PolicyError, lambda: bed.host.raise_floor("0004"))
    assert text == "policy version 0004 would lock out this UKI, which has 0003"
    bed.host.raise_floor("0003")
    bed.host.raise_floor("0003")
    text = refused(PolicyError, lambda: bed.host.raise_floor("0002"))
    assert text == "the TPM's policy version is 0003; it is never lowered to 0002"
    assert bed.host.read_floor() == "0003"
    bed.host.close_sealed()
    bed.reset()
    refused(PolicyError, lambda: bed.host.open_sealed(bed.policies(version="0002"), policy_key))


def a_tpm_without_our_secrets_has_no_door(bed: TpmBed) -> None:
    """So nothing that says there is none is taken for a closed one."""
    for phase in PHASES:
        text = refused(BootError, partial(bed.host.close_door, phase))
        assert text.startswith("the TPM is not provisioned, or was cleared")


def a_forgotten_secret_is_overwritten(bed: TpmBed) -> None:
    secret = Secret(b"x" * 32)
    view = secret.view()
    bed.host.forget_secret(secret)
    assert bytes(view) == bytes(32)
    assert secret.wiped


# -- a kernel that enforces


def a_signed_volume_opens_and_no_other(bed: KernelBed) -> None:
    target = bed.folder / "volume"
    bed.host.make_folder(target, 0o755)

    def mount(layer: Layer, signature: bytes | None = None) -> None:
        signed = layer.signature if signature is None else signature
        bed.host.mount_image(layer.blob, layer.described, signed, target)

    good, stranger = bed.layer("good"), bed.layer("stranger")
    refused(SignatureError, lambda: mount(stranger))
    refused(VerificationError, lambda: mount(good, b"no signature"))
    refused(VerificationError, lambda: mount(bed.layer("changed")))
    assert bed.flags(target) is None
    mount(good)
    assert bed.flags(target) == Flag.RDONLY | Flag.NOSUID | Flag.NODEV
    bed.host.unmount(target)


def the_firmware_gave_the_kernel_one_key_of_each_kind(bed: KernelBed) -> None:
    """The UKI certificate out of shim, and the certificate of its db: what the boot insists on."""
    for name in (MACHINE, PLATFORM):
        (held,) = bed.host.list_keys(name)
        assert re.fullmatch(r".+: [0-9a-f]{2,64}", held), held
    text = refused(MissingError, lambda: bed.host.list_keys(".nobodys"))
    assert text == "this kernel has no keyring .nobodys"


def a_certificate_needs_somebody_who_vouches_for_it(bed: KernelBed) -> None:
    text = refused(
        SignatureError, lambda: bed.host.trust_certificate(bed.certificate("stranger"), "it")
    )
    assert text.startswith("it: the kernel does not accept this certificate (E")
    refused(SignatureError, lambda: bed.host.trust_certificate(b"no certificate", "it"))
    bed.host.trust_certificate(bed.certificate("publisher"), "publisher")


def the_policy_cannot_be_changed_without_the_capability(bed: KernelBed) -> None:
    bed.host.drop_mac_admin()
    bed.host.drop_mac_admin()
    text = refused(SignatureError, lambda: bed.host.enforce_policy(bed.policy()))
    assert text.startswith("the kernel refuses the IPE policy machineos: E")


def a_luks_device_opens_by_a_copy_of_its_header(bed: KernelBed) -> None:
    device, copy = bed.device(), bed.folder / "luks-header"
    bed.host.write_file(copy, bed.host.read_header(device, HEADER_SIZE), 0o600)
    bed.host.open_luks(device, "contract", copy, Secret(KEY))
    target = bed.folder / "opened"
    bed.host.make_folder(target, 0o755)
    bed.host.mount(Path("/dev/mapper/contract"), target, "ext4", SAFE)
    assert bed.flags(target) == SAFE
    bed.host.unmount(target)


def a_kept_secret_is_in_the_keyring(bed: KernelBed) -> None:
    bed.host.keep_secret("machineos:contract", Secret(b"secret"))
    assert bed.secret("machineos:contract") == b"secret"


TPMS: tuple[Callable[[TpmBed], None], ...] = (
    a_tpm_without_our_secrets_gives_nothing,
    a_provisioned_tpm_gives_its_secrets_to_the_image_that_was_signed,
    it_says_who_made_it_before_and_after,
    it_is_provisioned_once,
    any_other_boot_gets_nothing,
    an_image_older_than_the_floor_gets_nothing,
    a_session_ends_when_a_pcr_changes,
    behind_the_door_nobody_gets_anything_until_a_reset,
    each_door_ends_a_phase_and_the_session_goes_on,
    behind_the_first_door_another_session_gets_no_key,
    the_floor_rises_in_the_second_phase_and_never_falls,
    a_tpm_without_our_secrets_has_no_door,
    a_forgotten_secret_is_overwritten,
)
KERNELS: tuple[Callable[[KernelBed], None], ...] = (
    a_signed_volume_opens_and_no_other,
    the_firmware_gave_the_kernel_one_key_of_each_kind,
    a_certificate_needs_somebody_who_vouches_for_it,
    the_policy_cannot_be_changed_without_the_capability,
    a_luks_device_opens_by_a_copy_of_its_header,
    a_kept_secret_is_in_the_keyring,
)
