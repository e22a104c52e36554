"""The service manager: makes what runs equal to what was handed over, as often as it is asked.

``plan`` of each part is pure (network, lxc, unit); here the steps are taken, in an order in which
each can be repeated: image mounted, root cloned with shifted owners, files written, ports
forwarded, units started. What is there already and is the same is left alone, so a restarted mosd
starts nothing twice and leaks nothing; what is no longer wanted is stopped and unmounted. A service
that cannot run is refused alone, with its reason.

Everything lies under ``Folders.run``, on a tmpfs: at each boot we begin with nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from machineos.core.files import write_atomic
from machineos.document.between.status import ServiceStatus, State
from machineos.errors import MachineOSError
from machineos.host.kernel import mount as mounts
from machineos.host.kernel.idmap import IdRange, user_namespace
from machineos.host.unit.systemd import unit_files
from machineos.service.act import rootfs
from machineos.service.plan import lxc, unit
from machineos.service.plan.image import Image, load_image, resolve_user
from machineos.service.plan.model import NEEDED, PREFIX, SCRATCH, ServiceSpec, Volume, unit_name
from machineos.service.plan.network import NetworkPlan, plan_network

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from machineos.document.between.handover import Handover, Service
    from machineos.host.unit.systemd import UnitState
    from machineos.service.act.surroundings import Folders, Units, Volumes
    from machineos.service.plan.network import Attachment, Forward
    from machineos.state.volumes.service import StorageProvider

RANGE = 65536


@dataclass(slots=True)
class _Prepared:
    """What reconcile found out about one service."""

    service: Service
    spec: ServiceSpec | None = None
    fresh: bool = False  # systemd cannot know its unit yet
    changed: bool = False
    why: str = ""
    notes: list[str] = field(default_factory=list)


class Manager:
    """Runs the services of one handover. All its dependencies are handed in."""

    def __init__(
        self,
        handover: Handover,
        *,
        store: Path,
        folders: Folders,
        volumes: Volumes,
        storage: StorageProvider,
        units: Units,
        forward: Callable[[Sequence[Forward]], None],
        log: Callable[[str], None],
        apparmor: str = "unconfined",
        resolv_conf: Path | None = None,
    ) -> None:
        self._handover = handover
        self._store = store
        self._folders = folders
        self._volumes = volumes
        self._storage = storage
        self._units = units
        self._forward = forward
        self._log = log
        self._apparmor = apparmor
        self._resolv_conf = resolv_conf
        self._prepared: list[_Prepared] = []
        self._problems: list[str] = []

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong apart from single services."""
        return tuple(self._problems)

    def reconcile(self) -> None:
        """Make what runs equal to what was handed over. Failures are kept for ``status``."""
        self._problems = []
        self._folders.make()
        services = self._handover.services
        network = plan_network(
            [(service.name, service.network) for service in services if service.type == "container"]
        )
        self._try("removing what is no longer wanted", self._remove_stale)
        self._prepared = [self._prepare(service, network) for service in services]
        usable = {item.service.name for item in self._prepared if not item.why}
        forwards = [forward for forward in network.forwards if forward.service in usable]
        self._try("forwarding ports", lambda: self._forward(forwards))
        self._try("starting services", self._start)

    def status(self) -> tuple[ServiceStatus, ...]:
        """Return the state of every service now. Raises: ToolError (systemd does not answer)."""
        names = [item.spec.unit for item in self._prepared if item.spec is not None]
        states = self._units.show(names) if names else {}
        return tuple(_status(item, states) for item in self._prepared)

    def _try(self, what: str, step: Callable[[], None]) -> None:
        try:
            step()
        except (MachineOSError, OSError) as error:
            self._problems.append(f"{what}: {error}")
            self._log(f"{what}: failed: {error}")

    def _prepare(self, service: Service, network: NetworkPlan) -> _Prepared:
        """Bring one service to the point where its unit can start, or note why it cannot."""
        item = _Prepared(service)
        try:
            refused = network.refused.get(service.name)
            if refused is not None:
                raise refused
            image = load_image(self._store, service)
            folder = self._mount_image(service, image)
            self._mount_root(service, folder)
            if image.config is not None:
                item.spec = self._spec(item, image, folder, network.attachments[service.name])
                self._write(item, item.spec)
        except (
            MachineOSError,
            OSError,
            ValueError,
        ) as error:  # a path with a zero byte is the last
            item.why, item.spec = str(error), None
            self._log(f"{service.name}: refused: {error}")
            # A refused service may still run from before: it must not go on with old rules.
            self._try(f"stopping {service.name}", lambda: self._remove(service.name))
        else:
            self._log(f"{service.name}: ready ({service.version})")
        return item

    def _mount_image(self, service: Service, image: Image) -> Path:
        layer = service.layer
        name = layer.digest.partition(":")[2]
        folder = self._folders.images / name
        if mounts.is_mounted(folder):
            return folder
        folder.mkdir(mode=0o755, exist_ok=True)
        # Both are absolute, or relative to the store.
        blob, signature = self._store / layer.blob, self._store / layer.signature
        device = self._volumes.open(image.layer, blob=blob, signature=signature)
        flags = mounts.Flag.RDONLY | mounts.Flag.NODEV | mounts.Flag.NOSUID
        mounts.mount(device, folder, image.filesystem, flags)
        self._log(f"{service.name}: mounted {layer.digest}")
        return folder

    def _mount_root(self, service: Service, image: Path) -> None:
        """Show the image as the service's root, owners shifted; an older root makes way."""
        root = self._folders.roots / service.name
        source = image.stat()
        wanted = (source.st_dev, _shifted(service, source.st_uid))
        if mounts.is_mounted(root):
            now = root.stat()
            if (now.st_dev, now.st_uid) == wanted:
                return
            self._remove(service.name)
        root.mkdir(mode=0o755, exist_ok=True)
        if not service.has_namespace:
            mounts.bind(image, root, read_only=True)
            return
        with user_namespace(IdRange(service.hostid, RANGE)) as namespace:
            mounts.clone_idmapped(image, root, namespace, read_only=True)

    def _spec(
        self, item: _Prepared, image: Image, folder: Path, attachment: Attachment
    ) -> ServiceSpec:
        service, config = item.service, image.config
        if config is None:
            raise MachineOSError(f"service {service.name}: its image has no configuration")
        name = f"{service.name} ({service.image})"
        rootfs.require_folders(folder, NEEDED, image=name)
        scratch = rootfs.present_folders(folder, SCRATCH, image=name)
        inside = [
            mount.dest
            for mount in service.storage
            if not any(mount.dest.startswith(f"{path}/") for path in scratch)
        ]
        rootfs.require_folders(folder, inside, image=name)
        user = resolve_user(
            config.user,
            rootfs.read_file(folder, "/etc/passwd", image=name),
            rootfs.read_file(folder, "/etc/group", image=name),
            image=name,
        )
        ids = IdRange(service.hostid, RANGE) if service.has_namespace else None
        if ids is None:
            item.notes.append("runs with the host's user ids: give it an nsgroup")
        if self._apparmor == "unconfined":
            item.notes.append("no AppArmor profile for containers is loaded")
        return ServiceSpec(
            name=service.name,
            version=service.version,
            rootfs=self._folders.roots / service.name,
            argv=config.argv,
            env=config.env,
            user=user,
            folder=config.folder,
            stop_signal=config.stop_signal,
            ids=ids,
            network=attachment,
            volumes=tuple(
                Volume(
                    self._storage.provide(
                        mount.label,
                        uid=ids.host(user.uid) if ids else user.uid,
                        gid=ids.host(user.gid) if ids else user.gid,
                    ),
                    mount.dest,
                )
                for mount in service.storage
            ),
            scratch=scratch,
            resolv_conf=self._resolver(folder, attachment, name),
            apparmor=self._apparmor,
        )

    def _resolver(self, folder: Path, attachment: Attachment, image: str) -> Path | None:
        """Return the host's resolv.conf when the image has a plain file to mount it over."""
        source = self._resolv_conf
        if source is None or attachment.kind == "none":
            return None
        try:
            present = rootfs.read_file(folder, "/etc/resolv.conf", image=image) is not None
        except MachineOSError:
            # A link there is common (to /run/...) and harmless: the image looks after itself.
            return None
        return source if present else None

    def _write(self, item: _Prepared, spec: ServiceSpec) -> None:
        """Write the files of a service; note whether its unit has to be started anew."""
        container = lxc.render(spec, folder=self._folders.lxc)
        home = self._folders.lxc / spec.name
        home.mkdir(mode=0o700, exist_ok=True)
        files = {
            home / "config": container.config,
            home / "seccomp": container.seccomp,
            self._folders.units / spec.unit: unit.render(spec, container.argv),
        }
        item.fresh = not (self._folders.units / spec.unit).exists()
        stale = {path: text.encode() for path, text in files.items() if not _same(path, text)}
        if stale and all(path.exists() for path in files):
            self._units.stop([spec.unit])
        for path, data in stale.items():
            write_atomic(path, data, mode=0o644 if path.parent == self._folders.units else 0o600)
        item.changed = bool(stale)

    def _start(self) -> None:
        """Start what does not run. systemd starts them in parallel.

        A unit that systemd had not read before needs no question, no reload and no reset, which
        cost seconds at boot.
        """
        specs = {item.spec.unit: item for item in self._prepared if item.spec is not None}
        known = sorted(name for name, item in specs.items() if not item.fresh)
        states = self._units.show(known) if known else {}
        # A unit that failed before we were restarted stays failed: systemd gave it its chances.
        again = [
            name
            for name in known
            if specs[name].changed or name not in states or states[name].active == "inactive"
        ]
        if any(name in states and states[name].stale for name in again):
            self._units.reload()
        if again:
            self._units.reset_failed(again)
        names = [name for name, item in specs.items() if item.fresh or name in again]
        if names:
            self._log(f"starting {', '.join(names)}")
            self._units.start(names)

    def _remove_stale(self) -> None:
        """Take away services, roots and images that the handover does not name."""
        wanted = {service.name: service for service in self._handover.services}
        containers = {
            unit_name(name) for name, service in wanted.items() if service.type == "container"
        }
        for name in unit_files(self._folders.units, PREFIX):
            if name not in containers:
                self._remove(name.removeprefix(PREFIX).removesuffix(".service"))
        for root in sorted(self._folders.roots.iterdir()):
            if root.name not in wanted:
                self._remove(root.name)
        layers = {service.layer.digest.partition(":")[2] for service in wanted.values()}
        for folder in sorted(self._folders.images.iterdir()):
            if folder.name not in layers:
                _unmount(folder)
                self._volumes.close(folder.name)
                folder.rmdir()
                self._log(f"unmounted the image {folder.name}")

    def _remove(self, service: str) -> None:
        """Stop a service and take away its unit, its files and its root."""
        path = self._folders.units / unit_name(service)
        if path.exists():
            self._units.stop([path.name])
            path.unlink()
            self._units.reload()
            self._log(f"{service}: stopped and removed")
        home = self._folders.lxc / service
        for name in ("config", "seccomp"):
            (home / name).unlink(missing_ok=True)
        root = self._folders.roots / service
        if root.exists():
            _unmount(root)
            root.rmdir()


def _shifted(service: Service, uid: int) -> int:
    return service.hostid + uid if service.has_namespace else uid


def _unmount(folder: Path) -> None:
    if mounts.is_mounted(folder):
        mounts.unmount(folder)


def _same(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except FileNotFoundError:
        return False


def _status(item: _Prepared, states: Mapping[str, UnitState]) -> ServiceStatus:
    service = item.service
    state, why, now = _state(item, states)
    addresses: tuple[str, ...] = ()
    if item.spec is not None:
        net = item.spec.network
        addresses = tuple(str(each.ip) for each in (net.ipv4, net.ipv6) if each is not None)
    return ServiceStatus(
        name=service.name,
        version=service.version,
        state=state,
        why=why,
        unit=item.spec.unit if item.spec is not None else "",
        pid=now.main_pid if now is not None else 0,
        restarts=now.restarts if now is not None else 0,
        nsgroup=service.nsgroup,
        hostid=service.hostid,
        network=service.network.type,
        addresses=addresses,
        ports=tuple(
            f"{port.host}->{port.container}/{port.protocol}" for port in service.network.ports or ()
        ),
        notes=tuple(item.notes),
    )


def _state(item: _Prepared, states: Mapping[str, UnitState]) -> tuple[State, str, UnitState | None]:
    if item.why:
        return "refused", item.why, None
    if item.spec is None:
        return "mounted", "", None
    now = states.get(item.spec.unit)
    if now is None:
        return "failed", "systemd does not know its unit", None
    if now.active == "active":
        return "running", "", now
    if now.active in {"activating", "reloading"}:
        why = f"restarting after {_ending(now)}" if now.restarts else ""
        return "starting", why, now
    if now.active == "failed":
        return "failed", f"{_ending(now)}; see: journalctl -u {now.name}", now
    return "stopped", f"ended with status {now.exit_status}", now


def _ending(now: UnitState) -> str:
    return f"{now.result or 'failure'} (exit status {now.exit_status})"
