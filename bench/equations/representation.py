"""Methods that shape embeddings: domains, items, views of images."""
import numpy as np

from .peers import row, unit_rows

VIEWS = (4, 256, 128)  # views, images, numbers of an embedding


# --- Hessian alignment: a softmax head, two domains ----------------------------------------------------
def domain_rows(d):
    return dict(phi=d.normal(256, 512), y=d.classes(256, of=10), domain=np.array(np.arange(256) % 2, "i4"),
                w=d.normal(10, 512, scale=0.05), b=d.normal(10, scale=0.05))


def domain_risks(xp, logits, i):
    """Mean losses of the two domains."""
    nll, first = xp.cross_entropy_rows(logits, i.y), xp.float(i.domain == 0)
    return xp.sum(nll * first) / xp.sum(first), xp.sum(nll * (1 - first)) / xp.sum(1 - first)


@row(domain_rows, "phi w b", "penalty hess_term grad_term risk", tolerance=1e-3)
def hessian_alignment_hgp(xp, i):
    logits = i.phi @ i.w.mT + i.b
    G = xp.concat([i.phi, 0 * i.phi[:, :1] + 1], 1)
    p = xp.softmax(logits)
    r = p - xp.one_hot(i.y, 10)

    def product(weight, x):
        """The Hessian of the loss averaged with the weights, times x."""
        s = G @ x.mT
        q = p * (s - xp.sum(p * s, -1, True))
        return (weight[:, None] * q).mT @ G

    members = [xp.float(i.domain == e) for e in (0, 1)]
    weights = [m / xp.sum(m) for m in members]
    g = [(w[:, None] * r).mT @ G for w in weights]
    mean_g = (g[0] + g[1]) / 2
    center = xp.stop(product((weights[0] + weights[1]) / 2, mean_g))
    hessian = sum(xp.sum((product(w, x) - center) ** 2) for w, x in zip(weights, g)) / 2
    gradient = sum(xp.sum((x - xp.stop(mean_g)) ** 2) for x in g) / 2
    risks = domain_risks(xp, logits, i)
    return 1e-4 * hessian + 5e-3 * gradient, hessian, gradient, (risks[0] + risks[1]) / 2


@row(lambda d: dict(logits=d.normal(512, 100), y=d.classes(512, of=100), domain=np.array(np.arange(512) % 2, "i4")), "logits",
     "penalty risk")
def hessian_alignment_irm(xp, i):
    slope = xp.sum((xp.softmax(i.logits) - xp.one_hot(i.y, 100)) * i.logits, 1)
    members = [xp.float(i.domain == e) for e in (0, 1)]
    squares = [(xp.sum(slope * m) / xp.sum(m)) ** 2 for m in members]
    risks = domain_risks(xp, i.logits, i)
    return (squares[0] + squares[1]) / 2, (risks[0] + risks[1]) / 2


@row(lambda d: dict(losses=d.uniform(8)), "losses", "penalty")
def hessian_alignment_vrex(xp, i):
    return xp.mean((i.losses - xp.mean(i.losses)) ** 2)


@row(lambda d: dict(grads=d.normal(8, 65536)), "grads", "penalty")
def hessian_alignment_iga(xp, i):
    return xp.sum((i.grads - xp.stop(xp.mean(i.grads, 0))) ** 2)


# --- MSBReg --------------------------------------------------------------------------------------------
def views(d):
    return dict(z=d.normal(*VIEWS), zt=d.normal(2, *VIEWS[1:]),
                noise=d.normal(1, *VIEWS[1:]))


def centroid(xp, z, zt):
    target = unit_rows(xp, xp.mean(unit_rows(xp, zt), 0))
    pulled = unit_rows(xp, xp.mean(unit_rows(xp, z), 0))
    return 2 - 2 * xp.mean(xp.sum(pulled * target, -1))


def brownian(xp, z, noise):
    return xp.mean(xp.sum(unit_rows(xp, z) * unit_rows(xp, noise), -1))


def variance_of_singular_values(xp, z):
    sigma = xp.svdvals(unit_rows(xp, z))
    return xp.mean((sigma - xp.mean(sigma)) ** 2)


@row(lambda d: {k: v for k, v in views(d).items() if k != "noise"}, "z", "loss")
def msbreg_centroid_loss(xp, i):
    return centroid(xp, i.z, i.zt)


@row(lambda d: {k: v for k, v in views(d).items() if k != "zt"}, "z", "loss")
def msbreg_brownian_loss(xp, i):
    return brownian(xp, i.z, i.noise)


@row(lambda d: dict(z=d.normal(256, 128)), "z", "loss", tolerance=2e-3)
def msbreg_singular_value_loss(xp, i):
    return variance_of_singular_values(xp, i.z)


@row(views, "z", "loss centroid singular brownian", tolerance=2e-3)
def msbreg_total(xp, i):
    c, b = centroid(xp, i.z, i.zt), brownian(xp, i.z, i.noise)
    s = variance_of_singular_values(xp, i.z.reshape((-1, i.z.shape[-1])))
    return c + s + 0.1 * b, c, s, b


# --- self-supervised items -----------------------------------------------------------------------------
def find_own(xp, a, b, tau):
    """Each row of a finds the same row of b among all, by cosine."""
    log_p = xp.log_softmax((unit_rows(xp, a) @ unit_rows(xp, b).mT) / tau)
    n = log_p.shape[0]
    return -xp.mean(log_p[xp.arange(n), xp.arange(n)])


@row(lambda d: dict(z=d.normal(512, 128), zp=d.normal(512, 128)), "z zp", "loss")
def item_ssl_contrastive(xp, i):
    return find_own(xp, i.z, i.zp, 0.07)


@row(lambda d: dict(q=d.normal(512, 128), x=d.normal(512, 128), log_p=d.normal(512), item=d.classes(512, of=9000)), "q x", "loss")
def item_ssl_batch_softmax(xp, i):
    return find_own(xp, i.q, i.x, 0.07)


@row(lambda d: dict(x=d.normal(512, 128)), "x", "loss")
def item_ssl_spreadout(xp, i):
    return find_own(xp, i.x, i.x, 1.0)


@row(lambda d: dict(q=d.normal(512, 128), x=d.normal(512, 128), z=d.normal(512, 64), zp=d.normal(512, 64)), "q x z zp", "loss main ssl")
def item_ssl_total(xp, i):
    main, ssl = find_own(xp, i.q, i.x, 0.07), find_own(xp, i.z, i.zp, 0.07)
    return main + 0.1 * ssl, main, ssl


# --- T-JEPA, soft equivariance -----------------------------------------------------------------------------
@row(lambda d: dict(pred=d.normal(4, 128, 8, 64), h=d.normal(128, 32, 64), idx_tgt=d.classes(4, 128, 8, of=32)), "pred", "loss")
def t_jepa_loss(xp, i):
    target = i.h[xp.arange(128)[None, :, None], i.idx_tgt]
    return xp.mean((i.pred - target) ** 2)


@row(lambda d: dict(w=d.normal(24, 24), b=d.normal(24), pw=d.normal(2, 576, 576, scale=0.04), pb=d.normal(2, 24, 24, scale=0.2),
                    lam=d.uniform(2)), "w b", "loss reg")
def soft_equivariance_penalty(xp, i):
    w = i.w.reshape((-1,))
    away = lambda x, P: xp.sum((x - P @ x) ** 2, 1) / 2
    reg = away(w, i.pw) + away(i.b, i.pb)
    return xp.sum(i.lam * reg), reg
