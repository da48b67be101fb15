/* How much arithmetic and memory traffic a primitive is. See work.h. */
#include "exec/work.h"

#include <math.h>

static bl_type operand_type(const bl_graph *g, const bl_node *node, int i)
{
    return bl_node_at(g, node->operand[i])->type;
}

static double dot_flops(const bl_graph *g, const bl_node *node)
{
    bl_shape a = operand_type(g, node, 0).shape;
    int64_t inner = a.dim[a.rank - (node->attr->flag ? 2 : 1)];
    return 2.0 * (double)bl_type_count(node->type) * (double)inner;
}

/* Every element of the convolution's result is a sum over a window of the filter. */
static double conv_flops(bl_type result, bl_type filter)
{
    int64_t window = filter.shape.dim[0] * filter.shape.dim[1] * filter.shape.dim[2];
    return 2.0 * (double)bl_type_count(result) * (double)window;
}

static double contraction_flops(const bl_graph *g, const bl_node *node)
{
    switch (node->op) {
    case BL_OP_conv:
        return conv_flops(node->type, operand_type(g, node, 1));
    case BL_OP_conv_dx:
        return conv_flops(operand_type(g, node, 0), operand_type(g, node, 1));
    case BL_OP_conv_dw:
        return conv_flops(operand_type(g, node, 1), node->type);
    case BL_OP_patches:
        return 0;
    case BL_OP_fold:
        return (double)bl_type_count(operand_type(g, node, 0));
    default:
        return dot_flops(g, node);
    }
}

/* Of n x n x n multiplications and additions, in each of `matrices`: the usual counts. */
static double linear_algebra_flops(const bl_graph *g, const bl_node *node)
{
    bl_shape x = operand_type(g, node, 0).shape;
    double rows = (double)x.dim[x.rank - 2], columns = (double)x.dim[x.rank - 1];
    double matrices = 1;
    for (int i = 0; i < x.rank - 2; i++)
        matrices *= (double)x.dim[i];
    switch (node->op) {
    case BL_OP_cholesky:
        return matrices * rows * rows * rows / 3;
    case BL_OP_triangular_solve:
        return (double)bl_type_count(node->type) * rows;
    case BL_OP_eigh:
        return matrices * 9 * rows * rows * rows;
    default:
        return matrices * 14 * rows * columns * fmin(rows, columns);
    }
}

static double index_flops(const bl_graph *g, const bl_node *node)
{
    if (node->op == BL_OP_add_at || node->op == BL_OP_add_along)
        return (double)bl_type_count(operand_type(g, node, 2));
    if (node->op != BL_OP_argsort)
        return 0;
    double length = (double)node->type.shape.dim[node->attr->axis];
    return (double)bl_type_count(node->type) * (length > 1 ? log2(length) : 0);
}

/* Every step of a scan; of while, whose steps are not known, one. */
static double loop_flops(const bl_node *node)
{
    const bl_control *control = node->attr->control;
    double step = 0;
    if (!control || !control->body)
        return 0;
    for (int32_t id = 0; id < (int32_t)bl_graph_size(control->body->graph); id++)
        step += bl_node_flops(control->body->graph, id);
    return node->op == BL_OP_scan ? step * (double)control->steps : step;
}

double bl_node_flops(const bl_graph *g, int32_t id)
{
    const bl_node *node = bl_node_at(g, id);
    switch (bl_op_class_of(node->op)) {
    case BL_UNARY:
    case BL_BINARY:
    case BL_TERNARY:
        return (double)bl_type_count(node->type);
    case BL_REDUCE:
        return (double)bl_type_count(operand_type(g, node, 0));
    case BL_CONTRACT:
        return contraction_flops(g, node);
    case BL_LINALG:
        return linear_algebra_flops(g, node);
    case BL_INDEX:
        return index_flops(g, node);
    case BL_CONTROL:
        return loop_flops(node);
    default:
        return 0;
    }
}

double bl_node_bytes(const bl_graph *g, int32_t id)
{
    const bl_node *node = bl_node_at(g, id);
    if (node->op == BL_OP_input || node->op == BL_OP_constant)
        return 0;
    double bytes = (double)bl_type_bytes(node->type);
    for (int i = 0; i < node->operands; i++)
        bytes += (double)bl_type_bytes(operand_type(g, node, i));
    return bytes;
}
