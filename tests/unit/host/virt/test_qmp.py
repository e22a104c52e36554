"""QMP as values: requests, answers, events, the event log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.errors import MachineError
from machineos.host.virt import qmp

# Recorded from QEMU 7.2.
GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": []}}\r\n'
)
EVENTS = GREETING + (
    b'{"return": {}}\r\n'
    b'{"timestamp": {"seconds": 1795172966, "microseconds": 67976}, "event": "RESUME"}\r\n'
    b'{"timestamp": {"seconds": 1795172966, "microseconds": 69598}, "event": "SHUTDOWN", '
    b'"data": {"guest": false, "reason": "host-qmp-quit"}}\r\n'
)
STATUS = qmp.Request("query-status")


def test_a_request_is_one_line() -> None:
    assert STATUS.to_bytes() == b'{"execute":"query-status"}\n'
    assert qmp.NEGOTIATE.to_bytes() == b'{"execute":"qmp_capabilities"}\n'
    whole = qmp.Request("x", {"command-line": "a\nb"})
    assert whole.to_bytes() == b'{"execute":"x","arguments":{"command-line":"a\\nb"}}\n'


def test_a_server_says_hello() -> None:
    qmp.require_greeting(GREETING)
    with pytest.raises(MachineError, match=r"did not say hello, but '\{\}'"):
        qmp.require_greeting(b"{}")


def test_answers_and_events() -> None:
    assert qmp.parse_answer(b'{"return": {"a": 1}}', STATUS) == qmp.Answer({"a": 1})
    assert qmp.parse_answer(b'{"return": null}', STATUS) == qmp.Answer(None)
    assert qmp.parse_answer(b'{"event": "RESUME"}', STATUS) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"error": {"class": "C", "desc": "no"}}', "QEMU refused query-status: no"),
        (b'{"error": {}}', "QEMU refused query-status: no reason"),
        (b'{"error": 1}', "QEMU answered query-status with '{\"error\": 1}'"),
        (b"{}", "QEMU answered query-status with '{}'"),
        (b"[1]", "QEMU does not speak QMP: '[1]'"),
        (b"x\xff" + b"y" * 200, "QEMU does not speak JSON: 'x\ufffd" + "y" * 78 + "'"),
    ],
)
def test_what_is_no_answer(line: bytes, words: str) -> None:
    with pytest.raises(MachineError) as caught:
        qmp.parse_answer(line, STATUS)
    assert caught.value.message == words


@given(st.binary(max_size=200))
def test_any_line_is_an_answer_an_event_or_an_error(line: bytes) -> None:
    try:
        qmp.parse_answer(line, STATUS)
    except MachineError as error:
        assert error.message.startswith("QEMU ")


def long_line(size: int) -> bytes:
    """An event of that many bytes, or as short as it can be."""
    head, tail = b'{"event": "SHUTDOWN", "data": {"reason": "', b'"}}'
    return head + b"x" * (size - len(head + tail)) + tail


@pytest.mark.parametrize(
    ("log", "wanted"),
    [
        (b"", None),
        (EVENTS, qmp.Shutdown(False, "host-qmp-quit")),
        (EVENTS[:-20], None),
        (EVENTS.replace(b'"data"', b'"date"'), None),
        (EVENTS.replace(b', "reason": "host-qmp-quit"', b""), qmp.Shutdown(False, "unknown")),
        (EVENTS + b'{"event": "SHUTDOWN"', qmp.Shutdown(False, "host-qmp-quit")),
        (b'["SHUTDOWN"]\n', None),
        (b'{"event": "RESET", "data": {"reason": "SHUTDOWN"}}\n', None),
        (
            EVENTS + b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-panic"}}\n',
            qmp.Shutdown(True, "guest-panic"),
        ),
        (long_line(qmp.MAX_LINE + 1), None),
        (long_line(qmp.MAX_LINE), qmp.Shutdown(False, "x" * (qmp.MAX_LINE - len(long_line(0))))),
    ],
)
def test_parse_events(log: bytes, wanted: qmp.Shutdown | None) -> None:
    assert qmp.parse_events(log) == wanted
