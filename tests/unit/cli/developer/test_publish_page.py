"""docs/publish.md as a user follows it: a CA of his own, a password, a proxy, an owner's part."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from fakes.proxy import FakeProxy, fake_proxy
from fakes.registry import PASSWORD, USER, FakeRegistry, fake_registry
from fakes.tls import throw_away_tls
from machineos.cli.developer.mosb_manifest import manifest
from machineos.errors import AuthError, MachineOSError, TransferError
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.registry.access import Access
from unit.cli.developer.test_mosb_manifest import TEXT, Mosb, mosb, prepared
from unit.oci.samples import auth_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["mosb", "prepared"]
pytestmark = [pytest.mark.tool(name) for name in ("mksquashfs", "sqfs2tar", "veritysetup")]
HOST = "registry.invalid"
PLACE = ["--repo", f"{HOST}/acme", "--name", "machine/install:1.0.0"]
WHO = ["--project", "snakeoil:default"]


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[tuple[FakeRegistry, FakeProxy]]:
    """A registry that only the proxy finds, and that believes nobody."""
    _, server_side = throw_away_tls(tmp_path / "tls")
    with fake_registry(server_side) as registry, fake_proxy() as proxy:
        registry.faults.auth = "bearer"
        registry.faults.creates_on_push = True
        registry.faults.realm = f"https://{HOST}/token"
        proxy.login = "me:hush"
        proxy.names[HOST] = ("127.0.0.1", registry.server_address[1])
        yield registry, proxy


def environment(mosb: Mosb, proxy: FakeProxy) -> dict[str, str]:
    """The variables of the user, who has logged in and has put the CA where it is looked for."""
    auth_file(mosb.home / ".docker/config.json", HOST, USER, PASSWORD)
    folder = mosb.home / ".config/containers/certs.d" / HOST
    folder.mkdir(parents=True)
    shutil.copy(mosb.home.parent / "tls/cert.pem", folder / "ca.crt")
    proxied = f"http://me:hush@{proxy.host}"
    return {"https_proxy": proxied, "XDG_RUNTIME_DIR": "", "DOCKER_CONFIG": ""}


def test_from_an_image_to_a_verified_manifest(
    mosb: Mosb, outside: tuple[FakeRegistry, FakeProxy]
) -> None:
    registry, proxy = outside
    environ = environment(mosb, proxy)
    access = Access.of_user({"HOME": str(mosb.home), **environ})
    with access.registry(HOST) as client:  # as his image got there
        copy_graph(
            LayoutRepository(mosb.home / "images"), client.repository("acme/zot"), "zot", tag="1"
        )
    source = TEXT.replace("oci:{home}/images:zot", f"docker://{HOST}/acme/zot:1")
    (mosb.home / "manifest.yaml").write_text(source)
    said = mosb("publish", *WHO, *PLACE, str(mosb.home / "manifest.yaml"), **environ)
    assert f"published {HOST}/acme/machine/install:1.0.0" in said.stdout
    verified = mosb("verify", "--deep", *WHO, *PLACE, **environ)
    assert f"verified {HOST}/acme/machine/install:1.0.0" in verified.stdout
    assert {name for name, _ in registry.manifests} == {
        "acme/zot", "acme/mos", "acme/machine/install",
    }  # fmt: skip
    assert set(proxy.seen) == {f"CONNECT {HOST}:443"}
    shown = json.loads(mosb("show", "--json", *PLACE, **environ).stdout)
    assert shown["install"]["targets"][0]["service_name"] == "zot"


@pytest.mark.parametrize(
    ("lacking", "error", "said"),
    [
        ("https_proxy", TransferError, "cannot connect"),
        (".docker", AuthError, "credentials are needed and there are none"),
        (".config/containers", TransferError, "TLS: .*certificate verify failed"),
    ],
)
def test_what_is_lacking_is_said(
    mosb: Mosb,
    outside: tuple[FakeRegistry, FakeProxy],
    lacking: str,
    error: type[MachineOSError],
    said: str,
) -> None:
    registry, proxy = outside
    registry.faults.auth = "basic"
    environ = environment(mosb, proxy)
    if lacking in environ:
        environ[lacking] = ""
    else:
        shutil.rmtree(mosb.home / lacking)
    with pytest.raises(error, match=said) as caught:
        mosb("verify", *WHO, *PLACE, **environ)
    assert "hush" not in f"{caught.value} {caught.value.hint}"
    if lacking == ".config/containers":
        ca = ["--tls-ca", str(mosb.home.parent / "tls/cert.pem")]
        runner = CliRunner(env={"HOME": str(mosb.home), **environ})
        assert "does not exist" in str(runner.invoke(manifest, ["show", *ca, *PLACE]).exception)
