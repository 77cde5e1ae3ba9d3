"""Backward from forward: reverse mode on a graph, and what forward keeps for it.

What is kept is exact: the minimum cut between what backward reads and what it has anyway, where a
value is either kept (a store and a load) or computed anew from others that are there.
"""

from .graph import needed
from .operations import CONDITIONS, OPERATIONS

KEEP = 40  # the cost of keeping a register, in simple instructions
NEVER = 10**9


def gradients(graph, outputs, grads, wanted):
    """The gradients of ``wanted`` nodes, 0 for one that reaches none of the outputs.

    grads: a node for each of the outputs.
    """
    forward, total = needed(outputs), {}

    def add(node, d):
        total[node] = graph.op("add", total[node], d) if node in total else d

    for node, d in zip(outputs, grads, strict=True):
        add(node, d)
    reaches, known = set(wanted), set(forward)
    for node in forward:
        if reaches.intersection(node.args):
            reaches.add(node)
    for node in reversed(forward):
        if node in total and node.args and node in reaches and node.op not in CONDITIONS:
            found = _through(graph, node, total[node], known)
            for argument, d in zip(node.args, found, strict=True):
                if d is not None and argument in reaches:
                    add(argument, d)
    return [total.get(node) or graph.number(0) for node in wanted]


def _through(graph, node, d, known):
    """The gradients of a node's arguments, given that of its result, and the nodes of forward.

    A gate's slope is multiplied with what of ``d`` is known before any gradient is: when that
    comes, for which all threads of a GPU wait, one product is left to do.
    """
    rule = OPERATIONS[node.op].rule
    if node.op in ("sigmoid", "tanh") and d.op == "mul":
        first, last = d.args  # in the order of their making
        if first in known:
            slope = graph.op("mul", first, *rule(graph, node, graph.number(1)))
            return (graph.op("mul", last, slope),)
    return rule(graph, node, d)


def kept(backward, forward, free):
    """Which of forward's values to keep for backward, in the order of their making.

    backward: the nodes that it computes; forward: nodes of forward; free: those of them that
    backward has anyway. Keeping and computing anew cost least together.
    """
    forward = {n for n in forward if not n.is_number()}.difference(free)
    network = Network()
    read = set(backward) & forward
    for node in needed(backward, free):
        if node not in forward:
            read |= forward.intersection(node.args)
            continue
        there, anew = ("there", node), ("anew", node)
        network.join(there, anew, NEVER if node.op in CONDITIONS else KEEP)
        network.join(anew, "end", OPERATIONS[node.op].cost if node.args else NEVER)
        for argument in node.args:
            if argument in forward:
                network.join(anew, ("there", argument), NEVER)
    for node in read:
        network.join("begin", ("there", node), NEVER)
    side = network.near_the_beginning()
    found = [n for n in forward if ("there", n) in side and ("anew", n) not in side]
    return sorted(found, key=lambda n: n.number)


class Network:
    """Pipes from "begin" to "end", each with what can flow through it."""

    def __init__(self):
        self.room = {}

    def join(self, a, b, amount):
        self.room.setdefault(a, {})[b] = self.room.get(a, {}).get(b, 0) + amount
        self.room.setdefault(b, {}).setdefault(a, 0)

    def near_the_beginning(self):
        """What still has a way from "begin" when all flows that can: one side of the minimum cut.

        Edmonds & Karp (1972): as long as there is a way, the shortest is filled.
        """
        while True:
            came, queue = {"begin": None}, ["begin"]
            for a in queue:
                for b, room in self.room.get(a, {}).items():
                    if room > 0 and b not in came:
                        came[b] = a
                        queue.append(b)
            if "end" not in came:
                return set(came)
            way, b = [], "end"
            while came[b] is not None:
                way.append((came[b], b))
                b = came[b]
            amount = min(self.room[a][b] for a, b in way)
            for a, b in way:
                self.room[a][b] -= amount
                self.room[b][a] += amount
