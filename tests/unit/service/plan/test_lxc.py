from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.errors import ToolError
from machineos.host.kernel.idmap import IdRange
from machineos.host.unit.lxc import fits_in_file, render
from machineos.host.unit.systemd import exec_line
from machineos.service.plan import lxc, unit
from machineos.service.plan.image import User
from machineos.service.plan.model import ServiceSpec, Volume
from machineos.service.plan.network import Attachment
from unit.service.conftest import decode_command

SPEC = ServiceSpec(
    name="web",
    version="1.0.0",
    rootfs=Path("/run/machineos/roots/web"),
    argv=("/bin/web", "--flag"),
    env=(("A", "1"),),
    user=User(0, 0, "/root"),
    folder="/",
    stop_signal="SIGTERM",
    ids=IdRange(165536, 65536),
    network=Attachment("none"),
    scratch=("/tmp", "/run"),
)
FOLDER = Path("/run/machineos/lxc")
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


def settings(spec: ServiceSpec) -> list[tuple[str, str]]:
    """Read a configuration as LXC does: trim, then take one pair of equal quotes off."""
    found = []
    for line in lxc.render(spec, folder=FOLDER).config.split("\n")[:-1]:
        key, value = line.split("=", 1)
        value = value.strip()
        if len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]:
            value = value[1:-1]
        found.append((key.strip(), value))
    return found


def test_nothing_that_needs_a_shell_and_no_open_door() -> None:
    found = settings(SPEC)
    keys = {key for key, _ in found}
    assert not any("hook" in key for key in keys)
    assert ("lxc.no_new_privs", "1") in found
    assert ("lxc.seccomp.profile", "/run/machineos/lxc/web/seccomp") in found
    assert ("lxc.idmap", "u 0 165536 65536") in found
    assert ("lxc.idmap", "g 0 165536 65536") in found
    keep = dict(found)["lxc.cap.keep"].split()
    assert not {name for name in keep if name.startswith("sys_")}
    assert not {"net_admin", "net_raw", "mknod", "setfcap", "setpcap"} & set(keep)
    assert dict(settings(replace(SPEC, user=User(5, 5, "/"))))["lxc.cap.keep"] == "none"


def test_networks() -> None:
    simple = Attachment("simple", IPv4Interface("10.0.3.9/24"), IPv6Interface("fd00::9/64"))
    found = dict(settings(replace(SPEC, network=simple)))
    assert found["lxc.net.0.type"] == "veth"
    assert found["lxc.net.0.ipv4.address"] == "10.0.3.9/24 10.0.3.255"
    assert found["lxc.net.0.ipv4.gateway"] == "10.0.3.1"
    assert found["lxc.net.0.ipv6.gateway"] == "fd6d:6f73:3000:3::1"
    assert dict(settings(replace(SPEC, network=Attachment("host"))))["lxc.net.0.type"] == "none"
    assert dict(settings(SPEC))["lxc.net.0.type"] == "empty"
    with pytest.raises(ToolError):
        lxc.render(replace(SPEC, network=Attachment("simple")), folder=FOLDER)


def test_a_volume_replaces_scratch_and_may_be_below_it() -> None:
    volumes = (Volume(Path("/data/a b"), "/tmp"), Volume(Path("/data/c"), "/run/c"))
    entries = [v for k, v in settings(replace(SPEC, volumes=volumes)) if k == "lxc.mount.entry"]
    assert "/data/a\\040b tmp none bind,rw,nosuid,nodev,noexec 0 0" in entries
    assert "/data/c run/c none bind,rw,nosuid,nodev,noexec,create=dir 0 0" in entries
    assert sum(entry.split()[1] == "tmp" for entry in entries) == 1
    assert entries.index(next(e for e in entries if e.split()[1] == "run")) < len(entries) - 1


def test_sysfs_only_where_the_network_is_our_own() -> None:
    host = replace(SPEC, network=Attachment("host"))
    assert dict(settings(host))["lxc.mount.auto"] == "proc:mixed"
    assert dict(settings(replace(host, ids=None)))["lxc.mount.auto"] == "proc:mixed sys:ro"


@given(st.lists(TEXT, min_size=1, max_size=6), TEXT)
def test_every_word_and_value_survives(words: list[str], value: str) -> None:
    spec = replace(SPEC, argv=("/bin/x", *words), env=(("V", value),))
    container = lxc.render(spec, folder=FOLDER)
    line = next(
        line
        for line in unit.render(spec, container.argv).split("\n")
        if line.startswith("ExecStart=")
    )
    argv = decode_command(line.removeprefix("ExecStart="))
    assert tuple(argv) == container.argv
    assert argv[argv.index("--") + 1 :] == ["/bin/x", *words]
    wanted = f"V={value}"
    in_file = [v for k, v in settings(spec) if k == "lxc.environment"]
    defined = f"--define=lxc.environment={wanted}"
    assert (wanted in in_file) != (defined in argv)
    assert fits_in_file(value) == (wanted in in_file)


def test_a_value_cannot_start_a_new_line() -> None:
    with pytest.raises(ToolError):
        render([("lxc.uts.name", "x\nlxc.hook.start = /evil")])
    with pytest.raises(ToolError):
        exec_line(["/bin/x", "a\0b"])
    with pytest.raises(ToolError):
        exec_line(["/bin/x", "a" * (300 << 10)])


def test_unit_is_what_systemd_needs() -> None:
    text = unit.render(replace(SPEC, stop_signal="SIGQUIT", version="1%n"), ["/usr/bin/lxc-start"])
    assert "KillSignal=SIGQUIT\n" in text
    assert "1%%n" in text
    for line in ("Delegate=yes", "KillMode=mixed", "Restart=on-failure", "StandardOutput=journal"):
        assert f"\n{line}\n" in text
    assert "/bin/sh" not in text
    assert SPEC.unit == "machineos-web.service"


def test_host_names() -> None:
    assert lxc.host_name("my_svc.1") == "my-svc-1"
    assert lxc.host_name("...") == "service"
