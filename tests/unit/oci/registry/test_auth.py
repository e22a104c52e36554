"""Credentials and challenges."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.registry import PASSWORD, USER, FakeRegistry, fake_registry
from machineos.errors import AuthError, DocumentError, MachineOSError, TransferError
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.registry import credential_helper, hub
from machineos.oci.registry.auth import (
    Challenge,
    Credential,
    Credentials,
    check_realm,
    default_auth_paths,
    parse_challenges,
    parse_token,
    token_request,
)
from machineos.oci.registry.client import HttpRegistry
from unit.oci.conftest import FAST
from unit.oci.samples import put_artifact, put_image

if TYPE_CHECKING:
    from unit.oci.samples import NoWaiting


def write_auth(folder: Path, key: str, user: str = USER, password: str = PASSWORD) -> Path:
    path = folder / "auth.json"
    text = base64.b64encode(f"{user}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {key: {"auth": text}}}))
    return path


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_challenges_are_answered(
    fake: FakeRegistry, clock: NoWaiting, tmp_path: Path, scheme: str
) -> None:
    fake.faults.auth = scheme
    credentials = Credentials([tmp_path / "absent.json", write_auth(tmp_path, fake.host)])
    with HttpRegistry(fake.host, limits=FAST, clock=clock, credentials=credentials) as client:
        repository = client.repository("a/b")
        image = put_image(repository)
        assert repository.resolve("1.0") == image.root
        before = len(fake.seen)
        repository.resolve("1.0")
        assert len(fake.seen) == before + 1  # what worked is remembered
    if scheme == "bearer":
        tokens = [item.path for item in fake.seen if item.path.startswith("/token")]
        assert any("repository%3Aa%2Fb%3Apull%2Cpush" in path for path in tokens)
        assert len(tokens) == 2  # one to push, one to pull


def test_a_repository_that_comes_into_being_by_a_push(
    fake: FakeRegistry, clock: NoWaiting, tmp_path: Path
) -> None:
    """Quay's and Harbor's give no token to read what is not there: who pushes asks as that."""
    fake.faults.auth, fake.faults.creates_on_push = "bearer", True
    fake.faults.referrers_api = False
    source = LayoutRepository(tmp_path / "source", writable=True)
    image = put_image(source)
    put_artifact(source, image.root, b"signature")
    credentials = Credentials([write_auth(tmp_path, fake.host)])
    with HttpRegistry(fake.host, limits=FAST, clock=clock, credentials=credentials) as client:
        repository = client.repository("a/b")
        copy_graph(source, repository, "1.0", tag="1.0", referrers=True)
        assert len(repository.referrers(image.root.digest)) == 1
        with pytest.raises(AuthError):
            client.repository("not/there").tags()


def test_a_token_service_that_sends_us_on(
    fake: FakeRegistry, clock: NoWaiting, tmp_path: Path
) -> None:
    """A password stays with the service that the registry named."""
    fake.faults.auth = "bearer"
    credentials = Credentials([write_auth(tmp_path, fake.host)])
    with fake_registry() as other:
        fake.faults.token_elsewhere = f"http://{other.host}/token"
        with HttpRegistry(fake.host, limits=FAST, clock=clock, credentials=credentials) as client:
            with pytest.raises(AuthError, match="the token service answered 401"):
                client.repository("a/b").tags()
        assert [item.path for item in other.seen] == ["/token"]
        assert "Authorization" not in other.seen[0].headers
    fake.faults.token_elsewhere = "/token"
    with HttpRegistry(fake.host, limits=FAST, clock=clock, credentials=credentials) as client:
        with pytest.raises(TransferError, match="sends us on and on"):
            client.repository("a/b").tags()


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_wrong_or_no_credentials(
    fake: FakeRegistry, clock: NoWaiting, tmp_path: Path, scheme: str
) -> None:
    fake.faults.auth = scheme
    wrong = Credentials([write_auth(tmp_path, fake.host, password="hunter2")])
    for credentials in (None, Credentials([tmp_path / "absent"]), wrong):
        with HttpRegistry(fake.host, limits=FAST, clock=clock, credentials=credentials) as client:
            with pytest.raises(AuthError) as caught:
                client.repository("a/b").tags()
            assert "hunter2" not in repr(caught.value) + caught.value.hint


def test_a_realm_in_the_clear_gets_nothing(
    fake: FakeRegistry, clock: NoWaiting, tmp_path: Path
) -> None:
    fake.faults.auth, fake.faults.realm = "bearer", "http://192.0.2.1/token"
    credentials = Credentials([write_auth(tmp_path, fake.host)])
    with HttpRegistry(fake.host, limits=FAST, clock=clock, credentials=credentials) as client:
        with pytest.raises(AuthError, match="not reached over https"):
            client.repository("a/b").tags()


@pytest.mark.parametrize(
    ("realm", "plain", "good"),
    [
        ("https://auth.example.com/token", False, True),
        ("http://127.0.0.1:1/token", False, True),
        ("http://r.example.com/token", False, False),
        ("http://r.example.com/token", True, True),
        ("http://other.example.com/token", True, False),
        ("http://127.0.0.1@evil.example.com/", False, False),
        ("https://user@auth.example.com/", False, False),
        ("file:///etc/passwd", True, False),
        ("", True, False),
    ],
)
def test_realms(realm: str, plain: bool, good: bool) -> None:
    if good:
        check_realm(realm, host="r.example.com", plain_http=plain)
    else:
        with pytest.raises(AuthError):
            check_realm(realm, host="r.example.com", plain_http=plain)


def test_challenges_are_parsed() -> None:
    found = parse_challenges(
        [
            'Negotiate, Basic realm="x"',
            'Bearer realm="https://a/t?x=1,2",service="s \\"q\\"", scope="repository:a/b:pull", '
            'Basic realm="y"',
        ]
    )
    assert found == (
        Challenge("basic", "x"),
        Challenge("bearer", "https://a/t?x=1,2", 's "q"', "repository:a/b:pull"),
        Challenge("basic", "y"),
    )
    for header in ("Negotiate, Basic realm=x", "NTLM YII+/a==, Basic realm=x",
                   'Digest realm="d", nonce="n, Basic", Basic realm=x'):  # fmt: skip
        assert parse_challenges([header]) == (Challenge("basic", "x"),)
    assert parse_challenges(["", "Bearer", "=" * 100_000]) == (Challenge("bearer"),)


@pytest.mark.parametrize("key", [*hub.NAMES, hub.STORE_KEY, f"{hub.NAMES[0]}/library"])
@pytest.mark.parametrize("host", hub.NAMES)
def test_docker_hub_has_the_credentials_of_all_its_names(
    tmp_path: Path, key: str, host: str
) -> None:
    found = Credentials([write_auth(tmp_path, key)]).find(host, "library/alpine")
    assert found == Credential(USER, PASSWORD)


def test_line_ends_in_credentials_count_for_nothing(tmp_path: Path) -> None:
    path = write_auth(tmp_path, "r.example.com")
    body = json.loads(path.read_text())
    entry = body["auths"]["r.example.com"]
    entry["auth"] = "\r\n".join((entry["auth"][:8], entry["auth"][8:], ""))
    path.write_text(json.dumps(body))
    assert Credentials([path]).find("r.example.com", "a/b") == Credential(USER, PASSWORD)


def test_the_narrowest_key_wins(tmp_path: Path) -> None:
    def auth(user: str) -> dict[str, str]:
        return {"auth": base64.b64encode(f"{user}:p:w".encode()).decode()}

    path = tmp_path / "auth.json"
    path.write_text(
        json.dumps(
            {
                "auths": {
                    "r.example.com": auth("host"),
                    "r.example.com/team": auth("team"),
                    "r.example.com/team/app": auth("app"),
                    "https://old.example.com/v1/": auth("old"),
                }
            }
        )
    )
    credentials = Credentials([path])
    assert credentials.find("r.example.com", "team/app") == Credential("app", "p:w")
    assert credentials.find("r.example.com", "team/other") == Credential("team", "p:w")
    assert credentials.find("r.example.com", "teams") == Credential("host", "p:w")
    assert credentials.find("old.example.com", "x") == Credential("old", "p:w")
    assert credentials.find("r.example.com:5000", "x") is None


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"auths":[]}',
        '{"auths":{"h":{"auth":"%%%"}}}',
        '{"auths":{"h":{"auth":"bm9jb2xvbg=="}}}',
        '{"auths":{"h":{"auth":7}}}',
        '{"auths":{},"auths":{}}',
        '{"credHelpers":{"h":"../../bin/sh"}}',
    ],
)
def test_broken_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "auth.json"
    path.write_text(text)
    with pytest.raises(DocumentError):
        Credentials([path]).find("h", "x")


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    credential = Credential("me", "hunter2", identity_token="hunter3")
    shown = repr(credential) + repr(credential_helper.Secret("me", "hunter2"))
    shown += repr(Credentials([write_auth(tmp_path, "h", password="hunter2")]))
    assert "hunter" not in shown


def test_where_credentials_are_looked_for() -> None:
    assert default_auth_paths({"REGISTRY_AUTH_FILE": "/x", "HOME": "/h"}) == (Path("/x"),)
    assert default_auth_paths({"HOME": "/h", "XDG_RUNTIME_DIR": "/r"}) == (
        Path("/r/containers/auth.json"),
        Path("/h/.config/containers/auth.json"),
        Path("/h/.docker/config.json"),
    )
    assert default_auth_paths({}) == ()


def test_tokens() -> None:
    assert parse_token(b'{"token":"t"}', name="x") == ("t", 60.0)
    assert parse_token(b'{"access_token":"t","expires_in":10}', name="x") == ("t", 10.0)
    assert parse_token(b'{"token":"t","expires_in":1e9}', name="x")[1] == 3600.0
    for bad in (b"", b"[]", b"{}", b'{"token":7}', b'{"token":"a\\r\\nX: y"}', b"x" * 100_000):
        with pytest.raises(AuthError):
            parse_token(bad, name="x")


def test_an_identity_token_goes_into_the_body() -> None:
    challenge = Challenge("bearer", "https://a/t", "svc")
    credential = Credential("", "", identity_token="refresh")
    method, url, headers, body = token_request(challenge, credential, "repository:a:pull")
    assert (method, url) == ("POST", "https://a/t")
    assert "Authorization" not in headers
    assert body is not None
    assert b"refresh_token=refresh" in body


def test_the_helper_protocol() -> None:
    assert credential_helper.argv_get("pass") == ["docker-credential-pass", "get"]
    data = b'{"ServerURL":"h","Username":"me","Secret":"s"}'
    assert credential_helper.parse_get(data, name="x") == credential_helper.Secret("me", "s")
    for bad in (b"", b"{}", b'{"Username":"x"}', b'["a"]'):
        with pytest.raises(DocumentError):
            credential_helper.parse_get(bad, name="x")
    with pytest.raises(MachineOSError, match="is not installed"):
        credential_helper.get("no-such-helper", "h", environ={})
