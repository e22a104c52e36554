"""What a machine gets once its services run: its log on the disk, and a disk that is
shared by weights. Neither may cost the start of a service anything. Pure.

The log is a volume like those of services: sealed to this machine, opened by the initrd, made when
it is not there. Until it is mounted, and for as long as it cannot be, the log is kept in memory
alone. Root of an earlier boot may have written to it, so no link in it is followed, and journald
begins a file of its own (``host.unit.journal``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from machineos.document.between.handover import Volume
from machineos.document.model.names import Label
from machineos.host.disk.lvm import LOG
from machineos.host.kernel.flags import Flag
from machineos.service.plan import steps, volumes
from machineos.service.plan.facts import Log, Part, World, known
from machineos.service.plan.machine import Errand

if TYPE_CHECKING:
    from machineos.core.steps import Answers
    from machineos.service.plan.steps import Act

LABEL = Label(LOG)
# Lets journald write there, and take its hands off it before the volume is unmounted.
UNIT = "mosd-log.service"
_MIB = 1 << 20
_FLAGS = Flag.NOSUID | Flag.NODEV | Flag.NOEXEC | Flag.NOSYMFOLLOW


class LogSeen(Part[World]):
    """Whether the log is kept already, and whether there is a volume for it."""

    name = "see the log"
    gives = frozenset({"log"})

    def plan(self, facts: World) -> tuple[Act[object], ...]:
        """Look."""
        folders = facts.policy.folders
        return (
            steps.SeeMount(folders.log), steps.SeeVolume(LABEL), steps.ReadFile(folders.flushed, 0),
        )  # fmt: skip

    def learn(self, facts: World, answers: Answers) -> World:
        """Keep it."""
        folders = facts.policy.folders
        log = Log(
            mounted=answers.to(steps.SeeMount(folders.log)) is not None,
            device=answers.to(steps.SeeVolume(LABEL)),
            flushed=answers.to(steps.ReadFile(folders.flushed, 0)) is not None,
        )
        return replace(facts, log=log)


class LogListed(Part[World]):
    """What LVM has, where the log has no device: its volume is new, or unfinished, or closed."""

    name = "list the volumes for the log"
    needs = frozenset({"log"})
    gives = frozenset({"log volume"})

    def _missing(self, facts: World) -> bool:
        log = known(facts.log)
        return not log.mounted and not log.device

    def plan(self, facts: World) -> tuple[Act[object], ...]:
        """Ask, if it is missing."""
        return (steps.ListVolumes(), steps.LogSize()) if self._missing(facts) else ()

    def learn(self, facts: World, answers: Answers) -> World:
        """Keep the answers."""
        if not self._missing(facts):
            return facts
        kept, size = answers.to(steps.ListVolumes()), answers.to(steps.LogSize())
        return replace(facts, log=replace(known(facts.log), kept=kept, size=size))


class LogKept(Part[World]):
    """journald writes to the volume."""

    name = "keep the log"
    needs = frozenset({"log", "log volume"})
    gives = frozenset({"log kept"})

    def plan(self, facts: World) -> tuple[Act[object], ...]:
        """Make it so, unless it is."""
        log, folders = known(facts.log), facts.policy.folders
        if log.flushed:
            return ()
        found: list[Act[object]] = []
        if not log.mounted and not log.device:
            found += volumes.new(Volume(LOG, True, log.size // _MIB), log.kept)
        if not log.mounted:
            device = str(folders.mapper / LABEL.mapped)
            found.append(steps.MakeFolder(folders.log, 0o755))
            found.append(steps.Mount(device, folders.log, "ext4", _FLAGS, "discard"))
        return (
            *found,
            steps.MakeFolder(folders.journals, 0o755),
            steps.SetJournalsAside(folders.journals),
            steps.RunUnit(UNIT),
        )


class DiskShared(Part[World]):
    """Who waits for the disk gets it by the weight of his unit."""

    name = "share the disk"
    gives = frozenset({"disk shared"})

    def plan(self, facts: World) -> tuple[Act[object], ...]:  # noqa: ARG002
        """Say so."""
        return (steps.ShareDisk(),)


SETTLED = (
    Errand("keeping the log", (LogSeen(), LogListed(), LogKept())),
    Errand("sharing the disk by weights", (DiskShared(),)),
)
