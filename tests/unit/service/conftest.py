"""A small machine in network namespaces: outside -- host -- container, and images for it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from machineos.core import run
from machineos.core.digest import Digest
from machineos.document.between import handover
from machineos.errors import ToolError
from machineos.host.kernel import loopdev
from machineos.host.unit.systemd import UnitState
from machineos.oci.model.atomfs import OLD_ROOT_HASH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from machineos.oci.model.documents import Descriptor

SOURCE = Path(__file__).resolve().parents[3] / "src"


def ip(*words: str) -> None:
    run.run(["ip", *words], timeout=10)


@dataclass
class Machine:
    """``outside`` is a peer on the uplink 192.0.2.0/24, ``host`` has the bridge mos0."""

    outside: str
    host: str
    extra: list[str] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def inside(self, space: str, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", space, *argv]

    def run(self, space: str, *argv: str, check: bool = True) -> run.Result:
        return run.run(self.inside(space, *argv), timeout=20, check=check)

    def python(self, space: str, code: str, *args: str, check: bool = True) -> run.Result:
        return run.run(
            self.inside(space, sys.executable, "-c", code, *args),
            timeout=20,
            env={"PYTHONPATH": str(SOURCE)},
            check=check,
        )

    def spawn(self, space: str, code: str, *args: str) -> None:
        """Start a python program that says ``ready`` when it listens."""
        read, write = os.pipe()
        argv = self.inside(space, sys.executable, "-c", code, *args)
        self.processes.append(run.spawn(argv, log=write))
        os.close(write)
        with os.fdopen(read, "rb") as output:
            line = output.readline()
            assert line == b"ready\n", line + output.read()

    def add_container(self, ipv4: str, ipv6: str) -> str:
        """A namespace on the bridge, as LXC would make it."""
        number = len(self.extra)
        space = f"{self.host}-c{number}"
        ip("netns", "add", space)
        self.extra.append(space)
        pair = f"c{number}"
        ip("-n", self.host, "link", "add", pair, "type", "veth", "peer", "eth0", "netns", space)
        ip("-n", self.host, "link", "set", pair, "master", "mos0", "up")
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", space, "link", "set", "eth0", "up")
        ip("-n", space, "addr", "add", ipv4, "dev", "eth0")
        ip("-n", space, "addr", "add", ipv6, "dev", "eth0", "nodad")
        ip("-n", space, "route", "add", "default", "via", "10.0.3.1")
        ip("-n", space, "-6", "route", "add", "default", "via", "fd6d:6f73:3000:3::1")
        return space

    def wait_for_link_addresses(self) -> None:
        """Neighbour discovery is silent until link-local addresses have passed their own test."""
        for space in (*self.extra, self.host, self.outside):
            with eventually(5.0) as check:
                check(
                    lambda space=space: not self.run(space, "ip", "addr", "show", "tentative").text
                )

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for space in (*self.extra, self.host, self.outside):
            with suppress(ToolError):
                ip("netns", "del", space)


@pytest.fixture
def machine() -> Iterator[Machine]:
    name = f"mt{secrets.token_hex(3)}"
    result = Machine(f"{name}-o", f"{name}-h")
    try:
        ip("netns", "add", result.outside)
        ip("netns", "add", result.host)
        out, host = result.outside, result.host
        ip("-n", host, "link", "add", "up0", "type", "veth", "peer", "eth0", "netns", out)
        ip("-n", host, "link", "add", "mos0", "type", "bridge")
        for space, device, ipv4, ipv6 in (
            (host, "up0", "192.0.2.1/24", "2001:db8::1/64"),
            (host, "mos0", "10.0.3.1/24", "fd6d:6f73:3000:3::1/64"),
            (out, "eth0", "192.0.2.2/24", "2001:db8::2/64"),
        ):
            ip("-n", space, "addr", "add", ipv4, "dev", device)
            ip("-n", space, "addr", "add", ipv6, "dev", device, "nodad")
            ip("-n", space, "link", "set", device, "up")
            ip("-n", space, "link", "set", "lo", "up")
        yield result
    finally:
        result.close()


def decode_command(line: str) -> list[str]:
    """Read a command line as systemd.service(5) and systemd.syntax(7) say, for the form we write:
    a bare program with the prefix ``:``, then words in double quotes with C escapes."""
    simple = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}
    program, _, rest = line.partition(" ")
    assert program.startswith(":/")
    words, i = [program[1:]], 0
    while i < len(rest):
        assert rest[i] == '"'
        i += 1
        word = ""
        while rest[i] != '"':
            if rest[i] == "\\":
                code = rest[i + 1]
                if code == "x":
                    word += chr(int(rest[i + 2 : i + 4], 16))
                    i += 4
                else:
                    word += simple[code]
                    i += 2
            elif rest[i] == "%":
                assert rest[i + 1] == "%"
                word += "%"
                i += 2
            else:
                assert rest[i] != "\n"
                word += rest[i]
                i += 1
        words.append(word)
        i += 1
        assert rest[i : i + 1] in {"", " "}
        i += 1
    return words


class ProcessUnits:
    """Runs the units' commands as child processes: systemd without systemd, for tests."""

    def __init__(self, folder: Path, log: Path, prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self.log = log
        self.prefix = list(prefix)
        self.loaded: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.started: list[str] = []

    def reload(self) -> None:
        self.loaded = {path.name: path.read_text() for path in self.folder.glob("*.service")}

    def _load(self, unit: str) -> str:
        """Return what is known of the unit, as systemd does: read at first use, then kept."""
        path = self.folder / unit
        if unit not in self.loaded and path.exists():
            self.loaded[unit] = path.read_text()
        return self.loaded.get(unit, "")

    def reset_failed(self, units: Sequence[str]) -> None:
        assert all(self._load(unit) for unit in units)

    def start(self, units: Sequence[str]) -> None:
        for unit in units:
            lines = self._load(unit).splitlines()
            assert lines, f"{unit} does not exist"
            line = next(line for line in lines if line.startswith("ExecStart="))
            argv = decode_command(line.removeprefix("ExecStart="))
            self.started.append(unit)
            with (self.log / unit).open("ab") as log:
                # PATH as in the unit.
                path = next(line for line in lines if line.startswith("Environment=PATH="))
                env = {"PATH": path.removeprefix("Environment=PATH=")}
                command = ["/usr/sbin/ip", *self.prefix[1:], *argv] if self.prefix else argv
                self.processes[unit] = run.spawn(command, log=log.fileno(), env=env)

    def stop(self, units: Sequence[str]) -> None:
        for unit in units:
            process = self.processes.pop(unit, None)
            if process is not None and process.poll() is None:
                process.terminate()
                # A shell as process 1 ignores the signal: then, as in the unit, all are killed.
                try:
                    process.wait(timeout=0.3)
                except subprocess.TimeoutExpired:
                    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
                    for child in children.split():
                        os.kill(int(child), signal.SIGKILL)
                    process.wait(timeout=5)

    def show(self, units: Sequence[str]) -> dict[str, UnitState]:
        result = {}
        for unit in units:
            process = self.processes.get(unit)
            status = process.poll() if process is not None else None
            active = "inactive"
            if process is not None:
                active = "active" if status is None else ("failed" if status else "inactive")
            load = "loaded" if self._load(unit) else "not-found"
            path = self.folder / unit
            stale = path.exists() and path.read_text() != self._load(unit)
            result[unit] = UnitState(
                unit,
                load,
                active,
                "running" if active == "active" else "dead",
                "exit-code" if status else "success",
                0,
                process.pid if process is not None and status is None else 0,
                "exited",
                status or 0,
                stale,
            )
        return result


class PlainVolumes:
    """Loop devices without verity, which this kernel may lack; guest tests have the real one."""

    def __init__(self) -> None:
        self.devices: dict[str, loopdev.LoopDevice] = {}

    def open(self, layer: Descriptor, *, blob: Path, signature: Path) -> Path:
        assert signature.is_file()
        if layer.digest.hex not in self.devices:
            with blob.open("rb") as file:
                self.devices[layer.digest.hex] = loopdev.attach(file.fileno(), label=blob.name[:20])
        return self.devices[layer.digest.hex].path

    def close(self, digest: str) -> None:
        device = self.devices.pop(digest, None)
        if device is not None:
            device.close()


class Store:
    """An OCI layout with squashfs images, made from folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder / "blobs/sha256"
        self.blobs.mkdir(parents=True)

    def put(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        (self.blobs / digest.hex).write_bytes(data)
        return digest

    def add(self, tree: Path, config: dict[str, object]) -> tuple[str, str, handover.Layer]:
        """Return image digest, configuration digest, and layer."""
        image = self.folder / "new.squashfs"
        run.run(
            [
                "mksquashfs",
                tree,
                image,
                "-noappend",
                "-quiet",
                "-no-progress",
                "-all-root",
                "-noD",
                "-noF",
            ],
            timeout=60,
        )
        data = image.read_bytes()
        layer = self.put(data)
        image.unlink()
        return self.describe(layer, len(data), config)

    def describe(
        self, layer: Digest, size: int, config: dict[str, object]
    ) -> tuple[str, str, handover.Layer]:
        body = json.dumps({"architecture": "amd64", "os": "linux", "config": config}).encode()
        described = self.put(body)
        root_hash = layer.hex  # any 64 digits: nothing here checks blocks against it
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": str(described),
                "size": len(body),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.stacker.image.layer.squashfs+zstd+verity",
                    "digest": str(layer),
                    "size": size,
                    "annotations": {OLD_ROOT_HASH: root_hash},
                }
            ],
        }
        signature = self.folder / "signature.p7s"
        signature.write_bytes(b"not looked at without dm-verity")
        image = self.put(json.dumps(manifest).encode())
        blob = f"blobs/sha256/{layer.hex}"
        return (
            str(image),
            str(described),
            handover.Layer(
                digest=str(layer), root_hash=root_hash, blob=blob, signature="signature.p7s"
            ),
        )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def busybox_tree(tmp_path: Path) -> Path:
    """A root with one program and the folders that every image needs."""
    tree = tmp_path / "tree"
    for name in ("proc", "sys", "dev", "tmp", "run", "var/tmp", "bin", "etc", "data"):
        (tree / name).mkdir(parents=True)
    source = run.find("busybox")
    assert source is not None
    shutil.copy(source, tree / "bin/busybox")
    for name in (
        "sh",
        "id",
        "cat",
        "mount",
        "sleep",
        "unshare",
        "httpd",
        "nc",
        "ip",
        "touch",
        "ls",
        "readlink",
    ):
        (tree / "bin" / name).symlink_to("busybox")
    (tree / "etc/passwd").write_text(
        "root:x:0:0:r:/root:/bin/sh\napp:x:1000:1001:a:/data:/bin/sh\n"
    )
    (tree / "etc/group").write_text("root:x:0:\napp:x:1001:\nweb:x:33:\n")
    return tree


@contextmanager
def eventually(seconds: float = 10.0) -> Iterator[object]:
    """Yield a function that retries a check until it holds."""

    def check(condition: object) -> None:
        deadline = time.monotonic() + seconds
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline, "did not come true in time"
            time.sleep(0.02)

    yield check
