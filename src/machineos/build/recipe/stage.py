"""Stages of a recipe, as values: what each starts from, takes in, runs and leaves behind.

Nothing is read or checked here; ``reading`` makes them of a document that holds no fault.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Literal

_SCHEME = "stacker://"


def stage_of(address: str) -> str:
    """Return the stage that ``stacker://STAGE/path`` names, empty for any other address."""
    if not address.startswith(_SCHEME):
        return ""
    return address.removeprefix(_SCHEME).partition("/")[0]


def path_in_stage(address: str) -> str:
    """Return the path that ``stacker://STAGE/path`` names in its stage, with its slash."""
    return address.removeprefix(_SCHEME + stage_of(address))


@dataclass(frozen=True, slots=True)
class ImageBase:
    """``from: docker`` or ``oci``: an image in a registry, an archive or an engine of this machine,
    spelled as ``ImageSource`` reads it, or in a layout, ``DIR:TAG``.

    ``insecure`` is what the recipe says of its registry. It opens nothing by itself: HTTP without
    TLS is spoken where whoever builds allows it.
    """

    kind: Literal["docker", "oci"]
    url: str
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class TarBase:
    """``from: tar``: one archive, a file beside the recipe, an ``https://`` URL or a file of
    another stage, ``stacker://STAGE/path``."""

    url: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class ScratchBase:
    """``from: scratch``: nothing."""


@dataclass(frozen=True, slots=True)
class BuiltBase:
    """``from: built``: another stage of the same recipe."""

    stage: str


@dataclass(frozen=True, slots=True)
class DebianBase:
    """``from: debian``: Debian packages, by mmdebstrap. Our addition to the format."""

    suite: str
    packages: tuple[str, ...] = ()
    variant: Literal["extract", "custom", "essential", "minbase"] = "minbase"
    mirror: str = ""
    snapshot: str = ""


Base = ImageBase | TarBase | ScratchBase | BuiltBase | DebianBase


@dataclass(frozen=True, slots=True)
class Import:
    """A file or folder for the stage: ``path`` is relative to its recipe, an ``https://`` URL, or
    ``stacker://stage/path``. It is put at ``dest``; without one, the script sees it at
    ``/stacker/imports/NAME`` and ``/stacker/NAME``."""

    path: str
    sha256: str = ""
    dest: str = ""
    mode: int | None = None
    uid: int = 0
    gid: int = 0

    @property
    def name(self) -> str:
        """Its name below ``/stacker/imports``."""
        return posixpath.basename(self.path.partition("?")[0].rstrip("/"))

    @property
    def contents(self) -> bool:
        """Whether ``dest`` is for what is in the folder, and not for the folder."""
        return self.path.endswith("/")

    @property
    def stage(self) -> str:
        """The stage it comes from, empty if it comes from none."""
        return stage_of(self.path)


@dataclass(frozen=True, slots=True)
class Stage:
    """One image to build. ``entrypoint`` and ``cmd`` are None where the base's are kept.

    ``folder`` is the folder of its recipe, relative to that of the recipe which is built; paths of
    the stage begin there. ``build_environment`` is for its script alone. ``architecture`` is empty
    where the recipe leaves it to the machine.
    """

    name: str
    base: Base
    folder: str = ""
    architecture: Literal["", "amd64"] = ""
    build_only: bool = False
    imports: tuple[Import, ...] = ()
    run: str = ""
    network: Literal["host", "none"] = "host"
    build_environment: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    environment: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    volumes: tuple[str, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The stages that must be built before, sorted."""
        names = {item.stage for item in self.imports}
        if isinstance(self.base, BuiltBase):
            names.add(self.base.stage)
        elif isinstance(self.base, TarBase):
            names.add(stage_of(self.base.url))
        return tuple(sorted(names - {""}))
