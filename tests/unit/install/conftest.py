"""A machine in memory with a published manifest in its reach; the world of the manifest tests."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fakes.machine import FakeHost, FakeMachine
from machineos.core.facts import Facts, Part
from machineos.core.secret import Secret
from machineos.core.steps import Runner, Step
from machineos.document.between.medium import (
    CA_CERTIFICATE,
    CA_KEY,
    CA_SIGNATURE,
    INDEX_FILE,
    INSTALL_KEY,
    INTEGRITY_KEY,
    LAYOUTS,
    VERSION,
    MediumIndex,
)
from machineos.host.disk.device import Disk
from machineos.install.phases import PHASES, given
from machineos.install.source import MEDIUM, TRUST, Wish
from machineos.install.steps import perform
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRegistry, LayoutRepository
from machineos.oci.model.place import Place
from machineos.oci.model.repository import Registry
from machineos.trust.seal.hostca import make_host_ca
from machineos.trust.verify.chain import verify_sudi
from unit.document.conftest import (
    PRODUCT,
    SOURCE,
    Authority,
    MemoryRepository,
    World,
    authority,
    published_world,
    put_image,
    stranger,
    template,
    world,
)
from unit.registries import docker_registry, fake, product
from vectors.certificates import SUDI_CA_NAME, ca, device, key

__all__ = [
    "authority",
    "docker_registry",
    "fake",
    "product",
    "published_world",
    "stranger",
    "template",
    "world",
]

KEY = Secret(bytes(range(200, 232)))
BLOCKS_KEY = Secret(bytes(range(100, 132)))
UUID = "0b0f8dd4-37d6-4b15-8b9e-3f1d8a1c7a11"
HOST = "registry.example"
PLACE = Place.parse_remote(f"{HOST}/machine/install:1.0.0", plain_http=False)
NEWER = Place.parse_remote(f"{HOST}/machine/install:2.0.0", plain_http=False)
VDA = Disk("vda", 20 << 30, read_only=False, removable=False)
SMALL = Disk("vdb", 1 << 20, read_only=True, removable=False)
ONE_LAYER = SOURCE.replace("oci:{images}:zot", "oci:{images}:single")


class MemoryRegistry:
    """Repositories in memory, by name."""

    name = "memory"

    def __init__(self) -> None:
        self.repositories: dict[str, MemoryRepository] = {}

    def repository(self, name: str) -> MemoryRepository:
        return self.repositories.setdefault(name, MemoryRepository())

    def take(self, registry: LayoutRegistry, names: tuple[str, ...]) -> None:
        """Copy all tagged manifests of these repositories, with what refers to them."""
        for name in names:
            source = registry.repository(name)
            for tag in source.tags():
                copy_graph(source, self.repository(name), tag, tag=tag, referrers=True, workers=1)


def in_memory(world: World) -> MemoryRegistry:
    """Return what a world has published, in memory."""
    registry = MemoryRegistry()
    registry.take(world.registry, ("machine/install", "mos"))
    return registry


@pytest.fixture(scope="session")
def shelf(
    tmp_path_factory: pytest.TempPathFactory, template: World, authority: Authority
) -> MemoryRegistry:
    """A registry with two versions of a product; never changed by a test."""
    folder = tmp_path_factory.mktemp("shelf")
    made = World(folder / "images", folder / "registry", authority)
    shutil.copytree(template.images, made.images)
    images = LayoutRepository(made.images, writable=True)
    put_image(images, "single")
    made.publish(ONE_LAYER)
    put_image(images, "bootkit", contents=(b"the newer boot files", b"and modules"))
    made.publish(ONE_LAYER.replace("version: 1.0.0", "version: 2.0.0"), tag="2.0.0")
    return in_memory(made)


@functools.cache
def device_pem(label: str) -> bytes:
    return device().but(serial_number=f"PID:{PRODUCT} SN:SN0001", key=key(label)).pem()


@functools.cache
def host_ca(label: str = "device") -> dict[str, Secret]:
    """What the initrd leaves of the CA that it made, by name; signed with the key of this name."""
    return host_ca_of(device_pem(label), label)


def host_ca_of(device_certificate: bytes, label: str = "device") -> dict[str, Secret]:
    """The same for the machine of this certificate."""
    sudi_ca = ca(SUDI_CA_NAME, "sudi-ca").pem()
    identity = verify_sudi(device_certificate, ca_pem=sudi_ca, at=None)
    private = key(label).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    secret, certificate, signature = make_host_ca(identity, Secret(private), random=bytes)
    parts = (secret, Secret(certificate), Secret(signature))
    return dict(zip((CA_KEY, CA_CERTIFICATE, CA_SIGNATURE), parts, strict=True))


@pytest.fixture
def machine(shelf: MemoryRegistry, authority: Authority) -> FakeMachine:
    """A machine of this product that was booted from an install medium, its disk empty."""
    return make_machine(shelf, authority)


def make_machine(registry: Registry, authority: Authority) -> FakeMachine:
    index = MediumIndex(version=VERSION, live="machine/live:1", install="machine/install:1.0.0")
    return FakeMachine(
        disks=(VDA,),
        files={
            MEDIUM / INDEX_FILE: index.to_bytes(),
            TRUST / "device.pem": device_pem("device"),
            TRUST / "sudi-ca.pem": ca(SUDI_CA_NAME, "sudi-ca").pem(),
            TRUST / "manifest-ca.pem": authority.pem,
        },
        keys={INSTALL_KEY: KEY, INTEGRITY_KEY: BLOCKS_KEY, **host_ca()},
        publishers=frozenset({der_of(authority.publisher.certificate_pem)}),
        network={HOST: registry},
        folders={MEDIUM / LAYOUTS: registry},
    )


def der_of(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


@dataclass
class Watched:
    """An installation that is looked at: every step, every fault point, what each phase is called,
    and that a step without a fault point persists nothing."""

    host: FakeHost
    steps: list[Step[object]] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def run(self, wish: Wish, phases: Sequence[Part] = PHASES) -> Facts:
        """Take the phases of an installation."""
        return self.take(phases, given(wish, uuid=UUID))

    def take(self, phases: Sequence[Part], facts: Facts, *holding: str) -> Facts:
        """Take some phases; ``holding`` are facts without a value."""
        runner: Runner[Facts] = Runner(
            self._perform,
            watch=self.points.append,
            begin=lambda phase: self.phases.append(phase.name),
        )
        return runner.run(phases, facts, given=facts.names() | set(holding))

    def _perform(self, step: Step[object]) -> object:
        self.steps.append(step)
        self.starts.append(self.host.kept.operations)
        if step.point:
            return perform(self.host, step)
        kept = self.host.kept.snapshot()
        answer = perform(self.host, step)
        assert self.host.kept.snapshot() == kept, f"{step} persists and has no fault point"
        return answer


def install(machine: FakeMachine, place: Place | None = PLACE, *, disk: str = "") -> Watched:
    """Install a machine from one boot of the medium."""
    watched = Watched(machine.boot())
    watched.run(Wish(place, disk))
    return watched
