"""Boots side by side: our installed machine, and two others of the same kernel and root.

The plain peer is Debian's own boot, which verifies nothing; the fair one is systemd's initrd with a
root under signed verity and a volume that the TPM opens.
``handover``: from the start of the kernel, by the kernel's own clock, to the moment when the root's
systemd takes over. ``service``: from power-on, by this host's clock, until the machine is of use:
ours when its service answers HTTP, a peer when multi-user.target is reached. One boot of ours gives
both figures, and so does one of the fair peer.
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

from bench import debian, rig, verified
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
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from bench.workspace import Bench
    from machineos.trust.keys.keyset import Keyset

T = TypeVar("T")
OURS, GENERIC = "bench", "bench-generic"
THEIRS, SHORT, VERIFIED = "bench-debian", "bench-debian-short", "bench-verified"
_STAMP = re.compile(r"\[ *(\d+\.\d+)\] machineos: (.*)$", re.MULTILINE)
_HANDED = "handing over to systemd"
_BOOT_SECONDS = 600.0
_PROBE_SECONDS = 0.25
_SETTLED_SECONDS = 120.0  # from the answer until mosd has made the log's volume, with room to spare
_MEMORY, _CPUS = 2048, 2
_ONCE = StartOptions(no_reboot=True)  # a boot that fails restarts: that is the end here


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot of ours: kernel seconds at the hand-over, seconds from power-on to the answer, and
    what the initrd said when (kernel seconds, words)."""

    handover: float
    service: float
    steps: tuple[tuple[float, str], ...]


ROWS = ("handover", "service", "handover-verified", "service-verified", "kernels")


@dataclass(frozen=True, slots=True)
class Round:
    """Ours and the peers in turn; ``plain`` and ``fair`` are pairs of kernel seconds at the
    hand-over and seconds from power-on to multi-user, ``generic`` is the hand-over of ours with the
    generic kernel; 0 where it was not asked for."""

    ours: Boot
    plain: tuple[float, float]
    fair: tuple[float, float]
    generic: float


def boots(bench: Bench, wanted: Collection[str]) -> list[Row]:
    """Measure what is wanted of ``ROWS``. Raises: MachineError, ToolError."""
    keyset, _ = bench.keys()
    store = MachineStore(bench.home.config, bench.home.state, bench.home.runtime)
    other = _install(bench, store, GENERIC, "generic") if "kernels" in wanted else 0
    port = _install(bench, store, OURS, "cloud")
    variables = uefi_variables(keyset, _provider(store))
    plain = debian.peer(bench, keyset)
    try:
        for name, disk in ((THEIRS, plain.disk), (SHORT, plain.short)):
            _define_peer(store, name, disk, variables)
        if any(name.endswith("-verified") for name in wanted):
            _enrol(bench, store, keyset, variables)
        rounds = [
            _round(bench, store, port, other, wanted) for _ in range(bench.pairs + bench.warm)
        ][bench.warm :]
    finally:
        for name in (THEIRS, SHORT, VERIFIED):
            if name in store.names():
                _provider(store).delete(name)
    rows = []
    if "handover" in wanted:
        bare = _without_firmware(bench, plain, find_accelerator(store.cache).kind)
        rows.append(_handover_row(rounds, bare))
    if "service" in wanted:
        rows.append(_service_row(rounds))
    if "handover-verified" in wanted:
        rows.append(_fair_handover_row(rounds))
    if "service-verified" in wanted:
        rows.append(_fair_service_row(rounds))
    if "kernels" in wanted:
        rows.append(_kernels_row(rounds))
    return rows


def _round(
    bench: Bench, store: MachineStore, port: int, other: int, wanted: Collection[str]
) -> Round:
    """``port`` and ``other`` are those of the services of ours, cloud and generic."""
    say = bench.say
    ours = _once_more(lambda: _boot_ours(store, OURS, port), say)
    say(f"  ours: hand-over {ours.handover:.2f} s, service {ours.service:.2f} s")
    handed = ready = 0.0
    fair = (0.0, 0.0)
    if "service" in wanted:
        ready = _once_more(lambda: _boot_theirs(store), say)
    if "handover" in wanted:
        handed = _once_more(lambda: _hand_over_theirs(store), say)
    if handed or ready:
        say(f"  plain: hand-over {handed:.2f} s, multi-user {ready:.2f} s")
    if any(name.endswith("-verified") for name in wanted):
        fair = _once_more(lambda: _boot_verified(store), say)
        say(f"  verified: hand-over {fair[0]:.2f} s, multi-user {fair[1]:.2f} s")
    generic = 0.0
    if "kernels" in wanted:
        generic = _once_more(lambda: _boot_ours(store, GENERIC, other), say).handover
        say(f"  generic kernel: hand-over {generic:.2f} s")
    return Round(ours, (handed, ready), fair, generic)


def _enrol(bench: Bench, store: MachineStore, keyset: Keyset, variables: Path) -> None:
    """Have the fair peer's TPM seal the key of its volume, once per run."""
    peer = verified.peer(bench, keyset)
    live = bench.folder / "verified.img"
    shutil.copyfile(peer.enrol, live)
    _define_peer(store, VERIFIED, live, variables)
    bench.say("  (the fair peer enrols its volume)")
    with RunningMachine(_provider(store), VERIFIED, SystemClock(), options=_ONCE) as machine:
        machine.wait_console(verified.ENROLLED, _BOOT_SECONDS)
        machine.wait_exit(_BOOT_SECONDS)
    verified.take_volume(peer, live)


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


def _pairs(pairs: Iterable[tuple[float, float]]) -> list[Pair]:
    return [Pair(Sample(ours), Sample(theirs)) for ours, theirs in pairs]


def _handover_row(rounds: list[Round], bare: float) -> Row:
    pairs = _pairs((each.ours.handover, each.plain[0]) for each in rounds)
    ours = [each.ours for each in rounds]
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


def _service_row(rounds: list[Round]) -> Row:
    pairs = _pairs((each.ours.service, each.plain[1]) for each in rounds)
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
    )


_FAIR = (
    "theirs: dracut's initrd with Debian's systemd, systemd-cryptsetup and systemd-veritysetup, "
    "without dracut's other modules and with the drivers of this machine only; a squashfs root "
    "under dm-verity whose root hash is signed by the key that shim vouches for; a LUKS2 volume "
    "that the TPM opens (PCR 7); the same kernel, command line, shim and virtual machine under "
    "Secure Boot"
)


def _fair_handover_row(rounds: list[Round]) -> Row:
    pairs = _pairs((each.ours.handover, each.fair[0]) for each in rounds)
    return Row(
        "handover-verified",
        "kernel start to hand-over to the root's systemd, verified on both sides",
        "systemd's initrd (dracut) with signed verity and a volume opened by the TPM",
        (ratio_check(pairs, 0.7),),
        tuple(pairs),
        (
            _FAIR,
            "by the kernel's own clock: ours prints the hand-over, theirs asks systemd afterwards "
            "when it started",
        ),
    )


def _fair_service_row(rounds: list[Round]) -> Row:
    pairs = _pairs((each.ours.service, each.fair[1]) for each in rounds)
    return Row(
        "service-verified",
        "service answering, from power-on, verified on both sides",
        "systemd's initrd (dracut) with signed verity, a volume opened by the TPM, to multi-user",
        (ratio_check(pairs, 0.9),),
        tuple(pairs),
        (_FAIR, "theirs ends at multi-user.target, without mosd and services"),
    )


def _kernels_row(rounds: list[Round]) -> Row:
    pairs = _pairs((each.generic, each.ours.handover) for each in rounds)
    return Row(
        "kernels",
        "kernel start to hand-over, with Debian's generic kernel",
        "the same machine with the cloud kernel",
        (ratio_check(pairs, 1.15),),
        tuple(pairs),
        ("two machines of the same product that differ in `mosb bootkit build --kernel` alone",),
    )


def _boot_ours(store: MachineStore, name: str, port: int, *, stay: float = 0.0) -> Boot:
    """Boot ours until its service answers, and for ``stay`` seconds more."""
    clock = SystemClock()
    answered = threading.Event()
    start = time.perf_counter()
    with RunningMachine(_provider(store), name, clock, options=_ONCE) as machine:
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
        clock.sleep(stay)
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
        machine.wait_console(rig.READY, _BOOT_SECONDS)
        seconds = time.perf_counter() - start
        machine.wait_exit(_BOOT_SECONDS)
    return seconds


def _hand_over_theirs(store: MachineStore) -> float:
    """Boot the peer until its root would start systemd; return the kernel seconds."""
    with RunningMachine(_provider(store), SHORT, SystemClock(), options=_ONCE) as machine:
        found = machine.wait_console(rf"{rig.HANDOVER} (\d+\.\d\d)", _BOOT_SECONDS)
        machine.wait_exit(_BOOT_SECONDS)
    return float(found[1])


def _boot_verified(store: MachineStore) -> tuple[float, float]:
    """Boot the fair peer; return kernel seconds at the hand-over and seconds to multi-user."""
    start = time.perf_counter()
    with RunningMachine(_provider(store), VERIFIED, SystemClock(), options=_ONCE) as machine:
        machine.wait_console(rig.READY, _BOOT_SECONDS)
        seconds = time.perf_counter() - start
        handed = machine.wait_console(rf"{rig.HANDOVER} (\d+) us", _BOOT_SECONDS)
        machine.wait_exit(_BOOT_SECONDS)
    return int(handed[1]) / 1e6, seconds


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
    found = re.search(rf"{rig.HANDOVER} (\d+\.\d+)", text)
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


def _install(bench: Bench, store: MachineStore, machine: str, kernel: str) -> int:
    """Bring a machine about with the product's own commands, unless what it was installed from has
    not changed; return the host's port of its service."""
    bench.say(f"  (bringing the machine with the {kernel} kernel up to date)")
    bench.command("mosb", "hostfs", "build", "--keyset", KEYSET)
    bench.command("mosb", "bootkit", "build", "--keyset", KEYSET, "--kernel", kernel)
    source = bench.folder / "service"
    source.mkdir(exist_ok=True)
    for path in (TOP / "examples/registry").iterdir():
        if path.is_file():
            shutil.copy(path, source)
    bench.command("mosb", "image", "build", "--layout", "oci:oci", cwd=source)
    repo = f"oci:{bench.folder / 'repo'}"
    name = f"machine/{kernel}:1.0.0"
    printed = bench.command(
        "mosb", "manifest", "publish", "--project", PROJECT, "--repo", repo, "--name", name,
        "--json", "manifest.yaml", cwd=source,
    )  # fmt: skip
    wanted = hashlib.sha256(json.loads(printed)["digest"].encode()).hexdigest()
    stamp = bench.folder / f"installed-{machine}"
    if not (machine in store.names() and stamp.is_file() and stamp.read_text() == wanted):
        stamp.unlink(missing_ok=True)
        if machine in store.names():
            bench.command("machine", "delete", "--force", machine)
        bench.say("  (installing it)")
        bench.command(
            "trust", "launch", "--project", PROJECT, "--disk", "8GiB", machine, f"{repo}:{name}"
        )
    port = store.load(machine).config.nics[0].ports[0].host.port
    if not stamp.is_file():
        # So that each boot that is measured opens the log's volume, as all but the first do.
        _boot_ours(store, machine, port, stay=_SETTLED_SECONDS)
        stamp.write_text(wanted)
    return port
