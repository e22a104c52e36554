"""How a boot of the fake machine may end, and what must hold then."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from fakes.boot import FakeMachine, HandedOverError, Outcome, PoweredOffError, RestartedError
from machineos.boot.main import RESTART_DELAY
from machineos.boot.phases.lock import SYSCTLS
from machineos.errors import MachineOSError
from machineos.host.kernel.flags import Flag
from machineos.trust.measure.tpm_policy import parse_policies
from machineos.trust.seal.choice import DOORS
from machineos.trust.seal.layout import PHASES, Index
from unit.boot.worlds import KEY

SAFE = Flag.RDONLY | Flag.NOSUID | Flag.NODEV | Flag.NOEXEC
SYSROOT = Path("/sysroot")


def refusal(machine: FakeMachine) -> str:
    """Boot a machine that must not come up; return the one line that says why."""
    before = machine.writes()
    outcome = machine.boot()
    assert outcome.end is RestartedError, outcome.lines
    assert len([line for line in outcome.lines if line.startswith("BOOT FAILED: ")]) == 1
    assert outcome.lines[-1] == f"restarting in {RESTART_DELAY:.0f} s"
    assert machine.writes() == before, "a refused boot has written to something that lasts"
    assert_secrets_hidden(outcome)
    return outcome.reason


def handed_over(machine: FakeMachine) -> Outcome:
    """Boot a machine that must come up, and look at everything that makes it trusted."""
    before = machine.writes()
    outcome = machine.boot()
    assert outcome.end is HandedOverError, outcome.lines
    assert machine.writes() == before
    assert_trusted(outcome)
    return outcome


def powered_off(machine: FakeMachine) -> Outcome:
    """Boot a machine that must be done and switch itself off."""
    outcome = machine.boot()
    assert outcome.end is PoweredOffError, outcome.lines
    assert outcome.lines[-1] == "done; powering off"
    assert machine.tpm.provisioned
    assert not gives_out(outcome)
    assert_secrets_hidden(outcome)
    return outcome


def assert_trusted(outcome: Outcome) -> None:
    """What systemd finds is what the product signed, and nothing can be asked for any more."""
    host = outcome.host
    assert host.init[0] == "/usr/lib/systemd/systemd"
    assert host.kernel.locked
    assert host.kernel.sysctls == dict(SYSCTLS)
    assert host.kernel.profiles == outcome.host.machine.uki.anchors.apparmor
    assert not host.kernel.mac_admin
    assert not gives_out(outcome)
    root = host.names.at(SYSROOT)
    assert root is not None
    assert root.kind == "verity"
    assert root.flags == Flag.RDONLY | Flag.NOSUID | Flag.NODEV
    for name in ("etc", "var"):
        overlay = host.names.at(SYSROOT / name)
        assert overlay is not None
        assert overlay.kind == "overlay"
        assert overlay.flags == Flag.NOSUID | Flag.NODEV
    assert set(host.names.at(SYSROOT / "etc").tree.entries) == {".", "machine-id"}  # type: ignore[union-attr]
    assert set(host.names.at(SYSROOT / "var").tree.entries) == {"."}  # type: ignore[union-attr]
    for mount in host.names.mounts:
        if mount.kind in {"ext4", "iso9660", "vfat"}:
            assert mount.flags == SAFE, mount
        if mount.kind == "bind":
            assert mount.flags == Flag.RDONLY | Flag.NOSUID | Flag.NODEV
    assert {mount.kind for mount in host.names.mounts} <= {
        "rootfs", "proc", "sys", "dev", "run", "verity", "overlay", "bind", "ext4", "iso9660",
    }  # fmt: skip
    assert_secrets_hidden(outcome)


def gives_out(outcome: Outcome) -> bool:
    """Whether the TPM gives out anything to whoever asks as the initrd did, or would have later."""
    machine = outcome.host.machine
    if machine.uki.policies is None:
        return False
    policies = parse_policies(machine.uki.policies)
    key = machine.uki.anchors.policy_key
    tpm = machine.tpm
    before = dict(tpm.pcrs), tpm._policies, tpm._session
    given = set()
    for extended in (None, *DOORS):  # anybody may extend what a door would
        for pcr, constant in DOORS[extended].items() if extended else ():
            tpm.extend(pcr, constant)
        for index, phase in PHASES.items():
            with suppress(MachineOSError):
                tpm.open(policies, key, phase)
                tpm.read(index, key)
                given.add(index)
    tpm.pcrs, tpm._policies, tpm._session = before
    return bool(given)


def assert_secrets_hidden(outcome: Outcome) -> None:
    """No secret of the TPM is on the console or in a file in memory."""
    tpm = outcome.host.machine.tpm
    public = {Index.SUDI_CERT, Index.POLICY_VERSION, Index.LAYOUT}
    secrets = [KEY, *(data for index, data in tpm.nv.items() if index not in public)]
    console = "\n".join(outcome.lines)
    disks = {id(tree) for disk in outcome.host.machine.disks for tree in disk.trees()}
    for secret in secrets:
        assert secret.hex() not in console
        assert repr(secret) not in console
        for mount in outcome.host.names.mounts:
            if id(mount.tree) not in disks:
                for path, entry in mount.tree.entries.items():
                    assert secret not in entry.data, path
