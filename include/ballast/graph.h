/* Graphs: describe a computation, differentiate it.
 *
 *     bl_graph *g = bl_graph_new();
 *     bl_tensor x = bl_input(g, "x", BL_F32, BL_SHAPE(128, 784));
 *     bl_tensor y = bl_input(g, "y", BL_I32, BL_SHAPE(128));
 *     bl_tensor W = bl_input(g, "W", BL_F32, BL_SHAPE(784, 10));
 *     bl_tensor l = bl_cross_entropy(bl_matmul(x, W), y);
 *     bl_tensor dW;
 *     bl_grad(l, &W, 1, &dW);          adds nodes; may be differentiated again
 *
 * A builder takes tensors or plain numbers and returns a tensor. Shapes are static; binary builders
 * broadcast as numpy does. Given bad operands a builder returns a poison tensor and the graph keeps
 * the first error with the caller's file and line; bl_graph_status and bl_compile report it.
 *
 * Every builder is a plain function, which other languages call, under a macro of the same name
 * that lifts numbers to tensors and records the place. To take a function's address write
 * (bl_exp). All memory of a graph is freed with the graph. A graph belongs to one thread. */
#ifndef BALLAST_GRAPH_H
#define BALLAST_GRAPH_H

#include <limits.h>

#include "ballast/array.h"

typedef struct bl_graph bl_graph;

/* A symbolic value: a node of a graph, or a bare number (graph is NULL), which takes the dtype of
 * whatever it meets. Arithmetic on bare numbers gives bare numbers. */
typedef struct bl_tensor {
    bl_graph *graph;
    int32_t id;    /* node; negative for poison */
    double number; /* the value of a bare number */
} bl_tensor;

BL_API bl_graph *bl_graph_new(void); /* NULL if memory is short */
BL_API void bl_graph_free(bl_graph *g);
BL_API bl_status bl_graph_status(const bl_graph *g); /* the first error; its text is bl_error() */
BL_API int64_t bl_graph_size(const bl_graph *g);     /* nodes */

/* Names the place of what is built until the matching bl_scope_end: "elr_loss/reg". */
BL_API void bl_scope(bl_graph *g, const char *name);
BL_API void bl_scope_end(bl_graph *g);

/* Records the caller's place on this thread; the macros below call it. `file` must outlive the
 * graphs built from there, as a literal does. */
BL_API void bl_at(const char *file, int line);

BL_API bl_tensor bl_number(double value);
static inline bl_tensor bl_same_tensor(bl_tensor t) { return t; }
#define BL_T(x) _Generic((x), bl_tensor: bl_same_tensor, default: bl_number)(x)

/* Inside the library BL_KEEP_PLACE keeps the place of the outer caller. */
#ifdef BL_KEEP_PLACE
#define BL_AT(call) (call)
#else
#define BL_AT(call) (bl_at(__FILE__, __LINE__), (call))
#endif

/* Axis lists: bl_sum(x) is over all axes, bl_sum(x, -1) over the last, bl_sum(x, 0, 2) over two. */
#define BL_END INT_MIN
#define BL_OVER(function, x, ...) function(BL_T(x), (const int[]){__VA_ARGS__})

/* --- what is known of a tensor ------------------------------------------------------------- */
BL_API bool bl_is_poison(bl_tensor x);
BL_API bool bl_is_number(bl_tensor x);
BL_API bl_type bl_type_of(bl_tensor x);              /* a bare number is f64[] */
/* Size of an axis; a negative one counts from the end; 1 of poison. */
BL_API int64_t bl_dim(bl_tensor x, int axis);
BL_API int bl_rank(bl_tensor x);
/* Keeps `message` (printf) as the graph's error at the current place and returns poison. */
BL_API bl_tensor bl_poison(bl_graph *g, const char *format, ...) BL_PRINTF(2, 3);

/* --- leaves -------------------------------------------------------------------------------- */
BL_API bl_tensor bl_input(bl_graph *g, const char *name, bl_dtype dtype, bl_shape shape);
BL_API bl_tensor bl_constant(bl_graph *g, const bl_array *value); /* copies the data */
BL_API bl_tensor bl_full(bl_graph *g, bl_dtype dtype, bl_shape shape, double value);
BL_API bl_tensor bl_full_like(bl_tensor x, double value);
/* 0, 1, 2, .. along axis. */
BL_API bl_tensor bl_iota(bl_graph *g, bl_dtype dtype, bl_shape shape, int axis);
/* u32 of `shape`; word 2 and 3 of the counter are `stream` (two numbers). */
BL_API bl_tensor bl_random_bits(bl_tensor key, uint32_t stream0, uint32_t stream1, bl_shape shape);
#define bl_zeros_like(x) bl_full_like(x, 0)
#define bl_ones_like(x) bl_full_like(x, 1)
#define bl_input(g, name, dtype, shape) BL_AT(bl_input(g, name, dtype, shape))
#define bl_constant(...) BL_AT(bl_constant(__VA_ARGS__))
#define bl_full(g, dtype, ...) BL_AT(bl_full(g, dtype, __VA_ARGS__))
#define bl_full_like(x, value) BL_AT(bl_full_like(BL_T(x), value))
#define bl_iota(g, dtype, ...) BL_AT(bl_iota(g, dtype, __VA_ARGS__))
#define bl_random_bits(key, ...) BL_AT(bl_random_bits(BL_T(key), __VA_ARGS__))

/* --- elementwise, one operand -------------------------------------------------------------- */
#define BL_UNARY_BUILDERS(X)                                                                       \
    X(neg) X(abs) X(sign) X(exp) X(expm1) X(log) X(log1p) X(sqrt) X(rsqrt) X(sin) X(cos) X(tanh)    \
    X(atan) X(sigmoid) X(erf) X(floor) X(round) X(isfinite) X(not) X(lgamma) X(digamma) X(trigamma) \
    X(stop_gradient)
#define X(name) BL_API bl_tensor bl_##name(bl_tensor x);
BL_UNARY_BUILDERS(X)
#undef X
BL_API bl_tensor bl_cast(bl_tensor x, bl_dtype dtype); /* to an integer: towards zero */
#define bl_neg(x) BL_AT(bl_neg(BL_T(x)))
#define bl_abs(x) BL_AT(bl_abs(BL_T(x))) /* derivative 0 at 0 */
#define bl_sign(x) BL_AT(bl_sign(BL_T(x)))
#define bl_exp(x) BL_AT(bl_exp(BL_T(x)))
#define bl_expm1(x) BL_AT(bl_expm1(BL_T(x)))
#define bl_log(x) BL_AT(bl_log(BL_T(x)))
#define bl_log1p(x) BL_AT(bl_log1p(BL_T(x)))
#define bl_sqrt(x) BL_AT(bl_sqrt(BL_T(x))) /* derivative 0 at 0 */
#define bl_rsqrt(x) BL_AT(bl_rsqrt(BL_T(x)))
#define bl_sin(x) BL_AT(bl_sin(BL_T(x)))
#define bl_cos(x) BL_AT(bl_cos(BL_T(x)))
#define bl_tanh(x) BL_AT(bl_tanh(BL_T(x)))
#define bl_atan(x) BL_AT(bl_atan(BL_T(x)))
#define bl_sigmoid(x) BL_AT(bl_sigmoid(BL_T(x)))
#define bl_erf(x) BL_AT(bl_erf(BL_T(x)))
#define bl_floor(x) BL_AT(bl_floor(BL_T(x)))
#define bl_round(x) BL_AT(bl_round(BL_T(x))) /* ties to even */
#define bl_isfinite(x) BL_AT(bl_isfinite(BL_T(x)))
#define bl_not(x) BL_AT(bl_not(BL_T(x)))
#define bl_lgamma(x) BL_AT(bl_lgamma(BL_T(x)))
#define bl_digamma(x) BL_AT(bl_digamma(BL_T(x)))
#define bl_trigamma(x) BL_AT(bl_trigamma(BL_T(x))) /* no gradient */
#define bl_stop_gradient(x) BL_AT(bl_stop_gradient(BL_T(x)))
#define bl_cast(x, dtype) BL_AT(bl_cast(BL_T(x), dtype))
#define bl_to_f32(x) bl_cast(x, BL_F32)
#define bl_to_f64(x) bl_cast(x, BL_F64)

/* --- elementwise, two operands (broadcast; comparisons give bool) -------------------------- */
#define BL_BINARY_BUILDERS(X)                                                                      \
    X(add) X(sub) X(mul) X(div) X(pow) X(atan2) X(max) X(min) X(rem) X(eq) X(ne) X(lt) X(le) X(gt)  \
    X(ge) X(and) X(or)
#define X(name) BL_API bl_tensor bl_##name(bl_tensor a, bl_tensor b);
BL_BINARY_BUILDERS(X)
#undef X
#define bl_add(a, b) BL_AT(bl_add(BL_T(a), BL_T(b)))
#define bl_sub(a, b) BL_AT(bl_sub(BL_T(a), BL_T(b)))
#define bl_mul(a, b) BL_AT(bl_mul(BL_T(a), BL_T(b)))
#define bl_div(a, b) BL_AT(bl_div(BL_T(a), BL_T(b)))
#define bl_pow(a, b) BL_AT(bl_pow(BL_T(a), BL_T(b)))
#define bl_atan2(a, b) BL_AT(bl_atan2(BL_T(a), BL_T(b)))
#define bl_max(a, b) BL_AT(bl_max(BL_T(a), BL_T(b))) /* at a tie the gradient goes to a */
#define bl_min(a, b) BL_AT(bl_min(BL_T(a), BL_T(b)))
#define bl_rem(a, b) BL_AT(bl_rem(BL_T(a), BL_T(b))) /* sign of a, as C's fmod and % */
#define bl_eq(a, b) BL_AT(bl_eq(BL_T(a), BL_T(b)))
#define bl_ne(a, b) BL_AT(bl_ne(BL_T(a), BL_T(b)))
#define bl_lt(a, b) BL_AT(bl_lt(BL_T(a), BL_T(b)))
#define bl_le(a, b) BL_AT(bl_le(BL_T(a), BL_T(b)))
#define bl_gt(a, b) BL_AT(bl_gt(BL_T(a), BL_T(b)))
#define bl_ge(a, b) BL_AT(bl_ge(BL_T(a), BL_T(b)))
#define bl_and(a, b) BL_AT(bl_and(BL_T(a), BL_T(b)))
#define bl_or(a, b) BL_AT(bl_or(BL_T(a), BL_T(b)))

/* --- elementwise, three operands ----------------------------------------------------------- */
/* Where both choices are bare numbers the result is f32. */
BL_API bl_tensor bl_select(bl_tensor condition, bl_tensor yes, bl_tensor no);
/* gradient where low <= x <= high. */
BL_API bl_tensor bl_clamp(bl_tensor x, bl_tensor low, bl_tensor high);
#define bl_select(c, a, b) BL_AT(bl_select(BL_T(c), BL_T(a), BL_T(b)))
#define bl_clamp(x, low, high) BL_AT(bl_clamp(BL_T(x), BL_T(low), BL_T(high)))

/* --- movement ------------------------------------------------------------------------------ */
BL_API bl_tensor bl_reshape(bl_tensor x, bl_shape shape);     /* one size may be -1 */
BL_API bl_tensor bl_broadcast(bl_tensor x, bl_shape shape);   /* numpy's rule */
/* output axis i is input axis axes[i]. */
BL_API bl_tensor bl_transpose_to(bl_tensor x, const int *axes);
/* start <= index < stop by step, one entry an axis; step >= 1, or BL_SCALAR for 1 everywhere. */
BL_API bl_tensor bl_slice(bl_tensor x, bl_shape start, bl_shape stop, bl_shape step);
BL_API bl_tensor bl_slice_axis(bl_tensor x, int axis, int64_t start, int64_t stop); /* step 1 */
BL_API bl_tensor bl_pad(bl_tensor x, bl_shape low, bl_shape high, double value);
BL_API bl_tensor bl_concat(const bl_tensor *x, int count, int axis);
BL_API bl_tensor bl_reverse(bl_tensor x, int axis);
/* a new axis of size 1, which becomes axis `axis`. */
BL_API bl_tensor bl_expand(bl_tensor x, int axis);
BL_API bl_tensor bl_squeeze(bl_tensor x, int axis);           /* drops an axis of size 1 */
/* x[..,i,..] for the index i of an axis, which is dropped; a negative axis counts from the end. */
BL_API bl_tensor bl_pick(bl_tensor x, int axis, int64_t i);
#define bl_reshape(x, ...) BL_AT(bl_reshape(BL_T(x), __VA_ARGS__))
#define bl_broadcast(x, ...) BL_AT(bl_broadcast(BL_T(x), __VA_ARGS__))
#define bl_transpose(...) BL_AT(BL_OVER(bl_transpose_to, __VA_ARGS__, BL_END)) /* without axes: all reversed */
#define bl_slice(x, ...) BL_AT(bl_slice(BL_T(x), __VA_ARGS__))
#define bl_pad(x, ...) BL_AT(bl_pad(BL_T(x), __VA_ARGS__))
#define bl_concat(...) BL_AT(bl_concat(__VA_ARGS__))
#define bl_slice_axis(x, axis, start, stop) BL_AT(bl_slice_axis(BL_T(x), axis, start, stop))
#define bl_expand(x, axis) BL_AT(bl_expand(BL_T(x), axis))
#define bl_squeeze(x, axis) BL_AT(bl_squeeze(BL_T(x), axis))
#define bl_reverse(x, axis) BL_AT(bl_reverse(BL_T(x), axis))
#define bl_pick(x, axis, i) BL_AT(bl_pick(BL_T(x), axis, i))

/* --- indexing (an index is i32; out of range is an error when the program runs) ------------- */
/* z[i,..] = x[index[i],..]. */
BL_API bl_tensor bl_take(bl_tensor x, bl_tensor index);
/* x[index[i],..] += rows[i,..]. */
BL_API bl_tensor bl_add_at(bl_tensor x, bl_tensor index, bl_tensor rows);
/* x[index[i],..] = rows[i,..]; distinct. */
BL_API bl_tensor bl_put(bl_tensor x, bl_tensor index, bl_tensor rows);
/* z[..,i,..] = x[..,index[..,i,..],..]: index has x's rank and sizes except along axis. */
BL_API bl_tensor bl_take_along(bl_tensor x, bl_tensor index, int axis);
BL_API bl_tensor bl_add_along(bl_tensor x, bl_tensor index, bl_tensor updates, int axis);
BL_API bl_tensor bl_argsort(bl_tensor x, int axis, bool descending);    /* stable; i32 */
#define bl_take(x, i) BL_AT(bl_take(BL_T(x), BL_T(i)))
#define bl_add_at(x, i, r) BL_AT(bl_add_at(BL_T(x), BL_T(i), BL_T(r)))
#define bl_put(x, i, r) BL_AT(bl_put(BL_T(x), BL_T(i), BL_T(r)))
#define bl_take_along(x, i, axis) BL_AT(bl_take_along(BL_T(x), BL_T(i), axis))
#define bl_add_along(x, i, u, axis) BL_AT(bl_add_along(BL_T(x), BL_T(i), BL_T(u), axis))
#define bl_argsort(x, axis, descending) BL_AT(bl_argsort(BL_T(x), axis, descending))

/* --- reductions (axes dropped; the _keep forms leave them at size 1) ------------------------ */
BL_API bl_tensor bl_sum_over(bl_tensor x, const int *axes);
BL_API bl_tensor bl_sum_over_keep(bl_tensor x, const int *axes);
/* gradient to the first maximum. */
BL_API bl_tensor bl_reduce_max_over(bl_tensor x, const int *axes);
BL_API bl_tensor bl_reduce_max_over_keep(bl_tensor x, const int *axes);
BL_API bl_tensor bl_reduce_min_over(bl_tensor x, const int *axes);
BL_API bl_tensor bl_reduce_min_over_keep(bl_tensor x, const int *axes);
BL_API bl_tensor bl_prod_over(bl_tensor x, const int *axes);
BL_API bl_tensor bl_mean_over(bl_tensor x, const int *axes);
BL_API bl_tensor bl_mean_over_keep(bl_tensor x, const int *axes);
BL_API bl_tensor bl_variance_over(bl_tensor x, const int *axes); /* divides by n */
BL_API bl_tensor bl_variance_over_keep(bl_tensor x, const int *axes);
/* i32; the first maximum; NaN counts as largest. */
BL_API bl_tensor bl_argmax(bl_tensor x, int axis);
BL_API bl_tensor bl_argmin(bl_tensor x, int axis);
BL_API bl_tensor bl_cumsum(bl_tensor x, int axis); /* inclusive */
#define bl_sum(...) BL_AT(BL_OVER(bl_sum_over, __VA_ARGS__, BL_END))
#define bl_sum_keep(...) BL_AT(BL_OVER(bl_sum_over_keep, __VA_ARGS__, BL_END))
#define bl_reduce_max(...) BL_AT(BL_OVER(bl_reduce_max_over, __VA_ARGS__, BL_END))
#define bl_reduce_max_keep(...) BL_AT(BL_OVER(bl_reduce_max_over_keep, __VA_ARGS__, BL_END))
#define bl_reduce_min(...) BL_AT(BL_OVER(bl_reduce_min_over, __VA_ARGS__, BL_END))
#define bl_reduce_min_keep(...) BL_AT(BL_OVER(bl_reduce_min_over_keep, __VA_ARGS__, BL_END))
#define bl_prod(...) BL_AT(BL_OVER(bl_prod_over, __VA_ARGS__, BL_END))
#define bl_mean(...) BL_AT(BL_OVER(bl_mean_over, __VA_ARGS__, BL_END))
#define bl_mean_keep(...) BL_AT(BL_OVER(bl_mean_over_keep, __VA_ARGS__, BL_END))
#define bl_variance(...) BL_AT(BL_OVER(bl_variance_over, __VA_ARGS__, BL_END))
#define bl_variance_keep(...) BL_AT(BL_OVER(bl_variance_over_keep, __VA_ARGS__, BL_END))
#define bl_argmax(x, axis) BL_AT(bl_argmax(BL_T(x), axis))
#define bl_argmin(x, axis) BL_AT(bl_argmin(BL_T(x), axis))
#define bl_cumsum(x, axis) BL_AT(bl_cumsum(BL_T(x), axis))

/* --- contractions -------------------------------------------------------------------------- */
/* a[..,m,k] b[..,k,n] -> [..,m,n], i32 of i8, else the operands' dtype; `transpose_a` reads a as [..,k,m], `transpose_b` b as [..,n,k].
 * The leading (batch) axes are equal. */
BL_API bl_tensor bl_dot(bl_tensor a, bl_tensor b, bool transpose_a, bool transpose_b);
/* dot; a rank-1 operand is a row or column; batch axes broadcast. */
BL_API bl_tensor bl_matmul(bl_tensor a, bl_tensor b);

/* Images are NHWC, filters HWIO; padding may be negative-free and uneven. */
typedef struct bl_conv_options {
    int64_t stride[2];   /* 0 means 1 */
    int64_t low[2];      /* zero padding before: rows, columns */
    int64_t high[2];     /* and after */
    int64_t dilation[2]; /* 0 means 1 */
    int64_t groups;      /* 0 means 1 */
} bl_conv_options;
/* x[B,H,W,I] w[h,w,I/groups,O] -> [B,H',W',O]. With 3 x 3 filters and stride 1 the cpu computes
 * tiles of 4 x 4 results together, so that what is infinite or NaN in x may make NaN of all of a
 * tile. */
BL_API bl_tensor bl_conv(bl_tensor x, bl_tensor w, bl_conv_options options);
/* The adjoints of conv in x and in w; x_shape and w_shape are what they return. */
BL_API bl_tensor bl_conv_dx(bl_tensor g, bl_tensor w, bl_shape x_shape, bl_conv_options options);
BL_API bl_tensor bl_conv_dw(bl_tensor x, bl_tensor g, bl_shape w_shape, bl_conv_options options);
/* The windows of rows x columns pixels of x[B,H,W,C] -> [B,H',W',rows,columns,C]; groups unused. */
BL_API bl_tensor bl_patches(bl_tensor x, int64_t rows, int64_t columns, bl_conv_options options);
/* Its adjoint: [B,H',W',h,w,C] -> x_shape, where every pixel is the sum of what its windows hold. */
BL_API bl_tensor bl_fold(bl_tensor patches, bl_shape x_shape, bl_conv_options options);
#define bl_dot(a, b, ta, tb) BL_AT(bl_dot(BL_T(a), BL_T(b), ta, tb))
#define bl_matmul(a, b) BL_AT(bl_matmul(BL_T(a), BL_T(b)))
#define bl_conv(x, w, ...) BL_AT(bl_conv(BL_T(x), BL_T(w), __VA_ARGS__))
#define bl_conv_dx(g, w, ...) BL_AT(bl_conv_dx(BL_T(g), BL_T(w), __VA_ARGS__))
#define bl_conv_dw(x, g, ...) BL_AT(bl_conv_dw(BL_T(x), BL_T(g), __VA_ARGS__))
#define bl_patches(x, rows, ...) BL_AT(bl_patches(BL_T(x), rows, __VA_ARGS__))
#define bl_fold(patches, ...) BL_AT(bl_fold(BL_T(patches), __VA_ARGS__))

/* --- linear algebra (of the last two axes; f32 or f64; leading axes are a batch) ------------- */
/* x is read as its symmetric part (x + x^T) / 2 in cholesky and eigh, and gradients are symmetric.
 * Where eigenvalues or singular values coincide, or one is 0, the gradient of their vectors is not
 * defined and taken as 0; that of the values, and of what no rotation of those vectors changes, is
 * exact. */
/* Lower L with L L^T = x[..,n,n]. Not positive definite is an error when the program runs. */
BL_API bl_tensor bl_cholesky(bl_tensor x);
/* X with L X = b (right: X L = b), L^T in place of L if `transpose`: l[..,n,n], of which only the
 * lower triangle is read, b[..,n,k] (right: [..,k,n]). An upper system is a transposed lower one. */
BL_API bl_tensor bl_triangular_solve(bl_tensor l, bl_tensor b, bool right, bool transpose);
/* x[..,n,n] = V diag(w) V^T: w[..,n] ascending, the columns of V[..,n,n] of unit length with the
 * largest component positive (the first of equals). */
BL_API void bl_eigh(bl_tensor x, bl_tensor *w, bl_tensor *v);
/* x[..,m,n] = U diag(s) V^T, thin: U[..,m,k] s[..,k] V[..,n,k], k = min(m,n), s descending, the
 * columns of U and V of unit length, the largest component of each of U's positive. */
BL_API void bl_svd(bl_tensor x, bl_tensor *u, bl_tensor *s, bl_tensor *v);
#define bl_cholesky(x) BL_AT(bl_cholesky(BL_T(x)))
#define bl_triangular_solve(l, b, right, transpose)                                                \
    BL_AT(bl_triangular_solve(BL_T(l), BL_T(b), right, transpose))
#define bl_eigh(x, w, v) BL_AT(bl_eigh(BL_T(x), w, v))
#define bl_svd(x, u, s, v) BL_AT(bl_svd(BL_T(x), u, s, v))

/* --- loops (each is one node, however many steps it takes) ---------------------------------- */
/* A body is built once, in a graph of its own that it gets as `g`: it reads its carry and the rows
 * of this step, and writes their successors and what the step gives. It may use tensors of the graph
 * around it like any others; a loop in a body may use those of all graphs around it. A carry keeps
 * its type; carry_next[i] may be a bare number. `context` is the caller's, and used only while the
 * loop is being built. */
typedef void bl_scan_body(bl_graph *g, const bl_tensor *carry, const bl_tensor *x,
                          bl_tensor *carry_next, bl_tensor *y, void *context);
/* carry[..] <- body(carry[..], rows t of x[..]) for t = 0 .. steps - 1. x[i] is [steps,..] and the
 * body sees [..]; y[i] gets [steps,..], the rows that the body gave. Any of `carries`, `inputs` and
 * `outputs` may be 0. Differentiable any number of times: the gradient is a scan backwards, which
 * computes each step again from its carry. Random numbers differ from step to step if the key is a
 * carry or a row of x. */
BL_API void bl_scan(bl_graph *g, int64_t steps, bl_scan_body *body, void *context,
                    const bl_tensor *carry, int carries, const bl_tensor *x, int inputs,
                    bl_tensor *carry_last, bl_tensor *y, int outputs);
/* Gives bool[]: whether to take another step. It is built twice: for the first carry, in the graph
 * around the loop, and for every next one. */
typedef bl_tensor bl_while_condition(bl_graph *g, const bl_tensor *carry, void *context);
typedef void bl_while_body(bl_graph *g, const bl_tensor *carry, bl_tensor *carry_next,
                           void *context);
/* carry[..] <- body(carry[..]) while condition(carry[..]), at most `limit` times; returns the steps
 * taken, i32[]. Has no gradient: stop it before, or give the result one by bl_override_gradient. */
BL_API bl_tensor bl_while(bl_graph *g, int64_t limit, bl_while_condition *condition,
                          bl_while_body *body, void *context, const bl_tensor *carry, int carries,
                          bl_tensor *carry_last);
/* Writes the gradient of a function whose values are `output` at `input`: gradient[i], of the type of
 * input[i], for the cotangents of the outputs. Linear in the cotangents. gradient[i] left alone is
 * zero. */
typedef void bl_gradient_rule(bl_graph *g, const bl_tensor *input, const bl_tensor *output,
                              const bl_tensor *cotangent, bl_tensor *gradient, void *context);
/* result[..] are the outputs, with the gradient that `rule` gives in the inputs, whatever the outputs
 * were computed from. rule is called at every differentiation of the graph, so context must live
 * until the last one. */
BL_API void bl_override_gradient(const bl_tensor *output, int outputs, const bl_tensor *input,
                                 int inputs, bl_gradient_rule *rule, void *context,
                                 bl_tensor *result);
#define bl_scan(...) BL_AT(bl_scan(__VA_ARGS__))
#define bl_while(...) BL_AT(bl_while(__VA_ARGS__))
#define bl_override_gradient(...) BL_AT(bl_override_gradient(__VA_ARGS__))

/* --- composites: plain functions over the primitives, each stable at logits of +-80 --------- */
BL_API bl_tensor bl_relu(bl_tensor x);
BL_API bl_tensor bl_gelu(bl_tensor x);     /* tanh form */
BL_API bl_tensor bl_gelu_exact(bl_tensor x); /* x times the normal distribution function of x */
BL_API bl_tensor bl_softplus(bl_tensor x);
BL_API bl_tensor bl_leaky_relu(bl_tensor x, bl_tensor slope); /* slope x below 0; derivative 1 at 0 */
BL_API bl_tensor bl_silu(bl_tensor x); /* x sigmoid(x) */
BL_API bl_tensor bl_softsign(bl_tensor x); /* x / (1 + |x|); derivative 1 / (1 + |x|)^2 everywhere */
BL_API bl_tensor bl_square(bl_tensor x);
/* x w^T + bias over the last axis: x[..,I] w[O,I] -> [..,O]; bias [O], or the number 0 for none. */
BL_API bl_tensor bl_linear(bl_tensor x, bl_tensor w, bl_tensor bias);
BL_API bl_tensor bl_softmax(bl_tensor x, int axis);
BL_API bl_tensor bl_log_softmax(bl_tensor x, int axis);
/* The point of the simplex nearest to each row: max(x - tau, 0), of sum 1, along the last axis; sparse
 * where softmax is dense (Martins and Astudillo 2016, arXiv 1602.02068). */
BL_API bl_tensor bl_sparsemax(bl_tensor x);
BL_API bl_tensor bl_logsumexp(bl_tensor x, int axis);
/* log sum exp over the entries of the last axes where mask (bool, x's shape) is true; -inf where
 * there are none, with gradient 0. */
BL_API bl_tensor bl_masked_logsumexp(bl_tensor x, bl_tensor mask, int axis);
/* [..] -> [..,classes]. */
BL_API bl_tensor bl_onehot(bl_tensor labels, int64_t classes, bl_dtype dtype);
/* logits [..,C], labels i32[..]: the mean over all rows, and one value a row. A label outside [0,C)
 * is an error when the program runs. */
BL_API bl_tensor bl_cross_entropy(bl_tensor logits, bl_tensor labels);
BL_API bl_tensor bl_cross_entropy_rows(bl_tensor logits, bl_tensor labels);
/* mean over rows; target [..,C]. */
BL_API bl_tensor bl_soft_cross_entropy(bl_tensor logits, bl_tensor target);
/* -t log sigmoid(x) - (1-t) log(1 - sigmoid(x)), elementwise. */
BL_API bl_tensor bl_binary_cross_entropy(bl_tensor logits, bl_tensor target);
/* sum of p (log p - log q) along an axis, from logarithms; what has p = 0 adds 0. */
BL_API bl_tensor bl_kl_divergence(bl_tensor log_p, bl_tensor log_q, int axis);
/* Euclidean, along an axis; gradient 0 at 0. */
BL_API bl_tensor bl_norm(bl_tensor x, int axis);
BL_API bl_tensor bl_norm_keep(bl_tensor x, int axis);
/* a[..,M,C] b[..,K,C] -> [..,M,K]: |a_m - b_k|^2, as sums of squared differences, exactly 0 for equal
 * rows. Leading axes broadcast. */
BL_API bl_tensor bl_square_distances(bl_tensor a, bl_tensor b);
/* <a,b>: the sum of a b over all entries; and sqrt(<x,x>), with gradient 0 at 0. */
BL_API bl_tensor bl_inner(bl_tensor a, bl_tensor b);
BL_API bl_tensor bl_length(bl_tensor x);
/* x / max(|x|, floor) along the last axis; floor is a number or broadcasts to [..,1]. */
BL_API bl_tensor bl_unit_rows(bl_tensor x, bl_tensor floor);
BL_API bl_tensor bl_global_norm(const bl_tensor *x, int count); /* sqrt of the sum of all squares */
BL_API bl_tensor bl_max_pool2(bl_tensor x);   /* 2x2, stride 2, [B,H,W,C], H and W even */
/* The largest of every window of rows x columns pixels, [B,H,W,C] -> [B,H',W',C]; what is padded is
 * never chosen, so a window may not lie in the padding alone. The mean counts padding as zeros. */
BL_API bl_tensor bl_max_pool(bl_tensor x, int64_t rows, int64_t columns, bl_conv_options options);
BL_API bl_tensor bl_mean_pool(bl_tensor x, int64_t rows, int64_t columns, bl_conv_options options);
/* x[B,H,W,I] w[h,w,O/groups,I] -> [B,H',W',O]: the adjoint of a conv that maps O to I channels, with
 * H' = (H - 1) stride + (h - 1) dilation + 1 - low - high. */
BL_API bl_tensor bl_conv_transpose(bl_tensor x, bl_tensor w, bl_conv_options options);
/* [B,H,W,C] -> [B,rows,columns,C]; pixels are areas, so the corners' centres move (half-pixel
 * centres, no smoothing when shrinking). */
BL_API bl_tensor bl_resize_bilinear(bl_tensor x, int64_t rows, int64_t columns);
/* The same with corners that stay: pixel i of rows > 1 is at i (H - 1) / (rows - 1), else at 0. */
BL_API bl_tensor bl_resize_aligned(bl_tensor x, int64_t rows, int64_t columns);
/* bl_resize_bilinear by copying: pixel (i, j) is x's (floor(i H / rows), floor(j W / columns)). */
BL_API bl_tensor bl_resize_nearest(bl_tensor x, int64_t rows, int64_t columns);
/* Rows, then columns of x[B,H,W,C] by the same filter, kernel[2 radius + 1], the middle of which
 * lies on the pixel. Beyond the borders the image is mirrored, as often as it takes: with its edge
 * (c b a | a b c), or, `skip_edge`, without (c b | a b c). */
BL_API bl_tensor bl_filter_axes(bl_tensor x, const double *kernel, int64_t radius, bool skip_edge);
/* bl_filter_axes by e^(-j^2 / (2 sigma^2)), j = -radius..radius, divided by its sum; sigma > 0. */
BL_API bl_tensor bl_gaussian_blur(bl_tensor x, double sigma, int64_t radius, bool skip_edge);
/* (x - mean) / sqrt(variance + epsilon) scale + shift over the last axis; scale and shift are [C] or
 * numbers. */
BL_API bl_tensor bl_layer_normalize(bl_tensor x, bl_tensor scale, bl_tensor shift, double epsilon);
/* The same for x[B,..,C], over all axes but the first, for each of `groups` equal parts of the
 * channels. */
BL_API bl_tensor bl_group_normalize(bl_tensor x, int64_t groups, bl_tensor scale, bl_tensor shift,
                                    double epsilon);
/* One group a channel: over the axes between the first and the last (Ulyanov et al. 2016). */
BL_API bl_tensor bl_instance_normalize(bl_tensor x, bl_tensor scale, bl_tensor shift,
                                       double epsilon);
/* softmax(q k^T / sqrt(d)) v, for q[..,T,d] k[..,S,d] v[..,S,e] -> [..,T,e] with equal leading axes
 * (Vaswani et al. 2017). mask: bool, broadcast to [..,T,S], true where T may look at S, or the
 * number 1 for no mask; a row that may look at nothing gives 0, with gradient 0. */
BL_API bl_tensor bl_attention(bl_tensor q, bl_tensor k, bl_tensor v, bl_tensor mask);
/* Attention by `heads` heads, each with its part of the columns: q[B,T,D] k[B,S,D] v[B,S,E] ->
 * [B,T,E], the heads' results side by side; heads divides D and E. mask: [T,S], or the number 1. */
BL_API bl_tensor bl_multi_head_attention(bl_tensor q, bl_tensor k, bl_tensor v, bl_tensor mask,
                                         int64_t heads);
/* Sorted along an axis, ties in the order they come. */
BL_API bl_tensor bl_sort(bl_tensor x, int axis, bool descending);
/* The k largest along the last axis, largest first, ties lowest index first: value and index (i32,
 * or NULL) are [..,k]. */
BL_API void bl_top_k(bl_tensor x, int64_t k, bl_tensor *value, bl_tensor *index);
/* [n,n] with ones on the diagonal, n >= 0. */
BL_API bl_tensor bl_identity(bl_graph *g, bl_dtype dtype, int64_t n);
/* b (x^T x + ridge I)^-1 by Cholesky, for b[k,n] x[m,n] and ridge, a number or scalar: row i is the
 * w that minimises |x w|^2 + ridge |w|^2 - 2 <b_i,w>. Error when the program runs: x^T x + ridge I
 * is not positive definite. */
BL_API bl_tensor bl_ridge_solve(bl_tensor b, bl_tensor x, bl_tensor ridge);
/* The `rank` largest singular values of svd and their vectors: the nearest matrix of that rank is
 * u diag(s) v^T. */
BL_API void bl_truncated_svd(bl_tensor x, int64_t rank, bl_tensor *u, bl_tensor *s, bl_tensor *v);
BL_API bl_tensor bl_uniform(bl_tensor key, bl_shape shape); /* f32 [0,1): bits >> 8 * 2^-24 */
BL_API bl_tensor bl_normal(bl_tensor key, bl_shape shape);  /* f32, Box-Muller; never infinite */
/* f32 of `shape`, Beta(alpha, alpha), alpha > 0: the share of mixup. No gradient in alpha is meant. */
BL_API bl_tensor bl_beta_symmetric(bl_tensor key, bl_tensor alpha, bl_shape shape);
BL_API bl_tensor bl_key_fold(bl_tensor key, uint32_t n);    /* as bl_key_derive */
BL_API bl_tensor bl_permutation(bl_tensor key, int64_t n);  /* i32 [n] */
BL_API bl_tensor bl_inverse_permutation(bl_tensor index);
/* x / (1 - rate) where u >= rate, else 0, for uniform draws u that broadcast to x: the mean over
 * draws is x (Srivastava et al. 2014). 0 <= rate < 1. In the second, one draw u[B] (or [1]) for all
 * of x[b,..], as in stochastic depth (Huang et al. 2016). */
BL_API bl_tensor bl_drop(bl_tensor x, bl_tensor u, bl_tensor rate);
BL_API bl_tensor bl_drop_rows(bl_tensor x, bl_tensor u, bl_tensor rate);
/* value, with the gradient of x. */
BL_API bl_tensor bl_straight_through(bl_tensor value, bl_tensor x);
/* (code - zero) scale with code = clamp(round(x / scale) + zero, low, high), a whole number where
 * zero is: uniform quantisation. scale and zero broadcast to x. Rounding is to even and has gradient
 * 1; what is clamped passes none to x. Gradients reach x, scale and zero. `code` may be NULL. */
BL_API bl_tensor bl_fake_quantize(bl_tensor x, bl_tensor scale, bl_tensor zero, double low,
                                  double high, bl_tensor *code);
/* The direction of Adam (Kingma and Ba 2015) at step 1, 2, .., which is downhill when subtracted:
 * first and second become beta1 first + (1 - beta1) gradient and beta2 second + (1 - beta2)
 * gradient^2; the result is (first / (1 - beta1^step)) / (sqrt(second / (1 - beta2^step)) +
 * epsilon), and 0 where that divides by 0. step broadcasts to the gradient. */
BL_API bl_tensor bl_adam(bl_tensor gradient, bl_tensor step, bl_tensor beta1, bl_tensor beta2,
                         bl_tensor epsilon, bl_tensor *first, bl_tensor *second);
#define bl_relu(x) BL_AT(bl_relu(BL_T(x)))
#define bl_gelu(x) BL_AT(bl_gelu(BL_T(x)))
#define bl_gelu_exact(x) BL_AT(bl_gelu_exact(BL_T(x)))
#define bl_softplus(x) BL_AT(bl_softplus(BL_T(x)))
#define bl_leaky_relu(x, slope) BL_AT(bl_leaky_relu(BL_T(x), BL_T(slope)))
#define bl_silu(x) BL_AT(bl_silu(BL_T(x)))
#define bl_softsign(x) BL_AT(bl_softsign(BL_T(x)))
#define bl_square(x) BL_AT(bl_square(BL_T(x)))
#define bl_linear(x, w, bias) BL_AT(bl_linear(BL_T(x), BL_T(w), BL_T(bias)))
#define bl_sparsemax(x) BL_AT(bl_sparsemax(BL_T(x)))
#define bl_softmax(x, axis) BL_AT(bl_softmax(BL_T(x), axis))
#define bl_log_softmax(x, axis) BL_AT(bl_log_softmax(BL_T(x), axis))
#define bl_logsumexp(x, axis) BL_AT(bl_logsumexp(BL_T(x), axis))
#define bl_masked_logsumexp(x, mask, axis) BL_AT(bl_masked_logsumexp(BL_T(x), mask, axis))
#define bl_onehot(labels, classes, dtype) BL_AT(bl_onehot(BL_T(labels), classes, dtype))
#define bl_cross_entropy(x, y) BL_AT(bl_cross_entropy(BL_T(x), BL_T(y)))
#define bl_cross_entropy_rows(x, y) BL_AT(bl_cross_entropy_rows(BL_T(x), BL_T(y)))
#define bl_soft_cross_entropy(x, y) BL_AT(bl_soft_cross_entropy(BL_T(x), BL_T(y)))
#define bl_binary_cross_entropy(x, t) BL_AT(bl_binary_cross_entropy(BL_T(x), BL_T(t)))
#define bl_kl_divergence(p, q, axis) BL_AT(bl_kl_divergence(BL_T(p), BL_T(q), axis))
#define bl_norm(x, axis) BL_AT(bl_norm(BL_T(x), axis))
#define bl_norm_keep(x, axis) BL_AT(bl_norm_keep(BL_T(x), axis))
#define bl_square_distances(a, b) BL_AT(bl_square_distances(BL_T(a), BL_T(b)))
#define bl_beta_symmetric(key, alpha, shape) BL_AT(bl_beta_symmetric(BL_T(key), BL_T(alpha), shape))
#define bl_unit_rows(x, floor) BL_AT(bl_unit_rows(BL_T(x), BL_T(floor)))
#define bl_inner(a, b) BL_AT(bl_inner(BL_T(a), BL_T(b)))
#define bl_length(x) BL_AT(bl_length(BL_T(x)))
#define bl_global_norm(...) BL_AT(bl_global_norm(__VA_ARGS__))
#define bl_max_pool2(x) BL_AT(bl_max_pool2(BL_T(x)))
#define bl_max_pool(x, rows, ...) BL_AT(bl_max_pool(BL_T(x), rows, __VA_ARGS__))
#define bl_mean_pool(x, rows, ...) BL_AT(bl_mean_pool(BL_T(x), rows, __VA_ARGS__))
#define bl_conv_transpose(x, w, ...) BL_AT(bl_conv_transpose(BL_T(x), BL_T(w), __VA_ARGS__))
#define bl_resize_bilinear(x, rows, columns) BL_AT(bl_resize_bilinear(BL_T(x), rows, columns))
#define bl_resize_aligned(x, rows, columns) BL_AT(bl_resize_aligned(BL_T(x), rows, columns))
#define bl_resize_nearest(x, rows, columns) BL_AT(bl_resize_nearest(BL_T(x), rows, columns))
#define bl_filter_axes(x, kernel, ...) BL_AT(bl_filter_axes(BL_T(x), kernel, __VA_ARGS__))
#define bl_gaussian_blur(x, sigma, ...) BL_AT(bl_gaussian_blur(BL_T(x), sigma, __VA_ARGS__))
#define bl_layer_normalize(x, scale, shift, epsilon)                                               \
    BL_AT(bl_layer_normalize(BL_T(x), BL_T(scale), BL_T(shift), epsilon))
#define bl_group_normalize(x, groups, scale, shift, epsilon)                                       \
    BL_AT(bl_group_normalize(BL_T(x), groups, BL_T(scale), BL_T(shift), epsilon))
#define bl_instance_normalize(x, scale, shift, epsilon)                                            \
    BL_AT(bl_instance_normalize(BL_T(x), BL_T(scale), BL_T(shift), epsilon))
#define bl_attention(q, k, v, mask) BL_AT(bl_attention(BL_T(q), BL_T(k), BL_T(v), BL_T(mask)))
#define bl_multi_head_attention(q, k, v, mask, heads)                                              \
    BL_AT(bl_multi_head_attention(BL_T(q), BL_T(k), BL_T(v), BL_T(mask), heads))
#define bl_sort(x, axis, descending) BL_AT(bl_sort(BL_T(x), axis, descending))
#define bl_top_k(x, k, value, index) BL_AT(bl_top_k(BL_T(x), k, value, index))
#define bl_identity(...) BL_AT(bl_identity(__VA_ARGS__))
#define bl_ridge_solve(b, x, ridge) BL_AT(bl_ridge_solve(BL_T(b), BL_T(x), BL_T(ridge)))
#define bl_truncated_svd(x, rank, u, s, v) BL_AT(bl_truncated_svd(BL_T(x), rank, u, s, v))
#define bl_uniform(key, ...) BL_AT(bl_uniform(BL_T(key), __VA_ARGS__))
#define bl_normal(key, ...) BL_AT(bl_normal(BL_T(key), __VA_ARGS__))
#define bl_key_fold(key, n) BL_AT(bl_key_fold(BL_T(key), n))
#define bl_drop(x, u, rate) BL_AT(bl_drop(BL_T(x), BL_T(u), BL_T(rate)))
#define bl_drop_rows(x, u, rate) BL_AT(bl_drop_rows(BL_T(x), BL_T(u), BL_T(rate)))
#define bl_permutation(key, n) BL_AT(bl_permutation(BL_T(key), n))
#define bl_inverse_permutation(index) BL_AT(bl_inverse_permutation(BL_T(index)))
#define bl_fake_quantize(x, scale, zero, low, high, code)                                          \
    BL_AT(bl_fake_quantize(BL_T(x), BL_T(scale), BL_T(zero), low, high, code))
#define bl_straight_through(value, x) BL_AT(bl_straight_through(BL_T(value), BL_T(x)))
#define bl_adam(gradient, step, beta1, beta2, epsilon, first, second)                              \
    BL_AT(bl_adam(BL_T(gradient), BL_T(step), BL_T(beta1), BL_T(beta2), BL_T(epsilon), first, second))

/* --- derivatives (graph transformations; each may be differentiated again) ------------------ */
/* dx[i] = d y / d x[i], y a scalar; zero where y does not depend on x[i]. */
BL_API void bl_grad(bl_tensor y, const bl_tensor *x, int count, bl_tensor *dx);
/* dx[i] = sum over j of <cotangent[j], d y[j] / d x[i]>. */
BL_API void bl_vjp(const bl_tensor *y, const bl_tensor *cotangent, int outputs, const bl_tensor *x,
                   int count, bl_tensor *dx);
/* The derivative of y along `tangent` at x: sum over i of d y / d x[i] * tangent[i]. */
BL_API bl_tensor bl_jvp(bl_tensor y, const bl_tensor *x, const bl_tensor *tangent, int count);
/* hv[i] = d <grad y, v> / d x[i], y a scalar. */
BL_API void bl_hvp(bl_tensor y, const bl_tensor *x, const bl_tensor *v, int count, bl_tensor *hv);
#define bl_grad(y, ...) BL_AT(bl_grad(BL_T(y), __VA_ARGS__))
#define bl_vjp(...) BL_AT(bl_vjp(__VA_ARGS__))
#define bl_jvp(y, ...) BL_AT(bl_jvp(BL_T(y), __VA_ARGS__))
#define bl_hvp(y, ...) BL_AT(bl_hvp(BL_T(y), __VA_ARGS__))

#endif
