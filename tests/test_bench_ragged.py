"""python -m bench.ragged: its rows, its table, and what it does about wrong results."""

import pytest

from bench import kinds, ragged, results


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The arguments of a small run; its rows go to the last of them."""
    monkeypatch.setattr(ragged, "SIZES", ((5, 3, 4),))
    monkeypatch.setattr(kinds, "ROUNDS", 1)
    return ["--layers", "gru", "--seconds", "0.001", "--out", str(tmp_path / "ragged.jsonl")]


def test_rows_and_table(small):
    assert ragged.main(small) == ragged.main(small) == 0
    rows = results.load(small[-1], ragged.what)  # the second run's are in the place of the first's
    assert [ragged.what(row) for row in rows] == [("GRU", mode, 1) for mode in ragged.MODES]
    for row in rows:
        assert not row["errors"]
        assert all(row[peer]["5x3x4"] > 0 for peer in ragged.PEERS)
    rows[0] |= {peer: {"5x3x4": 2.0} for peer in ragged.PEERS}
    assert "| GRU training, 1 thread | 2.00x / 2.00x (0.50), 2.00x |" in ragged.block(rows)


def test_wrong_results_are_a_fault(small, monkeypatch, capsys):
    monkeypatch.setattr(ragged, "wrong", lambda *given: "the output differs")
    assert ragged.main(small) == 1
    assert "the output differs" in capsys.readouterr().out
    assert not results.load(small[-1], ragged.what)[0]["dense"]
