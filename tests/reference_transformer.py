"""What a transformer gives, in plain NumPy: one request, one token, one head, one expert at a time.

Written from the definitions and not from the code under test, of which it imports nothing. Weights
are those of the code under test, by their names there.
"""

from __future__ import annotations

import math

import numpy as np


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def norm(x, scale, bias=None):
    x = x.astype(np.float64)
    if bias is not None:
        x = x - x.mean()
    x = x / np.sqrt((x**2).mean() + 1e-5) * scale
    return x if bias is None else x + bias


def rotate(x, position):
    half = len(x) // 2
    angles = [position / 10_000 ** (i / half) for i in range(half)]
    turned = [
        complex(x[i], x[i + half]) * complex(math.cos(a), math.sin(a)) for i, a in enumerate(angles)
    ]
    return np.array([z.real for z in turned] + [z.imag for z in turned])


def attention(shape, w, x):
    heads, kv_heads = w["query"].shape[1], w["key"].shape[1]
    rows = np.zeros((len(x), heads, w["query"].shape[2]))
    for head in range(heads):
        shared = head // (heads // kv_heads)

        def project(name, h, row):
            bias = w[f"{name}_bias"][h] if f"{name}_bias" in w else 0.0
            return row @ w[name][:, h] + bias

        q = [project("query", head, row) for row in x]
        k = [project("key", shared, row) for row in x]
        v = np.array([project("value", shared, row) for row in x])
        if shape.block == "llama":
            q = [rotate(row, i) for i, row in enumerate(q)]
            k = [rotate(row, i) for i, row in enumerate(k)]
        for i in range(len(x)):
            seen = range(i + 1) if shape.block == "llama" else range(len(x))
            score = softmax(np.array([q[i] @ k[j] for j in seen]) / math.sqrt(len(q[i])))
            rows[i, head] = score @ v[: len(score)]
    y = np.einsum("tnd,ndh->th", rows, w["attended"])
    return y + w.get("attended_bias", 0.0)


def network(w, x):
    """A feed-forward network on one token."""
    up = x @ w["up"]
    if "gate" in w:
        gate = x @ w["gate"]
        return (gate / (1 + np.exp(-gate)) * up) @ w["down"]
    up = up + w["up_bias"]
    gelu = 0.5 * up * (1 + np.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
    return gelu @ w["down"] + w["down_bias"]


def mixture(shape, w, x):
    """Tokens one after another, each to its experts by descending score, while they have room."""
    room = [math.ceil(len(x) * shape.experts_per_token / shape.experts)] * shape.experts
    matrices = ("up", "down", "gate", "up_bias", "down_bias")
    y = np.zeros_like(x)
    for token, row in enumerate(x):
        score = softmax(row @ w["router"])
        chosen = np.argsort(-score, kind="stable")[: shape.experts_per_token]
        for expert in chosen:
            if room[expert]:
                room[expert] -= 1
                own = {name: w[name][expert] for name in matrices if name in w}
                y[token] += score[expert] / score[chosen].sum() * network(own, row)
    return y


def block(shape, w, x):
    """x: [request, token, hidden]; experts see all requests' tokens."""

    def normed(name):
        bias = w.get(f"{name}_bias")
        return np.array([[norm(row, w[name], bias) for row in one] for one in x])

    x = x + np.array([attention(shape, w, one) for one in normed("norm_attention")])
    tokens = normed("norm_feed_forward").reshape(-1, x.shape[-1])
    if "router" in w:
        return x + mixture(shape, w, tokens).reshape(x.shape)
    return x + np.array([network(w, row) for row in tokens]).reshape(x.shape)


def forward(shape, weights, tokens):
    """Logits of tokens [request, token], of the weights of every part of the model in order."""
    weights = [{name: np.float64(value) for name, value in part.items()} for part in weights]
    first, *blocks, last = weights
    x = first["token"][tokens] + first.get("position", 0.0)
    for w in blocks:
        x = block(shape, w, x)
    if shape.block == "llama":
        x = x[:, -1:]
    x = np.array([[norm(row, last["norm"], last.get("norm_bias")) for row in one] for one in x])
    return x @ last["token"]
