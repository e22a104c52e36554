"""The main job, step by step, with the product's own commands. Run by ``make demo``.

Everything it makes is under ``.cache/demo`` of this checkout, so it touches nothing of the user's,
and a second run reuses what has not changed. Each step is one command of the product, printed as it
runs, so that a person can repeat it by hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).resolve().parent.parent
HOME = TOP / ".cache" / "demo"
BIN = TOP / ".venv" / "bin"
KEYSET, PROJECT, MACHINE = "demo", "demo:default", "demo"
NAME = "machine/install:1.0.0"
ANSWER_SECONDS = 600
# Installing what was missing counts too.
START = float(os.environ.get("MACHINEOS_DEMO_START") or time.time())


class StepError(Exception):
    """A step did not succeed; the message is for the person who watches."""


def say(text: str) -> None:
    seconds = int(time.time() - START)
    print(f"[{seconds // 60:2d}:{seconds % 60:02d}] {text}", flush=True)


def environment() -> dict[str, str]:
    names = {"XDG_DATA_HOME": "data", "XDG_CONFIG_HOME": "config", "XDG_STATE_HOME": "state",
             "XDG_CACHE_HOME": "cache", "XDG_RUNTIME_DIR": "run"}  # fmt: skip
    folders = {name: str(HOME / folder) for name, folder in names.items()}
    for folder in folders.values():
        Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    return {**os.environ, **folders, "PATH": f"{BIN}:{os.environ.get('PATH', '')}"}


def command(*argv: str, show: bool = True, cwd: Path = TOP) -> str:
    """Run one of the product's commands and return what it printed; its progress is shown."""
    process = subprocess.Popen(
        argv, env=environment(), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    last = ""
    try:
        assert process.stderr is not None
        for line in process.stderr:
            last = line.strip() or last
            if show and last:
                say(f"    {last}")
        output = process.stdout.read() if process.stdout else ""
        if process.wait() != 0:
            raise StepError(f"{' '.join(argv)}: {last}")
    except BaseException:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
        raise
    return output


def digest_of(*values: str) -> str:
    return hashlib.sha256("\n".join(values).encode()).hexdigest()


def prepare(repo: str) -> str:
    """Make keys, images and manifest; return the digest of the published manifest."""
    say("keys: trust keyset add")
    if not (HOME / "data/machine/trust/keys" / KEYSET).is_dir():
        command("trust", "keyset", "add", KEYSET, "--org", "machineOS demo")
    say("root file system: mosb hostfs build")
    command("mosb", "hostfs", "build", "--keyset", KEYSET)
    say("shim and kernel image: mosb bootkit build")
    command("mosb", "bootkit", "build", "--keyset", KEYSET, "--kernel", "cloud")
    say("the service: mosb image build")
    example = HOME / "registry-example"
    example.mkdir(exist_ok=True)
    for path in (TOP / "examples/registry").iterdir():
        if path.is_file():
            shutil.copy(path, example)
    command("mosb", "image", "build", "--layout", "oci:oci", cwd=example)
    say("manifest: mosb manifest publish")
    published = command(
        "mosb", "manifest", "publish", "--project", PROJECT, "--repo", repo, "--name", NAME,
        "--json", "manifest.yaml", cwd=example,
    )  # fmt: skip
    command("mosb", "manifest", "verify", "--project", PROJECT, "--repo", repo, "--name", NAME)
    return str(json.loads(published)["digest"])


def machine_info() -> dict[str, Any] | None:
    try:
        return dict(json.loads(command("machine", "info", MACHINE, "--json", show=False)))
    except StepError:
        return None


def launch(url: str, published: str) -> None:
    """Install the machine, unless the one that is there was installed from this very manifest."""
    stamp = HOME / "installed"
    wanted = digest_of(published, url)
    if machine_info() is not None and stamp.is_file() and stamp.read_text() == wanted:
        say("machine: installed from this manifest already")
        return
    stamp.unlink(missing_ok=True)
    if machine_info() is not None:
        command("machine", "delete", "--force", MACHINE)
    say("machine: trust launch (firmware, TPM, two boots)")
    extra = ["--plain-http"] if not url.startswith("oci:") else []
    command("trust", "launch", "--project", PROJECT, "--disk", "8GiB", *extra, MACHINE, url)
    stamp.write_text(wanted)


def start() -> str:
    """Start the machine and return the base URL of its service."""
    info = machine_info()
    if info is None:
        raise StepError("the machine is gone")
    if info["status"] != "running":
        say("machine: machine start")
        command("machine", "start", MACHINE)
        info = machine_info() or info
    ports = info["config"]["nics"][0]["ports"]
    return f"http://127.0.0.1:{ports[0]['host']['port']}"


def wait_for_answer(url: str) -> str:
    """Return the status line of the service's answer."""
    say(f"waiting for {url}/v2/")
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"{url}/v2/", timeout=5) as answer:
                return f"HTTP {answer.status} {answer.reason}"
        info = machine_info()
        if info is None or info["status"] != "running":
            raise StepError(f"the machine is not running any more: {info and info['status']}")
        time.sleep(1)
    raise StepError(f"{url}/v2/ gave no answer within {ANSWER_SECONDS} s")


@contextlib.contextmanager
def registry(address: str) -> Iterator[str]:
    """Run a registry at ``address`` for the length of the block: zot if it is installed, else
    Debian's docker-registry."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        if probe.connect_ex((host, int(port))) == 0:
            say(f"registry: one is running at {address} already")
            yield address
            return
    folder = HOME / "registry"
    folder.mkdir(exist_ok=True)
    zot = shutil.which("zot")
    if zot:
        config = folder / "zot.json"
        config.write_text(json.dumps({
            "distSpecVersion": "1.1.0", "log": {"level": "error"},
            "storage": {"rootDirectory": str(folder / "zot"), "gc": False},
            "http": {"address": host, "port": port, "compat": ["docker2s2"]},
        }))  # fmt: skip
        argv = [zot, "serve", str(config)]
    else:
        config = folder / "config.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: "
            f"{{rootdirectory: {folder / 'docker'}}}\nhttp: {{addr: '{address}'}}\n"
        )
        argv = ["docker-registry", "serve", str(config)]
    say(f"registry: {Path(argv[0]).name} at {address}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        while not _listens(host, int(port)):
            if process.poll() is not None:
                raise StepError(f"{argv[0]} ended at once; see {folder / 'log'}")
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(120)


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def finish(url: str, answer: str) -> None:
    folders = " ".join(f"{k}={v}" for k, v in environment().items() if k.startswith("XDG_"))
    say("done")
    print(f"""
  GET {url}/v2/  ->  {answer}

The machine "{MACHINE}" runs. Its commands look for it where the demo keeps its files:

  export {folders}
  .venv/bin/machine console {MACHINE}     its console (Ctrl-] leaves)
  .venv/bin/machine stop {MACHINE}        power it off
  .venv/bin/machine start {MACHINE}       start it again
  .venv/bin/machine info {MACHINE}        what it is made of
  skopeo copy --dest-tls-verify=false oci:{HOME}/registry-example/oci:registry docker://{url[7:]}/demo:1

Everything is in {HOME}; `make clean` removes it.
""")


def main(arguments: list[str]) -> None:
    HOME.mkdir(parents=True, exist_ok=True)
    if not os.access(HOME, os.W_OK):
        raise StepError(f"{HOME} is another user's: make clean, as whoever made it")
    with contextlib.ExitStack() as stack:
        if arguments and arguments[0]:
            address = stack.enter_context(registry(arguments[0]))
            port = address.rpartition(":")[2]
            launch(f"10.0.2.2:{port}/{NAME}", prepare(address))
        else:
            repo = f"oci:{HOME / 'repo'}"
            launch(f"{repo}:{NAME}", prepare(repo))
        url = start()
        finish(url, wait_for_answer(url))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main(sys.argv[1:])
    except StepError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; the next run goes on from here")
