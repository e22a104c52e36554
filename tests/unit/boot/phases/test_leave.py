"""What mosd is told, the door, and how the initrd is left."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fakes.boot import FakeMachine
from fakes.bootparts.files import image_content
from fakes.bootparts.tpm import FakeTpm
from machineos.core.secret import Secret
from machineos.document.between.handover import parse_handover
from machineos.errors import PolicyError
from machineos.trust.seal.layout import Index
from unit.boot.ends import handed_over, refusal
from unit.boot.worlds import (
    content,
    image_of,
    layer_of,
    machine,
    of_kind,
    publish_content,
    system_disk,
)

RUN = Path("/run/machineos")
STRANGE = "its LUKS header was not written by this machine"
NO_CONFIG = "no configuration volume of this machine: "


# -- handover


def test_the_handover() -> None:
    host = handed_over(machine()).host
    entry = host.names.entry(Path("/sysroot/run/machineos/boot.json"))
    assert entry is not None
    assert entry.mode == 0o644
    document = parse_handover(entry.data)
    (service,) = document.services
    layer = layer_of("zot", host.machine)
    assert document.generation == content().fetched.verified.sha256
    assert (document.version, document.product) == (1, "default")
    assert (document.store, document.data) == ("/atomfs-store/mos", "/var/lib/machineos/data")
    assert document.data_device == "/dev/vda4"
    assert [msgspec.to_builtins(one) for one in document.volumes] == [
        {"label": "zot", "persistent": True, "size": 64, "nsgroup": "zot"}
    ]
    assert (service.name, service.version, service.type) == ("zot", "1.0.0", "container")
    assert service.image == str(image_of("zot"))
    assert (service.nsgroup, service.hostid) == ("zot", 100_000)
    assert [(one.dest, one.label) for one in service.storage] == [("/data", "zot")]
    assert service.network.type == "simple"
    assert service.layer.digest == str(layer.digest)
    assert service.layer.blob == f"/atomfs-store/mos/blobs/sha256/{layer.digest.hex}"
    assert service.layer.root_hash in layer.annotations.values()
    assert service.layer.signature == f"/run/machineos/signatures/{layer.digest.hex}.p7s"
    signature = host.names.entry(Path("/sysroot") / service.layer.signature.lstrip("/"))
    assert signature is not None
    assert len(signature.data) > 256


def test_the_bootkit_is_not_handed_to_mosd() -> None:
    """Nor hostfs; and no signatures but of services are left."""
    host = handed_over(machine()).host
    document = parse_handover(host.names.read(Path("/sysroot/run/machineos/boot.json"), 99999))
    assert [one.name for one in document.services] == ["zot"]
    run = host.names.owner(Path("/sysroot/run/machineos")).tree
    assert len([path for path in run.entries if path.endswith(".p7s")]) == 1


def test_a_disk_without_a_place_for_data() -> None:
    made = machine()
    made.disks.insert(0, system_disk("aaa", secret=bytes(32)))
    del made.disks[1].parts[3]
    assert refusal(made) == "disk vda has no partition machine-data"


# -- door and leaving


def test_a_door_that_does_not_close() -> None:
    made = machine()

    class Stuck(FakeTpm):
        def close_door(self) -> None:
            self.stuck = True
            super().close_door()

    made.tpm = of_kind(Stuck, made.tpm)
    assert refusal_with_open_door(made) == (
        "PCR 7 did not change: the TPM's secrets are still readable"
    )


def test_a_tpm_that_still_gives_out_its_secrets() -> None:
    """Its PCRs changed, and it answers all the same."""
    made = machine()
    made.tpm.lying = True
    assert refusal_with_open_door(made) == (
        "the TPM still gives out its secrets after its door was closed"
    )


def test_a_tpm_that_opens_behind_the_door_and_gives_nothing() -> None:
    """What counts is whether a secret comes out, so one is asked for."""

    class Empty(FakeTpm):
        shut = False

        def close_door(self) -> None:
            super().close_door()
            self.shut = self.lying = True

        def read(self, index: Index, key_pem: bytes) -> Secret:
            if self.shut:
                raise PolicyError("this boot does not fulfil its signed policy")
            return super().read(index, key_pem)

    made = machine()
    made.tpm = of_kind(Empty, made.tpm)
    outcome = handed_over(made)
    assert "the TPM gives out no secret any more" in outcome.lines
    asked = [arguments for name, arguments in outcome.host.calls if name == "read_sealed"]
    assert asked[-1] == (Index.CONFIGURATION_KEY,)


def refusal_with_open_door(made: FakeMachine) -> str:
    outcome = made.boot()
    assert outcome.end.__name__ == "RestartedError"
    assert "handing over to systemd" not in outcome.lines
    assert "the TPM gives out no secret any more" not in outcome.lines
    return outcome.reason


def test_no_session_is_left_open() -> None:
    for made in (machine(), machine("install")):
        calls = [name for name, _ in handed_over(made).host.calls if "seal" in name]
        assert calls == [
            "open_sealed", "read_sealed", "read_sealed", "close_sealed", "open_sealed",
            "close_sealed",
        ]  # fmt: skip


def test_a_root_without_init() -> None:
    bare = image_content("bin/sh", folders=("etc", "var", "usr/lib/modules", "config", "dev",
                                            "usr/lib/firmware",
                                            "atomfs-store", "proc", "sys", "run"))  # fmt: skip
    made = machine(disks=[system_disk(what=publish_content(hostfs=bare))])
    assert refusal(made) == "the root file system has no /usr/lib/systemd/systemd"


def test_what_comes_along() -> None:
    """The store and the configuration, and the kernel's own file systems with what is in them."""
    mounts = handed_over(machine()).host.names.mounts
    targets = {str(one.target): one.kind for one in mounts}
    assert targets == {
        "/": "rootfs", "/sysroot": "verity", "/sysroot/etc": "overlay", "/sysroot/var": "overlay",
        "/sysroot/usr/lib/modules": "bind", "/sysroot/usr/lib/firmware": "bind",
        "/sysroot/config": "ext4",
        "/sysroot/atomfs-store": "ext4", "/sysroot/proc": "proc", "/sysroot/sys": "sys",
        "/sysroot/dev": "dev", "/sysroot/run": "run", "/sysroot/run/machineos/modules": "verity",
    }  # fmt: skip


def test_the_machine_boots_again_and_again() -> None:
    made = machine()
    assert handed_over(made).lines == handed_over(made).lines
