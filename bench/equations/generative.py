"""Methods for generators, tokenizers and their discriminators."""
import math

import numpy as np

from .peers import beside, join_heads, row, split_heads, straight_through, unit_rows

P = 262144  # weights of a generator


# --- adapt then unlearn --------------------------------------------------------------------------------
def generators(d):
    theta = d.normal(P, scale=0.002)
    return dict(theta=theta, theta_neg=np.stack([theta + d.normal(P, scale=0.001) for _ in range(3)]))


def repulsion(xp, i):
    distance = xp.sum((i.theta[None] - i.theta_neg) ** 2) / 3
    return xp.exp(-distance), distance


@row(generators, "theta", "loss distance")
def adapt_unlearn_repulsion(xp, i):
    return repulsion(xp, i)


@row(lambda d: dict(fake_logits=d.normal(256), **generators(d)), "fake_logits theta", "loss adversarial repulsion")
def adapt_unlearn_generator_loss(xp, i):
    adversarial, away = xp.mean(xp.softplus(-i.fake_logits)), repulsion(xp, i)[0]
    return adversarial + away, adversarial, away


@row(lambda d: dict(real_logits=d.normal(8192), fake_logits=d.normal(8192)), "real_logits fake_logits", "loss")
def adapt_unlearn_discriminator_loss(xp, i):
    return xp.mean(xp.softplus(-i.real_logits)) + xp.mean(xp.softplus(i.fake_logits))


@row(lambda d: dict(x=d.normal(128, 784), v1=d.normal(784, 256, scale=0.05), c1=d.normal(256, scale=0.1), v2=d.normal(256, scale=0.1),
                    c2=d.scalar(0.1)), "v1 c1 v2 c2", "penalty input_grad")
def adapt_unlearn_r1_mlp(xp, i):
    hidden = i.x @ i.v1 + i.c1
    slope = (xp.where(hidden > 0, 1.0, 0.2) * i.v2) @ i.v1.mT + 0 * (i.c1[0] + i.c2)
    return xp.mean(xp.sum(slope ** 2, -1)), slope


@row(lambda d: dict(theta=d.normal(P), theta_ref=d.normal(P), fisher=d.uniform(P)), "theta", "loss", lam=0.1)
def adapt_unlearn_ewc(xp, i):
    return 0.05 * xp.sum(i.fisher * (i.theta - i.theta_ref) ** 2)


# --- GigaTok -------------------------------------------------------------------------------------------
@row(lambda d: dict(h=d.normal(8, 256, 768), f=d.normal(8, 256, 768)), "h", "loss weighted cosine")
def gigatok_semantic_loss(xp, i):
    cosine = xp.sum(unit_rows(xp, i.h) * unit_rows(xp, i.f), -1)
    return -xp.mean(cosine), -0.5 * xp.mean(cosine), cosine


@row(lambda d: dict(affinity=d.normal(1024, 1024, scale=0.01)), "affinity", "loss sample_entropy average_entropy")
def gigatok_entropy_loss(xp, i):
    log_p = xp.log_softmax(i.affinity / 0.01)
    p = xp.exp(log_p)
    mean = xp.mean(p, 0)
    sample, average = -xp.mean(xp.sum(p * log_p, -1)), -xp.sum(mean * xp.log(mean + 1e-5))
    return sample - average, sample, average


@row(lambda d: dict(logits_real=d.normal(32, 30, 30), logits_fake=d.normal(32, 30, 30)), "logits_real logits_fake", "loss")
def gigatok_hinge_d(xp, i):
    return 0.25 * (xp.mean(xp.relu(1 - i.logits_real)) + xp.mean(xp.relu(1 + i.logits_fake)))


@row(lambda d: dict(x=d.normal(4, 128, 128, 3), x_rec=d.normal(4, 128, 128, 3), logits_fake=d.normal(4, 30, 30), perceptual=d.scalar(0.3),
                    vq_loss=d.scalar(0.1), commit_loss=d.scalar(0.02), entropy_loss=d.scalar(0.01), semantic=d.scalar(-0.4)),
     "x_rec logits_fake", "loss reconstruction")
def gigatok_generator_loss(xp, i):
    reconstruction = xp.mean((i.x - i.x_rec) ** 2)
    quantizer = i.vq_loss + i.commit_loss + i.entropy_loss
    return reconstruction + i.perceptual - 0.5 * xp.mean(i.logits_fake) + quantizer + 0.5 * i.semantic, reconstruction


@row(lambda d: dict(h=d.normal(4, 256, 256), w1=d.normal(1024, 256, scale=0.05), b1=d.normal(1024), w2=d.normal(1024, 1024, scale=0.03),
                    b2=d.normal(1024), w3=d.normal(768, 1024, scale=0.03), b3=d.normal(768)), "h w1 b1 w2 b2 w3 b3", "out")
def gigatok_projector(xp, i):
    x = i.h @ i.w1.mT + i.b1
    x = (x * xp.sigmoid(x)) @ i.w2.mT + i.b2
    return (x * xp.sigmoid(x)) @ i.w3.mT + i.b3


# --- QLAE ----------------------------------------------------------------------------------------------
def snapped(xp, i):
    """The nearest value of each latent, and mean squares of the difference."""
    distance = xp.stop(xp.abs(i.z[:, :, None] - i.codebook[None]))
    index = xp.argsort(distance, -1)[:, :, :1]
    value = xp.take_along(xp.broadcast(i.codebook[None], tuple(distance.shape)), index, 2)[:, :, 0]
    return value, xp.mean((xp.stop(i.z) - value) ** 2), xp.mean((i.z - xp.stop(value)) ** 2)


def spaced_codebook(d, latents=12, values=10):
    return np.tile(np.linspace(-0.5, 0.5, values, dtype="f4"), (latents, 1))


@row(lambda d: dict(logits=d.normal(64, 64, 64, 3), x=d.uniform(64, 64, 64, 3), z=d.normal(64, 12, scale=0.3), codebook=spaced_codebook(d)),
     "logits z codebook", "loss bce quantization commitment")
def qlae_loss(xp, i):
    _, quantization, commitment = snapped(xp, i)
    bce = xp.mean(xp.bce(i.logits, i.x))
    return bce + 0.01 * quantization + 0.01 * commitment, bce, quantization, commitment


# --- cross initialization --------------------------------------------------------------------------------
def drift(xp, i):
    return 1e-5 * xp.mean(xp.norm(i.v - i.v0 + 1e-6, 1))


@row(lambda d: dict(v=d.normal(256, 1024), v0=d.normal(256, 1024)), "v", "loss")
def cross_init_reg(xp, i):
    return drift(xp, i)


@row(lambda d: dict(eps_pred=d.normal(4, 64, 64, 4), eps_true=d.normal(4, 64, 64, 4), v=d.normal(2, 1024), v0=d.normal(2, 1024)),
     "eps_pred v", "loss diffusion reg")
def cross_init_loss(xp, i):
    diffusion, reg = xp.mean((i.eps_pred - i.eps_true) ** 2), drift(xp, i)
    return diffusion + reg, diffusion, reg


# --- manifold entropy ------------------------------------------------------------------------------------
EMBEDDINGS = (256, 128)


@row(lambda d: dict(z_real=d.normal(*EMBEDDINGS), z_fake=d.normal(*EMBEDDINGS)), "z_real z_fake", "loss_d loss_g")
def manifold_entropy_critic(xp, i):
    return xp.mean(i.z_fake) - xp.mean(i.z_real), -xp.mean(i.z_fake)


@row(lambda d: {k: d.normal(*EMBEDDINGS) for k in ("z_real", "z_real_aug", "z_fake", "z_fake_aug")}, "z_real z_fake", "loss")
def manifold_entropy_dlle(xp, i):
    return xp.mean((i.z_real - i.z_real_aug) ** 2) + xp.mean((i.z_fake - i.z_fake_aug) ** 2)


@row(lambda d: dict(alpha=d.normal(256), **{k: d.normal(*EMBEDDINGS) for k in ("z_mix", "z_real", "z_fake", "noise")}), "z_mix", "loss")
def manifold_entropy_disomap(xp, i):
    a = i.alpha[:, None]
    return xp.mean((i.z_mix - a * i.z_real - (1 - a) * i.z_fake - 0.05 * i.noise) ** 2)


# --- DictAS ----------------------------------------------------------------------------------------------
@row(lambda d: dict(g_q=d.normal(256, 768), g_r=d.normal(256, 768), text=d.normal(256, 768, 2, scale=0.04), anomalous=d.classes(256, of=2)),
     "g_q g_r", "loss loss_q loss_r")
def dictas_text_loss(xp, i):
    told = [xp.sum(unit_rows(xp, g)[:, :, None] * i.text, 1) / 0.01 for g in (i.g_q, i.g_r)]
    q, r = xp.cross_entropy(told[0], i.anomalous), -xp.mean(xp.log_softmax(told[1])[:, 0])
    return q + r, q, r


@row(lambda d: dict(f_q=d.normal(8, 576, 768), retrieved=d.normal(8, 576, 768), abnormal=d.classes(8, 576, of=2).astype("u1")),
     "f_q retrieved", "loss_query loss_cqc dis")
def dictas_query_loss(xp, i):
    dis = 1 - xp.sum(unit_rows(xp, i.f_q, 1e-8) * unit_rows(xp, i.retrieved, 1e-8), -1)
    abnormal = xp.float(i.abnormal)
    n = xp.sum(dis * (1 - abnormal), 1) / (xp.sum(1 - abnormal, 1) + 1e-6)
    a = xp.sum(dis * abnormal, 1) / (xp.sum(abnormal, 1) + 1e-6)
    active = (a != 0) & (n > a)
    return xp.mean(n), xp.sum(xp.where(active, n - a, 0.0)) / (xp.sum(xp.float(active)) + 1e-6), dis


# --- ProFusion, t-SNE of a neuron's facets -----------------------------------------------------------------
LATENTS = (8, 4, 64, 64)


@row(lambda d: dict(eps_pred=d.normal(*LATENTS), eps=d.normal(*LATENTS), prompt=d.normal(8, 2, 768), alpha_bar=d.uniform(8, low=0.1, high=0.9)),
     "eps_pred prompt", "loss diffusion prompt_reg", prompt_l2=0.01)
def profusion_denoise_loss(xp, i):
    diffusion, size = xp.mean((i.eps_pred - i.eps) ** 2), xp.mean(i.prompt ** 2)
    return diffusion + 0.01 * size, diffusion, size


@row(lambda d: dict(x0=d.normal(*LATENTS), noise=d.normal(*LATENTS), t=d.classes(8, of=1000), alphas_cumprod=d.uniform(1000, low=0.1, high=0.9)),
     "x0", "x_t")
def profusion_add_noise(xp, i):
    a = i.alphas_cumprod[i.t][:, None, None, None]
    return xp.sqrt(a) * i.x0 + xp.sqrt(1 - a) * i.noise


@row(lambda d: dict(x=d.normal(*LATENTS), eps=d.normal(*LATENTS), noise=d.normal(*LATENTS), a_t=d.scalar(0.4), a_prev=d.scalar(0.5)), "x eps",
     "x_prev x0")
def profusion_ddim_step(xp, i):
    x0 = (i.x - xp.sqrt(1 - i.a_t) * i.eps) / xp.sqrt(i.a_t)
    return xp.sqrt(i.a_prev) * x0 + xp.sqrt(1 - i.a_prev) * i.eps, x0


@row(lambda d: dict(y=d.normal(512, 2), p=d.distributions(262144).reshape(512, 512)), "y", "kl")
def multifaceted_vis_tsne_kl(xp, i):
    distance = xp.sum((i.y[:, None] - i.y[None]) ** 2, -1)
    w = (1 - xp.eye(512)) / (1 + distance)
    q = w / xp.sum(w)
    return xp.sum(i.p * (xp.log(xp.clip(i.p, 1e-12, 2.0)) - xp.log(xp.clip(q, 1e-12, 2.0))))


# --- ProFusion, the moves of the sampler -------------------------------------------------------------------
def levels(d):
    return dict(x=d.normal(*LATENTS), eps=d.normal(*LATENTS), noise=d.normal(*LATENTS), a_t=d.scalar(0.4), a_prev=d.scalar(0.5))


@row(levels, "x eps", "x_out")
def profusion_fusion_step(xp, i):
    q = xp.clip((i.a_prev - i.a_t) / (i.a_prev * (1 - i.a_t)), 0.0, 1.0)
    return i.x - q * xp.sqrt(1 - i.a_t) * i.eps + xp.sqrt(q * (1 - i.a_t) * (2 - q)) * i.noise


@row(lambda d: dict(eps_uncond=d.normal(*LATENTS), eps_cond=d.normal(2, *LATENTS), weight=d.constant(3, 7)), "eps_uncond eps_cond", "eps")
def profusion_compose_eps(xp, i):
    return i.eps_uncond + xp.sum(i.weight[:, None, None, None, None] * (i.eps_cond - i.eps_uncond), 0)


@row(lambda d: dict(hidden=d.normal(8, 77, 768)), "hidden", "hidden_out", pos=5, count=2)
def profusion_scale_token(xp, i):
    place = xp.arange(77)[:, None]
    return xp.where((place >= 5) & (place < 7), 0.8 * i.hidden, i.hidden)


@row(lambda d: dict(x=d.normal(1024, 16), a_t=d.scalar(0.4), means=d.normal(32, 16), pi=d.distributions(32)), "x", "eps", std=0.2)
def profusion_gmm_eps(xp, i):
    v = i.a_t * 0.04 + 1 - i.a_t
    away = i.x[:, None] - xp.sqrt(i.a_t) * i.means
    r = xp.softmax(xp.log(i.pi) - xp.sum(away ** 2, -1) / (2 * v))
    return xp.sqrt(1 - i.a_t) / v * xp.sum(r[:, :, None] * away, 1)


# --- quantizers -----------------------------------------------------------------------------------------------
@row(lambda d: dict(z=d.normal(8, 256, 8), codebook=d.normal(4096, 8)), "z codebook", "z_q vq_loss commit_loss", tolerance=1e-3)
def gigatok_vq(xp, i):
    x, code = unit_rows(xp, i.z.reshape((-1, 8))), unit_rows(xp, i.codebook)
    q = code[xp.argmin(-xp.stop(x) @ xp.stop(code).mT, -1)]
    vq, commit = xp.mean((q - xp.stop(x)) ** 2), 0.25 * xp.mean((xp.stop(q) - x) ** 2)
    u, v = xp.stop(x), xp.stop(q)  # of length 1: the rotation from one to the other
    w = unit_rows(xp, u + v)
    along = lambda a: xp.sum(x * a, -1, True)
    return (x - 2 * along(w) * w + 2 * along(u) * v).reshape((8, 256, 8)), vq, commit


@row(lambda d: dict(z=d.normal(256, 12, scale=0.3), codebook=spaced_codebook(d)), "z codebook", "z_hat z_quantized quantization commitment")
def qlae_quantize(xp, i):
    index = xp.argmin(xp.stop(xp.abs(i.z[:, :, None] - i.codebook[None])), -1)
    value = xp.take_along(xp.broadcast(i.codebook[None], (256, 12, 10)), index[:, :, None], 2)[:, :, 0]
    return straight_through(xp, value, i.z), value, xp.mean((xp.stop(i.z) - value) ** 2, 1), xp.mean((i.z - xp.stop(value)) ** 2, 1)


@row(lambda d: dict(x=d.normal(224, 224, 3)), "x", "out")
def multifaceted_vis_zoom(xp, i):
    return xp.resize_aligned(i.x[None], 269, 269)[0]


# --- a text encoder ---------------------------------------------------------------------------------------------
def text_encoder(d, n=2, w=256, f=1024):
    shapes = dict(wq=(w, w), wk=(w, w), wv=(w, w), wo=(w, w), bq=(w,), bk=(w,), bv=(w,), bo=(w,), w1=(f, w), b1=(f,), w2=(w, f), b2=(w,),
                  ln1_b=(w,), ln2_b=(w,))
    weights = {k: d.normal(n, *s, scale=0.05) for k, s in shapes.items()}
    return dict(emb=d.normal(4, 77, w), pos=d.normal(77, w, scale=0.1), ln1_g=d.uniform(n, w, low=0.5), ln2_g=d.uniform(n, w, low=0.5),
                lnf_g=d.uniform(w, low=0.5), lnf_b=d.normal(w, scale=0.1), **weights)


@row(text_encoder, "emb pos wq wk wv wo bq bv bo w1 b1 w2 b2 ln1_g ln1_b ln2_g ln2_b lnf_g lnf_b", "hidden", heads=4, tolerance=1e-3)
def cross_init_encode(xp, i):
    x = i.emb + i.pos
    for l in range(2):
        h = xp.layer_norm(x, i.ln1_g[l], i.ln1_b[l])
        q, k, v = (split_heads(xp, h @ w[l].mT + b[l], 4) for w, b in ((i.wq, i.bq), (i.wk, i.bk), (i.wv, i.bv)))
        x = x + join_heads(xp, xp.attention(q, k, v, causal=True)) @ i.wo[l].mT + i.bo[l]
        h = xp.layer_norm(x, i.ln2_g[l], i.ln2_b[l])
        x = x + xp.gelu(h @ i.w1[l].mT + i.b1[l]) @ i.w2[l].mT + i.b2[l]
    return xp.layer_norm(x, i.lnf_g, i.lnf_b)


# --- DictAS, the lookup -----------------------------------------------------------------------------------------
def sparsemax(xp, z):
    n = z.shape[-1]
    top = xp.descending(z)
    sums = xp.cumsum(top, -1)
    k = xp.arange(n) + 1
    count = xp.sum(xp.where(1 + k * top > sums, 1, 0), -1, True)
    tau = (xp.take_along(sums, count - 1, -1) - 1) / count
    return xp.relu(z - tau)


@row(lambda d: dict(z=d.normal(2048, 256)), "z", "p")
def dictas_sparsemax(xp, i):
    return sparsemax(xp, i.z)


@row(lambda d: dict(f_q=d.normal(4, 256, 256), f_k=d.normal(4, 512, 256), f_v=d.normal(4, 512, 256)), "f_q f_k f_v", "retrieved")
def dictas_lookup(xp, i):
    return sparsemax(xp, i.f_q / 16 @ i.f_k.mT) @ i.f_v


@row(lambda d: dict(x=d.normal(4, 196, 256), **{k: d.normal(256, 256, scale=0.06) for k in ("wq", "wk", "wv", "w1", "w2", "w3")},
                    **{k: d.normal(256, scale=0.1) for k in ("ln1_b", "b1", "b2", "ln2_b")}, ln1_g=d.uniform(256, low=0.5),
                    ln2_g=d.uniform(256, low=0.5)), "x ln1_g ln1_b wq wk wv w1 b1 w2 b2 ln2_g ln2_b w3", "y", tolerance=1e-3)
def dictas_attn_block(xp, i):
    h = xp.layer_norm(i.x, i.ln1_g, i.ln1_b)
    q, k, v = (split_heads(xp, h @ w.mT, 4) for w in (i.wq, i.wk, i.wv))
    o = join_heads(xp, xp.attention(q, k, v)) @ i.w1.mT + i.b1 + h
    return xp.layer_norm(o @ i.w2.mT + i.b2, i.ln2_g, i.ln2_b) @ i.w3.mT


@row(lambda d: dict(x=d.normal(8, 24, 24, 256)), "x", "y")
def dictas_aggregate(xp, i):
    return xp.mean_pool(i.x, 3, 1)


@row(lambda d: dict(f=d.normal(4, 8, 196, 128, scale=0.1), wf=d.normal(256, 512, scale=0.05), bf=d.normal(256), wc=d.normal(1, 256), bc=d.normal(1),
                    wp=d.normal(256, 256, scale=0.1), bp=d.normal(256)), "f wf bf wc wp bp", "g", tolerance=1e-3)
def dictas_fuse(xp, i):
    x = xp.permute(i.f, (1, 2, 0, 3)).reshape((8, 196, 512)) @ i.wf.mT + i.bf
    share = xp.softmax(x @ i.wc.mT + i.bc, 1)
    return xp.sum(share * x, 1) @ i.wp.mT + i.bp


# --- manifold entropy ---------------------------------------------------------------------------------------------
def embeddings(d, *names):
    return {n: d.normal(256, 128) for n in names}


def nearest(xp, code, rows, itself=False):
    """The row that is nearest to each code."""
    code, rows = xp.stop(code), xp.stop(rows)
    distance = xp.sum(code ** 2, 1)[:, None] + xp.sum(rows ** 2, 1)[None] - 2 * code @ rows.mT
    return xp.argmin(xp.where(xp.eye(256) != 0, np.inf, distance) if itself else distance, 1)


def replayed(xp, code, buffer):
    distance = xp.mean((code - buffer[nearest(xp, code, buffer)]) ** 2, 1)
    return -xp.log(xp.mean(distance)), distance


@row(lambda d: dict(buffer=d.normal(2048, 128), **embeddings(d, "code")), "code", "loss nn_dist")
def manifold_entropy_rb(xp, i):
    return replayed(xp, i.code, i.buffer)


@row(lambda d: embeddings(d, "code"), "code", "loss nn_dist")
def manifold_entropy_batch(xp, i):
    distance = xp.mean((i.code - i.code[nearest(xp, i.code, i.code, True)]) ** 2, 1)
    return -xp.mean(xp.log(distance)), distance


@row(lambda d: embeddings(d, "code"), "code", "entropy")
def manifold_entropy_kl_estimate(xp, i):
    away = xp.f64(i.code) - xp.f64(i.code[nearest(xp, i.code, i.code, True)])
    constant = math.log(255) + 64 * math.log(math.pi) - math.lgamma(65) + 0.5772156649015329
    return xp.f32(128 * xp.mean(0.5 * xp.log(xp.sum(away ** 2, 1))) + constant)


@row(lambda d: dict(x_real=d.normal(64, 32, 32, 3), x_fake=d.normal(64, 32, 32, 3), alpha=d.normal(64)), "x_real x_fake", "x_mix")
def manifold_entropy_mix(xp, i):
    a = beside(i.alpha, i.x_real)
    return a * i.x_real + (1 - a) * i.x_fake


@row(lambda d: embeddings(d, "mu", "logvar", "noise"), "mu logvar", "code")
def manifold_entropy_reparam(xp, i):
    return i.mu + xp.exp(0.5 * i.logvar) * i.noise


@row(lambda d: dict(buffer=d.normal(2048, 128), alpha=d.normal(256), **embeddings(d, "z_real", "z_real_aug", "z_fake", "z_fake_aug", "z_mix", "noise")),
     "z_real z_fake z_mix", "loss dlle disomap entropy critic")
def manifold_entropy_d_loss(xp, i):
    near = lambda z, target: xp.mean((z - xp.stop(target)) ** 2)
    dlle = near(i.z_real, i.z_real_aug) + near(i.z_fake, i.z_fake_aug)
    a = i.alpha[:, None]
    disomap = near(i.z_mix, a * i.z_real + (1 - a) * i.z_fake + 0.05 * i.noise)
    entropy, critic = replayed(xp, i.z_real, i.buffer)[0], xp.mean(i.z_fake) - xp.mean(i.z_real)
    return dlle + disomap + entropy + critic, dlle, disomap, entropy, critic


@row(lambda d: dict(buffer=d.normal(2048, 128), **embeddings(d, "z_fake")), "z_fake", "loss entropy")
def manifold_entropy_g_loss(xp, i):
    entropy = replayed(xp, i.z_fake, i.buffer)[0]
    return entropy - xp.mean(i.z_fake), entropy
