"""Registries that lie about what they have, and what is listed."""

from __future__ import annotations

import gzip
import os
import random
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

import pytest

from changed import replace
from fakes.registry import FakeRegistry, fake_registry
from machineos.core.digest import Digest
from machineos.errors import (
    DigestError,
    DocumentError,
    MachineOSError,
    MissingError,
    TransferError,
    VerificationError,
)
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import (
    INDEX,
    MANIFEST,
    Descriptor,
    parse_index,
)
from machineos.oci.model.referrers import fallback_tag
from machineos.oci.registry.client import HttpRegistry
from unit.oci.conftest import FAST
from unit.oci.samples import DATA, NoWaiting, descriptor, put_artifact, put_image, read

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.early


NOISE = random.Random(1).randbytes(600_000)


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
    with client.repository("a/b").open_blob(descriptor(DATA)) as chunks:
        with pytest.raises(DigestError):
            got.extend(chunks)
    assert sum(len(chunk) for chunk in got) < len(DATA)


def test_answers_in_an_encoding_that_we_do_not_read(
    stored: FakeRegistry, client: HttpRegistry
) -> None:
    stored.faults.encoding = "br"
    with pytest.raises(TransferError, match="encoded as 'br'"):
        read(client)


def test_what_is_said_to_be_gzip_and_is_not(stored: FakeRegistry, client: HttpRegistry) -> None:
    stored.faults.encoding = "gzip"
    assert read(client) == DATA  # its size says that it is what was asked for
    stored.blobs[("a/b", str(Digest.of(DATA)))] = DATA[:-1]
    with pytest.raises(DigestError, match="is not the gzip that it is said to be"):
        read(client)


def test_a_packed_answer_that_breaks_is_asked_for_again(
    stored: FakeRegistry, client: HttpRegistry
) -> None:
    stored.faults.packs = True
    stored.faults.ignore_range = True
    stored.faults.die_after = [300_000]
    stored.blobs[("a/b", str(Digest.of(NOISE)))] = NOISE
    assert client.repository("a/b").blob(descriptor(NOISE), limit=len(NOISE)) == NOISE
    assert stored.count("GET", "/blobs/") == 2


def test_little_that_unpacks_to_much_is_cut_off(stored: FakeRegistry, client: HttpRegistry) -> None:
    stored.faults.encoding = "gzip"
    bomb = gzip.compress(bytes(64 << 20), mtime=0)
    stored.blobs[("a/b", str(Digest.of(DATA)))] = bomb
    with pytest.raises(DigestError, match=r"longer than|expected"):
        read(client)
    tag = Digest.of(bomb)
    stored.manifests[("a/b", str(tag))] = (MANIFEST, bomb)
    stored.tags[("a/b", "1")] = str(tag)
    stored.faults.says = {"Content-Encoding": "gzip"}
    with pytest.raises(DocumentError, match="larger than"):
        client.repository("a/b").manifest("1")


def test_several_streams_one_after_the_other(stored: FakeRegistry, client: HttpRegistry) -> None:
    stored.faults.encoding = "gzip"
    step = 100_000
    parts = [DATA[at : at + step] for at in range(0, len(DATA), step)]
    packed = b"".join(gzip.compress(part, mtime=0) for part in parts)
    stored.blobs[("a/b", str(Digest.of(DATA)))] = packed
    assert read(client) == DATA


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
        client.repository("a/b").put_blob(descriptor(DATA), (DATA,))


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
