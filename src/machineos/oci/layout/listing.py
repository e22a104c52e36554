"""How ``index.json`` of an image layout lists a manifest, with and without a tag.

Pure: entries in, entries out, as they are written (OCI image specification 1.1, "image layout").
Invariant: a tag stands at one entry; nothing is listed without a tag that has one elsewhere;
everything else keeps its place and its keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from machineos.oci.model.documents import REF_NAME

if TYPE_CHECKING:
    from machineos.oci.model.documents import Descriptor

Entry = dict[str, Any]


def list_manifest(entries: list[Entry], descriptor: Descriptor, tag: str | None) -> list[Entry]:
    """Return ``entries`` with ``descriptor`` listed, and ``tag`` pointing to it.

    The tag is taken from the entry that had it; an entry that would then be a second one without a
    tag goes.
    """
    digest = str(descriptor.digest)
    if tag is None:
        listed = any(entry["digest"] == digest for entry in entries)
        return list(entries) if listed else [*entries, descriptor.to_json()]
    result = [
        kept for entry in entries if (kept := _without(entry, entries, digest, tag)) is not None
    ]
    if any(entry["digest"] == digest and tag_of(entry) == tag for entry in result):
        return result
    return _with(result, descriptor, tag)


def list_instead(entries: list[Entry], descriptor: Descriptor, tag: str) -> list[Entry]:
    """Return ``entries`` with ``descriptor`` under ``tag``, and without what had the tag before: a
    list that another one has taken the place of."""
    return _with([entry for entry in entries if tag_of(entry) != tag], descriptor, tag)


def tag_of(entry: Entry) -> str | None:
    """Return the tag of an entry, None when it has none."""
    tag = (entry.get("annotations") or {}).get(REF_NAME)
    return tag if isinstance(tag, str) else None


def _with(entries: list[Entry], descriptor: Descriptor, tag: str) -> list[Entry]:
    """Give ``tag`` to the entry that has none, else add one."""
    for place, entry in enumerate(entries):
        if entry["digest"] == str(descriptor.digest) and tag_of(entry) is None:
            notes = {**(entry.get("annotations") or {}), REF_NAME: tag}
            return [*entries[:place], {**entry, "annotations": notes}, *entries[place + 1 :]]
    return [*entries, {**descriptor.to_json(), "annotations": {REF_NAME: tag}}]


def _without(entry: Entry, entries: list[Entry], digest: str, tag: str) -> Entry | None:
    """Return ``entry`` as it stands once ``tag`` is that of ``digest``, None when it goes."""
    if tag_of(entry) != tag or entry["digest"] == digest:
        return entry
    if any(_has_other_tag(other, entry["digest"], tag) for other in entries):
        return None
    notes = {key: value for key, value in entry["annotations"].items() if key != REF_NAME}
    plain = {key: value for key, value in entry.items() if key != "annotations"}
    return {**plain, "annotations": notes} if notes else plain


def _has_other_tag(entry: Entry, digest: str, tag: str) -> bool:
    other = tag_of(entry)
    return entry["digest"] == digest and bool(other) and other != tag
