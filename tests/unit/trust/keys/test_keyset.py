"""Keysets on a disk: what is found, what is added whole or not at all, who may read it."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509.oid import NameOID

from fakes.randomness import FixedRandomness
from machineos.core import run
from machineos.core.secret import Secret
from machineos.errors import (
    ConflictError,
    MissingError,
    SignatureError,
    UsageError,
)
from machineos.trust.keys.contents import ROLES, ROLES_WITH_GUID
from machineos.trust.keys.keyset import (
    KeyPair,
    Keyset,
    add_project,
    find_project,
    key_pair,
    list_keysets,
)
from machineos.trust.keys.signer import FileSigner
from machineos.trust.keys.x509 import certificate_der
from machineos.trust.verify.chain import verify_signed, verify_sudi
from unit.trust.making import create, project_of, sudi_of
from vectors.certificates import NOW, PRODUCT
from vectors.clock import FixedClock

PASSPHRASE = Secret(b"correct horse")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


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
    assert {entry.name: mode(entry) for entry in project.iterdir()} == {
        "uuid": 0o640, "cert.pem": 0o640, "privkey.pem": 0o600, "sudi": 0o700,
    }  # fmt: skip
    for folder, _, _ in os.walk(one.root):
        assert mode(Path(folder)) == 0o700


def test_places_of_a_keyset(one: Keyset, keysets: Path) -> None:
    root = keysets / "one"
    assert (one.name, one.root) == ("one", root)
    assert one.artifacts == root / "artifacts"
    assert one.bootkit == root / "bootkit"
    assert one.cross_certificate_path == root / "manifest-ca/uki-cross.pem"
    assert one.cross_certificate_pem() == one.cross_certificate_path.read_bytes()
    project = one.project("default")
    assert (project.name, project.root) == ("default", root / "manifest/default")
    assert project.sudi_root == root / "manifest/default/sudi"
    assert project.keyset == one
    assert project.uuid == UUID((project.root / "uuid").read_text())


@pytest.mark.parametrize("role", ROLES)
def test_a_pair_of_a_keyset(role: str, one: Keyset) -> None:
    pair = one.key(role)
    folder = one.root / role
    guid = UUID((folder / "guid").read_text()) if role in ROLES_WITH_GUID else None
    assert pair == KeyPair(folder / "cert.pem", folder / "privkey.pem", guid)
    assert pair.certificate_pem() == pair.cert_path.read_bytes()
    assert pair.certificate_der() == certificate_der(pair.certificate())
    assert pair.private_key(None).public_key() == pair.certificate().public_key()
    assert not pair.is_protected()


def test_the_cross_certificate_vouches_for_publishers(one: Keyset) -> None:
    signer = FileSigner.open(one.project("default").pair)
    found = verify_signed(
        b"x", signer.sign(b"x"), signer.certificate_pem,
        ca_pem=one.cross_certificate_pem(), at=NOW, product=None,
    )  # fmt: skip
    assert found.product == one.project("default").uuid


@pytest.mark.tool("openssl")
def test_openssl_accepts_every_chain(own: Keyset, two: Keyset) -> None:
    sudi = sudi_of(own.project("default"), "SN1")
    publisher = own.project("default").pair.cert_path
    at = ["-attime", str(int(NOW.timestamp()))]
    strict = ["openssl", "verify", "-x509_strict", "-check_ss_sig", *at]

    def ca(role: str) -> list[str]:
        return ["-CAfile", str(own.key(role).cert_path)]

    chains = [[*ca(role), str(own.key(role).cert_path)] for role in ROLES if role != "uefi-kek"]
    chains += [
        [*ca("uefi-pk"), str(own.key("uefi-kek").cert_path)],
        [*ca("manifest-ca"), str(publisher)],
        [*ca("sudi-ca"), "-purpose", "sslclient", str(sudi.pair.cert_path)],
        [*ca("sudi-ca"), "-purpose", "sslserver", str(sudi.pair.cert_path)],
        [*ca("uki-production"), "-untrusted", str(own.cross_certificate_path), str(publisher)],
    ]
    for chain in chains:
        assert run.run([*strict, *chain], timeout=120).text.endswith(": OK")
    wrong = run.run(
        [*strict, "-CAfile", str(two.key("manifest-ca").cert_path), str(publisher)],
        timeout=120, check=False,
    )  # fmt: skip
    assert wrong.status != 0


def test_two_keysets_share_nothing(one: Keyset, two: Keyset, keysets: Path) -> None:
    assert list_keysets(keysets) == [one, two]
    assert one.project("default").uuid != two.project("default").uuid
    for role in ROLES:
        assert one.key(role).certificate().public_key() != two.key(role).certificate().public_key()
    signer = FileSigner.open(two.project("default").pair)
    with pytest.raises(SignatureError):
        verify_signed(
            b"x", signer.sign(b"x"), signer.certificate_pem,
            ca_pem=one.key("manifest-ca").certificate_pem(), at=NOW, product=None,
        )  # fmt: skip


def test_only_folders_with_a_name_are_looked_at(own: Keyset, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("x")
    (tmp_path / ".hidden/manifest-ca").mkdir(parents=True)
    (tmp_path / ".hidden/manifest-ca/cert.pem").write_text("x")
    (tmp_path / "b/manifest-ca").mkdir(parents=True)  # without a certificate: not a keyset
    assert list_keysets(tmp_path) == [own]
    assert list_keysets(tmp_path / "nothing") == []
    project = own.project("default")
    for place in (own.root / "manifest", project.sudi_root):
        (place / ".in-the-making").mkdir()
        (place / "a-file").write_text("x")
    assert own.list_projects() == [project]
    assert project.list_sudis() == []


def test_what_is_listed_is_in_order(own: Keyset, tmp_path: Path) -> None:
    for name in ("z", "b", "a"):
        (tmp_path / name / "manifest-ca").mkdir(parents=True)
        (tmp_path / name / "manifest-ca/cert.pem").write_text("x")
        (own.project("default").sudi_root / name).mkdir()
    assert [one.name for one in list_keysets(tmp_path)] == ["a", "b", "k", "z"]
    assert [one.serial for one in own.project("default").list_sudis()] == ["a", "b", "z"]


# --- projects and machines ------------------------------------------------------------------------


def test_a_project_has_the_uuid_that_it_was_given_or_a_new_one(own: Keyset) -> None:
    given = project_of(own, "thermo", uuid=PRODUCT)
    drawn = project_of(own, "drawn")
    assert given.uuid == PRODUCT
    assert drawn.uuid == FixedRandomness("project drawn").uuid()
    assert own.list_projects() == [own.project("default"), drawn, given]
    assert given.keyset == own
    assert given.pair == key_pair(own.root / "manifest/thermo")
    assert given.list_sudis() == []


def test_a_machine_has_the_serial_that_it_was_given_or_a_new_one(own: Keyset) -> None:
    project = project_of(own, "thermo", uuid=PRODUCT)
    given, drawn = sudi_of(project, "SN0001"), sudi_of(project)
    assert given.serial == "SN0001"
    assert drawn.serial == str(FixedRandomness("sudi None").uuid())
    assert given.pair == key_pair(project.sudi_root / "SN0001")
    assert given == project.sudi("SN0001")
    assert sorted([given, drawn], key=lambda one: one.serial) == project.list_sudis()
    assert mode(drawn.pair.key_path) == 0o600
    identity = verify_sudi(
        drawn.pair.certificate_pem(), ca_pem=own.key("sudi-ca").certificate_pem(), at=NOW
    )
    assert (identity.product, identity.serial) == (PRODUCT, drawn.serial)
    number = drawn.pair.certificate().subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    assert [part.value for part in number] == [f"PID:{PRODUCT} SN:{drawn.serial}"]


def test_an_empty_serial_is_not_a_new_one(own: Keyset) -> None:
    with pytest.raises(UsageError):
        sudi_of(own.project("default"), "")


def test_a_project_is_found_behind_its_keyset(own: Keyset, tmp_path: Path) -> None:
    project = project_of(own, "thermo")
    assert find_project(tmp_path, "k:thermo") == (own, project)
    assert find_project(tmp_path, "k") == (own, own.project("default"))


def test_a_certificate_never_outlives_its_issuer(own: Keyset) -> None:
    late = FixedClock(datetime(2045, 2, 1, tzinfo=UTC))
    made = add_project(own, "late", clock=late, random=FixedRandomness("late"))
    ca = own.key("manifest-ca").certificate()
    assert made.pair.certificate().not_valid_after_utc == ca.not_valid_after_utc


def test_what_exists_is_left_alone(own: Keyset, tmp_path: Path) -> None:
    project = own.project("default")
    sudi_of(project, "SN1")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for act, message in (
        (lambda: create(tmp_path), f"keyset k exists already: {own.root}"),
        (lambda: project_of(own, "default"), f"project default exists already: {project.root}"),
        (
            lambda: project_of(own, "other", uuid=project.uuid),
            f"project default has the UUID {project.uuid} already",
        ),
        (
            lambda: sudi_of(project, "SN1"),
            f"machine SN1 exists already: {project.sudi_root / 'SN1'}",
        ),
    ):
        with pytest.raises(ConflictError) as caught:
            act()
        assert caught.value.message == message
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("name", ["empty", "link"])
def test_an_empty_folder_or_a_broken_link_is_not_taken_over(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ConflictError):
        create(tmp_path, name)


# --- interruption and secrecy ---------------------------------------------------------------------


@pytest.mark.parametrize("role", ["manifest-ca", "uefi-kek", "manifest:default"])
def test_an_interruption_leaves_nothing(role: str, tmp_path: Path) -> None:
    def interrupt(told: str) -> None:
        if told == role:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create(tmp_path, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_keyset_in_the_making_is_invisible_and_private(tmp_path: Path) -> None:
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
        made = create(root, progress=look)
        sudi_of(made.project("default"), "SN1")
        project_of(made, "p")
    finally:
        os.umask(before)
    assert seen == [*ROLES, "manifest:default"]
    keys = list(root.rglob("privkey.pem"))
    assert len(keys) == len(ROLES) + 3
    assert {mode(path) for path in keys} == {0o600}
    assert {mode(path) & 0o007 for path in root.rglob("*")} == {0}


def test_two_at_once_one_wins_whole(tmp_path: Path) -> None:
    def second(told: str) -> None:
        if told == "manifest-ca":
            create(tmp_path, organization="B")

    with pytest.raises(ConflictError):
        create(tmp_path, organization="A", progress=second)
    assert [entry.name for entry in tmp_path.iterdir()] == ["k"]
    subject = Keyset.open(tmp_path, "k").key("uefi-db").certificate().subject
    assert subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "B"


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Keyset:
    root = tmp_path_factory.mktemp("protected")
    return create(root, organization=("A", "B"), passphrase=PASSPHRASE)


def test_organizations_are_many(protected: Keyset) -> None:
    found = protected.key("uefi-db").certificate().subject
    parts = found.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    assert [part.value for part in parts] == ["A", "B"]


def test_a_passphrase_protects_every_key(protected: Keyset) -> None:
    project = project_of(protected, "p", passphrase=PASSPHRASE)
    sudi_of(project, "SN1", passphrase=PASSPHRASE)
    for path in protected.root.rglob("privkey.pem"):
        assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert project.pair.is_protected()
    signature = FileSigner.open(project.pair, PASSPHRASE).sign(b"x")
    project.pair.private_key(PASSPHRASE).public_key().verify(
        signature, b"x", padding.PKCS1v15(), hashes.SHA256()
    )


def test_missing_wrong_and_needless_passphrases(protected: Keyset, one: Keyset) -> None:
    with pytest.raises(UsageError, match="protected by a passphrase"):
        project_of(protected, "q")
    with pytest.raises(UsageError, match="does not open") as caught:
        project_of(protected, "q", passphrase=Secret(b"wrong horse"))
    assert "wrong horse" not in str(caught.value)
    with pytest.raises(UsageError, match="not protected"):
        sudi_of(one.project("default"), "q", passphrase=PASSPHRASE)
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
