"""Methods for little text and much compute."""
from .peers import row


@row(lambda d: dict(logits=d.normal(5, 512, 1024), labels=d.classes(512, of=1024), weights=d.uniform(512, low=0.5)), "logits weights",
     "avg_logits loss")
def infinite_compute_ensemble_nll(xp, i):
    average = xp.mean(i.logits, 0)
    return average, xp.sum(i.weights * xp.cross_entropy_rows(average, i.labels)) / xp.sum(i.weights)


@row(lambda d: dict(logits=d.normal(16, 128, 1024), targets=d.classes(16, 128, of=1024), weights=d.uniform(16, 128, low=0.5)), "logits",
     "loss per_token", z_loss=1e-4)
def token_crisis_xent(xp, i):
    per_token = xp.cross_entropy_rows(i.logits, i.targets) + 1e-4 * xp.logsumexp(i.logits, -1) ** 2
    return xp.sum(i.weights * per_token) / xp.sum(i.weights), per_token


@row(lambda d: dict(x=d.normal(16, 128, 512), u=d.uniform(16, 128, 512)), "x", "y")
def token_crisis_dropout(xp, i):
    return xp.where(i.u >= 0.1, i.x / 0.9, 0.0)


@row(lambda d: dict(x=d.normal(128, 64, 128), h=d.normal(128, 64, 128), u=d.uniform(128)), "x h", "y")
def token_crisis_droppath(xp, i):
    return i.x + xp.where((i.u >= 0.1)[:, None, None], i.h / 0.9, 0.0)
