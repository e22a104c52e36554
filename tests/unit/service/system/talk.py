"""Programs that talk to each other in the namespaces of a machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from unit.service.system.machine import Machine

LISTEN = """
import socket, sys, threading
socks = []
for family, address in ((socket.AF_INET, '0.0.0.0'), (socket.AF_INET6, '::')):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(family, kind)
        if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((address, int(sys.argv[1])))
        if kind == socket.SOCK_STREAM: s.listen()
        socks.append((s, kind))
def serve(s, kind):
    while True:
        if kind == socket.SOCK_DGRAM:
            data, peer = s.recvfrom(100)
            s.sendto((sys.argv[2] + ' ' + peer[0]).encode(), peer)
        else:
            c, peer = s.accept()
            c.sendall((sys.argv[2] + ' ' + peer[0]).encode())
            c.close()
for item in socks: threading.Thread(target=serve, args=item).start()
print('ready', flush=True)
"""
# Says who answered and whom that saw. An answer may be late; silence is waited for only where it is
# what we expect, and then what would answer does so at once.
ASK = """
import socket, sys
kind, address, port, seconds = sys.argv[1:5]
family = socket.AF_INET6 if ':' in address else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM if kind == 'udp' else socket.SOCK_STREAM)
s.settimeout(float(seconds))
s.connect((address, int(port)))
s.send(b'?') if kind == 'udp' else None
print(s.recv(100).decode())
"""
SILENCE = "1.5"
KINDS = ("tcp", "udp")


def ask(machine: Machine, space: str, kind: str, address: str, port: str = "80") -> str:
    """Return what answers; fail when nothing does."""
    return machine.python(space, ASK, kind, address, port, "60").text


def silent(machine: Machine, space: str, kind: str, address: str, port: str = "80") -> bool:
    """Whether nothing answers."""
    result = machine.python(space, ASK, kind, address, port, SILENCE, check=False)
    return result.status != 0


# Many questions at once, by one user; what is not answered in time is answered by nothing.
ASK_ALL = """
import json, os, socket, sys, threading
seconds, uid, questions = float(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
os.setgid(uid)
os.setuid(uid)
answers = {}
def ask(name, kind, address, port):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    protocol = 262 if kind == 'mptcp' else 0
    s = socket.socket(family, socket.SOCK_DGRAM if kind == 'udp' else socket.SOCK_STREAM, protocol)
    s.settimeout(seconds)
    try:
        s.connect((address, port))
        s.send(b'?') if kind == 'udp' else None
        answers[name] = s.recv(100).decode()
    except OSError:
        answers[name] = ''
threads = [threading.Thread(target=ask, args=(name, *one)) for name, one in questions.items()]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(answers))
"""
GUEST = 200_000  # an id as services have them


@dataclass(frozen=True)
class Question:
    """``who`` (a field of the scene, and the id there) asks somebody, and gets an answer that
    begins like this if nothing stands between."""

    who: str
    kind: str
    address: str
    answer: str
    port: int = 80
    uid: int = 0


def ask_all(
    machine: Machine, spaces: Mapping[str, str], questions: Mapping[str, Question], seconds: str
) -> dict[str, str]:
    """Return the answers by name, empty where there was none."""
    found: dict[str, str] = {}
    for who, uid in sorted({(one.who, one.uid) for one in questions.values()}):
        words = {
            name: (one.kind, one.address, one.port)
            for name, one in questions.items()
            if (one.who, one.uid) == (who, uid)
        }
        text = machine.python(spaces[who], ASK_ALL, seconds, str(uid), json.dumps(words)).text
        found |= json.loads(text)
    return found


# Writes down each word that comes.
RECORD = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[2] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[2], 6000))
print('ready', flush=True)
while True:
    data = s.recv(100)
    with open(sys.argv[1], 'ab') as file: file.write(data + b' ')
"""
# Says a word, as somebody else if there is an address (IP_FREEBIND, IPV6_FREEBIND).
SAY = """
import os, socket, sys
word, source, address, port, uid = sys.argv[1:6]
os.setgid(int(uid))
os.setuid(int(uid))
six = ':' in address
s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
if source:
    s.setsockopt(*(socket.IPPROTO_IPV6, 78) if six else (socket.SOL_IP, 15), 1)
    s.bind((source, 0))
try:
    s.sendto(word.encode(), (address, int(port)))
except PermissionError:
    pass  # dropped at once
"""


def say(
    machine: Machine, space: str, word: str, address: str, *, source: str = "", port: int = 6000,
    uid: int = 0,
) -> None:  # fmt: skip
    """Send a word from a namespace."""
    machine.python(space, SAY, word, source, address, str(port), str(uid))


def words(path: Path) -> list[str]:
    """Return what was recorded."""
    return path.read_text().split()
