"""From the files of a configuration to what is going to run: every flipped bit is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.boot import root
from machineos.document.state import system
from machineos.document.verify.published import fetch_verified
from machineos.errors import (
    BootError,
    MachineOSError,
    MissingError,
    PolicyError,
    SignatureError,
    VerificationError,
)
from machineos.oci.layout.folder import LayoutRepository
from unit.document.conftest import NOW, OTHER_PRODUCT, PRODUCT, SOURCE, World, put_image

ONE_LAYER = SOURCE.replace("oci:{images}:zot", "oci:{images}:single")


@pytest.fixture
def ready(world: World) -> World:
    put_image(LayoutRepository(world.images, writable=True), "single")
    world.publish(ONE_LAYER)
    return world


@pytest.fixture
def config(ready: World, tmp_path: Path) -> Path:
    """The configuration as the installer writes it."""
    fetched = fetch_verified(
        ready.registry.repository("machine/install"), "1.0.0", ca_pem=ready.authority.pem, at=NOW,
        product=PRODUCT,
    )  # fmt: skip
    verified = fetched.verified
    merged = system.merge([verified])
    stored = system.system_file(merged, system.assign_idmaps({}, merged.groups))
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / system.SYSTEM_FILE).write_bytes(stored.to_bytes())
    contents = (verified.data, fetched.signature, fetched.certificate_pem)
    for name, data in zip(system.document_files(verified.sha256), contents, strict=True):
        (folder / name).write_bytes(data)
    return folder


def load(config: Path, world: World, **changes: object) -> root.Generation:
    arguments = {"ca_pem": world.authority.pem, "product": PRODUCT, **changes}
    return root.load_generation(config, **arguments)


def test_a_generation(config: Path, ready: World) -> None:
    generation = load(config, ready)
    names = [entry.target.service_name for entry in generation.system.targets]
    assert names == ["zot", "hostfs", "bootkit"]
    assert generation.idmaps["zot"] >= 65536
    images = generation.images(ready.registry.repository("mos"))
    assert [image.target.service_name for image in images] == names
    assert all(image.signature for image in images)


@pytest.mark.parametrize("suffix", [".json", ".signed", ".pem", ".yaml"])
def test_flipped_bits(config: Path, ready: World, suffix: str) -> None:
    """Refused, or without meaning: what would run is the same."""
    good = load(config, ready)
    (path,) = (item for item in config.iterdir() if item.name.endswith(suffix))
    data = path.read_bytes()
    refused = 0
    places = range(0, len(data), max(1, len(data) // 60))
    for number, place in enumerate(places):
        bad = bytearray(data)
        bad[place] ^= 1 << number % 8
        path.write_bytes(bytes(bad))
        try:
            found = load(config, ready)
        except MachineOSError:
            refused += 1
            continue
        assert suffix in {".pem", ".yaml"}
        # Lines around the base64 may change; the id ranges are not signed.
        assert (found.system, found.publishers) == (good.system, good.publishers)
    assert refused >= len(places) * (1 if suffix in {".json", ".signed"} else 0.5)


def test_a_missing_file(config: Path, ready: World) -> None:
    for path in sorted(config.iterdir()):
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(MissingError):
            load(config, ready)
        path.write_bytes(data)
    load(config, ready)


def test_a_link_or_fifo_for_a_file(config: Path, ready: World) -> None:
    import os

    for path in sorted(config.iterdir()):
        data = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(MachineOSError, match="not a regular file"):
            load(config, ready)
        path.unlink()
        path.symlink_to("/dev/zero")
        with pytest.raises(MachineOSError, match="symbolic link"):
            load(config, ready)
        path.unlink()
        path.write_bytes(data)


def test_another_product_or_ca(config: Path, ready: World, stranger: object) -> None:
    with pytest.raises(PolicyError):
        load(config, ready, product=OTHER_PRODUCT)
    with pytest.raises(SignatureError):
        load(config, ready, ca_pem=stranger.pem)


def test_an_empty_configuration(tmp_path: Path, ready: World) -> None:
    with pytest.raises(MissingError):
        load(tmp_path, ready)


def test_an_image_with_two_layers(ready: World, config: Path) -> None:
    generation = load(config, ready)
    two = SOURCE.replace("oci:{images}:zot", "oci:{images}:two")
    ready.publish_carelessly(two, tag="2.0.0")
    fetched = fetch_verified(
        ready.registry.repository("machine/install"), "2.0.0", ca_pem=ready.authority.pem, at=NOW,
        product=PRODUCT,
    )  # fmt: skip
    target = fetched.verified.install.targets[0]
    with pytest.raises(VerificationError, match="image of zot: has 2 layers"):
        root.find_image(ready.registry.repository("mos"), target, fetched.verified.publisher)
    assert generation.publishers


def test_the_handover(ready: World, config: Path) -> None:
    generation = load(config, ready)
    store = ready.registry.repository("mos")
    document = root.make_handover(
        generation, generation.images(store), store=Path("/store"),
        data=root.Data(Path("/dev/vda4"), Path("/data")),
        run=Path("/run/machineos"),
    )  # fmt: skip
    services = {service.name: service for service in document.services}
    assert "hostfs" not in services
    zot = services["zot"]
    digest = zot.layer.digest.removeprefix("sha256:")
    assert zot.layer.blob == f"/store/blobs/sha256/{digest}"
    assert zot.layer.signature == f"/run/machineos/signatures/{digest}.p7s"
    assert zot.hostid == generation.idmaps["zot"]
    from machineos.document.between.handover import encode_handover, parse_handover

    assert parse_handover(encode_handover(document)) == document


def test_a_bootkit_for_another_kernel(tmp_path: Path) -> None:
    (tmp_path / "usr/lib/modules/6.1").mkdir(parents=True)
    with pytest.raises(BootError, match=r"no modules for this kernel, 6\.12"):
        root.add_modules(tmp_path, tmp_path, "6.12")
