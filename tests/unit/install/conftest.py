"""The world of the manifest tests: publishers, images, a published manifest."""

from __future__ import annotations

from unit.document.conftest import authority, published_world, stranger, template, world

__all__ = ["authority", "published_world", "stranger", "template", "world"]
