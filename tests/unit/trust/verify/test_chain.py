"""Who signed these bytes: good chains, and every fault of a bad one with the reason it gets."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.digest import Digest
from machineos.errors import MachineOSError, PolicyError, SignatureError
from machineos.trust.verify.chain import (
    MAX_PEM,
    Publisher,
    parse_certificate,
    verify_signed,
    verify_sudi,
)
from vectors import certificates as make
from vectors.certificates import NOW, OTHER_PRODUCT, PRODUCT

PREDECESSOR = Path(__file__).parents[3] / "vectors" / "predecessor_keys"
DATA = b'{"version":1}'
AT_PREDECESSOR = datetime(2026, 1, 1, tzinfo=UTC)


def check(
    recipe: make.Recipe,
    *,
    ca: make.Recipe | None = None,
    data: bytes = DATA,
    at: datetime | None = NOW,
    product: UUID | None = PRODUCT,
) -> Publisher:
    key = recipe.key
    if hasattr(key, "curve"):
        signature = bytes(256)
    else:
        signature = key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return verify_signed(
        data, signature, recipe.pem(), ca_pem=(ca or make.ca()).pem(), at=at, product=product
    )


def test_good_publisher() -> None:
    found = check(make.publisher())
    assert found.product == PRODUCT
    assert found.common_name == f"manifest PRODUCT:{PRODUCT}"
    assert found.fingerprint == Digest.of(found.certificate_der)
    assert x509.load_der_x509_certificate(found.certificate_der).subject is not None


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(make.publisher().but(authority=None), id="no authority identifier"),
        pytest.param(make.publisher().but(constraints=None), id="no basic constraints"),
        pytest.param(
            make.publisher().but(extra=((make.UNKNOWN_EXTENSION, False),)),
            id="unknown extension that is not critical",
        ),
        pytest.param(make.publisher().but(algorithm=hashes.SHA512()), id="SHA-512 certificate"),
        pytest.param(
            make.publisher().but(
                extra=((x509.SubjectAlternativeName([x509.DNSName("a")]), False),)
            ),
            id="alternative name",
        ),
    ],
)
def test_harmless_differences(recipe: make.Recipe) -> None:
    assert check(recipe).product == PRODUCT


@pytest.mark.parametrize(
    "ca",
    [
        pytest.param(make.ca().but(usage=None), id="no key usage, as the predecessor's"),
        pytest.param(make.ca().but(subject_key=None), id="no key identifier"),
        pytest.param(
            make.ca().but(constraints=x509.BasicConstraints(ca=True, path_length=None)),
            id="no path length",
        ),
    ],
)
def test_harmless_cas(ca: make.Recipe) -> None:
    assert check(make.publisher(), ca=ca).product == PRODUCT


def test_authority_identifier_by_name_only() -> None:
    by_name = x509.AuthorityKeyIdentifier(None, [x509.DNSName("a")], 5)
    recipe = make.publisher().but(authority=None, extra=((by_name, False),))
    assert check(recipe).product == PRODUCT


SHOWN = f"certificate 'CN=manifest PRODUCT:{PRODUCT}'"
CA_SHOWN = "certificate 'CN=Manifest rootCA'"
NOT_RSA = "its key is not RSA of 2048 to 8192 bits"
NOT_A_SIGNER = "its key usage is not that of a signer"
NO_CODE = "its extended key usage does not allow codeSigning"
NO_PRODUCT = "names no product"
NOT_ISSUED = f"not issued by {CA_SHOWN}"

BAD_PUBLISHERS = {
    "expired": f"{SHOWN}: expired at 2026-06-01 11:59:59+00:00",
    "not yet valid": f"{SHOWN}: not valid before 2026-06-01 12:00:01+00:00",
    "other CA, same name": NOT_ISSUED,
    "other CA, other name": NOT_ISSUED,
    "right key, other issuer name": NOT_ISSUED,
    "self-signed": NOT_ISSUED,
    "signed by another publisher": NOT_ISSUED,
    "under an intermediate CA": NOT_ISSUED,
    "authority identifier of another key": f"names another key than that of {CA_SHOWN}",
    "a CA": "is a CA, which may not sign for itself",
    "no key usage": NOT_A_SIGNER,
    "no digital signature": NOT_A_SIGNER,
    "may sign certificates": NOT_A_SIGNER,
    "no extended usage": NO_CODE,
    "for TLS": NO_CODE,
    "for anything": NO_CODE,
    "unknown critical extension": "the critical extension 1.3.6.1.4.1.55555.1 is not understood",
    "critical name constraints": "the critical extension 2.5.29.30 is not understood",
    "PSS in the certificate": "its signature is not RSA PKCS#1 v1.5 with SHA-2",
    "key of 1024 bits": NOT_RSA,
    "key not RSA": NOT_RSA,
    "two common names": "must have one commonName in its subject",
    "no common name": "must have one commonName in its subject",
    "no product": NO_PRODUCT,
    "product with a tail": NO_PRODUCT,
    "product with a head": NO_PRODUCT,
    "product without dashes": NO_PRODUCT,
}
BAD_CAS = {
    "expired": f"{CA_SHOWN}: expired at 2026-06-01 11:59:59+00:00",
    "not yet valid": f"{CA_SHOWN}: not valid before 2026-06-01 12:00:01+00:00",
    "no basic constraints": f"{CA_SHOWN}: is not a CA",
    "not a CA": f"{CA_SHOWN}: is not a CA",
    "may not sign certificates": f"{CA_SHOWN}: may not issue certificates",
    "unknown critical extension": "the critical extension 1.3.6.1.4.1.55555.1 is not understood",
    "same name, other key": NOT_ISSUED,
    "key not RSA": f"{CA_SHOWN}: its signature is not RSA PKCS#1 v1.5 with SHA-2",
    "PSS": f"{CA_SHOWN}: its signature is not RSA PKCS#1 v1.5 with SHA-2",
}


@pytest.mark.parametrize("fault", make.bad_publishers())
def test_bad_publisher(fault: str) -> None:
    with pytest.raises(SignatureError) as caught:
        check(make.bad_publishers()[fault])
    assert BAD_PUBLISHERS[fault] in caught.value.message


@pytest.mark.parametrize("fault", make.bad_cas())
def test_bad_ca(fault: str) -> None:
    with pytest.raises(SignatureError) as caught:
        check(make.publisher(), ca=make.bad_cas()[fault])
    assert BAD_CAS[fault] in caught.value.message


def test_a_long_subject_is_cut_in_the_message() -> None:
    long = make.publisher().but(common_names=("x" * 60, "y" * 60, "z" * 60))
    with pytest.raises(SignatureError) as caught:
        check(long)
    subject = long.build().subject.rfc4514_string()
    assert f"certificate {subject[:120]!r}: " in caught.value.message


class Weak:
    """A public key of that many bits that nobody has the private half of."""

    def __init__(self, bits: int) -> None:
        self._bits = bits

    def public_key(self) -> rsa.RSAPublicKey:
        return rsa.RSAPublicNumbers(65537, 1 << (self._bits - 1) | 1).public_key()


@pytest.mark.parametrize("bits", [2047, 2048, 8192, 8193])
def test_keys_have_a_smallest_and_a_largest_size(bits: int) -> None:
    """A huge key would cost seconds to check with; a small one can be broken."""
    recipe = make.publisher().but(key=Weak(bits))  # type: ignore[arg-type, unused-ignore]
    with pytest.raises(SignatureError) as caught:
        verify_signed(DATA, bytes(1), recipe.pem(), ca_pem=make.ca().pem(), at=NOW, product=PRODUCT)
    if bits in {2047, 8193}:
        assert caught.value.message == f"{SHOWN}: {NOT_RSA}"
    else:
        assert caught.value.message == (
            f"the signature has 1 bytes, one by {SHOWN} has {bits // 8}"
        )


def test_time_is_not_checked_without_a_clock() -> None:
    for fault in ("expired", "not yet valid"):
        assert check(make.bad_publishers()[fault], at=None).product == PRODUCT
    for fault in ("expired", "not yet valid"):
        assert check(make.publisher(), ca=make.bad_cas()[fault], at=None).product == PRODUCT


def test_validity_includes_both_ends() -> None:
    recipe = make.publisher()
    assert check(recipe, at=recipe.start).product == PRODUCT
    assert check(recipe, at=recipe.end).product == PRODUCT


def test_other_product_is_a_policy_error() -> None:
    with pytest.raises(PolicyError) as caught:
        check(make.publisher(OTHER_PRODUCT))
    assert caught.value.message == (
        f"signed by the publisher of product {OTHER_PRODUCT}, not of {PRODUCT}"
    )
    assert caught.value.hint == "the signature itself is good; it is for another product"
    assert check(make.publisher(OTHER_PRODUCT), product=None).product == OTHER_PRODUCT


def test_bad_signature_by_another_product_is_a_signature_error() -> None:
    # which of the two is said must not tell that the signature was good
    with pytest.raises(SignatureError):
        verify_signed(
            DATA, bytes(256), make.publisher(OTHER_PRODUCT).pem(),
            ca_pem=make.ca().pem(), at=NOW, product=PRODUCT,
        )  # fmt: skip


def signatures() -> dict[str, bytes]:
    key = make.key("publisher")
    good = make.sign(DATA)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    return {
        "empty": b"",
        "10 MB": bytes(10_000_000),
        "cut": good[:-1],
        "with a tail": good + b"\0",
        "with a newline": good + b"\n",
        "flipped": bytes([good[0] ^ 1]) + good[1:],
        "of other data": make.sign(DATA + b" "),
        "by another key": make.sign(DATA, "impostor"),
        "SHA-1": key.sign(DATA, padding.PKCS1v15(), hashes.SHA1()),
        "SHA-512": key.sign(DATA, padding.PKCS1v15(), hashes.SHA512()),
        "PSS": key.sign(DATA, pss, hashes.SHA256()),
        "zero": bytes(256),
        "in hex": good.hex().encode(),
        "in base64": base64.b64encode(good),
    }


@pytest.mark.parametrize("fault", signatures())
def test_bad_signature(fault: str) -> None:
    signature = signatures()[fault]
    with pytest.raises(SignatureError) as caught:
        verify_signed(
            DATA, signature, make.publisher().pem(),
            ca_pem=make.ca().pem(), at=NOW, product=PRODUCT,
        )  # fmt: skip
    wanted = f"the signature is not one by {SHOWN} over these bytes"
    if len(signature) != 256:
        wanted = f"the signature has {len(signature)} bytes, one by {SHOWN} has 256"
    assert caught.value.message == wanted


def pems() -> dict[str, bytes]:
    good = make.publisher().pem()
    body = base64.b64decode(b"".join(good.splitlines()[1:-1]))

    def wrap(der: bytes) -> bytes:
        text = base64.encodebytes(der)
        return b"-----BEGIN CERTIFICATE-----\n" + text + b"-----END CERTIFICATE-----\n"

    return {
        "empty": b"",
        "two certificates": good + good,
        "the CA after it": good + make.ca().pem(),
        "the CA before it": make.ca().pem() + good,
        "text before": b"subject=x\n" + good,
        "text after": good + b"x",
        "DER": body,
        "DER with a tail": wrap(body + b"\0"),
        "DER cut": wrap(body[:-1]),
        "not DER": wrap(b"x" * 300),
        "not base64": good.replace(b"MII", b"M=I", 1),
        "too much padding": good.replace(b"\n-----END", b"===\n-----END"),
        "a key": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "trusted certificate": good.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
        "too large": good + b"\n" * MAX_PEM,
    }


UNREADABLE = {
    "DER with a tail", "DER cut", "not DER", "not base64", "too much padding",
}  # fmt: skip


@pytest.mark.parametrize("fault", pems())
def test_bad_pem(fault: str) -> None:
    reason = "is not exactly one certificate in PEM"
    if fault in UNREADABLE:
        reason = "cannot be read: "
    if fault == "too large":
        reason = f"is larger than {16 << 10} bytes"
    for publisher, ca, what in (
        (pems()[fault], make.ca().pem(), "the publisher's certificate"),
        (make.publisher().pem(), pems()[fault], "the manifest CA"),
    ):
        with pytest.raises(SignatureError) as caught:
            verify_signed(DATA, make.sign(DATA), publisher, ca_pem=ca, at=NOW, product=PRODUCT)
        assert caught.value.message.startswith(f"{what} {reason}")
    for device, ca, what in (
        (pems()[fault], make.ca().pem(), "the device certificate"),
        (make.device().pem(), pems()[fault], "the SUDI CA"),
    ):
        with pytest.raises(SignatureError) as caught:
            verify_sudi(device, ca_pem=ca, at=NOW)
        assert caught.value.message.startswith(f"{what} {reason}")
    with pytest.raises(SignatureError, match=r"^the certificate (is|cannot)"):
        parse_certificate(pems()[fault])


def test_a_pem_may_have_as_many_bytes_as_are_read() -> None:
    good = make.publisher().pem()
    assert MAX_PEM == 16 << 10
    full = good + b"\n" * (MAX_PEM - len(good))
    assert parse_certificate(full) == parse_certificate(good)


def test_pem_may_have_windows_line_ends_and_blank_lines() -> None:
    pem = b"\n" + make.publisher().pem().replace(b"\n", b"\r\n") + b"\n"
    assert parse_certificate(pem) == parse_certificate(make_pem_unix(pem))


def make_pem_unix(pem: bytes) -> bytes:
    return pem.replace(b"\r\n", b"\n").strip()


@given(st.binary(max_size=400))
def test_no_bytes_crash_the_parser(data: bytes) -> None:
    text = base64.encodebytes(data)
    for pem in (data, b"-----BEGIN CERTIFICATE-----\n" + text + b"-----END CERTIFICATE-----\n"):
        with pytest.raises(SignatureError):
            parse_certificate(pem)


GOOD_DER = base64.b64decode(b"".join(make.publisher().pem().splitlines()[1:-1]))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # a negative one; refused all the same
@given(st.integers(0, len(GOOD_DER) - 1), st.integers(1, 255))
def test_no_changed_byte_of_a_certificate_is_accepted(position: int, change: int) -> None:
    der = bytearray(GOOD_DER)
    der[position] ^= change
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(bytes(der))
    pem += b"-----END CERTIFICATE-----\n"
    with pytest.raises(MachineOSError):
        verify_signed(DATA, make.sign(DATA), pem, ca_pem=make.ca().pem(), at=NOW, product=PRODUCT)


def test_a_signature_has_one_encoding() -> None:
    """An even one could be said to end a bit earlier; it would be another certificate for us."""
    even = GOOD_DER[:-257] + b"\x01" + GOOD_DER[-256:-1] + bytes([GOOD_DER[-1] & 0xFE])
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(even)
    with pytest.raises(SignatureError, match="whole bytes"):
        parse_certificate(pem + b"-----END CERTIFICATE-----\n")


def test_a_key_that_cannot_be_read() -> None:
    # the algorithm of the public key becomes one that does not exist
    oid = bytes.fromhex("06092a864886f70d010101")
    assert GOOD_DER.count(oid) == 1
    der = GOOD_DER.replace(oid, bytes.fromhex("06092a864886f70d01017f"))
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der)
    with pytest.raises(SignatureError, match="key cannot be read"):
        verify_signed(
            DATA, make.sign(DATA), pem + b"-----END CERTIFICATE-----\n",
            ca_pem=make.ca().pem(), at=NOW, product=PRODUCT,
        )  # fmt: skip


# --- device identities ----------------------------------------------------------------------------

SUDI_CA = make.ca(make.SUDI_CA_NAME, "sudi-ca")


def test_good_device() -> None:
    found = verify_sudi(make.device().pem(), ca_pem=SUDI_CA.pem(), at=NOW)
    assert (found.product, found.serial) == (PRODUCT, "SN0001")
    assert x509.load_der_x509_certificate(found.certificate_der).subject is not None
    assert found.fingerprint == Digest.of(found.certificate_der)


NO_MACHINE = "names no machine"
DEVICE = f"PID:{PRODUCT} SN:"


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (make.device().but(serial_number=""), "must have one serialNumber in its subject"),
        (make.device().but(serial_number=DEVICE + "X"), NO_MACHINE),
        (make.device().but(serial_number="PID:x SN:SN0001"), NO_MACHINE),
        (make.device().but(serial_number=DEVICE), NO_MACHINE),
        (make.device("S N"), NO_MACHINE),
        (make.device().but(common_names=("a", "b")), "must have one commonName in its subject"),
        (
            make.device().but(extended=(ExtendedKeyUsageOID.SERVER_AUTH,)),
            "its extended key usage does not allow clientAuth",
        ),
        (make.device().but(issuer_key=make.key("ca")), "not issued by"),
        (make.device().but(end=NOW - timedelta(seconds=1)), "expired at"),
        (make.publisher(), "not issued by"),
    ],
    ids=[
        "no serial number",
        "two serials",
        "no product",
        "no serial",
        "a space in the serial",
        "two names",
        "server only",
        "other CA's key",
        "expired",
        "a publisher's certificate",
    ],
)
def test_bad_device(recipe: make.Recipe, reason: str) -> None:
    with pytest.raises(SignatureError) as caught:
        verify_sudi(recipe.pem(), ca_pem=SUDI_CA.pem(), at=NOW)
    assert reason in caught.value.message


def test_a_serial_has_up_to_64_characters() -> None:
    long = make.device("S" * 64)
    assert verify_sudi(long.pem(), ca_pem=SUDI_CA.pem(), at=NOW).serial == "S" * 64
    assert verify_sudi(make.device("?").pem(), ca_pem=SUDI_CA.pem(), at=NOW).serial == "?"


def test_the_time_of_a_device_is_not_checked_without_a_clock() -> None:
    late = make.device().but(end=NOW - timedelta(seconds=1))
    assert verify_sudi(late.pem(), ca_pem=SUDI_CA.pem(), at=None).serial == "SN0001"


def test_a_device_is_no_publisher() -> None:
    recipe = make.device().but(common_names=make.publisher().common_names)
    with pytest.raises(SignatureError, match="codeSigning"):
        check(recipe, ca=SUDI_CA)


# --- what the predecessor made --------------------------------------------------------------------


def test_predecessors_device_and_publisher_are_accepted() -> None:
    device = verify_sudi(
        (PREDECESSOR / "sudi.pem").read_bytes(),
        ca_pem=(PREDECESSOR / "sudi-ca.pem").read_bytes(),
        at=AT_PREDECESSOR,
    )
    assert str(device.product) == "bc564363-2a8e-44fe-bb0e-54c7f9988ecf"
    assert device.serial == "4cc76b82-948c-44b8-948c-1cc9a7d460d0"
    # its private key is not here, so its chain and usage pass and only the signature is refused
    with pytest.raises(SignatureError, match="over these bytes"):
        verify_signed(
            DATA,
            bytes(256),
            (PREDECESSOR / "manifest-default.pem").read_bytes(),
            ca_pem=(PREDECESSOR / "manifest-ca.pem").read_bytes(),
            at=AT_PREDECESSOR,
            product=device.product,
        )
