"""What is published comes from the same world as what is verified."""

from __future__ import annotations

from unit.document.conftest import authority, published_world, quick_ca, stranger, template, world

__all__ = ["authority", "published_world", "quick_ca", "stranger", "template", "world"]
