"""The small disk with the device identity: a private key in clear, so nobody else may see it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fakes.randomness import FixedRandomness
from machineos.core.run import run
from machineos.core.secret import Secret
from machineos.document.rules.images import layers_of
from machineos.errors import MachineOSError
from machineos.host.disk.blockdev import volume_label
from machineos.launch.parts import identity_disk, media_for
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import VERSION_LABEL
from machineos.oci.model.place import Place
from machineos.trust.keys.keyset import Keyset, add_sudi
from unit.build import ready
from vectors.clock import FixedClock
from waiting import PATIENCE

pytestmark = [pytest.mark.tool("mkfs.vfat"), pytest.mark.tool("mcopy")]


def test_it_is_private_in_memory_and_gone_afterwards(own: Keyset, clock: FixedClock) -> None:
    """The predecessor left it beside the keyset."""
    pair = add_sudi(
        own.project("default"), "SN1", clock=clock, random=FixedRandomness("later"), passphrase=None
    ).pair
    before = set(own.root.rglob("*"))
    with identity_disk(pair, None) as image:
        assert volume_label(image) == "trust-data"
        assert stat.S_IMODE(image.stat().st_mode) == 0o600
        assert stat.S_IMODE(image.parent.stat().st_mode) == 0o700
        assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in image.parent.iterdir())
        assert image.is_relative_to("/dev/shm")
        key = run(["mcopy", "-n", "-i", image, "::privkey.pem", "-"], timeout=PATIENCE).stdout
        assert load_pem_private_key(key, None).public_key() == pair.certificate().public_key()
        certificate = run(["mcopy", "-n", "-i", image, "::cert.pem", "-"], timeout=PATIENCE).stdout
        assert certificate == pair.certificate_pem()
    assert not image.parent.exists()
    assert set(own.root.rglob("*")) == before


def test_it_is_gone_also_when_the_launch_fails(own: Keyset, clock: FixedClock) -> None:
    pair = add_sudi(
        own.project("default"), "SN1", clock=clock, random=FixedRandomness("later"), passphrase=None
    ).pair
    seen: list[Path] = []

    def launch() -> None:
        with identity_disk(pair, None) as image:
            seen.append(image.parent)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        launch()
    assert not seen[0].exists()


def test_a_passphrase_that_does_not_fit(own: Keyset, clock: FixedClock) -> None:
    pair = add_sudi(
        own.project("default"), "SN1", clock=clock, random=FixedRandomness("later"), passphrase=None
    ).pair
    with pytest.raises(MachineOSError), identity_disk(pair, Secret(b"correct horse")):
        raise AssertionError("was made")


@pytest.mark.root
@pytest.mark.tool("xorriso")
@pytest.mark.tool("mksquashfs")
@pytest.mark.tool("sqfs2tar")
@pytest.mark.tool("veritysetup")
def test_the_media_stay_in_the_keyset(own: Keyset, clock: FixedClock) -> None:
    """As in seed 002; what a launch boots from stays what it is when another launch builds."""
    for layout, tag in (("hostfs/oci", "hostfs"), ("bootkit/oci", "bootkit-squashfs")):
        repository = LayoutRepository(own.root / layout, writable=True)
        layers = [ready.noted(f"{tag} {number}") for number in range(layers_of(tag.split("-")[0]))]
        ready.put(repository, tag, *layers, run={"Labels": {VERSION_LABEL: "1"}})
    for name in ("shim", "provision", "install"):
        (own.root / f"bootkit/{name}.efi").write_bytes(name.encode() * 100)
    place = Place.parse("127.0.0.1:5000/machine/install:1.0.0", plain_http=True)
    with media_for(
        place, own, own.project("default"), passphrase=None, variant="ordinary", clock=clock,
        say=lambda _text: None,
    ) as media:  # fmt: skip
        first = media["provision"].read_bytes()
        assert volume_label(media["url"]) == "inst-data"
        assert (own.root / "artifacts/provision.iso").samefile(media["provision"])
        assert (own.root / "artifacts/install.iso").samefile(media["install"])
        (own.root / "artifacts/provision.iso").unlink()
        (own.root / "artifacts/provision.iso").write_bytes(b"of another launch")
        assert media["provision"].read_bytes() == first
    kept = {path.name for path in (own.root / "artifacts").iterdir()}
    assert kept == {"provision.iso", "install.iso", ".lock", ".proved"}
