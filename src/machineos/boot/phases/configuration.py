"""Find and open the configuration volume of this machine.

Disks may still be appearing, and a stranger's may appear first: each candidate's header is
authenticated before anything else of it is looked at, and cryptsetup is given the copy that was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.boot.facts import (
    DISK_SECONDS,
    DRIVERS,
    FIRST_DOOR,
    KEY,
    KEYS_USED,
    OPENED,
    PARTITIONS,
    RUN,
    RUNS,
    SCRATCH,
    SETTINGS,
    UNSEALED,
    Facts,
    Phase,
)
from machineos.boot.steps import (
    BeginModules,
    ListPartitions,
    LoadDriver,
    LoadModules,
    OpenLuks,
    ReadHeader,
    ReadTimer,
    Sleep,
    WriteFile,
)
from machineos.boot.waiting import PAUSE
from machineos.core.steps import Talk, ask
from machineos.errors import BootError, VerificationError
from machineos.state.volumes.header import HEADER_SIZE, LABEL, NAME, RECORD_OFFSET, check_header

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.secret import Secret
    from machineos.host.disk.device import Partition

HEADER_COPY = RUN / "luks-header"


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        deadline = (yield from ask(ReadTimer())) + DISK_SECONDS
        ext4 = facts[SETTINGS].filesystems.get("ext4", ())  # not every kernel has it as a module
        yield from ask(BeginModules(ext4))
        tried: tuple[Partition, ...] | None = None
        while True:
            named = [part for part in (yield from ask(ListPartitions())) if part.label == LABEL]
            late = (yield from ask(ReadTimer())) > deadline
            if late or tried != tuple(named):
                tried = tuple(named)
                opened, reasons = yield from _open_first(tried, facts[KEY])
                if opened is not None:
                    yield from ask(LoadModules(ext4))
                    return Facts().plus(PARTITIONS, (yield from _of_disk(opened.disk)))
                if late:
                    raise _refusal(reasons)
            if not (yield from ask(LoadDriver())):
                yield from ask(Sleep(PAUSE))


def _of_disk(disk: str) -> Talk[dict[str, Path]]:
    """Answer the partitions of this disk by label. The kernel shows one after the other: what was
    seen before one of them was opened need not have been all."""
    there = yield from ask(ListPartitions())
    return {part.label: part.device for part in there if part.disk == disk}


def _open_first(
    candidates: tuple[Partition, ...], key: Secret
) -> Talk[tuple[Partition | None, list[str]]]:
    """Open the first candidate that is ours; else say of each why it is not."""
    reasons = []
    for partition in candidates:
        try:
            yield from _open(partition, key)
        except VerificationError as error:
            reasons.append(error.message)
        except OSError as error:  # a disk that cannot be read must not hide the one that can
            reasons.append(f"{partition.device}: {error.strerror}")
        else:
            return partition, reasons
    return None, reasons


def _open(partition: Partition, key: Secret) -> Talk[None]:
    header = yield from ask(ReadHeader(partition.device, HEADER_SIZE))
    area, record = header[:RECORD_OFFSET], header[RECORD_OFFSET:]
    check_header(key, area, record, what=str(partition.device))
    yield from ask(WriteFile(HEADER_COPY, header, mode=0o600))
    yield from ask(OpenLuks(partition.device, NAME, HEADER_COPY, key))


def _refusal(reasons: list[str]) -> BootError:
    if not reasons:
        return BootError(
            f"no disk has a partition {LABEL}: nothing is installed here",
            hint="start the install medium, or attach the disk of this machine",
        )
    return BootError(
        "no configuration volume of this machine: " + "; ".join(reasons),
        hint="attach the disk that was installed here, unchanged, or install again from the medium",
    )


PHASE = _Phase(
    "configuration",
    modes=RUNS,
    needs=frozenset({SETTINGS, SCRATCH, DRIVERS, KEY, UNSEALED, FIRST_DOOR}),
    gives=frozenset({PARTITIONS, OPENED, KEYS_USED}),
)
