"""Methods for wrong or scarce labels."""
from .peers import row, unit_rows

B, C, N = 128, 100, 50000


@row(lambda d: dict(logits=d.normal(B, C), labels=d.classes(B, of=C), bank=d.distributions(N, C), index=d.distinct(B, N)),
     "logits", "loss ce reg", **{"lambda": 3.0, "beta": 0.7})
def elr_loss(xp, i):
    pc = xp.clip(xp.softmax(i.logits), 1e-4, 1 - 1e-4)
    pd = xp.stop(pc)
    t = 0.7 * i.bank[i.index] + 0.3 * pd / xp.sum(pd, -1, True)
    ce, reg = xp.cross_entropy(i.logits, i.labels), xp.mean(xp.log(1 - xp.sum(t * pc, -1)))
    return ce + 3 * reg, ce, reg


@row(lambda d: dict(logits=d.normal(B, C), soft_labels=d.distributions(B, C), q=d.distributions(B, C)), "logits", "loss ce reg")
def elr_plus_loss(xp, i):
    pc = xp.clip(xp.softmax(i.logits), 1e-4, 1 - 1e-4)
    ce = -xp.mean(xp.sum(i.soft_labels * xp.log_softmax(i.logits), -1))
    reg = xp.mean(xp.log(1 - xp.sum(i.q * pc, -1)))
    return ce + 3 * reg, ce, reg


@row(lambda d: dict(logits=d.normal(B, C), labels=d.classes(B, of=C), bank=d.distributions(N, C), index=d.distinct(B, N)),
     "logits", "loss", epoch=30, epochs=100)
def pskd_loss(xp, i):
    target = 0.76 * xp.one_hot(i.labels, C) + 0.24 * i.bank[i.index]
    return -xp.mean(xp.sum(target * xp.log_softmax(i.logits), -1))


@row(lambda d: dict(x=d.normal(B, 512), u=d.uniform(1, low=0.4, high=0.5)), "x", "y", sigma=100.0)
def nested_dropout(xp, i):
    cdf = xp.cumsum(xp.exp(-(((xp.arange(512) + 1) / 100.0) ** 2)), 0)
    k = xp.sum(cdf / cdf[-1] <= i.u[0]) + 1
    return xp.where(xp.arange(512) < k, i.x, 0.0)


@row(lambda d: dict(logits=d.normal(B, C), labels=d.classes(B, of=C), select_loss=d.uniform(B)), "logits", "loss")
def nested_peer_loss(xp, i):
    chosen = xp.argsort(i.select_loss)[:int(0.8 * B)]
    return xp.mean(xp.cross_entropy_rows(i.logits, i.labels)[chosen])


@row(lambda d: dict(student=d.normal(B, 4096), teacher=d.normal(B, 4096), center=d.normal(4096)), "student", "loss")
def random_teacher_loss(xp, i):
    return -xp.mean(xp.sum(xp.softmax(i.teacher - i.center) * xp.log_softmax(i.student), -1))


@row(lambda d: dict(x=d.normal(B, 512), w1=d.normal(512, 512, scale=0.05), b1=d.normal(512, scale=0.1),
                    w2=d.normal(512, 512, scale=0.05), b2=d.normal(512, scale=0.1), wb=d.normal(256, 512, scale=0.05),
                    bb=d.normal(256, scale=0.1), v=d.normal(1024, 256)), "x w1 b1 w2 b2 wb bb v", "logits")
def random_teacher_head(xp, i):
    h = xp.gelu(i.x @ i.w1.mT + i.b1)
    h = xp.gelu(h @ i.w2.mT + i.b2)
    return unit_rows(xp, h @ i.wb.mT + i.bb) @ unit_rows(xp, i.v).mT


@row(lambda d: dict(logits=d.normal(3, 4, 64, 64, 21, scale=2), scale_weights=d.normal(3), labels=d.classes(4, 64, 64, of=21)),
     "logits scale_weights", "loss ce consistency", rho=0.5)
def adele_loss(xp, i):
    w = xp.softmax(i.scale_weights).reshape(3, 1, 1, 1, 1)
    log_p = xp.log_softmax(i.logits)
    p = xp.exp(log_p)
    mixture = xp.clip(xp.sum(w * p, 0), 1e-3, 1 - 1e-3)
    kl = xp.sum(xp.sum(p * (log_p - xp.log(mixture)), -1), 0)
    gate = xp.max(xp.max(xp.stop(mixture), -1), (1, 2), True) >= 0.5
    consistency = xp.mean(xp.where(gate, kl, 0.0))
    ce = 3 * xp.mean(xp.cross_entropy_rows(w * i.logits, xp.broadcast(i.labels, (3, 4, 64, 64))))
    return ce + consistency, ce, consistency


def omega(xp, x, labels, i):
    """[B] weights by a net for each class. Batch statistics take b1 and b2 out: they have no gradient."""
    def normalised(v):
        away = v - xp.mean(v, 1, True)
        return away * xp.rsqrt(xp.mean(away * away, 1, True) + 1e-5)
    h = xp.relu(normalised(x @ i.w1.mT + i.b1[:, None]))
    share = xp.softmax(normalised(h @ i.w2.mT + i.b2[:, None]))[:, :, 1]
    return share[labels, xp.arange(x.shape[0])]


def nets(d, classes, features):
    return dict(w1=d.normal(classes, features, features, scale=0.3), b1=d.normal(classes, features, scale=0.1),
                w2=d.normal(classes, 2, features, scale=0.3), b2=d.normal(classes, 2, scale=0.1))


@row(lambda d: dict(features=d.normal(B, 19), labels=d.classes(B, of=10), **nets(d, 10, 19)), "w1 w2", "weights")
def storm_rescaler(xp, i):
    return omega(xp, i.features, i.labels, i)


@row(lambda d: dict(W=d.normal(512, 10, scale=0.05), b=d.normal(10, scale=0.05), x=d.normal(B, 512), labels=d.classes(B, of=10),
                    features=d.normal(B, 19), x_val=d.normal(B, 512), labels_val=d.classes(B, of=10), features_val=d.normal(B, 19),
                    **nets(d, 10, 19)), "w1 w2", "meta_loss", inner_lr=0.01)
def storm_meta_loss(xp, i):
    weighted = lambda w, x, W, b, y: xp.sum(w * xp.cross_entropy_rows(x @ W + b, y))
    weights = omega(xp, i.features, i.labels, i)
    gW, gb = xp.grad(lambda W, b: weighted(weights, i.x, W, b, i.labels), i.W, i.b)
    return weighted(omega(xp, i.features_val, i.labels_val, i), i.x_val, i.W - 0.01 * gW, i.b - 0.01 * gb, i.labels_val)
