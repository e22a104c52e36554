"""What mosd is told, the door, and how the initrd is left."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fakes.boot import FakeMachine, RestartedError
from fakes.bootparts.files import image_content
from fakes.bootparts.tpm import FakeTpm
from fakes.bootparts.volumes import STORAGE_KEY
from machineos.boot.facts import BOOTS
from machineos.core.secret import Secret
from machineos.document.between.handover import parse_handover
from machineos.state.volumes.sealed import machine_key
from machineos.trust.measure.tpm_policy import PHASES, Phase
from machineos.trust.seal.layout import PHASES as SECRETS
from machineos.trust.seal.layout import Index
from machineos.trust.wrap.hpke import public_key
from unit.boot.ends import handed_over, refusal
from unit.boot.worlds import (
    KEY,
    content,
    device_pem,
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
    assert document.volumes_key == public_key(machine_key(Secret(STORAGE_KEY))).hex()
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


# -- door and leaving


def test_a_door_that_does_not_close() -> None:
    made = machine()

    class Stuck(FakeTpm):
        def close_door(self, phase: Phase) -> None:
            self.stuck = phase == "second"
            super().close_door(phase)

    made.tpm = of_kind(Stuck, made.tpm)
    assert refusal_with_open_door(made) == (
        "PCR 7 did not change: the TPM's secrets are still readable"
    )


def test_a_first_door_that_does_not_close() -> None:
    """Nothing of a disk is looked at then."""
    for mode in BOOTS:
        made = machine(mode)

        class Stuck(FakeTpm):
            def close_door(self, phase: Phase) -> None:
                self.stuck = True
                super().close_door(phase)

        made.tpm = of_kind(Stuck, made.tpm)
        assert refusal(made) == "PCR 11 did not change: the TPM's secrets are still readable"
        assert not {"read_header", "read_label", "mount"} & names_of(made)


def names_of(made: FakeMachine) -> set[str]:
    return {name for name, _ in made.boot().host.calls}


def test_a_tpm_that_still_gives_out_its_secrets() -> None:
    """Its PCRs changed, and it answers all the same."""
    made = machine()
    made.tpm.lying = True
    assert refusal(made) == ("the TPM still gives out its secrets after its first door was closed")
    assert not {"read_header", "mount"} & names_of(made)


@pytest.mark.parametrize("given", list(SECRETS))
@pytest.mark.parametrize("door", PHASES)
def test_a_tpm_that_gives_out_one_secret_behind_a_door(given: Index, door: Phase) -> None:
    """What counts is whether a secret comes out, so they are asked for; not all, but of each phase
    one."""

    class Giving(FakeTpm):
        passed = False

        def close_door(self, phase: Phase) -> None:
            super().close_door(phase)
            self.passed = phase == door

        def read(self, index: Index, key_pem: bytes) -> Secret:
            if index is given and self.passed:
                return Secret(self.nv[index])
            return super().read(index, key_pem)

    made = machine()
    made.tpm = of_kind(Giving, made.tpm)
    noticed = {
        "first": {Index.CONFIGURATION_KEY, Index.STORAGE_KEY},
        "second": {Index.CONFIGURATION_KEY, Index.SUDI_CERT},
    }
    outcome = made.boot()
    assert (given in noticed[door]) == (outcome.end is RestartedError)
    if given in noticed[door]:
        assert outcome.reason == (
            f"the TPM still gives out its secrets after its {door} door was closed"
        )


def test_the_keys_are_overwritten_before_documents_are_read() -> None:
    """In their place: the very bytes that the TPM gave."""
    given: list[Secret] = []

    class Watched(FakeTpm):
        def read(self, index: Index, key_pem: bytes) -> Secret:
            found = super().read(index, key_pem)
            given.append(found)
            return found

    for mode in BOOTS:
        made = machine(mode)
        made.tpm = of_kind(Watched, made.tpm)
        given.clear()
        host = handed_over(made).host
        calls = [name for name, _ in host.calls]
        private = [one for one in given if len(one) < 100 or b"PRIVATE" in bytes(one._value)]
        assert all(one.wiped for one in private)
        secrets = [one for one in given if not one.wiped]
        assert [one.reveal() for one in secrets] == [device_pem()]
        if mode == "run":
            forgotten = calls.index("forget_secret")
            assert calls.index("open_luks") < forgotten < calls.index("mount")
        used = [one for _, arguments in host.calls for one in arguments if isinstance(one, Secret)]
        kept = [one for one in used if not one.wiped]
        assert not [one for one in kept if KEY in one.reveal() or b"PRIVATE" in one.reveal()]


def refusal_with_open_door(made: FakeMachine) -> str:
    outcome = made.boot()
    assert outcome.end.__name__ == "RestartedError"
    assert "handing over to systemd" not in outcome.lines
    assert "the TPM gives out no secret any more" not in outcome.lines
    return outcome.reason


def test_no_session_is_left_open() -> None:
    for made in (machine(), machine("install")):
        calls = [
            name for name, _ in handed_over(made).host.calls if "seal" in name or "door" in name
        ]
        middle = ["read_sealed"] * (2 + 1 + (made.disks[0].optical))
        assert calls == [
            "open_sealed", "read_sealed", "read_sealed", "close_door", *middle, "close_door",
            "read_sealed", "read_sealed", "close_sealed",
        ]  # fmt: skip


def test_a_root_without_init() -> None:
    bare = image_content("bin/sh", folders=("etc", "var", "usr/lib/modules", "config", "dev",
                                            "usr/lib/firmware",
                                            "atomfs-store", "proc", "sys", "run"))  # fmt: skip
    made = machine(disks=[system_disk(what=publish_content(hostfs=bare))])
    assert refusal(made) == "the root file system: has no file /usr/lib/systemd/systemd"


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
