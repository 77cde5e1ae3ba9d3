"""python -m bench --cells zoo: its rows, its table, and what it does about wrong results."""

import pytest

from bench import kinds, results, zoo

# torch.compile itself asks for it, of a state that a step before has made
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The arguments of a small run; its rows go to the last of them."""
    monkeypatch.setattr(zoo, "SIZES", ((3, 2, 4), (4, 1, 4)))
    monkeypatch.setattr(kinds, "ROUNDS", 1)
    out = str(tmp_path / "zoo.jsonl")
    return ["--cells", "zoo", "--layers", "indrnn", "--seconds", "0.001", "--out", out]


def test_rows_and_table(small):
    assert zoo.main(small) == zoo.main(small) == 0
    rows = results.load(small[-1], zoo.what)  # the second run's are in the place of the first one's
    assert [zoo.what(row) for row in rows] == [("IndRNN", m, 1) for m in zoo.MODES]
    for row in rows:
        assert not row["errors"]
        for peer in zoo.PEERS:
            assert set(row[peer]) == {"3x2x4", "4x1x4"}
            assert min(row[peer].values()) > 0
    rows[0] |= {"loop_s": {"3x2x4": 6e-4}, "loop": {"3x2x4": 20.0}, "compiled": {"3x2x4": 4.0}}
    text = zoo.block(rows)
    assert "20.0x / 4.0x (10.0)" in text
    assert rows[0]["cpu"] in text


def test_wrong_results_are_a_fault(small, monkeypatch, capsys):
    monkeypatch.setattr(zoo, "wrong", lambda *given: "the output differs")
    assert zoo.main(small) == 1
    assert "the output differs" in capsys.readouterr().out
    rows = results.load(small[-1], zoo.what)
    assert rows[0]["errors"] == dict.fromkeys(("3x2x4", "4x1x4"), "the output differs")
    assert not rows[0]["loop"]
    zoo.block(rows)  # an empty table, not an error
