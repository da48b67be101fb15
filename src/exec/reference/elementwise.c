/* Elementwise primitives: the loops are the meaning column of ops.def, in double.
 *
 * Elements are taken a chunk at a time: widened, computed by one loop per primitive, rounded. */
#include "exec/reference/reference.h"

#include <math.h>

#include "graph/meaning.h"

enum { CHUNK = 512 };

#define LOOP(name, meaning)                                                                        \
    case BL_OP_##name:                                                                             \
        for (int64_t i = 0; i < count; i++) {                                                      \
            BL_UNUSED const double x = xs[i], y = ys[i], z = zs[i];                                \
            result[i] = meaning;                                                                   \
        }                                                                                          \
        break;
#define LOOP_LEAF(name, meaning)
#define LOOP_UNARY(name, meaning)   LOOP(name, meaning)
#define LOOP_BINARY(name, meaning)  LOOP(name, meaning)
#define LOOP_TERNARY(name, meaning) LOOP(name, meaning)
#define LOOP_MOVE(name, meaning)
#define LOOP_INDEX(name, meaning)
#define LOOP_REDUCE(name, meaning)
#define LOOP_CONTRACT(name, meaning)
#define LOOP_LINALG(name, meaning)
#define LOOP_CONTROL(name, meaning)

static void compute(bl_op op, const double *xs, const double *ys, const double *zs, int64_t count,
                    double *result)
{
    switch (op) {
#define OP(class, name, operands, meaning, text) LOOP_##class(name, meaning)
#include "graph/ops.def"
#undef OP
    default:
        break;
    }
}

bl_status reference_elementwise(const bl_call *call)
{
    const bl_node *node = call->node;
    bl_dtype to = node->type.dtype, from = operand_type(call, node->op == BL_OP_select).dtype;
    bool by_value =
        bl_op_needs_integers(node->op) && (bl_dtype_is_integer(from) || bl_dtype_is_integer(to));
    double x[3][CHUNK] = {{0}}, result[CHUNK];
    int64_t total = bl_type_count(node->type);
    for (int64_t start = 0; start < total; start += CHUNK) {
        int64_t count = total - start < CHUNK ? total - start : CHUNK;
        for (int i = 0; i < node->operands; i++)
            load_doubles(operand_type(call, i).dtype, operand(call, i), start, count, x[i]);
        if (by_value)
            for (int64_t i = 0; i < count; i++)
                result[i] = bl_op_value(node->op, from, to, x[0][i], x[1][i], x[2][i]);
        else
            compute(node->op, x[0], x[1], x[2], count, result);
        store_doubles(to, result, start, count, call->result);
    }
    return BL_OK;
}
