"""One namespace for PyTorch and JAX, so that an equation is written once: `xp.softmax(x)`, `x @ y`,
`x[:, None]`, `x.reshape(..)`, `x.mT` mean the same in both. Each function maps to what a user of that
library would call (its own cross_entropy, attention by matmul and softmax, depthwise convolution).

To add a function: a line in each of the two classes."""
import math


class Torch:
    name = "torch"

    def __init__(self, dtype):
        import numpy
        import torch
        import torch.nn.functional as F
        self.np, self.t, self.F, self.dtype = numpy, torch, F, dtype
        for n in ("exp log log1p expm1 sqrt rsqrt abs sign tanh sigmoid erf cos sin atan atan2 lgamma "
                  "floor round where minimum maximum logsumexp cumsum argsort argmin roll stack isfinite").split():
            setattr(self, n, getattr(torch, n))
        self.eigvalsh, self.eigh, self.solve = torch.linalg.eigvalsh, torch.linalg.eigh, torch.linalg.solve
        self.relu, self.softplus, self.gelu = F.relu, F.softplus, F.gelu
        self.softmax = lambda x, axis=-1: torch.softmax(x, axis)
        self.log_softmax = lambda x, axis=-1: torch.log_softmax(x, axis)

    def array(self, a):
        t = self.t.from_numpy(self.np.asarray(a))
        return t.to(self.dtype) if t.is_floating_point() else t.long()

    def f64(self, x): return x.double()
    def f32(self, x): return x.float() if self.dtype == self.t.float32 else x
    def float(self, x): return x.to(self.dtype)
    def stop(self, x): return x.detach()
    def sum(self, x, axis=None, keepdims=False): return x.sum() if axis is None else x.sum(axis, keepdim=keepdims)
    def mean(self, x, axis=None, keepdims=False): return x.mean() if axis is None else x.mean(axis, keepdim=keepdims)
    def max(self, x, axis=None, keepdims=False): return x.amax() if axis is None else x.amax(axis, keepdim=keepdims)
    def min(self, x, axis=None, keepdims=False): return x.amin() if axis is None else x.amin(axis, keepdim=keepdims)
    def norm(self, x, axis=None): return self.t.linalg.vector_norm(x, dim=axis)
    def clip(self, x, low, high): return self.t.clamp(x, low, high)
    def cross_entropy(self, z, y): return self.F.cross_entropy(z, y)
    def cross_entropy_rows(self, z, y):
        return self.F.cross_entropy(z.reshape(-1, z.shape[-1]), y.reshape(-1), reduction="none").reshape(y.shape)
    def bce(self, z, y): return self.F.binary_cross_entropy_with_logits(z, y, reduction="none")
    def one_hot(self, y, n): return self.F.one_hot(y, n).to(self.dtype)
    def take_along(self, x, i, axis): return self.t.gather(x, axis, i)
    def concat(self, parts, axis): return self.t.cat(parts, axis)
    def permute(self, x, axes): return x.permute(axes)
    def broadcast(self, x, shape): return x.expand(shape)
    def eye(self, n): return self.t.eye(n, dtype=self.dtype)
    def arange(self, n): return self.t.arange(n)
    def top_k(self, x, k): return self.t.topk(x, k).values
    def svdvals(self, x): return self.t.linalg.svdvals(x)
    def leaky_relu(self, x, slope): return self.F.leaky_relu(x, slope)
    def layer_index(self, x, index, axis): return self.t.index_select(x, axis, self.t.as_tensor(index))

    def grad(self, f, *x):
        """Gradients of the scalar f(*x), themselves differentiable."""
        x = [v if v.requires_grad else v.detach().requires_grad_() for v in x]
        return self.t.autograd.grad(f(*x), x, create_graph=True)

    def hessian_products(self, f, x, vectors):
        """H v of the scalar f(x) for each v of vectors [R,..x], by double backward."""
        x = x if x.requires_grad else x.detach().requires_grad_()
        slope, = self.t.autograd.grad(f(x), x, create_graph=True)
        return self.t.autograd.grad(slope, x, vectors, is_grads_batched=True, create_graph=True)[0]

    def softplus_of(self, x, beta): return self.F.softplus(x, beta)
    def top_k_of(self, x, k): return tuple(self.t.topk(x, k))
    def descending(self, x): return self.t.sort(x, descending=True).values
    def layer_norm(self, x, g, b, eps=1e-5): return self.F.layer_norm(x, x.shape[-1:], g, b, eps)
    def add_rows(self, rows, index, x): return self.t.zeros(rows, x.shape[1], dtype=x.dtype).index_add(0, index, x)
    def running_max(self, x, axis): return self.t.cummax(x, axis).values
    def power_spectrum(self, x): return self.t.fft.rfft(x).abs().square()

    def attention(self, q, k, v, causal=False):
        return self.F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    def conv(self, x, w, stride=1, pad=0):
        """NHWC by HWIO."""
        return self.F.conv2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), stride=stride, padding=pad).permute(0, 2, 3, 1)

    def mean_pool(self, x, size, pad):
        return self.F.avg_pool2d(x.permute(0, 3, 1, 2), size, 1, pad).permute(0, 2, 3, 1)

    def resize_aligned(self, x, height, width):
        return self.F.interpolate(x.permute(0, 3, 1, 2), (height, width), mode="bilinear", align_corners=True).permute(0, 2, 3, 1)

    def repeat(self, count, body, carry):
        for _ in range(count):
            carry = body(*carry)
        return carry

    def filter_rows(self, x, kernel):
        """[B,H+k-1,W+k-1,C] by a separable kernel, valid: [B,H,W,C]."""
        k, c = self.t.as_tensor(kernel, dtype=self.dtype), x.shape[-1]
        x = x.permute(0, 3, 1, 2)
        x = self.F.conv2d(x, k.reshape(1, 1, -1, 1).expand(c, 1, -1, 1), groups=c)
        return self.F.conv2d(x, k.reshape(1, 1, 1, -1).expand(c, 1, 1, -1), groups=c).permute(0, 2, 3, 1)


class Jax:
    """double: what is marked f64 is in double precision; users of JAX stay in single where that will do."""
    name = "jax"

    def __init__(self, double=False):
        import jax
        import jax.numpy as jnp
        self.jax, self.jnp, self.double = jax, jnp, double
        for n in ("exp log log1p expm1 sqrt abs sign tanh cos sin floor round where minimum maximum "
                  "cumsum argsort clip arange eye argmin roll stack isfinite").split():
            setattr(self, n, getattr(jnp, n))
        self.eigvalsh, self.eigh, self.solve = jnp.linalg.eigvalsh, jnp.linalg.eigh, jnp.linalg.solve
        self.atan, self.atan2, self.concat = jnp.arctan, jnp.arctan2, jnp.concatenate
        self.lgamma, self.erf, self.rsqrt = jax.scipy.special.gammaln, jax.scipy.special.erf, jax.lax.rsqrt
        self.sigmoid, self.relu, self.softplus = jax.nn.sigmoid, jax.nn.relu, jax.nn.softplus
        self.softmax, self.log_softmax, self.one_hot = jax.nn.softmax, jax.nn.log_softmax, jax.nn.one_hot
        self.stop, self.permute, self.broadcast = jax.lax.stop_gradient, jnp.transpose, jnp.broadcast_to
        self.take_along, self.logsumexp = jnp.take_along_axis, jax.scipy.special.logsumexp
        self.leaky_relu = jax.nn.leaky_relu

    def array(self, a): return self.jnp.asarray(a)
    def sum(self, x, axis=None, keepdims=False): return self.jnp.sum(x, axis, keepdims=keepdims)
    def mean(self, x, axis=None, keepdims=False): return self.jnp.mean(x, axis, keepdims=keepdims)
    def max(self, x, axis=None, keepdims=False): return self.jnp.max(x, axis, keepdims=keepdims)
    def min(self, x, axis=None, keepdims=False): return self.jnp.min(x, axis, keepdims=keepdims)
    def f64(self, x): return x.astype(self.jnp.float64) if self.double else x
    def f32(self, x): return x.astype(self.jnp.float32) if self.double else x
    def float(self, x): return x.astype(self.jnp.float32)
    def gelu(self, x): return self.jax.nn.gelu(x, approximate=False)
    def norm(self, x, axis=None): return self.jnp.linalg.norm(x, axis=axis)
    def cross_entropy_rows(self, z, y):
        return -self.jnp.take_along_axis(self.log_softmax(z, axis=-1), y[..., None], -1)[..., 0]
    def cross_entropy(self, z, y): return self.cross_entropy_rows(z, y).mean()
    def bce(self, z, y): return self.softplus(z) - y * z
    def top_k(self, x, k): return self.jax.lax.top_k(x, k)[0]
    def svdvals(self, x): return self.jnp.linalg.svd(x, full_matrices=False)[1]
    def layer_index(self, x, index, axis): return self.jnp.take(x, self.jnp.asarray(index), axis)
    def grad(self, f, *x): return self.jax.grad(f, argnums=tuple(range(len(x))))(*x)

    def hessian_products(self, f, x, vectors):
        return self.jax.vmap(lambda v: self.jax.jvp(self.jax.grad(f), (x,), (v,))[1])(vectors)

    def softplus_of(self, x, beta): return self.softplus(beta * x) / beta
    def top_k_of(self, x, k): return self.jax.lax.top_k(x, k)
    def descending(self, x): return -self.jnp.sort(-x)
    def add_rows(self, rows, index, x): return self.jnp.zeros((rows, x.shape[1]), x.dtype).at[index].add(x)
    def running_max(self, x, axis): return self.jax.lax.cummax(x, axis)
    def power_spectrum(self, x): return self.jnp.square(self.jnp.abs(self.jnp.fft.rfft(x)))

    def layer_norm(self, x, g, b, eps=1e-5):
        mean = self.jnp.mean(x, -1, keepdims=True)
        away = x - mean
        return away * self.jax.lax.rsqrt(self.jnp.mean(away * away, -1, keepdims=True) + eps) * g + b

    def attention(self, q, k, v, causal=False):
        s = q @ k.mT / math.sqrt(q.shape[-1])
        if causal:
            n = q.shape[-2]
            s = self.jnp.where(self.jnp.arange(n)[None] <= self.jnp.arange(n)[:, None], s, -math.inf)
        return self.softmax(s, axis=-1) @ v

    def conv(self, x, w, stride=1, pad=0):
        return self.jax.lax.conv_general_dilated(x, w, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def mean_pool(self, x, size, pad):
        around = ((0, 0), (pad, pad), (pad, pad), (0, 0))
        return self.jax.lax.reduce_window(x, 0.0, self.jax.lax.add, (1, size, size, 1), (1, 1, 1, 1), around) / size ** 2

    def resize_aligned(self, x, height, width):
        """Two products: jax.image has no aligned corners."""
        def weights(n, m):
            at = self.jnp.arange(m) * ((n - 1) / (m - 1))
            return self.relu(1 - self.jnp.abs(at[:, None] - self.jnp.arange(n)[None]))
        rows, columns = weights(x.shape[1], height), weights(x.shape[2], width)
        return self.jnp.einsum("yh,bhwc,xw->byxc", rows, x, columns)

    def repeat(self, count, body, carry):
        return self.jax.lax.fori_loop(0, count, lambda _, c: tuple(body(*c)), tuple(carry))

    def filter_rows(self, x, kernel):
        k, c = self.jnp.asarray(kernel, self.jnp.float32), x.shape[-1]
        conv = lambda x, shape: self.jax.lax.conv_general_dilated(
            x, self.jnp.broadcast_to(k.reshape(shape), shape[:3] + (c,)), (1, 1), "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=c)
        return conv(conv(x, (len(kernel), 1, 1, 1)), (1, len(kernel), 1, 1))


# --- what several methods share, on either -----------------------------------------------------------
def straight_through(xp, value, through):
    return through + xp.stop(value - through)


def unit_rows(xp, x, eps=1e-12):
    return x / xp.clip(xp.sqrt(xp.sum(x * x, -1, True)), eps, math.inf)


def beside(value, x):
    """[B] as it is multiplied with x [B,..]."""
    return value.reshape((-1,) + (1,) * (x.ndim - 1))


def split_heads(xp, x, heads):
    """[.., T, heads d] -> [.., heads, T, d]"""
    x = x.reshape(tuple(x.shape[:-1]) + (heads, x.shape[-1] // heads))
    n = x.ndim
    return xp.permute(x, tuple(range(n - 3)) + (n - 2, n - 3, n - 1))


def join_heads(xp, x):
    n = x.ndim
    x = xp.permute(x, tuple(range(n - 3)) + (n - 2, n - 3, n - 1))
    return x.reshape(tuple(x.shape[:-2]) + (x.shape[-2] * x.shape[-1],))


# --- rows of the table -------------------------------------------------------------------------------
ROWS = {}


class Draw:
    """Inputs by name, from a fixed seed."""

    def __init__(self, seed):
        import numpy as np
        self.np, self.r = np, np.random.default_rng(seed)

    def normal(self, *shape, scale=1.0): return self.np.array(scale * self.r.normal(size=shape), "f4")
    def uniform(self, *shape, low=0.0, high=1.0): return self.r.uniform(low, high, size=shape).astype("f4")
    def classes(self, *shape, of): return self.r.integers(0, of, shape).astype("i4")
    def distinct(self, n, of): return self.r.permutation(of)[:n].astype("i4")
    def constant(self, *values): return self.np.array(values, "f4")
    def scalar(self, value): return self.np.array(value, "f4")

    def distributions(self, *shape):
        e = self.np.exp(self.r.normal(size=shape))
        return (e / e.sum(-1, keepdims=True)).astype("f4")


def row(inputs, diff, out, tolerance=2e-4, single=False, double=False, of=None, **options):
    """The equations of a contract function, under its name: f(xp, i) gives the outputs in `out`, i has
    the inputs that inputs(Draw) makes, `diff` are those with gradients. A single scalar output is
    differentiated itself, arrays with fixed cotangents. `single`: the values that count are those of
    single precision, because the function rounds to codes; else the peers and Ballast are compared
    with PyTorch in double. `double`: the paper's method is defined in double precision, which JAX then
    computes in as well. `of`: the contract function, where these are its equations in another form."""
    def add(f):
        ROWS[f.__name__] = dict(f=f, function=of or f.__name__, family=f.__module__.rsplit(".", 1)[-1], inputs=inputs, diff=diff.split(),
                                out=out.split(), options=options, tolerance=tolerance, single=single, double=double)
        return f
    return add
