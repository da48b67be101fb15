/* Loops, and nodes with several results. A plan compiles its loops once (reference.c); these
 * kernels are for whoever calls them one by one. */
#include "exec/reference/reference.h"

#include <string.h>

static bl_status run_once(const bl_call *call)
{
    bl_nested *nested;
    BL_TRY(bl_nested_new(&bl_executor_reference, call->node, 1, &nested));
    bl_status status = bl_nested_run(nested, call->value, call->result);
    bl_nested_free(nested);
    return status;
}

bl_status reference_scan(const bl_call *call)
{
    return run_once(call);
}
bl_status reference_while(const bl_call *call)
{
    return run_once(call);
}

bl_status reference_override_gradient(const bl_call *call)
{
    const bl_control *control = call->node->attr->control;
    for (int i = 0; i < control->results; i++) {
        size_t bytes = bl_type_bytes(control->result[i]);
        if (bytes > 0)
            memcpy((char *)call->result + bl_result_place(control, i), operand(call, i), bytes);
    }
    return BL_OK;
}

bl_status reference_part(const bl_call *call)
{
    size_t bytes = bl_type_bytes(call->node->type);
    if (bytes > 0)
        memcpy(call->result, (const char *)operand(call, 0) + call->node->attr->a[1], bytes);
    return BL_OK;
}
