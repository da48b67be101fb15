#!/usr/bin/env python3
"""Times what Ballast computes on the host, without a gradient (fits, clustering, neighbours, statistics of
sorted values), beside scikit-learn, SciPy, scikit-image or NumPy doing the same work on the same numbers, in
turns: first on one core with one thread, then on two with two.

    cmake --build build --target bench_host
    python3 bench/host.py [--build build] [--markdown bench/host.md] [--seconds 2] [ROW ..]

Mostly 10 000 points. --out keeps the rows of earlier runs, so that a table may be made in pieces. A row is a
function below: what the peer is and how far the two may be apart (relative to the largest entry of each
output), the inputs, the options, and the peer's outputs, named as Ballast's. Times
are medians of samples in turns, in milliseconds, checks of the inputs included on both sides where the peer has
them; a row whose outputs disagree is INVALID. Ballast's outputs at two threads must be the same bytes as at
one. Needs numpy, scipy, scikit-learn, scikit-image and safetensors."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np
import scipy.linalg
import scipy.ndimage
import scipy.optimize
import scipy.signal
import scipy.stats
from safetensors.numpy import load_file, save_file
from threadpoolctl import threadpool_limits

HERE = os.path.dirname(os.path.abspath(__file__))
N = 10_000
ROWS = {}


def row(peer, tolerance=1e-5):
    def add(f):
        ROWS[f.__name__] = dict(peer=peer, tolerance=tolerance, make=f)
        return f
    return add


def f32(x):
    return np.ascontiguousarray(x, np.float32)


def i32(x):
    return np.ascontiguousarray(x, np.int32)


def blobs(r, n, size, groups, width=1.0):
    """Points in groups, and their groups."""
    group = r.integers(0, groups, n)
    return f32(4 * r.normal(size=(groups, size))[group] + width * r.normal(size=(n, size))), i32(group)


def unit_rows(x):
    return f32(x / np.linalg.norm(x, axis=1, keepdims=True))


# --- the rows: (inputs, options, peer) -----------------------------------------------------------------
# A peer is called with the number of threads, and returns what is compared.

@row("sklearn mutual_info_score")
def qlae_mi_discrete(r):
    from sklearn.metrics import mutual_info_score
    a = r.integers(0, 10, N)
    b = (a + r.integers(0, 5, N)) % 10
    return dict(a=i32(a), b=i32(b)), {}, lambda threads: dict(mi=mutual_info_score(a, b))


@row("sklearn mutual_info_score, for each pair")
def qlae_nmi(r):
    from sklearn.metrics import mutual_info_score as score
    s = i32(r.integers(0, 10, (N, 5)))
    z = i32((s[:, r.integers(0, 5, 10)] + r.integers(0, 6, (N, 10))) % 12)
    return dict(sources=s, latents=z), {}, lambda threads: dict(
        nmi=[[score(a, b) / score(a, a) for b in z.T] for a in s.T])


@row("sklearn's estimator behind mutual_info_classif")
def qlae_mi_knn(r):
    from sklearn.feature_selection._mutual_info import _compute_mi_cd
    y = i32(r.integers(0, 10, N))
    x = f32(0.3 * y + r.normal(size=N))
    # its ball tree has floats, in which equal distances are others': digits to spare in the tolerance
    return dict(x=x, y=y), dict(k=10), lambda threads: dict(mi=_compute_mi_cd(x.astype("f8"), y, 10))


@row("sklearn LogisticRegression(C=inf, balanced), log_loss", 1e-3)
def qlae_predictive_entropy(r):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    y = i32(r.integers(0, 10, N))
    code = (y[:, None] * r.integers(1, 4, 6) + r.integers(0, 9, (N, 6))) % 12
    x = f32((code[:, :, None] == np.arange(12)).reshape(N, -1))

    def peer(threads):
        fit = LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-7, max_iter=1000).fit(x.astype("f8"), y)
        return dict(log_loss=log_loss(y, fit.predict_proba(x)))
    return dict(features=x, labels=y), dict(classes=10), peer


@row("sklearn PCA", 1e-4)
def multifaceted_vis_pca(r):
    from sklearn.decomposition import PCA
    x, _ = blobs(r, N, 256, 30)

    def peer(threads):
        p = PCA(20, svd_solver="covariance_eigh").fit(x.astype("f8"))
        return dict(variance=p.explained_variance_)
    return dict(x=x), dict(k=20), peer


@row("sklearn _joint_probabilities", 1e-3)
def multifaceted_vis_tsne_affinity(r):
    from scipy.spatial.distance import squareform
    from sklearn.manifold._t_sne import _joint_probabilities
    from sklearn.metrics import pairwise_distances
    x, _ = blobs(r, N // 4, 50, 10)
    return dict(x=x), dict(perplexity=30.0), lambda threads: dict(p=squareform(_joint_probabilities(
        pairwise_distances(x, squared=True, n_jobs=threads), 30.0, 0)))


@row("sklearn KMeans, on a map")
def multifaceted_vis_kmeans(r):
    from sklearn.cluster import KMeans
    x, _ = blobs(r, N, 2, 10)

    def peer(threads):
        fit = KMeans(10, init=x[:10], n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(x.astype("f8"))
        return dict(centroids=fit.cluster_centers_)
    return dict(y=x, init=x[:10].copy()), dict(iterations=300), peer


@row("sklearn KMeans, 50 clusters of 64 numbers")
def kmeans_wide(r):
    from sklearn.cluster import KMeans
    x, _ = blobs(r, N, 64, 50, 4.0)

    def peer(threads):
        fit = KMeans(50, init=x[:50], n_init=1, max_iter=20, tol=0, algorithm="lloyd").fit(x.astype("f8"))
        return dict(centroids=fit.cluster_centers_)
    return dict(y=x, init=x[:50].copy()), dict(iterations=20), peer, "multifaceted_vis_kmeans"


@row("numpy")
def multifaceted_vis_mean_images(r):
    y, c = blobs(r, N, 2, 10)
    images, centre = f32(r.random((N, 16, 16))), f32([y[c == k].mean(0) for k in range(10)])

    def peer(threads):
        out = []
        for k in range(10):
            own = np.flatnonzero(c == k)
            near = own[np.argsort(((y[own].astype("f8") - centre[k]) ** 2).sum(1), kind="stable")[:15]]
            out.append(images[near].mean(0))
        return dict(mean_image=out)
    return dict(images=images, y=y, centroids=centre, assignment=c), dict(m=15), peer


@row("skimage denoise_tv_bregman", 1e-4)
def multifaceted_vis_tv_bregman(r):
    from skimage.restoration import denoise_tv_bregman
    image = f32(scipy.ndimage.gaussian_filter(r.random((100, 100, 1)), (3, 3, 0)) + 0.05 * r.normal(size=(100, 100, 1)))
    return dict(image=image), dict(weight=5.0, max_iter=100, eps=1e-3), lambda threads: dict(
        out=denoise_tv_bregman(image[..., 0].astype("f8"), 5.0, max_num_iter=100, eps=1e-3, isotropic=True)[..., None])


@row("sklearn TSNE(barnes_hut), 500 iterations of 50 numbers", None)
def bl_tsne(r):
    from sklearn.manifold import TSNE
    x, group = blobs(r, N, 50, 10, 2.0)
    init = 1e-4 * (x - x.mean(0))[:, :2].astype("f8") / x[:, :2].std(0)

    def peer(threads):
        t = TSNE(2, perplexity=30.0, init=f32(init), max_iter=500, n_iter_without_progress=500, min_grad_norm=0,
                 learning_rate=max(N / 48, 50), angle=0.5, n_jobs=threads)
        return dict(map=t.fit_transform(x))
    return dict(x=x.astype("f8"), init=init, perplexity=np.array(30.0), iterations=np.array(500.0)), {}, peer, "bl_tsne", \
        lambda got, want: neighbours_kept(x, got["map"]) - neighbours_kept(x, want["map"]) > -0.02


def neighbours_kept(x, y):
    """What share of the ten nearest points of 500 are among the ten nearest on the map."""
    from sklearn.neighbors import NearestNeighbors
    near = [NearestNeighbors(n_neighbors=11).fit(a).kneighbors(a[:500], return_distance=False)[:, 1:] for a in (x, y)]
    return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*near)])


@row("sklearn NearestNeighbors(brute)")
def ovor_knn_distance(r):
    from sklearn.neighbors import NearestNeighbors
    x, _ = blobs(r, N, 64, 20, 4.0)
    return dict(query=x, ref=x), dict(k=50), lambda threads: dict(dist=NearestNeighbors(
        n_neighbors=50, algorithm="brute", n_jobs=threads).fit(x).kneighbors(x)[0][:, -1].astype("f8") ** 2)


@row("sklearn NearestNeighbors(kd_tree), in the plane")
def knn_distance_plane(r):
    from sklearn.neighbors import NearestNeighbors
    x, _ = blobs(r, N, 2, 20)
    return dict(query=x, ref=x), dict(k=10), lambda threads: dict(dist=NearestNeighbors(
        n_neighbors=10, algorithm="kd_tree", n_jobs=threads).fit(x.astype("f8")).kneighbors(x)[0][:, -1] ** 2), "ovor_knn_distance"


@row("sklearn KNeighborsClassifier(brute)")
def random_teacher_knn(r):
    from sklearn.neighbors import KNeighborsClassifier
    x, y = blobs(r, 2 * N, 128, 10, 8.0)
    return dict(train=x[:N], labels=y[:N], test=x[N:]), dict(k=20, classes=10), lambda threads: dict(
        pred=KNeighborsClassifier(20, algorithm="brute", n_jobs=threads).fit(x[:N], y[:N]).predict(x[N:]))


@row("sklearn NearestNeighbors(brute), numpy")
def ovor_outliers(r):
    from sklearn.neighbors import NearestNeighbors
    x, noise = f32(r.normal(size=(2000, 64))), f32(r.normal(size=(200, 64)))

    def peer(threads):
        unit = unit_rows(x.astype("f8"))
        near = NearestNeighbors(n_neighbors=50, algorithm="brute", n_jobs=threads).fit(unit.astype("f8"))
        far = lambda a: near.kneighbors(a)[0][:, -1] ** 2
        edge = np.argsort(-far(unit.astype("f8")), kind="stable")[:50]
        q = (x[edge, None].astype("f8") + 0.1 * noise[None]).reshape(-1, 64)
        d = far(q / np.linalg.norm(q, axis=1, keepdims=True))
        return dict(dist=np.sort(d)[::-1][:400])
    return dict(feats=x, noise=noise), dict(k=50, select=50, n_out=400, sigma=0.1), peer


@row("numpy")
def pskd_calibration(r):
    z = 3 * r.normal(size=(N, 100))
    p = f32(np.exp(z) / np.exp(z).sum(1, keepdims=True))
    y = i32(np.where(r.random(N) < 0.7, p.argmax(1), r.integers(0, 100, N)))

    def peer(threads):
        top, right = p.max(1), p.argmax(1) == y
        place = np.clip(np.searchsorted(f32(np.arange(11) / 10), top, side="left") - 1, 0, 9)
        gap = np.bincount(place, right, 10) - np.bincount(place, top.astype("f8"), 10)
        order = np.lexsort((-np.arange(N), -top))
        risk = np.cumsum(~right[order]) / np.arange(1, N + 1)
        return dict(error=100 * (~right).mean(), nll=-np.log(p[np.arange(N), y].astype("f8")).mean(),
                    ece=100 * np.abs(gap).sum() / N, aurc=1000 * risk.mean())
    return dict(probs=p, labels=y), dict(bins=10), peer


@row("numpy")
def nested_prefix_eval(r):
    w, y = f32(r.normal(size=(64, 10))), i32(r.integers(0, 10, N))
    x = f32(0.2 * w[:, y].T + r.normal(size=(N, 64)))

    def peer(threads):
        z, right = np.zeros((N, 10)), []
        for k in range(64):
            z += x[:, k:k + 1].astype("f8") * w[k]
            right.append((z.argmax(1) == y).mean())
        return dict(accuracy=right)
    return dict(x=x, weight=w, labels=y), {}, peer


@row("numpy argsort, of 10^6 weights")
def stp_prune_mask(r):
    w = f32(r.normal(size=1_000_000))

    def peer(threads):
        keep = np.ones(w.size, np.uint8)
        keep[np.argsort(np.abs(w), kind="stable")[:900_000]] = 0
        return dict(keep=keep)
    return dict(w=w), dict(amount=0.9), peer


@row("numpy argsort, of 10^6 parameters")
def ltsft_select(r):
    a, b = f32(r.normal(size=(2, 1_000_000)))
    chosen = i32(np.zeros(a.size))

    def peer(threads):
        moved = np.abs(b.astype("f8") - a)
        mask = np.zeros(a.size, np.int32)
        mask[np.argsort(-moved, kind="stable")[:100_000]] = 1
        return dict(mask=mask)
    return dict(theta0=a, theta1=b, chosen=chosen), dict(k=100_000), peer


@row("numpy unique, of 10^6 weights")
def gg_code_bits(r):
    w = f32(0.02 * r.standard_t(4, 1_000_000))

    def peer(threads):
        q = np.rint(w.astype("f8") * 8192)
        share = np.unique(q, return_counts=True)[1] / w.size
        return dict(entropy=-(share * np.log2(share)).sum(), zeros=(q == 0).mean())
    return dict(w=w), {}, peer


@row("numpy argsort, of 10^6 weights", None)
def gg_deepshape(r):
    w = f32(0.02 * r.standard_t(4, 1_000_000))
    return dict(w=w), {}, lambda threads: dict(w=np.argsort(np.rint(w.astype("f8") * 8192), kind="stable"))


@row("scipy kurtosis, numpy, of 10^6 weights")
def wc_weight_stats(r):
    w = f32(r.normal(size=1_000_000))

    def peer(threads):
        x = w.astype("f8")
        std = x.std()
        return dict(std=std, kurtosis=scipy.stats.kurtosis(x, fisher=False), mean_abs=np.abs(x).mean(),
                    frac_small=(np.abs(x) < 0.1 * std).mean())
    return dict(w=w), {}, peer


@row("numpy tan, of 10^6 weights")
def wc_inverse(r):
    w = f32(0.3 * r.normal(size=(1000, 1000)))
    one = np.array(1.0, "f4")
    return dict(w=w, a=one, b=one), {}, lambda threads: dict(
        v=np.tan(np.clip(w.astype("f8"), -np.pi / 2 * 0.999, np.pi / 2 * 0.999)))


@row("numpy, scipy.ndimage convolve1d")
def conr_label_weights(r):
    y = i32(np.clip(40 + 15 * r.normal(size=N), 0, 120))

    def peer(threads):
        spike = np.zeros(5)
        spike[2] = 1
        kernel = scipy.ndimage.gaussian_filter1d(spike, 2.0)
        v = scipy.ndimage.convolve1d(np.sqrt(np.bincount(y, minlength=121)), kernel / kernel.max(), mode="constant")
        w = 1 / v[y]
        return dict(weights=w * N / w.sum())
    return dict(labels=y), dict(lds=1), peer


@row("numpy")
def conr_shot_mae(r):
    y, counts = i32(r.integers(0, 121, N)), i32(r.integers(0, 200, 121))
    p = f32(y + r.normal(size=N))

    def peer(threads):
        e, of = np.abs(p - y.astype("f8")), counts[y]
        return dict(all=e.mean(), many=e[of > 100].mean(), few=e[of < 20].mean())
    return dict(preds=p, labels=y, train_counts=counts), {}, peer


@row("sklearn mutual_info_score, for each pair")
def item_ssl_mutual_information(r):
    from sklearn.metrics import mutual_info_score as score
    z = r.integers(0, 20, (N, 3))
    codes = i32((z[:, r.integers(0, 3, 12)] + r.integers(0, 8, (N, 12))) % 20)
    return dict(codes=codes, cards=i32([20] * 12)), {}, lambda threads: dict(
        mi=[[score(a, b) for b in codes.T] for a in codes.T])


@row("scipy lfilter, 50 lags", 1e-4)
def ar_net_generate(r):
    noise, coef = f32(r.normal(size=N)), f32(0.9 * np.exp(-np.arange(50)) * 0.5)
    return dict(noise=noise, coef=coef), {}, lambda threads: dict(
        series=scipy.signal.lfilter([1.0], np.r_[1, -coef.astype("f8")], noise.astype("f8")))


@row("scipy lstsq, 100 lags", 1e-4)
def ar_net_least_squares(r):
    s = r.normal(size=N + 100)
    x, y = f32(np.lib.stride_tricks.sliding_window_view(s, 100)[:N]), f32(s[100:N + 100, None])

    def peer(threads):
        z = scipy.linalg.lstsq(np.c_[x.astype("f8"), np.ones(N)], y.astype("f8"))[0]
        return dict(w=z[:-1].T)
    return dict(x=x, y=y), {}, peer


@row("scipy curve_fit, 200 epochs", 1e-3)
def adele_fit_curve(r):
    x = np.linspace(0, 200, 200)
    iou = f32(0.8 * (1 - np.exp(-x ** 0.7 / 6)) + 0.01 * r.normal(size=200))
    f = lambda x, a, b, c: a * (1 - np.exp(-x ** b / c))

    def peer(threads):
        (a, b, c), _ = scipy.optimize.curve_fit(f, x, iou.astype("f8"), (1, 1, 1), sigma=np.geomspace(1, 0.1, 200),
                                                bounds=((0, 0, 1e-12), (1, 1, np.inf)), xtol=1e-12, ftol=1e-12)
        return dict(a=a, b=b, c=c)
    return dict(iou=iou), {}, peer


@row("scipy curve_fit, 10 000 losses", 1e-3)
def infinite_compute_power_fit(r):
    x = f32(np.exp(r.uniform(0, 6, N)))
    y = f32(2 / x ** 0.5 + 3 + 0.01 * r.normal(size=N))

    def peer(threads):
        (a, alpha, e), _ = scipy.optimize.curve_fit(lambda x, a, alpha, e: a * x ** -alpha + e, x.astype("f8"), y.astype("f8"),
                                                    (1, 1, 1), bounds=(0, np.inf), xtol=1e-12, ftol=1e-12)
        return dict(coef=[a, alpha, e])
    return dict(x=x, y=y), {}, peer


@row("scipy linregress")
def scaling_crossover_fit(r):
    c = f32(np.exp(r.uniform(0, 6, N)))
    y = f32(np.exp(1 - 0.2 * np.log(c) + 0.01 * r.normal(size=N)))

    def peer(threads):
        fit = scipy.stats.linregress(np.log(c.astype("f8")), np.log(y.astype("f8")))
        return dict(coef=[np.exp(fit.intercept), -fit.slope])
    return dict(c=c, loss=y), {}, peer


@row("numpy, relu, depth 3, 2000 x 2000", 1e-4)
def wide_deep_ntk_kernel(r):
    x = unit_rows(r.normal(size=(2000, 50)))

    def peer(threads):
        s = k = np.clip(x.astype("f8") @ x.T.astype("f8"), -1, 1)
        for _ in range(3):
            angle = np.arccos(s)
            slope = (np.pi - angle) / np.pi
            s = np.clip((np.sqrt(1 - s * s) + s * (np.pi - angle)) / np.pi, -1, 1)
            k = s + k * slope
        return dict(k=k)
    return dict(x1=x, x2=x), dict(act="relu", depth=3, kind="ntk"), peer


@row("scipy solve, 2000 rows", 1e-4)
def wide_deep_ntk_krr(r):
    x = unit_rows(r.normal(size=(2500, 20)))
    k = np.exp(2 * (x.astype("f8") @ x.T.astype("f8") - 1))
    train, test, y = f32(k[:2000, :2000]), f32(k[:2000, 2000:]), f32(np.eye(10)[r.integers(0, 10, 2000)])

    def peer(threads):
        a = train.astype("f8")
        np.fill_diagonal(a, 1.1)
        return dict(score=test.T.astype("f8") @ scipy.linalg.solve(a, y.astype("f8"), assume_a="pos"))
    return dict(k_train=train, y=y, k_test=test), dict(ridge=0.1), peer


@row("numpy, 10 000 rows, 1000 queries", 1e-4)
def wide_deep_ntk_singular(r):
    x, q, y = unit_rows(r.normal(size=(N, 20))), unit_rows(r.normal(size=(1000, 20))), f32(np.eye(10)[r.integers(0, 10, N)])

    def peer(threads):
        d = np.maximum(2 - 2 * q.astype("f8") @ x.T.astype("f8"), 0)
        w = (d / d.min(1, keepdims=True)) ** -4.0
        return dict(score=w @ y / w.sum(1, keepdims=True))
    return dict(x=x, y=y, q=q), dict(alpha=8.0), peer


@row("numpy, 10 000 rows of 16 tokens, 100 pairs", None)
def t_jepa_collapse(r):
    h, pairs = f32(r.normal(size=(N, 16, 32))), i32(r.integers(0, N, (100, 2)))

    def peer(threads):
        for i, j in pairs:
            for k in (i, j):
                v = h[k].ravel().astype("f8")
                scipy.stats.gaussian_kde(v)(np.linspace(v.min(), v.max(), v.size))
        return dict(intra_var=h.astype("f8").var(0, ddof=1).mean())
    return dict(h=h, pairs=pairs), {}, peer


@row("numpy argsort, 10 000 rows of 50 features")
def t_jepa_masks(r):
    seen, rest = np.argsort(r.random((N, 50)), 1), np.argsort(r.random((4, N, 40)), 2)

    def peer(threads):
        left = np.sort(seen[:, 10:], 1)
        return dict(idx_ctx=np.c_[np.zeros(N), seen[:, :10] + 1],
                    idx_tgt=np.take_along_axis(left[None], rest[:, :, :20], 2) + 1)
    return dict(perm_ctx=i32(seen), perm_tgt=i32(rest)), dict(n_ctx=10, n_tgt=20), peer


# --- measuring -----------------------------------------------------------------------------------------
class Ballast:
    """A process that makes one call as often as it is asked to."""

    def __init__(self, program, path, results, threads):
        self.child = subprocess.Popen([program, path, results], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        if self.child.stdout.readline() != "ready\n":
            raise RuntimeError(self.child.stderr.read().strip())
        self.results = load_file(results)

    def time(self):
        print(1, file=self.child.stdin, flush=True)
        return float(self.child.stdout.readline()) / 1e3

    def close(self):
        self.child.stdin.close()
        self.child.wait()


def distance(got, want):
    worst = 0.0
    for name, w in want.items():
        g, w = np.asarray(got["out." + name], "f8"), np.asarray(w, "f8")
        if g.shape != w.shape or not np.isfinite(g).all():
            return float("inf")
        worst = max(worst, float(np.abs(g - w).max() / (np.abs(w).max() + 1e-30)))
    return worst


def write_call(path, function, inputs, options):
    save_file({"in." + k: np.array(v, order="C") for k, v in inputs.items()}, path,
              dict(function=function, options=json.dumps(options)))


def timed(call):
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def measure(name, options, folder, cores):
    spec = ROWS[name]
    made = spec["make"](np.random.default_rng(1))
    (inputs, call_options, peer), rest = made[:3], made[3:]
    function, agrees = (rest[0] if rest else name), (rest[1] if len(rest) > 1 else None)
    path = f"{folder}/{name}.safetensors"
    write_call(path, function, inputs, call_options)
    found, first = dict(row=name, peer=spec["peer"]), None
    for threads in (1, 2):
        os.sched_setaffinity(0, set(cores[:threads]))
        child = Ballast(f"{options.build}/bench_host", path, f"{folder}/{name}.results", threads)
        with threadpool_limits(threads):
            start = time.perf_counter()
            want = peer(threads)
            first_call = 1e3 * (time.perf_counter() - start)
            samples = ([child.time()], [timed(lambda: peer(threads)) if first_call < 2e3 else first_call])
            while sum(samples[0]) + sum(samples[1]) < 1e3 * options.seconds and len(samples[0]) < 51:
                samples[0].append(child.time())
                samples[1].append(timed(lambda: peer(threads)))
        child.close()
        found[f"ballast_{threads}"], found[f"peer_{threads}"] = (float(np.median(s)) for s in samples)
        if threads == 1:
            first, found["distance"] = child.results, distance(child.results, want) if spec["tolerance"] else None
            found["valid"] = found["distance"] is None or found["distance"] <= spec["tolerance"]
            if agrees:
                found["valid"] = bool(agrees({k[4:]: v for k, v in first.items()}, want))
        found["same"] = all(first[k].tobytes() == v.tobytes() for k, v in child.results.items())
    return found


# --- the table -----------------------------------------------------------------------------------------
def number(ms):
    return "%.3g" % ms if ms < 100 else "%.0f" % ms


def markdown(rows, path):
    rows = sorted(rows, key=lambda r: -r["ballast_1"] / r["peer_1"])
    with open(path, "w") as f:
        f.write("# Host functions beside scikit-learn, SciPy and NumPy\n\nWritten by `bench/host.py --markdown bench/host.md`: "
                "milliseconds a call, medians of samples in turns, 10 000 points where\nnothing else is said. A ratio below 1 "
                "is in favour of Ballast. Outputs agree within each row's tolerance, and Ballast's at two\nthreads are the "
                "same bytes as at one.\n\n| function | peer | Ballast, 1 core | peer | ratio | Ballast, 2 cores | peer | "
                "ratio |\n|---|---|---|---|---|---|---|---|\n")
        for r in rows:
            f.write("| %s | %s | %s | %s | %.2f | %s | %s | %.2f |\n" % (
                r["row"], r["peer"], number(r["ballast_1"]), number(r["peer_1"]), r["ballast_1"] / r["peer_1"],
                number(r["ballast_2"]), number(r["peer_2"]), r["ballast_2"] / r["peer_2"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="rows; all if none")
    parser.add_argument("--build", default=os.path.join(HERE, "..", "build"))
    parser.add_argument("--out", help="JSON; rows of it that are not measured again are kept")
    parser.add_argument("--markdown", help="a table of all rows of the JSON")
    parser.add_argument("--seconds", type=float, default=2, help="of timing for a row and number of threads")
    options = parser.parse_args()
    unknown = set(options.names) - set(ROWS)
    if unknown:
        sys.exit("no row is called " + ", ".join(sorted(unknown)))
    warnings.simplefilter("ignore")
    cores, results = sorted(os.sched_getaffinity(0)), []
    if len(cores) < 2:
        sys.exit("two cores are needed")
    print("%-32s %10s %10s %7s %10s %10s %7s  apart" % ("milliseconds", "Ballast 1", "peer 1", "ratio", "Ballast 2", "peer 2", "ratio"))
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names or ROWS:
            try:
                r = measure(name, options, folder, cores)
            except Exception as error:
                results.append(dict(row=name, valid=False, same=True))
                print("%-32s INVALID: %s" % (name, str(error)[:200]), flush=True)
                continue
            results.append(r)
            print("%-32s %10s %10s %7.2f %10s %10s %7.2f  %s%s%s" % (
                name, number(r["ballast_1"]), number(r["peer_1"]), r["ballast_1"] / r["peer_1"], number(r["ballast_2"]),
                number(r["peer_2"]), r["ballast_2"] / r["peer_2"], "" if r["distance"] is None else "%.1e" % r["distance"],
                "" if r["valid"] else "  INVALID", "" if r["same"] else "  THREADS DIFFER"), flush=True)
    wrong = [r["row"] for r in results if not (r["valid"] and r["same"])]
    kept = {}
    if options.out and os.path.exists(options.out):
        with open(options.out) as f:
            kept = {r["row"]: r for r in json.load(f)}
    kept.update({r["row"]: r for r in results})
    if options.out:
        with open(options.out, "w") as f:
            json.dump(list(kept.values()), f, indent=1)
    if options.markdown:
        markdown([r for r in kept.values() if r["valid"] and r["same"]], options.markdown)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
