/* Derivatives: every differentiable primitive and composite against central differences in f64, in
 * first and second order, and the edges where a careless rule gives NaN.
 *
 * Every primitive on every shape and dtype is in test_primitives.c; here are expressions of them.
 * To cover one more composite add a row to COMPOSITES. */
#include "support.h"

/* --- central differences -----------------------------------------------------------------------
 */

#define S(...) BL_SHAPE(__VA_ARGS__)
#define F(...) ((bl_conv_options){__VA_ARGS__})

/* An i32 constant. */
static bl_tensor indices(bl_tensor like, bl_shape shape, const double *values)
{
    bl_array a = array_of((bl_type){BL_I32, shape}, values);
    bl_tensor constant = bl_constant(like.graph, &a);
    bl_array_free(&a);
    return constant;
}

static bl_tensor largest(bl_tensor x, int64_t k)
{
    bl_tensor value;
    bl_top_k(x, k, &value, NULL);
    return value;
}

/* 1, 2, 3, .. on the diagonal: keeps eigenvalues and singular values apart. */
static bl_tensor ladder(bl_graph *g, int64_t rows, int64_t columns)
{
    bl_shape shape = S(rows, columns);
    bl_tensor row = bl_iota(g, BL_I32, shape, 0), column = bl_iota(g, BL_I32, shape, 1);
    return bl_select(bl_eq(row, column), bl_add(bl_cast(row, BL_F64), 1), 0);
}

/* a a^T + diagonal, symmetric and positive definite. */
static bl_tensor definite(bl_tensor a)
{
    bl_tensor square = bl_dot(a, a, false, true);
    return bl_add(square, ladder(a.graph, bl_dim(a, -2), bl_dim(a, -2)));
}

/* Something of every eigenvalue and every component of every eigenvector. */
static bl_tensor eigen_mixture(bl_tensor x)
{
    bl_tensor w, v;
    bl_eigh(x, &w, &v);
    return bl_add(bl_mul(bl_exp(v), bl_expand(w, -2)), bl_expand(bl_mul(w, w), -1));
}

static bl_tensor singular_mixture(bl_tensor x)
{
    bl_tensor u, s, v;
    bl_svd(x, &u, &s, &v);
    bl_tensor both = bl_dot(bl_mul(bl_exp(u), bl_expand(s, -2)), bl_sin(v), false, true);
    return bl_add(both, bl_expand(bl_sum_keep(bl_mul(s, s), -1), -1));
}

/* h <- tanh(w h + x[t]) + x[t] h, giving w exp(h); w, of which h begins as a multiple, is captured.
 */
static void recur(BL_UNUSED bl_graph *g, const bl_tensor *carry, const bl_tensor *x,
                  bl_tensor *carry_next, bl_tensor *y, void *context)
{
    bl_tensor w = *(const bl_tensor *)context;
    bl_tensor next = bl_add(bl_tanh(bl_add(bl_mul(w, carry[0]), x[0])), bl_mul(x[0], carry[0]));
    carry_next[0] = next;
    y[0] = bl_mul(w, bl_exp(next));
}

static bl_tensor recurrence(bl_tensor w, bl_tensor x)
{
    bl_tensor h = bl_mul(0.5, w), last, y;
    bl_scan(w.graph, bl_dim(x, 0), recur, &w, &h, 1, &x, 1, &last, &y, 1);
    return bl_add(bl_mul(last, last), y);
}

static void cube_slope(BL_UNUSED bl_graph *g, const bl_tensor *in, BL_UNUSED const bl_tensor *out,
                       const bl_tensor *cotangent, bl_tensor *slope, BL_UNUSED void *context)
{
    slope[0] = bl_mul(cotangent[0], bl_mul(3, bl_mul(in[0], in[0])));
}

static bl_tensor cubed_by_hand(bl_tensor x)
{
    bl_tensor cube = bl_stop_gradient(bl_mul(x, bl_mul(x, x))), result;
    bl_override_gradient(&cube, 1, &x, 1, cube_slope, NULL, &result);
    return result;
}

/* X(name, low, high, shapes of the inputs a, b, c; expression). The inputs are drawn from
 * low..high, away from the kinks, since a central difference across one is not the derivative. */
#define CASES(X)                                                                                   \
    X(neg, -2, 2, (S(3)), bl_neg(a))                                                               \
    X(abs, 0.1, 2, (S(3)), bl_mul(bl_abs(bl_sub(a, 3)), a))                                        \
    X(sign, 0.1, 2, (S(3)), bl_mul(bl_sign(a), a))                                                 \
    X(exp, -2, 2, (S(3)), bl_exp(a))                                                               \
    X(expm1, -2, 2, (S(3)), bl_expm1(a))                                                           \
    X(log, 0.2, 2, (S(3)), bl_log(a))                                                              \
    X(log1p, -0.8, 2, (S(3)), bl_log1p(a))                                                         \
    X(sqrt, 0.2, 2, (S(3)), bl_sqrt(a))                                                            \
    X(rsqrt, 0.2, 2, (S(3)), bl_rsqrt(a))                                                          \
    X(sin, -2, 2, (S(3)), bl_sin(a))                                                               \
    X(cos, -2, 2, (S(3)), bl_cos(a))                                                               \
    X(tanh, -2, 2, (S(3)), bl_tanh(a))                                                             \
    X(atan, -2, 2, (S(3)), bl_atan(a))                                                             \
    X(sigmoid, -2, 2, (S(3)), bl_sigmoid(a))                                                       \
    X(erf, -2, 2, (S(3)), bl_erf(a))                                                               \
    X(floor, 0.1, 0.9, (S(3)), bl_mul(bl_floor(bl_add(a, 2)), a))                                  \
    X(round, 0.6, 1.4, (S(3)), bl_mul(bl_round(a), a))                                             \
    X(isfinite, -1, 1, (S(3)), bl_select(bl_isfinite(a), bl_mul(a, a), 0))                         \
    X(not, -1, 1, (S(3)), bl_select(bl_not(bl_isfinite(a)), 0, bl_mul(a, a)))                      \
    X(lgamma, 0.3, 3, (S(3)), bl_lgamma(a))                                                        \
    X(lgamma_negative, -0.8, -0.2, (S(3)), bl_lgamma(a))                                           \
    X(cast, -2, 2, (S(3)), bl_cast(bl_cast(bl_exp(a), BL_F64), BL_F64))                            \
    X(add, -2, 2, (S(2, 3), S(3)), bl_exp(bl_add(a, b)))                                           \
    X(sub, -2, 2, (S(2, 1), S(1, 3)), bl_exp(bl_sub(a, b)))                                        \
    X(mul, -2, 2, (S(2, 3), S(3)), bl_mul(a, b))                                                   \
    X(div, 0.3, 2, (S(2, 3), S(2, 1)), bl_div(a, b))                                               \
    X(pow, 0.3, 2, (S(3), S(3)), bl_pow(a, b))                                                     \
    X(pow_number, -2, -0.3, (S(3)), bl_pow(a, 3))                                                  \
    X(atan2, 0.3, 2, (S(3), S(3)), bl_atan2(a, bl_neg(b)))                                         \
    X(max, 0.1, 1, (S(3), S(3)), bl_max(bl_mul(a, a), bl_add(b, 0.5)))                             \
    X(min, 0.1, 1, (S(3), S(3)), bl_min(bl_mul(a, a), bl_add(b, 0.5)))                             \
    X(rem, 0.1, 0.9, (S(3), S(3)), bl_rem(bl_add(bl_mul(2, bl_add(b, 3)), a), bl_add(b, 3)))       \
    X(select, -1, 1, (S(3), S(3)), bl_select(bl_lt(bl_iota(g, BL_F64, S(3), 0), 2), bl_exp(a), b)) \
    X(clamp, 0.1, 0.9, (S(3)), bl_clamp(bl_mul(a, a), -1, 2))                                      \
    X(reshape, -1, 1, (S(2, 3)), bl_mul(bl_reshape(a, S(3, 2)), bl_reshape(a, S(3, 2))))           \
    X(broadcast, -1, 1, (S(2, 1)), bl_exp(bl_broadcast(a, S(4, 2, 3))))                            \
    X(transpose, -1, 1, (S(2, 3, 2)), bl_exp(bl_transpose(a, 2, 0, 1)))                            \
    X(slice, -1, 1, (S(7, 2)), bl_exp(bl_slice(a, S(1, 0), S(6, 1), S(3, 1))))                     \
    X(slice_empty, -1, 1, (S(4)), bl_concat((bl_tensor[]){bl_slice_axis(a, 0, 2, 2), a}, 2, 0))    \
    X(pad, -1, 1, (S(2, 3)), bl_exp(bl_pad(a, S(1, 0), S(0, 2), 0.5)))                             \
    X(concat, -1, 1, (S(2, 3), S(2, 1)), bl_exp(bl_concat((bl_tensor[]){a, b, a, a}, 4, 1)))       \
    X(reverse, -1, 1, (S(2, 3)), bl_mul(bl_reverse(a, 1), a))                                      \
    X(take, -1, 1, (S(3, 2)), bl_exp(bl_take(a, indices(a, S(4), VALUES(2, 0, 2, 1)))))            \
    X(add_at, -1, 1, (S(3, 2), S(4, 2)),                                                           \
      bl_exp(bl_add_at(a, indices(a, S(4), VALUES(2, 0, 2, 1)), b)))                               \
    X(put, -1, 1, (S(3, 2), S(2, 2)), bl_exp(bl_put(a, indices(a, S(2), VALUES(2, 0)), b)))        \
    X(take_along, -1, 1, (S(2, 3)),                                                                \
      bl_exp(bl_take_along(a, indices(a, S(2, 4), VALUES(2, 0, 2, 1, 0, 0, 1, 2)), 1)))            \
    X(take_along_one, -1, 1, (S(2, 3)),                                                            \
      bl_exp(bl_take_along(a, indices(a, S(2, 1), VALUES(2, 0)), 1)))                              \
    X(add_along, -1, 1, (S(2, 3), S(2, 4)),                                                        \
      bl_exp(bl_add_along(a, indices(a, S(2, 4), VALUES(2, 0, 2, 1, 0, 0, 1, 2)), b, 1)))          \
    X(sort, -1, 1, (S(2, 5)), bl_exp(bl_take_along(a, bl_argsort(a, 1, true), 1)))                 \
    X(sum, -1, 1, (S(2, 3, 2)), bl_exp(bl_sum(a, 0, 2)))                                           \
    X(reduce_max, -1, 1, (S(2, 3)), bl_exp(bl_reduce_max(a, 1)))                                   \
    X(reduce_max_two, -1, 1, (S(2, 3, 2)), bl_exp(bl_reduce_max_keep(a, 0, 2)))                    \
    X(reduce_max_all, -1, 1, (S(2, 3)), bl_exp(bl_reduce_max(a)))                                  \
    X(reduce_min, -1, 1, (S(2, 3, 2)), bl_exp(bl_reduce_min(a, 1, 2)))                             \
    X(prod, -1, 1, (S(2, 5)), bl_prod(a, 1))                                                       \
    X(prod_two, -1, 1, (S(2, 3, 2)), bl_prod(a, 0, 2))                                             \
    X(argmax, -1, 1, (S(3)), bl_mul(bl_cast(bl_argmax(a, 0), BL_F64), a))                          \
    X(argmin, -1, 1, (S(3)), bl_mul(bl_cast(bl_argmin(a, 0), BL_F64), a))                          \
    X(cumsum, -1, 1, (S(2, 4)), bl_exp(bl_cumsum(a, 1)))                                           \
    X(dot_nn, -1, 1, (S(2, 3, 4), S(2, 4, 2)), bl_dot(a, b, false, false))                         \
    X(dot_tn, -1, 1, (S(4, 3), S(4, 2)), bl_dot(a, b, true, false))                                \
    X(dot_nt, -1, 1, (S(3, 4), S(2, 4)), bl_dot(a, b, false, true))                                \
    X(dot_tt, -1, 1, (S(2, 4, 3), S(2, 2, 4)), bl_dot(a, b, true, true))                           \
    X(matmul_rows, -1, 1, (S(2, 2, 3), S(3, 2)), bl_matmul(a, b))                                  \
    X(matmul_batch, -1, 1, (S(3, 1, 2, 2), S(2, 2, 3)), bl_matmul(a, b))                           \
    X(matmul_vectors, -1, 1, (S(3), S(3)), bl_matmul(a, b))                                        \
    X(conv, -1, 1, (S(2, 5, 4, 2), S(3, 2, 2, 3)),                                                 \
      bl_conv(a, b, F(.stride = {2, 1}, .low = {1, 0}, .high = {0, 1}, .dilation = {1, 2})))       \
    X(conv_groups, -1, 1, (S(1, 4, 4, 4), S(2, 2, 2, 2)),                                          \
      bl_conv(a, b, F(.groups = 2, .stride = {3, 3})))                                             \
    X(conv_dx, -1, 1, (S(2, 2, 2, 3), S(2, 3, 2, 3)),                                              \
      bl_conv_dx(a, b, S(2, 4, 4, 2), F(.stride = {2, 2}, .high = {0, 1})))                        \
    X(conv_dw, -1, 1, (S(2, 4, 4, 2), S(2, 2, 2, 3)),                                              \
      bl_conv_dw(a, b, S(2, 3, 2, 3), F(.stride = {2, 2}, .high = {0, 1})))                        \
    X(patches, -1, 1, (S(2, 5, 4, 2)),                                                             \
      bl_exp(bl_patches(a, 3, 2,                                                                   \
                        F(.stride = {2, 1}, .low = {1, 0}, .high = {0, 1}, .dilation = {1, 2}))))  \
    X(fold, -1, 1, (S(2, 2, 3, 2, 2, 2)),                                                          \
      bl_exp(bl_fold(a, S(2, 3, 4, 2), F(.stride = {2, 1}, .high = {1, 0}))))                      \
    X(scan, -1, 1, (S(3), S(4, 3)), recurrence(a, b))                                              \
    X(override_gradient, -1, 1, (S(3)), cubed_by_hand(a))                                          \
    X(cholesky, -1, 1, (S(2, 3, 3)), bl_exp(bl_cholesky(definite(a))))                             \
    X(solve, 0.5, 1, (S(2, 3, 3), S(2, 3, 2)), bl_exp(bl_triangular_solve(a, b, false, false)))    \
    X(solve_transposed, 0.5, 1, (S(3, 3), S(3, 2)), bl_triangular_solve(a, b, false, true))        \
    X(solve_right, 0.5, 1, (S(3, 3), S(2, 3)), bl_triangular_solve(a, b, true, false))             \
    X(solve_right_transposed, 0.5, 1, (S(3, 3), S(2, 3)), bl_triangular_solve(a, b, true, true))   \
    X(eigh, -0.4, 0.4, (S(2, 3, 3)), eigen_mixture(bl_add(a, ladder(g, 3, 3))))                    \
    X(svd_tall, -0.4, 0.4, (S(2, 4, 2)), singular_mixture(bl_add(a, ladder(g, 4, 2))))             \
    X(svd_wide, -0.4, 0.4, (S(2, 3)), singular_mixture(bl_add(a, ladder(g, 2, 3))))                \
    X(svd_square, -0.4, 0.4, (S(3, 3)), singular_mixture(bl_add(a, ladder(g, 3, 3))))              \
    COMPOSITES(X)

#define COMPOSITES(X)                                                                              \
    X(relu, -1, 1, (S(4)), bl_relu(a))                                                             \
    X(gelu, -2, 2, (S(4)), bl_gelu(a))                                                             \
    X(gelu_exact, -2, 2, (S(4)), bl_gelu_exact(a))                                                 \
    X(softplus, -2, 2, (S(4)), bl_softplus(a))                                                     \
    X(softmax, -2, 2, (S(3, 2)), bl_softmax(a, 0))                                                 \
    X(log_softmax, -2, 2, (S(2, 3)), bl_log_softmax(a, -1))                                        \
    X(logsumexp, -2, 2, (S(2, 3)), bl_logsumexp(a, 1))                                             \
    X(masked_logsumexp, -2, 2, (S(2, 3)),                                                          \
      bl_masked_logsumexp(a, bl_lt(bl_iota(g, BL_I32, S(2, 3), 1), 2), 1))                         \
    X(cross_entropy, -2, 2, (S(2, 3)), bl_cross_entropy(a, indices(a, S(2), VALUES(2, 0))))        \
    X(soft_cross_entropy, 0.1, 1, (S(2, 3), S(2, 3)), bl_soft_cross_entropy(a, b))                 \
    X(binary_cross_entropy, 0.1, 2, (S(2, 3), S(2, 3)), bl_binary_cross_entropy(a, b))             \
    X(kl_divergence, -2, -0.1, (S(2, 3), S(2, 3)), bl_kl_divergence(a, b, 1))                      \
    X(mean, -1, 1, (S(2, 3)), bl_exp(bl_mean_keep(a, 1)))                                          \
    X(variance, -1, 1, (S(2, 3)), bl_variance(a, 1))                                               \
    X(norm, 0.2, 1, (S(2, 3)), bl_norm(a, 0))                                                      \
    X(unit_rows, 0.2, 1, (S(2, 3)), bl_unit_rows(a, 0.1))                                          \
    X(global_norm, 0.2, 1, (S(2, 3), S(4)), bl_global_norm((bl_tensor[]){a, b}, 2))                \
    X(max_pool2, -1, 1, (S(1, 4, 4, 2)), bl_exp(bl_max_pool2(a)))                                  \
    X(max_pool, -1, 1, (S(1, 5, 4, 2)),                                                            \
      bl_exp(bl_max_pool(a, 3, 2, F(.stride = {2, 1}, .low = {1, 1}, .high = {1, 0}))))            \
    X(mean_pool, -1, 1, (S(1, 5, 4, 2)), bl_exp(bl_mean_pool(a, 3, 2, F(.stride = {2, 2}))))       \
    X(conv_transpose, -1, 1, (S(2, 2, 3, 4), S(3, 2, 1, 4)),                                       \
      bl_conv_transpose(a, b, F(.stride = {2, 1}, .low = {1, 0}, .groups = 2)))                    \
    X(resize_bilinear, -1, 1, (S(1, 3, 4, 2)), bl_exp(bl_resize_bilinear(a, 5, 2)))                \
    X(layer_normalize, -1, 1, (S(2, 3), S(3)), bl_layer_normalize(a, b, 0.5, 1e-5))                \
    X(group_normalize, -1, 1, (S(2, 2, 4), S(4)), bl_group_normalize(a, 2, b, b, 1e-5))            \
    X(instance_normalize, -1, 1, (S(2, 3, 2)), bl_exp(bl_instance_normalize(a, 1, 0, 1e-5)))       \
    X(attention, -1, 1, (S(2, 3, 2), S(2, 2, 2)), bl_attention(a, b, bl_exp(b), 1))                \
    X(attention_masked, -1, 1, (S(2, 3, 2), S(2, 2, 2)),                                           \
      bl_attention(a, b, b,                                                                        \
                   bl_le(bl_iota(g, BL_I32, S(3, 2), 1), bl_iota(g, BL_I32, S(3, 2), 0))))         \
    X(sorted, -1, 1, (S(2, 5)), bl_exp(bl_sort(a, 1, false)))                                      \
    X(top_k, -1, 1, (S(2, 5)), bl_exp(largest(a, 2)))

#define LIST(...) __VA_ARGS__
#define X(name, low, high, shapes, expression)                                                     \
    static bl_tensor build_##name(BL_UNUSED bl_graph *g, BL_UNUSED bl_tensor a,                    \
                                  BL_UNUSED bl_tensor b)                                           \
    {                                                                                              \
        return expression;                                                                         \
    }
CASES(X)
#undef X

typedef struct gradient_case {
    const char *name;
    bl_tensor (*build)(bl_graph *g, bl_tensor a, bl_tensor b);
    double low, high;
    bl_shape shape[2]; /* the second of rank 0 where there is one input: no case takes a scalar b */
} gradient_case;

static const gradient_case cases[] = {
#define X(name, low, high, shapes, expression) {#name, build_##name, low, high, {LIST shapes}},
    CASES(X)
#undef X
};

/* The outputs of a case's program: a scalar of y, a scalar of its gradient, and the gradients of
 * both. */
enum { VALUE, SLOPE, FIRST, SECOND = FIRST + 2, OUTPUTS = SECOND + 2 };

static void draw(bl_random *random, bl_array *a, double low, double high)
{
    for (int64_t i = 0; i < bl_array_count(a); i++)
        bl_array_set(a, i, low + (high - low) * bl_random_unit(random));
}

/* The sum of t weighted by fixed numbers between 0.5 and 1.5, so that no term can hide. */
static bl_tensor weighted(bl_tensor t)
{
    bl_type type = bl_type_of(t);
    bl_random random = bl_random_new(bl_key_from_seed(7));
    bl_array a;
    expect_ok(bl_array_new(type.dtype, type.shape, &a));
    draw(&random, &a, 0.5, 1.5);
    bl_tensor sum = bl_sum(bl_mul(t, bl_constant(t.graph, &a)));
    bl_array_free(&a);
    return sum;
}

typedef struct checked_case {
    const gradient_case *c;
    int inputs;
    bl_program *program;
    bl_array in[2], out[OUTPUTS];
} checked_case;

static void compile_case(checked_case *k, bl_graph *g)
{
    bl_tensor x[2] = {bl_number(0), bl_number(0)}, y[OUTPUTS];
    for (int i = 0; i < k->inputs; i++)
        x[i] = bl_input(g, "x", BL_F64, k->c->shape[i]);
    y[VALUE] = weighted(k->c->build(g, x[0], x[1]));
    bl_grad(y[VALUE], x, 2, &y[FIRST]);
    y[SLOPE] = weighted(y[FIRST]);
    if (k->inputs == 2)
        y[SLOPE] = bl_add(y[SLOPE], weighted(y[FIRST + 1]));
    bl_grad(y[SLOPE], x, 2, &y[SECOND]);
    if (k->inputs == 1)
        y[FIRST + 1] = y[SECOND + 1] = y[VALUE];
    expect_ok(bl_graph_status(g));
    expect_ok(bl_compile(bl_device_reference(), x, k->inputs, y, OUTPUTS, NULL, &k->program));
    for (int o = 0; o < OUTPUTS; o++)
        expect_ok(bl_array_new(BL_F64, bl_type_of(y[o]).shape, &k->out[o]));
}

static void expect_slope(const checked_case *k, int order, double got, double expected, int64_t at)
{
    if (!close_to(got, expected, 2e-6))
        fail_msg("%s: derivative %d at element %lld is %.10g, central difference %.10g", k->c->name,
                 order, (long long)at, got, expected);
}

/* Moves one element of one input by +-h and compares both derivatives. */
static void difference(checked_case *k, int i, int64_t at)
{
    const double h = 1e-5;
    double x = bl_array_get(&k->in[i], at), value[2], slope[2];
    expect_ok(bl_run(k->program, k->in, k->out));
    double first = bl_array_get(&k->out[FIRST + i], at);
    double second = bl_array_get(&k->out[SECOND + i], at);
    for (int side = 0; side < 2; side++) {
        bl_array_set(&k->in[i], at, side ? x + h : x - h);
        expect_ok(bl_run(k->program, k->in, k->out));
        value[side] = bl_array_get(&k->out[VALUE], 0);
        slope[side] = bl_array_get(&k->out[SLOPE], 0);
    }
    bl_array_set(&k->in[i], at, x);
    expect_slope(k, 1, first, (value[1] - value[0]) / (2 * h), at);
    expect_slope(k, 2, second, (slope[1] - slope[0]) / (2 * h), at);
}

static void check_case(const gradient_case *c)
{
    bl_graph *g = bl_graph_new();
    checked_case k = {.c = c, .inputs = c->shape[1].rank ? 2 : 1};
    bl_random random = bl_random_new(bl_key_from_seed(11));
    compile_case(&k, g);
    for (int i = 0; i < k.inputs; i++) {
        expect_ok(bl_array_new(BL_F64, c->shape[i], &k.in[i]));
        draw(&random, &k.in[i], c->low, c->high);
    }
    for (int i = 0; i < k.inputs; i++)
        for (int64_t at = 0; at < bl_array_count(&k.in[i]); at++)
            difference(&k, i, at);
    for (int i = 0; i < 2; i++)
        bl_array_free(&k.in[i]);
    for (int o = 0; o < OUTPUTS; o++)
        bl_array_free(&k.out[o]);
    bl_program_free(k.program);
    bl_graph_free(g);
}

static void every_rule_agrees_with_central_differences(void **state)
{
    (void)state;
    for (int i = 0; i < COUNT_OF(cases); i++)
        check_case(&cases[i]);
}

/* --- edges: zero, never NaN, where the value is finite ------------------------------------------
 */

static void masked_square_root_at_zero(void **state)
{
    bl_tensor x = input(state, BL_F64, 3);
    bl_tensor y = bl_sum(bl_max(bl_sqrt(x), 1e-10));
    expect_gradient(y, x, VALUES(0, 0.25, 4), VALUES(0, 1, 0.25));
}

static void hessian_at_a_zero_residual(void **state) /* f'' = 1 / (4 x^1.5) */
{
    bl_tensor x = input(state, BL_F64, 1), r = bl_sub(bl_sqrt(x), 1);
    bl_tensor slope = gradient(bl_mul(0.5, bl_sum(bl_mul(r, r))), x);
    expect_gradient(bl_sum(slope), x, VALUES(1), VALUES(0.25));
}

static const double extreme[] = {0,      1,      -1,      2,     -2,     0.5,   -0.5,
                                 1e-300, 5e-324, -1e-300, 1e300, -1e300, 1e308, -1e308};
enum { EXTREMES = COUNT_OF(extreme) };

/* The gradients of y[n,n] in a and b, rows and columns of `extreme`, where nothing reads y. */
static void expect_zero_gradients(const char *name, bl_tensor y, bl_tensor a, bl_tensor b)
{
    bl_tensor c = bl_input(y.graph, "cotangent", BL_F64, S(EXTREMES, EXTREMES));
    double zero[EXTREMES * EXTREMES] = {0};
    bl_tensor x[3] = {a, b, c}, dx[2];
    const double *values[3] = {extreme, extreme, zero};
    bl_vjp(&y, &c, 1, x, 2, dx);
    for (int i = 0; i < 2; i++) {
        bl_array got = evaluate(dx[i], x, values, 3);
        for (int j = 0; j < EXTREMES; j++)
            if (bl_array_get(&got, j) != 0)
                fail_msg("%s: the derivative in operand %d at %g is %g", name, i, extreme[j],
                         bl_array_get(&got, j));
        bl_array_free(&got);
    }
}

static void a_zero_cotangent_gives_zero_at_any_finite_operands(void **state)
{
    bl_tensor a = input(state, BL_F64, EXTREMES, 1), b = input(state, BL_F64, EXTREMES);
    bl_tensor both = bl_add(bl_mul(a, 0), b);
#define X(name) expect_zero_gradients(#name, bl_##name(both), a, b);
    X(neg)
    X(abs)
    X(sign)
    X(exp)
    X(expm1)
    X(log) X(log1p) X(sqrt) X(rsqrt) X(sin) X(cos) X(tanh) X(atan) X(sigmoid) X(erf) X(floor)
        X(round) X(lgamma) X(digamma)
#undef X
#define X(name) expect_zero_gradients(#name, bl_##name(a, b), a, b);
            X(add) X(sub) X(mul) X(div) X(pow) X(atan2) X(max) X(min) X(rem)
#undef X
                expect_zero_gradients("clamp", bl_clamp(a, -1, b), a, b);
}

static void slopes_at_kinks(void **state)
{
    bl_tensor x = input(state, BL_F64, 3);
    expect_gradient(bl_sum(bl_relu(x)), x, VALUES(-1, 0, 1), VALUES(0, 0, 1));
    expect_gradient(bl_sum(bl_abs(x)), x, VALUES(-1, 0, 1), VALUES(-1, 0, 1));
    expect_gradient(bl_sum(bl_softplus(x)), x, VALUES(-1e3, 0, 1e3), VALUES(0, 0.5, 1));
    expect_gradient(bl_sum(bl_clamp(x, -1, 1)), x, VALUES(-1, 0.5, 1.5), VALUES(1, 1, 0));
}

static void a_tie_gives_the_gradient_to_the_first(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 2);
    bl_tensor twice = bl_mul(2, x), half = bl_mul(0.5, bl_mul(4, x));
    expect_gradient(bl_sum(bl_max(twice, bl_stop_gradient(half))), x, VALUES(0, 1, 2, 3),
                    VALUES(2, 2, 2, 2));
    expect_gradient(bl_sum(bl_min(bl_stop_gradient(half), twice)), x, VALUES(0, 1, 2, 3),
                    VALUES(0, 0, 0, 0));
    expect_gradient(bl_reduce_max(x), x, VALUES(1, 5, 5, 5), VALUES(0, 1, 0, 0));
    expect_gradient(bl_sum(bl_reduce_max(x, 0)), x, VALUES(1, 5, 1, 5), VALUES(1, 1, 0, 0));
    expect_gradient(bl_sum(bl_reduce_min(x, 1)), x, VALUES(1, 1, 3, 2), VALUES(1, 0, 0, 1));
}

static void poles_have_gradient_zero(void **state)
{
    bl_tensor x = input(state, BL_F64, 2), big = bl_gt(x, 0.5);
    bl_tensor functions[] = {bl_log(x),     bl_rsqrt(x),    bl_div(1, x),
                             bl_pow(x, -2), bl_pow(x, 0.5), bl_log1p(bl_sub(x, 1)),
                             bl_lgamma(x),  bl_digamma(x),  bl_div(x, x)};
    const double slopes[] = {1, -0.5, -1, -2, 0.5, 1, -0.57721566490153286, 1.6449340668482264, 0};
    for (int i = 0; i < COUNT_OF(functions); i++) {
        bl_tensor masked = bl_sum(bl_select(big, functions[i], 0)); /* finite at 0 */
        expect_gradient(masked, x, VALUES(0, 1), VALUES(0, slopes[i]));
    }
}

static void overflow_that_is_masked_has_gradient_zero(void **state)
{
    bl_tensor x = input(state, BL_F64, 2), small = bl_lt(x, 100);
    expect_gradient(bl_sum(bl_select(small, bl_exp(x), 0)), x, VALUES(0, 1e4), VALUES(1, 0));
    expect_gradient(bl_sum(bl_select(small, bl_expm1(x), 0)), x, VALUES(0, 1e4), VALUES(1, 0));
    expect_gradient(bl_sum(bl_select(small, bl_pow(x, 200), 0)), x, VALUES(1, 1e4), VALUES(200, 0));
}

static void powers_at_zero(void **state)
{
    bl_tensor x = input(state, BL_F64, 2);
    expect_gradient(bl_sum(bl_pow(x, 2)), x, VALUES(0, 3), VALUES(0, 6));
    expect_gradient(bl_sum(bl_pow(x, 1)), x, VALUES(0, 3), VALUES(1, 1));
    expect_gradient(bl_sum(bl_pow(x, 0)), x, VALUES(0, 3), VALUES(0, 0));
    expect_gradient(bl_sum(gradient(bl_sum(bl_pow(x, 2)), x)), x, VALUES(0, 3), VALUES(2, 2));
    expect_gradient(bl_sum(bl_pow(2, x)), x, VALUES(0, 1),
                    VALUES(0.69314718055994531, 1.3862943611198906));
    expect_gradient(bl_sum(bl_pow(0, x)), x, VALUES(0, 1), VALUES(0, 0));
}

static void angle_at_the_origin(void **state)
{
    bl_tensor x = input(state, BL_F64, 2);
    expect_gradient(bl_sum(bl_atan2(x, 0)), x, VALUES(0, 2), VALUES(0, 0));
    expect_gradient(bl_sum(bl_atan2(0, x)), x, VALUES(0, 2), VALUES(0, 0));
    expect_gradient(bl_sum(bl_atan2(x, 2)), x, VALUES(0, 2), VALUES(0.5, 0.25));
}

static void products_with_zeros(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 3);
    expect_gradient(bl_sum(bl_prod(x, 1)), x, VALUES(2, 0, 3, 0, 5, 0), VALUES(0, 6, 0, 0, 0, 0));
    expect_gradient(bl_prod(x), x, VALUES(2, 1, 3, 0, 5, 1), VALUES(0, 0, 0, 30, 0, 0));
    bl_tensor slope = gradient(bl_sum(bl_prod(x, 1)), x);
    expect_gradient(bl_sum(slope), x, VALUES(2, 0, 3, 0, 5, 0), VALUES(3, 5, 2, 5, 0, 5));
}

static void norms_at_zero(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 2);
    expect_gradient(bl_sum(bl_norm(x, 1)), x, VALUES(0, 0, 3, 4), VALUES(0, 0, 0.6, 0.8));
    bl_tensor slope = gradient(bl_sum(bl_norm(x, 1)), x);
    expect_gradient(bl_sum(slope), x, VALUES(0, 0, 0, 2), VALUES(0, 0, 0.5, 0));
    expect_gradient(bl_sum(bl_unit_rows(x, 0.5)), x, VALUES(0, 0, 0, 1), VALUES(2, 2, 1, 0));
    expect_gradient(bl_global_norm(&x, 1), x, VALUES(0, 0, 0, 0), VALUES(0, 0, 0, 0));
}

static void softmax_at_eighty(void **state)
{
    bl_tensor x = input(state, BL_F32, 1, 3);
    const double *far = VALUES(80, -80, 0);
    expect_result(bl_softmax(x, 1), x, far, VALUES(1, 0, 0));
    expect_result(bl_log_softmax(x, 1), x, far, VALUES(0, -160, -80));
    expect_result(bl_logsumexp(x, 1), x, far, VALUES(80));
    bl_tensor wrong = bl_cross_entropy(x, indices(x, S(1), VALUES(1)));
    expect_result(wrong, x, far, VALUES(160));
    expect_gradient(wrong, x, far, VALUES(1, -1, 0));
    bl_tensor right = bl_cross_entropy(x, indices(x, S(1), VALUES(0)));
    expect_gradient(right, x, far, VALUES(0, 0, 0));
    bl_tensor slope = gradient(bl_logsumexp(bl_reshape(x, S(3)), 0), x);
    expect_gradient(bl_sum(bl_mul(slope, slope)), x, far, VALUES(0, 0, 0));
}

static void an_empty_logsumexp_is_minus_infinity_with_gradient_zero(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 2);
    bl_tensor mask = bl_lt(bl_iota(*state, BL_I32, S(2, 2), 0), 1);
    bl_tensor y = bl_masked_logsumexp(x, mask, 1);
    expect_result(y, x, VALUES(1, 1, 2, NAN), VALUES(1.6931471805599453, -INFINITY));
    expect_gradient(bl_sum(bl_select(bl_isfinite(y), y, 0)), x, VALUES(1, 1, 2, NAN),
                    VALUES(0.5, 0.5, 0, 0));
}

static void empty_tensors_have_gradients(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 0), w = bl_full(*state, BL_F64, S(0, 3), 1);
    bl_tensor y = bl_add(bl_sum(bl_matmul(x, w)), bl_sum(bl_prod(x, 1)));
    bl_tensor all = bl_add(y, bl_sum(bl_softmax(x, 0)));
    expect_result(all, x, VALUES(0), VALUES(2));
    expect_type(gradient(all, x), "f64[2,0]");
}

/* --- transformations ---------------------------------------------------------------------------
 */

static void gradients_of_what_does_not_depend_are_zero(void **state)
{
    bl_tensor x = input(state, BL_F64, 2), later;
    bl_tensor y = bl_sum(bl_stop_gradient(bl_exp(x)));
    expect_gradient(y, x, VALUES(1, 2), VALUES(0, 0));
    later = input(state, BL_F64, 2);
    expect_gradient(bl_sum(later), later, VALUES(1, 2), VALUES(1, 1));
    assert_true(gradient(y, bl_number(3)).number == 0);
    bl_tensor dx = gradient(y, later);
    expect_type(dx, "f64[2]");
}

static void an_intermediate_and_its_source(
    void **state) /* y = u^2, u = 3x: dy/du = 6x, dy/dx = 18x */
{
    bl_tensor x = input(state, BL_F64, 1), u = bl_mul(3, x), d[2];
    bl_grad(bl_sum(bl_mul(u, u)), (bl_tensor[]){x, u}, 2, d);
    expect_result(d[0], x, VALUES(2), VALUES(36));
    expect_result(d[1], x, VALUES(2), VALUES(12));
}

static void jvp_is_the_derivative_along_a_tangent(void **state)
{
    bl_tensor x = input(state, BL_F64, 2), t = bl_iota(*state, BL_F64, S(2), 0);
    bl_tensor along = bl_jvp(bl_mul(bl_sum_keep(x, 0), bl_mul(x, x)), &x, &t, 1);
    /* y_i = s x_i^2; dy_i = x_i^2 ds + 2 s x_i t_i, with s = 5, ds = 1 */
    expect_result(along, x, VALUES(2, 3), VALUES(4, 39));
    expect_gradient(bl_sum(along), x, VALUES(2, 3), VALUES(10, 22));
}

static void hvp_is_the_hessian_times_a_vector(void **state)
{
    bl_tensor x = input(state, BL_F64, 2), v = bl_full_like(x, 1), hv;
    bl_hvp(bl_prod(bl_mul(x, x)), &x, &v, 1, &hv);
    /* f = a^2 b^2: H = [2b^2, 4ab; 4ab, 2a^2] */
    expect_result(hv, x, VALUES(2, 3), VALUES(42, 32));
}

static void straight_through_has_the_value_of_one_and_the_gradient_of_the_other(void **state)
{
    bl_tensor x = input(state, BL_F64, 2);
    bl_tensor y = bl_straight_through(bl_round(x), bl_mul(3, x));
    expect_result(y, x, VALUES(0.2, 1.7), VALUES(0, 2));
    expect_gradient(bl_sum(y), x, VALUES(0.2, 1.7), VALUES(3, 3));
}

/* --- random numbers ----------------------------------------------------------------------------
 */

static void keys_fold_as_on_the_host(void **state)
{
    bl_key key = bl_key_from_seed(42), folded = bl_key_derive(key, 1000);
    bl_tensor k = bl_input(*state, "key", BL_U32, S(2));
    const double *words = VALUES(key.word[0], key.word[1]);
    expect_result(bl_key_fold(k, 1000), k, words, VALUES(folded.word[0], folded.word[1]));
}

static void uniform_and_normal_numbers(void **state)
{
    enum { N = 10001 };
    bl_tensor k = bl_input(*state, "key", BL_U32, S(2));
    const double *words = VALUES(1, 2);
    bl_array u = evaluate(bl_uniform(k, S(N)), &k, &words, 1);
    bl_array z = evaluate(bl_normal(k, S(N)), &k, &words, 1);
    double sum = 0, square = 0, mean = 0;
    for (int64_t i = 0; i < N; i++) {
        double x = bl_array_get(&u, i), y = bl_array_get(&z, i);
        assert_true(x >= 0 && x < 1 && x * 0x1p24 == floor(x * 0x1p24) && isfinite(y));
        mean += x / N, sum += y / N, square += y * y / N;
    }
    assert_true(fabs(mean - 0.5) < 0.0116); /* four standard errors each */
    assert_true(fabs(sum) < 0.04 && fabs(square - 1) < 0.057);
    bl_array_free(&u);
    bl_array_free(&z);
}

static void permutations_and_their_inverse(void **state)
{
    bl_tensor k = bl_input(*state, "key", BL_U32, S(2));
    bl_tensor p = bl_permutation(k, 5);
    bl_tensor back = bl_take(p, bl_inverse_permutation(p));
    expect_result(back, k, VALUES(5, 6), VALUES(0, 1, 2, 3, 4));
}

static void one_hot_rows(void **state)
{
    bl_tensor y = input(state, BL_I32, 2);
    expect_result(bl_onehot(y, 3, BL_F32), y, VALUES(2, 0), VALUES(0, 0, 1, 1, 0, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_rule_agrees_with_central_differences),
        TEST(masked_square_root_at_zero),
        TEST(hessian_at_a_zero_residual),
        TEST(a_zero_cotangent_gives_zero_at_any_finite_operands),
        TEST(slopes_at_kinks),
        TEST(a_tie_gives_the_gradient_to_the_first),
        TEST(poles_have_gradient_zero),
        TEST(overflow_that_is_masked_has_gradient_zero),
        TEST(powers_at_zero),
        TEST(angle_at_the_origin),
        TEST(products_with_zeros),
        TEST(norms_at_zero),
        TEST(softmax_at_eighty),
        TEST(an_empty_logsumexp_is_minus_infinity_with_gradient_zero),
        TEST(empty_tensors_have_gradients),
        TEST(gradients_of_what_does_not_depend_are_zero),
        TEST(an_intermediate_and_its_source),
        TEST(jvp_is_the_derivative_along_a_tangent),
        TEST(hvp_is_the_hessian_times_a_vector),
        TEST(straight_through_has_the_value_of_one_and_the_gradient_of_the_other),
        TEST(keys_fold_as_on_the_host),
        TEST(uniform_and_normal_numbers),
        TEST(permutations_and_their_inverse),
        TEST(one_hot_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
