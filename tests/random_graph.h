/* Random valid graphs over the primitives, with values for their inputs and a bound on the rounding
 * error of every output, so that two ways to compute them can be compared.
 *
 *     random_graph r = random_graph_new(seed, 40);      print the seed: it names the graph
 *     bl_evaluate(device, r.input, r.value, r.inputs, r.output, results, r.outputs);
 *     |a - b| <= random_graph_tolerance(&r, o)          of every element of output o
 *     random_graph_free(&r);
 *
 * Every tensor carries `bound`, its largest magnitude, and `error`, what f32 rounding may have
 * added up to, to first order. A tensor of error 0 is exact: made of multiples of 1/4 by operations
 * that round nothing. Only exact tensors go into steps (floor, comparisons, argmax, argsort, ..),
 * where the smallest error would become a large one.
 *
 * To cover another primitive: write a maker, which adds a node for some random tensor and keeps it
 * with its bound and error, or returns without doing anything where it does not fit; list it in
 * `makers`. */
#ifndef BALLAST_TESTS_RANDOM_GRAPH_H
#define BALLAST_TESTS_RANDOM_GRAPH_H

#include <math.h>
#include <stdlib.h>

#include "ballast/program.h"

enum { RANDOM_INPUTS = 16, RANDOM_OUTPUTS = 8, RANDOM_POOL = 512 };

typedef struct random_tensor {
    bl_tensor t;
    double bound, error;
} random_tensor;

typedef struct random_graph {
    bl_graph *graph;
    bl_tensor input[RANDOM_INPUTS];
    bl_array value[RANDOM_INPUTS];
    int inputs;
    bl_tensor output[RANDOM_OUTPUTS];
    double bound[RANDOM_OUTPUTS], error[RANDOM_OUTPUTS];
    int outputs;
    bl_dtype real; /* of what is no integer */
    bool smooth;   /* differentiable almost everywhere, at numbers that no two are equal of */
    bl_random random;
    random_tensor pool[RANDOM_POOL];
    int pooled;
} random_graph;

/* --- choosing ----------------------------------------------------------------------------------
 */

static inline int random_below(random_graph *r, int n)
{
    return (int)bl_random_below(&r->random, (uint32_t)n);
}

static inline bl_dtype random_dtype(random_tensor x)
{
    return bl_type_of(x.t).dtype;
}
static inline bl_shape random_shape_of(random_tensor x)
{
    return bl_type_of(x.t).shape;
}

/* A pooled tensor of the dtype, exact if asked, of rank at least `rank`; NULL graph if none is
 * found. */
static inline random_tensor random_pick(random_graph *r, bl_dtype dtype, bool exact, int rank)
{
    for (int i = 0; i < 64; i++) {
        random_tensor x = r->pool[random_below(r, r->pooled)];
        if (random_dtype(x) == dtype && (!exact || x.error == 0) && bl_rank(x.t) >= rank)
            return x;
    }
    return (random_tensor){.t = {.graph = NULL}};
}

static inline bool random_found(random_tensor x)
{
    return x.t.graph != NULL;
}

/* Keeps a tensor, unless it is large, or so inexact that comparing it would say little. */
static inline void random_keep(random_graph *r, bl_tensor t, double bound, double error)
{
    bool useful = bound < 1e6 && error < 1e-2 * fmax(1, bound);
    if (bl_is_poison(t) || !useful || bl_type_count(bl_type_of(t)) > 20000)
        return;
    if (r->pooled < RANDOM_POOL)
        r->pool[r->pooled++] = (random_tensor){t, bound, error};
}

/* With the rounding of the operation itself. */
static inline void random_keep_rounded(random_graph *r, bl_tensor t, double bound, double error)
{
    random_keep(r, t, bound, error + 1.2e-7 * bound);
}

/* A sum or difference of multiples of 1/4 is exact while it has at most 24 bits. */
static inline void random_keep_sum(random_graph *r, bl_tensor t, double bound, double error)
{
    bool exact = error == 0 && bound < 1 << 20;
    random_keep(r, t, bound, exact ? 0 : error + 1.2e-7 * bound);
}

/* --- inputs ------------------------------------------------------------------------------------
 */

/* Multiples of 1/4 in [-2, 2], or where smooth any number in it; integers in [0, limit); one bool
 * in two. */
static inline void random_fill(random_graph *r, bl_array *array, int limit)
{
    for (int64_t i = 0; i < bl_array_count(array); i++) {
        bool real = bl_dtype_is_float(array->type.dtype);
        double value = real && r->smooth              ? 4 * bl_random_unit(&r->random) - 2
                       : real                         ? (random_below(r, 17) - 8) / 4.0
                       : array->type.dtype == BL_BOOL ? random_below(r, 2)
                                                      : random_below(r, limit);
        bl_array_set(array, i, value);
    }
}

/* A new input, or where there are enough, a constant. Poison if memory is short. */
static inline bl_tensor random_leaf(random_graph *r, bl_dtype dtype, bl_shape shape, int limit)
{
    bl_array array;
    if (bl_array_new(dtype, shape, &array) != BL_OK)
        return (bl_tensor){.graph = r->graph, .id = -1};
    random_fill(r, &array, limit);
    if (r->inputs == RANDOM_INPUTS || random_below(r, 4) == 0) {
        bl_tensor constant = bl_constant(r->graph, &array);
        bl_array_free(&array);
        return constant;
    }
    r->value[r->inputs] = array;
    r->input[r->inputs] = bl_input(r->graph, "x", dtype, shape);
    return r->input[r->inputs++];
}

static inline random_tensor random_new(random_graph *r, bl_dtype dtype, bl_shape shape, int limit)
{
    double bound = bl_dtype_is_float(dtype) ? 2 : dtype == BL_BOOL ? 1 : limit;
    random_tensor x = {random_leaf(r, dtype, shape, limit), bound, 0};
    random_keep(r, x.t, x.bound, x.error);
    return x;
}

static inline bl_shape random_shape(random_graph *r)
{
    static const int sizes[] = {1, 2, 3, 5, 8, 17};
    bl_shape shape = {.rank = random_below(r, 5)};
    for (int i = 0; i < shape.rank; i++)
        shape.dim[i] = sizes[random_below(r, shape.rank > 3 ? 4 : 6)];
    return shape;
}

/* Something that x can meet elementwise: of its shape, or broadcast to it. */
static inline random_tensor random_partner(random_graph *r, random_tensor x, bool exact)
{
    for (int i = 0; i < 16; i++) {
        random_tensor y = random_pick(r, random_dtype(x), exact, 0);
        if (random_found(y) && bl_shape_equal(random_shape_of(x), random_shape_of(y)))
            return y;
    }
    bl_shape shape = random_shape_of(x);
    for (int i = 0; i < shape.rank; i++)
        if (random_below(r, 2))
            shape.dim[i] = 1;
    int lead = shape.rank > 0 && random_below(r, 2) ? random_below(r, shape.rank) : 0;
    for (int i = 0; i < shape.rank - lead; i++)
        shape.dim[i] = shape.dim[i + lead];
    shape.rank -= lead;
    return random_new(r, random_dtype(x), shape, 5);
}

/* --- makers: elementwise -----------------------------------------------------------------------
 */

static inline void random_smooth(random_graph *r)
{
    random_tensor x = random_pick(r, r->real, false, 0);
    bl_tensor positive = bl_add(bl_abs(x.t), 0.5); /* slopes of log, sqrt, .. are at most 4 here */
    double high = x.bound + 0.5;
    switch (random_below(r, 13)) {
    case 0:
        random_keep_rounded(r, bl_tanh(x.t), 1, x.error);
        break;
    case 1:
        random_keep_rounded(r, bl_sigmoid(x.t), 1, x.error);
        break;
    case 2:
        random_keep_rounded(r, bl_erf(x.t), 1, 1.2 * x.error);
        break;
    case 3:
        random_keep_rounded(r, bl_sin(x.t), 1, x.error);
        break;
    case 4:
        random_keep_rounded(r, bl_cos(x.t), 1, x.error);
        break;
    case 5:
        random_keep_rounded(r, bl_atan(x.t), 1.6, x.error);
        break;
    case 6:
        if (x.bound < 4)
            random_keep_rounded(r, bl_exp(x.t), exp(x.bound), exp(x.bound) * x.error);
        break;
    case 7:
        if (x.bound < 4)
            random_keep_rounded(r, bl_expm1(x.t), exp(x.bound), exp(x.bound) * x.error);
        break;
    case 8:
        random_keep_rounded(r, bl_log(positive), fmax(1, log(high)), 2 * x.error + 1e-7);
        break;
    case 9:
        random_keep_rounded(r, bl_log1p(positive), log1p(high), x.error + 1e-7 * high);
        break;
    case 10:
        random_keep_rounded(r, bl_sqrt(positive), sqrt(high), x.error + 1e-7 * high);
        break;
    case 11:
        random_keep_rounded(r, bl_rsqrt(positive), 1.5, 1.5 * x.error + 1e-7 * high);
        break;
    default:
        if (x.bound < 16 && r->smooth) /* digamma has no second gradient */
            random_keep_rounded(r, bl_lgamma(positive), 30, 3 * x.error + 1e-6);
        else if (x.bound < 16)
            random_keep_rounded(r, bl_digamma(positive), 4, 5 * x.error + 1e-6);
    }
}

static inline void random_linear_unary(random_graph *r)
{
    random_tensor x = random_pick(r, r->real, false, 0);
    switch (random_below(r, r->smooth ? 2 : 4)) { /* the others are not what differences see */
    case 0:
        random_keep(r, bl_neg(x.t), x.bound, x.error);
        break;
    case 1:
        random_keep(r, bl_abs(x.t), x.bound, x.error);
        break;
    case 2:
        random_keep(r, bl_stop_gradient(x.t), x.bound, x.error);
        break;
    default:
        random_keep(r, bl_cast(bl_cast(x.t, BL_F64), BL_F32), x.bound, x.error);
    }
}

static inline void random_step(random_graph *r) /* where the value jumps: exact operands only */
{
    random_tensor x = random_pick(r, r->real, true, 0);
    if (!random_found(x))
        return;
    switch (random_below(r, 6)) {
    case 0:
        random_keep(r, bl_floor(x.t), x.bound + 1, 0);
        break;
    case 1:
        random_keep(r, bl_round(x.t), x.bound + 1, 0);
        break;
    case 2:
        random_keep(r, bl_sign(x.t), 1, 0);
        break;
    case 3:
        random_keep(r, bl_rem(x.t, random_below(r, 3) + 1), 3, 0);
        break;
    case 4:
        random_keep(r, bl_isfinite(x.t), 1, 0);
        break;
    default:
        if (x.bound < 1000)
            random_keep(r, bl_cast(x.t, BL_I32), x.bound, 0);
    }
}

static inline void random_binary(random_graph *r)
{
    random_tensor x = random_pick(r, r->real, false, 0), y = random_partner(r, x, false);
    double error = x.error + y.error;
    switch (random_below(r, 8)) {
    case 0:
        random_keep_sum(r, bl_add(x.t, y.t), x.bound + y.bound, error);
        break;
    case 1:
        random_keep_sum(r, bl_sub(x.t, y.t), x.bound + y.bound, error);
        break;
    case 2:
    case 3:
        random_keep_rounded(r, bl_mul(x.t, y.t), x.bound * y.bound,
                            x.bound * y.error + y.bound * x.error);
        break;
    case 4: /* |y| + 0.5 below the line */
        random_keep_rounded(r, bl_div(x.t, bl_add(bl_abs(y.t), 0.5)), 2 * x.bound,
                            2 * x.error + 4 * x.bound * (y.error + 1e-7 * y.bound));
        break;
    case 5:
        random_keep(r, bl_max(x.t, y.t), fmax(x.bound, y.bound), fmax(x.error, y.error));
        break;
    case 6:
        random_keep(r, bl_min(x.t, y.t), fmax(x.bound, y.bound), fmax(x.error, y.error));
        break;
    default:
        random_keep_rounded(r, bl_atan2(x.t, bl_add(bl_abs(y.t), 0.5)), 1.6,
                            2 * error + 1e-7 * y.bound);
    }
}

/* What the identities of the passes are about. */
static inline void random_identity(random_graph *r)
{
    random_tensor x = random_pick(r, r->real, false, 0);
    switch (random_below(r, 6)) {
    case 0:
        random_keep(r, bl_mul(1, x.t), x.bound, x.error);
        break;
    case 1:
        random_keep(r, bl_add(0, x.t), x.bound, x.error);
        break;
    case 2:
        random_keep(r, bl_sub(0, bl_mul(x.t, -1)), x.bound, x.error);
        break;
    case 3:
        random_keep_rounded(r, bl_pow(x.t, 2), x.bound * x.bound, 2 * x.bound * x.error);
        break;
    case 4:
        random_keep(r, bl_div(bl_neg(bl_neg(x.t)), -1), x.bound, x.error);
        break;
    default:
        random_keep_sum(r, bl_sub(x.t, bl_neg(x.t)), 2 * x.bound, 2 * x.error);
    }
}

static inline void random_compare(random_graph *r)
{
    random_tensor x = random_pick(r, r->real, true, 0);
    if (!random_found(x))
        return;
    random_tensor y = random_partner(r, x, true);
    bl_tensor z = x.t;
    switch (random_below(r, 6)) {
    case 0:
        z = bl_lt(x.t, y.t);
        break;
    case 1:
        z = bl_le(x.t, y.t);
        break;
    case 2:
        z = bl_gt(x.t, y.t);
        break;
    case 3:
        z = bl_ge(x.t, y.t);
        break;
    case 4:
        z = bl_eq(x.t, y.t);
        break;
    default:
        z = bl_ne(x.t, y.t);
    }
    random_keep(r, z, 1, 0);
}

static inline void random_logic(random_graph *r)
{
    random_tensor x = random_pick(r, BL_BOOL, true, 0);
    if (!random_found(x))
        return;
    random_tensor y = random_partner(r, x, true);
    switch (random_below(r, 4)) {
    case 0:
        random_keep(r, bl_and(x.t, y.t), 1, 0);
        break;
    case 1:
        random_keep(r, bl_or(x.t, y.t), 1, 0);
        break;
    case 2:
        random_keep(r, bl_not(x.t), 1, 0);
        break;
    default:
        random_keep(r, bl_cast(x.t, random_below(r, 2) ? r->real : BL_I32), 1, 0);
    }
}

static inline void random_select(random_graph *r)
{
    random_tensor x = random_pick(r, r->real, false, 0), y = random_partner(r, x, false);
    bl_shape shape = random_shape_of(x);
    for (int i = 0; i < shape.rank; i++)
        if (random_below(r, 3) == 0)
            shape.dim[i] = 1;
    random_tensor c = random_new(r, BL_BOOL, shape, 2);
    if (random_below(r, 2))
        random_keep(r, bl_select(c.t, x.t, y.t), fmax(x.bound, y.bound), fmax(x.error, y.error));
    else
        random_keep(r, bl_clamp(x.t, -1, 0.5), 1, x.error);
}

static inline void random_integers(random_graph *r)
{
    random_tensor x = random_pick(r, BL_I32, true, 0);
    if (!random_found(x))
        return;
    random_tensor y = random_partner(r, x, true);
    switch (random_below(r, 6)) {
    case 0:
        random_keep(r, bl_add(x.t, y.t), x.bound + y.bound, 0);
        break;
    case 1:
        random_keep(r, bl_mul(x.t, y.t), x.bound * y.bound, 0);
        break;
    case 2:
        random_keep(r, bl_div(x.t, y.t), x.bound, 0);
        break;
    case 3:
        random_keep(r, bl_rem(x.t, y.t), x.bound, 0);
        break;
    case 4:
        random_keep(r, bl_sub(x.t, y.t), x.bound + y.bound, 0);
        break;
    default:
        random_keep(r, bl_cast(x.t, r->real), x.bound, x.bound < 1 << 20 ? 0 : 1e-7 * x.bound);
    }
}

/* --- makers: movement and indexing --------------------------------------------------------------
 */

static inline random_tensor random_movable(random_graph *r, int rank)
{
    const bl_dtype dtypes[] = {r->real, r->real, r->real, BL_I32, BL_BOOL};
    return random_pick(r, dtypes[random_below(r, 5)], false, rank);
}

static inline void random_reshape(random_graph *r)
{
    random_tensor x = random_movable(r, 0);
    if (!random_found(x))
        return;
    int64_t count = bl_type_count(bl_type_of(x.t)), rows = 1;
    for (int64_t d = 1; d <= count; d++)
        if (count % d == 0 && random_below(r, 2))
            rows = d;
    bl_shape shape = random_below(r, 2) ? BL_SHAPE(rows, count / rows) : BL_SHAPE(count);
    random_keep(r, bl_reshape(x.t, shape), x.bound, x.error);
}

static inline void random_transpose(random_graph *r)
{
    random_tensor x = random_movable(r, 2);
    if (!random_found(x))
        return;
    int32_t order[BL_MAX_RANK];
    int axes[BL_MAX_RANK + 1], rank = bl_rank(x.t);
    bl_random_permutation(&r->random, order, rank);
    for (int i = 0; i < rank; i++)
        axes[i] = order[i];
    axes[rank] = BL_END;
    random_keep(r, bl_transpose_to(x.t, axes), x.bound, x.error);
}

static inline void random_slice(random_graph *r)
{
    random_tensor x = random_movable(r, 1);
    if (!random_found(x))
        return;
    bl_shape shape = random_shape_of(x), start = shape, stop = shape, step = shape;
    for (int i = 0; i < shape.rank; i++) {
        start.dim[i] = random_below(r, (int)shape.dim[i]);
        stop.dim[i] = start.dim[i] + 1 + random_below(r, (int)(shape.dim[i] - start.dim[i]));
        step.dim[i] = 1 + random_below(r, 2);
    }
    random_keep(r, bl_slice(x.t, start, stop, step), x.bound, x.error);
}

static inline void random_pad(random_graph *r)
{
    random_tensor x = random_movable(r, 1);
    if (!random_found(x))
        return;
    bl_shape low = random_shape_of(x), high = low;
    for (int i = 0; i < low.rank; i++) {
        low.dim[i] = random_below(r, 3);
        high.dim[i] = random_below(r, 3);
    }
    random_keep(r, bl_pad(x.t, low, high, random_below(r, 2)), fmax(1, x.bound), x.error);
}

static inline void random_other_movement(random_graph *r)
{
    random_tensor x = random_movable(r, 1);
    if (!random_found(x))
        return;
    int axis = random_below(r, bl_rank(x.t));
    bl_shape shape = random_shape_of(x);
    if (random_below(r, 2)) {
        random_keep(r, bl_reverse(x.t, axis), x.bound, x.error);
    } else if (random_below(r, 2)) {
        random_tensor y = random_new(r, random_dtype(x), shape, 5);
        bl_tensor parts[] = {x.t, y.t, x.t};
        random_keep(r, bl_concat(parts, 3, axis), fmax(x.bound, y.bound), x.error);
    } else if (shape.rank < 4) {
        for (int i = shape.rank++; i > 0; i--)
            shape.dim[i] = shape.dim[i - 1];
        shape.dim[0] = 1 + random_below(r, 4);
        random_keep(r, bl_broadcast(x.t, shape), x.bound, x.error);
    }
}

static inline void random_rows(random_graph *r)
{
    random_tensor x = random_pick(r, r->real, false, 1);
    if (!random_found(x))
        return;
    bl_shape shape = random_shape_of(x);
    int rows = 1 + random_below(r, 6);
    random_tensor index = random_new(r, BL_I32, BL_SHAPE(rows), (int)shape.dim[0]);
    if (random_below(r, 2)) {
        random_keep(r, bl_take(x.t, index.t), x.bound, x.error);
        return;
    }
    bl_shape updates = shape;
    updates.dim[0] = rows;
    random_tensor y = random_new(r, r->real, updates, 0);
    random_keep_sum(r, bl_add_at(x.t, index.t, y.t), x.bound + rows * y.bound, x.error);
    if (shape.dim[0] < 4)
        return;
    bl_tensor distinct = bl_slice_axis(bl_iota(r->graph, BL_I32, BL_SHAPE(4), 0), 0, 1, 3);
    updates.dim[0] = 2;
    random_tensor z = random_new(r, r->real, updates, 0);
    random_keep(r, bl_put(x.t, distinct, z.t), fmax(x.bound, z.bound), x.error);
}

static inline void random_along(random_graph *r)
{
    random_tensor x = random_pick(r, r->real, false, 1);
    if (!random_found(x))
        return;
    int axis = random_below(r, bl_rank(x.t));
    bl_shape shape = random_shape_of(x), updates = shape;
    int length = 1 + random_below(r, 4);
    updates.dim[axis] = length;
    random_tensor index = random_new(r, BL_I32, updates, (int)shape.dim[axis]);
    if (random_below(r, 2)) {
        random_keep(r, bl_take_along(x.t, index.t, axis), x.bound, x.error);
        return;
    }
    random_tensor y = random_new(r, r->real, updates, 0);
    random_keep_sum(r, bl_add_along(x.t, index.t, y.t, axis), x.bound + length * y.bound, x.error);
}

static inline void random_order(random_graph *r)
{
    random_tensor x = random_pick(r, random_below(r, 2) ? r->real : BL_I32, true, 1);
    if (!random_found(x))
        return;
    int axis = random_below(r, bl_rank(x.t));
    double length = (double)bl_dim(x.t, axis);
    if (random_below(r, 2))
        random_keep(r, bl_argsort(x.t, axis, random_below(r, 2)), length, 0);
    else if (random_below(r, 2))
        random_keep(r, bl_argmax(x.t, axis), length, 0);
    else
        random_keep(r, bl_argmin(x.t, axis), length, 0);
}

static inline void random_bits(random_graph *r)
{
    bl_tensor key = random_new(r, BL_U32, BL_SHAPE(2), 1000).t;
    bl_tensor bits = bl_random_bits(key, (uint32_t)random_below(r, 3), 0, random_shape(r));
    random_keep(r, bl_cast(bl_rem(bits, 16), r->real), 16, 0);
}

/* --- makers: reductions and contractions ---------------------------------------------------------
 */

static inline void random_reduce(random_graph *r)
{
    random_tensor x = random_pick(r, random_below(r, 4) ? r->real : BL_I32, false, 0);
    if (!random_found(x))
        return;
    int axes[BL_MAX_RANK + 1], count = 0;
    double n = 1;
    for (int i = 0; i < bl_rank(x.t); i++)
        if (random_below(r, 2)) {
            axes[count++] = i;
            n *= (double)bl_dim(x.t, i);
        }
    axes[count] = BL_END;
    if (count == 0)
        n = (double)bl_type_count(bl_type_of(x.t));
    switch (random_below(r, 6)) {
    case 0:
        random_keep(r, bl_reduce_max_over(x.t, axes), x.bound, x.error);
        break;
    case 1:
        random_keep(r, bl_reduce_min_over_keep(x.t, axes), x.bound, x.error);
        break;
    case 2:
        if (n <= 8 && x.bound <= 4 && random_dtype(x) == r->real)
            random_keep_rounded(r, bl_prod_over(x.t, axes), pow(fmax(1, x.bound), n),
                                n * pow(fmax(1, x.bound), n) * (x.error + 1e-7));
        break;
    case 3:
        random_keep_sum(r, bl_sum_over_keep(x.t, axes), n * x.bound, n * x.error);
        break;
    default:
        random_keep_sum(r, bl_sum_over(x.t, axes), n * x.bound, n * x.error);
    }
}

static inline void random_cumsum(random_graph *r)
{
    random_tensor x = random_pick(r, r->real, false, 1);
    if (!random_found(x))
        return;
    int axis = random_below(r, bl_rank(x.t));
    double n = (double)bl_dim(x.t, axis);
    random_keep_sum(r, bl_cumsum(x.t, axis), n * x.bound, n * x.error);
}

static inline void random_dot(random_graph *r)
{
    random_tensor x = random_pick(r, r->real, false, 2);
    if (!random_found(x))
        return;
    bl_shape shape = random_shape_of(x), other = shape;
    bool ta = random_below(r, 2), tb = random_below(r, 2);
    int rank = shape.rank;
    int64_t k = shape.dim[rank - (ta ? 2 : 1)], n = 1 + random_below(r, 20);
    other.dim[rank - 2] = tb ? n : k;
    other.dim[rank - 1] = tb ? k : n;
    random_tensor y = random_new(r, r->real, other, 0);
    random_keep_rounded(r, bl_dot(x.t, y.t, ta, tb), (double)k * x.bound * y.bound,
                        (double)k * y.bound * (x.error + 1e-7 * x.bound));
}

static inline void random_conv(random_graph *r)
{
    int groups = 1 + random_below(r, 2), in = groups * (1 + random_below(r, 3));
    int out = groups * (1 + random_below(r, 4)), size = 3 + random_below(r, 6);
    bl_conv_options o = {.groups = groups};
    for (int i = 0; i < 2; i++) {
        o.stride[i] = 1 + random_below(r, 2);
        o.dilation[i] = 1 + random_below(r, 2);
        o.low[i] = random_below(r, 3);
        o.high[i] = random_below(r, 3);
    }
    bl_shape window = BL_SHAPE(1 + random_below(r, 2), 1 + random_below(r, 2), in / groups, out);
    random_tensor x = random_new(r, r->real, BL_SHAPE(2, size, size + 1, in), 0);
    random_tensor w = random_new(r, r->real, window, 0);
    double n = (double)(window.dim[0] * window.dim[1] * window.dim[2]);
    bl_tensor z = bl_conv(x.t, w.t, o);
    random_keep_rounded(r, z, 4 * n, 1e-7 * 4 * n);
    if (bl_is_poison(z))
        return;
    random_tensor g = random_new(r, r->real, bl_type_of(z).shape, 0);
    bl_shape image = random_shape_of(x);
    double places = (double)(bl_dim(z, 0) * bl_dim(z, 1) * bl_dim(z, 2));
    double reach = (double)(window.dim[0] * window.dim[1] * out);
    random_keep_rounded(r, bl_conv_dx(g.t, w.t, image, o), 4 * reach, 1e-7 * 4 * reach);
    random_keep_rounded(r, bl_conv_dw(x.t, g.t, window, o), 4 * places, 1e-7 * 4 * places);
}

static inline void random_windows(random_graph *r)
{
    int rows = 1 + random_below(r, 3), columns = 1 + random_below(r, 3);
    bl_conv_options o = {.low = {random_below(r, 2), 0}, .high = {0, random_below(r, 3)}};
    for (int i = 0; i < 2; i++) {
        o.stride[i] = 1 + random_below(r, 3);
        o.dilation[i] = 1 + random_below(r, 2);
    }
    random_tensor x = random_new(r, r->real, BL_SHAPE(2, 6, 5, 1 + random_below(r, 4)), 0);
    bl_tensor z = bl_patches(x.t, rows, columns, o);
    random_keep(r, z, x.bound, x.error);
    double most = (double)(rows * columns);
    random_keep_sum(r, bl_fold(z, random_shape_of(x), o), most * x.bound, most * x.error);
}

/* Decompositions of well-conditioned exact matrices; what is kept does not depend on signs. */
static inline void random_matrix(random_graph *r)
{
    int n = 1 + random_below(r, 6);
    random_tensor x = random_new(r, r->real, BL_SHAPE(2, n, n), 0);
    bl_tensor place = bl_iota(r->graph, BL_I32, BL_SHAPE(n, n), 0), one = bl_full_like(x.t, 1);
    bl_tensor unit = bl_cast(bl_eq(place, bl_transpose(place)), r->real);
    bl_tensor a = bl_add(bl_dot(x.t, x.t, false, true), unit), w, u, v;
    double bound = 4 * n * n + 1, loss = 1e-6 * n * bound;
    bl_tensor l = bl_cholesky(a);
    random_keep(r, l, sqrt(bound), loss);
    bl_tensor lower = bl_add(bl_clamp(x.t, -0.25, 0.25), bl_mul(2, unit));
    random_keep(r, bl_triangular_solve(lower, one, random_below(r, 2), random_below(r, 2)), 4,
                1e-5);
    bl_eigh(a, &w, &v);
    random_keep(r, w, bound, loss);
    bl_svd(x.t, &u, &w, &v);
    random_keep(r, w, 2 * n, 1e-6 * n * n);
}

/* --- makers: control -----------------------------------------------------------------------------
 */

static inline void random_scan_body(bl_graph *g, const bl_tensor *carry, const bl_tensor *x,
                                    bl_tensor *carry_next, bl_tensor *y, void *context)
{
    bl_tensor captured = *(const bl_tensor *)context;
    (void)g;
    carry_next[0] = bl_add(bl_tanh(bl_mul(carry[0], captured)), bl_mul(0.5, x[0]));
    carry_next[1] = bl_add(carry[1], bl_cast(bl_gt(x[0], 0), BL_I32));
    y[0] = bl_sub(carry_next[0], captured);
}

static inline void random_scan(random_graph *r)
{
    bl_shape row = BL_SHAPE(1 + random_below(r, 4), 1 + random_below(r, 9));
    int64_t steps = random_below(r, 5);
    random_tensor start = random_new(r, r->real, row, 0), w = random_new(r, r->real, row, 0);
    bl_tensor x = random_leaf(r, r->real, BL_SHAPE(steps, row.dim[0], row.dim[1]), 0), y, last[2];
    bl_tensor carry[2] = {start.t, bl_full(r->graph, BL_I32, row, 0)};
    bl_scan(r->graph, steps, random_scan_body, &w.t, carry, 2, &x, 1, last, &y, 1);
    double error = steps ? 1e-6 * pow(2, (double)steps) : 0;
    random_keep(r, last[0], 2, error);
    random_keep(r, last[1], 5, 0);
    if (steps > 0)
        random_keep(r, y, 4, error);
}

static inline bl_tensor random_unsettled(bl_graph *g, const bl_tensor *carry, void *context)
{
    (void)g, (void)context;
    return bl_gt(bl_reduce_max(carry[0]), 1);
}

static inline void random_halve(bl_graph *g, const bl_tensor *carry, bl_tensor *carry_next,
                                void *context)
{
    (void)g, (void)context;
    carry_next[0] = bl_div(carry[0], 2);
}

static inline void random_no_slope(bl_graph *g, const bl_tensor *in, const bl_tensor *out,
                                   const bl_tensor *cotangent, bl_tensor *slope, void *context)
{
    (void)g, (void)in, (void)out, (void)cotangent, (void)slope, (void)context;
}

static inline void random_other_control(random_graph *r)
{
    random_tensor x = random_pick(r, BL_I32, true, 0), z = random_pick(r, r->real, true, 0);
    if (!random_found(x) || !random_found(z))
        return;
    bl_tensor last, same[2], both[2] = {x.t, z.t};
    bl_tensor steps = bl_while(r->graph, 6, random_unsettled, random_halve, NULL, &x.t, 1, &last);
    random_keep(r, steps, 6, 0);
    random_keep(r, last, x.bound, 0);
    if (r->smooth)
        return;
    bl_override_gradient(both, 2, both, 2, random_no_slope, NULL, same);
    random_keep(r, same[0], x.bound, 0);
    random_keep(r, same[1], z.bound, 0);
}

/* --- the graph -----------------------------------------------------------------------------------
 */

typedef void random_maker(random_graph *r);

static inline void random_make(random_graph *r)
{
    static random_maker *const makers[] = {
        random_smooth,   random_smooth,  random_smooth,         random_linear_unary,
        random_step,     random_binary,  random_binary,         random_binary,
        random_identity, random_compare, random_logic,          random_select,
        random_integers, random_reshape, random_transpose,      random_slice,
        random_pad,      random_rows,    random_other_movement, random_along,
        random_order,    random_bits,    random_reduce,         random_reduce,
        random_cumsum,   random_dot,     random_conv,           random_windows,
        random_matrix,   random_scan,    random_other_control,
    };
    makers[random_below(r, (int)(sizeof makers / sizeof makers[0]))](r);
}

static inline random_graph random_graph_make(uint64_t seed, int steps, bl_dtype real, bool smooth)
{
    random_graph r = {.graph = bl_graph_new(), .random = bl_random_new(bl_key_from_seed(seed))};
    r.real = real, r.smooth = smooth;
    if (!r.graph)
        return r;
    for (int i = 0; i < 3; i++)
        random_new(&r, real, random_shape(&r), 0);
    random_new(&r, BL_I32, random_shape(&r), 7);
    for (int i = 0; i < steps && r.pooled > 0 && bl_graph_status(r.graph) == BL_OK; i++)
        random_make(&r);
    for (; r.outputs < RANDOM_OUTPUTS && r.pooled > 0; r.outputs++) {
        int newest = r.pooled - 1 - r.outputs;
        int at = r.outputs < 3 && newest >= 0 ? newest : random_below(&r, r.pooled);
        r.output[r.outputs] = r.pool[at].t;
        r.bound[r.outputs] = r.pool[at].bound;
        r.error[r.outputs] = r.pool[at].error;
    }
    return r;
}

/* About `steps` nodes and some more for their operands. The graph's status is bad if memory was
 * short; r.graph is NULL if there was none at all. */
static inline random_graph random_graph_new(uint64_t seed, int steps)
{
    return random_graph_make(seed, steps, BL_F32, false);
}

/* The same in f64 and with generic numbers: almost surely no step or kink is near, and every
 * gradient is what central differences say. */
static inline random_graph random_smooth_graph_new(uint64_t seed, int steps)
{
    return random_graph_make(seed, steps, BL_F64, true);
}

static inline void random_graph_free(random_graph *r)
{
    for (int i = 0; i < r->inputs; i++)
        bl_array_free(&r->value[i]);
    bl_graph_free(r->graph);
    *r = (random_graph){0};
}

/* How far two correct computations of an output may differ: each may be off by the error. */
static inline double random_graph_tolerance(const random_graph *r, int o)
{
    return 4 * r->error[o];
}

#endif
