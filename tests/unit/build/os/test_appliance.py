from __future__ import annotations

from pathlib import Path

import pytest

from fakes.randomness import FixedRandomness
from machineos.build.media import installmedia
from machineos.build.os import appliance
from machineos.errors import MissingError
from machineos.trust.keys.keyset import add_project, create_keyset, find_project
from vectors.clock import FixedClock

ROOT = Path("/keysets/k")


def test_variants_never_share_a_folder() -> None:
    for place in (appliance.hostfs_layout, appliance.bootkit_folder):
        assert len({place(ROOT, variant) for variant in ("ordinary", "debug-console")}) == 2
    assert appliance.hostfs_layout(ROOT, "ordinary") == ROOT / "hostfs/oci"
    assert appliance.bootkit_folder(ROOT, "ordinary") == ROOT / "bootkit"


def test_the_digest_of_the_source_is_stable() -> None:
    assert appliance.source_digest() == appliance.source_digest()
    assert len(appliance.source_digest()) == 64


@pytest.fixture
def keysets(tmp_path: Path) -> Path:
    clock = FixedClock()
    keyset = create_keyset(
        tmp_path, "k", organization="Acme", passphrase=None, clock=clock, random=FixedRandomness()
    )
    if "default" not in [project.name for project in keyset.list_projects()]:
        add_project(
            keyset, "default", passphrase=None, clock=clock, random=FixedRandomness("later")
        )
    return tmp_path


def test_media_need_a_bootkit(keysets: Path, tmp_path: Path) -> None:
    keyset, project = find_project(keysets, "k:default")
    with pytest.raises(MissingError, match="keyset k has no bootkit") as caught:
        installmedia.build_media(
            keyset, project, output=tmp_path / "out", variant="ordinary", passphrase=None,
            manifest="", clock=FixedClock(), say=lambda _text: None,
        )  # fmt: skip
    assert "mosb bootkit build" in caught.value.hint
    assert not (tmp_path / "out").exists()
