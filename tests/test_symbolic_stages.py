"""Steps in stages, on tensors: random means and products with computed values, against autograd."""

import torch
from derived import given_to
from hypothesis import given
from hypothesis import strategies as st

from fastrnn.kernels.symbolic.cell import Cell
from fastrnn.kernels.symbolic.gates import Gates, Product
from fastrnn.kernels.symbolic.program import cell_of, program_of

H, GATES, STATES = 4, 3, 2
LINES = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: torch.tanh(a) * b,
    "tanh": lambda a, b: torch.tanh(a - b),
    "mean": lambda a, b: b * a.mean(-1, keepdim=True),
    "centre": lambda a, b: a - a.mean(-1, keepdim=True),
    "norm": lambda a, b: torch.nn.functional.layer_norm(a, (H,), eps=0.5),
}
PLACE = st.integers(0, 100)


@st.composite
def cells(draw):
    """Cells whose gates are products with the first state or with what stands before them."""
    lines = draw(
        st.lists(st.tuples(st.sampled_from([*LINES, "product"]), PLACE, PLACE), max_size=9)
    )
    results = draw(st.lists(PLACE, min_size=1 + STATES, max_size=1 + STATES))

    def step(wx, uh, states, own, inputs):
        values, gates = [*wx, *states, *own, *inputs], list(range(GATES))
        for name, *places in lines:
            a, b = (values[-1 - place % len(values)] for place in places)
            if name in LINES:
                values.append(LINES[name](a, b))
            elif gates:
                values.append(uh(a, gates.pop()))
        output, *new = [values[-1 - place % len(values)] + states[0] for place in results]
        return output, tuple(new)

    return Cell(f"{lines}, {results}", step, gates=GATES, states=STATES, own=1, inputs=1)


def averaged(values):
    return [v.mean(-1, keepdim=True) for v in values]


def forward(cell, U, x, states, own, inputs):
    """(output, states, kept, factors, means), stage after stage, as an engine goes."""
    facts, means, h = cell.derivation, [None] * len(cell.derivation.means), [None] * GATES
    factors = [None] * cell.factors
    for stage in range(len(facts.early) + 1):
        for p in facts.products:
            if p.stage == stage:
                factor = states[0] if p.factor < 0 else factors[p.factor]
                for gate in range(p.first, p.first + p.count):
                    h[gate] = factor @ U[gate].T
        given = x, h, states, own, [*inputs, *means]
        if stage == len(facts.early):
            return *cell.functions["forward"](*given), factors, means
        found, sums = cell.functions[f"forward_{stage}"](*given)
        for i, value in zip(facts.early[stage][0], found, strict=True):
            factors[i] = value
        for i, value in zip(facts.early[stage][1], averaged(sums), strict=True):
            means[i] = value


def backward(cell, U, grads, kept, before, after, own, inputs, means):
    """Gradients of x, of each gate of h, of states, own and inputs."""
    facts, (dout, *dnew) = cell.derivation, grads
    after = [t if i in cell.after else None for i, t in enumerate(after)]
    dfactors, dh = [None] * cell.factors, [None] * GATES
    sums = [None] * sum(len(each) for _, each in facts.early_back)
    for stage in range(len(facts.early_back) + 1):
        more = [*inputs, *means, *sums]
        given = dout, dnew, [*kept, *dfactors], before, after, own, more
        if stage < len(facts.early_back):
            gates, numbers = facts.early_back[stage]
            found, values = cell.functions[f"backward_{stage}"](*given)
            for gate, d in zip(gates, found, strict=True):
                dh[gate] = d
            for i, value in zip(numbers, averaged(values), strict=True):
                sums[i] = value
            for factor in {p.factor for p in facts.back if p.factor >= 0 and p.stage == stage}:
                mine = [p for p in facts.back if p.factor == factor]
                gates = [g for p in mine for g in range(p.first, p.first + p.count)]
                dfactors[factor] = sum(dh[g] @ U[g] for g in gates)
    dgates, down, dinputs, dstates = cell.functions["backward"](*given)
    dh = [dgates[i] for i in cell.dh]
    first = sum(
        dh[g] @ U[g] for p in facts.back if p.factor < 0 for g in range(p.first, p.first + p.count)
    )
    return [*(dgates[i] for i in cell.dx), dstates[0] + first, *dstates[1:], *down, *dinputs]


@given(cells())
def test_stage_after_stage(cell):
    program = program_of(cell)
    assert program_of(cell_of(program)) == program
    U = torch.randn(GATES, H, H).double()
    x, _, states, own, inputs = given_to(cell, 3, H)
    grads = [torch.randn(3, H).double() for _ in range(1 + STATES)]
    flat = [t.requires_grad_() for t in (*x, *states, *own, *inputs)]

    def multiply(value, gate):
        return value @ U[gate].T

    uh = Product([multiply(states[0], g) for g in range(GATES)], multiply)
    output, new = cell.step(Gates(x), uh, states, own, inputs)
    results = [output, *new]
    exact = torch.autograd.grad(results, flat, grads, allow_unused=True)
    with torch.no_grad():
        found = forward(cell, U, x, states, own, inputs)
        ours, (_, means) = [found[0], *found[1]], found[3:]
        gradients = backward(cell, U, grads, found[2], states, found[1], own, inputs, means)
        whole = cell.whole(
            x, lambda value, first, count: [multiply(value, first + i) for i in range(count)],
            states, own, inputs,
        )  # fmt: skip
    for value, mine, at_once in zip(results, ours, [whole[0], *whole[1]], strict=True):
        torch.testing.assert_close(mine, value.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(at_once, value.detach(), rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(gradients, exact, strict=True):
        theirs = torch.zeros(3, H).double() if theirs is None else theirs
        torch.testing.assert_close(mine.expand(3, H), theirs, rtol=1e-10, atol=1e-10)
