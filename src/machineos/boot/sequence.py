"""What happens in which order, per mode; docs/boot draws it.

    run        identity -> configuration -> generation -> enforce -> root -> door -> hand over
    install    identity -> medium -> enforce -> root -> door -> hand over to the installer
    provision  medium -> TPM -> power off

The order is the security: nothing from a disk is used before the anchor that vouches for it, the
kernel enforces before the first volume is opened, and the TPM is shut before other code runs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.boot import environment, media, root
from machineos.boot.enforce import enforce
from machineos.boot.handover import fresh_overlays, switch_root
from machineos.boot.identity import DMI_SERIAL, check_machine
from machineos.core.files import write_atomic
from machineos.core.secret import Secret
from machineos.document.between.handover import encode_handover
from machineos.document.between.medium import INSTALL_KEY, LABEL, LAYOUTS
from machineos.document.verify.published import fetch_verified
from machineos.errors import BootError, MachineOSError
from machineos.host.disk import blockdev
from machineos.host.disk.device import Partition
from machineos.host.kernel import keyring
from machineos.host.kernel import syscalls as kernel
from machineos.host.kernel.mount import Flag, mount, move
from machineos.host.tpm.commands import Tpm
from machineos.host.tpm.transport import DeviceTransport
from machineos.oci.layout.folder import LayoutRegistry, LayoutRepository
from machineos.state.volumes import header
from machineos.state.volumes.config import open_config
from machineos.trust.measure.tpm_policy import parse_policies
from machineos.trust.seal import provision as seal_provision
from machineos.trust.seal import unseal as seal
from machineos.trust.verify.chain import DeviceIdentity, verify_sudi

if TYPE_CHECKING:
    from machineos.boot.console import Console
    from machineos.boot.drivers import Drivers
    from machineos.core.clock import Clock
    from machineos.document.between.bootsettings import Anchors, Settings

SYSROOT = Path("/sysroot")
RUN = Path("/run/machineos")
STORE = Path("/atomfs-store")
CONFIG = Path("/config")
DATA = Path("/var/lib/machineos/data")
POLICIES = Path("/.extra/tpm2-pcr-signature.json")
_DISK_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What the TPM gave us. ``key`` opens the configuration."""

    identity: DeviceIdentity
    sudi: bytes
    key: Secret


def run(
    settings: Settings, anchors: Anchors, console: Console, clock: Clock, drivers: Drivers
) -> None:
    """Run the mode of this initrd; returns only after provisioning. Raises: MachineOSError."""
    environment.floor_clock(settings, clock)
    RUN.mkdir(mode=0o755)
    if settings.mode == "provision":
        drivers.filesystem("vfat")
        provision(settings, anchors, console, clock, drivers)
    elif settings.mode == "install":
        drivers.filesystem("iso9660")
        boot_installer(settings, anchors, console, clock, drivers)
    else:
        boot_machine(settings, anchors, console, clock, drivers)


def boot_machine(
    settings: Settings, anchors: Anchors, console: Console, clock: Clock, drivers: Drivers
) -> None:
    """Mode ``run``. Raises: MachineOSError."""
    with Tpm(DeviceTransport()) as tpm:
        machine = unseal_machine(tpm, anchors)
        console.say(f"this is {machine.identity.serial} of product {machine.identity.product}")
        config = open_configuration(machine, clock, drivers)
        CONFIG.mkdir()
        mount(configvolume_device(), CONFIG, "ext4", Flag.RDONLY | _DATA_FLAGS)
        generation = root.load_generation(
            CONFIG, ca_pem=anchors.manifest_ca, product=machine.identity.product
        )
        console.say(f"generation {generation.system.manifests[-1][:12]} verified")
        STORE.mkdir()
        mount(
            partition_of(config.disk, "machine-store").device,
            STORE,
            "ext4",
            Flag.RDONLY | _DATA_FLAGS,
        )
        store = LayoutRepository(STORE / "mos")
        images = generation.images(store)
        enforce(anchors, [p.certificate_der for p in generation.publishers.values()])
        console.say("the kernel enforces: only signed volumes can be executed")
        mount_root(settings, store, images, drivers)
        name_machine(SYSROOT, machine.identity)
        data = root.Data(partition_of(config.disk, "machine-data").device, DATA)
        document = root.make_handover(generation, images, store=STORE / "mos", data=data, run=RUN)
        write_atomic(RUN / "boot.json", encode_handover(document), mode=0o644)
        leave(tpm, anchors, machine, console)
    for source in (CONFIG, STORE):
        move(source, SYSROOT / source.relative_to("/"))
    console.say("handing over to systemd")
    switch_root(SYSROOT)


def boot_installer(
    settings: Settings, anchors: Anchors, console: Console, clock: Clock, drivers: Drivers
) -> None:
    """Mode ``install``: the installer's root from the medium. Raises: MachineOSError."""
    with Tpm(DeviceTransport()) as tpm:
        machine = unseal_machine(tpm, anchors)
        console.say(f"this is {machine.identity.serial} of product {machine.identity.product}")
        folder = RUN / "medium"
        medium = environment.wait_for(
            "the install medium", lambda: find_medium(folder, drivers), clock, seconds=_DISK_SECONDS
        )
        registry = LayoutRegistry(medium.folder / LAYOUTS)
        name, _, tag = medium.index.live.rpartition(":")
        fetched = fetch_verified(
            registry.repository(name),
            tag,
            ca_pem=anchors.manifest_ca,
            at=None,
            product=machine.identity.product,
        )
        console.say(f"install medium {medium.device} verified")
        store = registry.repository("mos")
        publisher = fetched.verified.publisher
        images = tuple(
            root.find_image(store, target, publisher) for target in fetched.verified.install.targets
        )
        enforce(anchors, [publisher.certificate_der])
        mount_root(settings, store, images, drivers)
        name_machine(SYSROOT, machine.identity)
        keyring.add_secret(INSTALL_KEY, machine.key)
        leave(tpm, anchors, machine, console)
    console.say("handing over to the installer")
    switch_root(SYSROOT, arguments=("--unit=machineos-install.target",))


def provision(
    settings: Settings, anchors: Anchors, console: Console, clock: Clock, drivers: Drivers
) -> None:
    """Mode ``provision``: give the TPM its identity, keys and policies. Raises: MachineOSError."""
    device = environment.wait_for(
        "the disk with the device identity",
        lambda: find_identity_disk(drivers),
        clock,
        seconds=_DISK_SECONDS,
    )
    files = media.read_files(device, ("cert.pem", "privkey.pem"), RUN / "identity")
    identity = verify_sudi(files["cert.pem"], ca_pem=anchors.sudi_ca, at=clock.now())
    check_machine(identity, environment.read_text(DMI_SERIAL))
    with Tpm(DeviceTransport()) as tpm:
        seal_provision.provision(
            tpm,
            luks_policy_key=anchors.policy_key,
            admin_policy_key=anchors.admin_policy_key,
            sudi_cert=files["cert.pem"],
            sudi_key=files["privkey.pem"],
            policy_version=settings.policy_version,
        )
        seal.close_door(tpm)
    console.say(f"provisioned successfully: {identity.serial} of product {identity.product}")


def unseal_machine(tpm: Tpm, anchors: Anchors) -> Machine:
    """Return identity and key from the TPM, checked. Raises: BootError, PolicyError."""
    try:
        signed = parse_policies(POLICIES.read_bytes())
    except FileNotFoundError as error:
        raise BootError("this boot image carries no signed TPM policy") from error

    with seal.opened(
        tpm, policies=signed, policy_key_pem=anchors.policy_key, srk_name=None
    ) as sealed:
        sudi = sealed.read(seal.Index.SUDI_CERT)
        identity = verify_sudi(sudi, ca_pem=anchors.sudi_ca, at=None)
        check_machine(identity, environment.read_text(DMI_SERIAL))
        return Machine(identity, sudi, Secret(sealed.read(seal.Index.CONFIGURATION_KEY)))


def open_configuration(machine: Machine, clock: Clock, drivers: Drivers) -> Partition:
    """Find and open the configuration volume of this machine; disks may still be appearing, and a
    stranger's may appear first. Raises: BootError, ToolError (a driver was refused)."""
    deadline = clock.monotonic() + _DISK_SECONDS
    tried: tuple[Partition, ...] | None = None
    while True:
        found = tuple(p for p in blockdev.partitions() if p.label == header.LABEL)
        try:
            if found != tried:
                tried = found
                return open_config(machine.key, found, RUN)
        except BootError:
            if clock.monotonic() > deadline:
                raise
        if clock.monotonic() > deadline:
            return open_config(machine.key, found, RUN)
        if not drivers.more():
            clock.sleep(0.05)


def configvolume_device() -> Path:
    """Return the device node of the open configuration volume."""
    return Path("/dev/mapper") / header.NAME


def partition_of(disk: str, label: str) -> Partition:
    """Return the partition ``label`` of that very disk. Raises: BootError."""
    for partition in blockdev.partitions():
        if partition.disk == disk and partition.label == label:
            return partition
    raise BootError(f"disk {disk} has no partition {label}")


def mount_root(
    settings: Settings,
    store: LayoutRepository,
    images: tuple[root.Image, ...],
    drivers: Drivers,
) -> None:
    """Mount hostfs and what belongs on it. Raises: BootError, VerificationError."""
    by_name = {image.target.service_name: image for image in images}
    for needed in ("hostfs", "bootkit"):
        if needed not in by_name:
            raise BootError(f"the generation has no {needed}")
    for name in ("hostfs", "bootkit"):
        drivers.filesystem(by_name[name].filesystem)
    root.mount_target(store, by_name["hostfs"], SYSROOT)
    root.mount_target(store, by_name["bootkit"], RUN / "bootkit")
    root.add_modules(RUN / "bootkit", SYSROOT, settings.kernel)
    (RUN / "signatures").mkdir()
    for name, image in by_name.items():
        if name not in {"hostfs", "bootkit"}:
            root.signature_file(image, RUN).write_bytes(image.signature)
    fresh_overlays(SYSROOT, RUN / "fresh")


def name_machine(root_folder: Path, identity: DeviceIdentity) -> None:
    """Give the new root the machine's own id (machine-id(5)): the same at every boot, and of no
    other machine, without being stored anywhere."""
    text = f"machineos machine-id {identity.product} {identity.serial}"
    digest = bytearray(hashlib.sha256(text.encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x40
    digest[8] = digest[8] & 0x3F | 0x80
    (root_folder / "etc/machine-id").write_text(digest.hex() + "\n")


def leave(tpm: Tpm, anchors: Anchors, machine: Machine, console: Console) -> None:
    """Shut the TPM for everything after us and leave behind what is public.

    The rule on execution cannot be switched off any more either: no later process can have the
    capability for it.
    """
    kernel.drop_capability(kernel.MAC_ADMIN)
    public = RUN / "trust"
    public.mkdir(exist_ok=True)
    write_atomic(public / "manifest-ca.pem", anchors.manifest_ca)
    write_atomic(public / "sudi-ca.pem", anchors.sudi_ca)
    write_atomic(public / "device.pem", machine.sudi)
    seal.close_door(tpm)
    try:
        unseal_machine(tpm, anchors)
    except MachineOSError:
        console.say("the TPM gives out no secret any more")
        return
    raise BootError("the TPM still gives out its secrets after its door was closed")


def find_medium(folder: Path, drivers: Drivers) -> media.Medium | None:
    """Return the install medium when one is there: a device may appear behind another's driver."""
    drivers.all()
    devices = [*blockdev.optical(), *(disk.device for disk in blockdev.disks())]
    for device in devices:
        if blockdev.volume_label(device) == LABEL:
            medium = media.mount_medium(device, folder)
            if medium is not None:
                return medium
    return None


def find_identity_disk(drivers: Drivers) -> Path | None:
    """Return the disk with the device identity when it is there."""
    drivers.all()
    return media.find_labelled((disk.device for disk in blockdev.disks()), "trust-data")


_DATA_FLAGS = Flag.NOSUID | Flag.NODEV | Flag.NOEXEC
