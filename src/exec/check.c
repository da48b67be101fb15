/* BL_CHECK=1: every kernel of a program against the reference executor's loops.
 *
 * After each kernel the device shows what it wrote (bl_check_node). The same node is then computed
 * by the reference loops from what the device's earlier kernels gave, so that a difference belongs
 * to this kernel and rounding does not build up; then the device's value is kept for the next ones.
 *
 * How far rounding may move a value is measured, not guessed: every node is computed twice, the
 * second time with each rounded result, and each operand of a sum or contraction, moved by one part
 * in a million. That is right for sums that cancel and for kernels of many primitives. Whatever an
 * executor keeps to itself (views, values inside a fused kernel) is computed on the way. A loop is
 * one kernel. */
#include "exec/executor.h"

#include <math.h>
#include <string.h>

#include "base/base.h"
#include "exec/reference/reference.h"

struct bl_check {
    const bl_signature *signature;
    const char *device;
    int32_t nodes;
    void **value, **shaken; /* of every node: as computed, and moved; kept ones share one */
    bool *kept, *wanted;
    void **before; /* as many as a node has operands */
    uint64_t *scratch;
};

static const bl_node *node_at(const bl_check *c, int32_t id)
{
    return bl_node_at(c->signature->graph, id);
}

static void forget(bl_check *c, int32_t id)
{
    if (c->shaken[id] != c->value[id])
        bl_release(c->shaken[id]);
    bl_release(c->value[id]);
    c->value[id] = c->shaken[id] = NULL;
    c->kept[id] = false;
}

void bl_check_free(bl_check *c)
{
    if (!c)
        return;
    for (int32_t id = 0; c->value && c->shaken && c->kept && id < c->nodes; id++)
        forget(c, id);
    bl_release(c->value);
    bl_release(c->shaken);
    bl_release(c->kept);
    bl_release(c->wanted);
    bl_release(c->before);
    bl_release(c->scratch);
    bl_release(c);
}

bl_status bl_check_new(const bl_signature *signature, const char *device, bl_check **out)
{
    *out = NULL;
    bl_check *c = bl_alloc(sizeof *c);
    if (!c)
        return bl_no_memory(sizeof *c);
    *c = (bl_check){.signature = signature, .device = device};
    c->nodes = (int32_t)bl_graph_size(signature->graph);
    size_t count = (size_t)c->nodes + 1, scratch = 0, operands = 1;
    for (int32_t id = 0; id < c->nodes; id++) {
        size_t elements = scratch_elements(signature->graph, node_at(c, id));
        scratch = elements > scratch ? elements : scratch;
        size_t own = (size_t)node_at(c, id)->operands;
        operands = own > operands ? own : operands;
    }
    c->before = bl_alloc(operands * sizeof *c->before);
    c->value = bl_alloc(count * sizeof *c->value);
    c->shaken = bl_alloc(count * sizeof *c->shaken);
    c->kept = bl_alloc(count * sizeof *c->kept);
    c->wanted = bl_alloc(count * sizeof *c->wanted);
    c->scratch = bl_alloc_aligned((scratch + 1) * sizeof *c->scratch);
    if (!c->before || !c->value || !c->shaken || !c->kept || !c->wanted || !c->scratch) {
        bl_check_free(c);
        return bl_no_memory(scratch * sizeof *c->scratch);
    }
    *out = c;
    return BL_OK;
}

static bl_status new_value(const bl_check *c, int32_t id, const void *from, void **out)
{
    size_t bytes = bl_type_bytes(node_at(c, id)->type);
    *out = bl_alloc_aligned(bytes + 1);
    if (!*out)
        return bl_no_memory(bytes);
    if (from && bytes > 0)
        memcpy(*out, from, bytes);
    return BL_OK;
}

static bl_status keep(bl_check *c, int32_t id, const void *value)
{
    forget(c, id);
    BL_TRY(new_value(c, id, value, &c->value[id]));
    c->shaken[id] = c->value[id];
    c->kept[id] = true;
    return BL_OK;
}

bl_status bl_check_start(bl_check *c, void *const *input)
{
    for (int32_t id = 0; id < c->nodes; id++)
        forget(c, id);
    for (int i = 0; i < c->signature->inputs; i++)
        BL_TRY(keep(c, c->signature->input[i], input[i]));
    return BL_OK;
}

/* --- computing a node twice --------------------------------------------------------------------
 */

/* A node with several results has as many pieces, each of its own type. */
static int pieces_of(const bl_node *node)
{
    return node->attr->control ? node->attr->control->results : 1;
}

static bl_array piece(const bl_node *node, void *data, int i)
{
    const bl_control *control = node->attr->control;
    if (!control)
        return (bl_array){node->type, data};
    return (bl_array){control->result[i], (char *)data + bl_result_place(control, i)};
}

/* Moves each element of a float by one part in a million, up or down. */
static void shake(const bl_node *node, void *data)
{
    uint32_t bits = 12345;
    for (int k = 0; k < pieces_of(node); k++) {
        bl_array a = piece(node, data, k);
        double by = a.type.dtype == BL_F32 ? 1e-6 : 1e-12;
        for (int64_t i = 0; bl_dtype_is_float(a.type.dtype) && i < bl_array_count(&a); i++) {
            bits = bits * 1664525u + 1013904223u;
            bl_array_set(&a, i, bl_array_get(&a, i) * (1 + (bits >> 31 ? by : -by)));
        }
    }
}

static bool accumulates(bl_op op)
{
    bl_op_class class = bl_op_class_of(op);
    return class == BL_CONTRACT || class == BL_LINALG || op == BL_OP_sum || op == BL_OP_prod ||
           op == BL_OP_cumsum || op == BL_OP_add_at || op == BL_OP_add_along || op == BL_OP_scan ||
           op == BL_OP_while;
}

static bool rounds(bl_op op)
{
    bool exact = op == BL_OP_neg || op == BL_OP_abs || op == BL_OP_sign || op == BL_OP_floor ||
                 op == BL_OP_round || op == BL_OP_stop_gradient || op == BL_OP_max ||
                 op == BL_OP_min || op == BL_OP_select || op == BL_OP_clamp;
    return bl_op_is_elementwise(op) && !exact;
}

static bl_status run_node(bl_check *c, int32_t id, void *const *value, void *result)
{
    const bl_node *node = node_at(c, id);
    bl_call call = {c->signature->graph, node, value, result, c->scratch};
    if (node->op == BL_OP_constant && node->attr->data && bl_type_count(node->type) > 0)
        memcpy(result, node->attr->data, bl_type_bytes(node->type));
    bl_array fill = {node->type, result};
    for (int64_t i = 0;
         node->op == BL_OP_constant && !node->attr->data && i < bl_type_count(node->type); i++)
        bl_array_set(&fill, i, node->attr->value);
    return reference_kernel(node->op)(&call);
}

/* The second time: where the primitive adds up, its operands are moved, for its sake only. */
static bl_status run_shaken(bl_check *c, int32_t id)
{
    const bl_node *node = node_at(c, id);
    int moved = 0, operands = accumulates(node->op) ? node->operands : 0;
    bl_status status = BL_OK;
    for (; moved < operands && status == BL_OK; moved++) {
        int32_t x = node->operand[moved];
        c->before[moved] = c->shaken[x];
        status = new_value(c, x, c->before[moved], &c->shaken[x]);
        if (status == BL_OK)
            shake(node_at(c, x), c->shaken[x]);
    }
    if (status == BL_OK)
        status = run_node(c, id, c->shaken, c->shaken[id]);
    while (moved-- > 0) {
        bl_release(c->shaken[node->operand[moved]]);
        c->shaken[node->operand[moved]] = c->before[moved];
    }
    if (status == BL_OK && rounds(node->op))
        shake(node, c->shaken[id]);
    return status;
}

static bl_status compute(bl_check *c, int32_t id)
{
    memset(c->wanted, 0, ((size_t)id + 1) * sizeof *c->wanted);
    c->wanted[id] = true;
    for (int32_t i = id; i >= 0; i--)
        for (int k = 0; c->wanted[i] && !c->kept[i] && k < node_at(c, i)->operands; k++)
            c->wanted[node_at(c, i)->operand[k]] = true;
    for (int32_t i = 0; i <= id; i++) {
        if (!c->wanted[i] || c->kept[i])
            continue;
        BL_TRY(new_value(c, i, NULL, &c->value[i]));
        BL_TRY(run_node(c, i, c->value, c->value[i]));
        BL_TRY(new_value(c, i, NULL, &c->shaken[i]));
        BL_TRY(run_shaken(c, i));
    }
    return BL_OK;
}

static void forget_what_is_between(bl_check *c, int32_t id)
{
    for (int32_t i = 0; i <= id; i++)
        if (c->wanted[i] && !c->kept[i])
            forget(c, i);
}

/* --- comparing ---------------------------------------------------------------------------------
 */

/* What rounding may do: 30 times what the second computation did, and some of the largest value. */
static double tolerance_of(const bl_array *value, const bl_array *shaken)
{
    double largest = 0, moved = 0;
    for (int64_t i = 0; i < bl_array_count(value); i++) {
        double a = bl_array_get(value, i), d = fabs(bl_array_get(shaken, i) - a);
        largest = isfinite(a) ? fmax(largest, fabs(a)) : largest;
        moved = isfinite(d) ? fmax(moved, d) : moved;
    }
    bl_dtype dtype = value->type.dtype;
    double unit = dtype == BL_F32 ? 1e-5 : dtype == BL_F64 ? 1e-11 : 0;
    return unit * largest + 30 * moved;
}

static int64_t first_difference(const bl_array *a, const bl_array *b, double tolerance)
{
    for (int64_t i = 0; i < bl_array_count(a); i++) {
        double x = bl_array_get(a, i), y = bl_array_get(b, i);
        if (!(x == y || (isnan(x) && isnan(y)) || fabs(x - y) <= tolerance))
            return i;
    }
    return -1;
}

static bl_status compare(const bl_check *c, int32_t id, const void *device_value)
{
    const bl_node *node = node_at(c, id);
    const char *scope = node->scope ? node->scope : "";
    char type[BL_TYPE_TEXT];
    for (int k = 0; k < pieces_of(node); k++) {
        bl_array ours = piece(node, (void *)(uintptr_t)device_value, k);
        bl_array expected = piece(node, c->value[id], k), shaken = piece(node, c->shaken[id], k);
        int64_t i = first_difference(&ours, &expected, tolerance_of(&expected, &shaken));
        if (i >= 0)
            return bl_fail(BL_INVALID,
                           "BL_CHECK: element %lld of %s (node %d, %s, at %s:%d%s%s) is %.9g on %s "
                           "and %.9g on reference",
                           (long long)i, bl_op_name(node->op), (int)id,
                           bl_type_text(expected.type, type), node->file ? node->file : "?",
                           node->line, scope[0] ? " in " : "", scope, bl_array_get(&ours, i),
                           c->device, bl_array_get(&expected, i));
    }
    return BL_OK;
}

bl_status bl_check_node(bl_check *c, int32_t id, const void *value)
{
    bl_status status = compute(c, id);
    if (status == BL_OK)
        status = compare(c, id, value);
    forget_what_is_between(c, id);
    return status == BL_OK ? keep(c, id, value) : status;
}

bl_status bl_check_outputs(bl_check *c, void *const *output)
{
    for (int o = 0; o < c->signature->outputs; o++)
        BL_TRY(bl_check_node(c, c->signature->output[o], output[o]));
    return BL_OK;
}
