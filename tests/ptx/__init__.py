"""The machine code that Triton makes of the GPU kernels, run without a GPU.

Triton compiles our kernels to PTX, NVIDIA's portable assembly. This package runs that text in
NumPy: every thread of every program, with the real counters at which programs meet. A layer on CPU
tensors computes its outputs and gradients by it, within ``emulated`` of ``tests.ptx.gpu``.

What is where:

- ``text`` reads PTX; ``operands`` says what an operand stands for; ``numbers`` what bits mean.
- ``memory`` holds tensors and shared memory, and knows where each ends.
- ``shadow`` remembers who has read and written what, and finds accesses that nothing orders.
- ``integers``, ``floats``, ``conversions``, ``accesses``, ``matrices``, ``wgmma`` and ``meeting``
  are the instructions, by kind; ``table`` finds the one that a line names.
- ``asynchronous`` checks that nobody touches what a matrix unit is still at work on.
- ``machine`` runs all programs of a grid at once, in a random order that a seed repeats; those at
  the same place in the code run together, as a ``gang``.
- ``found`` are the names of what may be wrong; ``snippets`` try single instructions.
- ``gpu`` puts it in the place of a GPU; ``faults`` are faults to plant, which it must find.

What it shows: that the text computes what it should, with every tile and layout the compiler chose;
that no access leaves its tensor; and that, whatever the order in which programs and warps run, each
access to the same place is ordered by barriers, or by a release that an acquire has seen: so that
the numbers cannot depend on the order. What matrix units read is fenced as PTX asks.

What it cannot show:

- what ptxas makes of PTX: registers, spills, and its own faults;
- a memory system that is weaker than PTX promises, or a launch whose programs are not all resident
  (but ``faults`` has one that comes late);
- time: nothing here says how fast anything is;
- the last bits: approximate instructions (ex2, rsqrt, division) are exact here, and sums of matrix
  units are rounded once;
- threads of a warp that run apart: they go together here, and so do the warps of a program between
  two barriers, while the checks treat warps as if they ran in any order;
- tcgen05, the matrix unit of compute capability 10, and whatever else ``table`` does not know: it
  raises, and names the line.
"""
