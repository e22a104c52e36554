from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.errors import DocumentError
from machineos.host.disk.lvm import Group, parse_volumes

REPORT = b"""\
  {
      "report": [
          {
              "lv": [
                  {"lv_name":"zot-data", "lv_size":"1073741824"},
                  {"lv_name":"b", "lv_size":"4194304"}
              ]
          }
      ]
  }
"""


def test_recorded_report() -> None:
    assert parse_volumes(REPORT) == {"zot-data": 1 << 30, "b": 4 << 20}
    assert parse_volumes(b'{"report":[{"lv":[]}]}') == {}


def test_every_command_sees_one_device_only() -> None:
    """Row 16 of the attacks, for data: another disk with a group of the same name."""
    argv = Group("machine-data", Path("/dev/vda4")).argv("lvs", "machine-data")
    assert argv[:2] == ["lvm", "lvs"]
    assert argv[argv.index("--devices") + 1] == "/dev/vda4"
    assert argv[-1] == "machine-data"
    assert "udev_sync=0" in argv[argv.index("--config") + 1]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", b"[]", b"{}", b'{"report":[]}', b'{"report":{}}', b'{"report":[{"lv":null}]}',
        b'{"report":[{"lv":["a"]}]}', b'{"report":[{"lv":[{"lv_name":"a"}]}]}',
        b'{"report":[{"lv":[{"lv_name":"a","lv_size":"1.5"}]}]}',
        b'{"report":[{"lv":[{"lv_name":[],"lv_size":"1"}]}]}',
        b'{"report":[{"lv":[{"lv_name":"a","lv_size":null}]}]}',
    ],
)  # fmt: skip
def test_another_shape(data: bytes) -> None:
    with pytest.raises(DocumentError):
        parse_volumes(data)


values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["report", "lv", "lv_name", "lv_size"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(values)
def test_any_document(value: object) -> None:
    for body in (value, {"report": [{"lv": value}]}, {"report": [{"lv": [value]}]}):
        try:
            parse_volumes(json.dumps(body).encode())
        except DocumentError:
            continue
