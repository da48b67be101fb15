/* Loops, for every executor: the body is a program of its own, compiled once by the executor that
 * runs the node and run once a step.
 *
 * Carries alternate between two sets of buffers. Rows are read from the operands and written to the
 * results where they lie, so a step copies nothing. */
#include "exec/executor.h"

#include <string.h>

#include "base/base.h"

struct bl_nested {
    const bl_executor *executor;
    const bl_node *node;
    const bl_control *control;
    bl_signature signature;
    void *plan;
    void **carry; /* two of each */
    void **in, **out;
    size_t memory;
};

bool bl_is_loop(const bl_node *node)
{
    return node->attr->control && node->attr->control->body;
}

void bl_nested_free(bl_nested *n)
{
    if (!n)
        return;
    if (n->plan)
        n->executor->free(n->plan);
    for (int i = 0; n->carry && i < 2 * n->control->carries; i++)
        bl_release(n->carry[i]);
    bl_release(n->carry);
    bl_release(n->in);
    bl_release(n->out);
    bl_release(n);
}

size_t bl_nested_memory(const bl_nested *n)
{
    return n->memory + (size_t)n->executor->work(n->plan).memory;
}

static bl_status allocate(bl_nested *n)
{
    const bl_body *body = n->control->body;
    size_t inputs = (size_t)body->inputs, outputs = (size_t)body->outputs;
    n->carry = bl_alloc((2 * (size_t)n->control->carries + 1) * sizeof *n->carry);
    n->in = bl_alloc((inputs + 1) * sizeof *n->in);
    n->out = bl_alloc((outputs + 1) * sizeof *n->out);
    if (!n->carry || !n->in || !n->out)
        return bl_no_memory((inputs + outputs) * sizeof *n->in);
    for (int i = 0; i < 2 * n->control->carries; i++) {
        size_t bytes = bl_type_bytes(bl_body_input(body, i / 2));
        n->carry[i] = bl_alloc_aligned(bytes + 1);
        if (!n->carry[i])
            return bl_no_memory(bytes);
        n->memory += bytes;
    }
    return BL_OK;
}

bl_status bl_nested_new(const bl_executor *executor, const bl_node *node, int threads,
                        bl_nested **out)
{
    *out = NULL;
    bl_nested *n = bl_alloc(sizeof *n);
    if (!n)
        return bl_no_memory(sizeof *n);
    const bl_body *body = node->attr->control->body;
    *n = (bl_nested){.executor = executor, .node = node, .control = node->attr->control};
    n->signature = (bl_signature){.graph = body->graph,
                                  .input = body->input,
                                  .inputs = body->inputs,
                                  .output = body->output,
                                  .outputs = body->outputs,
                                  .threads = threads};
    bl_status status = allocate(n);
    if (status == BL_OK)
        status = executor->compile(&n->signature, &n->plan);
    if (status != BL_OK)
        bl_nested_free(n);
    else
        *out = n;
    return status;
}

static void copy(void *to, const void *from, size_t bytes)
{
    if (bytes > 0)
        memcpy(to, from, bytes);
}

/* Where step number `step` reads carry i: the first from the operand, then what was written last.
 */
static void *carry_at(const bl_nested *n, void *const *value, int i, int64_t step)
{
    if (step > 0)
        return n->carry[2 * i + (int)((step - 1) % 2)];
    int first = n->node->op == BL_OP_while;
    return value[n->node->operand[first + i]];
}

/* The buffers of one step, except rows. */
static void place_carries(bl_nested *n, void *const *value, int64_t step)
{
    int first = n->node->op == BL_OP_while;
    for (int i = 0; i < n->control->carries; i++) {
        n->in[i] = carry_at(n, value, i, step);
        n->out[first + i] = n->carry[2 * i + (int)(step % 2)];
    }
}

static void place_captured(bl_nested *n, void *const *value)
{
    int own = n->control->carries + n->control->inputs, first = n->node->op == BL_OP_while;
    for (int i = own; i < n->control->body->inputs; i++)
        n->in[i] = value[n->node->operand[first + i]];
}

static void keep_carries(const bl_nested *n, void *const *value, int64_t steps, char *result)
{
    int first = n->node->op == BL_OP_while;
    for (int i = 0; i < n->control->carries; i++)
        copy(result + bl_result_place(n->control, first + i), carry_at(n, value, i, steps),
             bl_type_bytes(bl_body_input(n->control->body, i)));
}

static bl_status run_scan(bl_nested *n, void *const *value, char *result)
{
    const bl_control *c = n->control;
    for (int64_t step = 0; step < c->steps; step++) {
        int64_t row = n->node->attr->flag ? c->steps - 1 - step : step;
        place_carries(n, value, step);
        for (int i = c->carries; i < c->carries + c->inputs; i++)
            n->in[i] = (char *)value[n->node->operand[i]] +
                       (size_t)row * bl_type_bytes(bl_body_input(c->body, i));
        for (int o = c->carries; o < c->results; o++)
            n->out[o] = result + bl_result_place(c, o) +
                        (size_t)row * bl_type_bytes(bl_body_output(c->body, o));
        BL_TRY(n->executor->run(n->plan, n->in, n->out));
    }
    keep_carries(n, value, c->steps, result);
    return BL_OK;
}

static bl_status run_while(bl_nested *n, void *const *value, char *result)
{
    bool go = *(const bool *)value[n->node->operand[0]];
    int32_t step = 0;
    n->out[0] = &go;
    for (; go && step < n->control->steps; step++) {
        place_carries(n, value, step);
        BL_TRY(n->executor->run(n->plan, n->in, n->out));
    }
    memcpy(result, &step, sizeof step);
    keep_carries(n, value, step, result);
    return BL_OK;
}

bl_status bl_nested_run(bl_nested *n, void *const *value, void *result)
{
    place_captured(n, value);
    return n->node->op == BL_OP_while ? run_while(n, value, result) : run_scan(n, value, result);
}
