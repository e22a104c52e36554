"""Names of images and registries, as people and manifests write them.

Owns the grammar of repository names and tags (OCI distribution specification 1.1, "Pulling
manifests") and the spellings of images (``SOURCES``), ``oci:DIR[:TAG]`` and ``host:port/name:tag``.
Invariant: a value that exists is well formed, so its parts go into URLs and folder names as they
are; nothing in them can climb out of either.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar, get_args

import msgspec

from machineos.core.digest import Digest
from machineos.errors import DocumentError, Fault, MachineOSError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
Way = Literal["oci-archive", "docker-archive", "docker-daemon", "containers-storage"]
SOURCES = (
    "docker://host/name:tag",
    "oci:DIR:TAG",
    "oci-archive:FILE[:NAME]",
    "docker-archive:FILE[:NAME]",
    "docker-daemon:NAME:TAG",
    "containers-storage:NAME",
)
PREFIXES = ("docker://", "oci:", *(f"{way}:" for way in get_args(Way)))
_HERE = PREFIXES[1:]
_ARCHIVES: Final[tuple[Way, ...]] = ("oci-archive", "docker-archive")
_PROGRAMS: Final[tuple[Way, ...]] = ("docker-daemon", "containers-storage")
DEFAULT_TAG = "latest"
_MAX_TEXT = 1024
_MAX_NAME = 255
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_MAX_REF_NAME = 255
_REF_PART = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_REF_NAME = re.compile(rf"{_REF_PART}(?:/{_REF_PART})*|[a-zA-Z0-9_][a-zA-Z0-9._-]{{0,127}}")
_USER = re.compile(r"(?:([a-z]+://).*|.*:.*)@(?!(?:sha\d+|md5):)", re.DOTALL)
_NUMBER = re.compile(r"@[0-9]{1,4}")
_IMAGE_ID = re.compile(r"@?[0-9a-f]{12,64}")
_DIGEST_LIKE = re.compile(r"sha(?:256|512):")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOST = re.compile(rf"({_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]{{2,45}}\])(?::([0-9]{{1,5}}))?")


def check_name(name: str) -> str:
    """Return ``name`` if it is a repository name (``machine/install``). Raises: DocumentError."""
    if len(name) > _MAX_NAME:
        raise _fault(name, f"repository name is longer than {_MAX_NAME} characters")
    if not _NAME.fullmatch(name):
        raise _fault(
            name,
            "is not a repository name (lower-case letters and digits, joined by '.', '_', '-', "
            "in parts separated by '/')",
        )
    return name


def check_tag(tag: str) -> str:
    """Return ``tag`` if it is one. Raises: DocumentError."""
    if not _TAG.fullmatch(tag):
        raise _fault(
            tag, "is not a tag (up to 128 letters, digits, '_', '.', '-'; not '.' or '-' first)"
        )
    return tag


def check_ref_name(name: str) -> str:
    """Return ``name`` if an image in a layout may be called so (OCI image specification,
    "Pre-Defined Annotation Keys": ``org.opencontainers.image.ref.name``). Raises: DocumentError."""
    if len(name) > _MAX_REF_NAME or not _REF_NAME.fullmatch(name):
        raise _fault(name, "is not a name that an image in a layout may have")
    return name


def check_local(name: str) -> str:
    """Return ``name`` if a container engine may know an image by it: ``[host/]name[:tag|@digest]``
    or the id of the image. Raises: DocumentError."""
    if name.startswith("["):
        raise _fault(name, "says which storage to use, which is not supported: leave [...] out")
    if not _IMAGE_ID.fullmatch(name) and not _DIGEST_LIKE.match(name):
        return str(Reference.parse(name))
    if _DIGEST_LIKE.match(name):
        Digest.parse(name)
    return name


def check_host(host: str) -> str:
    """Return ``host`` if it is ``name``, ``name:port`` or an address, IPv6 in brackets.

    Raises: DocumentError.
    """
    match = _HOST.fullmatch(host) if len(host) <= _MAX_NAME else None
    if match is None:
        raise _fault(host, "is not a registry (host or host:port, without a scheme)")
    if match[1].startswith("["):
        try:
            ipaddress.IPv6Address(match[1][1:-1])
        except ValueError as error:
            raise _fault(host, "is not an IPv6 address") from error
    if match[2] is not None and not 0 < int(match[2]) < 65536:
        raise _fault(host, "has a port that is not between 1 and 65535")
    return host


def is_loopback(host: str) -> bool:
    """Whether ``host`` (with or without a port) is this machine by definition, not by a lookup."""
    match = _HOST.fullmatch(host)
    name = (match[1] if match else host).lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


class Reference(msgspec.Struct, frozen=True):
    """``[host[:port]/]name[:tag][@digest]``; ``host`` is empty when none was written."""

    name: str
    host: str = ""
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.host:
            check_host(self.host)
        if self.tag is not None:
            check_tag(self.tag)

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference. Raises: DocumentError."""
        _check_text(text)
        rest, at, digest = text.partition("@")
        host, slash, name = rest.partition("/")
        if not slash or not _looks_like_host(host):
            host, name = "", rest
        name, colon, tag = name.partition(":")
        return _named(
            text,
            lambda: cls(
                host=host,
                name=name,
                tag=check_tag(tag) if colon else None,
                digest=Digest.parse(digest) if at else None,
            ),
        )

    @property
    def selector(self) -> str:
        """What to ask the repository for: the digest if there is one, else the tag."""
        return str(self.digest) if self.digest else self.tag or DEFAULT_TAG

    def __str__(self) -> str:
        host = f"{self.host}/" if self.host else ""
        tag = f":{self.tag}" if self.tag is not None else ""
        return f"{host}{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


class ImageSource(msgspec.Struct, frozen=True):
    """Where an image is: in a registry (``reference`` with a host), in a layout ``folder``, in an
    archive (``way`` and ``file``), or with a program of this machine (``way`` alone).

    Exactly one of reference, folder and way is set. ``selector`` is the tag or digest in it; in an
    archive it may also be ``@N``, or empty for the only image; a program knows the image by it.
    """

    selector: str
    folder: Path | None = None
    reference: Reference | None = None
    way: Way | None = None
    file: Path | None = None

    @classmethod
    def parse(cls, text: str) -> ImageSource:
        """Read one of ``SOURCES``, spelled as in containers-transports(5). Raises: DocumentError.

        ``oci:DIR@DIGEST`` is a layout's image by digest, too.
        """
        _check_text(text)
        if text.startswith("docker://"):
            reference = _named(text, lambda: Reference.parse(text.removeprefix("docker://")))
            if not reference.host:
                raise _fault(text, "names no registry host: docker://host[:port]/name[:tag]")
            return cls(selector=reference.selector, reference=reference)
        way, colon, body = text.partition(":")
        if colon and way == "oci":
            return cls._layout(text)
        if colon and way in _ARCHIVES:
            return cls._archive(text, way, body)
        if colon and way in _PROGRAMS:
            return cls(selector=_named(text, lambda: check_local(body)), way=way)
        raise _fault(text, f"is none of {', '.join(SOURCES)}")

    @property
    def keeps_manifest(self) -> bool:
        """Whether the manifest is the one that was pushed, with its digest: what comes by way of
        Docker's form has one that is made anew."""
        return self.way in {None, "oci-archive"}

    @classmethod
    def _layout(cls, text: str) -> ImageSource:
        body = text.removeprefix("oci:")
        folder, at, digest = body.rpartition("@")
        if at and _DIGEST_LIKE.match(digest):
            selector = _named(text, lambda: str(Digest.parse(digest)))
        else:
            folder, colon, selector = body.partition(":")
            if not colon:
                raise _fault(text, "names no tag: oci:DIR:TAG or oci:DIR@sha256:...")
            if _DIGEST_LIKE.match(selector):
                selector = _named(text, lambda: str(Digest.parse(selector)))
            else:
                selector = _named(text, lambda: check_ref_name(selector))
        if not folder:
            raise _fault(text, "names no folder: oci:DIR:TAG")
        return cls(selector=selector, folder=Path(folder))

    @classmethod
    def _archive(cls, text: str, way: Way, body: str) -> ImageSource:
        file, colon, selector = body.partition(":")
        if not file:
            raise _fault(text, f"names no file: {way}:FILE[:NAME]")
        if colon and not _NUMBER.fullmatch(selector):
            check = check_ref_name if way == "oci-archive" else check_local
            selector = _named(text, lambda: check(selector))
        return cls(selector=selector, way=way, file=Path(file))

    def __str__(self) -> str:
        if self.reference is not None:
            return f"docker://{self.reference}"
        if self.way is not None and self.file is None:
            return f"{self.way}:{self.selector}"
        if self.way is not None:
            return f"{self.way}:{self.file}" + (f":{self.selector}" if self.selector else "")
        return image_of(f"oci:{self.folder}", self.selector)


class RegistryLocation(msgspec.Struct, frozen=True):
    """What ``--repo`` takes: a registry ``host`` or the ``folder`` with one layout per name.

    ``prefix`` is what all names in the registry begin with: an owner, a project.
    """

    host: str = ""
    folder: Path | None = None
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> RegistryLocation:
        """Read ``host[:port][/prefix]`` or ``oci:DIR``. Raises: DocumentError."""
        _check_text(text)
        if text.startswith("oci:"):
            folder = text.removeprefix("oci:")
            if not folder:
                raise _fault(text, "names no folder: oci:DIR")
            return cls(folder=Path(folder))
        host, slash, prefix = text.partition("/")
        if not slash or not _looks_like_host(host):
            return cls(host=check_host(text))
        return cls(host=check_host(host), prefix=_named(text, lambda: check_name(prefix)))

    def __str__(self) -> str:
        if self.folder is not None:
            return f"oci:{self.folder}"
        return f"{self.host}/{self.prefix}" if self.prefix else self.host


def image_of(repository: str, selector: str) -> str:
    """Return how an image of a repository is written: ``repository:tag``, or ``@`` and digest."""
    return f"{repository}{'@' if _DIGEST_LIKE.match(selector) else ':'}{selector}"


def _looks_like_host(part: str) -> bool:
    return part == "localhost" or any(mark in part for mark in ".:[")


def _check_text(text: str) -> None:
    if not text:
        raise _fault(text, "is empty")
    if len(text) > _MAX_TEXT:
        raise _fault(text, f"is longer than {_MAX_TEXT} characters")
    if not text.isprintable():
        raise _fault(text, "holds characters that cannot be printed")
    if _without_user(text) != text:
        raise _fault(
            text,
            "has an '@' that no digest follows; who has a password logs in: skopeo login HOST",
        )


def _named(text: str, build: Callable[[], T]) -> T:
    """Return ``build()``; a part that is wrong is reported under the whole text."""
    try:
        return build()
    except DocumentError as error:
        if error.name == _shown(text):
            raise
        raise _fault(text, f"{error.name} {error.faults[0].message}") from error
    except MachineOSError as error:
        raise _fault(text, error.message) from error


def _fault(text: str, message: str) -> DocumentError:
    return DocumentError(_shown(text), [Fault("", 0, message)])


def _without_user(text: str) -> str:
    """Return ``text`` with three dots for what stands before an ``@`` that is not a digest's: a
    user, and perhaps a password, which nobody may see. In names of what is on this machine it is a
    letter."""
    match = None if text.startswith(_HERE) else _USER.match(text)
    return text if match is None else f"{match[1] or ''}...@{text[match.end() :]}"


def _shown(text: str) -> str:
    text = _without_user(text)
    return repr(text if len(text) <= 80 else text[:77] + "...")
