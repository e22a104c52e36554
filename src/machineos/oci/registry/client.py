"""A registry over HTTP: the client side of the OCI distribution specification 1.1.

Owns pulling, manifests, tags and referrers; ``upload.py`` pushes blobs, ``transport.py`` sends the
requests. Invariant: what is returned has the digest that was asked for; a tag is read in one
request, so its descriptor and its bytes belong together even while it moves. Where the registry has
no referrers API, the referrers tag schema is used, for reading and for writing.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from machineos.core.clock import SystemClock
from machineos.core.digest import Digest
from machineos.core.jsondoc import parse_json
from machineos.errors import (
    DigestError,
    DocumentError,
    Fault,
    MissingError,
    StalledError,
    TransferError,
)
from machineos.oci.model.documents import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEX,
    MANIFEST,
    MAX_MANIFEST,
    Descriptor,
    Manifest,
    parse_document,
    parse_index,
)
from machineos.oci.model.reference import check_name, check_tag
from machineos.oci.model.referrers import (
    fallback_tag,
    is_fallback_tag,
    referrer,
    with_referrer,
)
from machineos.oci.model.stream import Verified
from machineos.oci.registry import hub
from machineos.oci.registry.certificates import NONE, Certificates
from machineos.oci.registry.encoding import is_packed
from machineos.oci.registry.proxy import DIRECT, Proxies
from machineos.oci.registry.transport import Answer, Call, Transport, UnaskedError
from machineos.oci.registry.upload import Session, Uploader, check_header
from machineos.oci.registry.wire import Limits, PassingError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

    from urllib3.response import BaseHTTPResponse

    from machineos.core.clock import Clock
    from machineos.oci.model.repository import Repository
    from machineos.oci.registry.auth import Credentials

__all__ = ["HttpRegistry", "HttpRepository", "Limits"]

_ACCEPT = ", ".join((MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX))
_NEXT = re.compile(r'<([^>]{1,2048})>\s*;\s*rel="?next"?')
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")
# How registries say that they have no referrers API, besides 404.
_NO_API = frozenset({400, 405, 406, 501})
# Media types of an answer that leave open what it is.
_UNSAID = frozenset({"application/json", ""})
_PROGRESS = 1 << 20  # so much between two failures, and the first no longer counts


class HttpRegistry:
    """The registry ``host`` (``name[:port]``), over TLS unless ``plain_http`` or loopback.

    With ``certificates`` that name a CA it is TLS on loopback too. ``seed`` makes the jitter of
    retries repeatable. Safe for use by several threads.
    """

    def __init__(
        self,
        host: str,
        *,
        plain_http: bool = False,
        credentials: Credentials | None = None,
        certificates: Certificates = NONE,
        proxies: Proxies = DIRECT,
        clock: Clock | None = None,
        limits: Limits | None = None,
        seed: int | None = None,
    ) -> None:
        self._transport = Transport(
            host,
            plain_http=plain_http,
            credentials=credentials,
            certificates=certificates,
            proxies=proxies,
            clock=clock or SystemClock(),
            limits=limits or Limits(),
            seed=seed,
        )

    def __enter__(self) -> HttpRegistry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The host."""
        return self._transport.host

    def repository(self, name: str) -> HttpRepository:
        """Return the repository ``name``. Raises: DocumentError for a name that is not allowed."""
        return HttpRepository(self._transport, hub.repository(self.name, check_name(name)))

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()


class HttpRepository:
    """One repository of a registry."""

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self._path = name
        self._pull_scope = f"repository:{name}:pull"
        self._push_scope = f"{self._pull_scope},push"
        self._uploader = Uploader(transport, name)
        self._sessions: dict[Digest, Session] = {}
        self._fallback = threading.Lock()

    @property
    def name(self) -> str:
        """``host/path``."""
        return f"{self._transport.host}/{self._path}"

    def resolve(self, reference: str) -> Descriptor:
        """Return the descriptor of a tag or digest; the manifest is read and checked for it.

        Raises: MissingError, VerificationError, DocumentError, TransferError.
        """
        return self.manifest(reference)[0]

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        """Return descriptor and bytes of a tag or digest, from one answer.

        Raises: MissingError, VerificationError, DocumentError, TransferError.
        """
        return self._manifest(reference, self._pull_scope)

    def _manifest(self, reference: str, scope: str) -> tuple[Descriptor, bytes]:
        wanted = Digest.parse(reference) if ":" in reference else None
        name = f"{self.name}@{wanted}" if wanted else f"{self.name}:{check_tag(reference)}"
        try:
            answer = self._ask("GET", f"manifests/{reference}", scope, accept=_ACCEPT)
        except MissingError as error:
            raise MissingError(f"{name} does not exist") from error
        data, told = answer.body, _told_digest(answer.headers)
        digest = wanted or told or Digest.of(data)
        digest.check(data, name)
        if told is not None:
            told.check(data, f"{name} (Docker-Content-Digest)")
        kind = _media_type(answer)
        document = parse_document(data, name=name, media_type=kind)
        return Descriptor(media_type=document.media_type, digest=digest, size=len(data)), data

    def has_blob(self, digest: Digest) -> bool:
        """Whether the registry says that it has the blob. Raises: TransferError."""
        answer = self._ask("HEAD", f"blobs/{digest}", self._pull_scope, expect=(200, 404))
        return answer.status == 200

    def holds_blob(self, descriptor: Descriptor) -> bool:
        """Whether the registry says that it has the blob, asked by who is going to push: a
        repository that comes into being by a push may not be asked otherwise. Raises: DigestError
        (of another size), TransferError."""
        answer = self._ask(
            "HEAD", f"blobs/{descriptor.digest}", self._push_scope, expect=(200, 404)
        )
        length = answer.headers.get("Content-Length", str(descriptor.size))
        if answer.headers.get("Content-Encoding"):  # then it is that of something else
            return answer.status == 200
        if answer.status == 200 and length not in {str(descriptor.size), "0"}:
            raise DigestError(
                f"{self._what(descriptor)}: the registry has {length[:20]} bytes, "
                f"expected {descriptor.size}"
            )
        return answer.status == 200

    def blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
        """Return a small blob whole. Raises: MissingError, DigestError, DocumentError,
        TransferError."""
        if descriptor.size > limit:
            raise DocumentError(
                self._what(descriptor),
                [Fault("", 0, f"has {descriptor.size} bytes, at most {limit} are read")],
            )
        with self.open_blob(descriptor) as chunks:
            return b"".join(chunks)

    @contextmanager
    def open_blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Yield the chunks of a blob, the last one only after the digest of the whole matched.

        A connection that breaks is taken up again where it broke.
        Raises while iterating: MissingError, DigestError, StalledError, TransferError.
        """
        pieces = self._pull(descriptor)
        chunks = Verified(pieces, descriptor, self._what(descriptor))
        try:
            yield chunks
        finally:
            chunks.close()
            pieces.close()

    def put_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Upload a blob unless it is there. Raises: DigestError, TransferError."""
        session = self._sessions.pop(descriptor.digest, None)
        if session is None:
            if self.holds_blob(descriptor):
                return
            session = self._uploader.start()
        self._uploader.send(descriptor, chunks, session)

    def mount_blob(self, descriptor: Descriptor, source: Repository) -> bool:
        """Take a blob from another repository of this registry; False when that cannot be done.

        Raises: TransferError.
        """
        if not isinstance(source, HttpRepository) or source._transport.host != self._transport.host:
            return False
        session = self._uploader.mount(descriptor, source._path)
        if session is not None:
            self._sessions[descriptor.digest] = session
        return session is None

    def put_manifest(self, data: bytes, *, media_type: str, tag: str | None = None) -> Descriptor:
        """Upload a manifest under its digest or ``tag``, and list it as a referrer of its subject.

        Raises: DocumentError, DigestError, TransferError.
        """
        digest = Digest.of(data)
        document = parse_document(data, name=f"{self.name}@{digest}", media_type=media_type)
        descriptor = Descriptor(media_type=document.media_type, digest=digest, size=len(data))
        headers = self._put(descriptor, data, tag)
        if not isinstance(document, Manifest) or document.subject is None:
            return descriptor
        if headers.get("OCI-Subject", "") != str(document.subject.digest):
            self._add_fallback(document.subject.digest, referrer(document, descriptor))
        return descriptor

    def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return what the registry says refers to ``digest``, sorted by digest.

        At most ``Limits.referrers`` are looked at. It is the registry's word: whoever uses one
        checks the subject of its manifest. Raises: DocumentError, TransferError.
        """
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        entries: list[Descriptor] = []
        url: str | None = f"/v2/{self._path}/referrers/{digest}{query}"
        for _ in range(self._transport.limits.pages):
            if url is None or len(entries) >= self._transport.limits.referrers:
                break
            answer = self._listing(url)
            if answer is None:
                entries = list(self._fallback_entries(digest, self._pull_scope))
                break
            name = f"{self.name}: referrers of {digest}"
            entries += parse_index(answer.body, name=name, media_type=INDEX).manifests
            url = self._next(answer)
        found = {
            entry.digest: entry
            for entry in entries[: self._transport.limits.referrers]
            if artifact_type in {"", entry.artifact_type}
        }
        return tuple(found[key] for key in sorted(found))

    def tags(self) -> tuple[str, ...]:
        """Return the tags of images, sorted. Raises: DocumentError, TransferError."""
        tags: set[str] = set()
        url: str | None = f"/v2/{self._path}/tags/list?n=1000"
        name = f"{self.name}: tags"
        for _ in range(self._transport.limits.pages):
            if url is None:
                break
            answer = self._ask_url("GET", url, self._pull_scope, expect=(200, 404))
            if answer.status == 404:
                break
            tags.update(_tags_of(answer.body, name))
            if len(tags) > self._transport.limits.tags:
                raise DocumentError(name, [Fault("tags", 0, "are too many")])
            url = self._next(answer)
        return tuple(sorted(tag for tag in tags if not is_fallback_tag(tag)))

    # -- pulling

    def _what(self, descriptor: Descriptor) -> str:
        return f"{self.name}: blob {descriptor.digest}"

    def _pull(self, descriptor: Descriptor) -> Generator[bytes, None, None]:
        what = self._what(descriptor)
        count = self._transport.retry()
        seen, mark = 0, 0
        while True:
            try:
                for piece in self._pull_once(descriptor, seen, what):
                    seen += len(piece)
                    yield piece
            except (PassingError, StalledError) as error:
                if seen - mark >= _PROGRESS:
                    count.progress()
                mark = seen
                count.failed(error)
            else:
                return

    def _pull_once(self, descriptor: Descriptor, start: int, what: str) -> Iterator[bytes]:
        """Yield the bytes from ``start`` on, from one answer."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and start == descriptor.size:
            return
        url = f"/v2/{self._path}/blobs/{descriptor.digest}"
        expect = (200, 206) if start else (200,)
        call = Call("GET", url, self._path, self._pull_scope, expect, headers)
        with self._transport.open(call) as (response, _):
            begin = start if response.status == 206 else 0
            if response.status == 206:
                _check_range(response.headers, start, descriptor.size, what)
            _check_length(response, descriptor.size - begin, what)
            # A server that ignores Range starts again at 0: what we have is read past; that it is
            # the same is for the digest of the whole to say.
            skip = start - begin
            for piece in self._transport.body(response, descriptor.size - begin, what):
                if skip >= len(piece):
                    skip -= len(piece)
                    continue
                yield piece[skip:] if skip else piece
                skip = 0

    # -- referrers without the API

    def _listing(self, url: str) -> Answer | None:
        """Return what the referrers API says, None where there is none.

        Registries say that in many ways: they do not know the path or the method, they take it for
        something else, ask for nothing that could be answered, or answer with a page for people.
        """
        try:
            answer = self._ask_url("GET", url, self._pull_scope, accept=INDEX)
        except (MissingError, UnaskedError):
            return None
        except TransferError as error:
            if error.status in _NO_API:
                return None
            raise
        kind = _media_type(answer)
        return answer if kind == INDEX or (kind in _UNSAID and _is_index(answer.body)) else None

    def _fallback_entries(self, digest: Digest, scope: str) -> tuple[Descriptor, ...]:
        """Return what the referrers tag lists; what is no index lists nothing."""
        try:
            found, data = self._manifest(fallback_tag(digest), scope)
        except MissingError:
            return ()
        if found.digest == digest or found.media_type not in {INDEX, DOCKER_INDEX}:
            return ()  # some registries take the tag for the digest that it is made of
        name = f"{self.name}:{fallback_tag(digest)}"
        return parse_index(data, name=name, media_type=found.media_type).manifests

    def _add_fallback(self, subject: Digest, entry: Descriptor) -> None:
        """Add ``entry`` to the index under the referrers tag; entries of others stay.

        Two clients can do this at the same time and the registry has no lock, so it is read again
        afterwards.
        """
        with self._fallback:
            for _ in range(self._transport.limits.attempts):
                entries = self._fallback_entries(subject, self._push_scope)
                data = with_referrer(entries, entry)
                if data is None:
                    return
                index = Descriptor(media_type=INDEX, digest=Digest.of(data), size=len(data))
                self._put(index, data, fallback_tag(subject))
            if any(
                other.digest == entry.digest
                for other in self._fallback_entries(subject, self._push_scope)
            ):
                return
        raise TransferError(
            f"{self.name}: others keep changing the list of referrers of {subject}",
            hint="try again",
        )

    # -- requests

    def _put(self, descriptor: Descriptor, data: bytes, tag: str | None) -> Mapping[str, str]:
        reference = check_tag(tag) if tag is not None else str(descriptor.digest)
        call = Call(
            "PUT",
            f"/v2/{self._path}/manifests/{quote(reference, safe=':')}",
            self._path,
            self._push_scope,
            (201,),
            headers={"Content-Type": descriptor.media_type},
            body=data,
        )
        answer = self._transport.call(call)
        check_header(answer.headers, descriptor, f"{self.name}:{reference}")
        return answer.headers

    def _ask(
        self,
        method: str,
        path: str,
        scope: str,
        *,
        expect: tuple[int, ...] = (200,),
        accept: str = "",
    ) -> Answer:
        url = f"/v2/{self._path}/{path}"
        return self._ask_url(method, url, scope, expect=expect, accept=accept)

    def _ask_url(
        self,
        method: str,
        url: str,
        scope: str,
        *,
        expect: tuple[int, ...] = (200,),
        accept: str = "",
    ) -> Answer:
        headers = {"Accept": accept} if accept else {}
        call = Call(method, url, self._path, scope, expect, headers)
        return self._transport.call(call, limit=MAX_MANIFEST)

    def _next(self, answer: Answer) -> str | None:
        """Return the URL of the next page, if there is one; it must be on this registry."""
        match = _NEXT.search(answer.headers.get("Link", "")[:4096])
        return None if match is None else self._transport.page_url(match[1], answer.url)


def _media_type(answer: Answer) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip()


def _is_index(data: bytes) -> bool:
    try:
        return bool(parse_index(data, name="referrers").media_type)
    except DocumentError:
        return False


def _tags_of(data: bytes, name: str) -> list[str]:
    body = parse_json(data, name=name, limit=MAX_MANIFEST)
    page = (body.get("tags") or []) if isinstance(body, dict) else None
    if not isinstance(page, list) or not all(isinstance(tag, str) for tag in page):
        raise DocumentError(name, [Fault("tags", 0, "is not a list of strings")])
    return [check_tag(tag) for tag in page]


def _told_digest(headers: Mapping[str, str]) -> Digest | None:
    text = headers.get("Docker-Content-Digest", "")
    return Digest.parse(text) if text else None


def _check_length(response: BaseHTTPResponse, size: int, what: str) -> None:
    """Raises: DigestError, when the body is said to be of another size; of one that has to be
    unpacked it is not said."""
    length = response.headers.get("Content-Length", str(size))
    if length != str(size) and not is_packed(response, size):
        raise DigestError(f"{what}: the registry says {length[:20]} bytes, expected {size}")


def _check_range(headers: Mapping[str, str], start: int, size: int, what: str) -> None:
    text = headers.get("Content-Range", "")
    match = _CONTENT_RANGE.fullmatch(text)
    if (
        match is None
        or int(match[1]) != start
        or int(match[2]) != size - 1
        or match[3] not in {"*", str(size)}
    ):
        raise TransferError(f"{what}: asked for bytes from {start}, got {text[:80]!r}")
