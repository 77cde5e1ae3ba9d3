"""``scan``: a module that is stepped by hand, over a whole sequence at once."""

from .api import scan

__all__ = ["scan"]
