/* Loops: the body is compiled by this executor too, once, and replayed every step (exec/nested.c).
 */
#include "exec/cpu/cpu.h"

static bl_status run_loop(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    for (int i = 0; i < node->operands; i++)
        plan->value[node->operand[i]] = cpu_operand(plan, node, i);
    return bl_nested_run(kernel->data, plan->value, plan->address[kernel->node]);
}

static void free_loop(void *data)
{
    bl_nested_free(data);
}

bl_status cpu_prepare_loop(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    bl_nested *nested;
    BL_TRY(bl_nested_new(&bl_executor_cpu, node, plan->threads, &nested));
    kernel->data = nested;
    kernel->free = free_loop;
    kernel->run = run_loop;
    kernel->how = "loop";
    return BL_OK;
}
