/* Views: movement that is only another way to read what is in memory already.
 *
 * Broadcasts, transposes, slices, reversals and most reshapes become strides over the storage of
 * another node; a constant of one value is one element read with strides 0, an iota one axis of
 * numbers. A view is copied only where a kernel or an output wants it in memory in order; the copy
 * is then an instruction of a fused group like any other. */
#include <string.h>

#include "exec/cpu/cpu.h"

static cpu_view row_major_view(int32_t source, bl_shape shape)
{
    cpu_view view = {.source = source, .rank = shape.rank};
    int64_t stride = 1;
    for (int i = shape.rank - 1; i >= 0; i--) {
        view.dim[i] = shape.dim[i];
        view.stride[i] = stride;
        stride *= shape.dim[i];
    }
    return view;
}

cpu_view cpu_coalesce(cpu_view view)
{
    cpu_view z = {.source = view.source, .offset = view.offset};
    for (int i = 0; i < view.rank; i++) {
        int last = z.rank - 1;
        if (view.dim[i] == 1)
            continue;
        if (last >= 0 && z.stride[last] == view.stride[i] * view.dim[i]) {
            z.dim[last] *= view.dim[i];
            z.stride[last] = view.stride[i];
        } else {
            z.dim[z.rank] = view.dim[i];
            z.stride[z.rank++] = view.stride[i];
        }
    }
    return z;
}

bool cpu_is_contiguous(const cpu_view *view)
{
    cpu_view z = cpu_coalesce(*view);
    return z.rank == 0 || (z.rank == 1 && z.stride[0] == 1);
}

int64_t cpu_view_count(const cpu_view *view)
{
    int64_t count = 1;
    for (int i = 0; i < view->rank; i++)
        count *= view->dim[i];
    return count;
}

cpu_view cpu_view_of(const cpu_plan *plan, int32_t id)
{
    const cpu_fact *fact = &plan->fact[id];
    if (fact->view && fact->kind != CPU_FUSED)
        return *fact->view;
    return row_major_view(id, cpu_node(plan, id)->type.shape);
}

int32_t cpu_source(const cpu_plan *plan, int32_t id)
{
    const cpu_fact *fact = &plan->fact[id];
    return fact->view && fact->kind != CPU_FUSED ? fact->view->source : id;
}

cpu_view cpu_operand_view(const cpu_plan *plan, const bl_node *node, int i)
{
    return cpu_view_of(plan, node->operand[i]);
}

void *cpu_operand(const cpu_plan *plan, const bl_node *node, int i)
{
    cpu_view view = cpu_view_of(plan, node->operand[i]);
    size_t size = bl_dtype_size(cpu_node(plan, node->operand[i])->type.dtype);
    return (char *)plan->address[view.source] + view.offset * (int64_t)size;
}

/* The same elements in the same order under another shape; false if strides cannot say it. */
static bool reshape_view(const cpu_view *view, bl_shape shape, cpu_view *out)
{
    cpu_view old = cpu_coalesce(*view);
    *out = (cpu_view){.source = view->source, .offset = view->offset, .rank = shape.rank};
    int axis = old.rank - 1;
    int64_t left = axis >= 0 ? old.dim[axis] : 1, stride = axis >= 0 ? old.stride[axis] : 0;
    for (int i = shape.rank - 1; i >= 0; i--) {
        out->dim[i] = shape.dim[i];
        if (shape.dim[i] == 1)
            continue;
        if (left == 1 && axis > 0) {
            axis--;
            left = old.dim[axis], stride = old.stride[axis];
        }
        if (left % shape.dim[i] != 0)
            return false;
        out->stride[i] = stride;
        stride *= shape.dim[i];
        left /= shape.dim[i];
    }
    return true;
}

/* The view that a movement makes of its operand's; false if it is no view. */
static bool move_view(const bl_node *node, const cpu_view *x, cpu_view *z)
{
    const bl_attr *attr = node->attr;
    *z = *x;
    for (int i = 0; i < node->type.shape.rank; i++)
        z->dim[i] = node->type.shape.dim[i];
    switch (node->op) {
    case BL_OP_broadcast:
        for (int i = 0; i < x->rank; i++)
            z->stride[i] = x->dim[i] == 1 ? 0 : x->stride[i];
        return true;
    case BL_OP_transpose:
        for (int i = 0; i < x->rank; i++)
            z->stride[i] = x->stride[attr->a[i]];
        return true;
    case BL_OP_slice:
        for (int i = 0; i < x->rank; i++) {
            z->offset += attr->a[i] * x->stride[i];
            z->stride[i] = x->stride[i] * attr->c[i];
        }
        return true;
    case BL_OP_reverse:
        z->offset += (x->dim[attr->axis] - 1) * x->stride[attr->axis];
        z->stride[attr->axis] = -x->stride[attr->axis];
        return true;
    case BL_OP_stop_gradient:
        return true;
    case BL_OP_reshape:
        return reshape_view(x, node->type.shape, z);
    default:
        return false;
    }
}

/* A reduction over axes of size 1 only is a reshape. */
static bool reduces_nothing(const cpu_plan *plan, const bl_node *node)
{
    if (node->op != BL_OP_sum && node->op != BL_OP_reduce_max && node->op != BL_OP_reduce_min &&
        node->op != BL_OP_prod)
        return false;
    bl_type x = cpu_node(plan, node->operand[0])->type;
    for (int i = 0; i < x.shape.rank; i++)
        if ((node->attr->axes >> i & 1) && x.shape.dim[i] != 1)
            return false;
    return true;
}

static bool find_view(const cpu_plan *plan, int32_t id, cpu_view *z)
{
    const bl_node *node = cpu_node(plan, id);
    if (node->op == BL_OP_constant) {
        *z = row_major_view(id, node->type.shape);
        memset(z->stride, 0, sizeof z->stride);
        return node->attr->data == NULL;
    }
    if (node->op == BL_OP_iota) {
        *z = row_major_view(id, node->type.shape);
        memset(z->stride, 0, sizeof z->stride);
        z->stride[node->attr->axis] = 1;
        return true;
    }
    if (node->operands == 0)
        return false;
    cpu_view x = cpu_view_of(plan, node->operand[0]);
    if (reduces_nothing(plan, node))
        return reshape_view(&x, node->type.shape, z);
    return move_view(node, &x, z);
}

static bool has_loop(const cpu_plan *plan, const bl_node *node)
{
    if (!bl_op_is_elementwise(node->op))
        return false;
    bl_dtype from = cpu_node(plan, node->operand[node->op == BL_OP_select])->type.dtype;
    if (node->op == BL_OP_cast)
        return plan->loops->cast[from][node->type.dtype] != NULL;
    switch (node->operands) {
    case 1:
        return plan->loops->unary[node->op][from] != NULL;
    case 2:
        return plan->loops->binary[node->op][from][0] != NULL;
    default:
        return plan->loops->ternary[node->op][from][0] != NULL;
    }
}

static bool is_movement(bl_op op)
{
    return op == BL_OP_reshape || op == BL_OP_broadcast || op == BL_OP_transpose ||
           op == BL_OP_slice || op == BL_OP_reverse;
}

static cpu_kind kind_of(const cpu_plan *plan, int32_t id)
{
    const bl_node *node = cpu_node(plan, id);
    int64_t columns;
    if (node->op == BL_OP_input || node->op == BL_OP_constant || node->op == BL_OP_iota)
        return CPU_STORED;
    if (bl_type_count(node->type) == 0 && bl_op_class_of(node->op) != BL_INDEX)
        return CPU_EMPTY;
    if (plan->fact[id].view)
        return CPU_VIEW;
    if (has_loop(plan, node) || is_movement(node->op) ||
        cpu_reduction_of(plan, id, &columns) != CPU_NOT || reduces_nothing(plan, node))
        return CPU_FUSED;
    return CPU_OPAQUE;
}

bl_status cpu_find_views(cpu_plan *plan)
{
    for (int32_t id = 0; id < plan->nodes; id++) {
        cpu_fact *fact = &plan->fact[id];
        cpu_view view;
        fact->group = fact->last_reader = -1;
        if (bl_type_count(cpu_node(plan, id)->type) > 0 && find_view(plan, id, &view)) {
            fact->view = bl_arena_alloc(plan->arena, sizeof view);
            if (!fact->view)
                return bl_no_memory(sizeof view);
            *fact->view = view;
        }
        fact->kind = kind_of(plan, id);
    }
    return BL_OK;
}

/* Wants node `id` in memory in row-major order. */
static void want_stored(cpu_plan *plan, int32_t id)
{
    cpu_fact *fact = &plan->fact[id];
    if (fact->view && !cpu_is_contiguous(fact->view)) {
        if (fact->kind == CPU_STORED)
            fact->view = NULL; /* a constant: written out in full */
        else
            fact->kind = CPU_FUSED; /* a copy */
    }
    plan->fact[cpu_source(plan, id)].stored = true;
}

bl_status cpu_find_kinds(cpu_plan *plan)
{
    for (int o = 0; o < plan->signature.outputs; o++)
        want_stored(plan, plan->signature.output[o]);
    for (int32_t id = 0; id < plan->nodes; id++) {
        const bl_node *node = cpu_node(plan, id);
        if (plan->fact[id].kind != CPU_OPAQUE)
            continue;
        plan->fact[id].stored = true;
        for (int i = 0; i < node->operands; i++) {
            cpu_view view = cpu_operand_view(plan, node, i);
            if (cpu_reads_view(node, i, &view))
                plan->fact[view.source].stored = true;
            else
                want_stored(plan, node->operand[i]);
        }
    }
    return BL_OK;
}
