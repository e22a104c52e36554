"""One way to registries: credentials, certificates and proxies as the user has them."""

from __future__ import annotations

import json
import shutil
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.registry import PASSWORD, USER, fake_registry
from fakes.tls import throw_away_tls
from machineos.errors import AuthError, DocumentError, MissingError, TransferError
from machineos.oci.registry.access import Access
from machineos.oci.registry.certificates import certificates_for, default_folders
from unit.oci.samples import auth_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fakes.registry import FakeRegistry


def auths(path: Path, host: str, password: str = PASSWORD) -> Path:
    return auth_file(path, host, USER, password)


def tags(access: Access, host: str) -> tuple[str, ...]:
    with access.registry(host) as registry:
        return registry.repository("a/b").tags()


@pytest.fixture
def locked(fake: FakeRegistry) -> FakeRegistry:
    """A registry that wants a password and has nothing else."""
    fake.faults.auth = "basic"
    return fake


def places(folder: Path) -> dict[str, tuple[Mapping[str, str], str]]:
    """Where credentials are kept: the environment that says so, and the file."""
    home = {"HOME": str(folder)}
    return {
        "REGISTRY_AUTH_FILE": ({"REGISTRY_AUTH_FILE": f"{folder}/x.json"}, "x.json"),
        "DOCKER_CONFIG": ({"DOCKER_CONFIG": f"{folder}/d"}, "d/config.json"),
        "XDG_RUNTIME_DIR": ({"XDG_RUNTIME_DIR": f"{folder}/r"}, "r/containers/auth.json"),
        "XDG_CONFIG_HOME": ({"XDG_CONFIG_HOME": f"{folder}/c"}, "c/containers/auth.json"),
        "podman": (home, ".config/containers/auth.json"),
        "docker": (home, ".docker/config.json"),
    }


@pytest.mark.parametrize("place", sorted(places(Path("/x"))))
def test_credentials_are_found_where_others_put_them(
    locked: FakeRegistry, tmp_path: Path, place: str
) -> None:
    environ, file = places(tmp_path)[place]
    with pytest.raises(AuthError):
        tags(Access.of_user(environ), locked.host)
    auths(tmp_path / file, locked.host)
    assert tags(Access.of_user(environ), locked.host) == ()


def test_a_helper_gets_the_whole_environment(locked: FakeRegistry, tmp_path: Path) -> None:
    helper = tmp_path / "bin/docker-credential-test"
    helper.parent.mkdir()
    answer = json.dumps({"Username": USER, "Secret": PASSWORD})
    helper.write_text(f"#!/bin/sh\n[ \"$AWS_PROFILE\" = mine ] && echo '{answer}'\n")
    helper.chmod(0o755)
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(
        json.dumps({"credHelpers": {locked.host: "test"}})
    )
    environ = {
        "HOME": str(tmp_path),
        "AWS_PROFILE": "mine",
        "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
    }
    assert tags(Access.of_user(environ), locked.host) == ()


def test_a_file_that_is_named_is_the_only_one(locked: FakeRegistry, tmp_path: Path) -> None:
    auths(tmp_path / ".docker/config.json", locked.host, "another")
    named = auths(tmp_path / "ci.json", locked.host)
    environ = {"HOME": str(tmp_path)}
    assert tags(Access.of_user(environ, auth_file=named), locked.host) == ()
    with pytest.raises(AuthError):
        tags(Access.of_user(environ), locked.host)


def test_the_ca_of_one_registry_is_found(tmp_path: Path) -> None:
    ca, server_side = throw_away_tls(tmp_path / "made")
    with fake_registry(server_side) as server:
        environ = {"HOME": str(tmp_path)}
        with pytest.raises(TransferError):
            tags(Access.of_user(environ), server.host)
        assert tags(Access.of_user(environ, ca_file=ca), server.host) == ()
        folder = tmp_path / ".config/containers/certs.d" / server.host
        folder.mkdir(parents=True)
        shutil.copy(ca, folder / "ca.crt")
        assert tags(Access.of_user(environ), server.host) == ()


def test_a_registry_that_wants_to_know_its_client(tmp_path: Path) -> None:
    ca, server_side = throw_away_tls(tmp_path / "server")
    own, _ = throw_away_tls(tmp_path / "client")
    server_side.verify_mode = ssl.CERT_REQUIRED
    server_side.load_verify_locations(own)
    folder = tmp_path / ".config/containers/certs.d"
    with fake_registry(server_side) as server:
        access = Access.of_user({"HOME": str(tmp_path)}, ca_file=ca)
        (folder / server.host).mkdir(parents=True)
        with pytest.raises(TransferError):
            tags(access, server.host)
        shutil.copy(own, folder / server.host / "me.cert")
        with pytest.raises(MissingError, match="has no key beside it"):
            tags(access, server.host)
        shutil.copy(own.with_name("key.pem"), folder / server.host / "me.key")
        assert tags(access, server.host) == ()


def test_the_first_folder_that_has_the_host_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for folder in (first / "other", second / "h:5000"):
        folder.mkdir(parents=True)
        (folder / "ca.crt").touch()
        (folder / "notes.txt").touch()
    found = certificates_for("h:5000", (first, second))
    assert found.ca == (second / "h:5000/ca.crt",)
    assert certificates_for("h", (first, second)).ca == ()
    assert default_folders({})[0] == Path("/etc/containers/certs.d")


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    with pytest.raises(MissingError, match=r"bad\.pem does not exist"):
        Access(ca_file=bad).registry("h.example")
    bad.write_text("hello")
    with pytest.raises(DocumentError, match=r"bad\.pem.*is not a certificate in PEM"):
        Access(ca_file=bad).registry("h.example")
