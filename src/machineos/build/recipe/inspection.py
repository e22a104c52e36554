"""What has to hold of a layer that is a file system already, before a machine gets it.

A conversion makes a layer that has a right hash tree and holds nothing bad; one that came ready is
looked into instead: every block by its root hash, every member by the rules for those of archives,
the programs, and for a container the folders and the user that it needs: the same functions decide.
Invariant: nothing is ever mounted (docs/adr/0032).

What was proved of a layer is kept in a ``Record``, by its digest and all that the question was
about, and not asked again.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.build.recipe.filesystem import verify_layer
from machineos.build.recipe.flatten import Flattener
from machineos.build.recipe.layers import add_file_system
from machineos.build.recipe.member import Limits, Policy
from machineos.build.recipe.record import YES
from machineos.core.files import needing_space
from machineos.document.model.image import Sight
from machineos.document.product.image import resolve_user
from machineos.document.rules.bootable import BOOTABLE, needed
from machineos.document.rules.layer import layer_name
from machineos.document.rules.programs import STACK
from machineos.document.rules.storage import FOLDERS, Tree
from machineos.document.verify.layers import require_seen, see
from machineos.host.kernel.superblock import BLOCK
from machineos.host.pack.caller import ids_to_look
from machineos.oci.model.atomfs import layer_type_of, root_hash_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from machineos.build.recipe.record import Question, Record
    from machineos.build.recipe.use import Container, Use
    from machineos.document.rules.bootable import Part
    from machineos.oci.model.documents import Descriptor, Manifest
    from machineos.oci.model.repository import Repository

# Goes up when a rule about the content of layers gets stricter: what is in a record counts no more.
RULES = "1"
_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class Inspector:
    """Looks into layers. ``work`` is a folder for temporary files, on a disk with room for them."""

    work: Path
    record: Record
    limits: Limits = field(default_factory=Limits)
    say: Callable[[str], None] = field(default=lambda _line: None)

    def inspect(self, repository: Repository, manifest: Manifest, use: Use) -> None:
        """Look at every layer of an image, read from ``repository`` where that is needed.

        Raises: VerificationError (a block that its root hash does not cover, ...), ArchiveError
        (what is inside), DocumentError (no such user), DigestError, TransferError, SpaceError,
        MissingToolError.
        """
        for number, layer in enumerate(manifest.layers):
            self.inspect_layer(repository, layer, (replace(use, part=number),))

    def inspect_layer(self, repository: Repository, layer: Descriptor, uses: Sequence[Use]) -> None:
        """The same of one layer, for all its uses."""
        if not self.knows(layer, uses):
            with repository.open_blob(layer) as chunks:
                self.look(layer, chunks, uses)

    def knows(self, layer: Descriptor, uses: Sequence[Use]) -> bool:
        """Whether all of it was proved before."""
        return all(self.record.answer(one) == YES for one in _questions(layer, uses))

    def look(
        self,
        layer: Descriptor,
        chunks: Iterator[bytes],
        uses: Sequence[Use],
    ) -> None:
        """Look at a layer whose bytes are ``chunks``, for all its uses.

        What is known is not read. Raises: see ``inspect``.
        """
        if self.knows(layer, uses):
            return
        what = f"{uses[0].what}: {layer_name(layer)}"
        self.say(f"look into {what}")
        with needing_space(self.work), self._file(chunks) as path:
            whole, *inside = _questions(layer, uses)
            if self.record.answer(whole) != YES:
                _require_whole(path, layer, uses[0].what)
                self.record.note(whole)
            if not all(self.record.answer(one) == YES for one in inside):
                self._inside(path, layer, uses, what)
                for one in inside:
                    self.record.note(one)

    def packed(self, manifest: Manifest) -> bool:
        """Whether all layers of an image were packed here, by our own record: what a kernel parses
        of them was written by nobody else (docs/adr/0034)."""
        return all(self.record.answer(packing(layer)) == YES for layer in manifest.layers)

    def note_packed(self, manifest: Manifest, *, vetted: bool) -> None:
        """Keep of an image that it was packed here, ``vetted`` of what came in archives."""
        for layer in manifest.layers:
            questions = _questions(layer, ())
            for one in questions if vetted else questions[:1]:
                self.record.note(one)
            self.record.note(packing(layer))

    @contextmanager
    def _file(self, chunks: Iterable[bytes]) -> Iterator[Path]:
        """Yield a file of our own with the bytes of a layer: what lies in somebody's layout may be
        a link, unreadable for other ids, or change."""
        with tempfile.NamedTemporaryFile(dir=self.work, prefix="layer-") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # for the ids that take it apart
            yield Path(file.name)

    def _inside(self, path: Path, layer: Descriptor, uses: Sequence[Use], what: str) -> None:
        kind = layer_type_of(layer).filesystem
        with tempfile.TemporaryFile(dir=self.work, buffering=_BUFFER) as spool:
            # Its set-user-id bits stay: it is not changed here, and mounted without their effect.
            flattener = Flattener(spool, limits=self.limits, policy=Policy(setuid="keep"))
            add_file_system(flattener, path, kind, what=what, ids=ids_to_look())
            STACK.require(flattener.programs(), what)
            for use in uses:
                needs = needed(use.name, use.part)
                BOOTABLE.require([one for one in needs if not _has(flattener, one)], what)
                if use.container is not None:
                    require_runnable(flattener, use.container, use.name)


def _require_whole(path: Path, layer: Descriptor, name: str) -> None:
    with path.open("rb") as file:
        head = see(layer, iter(lambda: file.read(BLOCK), b""), tree=True)
    require_seen(head, name)
    kind, what = layer_type_of(layer).filesystem, f"{name}: {layer_name(layer)}"
    verify_layer(path, kind, root_hash=root_hash_of(layer), what=what)


def _has(flattener: Flattener, part: Part) -> bool:
    if part.kind == "folder":
        return not flattener.tree.see_folder(part.path).problem
    return not isinstance(flattener.tree.find_file(part.path, limit=sys.maxsize), Sight)


def require_runnable(flattener: Flattener, container: Container, name: str) -> None:
    """Refuse what the machine would refuse to run, by the same rules, in the same order.

    Raises: ArchiveError, DocumentError.
    """
    tree = Tree(lambda path: flattener.tree.see_folder(path).problem, container.mounts)
    FOLDERS.require(tree, f"image {name}")
    resolve_user(container.user, flattener.see_file, image=name)


def packing(layer: Descriptor) -> Question:
    """Return the question whether a layer was packed here."""
    return ("packed", str(layer.digest), str(root_hash_of(layer)))


def _questions(layer: Descriptor, uses: Sequence[Use]) -> list[Question]:
    """Return what is to be proved: that the layer is whole first, then what is inside."""
    about = (RULES, layer_type_of(layer).filesystem, str(layer.digest))
    containers = {use.container for use in uses if use.container is not None}
    runs = [
        ("runs", *about, one.user, *sorted(mount.dest for mount in one.mounts))
        for one in containers
    ]
    boots = {(use.name, str(use.part)) for use in uses if needed(use.name, use.part)}
    runs += [("boots", *about, *one) for one in sorted(boots)]
    return [("whole", *about, str(root_hash_of(layer))), ("vetted", *about), *runs]
