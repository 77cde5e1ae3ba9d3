"""The fields of a plan: what a compiled loop is told, as named int64s."""

import numpy as np


def record(fields):
    """The type of a plan's row with these fields."""
    return np.dtype([(name, np.int64) for name in fields.split()])


# The fields that forward and backward share: sizes; how threads divide the work; how this machine
# computes with the dtype (bytes of an element where sums are made, and of an item where there are
# many; of an item in a panel, and what lies behind each; how much of K is summed at once; a
# register's elements, a tile's rows and registers, how much of K is a step; whether panels come
# ready; what makes rows narrow, and where these have room); the cell's gates in tiles, its extra
# states, and the gradients of its gates and its own parameters; its early stages, and its recurrent
# products (recurrent.py says how these lie); the functions that compute on registers (``lying``, if
# not 0, says that weights are multiplied as they lie); and where this plan is.
SHARED = (
    "B I H S reverse parts unit_parts groups directions counters zeros block tile xgates "
    "size item w_item behind deep lanes tall vectors panel k_step ready "
    "narrow room room_each room_line "
    "gates units width padded gates_last extras keeps dgates_each first_h owns first_own "
    "stages products "
    "kernels product cell pack spread lying lying_rows band self "
)
# Weights in tiles of all gates, and in panels: given, if these come ready.
TILES = "w_ih_tiles b_ih_tiles w_hh_tiles b_hh_tiles w_hr_panels "
# Then, first of those that differ from call to call, steps and where the sequence's rows are; the
# input and the weights.
GIVEN = "T bounds sizes offsets x w_ih b_ih w_hh b_hh w_hr own inputs means factors factor_stride "
FORWARD = record(
    SHARED + "keep put_projected stage_gates " + TILES
    + GIVEN + "trail ld_trail h_first h_last extra extra_first extra_last y ldy kept kept_from m"
)  # fmt: skip
BACKWARD = record(
    SHARED + "dfactors back_means recompute recalled loop_parts lddh dgates hidden extra dp "
    "capacity w_ih_panels w_hh_panels strips_x strips_h strips_r left packed strip left_each "
    "packed_each few recall "
    "pack_again compute_again "
    "take_projected take_states put_rows stand_up pack_and_sum lay_down "
    + TILES + GIVEN
    + "dy lddy dx add dh dextra after extra_after m h_first extra_first dw_ih dw_hh dw_hr "
    "sums_x sums_h sums_r kept kept_from sums_own dinputs dafter dextra_after"
)  # fmt: skip
