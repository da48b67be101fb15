"""Methods that say what weights may be: quantization, sparsity, priors."""


import numpy as np

from .peers import row, straight_through

TINY = 2.0 ** -23


# --- AQT ---------------------------------------------------------------------------------------------
def quantized_weights(xp, w):
    """Four bits, a scale for each output."""
    scale = 7 / (xp.stop(xp.max(xp.abs(w), 0)) + TINY)
    code = xp.floor(xp.clip(w * scale, -7, 7) + 0.5)
    return straight_through(xp, code / scale, w)


def quantized_activations(xp, x, bound):
    """Four bits, unsigned: codes 0..15."""
    scale = 16 / (bound + TINY)
    bucket = xp.floor(x * scale)
    passed = xp.where((bucket >= 0) & (x <= bound + TINY), x, 0.0)
    return straight_through(xp, xp.clip(bucket, 0, 15) / scale, passed)


@row(lambda d: dict(w=d.normal(3, 3, 64, 64, scale=0.05)), "w", "wq", single=True, tolerance=5e-3)
def aqt_weight_fake_quant(xp, i):
    scale = 7 / (xp.stop(xp.max(xp.abs(i.w), (0, 1, 2))) + TINY)
    code = xp.floor(xp.clip(i.w * scale, -7, 7) + 0.5)
    return straight_through(xp, code / scale, i.w)


@row(lambda d: dict(x=np.abs(d.normal(8192, 64)), bound=d.scalar(2.0)), "x", "xq", single=True, tolerance=5e-3)
def aqt_act_fake_quant(xp, i):
    return quantized_activations(xp, i.x, i.bound)


@row(lambda d: dict(x=np.abs(d.normal(128, 512)), w=d.normal(512, 512, scale=0.05), bound=d.scalar(2.0)), "x w", "y", single=True,
     tolerance=5e-3)
def aqt_quantized_dense(xp, i):
    return quantized_activations(xp, i.x, i.bound) @ quantized_weights(xp, i.w)


# --- generalized Gaussian prior ----------------------------------------------------------------------
P = 262144


@row(lambda d: dict(w=d.normal(P, scale=0.05), shape=d.scalar(1.3), scale=d.scalar(0.05), mean=d.scalar(0.001)),
     "w shape scale mean", "loss")
def gg_nll(xp, i):
    z = xp.abs(i.w - i.mean) / i.scale
    return xp.mean(z ** i.shape) + xp.log(2 * i.scale) + xp.lgamma(1 / i.shape) - xp.log(i.shape)


@row(lambda d: dict(w=d.normal(P, scale=0.05)), "w", "rate", shape=1.3)
def gg_rate(xp, i):
    return 2e3 * xp.mean((xp.abs(i.w) + 1) ** 1.3)


# --- sparsity ----------------------------------------------------------------------------------------
@row(lambda d: dict(gamma=d.normal(4096), pruned=d.classes(4096, of=2).astype("u1")), "gamma", "penalty")
def ms_penalty(xp, i):
    return 5e-4 * xp.sum(xp.where(i.pruned != 0, xp.abs(i.gamma), 0.0))


@row(lambda d: dict(a=d.uniform(4, 6, 197, 197)), "a", "penalty")
def stp_penalty(xp, i):
    return xp.mean(xp.log1p(i.a * i.a))


@row(lambda d: dict(q=d.normal(4, 6, 197, 64), k=d.normal(4, 6, 197, 64), v=d.normal(4, 6, 197, 64)), "q k v", "out penalty")
def stp_attention(xp, i):
    p = xp.softmax(i.q @ i.k.mT / 8)
    return p @ i.v, xp.mean(xp.log1p(p * p))


@row(lambda d: dict(logits=d.normal(128, 100), labels=d.classes(128, of=100), penalties=d.uniform(12)), "logits penalties",
     "loss ce penalty")
def stp_loss(xp, i):
    ce = xp.cross_entropy(i.logits, i.labels)
    return ce + 0.01 * i.penalties[-1], ce, i.penalties[-1]


@row(lambda d: dict(v=d.normal(512, 512), a=d.scalar(0.4), b=d.scalar(0.3)), "v a b", "w")
def wc_reparam(xp, i):
    return i.a * xp.atan(i.v / i.b)
