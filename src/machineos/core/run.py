"""The only door to other programs.

Argument lists only, a fixed environment, standard input closed unless bytes are given, always a
timeout, and the end of standard error in the error. Secrets go through ``input`` or ``pass_fds``,
never through ``argv`` or the environment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from typing import IO, TYPE_CHECKING, cast

from machineos.core.command import Result
from machineos.errors import MissingToolError, ToolError, ToolTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from machineos.core.command import Command

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STDERR_TAIL = 2048


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the whole environment that programs get: nothing of the caller's own leaks in."""
    return {"PATH": PATH, "LANG": "C.UTF-8", "TZ": "UTC", "HOME": "/nonexistent", **(extra or {})}


def find(program: str) -> str | None:
    """Return the path of ``program`` on the fixed PATH, None if it is not installed."""
    import shutil  # not at module level: it pulls in every compressor, and the initrd runs this

    return shutil.which(program, path=PATH)


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout: float,
    input: bytes | memoryview | None = None,  # noqa: A002 (the standard library's name for it)
    stdin: int | IO[bytes] | None = None,
    feed: Callable[[int], None] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    success: Sequence[int] = (0,),
    check: bool = True,
) -> Result:
    """Run a program to its end and return what it wrote.

    ``timeout`` is in seconds; the whole process group is killed when it is over, and also when we
    are interrupted. ``env`` is added to ``environment()``; ``success`` lists the good exit codes.
    ``feed`` is called in a thread of its own with the descriptor of a pipe to standard input, for
    what is too large to be ``input``; a program that stops reading ends it without an error.

    Raises: MissingToolError, ToolTimeoutError, ToolError (exit status not in ``success``), and what
    ``feed`` raises, whatever the program made of it.
    """
    args = tuple(os.fspath(arg) for arg in argv)
    unread = subprocess.DEVNULL if stdin is None else stdin
    source = unread if input is None and feed is None else subprocess.PIPE
    process = _start(args, source, stdout, stderr, cwd, env, pass_fds)
    feeder = None if feed is None else _Feeder(process, feed)
    out, err = _communicate(process, args[0], input, timeout)
    if feeder is not None:
        feeder.finish()
    result = Result(args, process.returncode, out, err)
    if check and result.status not in success:
        raise ToolError(describe(result))
    return result


def perform(
    command: Command,
    *,
    feed: Callable[[int], None] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    more: Mapping[str, str] | None = None,
) -> Result:
    """Run a program as ``command`` says; ``feed``, ``stdout``, ``stderr`` and errors as ``run``.

    ``more`` are variables of the user's own that no value and no message may show: his proxies.
    """
    return run(
        command.argv,
        timeout=command.timeout,
        input=command.input,
        feed=feed,
        stdout=stdout,
        stderr=stderr,
        cwd=command.cwd,
        env={**(more or {}), **dict(command.env)},
        pass_fds=command.pass_fds,
        success=command.success or (),
        check=command.success is not None,
    )


def spawn(
    argv: Sequence[str | os.PathLike[str]],
    *,
    log: IO[bytes] | int,
    stdin: int = subprocess.DEVNULL,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    detach: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program that goes on running; all it writes goes to ``log``.

    With ``detach`` it gets a session of its own and outlives us, without it only a process group.
    Raises: MissingToolError.
    """
    args = tuple(os.fspath(arg) for arg in argv)
    try:
        return subprocess.Popen(
            args,
            stdin=stdin,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environment(env),
            pass_fds=tuple(pass_fds),
            start_new_session=detach,
            process_group=None if detach else 0,
        )
    except FileNotFoundError as error:
        raise _missing(args[0], cwd) from error
    except OSError as error:
        raise ToolError(f"{args[0]}: cannot be started: {error.strerror}") from error


class Running:
    """A program on its way while there are other things to do; what it writes is kept.

    Its end is waited for by ``wait``, or by a selector (it has a ``fileno``) and then ``finish``.
    Raises: MissingToolError, ToolError.
    """

    def __init__(self, argv: Sequence[str | os.PathLike[str]]) -> None:
        self._argv = tuple(os.fspath(arg) for arg in argv)
        # Files, not pipes: nobody has to read while it runs.
        self._out = os.memfd_create("stdout", os.MFD_CLOEXEC)
        self._err = os.memfd_create("stderr", os.MFD_CLOEXEC)
        self._end = -1
        try:
            self._process = _start(
                self._argv, subprocess.DEVNULL, self._out, self._err, None, None, ()
            )
        except BaseException:
            self._close()
            raise

    def fileno(self) -> int:
        """Return a descriptor that can be read from when the program has ended (pidfd)."""
        if self._end < 0:
            self._end = os.pidfd_open(self._process.pid)
        return self._end

    def wait(self, timeout: float) -> Result:
        """Return what it left when it has ended well, within ``timeout`` seconds from now.

        Raises: ToolTimeoutError (it was killed), ToolError (exit status not 0).
        """
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise ToolTimeoutError(f"{self._argv[0]}: no end after {timeout:g} s") from error
        return self.finish()

    def finish(self) -> Result:
        """Return what it left, now that it has ended. Raises: ToolError (exit status not 0)."""
        status = self._process.wait()
        said = [os.pread(file, os.fstat(file).st_size, 0) for file in (self._out, self._err)]
        self._close()
        result = Result(self._argv, status, *said)
        if status != 0:
            raise ToolError(describe(result))
        return result

    def kill(self) -> None:
        """End it now, with all that it started; nobody waits for it any more."""
        _kill_group(self._process)
        self._close()

    def _close(self) -> None:
        for file in (self._out, self._err, self._end):
            if file >= 0:
                os.close(file)
        self._out = self._err = self._end = -1


def describe(result: Result) -> str:
    """Return one message for a failed run: program, status, the end of standard error."""
    status = result.status
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    tail = result.stderr[-_STDERR_TAIL:].decode("utf-8", "replace").strip()
    words = " ".join(result.argv[:3])
    return f"{words}: {how}" + (f": {tail}" if tail else "")


class _Feeder:
    """Writes to a program while somebody else waits for its end. Takes its pipe over."""

    def __init__(self, process: subprocess.Popen[bytes], feed: Callable[[int], None]) -> None:
        assert process.stdin is not None  # noqa: S101 (for the type checker)
        self._pipe = process.stdin
        process.stdin = None
        self._feed = feed
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="feed", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait for the last byte; the program has ended, so nothing blocks. Raises its error."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            with self._pipe, contextlib.suppress(BrokenPipeError):
                self._feed(self._pipe.fileno())
        except BaseException as error:  # noqa: BLE001 (raised again where the result is awaited)
            self._error = error


def _start(
    args: tuple[str, ...],
    source: int | IO[bytes],
    stdout: int | IO[bytes] | None,
    stderr: int | IO[bytes] | None,
    cwd: Path | None,
    env: Mapping[str, str] | None,
    pass_fds: Sequence[int],
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            args,
            stdin=source,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE if stderr is None else stderr,
            cwd=cwd,
            env=environment(env),
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise _missing(args[0], cwd) from error
    except OSError as error:
        raise ToolError(f"{args[0]}: cannot be started: {error.strerror}") from error


def _communicate(
    process: subprocess.Popen[bytes], program: str, data: bytes | memoryview | None, timeout: float
) -> tuple[bytes, bytes]:
    """Return what was captured when the program has ended; whatever ends us earlier ends it."""
    try:
        # Any buffer will do, whatever its annotation says: it is written piece by piece.
        out, err = process.communicate(cast("bytes | None", data), timeout=timeout)
    except subprocess.TimeoutExpired as error:
        _kill_group(process)
        raise ToolTimeoutError(f"{program}: no end after {timeout:.0f} s") from error
    except BaseException:
        _kill_group(process)
        raise
    return out or b"", err or b""


def _missing(program: str, cwd: Path | None) -> MissingToolError:
    if cwd is not None and not cwd.is_dir():
        return MissingToolError(f"{program}: working directory {cwd} does not exist")
    return MissingToolError(
        f"{program} is not installed", hint="scripts/setup installs every tool that is used"
    )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
