"""Adapter for sbsign and sbverify: Authenticode signatures of EFI binaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a signature is good; ``reason`` says why it is not."""

    good: bool
    reason: str = ""


def argv_sign(source: Path, target: Path, *, key: Path, certificate: Path) -> list[str]:
    """Return the command that signs ``source`` into ``target``."""
    return [
        "sbsign", "--key", str(key), "--cert", str(certificate), "--output", str(target),
        str(source),
    ]  # fmt: skip


def argv_verify(path: Path, *, certificate: Path) -> list[str]:
    """Return the command that checks ``path`` against one certificate."""
    return ["sbverify", "--cert", str(certificate), str(path)]


def parse_verify(status: int, stdout: str, stderr: str) -> Outcome:
    """Read what sbverify said. Good needs both the exit status and the sentence."""
    if status == 0 and "Signature verification OK" in stdout.splitlines():
        return Outcome(good=True)
    lines = [line.strip() for line in (stderr + "\n" + stdout).splitlines() if line.strip()]
    return Outcome(good=False, reason="; ".join(lines[-3:])[:300] or f"exit status {status}")


def sign(
    source: Path, target: Path, *, key: Path, certificate: Path, pass_fds: Sequence[int] = ()
) -> None:
    """Sign ``source`` into ``target``; ``key`` may be ``/proc/self/fd/N`` with N in ``pass_fds``.

    Raises: MissingToolError, ToolError.
    """
    run.run(
        argv_sign(source, target, key=key, certificate=certificate),
        timeout=_TIMEOUT,
        pass_fds=pass_fds,
    )


def verify(path: Path, *, certificate: Path) -> Outcome:
    """Check the signatures of ``path`` against one certificate. Raises: MissingToolError."""
    result = run.run(argv_verify(path, certificate=certificate), timeout=_TIMEOUT, check=False)
    return parse_verify(
        result.status,
        result.stdout.decode("utf-8", "replace"),
        result.stderr.decode("utf-8", "replace"),
    )
