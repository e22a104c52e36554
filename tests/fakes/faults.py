"""What can be wrong with the registry of the tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakes.registry import Request

INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass
class Faults:
    """What is wrong with the registry."""

    referrers_api: bool = True
    page: int = 1000
    flood: int = 0  # so many made-up referrers
    flood_in_one: bool = False  # all in one answer
    busy: list[tuple[int, str]] = field(default_factory=list)  # answers (status, Retry-After) first
    stall_after: int | None = None
    drip: bool = False  # one byte at a time
    drip_headers: bool = False
    drip_chunk_size: bool = False
    length: int | None = None  # what Content-Length says
    die_after: list[int] = field(default_factory=list)  # bytes sent before each broken answer
    endless: bool = False
    corrupt: bool = False
    ignore_range: bool = False
    wrong_range: bool = False
    redirect: str = ""  # blobs are elsewhere
    auth: str = ""  # basic, bearer
    realm: str = ""
    content_type: str = ""
    told_digest: str = ""
    move_tag: Callable[[], None] | None = None  # called after each answer about a tag
    put_status: int = 201
    creates_on_push: bool = False  # no token to read a repository that is not there
    token_elsewhere: str = ""  # where the token service sends one on to
    referrers_type: str = INDEX
    referrers_status: int = 404  # where there is no referrers API
    says_at_start: dict[str, str] = field(default_factory=dict)  # of an upload
    patch_status: int = 202
    patch_range: str = ""
    upload_dies_after: int | None = None  # once
    loses_uploads: bool = False
    upload_stalls: str = ""  # reads nothing, or reads all and answers nothing: deaf, mute
    open_host: str = ""  # what one is called where nobody is asked who he is
    encoding: str = ""
    packs: bool = False  # every body is compressed on its way
    status: int = 0  # of every answer
    says: dict[str, str] = field(default_factory=dict)  # headers of every answer instead of its own
    hides: frozenset[str] = frozenset()  # headers that no answer has
    documents: str = ""  # bodies of everything but blobs: stall, drip, die, endless
    instead: Callable[[Request], bool] | None = None  # whether it has answered this one itself
    location: Callable[[str, str], str] | None = None  # of a Location, and who was asked for it
