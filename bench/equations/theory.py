"""Methods around what networks do at the end of training."""
import numpy as np

from .peers import row


# --- grokking at the edge of numerical stability -----------------------------------------------------------
def log_stable(xp, z):
    """log(1 + z) for z >= 0, -log(1 - z) below."""
    return xp.where(z >= 0, xp.log1p(xp.relu(z)), -xp.log1p(xp.relu(-z)))


@row(lambda d: dict(z=d.normal(512, 1024, scale=3.0)), "z", "p")
def grokking_stability_stablemax(xp, i):
    return xp.softmax(log_stable(xp, i.z))


@row(lambda d: dict(z=d.normal(512, 1024, scale=3.0), y=d.classes(512, of=1024)), "z", "loss nll")
def grokking_stability_stablemax_ce(xp, i):
    nll = xp.cross_entropy_rows(log_stable(xp, i.z), i.y)
    return xp.mean(nll), nll


# --- neural collapse: 1024 examples of 10 classes, 128 features ------------------------------------------
@row(lambda d: dict(W=d.normal(10, 128, scale=0.1), H=d.normal(1024, 128), H0=d.normal(1024, 128), y=d.classes(1024, of=10)), "W H H0",
     "loss fit", double=True)
def neural_collapse_ufm_loss(xp, i):
    W, H, H0 = xp.f64(i.W), xp.f64(i.H), xp.f64(i.H0)
    fit = xp.sum((H @ W.mT - xp.one_hot(i.y, 10)) ** 2) / 2048
    near = xp.sum((H - H0) ** 2) / 2048
    return xp.f32(fit + 5e-3 * xp.sum(W * W) / 20 + 5e-3 * xp.sum(H * H) / 2048 + near), xp.f32(fit)


COLLAPSE = lambda d: dict(H=d.normal(1024, 128), y=np.array(np.arange(1024) % 10, "i4"))


def best_classifier(xp, i):
    H, Y = xp.f64(i.H), xp.f64(xp.one_hot(i.y, 10))
    return H, Y, xp.solve(H.mT @ H + 102.4 * 5e-3 * xp.eye(128), H.mT @ Y).mT


@row(COLLAPSE, "H", "W", K=10, tolerance=1e-3, double=True)
def neural_collapse_wstar(xp, i):
    return xp.f32(best_classifier(xp, i)[2])


@row(COLLAPSE, "H", "loss W", K=10, tolerance=1e-3, double=True)
def neural_collapse_central_loss(xp, i):
    H, Y, W = best_classifier(xp, i)
    return xp.f32(xp.sum((H @ W.mT - Y) ** 2) / 2048 + 5e-3 * xp.sum(W * W) / 20 + 5e-3 * xp.sum(H * H) / 2048), xp.f32(W)


@row(COLLAPSE, "H", "nc1 nc2 tr_w tr_b nc1_trace", K=10, tolerance=1e-3, double=True)
def neural_collapse_metrics(xp, i):
    H, Y = xp.f64(i.H), xp.f64(xp.one_hot(i.y, 10))
    means = Y.mT @ H / xp.sum(Y, 0)[:, None]
    c, d = means - xp.mean(H, 0), H - means[i.y]
    gram = c @ c.mT
    l, u = xp.eigh(gram)
    kept = l > 1e-6 * xp.max(l)
    p = d @ c.mT @ u * xp.where(kept, 1 / xp.where(kept, l, 1.0), 0.0)
    within, between = xp.sum(d * d) / 1024, xp.sum(c * c) / 10
    simplex = (xp.eye(10) - 0.1) / 3.0
    nc2 = xp.sqrt(xp.sum((gram / xp.sqrt(xp.sum(gram * gram)) - simplex) ** 2))
    return tuple(xp.f32(v) for v in (xp.sum(p * p) / 1024, nc2, within, between, within / between))


# --- sums modulo 97, two layers of 500 neurons ----------------------------------------------------------------
def modular(d):
    return dict(pairs=d.classes(1024, 2, of=97), y=d.classes(1024, of=97), U=d.normal(500, 97, scale=0.5), V=d.normal(500, 97, scale=0.5),
                W=d.normal(97, 500, scale=0.1))


def squared(i):
    return (i.U.mT[i.pairs[:, 0]] + i.V.mT[i.pairs[:, 1]]) ** 2


@row(modular, "U V W", "loss z")
def grok_corrupted_mlp(xp, i):
    z = squared(i) @ i.W.mT
    return xp.mean((z - xp.one_hot(i.y, 97)) ** 2), z


@row(lambda d: dict(gamma=d.uniform(500, low=0.5), beta=d.normal(500), run_mean=d.normal(500), run_var=d.uniform(500), **modular(d)),
     "U V W gamma beta", "loss z", tolerance=1e-3)
def grok_corrupted_bn_mlp(xp, i):
    a = squared(i)
    if xp.name == "torch":
        h = xp.F.batch_norm(a, None, None, i.gamma, i.beta, True)
    else:
        away = a - xp.mean(a, 0)
        h = away / xp.sqrt(xp.mean(away * away, 0) + 1e-5) * i.gamma + i.beta
    z = h @ i.W.mT
    return xp.mean((z - xp.one_hot(i.y, 97)) ** 2), z


@row(lambda d: dict(U=d.normal(500, 97), V=d.normal(500, 97), W=d.normal(97, 500)), "U V W", "ipr ipr_u ipr_v ipr_w")
def grok_corrupted_ipr(xp, i):
    def concentration(x):
        power = xp.power_spectrum(xp.f64(x))
        return xp.f32(xp.sum((power / xp.sum(power, -1, True)) ** 2, -1))
    u, v, w = concentration(i.U), concentration(i.V), concentration(i.W.mT)
    return (u + v + w) / 3, u, v, w


# --- learning curves -------------------------------------------------------------------------------------------
def learnt(xp, s, time):
    return -xp.expm1(-s * time) / s


def modes(xp, lam, time, a):
    missing = (1 - lam * a) ** 2
    return missing + 0.25 * xp.exp(-2 * lam * time), lam * a ** 2, missing


@row(lambda d: dict(lam=d.uniform(256, low=0.1, high=4.0), t=d.uniform(512, high=20.0)), "lam t", "eg et", n_samples=512, sigma_w0=0.5, double=True)
def high_dim_dynamics_modes(xp, i):
    lam, time = xp.f64(i.lam)[None], xp.f64(i.t)[:, None]
    error, noise, unseen = modes(xp, lam, time, learnt(xp, lam, time))
    return xp.f32(xp.mean(error + noise, 1) + 1), xp.f32((xp.sum(lam * error + unseen, 1) + 256) / 512)


@row(lambda d: dict(t=d.uniform(512, high=20.0)), "t", "eg et", alpha=2.0, sigma_w0=0.5, double=True)
def high_dim_dynamics_mp_curve(xp, i):
    theta = (xp.f64(xp.arange(256)) + 1) * (np.pi / 257)
    lam, time = (3 + 2 * 2 ** 0.5 * xp.cos(theta))[None], xp.f64(i.t)[:, None]
    weight = 4 / 257 * xp.sin(theta) ** 2 / lam
    error, noise, unseen = modes(xp, lam, time, learnt(xp, lam, time))
    return xp.f32(xp.sum(weight * (error + noise), 1) + 1), xp.f32(xp.sum(weight * (lam * error + unseen), 1) / 2 + 0.5)


@row(lambda d: dict(X=d.normal(512, 128, scale=0.1), y=d.normal(512), w0=d.normal(128), t=d.uniform(64, high=5.0)), "y w0", "w train_mse",
     tolerance=1e-3, double=True)
def high_dim_dynamics_linear_flow(xp, i):
    X, y, w0, time = xp.f64(i.X), xp.f64(i.y), xp.f64(i.w0), xp.f64(i.t)[:, None]
    lam, v = xp.eigh(X.mT @ X)
    pull = (y - X @ w0) @ X @ v
    w = w0 + (learnt(xp, lam[None], time) * pull) @ v.mT
    return xp.f32(w), xp.f32(xp.mean((w @ X.mT - y) ** 2, 1))


@row(lambda d: dict(x=d.normal(256, 512)), "x", "value", act="optimal", par=3.0, double=True)
def wide_deep_ntk_activation(xp, i):
    x, c = xp.f64(i.x), 2 ** -1.5
    return xp.f32(c ** 0.5 * x + (1 - 2 * c) ** 0.5 * (x * x - 1) / 2 ** 0.5 + c ** 0.5 * (x ** 3 - 3 * x) / 6 ** 0.5)
