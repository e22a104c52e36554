from __future__ import annotations

import pytest

from machineos.host.unit import nft
from waiting import PATIENCE


def test_a_table_is_replaced_in_one_script() -> None:
    script = nft.replace_table("inet", "machineos", "  chain a {}\n")
    assert script.splitlines() == [
        "add table inet machineos",
        "delete table inet machineos",
        "table inet machineos {",
        "  chain a {}",
        "}",
    ]
    assert nft.argv_apply() == ["nft", "--file", "-"]
    assert nft.argv_apply(check_only=True) == ["nft", "--check", "--file", "-"]


@pytest.mark.root
@pytest.mark.tool("nft")
def test_nft_reads_our_table() -> None:
    from machineos.core import run
    from machineos.service.plan.network import FAMILY, TABLE, render_table

    script = nft.replace_table(FAMILY, TABLE, render_table([]))
    run.run(nft.argv_apply(check_only=True), input=script.encode(), timeout=PATIENCE)
