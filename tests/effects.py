"""Which modules can touch the world: found from what they import, all the way down.

A module has effects when it imports, anywhere in it, a module of ``EFFECTS`` or one of ours that
has effects; and when it calls what reads or changes files: ``open``, or a method of a path
(``PATH_METHODS``) on anything but a ``host``, which is asked by steps and whose effects are its
own. What is imported for types only does not count. ``python tests/effects.py`` prints the share
of lines without effects, and the largest modules with them.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src/machineos"
EFFECTS = frozenset({
    "asyncio", "ctypes", "fcntl", "getpass", "grp", "http", "mmap", "multiprocessing", "os", "pty",
    "pwd", "pygit2", "qemu", "resource", "select", "selectors", "shutil", "signal", "socket",
    "subprocess", "tempfile", "termios", "threading", "time", "tty", "urllib3",
})  # fmt: skip
PATH_METHODS = frozenset({
    "open", "read_text", "read_bytes", "write_text", "write_bytes", "is_dir", "is_file",
    "is_symlink", "is_mount", "is_block_device", "is_char_device", "is_fifo", "is_socket",
    "exists", "samefile", "iterdir", "glob", "rglob", "walk", "mkdir", "rmdir", "unlink", "rename",
    "stat", "lstat", "chmod", "lchmod", "touch", "symlink_to", "hardlink_to", "readlink",
})  # fmt: skip
# Names that other types have too: only with as many positional arguments as a path takes, and none
# by keyword. So ``text.replace("a", "b")`` and ``registry.resolve(name)`` do not count.
PATH_ARITY = {"replace": 1, "resolve": 0}
HOSTS = frozenset({"host", "_host"})


@dataclass(frozen=True)
class Module:
    """One module of the package: how long it is, and what it imports when it runs."""

    name: str
    lines: int
    imports: frozenset[str]
    uses_files: bool = False

    @property
    def direct(self) -> bool:
        """Whether it has an effect itself."""
        return self.uses_files or any(name.partition(".")[0] in EFFECTS for name in self.imports)


def read_modules(source: Path = SOURCE) -> dict[str, Module]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        found[name] = read_module(name, path.read_text())
    return found


@functools.cache
def read_module(name: str, text: str) -> Module:
    """Return the module that has ``text``."""
    tree = ast.parse(text)
    uses_files = any(_opens(node) for node in ast.walk(tree))
    return Module(name, len(text.splitlines()), frozenset(_imports(tree)), uses_files)


def with_effects(modules: dict[str, Module]) -> frozenset[str]:
    """Return the names of the modules that have effects, by themselves or through others."""
    found = {name for name, module in modules.items() if module.direct}
    while True:
        more = {
            name for name, module in modules.items() if name not in found and module.imports & found
        }
        if not more:
            return frozenset(found)
        found |= more


def pure_share(modules: dict[str, Module]) -> float:
    """Return the share of lines that stand in modules without effects."""
    effectful = with_effects(modules)
    pure = sum(module.lines for name, module in modules.items() if name not in effectful)
    return pure / sum(module.lines for module in modules.values())


def _opens(node: ast.AST) -> bool:
    """Whether a node calls what reads or changes files."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name):
        return node.func.id == "open"
    if not isinstance(node.func, ast.Attribute) or _last(node.func.value) in HOSTS:
        return False
    wanted = PATH_ARITY.get(node.func.attr)
    if wanted is not None:
        return len(node.args) == wanted and not node.keywords
    return node.func.attr in PATH_METHODS


def _last(node: ast.expr) -> str:
    """Return the last name of ``a.b.c``, empty for what has none."""
    return getattr(node, "attr", getattr(node, "id", ""))


def _imports(node: ast.AST) -> set[str]:
    found: set[str] = set()
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return set().union(*(_imports(child) for child in node.orelse))
    if isinstance(node, ast.Import):
        found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
        found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    for child in ast.iter_child_nodes(node):
        found |= _imports(child)
    return found


if __name__ == "__main__":
    everything = read_modules()
    effectful = with_effects(everything)
    print(f"{pure_share(everything):.1%} of the lines are in modules without effects")
    for name in sorted(effectful, key=lambda name: -everything[name].lines)[:60]:
        module = everything[name]
        through = "" if module.direct else ", ".join(sorted(module.imports & effectful))[:90]
        print(f"{module.lines:5} {name} {through}")
