"""Ports of this host: found free or taken by binding them."""

from __future__ import annotations

import socket

import pytest

from machineos.vm.hostports import is_free
from machineos.vm.ports import Transport


@pytest.mark.parametrize(
    ("protocol", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)]
)
def test_a_port_that_somebody_has_is_taken(protocol: Transport, kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            holder.listen()
        number = holder.getsockname()[1]
        assert not is_free(protocol, number)
        assert is_free(protocol, number, "127.0.0.2")
    assert is_free(protocol, number)
