"""Methods for tuning a trained model."""
import math

import numpy as np

from .peers import join_heads, row, split_heads, straight_through, unit_rows

N, V = 512, 2048  # tokens of a batch, words


# --- BA-LoRA -----------------------------------------------------------------------------------------
def counted(d, n, share=0.9):
    return (d.uniform(n) < share).astype("i4")


def mean_counted(xp, rows, mask):
    m = xp.float(mask)
    return xp.sum(rows * m) / xp.clip(xp.sum(m), 1, math.inf)


def consistency(xp, i):
    log_p, log_q = xp.log_softmax(i.z_pre), xp.log_softmax(i.z_ft)
    return mean_counted(xp, xp.sum(xp.exp(log_p) * (log_p - log_q), -1), i.mask)


def covariance(xp, i):
    m = xp.float(i.mask)[:, None]
    n, d = xp.sum(m), i.z_ft.shape[1]
    z = i.z_ft * m
    c = (z - xp.sum(z, 0, True) / n) * m
    C = c.mT @ c / (n - 1) * (1 - xp.eye(d))
    return xp.sum(C * C) / d


def singular(xp, i):
    s = xp.svdvals(xp.f64(i.z_ft * xp.float(i.mask)[:, None]))
    return xp.f32(-xp.sum(s[:5]) / xp.sum(s))


@row(lambda d: dict(z_pre=d.normal(N, V), z_ft=d.normal(N, V), mask=counted(d, N)), "z_ft", "loss")
def balora_consistency(xp, i):
    return consistency(xp, i)


@row(lambda d: dict(z_ft=d.normal(128, 512), mask=counted(d, 128)), "z_ft", "loss")
def balora_diversity(xp, i):
    return covariance(xp, i)


@row(lambda d: dict(z_ft=d.normal(64, 128), mask=counted(d, 64)), "z_ft", "loss")
def balora_svd(xp, i):
    return singular(xp, i)


@row(lambda d: dict(task_loss=d.scalar(2.0), z_pre=d.normal(64, 128), z_ft=d.normal(64, 128), mask=counted(d, 64),
                    weights=d.constant(1.0, 0.1, 0.1)), "task_loss z_ft", "loss")
def balora_loss(xp, i):
    w = i.weights
    return i.task_loss + w[0] * consistency(xp, i) + w[1] * covariance(xp, i) + w[2] * singular(xp, i)


# --- DR-Tune, LT-SFT ---------------------------------------------------------------------------------
@row(lambda d: dict(z_down=d.normal(128, 512), labels=d.classes(128, of=100), z_cal=d.normal(2048, 512),
                    bank_labels=d.classes(2048, of=100), head_w=d.normal(100, 512, scale=0.05), head_b=d.normal(100)),
     "z_down head_w head_b", "loss task dr")
def drt_loss(xp, i):
    task = xp.cross_entropy(i.z_down @ i.head_w.mT + i.head_b, i.labels)
    dr = xp.cross_entropy(i.z_cal @ i.head_w.mT + i.head_b, i.bank_labels)
    return (128 * task + 2048 * dr) / (128 + 2048), task, dr


@row(lambda d: dict(theta=d.normal(300000), theta0=d.normal(300000), trainable=d.classes(300000, of=2)), "theta", "penalty")
def ltsft_l1(xp, i):
    return 0.1 / 300000 * xp.sum(xp.float(i.trainable) * xp.abs(i.theta - i.theta0))


# --- making the most of a model ----------------------------------------------------------------------
def projections(d, width):
    return {k: d.normal(width, width, scale=0.05) for k in ("wq", "wk", "wv", "wo")}


def attend(xp, i, past_k, past_v, heads):
    q, k, v = (split_heads(xp, i.x @ w.mT, heads) for w in (i.wq, i.wk, i.wv))
    k, v = xp.concat([past_k, k], 1), xp.concat([past_v, v], 1)
    n, s = i.x.shape[0], past_k.shape[1]
    seen = xp.arange(s + n)[None] <= xp.arange(n)[:, None] + s
    p = xp.softmax(xp.where(seen, q @ k.mT / math.sqrt(q.shape[-1]), -math.inf))
    return join_heads(xp, p @ v) @ i.wo.mT


@row(lambda d: dict(hidden=d.normal(256, 256), w1=d.normal(512, 256, scale=0.1), b1=d.normal(512), w2=d.normal(256, 512, scale=0.1),
                    b2=d.normal(256)), "hidden w1 b1 w2 b2", "z")
def mtm_recurrent_state(xp, i):
    return i.w2 @ xp.relu(i.w1 @ xp.mean(i.hidden, 0) + i.b1) + i.b2


@row(lambda d: dict(x=d.normal(256, 256), z=d.normal(32, 256), **projections(d, 256)), "x z wq wk wv wo", "y", heads=4)
def mtm_window_attention(xp, i):
    return attend(xp, i, split_heads(xp, i.z @ i.wk.mT, 4), split_heads(xp, i.z @ i.wv.mT, 4), 4)


@row(lambda d: dict(x=d.normal(64, 256), past_k=d.normal(4, 256, 64), past_v=d.normal(4, 256, 64), embedding=d.normal(2048, 256,
                    scale=0.1), targets=d.classes(64, of=2048), **projections(d, 256)), "x past_k past_v", "loss")
def mtm_hso_loss(xp, i):
    return xp.cross_entropy((i.x + attend(xp, i, i.past_k, i.past_v, 4)) @ i.embedding.mT, i.targets)


@row(lambda d: dict(logits=d.normal(8, 64, V), targets=np.where(d.uniform(8, 64) < 0.5, d.classes(8, 64, of=V), -100).astype("i4"),
                    length_logits=d.normal(8, 128), lengths=d.classes(8, of=128)), "logits length_logits", "loss word length")
def mtm_cmlm_loss(xp, i):
    seen = i.targets != -100
    rows = xp.cross_entropy_rows(i.logits, xp.where(seen, i.targets, 0))
    word = mean_counted(xp, rows, seen)
    length = xp.cross_entropy(i.length_logits, i.lengths)
    return word + length, word, length


# --- mask tuning -------------------------------------------------------------------------------------
def binary(xp, m):
    return straight_through(xp, xp.float(m > 5e-3), m)


@row(lambda d: dict(m=d.normal(512, 512, scale=0.01)), "m", "mask", single=True)
def ramt_mask(xp, i):
    return binary(xp, i.m)


@row(lambda d: dict(x=d.normal(128, 512), w=d.normal(512, 512, scale=0.05), bias=d.normal(512), m=d.normal(512, 512, scale=0.01)),
     "x m", "y", single=True)
def ramt_masked_linear(xp, i):
    return i.x @ (i.w * binary(xp, i.m)).mT + i.bias


@row(lambda d: dict(m=d.normal(4, 65536, scale=0.01)), "m", "penalty")
def ramt_mask_penalty(xp, i):
    return 1e-4 * xp.sum(xp.norm(i.m, axis=-1))


@row(lambda d: dict(student=d.normal(128, 1000), teacher=d.normal(128, 1000)), "student", "loss")
def ramt_teacher_loss(xp, i):
    return -xp.mean(xp.sum(xp.softmax(i.teacher) * xp.log_softmax(i.student), -1))


@row(lambda d: dict(features=d.normal(128, 512), text=d.normal(1000, 512, scale=0.05), log_scale=d.scalar(4.6)), "features", "logits")
def ramt_cosine_logits(xp, i):
    return xp.exp(i.log_scale) * (unit_rows(xp, i.features, 1e-30) @ i.text.mT)


# --- RPO ---------------------------------------------------------------------------------------------
def tokens(d, batch, length):
    y = d.classes(batch, length, of=V)
    y[:, :length // 4] = -100  # the prompt
    return y


def sequence_logp(xp, logits, labels):
    z, y = logits[:, :-1], labels[:, 1:]
    seen = y >= 0
    return -xp.sum(xp.where(seen, xp.cross_entropy_rows(z, xp.where(seen, y, 0)), 0.0), 1), xp.sum(xp.float(seen), 1)


@row(lambda d: dict(logits=d.normal(8, 64, V), labels=tokens(d, 8, 64)), "logits", "logp")
def rpo_sequence_logp(xp, i):
    return sequence_logp(xp, i.logits, i.labels)[0]


def rpo(xp, chosen, rejected, ref_chosen, ref_rejected):
    z = 0.1 * ((chosen - ref_chosen) - (rejected - ref_rejected))
    dpo, sft = xp.mean(xp.softplus(-z)), -xp.mean(chosen)
    return dpo + 0.005 * 0.1 * sft, dpo, sft


@row(lambda d: dict(policy_chosen=d.normal(64, scale=10), policy_rejected=d.normal(64, scale=10), ref_chosen=d.normal(64, scale=10),
                    ref_rejected=d.normal(64, scale=10), chosen_len=1 + d.classes(64, of=100)), "policy_chosen policy_rejected",
     "loss dpo sft")
def rpo_loss(xp, i):
    return rpo(xp, i.policy_chosen, i.policy_rejected, i.ref_chosen, i.ref_rejected)


@row(lambda d: dict(chosen_logits=d.normal(4, 64, V), chosen_labels=tokens(d, 4, 64), rejected_logits=d.normal(4, 64, V),
                    rejected_labels=tokens(d, 4, 64), ref_chosen=d.normal(4) - np.float32(380), ref_rejected=d.normal(4) - np.float32(380)),
     "chosen_logits rejected_logits", "loss dpo sft")
def rpo_loss_logits(xp, i):
    chosen, _ = sequence_logp(xp, i.chosen_logits, i.chosen_labels)
    rejected, _ = sequence_logp(xp, i.rejected_logits, i.rejected_labels)
    return rpo(xp, chosen, rejected, i.ref_chosen, i.ref_rejected)


@row(lambda d: dict(reward=d.normal(32, 64), ref_logits=d.normal(32, 64), baseline=d.distributions(32, 64), prompt=d.distributions(32),
                    pair_prompt=d.classes(512, of=32), pair_chosen=d.classes(512, of=64), pair_rejected=d.classes(512, of=64)),
     "reward", "objective rpo_form")
def rpo_maximin(xp, i):
    log_ref = xp.log_softmax(i.ref_logits)
    tilted = log_ref + i.reward / 0.1
    log_z = xp.logsumexp(tilted, -1)
    ratio = tilted - log_z[:, None] - log_ref
    fit = lambda t: xp.mean(xp.softplus(t[i.pair_prompt, i.pair_rejected] - t[i.pair_prompt, i.pair_chosen]))
    value = xp.sum(i.prompt * (0.1 * log_z - xp.sum(i.baseline * i.reward, -1)))
    cross = -xp.sum(i.baseline * ratio, -1)
    return 0.05 * value + fit(i.reward), 0.005 * xp.sum(i.prompt * cross) + fit(0.1 * ratio)


# --- salient weights ---------------------------------------------------------------------------------
def fake_quant(xp, w, up, low):
    """Two bits, groups of 64, learned clipping. Codes are whole, so ties at 0 and 3 are everywhere: they pass
    their gradient, which the peers' clip does not agree on."""
    g = w.reshape(-1, 64)
    high, bottom = xp.sigmoid(up) * xp.max(g, 1, True), xp.sigmoid(low) * xp.min(g, 1, True)
    scale = xp.clip((high - bottom) / 3, 1e-5, 1e4)
    zero = xp.stop(xp.round(-bottom / scale))
    s = g / scale
    place = xp.stop(xp.round(s)) + zero
    inside = (place >= 0) & (place <= 3)
    code = xp.clip(place, 0, 3) + xp.where(inside, s - xp.stop(s), 0.0)
    return ((code - zero) * scale).reshape(w.shape)


def layer(d, O=256, I=256):
    return dict(w=d.normal(O, I, scale=0.05), up=d.normal(O * I // 64, 1, scale=0.5) + np.float32(4),
                low=d.normal(O * I // 64, 1, scale=0.5) + np.float32(4))


def adapted(d):
    return dict(a=d.normal(16, 256, scale=0.1), b=d.normal(256, 16, scale=0.1), saliency=d.uniform(256, 256), **layer(d))


@row(lambda d: layer(d), "up low", "w_quant", single=True, tolerance=5e-3)
def salient_fake_quant(xp, i):
    return fake_quant(xp, i.w, i.up, i.low)


@row(adapted, "up low", "penalty", single=True, tolerance=5e-3)
def salient_penalty(xp, i):
    return xp.sum(i.saliency * (fake_quant(xp, i.w, i.up, i.low) - i.w) ** 2)


@row(lambda d: dict(x_full=d.normal(256, 256), x_quant=d.normal(256, 256), **adapted(d)), "up low a b", "loss", single=True,
     tolerance=5e-3, augmented=False)
def salient_layer_loss(xp, i):
    w = fake_quant(xp, i.w, i.up, i.low)
    penalty = xp.sum(i.saliency * (w - i.w) ** 2)
    y = i.x_quant @ w.mT + 0.25 * (i.x_quant @ i.a.mT) @ i.b.mT
    return xp.mean((i.x_full @ i.w.mT - y) ** 2) + 1e-3 * penalty


# --- self-distillation -------------------------------------------------------------------------------
@row(lambda d: dict(image=d.normal(16, 64, 64, 3)), "image", "patches", patch=8)
def self_distill_patchify(xp, i):
    cut = i.image.reshape(16, 8, 8, 8, 8, 3)
    return xp.permute(cut, (0, 1, 3, 2, 4, 5)).reshape(16, 64, 192)


@row(lambda d: dict(pred=d.normal(16, 64, 192), patches=d.normal(16, 64, 192), mask=counted(d, 16 * 64, 0.75).reshape(16, 64),
                    student=d.normal(16, 17, 192), teacher=d.normal(16, 17, 192)), "pred student", "loss mae distill")
def self_distill_loss(xp, i):
    away = i.patches - xp.mean(i.patches, -1, True)
    target = away / xp.sqrt(xp.sum(away * away, -1, True) / 191 + 1e-6)
    mae = mean_counted(xp, xp.mean((i.pred - target) ** 2, -1), i.mask)
    distill = xp.sum((i.student - i.teacher) ** 2) / 16
    return mae + distill, mae, distill


# --- SORSA -------------------------------------------------------------------------------------------
def sorsa(d, width=512, rank=16):
    return dict(w_res=d.normal(width, width, scale=0.05), a=d.normal(rank, width, scale=0.05), s=d.uniform(rank),
                b=d.normal(width, rank, scale=0.05))


@row(lambda d: dict(x=d.normal(128, 512), bias=d.normal(512), **sorsa(d)), "x a s b bias", "y")
def sorsa_linear(xp, i):
    return i.x @ i.w_res.mT + ((i.x @ i.a.mT) * i.s) @ i.b.mT + i.bias


@row(sorsa, "a s b", "w")
def sorsa_merge(xp, i):
    return i.w_res + (i.b * i.s) @ i.a


@row(lambda d: dict(a=d.normal(4, 16, 512, scale=0.05), b=d.normal(4, 512, 16, scale=0.05)), "a b", "loss")
def sorsa_orthonormality(xp, i):
    gap = lambda gram: xp.sqrt(xp.sum((gram - xp.eye(16)) ** 2, (-1, -2)))
    return 0.5 * xp.mean(gap(i.a @ i.a.mT) + gap(i.b.mT @ i.b))
