/* Checks a whole graph against its rules: operands come first, and every node has the type that its
 * primitive's rule gives. Runs between passes in debug builds; a pass that breaks a graph is named
 * by the first node it broke. */
#include "base/base.h"
#include "graph/node.h"

/* `scratch` is a graph that takes the errors of the rules, since g is not to be changed. */
static bl_status verify_node(const bl_graph *g, int32_t id, bl_graph *scratch, bl_type *operand)
{
    const bl_node *node = bl_node_at(g, id);
    for (int i = 0; i < node->operands; i++) {
        if (node->operand[i] < 0 || node->operand[i] >= id)
            return bl_fail(BL_INVALID, "node %d, %s: operand %d is node %d, which is not before it",
                           id, bl_op_name(node->op), i, node->operand[i]);
        operand[i] = bl_node_at(g, node->operand[i])->type;
    }
    bl_type type = bl_node_type(scratch, node->op, operand, node->operands, node->attr, node->type);
    bl_status status = bl_graph_status(scratch);
    if (status != BL_OK)
        return bl_fail_in(status, "node %d", id);
    if (!bl_type_equal(type, node->type))
        return bl_fail(BL_INVALID, "node %d, %s: has type %s, but its rule gives %s", id,
                       bl_op_name(node->op), bl_show(node->type), bl_show(type));
    return BL_OK;
}

bl_status bl_verify(const bl_graph *g)
{
    BL_TRY(bl_graph_status(g));
    int32_t count = (int32_t)bl_graph_size(g), widest = 1;
    for (int32_t id = 0; id < count; id++)
        if (bl_node_at(g, id)->operands > widest)
            widest = bl_node_at(g, id)->operands;
    bl_graph *scratch = bl_graph_new();
    bl_type *operand = bl_alloc((size_t)widest * sizeof *operand);
    bl_status status = scratch && operand ? BL_OK : bl_no_memory((size_t)widest * sizeof *operand);
    for (int32_t id = 0; id < count && status == BL_OK; id++)
        status = verify_node(g, id, scratch, operand);
    bl_release(operand);
    bl_graph_free(scratch);
    return status;
}
