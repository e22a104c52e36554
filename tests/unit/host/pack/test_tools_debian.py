"""Debian roots with the real mmdebstrap, as far as that goes without a mirror."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.proxy import fake_proxy
from fakes.registry import fake_registry
from machineos.errors import ToolError
from machineos.host.pack import tools
from machineos.host.pack.caller import container_ids
from machineos.host.pack.mmdebstrap import Suite
from machineos.oci.registry.proxy import Proxies

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.system
@pytest.mark.tool("mmdebstrap")
def test_apt_asks_through_the_users_proxy(tmp_path: Path) -> None:
    """The password reaches it, and no message shows it."""
    suite = Suite("trixie", mirror="http://mirror.invalid/debian")
    with fake_proxy() as proxy, fake_registry() as mirror:  # which has nothing of the kind
        proxy.login = "me:hush"
        proxy.names["mirror.invalid"] = ("127.0.0.1", mirror.server_address[1])
        proxies = Proxies(http=f"http://me:hush@{proxy.host}").environment()
        with pytest.raises(ToolError) as caught:
            tools.build_root(
                suite,
                tmp_path / "out.tar",
                epoch=0,
                ids=container_ids("a test"),
                proxies=proxies,
            )
    assert proxy.seen[0] == "GET http://mirror.invalid/debian/dists/trixie/InRelease"
    assert mirror.seen[0].path == "/debian/dists/trixie/InRelease"
    assert "hush" not in str(caught.value)
