"""``docker-credential-*``: programs that keep registry passwords (docker's helper protocol).

The server name goes in and the secret comes out through pipes, never through argv.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from machineos.core.jsondoc import parse_json
from machineos.core.run import run
from machineos.errors import DocumentError, Fault, ToolError

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN_USER = "<token>"  # noqa: S105 (the user name that says the secret is an identity token)
_TIMEOUT = 60.0
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_NOT_FOUND = b"credentials not found"


@dataclass(frozen=True, slots=True)
class Secret:
    """What a helper keeps for one server."""

    user: str
    secret: str = field(repr=False)


def argv_get(helper: str) -> list[str]:
    """Return the command that reads a server name and prints its secret. Raises: DocumentError."""
    if not _NAME.fullmatch(helper):
        raise DocumentError("credential helper", [Fault("", 0, f"{helper[:64]!r} is not a name")])
    return [f"docker-credential-{helper}", "get"]


def parse_get(data: bytes, *, name: str) -> Secret:
    """Return the secret that a helper printed. Raises: DocumentError."""
    body = parse_json(data, name=name, limit=1 << 20)
    user = body.get("Username") if isinstance(body, dict) else None
    secret = body.get("Secret") if isinstance(body, dict) else None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise DocumentError(name, [Fault("", 0, "printed no Username and Secret")])
    return Secret(user, secret)


def get(helper: str, server: str, *, environ: Mapping[str, str]) -> Secret | None:
    """Ask a helper for the secret of ``server``; None when it has none.

    Raises: MissingToolError, ToolError, DocumentError.
    """
    argv = argv_get(helper)
    result = run(argv, timeout=_TIMEOUT, input=server.encode(), env=environ, check=False)
    if result.status != 0:
        if _NOT_FOUND in result.stdout or _NOT_FOUND in result.stderr:
            return None
        # Not describe(): what a helper prints may hold the secret.
        raise ToolError(f"{argv[0]} get: exit status {result.status} for {server}")
    return parse_get(result.stdout, name=argv[0])
