"""Recurrent weights in blocks: heads."""

import pytest
import torch
from custom_cells import Peephole, ResetFirst, Skip, assert_same, loop, make, plain_call, trained


@pytest.mark.parametrize("cls", [Peephole, ResetFirst])
@pytest.mark.parametrize("heads", [1, 3, 9])
def test_heads_see_their_own_states(cls, heads, calls):
    module, *given = make(cls, 5, 9, num_layers=2, bidirectional=True, heads=heads)
    assert module.weight_hh_l0.shape == (module.gates * 9, 9 // heads)
    assert_same(trained(plain_call, module, *given), trained(loop, module, *given))
    assert calls == {"forward": 2, "backward": 2}
    assert str(module).endswith(f"heads={heads})") == (heads > 1)


def test_a_head_is_a_layer_of_its_own():
    """Of two heads, each has the weights of one of two layers, gate by gate."""
    module, x, _, _ = make(ResetFirst, 5, 8, heads=2)
    for head in range(2):
        alone = ResetFirst(5, 4, dtype=torch.float64)
        with torch.no_grad():
            for name, parameter in alone.named_parameters():
                blocks = getattr(module, name).unflatten(0, (3, 2, 4))
                parameter.copy_(blocks[:, head].flatten(0, 1))
        assert_same(module(x)[0][..., head * 4 :][..., :4], alone(x)[0])


@pytest.mark.parametrize(("cls", "heads"), [(Peephole, 2), (Peephole, 10), (Skip, 3)])
def test_heads_that_cannot_be(cls, heads):
    with pytest.raises(ValueError, match=f"{cls.__name__}: {heads} heads are of recurrent weights"):
        cls(5, 9, heads=heads)
