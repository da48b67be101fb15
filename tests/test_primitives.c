/* The sweep over the table of primitives, src/graph/ops.def: every row, by every dtype, on odd
 * shapes, broadcast in every position, in every form of operand, with special numbers and ties: the
 * cpu executor against the reference, gradients and second gradients, and both against central
 * differences in f64 (sweep.h). It prints how many cases each primitive had.
 *
 * A new primitive needs an entry in `entries`, or the test fails with its name: the function that
 * lists its cases, the dtypes that it takes, the orders of derivatives that it has, the operands
 * that it has them in, and where these are smooth. What one sees only by hand (known values,
 * messages) is in test_reference.c and test_graph.c; derivatives of composites are in
 * test_gradient.c. */
#include <stdlib.h>

#include "sweep.h"

#define S(...) BL_SHAPE(__VA_ARGS__)

static sweep_operand operand(const sweep *s, int o, bl_dtype dtype, bl_shape shape)
{
    int range = o < 3 ? o : 2;
    return (sweep_operand){
        .type = {dtype, shape}, .low = s->e->low[range], .high = s->e->high[range]};
}

static sweep_operand index_of(bl_shape shape, int64_t below, bool distinct)
{
    return (sweep_operand){.type = {BL_I32, shape}, .below = below, .distinct = distinct};
}

/* --- elementwise: scalars, nothing, one, and what no vector divides ----------------------------
 */

static const bl_shape odd_shapes[] = {
    {0, {0}},   {1, {0}},    {1, {1}},    {1, {3}},        {1, {17}},         {1, {64}},
    {1, {131}}, {2, {2, 0}}, {2, {5, 7}}, {3, {3, 1, 33}}, {4, {1, 2, 3, 4}}, {2, {3, 300}}};

static sweep_case elementwise_case(const sweep *s, bl_dtype dtype, int operands, bl_shape shape)
{
    sweep_case c = {.op = s->op, .operands = operands};
    for (int o = 0; o < operands; o++)
        c.x[o] = operand(s, o, s->op == BL_OP_select && o == 0 ? BL_BOOL : dtype, shape);
    return c;
}

static void unary(sweep *s, bl_dtype dtype)
{
    for (int i = 0; i < COUNT_OF(odd_shapes); i++) {
        sweep_case c = elementwise_case(s, dtype, 1, odd_shapes[i]);
        check(s, &c, dtype);
    }
    for (uint32_t one = 1; one < 8; one++) {
        sweep_case c = elementwise_case(s, dtype, 1, S(3, 4, 5));
        c.x[0].one = one;
        check(s, &c, dtype);
    }
}

static void cast(sweep *s, bl_dtype dtype)
{
    for (int to = 0; to < BL_DTYPES; to++)
        for (int i = 0; i < COUNT_OF(odd_shapes); i++) {
            sweep_case c = elementwise_case(s, dtype, 1, odd_shapes[i]);
            c.told = true;
            c.wanted = (bl_type){(bl_dtype)to, odd_shapes[i]};
            /* f64 to f32 rounds, and differences would measure that; to whole numbers it is flat */
            if ((bl_dtype)to == dtype || !bl_dtype_is_float(dtype) ||
                !bl_dtype_is_float((bl_dtype)to))
                check(s, &c, dtype);
        }
    sweep_case narrow = elementwise_case(s, dtype, 1, S(3, 131));
    narrow.told = true;
    narrow.wanted = (bl_type){dtype == BL_F32 ? BL_F64 : BL_F32, S(3, 131)};
    built b = build_case(s, &narrow, (int[]){0});
    check_values(s, &narrow, &b);
    free_case(&narrow, &b);
}

/* Every operand broadcast along every set of axes, and all pairs of special numbers. */
static void several(sweep *s, bl_dtype dtype, int operands)
{
    for (int i = 0; i < COUNT_OF(odd_shapes); i++) {
        sweep_case c = elementwise_case(s, dtype, operands, odd_shapes[i]);
        check(s, &c, dtype);
    }
    for (int o = 0; o < operands; o++)
        for (uint32_t one = 1; one < 8; one++) {
            sweep_case c = elementwise_case(s, dtype, operands, S(3, 4, 5));
            c.x[o].one = one;
            check(s, &c, dtype);
        }
    for (uint32_t one = 0; one < 1u << 2 * operands; one++) {
        sweep_case c = elementwise_case(s, dtype, operands, operands == 2 ? S(3, 150) : S(7, 5));
        for (int o = 0; o < operands; o++)
            c.x[o].one = one >> 2 * o & 3;
        if (dtype == BL_F32 || one % 5 == 1)
            check(s, &c, dtype);
    }
    sweep_case pairs = elementwise_case(s, dtype, operands, S(24, 24));
    pairs.x[operands - 2].one = 2;
    pairs.x[operands - 1].one = 1;
    check(s, &pairs, dtype);
}

static void binary(sweep *s, bl_dtype dtype)
{
    several(s, dtype, 2);
}
static void ternary(sweep *s, bl_dtype dtype)
{
    several(s, dtype, 3);
}

/* --- leaves ------------------------------------------------------------------------------------
 */

static bl_tensor the_operand(BL_UNUSED bl_graph *g, const bl_tensor *x,
                             BL_UNUSED const sweep_case *c)
{
    return x[0];
}

static void input_cases(sweep *s, bl_dtype dtype)
{
    for (int i = 0; i < COUNT_OF(odd_shapes); i++) {
        sweep_case c = elementwise_case(s, dtype, 1, odd_shapes[i]);
        c.build = the_operand;
        check(s, &c, dtype);
    }
}

/* An array, sliced, so that it is also read in part; and one value for all elements. */
static bl_tensor constant_array(bl_graph *g, BL_UNUSED const bl_tensor *x, const sweep_case *c)
{
    bl_array a;
    expect_ok(bl_array_new(c->wanted.dtype, c->wanted.shape, &a));
    for (int64_t i = 0; i < bl_array_count(&a); i++)
        bl_array_set(&a, i, special_number(c->op, a.type.dtype, i));
    bl_tensor constant = bl_constant(g, &a);
    bl_array_free(&a);
    return constant.id >= 0 && c->attr.flag ? bl_transpose(constant) : constant;
}

static void constant(sweep *s, bl_dtype dtype)
{
    for (int i = 0; i < COUNT_OF(odd_shapes); i++)
        for (int form = 0; form < 3; form++) {
            sweep_case c = {.op = s->op, .wanted = {dtype, odd_shapes[i]}, .told = true};
            c.attr.flag = form == 1;
            c.build = form < 2 ? constant_array : NULL;
            c.attr.value = form == 2;
            check(s, &c, dtype);
        }
}

static void iota(sweep *s, bl_dtype dtype)
{
    for (int i = 0; i < COUNT_OF(odd_shapes); i++)
        for (int axis = 0; axis < odd_shapes[i].rank; axis++) {
            sweep_case c = {.op = s->op, .wanted = {dtype, odd_shapes[i]}, .told = true};
            c.attr.axis = axis;
            if (odd_shapes[i].dim[axis] <= 128)
                check(s, &c, dtype);
        }
}

static void random_bits(sweep *s, bl_dtype dtype)
{
    for (int i = 0; i < COUNT_OF(odd_shapes); i++)
        for (int first = 0; first < 3; first++) {
            sweep_case c = {.op = s->op, .operands = 1, .told = true};
            c.x[0] = operand(s, 0, dtype, S(2));
            c.wanted = (bl_type){BL_U32, odd_shapes[i]};
            c.attr.a[0] = 7, c.attr.a[2] = first * 5;
            check(s, &c, dtype);
        }
}

/* --- movement ----------------------------------------------------------------------------------
 */

static sweep_case moved(const sweep *s, bl_dtype dtype, bl_shape from)
{
    return (sweep_case){.op = s->op, .operands = 1, .x = {operand(s, 0, dtype, from)}};
}

static void reshape(sweep *s, bl_dtype dtype)
{
    static const bl_shape to[][2] = {{{0, {0}}, {3, {1, 1, 1}}},      {{1, {1}}, {0, {0}}},
                                     {{1, {0}}, {2, {3, 0}}},         {{2, {3, 0}}, {3, {0, 5, 2}}},
                                     {{2, {6, 35}}, {3, {7, 5, 6}}},  {{3, {2, 3, 4}}, {1, {24}}},
                                     {{3, {3, 1, 33}}, {2, {33, 3}}}, {{1, {131}}, {2, {131, 1}}},
                                     {{4, {2, 2, 3, 3}}, {2, {9, 4}}}};
    for (int i = 0; i < COUNT_OF(to); i++) {
        sweep_case c = moved(s, dtype, to[i][0]);
        c.told = true;
        c.wanted = (bl_type){dtype, to[i][1]};
        check(s, &c, dtype);
    }
}

static void broadcast(sweep *s, bl_dtype dtype)
{
    for (int size = 0; size < 18; size += 17)
        for (uint32_t one = 0; one < 8; one++) {
            bl_shape from = S(3, 5, size), to = from;
            for (int i = 0; i < 3; i++)
                if (one >> i & 1)
                    from.dim[i] = 1;
            sweep_case c = moved(s, dtype, from);
            c.told = true;
            c.wanted = (bl_type){dtype, to};
            check(s, &c, dtype);
        }
}

static void transpose(sweep *s, bl_dtype dtype)
{
    static const int64_t order[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 0, 2, 3}, {0, 2, 1, 3},
                                       {2, 3, 0, 1}, {3, 0, 1, 2}, {1, 2, 3, 0}};
    static const bl_shape from[] = {
        {4, {2, 3, 5, 7}}, {4, {1, 9, 1, 4}}, {4, {2, 0, 3, 1}}, {4, {1, 1, 33, 17}}};
    for (int f = 0; f < COUNT_OF(from); f++)
        for (int i = 0; i < COUNT_OF(order); i++) {
            sweep_case c = moved(s, dtype, from[f]);
            memcpy(c.attr.a, order[i], sizeof order[i]);
            check(s, &c, dtype);
        }
    sweep_case scalar = moved(s, dtype, BL_SCALAR);
    check(s, &scalar, dtype);
}

static void slice(sweep *s, bl_dtype dtype)
{
    static const int64_t bound[][6] = {{0, 7, 1, 0, 33, 1}, {2, 5, 1, 3, 20, 1},
                                       {0, 7, 3, 1, 33, 2}, {6, 7, 5, 0, 33, 32},
                                       {3, 3, 1, 4, 5, 1},  {1, 6, 2, 32, 33, 1}};
    for (int i = 0; i < COUNT_OF(bound); i++) {
        sweep_case c = moved(s, dtype, S(7, 33));
        for (int axis = 0; axis < 2; axis++) {
            c.attr.a[axis] = bound[i][3 * axis];
            c.attr.b[axis] = bound[i][3 * axis + 1];
            c.attr.c[axis] = bound[i][3 * axis + 2];
        }
        check(s, &c, dtype);
    }
    sweep_case scalar = moved(s, dtype, BL_SCALAR);
    check(s, &scalar, dtype);
}

static void pad(sweep *s, bl_dtype dtype)
{
    static const int64_t around[][6] = {{0, 0, 0, 0, 0, 0},
                                        {1, 0, 0, 0, 2, 0},
                                        {0, 3, 2, 1, 0, 1},
                                        {2, 2, 0, 3, 1, 4},
                                        {0, 0, 5, 0, 0, 0}};
    static const bl_shape from[] = {{2, {5, 7}}, {2, {1, 17}}, {2, {0, 3}}, {2, {3, 1}}};
    for (int f = 0; f < COUNT_OF(from); f++)
        for (int i = 0; i < COUNT_OF(around); i++) {
            sweep_case c = moved(s, dtype, from[f]);
            for (int axis = 0; axis < 2; axis++) {
                c.attr.a[axis] = around[i][3 * axis];
                c.attr.b[axis] = around[i][3 * axis + 1];
                c.attr.c[axis] = around[i][3 * axis + 2];
            }
            c.attr.value = i % 2;
            check(s, &c, dtype);
        }
}

static void concat(sweep *s, bl_dtype dtype)
{
    static const int64_t sizes[][OPERANDS] = {{3}, {2, 5}, {1, 0, 4}, {17, 1, 2, 3, 1}, {0, 0}};
    static const int count[] = {1, 2, 3, 5, 2};
    for (int axis = 0; axis < 3; axis++)
        for (int i = 0; i < COUNT_OF(count); i++) {
            sweep_case c = {.op = s->op, .operands = count[i], .attr = {.axis = axis}};
            for (int o = 0; o < count[i]; o++) {
                bl_shape shape = S(2, 3, 5);
                shape.dim[axis] = sizes[i][o];
                c.x[o] = operand(s, o, dtype, shape);
            }
            check(s, &c, dtype);
        }
}

static void axis_cases(sweep *s, bl_dtype dtype, bool empty)
{
    static const bl_shape from[] = {{1, {1}},     {1, {17}},        {2, {5, 7}},
                                    {2, {33, 1}}, {3, {3, 131, 2}}, {4, {2, 1, 5, 3}},
                                    {2, {2, 0}},  {3, {1, 2, 260}}};
    for (int f = 0; f < COUNT_OF(from); f++)
        for (int axis = 0; axis < from[f].rank; axis++)
            for (int flag = 0; flag < 2; flag++) {
                sweep_case c = moved(s, dtype, from[f]);
                c.attr.axis = axis;
                c.attr.flag = flag;
                if ((flag == 0 || s->op == BL_OP_argsort) && (empty || from[f].dim[axis] > 0))
                    check(s, &c, dtype);
            }
}

static void along_an_axis(sweep *s, bl_dtype dtype)
{
    axis_cases(s, dtype, true);
}
static void extreme_along_an_axis(sweep *s, bl_dtype dtype) /* nothing has no extreme */
{
    axis_cases(s, dtype, false);
}

/* --- indexing ----------------------------------------------------------------------------------
 */

static void rows_by_index(sweep *s, bl_dtype dtype)
{
    static const bl_shape from[] = {
        {1, {7}}, {2, {5, 17}}, {3, {9, 2, 3}}, {2, {1, 1}}, {2, {4, 0}}};
    for (int f = 0; f < COUNT_OF(from); f++)
        for (int64_t count = 0; count < 14; count += count ? 6 : 1) {
            bool distinct = s->op == BL_OP_put;
            int64_t rows = from[f].dim[0], n = distinct && count > rows ? rows : count;
            bl_shape updates = from[f];
            updates.dim[0] = n;
            sweep_case c = moved(s, dtype, from[f]);
            c.operands = s->op == BL_OP_take ? 2 : 3;
            c.x[1] = index_of(S(n), rows, distinct);
            c.x[2] = operand(s, 2, dtype, updates);
            check(s, &c, dtype);
        }
}

static void elements_by_index(sweep *s, bl_dtype dtype)
{
    static const bl_shape from[] = {{1, {7}}, {2, {5, 17}}, {3, {3, 4, 2}}, {2, {1, 9}}};
    for (int f = 0; f < COUNT_OF(from); f++)
        for (int axis = 0; axis < from[f].rank; axis++)
            for (int64_t count = 0; count < 8; count += count ? 6 : 1) {
                bl_shape updates = from[f];
                updates.dim[axis] = count;
                sweep_case c = moved(s, dtype, from[f]);
                c.operands = s->op == BL_OP_take_along ? 2 : 3;
                c.attr.axis = axis;
                c.x[1] = index_of(updates, from[f].dim[axis], false);
                c.x[2] = operand(s, 2, dtype, updates);
                check(s, &c, dtype);
            }
}

/* --- reductions: every set of axes -------------------------------------------------------------
 */

static void reduction(sweep *s, bl_dtype dtype)
{
    static const bl_shape from[] = {
        {0, {0}},       {1, {1}},        {1, {131}},   {2, {5, 7}},       {2, {1, 33}},
        {3, {3, 2, 5}}, {3, {2, 17, 3}}, {2, {33, 1}}, {4, {2, 3, 1, 2}}, {2, {0, 3}}};
    bool extreme = s->op == BL_OP_reduce_max || s->op == BL_OP_reduce_min;
    for (int f = 0; f < COUNT_OF(from); f++)
        for (uint32_t axes = 0; axes < 1u << from[f].rank; axes++) {
            sweep_case c = moved(s, dtype, from[f]);
            c.attr.axes = axes;
            if (s->op == BL_OP_prod && bl_shape_count(from[f]) > 40)
                continue; /* the product leaves the range */
            if (!extreme || bl_shape_count(from[f]) > 0 || axes == 2)
                check(s, &c, dtype);
        }
}

/* --- contractions ------------------------------------------------------------------------------
 */

static void dot(sweep *s, bl_dtype dtype)
{
    static const int64_t size[][4] = {{1, 1, 1, 1},   {1, 3, 5, 2}, {1, 17, 1, 33}, {1, 1, 40, 1},
                                      {1, 0, 3, 2},   {1, 3, 0, 2}, {2, 4, 7, 5},   {3, 1, 2, 9},
                                      {1, 33, 17, 7}, {0, 2, 2, 2}};
    for (int i = 0; i < COUNT_OF(size); i++)
        for (int flags = 0; flags < 4; flags++)
            for (int batch = 0; batch < 2; batch++) {
                int64_t b = size[i][0], m = size[i][1], k = size[i][2], n = size[i][3];
                bool ta = flags & 1, tb = flags >> 1;
                sweep_case c = {.op = s->op, .operands = 2, .attr = {.flag = ta, .flag2 = tb}};
                bl_shape x = batch ? S(b, ta ? k : m, ta ? m : k) : S(ta ? k : m, ta ? m : k);
                bl_shape y = batch ? S(b, tb ? n : k, tb ? k : n) : S(tb ? n : k, tb ? k : n);
                c.x[0] = operand(s, 0, dtype, x);
                c.x[1] = operand(s, 1, dtype, y);
                check(s, &c, dtype);
            }
}

typedef struct window_case {
    bl_shape image, filter;
    bl_conv_options o;
} window_case;

static const window_case windows[] = {
    {{4, {1, 1, 1, 1}}, {4, {1, 1, 1, 1}}, {{1, 1}, {0, 0}, {0, 0}, {1, 1}, 1}},
    {{4, {2, 5, 4, 3}}, {4, {3, 2, 3, 5}}, {{1, 1}, {0, 0}, {0, 0}, {1, 1}, 1}},
    {{4, {1, 6, 7, 2}}, {4, {3, 3, 2, 4}}, {{2, 1}, {1, 1}, {1, 1}, {1, 1}, 1}},
    {{4, {2, 7, 8, 4}}, {4, {2, 3, 2, 6}}, {{1, 3}, {1, 0}, {0, 2}, {2, 1}, 2}},
    {{4, {1, 5, 5, 3}}, {4, {3, 3, 1, 3}}, {{1, 1}, {1, 1}, {1, 1}, {1, 1}, 3}},
    {{4, {1, 9, 3, 1}}, {4, {2, 2, 1, 1}}, {{3, 2}, {2, 0}, {0, 3}, {3, 2}, 1}},
    {{4, {3, 8, 8, 8}}, {4, {3, 3, 8, 16}}, {{1, 1}, {1, 1}, {1, 1}, {1, 1}, 1}},
    {{4, {0, 4, 4, 2}}, {4, {2, 2, 2, 3}}, {{1, 1}, {0, 0}, {0, 0}, {1, 1}, 1}},
    {{4, {2, 4, 4, 0}}, {4, {2, 2, 0, 3}}, {{1, 1}, {0, 0}, {0, 0}, {1, 1}, 1}},
    {{4, {1, 2, 3, 2}}, {4, {1, 1, 2, 9}}, {{1, 2}, {0, 0}, {0, 0}, {1, 1}, 1}},
};

static bl_shape slid(const window_case *w, int64_t channels)
{
    bl_shape z = w->image;
    for (int i = 0; i < 2; i++)
        z.dim[1 + i] = (z.dim[1 + i] + w->o.low[i] + w->o.high[i] -
                        (w->filter.dim[i] - 1) * w->o.dilation[i] - 1) /
                           w->o.stride[i] +
                       1;
    z.dim[3] = channels;
    return z;
}

static void convolution(sweep *s, bl_dtype dtype)
{
    for (int i = 0; i < COUNT_OF(windows); i++) {
        const window_case *w = &windows[i];
        bl_shape result = slid(w, w->filter.dim[3]);
        sweep_case c = {.op = s->op, .operands = 2, .told = true, .attr = {.conv = w->o}};
        c.x[0] = operand(s, 0, dtype, s->op == BL_OP_conv_dx ? result : w->image);
        c.x[1] = operand(s, 1, dtype, s->op == BL_OP_conv_dw ? result : w->filter);
        c.wanted = (bl_type){dtype, s->op == BL_OP_conv_dx ? w->image : w->filter};
        c.told = s->op != BL_OP_conv;
        check(s, &c, dtype);
    }
}

static void sliding(sweep *s, bl_dtype dtype)
{
    for (int i = 0; i < COUNT_OF(windows); i++) {
        const window_case *w = &windows[i];
        bl_shape z = slid(w, w->image.dim[3]);
        z = S(z.dim[0], z.dim[1], z.dim[2], w->filter.dim[0], w->filter.dim[1], z.dim[3]);
        sweep_case c = moved(s, dtype, s->op == BL_OP_fold ? z : w->image);
        c.told = s->op == BL_OP_fold;
        c.wanted = (bl_type){dtype, w->image};
        c.attr = (bl_attr){.a = {w->filter.dim[0], w->filter.dim[1]}, .conv = w->o};
        c.attr.conv.groups = 1;
        check(s, &c, dtype);
    }
}

/* --- linear algebra, of matrices that are far from singular -------------------------------------
 */

/* 3, 4, 5, .. on the diagonal. */
static bl_tensor ladder(bl_tensor like)
{
    bl_shape shape = bl_type_of(like).shape;
    int rank = shape.rank;
    bl_tensor row = bl_iota(like.graph, BL_I32, shape, rank - 2);
    bl_tensor on = bl_eq(row, bl_iota(like.graph, BL_I32, shape, rank - 1));
    return bl_select(on, bl_add(bl_cast(row, bl_type_of(like).dtype), 3), 0);
}

static bl_tensor decompose(bl_graph *g, const bl_tensor *x, const sweep_case *c)
{
    bl_dtype dtype = bl_type_of(x[0]).dtype;
    if (!bl_dtype_is_float(dtype))
        return bl_node_new(g, c->op, x, c->operands, c->attr);
    bool symmetric = c->op == BL_OP_cholesky || c->op == BL_OP_eigh;
    int axes[] = {0, 1, 2, 3, BL_END}, rank = bl_rank(x[0]);
    axes[rank] = BL_END, axes[rank - 2] = rank - 1, axes[rank - 1] = rank - 2;
    bl_tensor same = symmetric ? bl_mul(0.5, bl_add(x[0], bl_transpose_to(x[0], axes))) : x[0];
    bl_tensor both[2] = {bl_add(same, ladder(same)), x[1]};
    return bl_node_new(g, c->op, both, c->operands, c->attr);
}

static const bl_shape matrices[] = {{2, {1, 1}}, {2, {3, 3}},       {3, {2, 4, 4}},
                                    {2, {0, 0}}, {4, {1, 2, 2, 2}}, {3, {0, 2, 2}}};

static void decomposition(sweep *s, bl_dtype dtype)
{
    for (int i = 0; i < COUNT_OF(matrices); i++) {
        sweep_case c = moved(s, dtype, matrices[i]);
        c.build = decompose;
        check(s, &c, dtype);
    }
}

static void svd(sweep *s, bl_dtype dtype)
{
    static const bl_shape from[] = {
        {2, {1, 1}}, {2, {4, 2}}, {2, {2, 3}}, {3, {2, 3, 3}}, {2, {3, 0}}};
    for (int i = 0; i < COUNT_OF(from); i++) {
        sweep_case c = moved(s, dtype, from[i]);
        c.build = decompose;
        check(s, &c, dtype);
    }
}

static void triangular_solve(sweep *s, bl_dtype dtype)
{
    for (int i = 0; i < COUNT_OF(matrices); i++)
        for (int64_t columns = 0; columns < 6; columns += 1 + 4 * (columns > 0))
            for (int flags = 0; flags < 4; flags++) {
                sweep_case c = moved(s, dtype, matrices[i]);
                bl_shape b = matrices[i];
                b.dim[b.rank - (flags & 1 ? 2 : 1)] = columns;
                c.operands = 2;
                c.x[1] = operand(s, 1, dtype, b);
                c.attr = (bl_attr){.flag = flags & 1, .flag2 = flags >> 1};
                c.build = decompose;
                check(s, &c, dtype);
            }
}

/* --- control -----------------------------------------------------------------------------------
 */

/* carry <- carry + x[t] (floats: tanh(carry w) + x[t], w captured); gives carry * x[t]. */
static void step(BL_UNUSED bl_graph *g, const bl_tensor *carry, const bl_tensor *x,
                 bl_tensor *carry_next, bl_tensor *y, void *context)
{
    bl_dtype dtype = bl_type_of(x[0]).dtype;
    bool real = bl_dtype_is_float(dtype), number = dtype != BL_BOOL;
    bl_tensor from = real ? bl_tanh(bl_mul(carry[0], *(bl_tensor *)context)) : carry[0];
    carry_next[0] = bl_add(from, x[0]);
    y[0] = number ? bl_mul(carry[0], x[0]) : bl_and(carry[0], x[0]);
}

static bl_tensor scanned(bl_graph *g, const bl_tensor *x, const sweep_case *c)
{
    bl_tensor w = x[2], last, y;
    bl_scan(g, bl_dim(x[1], 0), step, &w, x, 1, &x[1], 1, &last, &y, 1);
    return c->attr.flag ? last : y;
}

static void scan(sweep *s, bl_dtype dtype)
{
    static const bl_shape row[] = {{0, {0}}, {1, {1}}, {2, {3, 17}}, {1, {0}}};
    for (int i = 0; i < COUNT_OF(row); i++)
        for (int64_t steps = 0; steps < 6; steps += 1 + 3 * (steps > 0))
            for (int flag = 0; flag < 2; flag++) {
                bl_shape rows = {.rank = row[i].rank + 1, .dim = {steps}};
                memcpy(rows.dim + 1, row[i].dim, (size_t)row[i].rank * sizeof rows.dim[0]);
                sweep_case c = {.op = s->op, .operands = 3, .attr = {.flag = flag}};
                c.x[0] = operand(s, 0, dtype, row[i]);
                c.x[1] = operand(s, 1, dtype, rows);
                c.x[2] = operand(s, 2, dtype, row[i]);
                c.build = scanned;
                check(s, &c, dtype);
            }
}

static bl_tensor at_most_seven(bl_graph *g, const bl_tensor *carry, BL_UNUSED void *context)
{
    return bl_lt(carry[0], bl_full(g, BL_I32, BL_SCALAR, 7));
}

static void count_and_move(bl_graph *g, const bl_tensor *carry, bl_tensor *carry_next,
                           BL_UNUSED void *context)
{
    carry_next[0] = bl_add(carry[0], bl_full(g, BL_I32, BL_SCALAR, 2));
    carry_next[1] = bl_rank(carry[1]) ? bl_reverse(carry[1], 0) : carry[1];
}

static bl_tensor looped(bl_graph *g, const bl_tensor *x, const sweep_case *c)
{
    bl_tensor carry[2] = {x[0], x[1]}, last[2];
    bl_tensor steps = bl_while(g, 5, at_most_seven, count_and_move, NULL, carry, 2, last);
    return c->attr.flag ? last[1] : steps;
}

static void while_loop(sweep *s, bl_dtype dtype)
{
    for (int i = 0; i < COUNT_OF(odd_shapes); i++)
        for (int flag = 0; flag < 2; flag++) {
            sweep_case c = {.op = s->op, .operands = 2, .attr = {.flag = flag}};
            c.x[0] = index_of(BL_SCALAR, 9, false);
            c.x[1] = operand(s, 1, dtype, odd_shapes[i]);
            c.build = looped;
            check(s, &c, dtype);
        }
}

/* The value of the first operand; its own gradient, as the rule says it. */
static void same_slope(BL_UNUSED bl_graph *g, BL_UNUSED const bl_tensor *in,
                       BL_UNUSED const bl_tensor *out, const bl_tensor *cotangent, bl_tensor *slope,
                       BL_UNUSED void *context)
{
    slope[0] = cotangent[0];
}

static bl_tensor overridden(bl_graph *g, const bl_tensor *x, BL_UNUSED const sweep_case *c)
{
    bl_tensor value = bl_stop_gradient(x[0]), result;
    bl_override_gradient(&value, 1, x, 1, same_slope, NULL, &result);
    (void)g;
    return result;
}

static void override(sweep *s, bl_dtype dtype)
{
    for (int i = 0; i < COUNT_OF(odd_shapes); i++) {
        sweep_case c = moved(s, dtype, odd_shapes[i]);
        c.build = overridden;
        check(s, &c, dtype);
    }
}

/* --- the table ---------------------------------------------------------------------------------
 */

/* One range for all operands: [BL_OP_neg] = ROW(unary, SIGNED, 2, 1, -2, 2). Slopes: operand bits.
 */
#define ROW(cases, dtypes, orders, slopes, from, to)                                               \
    {                                                                                              \
        cases, dtypes, orders, slopes, {from, from, from}, {to, to, to}, 1, false, 0               \
    }
/* Only smooth numbers are valid, and rounding grows `loose` times. */
#define MATRIX(cases, dtypes, slopes, from, to, loose)                                             \
    {                                                                                              \
        cases, dtypes, 2, slopes, {from, from, from}, {to, to, to}, loose, true, 0                 \
    }

static const entry entries[BL_OPS] = {
    [BL_OP_input] = ROW(input_cases, ALL_DTYPES, 2, 1, -2, 2),
    [BL_OP_constant] = ROW(constant, ALL_DTYPES, 2, 0, -2, 2),
    [BL_OP_iota] = ROW(iota, NUMBERS, 2, 0, -2, 2),
    [BL_OP_random_bits] = ROW(random_bits, 1 << BL_U32, 2, 0, -2, 2),

    [BL_OP_neg] = ROW(unary, SIGNED, 2, 1, -2, 2),
    [BL_OP_abs] = ROW(unary, NUMBERS, 2, 1, -2, 2),
    [BL_OP_sign] = ROW(unary, NUMBERS, 2, 1, -2, 2),
    [BL_OP_exp] = ROW(unary, FLOATS, 2, 1, -2, 2),
    [BL_OP_expm1] = ROW(unary, FLOATS, 2, 1, -2, 2),
    [BL_OP_log] = ROW(unary, FLOATS, 2, 1, 0.2, 2),
    [BL_OP_log1p] = ROW(unary, FLOATS, 2, 1, -0.8, 2),
    [BL_OP_sqrt] = ROW(unary, FLOATS, 2, 1, 0.2, 2),
    [BL_OP_rsqrt] = ROW(unary, FLOATS, 2, 1, 0.3, 2),
    [BL_OP_sin] = ROW(unary, FLOATS, 2, 1, -2, 2),
    [BL_OP_cos] = ROW(unary, FLOATS, 2, 1, -2, 2),
    [BL_OP_tanh] = ROW(unary, FLOATS, 2, 1, -2, 2),
    [BL_OP_atan] = ROW(unary, FLOATS, 2, 1, -2, 2),
    [BL_OP_sigmoid] = ROW(unary, FLOATS, 2, 1, -2, 2),
    [BL_OP_erf] = ROW(unary, FLOATS, 2, 1, -2, 2),
    [BL_OP_floor] = ROW(unary, FLOATS, 2, 1, 0.1, 0.9),
    [BL_OP_round] = ROW(unary, FLOATS, 2, 1, 0.6, 1.4),
    [BL_OP_isfinite] = ROW(unary, FLOATS, 2, 1, -2, 2),
    [BL_OP_not] = ROW(unary, BOOLS, 2, 1, -2, 2),
    /* In f64 made of numbers of the size of 8!'s logarithm. */
    [BL_OP_lgamma] = {unary, FLOATS, 2, 1, {0.3}, {3}, 1, false, 8},
    [BL_OP_digamma] = {unary, FLOATS, 1, 1, {0.5}, {3}, 1, false, 8},
    [BL_OP_trigamma] = ROW(unary, FLOATS, 0, 0, 0.5, 3),
    [BL_OP_stop_gradient] = ROW(unary, ALL_DTYPES, 2, 0, -2, 2),
    [BL_OP_cast] = ROW(cast, ALL_DTYPES, 2, 1, 0.1, 0.9),

    [BL_OP_add] = ROW(binary, ALL_DTYPES, 2, 3, -2, 2),
    [BL_OP_sub] = ROW(binary, NUMBERS, 2, 3, -2, 2),
    [BL_OP_mul] = ROW(binary, NUMBERS, 2, 3, -2, 2),
    [BL_OP_div] = {binary, NUMBERS, 2, 3, {-2, 0.4}, {2, 2}, 1, false},
    [BL_OP_pow] = ROW(binary, FLOATS, 2, 3, 0.4, 2),
    [BL_OP_atan2] = ROW(binary, FLOATS, 2, 3, 0.4, 2),
    [BL_OP_max] = ROW(binary, NUMBERS, 2, 3, -2, 2),
    [BL_OP_min] = ROW(binary, NUMBERS, 2, 3, -2, 2),
    [BL_OP_rem] = {binary, NUMBERS, 2, 3, {7.1, 3.1}, {7.9, 3.3}, 1, false},
    [BL_OP_eq] = ROW(binary, ALL_DTYPES, 2, 3, -2, 2),
    [BL_OP_ne] = ROW(binary, ALL_DTYPES, 2, 3, -2, 2),
    [BL_OP_lt] = ROW(binary, NUMBERS, 2, 3, -2, 2),
    [BL_OP_le] = ROW(binary, NUMBERS, 2, 3, -2, 2),
    [BL_OP_gt] = ROW(binary, NUMBERS, 2, 3, -2, 2),
    [BL_OP_ge] = ROW(binary, NUMBERS, 2, 3, -2, 2),
    [BL_OP_and] = ROW(binary, BOOLS, 2, 3, -2, 2),
    [BL_OP_or] = ROW(binary, BOOLS, 2, 3, -2, 2),

    [BL_OP_select] = ROW(ternary, ALL_DTYPES, 2, 6, -2, 2),
    [BL_OP_clamp] = {ternary, NUMBERS, 2, 1, {-2, -1, 0.5}, {2, -0.5, 1}, 1, false},

    [BL_OP_reshape] = ROW(reshape, ALL_DTYPES, 2, 1, -2, 2),
    [BL_OP_broadcast] = ROW(broadcast, ALL_DTYPES, 2, 1, -2, 2),
    [BL_OP_transpose] = ROW(transpose, ALL_DTYPES, 2, 1, -2, 2),
    [BL_OP_slice] = ROW(slice, ALL_DTYPES, 2, 1, -2, 2),
    [BL_OP_pad] = ROW(pad, ALL_DTYPES, 2, 1, -2, 2),
    [BL_OP_concat] = ROW(concat, ALL_DTYPES, 2, 63, -2, 2),
    [BL_OP_reverse] = ROW(along_an_axis, ALL_DTYPES, 2, 1, -2, 2),

    [BL_OP_take] = ROW(rows_by_index, ALL_DTYPES, 2, 1, -2, 2),
    [BL_OP_add_at] = ROW(rows_by_index, NUMBERS, 2, 5, -2, 2),
    [BL_OP_put] = ROW(rows_by_index, ALL_DTYPES, 2, 5, -2, 2),
    [BL_OP_take_along] = ROW(elements_by_index, ALL_DTYPES, 2, 1, -2, 2),
    [BL_OP_add_along] = ROW(elements_by_index, NUMBERS, 2, 5, -2, 2),
    [BL_OP_argsort] = ROW(along_an_axis, NUMBERS, 2, 1, -2, 2),

    [BL_OP_sum] = ROW(reduction, NUMBERS, 2, 1, -2, 2),
    [BL_OP_reduce_max] = ROW(reduction, NUMBERS, 2, 1, -2, 2),
    [BL_OP_reduce_min] = ROW(reduction, NUMBERS, 2, 1, -2, 2),
    [BL_OP_prod] = ROW(reduction, NUMBERS, 2, 1, 0.5, 1.3),
    [BL_OP_argmax] = ROW(extreme_along_an_axis, NUMBERS, 2, 1, -2, 2),
    [BL_OP_argmin] = ROW(extreme_along_an_axis, NUMBERS, 2, 1, -2, 2),
    [BL_OP_cumsum] = ROW(along_an_axis, NUMBERS, 2, 1, -2, 2),

    [BL_OP_dot] = ROW(dot, FLOATS | 1 << BL_I8, 2, 3, -1, 1),
    [BL_OP_conv] = ROW(convolution, FLOATS, 2, 3, -1, 1),
    [BL_OP_conv_dx] = ROW(convolution, FLOATS, 2, 3, -1, 1),
    [BL_OP_conv_dw] = ROW(convolution, FLOATS, 2, 3, -1, 1),
    [BL_OP_patches] = ROW(sliding, ALL_DTYPES, 2, 1, -1, 1),
    [BL_OP_fold] = ROW(sliding, NUMBERS, 2, 1, -1, 1),

    [BL_OP_cholesky] = MATRIX(decomposition, FLOATS, 1, -0.4, 0.4, 10),
    [BL_OP_triangular_solve] = MATRIX(triangular_solve, FLOATS, 3, -0.4, 0.4, 10),
    [BL_OP_eigh] = MATRIX(decomposition, FLOATS, 1, -0.2, 0.2, 50),
    [BL_OP_svd] = MATRIX(svd, FLOATS, 1, -0.2, 0.2, 50),

    [BL_OP_scan] = ROW(scan, ALL_DTYPES, 2, 7, -1, 1),
    [BL_OP_while] = ROW(while_loop, ALL_DTYPES, 0, 0, -1, 1),
    [BL_OP_override_gradient] = ROW(override, ALL_DTYPES, 2, 1, -1, 1),
    [BL_OP_part] = ROW(scan, ALL_DTYPES, 2, 7, -1, 1),
};

/* BL_PRIMITIVE=name sweeps over one row. */
static void every_primitive_of_the_table(BL_UNUSED void **state)
{
    const char *only = getenv("BL_PRIMITIVE");
    int64_t cases = 0, differences = 0;
    for (int op = 0; op < BL_OPS; op++) {
        const char *name = bl_op_name((bl_op)op);
        if (!entries[op].cases)
            fail_msg("%s is in ops.def, but has no entry in test_primitives.c", name);
        if (only && strcmp(only, name) != 0)
            continue;
        sweep s = {.e = &entries[op], .op = (bl_op)op};
        s.random = bl_random_new(bl_key_from_seed(100 + (uint64_t)op));
        for (int dtype = 0; dtype < BL_DTYPES; dtype++)
            s.e->cases(&s, (bl_dtype)dtype);
        if (!s.seen || s.cases < 20)
            fail_msg("%s had only %lld cases", name, (long long)s.cases);
        print_message("%-18s %6lld cases, %5lld central differences\n", name, (long long)s.cases,
                      (long long)s.differences);
        cases += s.cases;
        differences += s.differences;
    }
    print_message("%lld cases, %lld central differences\n", (long long)cases,
                  (long long)differences);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_primitive_of_the_table)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
