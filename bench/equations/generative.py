"""Methods for generators, tokenizers and their discriminators."""
import numpy as np

from .peers import row, unit_rows

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
