"""Debian's docker-registry on a port that the kernel chooses, for the length of a block."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from machineos.core.run import spawn
from machineos.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LISTENING = re.compile(rb"listening on 127\.0\.0\.1:(\d+)")


@contextmanager
def docker_registry(folder: Path) -> Iterator[str]:
    """Yield ``127.0.0.1:PORT`` of a registry that keeps its data in ``folder``.

    Raises: ToolError when it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config, log = folder / "config.yml", folder / "log"
    config.write_text(
        "version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{folder / 'data'}'}}}}\n"
        "http: {addr: '127.0.0.1:0'}\n"
    )
    with log.open("wb") as output:
        process = spawn(
            ["docker-registry", "serve", config], log=output, env={"OTEL_TRACES_EXPORTER": "none"}
        )
    try:
        deadline = time.monotonic() + 120.0
        while (found := _LISTENING.search(log.read_bytes())) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise ToolError(f"docker-registry does not listen; see {log}")
            time.sleep(0.05)
        yield f"127.0.0.1:{found[1].decode()}"
    finally:
        process.terminate()
        process.wait(120)
