"""The appliance that the guest tests take apart: built and installed once, copied per test.

Everything comes from the product's own code, in the debug variant (root shell on the serial port)
and with a keyset that is marked for tests. It is kept in one folder; the next run reuses it while
its inputs are the same. A copy has its own disk, firmware variables and TPM, so nothing that a test
does to one reaches another.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

import machineos
from machineos.build.os import appliance, workshop
from machineos.build.os.bootkit import Anchored
from machineos.core.clock import SystemClock
from machineos.core.command import Result
from machineos.core.files import write_atomic
from machineos.core.run import run
from machineos.launch.machine import launch_machine
from machineos.launch.request import Request
from machineos.oci.model.place import Place
from machineos.oci.registry.access import Access
from machineos.trust.keys.keyset import Keyset, Project, SystemRandomness, create_keyset
from machineos.vm.hostports import is_free
from machineos.vm.model import Disk, Endpoint, Machine, Size
from machineos.vm.provider import Provider
from machineos.vm.providers import provider_for
from machineos.vm.store import MachineStore

TOP = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
CLOCK = SystemClock()
NAME = "machine/install:1.0.0"
TEMPLATE = "template"
KEYSET = "test"
DISK = 8 << 30
_FOREVER = "while :; do sleep 1000; done"
# A second image: says on its standard output what it sees of the machine.
PROBE = """\
probe:
  from: {type: scratch}
  import:
    - {path: busybox, dest: /bin/}
    - {path: passwd, dest: /etc/}
  entrypoint: ["/bin/busybox", "sh", "-c", "busybox id; busybox grep Cap /proc/self/status;\
 busybox touch /new; busybox ls /sys/class/net; echo probe done; busybox sleep 1000000"]
  user: probe
"""
PASSWD = "root:x:0:0:root:/:/nonexistent\nprobe:x:1234:1234:probe:/:/nonexistent\n"


@dataclass(frozen=True, slots=True)
class Bench:
    """Where everything is, and the way to more machines."""

    folder: Path
    runtime: Path

    @property
    def store(self) -> MachineStore:
        return MachineStore(self.folder / "config", self.folder / "state", self.runtime)

    @property
    def provider(self) -> Provider:
        return provider_for("kvm", self.store, CLOCK)

    @property
    def keys(self) -> Path:
        """The folder of keysets."""
        return self.folder / "data/machine/trust/keys"

    @property
    def keyset(self) -> Keyset:
        return Keyset.open(self.keys, KEYSET)

    @property
    def project(self) -> Project:
        return self.keyset.project("default")

    @property
    def repo(self) -> Path:
        """The folder of OCI layouts with the published manifest."""
        return self.folder / "repo"

    @property
    def place(self) -> Place:
        return Place.parse(f"oci:{self.repo}:{NAME}", plain_http=False)

    def shop(self, variant: str = workshop.DEBUG) -> workshop.Workshop:
        return workshop.Workshop(
            self.folder / "cache/machineos", CLOCK, variant=variant, version="1", say=say
        )

    def command(
        self, program: str, *argv: str | Path, cwd: Path | None = None, check: bool = True
    ) -> Result:
        """Run one of the product's commands on this bench."""
        env = {f"XDG_{key}_HOME": str(self.folder / key.lower())
               for key in ("DATA", "CONFIG", "STATE", "CACHE")}  # fmt: skip
        env |= {"XDG_RUNTIME_DIR": str(self.runtime), "HOME": str(self.folder)}
        return run(
            [BIN / program, *argv], timeout=3600, env=env, cwd=cwd or self.folder, check=check
        )

    def clone(self, name: str, source: str = TEMPLATE) -> str:
        """Copy a machine that is off: disk, variables, firmware and TPM."""
        self.discard(name)
        machine = self.store.load(source)
        old, paths = self.store.paths(source), self.store.paths(name)
        paths.state.mkdir(parents=True)
        for path in (old.uefi_code, old.uefi_nvram, old.tpm):
            _copy(path, paths.state / path.name)
        _copy(old.disk(machine.config.disks[0].file), paths.state / f"{name}.qcow2")
        disk = msgspec.structs.replace(machine.config.disks[0], file=f"{name}.qcow2")
        config = msgspec.structs.replace(machine.config, name=name, disks=(disk,))
        self.store.create(
            with_free_ports(msgspec.structs.replace(machine, name=name, config=config))
        )
        return name

    def add_disk(self, name: str, file: str, size: int) -> None:
        """Give a machine one more empty disk."""
        machine = self.store.load(name)
        disks = (*machine.config.disks, Disk(file=f"{file}.qcow2", size=Size(size)))
        config = msgspec.structs.replace(machine.config, disks=disks)
        with self.store.lock(name):
            self.store.replace(msgspec.structs.replace(machine, config=config))

    def discard(self, name: str) -> None:
        """End and remove a machine, if there is one of that name."""
        if name in self.store.names():
            self.provider.stop(name, timeout=0)
            self.provider.delete(name)


def say(text: str) -> None:
    print(f"[{CLOCK.monotonic():8.1f}] {text}", flush=True)


def with_free_ports(machine: Machine) -> Machine:
    """Return the machine with host ports that nobody uses."""
    nics = []
    port = 20000 + os.getpid() * 97 % 40000  # of two processes that do the same, each its own
    for nic in machine.config.nics:
        forwards = []
        for forward in nic.ports:
            port = next(n for n in range(port + 1, 65536) if is_free(forward.protocol, n))
            forwards.append(msgspec.structs.replace(forward, host=Endpoint(port)))
        nics.append(msgspec.structs.replace(nic, ports=tuple(forwards)))
    config = msgspec.structs.replace(machine.config, nics=tuple(nics))
    return msgspec.structs.replace(machine, config=config)


def open_bench(folder: Path, runtime: Path) -> Bench:
    """Build what is missing or out of date in ``folder``: minutes when it is empty."""
    bench = Bench(folder, runtime)
    stamp = folder / "stamp.json"
    key = {"inputs": _inputs()}
    if stamp.is_file():
        built = json.loads(stamp.read_text())
        if built == key or os.environ.get("MACHINEOS_TEST_REUSE"):
            return bench
        stamp.unlink()
    (folder / "live-is-saved").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    start = CLOCK.monotonic()
    for name in bench.store.names():
        bench.discard(name)
    make_keyset(bench)
    build_boot_images(bench)
    publish(bench, manifest_text(bench))
    request = Request(
        TEMPLATE, bench.place, bench.keyset, bench.project, disk=DISK, variant=workshop.DEBUG
    )
    launch_machine(request, bench.provider, CLOCK, SystemRandomness(), access=Access(), say=say)
    say(f"the appliance is installed, after {CLOCK.monotonic() - start:.0f} s")
    write_atomic(stamp, json.dumps(key).encode())
    return bench


def make_keyset(bench: Bench, name: str = KEYSET) -> Keyset:
    """Make a keyset for tests, unless it is there."""
    if not (bench.keys / name).is_dir():
        bench.keys.mkdir(parents=True, exist_ok=True)
        create_keyset(
            bench.keys, name, organization="tests", passphrase=None, clock=CLOCK,
            random=SystemRandomness(),
        )  # fmt: skip
    keyset = Keyset.open(bench.keys, name)
    (keyset.root / workshop.TEST_MARKER).touch()
    return keyset


def build_boot_images(bench: Bench) -> None:
    """Build hostfs and bootkit of the debug variant and the images of two services."""
    shop = bench.shop()
    appliance.build_hostfs(bench.keyset.root, shop)
    appliance.build_bootkit(Anchored(bench.keyset), shop)
    for name, files in (("registry", None), ("probe", _probe_files)):
        folder = bench.folder / "images" / name
        shutil.rmtree(folder, ignore_errors=True)
        if files is None:
            shutil.copytree(TOP / "examples" / name, folder)
        else:
            files(folder)
        say(f"image {name}")
        bench.command("mosb", "image", "build", "--layout", f"oci:{folder}/oci", cwd=folder)


def _probe_files(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "stacker.yaml").write_text(PROBE)
    (folder / "passwd").write_text(PASSWD)
    shutil.copy("/usr/bin/busybox", folder / "busybox")


def manifest_text(bench: Bench) -> str:
    """Return the manifest: the example's service, the probe twice, debug boot files."""
    example = (TOP / "examples/registry/manifest.yaml").read_text()
    example = example.replace(
        "oci:oci:registry", f"oci:{bench.folder}/images/registry/oci:registry"
    )
    root = bench.keyset.root
    kind = workshop.DEBUG
    hostfs, bootkit = workshop.hostfs_layout(root, kind), workshop.bootkit_folder(root, kind)
    probe = f"oci:{bench.folder}/images/probe/oci:probe"
    return (
        example
        + f"""\
  - {{service_name: alone, source: "{probe}", version: "1", service_type: container,
      nsgroup: other, network: {{type: none}}}}
  - {{service_name: direct, source: "{probe}", version: "1", service_type: container,
      nsgroup: other, network: {{type: host}}}}
  - {{service_name: hostfs, source: "oci:{hostfs}:{workshop.HOSTFS_TAG}", version: "1",
      service_type: hostfs, network: {{type: host}}}}
  - {{service_name: bootkit, source: "oci:{bootkit}/oci:{workshop.BOOTKIT_TAG}", version: "1",
      service_type: fs-only, network: {{type: host}}}}
"""
    )


def publish(
    bench: Bench, text: str, *, name: str = NAME, project: str = "", repo: str = ""
) -> None:
    """Publish a manifest with the product's own command."""
    path = bench.folder / "manifest.yaml"
    path.write_text(text)
    bench.command(
        "mosb", "manifest", "publish", "--project", project or f"{KEYSET}:default",
        "--repo", repo or f"oci:{bench.repo}", "--name", name, path,
    )  # fmt: skip


def _inputs() -> str:
    """Return a digest over everything that decides what the bench is."""
    hasher = hashlib.sha256()
    package = Path(machineos.__file__).parent
    folders = (package, TOP / "examples/registry")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    for path in sorted([*files, Path(__file__)]):
        if "__pycache__" not in path.parts:
            hasher.update(f"{path.relative_to(TOP)} ".encode() + path.read_bytes())
    return hasher.hexdigest()


def _copy(source: Path, target: Path) -> None:
    run(["cp", "-a", "--reflink=auto", "--sparse=always", source, target], timeout=900)
