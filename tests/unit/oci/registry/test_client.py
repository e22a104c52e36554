"""Registries that stall, lie, die half-way, or want to know who we are."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fakes.registry import FakeRegistry, fake_registry
from machineos.core.digest import Digest
from machineos.errors import (
    AuthError,
    DigestError,
    DocumentError,
    MachineOSError,
    MissingError,
    StalledError,
    TransferError,
    VerificationError,
)
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import (
    EMPTY_DESCRIPTOR,
    INDEX,
    MANIFEST,
    Descriptor,
    Manifest,
    parse_index,
)
from machineos.oci.registry.client import HttpRegistry, Limits, fallback_tag
from unit.oci.conftest import FAST, HASTY
from unit.oci.samples import NoWaiting, put_artifact, put_bytes, put_image

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(range(256)) * 2000  # 512,000 bytes


def read(client: HttpRegistry, data: bytes = DATA) -> bytes:
    """Pull the blob, however the registry behaves."""
    repository = client.repository("a/b")
    with repository.open_blob(descriptor(data)) as chunks:
        return b"".join(chunks)


def descriptor(data: bytes = DATA) -> Descriptor:
    return Descriptor(media_type="application/x", digest=Digest.of(data), size=len(data))


@pytest.fixture
def stored(fake: FakeRegistry) -> FakeRegistry:
    fake.blobs[("a/b", str(Digest.of(DATA)))] = DATA
    return fake


# -- a registry that dies half-way


def test_a_broken_pull_goes_on_where_it_broke(stored: FakeRegistry, client: HttpRegistry) -> None:
    stored.faults.die_after = [300_000]
    assert read(client) == DATA
    ranges = [item.headers.get("Range") for item in stored.seen]
    assert ranges[0] is None
    assert len(ranges) == 2
    assert ranges[1] is not None
    assert ranges[1] != "bytes=0-"


def test_a_server_without_ranges_is_read_past(stored: FakeRegistry, client: HttpRegistry) -> None:
    stored.faults.die_after = [300_000]
    stored.faults.ignore_range = True
    assert read(client) == DATA


def test_an_answer_for_another_range_is_refused(stored: FakeRegistry, client: HttpRegistry) -> None:
    stored.faults.die_after = [300_000]
    stored.faults.wrong_range = True
    with pytest.raises(TransferError, match="asked for bytes from"):
        read(client)


def test_dying_for_ever_ends(stored: FakeRegistry, client: HttpRegistry) -> None:
    stored.faults.die_after = [10] * 100
    with pytest.raises(TransferError, match="broke"):
        read(client)
    assert len(stored.seen) == FAST.attempts


def test_a_pull_that_dies_leaves_no_name(
    stored: FakeRegistry, client: HttpRegistry, tmp_path: Path
) -> None:
    image = put_image(client.repository("c"), "1.0", (DATA,))
    stored.faults.die_after = [1000] * 100
    sink = LayoutRepository(tmp_path / "sink", writable=True)
    with pytest.raises(TransferError):
        copy_graph(client.repository("c"), sink, "1.0", tag="1.0")
    assert sink.tags() == ()
    assert not sink.has_blob(image.layers[0].digest)
    assert not list(tmp_path.rglob(".*"))
    stored.faults.die_after = []
    assert copy_graph(client.repository("c"), sink, "1.0", tag="1.0") == image.root


# -- a registry that stalls


@pytest.mark.parametrize(
    "fault",
    [{"stall_after": 100}, {"drip": True}, {"drip_headers": True}, {"drip_chunk_size": True}],
    ids=lambda fault: next(iter(fault)),
)
def test_stalls_end(stored: FakeRegistry, hasty: HttpRegistry, fault: dict[str, object]) -> None:
    for key, value in fault.items():
        setattr(stored.faults, key, value)
    with pytest.raises(StalledError):
        read(hasty)


@pytest.mark.parametrize("fault", ["stall", "drip"])
@pytest.mark.parametrize("what", ["manifest", "referrers", "tags"])
def test_documents_that_stall_end(
    fake: FakeRegistry, client: HttpRegistry, hasty: HttpRegistry, what: str, fault: str
) -> None:
    """Not only blobs: whatever is asked for on the way to one."""
    repository = hasty.repository("a/b")
    subject = put_image(client.repository("a/b")).root
    calls = {
        "manifest": lambda: repository.manifest("1.0"),
        "referrers": lambda: repository.referrers(subject.digest),
        "tags": repository.tags,
    }
    fake.faults.documents = fault
    started = time.monotonic()
    with pytest.raises(StalledError):
        calls[what]()
    assert time.monotonic() - started < 10


def test_a_document_that_drips_just_fast_enough_ends_too(
    fake: FakeRegistry, client: HttpRegistry
) -> None:
    """4 MiB at the slowest rate that is no stall would take hours."""
    put_image(client.repository("a/b"))
    fake.faults.documents = "drip"
    limits = replace(HASTY, window_bytes=1, document_seconds=0.5, attempts=1)
    with HttpRegistry(fake.host, limits=limits) as slow:
        with pytest.raises(StalledError, match=r"bytes in 0\.5 s"):
            slow.repository("a/b").manifest("1.0")


@pytest.mark.parametrize("fault", ["stall", "drip"])
def test_a_token_service_that_stalls_ends(
    fake: FakeRegistry, clock: NoWaiting, tmp_path: Path, fault: str
) -> None:
    from machineos.oci.registry.auth import Credentials
    from unit.oci.registry.test_auth import write_auth

    credentials = Credentials([write_auth(tmp_path, fake.host)])
    fake.faults.auth = "bearer"
    for documents, expected in (("", nullcontext()), (fault, pytest.raises(StalledError))):
        fake.faults.documents = documents
        with HttpRegistry(fake.host, limits=HASTY, clock=clock, credentials=credentials) as client:
            with expected:
                client.repository("a/b").tags()


def test_a_document_that_breaks_off_is_asked_for_again_and_never_used(
    fake: FakeRegistry, client: HttpRegistry
) -> None:
    repository = client.repository("a/b")
    subject = put_image(repository).root
    fake.faults.documents = "die"
    calls = (
        lambda: repository.manifest("1.0"),
        lambda: repository.referrers(subject.digest),
        repository.tags,
    )
    for call in calls:
        before = len(fake.seen)
        with pytest.raises(TransferError, match="broke"):
            call()
        assert len(fake.seen) - before == FAST.attempts


def test_a_slow_reader_is_not_a_stalled_server(stored: FakeRegistry, hasty: HttpRegistry) -> None:
    with hasty.repository("a/b").open_blob(descriptor()) as chunks:
        got = [next(chunks)]
        threading.Event().wait(HASTY.window_seconds * 2)
        got += chunks
    assert b"".join(got) == DATA


# -- a registry that lies


@pytest.mark.parametrize("length", [0, 1, len(DATA) - 1, len(DATA) + 1, 10**15])
def test_another_length_is_refused(stored: FakeRegistry, client: HttpRegistry, length: int) -> None:
    stored.faults.length = length
    with pytest.raises(DigestError, match="registry says"):
        read(client)


NONSENSE = [
    "abc", "-5", "1, 1", "\xb2", "9" * 5000, "bytes */*", "//[", "http://[::1", "http://x:abc/",
    '<http://[>; rel="next"', '<//x:y>; rel="next"', 'Bearer realm="http://["', "sha256:x",
]  # fmt: skip


@pytest.mark.parametrize("status", [0, 307, 401])
@pytest.mark.parametrize(
    "header",
    ["Content-Length", "Content-Type", "Content-Range", "Range", "Location", "Link", "Retry-After",
     "WWW-Authenticate", "Docker-Content-Digest", "OCI-Subject", "Transfer-Encoding"],
)  # fmt: skip
def test_nonsense_in_a_header_is_a_refusal_or_nothing(
    fake: FakeRegistry, client: HttpRegistry, status: int, header: str
) -> None:
    repository = client.repository("a/b")
    image = put_image(repository)
    put_artifact(repository, image.root, b"note")
    calls = (
        lambda: repository.manifest("1.0"),
        lambda: repository.referrers(image.root.digest),
        repository.tags,
        lambda: repository.has_blob(image.layers[0].digest),
        lambda: put_image(repository, "2.0", (b"%d" % len(fake.seen),)),
    )
    fake.faults.status = status
    for text in NONSENSE:
        fake.faults.says = {header: text}
        for call in calls:
            with suppress(MachineOSError):
                call()


def test_an_endless_body_is_cut_at_the_promised_size(
    stored: FakeRegistry, client: HttpRegistry
) -> None:
    stored.faults.endless = True
    with pytest.raises(DigestError, match="longer than"):
        read(client)


def test_an_endless_manifest_is_cut(stored: FakeRegistry, client: HttpRegistry) -> None:
    data = b'{"schemaVersion":2,' + b" " * (5 << 20) + b"}"
    stored.manifests[("a/b", str(Digest.of(data)))] = (MANIFEST, data)
    with pytest.raises(DocumentError, match="larger than"):
        client.repository("a/b").manifest(str(Digest.of(data)))


def test_endless_documents_without_a_length_are_cut(
    fake: FakeRegistry, client: HttpRegistry
) -> None:
    repository = client.repository("a/b")
    subject = put_image(repository).root
    fake.faults.documents = "endless"
    for call in (
        lambda: repository.manifest("1.0"),
        lambda: repository.referrers(subject.digest),
        repository.tags,
    ):
        with pytest.raises(DocumentError, match="larger than"):
            call()


def test_the_next_page_is_not_elsewhere(fake: FakeRegistry, client: HttpRegistry) -> None:
    repository = client.repository("a/b")
    subject = put_image(repository).root
    with fake_registry() as elsewhere:
        fake.faults.says = {"Link": f'<http://{elsewhere.host}/v2/a/b/tags/list>; rel="next"'}
        for call in (repository.tags, lambda: repository.referrers(subject.digest)):
            with pytest.raises(TransferError, match="the next page is elsewhere"):
                call()
        assert elsewhere.seen == []


def test_one_wrong_bit_is_noticed_before_the_last_chunk(
    stored: FakeRegistry, client: HttpRegistry
) -> None:
    stored.faults.corrupt = True
    got: list[bytes] = []
    with client.repository("a/b").open_blob(descriptor()) as chunks:
        with pytest.raises(DigestError):
            got.extend(chunks)
    assert sum(len(chunk) for chunk in got) < len(DATA)


def test_compressed_answers_are_refused(stored: FakeRegistry, client: HttpRegistry) -> None:
    stored.faults.encoding = "gzip"
    with pytest.raises(TransferError, match="encoded"):
        read(client)


def test_a_wrong_manifest_for_a_digest(fake: FakeRegistry, client: HttpRegistry) -> None:
    repository = client.repository("a/b")
    image = put_image(repository)
    other = put_image(repository, "2.0", (b"other",))
    fake.manifests[("a/b", str(image.root.digest))] = fake.manifests[
        ("a/b", str(other.root.digest))
    ]
    with pytest.raises(VerificationError):
        repository.manifest(str(image.root.digest))


def test_a_wrong_manifest_without_a_digest_in_its_header(
    fake: FakeRegistry, client: HttpRegistry
) -> None:
    """The header is optional, so what was asked for has to be checked without it."""
    repository = client.repository("a/b")
    image = put_image(repository)
    other = put_image(repository, "2.0", (b"other",))
    fake.faults.says = {"Docker-Content-Digest": ""}
    assert repository.manifest(str(image.root.digest))[0] == image.root
    fake.manifests[("a/b", str(image.root.digest))] = fake.manifests[
        ("a/b", str(other.root.digest))
    ]
    with pytest.raises(VerificationError):
        repository.manifest(str(image.root.digest))


def test_a_blob_that_is_there_with_another_size(stored: FakeRegistry, client: HttpRegistry) -> None:
    """A registry that has something else under the digest does not make a push succeed."""
    stored.blobs[("a/b", str(Digest.of(DATA)))] = DATA[:-1]
    with pytest.raises(DigestError, match="the registry has 511999 bytes"):
        client.repository("a/b").put_blob(descriptor(), (DATA,))


def test_a_header_with_another_digest(fake: FakeRegistry, client: HttpRegistry) -> None:
    repository = client.repository("a/b")
    root = put_image(repository).root
    fake.faults.told_digest = f"sha256:{'0' * 64}"
    for reference in ("1.0", str(root.digest)):
        with pytest.raises(VerificationError):
            repository.manifest(reference)
    with pytest.raises(VerificationError):
        put_image(repository, "2.0", (b"another",))


def test_a_tag_that_moves_between_requests_is_one_image(
    fake: FakeRegistry, client: HttpRegistry, tmp_path: Path
) -> None:
    repository = client.repository("a/b")
    first = put_image(repository, "1.0", (b"first",))
    second = put_image(repository, None, (b"second",))
    flips = [second.root, first.root] * 10
    fake.faults.move_tag = lambda: fake.tags.__setitem__(("a/b", "1.0"), str(flips.pop(0).digest))
    sink = LayoutRepository(tmp_path / "sink", writable=True)
    copied = copy_graph(repository, sink, "1.0", tag="1.0")
    assert copied == first.root == sink.resolve("1.0")
    with sink.open_blob(first.layers[0]) as chunks:
        assert b"".join(chunks) == b"first"


TWO_MEANINGS = (
    b'{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:%b","size":2},"layers":[],'
    b'"manifests":[]}' % (b"4" * 64)
)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (TWO_MEANINGS, MANIFEST),
        (TWO_MEANINGS, INDEX),
        (b'{"schemaVersion":2,"mediaType":"%b","manifests":[]}' % INDEX.encode(), MANIFEST),
        (b'{"schemaVersion":2,"manifests":[]}', MANIFEST),
        (b'{"schemaVersion":2,"manifests":[],"manifests":[]}', INDEX),
        (b'{"schemaVersion":1,"manifests":[]}', INDEX),
        (b'{"schemaVersion":2,"manifests":[]}', "text/html"),
        (b"[" * 100_000, MANIFEST),
        (b"\xff\xfe", MANIFEST),
    ],
)
def test_confused_types_are_refused(
    fake: FakeRegistry, client: HttpRegistry, body: bytes, kind: str
) -> None:
    digest = str(Digest.of(body))
    fake.manifests[("a/b", digest)] = (kind, body)
    fake.tags[("a/b", "1.0")] = digest
    for reference in ("1.0", digest):
        with pytest.raises(DocumentError):
            client.repository("a/b").manifest(reference)


# -- referrers


def test_a_flood_of_referrers_is_looked_at_in_part(
    fake: FakeRegistry, client: HttpRegistry
) -> None:
    fake.faults.flood = 100_000
    for page, requests in ((1000, 1), (700, 2)):
        fake.faults.page = page
        before = fake.count("GET", "referrers")
        found = client.repository("a/b").referrers(Digest.of(b"x"))
        assert len(found) == FAST.referrers
        assert list(found) == sorted(found, key=lambda entry: entry.digest)
        assert fake.count("GET", "referrers") - before == requests


def test_a_flood_in_one_answer_is_refused(fake: FakeRegistry, client: HttpRegistry) -> None:
    fake.faults.flood, fake.faults.flood_in_one = 100_000, True
    with pytest.raises(DocumentError, match="larger than"):
        client.repository("a/b").referrers(Digest.of(b"x"))


def test_too_many_tags_are_refused(fake: FakeRegistry, clock: NoWaiting) -> None:
    fake.manifests["a/b", "x"] = (MANIFEST, b"")
    fake.tags |= {("a/b", f"t{number}"): "x" for number in range(11)}
    for most, refused in ((11, False), (10, True)):
        with HttpRegistry(fake.host, limits=replace(FAST, tags=most), clock=clock) as client:
            with pytest.raises(DocumentError, match="too many") if refused else nullcontext():
                assert len(client.repository("a/b").tags()) == 11


def test_pages_of_referrers(fake: FakeRegistry, client: HttpRegistry) -> None:
    repository = client.repository("a/b")
    image = put_image(repository)
    for number in range(7):
        put_artifact(repository, image.root, b"%d" % number)
    fake.faults.page = 3
    assert len(repository.referrers(image.root.digest)) == 7
    assert fake.count("GET", "referrers") == 3


def test_the_fallback_keeps_the_entries_of_others(fake: FakeRegistry, client: HttpRegistry) -> None:
    fake.faults.referrers_api = False
    repository = client.repository("a/b")
    image = put_image(repository)
    with HttpRegistry(fake.host, limits=FAST) as another:
        first = put_artifact(another.repository("a/b"), image.root, b"theirs")
    second = put_artifact(repository, image.root, b"ours")
    tag = fallback_tag(image.root.digest)
    assert tag == f"sha256-{image.root.digest.hex}"
    listed = parse_index(repository.manifest(tag)[1], name="fallback").manifests
    assert [entry.digest for entry in listed] == [first.digest, second.digest]


def test_with_the_referrers_api_there_is_no_fallback(
    fake: FakeRegistry, client: HttpRegistry
) -> None:
    repository = client.repository("a/b")
    put_artifact(repository, put_image(repository).root, b"x")
    assert repository.tags() == ("1.0",)


# -- pushing


def test_a_small_blob_is_one_upload(fake: FakeRegistry, client: HttpRegistry) -> None:
    put_bytes(client.repository("a/b"), b"small")
    assert [item.method for item in fake.seen] == ["HEAD", "POST", "PUT"]


def test_a_broken_push_goes_on_where_it_broke(fake: FakeRegistry, client: HttpRegistry) -> None:
    fake.faults.upload_dies_after = 20_000
    blob = put_bytes(client.repository("a/b"), DATA)
    assert fake.blobs[("a/b", str(blob.digest))] == DATA
    patches = [item for item in fake.seen if item.method == "PATCH"]
    assert patches[1].headers["Content-Range"].startswith("20000-")


@pytest.mark.parametrize("how", ["deaf", "mute"])
def test_uploads_that_stall_end(fake: FakeRegistry, hasty: HttpRegistry, how: str) -> None:
    fake.faults.upload_stalls = how
    started = time.monotonic()
    for data in (b"small", bytes(20 << 20)):  # more than the buffers of a connection hold
        with pytest.raises(TransferError):
            put_bytes(hasty.repository("a/b"), data)
    assert time.monotonic() - started < 20
    assert not fake.blobs


def test_a_lost_upload_starts_again(
    fake: FakeRegistry, client: HttpRegistry, tmp_path: Path
) -> None:
    source = LayoutRepository(tmp_path / "source", writable=True)
    image = put_image(source, "1.0", (DATA,))
    fake.faults.upload_dies_after, fake.faults.loses_uploads = 20_000, True
    assert copy_graph(source, client.repository("a/b"), "1.0", tag="1.0") == image.root
    assert fake.blobs[("a/b", str(image.layers[0].digest))] == DATA


@pytest.mark.parametrize("status", [200, 202, 204, 301, 400, 500])
def test_any_other_answer_than_created_is_an_error(
    fake: FakeRegistry, client: HttpRegistry, status: int
) -> None:
    repository = client.repository("a/b")
    put_bytes(repository, b"{}")
    body = Manifest(media_type=MANIFEST, config=EMPTY_DESCRIPTOR, layers=()).to_bytes()
    fake.faults.put_status = status
    with pytest.raises(TransferError):
        put_bytes(repository, b"data")
    with pytest.raises(TransferError):
        repository.put_manifest(body, media_type=MANIFEST, tag="1.0")
    assert not fake.tags


def test_blobs_are_mounted_from_the_same_registry(fake: FakeRegistry, client: HttpRegistry) -> None:
    source, sink = client.repository("a/b"), client.repository("c/d")
    image = put_image(source, "1.0", (DATA,))
    before = len(fake.seen)
    assert copy_graph(source, sink, "1.0", tag="1.0") == image.root
    after = fake.seen[before:]
    assert sum(1 for item in after if "mount=" in item.path) == 2
    assert not [
        item
        for item in after
        if item.method == "PATCH" or ("/c/d/blobs/uploads/" in item.path and item.method == "PUT")
    ]


# -- passing trouble


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_trouble_is_waited_out(stored: FakeRegistry, clock: NoWaiting, status: int) -> None:
    stored.faults.busy = [(status, "7")]
    with HttpRegistry(stored.host, limits=FAST, clock=clock) as client:
        assert read(client) == DATA
        stored.faults.busy = [(status, "7")]
        assert client.repository("a/b").has_blob(Digest.of(DATA))
    assert clock.slept == [7.0, 7.0]


def test_retry_after_is_bounded(stored: FakeRegistry, clock: NoWaiting) -> None:
    stored.faults.busy = [(429, "999999")]
    with HttpRegistry(stored.host, limits=FAST, clock=clock) as client:
        assert client.repository("a/b").has_blob(Digest.of(DATA))
    assert clock.slept == [FAST.retry_after_max]


def test_waits_grow_and_repeat_with_the_seed(stored: FakeRegistry) -> None:
    runs = []
    for _ in range(2):
        clock = NoWaiting()
        stored.faults.busy = [(503, "")] * 4
        with HttpRegistry(stored.host, limits=Limits(), clock=clock, seed=7) as client:
            assert client.repository("a/b").has_blob(Digest.of(DATA))
        runs.append(clock.slept)
    assert runs[0] == runs[1] == sorted(runs[0])
    assert len(runs[0]) == 4


def test_no_registry_at_all(clock: NoWaiting) -> None:
    with fake_registry() as gone:
        host = gone.host
    with HttpRegistry(host, limits=FAST, clock=clock) as client:
        with pytest.raises(TransferError, match="cannot connect"):
            client.repository("a/b").tags()


# -- where credentials and plain HTTP may go


def test_a_redirect_is_followed_without_credentials(
    stored: FakeRegistry, clock: NoWaiting, tmp_path: Path
) -> None:
    from machineos.oci.registry.auth import Credentials
    from unit.oci.registry.test_auth import write_auth

    with fake_registry() as elsewhere:
        elsewhere.blobs.update(stored.blobs)
        stored.faults.redirect = f"http://{elsewhere.host}"
        stored.faults.auth = "basic"
        credentials = Credentials([write_auth(tmp_path, stored.host)])
        with HttpRegistry(stored.host, limits=FAST, clock=clock, credentials=credentials) as client:
            assert read(client) == DATA
        assert "Authorization" in stored.seen[-1].headers
        assert [item.headers.get("Authorization") for item in elsewhere.seen] == [None]


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_a_challenge_from_elsewhere_is_not_answered(
    stored: FakeRegistry, clock: NoWaiting, tmp_path: Path, kind: str
) -> None:
    """CVE-2020-15157: where blobs are redirected to asks for the registry's password."""
    from machineos.oci.registry.auth import Credentials
    from unit.oci.registry.test_auth import write_auth

    with fake_registry() as elsewhere:
        elsewhere.blobs.update(stored.blobs)
        elsewhere.faults.auth = kind
        stored.faults.redirect = f"http://{elsewhere.host}"
        credentials = Credentials([write_auth(tmp_path, stored.host)])
        with HttpRegistry(stored.host, limits=FAST, clock=clock, credentials=credentials) as client:
            with pytest.raises(AuthError):
                read(client)
        assert [item.path.partition("?")[0] for item in elsewhere.seen] == [
            f"/v2/a/b/blobs/{Digest.of(DATA)}"
        ]
        assert "Authorization" not in elsewhere.seen[0].headers
        assert not any("Authorization" in item.headers for item in stored.seen)


@pytest.mark.parametrize(
    "where", ["file:///etc/passwd#", "http://user@127.0.0.1:1", "http://192.0.2.1", "ftp://x"]
)
def test_redirects_to_elsewhere_are_refused(
    stored: FakeRegistry, client: HttpRegistry, where: str
) -> None:
    stored.faults.redirect = where
    with pytest.raises(TransferError, match=r"sends us|plain HTTP"):
        read(client)


def test_circles_end(stored: FakeRegistry, client: HttpRegistry) -> None:
    stored.faults.redirect = f"http://{stored.host}"
    with pytest.raises(TransferError, match="redirects"):
        read(client)


def test_plain_http_is_for_loopback_or_on_request() -> None:
    for host, plain, scheme in [
        ("127.0.0.1:5000", False, "http"),
        ("localhost", False, "http"),
        ("[::1]:5000", False, "http"),
        ("10.0.2.2:5000", False, "https"),
        ("10.0.2.2:5000", True, "http"),
        ("127.0.0.1.example.com", False, "https"),
    ]:
        with HttpRegistry(host, plain_http=plain) as client:
            assert client._transport.base == f"{scheme}://{host}"


def test_sha512_is_checked_as_such(fake: FakeRegistry, client: HttpRegistry) -> None:
    import hashlib

    digest = Digest("sha512", hashlib.sha512(DATA).hexdigest())
    blob = Descriptor(media_type="x", digest=digest, size=len(DATA))
    client.repository("a/b").put_blob(blob, (DATA,))
    assert client.repository("a/b").blob(blob, limit=1 << 20) == DATA
    wrong = Descriptor(media_type="x", digest=digest, size=len(DATA))
    fake.blobs[("a/b", str(digest))] = os.urandom(len(DATA))
    with pytest.raises(DigestError):
        client.repository("a/b").blob(wrong, limit=1 << 20)


def test_a_missing_repository(fake: FakeRegistry, client: HttpRegistry) -> None:
    assert client.repository("no/such").tags() == ()
    with pytest.raises(MissingError):
        client.repository("no/such").resolve("1.0")


@pytest.mark.parametrize("host", ["", "a b", "http://x", "x/y", "x:0", "x:70000", "[zz]", "-x"])
def test_hostile_hosts_are_refused(host: str) -> None:
    with pytest.raises(MachineOSError):
        HttpRegistry(host)


# -- TLS


def test_tls_needs_a_ca_that_we_know(clock: NoWaiting, tmp_path: Path) -> None:
    ours, server_side = throw_away_tls(tmp_path / "ours")
    strangers, _ = throw_away_tls(tmp_path / "strangers")
    with fake_registry(server_side) as server:
        server.blobs[("a/b", str(Digest.of(DATA)))] = DATA
        with HttpRegistry(server.host, limits=FAST, clock=clock, ca_file=ours) as client:
            assert read(client) == DATA
            server.faults.redirect = "http://127.0.0.1:1"
            with pytest.raises(TransferError, match="from https to"):
                read(client)
        with HttpRegistry(server.host, limits=FAST, clock=clock, ca_file=strangers) as client:
            with pytest.raises(TransferError, match="TLS"):
                client.repository("a/b").tags()
    assert clock.slept == []  # a wrong certificate does not get better by waiting


def throw_away_tls(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return the file of a CA and the server side of a certificate by it for 127.0.0.1."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throw-away")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "cert.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    return certificate_file, context
