#!/usr/bin/env python3
"""The peer of `ballast compare fashion-mnist --train 10000 --label-noise 0.4 --arm baseline
--arm "elr(lambda=3,beta=0.7)" --seeds 5`: the same ten runs in PyTorch.

Same data, model (784-512-512-10, ReLU), optimiser (SGD 0.02, momentum 0.9, decay 1e-3 on weight
matrices), batch 128, 40 epochs, rate x0.1 after epochs 24 and 34, symmetric noise of 0.4, last-epoch
accuracy on the 10 000 test images. Runs are shared over as many processes as there are processors,
one thread each, which is how Ballast runs them.

    python3 bench/elr_torch.py [--seeds 5] [--workers 2]
"""
import argparse, gzip, json, multiprocessing as mp, os, time

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np

ROOT = "/usr/share/datasets/fashion-mnist/"
EPOCHS, BATCH, TRAIN = 40, 128, 10000


def idx(name):
    with gzip.open(ROOT + name) as f:
        raw = f.read()
    dims = [int.from_bytes(raw[4 + 4 * i:8 + 4 * i], "big") for i in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(dims)).reshape(dims)


def run(job):
    arm, seed = job
    import torch
    import torch.nn.functional as F
    torch.set_num_threads(1)
    rng = np.random.RandomState(seed)
    x, y = idx("train-images-idx3-ubyte.gz"), idx("train-labels-idx1-ubyte.gz").astype(np.int64)
    pick = rng.permutation(len(x))[:TRAIN]
    x, y = x[pick].reshape(TRAIN, 784), y[pick]
    mean, sd = x.mean() / 255, x.std() / 255
    prepare = lambda v: torch.from_numpy(((v.reshape(len(v), 784) / 255 - mean) / sd).astype(np.float32))
    noisy = rng.rand(TRAIN) < 0.4
    y = np.where(noisy, rng.randint(0, 10, TRAIN), y)
    X, Y = prepare(x), torch.from_numpy(y)
    tx, ty = prepare(idx("t10k-images-idx3-ubyte.gz")), torch.from_numpy(idx("t10k-labels-idx1-ubyte.gz").astype(np.int64))

    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(784, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512),
                              torch.nn.ReLU(), torch.nn.Linear(512, 10))
    for layer in net:
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    weights = [p for p in net.parameters() if p.dim() > 1]
    biases = [p for p in net.parameters() if p.dim() == 1]
    optimizer = torch.optim.SGD([{"params": weights, "weight_decay": 1e-3}, {"params": biases}], lr=0.02, momentum=0.9)
    bank = torch.zeros(TRAIN, 10)
    t0 = time.perf_counter()
    for epoch in range(EPOCHS):
        if epoch in (24, 34):
            for group in optimizer.param_groups:
                group["lr"] *= 0.1
        order = torch.randperm(TRAIN)
        for start in range(0, TRAIN - BATCH + 1, BATCH):
            i = order[start:start + BATCH]
            logits = net(X[i])
            loss = F.cross_entropy(logits, Y[i])
            if arm == "elr":
                p = torch.clamp(F.softmax(logits, 1), 1e-4, 1 - 1e-4)
                pd = p.detach()
                bank[i] = 0.7 * bank[i] + 0.3 * pd / pd.sum(1, keepdim=True)
                loss = loss + 3 * torch.log(1 - (bank[i] * p).sum(1)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    seconds = time.perf_counter() - t0
    with torch.no_grad():
        accuracy = 100 * (net(tx).argmax(1) == ty).double().mean().item()
    return dict(arm=arm, seed=seed, accuracy=accuracy, seconds=seconds)


if __name__ == "__main__":
    a = argparse.ArgumentParser()
    a.add_argument("--seeds", type=int, default=5)
    a.add_argument("--workers", type=int, default=os.cpu_count())
    a = a.parse_args()
    jobs = [(arm, seed) for seed in range(a.seeds) for arm in ("baseline", "elr")]
    t0 = time.perf_counter()
    with mp.get_context("spawn").Pool(a.workers) as pool:
        results = pool.map(run, jobs, chunksize=1)
    wall = time.perf_counter() - t0
    mean = {arm: float(np.mean([r["accuracy"] for r in results if r["arm"] == arm])) for arm in ("baseline", "elr")}
    print(json.dumps(dict(wall_seconds=wall, accuracy=mean, difference=mean["elr"] - mean["baseline"],
                          runs=results), indent=1))
