"""What ``mosb image`` takes and prints: words of its options, and images as JSON and in lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from machineos.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from machineos.oci.model.documents import Descriptor


def substitutions(texts: Iterable[str]) -> dict[str, str]:
    """Read the values of ``--substitute``. Raises: UsageError."""
    result: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--substitute {text}: is not NAME=VALUE")
        if name in result:
            raise UsageError(f"--substitute {name}: is given twice")
        result[name] = value
    return result


def layout_folder(text: str) -> Path:
    """Read the value of ``--layout``. Raises: UsageError."""
    folder = text.removeprefix("oci:")
    if not text.startswith("oci:") or not folder:
        raise UsageError(f"--layout {text}: is not oci:DIR")
    return Path(folder)


def platform_pair(text: str) -> tuple[str, str]:
    """Read the value of ``--platform``. Raises: UsageError."""
    system, slash, machine = text.partition("/")
    if not slash:
        raise UsageError(f"--platform {text} is not os/architecture")
    return system, machine


def images_json(built: Mapping[str, Descriptor], layout: str) -> list[dict[str, object]]:
    """Return images by tag for ``--json``."""
    return [
        {"tag": tag, "layout": layout, **descriptor.to_json()} for tag, descriptor in built.items()
    ]


def image_lines(built: Mapping[str, Descriptor], layout: str) -> list[str]:
    """Return the same in a line each."""
    return [f"{layout}:{tag} {descriptor.digest}" for tag, descriptor in built.items()]
