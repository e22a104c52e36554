"""What is known while services are made to run: of the machine, and of each service. Pure.

Frozen, like the steps: a phase returns facts with more in them and changes none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
from msgspec.structs import replace

from machineos.errors import OrderError

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.steps import Answers
    from machineos.document.between.handover import Handover, Service
    from machineos.document.model.image import ImageConfig
    from machineos.host.unit.systemctl import UnitState
    from machineos.service.plan.host import Around, Mounted, Persistent
    from machineos.service.plan.image import Image
    from machineos.service.plan.inside import Findings
    from machineos.service.plan.model import Folders, ServiceSpec
    from machineos.service.plan.network import Attachment, NetworkPlan
    from machineos.service.plan.steps import Act
    from machineos.service.plan.volumes import Seen

T = TypeVar("T")
F = TypeVar("F")


class Part(Generic[F]):
    """A phase (``core.steps``) that does nothing and learns nothing, unless it says otherwise."""

    name = ""
    needs: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset()

    def plan(self, facts: F) -> tuple[Act[object], ...]:  # noqa: ARG002
        """Return the steps."""
        return ()

    def learn(self, facts: F, answers: Answers) -> F:  # noqa: ARG002
        """Return the facts with what the answers add."""
        return facts


class Policy(msgspec.Struct, frozen=True):
    """What holds for all services. ``resolv_conf`` is a file of the host, or None."""

    folders: Folders
    apparmor: str = "unconfined"
    resolv_conf: Path | None = None


class TextFile(msgspec.Struct, frozen=True):
    """A file that we write for a service; ``before`` is what is there, None when nothing is."""

    path: Path
    data: bytes
    mode: int
    before: bytes | None = None

    @property
    def stale(self) -> bool:
        """Whether it has to be written."""
        return self.before != self.data


class Progress(msgspec.Struct, frozen=True):
    """One service on its way. ``why`` says why it cannot run; then nothing else counts.

    ``fresh``: systemd cannot know its unit yet. ``changed``: it has to be started anew.
    """

    service: Service
    handover: Handover
    policy: Policy
    network: Attachment | None = None
    image: Image | None = None
    config: ImageConfig | None = None
    device: Path | None = None
    image_mount: Mounted | None = None
    root_mount: Mounted | None = None
    unit_is_there: bool = False
    findings: Findings | None = None
    volumes: tuple[Seen, ...] = ()
    volumes_kept: tuple[Persistent, ...] = ()
    spec: ServiceSpec | None = None
    files: tuple[TextFile, ...] = ()
    fresh: bool = False
    changed: bool = False
    why: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_container(self) -> bool:
        """Whether it is run, and not only mounted."""
        return self.service.type == "container"

    @property
    def image_folder(self) -> Path:
        """Where its image is mounted; services with the same layer share it."""
        return self.policy.folders.images / known(self.image).layer.digest.hex

    @property
    def root(self) -> Path:
        """Where its root is shown."""
        return self.policy.folders.roots / self.service.id.folder

    @property
    def unit_file(self) -> Path:
        """Its unit."""
        return self.policy.folders.units / self.service.id.unit

    @property
    def image_name(self) -> str:
        """Its image, for messages."""
        return f"{self.service.name} ({self.service.image})"

    def refused(self, why: str) -> Progress:
        """Return it with the reason why it cannot run."""
        return replace(self, why=why, spec=None)


class Log(msgspec.Struct, frozen=True):
    """The machine's own log: whether its volume is mounted and has a device, whether journald
    writes there, what LVM has, and the bytes that are kept for it. The last two are known only
    where there is no device."""

    mounted: bool
    device: bool
    flushed: bool
    kept: tuple[Persistent, ...] = ()
    size: int = 0


class World(msgspec.Struct, frozen=True):
    """The whole machine. ``links`` are its network links, ``problems`` those that belong to no
    single service."""

    handover: Handover
    policy: Policy
    around: Around | None = None
    network: NetworkPlan | None = None
    services: tuple[Progress, ...] = ()
    links: tuple[str, ...] = ()
    states: tuple[UnitState, ...] = ()
    log: Log | None = None
    problems: tuple[str, ...] = ()

    def with_problem(self, text: str) -> World:
        """Return it with one problem more."""
        return replace(self, problems=(*self.problems, text))

    def with_service(self, progress: Progress) -> World:
        """Return it with one service more."""
        return replace(self, services=(*self.services, progress))


def known(value: T | None) -> T:
    """Return a fact that an earlier phase gave. Raises: OrderError when none did."""
    if value is None:
        raise OrderError("a fact is used before it is known")
    return value
