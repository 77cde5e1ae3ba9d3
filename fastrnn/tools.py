"""Tools that know torch.nn's recurrent modules by their exact class, and are to know ours.

Those that keep a table by class get a row for each class of ours. torch.fx takes ours for leaves,
as it does torch.nn's. What torch.ao quantises, or prunes in structure, becomes torch.nn's first: it
asks for the very class in dozens of places. Each is seen to when it is loaded, by whoever uses it.
"""

import warnings
from functools import partial, wraps
from inspect import getattr_static

from .conversion import ORIGINALS, TWINS, is_quantized, restore
from .loading import when_loaded


def meet():
    """See to every tool that is loaded, and to the others once they are."""
    for name, introduce in TOOLS.items():
        when_loaded(name, partial(_met, introduce))


def _met(introduce, tool):
    """``introduce`` ours to ``tool``; where its inside is another than we know, say so."""
    try:
        introduce(tool)
    except (AttributeError, ImportError) as error:
        warnings.warn(
            f"{tool.__name__} does not know fastrnn's modules ({error}): "
            "call fastrnn.restore on a model before it goes there",
            stacklevel=2,
        )


def _leaves(name, tool):
    """The tracer called ``name`` takes our modules for leaves."""
    tracer = getattr(tool, name)
    rule = tracer.is_leaf_module

    @wraps(rule)
    def is_leaf_module(self, m, module_qualified_name):
        ours = type(m) in ORIGINALS or is_quantized(m)
        return ours or rule(self, m, module_qualified_name)

    tracer.is_leaf_module = is_leaf_module


def _quantised(tool):
    """A model that is told how to be quantised becomes torch.nn's."""
    propagate = tool._propagate_qconfig_helper

    @wraps(propagate)
    def helper(module, qconfig_dict, *rest, **options):
        restore(module)
        theirs = {ORIGINALS.get(key, key): value for key, value in qconfig_dict.items()}
        return propagate(module, theirs, *rest, **options)

    tool._propagate_qconfig_helper = helper


def _made_of_float(tool):
    """A quantised module is made of torch.nn's, so ours becomes that first."""
    for name in ("RNNBase", "RNNCellBase"):
        _restoring(getattr(tool, name), "from_float")


def _restoring(owner, name):
    """A method that takes a model, or a method of the class, restores it first."""
    method = getattr_static(owner, name)
    of_class = isinstance(method, classmethod)
    function = method.__func__ if of_class else method

    @wraps(function)
    def restored(self, model, *rest, **options):
        restore(model)
        return function(self, model, *rest, **options)

    setattr(owner, name, classmethod(restored) if of_class else restored)


def _mapped(tool):
    """A key of ours, of how to quantise by class, means torch.nn's."""
    by_class = tool.QConfigMapping.set_object_type

    @wraps(by_class)
    def set_object_type(self, object_type, qconfig):
        return by_class(self, ORIGINALS.get(object_type, object_type), qconfig)

    tool.QConfigMapping.set_object_type = set_object_type


def _pruned(tool):
    """A model that is to be pruned in structure becomes torch.nn's."""
    _restoring(tool.BaseStructuredSparsifier, "prepare")


def _listed(name, tool):
    """The table called ``name`` has for each class of ours what it has for torch.nn's."""
    _add_rows(getattr(tool, name))


def _add_rows(table):
    table.update({ours: table[theirs] for theirs, ours in TWINS.items() if theirs in table})


def _validated(tool):
    """Opacus validates, and replaces, ours as it does torch.nn's."""
    for name in ("VALIDATORS", "FIXERS"):
        _listed(name, tool.ModuleValidator)


def _extended(tool):
    """BackPACK's extensions have for ours what they have for torch.nn's."""
    init = tool.BackpropExtension.__init__

    @wraps(init)
    def extended(self, savefield, module_exts, *rest, **options):
        _add_rows(module_exts)
        init(self, savefield, module_exts, *rest, **options)

    tool.BackpropExtension.__init__ = extended


TOOLS = {
    "torch.fx._symbolic_trace": partial(_leaves, "Tracer"),
    "torch.ao.quantization.fx.tracer": partial(_leaves, "QuantizationTracer"),
    "torch.ao.quantization.quantize": _quantised,
    "torch.ao.nn.quantized.dynamic.modules.rnn": _made_of_float,
    "torch.ao.quantization.qconfig_mapping": _mapped,
    "torch.ao.pruning._experimental.pruner.base_structured_sparsifier": _pruned,
    "thop.profile": partial(_listed, "register_hooks"),
    "ptflops.pytorch_ops": partial(_listed, "MODULES_MAPPING"),
    "opacus.validators": _validated,
    "backpack.extensions.backprop_extension": _extended,
}
