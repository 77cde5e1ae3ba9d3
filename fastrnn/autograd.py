"""One autograd function for every cell and every engine that has a hand-written backward."""

import torch

from . import backends, profiling, substitute
from .kernels import reference
from .kernels.cells import key_of
from .kernels.keep import Keep
from .kernels.refused import Refused
from .kernels.untraced import untraced
from .kernels.weights import split
from .tracing import plain

LEADING = 3  # arguments of Layer that are no tensors


class Call:
    """A layer on an engine, but for its tensors: x, the states, torch's flat list of weights, and
    what its steps are given beside x, if they are given anything.

    Of what known.py knows there may be several layers, each with D directions. every: whether all
    states after each step are results, too, but for the output, if that is the first of them.
    """

    layers, every = 1, False

    def __init__(self, engine, cell, steps, D, every=False):
        self.engine, self.cell, self.steps, self.D, self.every = engine, cell, steps, D, every

    def apart(self, tensors):
        """(x, states, a Weights for each direction of each layer, inputs)."""
        cell, first, inputs = self.cell, 1 + self.cell.states, None
        if cell.inputs:
            *tensors, inputs = tensors
        directions = split(tensors[first:], self.layers * self.D, cell)
        return tensors[0], tensors[1:first], directions, inputs

    def forward(self, keep, tensors, _, words=""):
        """(output, the other results, what to keep for backward); words: for profilers."""
        x, states, directions, inputs = self.apart(tensors)
        keep, engine = (keep or Keep.ALL) if self.every else keep, backends.load(self.engine)
        given = self.cell, x, self.steps, directions, states, keep, inputs
        y, finals, kept = profiling.layer(engine.layer, words, *given)
        if self.every:
            after, extra = engine.every_state(*given, kept)
            found = [after] if self.cell.apart else []
            found += [] if extra is None else extra.unbind(2)
            finals = *finals, *[torch.cat(state.unbind(), 1) for state in found]
        return y, finals, kept

    def backward(self, keep, tensors, kept, grads, needed):
        """The gradients of the tensors, None for those not ``needed``; grads: of the results."""
        x, states, directions, inputs = self.apart(tensors)
        grads, dstates = grads[: 1 + len(states)], grads[1 + len(states) :]
        if self.engine != "numba":  # which makes its own zeros
            grads = materialized(grads, x, states)
        run = backends.load(self.engine).gradients
        need_x, _, need_weights, need_inputs = self.apart(needed)
        given = self.cell, x, self.steps, directions, states, keep, kept, grads, need_x
        given = *given, need_weights, inputs, bool(need_inputs)
        given = (*given, self._as_kept(dstates)) if self.every else given
        try:
            dx, dstates, dweights, dinputs = profiling.layer(run, " backward", *given)
        except Refused as refused:
            substitute.tell(refused, self.cell)
            grads = materialized([*grads, *dstates], x, states)
            return self.in_its_place(tensors, needed, grads)
        pairs = zip(sum(dweights, ()), sum(directions, ()), strict=True)
        found = [dx, *dstates, *[gradient for gradient, weight in pairs if weight is not None]]
        found += [dinputs] * bool(self.cell.inputs)
        return [g if n else None for g, n in zip(found, needed, strict=True)]

    def in_its_place(self, tensors, needed, grads):
        """As ``backward``, not by the engine, and from nothing that it has kept."""

        def again(*tensors):
            x, states, directions, inputs = self.apart(tensors)
            given = self.cell, x, self.steps, directions, states, inputs
            return substitute.layer(*given, self.every)

        # an operator runs below autograd, which is wanted here
        key = torch._C.DispatchKey.AutogradFunctionality
        with torch._C._SetExcludeDispatchKeyGuard(key, False):
            # in a compiled graph tensors have lost what they were made of
            apart = [t.detach().requires_grad_(n) for t, n in zip(tensors, needed, strict=True)]
            found = substitute.differentiable(again, apart, needed, grads)
        pairs = zip(found, tensors, needed, strict=True)
        return [t.new_zeros(t.shape) if g is None and n else g for g, t, n in pairs]

    def _as_kept(self, dstates):
        """The gradients of every state as the engine keeps these."""
        rows = [None if g is None else torch.stack(g.chunk(self.D, 1)) for g in dstates]
        after = rows.pop(0) if self.cell.apart else None
        if not any(g is not None for g in rows):
            return after, None
        like = next(g for g in rows if g is not None)
        rows = [torch.zeros_like(like) if g is None else g for g in rows]
        return after, torch.stack(rows, 2)


def run_layer(
    engine, cell, x, steps, directions, states, keep=Keep.ALL, inputs=None, every=False
):  # fmt: skip
    """One layer on the engine of that name, shapes as in its module: (output, final states); and,
    if ``every``, the states after each step, shaped as the output.

    keep: how much of it to keep for backward, where there will be one.
    """
    if engine == "reference":
        given = cell, x, steps, directions, states, inputs
        return profiling.layer(reference.layer, "", *given, every)
    tensors = [x, *states, *[w for each in directions for w in each if w is not None]]
    tensors += [inputs] * bool(cell.inputs)
    y, *finals = run(Call(engine, cell, steps, len(directions), every), keep, tensors)
    if not every:
        return y, finals
    first = [] if cell.apart else [y]
    return y, finals[: cell.states], (*first, *finals[cell.states :])


def run(call, keep, tensors, through=None):
    """(output, *final states) of a Call. through: what the gate says of the tensors, if asked."""
    if torch.is_grad_enabled():
        for t in tensors:
            if t.requires_grad:
                return Layer.apply(call, keep, through, *tensors)
    y, finals, _ = call.forward(Keep.NOTHING, tensors, through)
    return y, *finals


def save(ctx, *tensors):
    """ctx.save_for_backward, but for None: who looks at what is saved expects tensors."""
    ctx.absent = [i for i, t in enumerate(tensors) if t is None]
    ctx.save_for_backward(*[t for t in tensors if t is not None] if ctx.absent else tensors)


def saved(ctx):
    """What was given to ``save``, as a list."""
    tensors = list(ctx.saved_tensors)
    for i in ctx.absent:
        tensors.insert(i, None)
    return tensors


class Layer(torch.autograd.Function):
    """apply(call, keep, through, *tensors) -> (output, *final states), as ``run``."""

    @staticmethod
    @untraced
    def forward(ctx, call, keep, through, *tensors):
        y, finals, kept = call.forward(keep, tensors, through)
        ctx.call, ctx.keep, ctx.count = call, keep, len(tensors)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *kept)
        return y, *finals

    @staticmethod
    @untraced
    def backward(ctx, *grads):
        call, saved = ctx.call, ctx.saved_tensors
        tensors, kept = saved[: ctx.count], saved[ctx.count :]
        needed = ctx.needs_input_grad[LEADING:]
        # create_graph asks for a backward that can be differentiated; other gradients, as vmap's
        # and subclasses', know only torch's operations
        if torch.is_grad_enabled() or not plain(grads):
            x, states, _, _ = call.apart(tensors)
            grads = materialized(grads, x, states, call.layers)

            def again(*tensors):
                x, states, directions, inputs = call.apart(tensors)
                given = call.cell, x, call.steps, directions, states, inputs
                return substitute.layers_by_reference(*given, call.layers, call.every)

            found = substitute.differentiable(again, tensors, needed, grads)
        elif torch._C._len_torch_dispatch_stack() and not call.every:
            found = _watched(call, ctx.keep, tensors, kept, grads, needed)
        else:
            found = call.backward(ctx.keep, tensors, kept, grads, needed)
        return *[None] * LEADING, *found


def materialized(grads, x, states, layers=1):
    """The gradients of a Call's results, with zeros for None: x's dtype for the output, and the
    states' for others.
    """
    count, _, S = states[0].shape
    results = [(x, (*x.shape[:-1], count // layers * S)), *((s, s.shape) for s in states)]
    if every := len(grads) - len(results):
        rows = x.shape[:-1].numel()
        results += [(s, (rows, count * s.shape[2])) for s in states[-every:]]
    return [
        like.new_zeros(shape) if g is None else g
        for g, (like, shape) in zip(grads, results, strict=True)
    ]


def _watched(call, keep, tensors, kept, grads, needed):
    """The gradients by the operator of operators.py, which is what a dispatch mode can see."""
    cell, steps, layers, first = call.cell, call.steps, call.layers, 1 + call.cell.states
    *tensors, beside = tensors if cell.inputs else (*tensors, None)
    (x, *states), weights = tensors[:first], tensors[first:]
    dy, *dfinals = materialized(grads, x, states, layers)
    inputs, each, found = [x.flatten(0, -2)], len(weights) // layers, []
    if layers > 1:
        *kept, between = kept
        inputs += between.unbind()
    parts = zip(*(t.chunk(layers) for t in (*states, *dfinals, *kept)), strict=True)
    operators, sizes = torch.ops.fastrnn, None if steps.dense else steps.batch_sizes
    run = operators.layer_gradients if steps.dense else operators.layer_packed_gradients
    dy = dy.flatten(0, -2)
    for i, part in reversed(list(enumerate(parts))):
        mine = slice(i * each, i * each + each)
        there = [i > 0 or needed[0], *needed[1:first], *needed[first:][mine]]
        there += needed[-1:] * bool(cell.inputs)
        ends, rest = [dy, *part[first - 1 :][: first - 1]], part[2 * first - 2 :]
        given = inputs[i], sizes, part[: first - 1], weights[mine], rest, ends, there, beside
        computed = iter(run(call.engine, key_of(cell), int(keep), *given))
        dy, *others = [next(computed) if n else None for n in there]
        found.insert(0, others)
    dstates = zip(*[others[: first - 1] for others in found], strict=True)
    dstates = [None if d[0] is None else torch.cat(d) for d in dstates]
    dx = dy.view_as(x) if needed[0] else None
    return [dx, *dstates, *[g for others in found for g in others[first - 1 :]]]
