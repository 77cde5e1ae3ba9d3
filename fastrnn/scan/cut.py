"""A step cut in three: before the loop, the loop, and after it."""

import torch

from .. import backends
from ..functional import stack, stack_on_gpu, steps_of
from ..kernels.keep import Keep
from ..kernels.symbolic.refusals import Refused
from ..kernels.weights import Weights
from ..tracing import tracing
from .loop import Loop
from .node import FIXED, STATE, X, ancestors, refused
from .rows import Stage


class Cut:
    """How a step runs on a whole sequence. Raises Refused where it cannot.

    tape: a Tape of the step; y, new: the nodes of its output and of its new states.
    """

    def __init__(self, tape, y, new, name):
        self.tape, self.y, self.new = tape, y, new
        self._check_states()
        self.loop = Loop(tape, new, None, name)
        main = self.loop.order[0]
        self.made, self.before = new[main], tape.states[main]  # whose rows are known after the loop
        after = self._after({self.made, self.before})
        if after is None:
            self.made, after = self._apart(name)
        self.cell = self.loop.cell()
        self._stages(after)

    def _check_states(self):
        for old, new in zip(self.tape.states, self.new, strict=True):
            if new.shape != old.shape:
                raise refused(f"a state of {old.shape} becomes one of {new.shape}", new.place)
            if len(old.shape) != 2 or old.shape != self.new[0].shape:
                raise refused(f"states that are not all (B, H), but {old.shape}", new.place)
            if not (old.dtype.is_floating_point and new.dtype.is_floating_point):
                raise refused(f"a state of {old.dtype} becomes one of {new.dtype}", new.place)

    def _after(self, known):
        """What of y is left to compute from x and these; None if another state is needed."""
        if self.y.kind != STATE:
            return []
        found = ancestors([self.y], known)
        if any(node in self.tape.states for node in found):
            return None
        return [node for node in found if node.kind == STATE]

    def _apart(self, name):
        """(a value that the loop can give and all of y comes through, what is left)."""
        for node in ancestors([self.y], ()):
            if node.shape == self.new[0].shape and node.kind == STATE:
                after = self._after({node})
                if after is not None:
                    self.loop = Loop(self.tape, self.new, node, name)
                    self.before = None
                    return node, after
        raise refused("the output is made of several states: a loop gives one", self.y.place)

    def _stages(self, after):
        loop, x = self.loop, self.tape.x
        self.runs = _runs(loop, loop.xs), _runs(loop, loop.gates)
        read = [node for node in (loop.source, self.y) if node]
        read += [node for node, _ in loop.planes + loop.own] + [
            n for a in after for n in a.inputs()
        ]
        wanted = {node for node in read if node.kind == X} - {x}
        before = [node for node in ancestors(wanted, {x}) if node.kind == X]
        self.stages = Stage(before, wanted, x), Stage(after, {self.y}, x)
        read += [n for node in (*before, *after) for n in node.inputs()]
        products = [product for runs in self.runs for product, _, _ in runs]
        read += [n for p in products for n in (p.weight, p.bias) if n]
        self.fixed = ancestors([node for node in read if node.kind == FIXED], ())

    @torch.no_grad()
    def try_out(self, xs, states):
        """Raise Refused if torch cannot run something step by step in one call."""
        if not all(stage.flat for stage in self.stages):
            try:
                self.run(xs, states)
            except RuntimeError as error:
                first, *_ = str(error).splitlines()
                raise Refused(
                    f"torch.vmap cannot run what is beside the recurrence: {first}"
                ) from error

    def run(self, xs, states):
        """(ys, new states), of xs (T, B, ...) and the states (B, H)."""
        values = {}
        for node in self.fixed:
            values[node] = node.compute(values) if node.func else node.args[0]
        rows = {self.tape.x: xs}
        before, after = self.stages
        before.run(values, rows)
        out, finals = self._looped(values, rows, [states[i] for i in self.loop.order])
        rows[self.made] = out.to(self.made.dtype)
        if self.before in (self.y, *after.given):
            first = states[self.loop.order[0]]
            rows[self.before] = torch.cat([first[None].to(out.dtype), out[:-1]])
        after.run(values, rows)
        T = xs.shape[0]
        y = rows[self.y] if self.y.kind != FIXED else torch.stack([values[self.y]] * T)
        final = dict(zip(self.loop.order, finals, strict=True))
        return y, [final[i].to(node.dtype) for i, node in enumerate(self.new)]

    def _looped(self, values, rows, states):
        """(the sequence that the loop gives, the last states), both in the loop's order."""
        loop, xs = self.loop, rows[self.tape.x]
        (T, B), H, device = xs.shape[:2], loop.H, xs.device.type
        x = rows[loop.source] if loop.source else states[0].new_zeros(T, B, 1)
        ih, b_ih = _side(self.runs[0], values, self.cell.gates * H, states[0].new_zeros)
        if ih is None:
            ih = states[0].new_zeros(self.cell.gates * H, 1)
        hh, b_hh = _side(self.runs[1], values, 0, states[0].new_zeros)
        if hh is not None and (b_ih is None) != (b_hh is None):  # engines take both or none
            zeros = states[0].new_zeros(len(ih))
            b_ih, b_hh = zeros if b_ih is None else b_ih, zeros if b_hh is None else b_hh
        own = [_units(values[node], start, H).reshape(-1) for node, start in loop.own]
        own = [each.expand(H).to(ih.dtype) for each in own]
        planes = [
            _units(rows[node] if node.kind == X else values[node], start, H)
            for node, start in loop.planes
        ]
        planes = [plane.expand(T, B, H).to(x.dtype) for plane in planes]
        planes = [torch.stack(planes, 2).view(T * B, -1, H)] if planes else []
        weights = Weights(ih, hh, b_ih, b_hh, None, torch.stack(own) if own else None)
        states = [s.unsqueeze(0) for s in states]
        layer = self.cell, T, 1
        choice = backends.choose((x, *states, *weights, *planes), False, layer, tracing(x))
        engine = choice.name if choice.name != "torch" else "reference"
        dtype = None
        if torch.is_autocast_enabled(device) and engine in ("numba", "triton"):
            dtype = torch.float16 if engine == "triton" else torch.get_autocast_dtype("cpu")
        steps = steps_of(T, x, None, states, tracing(x))
        x = x.contiguous() if engine == "numba" else x.reshape(T * B, -1)
        run = stack_on_gpu if engine == "triton" else stack
        given = steps, [weights], states, 1, 0.0, dtype, Keep.ALL, planes
        out, finals = run(engine, self.cell, x, *given)
        return out.view(T, B, H), [final.squeeze(0) for final in finals]


def _runs(loop, keys):
    """[(product, first row, last row + 1)] of gates, in their order."""
    found = []
    for node, start in keys:
        stop = start + loop.H
        if found and found[-1][0] is node and found[-1][2] == start:
            start = found.pop()[1]
        found.append((node, start, stop))
    return [(loop.product(node), start, stop) for node, start, stop in found]


def _side(runs, values, rows, zeros):
    """The weights and biases of the gates of one side, filled up with zeros to so many rows."""
    ws, bs = [], []
    for product, start, stop in runs:
        ws.append(values[product.weight])
        bs.append(product.bias and values[product.bias])
        if stop - start < len(ws[-1]):
            ws[-1], bs[-1] = ws[-1][start:stop], bs[-1] if bs[-1] is None else bs[-1][start:stop]
        rows -= stop - start
    if not ws:
        return None, None
    if rows > 0:
        ws, bs = [*ws, zeros(rows, ws[0].shape[1])], [*bs, None]
    if all(b is None for b in bs):
        b = None
    else:
        bs = [zeros(len(w)) if b is None else b for w, b in zip(ws, bs, strict=True)]
        b = bs[0] if len(bs) == 1 else torch.cat(bs)
    return ws[0] if len(ws) == 1 else torch.cat(ws), b


def _units(tensor, start, H):
    """H columns of a tensor, or the only one."""
    if tensor.dim() == 0 or tensor.shape[-1] in (1, H):
        return tensor
    return tensor[..., start : start + H]
