"""The LXC configuration of a service. Pure.

A container gets a read-only root, its own namespaces, no capability beyond ``CAPABILITIES`` and
that only as root of its own user namespace, no new privileges, a system call filter, and nothing
writable but its volumes and small tmpfs folders that vanish with it. No hooks: the host has no
shell. Network set-up, the default route included, is LXC's work, so images need no ``ip``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.document.rules.network import BRIDGE, GATEWAY4, GATEWAY6
from machineos.errors import ToolError
from machineos.host.unit import lxc
from machineos.service.plan import seccomp

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.host.unit.lxc import Setting
    from machineos.service.plan.model import ServiceSpec

# What a root process needs to be a server: change owner and identity, bind low ports. No
# net_admin, net_raw, mknod, setfcap, sys_*.
CAPABILITIES = (
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "net_bind_service",
    "setgid",
    "setuid",
)
# A folder of it has an inode for each page, as many as its files can be.
_SCRATCH = "size=64m,nr_inodes=16k"
# What drivers and the kernel take orders at, besides /proc/sys and /proc/sysrq-trigger.
_KERNELS_OWN = (
    "/proc/acpi",
    "/proc/bus",
    "/proc/driver",
    "/proc/fs",
    "/proc/irq",
    "/proc/pressure",
    "/proc/scsi",
)
# The files of a container, in its own folder.
CONFIG, SECCOMP = "config", "seccomp"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Container(msgspec.Struct, frozen=True):
    """The files and the command of one container."""

    config: str
    seccomp: str
    argv: tuple[str, ...]


def render(spec: ServiceSpec, *, folder: Path) -> Container:
    """Return what runs ``spec``; its files belong into its own folder below ``folder``.

    Raises: ToolError for a value that cannot be expressed.
    """
    home = folder / spec.id.folder
    environment = [("lxc.environment", f"{key}={value}") for key, value in _environment(spec)]
    settings = [
        ("lxc.rootfs.path", f"dir:{spec.rootfs}"),
        ("lxc.uts.name", spec.id.host_name),
        *_network(spec),
        *_mounts(spec),
        *_masks(spec),
        ("lxc.init.cwd", spec.folder),
        ("lxc.cgroup.relative", "1"),
        # Standard output and error of the payload are those of the unit: the journal.
        ("lxc.console.path", "none"),
        ("lxc.tty.max", "0"),
        *[item for item in environment if lxc.fits_in_file(item[1])],
    ]
    argv = lxc.argv_start(
        spec.id.container,
        folder=folder,
        config=home / CONFIG,
        defines=[
            *[item for item in environment if not lxc.fits_in_file(item[1])],
            *_confinement(spec, home),
        ],
        command=spec.argv,
    )
    return Container(lxc.render(settings), seccomp.policy(), tuple(argv))


def _environment(spec: ServiceSpec) -> list[tuple[str, str]]:
    values = {"PATH": _PATH, "HOME": spec.user.home}
    values.update(spec.env)
    return list(values.items())


def _confinement(spec: ServiceSpec, home: Path) -> list[Setting]:
    """Return what the container may not do, each list emptied first: it is read after the file."""
    return [
        ("lxc.idmap", ""),
        *_ids(spec),
        ("lxc.init.uid", str(spec.user.uid)),
        ("lxc.init.gid", str(spec.user.gid)),
        ("lxc.cap.drop", ""),
        ("lxc.cap.keep", ""),
        ("lxc.cap.keep", " ".join(CAPABILITIES) if spec.user.uid == 0 else "none"),
        ("lxc.no_new_privs", "1"),
        ("lxc.apparmor.profile", spec.apparmor),
        ("lxc.seccomp.profile", str(home / SECCOMP)),
        # Else LXC silently loads no filter where it finds that one holds for itself already.
        ("lxc.seccomp.allow_nesting", "1"),
    ]


def _ids(spec: ServiceSpec) -> list[Setting]:
    if spec.ids is None:
        return []
    span = f"0 {spec.ids.first} {spec.ids.count}"
    return [("lxc.idmap", f"u {span}"), ("lxc.idmap", f"g {span}")]


def _network(spec: ServiceSpec) -> list[Setting]:
    net = spec.network
    if net.kind == "host":
        return [("lxc.net.0.type", "none")]
    if net.kind == "none":
        return [("lxc.net.0.type", "empty"), ("lxc.net.0.flags", "up")]  # its lo
    if net.ipv4 is None or net.ipv6 is None:
        raise ToolError(f"service {spec.id}: a simple network without an address")
    return [
        ("lxc.net.0.type", "veth"),
        ("lxc.net.0.link", BRIDGE),
        ("lxc.net.0.flags", "up"),
        ("lxc.net.0.name", "eth0"),
        ("lxc.net.0.veth.pair", spec.id.link(net.ipv4.ip)),
        ("lxc.net.0.hwaddr", net.hardware),
        ("lxc.net.0.ipv4.address", f"{net.ipv4} {net.ipv4.network.broadcast_address}"),
        ("lxc.net.0.ipv4.gateway", str(GATEWAY4.ip)),
        ("lxc.net.0.ipv6.address", str(net.ipv6)),
        ("lxc.net.0.ipv6.gateway", str(GATEWAY6.ip)),
    ]


def _mounts(spec: ServiceSpec) -> list[Setting]:
    # A sysfs can be mounted only by the owner of the network namespace that it shows.
    shared = spec.network.kind == "host" and spec.ids is not None
    result = [("lxc.mount.auto", "proc:mixed" if shared else "proc:mixed sys:ro")]
    result.append(_tmpfs("/dev/shm", "noexec,mode=1777,create=dir"))  # noqa: S108
    taken = {volume.dest for volume in spec.volumes}
    for path in spec.scratch:
        if path not in taken:
            result.append(_tmpfs(path, "mode=0755" if path == "/run" else "mode=1777"))
    if spec.resolv_conf is not None:
        options = "bind,ro,nosuid,nodev,noexec,optional"
        result.append(lxc.mount_entry(str(spec.resolv_conf), "/etc/resolv.conf", "none", options))
    for volume in sorted(spec.volumes, key=lambda item: item.dest):
        # Files there can never be executed anyway (IPE), so say so in the mount as well.
        options = "bind,rw,nosuid,nodev,noexec"
        if any(volume.dest.startswith(f"{path}/") for path in spec.scratch):
            options += ",create=dir"
        result.append(lxc.mount_entry(str(volume.source), volume.dest, "none", options))
    return result


def _masks(spec: ServiceSpec) -> list[Setting]:
    """Return what hides the kernel's own files from root of a service that has the host's ids.

    LXC shows /proc/sys read-only and leaves the rest to owners and modes, which such a root meets:
    it could move interrupts and open the configuration of devices. Folders that this kernel does
    not have are left out.
    """
    if spec.ids is not None:
        return []
    options = "ro,nosuid,nodev,noexec,size=0,optional"
    return [lxc.mount_entry("tmpfs", path, "tmpfs", options) for path in _KERNELS_OWN]


def _tmpfs(path: str, options: str) -> Setting:
    base = f"rw,nosuid,nodev,{_SCRATCH},{options}"
    return lxc.mount_entry("tmpfs", path, "tmpfs", base)
