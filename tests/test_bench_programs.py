"""python -m bench.programs: the phases of a program, and the table."""

from time import sleep

import pytest

from bench.programs import phases, table


def test_a_phase_is_what_all_its_runs_take():
    phases.SECONDS.clear()
    for _ in range(2):
        with phases.phase("sleeping"):
            sleep(0.01)
    assert list(phases.SECONDS) == ["sleeping"]
    assert 0.02 <= phases.SECONDS["sleeping"] < 1


@pytest.mark.parametrize(
    ("more", "cell"),
    [
        ({}, "| 2.00x |"),
        ({"phases": {}}, "| 2.00x |"),
        (
            {"phases": {"train()": {"torch_nn": 1.0, "fastrnn": 0.25}}},
            "| 2.00x; train() alone 4.00x |",
        ),
    ],
)
def test_table(more, cell):
    row = dict(program="p", package="q", version="1", what="w", changed={"": "A", "b": "LSTM"})
    row |= {"losses": {"fastrnn": [2.0, 1.0]}, "apart": 0.0, "threads": 1, "torch": "2", "cpu": "c"}
    row |= {"seconds": {"torch_nn": 3.0, "fastrnn": 1.5}}
    rows = [row | {"commit": commit} | more for commit in ("old", "new")]
    text = table.block(rows)
    assert text.count(f"| q 1: w | 1 A, 1 LSTM | 2.0000 to 1.0000 | 0e+00 {cell}") == 2
    assert "commit old, new, by" in text
