"""``mosb manifest lock``, and what ``publish`` does with the lock that it writes.

Only parses arguments and prints; the decisions are in ``build.publish.lock`` and ``locking``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from machineos.cli import app, options
from machineos.cli.developer import inspecting, keysets, progress
from machineos.cli.developer import manifest_shape as shape
from machineos.cli.developer.opener import Opener
from machineos.errors import ConflictError, MissingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from machineos.build.publish.lock import Lock
    from machineos.build.publish.source import ImageTarget, Source

Mode = Literal["auto", "off", "update", "locked"]


def lock_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of ``publish`` about the lock."""
    for option in (
        click.option(
            "--check-lock", is_flag=True,
            help="Also ask registries whether a tag has moved since; what is here is asked always.",
        ),
        click.option(
            "--locked", "lock_mode", flag_value="locked",
            help="Refuse to publish without a manifest.lock.",
        ),
        click.option(
            "--update", "lock_mode", flag_value="update",
            help="Write manifest.lock anew first, from what the sources are now.",
        ),
        click.option(
            "--no-lock", "lock_mode", flag_value="off",
            help="Publish what the sources are now, whatever manifest.lock has.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


@click.command("lock")
@click.argument("file", metavar="manifest.yaml", type=click.Path(path_type=Path))
@keysets.project("project", required=False, help_text="Whose hostfs and bootkit to lock.")
@click.option(
    "--skip-bootkit",
    is_flag=True,
    help="Lock neither hostfs nor bootkit of a keyset (for updates of services only).",
)
@click.option("--check", is_flag=True, help="Write nothing; fail when something has moved.")
@options.registries
@options.as_json
def lock(
    file: Path,
    project: str | None,
    skip_bootkit: bool,
    check: bool,
    reach: options.Reach,
    as_json: bool,
) -> None:
    """Write manifest.lock: which image each source of manifest.yaml is now.

    `mosb manifest publish` then takes these images, by digest, on every machine and at any time,
    until this is run again. Of images that `mosb` built into a layout it also says what they were
    built of. Keep the file in version control beside manifest.yaml.

    \b
    Examples:
      mosb manifest lock --project snakeoil:default manifest.yaml
      mosb manifest lock --project snakeoil:default --check manifest.yaml
    """
    from machineos.build.publish.lock import lock_path
    from machineos.build.publish.locking import load_lock, make_lock, this_builder, write_lock
    from machineos.build.publish.publish import load_source

    targets = _targets(load_source(file), project, skip_bootkit=skip_bootkit)
    path = lock_path(file)
    old = load_lock(path)
    if check and old is None:
        raise _missing(path)
    with progress.shown(plain=as_json) as watch, Opener(reach, watch.say) as opener:
        new = make_lock(
            targets, opener.source, this_builder(), watch.say,
            packed=inspecting.inspector(watch.say).packed, old=old,
        )  # fmt: skip
    changes, tools = _compared(old, new, skip_bootkit=skip_bootkit)
    written = not check and write_lock(path, new)
    if as_json:
        images = [{"source": one.source, "digest": str(one.digest)} for one in new.images]
        result = {"lock": str(path), "written": written, "moved": changes, "tools": tools}
        app.show_json({**result, "images": images})
    elif not (check and changes):
        _show(path, new, (*changes, *tools), how="written" if written else _moved(changes))
    if check and changes:
        raise ConflictError(
            f"{path} is not what the sources are now:" + "".join(f"\n  {one}" for one in changes),
            hint="mosb manifest lock writes it anew",
        )


def for_publish(
    file: Path,
    targets: tuple[ImageTarget, ...],
    opener: Opener,
    mode: Mode,
    *,
    registries: bool,
    say: Callable[[str], None],
) -> tuple[Lock | None, tuple[str, ...]]:
    """Return the lock to publish ``targets`` of the manifest ``file`` with, None for none, and a
    line for each source that has moved since; all of them are said.

    Raises: ConflictError (it does not fit), MissingError (``locked``, and there is none).
    """
    from machineos.build.publish.lock import differences, lock_path, other_tools, require_fit
    from machineos.build.publish.locking import (
        load_lock,
        make_lock,
        moved_since,
        this_builder,
        write_lock,
    )

    path = lock_path(file)
    old = None if mode == "off" else load_lock(path)
    if mode == "update":
        new = make_lock(
            targets, opener.source, this_builder(), say,
            packed=inspecting.inspector(say).packed, old=old,
        )  # fmt: skip
        lines = differences(old, new) if old is not None else ()
        write_lock(path, new)
        _say_all(say, lines)
        return new, lines
    if old is None:
        if mode == "locked":
            raise _missing(path)
        return None, ()
    require_fit(old, targets, name=str(path))
    say(f"use {path}")
    _say_all(say, other_tools(old.builder, this_builder()))
    lines = moved_since(old, targets, opener.source, registries=registries)
    _say_all(say, [f"{line}; mosb manifest lock takes the new one" for line in lines])
    return old, lines


def _targets(source: Source, project: str | None, *, skip_bootkit: bool) -> tuple[ImageTarget, ...]:
    from machineos.build.publish.plan import with_defaults

    if skip_bootkit:
        return source.targets
    names = {target.service_name for target in source.targets}
    if not project:
        if names >= {"hostfs", "bootkit"}:
            return source.targets
        raise UsageError(
            "give --project KEYSET:PROJECT, whose hostfs and bootkit are locked too",
            hint="--skip-bootkit leaves them out, for updates of services only",
        )
    keyset, _ = keysets.open_project(project)
    return with_defaults(source.targets, shape.keyset_defaults(keyset))


def _compared(
    old: Lock | None, new: Lock, *, skip_bootkit: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the lines about images that moved, and about other tools."""
    from machineos.build.publish.lock import differences, other_tools

    if old is None:
        return (), ()
    known = _without_keyset(old) if skip_bootkit else old
    return differences(known, new), other_tools(old.builder, new.builder)


def _without_keyset(lock: Lock) -> Lock:
    from msgspec.structs import replace

    images = tuple(one for one in lock.images if not one.source.startswith("keyset:"))
    return replace(lock, images=images)


def _missing(path: Path) -> MissingError:
    return MissingError(f"{path} does not exist", hint="mosb manifest lock writes it")


def _show(path: Path, lock: Lock, lines: tuple[str, ...], *, how: str) -> None:
    for line in lines:
        app.show(line)
    app.show(f"{path}: {len(lock.images)} images, {how}")


def _moved(changes: tuple[str, ...]) -> str:
    return f"{len(changes)} moved" if changes else "nothing moved"


def _say_all(say: Callable[[str], None], lines: tuple[str, ...] | list[str]) -> None:
    for line in lines:
        say(line)
