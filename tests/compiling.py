"""Layers compiled by torch.compile, as a test sees them: their graphs, and how they differ."""

import torch
from against_torch import differences, outputs_and_gradients, plain_call


def compiled(function, backend="aot_eager"):
    """``function`` compiled anew as one graph, and the list in which its graphs are found."""
    torch._dynamo.reset()
    graphs = []

    def noted(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    return torch.compile(function, fullgraph=True, backend=noted), graphs


def differs(module, fast, inputs, call=plain_call, tolerance=0):
    """What of the outputs and the gradients of ``fast``, made of ``module``, is not eager's."""
    expected = outputs_and_gradients(module, inputs, call)
    found = outputs_and_gradients(module, inputs, lambda _, *args: call(fast, *args))
    return differences(found, expected, tolerance)


def layers_in(graph):
    return [n for n in graph.graph.nodes if "fastrnn.layer" in str(n.target)]
