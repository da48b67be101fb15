"""Methods that tune or solve while they train."""
import math

from .peers import row


# --- self-tuning networks: a layer of 256 units from 256, 6 hyper-parameters --------------------------------
def responsive_layer(d):
    return dict(h=d.normal(128, 6), we=d.normal(256, 256, scale=0.06), wh=d.normal(256, 256, scale=0.06), v=d.normal(512, 6, scale=0.1),
                s=d.scalar(0.9))


@row(responsive_layer, "h we wh v s", "norm2")
def stn_weight_sqnorm(xp, i):
    e = (i.h @ i.v.mT)[:, :256]
    inner, square = xp.sum(i.we * i.wh, 1), xp.sum(i.wh ** 2, 1)
    return i.s ** 2 * xp.sum(i.we ** 2) + xp.sum(2 * i.s * e * inner + e ** 2 * square, 1)


@row(lambda d: dict(x=d.normal(128, 256), be=d.normal(256), bh=d.normal(256), **responsive_layer(d)), "x h we wh be bh v s", "out")
def stn_hyper_linear(xp, i):
    e = i.h @ i.v.mT
    return i.s * (i.x @ i.we.mT + i.be) + e[:, :256] * (i.x @ i.wh.mT) + e[:, 256:] * i.bh


@row(lambda d: dict(scale=d.normal(4096)), "scale", "entropy")
def stn_entropy(xp, i):
    return xp.sum(xp.log(xp.softplus(i.scale)) + 0.5 * math.log(2 * math.pi * math.e))


# --- heuristics of an ODE's solver, proximal matching --------------------------------------------------------
@row(lambda d: dict(err=d.uniform(512), dt=d.uniform(512), stiff=d.normal(512)), "err stiff", "reg", kind="error_stiff")
def ode_heuristics_regularizer(xp, i):
    return xp.sum(i.err * i.dt + 0.1 * xp.abs(i.stiff) / 3.5068)


@row(lambda d: dict(out=d.normal(64, 3072, scale=0.02), target=d.normal(64, 3072, scale=0.02)), "out target", "loss", gamma=1.0)
def lpn_pm_loss(xp, i):
    return xp.mean(1 - xp.exp(-xp.sum((i.out - i.target) ** 2, 1)))
