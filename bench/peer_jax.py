#!/usr/bin/env python3
"""JAX as a peer of bench/run.py: a step (forward, gradient, update) is one jitted function with donated
state; the losses are those of bench/bench_peer.c.

    python3 bench/peer_jax.py --threads N --inputs FOLDER WORKLOAD

JAX has no switch for threads: run.py pins the process to N processors, by which XLA sizes its pool.
Talks to run.py as bench/peer_inputs.py says."""
import argparse
import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import jax
import jax.numpy as jnp
import peer_inputs
from jax import lax
from jax.nn import relu
from jax.scipy.special import logsumexp


# --- losses: parameters by name, state, batch; the loss and the next state -----------------------------------
def cross_entropy_of(logits, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()


def network(p, x, activation):
    layers = list(p.values())
    for i in range(0, len(layers), 2):
        x = x @ layers[i].T + layers[i + 1]
        if i + 2 < len(layers):
            x = activation(x)
    return x


def mlp(p, state, x, labels, index):
    return cross_entropy_of(network(p, x, relu), labels), state


def elr(p, state, x, labels, index):
    logits = network(p, x, relu)
    q = jnp.clip(jax.nn.softmax(logits), 1e-4, 1 - 1e-4)
    fixed = lax.stop_gradient(q)
    target = 0.7 * state[index] + 0.3 * fixed / fixed.sum(1, keepdims=True)
    loss = cross_entropy_of(logits, labels) + 3 * jnp.log(1 - (target * q).sum(1)).mean()
    return loss, state.at[index].set(target)


def gradpen(p, state, x, labels, index):
    loss, slope = jax.value_and_grad(lambda x: 128 * cross_entropy_of(network(p, x, relu), labels))(x)
    return loss / 128 + 10 * jnp.square(slope).sum(1).mean(), state


def tiny(p, state, x, y):
    return jnp.square(network(p, x, jnp.tanh) - y).mean(), state


def elementwise(p, state):
    w = p["00"]
    u = jnp.log1p(jnp.exp(-(0.5 * jnp.power(jnp.abs(w) + 1e-3, 1.3))))
    return 1e3 * jnp.square(jnp.tanh(2 * (w * jnp.tanh(u)))).mean(), state


def transport(x, y):
    cost = 0.5 * jnp.square(x[:, None] - y[None]).sum(-1)

    def iterate(carry, _):
        g = carry[1]
        f = -0.05 * logsumexp((g[None] - cost) / 0.05 - math.log(512), 1)
        g = -0.05 * logsumexp((f[:, None] - cost) / 0.05 - math.log(512), 0)
        return (f, g), None

    (f, g), _ = lax.scan(iterate, (jnp.zeros(512), jnp.zeros(512)), None, length=100)
    return f.mean() + g.mean()


def sinkhorn(p, state, y):
    x = p["00"]
    return transport(x, y) - 0.5 * transport(x, x) - 0.5 * transport(y, y), state


def resnet20(p, state, x, labels):
    following = {}

    def conv_norm(x, conv, norm, stride=1):
        x = lax.conv_general_dilated(x, p[conv], (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))
        mean = x.mean((0, 1, 2))
        centred = x - mean
        variance = jnp.square(centred).mean((0, 1, 2))
        count = x.size // x.shape[-1]
        old_mean, old_variance = state[norm]
        following[norm] = (0.9 * old_mean + 0.1 * lax.stop_gradient(mean),
                           0.9 * old_variance + 0.1 * lax.stop_gradient(variance) * (count / (count - 1)))
        return centred * (lax.rsqrt(variance + 1e-5) * p[norm + ".g"]) + p[norm + ".b"]

    x = relu(conv_norm(x, "stem", "stembn"))
    for stage in range(3):
        for block in range(3):
            at = "%d.%d." % (stage, block)
            stride = 2 if stage > 0 and block == 0 else 1
            h = relu(conv_norm(x, at + "c1", at + "n1", stride))
            h = conv_norm(h, at + "c2", at + "n2")
            if stride == 2:
                half = x.shape[-1] // 2
                x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (half, half)))
            x = relu(x + h)
    return cross_entropy_of(x.mean((1, 2)) @ p["fc.w"].T + p["fc.b"], labels), following


def normalize(x, gain, shift):
    mean = x.mean(-1, keepdims=True)
    centred = x - mean
    return centred * lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5) * gain + shift


def gpt(p, state, ids, targets):
    def norm(x, name):
        return normalize(x, p[name + ".g"], p[name + ".b"])

    def linear(x, name):
        return x @ p[name + ".w"].T + p[name + ".b"]

    mask = jnp.tril(jnp.ones((128, 128), bool))
    x = p["tok"][ids] + p["pos"]
    for layer in range(4):
        at = "%d." % layer
        q, k, v = (t.reshape(16, 128, 4, 32).transpose(0, 2, 1, 3)
                   for t in jnp.split(linear(norm(x, at + "ln1"), at + "qkv"), 3, -1))
        scores = jnp.where(mask, q @ k.swapaxes(-1, -2) / math.sqrt(32), -1e30)
        heads = (jax.nn.softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(16, 128, 128)
        x = x + linear(heads, at + "proj")
        x = x + linear(jax.nn.gelu(linear(norm(x, at + "ln2"), at + "up")), at + "down")
    logits = norm(x, "lnf") @ p["head.w"].T
    return cross_entropy_of(logits.reshape(-1, 256), targets.reshape(-1)), state


def cross_entropy(p, state, labels):
    return cross_entropy_of(p["logits"], labels), state


def layer_norm(p, state, weights):
    return (normalize(p["x"], p["gain"], p["shift"]) * weights).mean(), state


# Loss, optimiser ("keep": only the gradient is wanted), rate. No loss: the batch is the gradient.
WORKLOADS = {"mlp": (mlp, "momentum", 0.01), "elr": (elr, "momentum", 0.01), "gradpen": (gradpen, "momentum", 0.01),
             "resnet20": (resnet20, "momentum", 0.1), "gpt": (gpt, "adamw", 3e-4), "tiny": (tiny, "adam", 1e-3),
             "sinkhorn": (sinkhorn, "descent", 51.2), "elementwise": (elementwise, "descent", 1.0),
             "momentum": (None, "momentum", 0.1), "adamw": (None, "adamw", 3e-4)}
for length in (64, 1024, 65536):
    WORKLOADS["xent%d" % length] = (cross_entropy, "keep", 0)
    WORKLOADS["norm%d" % length] = (layer_norm, "keep", 0)


# --- a step --------------------------------------------------------------------------------------------------------
def updated(kind, rate, p, slots, slope):
    """The next parameters and slots: momenta, squares, step."""
    each = jax.tree.map
    momenta, squares, count = slots
    if kind == "descent":
        return each(lambda v, g: v - rate * g, p, slope), slots
    if kind == "momentum":
        momenta = each(lambda m, g: 0.9 * m + g, momenta, slope)
        return each(lambda v, m: v - rate * m, p, momenta), (momenta, squares, count)
    count = count + 1
    first, second = 1 / (1 - 0.9 ** count), 1 / (1 - 0.999 ** count)
    decay = rate * 0.01 if kind == "adamw" else 0.0
    momenta = each(lambda m, g: 0.9 * m + 0.1 * g, momenta, slope)
    squares = each(lambda s, g: 0.999 * s + 0.001 * g * g, squares, slope)
    p = each(lambda v, m, s: v * (1 - decay) - rate * (m * first) / (jnp.sqrt(s * second) + 1e-8), p, momenta, squares)
    return p, (momenta, squares, count)


def norm_of(arrays):
    return math.sqrt(sum(float(jnp.square(a).sum()) for a in jax.tree.leaves(arrays)))


def make_step(name, p, state, batches):
    loss, kind, rate = WORKLOADS[name]

    def gradient_of(p, state, batch):
        if loss:
            return jax.value_and_grad(loss, has_aux=True)(p, state, *batch)
        return (None, state), dict(zip(p, batch))

    def keep(p, batch):
        (value, _), slope = gradient_of(p, (), batch)
        return value, slope

    def train(everything, batch):
        p, state, slots = everything
        (value, state), slope = gradient_of(p, state, batch)
        p, slots = updated(kind, rate, p, slots, slope)
        return (p, state, slots), jnp.square(p["fc.b"]).mean() if value is None else value

    # A slot that the update does not have is not passed around.
    momenta = jax.tree.map(jnp.zeros_like, p) if kind in ("momentum", "adam", "adamw") else ()
    squares = jax.tree.map(jnp.zeros_like, p) if kind in ("adam", "adamw") else ()
    held = {"everything": (p, state, (momenta, squares, jnp.zeros(())))}
    if kind == "keep":
        call = jax.jit(keep)

        def step(i):
            value, held["slope"] = jax.block_until_ready(call(p, batches[i % len(batches)]))
            return value
        return step, lambda: norm_of(held["slope"])
    call = jax.jit(train, donate_argnums=0)

    def step(i):
        held["everything"], value = call(held["everything"], batches[i % len(batches)])
        jax.block_until_ready(held["everything"])
        return value
    return step, lambda: norm_of(held["everything"][0])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--inputs", required=True)
    parser.add_argument("workload", choices=WORKLOADS)
    options = parser.parse_args()
    name = options.workload
    arrays, array_batches = peer_inputs.read(options.inputs, name)
    p = {k: jnp.array(a) for k, a in arrays.items()}
    batches = [[jnp.array(a) for a in b] for b in array_batches]
    state = ()
    if name == "elr":
        state = jnp.zeros((10000, 10))
    if name == "resnet20":
        state = {k[:-2]: (jnp.zeros_like(v), jnp.ones_like(v)) for k, v in p.items() if k.endswith(".g")}
    peer_inputs.take_turns(dict(workload=name, peer="jax-jit", threads=options.threads, version=jax.__version__),
                           lambda: make_step(name, p, state, batches))


if __name__ == "__main__":
    main()
