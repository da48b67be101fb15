#!/usr/bin/env python3
"""Times the contract functions of the methods, values and gradients, beside PyTorch (eager) and JAX (jit):
the same equations, inputs and core, in turns.

    cmake --build build --target bench_methods
    python3 bench/methods.py [--build build] [--out methods.json] [FUNCTION | FAMILY ..]

A function's equations, inputs and shape are a few lines in bench/equations/FAMILY.py, written once for
both peers (bench/equations/peers.py). The inputs go to Ballast as a reference case, which
build/bench_methods compiles once. A row counts only if values and gradients of all three agree with
PyTorch in double precision: the relative distance |got - want| / |want|, taken over each array, is
within the row's tolerance. Times are medians of samples taken in turns, in microseconds. Rows in which
Ballast is slower than the faster peer by more than a fifth are listed at the end with the kernel that
takes most of the time, and functions with a gradient that have no row. JAX_COMPILATION_CACHE_DIR saves its compilations between runs."""
import argparse
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import time
import types

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np
from safetensors.numpy import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import equations
from equations import peers

SLOWER = 1.2  # than the faster peer: a row to explain

# What has no row, and why.
WITHOUT_PEER = {
    "sparse_ot_solve": "stops where it has converged, as POT's solver does, which `bench/sinkhorn.py` times beside it",
    "lpn_prior": "inverts a network by L-BFGS, row by row until each has converged, without a gradient",
}


# --- the peers ---------------------------------------------------------------------------------------
def outputs_of(row, xp, arrays):
    y = row["f"](xp, types.SimpleNamespace(**arrays))
    return list(y) if isinstance(y, (tuple, list)) else [y]


def torch_call(row, xp, given, cotangents):
    """A function without arguments: [outputs, gradients]. Only the first output is differentiated where
    that is a scalar."""
    import torch
    arrays = {k: xp.array(v) for k, v in given.items()}
    leaves = [arrays[k].requires_grad_() for k in row["diff"]]
    seeds = None if cotangents is None else [xp.array(c) for c in cotangents]

    def call():
        y = outputs_of(row, xp, arrays)
        if seeds is None:
            return y, torch.autograd.grad(y[0], leaves)
        return y, torch.autograd.grad(y, leaves, seeds)
    return call


def jax_call(row, xp, given, cotangents):
    import jax
    arrays = {k: xp.array(v) for k, v in given.items()}
    diff = {k: arrays.pop(k) for k in row["diff"]}
    seeds = None if cotangents is None else [xp.array(c) for c in cotangents]

    @jax.jit
    def step(diff, rest, seeds):
        def f(diff):
            y = outputs_of(row, xp, {**rest, **diff})
            return (y[0], y) if seeds is None else y
        if seeds is None:
            (_, y), g = jax.value_and_grad(f, has_aux=True)(diff)
        else:
            y, pull = jax.vjp(f, diff)
            g, = pull(seeds)
        return y, [g[k] for k in row["diff"]]

    def call():
        with jax.enable_x64(row["double"]):
            return jax.block_until_ready(step(diff, arrays, seeds))
    return call


# --- Ballast -----------------------------------------------------------------------------------------
def write_case(path, row, given, cotangents, outputs, gradients):
    tensors = {"in." + k: v for k, v in given.items()}
    tensors.update({"out." + k: v for k, v in zip(row["out"], outputs)})
    tensors.update({"grad." + k: v for k, v in zip(row["diff"], gradients)})
    notes = {"function": row["function"], "options": json.dumps(row["options"]), "rtol": "0.001", "atol": "0.001"}
    if cotangents is None:
        notes["wrt"] = row["out"][0]
    else:
        tensors.update({"cot." + k: c for k, c in zip(row["out"], cotangents)})
    save_file({k: np.array(v, order="C") for k, v in tensors.items()}, path, notes)


class Ballast:
    def __init__(self, program, case, results):
        self.child = subprocess.Popen([program, "--turns", results, case], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True)
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(self.child.stderr.read().strip())
        self.about, self.results = json.loads(line), load_file(results)

    def time(self, n):
        print(n, file=self.child.stdin, flush=True)
        return float(self.child.stdout.readline())

    def close(self):
        self.child.stdin.close()
        self.child.wait()


# --- agreement and timing ----------------------------------------------------------------------------
def numpy_of(a):
    return np.asarray(a.detach() if hasattr(a, "detach") else a)


def distance(got, want):
    """The largest relative distance of an array to what it should be."""
    worst = 0.0
    for g, w in zip(got, want):
        g, w = numpy_of(g).astype("f8"), numpy_of(w).astype("f8")
        if g.shape != w.shape or not np.isfinite(g).all():
            return float("inf")
        worst = max(worst, float(np.linalg.norm(g - w) / (np.linalg.norm(w) + 1e-30)))
    return worst


def timer(call):
    def run(n):
        start = time.perf_counter()
        for _ in range(n):
            call()
        return 1e6 * (time.perf_counter() - start) / n
    return run


def medians(runs, seconds):
    """In turns, each sample at least 2 ms; `seconds` for all."""
    repeats = []
    for run in runs:
        once = min(run(1), run(2), run(3))
        repeats.append(max(1, int(2000 / once)))
    samples, start = [[] for _ in runs], time.perf_counter()
    while len(samples[0]) < 7 or (time.perf_counter() - start < seconds and len(samples[0]) < 101):
        for s, run, n in zip(samples, runs, repeats):
            s.append(run(n))
    return [float(np.median(s)) for s in samples]


def measure(name, row, options, folder):
    import torch
    torch.set_num_threads(1)
    draw = peers.Draw(1)
    given = row["inputs"](draw)
    double = peers.Torch(torch.float32 if row["single"] else torch.float64)
    first = outputs_of(row, double, {k: double.array(v) for k, v in given.items()})
    scalar = first[0].ndim == 0
    cotangents = None if scalar else [draw.normal(*y.shape) for y in first]
    want = torch_call(row, double, given, cotangents)()
    want = [numpy_of(a).astype("f4") for a in (*want[0], *want[1])]
    count = len(row["out"])
    case, results = f"{folder}/{name}.safetensors", f"{folder}/{name}.results"
    write_case(case, row, given, cotangents, want[:count], want[count:])

    calls = [torch_call(row, peers.Torch(torch.float32), given, cotangents), jax_call(row, peers.Jax(row["double"]), given, cotangents)]
    got = [[*y, *g] for y, g in (call() for call in calls)]
    ballast = Ballast(f"{options.build}/bench_methods", case, results)
    found = [ballast.results["out." + k] for k in row["out"]] + [ballast.results["grad." + k] for k in row["diff"]]
    apart = {"torch": distance(got[0], want), "jax": distance(got[1], want), "ballast": distance(found, want)}
    times = medians([timer(c) for c in calls] + [ballast.time], options.seconds)
    ballast.close()
    shape = max((v for v in given.values()), key=lambda v: v.size).shape
    ratio = times[2] / min(times[:2])
    return dict(function=name, family=row["family"], shape=list(shape), ballast_us=times[2], torch_us=times[0], jax_us=times[1],
                ratio=ratio, heaviest=heaviest_kernel(options.build, case) if ratio > SLOWER else None, distance=apart, tolerance=row["tolerance"],
                valid=max(apart.values()) <= row["tolerance"], kernels=ballast.about["kernels"],
                compile_us=ballast.about["compile_us"])


# --- the table ---------------------------------------------------------------------------------------
HEAD = "%-46s %-18s %10s %10s %10s %7s  %s" % ("function", "largest input", "Ballast us", "torch us", "jax us", "ratio",
                                                "largest distance from double")


def heaviest_kernel(build, case):
    """Where Ballast's time goes: the kernel with the largest share, from its own profile."""
    run = subprocess.run([f"{build}/bench_methods", case], env={**os.environ, "BL_PROFILE": "1"}, capture_output=True, text=True)
    found = [re.match(r"\s*[\d.]+ us\s+([\d.]+) %\s+(.*)", l) for l in (run.stdout + run.stderr).splitlines()]
    shares = [(float(m.group(1)), " ".join(m.group(2).split())) for m in found if m]
    return "%.0f %% in %s" % max(shares) if shares else "no profile"


def line(r):
    worst = max(r["distance"], key=r["distance"].get)
    verdict = "" if r["valid"] else "  INVALID: tolerance %g, %s" % (r["tolerance"], r["distance"])
    return "%-46s %-18s %10.1f %10.1f %10.1f %7.2f  %.1e (%s)%s" % (
        r["function"], "x".join(map(str, r["shape"])), r["ballast_us"], r["torch_us"], r["jax_us"], r["ratio"],
        r["distance"][worst], worst, verdict)


def markdown(rows, path):
    """bench/methods.md: all rows, the slowest in comparison first."""
    rows = sorted((r for r in rows if r["valid"]), key=lambda r: -r["ratio"])
    ratios = np.array([r["ratio"] for r in rows])
    with open(path, "w") as f:
        f.write("# Contract functions beside PyTorch and JAX\n\nWritten by `bench/methods.py --out methods.json --markdown "
                "bench/methods.md`: value and gradients, single precision, one thread on one\ncore, medians of samples in turns, "
                "microseconds. A ratio below 1 is in favour of Ballast; it is taken to the faster of PyTorch (eager) and\n"
                "JAX (jit). All rows agree with PyTorch in double precision within their tolerance.\n\n"
                "%d functions: Ballast is faster in %d, at most a fifth slower in %d, slower than that in %d; the geometric mean of "
                "the ratios is %.2f.\n\n| function | largest input | Ballast | PyTorch | JAX | ratio | where slower: heaviest kernel |\n"
                "|---|---|---|---|---|---|---|\n" % (len(rows), (ratios < 1).sum(), ((ratios >= 1) & (ratios <= SLOWER)).sum(),
                                                  (ratios > SLOWER).sum(), np.exp(np.log(ratios).mean())))
        for r in rows:
            f.write("| %s | %s | %.1f | %.1f | %.1f | %.2f | %s |\n" % (r["function"], " x ".join(map(str, r["shape"])), r["ballast_us"],
                    r["torch_us"], r["jax_us"], r["ratio"], (r["heaviest"] or "")[:110].replace("|", "/")))
        f.write("\nIn double precision in all three, as the papers' methods are defined: %s.\n" % ", ".join(
            sorted(n for n, r in peers.ROWS.items() if r["double"])))
        f.write("\nDifferentiable functions without a row:\n\n" + "".join("- %s %s\n" % p for p in WITHOUT_PEER.items()))
        f.write("\nHost functions (fits, clustering, statistics of sorted values) are not differentiated by the engine: `bench/host.py` and "
                "[host.md](host.md).\n")


def differentiable(build):
    """All functions of the program that have a gradient."""
    listed = subprocess.run([f"{build}/bench_methods", "--list"], capture_output=True, text=True, check=True).stdout
    return listed.split()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="functions or families; all if none")
    parser.add_argument("--build", default=os.path.join(HERE, "..", "build"))
    parser.add_argument("--out", help="JSON; rows of other functions that it has already are kept")
    parser.add_argument("--markdown", help="a table of all rows of the JSON")
    parser.add_argument("--seconds", type=float, default=0.25, help="of timing for a function")
    parser.add_argument("--cases", help="keep the inputs there")
    options = parser.parse_args()
    for module in pkgutil.iter_modules(equations.__path__):
        importlib.import_module("equations." + module.name)
    rows = {n: r for n, r in peers.ROWS.items() if not options.names or n in options.names or r["family"] in options.names}
    unknown = set(options.names) - set(peers.ROWS) - {r["family"] for r in peers.ROWS.values()}
    if unknown:
        sys.exit("no function or family is called " + ", ".join(sorted(unknown)))
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.cases or scratch
        os.makedirs(folder, exist_ok=True)
        print(HEAD)
        for name, row in rows.items():
            try:
                results.append(measure(name, row, options, folder))
                print(line(results[-1]), flush=True)
            except Exception as error:
                results.append(dict(function=name, family=row["family"], valid=False, error=str(error)))
                print("%-46s INVALID: %s" % (name, str(error)[:200]), flush=True)
    invalid = [r["function"] for r in results if not r["valid"]]
    slow = [r for r in results if r["valid"] and r["ratio"] > SLOWER]
    print("\n%d rows, %d invalid; slower than the faster peer by more than %.0f %%: %d" % (
        len(results), len(invalid), 100 * (SLOWER - 1), len(slow)))
    for r in sorted(slow, key=lambda r: -r["ratio"]):
        print("  %.2f  %s (%.0f us, %s %.0f us): %s" % (r["ratio"], r["function"], r["ballast_us"],
              *min(("torch", r["torch_us"]), ("jax", r["jax_us"]), key=lambda p: p[1]), r["heaviest"][:150]))
    covered = {r["function"] for r in peers.ROWS.values()}
    missing = [n for n in differentiable(options.build) if n not in covered and n not in WITHOUT_PEER]
    if missing and not options.names:
        print("without a row: " + " ".join(missing))
    if options.out:
        kept = {}
        if os.path.exists(options.out):
            with open(options.out) as f:
                kept = {r["function"]: r for r in json.load(f)}
        kept.update({r["function"]: r for r in results})
        with open(options.out, "w") as f:
            json.dump(list(kept.values()), f, indent=1)
        if options.markdown:
            markdown(kept.values(), options.markdown)
    return 1 if invalid else 0


if __name__ == "__main__":
    sys.exit(main())
