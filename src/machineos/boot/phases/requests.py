"""Carry out what the running system asked for before this boot, as far as it is good.

Its requests are in ``/config``, which root may have written to: they are read behind the first
door, and what has to be known is taken from what this boot has verified. What is refused is told,
and the boot goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.boot.facts import (
    CONFIG_FOLDER,
    DRIVERS,
    ENFORCING,
    FIRST_DOOR,
    GENERATION,
    IMAGES,
    OPENED,
    REQUESTS,
    ROOT,
    RUN,
    RUNS,
    SCRATCH,
    SEALED,
    SETTINGS,
    STORE,
    TRUSTED,
    Facts,
    Phase,
)
from machineos.boot.phases.root import blob_path
from machineos.boot.steps import (
    ListFolder,
    MakeFolder,
    MountImage,
    RaiseFloor,
    ReadFile,
    ReadFloor,
    ReadPart,
    Say,
)
from machineos.core.steps import Talk, ask
from machineos.document.state import requests
from machineos.errors import BootError, MachineOSError
from machineos.trust.measure import uki

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.boot.facts import Image
    from machineos.document.state.requests import Request

FOLDER = CONFIG_FOLDER / requests.FOLDER
BOOTKIT = RUN / "bootkit"
IMAGE = BOOTKIT / "bootkit/kernel.efi"


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        asked = yield from _read()
        if asked:
            try:
                yield from _carry_out(asked, facts)
            except (MachineOSError, OSError) as error:
                why = requests.shown(str(error))
                yield from ask(Say(f"no request is carried out: {why}"))
        return Facts()


def _read() -> Talk[tuple[Request, ...]]:
    """Return the requests that are well formed; of the others say why not."""
    try:
        listed = yield from ask(ListFolder(FOLDER, requests.MAX_REQUESTS + 1))
    except OSError as error:
        yield from ask(Say(f"no request is carried out: {requests.shown(str(error))}"))
        return ()
    names, lines = requests.chosen(listed)
    for line in lines:
        yield from ask(Say(line))
    good = []
    for name in names:
        try:
            data = yield from ask(ReadFile(FOLDER / name, requests.MAX_REQUEST))
            good.append(requests.parse_request(name, data))
        except (MachineOSError, OSError) as error:
            why = str(error).removeprefix(f"{FOLDER}/").removeprefix(f"{name}: ")
            yield from ask(Say(requests.refusal(name, why)))
    return tuple(good)


def _carry_out(asked: tuple[Request, ...], facts: Facts) -> Talk[None]:
    """One generation is named so far: the one that is booted."""
    (bootkit,) = (one for one in facts[IMAGES] if one.target.service_name == "bootkit")
    named = requests.Named({bootkit.target.image: (yield from _version(bootkit, facts[STORE]))})
    running = facts[SETTINGS].policy_version
    floor = yield from ask(ReadFloor())
    decided = requests.plan(asked, named, running=running, floor=floor)
    for line in decided.refused:
        yield from ask(Say(line))
    if decided.floor:
        yield from ask(RaiseFloor(decided.floor))
        yield from ask(Say(f"images older than policy version {decided.floor} do not boot again"))
    elif len(decided.refused) < len(asked):
        yield from ask(Say(f"images from policy version {floor} on boot, as before"))


def _version(bootkit: Image, store: Path) -> Talk[str]:
    """Return the policy version of the bootkit: of its kernel image, which need not be the one that
    runs. It is mounted for that, under dm-verity by its signed root hash."""
    if bootkit.boot_files is None:
        raise BootError("the bootkit has no boot files")
    layer, signature = bootkit.boot_files
    yield from ask(MakeFolder(BOOTKIT))
    yield from ask(MountImage(blob_path(store, layer), layer, signature, BOOTKIT))
    head = yield from ask(ReadPart(IMAGE, 0, uki.HEAD_SIZE))
    offset, size = uki.find_section(head, ".osrel")
    release = yield from ask(ReadPart(IMAGE, offset, min(size, uki.MAX_RELEASE)))
    return uki.policy_version(release)


PHASE = _Phase(
    "requests",
    modes=RUNS,
    needs=frozenset(
        {
            SETTINGS,
            SCRATCH,
            DRIVERS,
            SEALED,
            FIRST_DOOR,
            OPENED,
            GENERATION,
            STORE,
            IMAGES,
            ENFORCING,
            TRUSTED,
            ROOT,
        }
    ),
    gives=frozenset({REQUESTS}),
)
