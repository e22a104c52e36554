"""A keyset, and a manifest that its default project published into a folder of layouts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.layers import AnyLayer
from machineos.build.publish import publish as publisher
from machineos.build.publish.plan import Publishing
from machineos.build.publish.source import parse_source
from machineos.oci.layout.folder import LayoutRegistry, LayoutRepository
from machineos.oci.model.place import Place
from machineos.trust.keys.keyset import Keyset, Project
from machineos.trust.keys.signer import FileSigner
from unit.document.conftest import SOURCE, open_layout, put_image
from vectors.clock import FixedClock


@dataclass(frozen=True)
class Shelf:
    """Images and a registry folder; ``publish`` signs with a project of a keyset."""

    folder: Path

    @property
    def registry(self) -> LayoutRegistry:
        return LayoutRegistry(self.folder / "registry", writable=True)

    @property
    def place(self) -> Place:
        return Place.parse(f"oci:{self.folder}/registry:machine/install:1.0.0", plain_http=False)

    def publish(self, project: Project) -> None:
        images = self.folder / "images"
        put_image(LayoutRepository(images, writable=True), "zot")
        text = SOURCE.replace("{images}", str(images)).replace("complete", "partial")
        publishing = Publishing(
            source=parse_source(text.encode()),
            signer=FileSigner.open(project.pair),
            ca_pem=project.keyset.key("manifest-ca").certificate_pem(),
            at=FixedClock().now(),
            product=project.uuid,
            open_source=open_layout,
            inspector=AnyLayer(),
        )
        place = publisher.Place(self.registry, "machine/install", "1.0.0")
        publisher.publish(publishing, place)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.fixture
def project(one: Keyset) -> Project:
    return one.project("default")
