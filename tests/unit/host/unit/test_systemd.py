"""The readiness protocol; a real systemd is told what to do in tests/unit/service/system."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from machineos.errors import ToolError
from machineos.host.unit import systemd

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_is_one_datagram(tmp_path: Path, abstract: bool) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name if abstract else name)
        receiver.settimeout(60)
        systemd.notify("@" + name if abstract else name, "READY=1")
        assert receiver.recv(100) == b"READY=1"
    systemd.notify("", "READY=1")
    with pytest.raises(ToolError):
        systemd.notify(str(tmp_path / "absent"), "READY=1")
