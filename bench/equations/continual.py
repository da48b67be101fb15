"""Methods for learning without forgetting."""
import math

from .peers import join_heads, row, split_heads

B, C = 128, 100


@row(lambda d: dict(id_logits=d.normal(B, 10, scale=5), ood_logits=d.normal(B, 10, scale=5)), "id_logits ood_logits",
     "loss id_score ood_score")
def ovor_loss(xp, i):
    def penalty(x):
        x = xp.relu(x)
        return xp.mean(xp.where(x < 1, 0.5 * x * x, x - 0.5))
    e_id, e_ood = -xp.logsumexp(i.id_logits, -1), -xp.logsumexp(i.ood_logits, -1)
    return 0.1 * (penalty(e_id + 15) + penalty(-3 - e_ood)), xp.mean(e_id), xp.mean(e_ood)


@row(lambda d: dict(logits=d.normal(B, C), y=20 + d.classes(B, of=10)), "logits", "loss", lo=20, hi=30)
def ovor_masked_ce(xp, i):
    return xp.cross_entropy(i.logits[:, 20:30], i.y - 20)


@row(lambda d: dict(x=d.normal(4, 197, 384), wqkv=d.normal(1152, 384, scale=0.05), bqkv=d.normal(1152, scale=0.05),
                    wproj=d.normal(384, 384, scale=0.05), bproj=d.normal(384, scale=0.05), prompt=d.normal(10, 384)),
     "x wqkv bqkv wproj bproj prompt", "out", heads=6)
def ovor_prefix_attention(xp, i):
    qkv = i.x @ i.wqkv.mT + i.bqkv
    q, k, v = qkv[..., :384], qkv[..., 384:768], qkv[..., 768:]
    k = xp.concat([xp.broadcast(i.prompt[None, :5], (4, 5, 384)), k], 1)
    v = xp.concat([xp.broadcast(i.prompt[None, 5:], (4, 5, 384)), v], 1)
    q, k, v = (split_heads(xp, a, 6) for a in (q, k, v))
    a = xp.softmax(q @ k.mT / math.sqrt(64)) @ v
    return join_heads(xp, a) @ i.wproj.mT + i.bproj


@row(lambda d: dict(logits=d.normal(B, C), y=50 + d.classes(B, of=50)), "logits", "loss", n_old=50)
def rehearsal_free_cl_class_loss(xp, i):
    return xp.mean(xp.sum(xp.bce(i.logits, xp.one_hot(i.y, C)), 1))


@row(lambda d: dict(logits=d.normal(B, C), teacher=d.normal(B, C)), "logits", "loss", n_old=50)
def rehearsal_free_cl_predkd(xp, i):
    return xp.mean(xp.sum(xp.bce(i.logits[:, :50], xp.sigmoid(i.teacher[:, :50])), 1))


@row(lambda d: dict(feat=d.normal(B, 768), teacher=d.normal(B, 768)), "feat", "loss")
def rehearsal_free_cl_featkd(xp, i):
    return xp.sum((i.feat - i.teacher) ** 2) / B


@row(lambda d: dict(theta=d.normal(1000000), anchor=d.normal(1000000), fisher=d.uniform(1000000)), "theta", "loss", kind="ewc")
def rehearsal_free_cl_param_reg(xp, i):
    return xp.sum(i.fisher * (i.theta - i.anchor) ** 2)


@row(lambda d: dict(logits=d.normal(B, C), teacher_logits=d.normal(B, C), y=50 + d.classes(B, of=50), feat=d.normal(B, 768),
                    teacher_feat=d.normal(B, 768), theta=d.normal(300000), anchor=d.normal(300000), fisher=d.uniform(300000)),
     "logits feat theta", "loss class kd feat reg", n_old=50, lam_feat=0.5, lam_reg=0.1, reg="ewc")
def rehearsal_free_cl_step_loss(xp, i):
    cls = xp.mean(xp.sum(xp.bce(i.logits[:, 50:], xp.one_hot(i.y - 50, 50)), 1))
    kd = xp.mean(xp.sum(xp.bce(i.logits[:, :50], xp.sigmoid(i.teacher_logits[:, :50])), 1))
    feat = xp.sum((i.feat - i.teacher_feat) ** 2) / B
    reg = xp.sum(i.fisher * (i.theta - i.anchor) ** 2)
    return cls + kd + 0.5 * feat + 0.1 * reg, cls, kd, feat, reg


@row(lambda d: dict(x=d.normal(256, 384), y=d.normal(256, 384)), "x y", "cka")
def rehearsal_free_cl_cka(xp, i):
    x, y = i.x - xp.mean(i.x, 0, True), i.y - xp.mean(i.y, 0, True)
    s = lambda a, b: xp.sum((a.mT @ b) ** 2)
    return s(y, x) / (xp.sqrt(s(x, x)) * xp.sqrt(s(y, y)) + 1e-12)
