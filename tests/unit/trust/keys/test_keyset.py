from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from fakes.randomness import FixedRandomness
from machineos.core import run
from machineos.core.secret import Secret
from machineos.errors import (
    ConflictError,
    DocumentError,
    MissingError,
    SignatureError,
    UsageError,
)
from machineos.trust.keys.contents import ROLES, ROLES_WITH_GUID, check_name
from machineos.trust.keys.keyset import (
    Keyset,
    add_project,
    add_sudi,
    create_keyset,
    find_project,
    list_keysets,
)
from machineos.trust.keys.signer import FileSigner
from machineos.trust.verify.chain import verify_signed, verify_sudi
from vectors.certificates import NOW
from vectors.clock import FixedClock

PASSPHRASE = Secret(b"correct horse")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def constraints(certificate: x509.Certificate) -> tuple[bool, int | None]:
    found = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    return found.ca, found.path_length


# --- what is there --------------------------------------------------------------------------------


def test_folders_and_modes(one: Keyset) -> None:
    assert {entry.name for entry in one.root.iterdir()} == {*ROLES, "manifest"}
    for role in ROLES:
        files = {entry.name: mode(entry) for entry in (one.root / role).iterdir()}
        expected = {"cert.pem": 0o640, "privkey.pem": 0o600}
        if role in ROLES_WITH_GUID:
            expected["guid"] = 0o640
        if role == "manifest-ca":
            expected["uki-cross.pem"] = 0o640
        assert files == expected
    project = one.root / "manifest" / "default"
    assert {entry.name for entry in project.iterdir()} == {
        "uuid",
        "cert.pem",
        "privkey.pem",
        "sudi",
    }
    assert mode(project / "privkey.pem") == 0o600
    for folder, _, _ in os.walk(one.root):
        assert mode(Path(folder)) == 0o700


def test_guid_and_uuid_are_text_without_a_newline(one: Keyset) -> None:
    for path in (one.root / "uefi-db/guid", one.root / "manifest/default/uuid"):
        assert str(UUID(path.read_text())) == path.read_text()
    assert one.key("uefi-db").guid == UUID((one.root / "uefi-db/guid").read_text())
    assert one.key("manifest-ca").guid is None


def test_subjects(one: Keyset) -> None:
    def names(certificate: x509.Certificate) -> list[tuple[str, str]]:
        return [(part.rfc4514_attribute_name, str(part.value)) for part in certificate.subject]

    unit = ("OU", "Project Machine Project one")
    expected = {
        "manifest-ca": "Manifest rootCA",
        "sudi-ca": "SUDI rootCA",
        "uefi-pk": "UEFI PK",
        "uefi-kek": "UEFI KEK",
        "uefi-db": "UEFI DB",
        "uki-production": "UKI Production",
        "uki-limited": "UKI Limited",
        "uki-tpm": "UKI TPM",
        "tpmpol-admin": "TPM EAPolicy Admin",
        "tpmpol-luks": "TPM EAPolicy LUKS",
    }
    for role in ROLES:
        found = names(one.key(role).certificate())
        assert found == [("O", "Acme Inc"), unit, ("CN", expected[role])]
    project = one.project("default")
    assert names(project.pair.certificate()) == [("CN", f"manifest PRODUCT:{project.uuid}")]


def test_lives_and_serials(one: Keyset) -> None:
    until = {role: one.key(role).certificate().not_valid_after_utc for role in ROLES}
    assert until["manifest-ca"] == NOW.replace(year=NOW.year + 25)
    assert until["uefi-pk"] == until["uefi-kek"] == NOW.replace(year=NOW.year + 50)
    assert until["sudi-ca"] == datetime(2099, 12, 31, 23, tzinfo=UTC)
    project = one.project("default").pair.certificate()
    assert project.not_valid_after_utc == NOW.replace(year=NOW.year + 20)
    assert NOW - timedelta(days=2) < project.not_valid_before_utc < NOW
    serials = {one.key(role).certificate().serial_number for role in ROLES}
    assert len(serials) == len(ROLES)
    assert min(serial.bit_length() for serial in serials) > 64


def test_a_certificate_never_outlives_its_issuer(own: Keyset) -> None:
    late = FixedClock(datetime(2045, 2, 1, tzinfo=UTC))
    certificate = add_project(
        own, "late", clock=late, random=FixedRandomness("later")
    ).pair.certificate()
    ca = own.key("manifest-ca").certificate()
    assert certificate.not_valid_after_utc == ca.not_valid_after_utc


def test_usages_and_path_lengths(one: Keyset) -> None:
    project = one.project("default").pair.certificate()
    expected = {
        "manifest-ca": (True, 0),
        "sudi-ca": (True, 0),
        "uefi-pk": (True, 0),
        "uki-production": (True, 1),
    }
    for role in ROLES:
        certificate = one.key(role).certificate()
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert constraints(certificate) == expected.get(role, (False, None))
        assert usage.value.key_cert_sign == (role in expected)
        assert usage.value.digital_signature == (role not in {"manifest-ca", "sudi-ca"})
    assert constraints(project) == (False, None)


def test_key_identifiers_lead_from_each_certificate_to_its_issuer(one: Keyset) -> None:
    def own(certificate: x509.Certificate) -> bytes:
        return certificate.extensions.get_extension_for_class(
            x509.SubjectKeyIdentifier
        ).value.digest

    def issuers(certificate: x509.Certificate) -> bytes | None:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert found.authority_cert_issuer is None
        return found.key_identifier

    for role in ROLES:
        certificate = one.key(role).certificate()
        issuer = one.key("uefi-pk").certificate() if role == "uefi-kek" else certificate
        assert issuers(certificate) == own(issuer)
    project = one.project("default").pair.certificate()
    assert issuers(project) == own(one.key("manifest-ca").certificate())
    cross = x509.load_pem_x509_certificate(one.cross_certificate_pem())
    assert own(cross) == own(one.key("manifest-ca").certificate())
    assert issuers(cross) == own(one.key("uki-production").certificate())


def test_cross_certificate_is_for_the_manifest_ca(one: Keyset) -> None:
    cross = x509.load_pem_x509_certificate(one.cross_certificate_pem())
    ca = one.key("manifest-ca").certificate()
    assert (cross.subject, cross.public_key()) == (ca.subject, ca.public_key())
    assert constraints(cross) == (True, 0)
    cross.verify_directly_issued_by(one.key("uki-production").certificate())
    signer = FileSigner.open(one.project("default").pair)
    found = verify_signed(
        b"x", signer.sign(b"x"), signer.certificate_pem,
        ca_pem=one.cross_certificate_pem(), at=NOW, product=None,
    )  # fmt: skip
    assert found.product == one.project("default").uuid


@pytest.mark.tool("openssl")
def test_openssl_accepts_every_chain(own: Keyset, two: Keyset, clock: FixedClock) -> None:
    made = own
    sudi = add_sudi(made.project("default"), "SN1", clock=clock, random=FixedRandomness("later"))
    publisher = made.project("default").pair.cert_path
    at = ["-attime", str(int(NOW.timestamp()))]
    strict = ["openssl", "verify", "-x509_strict", "-check_ss_sig", *at]

    def ca(role: str) -> list[str]:
        return ["-CAfile", str(made.key(role).cert_path)]

    chains = [[*ca(role), str(made.key(role).cert_path)] for role in ROLES if role != "uefi-kek"]
    chains += [
        [*ca("uefi-pk"), str(made.key("uefi-kek").cert_path)],
        [*ca("manifest-ca"), str(publisher)],
        [*ca("sudi-ca"), "-purpose", "sslclient", str(sudi.pair.cert_path)],
        [*ca("sudi-ca"), "-purpose", "sslserver", str(sudi.pair.cert_path)],
        [*ca("uki-production"), "-untrusted", str(made.cross_certificate_path), str(publisher)],
    ]
    for chain in chains:
        assert run.run([*strict, *chain], timeout=20).text.endswith(": OK")
    wrong = run.run(
        [*strict, "-CAfile", str(two.key("manifest-ca").cert_path), str(publisher)],
        timeout=20, check=False,
    )  # fmt: skip
    assert wrong.status != 0


def test_two_keysets_share_nothing(one: Keyset, two: Keyset, keysets: Path) -> None:
    assert [found.name for found in list_keysets(keysets)] == ["one", "two"]
    assert one.project("default").uuid != two.project("default").uuid
    for role in ROLES:
        assert one.key(role).certificate().public_key() != two.key(role).certificate().public_key()
    signer = FileSigner.open(two.project("default").pair)
    with pytest.raises(SignatureError):
        verify_signed(
            b"x", signer.sign(b"x"), signer.certificate_pem,
            ca_pem=one.key("manifest-ca").certificate_pem(), at=NOW, product=None,
        )  # fmt: skip


# --- projects and machines ------------------------------------------------------------------------


def test_projects_and_machines(own: Keyset, tmp_path: Path, clock: FixedClock) -> None:
    made = own
    product = uuid4()
    project = add_project(
        made, "thermo", clock=clock, random=FixedRandomness("later"), uuid=product
    )
    assert project.uuid == product
    assert [found.name for found in made.list_projects()] == ["default", "thermo"]
    assert project.keyset == made
    assert project.list_sudis() == []
    given_serials = [str(uuid4()), "SN0001", "SN0002"]
    for serial in given_serials:
        assert (
            add_sudi(project, serial, clock=clock, random=FixedRandomness("later")).serial == serial
        )
    random = add_sudi(project, clock=clock, random=FixedRandomness("later"))
    assert UUID(random.serial)
    assert len(project.list_sudis()) == 4
    assert mode(random.pair.key_path) == 0o600
    identity = verify_sudi(
        random.pair.certificate_pem(), ca_pem=made.key("sudi-ca").certificate_pem(), at=NOW
    )
    assert (identity.product, identity.serial) == (product, random.serial)
    subject = random.pair.certificate().subject
    number = subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)[0].value
    assert number == f"PID:{product} SN:{random.serial}"
    assert find_project(tmp_path, "k:thermo") == (made, project)
    assert find_project(tmp_path, "k")[1].name == "default"


def test_what_exists_is_left_alone(own: Keyset, tmp_path: Path, clock: FixedClock) -> None:
    made = own
    project = made.project("default")
    add_sudi(project, "SN1", clock=clock, random=FixedRandomness("later"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConflictError):
        create_keyset(
            tmp_path, "k", organization="A", passphrase=None, clock=clock, random=FixedRandomness()
        )
    with pytest.raises(ConflictError):
        add_project(made, "default", clock=clock, random=FixedRandomness("later"))
    with pytest.raises(ConflictError, match="already"):
        add_project(made, "other", clock=clock, random=FixedRandomness("later"), uuid=project.uuid)
    with pytest.raises(ConflictError):
        add_sudi(project, "SN1", clock=clock, random=FixedRandomness("later"))
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_an_empty_folder_or_a_broken_link_is_not_taken_over(
    tmp_path: Path, clock: FixedClock
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("empty", "link"):
        with pytest.raises(ConflictError):
            create_keyset(
                tmp_path,
                name,
                organization="A",
                passphrase=None,
                clock=clock,
                random=FixedRandomness(),
            )


def test_missing_things(one: Keyset, keysets: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no keyset nine"):
        Keyset.open(keysets, "nine")
    with pytest.raises(MissingError, match="no key of a keyset"):
        one.key("manifest")
    with pytest.raises(MissingError):
        one.project("nine")
    with pytest.raises(MissingError):
        one.project("default").sudi("SN9")
    assert list_keysets(tmp_path / "nothing") == []
    partial = Keyset("partial", tmp_path)
    with pytest.raises(MissingError, match="uefi-db"):
        partial.key("uefi-db")
    with pytest.raises(MissingError):
        partial.cross_certificate_pem()


def test_damaged_uuid(own: Keyset, tmp_path: Path, clock: FixedClock) -> None:
    made = own
    (made.root / "manifest/default/uuid").write_text("not one")
    with pytest.raises(DocumentError):
        made.project("default")


def test_a_ca_whose_files_do_not_belong_together(
    own: Keyset, tmp_path: Path, clock: FixedClock
) -> None:
    made = own
    key = made.key("uefi-db").key_path.read_bytes()
    made.key("manifest-ca").key_path.write_bytes(key)
    with pytest.raises(SignatureError, match="does not belong"):
        add_project(made, "p", clock=clock, random=FixedRandomness("later"))
    assert [found.name for found in made.list_projects()] == ["default"]
    assert [entry.name for entry in (made.root / "manifest").iterdir()] == ["default"]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "../a", "a b", "a:b", "-x", "a\n", "a\0", "ä", "x" * 41],
)
def test_bad_names_are_refused_everywhere(
    name: str, one: Keyset, keysets: Path, tmp_path: Path, clock: FixedClock
) -> None:
    with pytest.raises(UsageError):
        create_keyset(
            tmp_path, name, organization="A", passphrase=None, clock=clock, random=FixedRandomness()
        )
    with pytest.raises(UsageError):
        Keyset.open(keysets, name)
    if len(name) <= 40:
        with pytest.raises(UsageError):
            add_project(one, name, clock=clock, random=FixedRandomness("later"))
        with pytest.raises(UsageError):
            add_sudi(one.project("default"), name, clock=clock, random=FixedRandomness("later"))
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.parametrize("organization", ["x" * 65, "a\nb", "a\0b"])
def test_bad_organization(organization: str, tmp_path: Path, clock: FixedClock) -> None:
    with pytest.raises(UsageError):
        create_keyset(
            tmp_path,
            "k",
            organization=organization,
            passphrase=None,
            clock=clock,
            random=FixedRandomness(),
        )
    assert list(tmp_path.iterdir()) == []


def test_organizations_are_many(protected: Keyset) -> None:
    subject = protected.key("uefi-db").certificate().subject
    found = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert [part.value for part in found] == ["A", "B"]


# --- interruption and secrecy ---------------------------------------------------------------------


@pytest.mark.parametrize("role", ["manifest-ca", "uefi-kek", "manifest:default"])
def test_an_interruption_leaves_nothing(role: str, tmp_path: Path, clock: FixedClock) -> None:
    def interrupt(told: str) -> None:
        if told == role:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_keyset(
            tmp_path,
            "k",
            organization="A",
            passphrase=None,
            clock=clock,
            random=FixedRandomness(),
            progress=interrupt,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_keyset_in_the_making_is_invisible_and_private(tmp_path: Path, clock: FixedClock) -> None:
    seen: list[str] = []
    root = tmp_path / "keysets"

    def look(told: str) -> None:
        seen.append(told)
        assert list_keysets(root) == []
        for folder, _, files in os.walk(root):
            if Path(folder) != root:
                assert mode(Path(folder)) == 0o700
            for name in files:
                path = Path(folder, name)
                assert mode(path) & 0o007 == 0
                if "privkey" in name:
                    assert mode(path) == 0o600

    before = os.umask(0)
    try:
        made = create_keyset(
            root,
            "k",
            organization="A",
            passphrase=None,
            clock=clock,
            random=FixedRandomness(),
            progress=look,
        )
        add_sudi(made.project("default"), "SN1", clock=clock, random=FixedRandomness("later"))
        add_project(made, "p", clock=clock, random=FixedRandomness("later"))
    finally:
        os.umask(before)
    assert seen == [*ROLES, "manifest:default"]
    keys = list(root.rglob("privkey.pem"))
    assert len(keys) == len(ROLES) + 3
    assert {mode(path) for path in keys} == {0o600}
    assert {mode(path) & 0o007 for path in root.rglob("*")} == {0}


def test_two_at_once_one_wins_whole(tmp_path: Path, clock: FixedClock) -> None:
    def second(told: str) -> None:
        if told == "manifest-ca":
            create_keyset(
                tmp_path,
                "k",
                organization="B",
                passphrase=None,
                clock=clock,
                random=FixedRandomness(),
            )

    with pytest.raises(ConflictError):
        create_keyset(
            tmp_path,
            "k",
            organization="A",
            passphrase=None,
            clock=clock,
            random=FixedRandomness(),
            progress=second,
        )
    assert [entry.name for entry in tmp_path.iterdir()] == ["k"]
    subject = Keyset.open(tmp_path, "k").key("uefi-db").certificate().subject
    assert subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "B"


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory, clock: FixedClock) -> Keyset:
    root = tmp_path_factory.mktemp("protected")
    return create_keyset(
        root,
        "k",
        organization=("A", "B"),
        passphrase=PASSPHRASE,
        clock=clock,
        random=FixedRandomness(),
    )


def test_a_passphrase_protects_every_key(protected: Keyset, clock: FixedClock) -> None:
    project = add_project(
        protected, "p", clock=clock, random=FixedRandomness("later"), passphrase=PASSPHRASE
    )
    add_sudi(project, "SN1", clock=clock, random=FixedRandomness("later"), passphrase=PASSPHRASE)
    for path in protected.root.rglob("privkey.pem"):
        assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert project.pair.is_protected()
    assert FileSigner.open(project.pair, PASSPHRASE).sign(b"x")


def test_missing_wrong_and_needless_passphrases(
    protected: Keyset, one: Keyset, clock: FixedClock
) -> None:
    with pytest.raises(UsageError, match="protected by a passphrase"):
        add_project(protected, "q", clock=clock, random=FixedRandomness("q"))
    with pytest.raises(UsageError, match="does not open") as caught:
        add_project(
            protected,
            "q",
            clock=clock,
            random=FixedRandomness("q"),
            passphrase=Secret(b"wrong horse"),
        )
    assert "wrong horse" not in str(caught.value)
    with pytest.raises(UsageError, match="not protected"):
        add_sudi(
            one.project("default"),
            "q",
            clock=clock,
            random=FixedRandomness("q"),
            passphrase=PASSPHRASE,
        )
    assert not one.project("default").pair.is_protected()
    with pytest.raises(MissingError):
        protected.project("q")


# --- the predecessor's keysets --------------------------------------------------------------------


def test_a_keyset_of_the_predecessor_is_read(tmp_path: Path) -> None:
    vectors = Path(__file__).parents[3] / "vectors" / "predecessor_keys"
    root = tmp_path / "old"
    for role in ROLES:
        if (vectors / f"{role}.pem").exists():
            (root / role).mkdir(parents=True)
            (root / role / "cert.pem").write_bytes((vectors / f"{role}.pem").read_bytes())
        if (vectors / f"{role}.guid").exists():
            (root / role / "guid").write_bytes((vectors / f"{role}.guid").read_bytes())
    project = root / "manifest/default"
    project.mkdir(parents=True)
    (project / "cert.pem").write_bytes((vectors / "manifest-default.pem").read_bytes())
    (project / "uuid").write_text("bc564363-2a8e-44fe-bb0e-54c7f9988ecf")
    opened = Keyset.open(tmp_path, "old")
    guid = (vectors / "uefi-pk.guid").read_text().strip()
    assert opened.key("uefi-pk").guid == UUID(guid)
    assert opened.project("default").uuid == UUID("bc564363-2a8e-44fe-bb0e-54c7f9988ecf")
    with pytest.raises(MissingError):
        opened.cross_certificate_pem()
