"""LXC: the grammar of its configuration file and the command that runs one container.

LXC reads a value up to the end of the line, trims it, and takes off one pair of equal quotes
around the whole; there is no escape. A line ends at a carriage return, too. So every value is
written inside double quotes, which keeps all of it, and only where each character is a printable
one; any other value goes on the command line (``--define``), where no line ends. What confines a
container goes there as well, after the file, so that nothing in the file can undo it. The
container's own command also goes on the command line, never into
``lxc.init.cmd``, whose quoting cannot express every argument. Tried with LXC 5.0
(Debian 12, where tests run) and 6.0 (the appliance).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROGRAM = "/usr/bin/lxc-start"
# lxc-start uses newuidmap when it finds one, and then needs /etc/subuid: root needs neither.
PATH = "/usr/sbin:/sbin"

Setting = tuple[str, str]


def fits_in_file(value: str) -> bool:
    """Whether ``value`` can be written into a configuration file: it has nothing but printable
    characters, so nothing that could end a line."""
    return value.isprintable()


def render(settings: Sequence[Setting]) -> str:
    """Return the text of a configuration file. Raises: ToolError for a value it cannot hold."""
    for key, value in settings:
        if not fits_in_file(value):
            raise ToolError(f"LXC: the value of {key} holds a character that is not printable")
    return "".join(f'{key} = "{value}"\n' for key, value in settings)


def argv_start(
    name: str, *, folder: Path, config: Path, defines: Sequence[Setting], command: Sequence[str]
) -> list[str]:
    """Return the command that runs ``command`` as the container ``name`` and stays in front."""
    argv = [PROGRAM, "--foreground", f"--name={name}", f"--lxcpath={folder}", f"--rcfile={config}"]
    argv += [f'--define={key}="{value}"' for key, value in defines]
    return [*argv, "--", *command]


def mount_entry(source: str, dest: str, fstype: str, options: str) -> Setting:
    """Return a mount of the container; ``dest`` is absolute inside it."""
    fields = (source, dest.lstrip("/"), fstype, options)
    return ("lxc.mount.entry", " ".join(_escape(field) for field in fields) + " 0 0")


def _escape(field: str) -> str:
    """Escape as fstab(5) does."""
    for char in ("\\", " ", "\t", "\n"):
        field = field.replace(char, f"\\{ord(char):03o}")
    return field
