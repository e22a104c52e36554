from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.command import Command
from machineos.errors import DocumentError
from machineos.host.disk.lvm import Group, LogicalVolume, Report, log_size, parse_report

REPORT = b"""\
  {
      "report": [
          {
              "lv": [
                  {"lv_name":"zot-data", "lv_size":"1073741824", "lv_tags":"", "pool_lv":"pool"},
                  {"lv_name":"linear", "lv_size":"4194304", "lv_tags":"", "pool_lv":""},
                  {"lv_name":"pool", "lv_size":"4080218112", "lv_tags":"", "pool_lv":""},
                  {"lv_name":"b", "lv_size":"4194304", "lv_tags":"machineos.unfinished,other",
                   "pool_lv":"pool"}
              ]
          }
      ]
  }
"""


def test_recorded_report() -> None:
    report = parse_report(REPORT)
    assert report == Report(
        {
            "zot-data": LogicalVolume(1 << 30),
            "b": LogicalVolume(4 << 20, frozenset({"machineos.unfinished", "other"})),
        },
        4080218112,
    )
    log = 240 << 20  # the sixteenth part in whole extents
    assert report.room_for("other") == 4080218112 - log - (1 << 30) - (4 << 20)
    assert [each.unfinished for each in report.volumes.values()] == [False, True]


@pytest.mark.parametrize(
    ("pool", "kept"),
    [(0, 0), (1 << 26, 4 << 20), ((1 << 27) - 1, 4 << 20), (16 << 30, 1 << 30), (1 << 40, 1 << 30)],
)
def test_the_log_has_its_room_before_it_is_made_and_after(pool: int, kept: int) -> None:
    assert log_size(pool) == kept
    log = LogicalVolume(kept)
    for name in ("zot", "machine-log2", "machine-log.new"):
        assert Report({}, pool).room_for(name) == pool - kept
        assert Report({"machine-log": log}, pool).room_for(name) == pool - kept
        assert Report({"machine-log+new": log}, pool).room_for(name) == pool - kept
    # All that is kept is for it, and to be begun again it needs no other room.
    assert Report({"zot": LogicalVolume(pool - kept)}, pool).room_for("machine-log+new") == kept


GROUP = Group("machine-data", Path("/dev/vda4"))
CONFIG = (
    "devices{obtain_device_list_from_udev=0 use_devicesfile=0} "
    "activation{udev_sync=0 udev_rules=0 monitoring=0} "
    'global{thin_check_executable="" thin_repair_executable="" thin_dump_executable=""}'
)


def lvm(command: str, *arguments: str) -> Command:
    """Row 16 of the attacks, for data: another disk with a group of the same name is not seen."""
    argv = ("lvm", command, "--config", CONFIG, "--devices", "/dev/vda4", *arguments)
    return Command(argv, 120.0)


def test_making_a_group() -> None:
    assert GROUP.create_commands() == (
        lvm("pvcreate", "--yes", "-ff", "/dev/vda4"),
        lvm("vgcreate", "machine-data", "/dev/vda4"),
        lvm(
            "lvcreate", "--yes", "--type", "thin-pool", "-n", "pool", "-l", "95%VG",
            "--zero", "y", "--poolmetadataspare", "n", "machine-data",
        ),
        lvm("lvchange", "--errorwhenfull", "y", "machine-data/pool"),
    )  # fmt: skip


def test_using_a_group() -> None:
    group = "machine-data"
    assert GROUP.activate_command() == lvm("vgchange", "--activate", "y", "--sysinit", group)
    assert GROUP.deactivate_command() == lvm("vgchange", "--activate", "n", group)
    assert GROUP.report_command() == lvm(
        "lvs",
        "--reportformat",
        "json",
        "--units",
        "b",
        "--nosuffix",
        "-o",
        "lv_name,lv_size,lv_tags,pool_lv",
        group,
    )
    assert GROUP.create_volume_command("a+new", 1 << 20) == lvm(
        "lvcreate", "--yes", "--type", "thin", "--addtag", "machineos.unfinished",
        "-n", "a+new", "-V", "1048576b", "--thinpool", "pool", group,
    )  # fmt: skip
    assert GROUP.finish_volume_command("a+new") == lvm(
        "lvchange", "--deltag", "machineos.unfinished", "machine-data/a+new"
    )
    assert GROUP.rename_volume_command("a+new", "a") == lvm("lvrename", group, "a+new", "a")
    assert GROUP.remove_volume_command("a") == lvm("lvremove", "--yes", "machine-data/a")


@pytest.mark.parametrize(
    "data",
    [
        b'{"report":[{"lv":[]}]}',
        b"", b"x", b"[]", b"{}", b'{"report":[]}', b'{"report":{}}', b'{"report":[{"lv":null}]}',
        b'{"report":[{"lv":["a"]}]}', b'{"report":[{"lv":[{"lv_name":"a"}]}]}',
        b'{"report":[{"lv":[{"lv_name":"a","lv_size":"1.5"}]}]}',
        b'{"report":[{"lv":[{"lv_name":[],"lv_size":"1","lv_tags":""}]}]}',
        b'{"report":[{"lv":[{"lv_name":"a","lv_size":"1"}]}]}',
        b'{"report":[{"lv":[{"lv_name":"a","lv_size":"1","lv_tags":null}]}]}',
        b'{"report":[{"lv":[{"lv_name":"a","lv_size":"1","lv_tags":["x"]}]}]}',
        b'{"report":[{"lv":[{"lv_name":"a","lv_size":null}]}]}',
    ],
)  # fmt: skip
def test_another_shape(data: bytes) -> None:
    with pytest.raises(DocumentError):
        parse_report(data)


def test_what_is_said_of_another_shape() -> None:
    with pytest.raises(DocumentError) as caught:
        parse_report(b"{}")
    assert caught.value.message == "lvs report: 1 fault\n  report: has another shape"


values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["report", "lv", "lv_name", "lv_size", "pool_lv"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(values)
def test_any_document(value: object) -> None:
    for body in (value, {"report": [{"lv": value}]}, {"report": [{"lv": [value]}]}):
        try:
            parse_report(json.dumps(body).encode())
        except DocumentError:
            continue
