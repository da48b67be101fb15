/* Algebraic identities: those that are exact in IEEE arithmetic, up to the sign of a zero.
 *
 * Not here, because they are false: x * 0 -> 0 and x - x -> 0 (NaN, infinity), x == x -> true
 * (NaN), (a + b) + c -> a + (b + c) (rounding).
 *
 * Each rule gets a draft and answers BL_KEEP, BL_CHANGED or a node's id (pass.h). A rule may only
 * write the draft, so every identity has one node on its right-hand side. */
#include <string.h>

#include "graph/pass/pass.h"

typedef int32_t bl_rule(const bl_graph *g, bl_draft *draft);

static const bl_node *operand_node(const bl_graph *g, const bl_draft *draft, int i)
{
    return bl_node_at(g, draft->operand[i]);
}

static bool is_splat(const bl_graph *g, int32_t id, double wanted)
{
    double value;
    return bl_splat(g, id, &value) && value == wanted;
}

/* The operand of x where x is the result of `op`; -1 where it is not. */
static int32_t inside(const bl_graph *g, int32_t id, bl_op op)
{
    const bl_node *node = bl_node_at(g, id);
    return node->op == op ? node->operand[0] : -1;
}

/* The draft becomes op(x, y), with no attributes; y is ignored by unary primitives. */
static int32_t become(bl_draft *draft, bl_op op, int operands, int32_t x, int32_t y)
{
    draft->node.op = op;
    draft->node.operands = operands;
    draft->operand[0] = x;
    draft->operand[1] = y;
    draft->attr = (bl_attr){0};
    return BL_CHANGED;
}

static int32_t become_splat(bl_draft *draft, double value)
{
    bl_draft_splat(draft, value);
    return BL_CHANGED;
}

/* --- one operand -------------------------------------------------------------------------------
 */

/* f(f(x)) = x, for neg and not. */
static int32_t involution(const bl_graph *g, bl_draft *draft)
{
    return inside(g, draft->operand[0], draft->node.op); /* -1 is BL_KEEP */
}

/* |-x| = |x|, ||x|| = |x|. */
static int32_t simplify_abs(const bl_graph *g, bl_draft *draft)
{
    int32_t negated = inside(g, draft->operand[0], BL_OP_neg);
    if (inside(g, draft->operand[0], BL_OP_abs) >= 0)
        return draft->operand[0];
    return negated < 0 ? BL_KEEP : become(draft, BL_OP_abs, 1, negated, 0);
}

/* Gradients are taken: stop_gradient has done its work. */
static int32_t simplify_stop_gradient(BL_UNUSED const bl_graph *g, bl_draft *draft)
{
    return draft->operand[0];
}

/* A cast to the same dtype; a cast through a dtype that holds every value of the first. */
static int32_t simplify_cast(const bl_graph *g, bl_draft *draft)
{
    const bl_node *x = operand_node(g, draft, 0);
    if (x->type.dtype == draft->node.type.dtype)
        return draft->operand[0];
    int32_t first = inside(g, draft->operand[0], BL_OP_cast);
    if (first < 0)
        return BL_KEEP;
    bl_dtype from = bl_node_at(g, first)->type.dtype;
    bool holds = from == BL_BOOL || (from == BL_F32 && x->type.dtype == BL_F64);
    return holds ? become(draft, BL_OP_cast, 1, first, 0) : BL_KEEP;
}

/* --- two operands ------------------------------------------------------------------------------
 */

/* A commutative primitive's operands in one order, so that equal ones merge; a constant last. */
static void order_operands(const bl_graph *g, bl_draft *draft)
{
    bool first = operand_node(g, draft, 0)->op == BL_OP_constant;
    bool second = operand_node(g, draft, 1)->op == BL_OP_constant;
    int32_t x = draft->operand[0], y = draft->operand[1];
    if (first != second ? first : x > y) {
        draft->operand[0] = y;
        draft->operand[1] = x;
    }
}

/* The axis along which x is padded with zeros, if it is one only; else -1. */
static int padded_axis(const bl_node *x)
{
    int axis = -1;
    if (x->op != BL_OP_pad || x->attr->value != 0)
        return -1;
    for (int i = 0; i < x->type.shape.rank; i++)
        if (x->attr->a[i] || x->attr->b[i] || x->attr->c[i]) {
            if (axis >= 0 || x->attr->c[i])
                return -1;
            axis = i;
        }
    return axis;
}

/* Puts a pad among the `count` others, by where its operand begins; false if it is along another
 * axis. */
static bool place_tile(const bl_graph *g, int32_t id, int count, int32_t *tile)
{
    int axis = padded_axis(bl_node_at(g, id)), at = count;
    if (axis < 0 || (count > 0 && padded_axis(bl_node_at(g, tile[0])) != axis))
        return false;
    int64_t begin = bl_node_at(g, id)->attr->a[axis];
    for (; at > 0 && bl_node_at(g, tile[at - 1])->attr->a[axis] > begin; at--)
        tile[at] = tile[at - 1];
    tile[at] = id;
    return true;
}

/* Two or three values, each padded with zeros to where the others are: their concatenation. So are
 * the gradients of the slices into which a value was cut. */
static int32_t sum_of_tiles(const bl_graph *g, bl_draft *draft)
{
    int32_t tile[4];
    int count = 0;
    for (int i = 0; i < 2; i++) {
        const bl_node *x = operand_node(g, draft, i);
        for (int j = 0; j < (x->op == BL_OP_add ? 2 : 1); j++, count++)
            if (!place_tile(g, x->op == BL_OP_add ? x->operand[j] : draft->operand[i], count, tile))
                return BL_KEEP;
    }
    int axis = padded_axis(bl_node_at(g, tile[0]));
    int64_t end = 0;
    for (int i = 0; i < count; i++) {
        const bl_node *pad = bl_node_at(g, tile[i]);
        if (pad->attr->a[axis] != end)
            return BL_KEEP;
        tile[i] = pad->operand[0];
        end += bl_node_at(g, tile[i])->type.shape.dim[axis];
    }
    if (count > 3 || end != draft->node.type.shape.dim[axis])
        return BL_KEEP;
    become(draft, BL_OP_concat, count, 0, 0);
    draft->attr.axis = axis;
    memcpy(draft->operand, tile, (size_t)count * sizeof *tile);
    return BL_CHANGED;
}

/* x + 0 = x; x + -y = x - y; -x + y = y - x; a sum of tiles is their concatenation. */
static int32_t simplify_add(const bl_graph *g, bl_draft *draft)
{
    order_operands(g, draft);
    int32_t x = draft->operand[0], y = draft->operand[1];
    if (is_splat(g, y, 0))
        return x;
    if (inside(g, y, BL_OP_neg) >= 0)
        return become(draft, BL_OP_sub, 2, x, inside(g, y, BL_OP_neg));
    if (inside(g, x, BL_OP_neg) >= 0)
        return become(draft, BL_OP_sub, 2, y, inside(g, x, BL_OP_neg));
    return sum_of_tiles(g, draft);
}

/* x - 0 = x; x - -y = x + y; 0 - x = -x, except of unsigned integers, which have no neg. */
static int32_t simplify_sub(const bl_graph *g, bl_draft *draft)
{
    int32_t x = draft->operand[0], y = draft->operand[1];
    bl_dtype dtype = draft->node.type.dtype;
    if (is_splat(g, y, 0))
        return x;
    if (inside(g, y, BL_OP_neg) >= 0)
        return become(draft, BL_OP_add, 2, x, inside(g, y, BL_OP_neg));
    if (is_splat(g, x, 0) && dtype != BL_U32 && dtype != BL_U8)
        return become(draft, BL_OP_neg, 1, y, 0);
    return BL_KEEP;
}

/* x * 1 = x; x * -1 = -x; -x * -y = x * y. */
static int32_t simplify_mul(const bl_graph *g, bl_draft *draft)
{
    order_operands(g, draft);
    int32_t x = draft->operand[0], y = draft->operand[1];
    if (is_splat(g, y, 1))
        return x;
    if (is_splat(g, y, -1))
        return become(draft, BL_OP_neg, 1, x, 0);
    if (inside(g, x, BL_OP_neg) >= 0 && inside(g, y, BL_OP_neg) >= 0)
        return become(draft, BL_OP_mul, 2, inside(g, x, BL_OP_neg), inside(g, y, BL_OP_neg));
    return BL_KEEP;
}

/* x / 1 = x; x / -1 = -x. */
static int32_t simplify_div(const bl_graph *g, bl_draft *draft)
{
    if (is_splat(g, draft->operand[1], 1))
        return draft->operand[0];
    if (is_splat(g, draft->operand[1], -1))
        return become(draft, BL_OP_neg, 1, draft->operand[0], 0);
    return BL_KEEP;
}

/* x^1 = x; x^2 = x x; x^0 = 1, of NaN too; x^-1 = 1 / x has two nodes. */
static int32_t simplify_pow(const bl_graph *g, bl_draft *draft)
{
    int32_t x = draft->operand[0], y = draft->operand[1];
    if (is_splat(g, y, 1))
        return x;
    if (is_splat(g, y, 2))
        return become(draft, BL_OP_mul, 2, x, x);
    return is_splat(g, y, 0) ? become_splat(draft, 1) : BL_KEEP;
}

/* max(x, x) = x, for min, and, or. */
static int32_t idempotent(BL_UNUSED const bl_graph *g, bl_draft *draft)
{
    return draft->operand[0] == draft->operand[1] ? draft->operand[0] : BL_KEEP;
}

/* x and true = x; x and false = false. */
static int32_t simplify_and(const bl_graph *g, bl_draft *draft)
{
    order_operands(g, draft);
    if (is_splat(g, draft->operand[1], 1))
        return draft->operand[0];
    return is_splat(g, draft->operand[1], 0) ? draft->operand[1] : idempotent(g, draft);
}

/* x or false = x; x or true = true. */
static int32_t simplify_or(const bl_graph *g, bl_draft *draft)
{
    order_operands(g, draft);
    if (is_splat(g, draft->operand[1], 0))
        return draft->operand[0];
    return is_splat(g, draft->operand[1], 1) ? draft->operand[1] : idempotent(g, draft);
}

static int32_t commutative(const bl_graph *g, bl_draft *draft)
{
    order_operands(g, draft);
    return BL_KEEP;
}

/* --- three operands ----------------------------------------------------------------------------
 */

/* A known condition; equal choices; not c ? x : y = c ? y : x. */
static int32_t simplify_select(const bl_graph *g, bl_draft *draft)
{
    double condition;
    int32_t *x = draft->operand, opposite = inside(g, x[0], BL_OP_not);
    if (bl_splat(g, x[0], &condition))
        return condition != 0 ? x[1] : x[2];
    if (x[1] == x[2])
        return x[1];
    if (opposite < 0)
        return BL_KEEP;
    int32_t yes = x[2], no = x[1];
    x[0] = opposite, x[1] = yes, x[2] = no;
    return BL_CHANGED;
}

/* --- movement ----------------------------------------------------------------------------------
 */

static bool same_type(const bl_graph *g, const bl_draft *draft)
{
    return bl_type_equal(operand_node(g, draft, 0)->type, draft->node.type);
}

/* To the same shape; of another reshape. */
static int32_t simplify_reshape(const bl_graph *g, bl_draft *draft)
{
    int32_t first = inside(g, draft->operand[0], BL_OP_reshape);
    if (same_type(g, draft))
        return draft->operand[0];
    return first < 0 ? BL_KEEP : become(draft, BL_OP_reshape, 1, first, 0);
}

static int32_t simplify_broadcast(const bl_graph *g, bl_draft *draft)
{
    int32_t first = inside(g, draft->operand[0], BL_OP_broadcast);
    if (same_type(g, draft))
        return draft->operand[0];
    return first < 0 ? BL_KEEP : become(draft, BL_OP_broadcast, 1, first, 0);
}

/* Whether the axes longer than 1 stay in order, so that no element moves. */
static bool keeps_order(const bl_draft *draft)
{
    int64_t last = -1;
    for (int i = 0; i < draft->node.type.shape.rank; i++) {
        if (draft->node.type.shape.dim[i] == 1)
            continue;
        if (draft->attr.a[i] < last)
            return false;
        last = draft->attr.a[i];
    }
    return true;
}

/* Of another transpose: one permutation after the other. One that moves nothing is a reshape. */
static int32_t simplify_transpose(const bl_graph *g, bl_draft *draft)
{
    const bl_node *x = operand_node(g, draft, 0);
    if (keeps_order(draft))
        return become(draft, BL_OP_reshape, 1, draft->operand[0], 0);
    if (x->op != BL_OP_transpose)
        return BL_KEEP;
    for (int i = 0; i < draft->node.type.shape.rank; i++)
        draft->attr.a[i] = x->attr->a[draft->attr.a[i]];
    draft->operand[0] = x->operand[0];
    return BL_CHANGED;
}

/* A slice of everything: as many elements as the operand, in steps of 1. */
static int32_t simplify_slice(const bl_graph *g, bl_draft *draft)
{
    return same_type(g, draft) ? draft->operand[0] : BL_KEEP;
}

/* Without padding the shape stays, unless an axis is padded between its one element. */
static int32_t simplify_pad(const bl_graph *g, bl_draft *draft)
{
    return same_type(g, draft) ? draft->operand[0] : BL_KEEP;
}

static int32_t simplify_concat(BL_UNUSED const bl_graph *g, bl_draft *draft)
{
    return draft->node.operands == 1 ? draft->operand[0] : BL_KEEP;
}

/* An axis of one element, or twice. */
static int32_t simplify_reverse(const bl_graph *g, bl_draft *draft)
{
    const bl_node *x = operand_node(g, draft, 0);
    if (draft->node.type.shape.dim[draft->attr.axis] <= 1)
        return draft->operand[0];
    return x->op == BL_OP_reverse && x->attr->axis == draft->attr.axis ? x->operand[0] : BL_KEEP;
}

/* --- reductions and contractions ---------------------------------------------------------------
 */

/* Over axes of size 1: sum, product and extremes of one element are the element. */
static int32_t reduce_of_one(const bl_graph *g, bl_draft *draft)
{
    bl_shape shape = operand_node(g, draft, 0)->type.shape;
    for (int i = 0; i < shape.rank; i++)
        if (draft->attr.axes >> i & 1 && shape.dim[i] != 1)
            return BL_KEEP;
    return become(draft, BL_OP_reshape, 1, draft->operand[0], 0);
}

static int32_t simplify_cumsum(BL_UNUSED const bl_graph *g, bl_draft *draft)
{
    return draft->node.type.shape.dim[draft->attr.axis] == 1 ? draft->operand[0] : BL_KEEP;
}

/* The matrix under a transpose of the last two axes; -1 if x is not one. */
static int32_t untransposed(const bl_graph *g, int32_t id)
{
    const bl_node *x = bl_node_at(g, id);
    int rank = x->type.shape.rank;
    if (x->op != BL_OP_transpose || rank < 2)
        return -1;
    for (int i = 0; i < rank - 2; i++)
        if (x->attr->a[i] != i)
            return -1;
    return x->attr->a[rank - 1] == rank - 2 ? x->operand[0] : -1;
}

/* A transposed operand is read as it lies, with its flag turned. */
static int32_t simplify_dot(const bl_graph *g, bl_draft *draft)
{
    int32_t a = untransposed(g, draft->operand[0]), b = untransposed(g, draft->operand[1]);
    if (a >= 0) {
        draft->operand[0] = a;
        draft->attr.flag = !draft->attr.flag;
    }
    if (b >= 0) {
        draft->operand[1] = b;
        draft->attr.flag2 = !draft->attr.flag2;
    }
    return a >= 0 || b >= 0 ? BL_CHANGED : BL_KEEP;
}

/* A value with a gradient of its own, once gradients are taken, is the value. */
static int32_t simplify_part(const bl_graph *g, bl_draft *draft)
{
    const bl_node *x = operand_node(g, draft, 0);
    return x->op == BL_OP_override_gradient ? x->operand[draft->attr.a[0]] : BL_KEEP;
}

static bl_rule *const rules[BL_OPS] = {
    [BL_OP_neg] = involution,
    [BL_OP_not] = involution,
    [BL_OP_abs] = simplify_abs,
    [BL_OP_stop_gradient] = simplify_stop_gradient,
    [BL_OP_cast] = simplify_cast,
    [BL_OP_add] = simplify_add,
    [BL_OP_sub] = simplify_sub,
    [BL_OP_mul] = simplify_mul,
    [BL_OP_div] = simplify_div,
    [BL_OP_pow] = simplify_pow,
    [BL_OP_max] = idempotent,
    [BL_OP_min] = idempotent,
    [BL_OP_eq] = commutative,
    [BL_OP_ne] = commutative,
    [BL_OP_and] = simplify_and,
    [BL_OP_or] = simplify_or,
    [BL_OP_select] = simplify_select,
    [BL_OP_reshape] = simplify_reshape,
    [BL_OP_broadcast] = simplify_broadcast,
    [BL_OP_transpose] = simplify_transpose,
    [BL_OP_slice] = simplify_slice,
    [BL_OP_pad] = simplify_pad,
    [BL_OP_concat] = simplify_concat,
    [BL_OP_reverse] = simplify_reverse,
    [BL_OP_sum] = reduce_of_one,
    [BL_OP_reduce_max] = reduce_of_one,
    [BL_OP_reduce_min] = reduce_of_one,
    [BL_OP_prod] = reduce_of_one,
    [BL_OP_cumsum] = simplify_cumsum,
    [BL_OP_dot] = simplify_dot,
    [BL_OP_part] = simplify_part,
};

int32_t bl_simplify(const bl_graph *g, bl_draft *draft)
{
    bl_rule *rule = rules[draft->node.op];
    return rule ? rule(g, draft) : BL_KEEP;
}
