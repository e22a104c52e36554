"""The real kernel keeps the contract that the machine in memory keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from contracts.linux import FileVolumes, LinuxPlace, build_image
from contracts.service import CONTRACT
from fakes.units import ProcessUnits
from unit.service.system.conftest import mounts_below

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from contracts.place import Place

pytestmark = [
    pytest.mark.system,
    pytest.mark.tool("mksquashfs"),
    pytest.mark.tool("mkfs.ext4"),
    pytest.mark.tool("nft"),
    pytest.mark.tool("ip"),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The image of the contract, made once."""
    return build_image(tmp_path_factory.mktemp("image"))


@pytest.mark.usefixtures("own_network")
@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_linux(check: Callable[[Place], None], base: Path, image: bytes) -> None:
    units, log, group = base / "units", base / "log", base / "dev"
    log.mkdir()
    volumes = FileVolumes(base / "volumes", group)
    processes = ProcessUnits(units, log)
    place = LinuxPlace(
        base, image, units=processes, unit_folder=units, volumes=volumes, group=group
    )
    try:
        check(place)
        assert mounts_below(base) == []
        assert place.layers.devices == {}
    finally:
        for device in place.layers.devices.values():
            device.close()
        volumes.close()
        for process in processes.processes.values():
            process.kill()
