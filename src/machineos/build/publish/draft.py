"""A first manifest.yaml, written from what images say about themselves.

Decides what a service of each image needs: its name, ports, volumes. What an image says is a
stranger's: it is bounded, quoted, and taken only where the rules of a manifest let it pass; what is
left out is noted. Invariant: the text that comes out is one that ``parse_source`` takes. Pure.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import msgspec

from machineos.build.publish.source import parse_source
from machineos.core.idrange import needs_range
from machineos.core.printable import printable
from machineos.document.model.names import Version
from machineos.document.rules.subject import TYPE_OF_NAME
from machineos.document.rules.targets import NAMES_OF_UNITS
from machineos.errors import DocumentError
from machineos.oci.model.documents import VERSION_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from machineos.build.recipe.config import ImageConfig
    from machineos.oci.model.reference import ImageSource

FIRST_VERSION = "0.1.0"
_MOST = 32  # ports and volumes of one image: more are noted
_SIZE = "1G"
_SHOWN = 200
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/([a-z]{1,8}))?")
_ODD = re.compile(r"[^a-z0-9._-]+")
_TRY = (
    "version: 1\nproduct: x\ntargets:\n  - service_name: x\n    source: oci:x:x\n"
    "    version: '1'\n    service_type: container\n"
)


class Found(msgspec.Struct, frozen=True):
    """An image that somebody named: as written, where that is, and its configuration, which breaks
    no rule of its own (``check_image_config``)."""

    text: str
    source: ImageSource
    config: ImageConfig


class Port(msgspec.Struct, frozen=True):
    """A port of the machine that leads into a service."""

    host: int
    container: int
    protocol: str


class Volume(msgspec.Struct, frozen=True):
    """A volume and where its service sees it."""

    label: str
    dest: str


class Service(msgspec.Struct, frozen=True):
    """What is written of one image. ``guessed``: the image says no version."""

    name: str
    source: str
    version: str
    guessed: bool
    kind: str
    about: tuple[str, ...]
    ports: tuple[Port, ...]
    volumes: tuple[Volume, ...]


class Draft(msgspec.Struct, frozen=True):
    """The document, what is in it, and what a person should know of it."""

    text: str
    services: tuple[Service, ...]
    notes: tuple[str, ...]


def draft(product: str, images: Sequence[Found]) -> Draft:
    """Return a manifest with a target for each image.

    Raises: DocumentError (a product that cannot be called so, too many images).
    """
    notes: list[str] = []
    names: set[str] = set()
    taken: set[tuple[str, int]] = set()
    labels: set[str] = set()
    services = []
    for found in images:
        name = _free_name(_base_name(found.source), names)
        run = found.config.run
        kind = TYPE_OF_NAME.get(name) or ("container" if _argv(run) else "fs-only")
        if kind == "fs-only" and name not in TYPE_OF_NAME:
            notes.append(f"{name}: the image has nothing to run, so it is fs-only")
        ports: tuple[Port, ...] = ()
        volumes: tuple[Volume, ...] = ()
        if kind == "container":
            ports = tuple(_ports(name, run.get("ExposedPorts") or {}, taken, notes))
            volumes = tuple(_volumes(name, run.get("Volumes") or {}, labels, notes))
        version, guessed = _version(found)
        about = tuple(_about(found.config))
        services.append(Service(name, found.text, version, guessed, kind, about, ports, volumes))
    text = "".join(f"{line}\n" for line in _lines(product, services))
    parse_source(text.encode(), name="the new manifest")
    return Draft(text, tuple(services), tuple(notes))


def _argv(run: dict[str, object]) -> list[str]:
    entrypoint, cmd = run.get("Entrypoint") or [], run.get("Cmd") or []
    assert isinstance(entrypoint, list)  # noqa: S101 (parse_config has seen to it)
    assert isinstance(cmd, list)  # noqa: S101
    return [*entrypoint, *cmd]


def _base_name(source: ImageSource) -> str:
    name, _ = _called(source)
    place = source.folder or source.file
    text = name.rpartition("/")[2] if name not in {"", "latest"} else ""
    if not text and place is not None:
        text = place.stem
    return _ODD.sub("-", text.lower()).strip("._-")[:50] or "service"


def _called(source: ImageSource) -> tuple[str, str]:
    """Return name and tag of an image as far as its source says them."""
    if source.reference is not None:
        return source.reference.name, source.reference.tag or ""
    if source.selector.startswith(("@", "sha256:", "sha512:")):
        return "", ""
    text = source.selector.partition("@")[0]
    name, colon, tag = text.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (text, "")


def _free_name(name: str, names: set[str]) -> str:
    if name in NAMES_OF_UNITS or not needs_range(name):
        name = f"{name}-service"
    found, number = name, 1
    while found in names:
        number += 1
        found = f"{name}-{number}"
    names.add(found)
    return found


def _version(found: Found) -> tuple[str, bool]:
    labels = found.config.run.get("Labels") or {}
    _, tag = _called(found.source)
    for said in (labels.get(VERSION_LABEL), tag):
        if said and said != "latest" and not Version.problem(said):
            return said, False
    return FIRST_VERSION, True


def _ports(
    name: str, exposed: dict[str, object], taken: set[tuple[str, int]], notes: list[str]
) -> Iterator[Port]:
    left = _MOST
    for protocol, number in _numbers(name, exposed, notes):
        if left == 0:
            notes.append(f"{name}: exposes more than {_MOST} ports, the rest are left out")
            return
        host = number
        while (protocol, host) in taken:
            host += 1
        line = f"[{{host: {host}, container: {number}, protocol: {protocol}}}]"
        problem = _problem(f"    network: {{type: simple, ports: {line}}}\n")
        if problem:
            notes.append(f"{name}: port {number}/{protocol} is left out: {problem}")
            continue
        if host != number:
            notes.append(f"{name}: port {number}/{protocol} is taken, on the machine it is {host}")
        taken.add((protocol, host))
        left -= 1
        yield Port(host, number, protocol)


def _numbers(name: str, exposed: dict[str, object], notes: list[str]) -> Iterator[tuple[str, int]]:
    """Yield protocol and number of each port that is named, in order."""
    found: set[tuple[str, int]] = set()
    for text in _first(name, exposed, notes):
        match = _PORT.fullmatch(text)
        if match is None:
            notes.append(f"{name}: exposes {_shown(text)!r}, which is no port")
            continue
        first, last = int(match[1]), min(int(match[2] or match[1]), int(match[1]) + _MOST)
        found |= {(match[3] or "tcp", number) for number in range(first, last + 1)}
    yield from sorted(found, key=lambda port: (port[1], port[0]))


def _volumes(
    name: str, wanted: dict[str, object], labels: set[str], notes: list[str]
) -> Iterator[Volume]:
    above: list[str] = []
    for dest in _first(name, wanted, notes):
        plain = dest.rstrip("/") or "/"
        label = _label(f"{name}-{plain.rpartition('/')[2]}", labels)
        problem = _problem(
            f"    storage: [{{label: '{label}', dest: {_quoted(plain)}}}]\n"
            f"storage: [{{label: '{label}', size: {_SIZE}}}]\n"
        )
        if any(plain.startswith(f"{other}/") for other in above):
            problem = "it is inside another volume"
        if problem or plain in above:
            notes.append(f"{name}: volume {_shown(dest)} is left out: {problem or 'it is twice'}")
            continue
        above.append(plain)
        labels.add(label)
        yield Volume(label, plain)


def _first(name: str, keys: dict[str, object], notes: list[str]) -> list[str]:
    """Return as many keys as are looked at, in order."""
    if len(keys) > _MOST:
        notes.append(f"{name}: of {len(keys)} things that it names, {_MOST} were looked at")
    return sorted(keys)[:_MOST]


def _label(text: str, labels: set[str]) -> str:
    base = _ODD.sub("-", text.lower()).strip("._-")[:30] or "volume"
    if _problem("", f"storage: [{{label: '{base}', size: {_SIZE}}}]\n"):
        base = f"v-{base}".replace("_", "-")  # the machine or LVM has a use for it
    found, number = base, 1
    while found in labels:
        number += 1
        found = f"{base}-{number}"
    return found


def _problem(of_target: str, whole: str = "") -> str:
    """Return why a manifest with this in it would be refused, by the rules of manifests."""
    try:
        parse_source(f"{_TRY}{of_target}{whole}".encode())
    except DocumentError as error:
        return error.faults[0].message
    return ""


def _about(config: ImageConfig) -> Iterator[str]:
    run = config.run
    argv = _argv(run)
    if argv:
        user = _shown(run.get("User") or "") or "root (of its own user namespace)"
        yield f"It runs {_shown(json.dumps(argv, ensure_ascii=False))} as {user}."
    if run.get("StopSignal"):
        yield f"It is ended by {_shown(run['StopSignal'])}."
    names = [entry.partition("=")[0] for entry in run.get("Env") or []]
    others = [name for name in names if name != "PATH"]
    if others:
        yield f"Its environment has {_shown(', '.join(others))}."


def _shown(text: str) -> str:
    """Return a text of a stranger for one line of a comment."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."


def _lines(product: str, services: Sequence[Service]) -> Iterator[str]:
    yield "# Written by `mosb manifest init` from what the images say; a ? is for you to decide."
    yield "version: 1"
    yield f"product: {_quoted(product)}"
    yield "# ? complete replaces everything that a machine has, partial what it names."
    yield "update_type: complete"
    volumes = [(service.name, volume) for service in services for volume in service.volumes]
    if volumes:
        yield "# ? The images ask for these volumes, and do not say how large they have to be."
        yield "storage:"
    for name, volume in volumes:
        yield f"  - label: {_quoted(volume.label)}"
        yield "    persistent: true"
        yield f"    nsgroup: {_quoted(name)}"
        yield f"    size: {_SIZE}"
    yield "targets:"
    for service in services:
        yield from _target(service)


def _target(service: Service) -> Iterator[str]:
    for line in service.about:
        yield f"  # {line}"
    yield f"  - service_name: {_quoted(service.name)}"
    yield f"    source: {_quoted(service.source)}"
    if service.guessed:
        yield "    # ? The image says no version."
    yield f"    version: {_quoted(service.version)}"
    yield f"    service_type: {service.kind}"
    if service.kind != "container":
        if service.kind == "hostfs":
            yield "    network: {type: host}"
        return
    if service.ports:
        yield "    # ? host is the port of the machine; leave out what nobody outside shall reach."
        yield "    network:"
        yield "      type: simple"
        yield "      ports:"
        for port in service.ports:
            yield (
                f"        - {{host: {port.host}, container: {port.container}, "
                f"protocol: {port.protocol}}}"
            )
    else:
        yield "    # ? The image exposes no port; simple lets it reach out."
        yield "    network: {type: none}"
    if service.volumes:
        yield "    storage:"
    for volume in service.volumes:
        yield f"      - {{label: {_quoted(volume.label)}, dest: {_quoted(volume.dest)}}}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
