"""Adapter for sbsign and sbverify: Authenticode signatures of EFI binaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.command import Command

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from machineos.core.command import Result

_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a signature is good; ``reason`` says why it is not."""

    good: bool
    reason: str = ""


def sign_command(
    source: Path, target: Path, *, key: Path, certificate: Path, pass_fds: Sequence[int] = ()
) -> Command:
    """Return the command that signs ``source`` into ``target``.

    ``key`` may be ``/proc/self/fd/N`` with N in ``pass_fds``.
    """
    argv = (
        "sbsign", "--key", str(key), "--cert", str(certificate), "--output", str(target),
        str(source),
    )  # fmt: skip
    return Command(argv, _TIMEOUT, pass_fds=tuple(pass_fds))


def verify_command(path: Path, *, certificate: Path) -> Command:
    """Return the command that checks ``path`` against one certificate."""
    argv = ("sbverify", "--cert", str(certificate), str(path))
    return Command(argv, _TIMEOUT, success=None)


def parse_verify(result: Result) -> Outcome:
    """Read what sbverify said. Good needs both the exit status and the sentence."""
    stdout = result.stdout.decode("utf-8", "replace")
    stderr = result.stderr.decode("utf-8", "replace")
    if result.status == 0 and "Signature verification OK" in stdout.splitlines():
        return Outcome(good=True)
    lines = [line.strip() for line in (stderr + "\n" + stdout).splitlines() if line.strip()]
    return Outcome(good=False, reason="; ".join(lines[-3:])[:300] or f"exit status {result.status}")
