from __future__ import annotations

from pathlib import Path

import pytest

from machineos.build.media import installmedia
from machineos.build.os import appliance
from machineos.errors import MissingError
from machineos.trust.keys.keyset import Keyset
from vectors.clock import FixedClock


def test_the_digest_of_the_source_is_stable() -> None:
    assert appliance.source_digest() == appliance.source_digest()
    assert len(appliance.source_digest()) == 64


def test_media_need_a_bootkit(one: Keyset, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="keyset one has no bootkit") as caught:
        installmedia.build_media(
            one, one.project("default"), output=tmp_path / "out", variant="ordinary",
            passphrase=None, manifest="", clock=FixedClock(), say=lambda _text: None,
        )  # fmt: skip
    assert "mosb bootkit build" in caught.value.hint
    assert not (tmp_path / "out").exists()
