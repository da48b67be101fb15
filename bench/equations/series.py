"""Methods for series: auto-regression, values that are missing."""
import math

import numpy as np

from .peers import row

PATHS = (10, 32, 48, 35)  # K latents, B series, T steps, D variables
PATHS_OF_4 = (4,) + PATHS[1:]


# --- AR-Net ----------------------------------------------------------------------------------------------
def lag_penalty(xp, w):
    """Kept off its pole at zero, as weights drawn at random are."""
    return xp.mean(xp.tanh(1.5 * xp.abs(w) ** (1 / 3)))


@row(lambda d: dict(w=d.normal(24, 4096)), "w", "penalty")
def ar_net_penalty(xp, i):
    return lag_penalty(xp, i.w)


@row(lambda d: dict(x=d.normal(512, 168), y=d.normal(512, 24), w=d.normal(24, 168, scale=0.1), b=d.normal(24), lam=d.scalar(0.02)), "x w b",
     "loss fit penalty pred")
def ar_net_loss(xp, i):
    pred = i.x @ i.w.mT + i.b
    fit, penalty = xp.mean((pred - i.y) ** 2), lag_penalty(xp, i.w)
    return fit + i.lam * penalty, fit, penalty, pred


# --- SupNotMIWAE -----------------------------------------------------------------------------------------
def log_normal(xp, x, mu, sigma):
    return -0.5 * ((x - mu) / sigma) ** 2 - xp.log(sigma) - 0.5 * math.log(2 * math.pi)


@row(lambda d: dict(x=d.normal(*PATHS[1:]), mu=d.normal(*PATHS), sigma=d.uniform(*PATHS, low=0.5, high=2.0),
                    mask=d.classes(*PATHS[1:], of=2).astype("u1")), "mu sigma", "log_px")
def supnotmiwae_gauss_logprob(xp, i):
    return xp.sum(xp.where(i.mask != 0, log_normal(xp, i.x, i.mu, i.sigma), 0.0), (2, 3))


@row(lambda d: dict(logits=d.normal(*PATHS), mask=d.classes(*PATHS, of=2).astype("u1"), pad=np.ones(PATHS[1:3], "u1")), "logits", "log_ps")
def supnotmiwae_missing_logprob(xp, i):
    each = xp.bce(i.logits, xp.float(i.mask))
    return -xp.sum(xp.where((i.pad != 0)[:, :, None], each, 0.0), (2, 3))


@row(lambda d: dict(z=d.normal(10, 32, 48, 16), q_mu=d.normal(32, 48, 16), q_sigma=d.uniform(32, 48, 16, low=0.5, high=2.0),
                    pad=np.ones((32, 48), "u1")), "z q_mu q_sigma", "log_pz log_qz", prior="normal")
def supnotmiwae_latent_terms(xp, i):
    real = (i.pad != 0)[:, :, None]
    prior = -0.5 * i.z ** 2 - 0.5 * math.log(2 * math.pi)
    return xp.sum(xp.where(real, prior, 0.0), (2, 3)), xp.sum(xp.where(real, log_normal(xp, i.z, i.q_mu, i.q_sigma), 0.0), (2, 3))


@row(lambda d: dict(log_py=d.normal(5, 20, 256), log_px=d.normal(20, 256), log_pz=d.normal(20, 256), log_qz=d.normal(20, 256),
                    log_ps=d.normal(5, 20, 256), log_m=d.normal(5, 20, 256)), "log_py log_px log_pz log_qz log_ps log_m", "loss log_w ess")
def supnotmiwae_bound(xp, i):
    r = xp.f64(i.log_px) + xp.f64(i.log_pz) - xp.f64(i.log_qz) + xp.f64(i.log_m) + xp.f64(i.log_ps)
    log_w = xp.log_softmax(r, 1)
    loss = math.log(20) - xp.mean(xp.logsumexp(xp.f64(i.log_py) + r, 1))
    return xp.f32(loss), xp.f32(log_w), xp.f32(xp.mean(xp.exp(-xp.logsumexp(2 * log_w, 1))))


@row(lambda d: dict(x_obs=d.normal(32, 48, 35), x_tilde=d.normal(4, 32, 48, 35), mask=d.classes(4, 32, 48, 35, of=2).astype("u1"),
                    times=np.cumsum(d.uniform(32, 48), 1, dtype="f4"), w=d.uniform(35), bias=d.uniform(35, high=0.1)), "x_tilde w bias", "x_imputed")
def supnotmiwae_fdecay_impute(xp, i):
    observed = i.mask != 0
    step = xp.broadcast(xp.arange(48)[None, None, :, None], PATHS_OF_4)
    last = xp.running_max(xp.where(observed, step, -1), 2)  # the step of the last observation
    seen, at = last >= 0, xp.clip(last, 0, 48)
    value = xp.where(seen, xp.take_along(xp.broadcast(i.x_obs[None], PATHS_OF_4), at, 2), 0.0)
    times = xp.broadcast(i.times[None, :, :, None], PATHS_OF_4)
    since = xp.where(seen, xp.take_along(times, at, 2), 0.0)
    gamma = xp.exp(-xp.relu((times - since) * i.w + i.bias))
    return xp.where(observed, i.x_obs, gamma * value + (1 - gamma) * i.x_tilde)
