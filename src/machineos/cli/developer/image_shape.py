"""What ``mosb image`` takes and prints: words of options; images and recipes, JSON and text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from machineos.errors import DocumentError, Fault, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from machineos.build.recipe.recipe import Recipe
    from machineos.build.recipe.stage import Base, Import, Stage
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


RECIPE_COLUMNS = ("RECIPE", "STAGE", "FROM", "IMPORTS", "SCRIPT", "IMAGE")


def recipe_rows(recipes: Iterable[Recipe]) -> list[tuple[str, ...]]:
    """Return the stages that a build of each recipe makes, in its order, as rows of a table."""
    return [
        (
            recipe.name,
            stage.name,
            _base_text(stage.base),
            str(len(stage.imports)),
            "yes" if stage.run else "no",
            "no" if stage.build_only else "yes",
        )
        for recipe in recipes
        for stage in recipe.closure(None)
    ]


def recipes_json(recipes: Iterable[Recipe]) -> list[dict[str, object]]:
    """Return the same for ``--json``."""
    return [
        {
            "recipe": recipe.name,
            "stages": [_stage_json(stage) for stage in recipe.closure(None)],
        }
        for recipe in recipes
    ]


def refused_recipes(errors: Sequence[DocumentError], count: int) -> DocumentError:
    """Return one error for those of ``count`` recipes that have faults."""
    if len(errors) == 1:
        return errors[0]
    faults = [
        Fault(f"{error.name}: {fault.path or 'document'}", fault.line, fault.message, fault.rule)
        for error in errors
        for fault in error.faults
    ]
    return DocumentError(f"{len(errors)} of {count} recipes", faults)


def _stage_json(stage: Stage) -> dict[str, object]:
    return {
        "name": stage.name,
        "folder": stage.folder,
        "from": _base_json(stage.base),
        "needs": list(stage.needs),
        "imports": [_import_json(item) for item in stage.imports],
        "script": bool(stage.run),
        "image": not stage.build_only,
    }


def _import_json(item: Import) -> dict[str, object]:
    return {"path": item.path, "dest": item.dest, "sha256": item.sha256}


def _base_json(base: Base) -> dict[str, object]:
    from machineos.build.recipe import stage

    match base:
        case stage.ImageBase():
            return {"type": base.kind, "url": base.url, "insecure": base.insecure}
        case stage.TarBase():
            return {"type": "tar", "url": base.url, "sha256": base.sha256}
        case stage.ScratchBase():
            return {"type": "scratch"}
        case stage.BuiltBase():
            return {"type": "built", "tag": base.stage}
        case stage.DebianBase():
            return {"type": "debian", "suite": base.suite, "packages": list(base.packages)}


def _base_text(base: Base) -> str:
    said = _base_json(base)
    if said["type"] == "docker":
        return str(said["url"])
    return " ".join(str(said[key]) for key in ("type", "url", "tag", "suite") if key in said)
