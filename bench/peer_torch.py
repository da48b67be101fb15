#!/usr/bin/env python3
"""PyTorch as a peer of bench/run.py: the losses of bench/bench_peer.c as a user of PyTorch writes them.

    python3 bench/peer_torch.py --mode eager|compile --threads N --inputs FOLDER WORKLOAD

eager: autograd and the fused optimisers. compile: the loss, with its backward pass, or forward,
gradient and update in one function where that is faster (small and memory-bound workloads), is given
to torch.compile. Talks to run.py as bench/peer_inputs.py says."""
import argparse
import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import peer_inputs
import torch
import torch.nn.functional as F


# --- losses: parameters by name, state (changed in place), batch -------------------------------------------
def network(p, x, activation):
    layers = list(p.values())
    for i in range(0, len(layers), 2):
        x = F.linear(x, layers[i], layers[i + 1])
        if i + 2 < len(layers):
            x = activation(x)
    return x


def mlp(p, state, x, labels, index):
    return F.cross_entropy(network(p, x, F.relu), labels)


def elr(p, state, x, labels, index):
    logits = network(p, x, F.relu)
    q = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
    fixed = q.detach()
    target = 0.7 * state["bank"][index] + 0.3 * fixed / fixed.sum(1, keepdim=True)
    state["next"] = target
    return F.cross_entropy(logits, labels) + 3 * torch.log(1 - (target * q).sum(1)).mean()


def gradpen_eager(p, state, x, labels, index):
    x = x.detach().requires_grad_()
    loss = F.cross_entropy(network(p, x, F.relu), labels)
    slope, = torch.autograd.grad(128 * loss, x, create_graph=True)
    return loss + 10 * slope.square().sum(1).mean()


def gradpen_whole(p, state, x, labels, index):
    slope, loss = torch.func.grad_and_value(lambda x: F.cross_entropy(network(p, x, F.relu), labels, reduction="sum"))(x)
    return loss / 128 + 10 * slope.square().sum(1).mean()


def tiny(p, state, x, y):
    return F.mse_loss(network(p, x, torch.tanh), y)


def elementwise(p, state):
    w = p["00"]
    u = torch.log1p(torch.exp(-(0.5 * torch.pow(w.abs() + 1e-3, 1.3))))
    return 1e3 * torch.tanh(2 * (w * torch.tanh(u))).square().mean()


def transport(x, y):
    cost = 0.5 * (x[:, None] - y[None]).square().sum(-1)
    f = g = torch.zeros(512)
    for _ in range(100):
        f = -0.05 * torch.logsumexp((g[None] - cost) / 0.05 - math.log(512), 1)
        g = -0.05 * torch.logsumexp((f[:, None] - cost) / 0.05 - math.log(512), 0)
    return f.mean() + g.mean()


def sinkhorn(p, state, y):
    x = p["00"]
    return transport(x, y) - 0.5 * transport(x, x) - 0.5 * transport(y, y)


def conv_norm(p, state, x, conv, norm, stride=1):
    x = F.conv2d(x, p[conv], stride=stride, padding=1)
    return F.batch_norm(x, *state[norm], p[norm + ".g"], p[norm + ".b"], training=True, momentum=0.1, eps=1e-5)


def resnet20(p, state, x, labels):
    x = F.relu(conv_norm(p, state, x, "stem", "stembn"))
    for stage in range(3):
        for block in range(3):
            at = "%d.%d." % (stage, block)
            stride = 2 if stage > 0 and block == 0 else 1
            h = F.relu(conv_norm(p, state, x, at + "c1", at + "n1", stride))
            h = conv_norm(p, state, h, at + "c2", at + "n2")
            if stride == 2:
                half = x.shape[1] // 2
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
            x = F.relu(x + h)
    return F.cross_entropy(F.linear(x.mean((2, 3)), p["fc.w"], p["fc.b"]), labels)


def gpt(p, state, ids, targets):
    def norm(x, name):
        return F.layer_norm(x, (128,), p[name + ".g"], p[name + ".b"])

    def linear(x, name):
        return F.linear(x, p[name + ".w"], p[name + ".b"])

    x = p["tok"][ids] + p["pos"]
    for layer in range(4):
        at = "%d." % layer
        q, k, v = (t.view(16, 128, 4, 32).transpose(1, 2) for t in linear(norm(x, at + "ln1"), at + "qkv").chunk(3, -1))
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + linear(heads.transpose(1, 2).reshape(16, 128, 128), at + "proj")
        x = x + linear(F.gelu(linear(norm(x, at + "ln2"), at + "up"), approximate="tanh"), at + "down")
    return F.cross_entropy(F.linear(norm(x, "lnf"), p["head.w"]).view(-1, 256), targets.view(-1))


def cross_entropy(p, state, labels):
    return F.cross_entropy(p["logits"], labels)


def layer_norm(p, state, weights):
    width = p["x"].shape[1]
    return (F.layer_norm(p["x"], (width,), p["gain"], p["shift"], 1e-5) * weights).mean()


# Loss, optimiser ("keep": only the gradient is wanted; "given": the batch is the gradient), rate.
WORKLOADS = {"mlp": (mlp, "momentum", 0.01), "elr": (elr, "momentum", 0.01), "gradpen": (gradpen_eager, "momentum", 0.01),
             "resnet20": (resnet20, "momentum", 0.1), "gpt": (gpt, "adamw", 3e-4), "tiny": (tiny, "adam", 1e-3),
             "sinkhorn": (sinkhorn, "descent", 51.2), "elementwise": (elementwise, "descent", 1.0),
             "momentum": (None, "momentum", 0.1), "adamw": (None, "adamw", 3e-4)}
for length in (64, 1024, 65536):
    WORKLOADS["xent%d" % length] = (cross_entropy, "keep", 0)
    WORKLOADS["norm%d" % length] = (layer_norm, "keep", 0)


def optimiser(kind, parameters, rate):
    if kind == "momentum":
        return torch.optim.SGD(parameters, rate, momentum=0.9, fused=True)
    if kind == "adamw":
        return torch.optim.AdamW(parameters, rate, weight_decay=0.01, fused=True)
    return (torch.optim.Adam if kind == "adam" else torch.optim.SGD)(parameters, rate, fused=True)


# --- updates inside a compiled function -----------------------------------------------------------------------
def update_in_place(kind, rate, values, gradients, slots):
    """Momentum, plain descent or Adam (with decay 0.01 for adamw), written out. slots: momenta, squares, step."""
    momenta, squares, count = slots
    if kind in ("adam", "adamw"):
        count.add_(1)
        first, second = 1 / (1 - 0.9 ** count), 1 / (1 - 0.999 ** count)
    for i, (value, slope) in enumerate(zip(values, gradients)):
        if kind == "descent":
            value.sub_(rate * slope)
        elif kind == "momentum":
            momenta[i].mul_(0.9).add_(slope)
            value.sub_(rate * momenta[i])
        else:
            momenta[i].mul_(0.9).add_(0.1 * slope)
            squares[i].mul_(0.999).add_(0.001 * slope * slope)
            decay = rate * 0.01 if kind == "adamw" else 0.0
            value.mul_(1 - decay).sub_(rate * (momenta[i] * first) / ((squares[i] * second).sqrt() + 1e-8))


def whole_step(name, p, state, batches):
    """Forward, gradient and update in one compiled function."""
    loss, kind, rate = WORKLOADS[name]
    loss = gradpen_whole if name == "gradpen" else loss
    p = {k: v.detach() for k, v in p.items()}
    kept = {k: torch.zeros_like(v) for k, v in p.items()}
    slots = ([torch.zeros_like(v) for v in p.values()], [torch.zeros_like(v) for v in p.values()], torch.zeros(()))

    def given(p, slots, *gradients):
        update_in_place(kind, rate, list(p.values()), gradients, slots)
        return p["fc.b"].square().mean()

    def differentiate(p, slots, *batch):
        gradients, value = torch.func.grad_and_value(lambda p: loss(p, state, *batch))(p)
        if kind != "keep":
            update_in_place(kind, rate, list(p.values()), list(gradients.values()), slots)
            return value
        return value, gradients

    call = torch.compile(differentiate if loss else given, dynamic=False)

    def step(i):
        if kind != "keep":
            return call(p, slots, *batches[i % len(batches)])
        value, gradients = call(p, slots, *batches[i % len(batches)])
        kept.update(gradients)
        return value
    return step, lambda: norm_of(kept if kind == "keep" else p)


def eager_step(name, p, state, batches, compile_loss):
    loss, kind, rate = WORKLOADS[name]
    values = list(p.values())
    if loss and compile_loss:
        loss = torch.compile(loss, dynamic=False)
    if kind == "keep":
        kept = {}

        def keep(i):
            value = loss(p, state, *batches[i % len(batches)])
            kept.update(zip(p, torch.autograd.grad(value, values)))
            return value.detach()
        return keep, lambda: norm_of(kept)
    update = optimiser(kind, values, rate)

    def given(i):
        for value, slope in zip(values, batches[i % len(batches)]):
            value.grad = slope
        update.step()
        return p["fc.b"].detach().square().mean()

    def step(i):
        batch = batches[i % len(batches)]
        value = loss(p, state, *batch)
        value.backward()
        if name == "elr":
            state["bank"][batch[2]] = state.pop("next")
        update.step()
        update.zero_grad()
        return value.detach()
    return step if loss else given, lambda: norm_of(p)


def norm_of(arrays):
    return math.sqrt(sum(float(a.detach().double().square().sum()) for a in arrays.values()))


# --- setting up -------------------------------------------------------------------------------------------------
def tensor(a):
    """Integers as PyTorch wants them; images and filters as NCHW and OIHW in channels-last memory."""
    t = torch.from_numpy(a)
    t = t if t.is_floating_point() else t.long()
    if t.ndim != 4:
        return t.clone()
    t = t.permute(3, 2, 0, 1) if t.shape[:2] == (3, 3) else t.permute(0, 3, 1, 2)
    return t.contiguous(memory_format=torch.channels_last)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--inputs", required=True)
    parser.add_argument("workload", choices=WORKLOADS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    name, compiled = options.workload, options.mode == "compile"
    arrays, array_batches = peer_inputs.read(options.inputs, name)
    p = {k: tensor(a).requires_grad_() for k, a in arrays.items()}
    batches = [[tensor(a) for a in b] for b in array_batches]
    state = {"bank": torch.zeros(10000, 10)} if name == "elr" else {
        k[:-2]: (torch.zeros_like(v.detach()), torch.ones_like(v.detach())) for k, v in p.items() if k.endswith(".g")}
    whole = compiled and name not in ("mlp", "elr", "resnet20", "gpt")

    def make():
        return whole_step(name, p, state, batches) if whole else eager_step(name, p, state, batches, compiled)
    peer_inputs.take_turns(dict(workload=name, peer="torch-" + options.mode, threads=options.threads,
                                version=torch.__version__), make)


if __name__ == "__main__":
    main()
