"""Connections that break on the way to a registry and back, at every product."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from fakes.relay import relay
from fakes.repository import MemoryRegistry
from machineos.oci.graph.copy import copy_graph
from unit.oci.samples import put_artifact, put_image
from unit.registries import opened

if TYPE_CHECKING:
    from pathlib import Path

NOISE = random.Random(2).randbytes(3 << 20)


@pytest.mark.works("go on after a break")
def test_a_copy_goes_on_where_the_line_broke(product: str, name: str, tmp_path: Path) -> None:
    source, back = MemoryRegistry().repository("a"), MemoryRegistry().repository("b")
    image = put_image(source, "1.0", (NOISE,))
    put_artifact(source, image.root, b"signed")
    with relay(product) as line, opened(line.host, tmp_path) as client:
        there = client.repository(name)
        line.cut_after(1 << 20)
        copy_graph(source, there, "1.0", tag="1.0", referrers=True)
        assert line.cuts == 1
        line.cut_after(1 << 20)
        assert copy_graph(there, back, "1.0", tag="1.0", referrers=True) == image.root
        assert line.cuts == 2
    assert back.blob(image.layers[0], limit=len(NOISE)) == NOISE
    assert len(back.referrers(image.root.digest)) == 1
