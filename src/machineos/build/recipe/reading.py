"""Nodes of a recipe become stages; every fault is kept, with its path and line.

Follows docs/formats, "Recipes". Invariant: a stage that is returned holds nothing that its grammar
forbids; whether the stages that it names are there is for ``recipe`` to say, which sees all.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from machineos.build.recipe.grammar import (
    BASE_KEYS,
    INSTEAD_IN_IMPORT,
    INSTEAD_IN_STAGE,
    From,
    ImportItem,
    StageItem,
)
from machineos.build.recipe.stage import (
    Base,
    BuiltBase,
    DebianBase,
    ImageBase,
    Import,
    ScratchBase,
    Stage,
    TarBase,
    path_in_stage,
    stage_of,
)
from machineos.core import yamldoc
from machineos.errors import Fault, without_userinfo
from machineos.oci.model.reference import PREFIXES

if TYPE_CHECKING:
    from collections.abc import Mapping

_STAGE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_SUITE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,127}(?:/[a-z0-9.-]{1,64}|=[A-Za-z0-9.+:~-]{1,128})?")
_MIRROR = re.compile(r"(?:https?|file)://[\x21-\x7e]{1,512}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MODE = re.compile(r"0?[0-7]{3,4}")
# Images that are not in a folder.
_ELSEWHERE = tuple(prefix for prefix in PREFIXES if prefix != "oci:")


class StageReader:
    """Reads the stages of one recipe; ``faults`` holds what is wrong with them."""

    def __init__(self, root: yamldoc.Mapping, *, folder: str) -> None:
        self._root = root
        self._folder = folder
        self.faults: list[Fault] = []

    def fault(self, path: str, message: str) -> None:
        """Keep a fault of the value at ``path``, which begins with the name of a stage."""
        # Stage names may hold dots, which line_of() takes for a step: look below the stage.
        for stage, node in self._root.items.items():
            if path == stage:
                self.faults.append(Fault(path, self._root.key_lines[stage], message))
                return
            if path.startswith(f"{stage}."):
                line = yamldoc.line_of(node, path.removeprefix(f"{stage}."))
                self.faults.append(Fault(path, line, message))
                return
        self.faults.append(Fault(path, self._root.line, message))

    def stage(self, name: str, node: yamldoc.Node) -> Stage | None:
        """Return the stage ``name``, None if it has a fault."""
        before = len(self.faults)
        if not _STAGE_NAME.fullmatch(name):
            self.fault(name, "is not a stage name: letters, digits, '.', '_' and '-', at most 128")
        node = self._with_instead(node, name)
        raw: StageItem | None = yamldoc.decode(node, StageItem, self.faults, name)
        if raw is None or not isinstance(node, yamldoc.Mapping):
            return None
        base = self._base(raw.from_, node.items["from"], f"{name}.from")
        imports = self._imports(raw, name)
        self._require_one(raw.user, raw.runtime_user, f"{name}.runtime_user", "user")
        command = raw.entrypoint is not None or raw.cmd is not None
        full = raw.full_command is not None
        self._require_one(full, command, f"{name}.full_command", "entrypoint' and 'cmd")
        entrypoint = self._words(raw.entrypoint, f"{name}.entrypoint")
        cmd = self._words(raw.cmd, f"{name}.cmd")
        full_command = self._words(raw.full_command, f"{name}.full_command")
        self._check_config(raw, name)
        if len(self.faults) > before or base is None:
            return None
        return Stage(
            name=name,
            base=base,
            folder=self._folder,
            architecture=raw.arch if "arch" in node.items else "",
            build_only=raw.build_only,
            imports=imports,
            run=raw.run if isinstance(raw.run, str) else "\n".join(raw.run),
            network=raw.network,
            build_environment=tuple(raw.build_env.items()),
            entrypoint=full_command if full else entrypoint,
            cmd=cmd,
            environment=tuple(raw.environment.items()),
            working_dir=raw.working_dir,
            user=raw.user or raw.runtime_user,
            labels=tuple(raw.labels.items()),
            volumes=tuple(raw.volumes),
            annotations=tuple(raw.annotations.items()),
        )

    def _with_instead(self, node: yamldoc.Node, name: str) -> yamldoc.Node:
        """Fault the keys that something else is to be written for, and return the others."""
        if not isinstance(node, yamldoc.Mapping):
            return node
        items = self._without(node, INSTEAD_IN_STAGE, name)
        for key in ("import", "imports"):
            given = items.get(key)
            if isinstance(given, yamldoc.Mapping):
                items[key] = self._import_without(given, f"{name}.{key}")
            elif isinstance(given, yamldoc.Sequence):
                children = [
                    self._import_without(child, f"{name}.{key}[{index}]")
                    for index, child in enumerate(given.items)
                ]
                items[key] = yamldoc.Sequence(tuple(children), given.line)
        return yamldoc.Mapping(items, node.line, node.key_lines)

    def _import_without(self, node: yamldoc.Node, path: str) -> yamldoc.Node:
        if not isinstance(node, yamldoc.Mapping):
            return node
        items = self._without(node, INSTEAD_IN_IMPORT, path)
        return yamldoc.Mapping(items, node.line, node.key_lines)

    def _without(
        self, node: yamldoc.Mapping, instead: Mapping[str, str], path: str
    ) -> dict[str, yamldoc.Node]:
        items = dict(node.items)
        for key in instead.keys() & items.keys():
            if not _is_empty(items.pop(key)):
                self.fault(f"{path}.{key}", instead[key])
        return items

    def _require_one(self, one: object, other: object, path: str, word: str) -> None:
        if one and other:
            self.fault(path, f"says the same as '{word}': give one of them")

    def _base(self, raw: From, node: yamldoc.Node, path: str) -> Base | None:
        before = len(self.faults)
        given = set(node.items) - {"type"} if isinstance(node, yamldoc.Mapping) else set()
        needed, allowed = BASE_KEYS[raw.type]
        for key in sorted(given - needed - allowed):
            self.fault(f"{path}.{key}", f"does not belong to type {raw.type}")
        for key in sorted(needed):
            if not getattr(raw, key):
                self.fault(f"{path}.{key}", f"is missing, type {raw.type} needs it")
        sha256 = self._sha256(raw.hash, raw.sha256, path)
        base: Base
        match raw.type:
            case "docker" | "oci":
                base = self._image(raw, f"{path}.url")
            case "tar":
                self._check_source(raw.url, f"{path}.url")
                base = TarBase(raw.url, sha256)
            case "scratch":
                base = ScratchBase()
            case "built":
                base = BuiltBase(raw.tag)
            case "debian":
                base = self._debian(raw, path)
        return base if len(self.faults) == before else None

    def _image(self, raw: From, path: str) -> ImageBase:
        """The address says what it is, since stacker takes either under both types."""
        if raw.url.startswith(_ELSEWHERE):
            return ImageBase("docker", raw.url, raw.insecure)
        if raw.type == "docker" and not raw.url.startswith("oci:") and raw.url:
            shown = repr(without_userinfo(raw.url)[:80])
            self.fault(path, f"{shown} does not start with {', '.join(PREFIXES)}")
        return ImageBase("oci", raw.url.removeprefix("oci:"), raw.insecure)

    def _debian(self, raw: From, path: str) -> DebianBase:
        if raw.suite and not _SUITE.fullmatch(raw.suite):
            self.fault(f"{path}.suite", f"{raw.suite[:60]!r} is not a Debian suite")
        seen: set[str] = set()
        for index, package in enumerate(raw.packages):
            where = f"{path}.packages[{index}]"
            if not _PACKAGE.fullmatch(package):
                self.fault(where, f"{package[:60]!r} is not a Debian package")
            elif package in seen:
                self.fault(where, f"{package} is given twice")
            seen.add(package)
        if raw.mirror and not _MIRROR.fullmatch(raw.mirror):
            self.fault(f"{path}.mirror", f"{without_userinfo(raw.mirror)[:60]!r} is not a URL")
        if raw.snapshot and not raw.mirror:
            self.fault(f"{path}.snapshot", "needs a mirror that keeps archives by date")
        elif raw.snapshot and not _SUITE.fullmatch(raw.snapshot.lower()):
            self.fault(f"{path}.snapshot", f"{raw.snapshot[:60]!r} is not a folder of a mirror")
        return DebianBase(raw.suite, tuple(raw.packages), raw.variant, raw.mirror, raw.snapshot)

    def _imports(self, raw: StageItem, name: str) -> tuple[Import, ...]:
        self._require_one(raw.import_, raw.imports, f"{name}.imports", "import")
        key = "import" if raw.import_ else "imports"
        given = raw.import_ or raw.imports or []
        result: list[Import] = []
        shown: set[str] = set()
        for index, item in enumerate(given if isinstance(given, list) else [given]):
            path = f"{name}.{key}[{index}]"
            made = self._import(ImportItem(item) if isinstance(item, str) else item, path)
            if not made.dest and made.name in shown:
                self.fault(path, f"two imports are named {made.name!r}: give one a 'dest'")
            if not made.dest:
                shown.add(made.name)
            result.append(made)
        return tuple(result)

    def _import(self, raw: ImportItem, path: str) -> Import:
        self._check_source(raw.path, path)
        made = Import(
            path=raw.path,
            sha256=self._sha256(raw.hash, raw.sha256, path),
            dest=raw.dest,
            mode=int(raw.mode, 8) if _MODE.fullmatch(raw.mode) else None,
            uid=raw.uid,
            gid=raw.gid,
        )
        if made.name in {"", ".", ".."} and not (made.dest and made.contents):
            self.fault(path, f"{raw.path[:80]!r} does not end in a file name")
        if raw.mode and made.mode is None:
            self.fault(f"{path}.mode", f"{raw.mode[:20]!r} is not a mode (four octal digits)")
        if raw.dest and (not raw.dest.startswith("/") or ".." in raw.dest.split("/")):
            self.fault(f"{path}.dest", f"{raw.dest[:80]!r} is not an absolute path")
        if not 0 <= min(raw.uid, raw.gid) <= max(raw.uid, raw.gid) < 1 << 31:
            self.fault(path, "uid or gid is out of range")
        return made

    def _check_source(self, source: str, path: str) -> None:
        scheme, separator, _ = source.partition("://")
        shown = repr(without_userinfo(source)[:80])
        if separator and scheme == "http":
            self.fault(path, f"{shown} can be changed on its way: write https://")
        elif separator and scheme not in {"https", "stacker"}:
            self.fault(path, f"{shown}: only https:// and stacker:// are known")
        inside = scheme == "stacker"
        wrong = inside and (not stage_of(source) or ".." in path_in_stage(source).split("/"))
        if wrong or not source.isprintable():
            self.fault(path, f"{shown} is not a path")

    def _sha256(self, one: str, other: str, path: str) -> str:
        self._require_one(one, other, f"{path}.sha256", "hash")
        value = (one or other).removeprefix("sha256:").lower()
        if value and not _SHA256.fullmatch(value):
            key = "hash" if one else "sha256"
            self.fault(f"{path}.{key}", f"{(one or other)[:80]!r} is not a sha256 in hex")
        return value

    def _words(self, value: list[str] | str | None, path: str) -> tuple[str, ...] | None:
        if value is None or isinstance(value, list):
            return None if value is None else tuple(value)
        try:
            return tuple(shlex.split(value))
        except ValueError as error:
            self.fault(path, f"cannot be split into words: {str(error).lower()}")
            return None

    def _check_config(self, raw: StageItem, name: str) -> None:
        for where, names in (("environment", raw.environment), ("build_env", raw.build_env)):
            for key, value in names.items():
                if not key or "=" in key or not key.isprintable():
                    self.fault(f"{name}.{where}.{key}", "is not the name of a variable")
                elif "\0" in value:
                    self.fault(f"{name}.{where}.{key}", "has a NUL in its value")
        paths: list[tuple[str, Any]] = [(f"{name}.working_dir", raw.working_dir or "/")]
        paths += [(f"{name}.volumes[{i}]", item) for i, item in enumerate(raw.volumes)]
        for path, value in paths:
            if not value.startswith("/"):
                self.fault(path, f"{value[:80]!r} is not an absolute path")


def _is_empty(node: yamldoc.Node) -> bool:
    if isinstance(node, yamldoc.Scalar):
        return node.is_null
    return not node.items
