"""Lets torch.compile take our layers, though it refuses torch.nn's RNN, LSTM and GRU.

It refuses every instance of theirs, so ours too, unless ``torch._dynamo.config.allow_rnn`` is set.
That would change how others' layers compile; here it is set just while one of ours is looked at.
There is no public way to do so. Where the private one below is missing, ours are refused as
torch.nn's are, and this one line admits them all:

    torch._dynamo.config.allow_rnn = True
"""

from functools import partial, wraps

from .loading import when_loaded

BUILDER = "torch._dynamo.variables.builder"


def admit(base):
    """Let torch.compile take the subclasses of ``base``, as soon as it is loaded."""
    # loading it takes seconds: that is left to those who compile
    when_loaded(BUILDER, partial(_patch, base=base))


def _patch(builder, base):
    """Set allow_rnn while ``builder`` wraps a module of ours."""
    config = getattr(builder, "config", None)
    wrap = getattr(getattr(builder, "VariableBuilder", None), "wrap_module", None)
    if wrap is None or not hasattr(config, "allow_rnn"):
        return

    @wraps(wrap)
    def wrap_module(self, value):
        if not isinstance(value, base):
            return wrap(self, value)
        with config.patch(allow_rnn=True):
            return wrap(self, value)

    builder.VariableBuilder.wrap_module = wrap_module
