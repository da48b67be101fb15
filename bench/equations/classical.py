"""The classical methods."""
import math

from .peers import beside, row

B, C = 128, 100
IMAGES = (64, 32, 32, 3)


def dropped(xp, x, u, p):
    return xp.where(u >= p, x / (1 - p), 0.0)


@row(lambda d: dict(x=d.normal(B, 2048), u=d.uniform(B, 2048)), "x", "y")
def base_dropout(xp, i):
    return dropped(xp, i.x, i.u, 0.5)


@row(lambda d: dict(x=d.normal(B, 512), w=d.normal(512, 512, scale=0.05), b=d.normal(512), u=d.uniform(512, 512)), "x w b", "y")
def base_dropconnect(xp, i):
    return i.x @ dropped(xp, i.w, i.u, 0.5).mT + i.b


@row(lambda d: dict(x=d.normal(64, 16, 16, 32), branch=d.normal(64, 16, 16, 32), u=d.uniform(64)), "x branch", "y")
def base_stochastic_depth(xp, i):
    return i.x + dropped(xp, i.branch, beside(i.u, i.x), 0.2)


@row(lambda d: dict(x=d.normal(*IMAGES), target=d.distributions(64, C), perm=d.distinct(64, 64), lam=d.uniform(64)), "x target",
     "x_mix target_mix")
def base_mixup(xp, i):
    def mix(v):
        lam = beside(i.lam, v)
        return lam * v + (1 - lam) * v[i.perm]
    return mix(i.x), mix(i.target)


@row(lambda d: dict(x=d.normal(*IMAGES), target=d.distributions(64, C), perm=d.distinct(64, 64), cy=d.np.array(12, "i4"),
                    cx=d.np.array(20, "i4"), lam=d.scalar(0.75)), "x target", "x_mix target_mix")
def base_cutmix(xp, i):
    y, x = xp.arange(32)[:, None, None], xp.arange(32)[None, :, None]  # a box of half the side, 16
    inside = (y >= i.cy - 8) & (y < i.cy + 8) & (x >= i.cx - 8) & (x < i.cx + 8)
    return xp.where(inside, i.x[i.perm], i.x), 0.75 * i.target + 0.25 * i.target[i.perm]


@row(lambda d: dict(w=d.normal(512, 512)), "w", "penalty", lam1=1e-4)
def base_elastic_net(xp, i):
    return 1e-4 * xp.sum(xp.abs(i.w)) + 0.5e-4 * xp.sum(i.w * i.w)


@row(lambda d: dict(w=d.normal(512, 512)), "w", "penalty")
def base_group_lasso(xp, i):
    return 1e-4 * math.sqrt(512) * xp.sum(xp.norm(i.w, axis=1))


@row(lambda d: dict(w=d.normal(512, 512), u=d.normal(512)), "w", "penalty")
def base_spectral_penalty(xp, i):
    unit = lambda v: v / xp.norm(v)
    w = xp.stop(i.w)
    v = unit(i.u @ w)
    sigma = xp.sum(unit(w @ v) * (i.w @ v))
    return 0.005 * sigma * sigma


@row(lambda d: dict(w=d.normal(256, 512, scale=0.05)), "w", "penalty")
def base_orthogonality_penalty(xp, i):
    return 1e-4 * xp.sum((i.w @ i.w.mT - xp.eye(256)) ** 2)


def two_layers(d, classes):
    return dict(x=d.normal(B, 784), w1=d.normal(256, 784, scale=0.05), b1=d.normal(256), w2=d.normal(classes, 256, scale=0.05),
                b2=d.normal(classes))


@row(lambda d: dict(logits=d.normal(B, C), target=d.distributions(B, C)), "logits target", "loss")
def base_soft_cross_entropy(xp, i):
    return -xp.mean(xp.sum(i.target * xp.log_softmax(i.logits), -1))


@row(lambda d: dict(logits=d.normal(B, 1000), labels=d.classes(B, of=1000)), "logits", "loss")
def base_label_smoothing_loss(xp, i):
    log_p = xp.log_softmax(i.logits)
    own = xp.take_along(log_p, i.labels[:, None], 1)[:, 0]
    return -xp.mean(0.9 * own + 0.1 * xp.mean(log_p, 1))


@row(lambda d: dict(logits=d.normal(B, 1000), labels=d.classes(B, of=1000)), "logits", "loss entropy")
def base_confidence_penalty_loss(xp, i):
    log_p = xp.log_softmax(i.logits)
    entropy = -xp.mean(xp.sum(xp.exp(log_p) * log_p, -1))
    return xp.cross_entropy(i.logits, i.labels) - 0.1 * entropy, entropy


def network(xp, x, i):
    return xp.tanh(x @ i.w1.mT + i.b1) @ i.w2.mT + i.b2


@row(lambda d: dict(proj=d.normal(1, B, 10, scale=0.3), **two_layers(d, 10)), "x w1 b1 w2", "penalty")
def base_jacobian_penalty(xp, i):
    g, = xp.grad(lambda x: xp.sum(i.proj[0] * network(xp, x, i)), i.x)
    return 0.5 * 10 / B * xp.sum(g * g)


@row(lambda d: dict(labels=d.classes(B, of=10), **two_layers(d, 10)), "x w1 b1 w2 b2", "penalty")
def base_gradient_penalty(xp, i):
    g, = xp.grad(lambda x: xp.sum(xp.cross_entropy_rows(network(xp, x, i), i.labels)), i.x)
    return 0.5 * xp.mean(xp.sum(g * g, 1))
