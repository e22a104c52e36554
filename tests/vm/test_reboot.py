"""What was pushed to the appliance's registry is there after it was booted again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from machineos.core.run import run
from vm.appliance import Bench
from vm.guest import Guest


@dataclass(frozen=True)
class Rebooted:
    """A guest, the name of what was pushed to it, and the digest that this has."""

    guest: Guest
    image: str
    digest: str


@pytest.fixture(scope="module")
def rebooted(spoiled: Guest, bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Rebooted:
    """The appliance after an image was pushed to its registry and it was booted again."""
    image = f"oci:{bench.folder}/images/probe/oci:probe"
    there = f"docker://127.0.0.1:{spoiled.port}/some/probe:1"
    run(["skopeo", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false", image, there],
        timeout=900)  # fmt: skip
    folder = tmp_path_factory.mktemp("pulled")
    digest = pulled(there, folder / "one")
    assert digest == pulled(image, folder / "own", tls=())
    spoiled.reboot()
    spoiled.wait_answer()
    spoiled.wake()
    return Rebooted(spoiled, there, digest)


@pytest.mark.tool("skopeo")
def test_an_image_pushed_can_be_pulled_back_after_a_reboot(
    rebooted: Rebooted, tmp_path: Path
) -> None:
    assert pulled(rebooted.image, tmp_path / "two") == rebooted.digest


@pytest.mark.tool("skopeo")
def test_after_a_reboot_all_is_good(rebooted: Rebooted) -> None:
    rebooted.guest.wait_until("mosctl status --json | grep -q '\"good\": true'")


def pulled(source: str, folder: Path, tls: tuple[str, ...] = ("--src-tls-verify=false",)) -> str:
    run(["skopeo", "copy", "-q", "--preserve-digests", *tls, source, f"dir:{folder}"], timeout=900)
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
