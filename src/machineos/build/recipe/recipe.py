"""Recipes: ``stacker.yaml``, parsed strictly into stages.

Owns the grammar (docs/formats, "Recipes"; seed 002 prints an example) and the ``${{VAR}}``
substitution. Invariant: a ``Recipe`` that exists can be built as far as the document decides that:
every stage it names is there, nothing depends on itself, every key fits its stage's base, and
``stages`` are in an order in which they can be built.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from machineos.core import yamldoc
from machineos.errors import DocumentError, Fault, without_userinfo

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_RECIPE = 1 << 20
_VARIABLE = re.compile(r"\$\{\{([^{}\n]*)\}\}")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STAGE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_SUITE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,127}(?:/[a-z0-9.-]{1,64}|=[A-Za-z0-9.+:~-]{1,128})?")
_MIRROR = re.compile(r"(?:https?|file)://[\x21-\x7e]{1,512}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MODE = re.compile(r"0?[0-7]{3,4}")

# The keys that each base takes, besides "type": those it must have, and those it may have.
_BASE_KEYS: dict[str, tuple[set[str], set[str]]] = {
    "docker": ({"url"}, set()),
    "oci": ({"url"}, set()),
    "tar": ({"url"}, {"hash", "sha256"}),
    "scratch": (set(), set()),
    "built": ({"tag"}, set()),
    "debian": ({"suite"}, {"packages", "variant", "mirror", "snapshot"}),
}


@dataclass(frozen=True, slots=True)
class ImageBase:
    """``from: docker`` or ``oci``: an image at ``docker://...`` or in a layout, ``DIR:TAG``."""

    kind: Literal["docker", "oci"]
    url: str


@dataclass(frozen=True, slots=True)
class TarBase:
    """``from: tar``: one archive, a file beside the recipe or an ``https://`` URL."""

    url: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class ScratchBase:
    """``from: scratch``: nothing."""


@dataclass(frozen=True, slots=True)
class BuiltBase:
    """``from: built``: another stage of the same recipe."""

    stage: str


@dataclass(frozen=True, slots=True)
class DebianBase:
    """``from: debian``: Debian packages, by mmdebstrap. Our addition to the format."""

    suite: str
    packages: tuple[str, ...] = ()
    variant: Literal["extract", "custom", "essential", "minbase"] = "minbase"
    mirror: str = ""
    snapshot: str = ""


Base = ImageBase | TarBase | ScratchBase | BuiltBase | DebianBase


@dataclass(frozen=True, slots=True)
class Import:
    """A file or folder for the stage: ``path`` is relative to the recipe, an ``https://`` URL, or
    ``stacker://stage/path``. Without ``dest`` it is only seen at ``/stacker/imports/NAME``."""

    path: str
    sha256: str = ""
    dest: str = ""
    mode: int | None = None
    uid: int = 0
    gid: int = 0

    @property
    def name(self) -> str:
        """Its name below ``/stacker/imports``."""
        return posixpath.basename(self.path.partition("?")[0].rstrip("/"))

    @property
    def stage(self) -> str:
        """The stage it comes from, empty if it comes from none."""
        if not self.path.startswith("stacker://"):
            return ""
        return self.path.removeprefix("stacker://").partition("/")[0]


@dataclass(frozen=True, slots=True)
class Stage:
    """One image to build. ``entrypoint`` and ``cmd`` are None where the base's are kept."""

    name: str
    base: Base
    build_only: bool = False
    imports: tuple[Import, ...] = ()
    run: str = ""
    network: Literal["host", "none"] = "host"
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    environment: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    volumes: tuple[str, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The stages that must be built before, sorted."""
        names = {item.stage for item in self.imports} - {""}
        if isinstance(self.base, BuiltBase):
            names.add(self.base.stage)
        return tuple(sorted(names))


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole recipe; ``stages`` in an order in which they can be built."""

    name: str
    stages: tuple[Stage, ...]

    def closure(self, names: tuple[str, ...] | None) -> tuple[Stage, ...]:
        """Return the stages ``names`` and all they need, in build order; None for all.

        Raises: DocumentError for a name that is not a stage.
        """
        if names is None:
            return self.stages
        by_name = {stage.name: stage for stage in self.stages}
        faults = [
            Fault(name, 0, f"is not a stage (stages: {', '.join(sorted(by_name))})")
            for name in names
            if name not in by_name
        ]
        if faults:
            raise DocumentError(self.name, faults)
        wanted: set[str] = set()
        left = list(names)
        while left:
            name = left.pop()
            if name not in wanted:
                wanted.add(name)
                left += by_name[name].needs
        return tuple(stage for stage in self.stages if stage.name in wanted)


class _From(msgspec.Struct, frozen=True):
    type: Literal["docker", "oci", "tar", "scratch", "built", "debian"]
    url: str = ""
    tag: str = ""
    hash: str = ""
    sha256: str = ""
    suite: str = ""
    packages: list[str] = []
    variant: Literal["extract", "custom", "essential", "minbase"] = "minbase"
    mirror: str = ""
    snapshot: str = ""


class _Import(msgspec.Struct, frozen=True):
    path: str
    hash: str = ""
    sha256: str = ""
    dest: str = ""
    mode: str = ""
    uid: int = 0
    gid: int = 0


class _Stage(msgspec.Struct, frozen=True, rename={"from_": "from", "import_": "import"}):
    from_: _From
    build_only: bool = False
    import_: list[str | _Import] | str = []
    imports: list[str | _Import] | str = []
    run: list[str] | str = ""
    network: Literal["host", "none"] = "host"
    entrypoint: list[str] | str | None = None
    cmd: list[str] | str | None = None
    environment: dict[str, str] = {}
    working_dir: str = ""
    user: str = ""
    runtime_user: str = ""
    labels: dict[str, str] = {}
    volumes: list[str] = []
    annotations: dict[str, str] = {}


def substitute(text: str, values: Mapping[str, str], *, name: str) -> str:
    """Replace every ``${{VAR}}`` and ``${{VAR:default}}`` of ``text``.

    Lines stay where they are. Raises: DocumentError with every variable that has no value.
    """
    faults: list[Fault] = []
    for variable, value in values.items():
        if not value.isprintable():
            faults.append(Fault(variable, 0, "its value holds a line break or a control character"))

    def replace(match: re.Match[str]) -> str:
        variable, colon, default = match[1].strip().partition(":")
        if variable in values:
            return values[variable]
        if colon and _VARIABLE_NAME.fullmatch(variable):
            return default
        line = text.count("\n", 0, match.start()) + 1
        known = _VARIABLE_NAME.fullmatch(variable)
        message = "has no value; give one with --substitute" if known else "is not a variable name"
        faults.append(Fault(variable[:80], line, message))
        return match[0]

    result = _VARIABLE.sub(replace, text)
    if faults:
        raise DocumentError(name, faults)
    return result


def parse_recipe(data: bytes, *, name: str, substitutions: Mapping[str, str]) -> Recipe:
    """Return the recipe in ``data``, a ``stacker.yaml``.

    ``name`` is the file's, for messages. Raises: DocumentError with every fault at once, each with
    path and line (the faults of substitution and of YAML itself come before all others).
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(name, [Fault("", 0, "is not UTF-8")]) from error
    node = yamldoc.parse_yaml(substitute(text, substitutions, name=name).encode(), name=name)
    if not isinstance(node, yamldoc.Mapping):
        raise DocumentError(name, [Fault("", node.line, "must be a mapping of stages")])
    reader = _Reader(node)
    stages = [reader.stage(key, value) for key, value in node.items.items()]
    reader.check_graph()
    if reader.faults:
        raise DocumentError(name, sorted(reader.faults, key=lambda fault: fault.line))
    return Recipe(name, _ordered([stage for stage in stages if stage is not None]))


class _Reader:
    def __init__(self, root: yamldoc.Mapping) -> None:
        self._root = root
        self.faults: list[Fault] = []

    def fault(self, path: str, message: str) -> None:
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
        before = len(self.faults)
        if not _STAGE_NAME.fullmatch(name):
            self.fault(name, "is not a stage name: letters, digits, '.', '_' and '-', at most 128")
        raw: _Stage | None = yamldoc.decode(node, _Stage, self.faults, name)
        if raw is None:
            return None
        base_node = node.items["from"] if isinstance(node, yamldoc.Mapping) else node
        base = self._base(raw.from_, base_node, f"{name}.from")
        imports = self._imports(raw, name)
        if raw.user and raw.runtime_user:
            self.fault(f"{name}.runtime_user", "says the same as 'user': give one of them")
        entrypoint = self._words(raw.entrypoint, f"{name}.entrypoint")
        cmd = self._words(raw.cmd, f"{name}.cmd")
        self._check_config(raw, name)
        if len(self.faults) > before or base is None:
            return None
        return Stage(
            name=name,
            base=base,
            build_only=raw.build_only,
            imports=imports,
            run=raw.run if isinstance(raw.run, str) else "\n".join(raw.run),
            network=raw.network,
            entrypoint=entrypoint,
            cmd=cmd,
            environment=tuple(raw.environment.items()),
            working_dir=raw.working_dir,
            user=raw.user or raw.runtime_user,
            labels=tuple(raw.labels.items()),
            volumes=tuple(raw.volumes),
            annotations=tuple(raw.annotations.items()),
        )

    def check_graph(self) -> None:
        """Look for unknown stages and circles: in the nodes, so also beside other faults."""
        graph = {name: _needs(node) for name, node in self._root.items.items()}
        for name, needs in graph.items():
            for need, where in needs.items():
                if need not in graph:
                    self.fault(f"{name}.{where}", f"{need[:80]!r} is not a stage of this recipe")
            circle = _circle(name, graph)
            if circle:
                where = needs[circle[1]]
                self.fault(f"{name}.{where}", f"goes in a circle: {' -> '.join(circle)}")

    def _base(self, raw: _From, node: yamldoc.Node, path: str) -> Base | None:
        before = len(self.faults)
        given = set(node.items) - {"type"} if isinstance(node, yamldoc.Mapping) else set()
        needed, allowed = _BASE_KEYS[raw.type]
        for key in sorted(given - needed - allowed):
            self.fault(f"{path}.{key}", f"does not belong to type {raw.type}")
        for key in sorted(needed):
            if not getattr(raw, key):
                self.fault(f"{path}.{key}", f"is missing, type {raw.type} needs it")
        sha256 = self._sha256(raw.hash, raw.sha256, path)
        base: Base
        match raw.type:
            case "docker" | "oci":
                base = self._image(raw.type, raw.url, f"{path}.url")
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

    def _image(self, kind: Literal["docker", "oci"], url: str, path: str) -> ImageBase:
        if kind == "docker" and url and not url.startswith("docker://"):
            self.fault(path, f"{without_userinfo(url)[:80]!r} does not start with docker://")
        return ImageBase(kind, url)

    def _debian(self, raw: _From, path: str) -> DebianBase:
        if raw.suite and not _SUITE.fullmatch(raw.suite):
            self.fault(f"{path}.suite", f"{raw.suite[:60]!r} is not a Debian suite")
        for index, package in enumerate(raw.packages):
            if not _PACKAGE.fullmatch(package):
                where = f"{path}.packages[{index}]"
                self.fault(where, f"{package[:60]!r} is not a Debian package")
            elif package in raw.packages[:index]:
                self.fault(f"{path}.packages[{index}]", f"{package} is given twice")
        if raw.mirror and not _MIRROR.fullmatch(raw.mirror):
            self.fault(f"{path}.mirror", f"{without_userinfo(raw.mirror)[:60]!r} is not a URL")
        if raw.snapshot and not raw.mirror:
            self.fault(f"{path}.snapshot", "needs a mirror that keeps archives by date")
        elif raw.snapshot and not _SUITE.fullmatch(raw.snapshot.lower()):
            self.fault(f"{path}.snapshot", f"{raw.snapshot[:60]!r} is not a folder of a mirror")
        return DebianBase(raw.suite, tuple(raw.packages), raw.variant, raw.mirror, raw.snapshot)

    def _imports(self, raw: _Stage, name: str) -> tuple[Import, ...]:
        if raw.import_ and raw.imports:
            self.fault(f"{name}.imports", "says the same as 'import': give one of them")
        key = "import" if raw.import_ else "imports"
        given = raw.import_ or raw.imports
        result: list[Import] = []
        for index, item in enumerate([given] if isinstance(given, str) else given):
            path = f"{name}.{key}[{index}]"
            made = self._import(_Import(item) if isinstance(item, str) else item, path)
            if any(made.name == other.name for other in result):
                self.fault(path, f"two imports are named {made.name!r}")
            result.append(made)
        return tuple(result)

    def _import(self, raw: _Import, path: str) -> Import:
        self._check_source(raw.path, path)
        made = Import(
            path=raw.path,
            sha256=self._sha256(raw.hash, raw.sha256, path),
            dest=raw.dest,
            mode=int(raw.mode, 8) if _MODE.fullmatch(raw.mode) else None,
            uid=raw.uid,
            gid=raw.gid,
        )
        if made.name in {"", ".", ".."}:
            self.fault(path, f"{raw.path[:80]!r} does not end in a file name")
        if raw.mode and made.mode is None:
            self.fault(f"{path}.mode", f"{raw.mode[:20]!r} is not a mode (four octal digits)")
        if raw.dest and (not raw.dest.startswith("/") or ".." in raw.dest.split("/")):
            self.fault(f"{path}.dest", f"{raw.dest[:80]!r} is not an absolute path")
        if not 0 <= min(raw.uid, raw.gid) <= max(raw.uid, raw.gid) < 1 << 31:
            self.fault(path, "uid or gid is out of range")
        return made

    def _check_source(self, source: str, path: str) -> None:
        scheme, separator, rest = source.partition("://")
        if separator and scheme not in {"https", "stacker"}:
            self.fault(
                path, f"{without_userinfo(source)[:80]!r}: only https:// and stacker:// are known"
            )
        if not source.isprintable() or (scheme == "stacker" and ".." in rest.split("/")):
            self.fault(path, f"{without_userinfo(source)[:80]!r} is not a path")

    def _sha256(self, one: str, other: str, path: str) -> str:
        if one and other:
            self.fault(f"{path}.sha256", "says the same as 'hash': give one of them")
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

    def _check_config(self, raw: _Stage, name: str) -> None:
        for key in raw.environment:
            if not key or "=" in key or not key.isprintable():
                self.fault(f"{name}.environment.{key}", "is not the name of a variable")
        paths: list[tuple[str, Any]] = [(f"{name}.working_dir", raw.working_dir or "/")]
        paths += [(f"{name}.volumes[{i}]", item) for i, item in enumerate(raw.volumes)]
        for path, value in paths:
            if not value.startswith("/"):
                self.fault(path, f"{value[:80]!r} is not an absolute path")


def _ordered(stages: list[Stage]) -> tuple[Stage, ...]:
    """Stages after all they need, else in the order of the document."""
    done: dict[str, Stage] = {}
    left = {stage.name: stage for stage in stages}
    while left:
        ready = next(s for s in left.values() if all(need in done for need in s.needs))
        done[ready.name] = left.pop(ready.name)
    return tuple(done.values())


def _needs(node: yamldoc.Node) -> dict[str, str]:
    """The stages that a stage's node names, each with the path of the value that names it."""
    found: dict[str, str] = {}
    if not isinstance(node, yamldoc.Mapping):
        return found
    base = node.items.get("from")
    if isinstance(base, yamldoc.Mapping) and _text(base.items.get("type")) == "built":
        found[_text(base.items.get("tag"))] = "from.tag"
    for key in ("import", "imports"):
        given = node.items.get(key)
        items = given.items if isinstance(given, yamldoc.Sequence) else (given,)
        for index, item in enumerate(items):
            path = item.items.get("path") if isinstance(item, yamldoc.Mapping) else item
            stage = Import(_text(path)).stage
            if stage:
                found.setdefault(stage, f"{key}[{index}]")
    found.pop("", None)
    return found


def _text(node: yamldoc.Node | None) -> str:
    return node.text if isinstance(node, yamldoc.Scalar) else ""


def _circle(start: str, graph: Mapping[str, Mapping[str, str]]) -> list[str] | None:
    """The shortest way from ``start`` back to itself, None if there is none."""
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        for need in graph.get(way[-1], {}):
            if need == start:
                return [*way, need]
            if need not in seen:
                seen.add(need)
                ways.append([*way, need])
    return None
