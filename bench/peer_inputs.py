#!/usr/bin/env python3
"""What the peers of bench/run.py start from, and how they take turns.

    python3 bench/peer_inputs.py FOLDER [WORKLOAD ..]

For every workload a file FOLDER/WORKLOAD.safetensors: parameters "p/NAME", batches "b/I/J" (array J of
batch I); weights are [out,in], filters [h,w,in,out], images channels-last, integers i32. All peers read
these files, so that all start from the same numbers; the equations are the losses of bench/bench_peer.c.

To add a workload: its parameters and batches here, its loss in bench_peer.c, peer_torch.py and
peer_jax.py, its floor in run.py."""
import json
import resource
import sys
import time

import numpy as np
from safetensors.numpy import load_file, save_file

BATCHES = 4
ROW_ELEMENTS = 1 << 22  # of the row workloads, however long their rows


class Inputs:
    """Numbers from one seed, in the order in which they are asked for."""

    def __init__(self):
        self.random = np.random.default_rng(20)

    def normal(self, *shape, scale=1.0):
        return (scale * self.random.standard_normal(shape)).astype(np.float32)

    def uniform(self, *shape, low=0.0, high=1.0):
        return self.random.uniform(low, high, shape).astype(np.float32)

    def below(self, limit, *shape):
        return self.random.integers(0, limit, shape).astype(np.int32)

    def layers(self, *widths):
        """Weights with He's scale and zero biases, in turn."""
        arrays = []
        for fan_in, fan_out in zip(widths, widths[1:]):
            arrays += [self.normal(fan_out, fan_in, scale=(2 / fan_in) ** 0.5), np.zeros(fan_out, np.float32)]
        return {"%02d" % i: a for i, a in enumerate(arrays)}


def classifier(d):
    batches = [(d.normal(128, 784), d.below(10, 128), d.random.permutation(10000)[:128].astype(np.int32))
               for _ in range(BATCHES)]
    return d.layers(784, 512, 512, 10), batches


def tiny(d):
    return d.layers(10, 32, 32, 1), [(d.normal(64, 10), d.normal(64, 1)) for _ in range(BATCHES)]


def resnet20_parameters(d):
    p = {}

    def conv(name, norm, channels, width):
        p[name] = d.normal(3, 3, channels, width, scale=(2 / (9 * channels)) ** 0.5)
        p[norm + ".g"], p[norm + ".b"] = np.ones(width, np.float32), np.zeros(width, np.float32)

    conv("stem", "stembn", 3, 16)
    channels = 16
    for stage, width in enumerate((16, 32, 64)):
        for block in range(3):
            conv("%d.%d.c1" % (stage, block), "%d.%d.n1" % (stage, block), channels, width)
            conv("%d.%d.c2" % (stage, block), "%d.%d.n2" % (stage, block), width, width)
            channels = width
    p["fc.w"], p["fc.b"] = d.normal(10, 64, scale=0.1), np.zeros(10, np.float32)
    return p


def resnet20(d):
    return resnet20_parameters(d), [(d.normal(128, 32, 32, 3), d.below(10, 128)) for _ in range(BATCHES)]


def gpt(d):
    p = {"tok": d.normal(256, 128, scale=0.02), "pos": d.normal(128, 128, scale=0.02)}
    for layer in range(4):
        for name, rows, columns in (("qkv", 384, 128), ("proj", 128, 128), ("up", 512, 128), ("down", 128, 512)):
            p["%d.%s.w" % (layer, name)] = d.normal(rows, columns, scale=0.02)
            p["%d.%s.b" % (layer, name)] = np.zeros(rows, np.float32)
    for norm in ["%d.ln%d" % (layer, i) for layer in range(4) for i in (1, 2)] + ["lnf"]:
        p[norm + ".g"], p[norm + ".b"] = np.ones(128, np.float32), np.zeros(128, np.float32)
    p["head.w"] = d.normal(256, 128, scale=0.02)
    return p, [(d.below(256, 16, 128), d.below(256, 16, 128)) for _ in range(BATCHES)]


def sinkhorn(d):
    return {"00": d.uniform(512, 2)}, [(d.uniform(512, 2, low=0.5),)]


def elementwise(d):
    return {"00": d.normal(1 << 22)}, []


def cross_entropy_rows(width):
    def make(d):
        rows = ROW_ELEMENTS // width
        return {"logits": d.normal(rows, width)}, [(d.below(width, rows),) for _ in range(BATCHES)]
    return make


def norm_rows(width):
    def make(d):
        p = {"x": d.normal(ROW_ELEMENTS // width, width), "gain": d.normal(width), "shift": d.normal(width)}
        return p, [(d.normal(ROW_ELEMENTS // width, width),)]
    return make


def update(d):
    """No model: every batch holds a gradient for each parameter of a ResNet-20, in the order of names."""
    p = resnet20_parameters(d)
    return p, [tuple(d.normal(*p[name].shape, scale=0.01) for name in sorted(p)) for _ in range(BATCHES)]


WORKLOADS = {"mlp": classifier, "elr": classifier, "gradpen": classifier, "resnet20": resnet20, "gpt": gpt, "tiny": tiny,
             "sinkhorn": sinkhorn, "elementwise": elementwise,
             "xent64": cross_entropy_rows(64), "xent1024": cross_entropy_rows(1024), "xent65536": cross_entropy_rows(65536),
             "norm64": norm_rows(64), "norm1024": norm_rows(1024), "norm65536": norm_rows(65536),
             "momentum": update, "adamw": update}


def write(folder, name):
    parameters, batches = WORKLOADS[name](Inputs())
    out = {"p/" + k: np.ascontiguousarray(a) for k, a in parameters.items()}
    out.update({"b/%d/%d" % (i, j): np.ascontiguousarray(a) for i, b in enumerate(batches) for j, a in enumerate(b)})
    save_file(out, "%s/%s.safetensors" % (folder, name))


def read(folder, name):
    """Parameters by name, in the order of names, and batches, each a list of arrays (one empty batch if
    there are none)."""
    arrays = load_file("%s/%s.safetensors" % (folder, name))
    parameters = {k[2:]: arrays[k] for k in sorted(arrays) if k.startswith("p/")}
    batches = {}
    for k in arrays:
        if k.startswith("b/"):
            i, j = map(int, k[2:].split("/"))
            batches.setdefault(i, {})[j] = arrays[k]
    return parameters, [[batches[i][j] for j in sorted(batches[i])] for i in sorted(batches)] or [[]]


def take_turns(about, make):
    """A peer's side of the conversation with run.py. make() gives step(i), which returns the loss, and
    norm(), of all parameters or kept gradients. Prints a line of JSON: `about`, milliseconds from nothing
    to the first result, losses before any update and after three, and the norm. Then for every line
    SECONDS that it reads it runs steps for so long, and prints the samples: pairs of milliseconds a step
    and how often the process was preempted meanwhile. A sample is at least a millisecond long."""
    start = time.perf_counter()
    step, norm = make()
    losses = [float(step(0))]
    first = time.perf_counter() - start
    losses += [float(step(i)) for i in range(1, 4)]
    print(json.dumps(dict(about, first_ms=1e3 * first, loss1=losses[0], loss4=losses[3], norm=float(norm()))), flush=True)
    number = 4

    def run(count):
        nonlocal number
        begin = time.perf_counter()
        for _ in range(count):
            step(number)
            number += 1
        return time.perf_counter() - begin

    for line in sys.stdin:
        until, samples = time.perf_counter() + float(line), []
        best = run(1)
        for _ in range(2 if best < 0.05 else 0):  # a long step has warmed everything up
            best = min(best, run(1))
        inner = max(1, int(0.001 / best))
        while len(samples) < 2 or time.perf_counter() < until:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
            seconds = run(inner)
            samples.append((1e3 * seconds / inner, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before))
        print(json.dumps(samples), flush=True)


if __name__ == "__main__":
    for workload in sys.argv[2:] or WORKLOADS:
        write(sys.argv[1], workload)
