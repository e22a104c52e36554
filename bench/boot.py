"""Two boots side by side: our installed machine, and Debian's own boot of the same root.

``handover``: from the start of the kernel, by the kernel's own clock, to the moment when the root's
systemd takes over. ``service``: from power-on, by this host's clock, until the machine is of use:
ours when its service answers HTTP, Debian's when multi-user.target is reached. One boot of ours
gives both figures.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import threading
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec

from bench import debian
from bench.measure import Pair, Sample
from bench.report import Row, ratio_check
from bench.workspace import KEYSET, PROJECT, TOP
from machineos.core.clock import SystemClock
from machineos.core.run import run
from machineos.errors import MachineError
from machineos.host.virt import qemu
from machineos.launch.parts import uefi_variables
from machineos.vm import medium as steps
from machineos.vm.model import Disk, Size
from machineos.vm.provider import Provider, StartOptions
from machineos.vm.providers import provider_for
from machineos.vm.qemu.accel import find_accelerator
from machineos.vm.running import RunningMachine
from machineos.vm.store import MachineStore

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from bench.workspace import Bench

T = TypeVar("T")
OURS, THEIRS, SHORT = "bench", "bench-debian", "bench-debian-short"
NAME = "machine/install:1.0.0"
_STAMP = re.compile(r"\[ *(\d+\.\d+)\] machineos: (.*)$", re.MULTILINE)
_HANDED = "handing over to systemd"
_BOOT_SECONDS = 600.0
_PROBE_SECONDS = 0.25
_MEMORY, _CPUS = 2048, 2
_ONCE = StartOptions(no_reboot=True)  # a boot that fails restarts: that is the end here


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot of ours: kernel seconds at the hand-over, seconds from power-on to the answer, and
    what the initrd said when (kernel seconds, words)."""

    handover: float
    service: float
    steps: tuple[tuple[float, str], ...]


def boots(bench: Bench, wanted: Collection[str]) -> list[Row]:
    """Measure what is wanted of ``handover`` and ``service``. Raises: MachineError, ToolError."""
    keyset, _ = bench.keys()
    store = MachineStore(bench.home.config, bench.home.state, bench.home.runtime)
    port = _install(bench, store)
    peer = debian.peer(bench, keyset)
    handovers: list[Pair] = []
    services: list[Pair] = []
    ours: list[Boot] = []
    for name, disk in ((THEIRS, peer.disk), (SHORT, peer.short)):
        _define_peer(store, name, disk, uefi_variables(keyset, _provider(store)))
    try:
        for number in range(bench.pairs + bench.warm):
            boot = _once_more(lambda: _boot_ours(store, port), bench.say)
            bench.say(f"  ours: hand-over {boot.handover:.2f} s, service {boot.service:.2f} s")
            theirs = handed = 0.0
            if "service" in wanted:
                theirs = _once_more(lambda: _boot_theirs(store), bench.say)
            if "handover" in wanted:
                handed = _once_more(lambda: _hand_over_theirs(store), bench.say)
            bench.say(f"  theirs: hand-over {handed:.2f} s, multi-user {theirs:.2f} s")
            if number < bench.warm:
                continue
            ours.append(boot)
            handovers.append(Pair(Sample(boot.handover), Sample(handed)))
            services.append(Pair(Sample(boot.service), Sample(theirs)))
    finally:
        for name in (THEIRS, SHORT):
            _provider(store).delete(name)
    rows = []
    if "handover" in wanted:
        bare = _without_firmware(bench, peer, find_accelerator(store.cache).kind)
        rows.append(_handover_row(handovers, ours, bare))
    if "service" in wanted:
        rows.append(_service_row(services, ours))
    return rows


def _once_more(boot: Callable[[], T], say: Callable[[str], None]) -> T:
    """Boot again, at most twice, where the emulation killed the guest's kernel, ours or theirs:
    with several processors it sometimes runs an int3 that belongs to a jump label."""
    for _ in range(2):
        try:
            return boot()
        except MachineError as error:
            if "Oops: int3" not in error.message:
                raise
            say("  (the emulation killed the guest's kernel: this boot is repeated)")
    return boot()


def _handover_row(pairs: list[Pair], ours: list[Boot], bare: float) -> Row:
    middle = sorted(ours, key=lambda boot: boot.handover)[len(ours) // 2]
    said = "; ".join(f"{when:.2f} {words}" for when, words in middle.steps)
    return Row(
        "handover",
        "kernel start to hand-over to the root's systemd, in the same emulation",
        "the same kernel and root with Debian's own initramfs and no verification at all",
        (ratio_check(pairs, 1.0),),
        tuple(pairs),
        (
            "by the kernel's own clock on both sides: firmware, shim and unpacking the kernel do "
            "not count; both in the same virtual machine, under Secure Boot with TPM (reports "
            "before 2026-11-21 had theirs started by QEMU without any of these: in this run that "
            f"took {bare:.2f} s, once)",
            "theirs: initramfs-tools with all defaults, root=LABEL, ext4 on virtio; a static "
            "busybox in place of systemd reads the clock",
            f"ours, the boot of the median, kernel seconds and words: {said}",
        ),
        {"steps": [boot.steps for boot in ours]},
    )


def _service_row(pairs: list[Pair], ours: list[Boot]) -> Row:
    return Row(
        "service",
        "service answering, from power-on of the installed machine, under emulation",
        "firmware + Debian's own boot to multi-user of the same root",
        (ratio_check(pairs, 1.0),),
        tuple(pairs),
        (
            "the same virtual machine, firmware, variables, Secure Boot and shim on both sides; "
            "theirs: a UKI of the same kernel and Debian's initramfs, root on ext4, without mosd "
            "and services",
            "ours ends when the registry in its container answers HTTP 200 through the forwarded "
            f"port, asked every {_PROBE_SECONDS:g} s",
        ),
        {"service": [boot.service for boot in ours]},
    )


def _boot_ours(store: MachineStore, port: int) -> Boot:
    clock = SystemClock()
    answered = threading.Event()
    start = time.perf_counter()
    with RunningMachine(_provider(store), OURS, clock, options=_ONCE) as machine:
        while not answered.wait(_PROBE_SECONDS):
            # In threads: a question that was asked too early is answered late or never.
            threading.Thread(target=_probe, args=(port, answered), daemon=True).start()
            if machine.state.status != "running":
                raise MachineError(f"it is {machine.state.status}: {machine.console_text[-2000:]}")
            if time.perf_counter() - start > _BOOT_SECONDS:
                raise MachineError(f"no answer; the console ends: {machine.console_text[-2000:]}")
        service = time.perf_counter() - start
        said = tuple(
            (float(match[1]), match[2].strip()) for match in _STAMP.finditer(machine.console_text)
        )
        machine.power_off()
    handed = [when for when, words in said if words == _HANDED]
    if not handed:
        raise MachineError(f"the console does not say {_HANDED!r}")
    return Boot(handed[0], service, said)


def _probe(port: int, answered: threading.Event) -> None:
    with contextlib.suppress(OSError):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=8.0) as answer:
            if answer.status == 200:
                answered.set()


def _provider(store: MachineStore) -> Provider:
    return provider_for("kvm", store, SystemClock())


def _boot_theirs(store: MachineStore) -> float:
    start = time.perf_counter()
    with RunningMachine(_provider(store), THEIRS, SystemClock(), options=_ONCE) as machine:
        machine.wait_console(debian.READY, _BOOT_SECONDS)
        seconds = time.perf_counter() - start
        machine.wait_exit(_BOOT_SECONDS)
    return seconds


def _hand_over_theirs(store: MachineStore) -> float:
    """Boot the peer until its root would start systemd; return the kernel seconds."""
    with RunningMachine(_provider(store), SHORT, SystemClock(), options=_ONCE) as machine:
        found = machine.wait_console(rf"{debian.HANDOVER} (\d+\.\d\d)", _BOOT_SECONDS)
        machine.wait_exit(_BOOT_SECONDS)
    return float(found[1])


def _without_firmware(bench: Bench, peer: debian.Peer, kind: str) -> float:
    """Boot the peer without firmware and TPM; return the kernel seconds at its end."""
    console = bench.fresh("console.txt")
    argv = [
        qemu.PROGRAM, *qemu.SANDBOX,
        "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35",
        "-accel", "kvm" if kind == "kvm" else "tcg,thread=multi", "-cpu", "max",
        "-smp", str(_CPUS), "-m", str(_MEMORY), "-no-reboot",
        "-kernel", peer.kernel, "-initrd", peer.initramfs,
        "-append", f"{debian.COMMAND_LINE} init={debian.STAND_IN}",
        "-drive", f"file={qemu.escape(str(peer.root))},format=raw,if=virtio,snapshot=on",
        "-object", "rng-random,id=rng0,filename=/dev/urandom",
        "-device", "virtio-rng-pci,rng=rng0",
        "-serial", f"file:{console}",
    ]  # fmt: skip
    run(argv, timeout=_BOOT_SECONDS)
    text = console.read_text("utf-8", "replace")
    found = re.search(rf"{debian.HANDOVER} (\d+\.\d+)", text)
    if found is None:
        raise MachineError(f"the peer did not reach its root; its console ends: {text[-2000:]}")
    return float(found[1])


def _define_peer(store: MachineStore, name: str, image: Path, variables: Path) -> None:
    hardware = steps.Hardware(
        serial="bench", uefi_vars=variables, memory=_MEMORY, cpus=_CPUS,
    )  # fmt: skip
    machine = steps.define(name, hardware, medium=None)
    disk = Disk(file=str(image), format="raw", size=Size(image.stat().st_size))
    config = msgspec.structs.replace(machine.config, disks=(disk,))
    if name in store.names():
        _provider(store).delete(name)
    store.create(msgspec.structs.replace(machine, config=config))


def _install(bench: Bench, store: MachineStore) -> int:
    """Bring the machine about with the product's own commands, unless what it was installed from
    has not changed; return the host's port of its service."""
    bench.say("  (bringing the installed machine up to date)")
    for part in ("hostfs", "bootkit"):
        bench.command("mosb", part, "build", "--keyset", KEYSET)
    source = bench.folder / "service"
    source.mkdir(exist_ok=True)
    for path in (TOP / "examples/registry").iterdir():
        if path.is_file():
            shutil.copy(path, source)
    bench.command("mosb", "image", "build", "--layout", "oci:oci", cwd=source)
    repo = f"oci:{bench.folder / 'repo'}"
    printed = bench.command(
        "mosb", "manifest", "publish", "--project", PROJECT, "--repo", repo, "--name", NAME,
        "--json", "manifest.yaml", cwd=source,
    )  # fmt: skip
    wanted = hashlib.sha256(json.loads(printed)["digest"].encode()).hexdigest()
    stamp = bench.folder / "installed"
    if not (OURS in store.names() and stamp.is_file() and stamp.read_text() == wanted):
        stamp.unlink(missing_ok=True)
        if OURS in store.names():
            bench.command("machine", "delete", "--force", OURS)
        bench.say("  (installing the machine)")
        bench.command(
            "trust", "launch", "--project", PROJECT, "--disk", "8GiB", OURS, f"{repo}:{NAME}"
        )
        stamp.write_text(wanted)
    return store.load(OURS).config.nics[0].ports[0].host.port
