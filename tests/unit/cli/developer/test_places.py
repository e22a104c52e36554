"""What is offered of images and manifests in layouts."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from machineos.cli.developer import places
from unit.document.conftest import World, authority, published_world, template, world

__all__ = ["authority", "published_world", "template", "world"]


def context(**given: str) -> click.Context:
    made = click.Context(click.Command("c"))
    made.params.update(given)
    return made


PARAMETER = click.Option(["--x"])


def test_names_of_manifests(published_world: World) -> None:
    here = context(repo=f"oci:{published_world.root}")
    assert places.manifests(here, PARAMETER, "") == ["machine/install:1.0.0"]
    assert places.manifests(here, PARAMETER, "machine/install:1") == ["machine/install:1.0.0"]
    assert places.manifests(here, PARAMETER, "other") == []
    for elsewhere in (context(), context(repo="h:5000"), context(repo="oci:/nonexistent")):
        assert places.manifests(elsewhere, PARAMETER, "") == []


def test_targets(published_world: World) -> None:
    repo = f"oci:{published_world.root}"
    here = context(repo=repo, name="machine/install:1.0.0")
    found = places.targets(here, PARAMETER, "")
    assert "zot" in found
    assert places.targets(here, PARAMETER, "zo") == ["zot"]
    for name in ("machine/install:none", "mos:none", "x", ""):
        assert places.targets(context(repo=repo, name=name), PARAMETER, "") == []


def test_images(published_world: World) -> None:
    begun = f"oci:{published_world.images}:zo"
    assert places.images(context(), PARAMETER, begun) == [f"{begun}t"]
    for other in ("", "oci:", "docker://h/x:", "oci:/nonexistent:", f"oci:{__file__}:"):
        assert places.images(context(), PARAMETER, other) == []


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_what_cannot_be_read_offers_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/index.json").write_text("{}")
    (tmp_path / "a" / name).write_text("[[[")
    assert places.manifests(context(repo=f"oci:{tmp_path}"), PARAMETER, "") == []
    assert places.images(context(), PARAMETER, f"oci:{tmp_path}/a:") == []
