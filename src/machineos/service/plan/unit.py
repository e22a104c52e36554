"""The systemd unit of a service. Pure.

systemd restarts what fails, stops it with the image's own signal, kills what is left, and owns the
cgroup that LXC works in. Sandboxing of the unit itself (ProtectSystem and so on) would only stand
in the way of LXC, which makes the container's namespaces and needs the host's root to do it; the
payload is confined by those. No option here may be a system call filter (``LockPersonality=`` and
its kin): LXC, which finds itself filtered then, would silently load none for the container. That no
memory becomes code is none: systemd sets it by prctl, and a container inherits it for good.

Limits stand here and not in the container, whose cgroups are below the unit's and out of reach of
what is in it. They are what no honest service meets by chance, in percent of the machine's memory;
``machineos.slice`` holds all services together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.host.unit import lxc
from machineos.host.unit.unitfile import exec_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from machineos.service.plan.model import ServiceSpec

_STOP_SECONDS = 10


def render(spec: ServiceSpec, argv: Sequence[str]) -> str:
    """Return the text of the unit that runs ``argv``. Raises: ToolError."""
    description = spec.version.replace("%", "%%")
    # Only a container that shows the host's resolv.conf waits for it to be written.
    after = "After=systemd-resolved.service\n" if spec.resolv_conf is not None else ""
    return f"""\
# Written by mosd from the verified manifest at each boot; a change here does not last.
[Unit]
Description=machineOS service {spec.id} {description}
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
{after}StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
Type=exec
ExecStart={exec_line(argv)}
Environment=PATH={lxc.PATH}
Restart=on-failure
RestartSec=1
KillMode=mixed
KillSignal={spec.stop_signal}
TimeoutStopSec={_STOP_SECONDS}
Delegate=yes
Slice=machineos.slice
StandardInput=null
StandardOutput=journal
StandardError=journal
SyslogIdentifier={spec.id.log}
SyslogLevelPrefix=no
LogRateLimitIntervalSec=10
LogRateLimitBurst=1000
UMask=0022
MemoryHigh=50%
MemoryMax=60%
MemorySwapMax=0
CPUWeight=100
IOWeight=100
TasksMax=4096
LimitNOFILE=65536
LimitCORE=0
OOMPolicy=kill
MemoryDenyWriteExecute=yes
"""
