"""The cells of fastrnn.zoo a second time, from the formulas of the papers, for plain_loop.py.

Each: (p, x, states and inputs by name) -> (output, new states). p: {name: parameter}, and "H".
"""

import torch
from torch import exp, relu, sigmoid, tanh
from torch.nn.functional import layer_norm, linear, logsigmoid, silu


def W(p, x, *gates):
    """Gates of W x + b, all of them where none is said."""
    return _some(linear(x, p["weight_ih"], p.get("bias_ih")).split(p["H"], 1), gates)


def U(p, h, *gates):
    """Gates of U h + b. A weight of H // heads columns is one of blocks on the diagonal."""
    weight = p["weight_hh"]
    if weight.shape[1] < p["H"]:
        heads = p["H"] // weight.shape[1]
        weight = torch.cat([torch.block_diag(*w.chunk(heads)) for w in weight.split(p["H"])])
    return _some(linear(h, weight, p.get("bias_hh")).split(p["H"], 1), gates)


def _some(parts, gates):
    return parts[gates[0]] if len(gates) == 1 else [parts[g] for g in gates] or parts


def PeepholeLSTM(p, x, h, c):
    (xi, xf, xg, xo), (hi, hf, hg, ho) = W(p, x), U(p, h)
    i = sigmoid(xi + hi + p["p_i"] * c)
    f = sigmoid(xf + hf + p["p_f"] * c)
    c = f * c + i * tanh(xg + hg)
    h = sigmoid(xo + ho + p["p_o"] * c) * tanh(c)
    return h, (h, c)


def CoupledLSTM(p, x, h, c):
    (xf, xg, xo), (hf, hg, ho) = W(p, x), U(p, h)
    f = sigmoid(xf + hf)
    i = 1 - f
    c = f * c + i * tanh(xg + hg)
    h = sigmoid(xo + ho) * tanh(c)
    return h, (h, c)


def LayerNormLSTM(p, x, h, c):
    def all_gates(side):
        return torch.cat([p[f"{side}_{gate}"] for gate in "ifgo"])

    H, bias = h.shape[1], all_gates("b")
    v = layer_norm(torch.cat(W(p, x), 1), (4 * H,), all_gates("wx"))
    v = v + layer_norm(torch.cat(U(p, h), 1), (4 * H,), all_gates("uh")) + bias
    i, f, g, o = v.chunk(4, 1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(layer_norm(c, (H,), p["scale"], p["shift"]))
    return h, (h, c)


def LayerNormGRU(p, x, h):
    def all_gates(side):
        return torch.cat([p[f"{side}_{gate}"] for gate in "rzn"])

    H = h.shape[1]
    vx = layer_norm(torch.cat(W(p, x), 1), (3 * H,), all_gates("wx"), all_gates("b"))
    vh = layer_norm(torch.cat(U(p, h), 1), (3 * H,), all_gates("uh"))
    (xr, xz, xn), (hr, hz, hn) = vx.chunk(3, 1), vh.chunk(3, 1)
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    h = z * h + (1 - z) * tanh(xn + r * (hn + p["b_hn"]))
    return h, (h,)


def ZoneoutLSTM(p, x, h, c, zone_h, zone_c):
    (xi, xf, xg, xo), (hi, hf, hg, ho) = W(p, x), U(p, h)
    new = sigmoid(xf + hf) * c + sigmoid(xi + hi) * tanh(xg + hg)
    c = zone_c * c + (1 - zone_c) * new
    h = zone_h * h + (1 - zone_h) * sigmoid(xo + ho) * tanh(new)
    return h, (h, c)


def ZoneoutGRU(p, x, h, zone):
    (xr, xz, xn), (hr, hz, hn) = W(p, x), U(p, h)
    z = sigmoid(xz + hz)
    new = z * h + (1 - z) * tanh(xn + sigmoid(xr + hr) * hn)
    h = zone * h + (1 - zone) * new
    return h, (h,)


def WeightDropLSTM(p, x, h, c, mask):
    (xi, xf, xg, xo), (hi, hf, hg, ho) = W(p, x), U(p, h)
    c = sigmoid(xf + hf) * c + sigmoid(xi + hi) * tanh(xg + hg)
    h = sigmoid(xo + ho) * tanh(c)
    return h * mask, (h, c)


def IndRNN(p, x, h):
    h = relu(W(p, x, 0) + p["u"] * h)
    return h, (h,)


def SRU(p, x, c):
    z, f, r, skip = W(p, x)
    f, r = sigmoid(f + p["v_f"] * c), sigmoid(r + p["v_r"] * c)
    c = z + (c - z) * f
    return skip + (c - skip) * r, (c,)


def QRNN(p, x, c):
    z, f, o = W(p, x)
    c = sigmoid(f) * c + (1 - sigmoid(f)) * tanh(z)
    return sigmoid(o) * c, (c,)


def g(x):
    return torch.where(x < 0, sigmoid(x), x + 0.5)


def MinGRU(p, x, h):
    z, n = W(p, x)
    h = h + sigmoid(z) * (g(n) - h)
    return h, (h,)


def MinLSTM(p, x, h):
    f, i, n = W(p, x)
    total = sigmoid(f) + sigmoid(i)
    h = sigmoid(f) / total * h + sigmoid(i) / total * g(n)
    return h, (h,)


def SLSTM(p, x, h, c, n, m):
    (xz, xi, xf, xo), (hz, hi, hf, ho) = W(p, x), U(p, h)
    log_f = logsigmoid(xf + hf)
    new = torch.maximum(log_f + m, xi + hi)
    i, f = exp(xi + hi - new), exp(log_f + m - new)
    c = f * c + i * tanh(xz + hz)
    n = f * n + i
    h = sigmoid(xo + ho) * (c / n)
    return h, (h, c, n, new)


def LiGRU(p, x, h):
    (xz, xn), (hz, hn) = W(p, x), U(p, h)
    z = sigmoid(xz + hz)
    h = z * h + (1 - z) * relu(xn + hn)
    return h, (h,)


def JANET(p, x, h, beta):
    (xs, xn), (hs, hn) = W(p, x), U(p, h)
    s = xs + hs
    h = sigmoid(s) * h + (1 - sigmoid(s - beta)) * tanh(xn + hn)
    return h, (h,)


def MGU(p, x, h):
    f = sigmoid(W(p, x, 0) + U(p, h, 0))
    n = tanh(W(p, x, 1) + U(p, f * h, 1))
    h = (1 - f) * h + f * n
    return h, (h,)


def UGRNN(p, x, h):
    (xg, xn), (hg, hn) = W(p, x), U(p, h)
    gate = sigmoid(xg + hg)
    h = gate * h + (1 - gate) * tanh(xn + hn)
    return h, (h,)


def AUGRU(p, x, h, attention):
    (xr, xu, xn), (hr, hu, hn) = W(p, x), U(p, h)
    u = attention.view(-1, 1) * sigmoid(xu + hu)
    h = (1 - u) * h + u * tanh(xn + sigmoid(xr + hr) * hn)
    return h, (h,)


def ResetFirstGRU(p, x, h):
    r, z = sigmoid(W(p, x, 0) + U(p, h, 0)), sigmoid(W(p, x, 1) + U(p, h, 1))
    n = tanh(W(p, x, 2) + U(p, r * h, 2))
    h = (1 - z) * n + z * h
    return h, (h,)


def GRUD(p, x, h, decay):
    h = decay * h
    r, z = sigmoid(W(p, x, 0) + U(p, h, 0)), sigmoid(W(p, x, 1) + U(p, h, 1))
    n = tanh(W(p, x, 2) + U(p, r * h, 2))
    h = (1 - z) * h + z * n
    return h, (h,)


def CfC(p, x, h, ts):
    (x1, x2, xa, xb), (h1, h2, ha, hb) = W(p, x), U(p, h)
    t = sigmoid((xa + ha) * ts.view(-1, 1) + xb + hb)
    h = tanh(x1 + h1) * (1 - t) + t * tanh(x2 + h2)
    return h, (h,)


def CoRNN(p, x, y, z, dt, gamma, epsilon):
    force = tanh(W(p, x, 0) + U(p, y, 0) + U(p, z, 1))
    z = z + dt * force - dt * gamma * y - dt * epsilon * z
    y = y + dt * z
    return y, (y, z)


def LEM(p, x, y, z, dt):
    fast, slow = (dt * sigmoid(W(p, x, k) + U(p, y, k)) for k in (0, 1))
    z = (1 - slow) * z + slow * tanh(W(p, x, 2) + U(p, y, 2))
    y = (1 - fast) * y + fast * tanh(W(p, x, 3) + U(p, z, 3))
    return y, (y, z)


def BlockGRU(p, x, h):
    v = W(p, x, 0) + U(p, h, 0)
    v = silu(v / torch.sqrt((v**2).mean(1, keepdim=True) + 1e-4) * p["scale"])
    reset, candidate, update = U(p, v, 1, 2, 3)
    candidate, update = tanh(sigmoid(reset) * candidate), sigmoid(update - 1)
    h = update * candidate + (1 - update) * h
    return h, (h,)
