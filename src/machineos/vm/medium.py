"""From an empty machine to an installed one: two boots, each of a medium, each watched to its end.

What a boot did is known from the guest's own last words on the console, never from the passing of
time; a boot that fails ends with the guest's own reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from machineos.errors import MachineError
from machineos.vm.model import Config, Disk, Machine, Nic, Size, Smbios
from machineos.vm.provider import Accelerate, StartOptions
from machineos.vm.running import RunningMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from machineos.core.clock import Clock
    from machineos.vm.provider import Provider

PROVISIONED = r"machineos: provisioned successfully: "
INSTALLED = r"machineos install: installed successfully: "
_OWN = re.compile(r"machineos(?: install)?: (.*)")
_FAILED = re.compile(r"BOOT FAILED: (.*)|mosctl: (.*)")
ATTEMPTS = 3
_POLL = 0.2
PROVISION_TIMEOUT = 1800.0
INSTALL_TIMEOUT = 1800.0


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the machine is made of. ``disk`` in bytes, ``memory`` in MiB."""

    serial: str
    uefi_vars: Path
    disk: int = 20 << 30
    memory: int = 2048
    cpus: int = 2
    ports: Nic = field(default_factory=Nic)


@dataclass(frozen=True, slots=True)
class Medium:
    """A medium to boot once, the small disks that go with it, and the words that end it well.

    ``writable`` is the size in bytes of the small disks when the guest may change them, else 0.
    """

    image: Path
    disks: tuple[Path, ...]
    success: str
    timeout: float
    writable: int = 0


def define(name: str, hardware: Hardware, *, medium: Medium | None) -> Machine:
    """Return the definition of the machine, booting from a medium or else from its disk."""
    disks = [Disk(file=f"{name}.qcow2", size=Size(hardware.disk))]
    if medium is not None:
        disks += [_small_disk(path, medium.writable) for path in medium.disks]
    config = Config(
        name=name,
        cpus=hardware.cpus,
        memory=hardware.memory,
        uefi_vars=str(hardware.uefi_vars),
        smbios=Smbios(manufacturer="machineOS", product="virtual machine", serial=hardware.serial),
        disks=tuple(disks),
        nics=(hardware.ports if medium is None else Nic(id=hardware.ports.id),),
        cdrom=str(medium.image) if medium is not None else "",
        boot="cdrom" if medium is not None else "hdd",
    )
    return Machine(name=name, description=f"machineOS appliance {hardware.serial}", config=config)


def provision_medium(image: Path, identity: Path, size: int) -> Medium:
    """Return the boot that provisions the TPM with the identity on a small disk of ``size`` bytes,
    which the guest may write to: it erases the private key when the TPM has it."""
    return Medium(image, (identity,), PROVISIONED, PROVISION_TIMEOUT, writable=size)


def install_medium(image: Path, url_disk: Path | None) -> Medium:
    """Return the boot that installs, from the medium or from where the small disk says."""
    return Medium(image, (url_disk,) if url_disk else (), INSTALLED, INSTALL_TIMEOUT)


def _small_disk(path: Path, writable: int) -> Disk:
    """Return a disk that is used where it lies: with a size, it is not imported."""
    size = Size(writable)
    return Disk(file=str(path), format="raw", size=size, read_only=not writable, type="hdd")


def run_medium(
    provider: Provider,
    name: str,
    hardware: Hardware,
    medium: Medium,
    clock: Clock,
    *,
    accelerator: Accelerate = "",
    watch: Callable[[str], None] = lambda _line: None,
) -> None:
    """Boot the medium and return when the guest has said that it succeeded and is off.

    ``watch`` gets each line that the guest says about its progress.
    Raises: MachineError with the guest's own reason when it did not succeed.
    """
    provider.define(define(name, hardware, medium=medium))
    options = StartOptions(no_reboot=True, accelerator=accelerator)
    for attempt in range(1, ATTEMPTS + 1):
        running = RunningMachine(provider, name, clock, options=options)
        text = _boot_once(running, medium, clock, watch)
        if re.search(medium.success, text) is not None:
            return
        if not crashed_early(text) or attempt == ATTEMPTS:
            raise MachineError(
                f"machine {name}: {medium.image.name} did not succeed: {reason(text)}",
                hint=f"the console is in {provider.console(name).log}",
            )
        watch("the kernel crashed before our code ran, as it does under emulation; trying again")


def crashed_early(console: str) -> bool:
    """Return whether the kernel died before the initrd said anything.

    QEMU's emulation with several threads sometimes runs a half-patched instruction of the kernel
    (an int3 that belongs to a jump label). Nothing of ours had started, so trying again is safe.
    """
    panic = console.find("Kernel panic - not syncing: Fatal exception")
    return panic >= 0 and _OWN.search(console[:panic]) is None


def _boot_once(
    running: RunningMachine, medium: Medium, clock: Clock, watch: Callable[[str], None]
) -> str:
    """Boot until the guest is off; return all it wrote."""
    with running:
        seen = 0
        deadline = clock.monotonic() + medium.timeout
        while running.state.unended:
            seen = _report(running.console_text, seen, watch)
            if clock.monotonic() > deadline:
                raise MachineError(
                    f"machine {running.name}: {medium.image.name} has not ended after "
                    f"{medium.timeout:.0f} s",
                    hint=f"the console is in {running.console.log}",
                )
            clock.sleep(_POLL)
        text = running.console_text
        _report(text, seen, watch)
        return text


def reason(console: str) -> str:
    """Return the guest's own reason for a failure, else the end of its console."""
    found = _FAILED.findall(console)
    if found:
        return str(next(part for part in found[-1] if part)).strip()
    if "Access Denied" in console or "Security Violation" in console:
        return "the firmware refused the boot image: it is not signed by this keyset"
    lines = [line.strip() for line in console.splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or "it wrote nothing on its console"


def _report(text: str, seen: int, watch: Callable[[str], None]) -> int:
    """Hand every new complete line of ours to ``watch`` and return how far we are."""
    end = text.rfind("\n") + 1
    for line in _own_lines(text[seen:end].splitlines()):
        watch(line)
    return max(seen, end)


def _own_lines(lines: Sequence[str]) -> list[str]:
    return [match[1].strip() for line in lines if (match := _OWN.search(line))]
