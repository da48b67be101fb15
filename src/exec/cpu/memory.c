/* Where every value lives.
 *
 * An output is written where the caller wants it. What is alive only between two kernels gets a
 * place in one slab; a place is free again after the kernel that reads it last. A kernel may write
 * over an operand that dies in it if it reads that operand only at the element it writes; in the
 * same way a donated input is updated in place. Where that is not possible, the value is computed
 * in the slab and copied at the end of the run. */
#include <string.h>

#include "exec/cpu/cpu.h"

enum { NEVER = INT32_MAX };

typedef struct block { /* of free memory */
    size_t offset, bytes;
} block;

typedef struct placing {
    cpu_plan *plan;
    int32_t *kernel_of; /* of every group */
    int32_t *last;      /* kernel that reads the node last; -1: none; NEVER: the end of the run */
    size_t *offset;     /* in the slab */
    bool *in_slab;
    int32_t *dying_first, *dying_next; /* nodes by the kernel in which they die */
    block *free;
    size_t frees, free_capacity;
} placing;

static size_t slab_bytes_of(const cpu_plan *plan, int32_t id)
{
    return (bl_type_bytes(cpu_node(plan, id)->type) + 63) & ~(size_t)63;
}

/* --- reading ---------------------------------------------------------------------------------- */

static int operands_of(const cpu_plan *plan, int32_t id)
{
    const cpu_fact *fact = &plan->fact[id];
    return fact->kind == CPU_FUSED && fact->view ? 1 : cpu_node(plan, id)->operands;
}

static cpu_view read_view(const cpu_plan *plan, int32_t id, int i)
{
    const cpu_fact *fact = &plan->fact[id];
    return fact->kind == CPU_FUSED && fact->view ? *fact->view
                                                 : cpu_operand_view(plan, cpu_node(plan, id), i);
}

static void find_last_reads(placing *p)
{
    const cpu_plan *plan = p->plan;
    for (int32_t id = 0; id < plan->nodes; id++)
        p->last[id] = -1;
    for (int32_t id = 0; id < plan->nodes; id++) {
        if (plan->fact[id].group < 0)
            continue;
        int32_t k = p->kernel_of[plan->fact[id].group];
        for (int i = 0; i < operands_of(plan, id); i++) {
            int32_t source = read_view(plan, id, i).source;
            if (p->last[source] < k)
                p->last[source] = k;
        }
    }
}

/* Whether kernel k reads `leaf` only at the element of `id` that it writes then. */
static bool may_lie_over(const placing *p, int32_t id, int32_t leaf, const cpu_kernel *kernel)
{
    const cpu_plan *plan = p->plan;
    bl_type a = cpu_node(plan, id)->type, b = cpu_node(plan, leaf)->type;
    const cpu_group *group = &plan->group[kernel->group];
    if (bl_type_bytes(a) != bl_type_bytes(b) || bl_dtype_size(a.dtype) != bl_dtype_size(b.dtype))
        return false;
    if (!group->fused) {
        const bl_node *node = cpu_node(plan, id);
        bool only = kernel->in_place && cpu_source(plan, node->operand[0]) == leaf;
        for (int i = 1; i < node->operands; i++)
            only &= cpu_source(plan, node->operand[i]) != leaf;
        return only;
    }
    if (plan->fact[id].terminal || plan->fact[id].space != CPU_FULL)
        return false;
    for (int32_t n = 0; n < group->nodes; n++)
        for (int i = 0; i < operands_of(plan, group->node[n]); i++) {
            cpu_view view = read_view(plan, group->node[n], i);
            if (view.source != leaf)
                continue;
            const cpu_fact *fact = &plan->fact[group->node[n]];
            cpu_class space = fact->reduction == CPU_NOT ? fact->space : fact->operand_space;
            cpu_reading reading = cpu_read(group, &view, space);
            bool same = reading.class == CPU_FULL || group->count == 1;
            if (!same || !reading.direct || reading.by_column || view.offset != 0)
                return false;
        }
    return true;
}

/* --- outputs ---------------------------------------------------------------------------------- */

static int32_t donor_of(const cpu_plan *plan, int output)
{
    for (int d = 0; d < plan->signature.donations; d++)
        if (plan->signature.donation[d].output == output)
            return plan->signature.input[plan->signature.donation[d].input];
    return -1;
}

static int receiver_of(const cpu_plan *plan, int32_t input)
{
    for (int d = 0; d < plan->signature.donations; d++)
        if (plan->signature.input[plan->signature.donation[d].input] == input)
            return plan->signature.donation[d].output;
    return -1;
}

/* Whether the value may be written to the output's buffer when it is computed. */
static bool may_be_home(const placing *p, int32_t source, int output)
{
    cpu_plan *plan = p->plan;
    int32_t donor = donor_of(plan, output), k = p->kernel_of[plan->fact[source].group];
    if (donor < 0 || p->last[donor] < k)
        return true;
    if (p->last[donor] > k || !may_lie_over(p, source, donor, &plan->kernel[k]))
        return false;
    plan->over[source] = donor;
    return true;
}

static int input_number(const cpu_plan *plan, int32_t id)
{
    for (int i = 0; i < plan->signature.inputs; i++)
        if (plan->signature.input[i] == id)
            return i;
    return -1;
}

/* An input that is also an output, while another output overwrites it, is put aside first. */
static bl_status copy_input(cpu_plan *plan, cpu_copy *after)
{
    if (receiver_of(plan, after->from) < 0)
        return BL_OK;
    after->staged = bl_arena_alloc(plan->arena, after->bytes + after->offset);
    if (!after->staged)
        return bl_no_memory(after->bytes);
    plan->before[plan->befores++] = (cpu_copy){.from = after->from,
                                               .staged = after->staged,
                                               .output = -1,
                                               .input = input_number(plan, after->from),
                                               .bytes = after->bytes + after->offset};
    after->from = -1;
    return BL_OK;
}

static bl_status place_output(placing *p, int output)
{
    cpu_plan *plan = p->plan;
    int32_t id = plan->signature.output[output];
    const bl_node *node = cpu_node(plan, id);
    cpu_view view = cpu_view_of(plan, id);
    const bl_node *source = cpu_node(plan, view.source);
    bool computed = plan->fact[view.source].group >= 0;
    if (bl_type_count(node->type) == 0)
        return BL_OK;
    if (source->op == BL_OP_input && donor_of(plan, output) == view.source && view.offset == 0)
        return BL_OK; /* it is there already */
    if (computed && plan->home[view.source] < 0 && view.offset == 0 &&
        bl_type_count(source->type) == bl_type_count(node->type) &&
        may_be_home(p, view.source, output)) {
        plan->home[view.source] = output;
        return BL_OK;
    }
    cpu_copy after = {.from = view.source,
                      .output = output,
                      .input = -1,
                      .offset = (size_t)view.offset * bl_dtype_size(node->type.dtype),
                      .bytes = bl_type_bytes(node->type)};
    if (source->op == BL_OP_input)
        BL_TRY(copy_input(plan, &after));
    if (computed)
        p->last[view.source] = NEVER;
    plan->after[plan->afters++] = after;
    return BL_OK;
}

/* --- the slab --------------------------------------------------------------------------------- */

static bl_status give_back(placing *p, size_t offset, size_t bytes)
{
    size_t at = 0;
    if (bytes == 0)
        return BL_OK;
    while (at < p->frees && p->free[at].offset < offset)
        at++;
    if (!BL_GROW(p->free, p->frees, p->free_capacity))
        return bl_no_memory(sizeof *p->free);
    memmove(p->free + at + 1, p->free + at, (p->frees - at) * sizeof *p->free);
    p->free[at] = (block){offset, bytes};
    p->frees++;
    if (at + 1 < p->frees && offset + bytes == p->free[at + 1].offset) {
        p->free[at].bytes += p->free[at + 1].bytes;
        p->frees--;
        memmove(p->free + at + 1, p->free + at + 2, (p->frees - at - 1) * sizeof *p->free);
    }
    if (at > 0 && p->free[at - 1].offset + p->free[at - 1].bytes == offset) {
        p->free[at - 1].bytes += p->free[at].bytes;
        p->frees--;
        memmove(p->free + at, p->free + at + 1, (p->frees - at) * sizeof *p->free);
    }
    return BL_OK;
}

/* The smallest free block that is large enough, else the end of the slab. */
static size_t take(placing *p, size_t bytes)
{
    size_t best = p->frees;
    for (size_t i = 0; i < p->frees; i++)
        if (p->free[i].bytes >= bytes &&
            (best == p->frees || p->free[i].bytes < p->free[best].bytes))
            best = i;
    cpu_plan *plan = p->plan;
    if (best < p->frees) {
        size_t offset = p->free[best].offset;
        p->free[best].offset += bytes;
        p->free[best].bytes -= bytes;
        if (p->free[best].bytes == 0) {
            p->frees--;
            memmove(p->free + best, p->free + best + 1, (p->frees - best) * sizeof *p->free);
        }
        return offset;
    }
    size_t offset = plan->slab_bytes;
    if (p->frees && p->free[p->frees - 1].offset + p->free[p->frees - 1].bytes == offset)
        offset = p->free[--p->frees].offset; /* the last block grows */
    plan->slab_bytes = offset + bytes;
    return offset;
}

/* An operand that dies in kernel k and may be overwritten by node id. */
static int32_t find_under(const placing *p, int32_t id, int32_t k)
{
    for (int32_t leaf = p->dying_first[k]; leaf >= 0; leaf = p->dying_next[leaf])
        if (p->in_slab[leaf] && p->plan->fact[leaf].group != p->plan->fact[id].group &&
            slab_bytes_of(p->plan, leaf) == slab_bytes_of(p->plan, id) &&
            may_lie_over(p, id, leaf, &p->plan->kernel[k]))
            return leaf;
    return -1;
}

static void place_result(placing *p, int32_t id, int32_t k)
{
    cpu_plan *plan = p->plan;
    if (!plan->fact[id].stored || plan->home[id] >= 0)
        return;
    int32_t under = find_under(p, id, k);
    if (under >= 0) {
        p->offset[id] = p->offset[under];
        p->in_slab[under] = false; /* no longer its own */
        plan->over[id] = under;
    } else {
        p->offset[id] = take(p, slab_bytes_of(plan, id));
    }
    p->in_slab[id] = true;
}

static bl_status place_kernel(placing *p, int32_t k)
{
    cpu_plan *plan = p->plan;
    const cpu_group *group = &plan->group[plan->kernel[k].group];
    for (int32_t n = 0; n < group->nodes; n++)
        place_result(p, group->node[n], k);
    for (int32_t leaf = p->dying_first[k]; leaf >= 0; leaf = p->dying_next[leaf])
        if (p->in_slab[leaf])
            BL_TRY(give_back(p, p->offset[leaf], slab_bytes_of(plan, leaf)));
    return BL_OK;
}

static void list_dying(placing *p)
{
    const cpu_plan *plan = p->plan;
    for (int32_t k = 0; k < plan->kernels; k++)
        p->dying_first[k] = -1;
    for (int32_t id = 0; id < plan->nodes; id++) {
        if (plan->fact[id].group < 0 || !plan->fact[id].stored)
            continue;
        int32_t own = p->kernel_of[plan->fact[id].group];
        int32_t k = p->last[id] < own ? own : p->last[id]; /* read by nobody: dies at once */
        if (k == NEVER)
            continue;
        p->dying_next[id] = p->dying_first[k];
        p->dying_first[k] = id;
    }
}

/* --- constants -------------------------------------------------------------------------------- */

/* Elements that a stored constant or iota holds in memory. */
static int64_t constant_count(const cpu_plan *plan, int32_t id)
{
    const bl_node *node = cpu_node(plan, id);
    if (node->attr->data)
        return 0;
    if (!plan->fact[id].view)
        return bl_type_count(node->type);
    return node->op == BL_OP_iota ? node->type.shape.dim[node->attr->axis] : 1;
}

static void fill_constant(const cpu_plan *plan, int32_t id, void *to)
{
    const bl_node *node = cpu_node(plan, id);
    int64_t count = constant_count(plan, id), inner = 1;
    if (node->op == BL_OP_iota && !plan->fact[id].view)
        for (int i = node->attr->axis + 1; i < node->type.shape.rank; i++)
            inner *= node->type.shape.dim[i];
    bl_array array = {{node->type.dtype, {1, {count}}}, to};
    for (int64_t i = 0; i < count; i++)
        bl_array_set(&array, i,
                     node->op == BL_OP_iota
                         ? (double)(i / inner % node->type.shape.dim[node->attr->axis])
                         : node->attr->value);
}

static bool is_constant(const cpu_plan *plan, int32_t id)
{
    bl_op op = cpu_node(plan, id)->op;
    return op == BL_OP_constant || op == BL_OP_iota;
}

static bl_status place_constants(cpu_plan *plan)
{
    size_t at = 64; /* the first stands for what has no elements */
    for (int32_t id = 0; id < plan->nodes; id++)
        if (is_constant(plan, id))
            at +=
                ((size_t)constant_count(plan, id) * bl_dtype_size(cpu_node(plan, id)->type.dtype) +
                 63) &
                ~(size_t)63;
    plan->constants = bl_alloc_aligned(at);
    if (!plan->constants)
        return bl_no_memory(at);
    plan->constant_bytes = at;
    at = 64;
    for (int32_t id = 0; id < plan->nodes; id++) {
        plan->address[id] = plan->constants;
        if (!is_constant(plan, id))
            continue;
        const bl_node *node = cpu_node(plan, id);
        plan->address[id] =
            node->attr->data ? (void *)(uintptr_t)node->attr->data : (void *)(plan->constants + at);
        fill_constant(plan, id, plan->constants + at);
        at +=
            ((size_t)constant_count(plan, id) * bl_dtype_size(node->type.dtype) + 63) & ~(size_t)63;
    }
    return BL_OK;
}

/* --- all -------------------------------------------------------------------------------------- */

static bl_status place_everything(placing *p)
{
    cpu_plan *plan = p->plan;
    for (int32_t k = 0; k < plan->kernels; k++)
        p->kernel_of[plan->kernel[k].group] = k;
    find_last_reads(p);
    for (int o = 0; o < plan->signature.outputs; o++)
        BL_TRY(place_output(p, o));
    list_dying(p);
    for (int32_t k = 0; k < plan->kernels; k++)
        BL_TRY(place_kernel(p, k));
    BL_TRY(place_constants(plan));
    plan->slab = bl_alloc_unset(plan->slab_bytes + 64);
    if (!plan->slab)
        return bl_no_memory(plan->slab_bytes);
    for (int32_t id = 0; id < plan->nodes; id++)
        if (plan->fact[id].group >= 0 && plan->fact[id].stored && plan->home[id] < 0)
            plan->address[id] = plan->slab + p->offset[id];
    return BL_OK;
}

bl_status cpu_place(cpu_plan *plan)
{
    size_t n = (size_t)plan->nodes + 1, outputs = (size_t)plan->signature.outputs + 1;
    placing p = {.plan = plan,
                 .kernel_of = bl_alloc(((size_t)plan->groups + 1) * sizeof(int32_t)),
                 .last = bl_alloc(n * sizeof(int32_t)),
                 .offset = bl_alloc(n * sizeof(size_t)),
                 .in_slab = bl_alloc(n * sizeof(bool)),
                 .dying_first = bl_alloc(((size_t)plan->kernels + 1) * sizeof(int32_t)),
                 .dying_next = bl_alloc(n * sizeof(int32_t))};
    plan->before = bl_alloc(outputs * sizeof *plan->before);
    plan->after = bl_alloc(outputs * sizeof *plan->after);
    bool enough = p.kernel_of && p.last && p.offset && p.in_slab && p.dying_first && p.dying_next &&
                  plan->before && plan->after;
    bl_status status = enough ? place_everything(&p) : bl_no_memory(n * sizeof(size_t));
    bl_release(p.kernel_of);
    bl_release(p.last);
    bl_release(p.offset);
    bl_release(p.in_slab);
    bl_release(p.dying_first);
    bl_release(p.dying_next);
    bl_release(p.free);
    return status;
}
