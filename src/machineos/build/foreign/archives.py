"""Archives of images: ``oci-archive`` (a layout in a tar) and ``docker-archive`` (``docker save``).

Pure of the outside but for reading the file. The layout's rules are those of ``oci.layout``. Of
what ``docker save`` writes, ``manifest.json`` counts (moby, image/spec v1.2 "Combined Image JSON");
newer ones are a layout, too, and can be named as that: there the manifest has its digest of old.
Names mean what containers-transports(5) says.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import msgspec

from machineos.build.foreign.choosing import Named, blob_digest, docker_name, names_of, select
from machineos.build.foreign.members import index_members
from machineos.build.foreign.repository import (
    ArchiveRepository,
    extent_chunks,
    read_extent,
    read_small,
)
from machineos.build.recipe.compression import sniff
from machineos.build.recipe.config import parse_config
from machineos.core.digest import Digest
from machineos.core.jsondoc import decode_json, parse_json
from machineos.document.model.limits import MAX_CONFIG
from machineos.errors import DocumentError, Fault, MissingError
from machineos.oci.layout.reader import INDEX_FILE, MARKER, VERSION, plain
from machineos.oci.model.documents import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    INDEX,
    MAX_MANIFEST,
    Descriptor,
    Index,
    parse_index,
)

if TYPE_CHECKING:
    from machineos.build.foreign.members import Extent, Members

_MANIFEST_FILE = "manifest.json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"  # packed or not: the bytes say it


class _Saved(msgspec.Struct, frozen=True):
    """One image in ``manifest.json``; other keys are of no interest here."""

    config: str = msgspec.field(name="Config")
    layers: list[str] | None = msgspec.field(name="Layers", default=None)
    tags: list[str] | None = msgspec.field(name="RepoTags", default=None)


def open_oci(file: int, *, name: str, selector: str) -> ArchiveRepository:
    """Return the images of an ``oci-archive``; ``selector`` says which one is wanted: its name,
    ``@N``, a digest, or nothing for the only one.

    Raises: ArchiveError, DocumentError, MissingError.
    """
    index, blobs = read_layout(file, name=name)
    listed = [Named(str(entry.digest), names_of(entry)) for entry in index.manifests]
    wanted = plain(index.manifests[select(listed, selector, name)])
    return ArchiveRepository(name, file, blobs, index, wanted=wanted, called=selector)


def read_layout(file: int, *, name: str) -> tuple[Index, dict[Digest, Extent]]:
    """Return the index of a layout in a tar, and where its blobs are.

    Raises: ArchiveError, DocumentError, MissingError.
    """
    members = index_members(
        lambda size, at: os.pread(file, size, at), os.fstat(file).st_size, what=name
    )
    _require_layout(file, members, name)
    data = read_small(file, members.find(INDEX_FILE), MAX_MANIFEST, f"{name}: {INDEX_FILE}")
    index = parse_index(data, name=f"{name}: {INDEX_FILE}", media_type=INDEX)
    blobs = {
        digest: extent
        for path, extent in members.files.items()
        if (digest := blob_digest(path)) is not None
    }
    return index, blobs


def open_docker(file: int, *, name: str, selector: str) -> ArchiveRepository:
    """Return the image of a ``docker-archive`` that ``selector`` names: ``[host/]name[:tag]``,
    ``@N``, or nothing for the only one. Its manifest is written here, as skopeo writes it.

    Raises: ArchiveError, DigestError (its configuration is not the one that it is named after),
    DocumentError, MissingError.
    """
    members = index_members(
        lambda size, at: os.pread(file, size, at), os.fstat(file).st_size, what=name
    )
    if _MANIFEST_FILE not in members.files and MARKER in members.files:
        message = f"has no {_MANIFEST_FILE}: it is an OCI layout"
        raise DocumentError(name, [Fault("", 0, message)], hint="name it as oci-archive:FILE")
    what = f"{name}: {_MANIFEST_FILE}"
    data = read_small(file, members.find(_MANIFEST_FILE), MAX_MANIFEST, what)
    body = parse_json(data, name=what)
    if not isinstance(body, list):
        raise DocumentError(what, [Fault("", 0, "is not a list of images")])
    saved = [decode_json(msgspec.json.encode(item), _Saved, name=what) for item in body]
    listed = [Named(one.config, [docker_name(tag) for tag in one.tags or ()]) for one in saved]
    called = docker_name(selector) if selector and not selector.startswith("@") else selector
    chosen = saved[select(listed, called, name)]
    return _written(file, members, chosen, name, selector)


def _written(
    file: int, members: Members, saved: _Saved, name: str, selector: str
) -> ArchiveRepository:
    """Return a repository of one image, with the manifest that ``docker save`` leaves out."""
    what = f"{name}: configuration {saved.config[:200]!r}"
    extent = members.find(saved.config)
    config = read_small(file, extent, MAX_CONFIG, what)
    # <hex>.json of Docker, sha256:<hex> of crane and kaniko, blobs/sha256/<hex>; config.json of jib
    named = Digest.of_hex(re.split("[/:]", saved.config.removesuffix(".json"))[-1])
    if named is not None:
        named.check(config, what)
    digest = Digest.of(config)
    layers, diff_ids = saved.layers or [], parse_config(config, name=what)[1]
    if len(layers) != len(diff_ids):
        message = f"has {len(diff_ids)} entries for {len(layers)} layers"
        raise DocumentError(what, [Fault("rootfs.diff_ids", 0, message)])
    blobs = {digest: extent}
    described: list[dict[str, Any]] = []
    hashed: dict[Extent, Digest] = {}  # a layer may be named as often as there is room for names
    for path, diff_id in zip(layers, diff_ids, strict=True):
        place = members.find(path)
        layer = blob_digest(path) or _layer_digest(file, place, diff_id, hashed, name)
        blobs[layer] = place
        described.append(_described(_LAYER, layer, place.size))
    data = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": _described(DOCKER_CONFIG, digest, len(config)),
            "layers": described,
        }
    )
    wanted = Descriptor(media_type=DOCKER_MANIFEST, digest=Digest.of(data), size=len(data))
    return ArchiveRepository(
        name,
        file,
        blobs,
        Index(media_type=INDEX, manifests=(wanted,)),
        wanted=wanted,
        called=selector,
        written={wanted.digest: data},
    )


def _layer_digest(
    file: int, place: Extent, diff_id: Digest, hashed: dict[Extent, Digest], name: str
) -> Digest:
    """Return the digest of a layer as it lies there. Of a plain tar that is the one of the
    configuration, which is checked when it is read; of a packed one nobody has said it."""
    head = read_extent(file, type(place)(place.start, min(place.size, 16)))
    if not sniff(head, f"{name}: layer {diff_id}"):
        return diff_id
    if place in hashed:
        return hashed[place]
    hasher = diff_id.hasher()
    for chunk in extent_chunks(file, place):
        hasher.update(chunk)
    hashed[place] = Digest(diff_id.algorithm, hasher.hexdigest())
    return hashed[place]


def _described(media_type: str, digest: Digest, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "size": size, "digest": str(digest)}


def _require_layout(file: int, members: Members, name: str) -> None:
    if MARKER not in members.files:
        hint = "name it as docker-archive:FILE" if _MANIFEST_FILE in members.files else ""
        raise MissingError(f"{name} is no OCI layout: it has no file {MARKER}", hint=hint)
    what = f"{name}: {MARKER}"
    body = parse_json(read_small(file, members.find(MARKER), 4096, what), name=what)
    if not isinstance(body, dict) or body.get("imageLayoutVersion") != VERSION:
        raise DocumentError(what, [Fault("imageLayoutVersion", 0, f"is not {VERSION!r}")])
