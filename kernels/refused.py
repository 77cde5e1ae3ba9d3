"""What an engine says to a call that is not for it."""


class Refused(RuntimeError):
    """The engine that was asked for cannot serve the call. Made of its name and the reason."""

    def __str__(self):
        return "the {} engine cannot serve this: {}".format(*self.args)


class Failed(Refused):
    """It was tried, and failed before a kernel had run; it will not be tried again."""
