"""What an OCI image says about how it wants to be run, and what is seen in it, as values.

Follows the OCI image specification, "Image Configuration"; keys that say nothing about running are
left alone.
"""

from __future__ import annotations

import msgspec


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The ``config`` object as it is written; ``document.rules.configs`` judges it."""

    entrypoint: tuple[str, ...] | None = msgspec.field(default=None, name="Entrypoint")
    cmd: tuple[str, ...] | None = msgspec.field(default=None, name="Cmd")
    env: tuple[str, ...] | None = msgspec.field(default=None, name="Env")
    user: str = msgspec.field(default="", name="User")
    folder: str = msgspec.field(default="", name="WorkingDir")
    signal: str = msgspec.field(default="", name="StopSignal")

    @property
    def argv(self) -> tuple[str, ...]:
        """The command."""
        return (*(self.entrypoint or ()), *(self.cmd or ()))


class ImageConfig(msgspec.Struct, frozen=True):
    """How the image wants to be run. ``user`` is as written, to be resolved inside the image."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    user: str
    folder: str
    stop_signal: str


class User(msgspec.Struct, frozen=True):
    """Who the first process is, in ids of the container."""

    uid: int
    gid: int
    home: str


class Sight(msgspec.Struct, frozen=True):
    """What is at a path inside an image, seen without following a link.

    ``problem`` says why it is not what was looked for, ``absent`` that it is nothing at all;
    ``data`` is the content of a file.
    """

    problem: str = ""
    absent: bool = False
    data: bytes = b""
