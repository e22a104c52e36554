"""What single lines of a container say; the whole of it is in the golden files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fakes.units import decode_command
from machineos.core.serviceid import ServiceId
from machineos.document.model.image import User
from machineos.errors import ToolError
from machineos.host.unit.lxc import fits_in_file
from machineos.service.plan import lxc, unit
from machineos.service.plan.model import ServiceSpec
from machineos.service.plan.network import Attachment
from unit.service.plan.cases import LXC, PLAIN, SPECS

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


def settings(spec: ServiceSpec) -> list[tuple[str, str]]:
    """Read a configuration as LXC does: trim, then take one pair of equal quotes off."""
    found = []
    for line in lxc.render(spec, folder=LXC).config.split("\n")[:-1]:
        key, value = line.split("=", 1)
        value = value.strip()
        if len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]:
            value = value[1:-1]
        found.append((key.strip(), value))
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
    for entry in entries(SPECS[name]):
        options = entry.split(" ")[3].split(",")
        assert {"nosuid", "nodev"} <= set(options), entry


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


def test_a_volume_replaces_scratch_and_may_be_below_it() -> None:
    found = entries(SPECS["volumes"])
    assert [entry.split()[1] for entry in found] == ["dev/shm", "run", "run/c", "tmp", "var/log"]
    assert "/run/data/a\\040b/volume tmp none bind,rw,nosuid,nodev,noexec 0 0" in found
    assert "/run/data/c/volume run/c none bind,rw,nosuid,nodev,noexec,create=dir 0 0" in found


def test_each_id_names_its_own_files() -> None:
    spec = replace(PLAIN, id=ServiceId("other.1"))
    container = lxc.render(spec, folder=LXC)
    assert 'lxc.seccomp.profile = "/run/machineos/lxc/other.1/seccomp"' in container.config
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
    in_file = [v for k, v in settings(spec) if k == "lxc.environment"]
    defined = f"--define=lxc.environment={wanted}"
    assert (wanted in in_file) != (defined in argv)
    assert fits_in_file(value) == (wanted in in_file)


def test_a_value_cannot_start_a_new_line() -> None:
    for spec in (
        replace(PLAIN, folder="/x\nlxc.hook.start = /evil"),
        replace(PLAIN, apparmor="x\0"),
    ):
        with pytest.raises(ToolError, match="holds a newline or a zero byte"):
            lxc.render(spec, folder=LXC)
