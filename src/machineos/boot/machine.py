"""The real machine: every step of the boot as one call into ``host``, ``state`` or ``trust``.

Decides nothing. Where it has state, it is what the kernel or the TPM has open for us.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.boot.drivers import read_text
from machineos.boot.facts import HostCa
from machineos.boot.switchroot import switch_root
from machineos.boot.volumesteps import Shown
from machineos.core.files import erase, list_bounded, read_bounded, read_part, write_atomic
from machineos.core.secret import Secret
from machineos.document.verify import images
from machineos.document.verify.published import fetch_verified
from machineos.errors import BootError
from machineos.host.disk import blockdev, cryptsetup
from machineos.host.disk.luks import LuksVolume
from machineos.host.disk.tools import Activation
from machineos.host.kernel import apparmor, dmcrypt, ipe, keyring, mount, sysctl
from machineos.host.kernel import syscalls as kernel
from machineos.host.kernel.securityfs import SECURITYFS
from machineos.host.tpm.commands import Tpm
from machineos.host.tpm.transport import DeviceTransport
from machineos.oci.layout.folder import LayoutRegistry, LayoutRepository
from machineos.state.images.volume import image_volume, mount_image
from machineos.state.volumes.header import passphrase
from machineos.state.volumes.sealed import volume_of
from machineos.trust.seal import unseal as seal
from machineos.trust.seal.hostca import make_host_ca
from machineos.trust.seal.provision import provision
from machineos.trust.seal.tpmkind import read_maker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from uuid import UUID

    from machineos.boot.console import Console
    from machineos.boot.drivers import Drivers
    from machineos.boot.steps import ProvisionTpm
    from machineos.core.clock import Clock
    from machineos.core.digest import Digest
    from machineos.document.product.install import Target
    from machineos.document.verify.published import VerifiedInstall
    from machineos.host.disk.device import Partition
    from machineos.host.kernel.flags import Flag
    from machineos.host.tpm.transport import Transport
    from machineos.oci.model.atomfs import Layer
    from machineos.oci.model.documents import Manifest
    from machineos.trust.measure.tpm_policy import Phase, SignedPolicy
    from machineos.trust.seal.layout import Index
    from machineos.trust.seal.tpmkind import Maker
    from machineos.trust.verify.chain import DeviceIdentity, Publisher


class Machine:
    """``Host`` of a real machine (boot/host). The places it looks at can be others, for tests."""

    def __init__(
        self,
        console: Console,
        drivers: Drivers,
        clock: Clock,
        *,
        sysfs: Path = blockdev.SYSFS,
        securityfs: Path = SECURITYFS,
        tpm: Callable[[], Transport] = DeviceTransport,
    ) -> None:
        self._console = console
        self._drivers = drivers
        self._clock = clock
        self._sysfs = sysfs
        self._securityfs = securityfs
        self._tpm = tpm
        self._session = ExitStack()
        self._sealed: seal.Sealed | None = None
        # Of the TPM that secrets came from or went to: no other may say that a door is closed.
        self._storage_name: bytes | None = None
        self._activation: Activation | None = None

    # -- console and clock

    def say(self, text: str) -> None:
        self._console.say(text)

    def read_clock(self) -> datetime:
        return self._clock.now()

    def set_clock(self, seconds: int) -> None:
        time.clock_settime(time.CLOCK_REALTIME, seconds)

    def read_timer(self) -> float:
        return self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)

    # -- kernel modules

    def wait_for_drivers(self) -> None:
        self._drivers.wait()

    def load_driver(self) -> bool:
        return self._drivers.more()

    def begin_modules(self, names: tuple[str, ...]) -> None:
        self._drivers.begin(names)

    def load_modules(self, names: tuple[str, ...]) -> None:
        self._drivers.load(names)

    # -- files

    def read_file(self, path: Path, limit: int) -> bytes:
        return read_bounded(path, limit)

    def read_part(self, path: Path, offset: int, size: int) -> bytes:
        return read_part(path, offset, size)

    def read_text(self, path: Path) -> str:
        return read_text(path)

    def read_secret(self, path: Path, limit: int) -> Secret:
        return Secret(read_bounded(path, limit))

    def write_file(self, path: Path, data: bytes, mode: int) -> None:
        write_atomic(path, data, mode=mode)

    def erase_file(self, path: Path) -> None:
        erase(path)

    def make_folder(self, path: Path, mode: int) -> None:
        path.mkdir(mode=mode)

    def list_folder(self, path: Path, limit: int) -> tuple[str, ...]:
        return list_bounded(path, limit)

    def is_folder(self, path: Path) -> bool:
        return path.is_dir()

    def is_program(self, path: Path) -> bool:
        return os.access(path, os.X_OK)

    # -- disks

    def list_partitions(self) -> tuple[Partition, ...]:
        return blockdev.partitions(self._sysfs)

    def list_disks(self) -> tuple[Path, ...]:
        return tuple(disk.device for disk in blockdev.disks(self._sysfs))

    def list_optical(self) -> tuple[Path, ...]:
        return blockdev.optical(self._sysfs)

    def read_label(self, device: Path) -> str:
        return blockdev.volume_label(device)

    def read_header(self, device: Path, size: int) -> bytes:
        return cryptsetup.read_header(device, size)

    def open_luks(self, device: Path, name: str, header: Path, key: Secret) -> None:
        opening = passphrase(key)
        try:
            cryptsetup.open_volume(LuksVolume(device, name), opening, header=header)
        finally:
            opening.wipe()

    # -- volumes of services

    def begin_volumes(self, group: str, device: Path, key: Secret) -> None:
        self._activation = Activation(group, device, key)

    def list_volumes(self, group: str) -> Shown:
        begun, self._activation = self._activation, None
        complaint = begun.wait() if begun is not None else ""
        folder = Path("/dev") / group
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        return Shown(tuple(names), complaint)

    def open_volume(self, device: Path, name: str, uuid: str, key: Secret) -> None:
        dmcrypt.open_volume(volume_of(device, name, uuid), key)

    # -- mounts

    def mount(self, device: Path, target: Path, filesystem: str, flags: Flag) -> None:
        mount.mount(device, target, filesystem, flags)

    def mount_overlay(self, target: Path, upper: Path, work: Path, flags: Flag) -> None:
        options = f"lowerdir={target},upperdir={upper},workdir={work}"
        mount.mount("overlay", target, "overlay", flags, options)

    def mount_image(self, blob: Path, layer: Layer, signature: bytes, target: Path) -> None:
        mount_image(image_volume(blob, layer, signature=signature), target)

    def bind(self, source: Path, target: Path) -> None:
        mount.bind(source, target, read_only=True)

    def move(self, source: Path, target: Path) -> None:
        mount.move(source, target)

    def unmount(self, target: Path) -> None:
        mount.unmount(target)

    # -- stores and media

    def read_image(
        self, store: Path, target: Target, publisher: Publisher
    ) -> tuple[Manifest, Mapping[Digest, bytes]]:
        repository = LayoutRepository(store)
        manifest = images.verify_target(repository, target)
        return manifest, images.root_hash_signatures(repository, target, manifest, publisher)

    def fetch_manifest(
        self, layouts: Path, name: str, reference: str, ca_pem: bytes, product: UUID
    ) -> VerifiedInstall:
        repository = LayoutRegistry(layouts).repository(name)
        return fetch_verified(
            repository, reference, ca_pem=ca_pem, at=None, product=product
        ).verified

    # -- the TPM

    def open_sealed(self, policies: tuple[SignedPolicy, ...], policy_key: bytes) -> None:
        with ExitStack() as opening:
            tpm = opening.enter_context(Tpm(self._tpm(), clock=self._clock, random=os.urandom))
            self._sealed = opening.enter_context(
                seal.opened(tpm, policies=policies, policy_key_pem=policy_key, srk_name=None)
            )
            self._storage_name = self._sealed.srk_name
            self._session = opening.pop_all()

    def read_sealed(self, index: Index) -> Secret:
        return self._opened.read(index)

    @property
    def _opened(self) -> seal.Sealed:
        if self._sealed is None:
            raise BootError("the TPM was not asked to open what it seals")
        return self._sealed

    def close_sealed(self) -> None:
        self._sealed = None
        self._session.close()

    def read_floor(self) -> str:
        return self._opened.floor()

    def raise_floor(self, version: str) -> None:
        self._opened.raise_floor(version)

    def make_host_ca(self, identity: DeviceIdentity, private_key: Secret) -> HostCa:
        return HostCa(*make_host_ca(identity, private_key, random=os.urandom))

    def forget_secret(self, secret: Secret) -> None:
        secret.wipe()

    def close_door(self, phase: Phase) -> None:
        if self._sealed is not None:
            self._sealed.close_door(phase)
            return
        with Tpm(self._tpm(), clock=self._clock, random=os.urandom) as tpm:
            seal.close_door(tpm, phase, srk_name=self._storage_name)

    def read_tpm_maker(self) -> Maker:
        with Tpm(self._tpm(), clock=self._clock, random=os.urandom) as tpm:
            return read_maker(tpm)

    def provision_tpm(self, given: ProvisionTpm) -> None:
        with Tpm(self._tpm(), clock=self._clock, random=os.urandom) as tpm:
            report = provision(
                tpm,
                luks_policy_key=given.policy_key,
                admin_policy_key=given.admin_policy_key,
                sudi_cert=given.certificate,
                sudi_key=given.private_key,
                policy_version=given.policy_version,
                random=os.urandom,
            )
        self._storage_name = report.srk_name

    # -- what the kernel trusts and allows

    def list_keys(self, name: str) -> tuple[str, ...]:
        return keyring.list_keys(name)

    def trust_certificate(self, certificate: bytes, what: str) -> None:
        trusted = keyring.find_keyring(keyring.SECONDARY)
        keyring.add_certificate(trusted, certificate, what=what)

    def enforce_policy(self, signed: bytes) -> None:
        ipe.enforce(signed, securityfs=self._securityfs)

    def load_profiles(self, compiled: bytes) -> None:
        apparmor.load(compiled, securityfs=self._securityfs)

    def set_sysctl(self, name: str, value: str) -> None:
        sysctl.write(name, value)

    def replace_policy(self, signed: bytes) -> None:
        ipe.replace(signed, securityfs=self._securityfs)

    def drop_mac_admin(self) -> None:
        kernel.drop_capability(kernel.MAC_ADMIN)

    def keep_secret(self, description: str, secret: Secret) -> None:
        keyring.add_secret(description, secret)

    def switch_root(self, root: Path, init: str, arguments: tuple[str, ...]) -> None:
        switch_root(root, init, arguments)
