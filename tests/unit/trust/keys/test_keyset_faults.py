"""Keysets that are not there, or damaged: each refusal names its object and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from machineos.errors import DocumentError, MissingError, SignatureError, UsageError
from machineos.trust.keys.contents import ROLES
from machineos.trust.keys.keyset import KeyPair, Keyset
from machineos.trust.verify.chain import MAX_PEM
from unit.trust.making import create, project_of, sudi_of


def test_missing_things_are_named_with_what_to_do(
    one: Keyset, keysets: Path, tmp_path: Path
) -> None:
    partial = Keyset("partial", tmp_path)
    for act, message, hint in (
        (
            lambda: Keyset.open(keysets, "nine"),
            f"there is no keyset nine in {keysets}",
            "make it: trust keyset add nine",
        ),
        (
            lambda: one.key("manifest"),
            f"'manifest' is no key of a keyset (they are: {', '.join(ROLES)})",
            "",
        ),
        (lambda: partial.key("uefi-db"), "keyset partial has no key uefi-db", ""),
        (
            lambda: one.project("nine"),
            "keyset one has no project nine",
            "make it: trust project add one nine",
        ),
        (
            lambda: one.project("default").sudi("SN9"),
            "project default has no machine SN9",
            "list them: trust sudi list",
        ),
        (
            partial.cross_certificate_pem,
            "keyset partial has no manifest-ca/uki-cross.pem: it is one of the predecessor's",
            "have it issued: trust keyset upgrade partial",
        ),
        (
            lambda: KeyPair(tmp_path / "c", tmp_path / "k").certificate(),
            f"{tmp_path}/c does not exist",
            "",
        ),
    ):
        with pytest.raises(MissingError) as caught:
            act()
        assert (caught.value.message, caught.value.hint) == (message, hint)


def test_the_name_of_a_role_is_cut_in_the_message(one: Keyset) -> None:
    with pytest.raises(MissingError) as caught:
        one.key("x" * 200)
    assert caught.value.message.startswith(f"'{'x' * 80}' is no key")


@pytest.mark.parametrize("name", ["", "..", ".hidden", "../one", "a b", "x" * 65])
def test_bad_names_are_refused_everywhere(
    name: str, one: Keyset, keysets: Path, tmp_path: Path
) -> None:
    project = one.project("default")
    for act in (
        lambda: create(tmp_path, name),
        lambda: Keyset.open(keysets, name),
        lambda: one.project(name),
        lambda: project.sudi(name),
        lambda: project_of(one, name),
        lambda: sudi_of(project, name),
    ):
        with pytest.raises(UsageError, match="cannot be the name of"):
            act()
    assert list(tmp_path.iterdir()) == []


def test_the_longest_names_differ_by_kind(one: Keyset, own: Keyset, keysets: Path) -> None:
    acts: tuple[Callable[[str], Keyset], ...] = (
        lambda name: Keyset.open(keysets, name),
        lambda name: create(keysets, name),
    )
    for act in acts:
        with pytest.raises(UsageError, match="name of a keyset"):
            act("x" * 41)
    assert project_of(own, "p" * 64).name == "p" * 64
    assert sudi_of(own.project("default"), "s" * 36).serial == "s" * 36


@pytest.mark.parametrize("organization", ["x" * 65, "a\nb", "a\0b"])
def test_bad_organization(organization: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        create(tmp_path, organization=organization)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_uuid_is_a_fault_of_its_file(own: Keyset) -> None:
    path = own.root / "manifest/default/uuid"
    product = str(own.project("default").uuid)
    path.write_text(product + " " * (64 - len(product)))
    assert str(own.project("default").uuid) == product
    path.write_text(product + " " * (65 - len(product)))
    with pytest.raises(DocumentError) as caught:
        own.project("default")
    assert caught.value.message == f"{path}: is larger than 64 bytes"
    for at, act in (
        (path, lambda: own.project("default")),
        (own.root / "uefi-db/guid", lambda: own.key("uefi-db")),
    ):
        at.write_text("not one")
        with pytest.raises(DocumentError) as caught:
            act()
        assert caught.value.message == f"{at}: is not a UUID"


def test_a_file_that_is_too_large_is_not_read(own: Keyset) -> None:
    pair = own.key("uefi-db")
    good = pair.key_path.read_bytes()
    for path, act in (
        (pair.key_path, lambda: pair.private_key(None)),
        (pair.key_path, pair.is_protected),
        (pair.cert_path, pair.certificate_pem),
        (own.cross_certificate_path, own.cross_certificate_pem),
    ):
        path.write_bytes(good + b"\n" * (MAX_PEM - len(good)))
        act()
        path.write_bytes(good + b"\n" * (MAX_PEM - len(good) + 1))
        with pytest.raises(DocumentError) as caught:
            act()
        assert caught.value.message == f"{path}: is larger than {MAX_PEM} bytes"


def test_a_damaged_certificate_or_key_is_named(own: Keyset) -> None:
    pair = own.key("uefi-db")
    pair.cert_path.write_text("x")
    pair.key_path.write_text("x")
    with pytest.raises(SignatureError, match=f"^{pair.cert_path} is not exactly one certificate"):
        pair.certificate()
    with pytest.raises(SignatureError, match=f"^{pair.key_path} is not a private key in PEM"):
        pair.private_key(None)


def test_a_ca_whose_files_do_not_belong_together(own: Keyset) -> None:
    key = own.key("uefi-db").key_path.read_bytes()
    for role in ("manifest-ca", "sudi-ca"):
        own.key(role).key_path.write_bytes(key)
    with pytest.raises(SignatureError, match="does not belong"):
        project_of(own, "p")
    with pytest.raises(SignatureError, match="does not belong"):
        sudi_of(own.project("default"), "SN1")
    assert [found.name for found in own.list_projects()] == ["default"]
    assert [entry.name for entry in (own.root / "manifest").iterdir()] == ["default"]
    assert list(own.project("default").sudi_root.iterdir()) == []
