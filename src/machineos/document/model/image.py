"""What an OCI image says about how it wants to be run, and what is seen in it, as values.

Follows the OCI image specification, "Image Configuration"; keys that say nothing about running are
left alone.
"""

from __future__ import annotations

import msgspec

Platform = tuple[str, str]  # operating system, architecture
MACHINE: Platform = ("linux", "amd64")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The ``config`` object; ``document.rules.configs`` judges it. As it is written but for what
    is null there, which is absent."""

    entrypoint: tuple[str, ...] | None = msgspec.field(default=None, name="Entrypoint")
    cmd: tuple[str, ...] | None = msgspec.field(default=None, name="Cmd")
    env: tuple[str, ...] | None = msgspec.field(default=None, name="Env")
    said_user: str | None = msgspec.field(default=None, name="User")
    said_folder: str | None = msgspec.field(default=None, name="WorkingDir")
    said_signal: str | None = msgspec.field(default=None, name="StopSignal")

    @property
    def user(self) -> str:
        """Who runs it, empty for root."""
        return self.said_user or ""

    @property
    def folder(self) -> str:
        """Where it runs, empty for the root."""
        return self.said_folder or ""

    @property
    def signal(self) -> str:
        """What ends it, empty where nothing is said."""
        return self.said_signal or ""

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
