"""The only caller of ``Host``: takes the phases of a mode in order and does what they ask for.

Decides nothing: each step is one method. A step that is not here does not pass the type checker.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, assert_never, cast

from machineos.boot import steps as do
from machineos.boot.facts import GIVEN, SETTINGS, Facts
from machineos.boot.plan import plan
from machineos.core.steps import Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from machineos.boot.facts import Phase
    from machineos.boot.host import Host
    from machineos.core.steps import Step
    from machineos.document.between.bootsettings import Settings


def run(
    settings: Settings,
    host: Host,
    *,
    phases: Sequence[Phase] | None = None,
    watch: Callable[[str], None] = lambda _point: None,
) -> None:
    """Boot in the mode of the settings; returns only when there is nothing to hand over to.

    ``phases`` are those of the mode unless given. Raises: OrderError (nothing was done),
    MachineOSError, OSError.
    """
    runner: Runner[Facts] = Runner(partial(perform, host), watch=watch)
    chosen = plan(settings.mode) if phases is None else phases
    runner.run(chosen, Facts().plus(SETTINGS, settings), given=GIVEN)


def perform(host: Host, step: Step[object]) -> object:
    """Do one step and return its answer."""
    return _time(host, cast("do.BootStep", step))


def _time(host: Host, step: do.BootStep) -> object:
    match step:
        case do.Say(text):
            host.say(text)
        case do.ReadClock():
            return host.read_clock()
        case do.SetClock(seconds):
            host.set_clock(seconds)
        case do.ReadTimer():
            return host.read_timer()
        case do.Sleep(duration):
            host.sleep(duration)
        case do.WaitForDrivers():
            host.wait_for_drivers()
        case do.LoadDriver():
            return host.load_driver()
        case do.BeginModules(names):
            host.begin_modules(names)
        case do.LoadModules(names):
            host.load_modules(names)
        case _:
            return _files(host, step)
    return None


def _files(host: Host, step: do.FileStep | do.ContentStep | do.DeviceStep | do.TrustStep) -> object:
    match step:
        case do.ReadFile(path, limit):
            return host.read_file(path, limit)
        case do.ReadPart(path, offset, size):
            return host.read_part(path, offset, size)
        case do.ReadText(path):
            return host.read_text(path)
        case do.ReadSecret(path, limit):
            return host.read_secret(path, limit)
        case do.WriteFile(path, data, mode):
            host.write_file(path, data, mode)
        case do.EraseFile(path):
            host.erase_file(path)
        case do.MakeFolder(path, mode):
            host.make_folder(path, mode)
        case do.ListFolder(path, limit):
            return host.list_folder(path, limit)
        case do.IsFolder(path):
            return host.is_folder(path)
        case do.IsProgram(path):
            return host.is_program(path)
        case _:
            return _contents(host, step)
    return None


def _contents(host: Host, step: do.ContentStep | do.DeviceStep | do.TrustStep) -> object:
    match step:
        case do.ReadImage(store, target, publisher):
            return host.read_image(store, target, publisher)
        case do.FetchManifest(layouts, name, reference, ca_pem, product):
            return host.fetch_manifest(layouts, name, reference, ca_pem, product)
        case _:
            return _devices(host, step)


def _devices(host: Host, step: do.DeviceStep | do.TrustStep) -> object:
    match step:
        case do.ListPartitions():
            return host.list_partitions()
        case do.ListDisks():
            return host.list_disks()
        case do.ListOptical():
            return host.list_optical()
        case do.ReadLabel(device) | do.ReadCarrierLabel(device):
            return host.read_label(device)
        case do.ReadHeader(device, size):
            return host.read_header(device, size)
        case do.OpenLuks(device, name, header, key):
            host.open_luks(device, name, header, key)
        case do.ListKeys(name):
            return host.list_keys(name)
        case do.ReadTpmMaker():
            return host.read_tpm_maker()
        case _:
            return _volumes(host, step)
    return None


def _volumes(host: Host, step: do.VolumeStep | do.MountStep | do.TrustStep) -> object:
    match step:
        case do.BeginVolumes(group, device, key):
            host.begin_volumes(group, device, key)
        case do.ListVolumes(group):
            return host.list_volumes(group)
        case do.OpenVolume(device, name, uuid, key):
            host.open_volume(device, name, uuid, key)
        case _:
            return _mounts(host, step)
    return None


def _mounts(host: Host, step: do.MountStep | do.TrustStep) -> object:
    match step:
        case do.MountDisk(device, target, filesystem, flags):
            host.mount(device, target, filesystem, flags)
        case do.MountCarrier(device, target, filesystem, flags):
            host.mount(device, target, filesystem, flags)
        case do.MountToErase(device, target, filesystem, flags):
            host.mount(device, target, filesystem, flags)
        case do.MountOverlay(target, upper, work, flags):
            host.mount_overlay(target, upper, work, flags)
        case do.MountImage(blob, layer, signature, target):
            host.mount_image(blob, layer, signature, target)
        case do.Bind(source, target):
            host.bind(source, target)
        case do.Move(source, target):
            host.move(source, target)
        case do.Unmount(target):
            host.unmount(target)
        case _:
            return _trust(host, step)
    return None


def _trust(host: Host, step: do.TrustStep) -> object:
    match step:
        case do.KeepSecret(description, secret):
            host.keep_secret(description, secret)
        case do.SwitchRoot(root, init, arguments):
            host.switch_root(root, init, arguments)
        case _:
            return _enforcement(host, step)
    return None


def _enforcement(host: Host, step: do.EnforcementStep | do.SealStep) -> object:
    match step:
        case do.TrustCertificate(certificate, what):
            host.trust_certificate(certificate, what)
        case do.LoadProfiles(compiled):
            host.load_profiles(compiled)
        case do.EnforcePolicy(signed):
            host.enforce_policy(signed)
        case do.SetSysctl(name, value):
            host.set_sysctl(name, value)
        case do.ReplacePolicy(signed):
            host.replace_policy(signed)
        case do.DropMacAdmin():
            host.drop_mac_admin()
        case _:
            return _seal(host, step)
    return None


def _seal(host: Host, step: do.SealStep) -> object:
    match step:
        case do.OpenSealed(policies, policy_key):
            host.open_sealed(policies, policy_key)
        case do.ReadSealed(index):
            return host.read_sealed(index)
        case do.CloseSealed():
            host.close_sealed()
        case do.ReadFloor():
            return host.read_floor()
        case do.RaiseFloor(version):
            host.raise_floor(version)
        case do.MakeHostCa(identity, private_key):
            return host.make_host_ca(identity, private_key)
        case do.ForgetSecret(secret):
            host.forget_secret(secret)
        case do.CloseDoor(phase):
            host.close_door(phase)
        case do.ProvisionTpm():
            host.provision_tpm(step)
        case _:
            assert_never(step)
    return None
