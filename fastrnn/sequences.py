"""A call of a layer, whatever form its sequences have: checked, and as rows in time order."""

import torch
from torch.nn.utils.rnn import PackedSequence

from .functional import steps_of
from .tracing import tracing


class Call:
    """The arguments of a call of a Recurrent module, as engines take them.

    x: (T, B, I), or (N, I) if packed; steps: its Steps; states: (layers * D, B, H) each;
    directions: a Weights for each layer and direction; planes: for each layer, what its steps are
    given beside x, (N, number, H). Raises RuntimeError, TypeError or ValueError for what does not
    fit, as torch.nn's layers do.
    """

    def __init__(self, module, input, hx, inputs):
        self.module, self.packed = module, isinstance(input, PackedSequence)
        self.form = input
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
        self.directions = module.directions()
        B = None if sizes is None else int(sizes[0])
        self.states = self._states(hx, x.shape[1] if B is None else B)
        self.steps = steps_of(T, x, sizes, self.states, tracing(x))
        self.planes = self._planes(inputs)

    @property
    def _name(self):
        return type(self.module).__name__

    def _laid_out(self, tensor):
        """(T, B, ...) of what the caller has in the form of ``input``."""
        if self.single:
            return tensor.unsqueeze(1)
        return tensor.transpose(0, 1) if self.module.batch_first else tensor

    def _states(self, hx, B):
        module, names = self.module, type(self.module).signature.states
        shape = len(self.directions), B, module.hidden_size
        if hx is None:
            dtype = self.directions[0].ih.dtype
            return [self.x.new_zeros(shape, dtype=dtype) for _ in names]
        states = (hx,) if isinstance(hx, torch.Tensor) else tuple(hx)
        if len(states) != len(names):
            raise ValueError(f"{self._name} has {len(names)} states, {names}; hx has {len(states)}")
        if self.single:
            states = [s.unsqueeze(1) for s in states]
        order = self.form.sorted_indices if self.packed else None
        states = [s if order is None else s.index_select(1, order) for s in states]
        for name, state in zip(names, states, strict=True):
            if state.shape != shape:
                want, got = shape, tuple(state.shape)
                raise RuntimeError(f"{self._name}: state {name} of hx should be {want}, not {got}")
        return states

    def _planes(self, inputs):
        """For each layer the inputs of its steps side by side; nothing if it has none."""
        module, names = self.module, type(self.module).signature.inputs
        like = self.x[..., :1].detach().expand(*self.x.shape[:-1], module.hidden_size)
        inputs, planes = {n: self._beside_x(v) for n, v in inputs.items()}, []
        for layer in range(module.num_layers if names or inputs else 0):
            given = module.inputs_for(layer, like, **inputs)
            if set(given) != set(names):
                want = ", ".join(names) or "none"
                raise TypeError(
                    f"{self._name} takes the inputs {want}; got {', '.join(given) or 'none'}"
                )
            each = [self._plane(name, given[name], like) for name in names]
            planes.append(torch.stack(each, -2).reshape(self.steps.N, len(names), like.shape[-1]))
        return planes

    def _beside_x(self, value):
        """An input of the steps as the caller has it, laid out as x is."""
        if isinstance(value, PackedSequence):
            return value.data
        dense = isinstance(value, torch.Tensor) and not self.packed
        return self._laid_out(value) if dense and value.dim() >= 2 - self.single else value

    def _plane(self, name, value, like):
        """One input, for every unit of every row."""
        value = value.unsqueeze(-1) if value.dim() == like.dim() - 1 else value
        try:
            return value.to(like.dtype).expand(like.shape)
        except RuntimeError:
            raise ValueError(
                f"{self._name}: the input {name} should be (T, B), or what can be expanded to "
                f"{tuple(like.shape)}, not {tuple(value.shape)}"
            ) from None

    def rows(self, engine):
        """x as the engine takes it: the CPU engine a dense batch as it is, the others its rows."""
        whole = self.packed or (engine == "numba" and not tracing(self.x))
        return self.x.contiguous() if whole else self.x.reshape(-1, self.x.shape[-1])

    def results(self, y, finals):
        """(output, final states) in the form of the input."""
        order = self.form.unsorted_indices if self.packed else None
        finals = [s if order is None else s.index_select(1, order) for s in finals]
        if self.packed:
            y = PackedSequence(y, self.form.batch_sizes, self.form.sorted_indices, order)
        else:
            y = y if y.dim() == 3 else y.view(self.steps.T, self.steps.B, -1)
            if self.single:
                y, finals = y.squeeze(1), [s.squeeze(1) for s in finals]
            elif self.module.batch_first:
                y = y.transpose(0, 1)
        return y, finals[0] if len(finals) == 1 else tuple(finals)
