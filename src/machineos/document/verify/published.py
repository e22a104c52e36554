"""Verifying a published manifest: from a tag to a document that may be acted on.

``verify_install`` is the pure decision over bytes; ``fetch_verified`` brings the bytes. Invariant:
whatever these return was verified first: the signature over exactly the bytes that were parsed, the
publisher's chain to the CA, the product, then every rule of the document. Nobody else can make a
``VerifiedInstall`` or a ``Fetched``.

Any number of certificates and signatures may refer to a manifest, since whoever may write to the
repository may add some; the pair that verifies is used, the order does not matter.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING

from machineos.core.digest import Digest
from machineos.core.word import DocumentId
from machineos.document.model.limits import MAX_INSTALL
from machineos.document.product.artifacts import CERTIFICATE, INSTALL, SIGNATURE, Referrers
from machineos.document.product.install import parse_install
from machineos.document.verify.proof import Proof
from machineos.errors import DocumentError, Fault, PolicyError, SignatureError, VerificationError
from machineos.oci.model.documents import parse_manifest
from machineos.oci.model.reference import image_of
from machineos.trust.verify.chain import verify_signed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

    from machineos.document.model.install import Install
    from machineos.oci.model.documents import Descriptor
    from machineos.oci.model.repository import Repository
    from machineos.trust.verify.chain import Publisher

_SHOWN = 8
_VERIFIED = Proof("VerifiedInstall", "verify_install")
_FETCHED = Proof("Fetched", "fetch_verified")


@dataclass(frozen=True, slots=True)
class VerifiedInstall:
    """An install document that was signed for us: its value, its bytes, and by whom.

    ``sha256`` is the document's name in the machine.
    """

    install: Install
    data: bytes
    sha256: DocumentId
    publisher: Publisher
    proof: InitVar[Proof | None] = None

    def __post_init__(self, proof: Proof | None) -> None:
        _VERIFIED.require(proof)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A verified document with what proves it, to be kept next to it and checked at every boot."""

    verified: VerifiedInstall
    signature: bytes
    certificate_pem: bytes
    descriptor: Descriptor
    proof: InitVar[Proof | None] = None

    def __post_init__(self, proof: Proof | None) -> None:
        _FETCHED.require(proof)


def verify_install(
    data: bytes,
    signature: bytes,
    certificate_pem: bytes,
    *,
    ca_pem: bytes,
    at: datetime | None,
    product: UUID | None,
) -> VerifiedInstall:
    """Return the document if a publisher of ``product`` signed it.

    ``at`` is the time at which the certificates must be valid, None where no clock can be trusted;
    ``product`` None accepts any publisher of the CA. The signature is checked before the document
    is looked at.

    Raises: SignatureError, PolicyError (another product), DocumentError.
    """
    if len(data) > MAX_INSTALL:
        raise DocumentError("install.json", [Fault("", 0, f"is larger than {MAX_INSTALL} bytes")])
    publisher = verify_signed(
        data, signature, certificate_pem, ca_pem=ca_pem, at=at, product=product
    )
    return VerifiedInstall(parse_install(data), data, DocumentId.of(data), publisher, _VERIFIED)


def fetch_verified(
    repository: Repository,
    reference: str,
    *,
    ca_pem: bytes,
    at: datetime | None,
    product: UUID | None,
) -> Fetched:
    """Return the verified manifest that ``reference`` (a tag or digest) names.

    The reference is resolved once; everything after that is named by digest.

    Raises: MissingError, TransferError, DocumentError, DigestError, SignatureError (no pair of
    certificate and signature verifies; the message says why for the first few), PolicyError.
    """
    descriptor, data = fetch_install(repository, reference)
    certificates = Referrers(repository, descriptor.digest, CERTIFICATE)
    signatures = Referrers(repository, descriptor.digest, SIGNATURE)
    reasons: dict[str, None] = {}  # a set in order: thousands of pairs fail in a few ways
    other_product: PolicyError | None = None
    for certificate, signature in _pairs(certificates, signatures):
        try:
            verified = verify_install(
                data, signature, certificate, ca_pem=ca_pem, at=at, product=product
            )
        except PolicyError as error:
            other_product = other_product or error
            reasons[error.message[:300]] = None
        except SignatureError as error:
            reasons[error.message[:300]] = None
        else:
            return Fetched(verified, signature, certificate, descriptor, _FETCHED)
    if other_product is not None:
        raise other_product
    broken = certificates.broken or signatures.broken
    if broken is not None:
        raise broken
    found = [*certificates.faults, *signatures.faults, *reasons]
    raise _refusal(image_of(repository.name, reference), found)


def fetch_install(repository: Repository, reference: str) -> tuple[Descriptor, bytes]:
    """Return descriptor and bytes of an install document that is NOT verified yet.

    Raises: MissingError, TransferError, DocumentError, VerificationError.
    """
    descriptor, body = repository.manifest(reference)
    name = image_of(repository.name, reference)
    descriptor.digest.check(body, name)
    if ":" in reference and str(descriptor.digest) != str(Digest.parse(reference)):
        raise VerificationError(f"{name}: got {descriptor.digest}")
    manifest = parse_manifest(body, name=name, media_type=descriptor.media_type)
    if manifest.artifact_type != INSTALL:
        kind = manifest.artifact_type or manifest.config.media_type
        raise VerificationError(
            f"{name}: is not a machine manifest but {kind!r:.80}",
            hint="name what `mosb manifest publish` published, not an image",
        )
    if len(manifest.layers) != 1:
        raise VerificationError(f"{name}: has {len(manifest.layers)} layers, not one")
    return descriptor, repository.blob(manifest.layers[0], limit=MAX_INSTALL)


def _pairs(certificates: Referrers, signatures: Referrers) -> Iterable[tuple[bytes, bytes]]:
    """Yield every certificate with every signature, fetching as late as possible.

    At most ``MAX_REFERRERS`` of each are fetched, each at most ``MAX_SMALL`` bytes.
    """
    fetched: list[bytes] = []
    more = signatures.blobs()
    for certificate in certificates.blobs():
        for signature in fetched:
            yield certificate, signature
        for signature in more:
            fetched.append(signature)
            yield certificate, signature


def _refusal(what: str, reasons: list[str]) -> SignatureError:
    if not reasons:
        return SignatureError(
            f"{what}: is not signed",
            hint="publish it with `mosb manifest publish`, which signs it",
        )
    different = list(dict.fromkeys(reason[:300] for reason in reasons))
    lines = "".join(f"\n  {reason}" for reason in different[:_SHOWN])
    if len(different) > _SHOWN:
        lines += f"\n  and {len(different) - _SHOWN} more reasons"
    return SignatureError(f"{what}: no certificate and signature verify{lines}")
