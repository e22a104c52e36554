"""What a keyset consists of, entry by entry and certificate by certificate, without a disk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from hypothesis import given
from hypothesis import strategies as st

from fakes.randomness import FixedRandomness
from machineos.core.secret import Secret
from machineos.errors import DocumentError, SignatureError, UsageError
from machineos.trust.keys import x509 as issuing
from machineos.trust.keys.contents import (
    ROLES,
    ROLES_WITH_GUID,
    Entry,
    File,
    Folder,
    Issued,
    Randomness,
    check_name,
    keyset_entries,
    parse_uuid,
    project_entries,
    split_project,
    sudi_entries,
)
from machineos.trust.keys.keyset import SystemRandomness
from vectors.certificates import NOW, PRODUCT

BACKDATED = NOW - timedelta(days=1)
FOREVER = datetime(2099, 12, 31, 23, tzinfo=UTC)
PASSPHRASE = Secret(b"correct horse")


@dataclass(frozen=True)
class Expected:
    """What the certificate of a role says."""

    name: str
    years: int
    path_length: int | None = None
    bits: int = 2048
    signs: bool = True
    extended: tuple[x509.ObjectIdentifier, ...] = ()


# The predecessor's, but for uki-production, which may vouch for the manifest CA.
EXPECTED = {
    "manifest-ca": Expected("Manifest rootCA", 25, path_length=0, bits=3072, signs=False),
    "sudi-ca": Expected("SUDI rootCA", 0, path_length=0, bits=3072, signs=False),
    "uefi-pk": Expected("UEFI PK", 50, path_length=0),
    "uefi-kek": Expected("UEFI KEK", 50),
    "uefi-db": Expected("UEFI DB", 25, extended=(Usage.CODE_SIGNING,)),
    "uki-production": Expected("UKI Production", 25, path_length=1, extended=(Usage.CODE_SIGNING,)),
    "uki-limited": Expected("UKI Limited", 25, extended=(Usage.CODE_SIGNING,)),
    "uki-tpm": Expected("UKI TPM", 25, extended=(Usage.CODE_SIGNING,)),
    "tpmpol-admin": Expected("TPM EAPolicy Admin", 25),
    "tpmpol-luks": Expected("TPM EAPolicy LUKS", 25),
}
GUIDS = ["uefi-pk", "uefi-kek", "uefi-db", "uki-production", "uki-limited", "uki-tpm"]


def made(**more: object) -> tuple[Entry, ...]:
    arguments: dict[str, object] = {
        "organizations": ("Acme Inc",),
        "passphrase": None,
        "now": NOW,
        "random": FixedRandomness("contents"),
        "tell": lambda _role: None,
    }
    return tuple(keyset_entries("acme", **(arguments | more)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def entries() -> tuple[Entry, ...]:
    return made()


@pytest.fixture(scope="module")
def files(entries: tuple[Entry, ...]) -> dict[str, bytes]:
    return {entry.path: entry.data for entry in entries if isinstance(entry, File)}


def certificate(files: dict[str, bytes], place: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(files[f"{place}/cert.pem"])


def extension(
    of: x509.Certificate, kind: type[x509.ExtensionType]
) -> x509.Extension[x509.ExtensionType]:
    return of.extensions.get_extension_for_class(kind)


def usages(of: x509.Certificate) -> set[str]:
    found = of.extensions.get_extension_for_class(x509.KeyUsage).value
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign",
    )  # fmt: skip
    return {name for name in names if getattr(found, name)}


def extended(of: x509.Certificate) -> tuple[x509.ObjectIdentifier, ...]:
    try:
        return tuple(of.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return ()


def subject(of: x509.Certificate) -> list[tuple[str, str]]:
    return [(part.rfc4514_attribute_name, str(part.value)) for part in of.subject]


# -- the whole -----------------------------------------------------------------------------------


def test_folders_come_before_their_files_and_private_keys_are_the_owners(
    entries: tuple[Entry, ...],
) -> None:
    wanted: list[tuple[str, int | None]] = []
    for role in EXPECTED:
        wanted += [(role, None), (f"{role}/privkey.pem", 0o600), (f"{role}/cert.pem", 0o640)]
        wanted += [(f"{role}/guid", 0o640)] if role in GUIDS else []
    default = "manifest/default"
    wanted += [("manifest-ca/uki-cross.pem", 0o640), ("manifest", None), (default, None)]
    wanted += [(f"{default}/privkey.pem", 0o600), (f"{default}/cert.pem", 0o640)]
    wanted += [(f"{default}/uuid", 0o640), (f"{default}/sudi", None)]
    found = [(entry.path, entry.mode if isinstance(entry, File) else None) for entry in entries]
    assert found == wanted


def test_roles_are_these_in_this_order() -> None:
    assert list(ROLES) == list(EXPECTED)
    assert list(ROLES_WITH_GUID) == GUIDS


def test_a_key_is_told_before_it_is_made() -> None:
    said: list[str] = []
    random = FixedRandomness("contents")

    class Watched(FixedRandomness):
        def key(self, profile: issuing.Profile) -> rsa.RSAPrivateKey:
            said.append("key")
            return random.key(profile)

    made(tell=said.append, random=Watched())
    names = [*EXPECTED, "manifest:default"]
    assert said == [word for name in names for word in (name, "key")]


def test_guids_and_the_product_are_text_without_a_newline(files: dict[str, bytes]) -> None:
    texts = [files[f"{role}/guid"].decode() for role in GUIDS]
    texts.append(files["manifest/default/uuid"].decode())
    assert [str(UUID(text)) for text in texts] == texts
    assert len(set(texts)) == len(texts)


def test_secrets_have_no_repr(entries: tuple[Entry, ...]) -> None:
    key = FixedRandomness("contents").key(issuing.UKI)
    held = Issued(x509.load_pem_x509_certificate(_pem_of_any(entries)), key)
    assert "RSAPrivateKey" not in repr(held)
    assert "PRIVATE KEY" not in "".join(map(repr, entries))


def _pem_of_any(entries: tuple[Entry, ...]) -> bytes:
    return next(
        entry.data
        for entry in entries
        if isinstance(entry, File) and entry.path.endswith("cert.pem")
    )


# -- the certificates ----------------------------------------------------------------------------


@pytest.mark.parametrize("role", EXPECTED)
def test_the_certificate_of_a_role(role: str, files: dict[str, bytes]) -> None:
    found, expected = certificate(files, role), EXPECTED[role]
    unit = ("OU", "Project Machine Project acme")
    assert subject(found) == [("O", "Acme Inc"), unit, ("CN", expected.name)]
    end = NOW.replace(year=NOW.year + expected.years) if expected.years else FOREVER
    assert (found.not_valid_before_utc, found.not_valid_after_utc) == (BACKDATED, end)
    key = found.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == expected.bits
    assert isinstance(found.signature_hash_algorithm, hashes.SHA256)
    wanted = {"digital_signature"} if expected.signs else set()
    wanted |= {"key_cert_sign", "crl_sign"} if expected.path_length is not None else set()
    assert usages(found) == wanted
    assert extended(found) == expected.extended
    constraints = extension(found, x509.BasicConstraints)
    is_ca = expected.path_length is not None
    assert constraints.value == x509.BasicConstraints(is_ca, expected.path_length)
    assert constraints.critical
    assert extension(found, x509.KeyUsage).critical


@pytest.mark.parametrize("role", EXPECTED)
def test_who_issued_a_role(role: str, files: dict[str, bytes]) -> None:
    found = certificate(files, role)
    issuer = certificate(files, "uefi-pk" if role == "uefi-kek" else role)
    found.verify_directly_issued_by(issuer)
    ours = found.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    theirs = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert ours == x509.AuthorityKeyIdentifier(theirs.key_identifier, None, None)


@pytest.mark.parametrize("place", [*EXPECTED, "manifest/default"])
def test_each_key_is_that_of_its_certificate(place: str, files: dict[str, bytes]) -> None:
    key = load_pem_private_key(files[f"{place}/privkey.pem"], None)
    assert key.public_key() == certificate(files, place).public_key()


def test_no_key_and_no_serial_is_used_twice(files: dict[str, bytes]) -> None:
    found = [certificate(files, place) for place in (*EXPECTED, "manifest/default")]
    assert len({one.serial_number for one in found}) == len(found)
    assert min(one.serial_number.bit_length() for one in found) > 64
    assert len({files[f"{place}/privkey.pem"] for place in EXPECTED}) == len(EXPECTED)


def test_the_cross_certificate_is_the_manifest_cas_vouched_for_by_uki_production(
    files: dict[str, bytes],
) -> None:
    cross = x509.load_pem_x509_certificate(files["manifest-ca/uki-cross.pem"])
    ca = certificate(files, "manifest-ca")
    assert (cross.subject, cross.public_key()) == (ca.subject, ca.public_key())
    cross.verify_directly_issued_by(certificate(files, "uki-production"))
    assert usages(cross) == {"key_cert_sign", "crl_sign"}
    assert extended(cross) == ()
    assert extension(cross, x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    assert cross.not_valid_after_utc == NOW.replace(year=NOW.year + 25)


def test_the_publisher_of_the_default_project(files: dict[str, bytes]) -> None:
    found = certificate(files, "manifest/default")
    assert isinstance(found.signature_hash_algorithm, hashes.SHA256)
    product = files["manifest/default/uuid"].decode()
    assert subject(found) == [("CN", f"manifest PRODUCT:{product}")]
    found.verify_directly_issued_by(certificate(files, "manifest-ca"))
    assert usages(found) == {"digital_signature"}
    assert extended(found) == (Usage.CODE_SIGNING,)
    assert extension(found, x509.BasicConstraints).value == x509.BasicConstraints(False, None)
    assert found.not_valid_after_utc == NOW.replace(year=NOW.year + 20)


def test_organizations_are_many_or_none() -> None:
    for organizations in ((), ("A", "B")):
        files = {
            entry.path: entry.data
            for entry in made(organizations=organizations)
            if isinstance(entry, File)
        }
        found = certificate(files, "uefi-db").subject
        parts = found.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
        assert tuple(part.value for part in parts) == organizations


def test_a_passphrase_protects_every_key() -> None:
    keys = [
        entry.data
        for entry in made(passphrase=PASSPHRASE)
        if isinstance(entry, File) and entry.path.endswith("privkey.pem")
    ]
    assert len(keys) == len(EXPECTED) + 1
    for pem in keys:
        assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        assert isinstance(load_pem_private_key(pem, b"correct horse"), rsa.RSAPrivateKey)


# -- projects and machines -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca(files: dict[str, bytes]) -> Issued:
    return held(files, "manifest-ca")


def held(files: dict[str, bytes], place: str) -> Issued:
    key = load_pem_private_key(files[f"{place}/privkey.pem"], None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return Issued(certificate(files, place), key)


def test_a_project_is_a_publisher_its_product_and_a_place_for_machines(ca: Issued) -> None:
    found = tuple(
        project_entries(
            PRODUCT, ca, passphrase=PASSPHRASE, now=NOW, random=FixedRandomness("project")
        )
    )
    assert [(entry.path, type(entry)) for entry in found] == [
        ("privkey.pem", File), ("cert.pem", File), ("uuid", File), ("sudi", Folder),
    ]  # fmt: skip
    key, pem, product = (entry for entry in found if isinstance(entry, File))
    assert product.data == str(PRODUCT).encode()
    certificate = x509.load_pem_x509_certificate(pem.data)
    assert subject(certificate) == [("CN", f"manifest PRODUCT:{PRODUCT}")]
    certificate.verify_directly_issued_by(ca.certificate)
    opened = load_pem_private_key(key.data, b"correct horse")
    assert opened.public_key() == certificate.public_key()


def test_a_machine_is_named_twice_in_its_certificate(files: dict[str, bytes]) -> None:
    sudi_ca = held(files, "sudi-ca")
    found = tuple(
        sudi_entries(
            PRODUCT, "SN0001", sudi_ca, passphrase=None, now=NOW, random=FixedRandomness("sudi")
        )
    )
    assert [(entry.path, entry.mode) for entry in found if isinstance(entry, File)] == [
        ("privkey.pem", 0o600), ("cert.pem", 0o640),
    ]  # fmt: skip
    assert len(found) == 2
    pem = found[1]
    assert isinstance(pem, File)
    certificate = x509.load_pem_x509_certificate(pem.data)
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    assert certificate.subject == x509.Name([
        x509.NameAttribute(x509.NameOID.COMMON_NAME, "SN0001"),
        x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, f"PID:{PRODUCT} SN:SN0001"),
    ])  # fmt: skip
    certificate.verify_directly_issued_by(sudi_ca.certificate)
    assert usages(certificate) == {"digital_signature", "key_encipherment", "data_encipherment"}
    assert extended(certificate) == (Usage.SERVER_AUTH, Usage.CLIENT_AUTH)
    assert certificate.not_valid_after_utc == FOREVER


def test_a_ca_with_another_key_issues_nothing(ca: Issued, files: dict[str, bytes]) -> None:
    wrong = Issued(ca.certificate, held(files, "uefi-db").key)
    random = FixedRandomness("wrong")
    with pytest.raises(SignatureError, match="does not belong to its certificate"):
        list(project_entries(PRODUCT, wrong, passphrase=None, now=NOW, random=random))
    with pytest.raises(SignatureError, match="does not belong to its certificate"):
        list(sudi_entries(PRODUCT, "S", wrong, passphrase=None, now=NOW, random=random))


# -- names and identifiers -----------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "longest"), [("keyset", 40), ("project", 64), ("serial", 64)])
def test_names_have_a_longest(kind: str, longest: int) -> None:
    assert check_name("x" * longest, kind) == "x" * longest
    with pytest.raises(UsageError, match=f"cannot be the name of a {kind}") as caught:
        check_name("x" * (longest + 1), kind)
    assert caught.value.hint.endswith(f"at most {longest}")


@pytest.mark.parametrize("name", ["a", "0", "A.b-c_d", "a..", "9" * 40])
def test_good_names(name: str) -> None:
    assert check_name(name, "keyset") == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "../a", "a b", "a:b", "-x", "_x", "a\n", "a\0", "ä", "a~"],
)
@pytest.mark.parametrize("kind", ["keyset", "project", "serial"])
def test_bad_names(name: str, kind: str) -> None:
    with pytest.raises(UsageError):
        check_name(name, kind)


def test_a_long_name_is_cut_in_the_message() -> None:
    with pytest.raises(UsageError) as caught:
        check_name("x" * 300, "serial")
    assert "x" * 80 + "'" in caught.value.message
    assert "x" * 81 not in caught.value.message


@given(st.text(max_size=70), st.sampled_from(["keyset", "project", "serial"]))
def test_a_name_is_one_visible_path_component_or_refused(name: str, kind: str) -> None:
    try:
        accepted = check_name(name, kind)
    except UsageError:
        return
    assert accepted == name
    assert accepted.isascii()
    assert accepted[0] not in ".-"
    assert not set(accepted) & set("/\0:\n ")
    assert len(accepted) <= 64


def test_a_uuid_may_have_space_around_it_and_nothing_else() -> None:
    assert parse_uuid(f" {PRODUCT}\n".encode(), name="f") == PRODUCT
    for bad in (b"", b"not one", "\u00e4".encode(), f"{PRODUCT}0".encode()):
        with pytest.raises(DocumentError) as caught:
            parse_uuid(bad, name="folder/uuid")
        assert caught.value.message == "folder/uuid: is not a UUID"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("k", ("k", "default")),
        ("k:", ("k", "default")),
        ("k:p", ("k", "p")),
        ("k:p:q", ("k", "p:q")),
    ],
)
def test_a_project_is_named_behind_its_keyset(text: str, names: tuple[str, str]) -> None:
    assert split_project(text) == names


# -- randomness: the real one and the one of the tests -------------------------------------------


@pytest.mark.parametrize("random", [SystemRandomness(), FixedRandomness()], ids=["real", "fixed"])
def test_randomness_gives_what_was_not_there_before(random: Randomness) -> None:
    keys = [random.key(issuing.UKI) for _ in range(2)] + [random.key(issuing.SUDI_CA)]
    assert [key.key_size for key in keys] == [2048, 2048, 3072]
    assert {key.public_key().public_numbers().e for key in keys} == {65537}
    assert len({key.public_key().public_numbers().n for key in keys}) == 3
    uuids = [random.uuid() for _ in range(3)]
    assert len(set(uuids)) == 3
    assert {one.version for one in uuids} == {4}
