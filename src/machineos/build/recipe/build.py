"""Recipes become images: stage after stage, each reused while nothing that went into it changed.

A stage's key is a digest over all that decides its content; its tree and configuration live in the
cache under that key and appear there only when they are whole. Invariant: two builds with equal
keys publish the same digest, as far as the scripts of the recipe are reproducible (times are not
theirs to choose: none in the image is later than the epoch).
"""

from __future__ import annotations

import os
import platform
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from machineos.build.recipe import imports as importing
from machineos.build.recipe import inputs as recording
from machineos.build.recipe.config import ImageConfig
from machineos.build.recipe.conversion import Unpacking
from machineos.build.recipe.convert import read_image, unpack_image
from machineos.build.recipe.download import Downloads
from machineos.build.recipe.filesystem import make_layer
from machineos.build.recipe.flatten import Flattener
from machineos.build.recipe.image import put_image
from machineos.build.recipe.inputsfile import keep_inputs
from machineos.build.recipe.layers import uncompressed
from machineos.build.recipe.member import Limits, Policy
from machineos.build.recipe.placement import resolve_in
from machineos.build.recipe.sandbox import require_programs, run_script
from machineos.build.recipe.script import Script
from machineos.build.recipe.stage import (
    BuiltBase,
    DebianBase,
    ImageBase,
    Import,
    ScratchBase,
    Stage,
    TarBase,
)
from machineos.build.recipe.stageplan import (
    DEFAULT_EPOCH,
    LayerMeta,
    Meta,
    check_machine,
    configure,
    image_url,
    layout_image,
    new_config,
    script_environment,
    stage_key,
)
from machineos.build.recipe.stagetree import (
    add_mount_points,
    clamp,
    programs,
    remove,
    require_shallow,
    sweep,
)
from machineos.core.digest import Digest
from machineos.core.files import locked, read_bounded, write_atomic
from machineos.core.run import run
from machineos.document.rules.programs import STACK
from machineos.errors import DocumentError, Fault, MissingError
from machineos.host.pack import mmdebstrap, tools
from machineos.host.pack.caller import own_ids
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.architecture import architecture
from machineos.oci.registry.access import Access

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from machineos.build.recipe.recipe import Recipe
    from machineos.build.recipe.veritylayer import VerityLayer
    from machineos.core.clock import Clock
    from machineos.host.pack.container import Ids
    from machineos.oci.model.atomfs import FilesystemKind
    from machineos.oci.model.documents import Descriptor
    from machineos.oci.model.repository import Repository

    _Gathered: TypeAlias = tuple[Path, importing.Content]

M = TypeVar("M", bound=msgspec.Struct)
_CHUNK = 1 << 20
_META_LIMIT = 1 << 20
_COPY_TIMEOUT = 3600.0
_WORK = "stage-"
# Debian's own set-user-id programs stay: a recipe is its author's, unlike a foreign image.
_OWN = Policy(setuid="keep")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a build is given besides the recipe.

    ``base`` is the recipe's folder, ``cache`` is kept between builds. ``open_image`` gives the
    repository and what the image is called in it, for what ``ImageSource`` reads. ``access`` has
    the certificates and proxies for everything else on the network. ``allowed`` are folders that
    the recipe may read besides its own, ``allow_engines`` is whether it may read what container
    engines hold.
    """

    base: Path
    cache: Path
    clock: Clock
    epoch: int = DEFAULT_EPOCH
    kind: FilesystemKind = "squashfs"
    allow_unpinned: bool = False
    allow_engines: bool = False
    open_image: Callable[[str], tuple[Repository, str]] | None = None
    access: Access = field(default_factory=Access)
    progress: Callable[[str], None] = field(default=lambda _line: None)
    limits: Limits = field(default_factory=Limits)
    allowed: tuple[Path, ...] = ()


def build(
    recipe: Recipe, sink: Repository, settings: Settings, *, stages: tuple[str, ...] | None = None
) -> dict[str, Descriptor]:
    """Build ``stages`` (None: the recipe's own) and what they need; return the manifests of those
    that were published.

    Stages that are ``build_only`` are not published. The tag in ``sink`` is the stage's name.
    Raises: DocumentError, MissingError, VerificationError and below, TransferError, SpaceError,
    ToolError, UsageError for a caller without subordinate ids, or who has not entered them
    (``host.pack.caller``).
    """
    ids = own_ids("building images")
    chosen = recipe.closure(stages)
    check_machine(chosen, architecture(platform.machine()), recipe=recipe.name)
    settings.cache.mkdir(parents=True, exist_ok=True)
    result: dict[str, Descriptor] = {}
    with locked(settings.cache / "lock", what=f"the build cache {settings.cache}", wait=True):
        sweep(settings.cache, _WORK)
        builder = _Builder(recipe, settings, ids)
        for stage in chosen:
            folder = builder.stage(stage)
            if not stage.build_only:
                result[stage.name] = builder.publish(stage, folder, sink)
    return result


class _Builder:
    def __init__(self, recipe: Recipe, settings: Settings, ids: Ids) -> None:
        self._recipe = recipe
        self._settings = settings
        self._ids = ids
        # Trees of other ids would be packed with other owners.
        self._stages = settings.cache / f"stages-{ids.base}"
        self._stages.mkdir(exist_ok=True)
        self._done: dict[str, Path] = {}
        self._inputs: dict[str, recording.Inputs] = {}
        self._downloads = Downloads(
            settings.cache / "downloads",
            settings.clock,
            allow_unpinned=settings.allow_unpinned,
            certificates=settings.access.certificates,
            proxies=settings.access.proxies,
        )

    def stage(self, stage: Stage) -> Path:
        """Return the cache folder of ``stage``, building it when nothing fits."""
        gathered = [self._gather(stage, item) for item in stage.imports]
        source = self._source(stage)
        contents = [content for _, content in gathered]
        epoch = self._settings.epoch
        key = stage_key(stage, source.identity, [str(one) for one in contents], epoch=epoch)
        folder = self._stages / key
        self._done[stage.name] = folder
        self._inputs[stage.name] = recording.of_stage(
            stage, source.identity, [content.digest for content in contents]
        )
        if (folder / "stage.json").is_file():
            self._say(stage, "unchanged")
            return folder
        with self._workplace() as work:
            base = source.make(work)
            self._fill(stage, work, gathered, base)
            meta = Meta(config=configure(stage, base))
            write_atomic(work / "stage.json", msgspec.json.encode(meta))
            remove(work / "run")
            if folder.exists():
                remove(folder)
            work.rename(folder)
        return folder

    @contextmanager
    def _workplace(self) -> Iterator[Path]:
        work = Path(tempfile.mkdtemp(dir=self._settings.cache, prefix=_WORK))
        try:
            yield work
        finally:
            if work.exists():  # else it has become the stage's folder
                remove(work)

    @property
    def _allowed(self) -> tuple[Path, ...]:
        return (self._settings.base, *self._settings.allowed)

    def _gather(self, stage: Stage, item: Import) -> _Gathered:
        return importing.gather(
            item,
            base=self._settings.base / stage.folder,
            allowed=self._allowed,
            download=self._downloads.get,
            stage_tree=lambda name: self._done[name] / "tree",
        )

    def publish(self, stage: Stage, folder: Path, sink: Repository) -> Descriptor:
        layer = self._layer(stage, folder)
        meta = _read(folder / "stage.json", Meta)
        config = meta.config.to_bytes(
            layer.digest, epoch=self._settings.epoch, created_by="mosb image build"
        )
        descriptor = put_image(
            sink, (layer,), config, tag=stage.name, annotations=dict(stage.annotations)
        )
        keep_inputs(sink, descriptor.digest, self._made_of(stage))
        self._say(stage, f"{descriptor.digest}")
        return descriptor

    def _made_of(self, stage: Stage) -> recording.Inputs:
        """Return what a stage that is done is made of, with all below it."""
        below = [self._made_of(one) for one in self._recipe.stages if one.name in stage.needs]
        tree = self._done[stage.name] / "tree"
        status = resolve_in(tree, recording.STATUS)
        listed = b""
        if status.is_file():
            listed = read_bounded(status, recording.MAX_STATUS)
        return recording.of_all(self._inputs[stage.name], below, listed)

    def _layer(self, stage: Stage, folder: Path) -> VerityLayer:
        path = folder / f"layer.{self._settings.kind}"
        meta_path = folder / f"layer.{self._settings.kind}.json"
        if meta_path.is_file() and path.is_file():
            return _read(meta_path, LayerMeta).layer(path)
        STACK.require(programs(folder / "tree"), f"{self._recipe.name}: {stage.name}")
        self._say(stage, f"packing {self._settings.kind}")
        layer = make_layer(
            folder / "tree",
            path,
            kind=self._settings.kind,
            epoch=self._settings.epoch,
            keep_times=True,
            ids=self._ids,
        )
        write_atomic(meta_path, msgspec.json.encode(LayerMeta.of(layer)))
        return layer

    def _fill(self, stage: Stage, work: Path, gathered: list[_Gathered], base: ImageConfig) -> None:
        tree = work / "tree"
        epoch = self._settings.epoch
        seen = work / "run"
        (seen / "imports").mkdir(parents=True)
        taken = work / "taken"
        taken.mkdir()
        for number, (item, (path, content)) in enumerate(zip(stage.imports, gathered, strict=True)):
            source = taken / str(number)
            importing.take(path, content, source, epoch=epoch, ids=self._ids)
            if item.dest:
                importing.place(source, item, tree, epoch=epoch, ids=self._ids)
            else:
                importing.show(source, item.name, seen, epoch=epoch, ids=self._ids)
        remove(taken)
        if stage.run:
            self._say(stage, "running its script")
            script = Script(
                stage.run, f"{self._recipe.name}: {stage.name}", network=stage.network == "host"
            )
            log = self._settings.cache / f"{stage.name}.log"
            environment = script_environment(stage, base)
            proxies = self._settings.access.proxies.environment()
            run_script(
                script, tree, seen,
                environment=environment, proxies=proxies, log=log, ids=self._ids,
            )  # fmt: skip
            require_shallow(tree, script.name)
        volumes = configure(stage, base).run.get("Volumes", {})
        add_mount_points(tree, volumes, epoch=epoch, ids=self._ids)
        clamp(tree, epoch)

    def _say(self, stage: Stage, text: str) -> None:
        self._settings.progress(f"{stage.name}: {text}")

    # -- bases

    def _source(self, stage: Stage) -> _Source:
        match stage.base:
            case ScratchBase():
                return _Source("scratch", self._scratch)
            case BuiltBase():
                parent = self._done[stage.base.stage]
                return _Source(f"built {parent.name}", lambda work: self._copy(parent, work))
            case DebianBase():
                base = stage.base
                identity = msgspec.json.encode(base).decode()
                return _Source(f"debian {identity}", lambda work: self._debian(stage, base, work))
            case TarBase():
                return self._tar(stage, stage.base)
            case ImageBase():
                return self._image(stage, stage.base)

    def _scratch(self, work: Path) -> ImageConfig:
        (work / "tree").mkdir(mode=0o755)
        os.chown(work / "tree", self._ids.uid, self._ids.gid)
        return new_config(platform.machine())

    def _copy(self, parent: Path, work: Path) -> ImageConfig:
        argv = ["cp", "--archive", "--reflink=auto", str(parent / "tree"), str(work / "tree")]
        run(argv, timeout=_COPY_TIMEOUT)
        return _read(parent / "stage.json", Meta).config

    def _debian(self, stage: Stage, base: DebianBase, work: Path) -> ImageConfig:
        suite = mmdebstrap.Suite(
            name=base.suite,
            packages=base.packages,
            variant=base.variant,
            mirror=base.mirror,
            snapshot=base.snapshot,
        )
        archives = self._settings.cache / "archives"
        archives.mkdir(exist_ok=True)
        require_programs(work)  # the packages' own
        self._say(stage, f"Debian {base.suite}, {len(base.packages)} packages")
        tar = work / "debian.tar"
        tools.build_root(
            suite,
            tar,
            epoch=self._settings.epoch,
            ids=self._ids,
            archives=archives,
            proxies=self._settings.access.proxies.environment(),
        )
        self._unpack(tar, f"Debian {base.suite}", work, policy=_OWN)
        tar.unlink()
        return new_config(platform.machine())

    def _tar(self, stage: Stage, base: TarBase) -> _Source:
        item = Import(base.url, sha256=base.sha256)
        path, content = self._gather(stage, item)
        if not path.is_file():
            raise MissingError(f"archive {base.url} is not a file", hint=f"looked at {path}")

        def make(work: Path) -> ImageConfig:
            self._unpack(path, base.url, work, policy=Policy(), digest=content.digest)
            return new_config(platform.machine())

        return _Source(f"tar {content.digest}", make)

    def _unpack(
        self, path: Path, what: str, work: Path, *, policy: Policy, digest: str = ""
    ) -> None:
        with tempfile.TemporaryFile(dir=work, buffering=1 << 20) as spool:
            flattener = Flattener(spool, limits=self._settings.limits, policy=policy)
            with path.open("rb") as file:
                chunks: Iterator[bytes] = iter(lambda: file.read(_CHUNK), b"")
                if digest:
                    chunks = importing.unchanged(chunks, digest, path)
                with uncompressed(chunks, work=work, what=what) as (_, plain):
                    flattener.add(plain, what=what)
                for _rest in chunks:  # to the end, where the digest is checked
                    pass
            flattener.write(work / "tree", self._ids)

    def _image(self, stage: Stage, base: ImageBase) -> _Source:
        repository, reference = self._open(stage, base)
        here = ("linux", architecture(platform.machine()))
        manifest, data = read_image(repository, reference, here)

        def make(work: Path) -> ImageConfig:
            unpacking = Unpacking(
                work,
                limits=self._settings.limits,
                progress=lambda line: self._say(stage, line),
            )
            return unpack_image(repository, manifest, work / "tree", unpacking, ids=self._ids)

        return _Source(f"image {Digest.of(data)}", make)

    def _open(self, stage: Stage, base: ImageBase) -> tuple[Repository, str]:
        if base.kind == "docker":
            if self._settings.open_image is None:
                fault = Fault(f"{stage.name}.from.url", 0, "images of registries cannot be opened")
                raise DocumentError(self._recipe.name, [fault])
            if base.insecure:
                self._say(
                    stage, "'insecure' opens nothing: HTTP is spoken where --plain-http says so"
                )
            return self._settings.open_image(
                image_url(
                    base.url,
                    lambda path: self._beneath(stage, path),
                    allow_engines=self._settings.allow_engines,
                )
            )
        folder, tag = layout_image(base.url, recipe=self._recipe.name, stage=stage.name)
        return LayoutRepository(self._beneath(stage, folder), links=True), tag

    def _beneath(self, stage: Stage, path: str) -> Path:
        return importing.beneath(self._settings.base / stage.folder, path, self._allowed)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a stage starts: what identifies it, and how to make ``work/tree`` of it."""

    identity: str
    make: Callable[[Path], ImageConfig]


def _read(path: Path, model: type[M]) -> M:
    return msgspec.json.decode(read_bounded(path, _META_LIMIT), type=model)
