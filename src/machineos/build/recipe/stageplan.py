"""How a stage is built: its key in the cache, its configuration, what the cache remembers of it.

Nothing here reads or writes. A stage's key is a digest over all that decides its content.
Invariant: two stages with equal keys have the same tree and configuration, as far as the scripts of
the recipe are reproducible.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from machineos.build.recipe.config import ImageConfig
from machineos.build.recipe.veritylayer import VerityLayer
from machineos.core.digest import Digest
from machineos.core.word import RootHash
from machineos.errors import DigestError, DocumentError, Fault, PolicyError
from machineos.oci.model.architecture import architecture
from machineos.oci.model.reference import ImageSource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from machineos.build.recipe.stage import Stage

DEFAULT_EPOCH = 1_767_225_600  # 2026-01-01, so that a build needs no clock
_FORMAT = "3"  # part of every key: raise it when the same recipe comes to mean something else
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Meta(msgspec.Struct, frozen=True):
    """What the cache remembers of a stage besides its tree."""

    config: ImageConfig


class LayerMeta(msgspec.Struct, frozen=True):
    """What the cache remembers of a packed layer."""

    size: int
    digest: str
    root_hash: str
    media_type: str
    data_size: int

    @classmethod
    def of(cls, layer: VerityLayer) -> LayerMeta:
        """Return what to remember of ``layer``."""
        return cls(
            layer.size,
            str(layer.digest),
            str(layer.root_hash),
            layer.media_type,
            layer.data_size,
        )

    def layer(self, path: Path) -> VerityLayer:
        """Return the layer, which is in the file ``path``. Raises: DocumentError."""
        return VerityLayer(
            path=path,
            size=self.size,
            digest=Digest.parse(self.digest),
            root_hash=RootHash(self.root_hash),
            media_type=self.media_type,
            data_size=self.data_size,
        )


def stage_key(stage: Stage, base: str, imports: Sequence[str], *, epoch: int) -> str:
    """Return the key of a stage on top of what ``base`` identifies; ``imports`` identify what is
    imported, with its kind and mode."""
    parts = msgspec.json.encode(
        [_FORMAT, epoch, base, list(imports), content_of(stage)], order="deterministic"
    )
    return hashlib.sha256(parts).hexdigest()


def content_of(stage: Stage) -> dict[str, object]:
    """Return everything of a stage that decides its tree and configuration, and nothing else."""
    body: dict[str, object] = msgspec.to_builtins(stage)
    for key in ("name", "folder", "build_only", "annotations", "base"):
        del body[key]
    if stage.run:
        body["name"] = stage.name  # which its script is told
    return body


def script_environment(stage: Stage, base: ImageConfig) -> dict[str, str]:
    """Return the environment of a stage's script, which begins from ``base``."""
    own = {**dict(stage.environment), **dict(stage.build_environment)}
    return {**base.environment, **own, "STACKER_LAYER_NAME": stage.name}


def check_machine(stages: Sequence[Stage], machine: str, *, recipe: str) -> None:
    """Refuse stages for another architecture than this machine's. Raises: DocumentError."""
    faults = [
        Fault(f"{stage.name}.arch", 0, f"{stage.architecture!r} is not built on this {machine}")
        for stage in stages
        if stage.architecture not in {"", machine}
    ]
    if faults:
        raise DocumentError(recipe, faults)


def new_config(machine: str) -> ImageConfig:
    """Return the configuration of an image that starts from nothing, for ``uname -m``."""
    return ImageConfig(architecture=architecture(machine), run={"Env": [_PATH]})


def configure(stage: Stage, base: ImageConfig) -> ImageConfig:
    """Return the configuration of a stage: its own keys over those of its base."""
    settings = dict(base.run)
    if stage.entrypoint is not None:
        settings["Entrypoint"] = list(stage.entrypoint)
        settings.pop("Cmd", None)  # the base's arguments were for the base's entry point
    if stage.cmd is not None:
        settings["Cmd"] = list(stage.cmd)
    environment = {**base.environment, **dict(stage.environment)}
    if environment:
        settings["Env"] = [f"{name}={value}" for name, value in environment.items()]
    if stage.working_dir:
        settings["WorkingDir"] = stage.working_dir
    if stage.user:
        settings["User"] = stage.user
    if stage.labels:
        settings["Labels"] = {**settings.get("Labels", {}), **dict(stage.labels)}
    if stage.volumes:
        named: dict[str, dict[str, str]] = {name: {} for name in stage.volumes}
        settings["Volumes"] = {**settings.get("Volumes", {}), **named}
    return msgspec.structs.replace(base, run=settings)


def image_url(url: str, place: Callable[[str], Path], *, allow_engines: bool) -> str:
    """Return the ``url`` of ``from: docker``, a file in it where ``place`` says that the recipe has
    it.

    A recipe may be a stranger's, and its scripts may send anywhere what it starts from. So what
    container engines hold for the user is for recipes of whom he trusts, ``allow_engines``. Raises:
    DocumentError, PolicyError, and what ``place`` raises.
    """
    if url.startswith("docker://"):
        return url
    source = ImageSource.parse(url)
    if source.way is not None and source.file is None and not allow_engines:
        raise PolicyError(
            f"{url} is an image of this machine's container engines, which a recipe may send away",
            hint="if the recipe may read what they hold: --allow-engines",
        )
    if source.file is None:
        return url
    return str(msgspec.structs.replace(source, file=place(str(source.file))))


def layout_image(url: str, *, recipe: str, stage: str) -> tuple[str, str]:
    """Return folder and tag of ``from: oci``, ``DIR:TAG``. Raises: DocumentError."""
    folder, colon, tag = url.rpartition(":")
    if not colon or not folder:
        message = f"{url[:80]!r} is not DIR:TAG"
        raise DocumentError(recipe, [Fault(f"{stage}.from.url", 0, message)])
    return folder, tag


def check_download(url: str, wanted: str, found: str, *, allow_unpinned: bool) -> None:
    """Refuse what came from ``url`` with the sha256 ``found``, unless the recipe says ``wanted`` of
    it, or says nothing and need not. Raises: DigestError, PolicyError."""
    if wanted and found != wanted:
        raise DigestError(f"{url}: sha256 is {found}, the recipe says {wanted}")
    if not wanted and not allow_unpinned:
        raise PolicyError(
            f"{url}: the recipe gives no checksum; what came now has the sha256 {found}",
            hint=f"write it as {{path: {url}, hash: {found}}}, or build with --allow-unpinned",
        )


def check_import(path: str, wanted: str, found: str) -> None:
    """Refuse a local import with another digest than the recipe says. Raises: DigestError."""
    if wanted and found != wanted:
        raise DigestError(f"import {path}: sha256 is {found}, the recipe says {wanted}")
