"""dm-verity volumes: files that the kernel mounts and checks block by block.

Shared with the initrd: standard library and core only. A volume is opened with a signature of its
root hash, so the kernel itself decides whether a key that it trusts vouches for it; there is no
way here to open one without. Kernel documentation: admin-guide/device-mapper/verity.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from machineos.core.run import Result, run
from machineos.errors import ConflictError, SignatureError, VerificationError

MAPPER = Path("/dev/mapper")
_TIMEOUT = 120.0
_FIELD = re.compile(r"^\s*(type|status|root hash|hash offset|flags):\s*(.*)$", re.MULTILINE)
_GOOD = "verified (with signature)"
_NO_KEY = ("required key not available", "key was rejected", "bad message")


@dataclass(frozen=True, slots=True)
class Volume:
    """A file with appended verity data. ``hash_offset`` in bytes, ``root_hash`` in hex."""

    image: Path
    name: str
    root_hash: str
    hash_offset: int
    signature: Path

    @property
    def device(self) -> Path:
        """The device node once it is open."""
        return MAPPER / self.name


def argv_open(volume: Volume) -> list[str]:
    """Return the command that opens ``volume``."""
    return [
        "veritysetup",
        "open",
        f"--hash-offset={volume.hash_offset}",
        f"--root-hash-signature={volume.signature}",
        str(volume.image),
        volume.name,
        str(volume.image),
        volume.root_hash,
    ]


def open_volume(volume: Volume) -> Path:
    """Open ``volume`` and return its device node; one that is open already is checked and reused.

    Raises: SignatureError when no trusted key signed the root hash, VerificationError when the
    data does not match it, ConflictError when the name is taken by another volume.
    """
    if volume.device.exists():
        _check_same(volume)
        return volume.device
    result = run(argv_open(volume), timeout=_TIMEOUT, check=False)
    if result.status != 0:
        raise _refusal(volume, result)
    return volume.device


def close_volume(name: str) -> None:
    """Close a volume; one that is not open is no error. Raises: ToolError when it is in use."""
    if (MAPPER / name).exists():
        run(["veritysetup", "close", name], timeout=_TIMEOUT)


def parse_status(text: str) -> dict[str, str]:
    """Return the fields of ``veritysetup status`` that we look at."""
    return {key: value.strip() for key, value in _FIELD.findall(text)}


def _check_same(volume: Volume) -> None:
    status = parse_status(run(["veritysetup", "status", volume.name], timeout=_TIMEOUT).text)
    if status.get("root hash") != volume.root_hash or status.get("type") != "VERITY":
        raise ConflictError(f"{volume.device} is open with another root hash")
    if status.get("status") != _GOOD:
        raise VerificationError(
            f"{volume.device}: the kernel calls it {status.get('status')!r}, not {_GOOD!r}"
        )


def _refusal(volume: Volume, result: Result) -> VerificationError:
    reason = result.stderr.decode("utf-8", "replace").strip()[-300:]
    if any(phrase in reason.lower() for phrase in _NO_KEY):
        return SignatureError(
            f"{volume.image}: the kernel refuses the signature of root hash {volume.root_hash}: "
            "no key that it trusts made it"
        )
    return VerificationError(f"{volume.image}: cannot be opened under {volume.root_hash}: {reason}")
