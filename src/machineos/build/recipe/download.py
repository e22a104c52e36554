"""Files from the web for a recipe, kept by their checksum.

The same rules as for registries (``oci.registry.wire``): every exchange has time limits, a body
that drips has stalled, what may pass is tried again. Invariant: nothing is kept under a checksum
that it does not have, and nothing is used unless the recipe gives its checksum, or the user said
that it need not.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from machineos.build.recipe.imports import digest_of
from machineos.build.recipe.stageplan import check_download
from machineos.core.files import atomic
from machineos.errors import TransferError
from machineos.oci.registry.certificates import NONE, Certificates
from machineos.oci.registry.pools import Pools
from machineos.oci.registry.proxy import DIRECT, Proxies
from machineos.oci.registry.wire import (
    REDIRECTS,
    Limits,
    PassingError,
    Reader,
    Retry,
    exchange,
    status_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from urllib3.response import BaseHTTPResponse

    from machineos.core.clock import Clock

MAX_DOWNLOAD = 4 << 30
_PIECE = 1 << 20
_HINT = "is the server's certificate signed by a CA that this system knows?"


class Downloads:
    """The downloads kept in ``folder``.

    ``certificates`` are trusted besides the system's, ``proxies`` are the user's. ``most`` bounds
    one file in bytes, ``seed`` fixes the pauses between attempts.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        allow_unpinned: bool = False,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        certificates: Certificates = NONE,
        proxies: Proxies = DIRECT,
        most: int = MAX_DOWNLOAD,
        seed: int | None = None,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._allow_unpinned = allow_unpinned
        self._limits = limits
        self._certificates = certificates
        self._proxies = proxies
        self._most = most
        self._jitter = random.Random(seed)  # noqa: S311 (spreads load, guards nothing)

    def get(self, url: str, sha256: str) -> tuple[Path, str]:
        """Return the file behind an ``https://`` URL and its sha256; it is fetched if it is not
        there.

        Raises: PolicyError when no checksum is given and none is needed only with
        ``allow_unpinned``; DigestError; TransferError, also for a file that is too large.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if sha256 and (self._folder / sha256).is_file():
            if digest_of(self._folder / sha256) == sha256:
                return self._folder / sha256, sha256
            (self._folder / sha256).unlink()
        incoming = self._folder / "incoming"
        found = self._fetch(url, incoming)
        try:
            check_download(url, sha256, found, allow_unpinned=self._allow_unpinned)
        except BaseException:
            incoming.unlink()
            raise
        incoming.replace(self._folder / found)
        return self._folder / found, found

    def _fetch(self, url: str, target: Path) -> str:
        retry = Retry(self._limits, self._clock, self._jitter)
        while True:
            try:
                with atomic(target, durable=False) as file:
                    hasher = hashlib.sha256()
                    for piece in self._receive(url):
                        hasher.update(piece)
                        file.write(piece)
                return hasher.hexdigest()
            except TransferError as error:
                retry.failed(error)

    def _receive(self, url: str) -> Iterator[bytes]:
        """Yield the body behind ``url``; every hop must be https."""
        with Pools(self._limits, self._certificates, self._proxies, tls=True) as pools:
            for _hop in range(self._limits.redirects + 1):
                if urlsplit(url).scheme != "https":
                    raise TransferError(f"{url}: leads away from https")
                headers = {"Accept-Encoding": "identity"}
                response = exchange(pools, "GET", url, headers=headers, what=url, hint=_HINT)
                try:
                    if response.status not in REDIRECTS:
                        yield from self._body(response, url)
                        return
                    url = urljoin(url, response.headers.get("Location", ""))
                finally:
                    response.close()
        raise TransferError(f"{url}: more than {self._limits.redirects} redirects")

    def _body(self, response: BaseHTTPResponse, url: str) -> Iterator[bytes]:
        if response.status != 200:
            raise status_error(f"{url}: status {response.status}", response)
        seen = 0
        with Reader(response, self._limits, self._clock, url) as reader:
            while piece := reader.read(_PIECE):
                seen += len(piece)
                if seen > self._most:
                    raise TransferError(f"{url}: is larger than {self._most} bytes")
                yield piece
        length = response.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) != seen:
            raise PassingError(f"{url}: the connection broke after {seen} bytes")
