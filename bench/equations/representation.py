"""Methods that shape embeddings: domains, items, views of images."""
import numpy as np

from .peers import join_heads, row, split_heads, unit_rows

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


@row(domain_rows, "phi w b", "penalty hess_term grad_term risk", tolerance=1e-3, of="hessian_alignment_hgp")
def hessian_alignment_hgp_by_double_backward(xp, i):
    """The same penalty as users of a framework write it: products by differentiating twice, their
    gradient by a third time."""
    G, theta = xp.concat([i.phi, 0 * i.phi[:, :1] + 1], 1), xp.concat([i.w, i.b[:, None]], 1)
    members = [xp.float(i.domain == e) for e in (0, 1)]
    risk = lambda m: lambda theta: xp.sum(xp.cross_entropy_rows(G @ theta.mT, i.y) * m) / xp.sum(m)
    both = lambda theta: (risk(members[0])(theta) + risk(members[1])(theta)) / 2
    g = [xp.grad(risk(m), theta)[0] for m in members]
    mean_g = (g[0] + g[1]) / 2
    center = xp.stop(xp.hessian_products(both, theta, mean_g[None])[0])
    hessian = sum(xp.sum((xp.hessian_products(risk(m), theta, x[None])[0] - center) ** 2) for m, x in zip(members, g)) / 2
    gradient = sum(xp.sum((x - xp.stop(mean_g)) ** 2) for x in g) / 2
    return 1e-4 * hessian + 5e-3 * gradient, hessian, gradient, both(theta)


def signs(d, *shape):
    return np.sign(d.normal(*shape)).astype("f4")


@row(lambda d: dict(z_mean=signs(d, 4, 5130), z_env=signs(d, 2, 4, 5130), **domain_rows(d)), "phi w b", "penalty hess_term grad_term risk",
     tolerance=1e-3)
def hessian_alignment_hutchinson(xp, i):
    G, theta = xp.concat([i.phi, 0 * i.phi[:, :1] + 1], 1), xp.concat([i.w, i.b[:, None]], 1)
    in_order = lambda z: xp.concat([z[:, :5120].reshape((4, 10, 512)), z[:, 5120:].reshape((4, 10, 1))], 2)
    members = [xp.float(i.domain == e) for e in (0, 1)]
    risk = lambda m: lambda theta: xp.sum(xp.cross_entropy_rows(G @ theta.mT, i.y) * m) / xp.sum(m)
    both = lambda theta: (risk(members[0])(theta) + risk(members[1])(theta)) / 2
    diagonal = lambda f, z: xp.mean(z * xp.hessian_products(f, theta, z), 0)
    center = xp.stop(diagonal(both, in_order(i.z_mean)))
    hessian = sum(xp.sum((diagonal(risk(m), in_order(i.z_env[e])) - center) ** 2) for e, m in enumerate(members)) / 2
    g = [xp.grad(risk(m), theta)[0] for m in members]
    mean_g = xp.stop((g[0] + g[1]) / 2)
    gradient = sum(xp.sum((x - mean_g) ** 2) for x in g) / 2
    return 1e-3 * hessian + 5e-3 * gradient, hessian, gradient, both(theta)


@row(lambda d: dict(phi=d.normal(256, 64), y=d.classes(256, of=10), w=d.normal(10, 64, scale=0.1), b=d.normal(10, scale=0.1)), "phi w b",
     "hessian grad")
def hessian_alignment_head_hessian(xp, i):
    order = np.concatenate([np.arange(650).reshape(10, 65)[:, :64].reshape(-1), np.arange(64, 650, 65)])
    G, p = xp.concat([i.phi, 0 * i.phi[:, :1] + 1], 1), xp.softmax(i.phi @ i.w.mT + i.b)
    each = (p[:, :, None] * G[:, None]).reshape((256, 650))
    blocks = (each.mT @ G).reshape((10, 65, 1, 65)) * xp.eye(10)[:, None, :, None]
    hessian = (blocks.reshape((650, 650)) - each.mT @ each) / 256
    gradient = ((p - xp.one_hot(i.y, 10)).mT @ G / 256).reshape((650,))
    return xp.layer_index(xp.layer_index(hessian, order, 0), order, 1), xp.layer_index(gradient, order, 0)


def symmetric(d, n):
    x = d.normal(n, n)
    return (x + x.T) / 2


@row(lambda d: dict(h0=symmetric(d, 192), h1=symmetric(d, 192)), "h0 h1", "spectral frobenius", tolerance=1e-3)
def hessian_alignment_hessian_distance(xp, i):
    return xp.max(xp.abs(xp.eigvalsh(i.h0 - i.h1))), xp.sqrt(xp.sum((i.h0 - i.h1) ** 2))


@row(lambda d: dict(state=d.uniform(2, 5130, high=0.1), **domain_rows(d)), "phi w b", "penalty var", tolerance=1e-3)
def hessian_alignment_fishr(xp, i):
    logits = i.phi @ i.w.mT + i.b
    G, r = xp.concat([i.phi, 0 * i.phi[:, :1] + 1], 1), xp.softmax(logits) - xp.one_hot(i.y, 10)
    each = r[:, :, None] * G[:, None]  # the gradient of every example
    variances = []
    for e in (0, 1):
        m = xp.float(i.domain == e)
        m = (m / xp.sum(m))[:, None, None]
        mean = xp.sum(m * each, 0)
        v = xp.sum(m * (each - mean) ** 2, 0)
        variances.append(xp.concat([v[:, :512].reshape((-1,)), v[:, 512]], 0))
    var = xp.stack(variances)
    used = (0.95 * i.state + 0.05 * var) / 0.05
    return xp.mean((used - xp.mean(used, 0)) ** 2), var


@row(lambda d: dict(phi=d.normal(256, 512), domain=np.array(np.arange(256) % 2, "i4")), "phi", "penalty")
def hessian_alignment_coral(xp, i):
    means, covariances = [], []
    for e in (0, 1):
        m = xp.float(i.domain == e)[:, None]
        n = xp.sum(m)
        mean = xp.sum(m * i.phi, 0) / n
        away = m * (i.phi - mean)
        means.append(mean)
        covariances.append(away.mT @ away / (n - 1))
    return xp.mean((means[0] - means[1]) ** 2) + xp.mean((covariances[0] - covariances[1]) ** 2)


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


@row(lambda d: dict(x_num=d.uniform(256, 16), x_cat=d.classes(256, 8, of=10), w=d.normal(17, 64), emb=d.normal(80, 64), bias=d.normal(24, 64),
                    cards=np.full(8, 10, "i4")), "w emb bias", "tokens")
def t_jepa_tokenize(xp, i):
    t, column = np.arange(25)[:, None], np.arange(64)[None]
    angle = t * 100.0 ** (-(column - column % 2) / 64)
    place = xp.array(np.where(column % 2 == 0, np.sin(angle), np.cos(angle)).astype("f4"))
    start = xp.array(np.arange(0, 80, 10).astype("i4"))
    regular = xp.broadcast(i.w[None, :1], (256, 1, 64))
    numeric = i.x_num[:, :, None] * i.w[1:] + i.bias[:16]
    categorical = i.emb[i.x_cat + start] + i.bias[16:]
    return xp.concat([regular, numeric, categorical], 1) + place


LAYERS, WIDE, INNER = 2, 64, 256


def stack_of_layers(d):
    n, w, f = LAYERS, WIDE, INNER
    return dict(in_w=d.normal(n, 3 * w, w, scale=0.1), in_b=d.normal(n, 3 * w, scale=0.1), out_w=d.normal(n, w, w, scale=0.1),
                out_b=d.normal(n, w, scale=0.1), ln_g=d.uniform(n, 2, w, low=0.5), ln_b=d.normal(n, 2, w, scale=0.1),
                ff1_w=d.normal(n, f, w, scale=0.1), ff1_b=d.normal(n, f, scale=0.1), ff2_w=d.normal(n, w, f, scale=0.1),
                ff2_b=d.normal(n, w, scale=0.1), end_g=d.uniform(2, w, low=0.5), end_b=d.normal(2, w, scale=0.1),
                fc_w=d.normal(w, w, scale=0.1), fc_b=d.normal(w, scale=0.1))


STACK = "in_w in_b out_w out_b ln_g ln_b ff1_w ff1_b ff2_w ff2_b end_g end_b fc_w fc_b"


def through_layers(xp, i, x, heads=2):
    for l in range(LAYERS):
        qkv = x @ i.in_w[l].mT + i.in_b[l]
        q, k, v = (split_heads(xp, qkv[..., j * WIDE:(j + 1) * WIDE], heads) for j in range(3))
        x = x + join_heads(xp, xp.attention(q, k, v)) @ i.out_w[l].mT + i.out_b[l]
        x = xp.layer_norm(x, i.ln_g[l, 0], i.ln_b[l, 0])
        x = x + xp.relu(x @ i.ff1_w[l].mT + i.ff1_b[l]) @ i.ff2_w[l].mT + i.ff2_b[l]
        x = xp.layer_norm(x, i.ln_g[l, 1], i.ln_b[l, 1])
    x = xp.layer_norm(x, i.end_g[0], i.end_b[0])
    return xp.layer_norm(x @ i.fc_w.mT + i.fc_b, i.end_g[1], i.end_b[1])


@row(lambda d: dict(tokens=d.normal(128, 25, WIDE), idx=np.stack([d.distinct(12, 25) for _ in range(128)]), **stack_of_layers(d)),
     "tokens " + STACK, "out", tolerance=1e-3)
def t_jepa_encoder(xp, i):
    return through_layers(xp, i, i.tokens[xp.arange(128)[:, None], i.idx])


@row(lambda d: dict(z=d.normal(64, 12, WIDE), idx_ctx=np.stack([d.distinct(12, 25) for _ in range(64)]), idx_tgt=d.classes(4, 64, 8, of=25),
                    emb_w=d.normal(WIDE, WIDE, scale=0.1), emb_b=d.normal(WIDE, scale=0.1), mask_token=d.normal(WIDE, scale=0.1),
                    norm_g=d.uniform(WIDE, low=0.5), norm_b=d.normal(WIDE, scale=0.1), proj_w=d.normal(WIDE, WIDE, scale=0.1),
                    proj_b=d.normal(WIDE, scale=0.1), **stack_of_layers(d)),
     "z emb_w emb_b mask_token norm_g norm_b proj_w proj_b " + STACK, "pred", tolerance=1e-3, n_positions=25)
def t_jepa_predictor(xp, i):
    angle = np.arange(25)[:, None] * 10000.0 ** (-np.arange(WIDE // 2)[None] / (WIDE // 2))
    place = xp.array(np.concatenate([np.sin(angle), np.cos(angle)], 1).astype("f4"))
    seen = xp.broadcast((i.z @ i.emb_w.mT + i.emb_b + place[i.idx_ctx])[None], (4, 64, 12, WIDE))
    x = xp.concat([seen, i.mask_token + place[i.idx_tgt]], 2).reshape((256, 20, WIDE))
    x = xp.layer_norm(through_layers(xp, i, x)[:, 12:], i.norm_g, i.norm_b)
    return (x @ i.proj_w.mT + i.proj_b).reshape((4, 64, 8, WIDE))


# --- features of items, layers with symmetries ---------------------------------------------------------
@row(lambda d: dict(emb=d.normal(512, 4, 8, 32), valid=d.classes(512, 4, 8, of=2).astype("u1"), keep=d.classes(512, 4, 8, of=2).astype("u1"),
                    mask=np.array([0, 1, 0, 0], "u1"), default=d.normal(4, 32)), "emb default", "features")
def item_ssl_augment(xp, i):
    weight = xp.float(i.valid) * xp.float(i.keep)
    pooled = xp.sum(weight[..., None] * i.emb, 2) / xp.clip(xp.sum(weight, -1, True), 1, 1e9)
    return xp.where((i.mask != 0)[:, None], vars(i)["default"], pooled).reshape((512, 128))


@row(lambda d: dict(w=d.normal(156, 156), p00=d.normal(1, 1), p01=d.normal(3, 3), p02=d.normal(9, 9), p10=d.normal(3, 3), p11=d.normal(9, 9),
                    p12=d.normal(27, 27), p20=d.normal(9, 9), p21=d.normal(27, 27), p22=d.normal(81, 81)), "w", "w_out reg",
     layout_out=[[0, 12], [1, 12], [2, 12]], layout_in=[[0, 12], [1, 12], [2, 12]])
def soft_equivariance_typed_project(xp, i):
    size, start, rows = (1, 3, 9), (0, 12, 48), []
    for o in range(3):
        blocks = []
        for a in range(3):
            r, c = size[o], size[a]
            block = i.w[start[o]:start[o] + 12 * r, start[a]:start[a] + 12 * c]
            maps = xp.permute(block.reshape((12, r, 12, c)), (0, 2, 1, 3)).reshape((144, r * c))
            on = (maps @ getattr(i, "p%d%d" % (o, a)).mT).reshape((12, 12, r, c))
            blocks.append(xp.permute(on, (0, 2, 1, 3)).reshape((12 * r, 12 * c)))
        rows.append(xp.concat(blocks, 1))
    w = xp.concat(rows, 0)
    return w, xp.sum((i.w - w) ** 2) / 2


@row(lambda d: dict(y_gx=d.normal(16, 512, 9), y_x=d.normal(512, 9), rho_out=d.normal(16, 9, 9)), "y_gx y_x", "error")
def soft_equivariance_equivariance_error(xp, i):
    moved = i.y_x[None] @ i.rho_out.mT
    return xp.mean(xp.norm(i.y_gx - moved, -1) / (xp.norm(i.y_gx, -1) + xp.norm(moved, -1)))


@row(lambda d: dict(x=d.normal(512, 64), w=d.normal(240, 64, scale=0.1), b=d.normal(240, scale=0.1), a=d.normal(6, 16)), "x w b a", "out", c=16)
def soft_equivariance_block(xp, i):
    n, c = 512, 16
    z, a = i.x @ i.w.mT + i.b, i.a[:, :, None, None]
    s, v, M = z[:, :c].reshape((n, c, 1, 1)), z[:, c:4 * c].reshape((n, c, 3, 1)), z[:, 4 * c:13 * c].reshape((n, c, 3, 3))
    gate_v, gate_M = z[:, 13 * c:14 * c].reshape((n, c, 1, 1)), z[:, 14 * c:].reshape((n, c, 1, 1))
    after = lambda x: xp.roll(x, -1, 1)
    trace = xp.sum(M * xp.eye(3), (2, 3), True)
    s_new = s + a[0] * xp.sum(v * after(v), 2, True) + a[1] * trace
    v_new = v + a[2] * after(s) * v + a[3] * (M @ v)
    M_new = M + a[4] * v * after(v).mT + a[5] * s * after(M)
    gated = lambda g, x: (xp.sigmoid(g) * x).reshape((n, -1))
    return xp.concat([gated(s_new, s_new), gated(gate_v, v_new), gated(gate_M, M_new)], 1)


@row(lambda d: dict(z=d.normal(256, 128)), "z", "effective_rank centroid_norm2 uniformity", tolerance=1e-3)
def msbreg_spread(xp, i):
    z = unit_rows(xp, i.z)
    sigma = xp.svdvals(z)
    p = sigma / xp.sum(sigma)
    square = xp.sum(z * z, -1)
    distance = square[:, None] + square[None] - 2 * z @ z.mT
    pairs = xp.where(xp.eye(256) == 0, -2 * distance, -np.inf).reshape((-1,))
    return xp.exp(-xp.sum(p * xp.log(p + 1e-7))), xp.sum(xp.mean(z, 0) ** 2), xp.logsumexp(pairs, 0) - np.log(256 * 255)
