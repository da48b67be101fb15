/* Constant folding, by the same scalar meanings as the reference executor. */
#include "graph/pass/pass.h"

#include "graph/meaning.h"

bool bl_splat(const bl_graph *g, int32_t id, double *value)
{
    const bl_node *node = bl_node_at(g, id);
    if (node->op != BL_OP_constant || node->attr->data)
        return false;
    *value = node->attr->value;
    return true;
}

void bl_draft_splat(bl_draft *draft, double value)
{
    draft->node.op = BL_OP_constant;
    draft->node.operands = 0;
    draft->attr = (bl_attr){.value = value};
}

/* Element i of a constant. */
static double element(const bl_node *node, int64_t i)
{
    bl_array array = {node->type, (void *)(uintptr_t)node->attr->data}; /* only read */
    return node->attr->data ? bl_array_get(&array, i) : node->attr->value;
}

static bool all_constant(const bl_graph *g, const bl_draft *draft, bool *all_splat)
{
    double value;
    *all_splat = true;
    for (int i = 0; i < draft->node.operands; i++) {
        if (bl_node_at(g, draft->operand[i])->op != BL_OP_constant)
            return false;
        *all_splat = *all_splat && bl_splat(g, draft->operand[i], &value);
    }
    return true;
}

static double value_at(const bl_graph *g, const bl_draft *draft, int64_t at)
{
    double x[3] = {0};
    for (int i = 0; i < draft->node.operands; i++)
        x[i] = element(bl_node_at(g, draft->operand[i]), at);
    int values = draft->node.op == BL_OP_select; /* operand 0 of select is the condition */
    return bl_op_value(draft->node.op, bl_node_at(g, draft->operand[values])->type.dtype,
                       draft->node.type.dtype, x[0], x[1], x[2]);
}

static bool fold_elementwise(const bl_graph *g, bl_draft *draft)
{
    bool all_splat;
    int64_t count = bl_type_count(draft->node.type);
    if (!all_constant(g, draft, &all_splat) || (!all_splat && count > FOLD_ELEMENTS))
        return false;
    if (all_splat) {
        bl_draft_splat(draft, value_at(g, draft, 0));
        return true;
    }
    bl_array result = {draft->node.type, draft->data};
    for (int64_t i = 0; i < count; i++)
        bl_array_set(&result, i, value_at(g, draft, i));
    bl_draft_splat(draft, 0);
    draft->attr.data = draft->data;
    return true;
}

/* Data whose elements are all equal is kept as one value. */
static bool fold_constant(bl_draft *draft)
{
    const bl_node *node = &draft->node;
    int64_t count = bl_type_count(node->type);
    size_t size = bl_dtype_size(node->type.dtype);
    const char *data = draft->attr.data;
    if (!data || count == 0)
        return false;
    for (size_t i = size; i < (size_t)count * size; i++)
        if (data[i] != data[i - size])
            return false;
    bl_draft_splat(draft, element(node, 0));
    return true;
}

/* n times the value, exactly: an f32 has 24 bits, so every partial sum fits in a double. */
static bool fold_sum(bl_draft *draft, double value, bl_type x)
{
    int64_t count = bl_type_count(x), kept = bl_type_count(draft->node.type);
    bool exact = x.dtype == BL_F32 && count < 1 << 29;
    if (!exact || kept == 0)
        return false;
    bl_draft_splat(draft, count ? bl_round_to(BL_F32, value * (double)(count / kept)) : 0);
    return true;
}

/* Moving equal elements about leaves them equal. */
static bool fold_moved_splat(const bl_graph *g, bl_draft *draft)
{
    double value;
    if (draft->node.operands < 1 || !bl_splat(g, draft->operand[0], &value))
        return false;
    switch (draft->node.op) {
    case BL_OP_reshape:
    case BL_OP_broadcast:
    case BL_OP_transpose:
    case BL_OP_slice:
    case BL_OP_reverse:
        bl_draft_splat(draft, value);
        return true;
    case BL_OP_sum:
        return fold_sum(draft, value, bl_node_at(g, draft->operand[0])->type);
    default:
        return false;
    }
}

/* The same data under another shape. */
static bool fold_reshape(const bl_graph *g, bl_draft *draft)
{
    if (draft->node.op != BL_OP_reshape)
        return false;
    const bl_node *x = bl_node_at(g, draft->operand[0]);
    if (x->op != BL_OP_constant || bl_type_count(x->type) > FOLD_ELEMENTS)
        return false;
    bl_draft_splat(draft, 0);
    draft->attr.data = x->attr->data;
    return true;
}

bool bl_fold_constants(const bl_graph *g, bl_draft *draft)
{
    if (draft->node.op == BL_OP_constant)
        return fold_constant(draft);
    if (bl_op_is_elementwise(draft->node.op))
        return fold_elementwise(g, draft);
    return fold_moved_splat(g, draft) || fold_reshape(g, draft);
}
