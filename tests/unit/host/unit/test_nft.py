from __future__ import annotations

from machineos.core.command import Command
from machineos.host.unit import nft


def test_a_table_is_replaced_in_one_script() -> None:
    script = nft.replace_table("inet", "machineos", "  chain a {}\n")
    assert script.splitlines() == [
        "add table inet machineos",
        "delete table inet machineos",
        "table inet machineos {",
        "  chain a {}",
        "}",
    ]
    assert nft.apply("x é") == Command(("nft", "--file", "-"), 30.0, input="x é".encode())
