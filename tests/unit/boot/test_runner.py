"""The runner: one method for each step, its arguments in their places, and nothing else."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import cast, get_args

import msgspec
import pytest

from fakes.boot import FakeFirst
from machineos.boot import machine, runner, steps
from machineos.boot.facts import GIVEN, Facts, Phase
from machineos.boot.host import Host
from machineos.boot.runner import perform, run
from machineos.core.steps import Step, Talk, ask
from machineos.document.between.bootsettings import Mode
from unit.boot.worlds import machine as fake_machine
from unit.boot.worlds import settings

METHODS = {
    steps.Say: "say", steps.ReadClock: "read_clock", steps.SetClock: "set_clock",
    steps.ReadTimer: "read_timer", steps.Sleep: "sleep",
    steps.WaitForDrivers: "wait_for_drivers", steps.LoadDriver: "load_driver",
    steps.BeginModules: "begin_modules", steps.LoadModules: "load_modules",
    steps.ReadFile: "read_file",
    steps.ReadPart: "read_part", steps.ReadText: "read_text",
    steps.ReadSecret: "read_secret", steps.WriteFile: "write_file",
    steps.MakeFolder: "make_folder", steps.ListFolder: "list_folder",
    steps.IsFolder: "is_folder", steps.IsProgram: "is_program",
    steps.EraseFile: "erase_file", steps.ListKeys: "list_keys",
    steps.ReadTpmMaker: "read_tpm_maker",
    steps.ListPartitions: "list_partitions", steps.ListDisks: "list_disks",
    steps.ListOptical: "list_optical", steps.ReadLabel: "read_label",
    steps.ReadCarrierLabel: "read_label", steps.ReadHeader: "read_header",
    steps.OpenLuks: "open_luks",
    steps.BeginVolumes: "begin_volumes", steps.ListVolumes: "list_volumes",
    steps.OpenVolume: "open_volume", steps.MountDisk: "mount", steps.MountToErase: "mount",
    steps.MountCarrier: "mount", steps.MountOverlay: "mount_overlay",
    steps.MountImage: "mount_image", steps.Bind: "bind", steps.Move: "move",
    steps.Unmount: "unmount", steps.ReadImage: "read_image",
    steps.FetchManifest: "fetch_manifest", steps.OpenSealed: "open_sealed",
    steps.ReadSealed: "read_sealed", steps.CloseSealed: "close_sealed",
    steps.ReadFloor: "read_floor", steps.RaiseFloor: "raise_floor",
    steps.MakeHostCa: "make_host_ca", steps.ForgetSecret: "forget_secret",
    steps.CloseDoor: "close_door", steps.ProvisionTpm: "provision_tpm",
    steps.TrustCertificate: "trust_certificate", steps.EnforcePolicy: "enforce_policy",
    steps.LoadProfiles: "load_profiles",
    steps.SetSysctl: "set_sysctl", steps.ReplacePolicy: "replace_policy",
    steps.DropMacAdmin: "drop_mac_admin", steps.KeepSecret: "keep_secret",
    steps.SwitchRoot: "switch_root",
}  # fmt: skip
SILENT = {
    "say", "set_clock", "sleep", "wait_for_drivers", "begin_modules", "load_modules",
    "write_file", "make_folder",
    "erase_file", "open_luks", "begin_volumes", "open_volume", "mount",
    "mount_overlay", "mount_image", "bind", "move", "unmount",
    "open_sealed", "close_sealed", "raise_floor", "forget_secret", "close_door", "provision_tpm",
    "trust_certificate",
    "enforce_policy", "load_profiles", "set_sysctl", "replace_policy", "drop_mac_admin",
    "keep_secret", "switch_root",
}  # fmt: skip


class Recording:
    """A host that answers each call with its own name."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object) -> object:
            self.calls.append((name, *arguments))
            return None if name in SILENT else name

        return call


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)
def test_a_step_is_one_call(kind: type[Step[object]]) -> None:
    assert issubclass(kind, msgspec.Struct)
    values = [f"value of {name}" for name in kind.__struct_fields__]
    step = cast("Callable[..., object]", kind)(*values)
    host = Recording()
    answer = perform(cast("Host", host), cast("Step[object]", step))
    expected = [step] if isinstance(step, steps.ProvisionTpm) else values
    assert host.calls == [(METHODS[kind], *expected)]
    assert answer == (None if METHODS[kind] in SILENT else METHODS[kind])


class Unknown(msgspec.Struct, Step[None], frozen=True):
    """A step that the vocabulary has not."""


def test_a_step_that_nobody_knows_is_refused() -> None:
    host = Recording()
    with pytest.raises(AssertionError, match="Unknown"):
        perform(cast("Host", host), Unknown())
    assert host.calls == []


def test_every_step_has_a_method_of_the_same_shape() -> None:
    """Each parameter of the host is called as the field of the step is."""
    for kind, name in METHODS.items():
        assert issubclass(kind, msgspec.Struct)
        method = inspect.signature(getattr(Host, name))
        names = tuple(method.parameters)[1:]
        fields = kind.__struct_fields__
        assert names == fields or kind in {steps.ProvisionTpm}, name
    listed = {name for name in vars(machine.Machine) if not name.startswith("_")}
    assert set(METHODS.values()) == listed


def test_the_runner_is_the_only_caller_of_the_host() -> None:
    """No other module of the boot names it, but for those that make one."""
    folder = Path(runner.__file__).parent
    users = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "machineos.boot.host":
                users.add(path.name)
    assert users == {"runner.py", "bringup.py", "main.py"}


class Once(Phase, frozen=True):
    def talk(self, _facts: Facts) -> Talk[Facts]:
        yield from ask(steps.Say("once"))
        return Facts()


def test_what_is_given_before_the_first_phase() -> None:
    assert {"settings", "command line checked", "drivers loading"} == GIVEN
    host = fake_machine().power_on()
    once = Once("once", modes=frozenset({"run"}), needs=GIVEN, gives=frozenset())
    run(settings(), host, phases=[once])
    assert host.lines == ["once"]


def test_the_phases_are_those_of_the_mode() -> None:
    """A machine without a disk says in each mode what it misses."""
    said = []
    for mode in get_args(Mode):
        made = fake_machine(mode, disks=[])
        said.append(made.boot().reason.split()[1])
    assert said == ["disk", "install", "disk"]


def test_who_watches_hears_of_each_fault_point() -> None:
    points: list[str] = []
    host = fake_machine("provision").power_on()
    first = FakeFirst(host)
    first.mount_pseudo()
    first.load_drivers(settings("provision"))
    run(settings("provision"), host, watch=points.append)
    lasting = ("tpm-provisioned", "carrier-writable", "identity-erased")
    assert points == [f"{at} {one}" for one in lasting for at in ("before", "after")]
