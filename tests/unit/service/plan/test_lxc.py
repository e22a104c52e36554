"""What single lines of a container say; the whole of it is in the golden files."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fakes.units import decode_command
from machineos.core.serviceid import ServiceId
from machineos.document.model.image import User
from machineos.errors import ToolError
from machineos.service.plan import lxc, unit
from machineos.service.plan.model import ServiceSpec
from machineos.service.plan.network import Attachment
from unit.service.plan.cases import LXC, PLAIN, SPECS

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


CONFINING = (
    "lxc.idmap", "lxc.init.uid", "lxc.init.gid", "lxc.cap.drop", "lxc.cap.keep", "lxc.no_new_privs",
    "lxc.apparmor.profile", "lxc.seccomp.profile", "lxc.seccomp.allow_nesting",
)  # fmt: skip


def in_file(spec: ServiceSpec) -> list[tuple[str, str]]:
    """Return what the file says."""
    found = []
    for line in re.split("[\r\n]", lxc.render(spec, folder=LXC).config)[:-1]:
        key, value = line.split("=", 1)
        found.append((key.strip(), unquoted(value)))
    return found


def defined(spec: ServiceSpec) -> list[tuple[str, str]]:
    """Return what the command line says."""
    words = [word for word in lxc.render(spec, folder=LXC).argv if word.startswith("--define=")]
    pairs = [word.removeprefix("--define=").partition("=") for word in words]
    return [(key, unquoted(value)) for key, _, value in pairs]


def unquoted(value: str) -> str:
    """Trim, then take one pair of equal quotes off, as LXC does in both places."""
    value = value.strip()
    quoted = len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]
    return value[1:-1] if quoted else value


def settings(spec: ServiceSpec) -> list[tuple[str, str]]:
    """Return what holds in the end: the command line comes last, an empty value empties a list."""
    found: list[tuple[str, str]] = []
    for key, value in (*in_file(spec), *defined(spec)):
        if not value:
            found = [pair for pair in found if pair[0] != key]
        else:
            found.append((key, value))
    return found


def entries(spec: ServiceSpec) -> list[str]:
    return [value for key, value in settings(spec) if key == "lxc.mount.entry"]


@pytest.mark.parametrize("name", sorted(SPECS))
def test_nothing_that_needs_a_shell_and_no_open_door(name: str) -> None:
    found = settings(SPECS[name])
    keys = [key for key, _ in found]
    assert not any("hook" in key for key in keys)
    for key in ("lxc.no_new_privs", "lxc.seccomp.profile", "lxc.cap.keep"):
        assert keys.count(key) == 1
    assert dict(found)["lxc.no_new_privs"] == "1"
    assert dict(found)["lxc.seccomp.allow_nesting"] == "1"
    for entry in entries(SPECS[name]):
        options = entry.split(" ")[3].split(",")
        assert {"nosuid", "nodev"} <= set(options), entry
        if entry.startswith("tmpfs ") and "rw" in options:
            assert {"size=64m", "nr_inodes=16k"} <= set(options), entry


def test_capabilities_are_those_of_a_server_and_only_for_root() -> None:
    keep = dict(settings(PLAIN))["lxc.cap.keep"].split()
    assert keep == [
        "chown", "dac_override", "fowner", "fsetid", "kill", "net_bind_service", "setgid", "setuid",
    ]  # fmt: skip
    assert not {name for name in keep if name.startswith("sys_")}
    assert not {"net_admin", "net_raw", "mknod", "setfcap", "setpcap"} & set(keep)
    for uid in (1, 5, 65535):
        assert dict(settings(replace(PLAIN, user=User(uid, 0, "/"))))["lxc.cap.keep"] == "none"


def test_a_simple_network_has_addresses() -> None:
    bare = replace(PLAIN, network=Attachment("simple"))
    with pytest.raises(ToolError) as caught:
        lxc.render(bare, folder=LXC)
    assert str(caught.value) == "service web: a simple network without an address"
    half = Attachment("simple", SPECS["simple"].network.ipv4)
    with pytest.raises(ToolError):
        lxc.render(replace(PLAIN, network=half), folder=LXC)


def test_without_a_network_lo_is_up() -> None:
    found = settings(SPECS["none"])
    assert [pair for pair in found if pair[0].startswith("lxc.net")] == [
        ("lxc.net.0.type", "empty"),
        ("lxc.net.0.flags", "up"),
    ]


def test_who_has_the_hosts_ids_does_not_see_where_the_kernel_takes_orders() -> None:
    hidden = [entry for entry in entries(SPECS["host-ids"]) if " proc/" in entry]
    assert [entry.split()[1] for entry in hidden] == [
        "proc/acpi", "proc/bus", "proc/driver", "proc/fs", "proc/irq", "proc/pressure", "proc/scsi",
    ]  # fmt: skip
    for entry in hidden:
        assert entry.split()[2:4] == ["tmpfs", "ro,nosuid,nodev,noexec,size=0,optional"]
    assert not [entry for entry in entries(PLAIN) if " proc/" in entry]


def test_a_volume_replaces_scratch_and_may_be_below_it() -> None:
    found = entries(SPECS["volumes"])
    assert [entry.split()[1] for entry in found] == ["dev/shm", "run", "run/c", "tmp", "var/log"]
    assert "/run/data/a\\040b/volume tmp none bind,rw,nosuid,nodev,noexec 0 0" in found
    assert "/run/data/c/volume run/c none bind,rw,nosuid,nodev,noexec,create=dir 0 0" in found


def test_each_id_names_its_own_files() -> None:
    spec = replace(PLAIN, id=ServiceId("other.1"))
    container = lxc.render(spec, folder=LXC)
    assert '--define=lxc.seccomp.profile="/run/machineos/lxc/other.1/seccomp"' in container.argv
    assert "--rcfile=/run/machineos/lxc/other.1/config" in container.argv
    assert "--name=other.1" in container.argv
    assert (lxc.CONFIG, lxc.SECCOMP) == ("config", "seccomp")


@given(st.lists(TEXT, min_size=1, max_size=6), TEXT)
def test_every_word_and_value_survives(words: list[str], value: str) -> None:
    spec = replace(PLAIN, argv=("/bin/x", *words), env=(("V", value),))
    container = lxc.render(spec, folder=LXC)
    line = next(
        line
        for line in unit.render(spec, container.argv).split("\n")
        if line.startswith("ExecStart=")
    )
    argv = decode_command(line.removeprefix("ExecStart="))
    assert tuple(argv) == container.argv
    assert argv[argv.index("--") + 1 :] == ["/bin/x", *words]
    wanted = f"V={value}"
    written = ("lxc.environment", wanted) in in_file(spec)
    assert written != (("lxc.environment", wanted) in defined(spec))
    assert written == value.isprintable()


@pytest.mark.parametrize("char", [*map(chr, range(1, 32)), "\x7f", "\x85", "\u2028", "\ud800"])
def test_no_character_of_a_value_starts_a_setting(char: str) -> None:
    """LXC ends a line at a carriage return as well."""
    value = f"x{char}lxc.idmap ={char}lxc.mount.entry = / mnt none rbind 0 0{char}"
    spec = replace(PLAIN, env=(("V", value),))
    assert ("lxc.environment", f"V={value}") in defined(spec)
    assert value not in lxc.render(spec, folder=LXC).config
    with pytest.raises(ToolError) as caught:
        lxc.render(replace(PLAIN, folder=f"/x{char}"), folder=LXC)
    assert caught.value.message == (
        "LXC: the value of lxc.init.cwd holds a character that is not printable"
    )


@pytest.mark.parametrize("name", sorted(SPECS))
def test_what_confines_a_container_is_said_after_its_file(name: str) -> None:
    spec = SPECS[name]
    assert not {key for key, _ in in_file(spec)} & {*CONFINING}
    said = [pair for pair in defined(spec) if pair[0] in CONFINING]
    assert {key for key, _ in said} == {*CONFINING}
    for key in ("lxc.idmap", "lxc.cap.drop", "lxc.cap.keep"):
        # what the file said is gone
        assert next(value for name, value in said if name == key) == ""
    assert [value for key, value in said if key == "lxc.idmap"][1:] == (
        [] if spec.ids is None else ["u 0 165536 65536", "g 0 165536 65536"]
    )
