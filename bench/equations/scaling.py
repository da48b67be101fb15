"""Methods for little text and much compute."""
from .peers import join_heads, row, split_heads


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


# --- WideNet: 512 tokens, 4 experts, 2 choices ------------------------------------------------------------------
E, T, D, INNER = 4, 512, 64, 256


def router(d):
    return dict(x=d.normal(T, D), w_r=d.normal(E, D, scale=0.2), noise=d.normal(T, E, scale=0.1))


def experts(d):
    return dict(w1=d.normal(E, D, INNER, scale=0.1), b1=d.normal(E, INNER, scale=0.1), w2=d.normal(E, INNER, D, scale=0.1),
                b2=d.normal(E, D, scale=0.1))


def route(xp, x, w_r, noise):
    """Gates, experts, places in the experts' buffers, load balance."""
    p = xp.softmax(x @ w_r.mT + noise)
    gate, expert = xp.top_k_of(p, 2)
    chosen = xp.one_hot(expert.mT.reshape((-1,)), E)
    place = xp.sum(chosen * (xp.cumsum(chosen, 0) - chosen), 1).reshape((2, T)).mT
    balance = E * xp.sum(xp.sum(chosen, 0) / T * xp.mean(p, 0))
    return gate, expert, place, balance


CAPACITY = int(2 * T * 1.2 / E)


def mixture(xp, x, w_r, noise, i):
    gate, expert, place, balance = route(xp, x, w_r, noise)
    kept = place < CAPACITY
    to = expert * CAPACITY + (place.long() if xp.name == "torch" else place.astype("int32"))
    to = xp.where(kept, to, E * CAPACITY).reshape((-1,))
    copies = xp.broadcast(x[:, None], (T, 2, D)).reshape((2 * T, D))
    buffer = xp.add_rows(E * CAPACITY + 1, to, copies)[:-1].reshape((E, CAPACITY, D))
    answer = (xp.gelu(buffer @ i.w1 + i.b1[:, None]) @ i.w2 + i.b2[:, None]).reshape((-1, D))
    answer = xp.concat([answer, 0 * answer[:1]], 0)[to].reshape((T, 2, D))
    return xp.sum(gate[:, :, None] * answer, 1), balance


@row(router, "x w_r", "gate l_balance")
def widenet_route(xp, i):
    gate, _, _, balance = route(xp, i.x, i.w_r, i.noise)
    return gate, balance


@row(lambda d: dict(**router(d), **experts(d)), "x w_r w1 b1 w2 b2", "y l_balance")
def widenet_moe(xp, i):
    return mixture(xp, i.x, i.w_r, i.noise, i)


@row(lambda d: dict(x=d.normal(8, 64, D), noise=d.normal(2, T, E, scale=0.1), w_qkv=d.normal(3 * D, D, scale=0.1), b_qkv=d.normal(3 * D, scale=0.1),
                    w_o=d.normal(D, D, scale=0.1), b_o=d.normal(D, scale=0.1), w_r=d.normal(E, D, scale=0.2), ln1_g=d.uniform(2, D, low=0.5),
                    ln1_b=d.normal(2, D, scale=0.1), ln2_g=d.uniform(2, D, low=0.5), ln2_b=d.normal(2, D, scale=0.1),
                    lnf_g=d.uniform(D, low=0.5), lnf_b=d.normal(D, scale=0.1), **experts(d)),
     "x w_qkv b_qkv w_o b_o w_r w1 b1 w2 b2 ln1_g ln1_b ln2_g ln2_b lnf_g lnf_b", "y l_balance", heads=4, tolerance=1e-3)
def widenet_encoder(xp, i):
    x, balance = i.x, 0.0
    for n in range(2):
        qkv = xp.layer_norm(x, i.ln1_g[n], i.ln1_b[n], 1e-6) @ i.w_qkv.mT + i.b_qkv
        q, k, v = (split_heads(xp, qkv[..., D * j:D * (j + 1)], 4) for j in range(3))
        x = x + join_heads(xp, xp.attention(q, k, v)) @ i.w_o.mT + i.b_o
        tokens = xp.layer_norm(x, i.ln2_g[n], i.ln2_b[n], 1e-6).reshape((T, D))
        y, b = mixture(xp, tokens, i.w_r, i.noise[n], i)
        x, balance = x + y.reshape((8, 64, D)), balance + b
    return xp.layer_norm(x, i.lnf_g, i.lnf_b, 1e-6), balance
