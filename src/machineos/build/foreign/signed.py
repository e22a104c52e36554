"""Whether an image at its source is signed by the key that ``signed-by`` names.

Looks where cosign puts signatures: under the tag ``sha256-<hex>.sig``, among the referrers (simple
signing and sigstore's bundle), in a layout of ``cosign save``, and in a bundle that is given apart.
Whoever can push can put anything there, so each signature is only one that may be right: a bad one
is stepped over, what is looked at is bounded. Invariant: ``require_signed`` returns only after the
key's own signature over one of the digests was checked.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from machineos.errors import DocumentError, MissingError, SignatureError, VerificationError
from machineos.oci.model.documents import Manifest, parse_document
from machineos.trust.cosign.bundle import MAX_BUNDLE, verify_bundle
from machineos.trust.cosign.simple import (
    MAX_PAYLOAD,
    SIGNATURE_NOTE,
    SIMPLE_SIGNING,
    verify_payload,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machineos.core.digest import Digest
    from machineos.oci.model.documents import Descriptor
    from machineos.oci.model.repository import Repository
    from machineos.trust.cosign.key import CosignKey

_BUNDLES = "application/vnd.dev.sigstore.bundle"
_KNOWN = ("application/vnd.dev.cosign.artifact.sig.v1+json", _BUNDLES)
_KIND, _SAVED = "kind", "dev.cosignproject.cosign/sigs"  # an entry of cosign save
_OTHERS = {
    "application/vnd.cncf.notary.signature": "a signature of Notation is not supported",
}
_CERTIFICATE = "dev.sigstore.cosign/certificate"
_MADE_ANEW = (
    "what Docker or podman hand over has lost the manifest that was signed: name the image in its "
    "registry, in a layout, or as oci-archive:FILE"
)
_MOST = 64  # signatures that are looked at for one digest
_SHOWN = 8


@runtime_checkable
class Lists(Protocol):
    """A repository that is a layout: it has a list of what is in it."""

    def entries(self) -> tuple[Descriptor, ...]:
        """Return the entries of its index. Raises: DocumentError."""
        ...


def require_signed(
    repository: Repository,
    digests: tuple[Digest, ...],
    key: CosignKey,
    *,
    bundle: bytes | None = None,
    what: str,
    kept: bool = True,
) -> None:
    """Return when ``key`` has signed one of ``digests``: an index or the manifest chosen from it.

    ``bundle`` is a signature that is not in the repository; ``what`` names the image; ``kept`` is
    whether its manifest is the one that was pushed.
    Raises: SignatureError, with what was found instead; TransferError.
    """
    search = _Search(repository, key)
    if bundle is not None and search.has_bundle(bundle, digests):
        return
    if any(search.has_signature(digest) for digest in digests):
        return
    reasons = tuple(dict.fromkeys(search.why))[:_SHOWN] or ("it has no signature",)
    raise SignatureError(
        f"{what}: is not signed by {key.name}" + "".join(f"\n  {why}" for why in reasons),
        hint=f"cosign sign --key KEY IMAGE@{digests[0]} signs it; a signature in a file is named "
        "by signed-by: {key: KEY.pub, bundle: FILE}"
        if kept
        else _MADE_ANEW,
    )


class _Search:
    """``why`` says of each signature that was found why it does not count."""

    def __init__(self, repository: Repository, key: CosignKey) -> None:
        self._repository = repository
        self._key = key
        self.why: list[str] = []

    def has_bundle(self, data: bytes, digests: tuple[Digest, ...]) -> bool:
        """Whether a bundle signs one of ``digests``."""
        try:
            return self._is_one_of(verify_bundle(data, self._key), digests)
        except (SignatureError, DocumentError) as error:
            self.why.append(error.message)
            return False

    def has_signature(self, digest: Digest) -> bool:
        """Whether something in the repository signs ``digest``. Raises: TransferError."""
        return any(self._signs(layer, digest) for layer in islice(self._layers(digest), _MOST))

    def _signs(self, layer: Descriptor, digest: Digest) -> bool:
        try:
            if layer.media_type.startswith(_BUNDLES):
                data = self._repository.blob(layer, limit=MAX_BUNDLE)
                return self._is_one_of(verify_bundle(data, self._key), (digest,))
            payload = self._repository.blob(layer, limit=MAX_PAYLOAD)
            note = layer.annotations.get(SIGNATURE_NOTE, "")
            return self._is_one_of({verify_payload(payload, note, self._key)}, (digest,))
        except (VerificationError, DocumentError, MissingError) as error:
            keyless = _CERTIFICATE in layer.annotations
            more = " (keyless, by a certificate of Fulcio, is not supported)" if keyless else ""
            self.why.append(f"{error.message}{more}")
            return False

    def _is_one_of(
        self, signed: set[Digest] | frozenset[Digest], digests: tuple[Digest, ...]
    ) -> bool:
        if not signed.isdisjoint(digests):
            return True
        names = ", ".join(str(digest) for digest in sorted(signed))
        self.why.append(f"{self._key.name} has signed {names or 'nothing'}, not this")
        return False

    def _layers(self, digest: Digest) -> Iterator[Descriptor]:
        """Yield what may be signatures of ``digest``. Raises: TransferError."""
        for reference in islice(self._places(digest), _MOST):
            manifest = self._manifest(reference)
            for layer in manifest.layers if manifest is not None else ():
                if layer.media_type == SIMPLE_SIGNING or layer.media_type.startswith(_BUNDLES):
                    yield layer

    def _places(self, digest: Digest) -> Iterator[str]:
        """Yield tags and digests of manifests that may hold signatures."""
        yield signature_tag(digest)
        if isinstance(self._repository, Lists):
            for entry in self._repository.entries():
                if entry.annotations.get(_KIND) == _SAVED:
                    yield str(entry.digest)
        for entry in self._repository.referrers(digest):
            if entry.artifact_type.startswith(_KNOWN):
                yield str(entry.digest)
            elif entry.artifact_type in _OTHERS:
                self.why.append(_OTHERS[entry.artifact_type])

    def _manifest(self, reference: str) -> Manifest | None:
        try:
            found, data = self._repository.manifest(reference)
            document = parse_document(data, name=reference, media_type=found.media_type)
        except MissingError:
            return None
        except (VerificationError, DocumentError) as error:
            self.why.append(error.message)
            return None
        return document if isinstance(document, Manifest) else None


def signature_tag(digest: Digest) -> str:
    """Return the tag under which cosign keeps the signatures of a manifest."""
    return f"{digest.algorithm}-{digest.hex}.sig"
