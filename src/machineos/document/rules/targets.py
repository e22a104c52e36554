"""What a target may be called, be, and name as its image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.digest import Digest
from machineos.document.model.limits import MAX_IMAGE_MANIFEST, MAX_TARGETS
from machineos.document.model.names import GroupName, ServiceName, Version
from machineos.document.rules.rule import DOCUMENT, Rule
from machineos.document.rules.subject import TYPE_OF_NAME
from machineos.errors import DigestError, DocumentError, without_userinfo
from machineos.oci.model.reference import ImageSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machineos.document.rules.subject import Declaration

    Found = Iterator[tuple[str, str]]

# Units of the root whose names begin as those of services do (``core.serviceid``): a service that
# is called so would have the name of a unit that systemd knows already, and would never start.
NAMES_OF_UNITS = ("debug-console", "install", "modules")


def _some(declaration: Declaration) -> Found:
    if not declaration.targets:
        yield "targets", "is missing or empty"


def _count(declaration: Declaration) -> Found:
    if len(declaration.targets) > MAX_TARGETS:
        yield "targets", f"has more than {MAX_TARGETS} targets"


def _name(declaration: Declaration) -> Found:
    for path, target in declaration.each():
        problem = ServiceName.problem(target.service_name)
        if problem:
            yield f"{path}.service_name", problem


def _name_once(declaration: Declaration) -> Found:
    seen: dict[str, str] = {}
    for path, target in declaration.each():
        first = seen.setdefault(target.service_name, path)
        if first != path and target.service_name:
            yield f"{path}.service_name", f"{target.service_name!r} is the name of {first} already"


def _name_free(declaration: Declaration) -> Found:
    for path, target in declaration.each():
        if target.service_name in NAMES_OF_UNITS:
            message = f"{target.service_name!r} is reserved for a unit of the system"
            yield f"{path}.service_name", message


def _version(declaration: Declaration) -> Found:
    for path, target in declaration.each():
        problem = Version.problem(target.version)
        if problem:
            yield f"{path}.version", problem


def _type_given(declaration: Declaration) -> Found:
    for path, target in declaration.each():
        if target.service_type is None:
            yield f"{path}.service_type", "is missing or empty"


def _type_of_name(declaration: Declaration) -> Found:
    for path, target in declaration.each():
        wanted = TYPE_OF_NAME.get(target.service_name, target.kind)
        if target.kind != wanted:
            name = target.service_name
            yield f"{path}.service_type", f"{name} must be {wanted}, not {target.kind}"


def _one_hostfs(declaration: Declaration) -> Found:
    for path, target in declaration.each():
        if target.kind == "hostfs" and target.service_name != "hostfs":
            yield f"{path}.service_type", "only the target called hostfs can be hostfs"


def _group(declaration: Declaration) -> Found:
    for path, target in declaration.each():
        problem = GroupName.problem(target.nsgroup) if target.nsgroup else ""
        if problem:
            yield f"{path}.nsgroup", problem


def _source(declaration: Declaration) -> Found:
    for path, target in declaration.each():
        if target.source is None:
            continue
        if not target.source:
            yield f"{path}.source", "is missing or empty"
            continue
        try:
            ImageSource.parse(target.source)
        except DocumentError as error:
            yield (
                f"{path}.source",
                f"{without_userinfo(target.source)[:80]!r} {error.faults[0].message}",
            )


def _digest(declaration: Declaration) -> Found:
    for path, target in declaration.each():
        if target.digest is None:
            continue
        try:
            # It becomes a tag and a file name, and other kinds have never been written.
            if Digest.parse(target.digest).algorithm != "sha256":
                yield f"{path}.digest", f"{target.digest[:80]!r} is not a sha256 digest"
        except DigestError as error:
            yield f"{path}.digest", error.message


def _size(declaration: Declaration) -> Found:
    for path, target in declaration.each():
        if target.size is not None and not 1 <= target.size <= MAX_IMAGE_MANIFEST:
            message = f"{target.size} is not the size of an image manifest (1 to "
            yield f"{path}.size", f"{message}{MAX_IMAGE_MANIFEST})"


BOUNDS: tuple[Rule[Declaration], ...] = (
    Rule(
        "target-count",
        f"A manifest has at most {MAX_TARGETS} targets.",
        DOCUMENT,
        _count,
    ),
)
RULES: tuple[Rule[Declaration], ...] = (
    Rule("target-some", "A manifest has a target.", DOCUMENT, _some),
    Rule(
        "target-name",
        "A target has a name that can be a file name, a unit name and a host name.",
        DOCUMENT,
        _name,
    ),
    Rule("target-name-once", "No two targets have the same name.", DOCUMENT, _name_once),
    Rule(
        "target-name-free", "A target is not called as a unit of the system.", DOCUMENT, _name_free
    ),
    Rule("target-version", "A target has a version that can be a file name.", DOCUMENT, _version),
    Rule("target-type", "A target of manifest.yaml has a type.", ("publish",), _type_given),
    Rule(
        "target-type-of-name",
        "The names hostfs, bootkit and livecd each go with one type.",
        DOCUMENT,
        _type_of_name,
    ),
    Rule("target-one-hostfs", "Only hostfs is of the type hostfs.", DOCUMENT, _one_hostfs),
    Rule("target-group", "An nsgroup has a name that can be a file name.", DOCUMENT, _group),
    Rule(
        "target-source", "A target of manifest.yaml says where its image is.", ("publish",), _source
    ),
    Rule("target-digest", "An image is named by its sha256 digest.", DOCUMENT, _digest),
    Rule(
        "target-size",
        "The size of an image manifest is one that an image manifest can have.",
        DOCUMENT,
        _size,
    ),
)  # fmt: skip
