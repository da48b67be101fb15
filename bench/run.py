#!/usr/bin/env python3
"""Ballast beside PyTorch (eager and compiled) and JAX: whole training steps, on the same cores, in turns.

    cmake --build build --target bench
    python3 bench/run.py [--threads 1 | 2] [WORKLOAD ..]
    python3 bench/run.py --setup [WORKLOAD ..]     time to the first result, nothing cached
    python3 bench/run.py --load [WORKLOAD ..]      one thread and two while another process spins
    python3 bench/run.py --everything --markdown bench/results.md     all of these, and the tables

Needs numpy, safetensors, torch and jax; the peers run in the Python that runs this. All peers of a
workload are started, compile, and report their losses before any update and after three and the norm of
their parameters; a disagreement is an error. Then they are timed in turns: in every round each has the
machine for --turn seconds, in alternating order. A sample in which the process was preempted is dropped.
Printed are medians and quartiles in milliseconds, Ballast's median over the best peer's, and the floor:
what the step's multiplications, bytes and exponentials take at the rates that bench_peak measures at the
start. A star marks a median of samples that were not free of preemption. --json keeps every number;
--markdown FILE puts each table into that file, in place of what stood between its pair of comments, and
leaves the text around them. --idle-wait holds every turn back until other processes leave the machine
alone. --gate COMMAND is for a machine shared through a lock: it is started before a workload's turns,
prints a line once the machine is ours, and ends when its input is closed, for example
"flock /tmp/lock sh -c 'echo; cat'"."""
import argparse
import contextlib
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import peer_inputs

PEERS = ["torch-eager", "torch-compile", "jax-jit", "ballast"]
# Not tried: torch.compile unrolls the 600 iterations of sinkhorn and needs many minutes.
LEFT_OUT = {("sinkhorn", "torch-compile")}
AGREEMENT = 2e-3  # relative; the peers differ in the order of their sums
FEWEST = 7        # samples without preemption, for these alone to count
SETUPS = {"torch-eager": 3, "torch-compile": 1, "jax-jit": 2, "ballast": 5}  # the slower, the less they vary
HEADINGS = {"steps1": "Training steps, one thread", "steps2": "Training steps, two threads",
            "setup": "Time to the first result", "load": "One and two threads beside another process"}
CHOSEN = {"steps1": list(peer_inputs.WORKLOADS),  # where none are named
          "steps2": ["mlp", "elr", "gradpen", "resnet20", "gpt", "tiny", "sinkhorn", "elementwise"],
          "setup": ["resnet20", "gpt"],
          "load": ["mlp", "resnet20", "gpt", "sinkhorn", "elementwise"]}


# --- floors --------------------------------------------------------------------------------------------------
MLP = [784 * 512, 512 * 512, 512 * 10]  # weights of the layers


def resnet20_products():
    """Multiply-adds of forward and both backward products; the first layer's input needs no gradient."""
    stem, total, channels, side = 1024 * 27 * 16, 0, 16, 32
    for stage, width in enumerate((16, 32, 64)):
        for block in range(3):
            side = side // 2 if stage and not block else side
            total += side * side * 9 * (channels * width + width * width)
            channels = width
    return 128 * (2 * stem + 3 * (total + 640))


def gpt_products():
    """Of attention only the half below the diagonal."""
    weights = 4 * 128 * (384 + 128 + 512 + 512) + 128 * 256
    attention = 4 * 16 * 4 * 128 * 129 // 2 * 32 * 6
    return 2048 * weights * 3 + attention


ROWS = peer_inputs.ROW_ELEMENTS
RESNET20_PARAMETERS = 269722  # numbers in its 59 arrays
# Multiply-adds; bytes that have to be read or written even if all else is fused; whether these fit in the
# last cache; exponentials, logarithms and the like, each counted as one exponential.
WORK = {
    "mlp": (128 * (3 * sum(MLP) - MLP[0]), 16 * sum(MLP), True, 0),
    "elr": (128 * (3 * sum(MLP) - MLP[0]), 16 * sum(MLP), True, 0),
    "gradpen": (128 * (6 * sum(MLP) - MLP[0]), 16 * sum(MLP), True, 0),
    "resnet20": (resnet20_products(), 0, False, 0),
    "gpt": (gpt_products(), 0, False, 2048 * 128 * 2 + 2048 * 512 * 4),
    "tiny": (64 * (3 * (320 + 1024 + 32) - 320), 24 * 1441, True, 64 * 64),
    "sinkhorn": (0, 5 * 200 * 4 * 512 * 512, True, 3 * 200 * 512 * 512),
    "elementwise": (0, 8 * (1 << 22), False, 6 * (1 << 22)),
    "momentum": (0, 20 * RESNET20_PARAMETERS, True, 0),
    "adamw": (0, 28 * RESNET20_PARAMETERS, True, 0),
}
for length in (64, 1024, 65536):
    WORK["xent%d" % length] = (0, 8 * ROWS, False, ROWS)
    WORK["norm%d" % length] = (0, 12 * ROWS, False, 0)


def floor(name, peak):
    """Milliseconds: the largest of what products, bytes and exponentials take."""
    products, bytes_, cached, exponentials = WORK[name]
    return 1e-6 * max(2 * products / peak["gflops"], bytes_ / peak["cache" if cached else "memory"], exponentials / peak["gexp"])


# --- a quiet machine -----------------------------------------------------------------------------------------
def processor_time():
    """Busy and all ticks of all processors so far."""
    with open("/proc/stat") as f:
        ticks = [int(x) for x in f.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def wait_until_idle(seconds, share=0.05):
    """Until others use less than that share of the machine, or until time is up."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        before = processor_time()
        time.sleep(0.2)
        after = processor_time()
        if after[0] - before[0] < share * (after[1] - before[1]):
            return


@contextlib.contextmanager
def gate(command):
    if not command:
        yield
        return
    child = subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    try:
        yield
    finally:
        child.stdin.close()
        child.wait()


# --- peers ---------------------------------------------------------------------------------------------------
def command_of(peer, workload, threads, options):
    common = ["--inputs", options.inputs, "--threads", str(threads)]
    if peer == "ballast":
        return [os.path.join(options.build, "bench_peer"), *common, "--turns", workload]
    library, mode = peer.split("-")
    script = os.path.join(HERE, "peer_%s.py" % library)
    return [sys.executable, script, *common, *(["--mode", mode] if library == "torch" else []), workload]


class Peer:
    """A running peer; it has set up and waits for its turns. It sets up on `chosen` processors."""

    def __init__(self, peer, workload, threads, options, chosen, cache=None):
        self.name, self.samples = peer, []
        cache = cache or os.path.join(tempfile.gettempdir(), "ballast-bench-cache")
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu",
                       "TORCHINDUCTOR_CACHE_DIR": cache, "JAX_COMPILATION_CACHE_DIR": cache}
        if threads == 1:
            environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        self.child = subprocess.Popen(command_of(peer, workload, threads, options), env=environment, stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                      preexec_fn=lambda: os.sched_setaffinity(0, chosen))
        self.about = None

    def ready(self):
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError("%s: %s" % (self.name, self.child.communicate()[1].strip()[-800:]))
        self.about = json.loads(line)
        return self

    def move(self, processors):
        """All of its threads; libraries sized their pools by the number of processors at the start."""
        for thread in os.listdir("/proc/%d/task" % self.child.pid):
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(int(thread), processors)

    def turn(self, seconds):
        print(seconds, file=self.child.stdin, flush=True)
        self.samples += json.loads(self.child.stdout.readline())

    def close(self):
        self.child.stdin.close()
        self.child.stdout.close()
        self.child.wait()

    def summary(self, every=False):
        """Median and quartiles of the samples without preemption (or of every sample). A library whose
        own threads push each other off the processor has too few of them: of its samples the less
        preempted half counts, ties included. Samples are never chosen by their time."""
        limit = float("inf") if every else 0
        if sum(preempted <= limit for _, preempted in self.samples) < FEWEST:
            limit = float(np.median([preempted for _, preempted in self.samples]))
        counted = [t for t, preempted in self.samples if preempted <= limit]
        low, median, high = np.percentile(counted, [25, 50, 75])
        return dict(median=median, quartiles=[low, high], samples=len(counted), dropped=len(self.samples) - len(counted),
                    disturbed=limit > 0 and not every)


def disagreement(peers):
    """What the peers do not agree on, in words."""
    found = []
    for key in ("loss1", "loss4", "norm"):
        values = {p.name: p.about[key] for p in peers}
        scale = max(abs(v) for v in values.values())
        if not scale < float("inf") or max(values.values()) - min(values.values()) > AGREEMENT * scale:
            found.append("%s: %s" % (key, values))
    return "; ".join(found)


def measure(workload, options):
    names = [p for p in PEERS if p in options.peers and (workload, p) not in LEFT_OUT]
    peers, processors = [], sorted(os.sched_getaffinity(0))
    own = processors[-options.threads:]
    try:
        for i, name in enumerate(names):  # all at once, each on one of the groups of so many processors
            at = i * options.threads % (len(processors) // options.threads * options.threads)
            peers.append(Peer(name, workload, options.threads, options, processors[at:at + options.threads]))
        for p in peers:
            p.ready().move(own)
        with gate(options.gate):
            for number in range(options.rounds):
                for p in peers if number % 2 == 0 else peers[::-1]:
                    wait_until_idle(options.idle_wait)
                    p.turn(options.turn)
        apart = disagreement(peers)
        result = dict(workload=workload, threads=options.threads, error=apart or None,
                      peers={p.name: dict(p.about, **p.summary()) for p in peers})
    finally:
        for p in peers:
            p.close()
    others = [v["median"] for k, v in result["peers"].items() if k != "ballast"]
    own = result["peers"].get("ballast", {}).get("median")
    result["ratio"] = own / min(others) if own and others else None
    return result


# --- tables --------------------------------------------------------------------------------------------------
class Table:
    """Rows that are printed as they come, and kept for --markdown."""

    def __init__(self, about, *columns):
        self.lines = [about, "", "| %s |" % " | ".join(columns), "|" + "---|" * len(columns)]
        print("\n" + "\n".join(self.lines), flush=True)

    def add(self, *cells):
        self.lines.append("| %s |" % " | ".join(cells))
        print(self.lines[-1], flush=True)


def put(file, part, lines):
    """The lines between the comments <!-- PART --> and <!-- end of PART -->, which are added with a
    heading if absent."""
    text = open(file).read() if os.path.exists(file) else ""
    begin, end = "<!-- %s -->\n" % part, "<!-- end of %s -->\n" % part
    if begin not in text:
        text += "%s## %s\n\n%s%s" % ("\n" * bool(text), HEADINGS.get(part, part), begin, end)
    head, rest = text.split(begin, 1)
    with open(file, "w") as f:
        f.write(head + begin + "\n".join(lines) + "\n" + end + rest.split(end, 1)[1])


def machine():
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), platform.machine())
    return "%s, %d processors, %s" % (model, os.cpu_count(), datetime.date.today().strftime("%-d %b %Y"))


def versions(results):
    known = {p.split("-")[0]: v.get("version") for r in results for p, v in r.get("peers", {}).items()}
    return ", ".join("%s %s" % (name, v) for name, v in sorted(known.items()) if v)


def cell(p):
    if not p:
        return "-"
    return "%.4g [%.4g, %.4g]%s" % (p["median"], *p["quartiles"], " *" if p["disturbed"] else "")


def steps_table(options, peak):
    names = [p for p in PEERS if p in options.peers]
    about = "%d thread%s, ms; %s; %.1f GFLOP/s, memory %.1f GB/s, cache %.1f GB/s, %.2fe9 exp/s" % (
        options.threads, "s" if options.threads > 1 else "", machine(), peak["gflops"], peak["memory"], peak["cache"], peak["gexp"])
    return Table(about, "workload", *names, "ratio to the best peer", "floor", "Ballast over floor",
                 *["times one thread"] * bool(options.one_thread))


def add_steps_row(table, r, options):
    own = r["peers"].get("ballast", {}).get("median")
    alone = options.one_thread.get(r["workload"])
    table.add(r["workload"], *[cell(r["peers"].get(p)) for p in PEERS if p in options.peers],
              "%.2f" % r["ratio"] if r["ratio"] else "-", "%.3g" % r["floor"], "%.1f" % (own / r["floor"]) if own else "-",
              *["%.2f" % (alone / own) if own and alone else "-"] * bool(options.one_thread))
    if r["error"]:
        print("DISAGREE on %s: %s" % (r["workload"], r["error"]), file=sys.stderr)


def time_steps(options):
    results = []
    with gate(options.gate):
        wait_until_idle(options.idle_wait)
        peak = json.loads(subprocess.run([os.path.join(options.build, "bench_peak"), str(options.threads)], check=True,
                                         capture_output=True, text=True).stdout)
    table = steps_table(options, peak)
    for workload in options.workloads:
        try:
            r = measure(workload, options)
        except RuntimeError as error:
            print("%s: %s" % (workload, error), file=sys.stderr)
            results.append(dict(workload=workload, error=str(error)))
            continue
        results.append(dict(r, floor=floor(workload, peak)))
        add_steps_row(table, results[-1], options)
    table.lines[0] += "; " + versions(results)
    return table, dict(peak=peak, rows=results)


def time_setup(options):
    """Milliseconds from nothing (libraries loaded, inputs read) to the first result, and the median of
    the repeats; caches of compiled code start empty each time. Whoever compiles may use all processors."""
    results, processors = [], sorted(os.sched_getaffinity(0))
    table = Table("%s; median of %s runs" % (machine(), ", ".join("%d (%s)" % (SETUPS[p], p) for p in options.peers)),
                  "time to the first result, ms", *options.peers, "Ballast without its first step")
    for workload in options.workloads:
        row = dict(workload=workload, threads=options.threads, error=None)
        for name in options.peers:
            about = []
            for _ in range(SETUPS[name]):
                with tempfile.TemporaryDirectory() as cache:
                    wait_until_idle(options.idle_wait)
                    peer = Peer(name, workload, options.threads, options, processors, cache=cache).ready()
                    about.append(peer.about)
                    peer.close()
            row[name] = float(np.median([a["first_ms"] for a in about]))
            if name == "ballast":
                row["built"] = float(np.median([a["setup_ms"] for a in about]))
        results.append(row)
        table.add(workload, *["%.0f" % row[p] for p in options.peers], "%.0f" % row["built"] if "built" in row else "-")
    return table, dict(rows=results)


def time_under_load(options):
    """One thread and two, on all processors, while a process spins on one of them. Every sample counts:
    preemption is what is measured. The ratio's spread: quartiles of the medians of single turns."""
    results, processors = [], sorted(os.sched_getaffinity(0))
    busy = [sys.executable, "-c", "while True: pass"]
    table = Table(machine(), "with one processor kept busy", "1 thread", "2 threads", "2 over 1", "quartiles over turns", "")
    for workload in options.workloads:
        peers = [Peer("ballast", workload, threads, options, processors).ready() for threads in (1, 2)]
        ratios = []
        with gate(options.gate):
            for number in range(options.rounds):
                load = subprocess.Popen(busy, preexec_fn=lambda: os.sched_setaffinity(0, {processors[0]}))
                medians = {}
                try:
                    for p in peers if number % 2 == 0 else peers[::-1]:
                        before = len(p.samples)
                        p.turn(options.turn)
                        medians[p.about["threads"]] = np.median([t for t, _ in p.samples[before:]])
                finally:
                    load.terminate()
                    load.wait()
                ratios.append(medians[2] / medians[1])
        for p in peers:
            p.close()
        one, two = (p.summary(every=True) for p in peers)
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        slower = low > 1 + options.noise
        results.append(dict(workload=workload, one=one, two=two, ratios=ratios, error="two threads are slower" if slower else None))
        table.add(workload, cell(one), cell(two), "%.2f" % middle, "%.2f to %.2f" % (low, high), "SLOWER" if slower else "not slower")
    return table, dict(rows=results)


# --- what is asked for ------------------------------------------------------------------------------------------
def parts(options):
    """The parts of a run, in turn: name and threads."""
    if options.everything:
        return [("steps1", 1), ("steps2", 2), ("setup", 1), ("load", 1)]
    return [("setup" if options.setup else "load" if options.load else "steps%d" % options.threads, options.threads)]


def run(options):
    named, found = options.workloads, {}
    for part, options.threads in parts(options):
        begin = time.monotonic()
        options.workloads = named or CHOSEN.get(part, CHOSEN["steps2"])
        for workload in options.workloads:
            if not os.path.exists("%s/%s.safetensors" % (options.inputs, workload)):
                peer_inputs.write(options.inputs, workload)
        table, found[part] = {"setup": time_setup, "load": time_under_load}.get(part, time_steps)(options)
        print("(%s: %.0f s)" % (part, time.monotonic() - begin), file=sys.stderr)
        if part == "steps1":
            options.one_thread = {r["workload"]: r["peers"]["ballast"]["median"] for r in found[part]["rows"]
                                  if "ballast" in r.get("peers", {})}
        if options.markdown:
            put(options.markdown, part, table.lines)
        if options.json:
            with open(options.json, "w") as f:
                json.dump(found, f, indent=1)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", help="of " + " ".join(peer_inputs.WORKLOADS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers", type=lambda s: s.split(","), default=PEERS, help="comma-separated, of " + ",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turn", type=float, default=0.5, help="seconds of timing in a turn, but at least two samples")
    parser.add_argument("--idle-wait", type=float, default=20, help="seconds to wait at most for a quiet machine")
    parser.add_argument("--gate", help="command that holds the machine during a turn")
    parser.add_argument("--build", default=os.path.join(HERE, "..", "build"))
    parser.add_argument("--inputs", help="folder for the inputs; one that goes away if not given")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--markdown", help="file to put the tables into")
    parser.add_argument("--noise", type=float, default=0.05, help="--load: how much slower two threads may be")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--setup", action="store_true")
    mode.add_argument("--load", action="store_true")
    mode.add_argument("--everything", action="store_true")
    options = parser.parse_args()
    options.one_thread = {}
    unknown = set(options.workloads) - set(peer_inputs.WORKLOADS) or set(options.peers) - set(PEERS)
    if unknown:
        sys.exit("there is no " + ", ".join(sorted(unknown)))
    with tempfile.TemporaryDirectory() as scratch:
        options.inputs = options.inputs or scratch
        os.makedirs(options.inputs, exist_ok=True)
        found = run(options)
    return 1 if any(r["error"] for part in found.values() for r in part["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
