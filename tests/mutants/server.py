"""A worker: imports the libraries once, then forks for each run of tests.

It speaks lines of JSON on its standard input and output. A run names test files, which tests of
them, in which order, and how long it may take; the answer says how it ended and which test failed.
Whatever a run leaves behind (it may hang, a fault may let a program live on) is killed with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_MOST_MEMORY = 8 << 30
# What nearly every test imports, ours and the test modules left out: those must see the change.
_LIBRARIES = (
    "pytest", "hypothesis", "hypothesis.strategies", "click", "click.testing", "msgspec", "yaml",
    "pefile", "urllib3", "cryptography.x509", "cryptography.x509.verification",
    "cryptography.hazmat.primitives.ciphers", "cryptography.hazmat.primitives.serialization.pkcs7",
    "cryptography.hazmat.primitives.asymmetric.rsa", "cryptography.hazmat.primitives.asymmetric.ec",
    "asyncio", "http.server", "ssl", "subprocess", "tarfile", "threading", "uuid", "mutants.run",
)  # fmt: skip


def serve(root: Path, scratch: Path) -> None:
    """Answer runs until the input ends. ``root`` is the tree, ``scratch`` a folder of ours."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    signal.signal(signal.SIGTERM, _stop)
    os.chdir(root)
    # What takes long to make and depends on no change: the RSA keys of the tests.
    (scratch / "keys").mkdir()
    os.environ["MACHINEOS_TEST_KEYS"] = str(scratch / "keys")
    for name in _LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    assert "machineos" not in sys.modules
    for line in sys.stdin:
        print(json.dumps(_fork(json.loads(line), scratch)), flush=True)


def _fork(job: dict[str, Any], scratch: Path) -> dict[str, Any]:
    started = time.monotonic()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(job, scratch, writing)
    os.close(writing)
    text = _read(reading, started + job["seconds"])
    os.close(reading)
    _end_descendants()
    shutil.rmtree(scratch / "t", ignore_errors=True)
    shutil.rmtree(scratch / "tmp", ignore_errors=True)
    if text is None:
        return {"ended": "late"}
    return json.loads(text) if text else {"ended": "died"}


def _stop(_number: int, _frame: object) -> None:
    _end_descendants()
    os._exit(1)


def _child(job: dict[str, Any], scratch: Path, writing: int) -> None:
    """Run the tests and never return."""
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(scratch / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
        (scratch / "tmp").mkdir(exist_ok=True)
        os.environ["TMPDIR"] = str(scratch / "tmp")
        from mutants.run import run

        answer = json.dumps(run(job, scratch)).encode()
        with open(writing, "wb") as pipe:
            pipe.write(answer)
    except BaseException:  # noqa: BLE001 (the log says it, the missing answer tells)
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(0)


def _read(descriptor: int, limit: float) -> bytes | None:
    """Return what comes until the end, None when that takes longer than until ``limit``."""
    data = b""
    while True:
        left = limit - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return None
        piece = os.read(descriptor, 1 << 20)
        if not piece:
            return data
        data += piece


def _end_descendants() -> None:
    """Kill every process below this one. Orphans come to us, so nothing escapes."""
    while True:
        for process in _children(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children(process: int) -> list[int]:
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{process}/task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
    return found


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
