# SPDX-License-Identifier: MIT
"""``make soak`` in short: it runs, and it can tell a loss."""

from pathlib import Path

import pytest

from scripts.soak import all as soak


@pytest.mark.slow
def test_some_of_each(tmp_path: Path) -> None:
    runs = soak.Soak(tmp_path, ["simclr"], seed=0)
    rows = [runs.kills(1), runs.moments(1)]
    assert [row.lost for row in rows] == [[], []]
    assert sum(row.equal for row in rows) == 2
    assert "| 1 | 1 | 0 | 0 |" in rows[0].line()


def test_other_weights_are_told(tmp_path: Path) -> None:
    from ltplugins.runs.seal import save_sealed

    content = {"state_dict": {"w": 1}, "optimizer_states": [], "lr_schedulers": [{"a": 1}]}
    for name, step in (("one", 1), ("two", 2), ("same", 1)):
        save_sealed({**content, "global_step": step}, tmp_path / name / "checkpoints/last.ckpt")
    assert soak.is_same(tmp_path / "one", tmp_path / "same")
    assert not soak.is_same(tmp_path / "one", tmp_path / "two")
