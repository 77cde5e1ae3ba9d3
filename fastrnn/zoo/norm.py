"""A norm over several gates at once, as the LayerNorm cells of Haste have it."""


def norm(gates, scales, eps=1e-5):
    """Layer norm of all gates of a sequence side by side; a scale for each gate, no shift."""
    mean = sum(g.mean(-1, keepdim=True) for g in gates) * (1 / len(gates))
    gates = [g - mean for g in gates]
    variance = sum((g * g).mean(-1, keepdim=True) for g in gates) * (1 / len(gates))
    return [g * (variance + eps).rsqrt() * s for g, s in zip(gates, scales, strict=True)]
