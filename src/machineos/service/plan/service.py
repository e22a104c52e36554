"""The phases of one service, from its documents to files that its unit can start with. Pure.

Nothing of an image is opened before its documents are checked, and nothing is mounted but what the
kernel checks block by block. What is there already and is the same is left alone; what is there and
differs makes way. Any error ends the phases: the service is refused alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from machineos.document.model.limits import MAX_CONFIG
from machineos.document.product.image import parse_image_config
from machineos.host.kernel.flags import Flag
from machineos.oci.model.documents import MAX_MANIFEST
from machineos.service.plan import inside, lxc, removal, steps, unit, volumes
from machineos.service.plan.facts import Part, Progress, TextFile, known
from machineos.service.plan.host import Mounted
from machineos.service.plan.image import check_blob, check_manifest, image_name
from machineos.service.plan.model import MAX_TEXT, ServiceSpec, Volume

if TYPE_CHECKING:
    from machineos.core.steps import Answers, Phase
    from machineos.document.model.names import Label
    from machineos.service.plan.steps import Act

HOST_IDS = "runs with the host's user ids: give it an nsgroup"
NO_PROFILE = "no AppArmor profile for containers is loaded"


class Manifest(Part[Progress]):
    """The image manifest says what the hand-over says of it."""

    name = "check the image manifest"
    gives = frozenset({"manifest"})

    def _blob(self, facts: Progress) -> steps.ReadBlob:
        return steps.ReadBlob(facts.service.image_digest, MAX_MANIFEST)

    def plan(self, facts: Progress) -> tuple[Act[object], ...]:
        """Read it."""
        return (self._blob(facts),)

    def learn(self, facts: Progress, answers: Answers) -> Progress:
        """Check it."""
        step = self._blob(facts)
        data = check_blob(answers.to(step), step.digest, what=image_name(facts.service))
        return replace(facts, image=check_manifest(facts.service, data))


class Configuration(Part[Progress]):
    """The image configuration is that of the manifest, and can be run."""

    name = "check the image configuration"
    needs = frozenset({"manifest"})
    gives = frozenset({"documents"})

    def _blob(self, facts: Progress) -> steps.ReadBlob:
        return steps.ReadBlob(known(facts.image).config, MAX_CONFIG)

    def plan(self, facts: Progress) -> tuple[Act[object], ...]:
        """Read it, also for what is only mounted: a store that is damaged is said at once."""
        return (self._blob(facts),)

    def learn(self, facts: Progress, answers: Answers) -> Progress:
        """Check it."""
        step = self._blob(facts)
        what = f"configuration of the {image_name(facts.service)}"
        data = check_blob(answers.to(step), step.digest, what=what)
        if not facts.is_container:
            return facts
        return replace(facts, config=parse_image_config(data, name=what))


class ImageSeen(Part[Progress]):
    """Whether the image is mounted already."""

    name = "see the image"
    needs = frozenset({"documents"})
    gives = frozenset({"image seen"})

    def plan(self, facts: Progress) -> tuple[Act[object], ...]:
        """Look."""
        return (steps.SeeMount(facts.image_folder),)

    def learn(self, facts: Progress, answers: Answers) -> Progress:
        """Keep what is mounted."""
        return replace(facts, image_mount=answers.to(steps.SeeMount(facts.image_folder)))


class LayerOpened(Part[Progress]):
    """The layer has a device whose every block the kernel checks."""

    name = "open the layer"
    needs = frozenset({"documents", "image seen"})
    gives = frozenset({"device"})

    def _open(self, facts: Progress) -> steps.OpenLayer:
        layer = facts.service.layer
        image = known(facts.image)
        return steps.OpenLayer(image.layer, Path(layer.blob), Path(layer.signature))

    def plan(self, facts: Progress) -> tuple[Act[object], ...]:
        """Open it, unless it is mounted."""
        return () if facts.image_mount is not None else (self._open(facts),)

    def learn(self, facts: Progress, answers: Answers) -> Progress:
        """Keep the device."""
        if facts.image_mount is not None:
            return facts
        return replace(facts, device=answers.to(self._open(facts)))


class ImageMounted(Part[Progress]):
    """The image is mounted, read-only, for root alone to see."""

    name = "mount the image"
    needs = frozenset({"device"})
    gives = frozenset({"image"})

    def plan(self, facts: Progress) -> tuple[Act[object], ...]:
        """Mount it, unless it is."""
        folder = facts.image_folder
        if facts.image_mount is not None:
            return (steps.SeeMount(folder),)
        image = known(facts.image)
        flags = Flag.RDONLY | Flag.NOSUID | Flag.NODEV
        return (
            steps.MakeFolder(folder, 0o755),
            steps.Mount(str(known(facts.device)), folder, image.filesystem, flags),
            steps.Say(f"{facts.service.name}: mounted {image.layer.digest}"),
            steps.SeeMount(folder),
        )

    def learn(self, facts: Progress, answers: Answers) -> Progress:
        """Keep what is mounted now."""
        return replace(facts, image_mount=answers.to(steps.SeeMount(facts.image_folder)))


class RootSeen(Part[Progress]):
    """What is shown as the root of the service, and whether it has a unit."""

    name = "see the root"
    needs = frozenset({"image"})
    gives = frozenset({"root seen"})

    def plan(self, facts: Progress) -> tuple[Act[object], ...]:
        """Look."""
        return (steps.SeeMount(facts.root), steps.ReadFile(facts.unit_file, MAX_TEXT))

    def learn(self, facts: Progress, answers: Answers) -> Progress:
        """Keep both."""
        data = answers.to(steps.ReadFile(facts.unit_file, MAX_TEXT))
        mounted = answers.to(steps.SeeMount(facts.root))
        return replace(facts, root_mount=mounted, unit_is_there=data is not None)


class RootShown(Part[Progress]):
    """The root is the image, with owners shifted into the ids of the service."""

    name = "show the root"
    needs = frozenset({"image", "root seen"})
    gives = frozenset({"root"})

    def plan(self, facts: Progress) -> tuple[Act[object], ...]:
        """Show it, unless it is the same; another one makes way, with the service in it."""
        image = known(facts.image_mount)
        ids = facts.service.ids
        owner = image.uid if ids is None else ids.host(image.uid)
        if facts.root_mount == Mounted(image.device, owner):
            return ()
        away: tuple[Act[object], ...] = ()
        if facts.root_mount is not None:
            away = removal.of_service(
                facts.policy.folders, facts.service.id, unit=facts.unit_is_there
            )
        return (
            *away,
            steps.MakeFolder(facts.root, 0o755),
            steps.Clone(facts.image_folder, facts.root, ids),
        )


class ImageLooked(Part[Progress]):
    """What the image has inside: its users, and the folders that something is mounted over."""

    name = "look inside the image"
    needs = frozenset({"image"})
    gives = frozenset({"inside"})

    def _look(self, facts: Progress) -> steps.LookInside:
        folders = inside.folders_to_see(facts.service.storage)
        return steps.LookInside(facts.image_folder, folders, inside.FILES)

    def plan(self, facts: Progress) -> tuple[Act[object], ...]:
        """Look, if it is to be run."""
        return (self._look(facts),) if facts.is_container else ()

    def learn(self, facts: Progress, answers: Answers) -> Progress:
        """Decide whether it can be run."""
        if not facts.is_container:
            return facts
        found = inside.judge(
            answers.to(self._look(facts)),
            mounts=facts.service.storage,
            user=known(facts.config).user,
            image=facts.image_name,
        )
        return replace(facts, findings=found)


class VolumesSeen(Part[Progress]):
    """Which of its volumes are mounted."""

    name = "see the volumes"
    needs = frozenset({"inside"})
    gives = frozenset({"volumes seen"})

    def _see(self, facts: Progress, label: Label) -> steps.SeeMount:
        return steps.SeeMount(facts.policy.folders.data / label)

    def plan(self, facts: Progress) -> tuple[Act[object], ...]:
        """Look."""
        wanted = volumes.wanted(facts.service.storage, facts.handover.volumes)
        return tuple(self._see(facts, volume.name) for volume in wanted)

    def learn(self, facts: Progress, answers: Answers) -> Progress:
        """Keep them."""
        wanted = volumes.wanted(facts.service.storage, facts.handover.volumes)
        seen = tuple(
            volumes.Seen(each, answers.to(self._see(facts, each.name)) is not None)
            for each in wanted
        )
        return replace(facts, volumes=seen)


class DevicesSeen(Part[Progress]):
    """Which of its persistent volumes have a device; this waits for LVM."""

    name = "see the devices of volumes"
    needs = frozenset({"volumes seen"})
    gives = frozenset({"volume devices"})

    def plan(self, facts: Progress) -> tuple[Act[object], ...]:
        """Look for those that are not mounted."""
        return tuple(steps.SeeVolume(seen.volume.name) for seen in facts.volumes if seen.missing)

    def learn(self, facts: Progress, answers: Answers) -> Progress:
        """Keep them."""
        seen = tuple(
            replace(each, device=answers.to(steps.SeeVolume(each.volume.name)))
            if each.missing
            else each
            for each in facts.volumes
        )
        return replace(facts, volumes=seen)


class VolumesListed(Part[Progress]):
    """What LVM has, where a volume has no device: it is new, or unfinished."""

    name = "list the volumes"
    needs = frozenset({"volume devices"})
    gives = frozenset({"volume names"})

    def plan(self, facts: Progress) -> tuple[Act[object], ...]:
        """List them, if one is missing."""
        return (steps.ListVolumes(),) if any(seen.missing for seen in facts.volumes) else ()

    def learn(self, facts: Progress, answers: Answers) -> Progress:
        """Keep what it has."""
        if not any(seen.missing for seen in facts.volumes):
            return facts
        return replace(facts, volumes_kept=answers.to(steps.ListVolumes()))


class VolumesMade(Part[Progress]):
    """Its volumes are there, mounted, with a folder that its user owns."""

    name = "make the volumes"
    needs = frozenset({"inside", "volume devices", "volume names"})
    gives = frozenset({"volumes"})

    def plan(self, facts: Progress) -> tuple[Act[object], ...]:
        """Make and mount what is missing."""
        if not facts.volumes:
            return ()
        user, ids = known(facts.findings).user, facts.service.ids
        uid, gid = (user.uid, user.gid)
        if ids is not None:
            uid, gid = ids.host(uid), ids.host(gid)
        return tuple(
            step
            for seen in facts.volumes
            for step in volumes.making(
                seen, facts.policy.folders, facts.volumes_kept, uid=uid, gid=gid
            )
        )


class FilesSeen(Part[Progress]):
    """What its files have to say, and what they say now."""

    name = "see the files"
    needs = frozenset({"inside", "root", "volumes"})
    gives = frozenset({"files seen"})

    def plan(self, facts: Progress) -> tuple[Act[object], ...]:
        """Read them."""
        if not facts.is_container:
            return ()
        return tuple(steps.ReadFile(file.path, MAX_TEXT) for file in texts(facts, spec(facts)))

    def learn(self, facts: Progress, answers: Answers) -> Progress:
        """Keep what is there."""
        if not facts.is_container:
            return facts
        wanted = spec(facts)
        files = tuple(
            replace(file, before=answers.to(steps.ReadFile(file.path, MAX_TEXT)))
            for file in texts(facts, wanted)
        )
        return replace(facts, spec=wanted, files=files, notes=notes(facts))


class FilesWritten(Part[Progress]):
    """Its files say what they have to; a service whose files change is stopped before."""

    name = "write the files"
    needs = frozenset({"files seen"})
    gives = frozenset({"files"})

    def plan(self, facts: Progress) -> tuple[Act[object], ...]:
        """Write what is stale."""
        stale = [file for file in facts.files if file.stale]
        if not stale:
            return ()
        before: tuple[Act[object], ...] = ()
        if all(file.before is not None for file in facts.files):
            # Its failures are forgotten too: whoever goes on from here finds a unit to start.
            names = (facts.service.id.unit,)
            before = (steps.StopUnits(names), steps.ResetFailed(names))
        return (
            *before,
            steps.MakeFolder(facts.policy.folders.lxc / facts.service.id.folder, 0o700),
            *(steps.WriteFile(file.path, file.data, file.mode) for file in stale),
        )

    def learn(self, facts: Progress, answers: Answers) -> Progress:  # noqa: ARG002
        """Keep whether it has to be started anew."""
        unit_is_new = any(
            file.path == facts.unit_file and file.before is None for file in facts.files
        )
        changed = any(file.stale for file in facts.files)
        return replace(facts, fresh=unit_is_new, changed=changed)


class Ready(Part[Progress]):
    """It can be started."""

    name = "say that it is ready"
    needs = frozenset({"root", "files"})
    gives = frozenset({"ready"})

    def plan(self, facts: Progress) -> tuple[Act[object], ...]:
        """Say so."""
        return (steps.Say(f"{facts.service.name}: ready ({facts.service.version})"),)


PHASES: tuple[Phase[Progress], ...] = (
    Manifest(), Configuration(), ImageSeen(), LayerOpened(), ImageMounted(), RootSeen(),
    RootShown(), ImageLooked(), VolumesSeen(), DevicesSeen(), VolumesListed(), VolumesMade(),
    FilesSeen(), FilesWritten(), Ready(),
)  # fmt: skip


def spec(facts: Progress) -> ServiceSpec:
    """Return the container, now that every question is answered."""
    config, found = known(facts.config), known(facts.findings)
    service, policy, network = facts.service, facts.policy, known(facts.network)
    return ServiceSpec(
        id=service.id,
        version=service.version,
        rootfs=facts.root,
        argv=config.argv,
        env=config.env,
        user=found.user,
        folder=config.folder,
        stop_signal=config.stop_signal,
        ids=service.ids,
        network=network,
        volumes=tuple(
            Volume(volumes.source(policy.folders, mount.name), mount.dest)
            for mount in service.storage
        ),
        scratch=found.scratch,
        resolv_conf=policy.resolv_conf if found.resolves and network.kind != "none" else None,
        apparmor=policy.apparmor,
    )


def texts(facts: Progress, wanted: ServiceSpec) -> tuple[TextFile, ...]:
    """Return the files that ``wanted`` is run by, the unit last: with it all of them are there.

    Raises: ToolError for a value that cannot be expressed.
    """
    folders = facts.policy.folders
    container = lxc.render(wanted, folder=folders.lxc)
    home = folders.lxc / wanted.id.folder
    return (
        TextFile(home / lxc.CONFIG, container.config.encode(), 0o600),
        TextFile(home / lxc.SECCOMP, container.seccomp.encode(), 0o600),
        TextFile(facts.unit_file, unit.render(wanted, container.argv).encode(), 0o644),
    )


def notes(facts: Progress) -> tuple[str, ...]:
    """Return what a person should know about a service that runs all the same."""
    return (
        *((HOST_IDS,) if facts.service.ids is None else ()),
        *((NO_PROFILE,) if facts.policy.apparmor == "unconfined" else ()),
    )
