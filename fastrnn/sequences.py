"""A call of a layer, whatever form its sequences have: checked, and as rows in time order."""

from functools import cache, partial

import torch
from torch.nn.utils.rnn import PackedSequence

from . import backends
from .functional import steps_of
from .kernels import reference, schedule
from .kernels.cells import cell_of, key_of
from .kernels.form import Matrix
from .kernels.weights import Weights
from .shapes import widths_of
from .tracing import constant, tracing


class Call:
    """The arguments of a call of a Recurrent module, as engines take them.

    x: (T, B, I), or (N, I) if packed; steps: its Steps; states: (layers * D, B, H) each;
    directions: a Weights for each layer and direction; planes: for each layer, what its steps are
    given beside x, (N, number, H). Raises RuntimeError, TypeError or ValueError for what does not
    fit, as torch.nn's layers do.
    """

    def __init__(self, module, input, hx, inputs):
        self.module, self.form, self.packed = module, input, isinstance(input, PackedSequence)
        if not self.packed and not isinstance(input, torch.Tensor):
            kind = type(input).__name__
            raise TypeError(f"{self._name} takes a tensor or a PackedSequence, not a {kind}")
        self.single = not self.packed and input.dim() == 2
        x = input.data if self.packed else self._laid_out(input)
        if x.dim() != 3 - self.packed or x.shape[-1] != module.input_size:
            raise ValueError(
                f"{self._name} takes (T, B, {module.input_size}), batch_first "
                f"(B, T, {module.input_size}), or unbatched (T, {module.input_size}), not "
                f"{tuple(input.data.shape if self.packed else input.shape)}"
            )
        self.x, sizes = x, input.batch_sizes if self.packed else None
        T = len(sizes) if self.packed else x.shape[0]
        if not self.packed and T == 0:
            raise RuntimeError(f"{self._name} takes a sequence of one step or more")
        self.directions = self._directions()
        own = self.directions[0].ih.dtype
        if x.dtype != own and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(
                f"{self._name} has weights of {own}, and not of {x.dtype} as its input: "
                f"convert that, input.to({own}), or the layer"
            )
        self.states = self._states(hx, int(sizes[0]) if self.packed else x.shape[1])
        self.steps = steps_of(T, x, sizes, self.states, tracing(x))
        self.planes = self._planes(inputs)

    def served(self, cell):
        """The Choice of an engine for it."""
        tensors = self.x, *self.states
        if not isinstance(self.directions[0].ih, Matrix):  # which go with any dtype
            tensors = *tensors, *[t for w in self.directions for t in w], *self.planes
        layer = cell, self.steps.T, 1 + self.module.bidirectional
        return backends.choose(tensors, False, layer, tracing(self.x))

    @property
    def _name(self):
        return type(self.module).__name__

    def _names(self):
        return type(self.module).signature.states

    def _directions(self):
        return self.module.directions()

    def _laid_out(self, tensor):
        """(T, B, ...) of what the caller has in the form of ``input``."""
        if self.single:
            return tensor.unsqueeze(1) if tensor.dim() else tensor
        if self.module.batch_first and tensor.dim() > 1:
            return tensor.transpose(0, 1)
        return tensor

    def _sorted(self, tensor):
        """(..., B, ...) with the sequences in the order in which they are packed."""
        order = self.form.sorted_indices if self.packed else None
        return tensor if order is None else tensor.index_select(1, order)

    def _states(self, hx, B):
        names, count = self._names(), len(self.directions)
        shapes = [(count, B, width) for width in widths_of(self.module)]
        if hx is None:
            dtype = self.directions[0].ih.dtype
            return [self.x.new_zeros(shape, dtype=dtype) for shape in shapes]
        states = (hx,) if isinstance(hx, torch.Tensor) else tuple(hx)
        if len(states) != len(names):
            raise ValueError(
                f"{self._name}: hx should have {len(names)} states, {', '.join(names)}; "
                f"it has {len(states)}"
            )
        found = []
        for name, state, shape in zip(names, states, shapes, strict=True):
            want = (count, shape[2]) if self.single else shape
            if state.shape != want:
                raise RuntimeError(
                    f"{self._name}: state {name} of hx should be {want}, not {tuple(state.shape)}"
                )
            found.append(self._sorted(state.view(shape)))
        return found

    def _planes(self, inputs):
        """For each layer the inputs of its steps side by side."""
        names = type(self.module).signature.inputs
        if not names and not inputs:
            return []
        steps, module = self.steps, self.module
        inputs = {name: self._given(name, value) for name, value in inputs.items()}
        like = self.x.new_empty(1).expand(steps.T, steps.B, module.hidden_size)
        planes = []
        for layer in range(module.num_layers):
            given = module.inputs_for(layer, like, **inputs)
            if set(given) != set(names):
                raise self._misnamed(given)
            each = [self._plane(name, given[name], like) for name in names]
            planes.append(torch.stack(each, -2).reshape(steps.N, len(names), like.shape[-1]))
        return planes

    def _misnamed(self, given):
        """The error for inputs that a step does not have, or that it lacks."""
        says = type(self.module).signature
        return TypeError(
            f"{says.place} has the inputs {', '.join(says.inputs) or 'none'}; "
            f"it is given {', '.join(given) or 'none'}"
        )

    def _given(self, name, value):
        """An input of the call, time first, its sequences in order; the rows of a packed one."""
        if not isinstance(value, (PackedSequence, torch.Tensor)):
            if name not in type(self.module).signature.inputs:
                raise self._misnamed([name])
            kind = type(value).__name__
            raise TypeError(f"{self._name}: the input {name} should be a tensor, not a {kind}")
        if not isinstance(value, PackedSequence):
            if self.packed and value.dim() < 3:
                return value
            value = self._laid_out(value)
            return self._sorted(value) if self.packed and value.shape[1] > 1 else value
        mine = self.form
        if not (
            self.packed
            and _same(value.batch_sizes, mine.batch_sizes)
            and _same(value.sorted_indices, mine.sorted_indices)
        ):
            raise ValueError(f"{self._name}: the input {name} is not packed as the sequence is")
        return value.data

    def _plane(self, name, value, like):
        """One input, for every unit of every row."""
        rows = (*self.x.shape[:-1], like.shape[-1])
        found = value.to(like.dtype)
        if found.dim() == len(rows) - 1:
            found = found.unsqueeze(-1)
        try:
            if self.packed and found.dim() == 3:
                found = found.expand(*like.shape[:2], found.shape[-1])[self._places()]
            return found.expand(rows)
        except RuntimeError:
            raise ValueError(
                f"{self._name}: the input {name} should be (T, B), or what can be expanded to "
                f"{tuple(like.shape)}, not {tuple(value.shape)}"
            ) from None

    def _places(self):
        """(step, sequence) of each row of a packed sequence: two tensors."""
        sizes, N, device = self.form.batch_sizes, self.steps.N, self.x.device
        step = torch.repeat_interleave(torch.arange(len(sizes)), sizes, output_size=N)
        sequence = torch.arange(N) - (sizes.cumsum(0) - sizes)[step]
        return step.to(device), sequence.to(device)

    def rows(self, engine):
        """x as the engine takes it: the CPU engine a dense batch as it is, the others its rows."""
        whole = self.packed or (engine == "numba" and not tracing(self.x))
        return self.x.contiguous() if whole else self.x.reshape(-1, self.x.shape[-1])

    def dtypes(self, cell):
        """(what an engine of ours computes in, None for x's dtype; the dtypes of the results)."""
        kind, given = self.x.device.type, (self.x.dtype, *[s.dtype for s in self.states])
        if not torch.is_autocast_enabled(kind):
            return None, given
        to = torch.get_autocast_dtype(kind)
        own = self.directions[0].ih.dtype
        T = 1 if self.steps.T == 1 else 2
        return to, _of_a_loop(key_of(cell), T, kind, to, own, given)

    def results(self, y, finals, dtypes=None, afters=()):
        """(output, final states) in the form of the input; dtypes: of these. And, if there are any,
        the states after each step: a tensor, or a PackedSequence, for each of the cell's.
        """
        order = self.form.unsorted_indices if self.packed else None
        if order is not None:
            finals = [s.index_select(1, order) for s in finals]
        if dtypes is not None:
            pairs = zip((y, *finals), dtypes, strict=True)
            y, *finals = [t if t.dtype == d else t.to(d) for t, d in pairs]
            afters = [t.to(d) for t, d in zip(afters, dtypes[1:], strict=False)]
        if self.single:
            finals = [s.squeeze(1) for s in finals]
        y, *afters = map(self._formed, (y, *afters))
        states = [each[0] if len(each) == 1 else tuple(each) for each in (finals, afters) if each]
        return y, *states

    def _formed(self, y):
        """An output in the form of the input."""
        if self.packed:
            form = self.form
            return PackedSequence(y, form.batch_sizes, form.sorted_indices, form.unsorted_indices)
        y = y if y.dim() == 3 else y.view(self.steps.T, self.steps.B, y.shape[-1])
        if self.single:
            return y.squeeze(1)
        return y.transpose(0, 1) if self.module.batch_first else y


def _same(a, b):
    """Whether two tensors, or None, are equal; of what is traced, as far as a trace knows."""
    if a is None or b is None or a is b:
        return a is b
    return a.shape == b.shape and (tracing(a) or torch.equal(a, b))


@constant
@cache
def _of_a_loop(key, T, kind, to, own, given):
    """The dtypes that plain PyTorch's results have under autocast: no rule tells them, so it is
    asked.

    given: the dtypes of x and the states; own: of weights.
    """
    cell, zeros = cell_of(key), partial(torch.zeros, device=kind)
    x, *states = given
    G, H = cell.gates, 2
    weights = Weights(
        zeros(G * H, 1, dtype=own), zeros(G * H, H, dtype=own) if cell.recurrent else None,
        None, None, None, zeros(cell.own, H, dtype=own) if cell.own else None,
    )  # fmt: skip
    inputs = zeros(cell.heads * T, cell.inputs, H, dtype=x) if cell.inputs else None
    states = [zeros(1, 1, H, dtype=d) for d in states]
    with torch.no_grad(), torch.autocast(kind, to):
        y, finals = reference.layer(
            cell, zeros(T, 1, dtype=x), schedule.Traced(T, 1, T), [weights], states, inputs
        )
    return y.dtype, *[s.dtype for s in finals]
