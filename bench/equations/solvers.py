"""Methods that tune or solve while they train."""
import math

import numpy as np

from .peers import beside, row


# --- self-tuning networks: a layer of 256 units from 256, 6 hyper-parameters --------------------------------
def responsive_layer(d):
    return dict(h=d.normal(128, 6), we=d.normal(256, 256, scale=0.06), wh=d.normal(256, 256, scale=0.06), v=d.normal(512, 6, scale=0.1),
                s=d.scalar(0.9))


@row(responsive_layer, "h we wh v s", "norm2")
def stn_weight_sqnorm(xp, i):
    e = (i.h @ i.v.mT)[:, :256]
    inner, square = xp.sum(i.we * i.wh, 1), xp.sum(i.wh ** 2, 1)
    return i.s ** 2 * xp.sum(i.we ** 2) + xp.sum(2 * i.s * e * inner + e ** 2 * square, 1)


@row(lambda d: dict(x=d.normal(128, 256), be=d.normal(256), bh=d.normal(256), **responsive_layer(d)), "x h we wh be bh v s", "out")
def stn_hyper_linear(xp, i):
    e = i.h @ i.v.mT
    return i.s * (i.x @ i.we.mT + i.be) + e[:, :256] * (i.x @ i.wh.mT) + e[:, 256:] * i.bh


@row(lambda d: dict(scale=d.normal(4096)), "scale", "entropy")
def stn_entropy(xp, i):
    return xp.sum(xp.log(xp.softplus(i.scale)) + 0.5 * math.log(2 * math.pi * math.e))


# --- heuristics of an ODE's solver, proximal matching --------------------------------------------------------
@row(lambda d: dict(err=d.uniform(512), dt=d.uniform(512), stiff=d.normal(512)), "err stiff", "reg", kind="error_stiff")
def ode_heuristics_regularizer(xp, i):
    return xp.sum(i.err * i.dt + 0.1 * xp.abs(i.stiff) / 3.5068)


@row(lambda d: dict(out=d.normal(64, 3072, scale=0.02), target=d.normal(64, 3072, scale=0.02)), "out target", "loss", gamma=1.0)
def lpn_pm_loss(xp, i):
    return xp.mean(1 - xp.exp(-xp.sum((i.out - i.target) ** 2, 1)))


# --- self-tuning networks, the rest ---------------------------------------------------------------------------
@row(lambda d: dict(x=d.normal(32, 16, 16, 32), h=d.normal(32, 6), we=d.normal(3, 3, 32, 32, scale=0.06), wh=d.normal(3, 3, 32, 32, scale=0.06),
                    be=d.normal(32), bh=d.normal(32), v=d.normal(64, 6, scale=0.1), s=d.scalar(0.9)), "x h we wh be bh v s", "out", pad=1)
def stn_hyper_conv2d(xp, i):
    e = i.h @ i.v.mT
    of_weights, of_bias = e[:, None, None, :32], e[:, None, None, 32:]
    return i.s * (xp.conv(i.x, i.we, 1, 1) + i.be) + of_weights * xp.conv(i.x, i.wh, 1, 1) + of_bias * i.bh


def hyper_parameters(d):
    """A rate in (0,1), a strength above 0, four others of any size."""
    inf = np.inf
    return dict(lam=d.normal(6), scale=d.normal(6), noise=d.normal(256, 6), lo=d.constant(0, 0, -inf, -inf, -inf, 0),
                hi=d.constant(1, inf, inf, inf, 1, 8))


def perturbed(xp, i):
    return i.lam + xp.softplus(i.scale) * i.noise


def constrained(xp, u, lo, hi):
    below, above = xp.isfinite(lo), xp.isfinite(hi)
    low, high = xp.where(below, lo, 0.0), xp.where(above, hi, 0.0)
    both = low + (high - low) * xp.sigmoid(u)
    return xp.where(below, xp.where(above, both, low + xp.softplus(u)), xp.where(above, high - xp.softplus(u), u))


@row(lambda d: dict(discrete=np.array([0, 0, 0, 0, 0, 1], "i4"), shared=np.array([0, 0, 1, 0, 0, 0], "i4"), **hyper_parameters(d)), "lam scale",
     "u value")
def stn_perturb(xp, i):
    u = perturbed(xp, i)
    u = xp.where(i.shared == 1, u[:1], u)
    value = constrained(xp, u, i.lo, i.hi)
    return u, xp.where(i.discrete == 1, xp.stop(xp.floor(value)), value)


def rows_dropped(xp, x, rate, u):
    keep = beside(1 - xp.stop(rate), x)
    return xp.where(u < keep, x / keep, 0.0)


@row(lambda d: dict(x=d.normal(256, 1024), rate=d.uniform(256, high=0.8), u=d.uniform(256, 1024)), "x", "out")
def stn_row_dropout(xp, i):
    return rows_dropped(xp, i.x, i.rate, i.u)


def two_layers(d):
    def layer(k, rows, columns):
        return {"we%d" % k: d.normal(rows, columns, scale=0.05), "wh%d" % k: d.normal(rows, columns, scale=0.05), "be%d" % k: d.normal(rows),
                "bh%d" % k: d.normal(rows), "v%d" % k: d.normal(2 * rows, 6, scale=0.1), "s%d" % k: d.scalar(0.9)}
    return dict(x=d.normal(256, 784), y=d.classes(256, of=10), **layer(1, 256, 784), **layer(2, 10, 256))


def gated(i, k, x, u):
    we, wh, be, bh, v, s = (getattr(i, n + str(k)) for n in "we wh be bh v s".split())
    e, n = u @ v.mT, we.shape[0]
    return s * (x @ we.mT + be) + e[:, :n] * (x @ wh.mT) + e[:, n:] * bh


def square_norm(xp, i, k, u):
    we, wh, v, s = (getattr(i, n + str(k)) for n in "we wh v s".split())
    e = (u @ v.mT)[:, :we.shape[0]]
    return s ** 2 * xp.sum(we ** 2) + xp.sum(2 * s * e * xp.sum(we * wh, 1) + e ** 2 * xp.sum(wh ** 2, 1), 1)


TWO_LAYERS = "we1 wh1 be1 bh1 v1 s1 we2 wh2 be2 bh2 v2 s2"


@row(lambda d: dict(u_drop=d.uniform(256, 256), **hyper_parameters(d), **two_layers(d)), TWO_LAYERS, "loss")
def stn_train_loss(xp, i):
    u = xp.stop(perturbed(xp, i))
    value = constrained(xp, u, i.lo, i.hi)
    z = rows_dropped(xp, xp.relu(gated(i, 1, i.x, u)), value[:, 0], i.u_drop)
    decay = value[:, 1] * (square_norm(xp, i, 1, u) + square_norm(xp, i, 2, u))
    return xp.cross_entropy(gated(i, 2, z, u), i.y) + xp.mean(decay)


@row(lambda d: dict(**hyper_parameters(d), **two_layers(d)), "lam scale", "loss", tolerance=1e-3)
def stn_valid_loss(xp, i):
    u = perturbed(xp, i)
    logits = gated(i, 2, xp.relu(gated(i, 1, i.x, u)), u)
    entropy = xp.sum(xp.log(xp.softplus(i.scale)) + 0.5 * math.log(2 * math.pi * math.e))
    return xp.cross_entropy(logits, i.y) - 1e-3 * entropy


# --- learned proximal networks: two layers of 256 on 784 numbers -----------------------------------------------
def convex_network(d, size=784, hidden=256):
    return dict(l0=d.normal(hidden, size, scale=0.04), w=d.uniform(2, hidden, hidden, high=0.01), r=d.normal(2, hidden, size, scale=0.04),
                b=d.normal(2, hidden, scale=0.1), wo=d.uniform(hidden, high=0.1), ro=d.normal(size, scale=0.1), bo=d.scalar(0.1))


NETWORK = "l0 w r b wo ro"


def potential(xp, i, x):
    z = xp.softplus_of(x @ i.l0.mT, 10.0)
    for k in range(2):
        z = xp.softplus_of(z @ i.w[k].mT + x @ i.r[k].mT + i.b[k], 10.0)
    return z @ i.wo + x @ i.ro + i.bo


def prox(xp, i, x):
    return xp.grad(lambda x: xp.sum(potential(xp, i, x)), x)[0]


def matched(xp, out, clean):
    return xp.mean(1 - xp.exp(-xp.sum((out - clean).reshape((out.shape[0], -1)) ** 2, 1) / 400))


@row(lambda d: dict(x=d.normal(64, 784), **convex_network(d)), "x bo " + NETWORK, "psi prox")
def lpn_prox(xp, i):
    return potential(xp, i, i.x), prox(xp, i, i.x)


@row(lambda d: dict(noisy=d.normal(64, 784, scale=0.5), clean=d.normal(64, 784, scale=0.5), **convex_network(d)), "noisy clean " + NETWORK, "loss",
     gamma=20.0)
def lpn_train_loss(xp, i):
    return matched(xp, prox(xp, i, i.noisy), i.clean)


def convex_filters(d, h=32):
    filters, weights = lambda c: d.normal(3, 3, c, h, scale=0.1), lambda: d.uniform(3, 3, h, h, high=0.01)
    return dict(noisy=d.normal(16, 32, 32, 1, scale=0.5), clean=d.normal(16, 32, 32, 1, scale=0.5), c0=filters(1), c1=weights(), r1=filters(1),
                b1=d.normal(h), c2=weights(), r2=filters(1), b2=d.normal(h), c3=weights(), r3=filters(1), b3=d.normal(h),
                w4=d.uniform(64, h * 64, high=0.01), r4=d.normal(64, 64, scale=0.1), b4=d.normal(64), w5=d.uniform(64))


@row(convex_filters, "noisy clean c0 c1 r1 b1 c2 r2 b2 c3 r3 b3 w4 r4 b4 w5", "loss psi prox", tolerance=1e-3, gamma=20.0)
def lpn_conv_train_loss(xp, i):
    act = lambda v: xp.softplus_of(v, 10.0)

    def psi(x):
        half = xp.mean(x.reshape((16, 16, 2, 16, 2, 1)), (2, 4))
        quarter = xp.mean(x.reshape((16, 8, 4, 8, 4, 1))[:, :, 1:3, :, 1:3], (2, 4))
        z = act(xp.conv(x, i.c0, 1, 1))
        z = act(xp.conv(z, i.c1, 2, 1) + xp.conv(x, i.r1, 2, 1) + i.b1)
        z = act(xp.conv(z, i.c2, 1, 1) + xp.conv(half, i.r2, 1, 1) + i.b2)
        z = act(xp.conv(z, i.c3, 2, 1) + xp.conv(half, i.r3, 2, 1) + i.b3)
        return act(z.reshape((16, -1)) @ i.w4.mT + quarter.reshape((16, -1)) @ i.r4.mT + i.b4) @ i.w5
    out, = xp.grad(lambda x: xp.sum(psi(x)), i.noisy)
    return matched(xp, out, i.clean), psi(i.noisy), out


@row(lambda d: dict(x=d.normal(1, 784), a=d.normal(392, 784, scale=0.03), meas=d.normal(392), **convex_network(d)), "x a " + NETWORK, "x_next",
     eta=0.1)
def lpn_pgd_step(xp, i):
    return prox(xp, i, i.x - 0.1 * (i.x @ i.a.mT - i.meas) @ i.a)


@row(lambda d: dict(z=d.normal(1, 256), u=d.normal(1, 256, scale=0.1), a=d.normal(384, 256, scale=0.05), meas=d.normal(384),
                    **convex_network(d, 256)), "z u a " + NETWORK, "x_next z_next u_next", rho=0.5)
def lpn_admm_step(xp, i):
    a, z, u = xp.f64(i.a), xp.f64(i.z), xp.f64(i.u)
    eye = xp.eye(256)
    x = xp.f32(xp.solve(a.mT @ a + 0.5 * eye, a.mT @ xp.f64(i.meas) + 0.5 * (z - u)[0]))[None]
    z = prox(xp, i, x + i.u)
    return x, z, i.u + x - z


# --- transport ------------------------------------------------------------------------------------------------
STEPS = 50


def transport_value(xp, c, eps):
    """Between equal masses, 50 steps in the logarithms; its gradient is the plan."""
    n, m = c.shape
    rows = -xp.stop(c) / eps
    u = lambda v: -math.log(n) - xp.logsumexp(rows + v[None], 1)
    v = lambda u: -math.log(m) - xp.logsumexp(rows + u[:, None], 0)
    last = xp.repeat(STEPS, lambda a, b: (u(b), v(u(b))), (0 * rows[:, 0], 0 * rows[0]))
    log_plan = last[0][:, None] + last[1][None] + rows
    plan = xp.stop(xp.exp(log_plan))
    return xp.sum(plan * c) + eps * xp.sum(plan * xp.stop(log_plan)), plan


def square_costs(xp, x, y):
    x, y = xp.f64(x), xp.f64(y)
    return xp.sum(x * x, 1)[:, None] + xp.sum(y * y, 1)[None] - 2 * x @ y.mT


@row(lambda d: dict(x=d.normal(256, 8), y=d.normal(256, 8)), "x y", "c", double=True)
def monge_gap_cost(xp, i):
    return xp.f32(square_costs(xp, i.x, i.y))


@row(lambda d: dict(c=d.uniform(256, 256, high=4), a=np.full(256, 1 / 256, "f4"), b=np.full(256, 1 / 256, "f4")), "c", "ent_cost plan", eps=0.5,
     tol=0.0, max_iter=STEPS, tolerance=1e-3, double=True)
def monge_gap_sinkhorn(xp, i):
    value, plan = transport_value(xp, xp.f64(i.c), 0.5)
    return xp.f32(value), xp.f32(plan)


@row(lambda d: dict(x=d.normal(256, 8), y=d.normal(256, 8)), "x y", "gap displacement ent_cost", eps=2.0, tol=0.0, max_iter=STEPS, tolerance=1e-3,
     double=True)
def monge_gap(xp, i):
    x, y = xp.f64(i.x), xp.f64(i.y)
    displacement = xp.mean(xp.sum((x - y) ** 2, 1))
    value, _ = transport_value(xp, square_costs(xp, x, y), 2.0)
    return xp.f32(displacement - value), xp.f32(displacement), xp.f32(value)


@row(lambda d: dict(x=d.normal(256, 8), y=d.normal(256, 8) + 0.5), "x y", "divergence", eps=2.0, tol=0.0, max_iter=STEPS, tolerance=1e-3,
     double=True)
def monge_gap_divergence(xp, i):
    value = lambda x, y: transport_value(xp, square_costs(xp, x, y), 2.0)[0] + 2.0 * 2 * math.log(256)
    return xp.f32(value(i.x, i.y) - 0.5 * (value(i.x, i.x) + value(i.y, i.y)))


def scattered(xp, like, index, value):
    if xp.name == "torch":
        return (0 * xp.stop(like)).scatter(1, index, value)
    return xp.jnp.zeros_like(like).at[xp.arange(like.shape[0])[:, None], index].set(value)


def projected(xp, v, k, z):
    top, index = xp.top_k_of(v, k)
    share = (xp.cumsum(top, 1) - z) / (xp.arange(k) + 1)[None]
    rho = xp.sum(xp.where(top > share, 1, 0), 1)[:, None] - 1
    threshold = xp.take_along(share, rho, 1)
    return scattered(xp, v, index, xp.relu(top - threshold))


@row(lambda d: dict(v=d.normal(512, 256)), "v", "t", k=16, double=True)
def sparse_ot_project(xp, i):
    return xp.f32(projected(xp, xp.f64(i.v), 16, 1.0))


def masses(d):
    a, b = d.uniform(256, low=0.5), d.uniform(256, low=0.5)
    return dict(alpha=d.normal(256, scale=0.1), beta=d.normal(256, scale=0.1), a=a / a.sum(), b=b / b.sum(), cost=d.uniform(256, 256))


def of_sum_1(xp, a):
    a = xp.f64(a)
    return a + xp.stop(a / xp.sum(a) - a)


@row(masses, "alpha beta a b cost", "value plan", k=8, gamma=0.1, double=True)
def sparse_ot_dual(xp, i):
    alpha, beta, cost = xp.f64(i.alpha), xp.f64(i.beta), xp.f64(i.cost).mT
    s = alpha[None] + beta[:, None] - cost
    top, index = xp.top_k_of(s, 8)
    plan = scattered(xp, s, index, xp.relu(top) / 0.1)
    value = xp.sum(alpha * of_sum_1(xp, i.a)) + xp.sum(beta * of_sum_1(xp, i.b)) - 0.05 * xp.sum(plan ** 2)
    return xp.f32(value), xp.f32(plan.mT)


@row(lambda d: {k: v for k, v in masses(d).items() if k != "beta"}, "alpha a b cost", "value plan", k=8, gamma=0.1, double=True)
def sparse_ot_semidual(xp, i):
    alpha, cost = xp.f64(i.alpha), xp.f64(i.cost).mT
    s = alpha[None] - cost
    plan = projected(xp, s / 0.1, 8, of_sum_1(xp, i.b)[:, None])
    value = xp.sum(alpha * of_sum_1(xp, i.a)) - xp.sum(s * plan) + 0.05 * xp.sum(plan ** 2)
    return xp.f32(value), xp.f32(plan.mT)


# --- bilevel descent: logistic regression, 784 numbers, 10 classes ----------------------------------------------
def two_splits(d):
    return dict(x=d.normal(64, 10, scale=0.1), theta=d.normal(64, 10), xt=d.normal(1024, 64), yt=d.classes(1024, of=10), xv=d.normal(512, 64),
                yv=d.classes(512, of=10))


def steepest(xp, x):
    return xp.eigvalsh(x.mT @ x)[-1] / (2 * x.shape[0])


@row(two_splits, "x theta", "h mu lip", problem="logistic", tolerance=1e-3, double=True)
def maid_lower(xp, i):
    x, theta, xt = xp.f64(i.x), xp.f64(i.theta), xp.f64(i.xt)
    decay = xp.exp(theta)
    h = xp.cross_entropy(xt @ x, i.yt) + 0.5 * xp.sum(decay * x ** 2)
    return xp.f32(h), xp.f32(xp.min(decay)), xp.f32(steepest(xp, xt) + xp.max(decay))


@row(lambda d: {k: v for k, v in two_splits(d).items() if k != "theta"}, "x", "g lip", problem="logistic", tolerance=1e-3, double=True)
def maid_upper(xp, i):
    xv = xp.f64(i.xv)
    return xp.f32(xp.cross_entropy(xv @ xp.f64(i.x), i.yv)), xp.f32(steepest(xp, xv))


# --- steps of differential equations: 128 states of 64, a layer of 128 --------------------------------------------
TSIT5 = ((), (0.161,), (-0.008480655492356989, 0.335480655492357), (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
         (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
         (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
         (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774))
TSIT5_TIMES = (0, 0.161, 0.327, 0.9, 0.9800255409045097, 1, 1)
TSIT5_ERROR = (-0.00178001105222577714, -0.0008164344596567469, 0.007880878010261995, -0.1447110071732629, 0.5823571654525552,
               -0.45808210592918697, 0.015151515151515152)


def weighted(weights, k):
    return sum(w * x for w, x in zip(weights, k))


def rms(xp, x):
    return xp.sqrt(xp.mean(x ** 2))


def scaled_error(xp, e, z, next, rtol, atol):
    return rms(xp, e / (atol + rtol * xp.maximum(xp.abs(z), xp.abs(next))))


@row(lambda d: dict(z=d.normal(128, 64), t=d.scalar(0.3), dt=d.scalar(0.1), w1=d.normal(128, 65, scale=0.1), b1=d.normal(128, scale=0.1),
                    w2=d.normal(64, 129, scale=0.1), b2=d.normal(64, scale=0.1)), "z w1 b1 w2 b2", "z_next err err_abs stiff k7", rtol=1e-3, atol=1e-3,
     tolerance=1e-3, double=True)
def ode_heuristics_tsit5_step(xp, i):
    z, dt, w1, b1, w2, b2 = (xp.f64(v) for v in (i.z, i.dt, i.w1, i.b1, i.w2, i.b2))

    def field(z, t):
        inner = xp.tanh(z @ w1[:, :64].mT + (t * w1[:, 64] + b1))
        return xp.tanh(inner @ w2[:, :128].mT + (t * w2[:, 128] + b2))
    k, next = [field(z, xp.f64(i.t))], z
    for s in range(1, 7):
        next = z + dt * weighted(TSIT5[s], k)
        k.append(field(next, xp.f64(i.t) + TSIT5_TIMES[s] * dt))
    e = dt * weighted(TSIT5_ERROR, k)
    way = dt * weighted([b - a for a, b in zip(TSIT5[5] + (0,), TSIT5[6])], k[:6])
    found = next, scaled_error(xp, e, z, next, 1e-3, 1e-3), rms(xp, e), rms(xp, k[6] - k[5]) / rms(xp, way), k[6]
    return tuple(xp.f32(v) for v in found)


SOSRI = dict(
    a0=((), (-0.04199224421316468,), (2.842612915017106, -2.0527723684000727), (4.338237071435815, -2.8895936137439793, 2.3017575594644466)),
    a1=((), (0.26204282091330466,), (0.20903646383505375, -0.1502377115150361),
        (0.05836595312746999, 0.6149440396332373, 0.08535117634046772)),
    b0=((), (-0.21641093549612528,), (1.5336352863679572, 0.26066223492647056), (-1.0536037558179159, 1.7015284721089472, -0.20725685784180017)),
    b1=((), (-0.5119011827621657,), (2.67767339866713, -4.9395031322250995), (0.15580956238299215, 3.2361551006624674, -1.4223118283355949)),
    alpha=(1.140099274172029, -0.6401334255743456, 0.4736296532772559, 0.026404498125060714),
    beta=((-1.8453464565104432, 2.688764531100726, -0.2523866501071323, 0.40896857551684956),
          (0.4969658141589478, -0.5771202869753592, -0.12919702470322217, 0.2093514975196336),
          (2.8453464565104425, -2.688764531100725, 0.2523866501071322, -0.40896857551684945),
          (0.11522663875443433, -0.57877086147738, 0.2857851028163886, 0.17775911990655704)))


@row(lambda d: dict(z=d.normal(128, 64), dw=d.normal(128, 64, scale=0.1), dz=d.normal(128, 64, scale=0.1), dt=d.scalar(0.01),
                    w1=d.normal(128, 64, scale=0.1), b1=d.normal(128, scale=0.1), w2=d.normal(64, 128, scale=0.1), b2=d.normal(64, scale=0.1),
                    wg=d.normal(64, 64, scale=0.05), bg=d.normal(64, scale=0.1)), "z w1 b1 w2 b2 wg bg", "z_next err stiff", tolerance=1e-3)
def ode_heuristics_sri_step(xp, i):
    z, dt, root, u = i.z, i.dt, xp.sqrt(i.dt), SOSRI
    square = i.dw ** 2
    ww, tw, www = (square - dt) / (2 * root), 0.5 * (i.dw + i.dz / math.sqrt(3)), i.dw * (square - 3 * dt) / (6 * dt)
    k, g, way = [], [], []
    for s in range(4):
        way.append(dt * weighted(u["a0"][s], k) + tw * weighted(u["b0"][s], g))
        aside = dt * weighted(u["a1"][s], k) + root * weighted(u["b1"][s], g)
        k.append(xp.tanh((z + way[s]) @ i.w1.mT + i.b1) @ i.w2.mT + i.b2)
        g.append((z + aside) @ i.wg.mT + i.bg)
    beta = [weighted(b, g) for b in u["beta"]]
    highest = tw * beta[2] + www * beta[3]
    next = z + dt * weighted(u["alpha"], k) + highest + i.dw * beta[0] + ww * beta[1]
    e = dt * weighted((1, 1, 1, 1), k) + highest
    return next, scaled_error(xp, e, z, next, 1e-2, 1e-2), rms(xp, k[3] - k[2]) / rms(xp, way[3] - way[2])
