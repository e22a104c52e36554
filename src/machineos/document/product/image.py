"""The configuration of an image from which a container is made, read strictly.

Invariant: an ``ImageConfig`` from here has a command and breaks no rule of ``rules.configs``. The
publisher reads it before it signs, the service manager before it runs: by the same function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.core.jsondoc import decode_json
from machineos.document.model.image import MACHINE, ImageConfig, Run, User
from machineos.document.model.limits import MAX_CONFIG
from machineos.document.rules import configs
from machineos.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from machineos.document.model.image import Platform, Sight
    from machineos.document.rules.rule import Rule


PASSWD, GROUP = "/etc/passwd", "/etc/group"


class _Config(msgspec.Struct, frozen=True):
    config: Run | None = None
    os: str | None = None
    architecture: str | None = None


def parse_image_config(data: bytes, *, name: str) -> ImageConfig:
    """Return what an image's configuration asks for. Raises: DocumentError with every fault."""
    run = _judged(data, name, configs.RULES)
    env = tuple((key, value) for key, _, value in (word.partition("=") for word in run.env or ()))
    folder = "/" + run.folder.strip("/")
    return ImageConfig(run.argv, env, run.user, folder, run.signal or "SIGTERM")


def check_image_config(data: bytes, *, name: str, platform: Platform = MACHINE) -> None:
    """Check the configuration of an image for ``platform`` that may be only mounted, not run.

    Raises: DocumentError with every fault; that there is no command is none here.
    """
    _judged(data, name, [rule for rule in configs.RULES if "convert" in rule.gates], platform)


def resolve_user(text: str, see: Callable[[str], Sight], *, image: str) -> User:
    """Return whom ``name|uid[:group|gid]`` means, by the image's own passwd and group files.

    ``see`` tells what is at a path of the image, whose name for messages is ``image``. "" is root.
    A number needs no entry.
    Raises: ArchiveError for files that cannot be read, DocumentError for a name that they lack.
    """
    users = (see(PASSWD), see(GROUP))
    problems = [each.problem for each in users if not each.absent]
    configs.USER_FILES.require(problems, f"image {image}")
    passwd, group = (None if each.absent else each.data for each in users)
    account = configs.Account(text, passwd, group)
    user = configs.find_user(account)
    if user is None:
        raise DocumentError(
            f"image {image}",
            configs.USER_KNOWN.faults(account),
            hint=configs.USER_KNOWN.hint,
        )
    return user


def _judged(
    data: bytes, name: str, rules: Iterable[Rule[Run]], platform: Platform = MACHINE
) -> Run:
    body = decode_json(data, _Config, name=name, limit=MAX_CONFIG)
    run = body.config or Run()
    built = configs.Built(body.os, body.architecture, platform)
    faults = configs.PLATFORM.faults(built)
    faults += [fault for rule in rules for fault in rule.faults(run)]
    if faults:
        raise DocumentError(name, faults)
    return run
