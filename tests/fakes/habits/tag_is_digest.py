"""GitLab's takes the tag ``sha256-...`` for the digest ``sha256:...``, and shows the image itself
where a list of what refers to it is looked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry, Request


_TAG = re.compile(r"(/v2/.+/manifests/)sha256-([0-9a-f]{64})")

OF = ("GitLab",)


def keep(registry: FakeRegistry) -> None:
    """No referrers API, and its tag leads to the subject until it was written."""
    registry.faults.referrers_api = False

    def lead(request: Request) -> bool:
        match = _TAG.fullmatch(request.path)
        if match and request.command in {"GET", "HEAD"}:
            name = match[1].removeprefix("/v2/").removesuffix("/manifests/")
            if (name, f"sha256-{match[2]}") not in registry.tags:
                request.path = f"{match[1]}sha256:{match[2]}"
        return False

    registry.faults.instead = lead
