"""Opening an image that is in an archive or with a container engine of this machine.

Owns the temporary files: they have no name while they are read, so nothing is left of them however
this ends. An archive that is packed as a whole, or comes down a pipe, is written to one first; what
an engine hands over is one.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, assert_never

from machineos.build.foreign.archives import open_docker, open_oci
from machineos.build.recipe.compression import sniff
from machineos.build.recipe.layers import uncompressed
from machineos.build.recipe.member import Limits
from machineos.core.files import needing_space
from machineos.core.run import find, perform
from machineos.errors import ArchiveError, DocumentError, Fault, MissingError
from machineos.host.pack import engines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from machineos.build.foreign.repository import ArchiveRepository
    from machineos.oci.model.reference import ImageSource

_CHUNK = 1 << 20


@contextmanager
def opened(
    source: ImageSource, *, work: Path, environ: Mapping[str, str], limits: Limits | None = None
) -> Iterator[ArchiveRepository]:
    """Yield the repository that ``source``, which has a ``way``, is in.

    ``work`` is a folder for temporary files, ``environ`` the user's environment. Raises:
    ArchiveError, DigestError, DocumentError, MissingError, MissingToolError, ToolError, SpaceError.
    """
    most = (limits or Limits()).expanded
    match source.way:
        case "oci-archive":
            with _archive(source, work, most) as file:
                name = f"{source.way}:{source.file}"
                yield open_oci(file, name=name, selector=source.selector)
        case "docker-archive":
            with _archive(source, work, most) as file:
                name = f"{source.way}:{source.file}"
                yield open_docker(file, name=name, selector=source.selector)
        case "docker-daemon" | "containers-storage":
            with _saved(source, work, environ) as file:
                found = open_docker(file, name=str(source), selector="")
                yield found.called(source.selector)
        case None:
            raise MissingError(f"{source} is no archive")
        case _:
            assert_never(source.way)


@contextmanager
def _archive(source: ImageSource, work: Path, most: int) -> Iterator[int]:
    """Yield a descriptor of a regular file: the archive, unpacked where it is packed."""
    assert source.file is not None  # noqa: S101 (for the type checker)
    what = str(source)
    try:
        # A link is followed, as for every file that the user names.
        handle = os.open(source.file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise MissingError(f"{what}: {source.file} does not exist") from error
    mode = os.fstat(handle).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        os.close(handle)
        hint = f"a folder is a layout: oci:{source.file}:TAG" if stat.S_ISDIR(mode) else ""
        raise DocumentError(what, [Fault("", 0, "is neither a file nor a pipe")], hint=hint)
    with os.fdopen(handle, "rb") as file:
        if stat.S_ISREG(mode) and not sniff(os.pread(handle, 16, 0), what):
            yield handle
            return
        chunks = iter(lambda: file.read(_CHUNK), b"")
        with uncompressed(chunks, work=work, what=what) as (_, plain):
            with _spooled(plain, work, most, what) as spool:
                yield spool.fileno()


@contextmanager
def _spooled(chunks: Iterable[bytes], work: Path, most: int, what: str) -> Iterator[IO[bytes]]:
    with needing_space(work), tempfile.TemporaryFile(dir=work) as spool:
        written = 0
        for chunk in chunks:
            written += len(chunk)
            if written > most:
                raise ArchiveError(
                    f"{what}: expands to more than {most} bytes",
                    hint="unpack it first, and name the archive without compression",
                )
            spool.write(chunk)
        spool.flush()
        yield spool


@contextmanager
def _saved(source: ImageSource, work: Path, environ: Mapping[str, str]) -> Iterator[int]:
    """Yield what a container engine says the image is."""
    assert source.way is not None  # noqa: S101 (for the type checker)
    program = engines.choose_program(source.way, source.selector, find)
    with tempfile.TemporaryDirectory(dir=work, prefix="engine-") as folder:
        output = Path(folder) / "image.tar"
        perform(engines.save_command(program, source.selector, output, environ))
        file = output.open("rb")
    with file:
        yield file.fileno()
