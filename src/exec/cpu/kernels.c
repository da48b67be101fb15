/* Which kernel runs a node that is not fused: the list, and the reference executor's loop for what
 * is not on it. */
#include <string.h>

#include "exec/cpu/cpu.h"
#include "exec/reference/reference.h"

/* A bl_prepare that answers BL_UNSUPPORTED leaves the node to the reference loop. */
static cpu_prepare *const prepare[BL_OPS] = {
    [BL_OP_dot] = cpu_prepare_dot,
    [BL_OP_conv] = cpu_prepare_convolution,
    [BL_OP_conv_dx] = cpu_prepare_convolution,
    [BL_OP_conv_dw] = cpu_prepare_convolution,
    [BL_OP_patches] = cpu_prepare_patches,
    [BL_OP_fold] = cpu_prepare_fold,
    [BL_OP_take] = cpu_prepare_take,
    [BL_OP_put] = cpu_prepare_put,
    [BL_OP_add_at] = cpu_prepare_add_at,
    [BL_OP_take_along] = cpu_prepare_take_along,
    [BL_OP_add_along] = cpu_prepare_add_along,
    [BL_OP_argsort] = cpu_prepare_argsort,
    [BL_OP_sum] = cpu_prepare_reduce,
    [BL_OP_prod] = cpu_prepare_product,
    [BL_OP_reduce_max] = cpu_prepare_reduce,
    [BL_OP_reduce_min] = cpu_prepare_reduce,
    [BL_OP_argmax] = cpu_prepare_arg,
    [BL_OP_argmin] = cpu_prepare_arg,
    [BL_OP_cumsum] = cpu_prepare_cumsum,
    [BL_OP_random_bits] = cpu_prepare_random_bits,
    [BL_OP_concat] = cpu_prepare_concat,
    [BL_OP_pad] = cpu_prepare_pad,
    [BL_OP_cholesky] = cpu_prepare_cholesky,
    [BL_OP_triangular_solve] = cpu_prepare_triangular_solve,
    [BL_OP_eigh] = cpu_prepare_eigh,
    [BL_OP_svd] = cpu_prepare_svd,
    [BL_OP_scan] = cpu_prepare_loop,
    [BL_OP_while] = cpu_prepare_loop,
};

/* --- the reference loops ---------------------------------------------------------------------- */

bl_status cpu_run_reference(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    for (int i = 0; i < node->operands; i++)
        plan->value[node->operand[i]] = cpu_operand(plan, node, i);
    bl_call call = {plan->signature.graph, node, plan->value, plan->address[kernel->node],
                    (uint64_t *)(void *)plan->scratch};
    return reference_kernel(node->op)(&call);
}

bl_status cpu_prepare_reference(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    size_t scratch = scratch_elements(plan->signature.graph, node) * sizeof(uint64_t);
    cpu_reserve_scratch(plan, scratch);
    kernel->run = cpu_run_reference;
    kernel->how = "reference";
    return BL_OK;
}

bl_status cpu_prepare_opaque(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    if (!prepare[node->op])
        return cpu_prepare_reference(plan, kernel, node);
    bl_status status = prepare[node->op](plan, kernel, node);
    return status == BL_UNSUPPORTED ? cpu_prepare_reference(plan, kernel, node) : status;
}

bool cpu_reads_view(const bl_node *node, int i, const cpu_view *view)
{
    if (cpu_is_contiguous(view))
        return true;
    switch (node->op) {
    case BL_OP_dot:
        return cpu_dot_reads(node, view);
    case BL_OP_add_at:
    case BL_OP_add_along:
        return i == 0 && cpu_is_fill(view);
    default:
        return false;
    }
}
