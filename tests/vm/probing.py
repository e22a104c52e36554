"""Where the probe of code that nobody signed is run: root's console, a daemon, a service.

A service is the one that an appliance has, planned and started by mosd; what is changed is its
command, and that it sees the host's own Python. Without its walls it is the control.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vm.guest import Guest

PROBE = Path(__file__).with_name("codeprobe.py")
PLACE = "/run/probe.py"
SIGNED = "/usr/bin/true"
# The service, and what stands in front of its command: LXC's own words end there.
SERVICE = r"""
import re, subprocess
from pathlib import Path
unit = Path("/run/systemd/system/machineos-registry.service")
home = Path("/run/machineos/lxc/registry")
loader = "/lib64/ld-linux-x86-64.so.2"
with (home / "config").open("a") as file:
    for source, place, options in (("/usr", "usr", "rbind,ro"), (loader, loader[1:], "bind,ro"),
                                   ("PLACE", "dev/probe.py", "bind,ro,create=file")):
        file.write(f'lxc.mount.entry = "{source} {place} none {options} 0 0"\n')
command = '"/usr/bin/python3" "-I" "/dev/probe.py" "SIGNED"'
text, count = re.subn(r'(?m)^(ExecStart=.* "--" ).*$', lambda found: found[1] + command,
                      unit.read_text())
assert count == 1, text
unit.write_text(text)
if not WALLS:
    (home / "seccomp").write_text("2\ndenylist\n[all]\nacct errno 1\n")
    folder = unit.with_name(unit.name + ".d")
    folder.mkdir()
    (folder / "90-open.conf").write_text("[Service]\nMemoryDenyWriteExecute=no\n")
for words in (["daemon-reload"], ["restart", unit.name]):
    subprocess.run(["systemctl", *words], check=True)
"""


def on_the_console(guest: Guest) -> dict[str, str]:
    """Run the probe as root at the console of tests, whose unit nothing locks."""
    guest.put(PROBE.read_bytes(), PLACE)
    return _read(guest.must(f"python3 {PLACE} {SIGNED}"))


def in_a_unit(guest: Guest) -> dict[str, str]:
    """Run the probe as the daemons of the host are run."""
    guest.put(PROBE.read_bytes(), PLACE)
    guest.must(
        "systemd-run --quiet --wait -p MemoryDenyWriteExecute=yes -p LockPersonality=yes "
        f"-p StandardOutput=file:/run/probe.json /usr/bin/python3 {PLACE} {SIGNED}"
    )
    return _read(guest.must("cat /run/probe.json; rm /run/probe.json"))


def in_a_service(guest: Guest, *, walls: bool = True) -> dict[str, str]:
    """Run the probe in the place of a service; without ``walls`` no filter of system calls holds
    for it, and its memory may become code. The service is left as it is then."""
    guest.put(PROBE.read_bytes(), PLACE)
    code = SERVICE.replace("PLACE", PLACE).replace("SIGNED", SIGNED).replace("WALLS", str(walls))
    guest.python(code)
    guest.wait_until("! systemctl is-active --quiet machineos-registry")
    guest.must("journalctl --sync")
    said = "journalctl -b -o cat -t registry"
    return _read(guest.must(f"""{said} | grep '^{{"anonymous"' || {said} | tail -n 20"""))


def _read(text: str) -> dict[str, str]:
    assert text.startswith("{"), text
    rows: dict[str, str] = json.loads(text)
    return rows
