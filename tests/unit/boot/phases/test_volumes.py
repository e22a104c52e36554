"""Volumes are opened in the initrd, by what their own header holds; what does not open stays so."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.boot import FakeHost, FakeMachine
from fakes.bootparts.disks import NULL, Storage, Volume, sealed, storage
from fakes.bootparts.files import Tree
from machineos.core.secret import Secret
from machineos.errors import ToolError
from machineos.trust.wrap.hpke import public_key
from machineos.trust.wrap.storage import integrity_key, sealing_key
from unit.boot.ends import handed_over, refusal
from unit.boot.worlds import KEY, STORAGE, machine

PUBLIC = public_key(sealing_key(Secret(STORAGE)))
PLAIN = Volume("ext4", Tree())


def data_of(made: FakeMachine) -> Storage:
    found = made.disks[0].parts[3][2]
    assert isinstance(found, Storage)
    return found


def opened(host: FakeHost) -> list[str]:
    names = [path.name for path in host.mapped]
    return [name for name in names if name.startswith("volume-")]


def said(host: FakeHost) -> list[str]:
    return [line for line in host.lines if "stays closed" in line]


def test_what_the_generation_names_is_opened_and_the_log() -> None:
    made = machine()
    other = sealed("other", PUBLIC, "a", PLAIN)
    data_of(made).volumes["other"] = other
    host = handed_over(made).host
    assert opened(host) == ["volume-zot", "volume-machine-log"]
    assert other.readings == 0
    assert said(host) == []


def test_its_key_and_the_one_that_leads_to_it_are_overwritten() -> None:
    host = handed_over(machine()).host
    names = [name for name, _ in host.calls]
    openings = [arguments for name, arguments in host.calls if name == "open_luks"]
    secrets = [one for arguments in openings[1:] for one in arguments if isinstance(one, Secret)]
    assert len(secrets) == 2
    assert all(one.wiped for one in secrets)
    last = len(names) - names[::-1].index("open_luks")
    assert names[last : last + 2] == ["forget_secret", "forget_secret"]  # its own, and the sealing
    doors = [number for number, name in enumerate(names) if name == "close_door"]
    assert last < doors[1]


def test_storage_is_begun_long_before_it_is_waited_for() -> None:
    names = [name for name, _ in handed_over(machine()).host.calls]
    begun, waited = names.index("begin_storage"), names.index("wait_for_storage")
    assert names.index("close_door") < begun < names.index("mount")
    assert "read_image" in names[begun:waited]


def test_integrity_has_a_key_of_its_own() -> None:
    """Root sees it: it is neither of those that open anything."""
    made = handed_over(machine()).host.calls
    ((device, key),) = [arguments for name, arguments in made if name == "begin_storage"]
    assert device == Path("/dev/vda4")
    assert key == integrity_key(Secret(STORAGE))
    assert key not in (Secret(STORAGE), Secret(KEY), sealing_key(Secret(STORAGE)))


def test_a_machine_without_volumes_boots() -> None:
    made = machine()
    data_of(made).volumes.clear()
    assert opened(handed_over(made).host) == []


def test_what_was_cut_off_before_it_got_its_name_is_opened_under_it() -> None:
    made = machine()
    volumes = data_of(made).volumes
    volumes["zot+new"] = volumes.pop("zot")
    assert opened(handed_over(made).host) == ["volume-zot", "volume-machine-log"]
    volumes["zot"] = sealed("whole", PUBLIC, "u", PLAIN)
    host = handed_over(made).host
    devices = [arguments[0] for name, arguments in host.calls if name == "open_luks"]
    assert devices[1:] == [Path("/dev/machine-data/zot"), Path("/dev/machine-data/machine-log")]


def test_a_volume_of_another_machine_stays_closed_and_the_machine_boots() -> None:
    made = machine()
    strange = public_key(sealing_key(Secret(bytes(32))))
    data_of(made).volumes["zot"] = sealed("zot", strange, "u", PLAIN)
    host = handed_over(made).host
    assert opened(host) == ["volume-machine-log"]
    (line,) = said(host)
    assert line == ("volume zot stays closed: zot: a sealed secret was not sealed for this machine")


def test_a_null_cipher_is_never_given_to_cryptsetup() -> None:
    made = machine()
    data_of(made).volumes["zot"] = sealed("zot", PUBLIC, "u", PLAIN, cipher=NULL)
    host = handed_over(made).host
    assert opened(host) == ["volume-machine-log"]
    assert "for other data than this system writes" in said(host)[0]
    assert len([name for name, _ in host.calls if name == "open_luks"]) == 2


def test_a_header_over_other_data_stays_closed() -> None:
    made = machine()
    data_of(made).volumes["zot"].volume = "other"
    host = handed_over(made).host
    assert said(host) == [
        "volume zot stays closed: /dev/machine-data/zot: does not open with this machine's key: "
        "Integrity check failed."
    ]


class Unreadable(FakeHost):
    """A pool of which one volume has a sector that was changed."""

    def read_header(self, device: Path) -> bytes:
        if device.name == "zot":
            raise OSError(5, "Input/output error", str(device))
        return super().read_header(device)


class BadDisk(FakeMachine):
    def power_on(self) -> FakeHost:
        super().power_on()
        return Unreadable(self)


def test_a_volume_that_cannot_be_read_stays_closed() -> None:
    usual = machine()
    made = BadDisk(**{name: getattr(usual, name) for name in usual.__dataclass_fields__})
    host = handed_over(made).host
    assert said(host) == ["volume zot stays closed: Input/output error"]
    assert opened(host) == ["volume-machine-log"]


@pytest.mark.parametrize("key", [bytes(32), KEY])
def test_a_partition_of_another_machine_is_refused(key: bytes) -> None:
    made = machine()
    made.disks[0].parts[3] = ("vda4", "machine-data", storage(key, "zot"))
    assert refusal(made) == "integritysetup open: no such device"


def test_the_contract_of_storage() -> None:
    host = machine().power_on()
    with pytest.raises(ToolError):
        host.wait_for_storage()
