#!/usr/bin/env python3
"""A whole study beside the same study scripted in PyTorch, in turn on the same processors: five arms (the baseline,
label smoothing, mixup, dropout, input noise) on a table of 1 500 rows, 12 tuning trials of two seeds for each arm,
then ten paired replicates of each; 170 training runs on either side.

Same models (MLP 32-64-64-3), same steps (84 epochs of 18 whole batches of 64; 15 in trials), same optimiser (AdamW,
cosine rate), same search ranges, same held-out parts, a test after every 4 or 5 epochs of a replicate as Ballast draws
its learning curves; one process a processor, one thread each. PyTorch is used as its documentation advises for small
models: tensors prepared once, no data loader, fused AdamW, no gradient bookkeeping in tests.

    python3 bench/study.py --ballast build/ballast [--rounds 1] [--workers 2] [--json FILE]

prints both tables of mean accuracies, the seconds of each side and their ratio. Needs torch.
"""
import argparse, json, math, multiprocessing as mp, os, statistics, subprocess, sys, tempfile, time

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ARMS = ["baseline", "label_smoothing", "mixup", "dropout", "input_noise"]
EPOCHS, BATCH, WIDTH, TEST = 84, 64, 64, 300
RATE, DECAY, TRIALS, TRIAL_SEEDS, REPLICATES, CURVE = 2e-3, 1e-2, 12, 2, 10, 20
STRENGTH = {"label_smoothing": (0.1, 0.02, 0.3), "mixup": (0.2, 0.1, 1.0), "dropout": (0.5, 0.05, 0.6), "input_noise": (0.1, 0.02, 0.5)}


def table(path):
    with open(path) as f:
        rows = [line.rstrip("\n").split(",") for line in f][1:]
    numbers = np.array([[float(c) for c in row[:20]] for row in rows], np.float32)
    words = [[row[20 + i] for row in rows] for i in range(3)]
    hot = [np.array([[c == w for w in sorted(set(col))] for c in col], np.float32) for col in words]
    return numbers, np.concatenate(hot, 1), np.array(["abc".index(row[-1]) for row in rows])


def settings(arm):
    """Trial 0 is the arm as given; the others are drawn by ratio (dropout: evenly)."""
    r = np.random.RandomState(5)
    first = dict(rate=RATE, decay=DECAY, strength=STRENGTH.get(arm, (0,))[0])
    ratio = lambda low, high: low * (high / low) ** r.rand()
    rest = []
    for _ in range(TRIALS - 1):
        s = dict(rate=ratio(RATE / 10, RATE * 10), decay=ratio(DECAY / 30, DECAY * 30), strength=0)
        if arm in STRENGTH:
            low, high = STRENGTH[arm][1:]
            s["strength"] = low + (high - low) * r.rand() if arm == "dropout" else ratio(low, high)
        rest.append(s)
    return [first] + rest


def run(job):
    import torch
    import torch.nn.functional as F
    torch.set_num_threads(1)
    path, arm, s, seed, trial = job
    numbers, hot, y = table(path)
    order = np.random.RandomState(seed).permutation(len(y))
    train, test = order[TEST:], order[:TEST]
    if trial:
        held = len(train) // 5
        train, test = train[held:], train[:held]
    mean, sd = numbers[train].mean(0), numbers[train].std(0)
    x = torch.from_numpy(np.concatenate([(numbers - mean) / sd, hot], 1).astype(np.float32))
    y = torch.from_numpy(y.astype(np.int64))
    X, Y, tx, ty = x[train], y[train], x[test], y[test]
    torch.manual_seed(seed)
    drop = [torch.nn.Dropout(s["strength"])] if arm == "dropout" else []
    net = torch.nn.Sequential(torch.nn.Linear(X.shape[1], WIDTH), torch.nn.ReLU(), *drop, torch.nn.Linear(WIDTH, WIDTH),
                              torch.nn.ReLU(), *drop, torch.nn.Linear(WIDTH, 3))
    for layer in net:
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    matrices = [p for p in net.parameters() if p.dim() > 1]
    vectors = [p for p in net.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": s["decay"]}, {"params": vectors, "weight_decay": 0}],
                                  lr=s["rate"], fused=True)
    batches = len(X) // BATCH
    steps, step = EPOCHS * batches, 0
    smoothing = s["strength"] if arm == "label_smoothing" else 0.0
    accuracy = 0
    for epoch in range(EPOCHS):
        permutation = torch.randperm(len(X))
        for b in range(batches):
            index = permutation[b * BATCH:(b + 1) * BATCH]
            xb, yb = X[index], Y[index]
            rate = s["rate"] * 0.5 * (1 + math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            if arm == "mixup":
                share = np.random.beta(s["strength"], s["strength"])
                other = torch.randperm(BATCH)
                logits = net(share * xb + (1 - share) * xb[other])
                loss = share * F.cross_entropy(logits, yb) + (1 - share) * F.cross_entropy(logits, yb[other])
            else:
                if arm == "input_noise":
                    xb = xb + s["strength"] * torch.randn_like(xb)
                loss = F.cross_entropy(net(xb), yb, label_smoothing=smoothing)
            loss.backward()
            optimizer.step()
            step += 1
        last = epoch == EPOCHS - 1
        if last or (not trial and (epoch + 1) * CURVE // EPOCHS != epoch * CURVE // EPOCHS):
            net.eval()
            with torch.inference_mode():
                accuracy = (net(tx).argmax(1) == ty).double().mean().item()
            net.train()
    return 100 * accuracy


def torch_study(path, workers):
    """Mean accuracy of every arm, as a user's script would find it."""
    with mp.get_context("fork").Pool(workers) as pool:
        trials = [(path, arm, s, 1000 + k, True) for arm in ARMS for s in settings(arm) for k in range(TRIAL_SEEDS)]
        score = np.array(pool.map(run, trials, chunksize=1)).reshape(len(ARMS), TRIALS, TRIAL_SEEDS).mean(2)
        chosen = [settings(arm)[int(np.argmax(score[a]))] for a, arm in enumerate(ARMS)]
        runs = [(path, arm, chosen[a], k, False) for a, arm in enumerate(ARMS) for k in range(REPLICATES)]
        result = np.array(pool.map(run, runs, chunksize=1)).reshape(len(ARMS), REPLICATES)
    return dict(zip(ARMS, result.mean(1)))


def ballast_study(program, path, workers):
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "compare", path, "--target", "kind", "--no-equal-cost", "--json", "--workers", str(workers),
                   "--store", os.path.join(folder, "studies.db")]
        for arm in ARMS[1:]:
            command += ["--arm", arm]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {arm["arm"]: arm["mean"] for arm in json.loads(out)["arms"]}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--ballast", default="build/ballast")
    ap.add_argument("--rounds", type=int, default=1)
    ap.add_argument("--workers", type=int, default=os.cpu_count())
    ap.add_argument("--json")
    ap.add_argument("--only", choices=["ballast", "torch"])
    a = ap.parse_args()
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "study.csv")
        subprocess.run([sys.executable, os.path.join(HERE, "study_data.py"), path], check=True)
        sides = {"ballast": lambda: ballast_study(os.path.abspath(a.ballast), path, a.workers), "torch": lambda: torch_study(path, a.workers)}
        seconds, means = {s: [] for s in sides}, {}
        for _ in range(a.rounds):
            for side, study in sides.items():
                if a.only in (None, side):
                    start = time.perf_counter()
                    means[side] = study()
                    seconds[side].append(time.perf_counter() - start)
                    print(f"{side:8} {seconds[side][-1]:7.1f} s  " + "  ".join(f"{k} {v:.1f}" for k, v in means[side].items()), flush=True)
    if not a.only:
        median = {s: statistics.median(v) for s, v in seconds.items()}
        print(f"ratio {median['torch'] / median['ballast']:.1f} (PyTorch {median['torch']:.1f} s, Ballast {median['ballast']:.1f} s)")
        if a.json:
            with open(a.json, "w") as f:
                json.dump(dict(seconds=seconds, means=means, ratio=median["torch"] / median["ballast"]), f, indent=1)


if __name__ == "__main__":
    main()
