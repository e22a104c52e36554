"""Which stage needs which, found in the nodes of recipes: so also beside faults of other kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.build.recipe.stage import Stage, stage_of
from machineos.core import yamldoc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def ordered(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """Return stages after all they need, else as given; none may be missing or in a circle."""
    done: dict[str, Stage] = {}
    left = {stage.name: stage for stage in stages}
    while left:
        ready = next(s for s in left.values() if all(need in done for need in s.needs))
        done[ready.name] = left.pop(ready.name)
    return tuple(done.values())


def needs(node: yamldoc.Node) -> dict[str, str]:
    """Return the stages that a stage's node names, each with the path of the value that does."""
    found: dict[str, str] = {}
    if not isinstance(node, yamldoc.Mapping):
        return found
    base = node.items.get("from")
    if isinstance(base, yamldoc.Mapping):
        kind = _text(base.items.get("type"))
        if kind == "built":
            found[_text(base.items.get("tag"))] = "from.tag"
        elif kind == "tar":
            found[stage_of(_text(base.items.get("url")))] = "from.url"
    for key in ("import", "imports"):
        given = node.items.get(key)
        items = given.items if isinstance(given, yamldoc.Sequence) else (given,)
        for index, item in enumerate(items):
            path = item.items.get("path") if isinstance(item, yamldoc.Mapping) else item
            found.setdefault(stage_of(_text(path)), f"{key}[{index}]")
    found.pop("", None)
    return found


def circle(start: str, graph: Mapping[str, Iterable[str]]) -> list[str] | None:
    """Return the shortest way from ``start`` back to itself, None if there is none."""
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        for need in graph.get(way[-1], ()):
            if need == start:
                return [*way, need]
            if need not in seen:
                seen.add(need)
                ways.append([*way, need])
    return None


def _text(node: yamldoc.Node | None) -> str:
    return node.text if isinstance(node, yamldoc.Scalar) else ""
