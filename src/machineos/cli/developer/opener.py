"""What the options ``--repo`` and ``source:`` name, opened: registries, layouts, converted images.

Owns the connections and temporary folders of one command; they end with its ``with`` block.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machineos.cli import app
from machineos.cli.developer import inspecting
from machineos.core.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.cli.options import Reach
    from machineos.document.model.install import Mount
    from machineos.oci.layout.folder import LayoutRepository
    from machineos.oci.model.documents import Descriptor
    from machineos.oci.model.reference import ImageSource
    from machineos.oci.model.repository import Registry, Repository
    from machineos.oci.registry.access import Access


def access(reach: Reach) -> Access:
    """Return how this user reaches registries: by options, environment and his files."""
    from machineos.oci.registry.access import Access

    return Access.of_user(app.environment(), **reach._asdict())


@dataclass
class Opener:
    """Opens registries and images, and closes their connections; also the converter."""

    reach: Reach
    say: Callable[[str], None]
    epoch: int | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _registries: dict[str, Registry] = field(default_factory=dict)
    _noted: set[str] = field(default_factory=set)
    _archives: dict[ImageSource, Repository] = field(default_factory=dict)

    def __enter__(self) -> Opener:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def registry(self, text: str, *, writable: bool = False) -> Registry:
        """Open what ``--repo`` names. Raises: DocumentError."""
        from machineos.oci.model.reference import RegistryLocation

        location = RegistryLocation.parse(text)
        if location.folder is None:
            from machineos.oci.model.repository import Below

            registry = self._http(location.host)
            return Below(registry, location.prefix) if location.prefix else registry
        from machineos.oci.layout.folder import LayoutRegistry

        return LayoutRegistry(location.folder, writable=writable, links=not writable)

    def source(self, source: ImageSource) -> Repository:
        """Open the repository of an image, and say which tag is taken where none was named."""
        if source.reference is not None:
            if source.reference.tag is None and source.reference.digest is None:
                self._note(f"{source} names no tag: taking :{source.selector}")
            return self._http(source.reference.host).repository(source.reference.name)
        if source.folder is None:
            return self._opened(source)
        from machineos.oci.layout.folder import LayoutRepository

        return LayoutRepository(source.folder, links=True)

    def _opened(self, source: ImageSource) -> Repository:
        """Open an archive, or what a container engine of this machine holds."""
        from machineos.build.foreign.opening import opened

        if source not in self._archives:
            work = app.home().cache / "machineos" / "archives"
            work.mkdir(parents=True, exist_ok=True)
            context = opened(source, work=work, environ=app.environment())
            self._archives[source] = self._stack.enter_context(context)
        return self._archives[source]

    def image(self, text: str) -> tuple[Repository, str]:
        """Open one of ``SOURCES``; return the repository and what the image is called there.

        Raises: DocumentError.
        """
        from machineos.oci.model.reference import ImageSource

        source = ImageSource.parse(text)
        repository = self.source(source)
        return repository, source.selector or str(repository.resolve("").digest)

    def convert(
        self, repository: Repository, reference: str, mounts: tuple[Mount, ...] | None
    ) -> tuple[Repository, Descriptor]:
        """Convert an image into the user's cache. Raises: see ``convert_image``."""
        from machineos.build.recipe.conversion import Conversion
        from machineos.build.recipe.convert import convert_image

        sink = self._cache()
        made = inspecting.converted(sink, reference, self.epoch or 0, mounts)
        if made is not None:
            return sink, made
        work = Path(self._stack.enter_context(_temporary(sink.path.parent)))
        conversion = Conversion(
            work=work,
            clock=SystemClock(),
            epoch=self.epoch or 0,
            progress=self.say,
            mounts=mounts,
        )
        made = convert_image(repository, reference, sink, conversion)
        inspecting.note_packed(sink, {reference: made}, vetted=True)
        inspecting.note_converted(reference, self.epoch or 0, mounts, made)
        return sink, made

    def _note(self, line: str) -> None:
        if line not in self._noted:
            self._noted.add(line)
            self.say(line)

    def _cache(self) -> LayoutRepository:
        from machineos.oci.layout.folder import LayoutRepository

        folder = app.home().cache / "machineos" / "converted"
        folder.parent.mkdir(parents=True, exist_ok=True)
        return LayoutRepository(folder, writable=True)

    def _http(self, host: str) -> Registry:
        if host not in self._registries:
            registry = access(self.reach).registry(host)
            self._registries[host] = self._stack.enter_context(registry)
        return self._registries[host]


def _temporary(folder: Path) -> Any:  # noqa: ANN401 (a context manager of str)
    import tempfile

    return tempfile.TemporaryDirectory(dir=folder, prefix="publish-")
