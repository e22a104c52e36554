"""A registry that writes an empty list of referrers as Go does: ``null``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fakes.faults import INDEX

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry, Request

OF = ()


def keep(registry: FakeRegistry) -> None:
    """``"manifests": null`` where there are none."""
    empty = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": None}).encode()

    def answer(request: Request) -> bool:
        path = request.path.partition("?")[0]
        name, api, digest = path.removeprefix("/v2/").partition("/referrers/")
        if not api or any(
            (json.loads(data).get("subject") or {}).get("digest") == digest
            for (own, _), (_, data) in registry.manifests.items()
            if own == name
        ):
            return False
        return request.answer(200, {"Content-Type": INDEX}, empty)

    registry.faults.instead = answer
