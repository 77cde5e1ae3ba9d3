"""A short run of the fuzz command, and that it finds what it is there to find."""

import pytest
import torch

from fastrnn.kernels.cpu.host import cell_calls, layer_calls
from tests.fuzz import __main__ as command
from tests.fuzz.cases import draw
from tests.fuzz.judge import worst


@pytest.mark.parametrize("first", range(0, 150, 25))
def test_random_configurations(first, capsys):
    status = command.main(["--first", str(first), "--count", "25"])
    assert status == 0, capsys.readouterr().out


def test_a_number_is_always_the_same_configuration():
    assert draw(0, 17) == draw(0, 17) != draw(1, 17)
    assert len({str(draw(0, i)) for i in range(100)}) == 100


def first_where(condition):
    return next(i for i in range(1000) if condition(draw(0, i)))


def plain(case):
    """A layer in training on float32 numbers with nothing special about them."""
    return (
        not (case.cell or case.extremes or case.mistake or case.lengths)
        and case.dtype == torch.float32
        and case.grad == "train"
        and case.frozen == 0
        and min(case.I, case.H, case.T, case.B or 0) > 2
    )


def wrong_numbers(result):
    result[0].mul_(1.001)


def stray_writes(result):
    y = result[0]
    if y.storage_offset():  # where there is memory behind it that is not somebody else's
        torch.as_strided(y, (1,), (1,), y.storage_offset() + y.numel()).fill_(0)


def other_bits(result):
    if torch.get_num_threads() == 2:
        y = result[0]
        y.copy_(torch.nextafter(y, torch.ones_like(y)))


FAULTS = {
    wrong_numbers: "times the error of torch.nn",
    stray_writes: "writes outside of its memory",
    other_bits: "on two threads: other bits in output",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_finds(fault, monkeypatch, capsys):
    forward = layer_calls.forward

    def faulty(*args):
        result = forward(*args)
        fault(result)
        return result

    monkeypatch.setattr(layer_calls, "forward", faulty)
    number = first_where(plain)
    assert command.main(["--only", f"0/{number}"]) == 1
    said = capsys.readouterr().out
    assert f"--only 0/{number}: " in said
    assert FAULTS[fault] in said


def test_an_exception_is_a_fault(monkeypatch, capsys):
    monkeypatch.setattr(cell_calls, "forward", lambda *args: 1 // 0)
    number = first_where(lambda case: case.cell and case.dtype == torch.float32 and case.I)
    assert command.main(["--only", f"0/{number}"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_bad_options(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--only", "what"])
    assert "two numbers" in capsys.readouterr().err


def test_what_is_not_finite_is_compared():
    """Where torch agrees that the truth is not finite, nothing else will do."""
    nan, inf = torch.nan, torch.inf
    exact = torch.tensor([1.0, nan, inf, 1e300], dtype=torch.float64)
    theirs = torch.tensor([1.5, nan, inf, inf])
    assert worst(torch.tensor([1.25, nan, inf, 3.0]), theirs, exact) == (0.25, 1.0)
    for wrong in ([nan, nan, inf, 0], [1, 0, inf, 0], [1, nan, -inf, 0], [inf, nan, inf, 0]):
        assert worst(torch.tensor(wrong), theirs, exact)[0] == inf
