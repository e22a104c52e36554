"""The ways to a TPM: one whole answer, or an error that says what is wrong with the way."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from machineos.errors import TpmError
from machineos.host.tpm.transport import DEVICE, DeviceTransport, SocketTransport

COMMAND = bytes.fromhex("8001 0000000c 00000144 0000")
ANSWER = bytes.fromhex("8001 0000000c 00000000") + b"ab"


# -- a device ------------------------------------------------------------------------------------


def test_the_device_is_that_of_the_resource_manager() -> None:
    assert Path("/dev/tpmrm0") == DEVICE


def test_a_device_is_written_to_and_read_from(tmp_path: Path) -> None:
    """A file is no TPM, but it keeps what is written and gives what follows."""
    path = tmp_path / "tpm"
    path.write_bytes(bytes(len(COMMAND)) + ANSWER + bytes(8192))
    wire = DeviceTransport(path)
    assert not os.get_inheritable(wire._descriptor)
    answer = wire.transmit(COMMAND)
    assert answer[: len(ANSWER)] == ANSWER
    assert len(answer) == 4096
    wire.close()
    assert path.read_bytes()[: len(COMMAND)] == COMMAND
    with pytest.raises(TpmError, match=r"^the TPM does not answer: Bad file descriptor$"):
        wire.transmit(COMMAND)


def test_no_device(tmp_path: Path) -> None:
    path = tmp_path / "tpmrm0"
    with pytest.raises(TpmError) as caught:
        DeviceTransport(path)
    assert caught.value.message == f"no TPM: {path} does not exist"
    assert caught.value.hint == "enable the TPM 2.0 in the firmware setup"
    with pytest.raises(TpmError) as caught:
        DeviceTransport(str(tmp_path))
    assert caught.value.message == f"no TPM: {tmp_path}: Is a directory"


# -- a socket ------------------------------------------------------------------------------------


@contextmanager
def peer(listening: socket.socket, *pieces: bytes) -> Iterator[list[bytes]]:
    """Take one connection, keep one command, and send an answer in pieces, then hang up."""
    seen: list[bytes] = []

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            seen.append(connection.recv(4096))
            for piece in pieces:
                connection.sendall(piece)

    thread = threading.Thread(target=serve)
    thread.start()
    yield seen
    thread.join()
    listening.close()


@pytest.fixture
def unix(tmp_path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s"))
    listening.listen()
    return listening


def test_an_answer_that_comes_in_pieces(unix: socket.socket, tmp_path: Path) -> None:
    with peer(unix, ANSWER[:3], ANSWER[3:11], ANSWER[11:]) as seen:
        wire = SocketTransport(tmp_path / "s")
        assert wire.transmit(COMMAND) == ANSWER
        wire.close()
        assert wire._socket.fileno() == -1
    assert seen == [COMMAND]


def test_host_and_port() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    with peer(listening, ANSWER):
        wire = SocketTransport(listening.getsockname())
        assert wire.transmit(COMMAND) == ANSWER
        wire.close()


def test_a_peer_that_hangs_up(unix: socket.socket, tmp_path: Path) -> None:
    with peer(unix, ANSWER[:11]):
        wire = SocketTransport(tmp_path / "s")
        with pytest.raises(TpmError, match=r"^the TPM hung up$"):
            wire.transmit(COMMAND)
        wire.close()


def test_a_peer_that_says_nothing(unix: socket.socket, tmp_path: Path) -> None:
    wire = SocketTransport(tmp_path / "s", timeout=0.01)
    with pytest.raises(TpmError, match=r"^the TPM does not answer: timed out$"):
        wire.transmit(COMMAND)
    wire.close()
    with pytest.raises(TpmError, match=r"^the TPM does not answer: Bad file descriptor$"):
        wire.transmit(COMMAND)
    unix.close()


def test_an_answer_has_a_minute(unix: socket.socket, tmp_path: Path) -> None:
    wire = SocketTransport(tmp_path / "s")
    assert wire._socket.gettimeout() == 60
    wire.close()
    unix.close()


def test_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(TpmError) as caught:
        SocketTransport(path)
    assert caught.value.message == f"no TPM: {path}: No such file or directory"
