"""The keys of a recipe, as ``core.yamldoc`` decodes them, and what to write instead of some.

The grammar is stacker's (its doc/stacker_yaml.md) with additions of ours: docs/formats, "Recipes".
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

# Where a recipe names what it needs, and no stage.
CONFIG: Final = "config"

# The keys that each base takes, besides "type": those it must have, and those it may have.
BASE_KEYS: Final[dict[str, tuple[set[str], set[str]]]] = {
    "docker": ({"url"}, {"insecure"}),
    "oci": ({"url"}, {"insecure"}),
    "tar": ({"url"}, {"hash", "sha256"}),
    "scratch": (set(), set()),
    "built": ({"tag"}, set()),
    "debian": ({"suite"}, {"packages", "variant", "mirror", "snapshot"}),
}

# Keys of stacker that we know and do not follow: why, and what to write instead.
INSTEAD_IN_STAGE: Final = {
    "apply": "is not known any more: start 'from: {type: built}', or import what is needed",
    "binds": "mounts folders of whoever builds: write 'imports: [{path: FOLDER/, dest: /WHERE/}]'; "
    "what a script makes is imported by other stages from stacker://STAGE/PATH",
    "bom": "is not made, as by stacker since 2026: take it out, the image is the same without",
    "build_env_passthrough": "reads the environment of whoever builds: write "
    'build_env: {NAME: "${{NAME:}}"} and build with --substitute NAME=VALUE',
    "generate_labels": "is not run: write them under 'labels'; "
    'what changes is "${{NAME}}", given with --substitute NAME=VALUE',
    "overlay_dirs": "is written under 'imports': {path: SOURCE/, dest: DEST/}",
}
INSTEAD_IN_IMPORT: Final = {
    "perms": "is called 'mode'",
    "source": "is called 'path'",
}


class From(msgspec.Struct, frozen=True):
    """``from`` of a stage."""

    type: Literal["docker", "oci", "tar", "scratch", "built", "debian"]
    url: str = ""
    tag: str = ""
    insecure: bool = False
    hash: str = ""
    sha256: str = ""
    suite: str = ""
    packages: list[str] = []
    variant: Literal["extract", "custom", "essential", "minbase"] = "minbase"
    mirror: str = ""
    snapshot: str = ""


class ImportItem(msgspec.Struct, frozen=True):
    """One of ``imports``, written as a mapping."""

    path: str
    hash: str = ""
    sha256: str = ""
    dest: str = ""
    mode: str = ""
    uid: int = 0
    gid: int = 0


class StageItem(msgspec.Struct, frozen=True, rename={"from_": "from", "import_": "import"}):
    """A stage."""

    from_: From
    os: Literal["linux"] = "linux"
    arch: Literal["amd64"] = "amd64"
    build_only: bool = False
    import_: list[str | ImportItem] | str | ImportItem = []
    imports: list[str | ImportItem] | str | ImportItem = []
    run: list[str] | str = ""
    network: Literal["host", "none"] = "host"
    build_env: dict[str, str] = {}
    entrypoint: list[str] | str | None = None
    cmd: list[str] | str | None = None
    full_command: list[str] | str | None = None
    environment: dict[str, str] = {}
    working_dir: str = ""
    user: str = ""
    runtime_user: str = ""
    labels: dict[str, str] = {}
    volumes: list[str] = []
    annotations: dict[str, str] = {}


class ConfigItem(msgspec.Struct, frozen=True):
    """``config`` of a recipe."""

    prerequisites: list[str] | None = None
