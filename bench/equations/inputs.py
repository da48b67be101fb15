"""Methods for augmentation, imbalance and attacks."""
import math

import numpy as np

from .peers import beside, row, unit_rows

B, C = 128, 10
IMAGES = (64, 32, 32, 3)


# --- AdaMixUp ----------------------------------------------------------------------------------------
@row(lambda d: {k: d.normal(*IMAGES) for k in ("x1", "x2", "m1", "m2")}, "x1 x2", "p")
def adamixup_policy_input(xp, i):
    return 0.5 * (i.m1 * i.x1 + i.m2 * i.x2)


@row(lambda d: dict(gate_logits=d.normal(B, 3)), "gate_logits", "lo width")
def adamixup_region(xp, i):
    s = xp.softmax(i.gate_logits)
    return s[:, 0], s[:, 1]


@row(lambda d: dict(x1=d.normal(*IMAGES), x2=d.normal(*IMAGES), y1=d.distributions(64, C), y2=d.distributions(64, C),
                    gate_logits=d.normal(64, 3), u=d.uniform(64)), "x1 x2 y1 y2 gate_logits", "x_mix y_mix lam")
def adamixup_mix(xp, i):
    s = xp.softmax(i.gate_logits)
    lam = s[:, 0] + i.u * s[:, 1]
    x, y = beside(lam, i.x1), beside(lam, i.y1)
    return x * i.x1 + (1 - x) * i.x2, y * i.y1 + (1 - y) * i.y2, lam


@row(lambda d: dict(cls_logits=d.normal(B, C), cls_targets=d.distributions(B, C), cls_mixed=d.classes(B, of=2),
                    intr_logits=d.normal(192, 2), intr_real=d.classes(192, of=2)), "cls_logits cls_targets intr_logits",
     "loss ce_clean ce_mixed ce_intr")
def adamixup_loss(xp, i):
    ce = -xp.sum(i.cls_targets * xp.log_softmax(i.cls_logits), 1)
    def mean_of(chosen):
        chosen = xp.float(chosen)
        return xp.sum(ce * chosen) / xp.clip(xp.sum(chosen), 1, math.inf)
    clean, mixed = mean_of(i.cls_mixed == 0), mean_of(i.cls_mixed == 1)
    intr = xp.cross_entropy(i.intr_logits, i.intr_real)
    return clean + mixed + intr, clean, mixed, intr


# --- boundary tilting --------------------------------------------------------------------------------
D = 784


@row(lambda d: dict(w=d.normal(D), mean_i=d.normal(D), mean_j=d.normal(D)), "w mean_i mean_j", "cos angle strength half_gap")
def boundary_tilting_angle(xp, i):
    w, u = xp.f64(i.w), xp.f64(i.mean_j) - xp.f64(i.mean_i)
    gap = xp.norm(u)
    w, u = w / xp.norm(w), u / gap
    cos = xp.clip(xp.sum(w * u), -1, 1)
    return tuple(xp.f32(v) for v in (cos, 2 * xp.atan2(xp.norm(w - u), xp.norm(w + u)), 1 / xp.abs(cos), gap / 2))


@row(lambda d: dict(x=d.normal(B, D), w=d.normal(D), b=d.scalar(0.5)), "x w b", "distance projection mirror adversarial", strength=0.5)
def boundary_tilting_mirror(xp, i):
    f, ww = i.x @ i.w + i.b, xp.sum(i.w * i.w)
    step = (f / ww)[:, None] * i.w
    return f / xp.sqrt(ww), i.x - step, i.x - 2 * step, i.x - 1.5 * step


@row(lambda d: dict(x_i=d.normal(B, D), x_j=d.normal(B, D) + np.float32(0.2), w=d.normal(D), b=d.scalar(0.5)), "x_i x_j w b",
     "d_adv cos half_gap")
def boundary_tilting_adversarial_distance(xp, i):
    d_i, d_j = -xp.mean(i.x_i @ i.w + i.b), xp.mean(i.x_j @ i.w + i.b)
    d = 0.5 * (d_i + d_j) / xp.norm(i.w)
    gap = 0.5 * xp.norm(xp.mean(i.x_j, 0) - xp.mean(i.x_i, 0))
    return d, d / gap, gap


@row(lambda d: dict(w=d.normal(D), b=d.scalar(0.5), direction=d.normal(D), pivot=d.normal(D)), "w b direction pivot", "w b")
def boundary_tilting_tilt(xp, i):
    c = i.w / xp.norm(i.w)
    s = i.direction - xp.sum(i.direction * c) * c
    w = math.cos(0.5) * c + math.sin(0.5) * s / xp.norm(s)
    on = i.pivot - (xp.sum(i.pivot * i.w) + i.b) / xp.sum(i.w * i.w) * i.w
    return w, -xp.sum(w * on)


@row(lambda d: dict(x=d.normal(2000, D), y=d.classes(2000, of=2), w=d.normal(D, scale=0.05), b=d.scalar(0.1)), "x w b", "loss data")
def boundary_tilting_objective(xp, i):
    margin = (2 * xp.float(i.y) - 1) * (i.x @ i.w + i.b)
    data = xp.mean(xp.relu(1 - margin))
    return data + 0.005 * xp.sum(i.w * i.w), data


# --- ConR --------------------------------------------------------------------------------------------
@row(lambda d: dict(features=d.normal(B, 512), labels=d.uniform(B, 1, high=20), preds=d.uniform(B, 1, high=5),
                    weights=d.uniform(B, low=0.5)), "features", "loss")
def conr_loss(xp, i):
    unit = unit_rows(xp, i.features)
    s = unit @ unit.mT / 0.2
    dl = xp.sum(xp.abs(i.labels[:, None] - i.labels[None]), -1)
    dp = xp.sum(xp.abs(i.preds[:, None] - i.preds[None]), -1)
    P, N = (dl <= 1) & (xp.eye(B) == 0), (dl > 1) & (dp <= 1)
    e, n = xp.exp(s), xp.sum(xp.float(P), 1)
    anchor = (n > 0) & (xp.sum(xp.float(N), 1) > 0)
    n = xp.clip(n, 1, math.inf)
    S = i.weights[:, None] * xp.exp(0.01 * dl)
    den = xp.sum(xp.where(P, e, 0.0), 1) + xp.sum(xp.where(N, S * e, 0.0), 1)
    l = xp.log(xp.where(anchor, den, 1.0)) - xp.sum(xp.where(P, s, 0.0), 1) / n
    return xp.mean(i.weights * xp.where(anchor, l, 0.0))


# --- contextual fusion -------------------------------------------------------------------------------
def streams(d):
    return dict(fg=d.normal(B, 512), bg=d.normal(B, 512), w_fg=d.normal(C, 512, scale=0.05), w_bg=d.normal(C, 512, scale=0.05),
                bias=d.normal(C))


def fused(i):
    return i.fg @ i.w_fg.mT + i.bg @ i.w_bg.mT + i.bias


@row(streams, "fg bg w_fg w_bg bias", "logits")
def contextual_fusion_logits(xp, i):
    return fused(i)


@row(lambda d: dict(labels=d.classes(B, of=C), **streams(d)), "fg bg w_fg w_bg bias", "loss ce penalty", alpha=0.1)
def contextual_fusion_loss(xp, i):
    ce, penalty = xp.cross_entropy(fused(i), i.labels), xp.sum(i.w_fg ** 2)
    return ce + 0.1 * penalty, ce, penalty


def mirrored(n, r):
    """Indices of 0..n-1 with r on both sides, the edge repeated."""
    j = np.arange(-r, n + r) % (2 * n)
    return np.where(j >= n, 2 * n - 1 - j, j)


def reflected(n, r):
    """The same, the edge not repeated."""
    j = np.abs(np.arange(-r, n + r))
    return np.where(j >= n, 2 * (n - 1) - j, j)


def gaussian(r, sigma):
    k = np.exp(-np.arange(-r, r + 1) ** 2 / (2 * sigma ** 2))
    return k / k.sum()


def blurred(xp, x, kernel, border):
    r = len(kernel) // 2
    x = xp.layer_index(xp.layer_index(x, border(x.shape[1], r), 1), border(x.shape[2], r), 2)
    return xp.filter_rows(x, kernel)


@row(lambda d: dict(x=d.normal(*IMAGES)), "x", "blurred")
def contextual_fusion_blur(xp, i):
    return blurred(xp, i.x, gaussian(4, 1.0), mirrored)


# --- decoupled mixup ---------------------------------------------------------------------------------
def mixed_labels(d, classes):
    return dict(logits=d.normal(B, classes), label_a=d.classes(B, of=classes), label_b=d.classes(B, of=classes), lam=d.uniform(B))


@row(lambda d: mixed_labels(d, 1000), "logits", "loss mce dm")
def decoupled_mixup_ce(xp, i):
    z, a, b = i.logits, i.label_a[:, None], i.label_b[:, None]
    za, zb = xp.take_along(z, a, 1)[:, 0], xp.take_along(z, b, 1)[:, 0]
    classes = xp.arange(1000)[None]
    Da = xp.logsumexp(xp.where(classes == b, -math.inf, z), 1) - za
    Db = xp.logsumexp(xp.where(classes == a, -math.inf, z), 1) - zb
    mixed = (i.label_a != i.label_b) & (i.lam > 1e-3) & (1 - i.lam > 1e-3)
    mce = xp.mean(i.lam * xp.cross_entropy_rows(z, i.label_a) + (1 - i.lam) * xp.cross_entropy_rows(z, i.label_b))
    dm = xp.mean(xp.where(mixed, Da + Db, 0.0))
    return mce + 0.1 * dm, mce, dm


@row(lambda d: mixed_labels(d, 100), "logits", "loss")
def decoupled_mixup_bce(xp, i):
    share = lambda l: xp.where(l >= 0.8, 1.0, l / 0.8)
    y = share(i.lam)[:, None] * xp.one_hot(i.label_a, 100) + share(1 - i.lam)[:, None] * xp.one_hot(i.label_b, 100)
    return xp.mean(xp.sum(xp.bce(i.logits, xp.clip(y, 0, 1)), 1))


@row(lambda d: dict(x=d.normal(*IMAGES), perm=d.distinct(64, 64), lam=d.uniform(64)), "x lam", "x_mix")
def decoupled_mixup_mix(xp, i):
    lam = beside(i.lam, i.x)
    return lam * i.x + (1 - lam) * i.x[i.perm]


@row(lambda d: dict(x=d.normal(*IMAGES), perm=d.distinct(64, 64), box=np.array([4, 20, 8, 24], "i4")), "x", "x_mix")
def decoupled_mixup_cutmix(xp, i):
    y, x = xp.arange(32)[:, None, None], xp.arange(32)[None, :, None]
    inside = (y >= i.box[0]) & (y < i.box[1]) & (x >= i.box[2]) & (x < i.box[3])
    return xp.where(inside, i.x[i.perm], i.x)


# --- latent quantization defense ---------------------------------------------------------------------
K = 64


@row(lambda d: dict(mu=d.normal(B, K, scale=0.1), logvar=d.normal(B, K), noise=d.normal(B, K)), "mu logvar noise", "z z_soft")
def latent_quantization_defense_quantize(xp, i):
    z = i.mu + 0.05 * xp.exp(i.logvar / 2) * i.noise
    s = 500 * (0.01 - z * z)
    return z, s / (1 + xp.abs(s))


def kl(xp, mu, logvar):
    return -0.5 * xp.mean(1 + logvar - mu * mu - xp.exp(logvar))


@row(lambda d: dict(mu=d.normal(B, K), logvar=d.normal(B, K)), "mu logvar", "kl")
def latent_quantization_defense_kl(xp, i):
    return kl(xp, i.mu, i.logvar)


@row(lambda d: dict(x=d.normal(B, 784), w1=d.normal(784, 128, scale=0.05), b1=d.normal(128, scale=0.1),
                    w2=d.normal(128, K, scale=0.1), b2=d.normal(K)), "w1 w2", "penalty")
def latent_quantization_defense_encoder_penalty(xp, i):
    g, = xp.grad(lambda x: xp.sum(xp.leaky_relu(x @ i.w1 + i.b1, 0.2) @ i.w2 + i.b2), i.x)
    return xp.mean((0.1 - xp.norm(g, axis=1)) ** 2)


@row(lambda d: dict(mu=d.normal(64, K), logvar=d.normal(64, K), x_true=d.normal(64, 784), x_cont=d.normal(64, 784),
                    x_disc=d.normal(64, 784), grad_norm=d.uniform(64)), "mu logvar x_cont grad_norm",
     "enc_loss cont_loss disc_loss")
def latent_quantization_defense_losses(xp, i):
    cont, disc = 10 * xp.mean((i.x_cont - i.x_true) ** 2), 10 * xp.mean((i.x_disc - i.x_true) ** 2)
    return kl(xp, i.mu, i.logvar) + cont + 10 * xp.mean((0.1 - i.grad_norm) ** 2), cont, disc


# --- noise mask --------------------------------------------------------------------------------------
G = 49


@row(lambda d: dict(head_a=d.normal(B, G), head_b=d.normal(B, G), base_a=d.normal(1, G), base_b=d.normal(1, G)), "head_a head_b",
     "conc_a conc_b")
def noise_mask_concentration(xp, i):
    return xp.exp(0.9 * i.base_a + 0.1 * i.head_a), xp.exp(0.9 * i.base_b + 0.1 * i.head_b)


@row(lambda d: dict(mask=d.uniform(64, 64), image=d.normal(*IMAGES)), "mask image", "masked", grid=8, kernel=13, sigma=6.0)
def noise_mask_render(xp, i):
    place = np.arange(32) * 8 // 32
    up = xp.layer_index(xp.layer_index(i.mask.reshape(64, 8, 8, 1), place, 1), place, 2)
    return i.image * blurred(xp, up, gaussian(6, 6.0), reflected)


@row(lambda d: dict(conc_a=d.uniform(B, G, low=0.3, high=4), conc_b=d.uniform(B, G, low=0.3, high=4), mask=d.uniform(B, G),
                    ce=d.uniform(B, high=3)), "conc_a conc_b ce", "loss")
def noise_mask_objective(xp, i):
    a, b, m = i.conc_a, i.conc_b, xp.clip(i.mask, 1e-6, 1 - 1e-6)
    lp = (a - 1) * xp.log(m) + (b - 1) * xp.log1p(-m) - (xp.lgamma(a) + xp.lgamma(b) - xp.lgamma(a + b))
    return xp.mean(xp.logsumexp(lp, 1)) * xp.mean(i.ce)


@row(lambda d: dict(conc_a=d.uniform(B, G, low=0.3, high=4), conc_b=d.uniform(B, G, low=0.3, high=4)), "conc_a conc_b", "mean var")
def noise_mask_beta_moments(xp, i):
    total = i.conc_a + i.conc_b
    return i.conc_a / total, i.conc_a * i.conc_b / (total * total * (total + 1))
