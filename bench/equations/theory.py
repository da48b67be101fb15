"""Methods around what networks do at the end of training."""
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
     "loss fit")
def neural_collapse_ufm_loss(xp, i):
    W, H, H0 = xp.f64(i.W), xp.f64(i.H), xp.f64(i.H0)
    fit = xp.sum((H @ W.mT - xp.one_hot(i.y, 10)) ** 2) / 2048
    near = xp.sum((H - H0) ** 2) / 2048
    return xp.f32(fit + 5e-3 * xp.sum(W * W) / 20 + 5e-3 * xp.sum(H * H) / 2048 + near), xp.f32(fit)
