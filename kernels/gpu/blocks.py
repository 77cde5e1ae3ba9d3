"""What the kernels of both directions of time are made of: products, and the counters they meet at.

Programs that need each other's numbers of the step before run at the same time (a cooperative
launch) and meet at a counter in memory: each adds one to it when its numbers are stored
(``arrive``), and reads on when it has reached what is due (``wait``).
"""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
LINE = tl.constexpr(32)  # int32s from one counter to the next: a cache line each
# Looks at a counter, once all programs have been seen to run: some seconds, where a step takes us.
LOOKS = tl.constexpr(1 << 23)


@triton.jit
def product(a, b, total, PRECISION: tl.constexpr):
    """total + a @ b, summed in float32."""
    if INTERPRETED:  # it multiplies bfloat16 wrongly
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def rounded(x, PRECISION: tl.constexpr):
    """float32 factors to the nearest TF32 number: of others the matrix units leave out 13 bits."""
    if PRECISION == "tf32":
        bits = (x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000
        x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)  # some NaN would turn to zero
    return x


@triton.jit
def by_gate(
    tile, GATES: tl.constexpr, GROUPS: tl.constexpr, UNITS: tl.constexpr, COLUMNS: tl.constexpr
):
    """A tile of GROUPS runs of UNITS rows each as GATES tiles (UNITS, COLUMNS).

    GROUPS: a power of two.
    """
    if GROUPS == 1:
        return (tile,)
    else:
        if GROUPS == 2:
            bits = tl.reshape(tile, (2, UNITS, COLUMNS)).permute(1, 2, 0)
        elif GROUPS == 4:
            bits = tl.reshape(tile, (2, 2, UNITS, COLUMNS)).permute(2, 3, 0, 1)
        else:
            bits = tl.reshape(tile, (2, 2, 2, UNITS, COLUMNS)).permute(3, 4, 0, 1, 2)
        return parted(bits, GATES, GROUPS)


@triton.jit
def parted(bits, COUNT: tl.constexpr, GROUPS: tl.constexpr):
    """The first COUNT of GROUPS tiles, whose number is in the last dimensions, a bit each."""
    if GROUPS == 1:
        return (bits,)
    else:
        even, odd = tl.split(bits)
        evens = parted(even, (COUNT + 1) // 2, GROUPS // 2)
        odds = parted(odd, COUNT // 2, GROUPS // 2)
        found = ()
        for i in tl.static_range(COUNT // 2):
            found = found + (evens[i], odds[i])
        if COUNT % 2 == 1:
            found = found + (evens[COUNT // 2],)
        return found


@triton.jit
def of_gates(
    tiles, FIRST: tl.constexpr, GATES: tl.constexpr, UNITS: tl.constexpr, COLUMNS: tl.constexpr
):
    """GATES (a power of two) of the tiles (UNITS, COLUMNS) as one of as many runs of rows."""
    if GATES == 1:
        return tiles[FIRST]
    else:
        HALF: tl.constexpr = GATES // 2
        low = of_gates(tiles, FIRST, HALF, UNITS, COLUMNS)
        high = of_gates(tiles, FIRST + HALF, HALF, UNITS, COLUMNS)
        return tl.reshape(tl.join(low, high).permute(2, 0, 1), (GATES * UNITS, COLUMNS))


@triton.jit
def rows_of(steps, t, T, B):
    """(how many rows step t has, the first of them); steps count from 1, others are empty."""
    if steps is None:
        return tl.where((t > 0) & (t <= T), B, 0), (t - 1) * B
    else:
        place = steps + tl.minimum(tl.maximum(t, 0), T + 1)
        return tl.load(place).to(tl.int32), tl.load(place + T + 2).to(tl.int32)


@triton.jit
def select(condition, chosen, others, LENGTH: tl.constexpr):
    """A tuple of tl.where's."""
    found = ()
    for i in tl.static_range(LENGTH):
        found = found + (tl.where(condition, chosen[i], others[i]),)
    return found


@triton.jit
def each(place, stride, mask, COUNT: tl.constexpr):
    """A tuple of tiles ``stride`` apart, as float32."""
    found = ()
    for i in tl.static_range(COUNT):
        found = found + (tl.load(place + i * stride, mask=mask, other=0.0).to(tl.float32),)
    return found


@triton.jit
def given_to(inputs, line, u, mask, H: tl.constexpr, COUNT: tl.constexpr):
    """What the steps of these rows are given beside x."""
    if COUNT == 0:
        return ()
    else:
        return each(inputs + (line * (COUNT * H))[None, :] + u[:, None], H, mask, COUNT)


@triton.jit
def own_of(parameters, d, u, H: tl.constexpr, BB: tl.constexpr, COUNT: tl.constexpr):
    """The cell's own parameters of a direction."""
    found = ()
    for i in tl.static_range(COUNT):
        value = tl.load(parameters + (d * COUNT + i) * H + u, mask=u < H, other=0.0).to(tl.float32)
        found = found + (tl.broadcast_to(value[:, None], (value.shape[0], BB)),)
    return found


@triton.jit
def sum_of(place, stride, mask, FIRST: tl.constexpr, END: tl.constexpr):
    """The sum of END - FIRST tiles ``stride`` apart, in pairs: the compiler loads one after another
    what is added up one after another.
    """
    if END - FIRST == 1:
        return tl.load(place + FIRST * stride, mask=mask, other=0.0, cache_modifier=".cg")
    else:
        HALF: tl.constexpr = (FIRST + END) // 2
        one = sum_of(place, stride, mask, FIRST, HALF)
        return one + sum_of(place, stride, mask, HALF, END)


@triton.jit
def counter_of(step, group, counters, RING: tl.constexpr):
    """The counter at which a group's partial sums of a step are announced (step >= 0)."""
    return counters + (group * RING + step % RING) * LINE


@triton.jit
def arrivals_by(step, each, RING: tl.constexpr):
    """What it counts when ``each`` programs have stored theirs, in all rounds until then.

    Steps of the first round count as done before: there is no step RING before them.
    """
    return each * (step // RING)


@triton.jit
def arrive(counter):
    """Say that what this program has stored may be read."""
    tl.debug_barrier()  # every thread has stored, not only the one that says so
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def wait(counter, due, patience, all_run):
    """Until ``due`` programs have arrived, or for ``patience`` looks: what is left of it, which is
    none from then on if they have not. all_run: whether all were there at an earlier wait.
    """
    looks = 0
    while (tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < due) & (looks < patience):
        looks += 1
    left = tl.where(all_run, tl.minimum(patience, LOOKS), patience)
    return tl.where(looks < patience, left, 0)


@triton.jit
def unless_late(patience, tiles, COUNT: tl.constexpr):
    """The tiles, or NaN where a program has waited in vain: it says so in every number."""
    found = ()
    for i in tl.static_range(COUNT):
        found = found + (tl.where(patience > 0, tiles[i], float("nan")),)
    return found
