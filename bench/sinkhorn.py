#!/usr/bin/env python3
"""Times entropic transport, 512 x 512 points, exactly 100 log-domain iterations, value and gradient in the
cost, beside OTT (jax.jit) and POT (its NumPy and its PyTorch backend), in turns on one core; and sparse
transport, 256 x 256 points with at most four sources a target, by L-BFGS, beside POT's.

    cmake --build build --target bench_sinkhorn bench_methods
    python3 bench/sinkhorn.py [--build build] [--size 512] [--limit 100] [--seconds 12] [--out sinkhorn.json]

All have the same cost matrix, masses and epsilon, and no early stop; OTT's check of convergence, which would
cost it an iteration's time each ten, is asked for once. The value is <P,cost> - epsilon H(P) and its gradient
the plan (Danskin), as OTT's and POT's own rules have it. Values and gradients are compared with POT's in
double precision, which has nearly converged after 100 iterations: a row counts within 1e-4 of both in single
and 1e-7 in double precision. Needs numpy, safetensors, torch, jax, ott-jax and pot."""
import argparse
import contextlib
import io
import json
import os
import subprocess
import tempfile
import time
import warnings

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_X64"] = "1"
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np
from safetensors.numpy import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))


class Problem:
    def __init__(self, options):
        r = np.random.default_rng(1)
        x, y = r.normal(size=(options.size, 8)), r.normal(size=(options.size, 8)) + 0.5
        self.cost = ((x[:, None] - y[None]) ** 2).sum(-1)
        self.epsilon = float(0.1 * self.cost.mean())
        self.mass = np.full(options.size, 1 / options.size)
        self.limit = options.limit

    def value(self, plan):
        plan = np.asarray(plan, "f8")
        return float((plan * self.cost).sum() + self.epsilon * (plan * np.log(plan)).sum())


def ballast(p, dtype, options, folder):
    case, results = f"{folder}/{dtype}.case", f"{folder}/{dtype}.results"
    save_file({"cost": p.cost.astype(dtype), "a": p.mass.astype(dtype), "b": p.mass.astype(dtype)}, case,
              {"epsilon": repr(p.epsilon), "limit": str(p.limit)})
    child = subprocess.Popen([f"{options.build}/bench_sinkhorn", case, results], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    if child.stdout.readline() != "ready\n":
        raise SystemExit("bench_sinkhorn failed")
    found = load_file(results)

    def run():
        print(1, file=child.stdin, flush=True)
        return float(child.stdout.readline())
    return run, float(found["value"]), found["gradient"]


def timed(call):
    def run():
        start = time.perf_counter()
        call()
        return 1e6 * (time.perf_counter() - start)
    return run


def ott(p, dtype):
    import jax
    import jax.numpy as jnp
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn
    cost, mass = jnp.asarray(p.cost, dtype), jnp.asarray(p.mass, dtype)
    solver = sinkhorn.Sinkhorn(lse_mode=True, threshold=0.0, inner_iterations=p.limit, min_iterations=p.limit,
                               max_iterations=p.limit)

    @jax.jit
    @jax.value_and_grad
    def solve(cost):
        g = geometry.Geometry(cost_matrix=cost, epsilon=jnp.asarray(p.epsilon, dtype))
        return solver(linear_problem.LinearProblem(g, mass, mass)).reg_ot_cost
    call = lambda: jax.block_until_ready(solve(cost))
    value, gradient = call()
    # OTT's regulariser is KL(P | a b^T), this one's -H(P)
    return timed(call), float(value) - 2 * p.epsilon * np.log(len(p.mass)), np.asarray(gradient)


def pot_numpy(p, dtype):
    import ot
    cost, mass = p.cost.astype(dtype), p.mass.astype(dtype)
    epsilon = dtype(p.epsilon)

    def call():  # the gradient is the plan
        plan = ot.sinkhorn(mass, mass, cost, epsilon, "sinkhorn_log", numItermax=p.limit, stopThr=0, warn=False)
        return np.sum(plan * cost) + epsilon * np.sum(plan * np.log(plan)), plan
    return timed(call), *call()


def pot_torch(p, dtype):
    import ot
    import torch
    torch.set_num_threads(1)
    cost, mass = torch.tensor(p.cost.astype(dtype), requires_grad=True), torch.tensor(p.mass.astype(dtype))

    def call():
        r = ot.solve(cost, mass, mass, reg=p.epsilon, reg_type="entropy", max_iter=p.limit, tol=0, grad="envelope")
        return r.value, torch.autograd.grad(r.value, cost)[0]
    value, gradient = call()
    return timed(call), float(value), gradient.numpy()


def sparse(options, folder):
    """sparse_ot_solve and POT's solver of the same semi-dual: milliseconds, how far masses are missed, the value.
    Both stop where they find that they converged, Ballast by the masses."""
    import ot
    r, n, k, gamma = np.random.default_rng(1), 256, 4, 0.1
    x, y = r.normal(size=(n, 8)), r.normal(size=(n, 8)) + 0.5
    cost = ((x[:, None] - y[None]) ** 2).sum(-1).astype("f4")
    mass = np.full(n, 1 / n, "f4")
    notes = dict(function="sparse_ot_solve", wrt="value", options=json.dumps(dict(k=k, gamma=gamma, tol=1e-6)))
    case, results = f"{folder}/sparse.case", f"{folder}/sparse.results"
    save_file({"in.a": mass, "in.b": mass, "in.cost": cost, "out.plan": cost, "grad.cost": cost}, case, notes)
    child = subprocess.Popen([f"{options.build}/bench_methods", "--turns", results, case], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    child.stdout.readline()

    def of_ballast():
        print(1, file=child.stdin, flush=True)
        return float(child.stdout.readline())

    def of_pot():
        with contextlib.redirect_stdout(io.StringIO()):  # it prints shapes
            return ot.smooth.smooth_ot_semi_dual(mass.astype("f8"), mass.astype("f8"), cost.astype("f8"), gamma,
                                                 reg_type="sparsity_constrained", max_nz=k, numItermax=500, stopThr=1e-6)
    runs, rows = {"Ballast": (of_ballast, load_file(results)["out.plan"]), "POT (numpy)": (timed(of_pot), of_pot())}, []
    samples = {s: [] for s in runs}
    for _ in range(7):
        for s, (run, _) in runs.items():
            samples[s].append(run())
    for s, (_, plan) in runs.items():
        plan = plan.astype("f8")
        missed = max(np.abs(plan.sum(1) - mass).max(), np.abs(plan.sum(0) - mass).max())
        rows.append(dict(solver=s, ms=float(np.median(samples[s])) / 1e3, missed=float(missed), most=int((plan > 0).sum(0).max()),
                         value=float((plan * cost).sum() + gamma / 2 * (plan ** 2).sum())))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(HERE, "..", "build"))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=12, help="of timing for both precisions")
    parser.add_argument("--out")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    p, rows = Problem(options), []
    _, _, want = pot_numpy(p, np.float64)
    size = np.linalg.norm(want)
    with tempfile.TemporaryDirectory() as folder:
        for dtype, tolerance in ((np.float32, 1e-4), (np.float64, 1e-7)):
            name = np.dtype(dtype).name
            solvers = {"Ballast": ballast(p, name, options, folder), "OTT (jax.jit)": ott(p, dtype),
                       "POT (numpy)": pot_numpy(p, dtype), "POT (torch)": pot_torch(p, dtype)}
            samples, start = {s: [] for s in solvers}, time.perf_counter()
            while len(samples["Ballast"]) < 3 or time.perf_counter() - start < options.seconds / 2:
                for s, (run, _, _) in solvers.items():
                    samples[s].append(run())
            for s, (_, value, gradient) in solvers.items():
                far = (abs(value - p.value(want)) / abs(p.value(want)), np.linalg.norm(gradient - want) / size)
                rows.append(dict(solver=s, dtype=name, ms=float(np.median(samples[s])) / 1e3, samples=len(samples[s]),
                                 value=float(far[0]), gradient=float(far[1]), valid=bool(max(far) <= tolerance)))
        found = sparse(options, folder)
    print("sparse: 256 x 256, at most four sources a target, by L-BFGS, value and gradient (POT: value)")
    for r in found:
        print("  %-14s %9.2f ms  masses missed by %.1e, %d sources, cost %.6f" % (r["solver"], r["ms"], r["missed"], r["most"], r["value"]))
    for name in ("float32", "float64"):
        print(f"{name}: {options.size} x {options.size}, {options.limit} iterations, value and gradient")
        own = next(r["ms"] for r in rows if r["dtype"] == name)
        for r in (r for r in rows if r["dtype"] == name):
            print("  %-14s %9.2f ms  %6.2f x Ballast  value off %.1e, gradient off %.1e%s" % (
                r["solver"], r["ms"], r["ms"] / own, r["value"], r["gradient"], "" if r["valid"] else "  INVALID"))
    if options.out:
        with open(options.out, "w") as f:
            json.dump(rows + found, f, indent=1)
    return 0 if all(r["valid"] for r in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
