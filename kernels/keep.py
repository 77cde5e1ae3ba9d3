"""How much forward keeps for backward."""

from enum import IntEnum


class Keep(IntEnum):
    NOTHING = 0  # there will be no backward
    STATES = 1  # the gates are computed anew from them
    ALL = 2
