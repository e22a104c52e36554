"""A whole installation on a machine in memory: what it says, does and leaves."""

from __future__ import annotations

from fakes.machine import FakeMachine
from machineos.document.between.medium import INSTALL_KEY
from machineos.install.phases import PHASES

from .conftest import KEY, NEWER, MemoryRegistry, install


def document_of(shelf: MemoryRegistry, tag: str) -> str:
    repository = shelf.repository("machine/install")
    return install_sha(repository.manifest(tag)[1])


def install_sha(manifest: bytes) -> str:
    from machineos.oci.model.documents import parse_manifest

    return parse_manifest(manifest, name="x").layers[0].digest.hex


def test_what_the_console_shows(machine: FakeMachine, shelf: MemoryRegistry) -> None:
    """Word for word: trust launch and the tests of guests read these lines."""
    done = install(machine)
    assert done.host.said == [
        "installing registry.example/machine/install:1.0.0 on disk vda",
        f"manifest {document_of(shelf, '1.0.0')[:12]} of product default verified",
        "fetching zot 1.0.0",
        "fetching hostfs v0.1.0",
        f"fetching bootkit {done_version(shelf)}",
        "writing to disk vda",
        "images",
        "configuration",
        "boot files",
        "installed successfully: registry.example/machine/install:1.0.0",
    ]


def done_version(shelf: MemoryRegistry) -> str:
    from machineos.document.product.install import parse_install

    repository = shelf.repository("machine/install")
    from machineos.oci.model.documents import parse_manifest

    layer = parse_manifest(repository.manifest("1.0.0")[1], name="x").layers[0]
    target = parse_install(repository.blob(layer, limit=1 << 20)).target("bootkit")
    assert target is not None
    return target.version


def test_what_is_left_is_a_machine(machine: FakeMachine, shelf: MemoryRegistry) -> None:
    assert machine.installed(KEY, disk="vda") == ""
    done = install(machine)
    assert machine.installed(KEY, disk="vda") == document_of(shelf, "1.0.0")
    assert INSTALL_KEY not in done.host.keys
    assert done.host.mounted == {}
    assert done.host.images == {}
    assert done.host.opened is None
    assert [entry.description for _, entry in machine.entries()] == ["machineos-a"]


def test_installing_over_an_installation(machine: FakeMachine, shelf: MemoryRegistry) -> None:
    install(machine)
    install(machine, NEWER)
    assert machine.installed(KEY, disk="vda") == document_of(shelf, "2.0.0")
    assert [entry.description for _, entry in machine.entries()] == ["machineos-a"]


def test_the_phases_in_their_order(machine: FakeMachine) -> None:
    done = install(machine)
    assert done.phases == [phase.name for phase in PHASES] == [
        "check", "look", "identify", "reach", "make room", "fetch the manifest", "fetch the images",
        "divide the disk", "find the partitions", "make file systems", "store the images",
        "store the configuration", "write the boot files", "point the firmware", "end",
    ]  # fmt: skip
