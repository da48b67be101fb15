/* Computing again instead of storing.
 *
 * A value that the forward pass computes on the way is often needed once more in the backward pass,
 * many kernels later. Writing it and reading it again costs more than to compute it again from what
 * is in memory anyway: a GELU's six inner values come from the one product before it. So where a
 * late user could have a value from one array of its size (and small ones) with little work, it
 * gets copies of its own of the few nodes between; fuse.c puts them into the user's kernel.
 *
 * Late means of a higher level: the number of contractions and other kernels of their own that lie
 * before. To let another primitive be computed again, give it its work below. */
#include <string.h>

#include "exec/cpu/cpu.h"

enum {
    WORTH_BYTES = 64 << 10, /* smaller values stay in the cache */
    MOST_WORK = 32,         /* in additions of an element */
    CONE_NODES = 32,
    NEVER = 1000
};

/* The nodes between a value and the arrays from which it can be computed again. */
typedef struct cone {
    int32_t node[CONE_NODES], source[CONE_NODES];
    int nodes, sources, work;
} cone;

typedef struct recomputing {
    const cpu_plan *plan;
    const bl_graph *from;
    bl_graph *to;
    int32_t nodes;
    int32_t *level, *entry; /* of a node's result, and of the kernel that computes it */
    bool *late;             /* has a user of a higher level */
    bool *needed; /* in memory whatever happens: an output, or read by a kernel of its own */
    bool *stored, *emitted;
    int32_t *map; /* of an emitted node: in `to` */
    int32_t *again,
        *again_level; /* the node's last copy: in `to`, or -1; for users of this level */
    bool *is_again;   /* by ids of `to` */
    size_t is_again_capacity;
} recomputing;

static int work_of(bl_op op)
{
    switch (op) {
    case BL_OP_reshape:
    case BL_OP_broadcast:
        return 0;
    case BL_OP_div:
    case BL_OP_sqrt:
    case BL_OP_rsqrt:
        return 4;
    case BL_OP_exp:
    case BL_OP_log:
    case BL_OP_log1p:
    case BL_OP_expm1:
    case BL_OP_tanh:
    case BL_OP_sigmoid:
    case BL_OP_erf:
        return 10;
    case BL_OP_pow:
    case BL_OP_rem:
    case BL_OP_atan2:
    case BL_OP_sin:
    case BL_OP_cos:
    case BL_OP_atan:
    case BL_OP_lgamma:
    case BL_OP_digamma:
    case BL_OP_trigamma:
        return NEVER;
    default:
        return bl_op_is_elementwise(op) ? 1 : NEVER;
    }
}

static bool is_leaf(bl_op op)
{
    return op == BL_OP_input || op == BL_OP_constant || op == BL_OP_iota;
}

/* A reduction that is finished only when its kernel is, or no part of a fused kernel at all. */
static bool ends_kernel(const recomputing *r, int32_t id)
{
    const bl_node *node = bl_node_at(r->from, id);
    bl_op_class class = bl_op_class_of(node->op);
    int64_t columns;
    if (is_leaf(node->op) || bl_op_is_elementwise(node->op) || class == BL_MOVE)
        return false;
    return class != BL_REDUCE || cpu_reduction_of(r->plan, id, &columns) != CPU_OF_ROW;
}

static bool is_fused_user(const recomputing *r, int32_t id)
{
    bl_op op = bl_node_at(r->from, id)->op;
    int64_t columns;
    return work_of(op) != NEVER || bl_op_is_elementwise(op) ||
           cpu_reduction_of(r->plan, id, &columns) != CPU_NOT;
}

static void find_levels(recomputing *r)
{
    for (int32_t id = 0; id < r->nodes; id++) {
        const bl_node *node = bl_node_at(r->from, id);
        for (int i = 0; i < node->operands; i++)
            if (r->entry[id] < r->level[node->operand[i]])
                r->entry[id] = r->level[node->operand[i]];
        r->level[id] = r->entry[id] + ends_kernel(r, id);
        bool fused = is_fused_user(r, id);
        for (int i = 0; i < node->operands; i++) {
            int32_t x = node->operand[i];
            r->late[x] |= fused && r->level[x] < r->entry[id];
            r->needed[x] |= !fused;
        }
    }
    for (int o = 0; o < r->plan->signature.outputs; o++)
        r->needed[r->plan->signature.output[o]] = true;
    for (int32_t id = r->nodes - 1; id >= 0; id--)
        if (bl_op_class_of(bl_node_at(r->from, id)->op) == BL_MOVE)
            r->needed[bl_node_at(r->from, id)->operand[0]] |= r->needed[id];
}

static bool in_list(const int32_t *list, int count, int32_t id)
{
    for (int i = 0; i < count; i++)
        if (list[i] == id)
            return true;
    return false;
}

/* False if the value cannot be computed again, or only with much work. */
static bool find_cone(const recomputing *r, int32_t id, cone *c)
{
    int32_t open[CONE_NODES * 3 + 1];
    int opened = 1;
    *c = (cone){0};
    open[0] = id;
    while (opened > 0) {
        int32_t x = open[--opened];
        if (in_list(c->node, c->nodes, x) || in_list(c->source, c->sources, x))
            continue;
        const bl_node *node = bl_node_at(r->from, x);
        if (r->stored[x] && x != id) {
            if (c->sources == CONE_NODES)
                return false;
            c->source[c->sources++] = x;
            continue;
        }
        c->work += work_of(node->op);
        if (c->work > MOST_WORK || c->nodes == CONE_NODES)
            return false;
        c->node[c->nodes++] = x;
        for (int i = 0; i < node->operands; i++)
            open[opened++] = node->operand[i];
    }
    return true;
}

static size_t bytes_of(const recomputing *r, int32_t id)
{
    const bl_node *node = bl_node_at(r->from, id);
    return node->op == BL_OP_input || !is_leaf(node->op) ? bl_type_bytes(node->type) : 0;
}

static bool is_worth_it(const recomputing *r, int32_t id)
{
    cone c;
    size_t own = bytes_of(r, id), read = 0;
    if (own < WORTH_BYTES || work_of(bl_node_at(r->from, id)->op) == NEVER || !find_cone(r, id, &c))
        return false;
    for (int i = 0; i < c.sources; i++)
        read += bytes_of(r, c.source[i]);
    return read <= own + own / 4;
}

static void choose(recomputing *r)
{
    for (int32_t id = 0; id < r->nodes; id++) {
        bl_op op = bl_node_at(r->from, id)->op;
        r->stored[id] =
            r->needed[id] || work_of(op) == NEVER || (r->late[id] && !is_worth_it(r, id));
    }
}

/* Whether node `id` gets operand x from a copy of its own. */
static bool takes_copy(const recomputing *r, int32_t id, int32_t x)
{
    return !r->stored[x] && r->level[x] < r->entry[id];
}

static void find_emitted(recomputing *r)
{
    cone c;
    for (int o = 0; o < r->plan->signature.outputs; o++)
        r->emitted[r->plan->signature.output[o]] = true;
    for (int i = 0; i < r->plan->signature.inputs; i++)
        r->emitted[r->plan->signature.input[i]] = true;
    for (int32_t id = r->nodes - 1; id >= 0; id--) {
        const bl_node *node = bl_node_at(r->from, id);
        for (int i = 0; i < node->operands && r->emitted[id]; i++) {
            int32_t x = node->operand[i];
            if (!takes_copy(r, id, x)) {
                r->emitted[x] = true;
                continue;
            }
            (void)find_cone(r, x, &c);
            for (int s = 0; s < c.sources; s++)
                r->emitted[c.source[s]] = true;
        }
    }
}

/* --- writing ---------------------------------------------------------------------------------- */

static bl_status add_copy(recomputing *r, const bl_node *node, const int32_t *operand, bool again,
                          int32_t *out)
{
    int32_t id = (int32_t)bl_graph_size(r->to);
    if (!BL_GROW(r->is_again, id, r->is_again_capacity))
        return bl_no_memory(1);
    bl_tensor copy = bl_node_copy(r->to, node, operand);
    if (bl_is_poison(copy))
        return bl_graph_status(r->to);
    r->is_again[copy.id] = again;
    *out = copy.id;
    return BL_OK;
}

/* The copy of x for users of this level; its cone's nodes in order of their numbers. */
static bl_status compute_again(recomputing *r, int32_t x, int32_t level, int32_t *out)
{
    cone c;
    (void)find_cone(r, x, &c);
    for (int n = 1; n < c.nodes; n++) /* sorts */
        for (int m = n; m > 0 && c.node[m] < c.node[m - 1]; m--) {
            int32_t larger = c.node[m - 1];
            c.node[m - 1] = c.node[m];
            c.node[m] = larger;
        }
    for (int n = 0; n < c.nodes; n++) {
        int32_t id = c.node[n], operand[3];
        const bl_node *node = bl_node_at(r->from, id);
        if (r->again[id] >= 0 && r->again_level[id] == level)
            continue;
        for (int i = 0; i < node->operands; i++) {
            int32_t y = node->operand[i];
            operand[i] = in_list(c.source, c.sources, y) ? r->map[y] : r->again[y];
        }
        BL_TRY(add_copy(r, node, operand, true, &r->again[id]));
        r->again_level[id] = level;
    }
    *out = r->again[x];
    return BL_OK;
}

static bl_status write(recomputing *r, int32_t *operand)
{
    for (int32_t id = 0; id < r->nodes; id++) {
        const bl_node *node = bl_node_at(r->from, id);
        if (!r->emitted[id])
            continue;
        for (int i = 0; i < node->operands; i++) {
            int32_t x = node->operand[i];
            if (takes_copy(r, id, x))
                BL_TRY(compute_again(r, x, r->entry[id], &operand[i]));
            else
                operand[i] = r->map[x];
        }
        BL_TRY(add_copy(r, node, operand, false, &r->map[id]));
    }
    return BL_OK;
}

static bl_status new_signature(cpu_plan *plan, const recomputing *r)
{
    bl_signature *s = &plan->signature;
    size_t count = (size_t)s->inputs + (size_t)s->outputs;
    plan->ids = bl_alloc((count + 1) * sizeof *plan->ids);
    if (!plan->ids)
        return bl_no_memory(count * sizeof *plan->ids);
    for (int i = 0; i < s->inputs; i++)
        plan->ids[i] = r->map[s->input[i]];
    for (int o = 0; o < s->outputs; o++)
        plan->ids[s->inputs + o] = r->map[s->output[o]];
    s->graph = r->to;
    s->input = plan->ids;
    s->output = plan->ids + s->inputs;
    return BL_OK;
}

static bl_status rewrite(cpu_plan *plan, recomputing *r)
{
    int operands = 1;
    find_levels(r);
    choose(r);
    find_emitted(r);
    for (int32_t id = 0; id < r->nodes; id++)
        operands = bl_node_at(r->from, id)->operands > operands ? bl_node_at(r->from, id)->operands
                                                                : operands;
    int32_t *operand = bl_alloc((size_t)operands * sizeof *operand);
    if (!operand)
        return bl_no_memory((size_t)operands * sizeof *operand);
    bl_status status = write(r, operand);
    bl_release(operand);
    return status == BL_OK ? new_signature(plan, r) : status;
}

bl_status cpu_recompute(cpu_plan *plan)
{
    size_t n = (size_t)bl_graph_size(plan->signature.graph) + 1;
    recomputing r = {.plan = plan,
                     .from = plan->signature.graph,
                     .to = bl_graph_new(),
                     .nodes = (int32_t)n - 1,
                     .level = bl_alloc(n * sizeof *r.level),
                     .entry = bl_alloc(n * sizeof *r.entry),
                     .late = bl_alloc(n),
                     .needed = bl_alloc(n),
                     .stored = bl_alloc(n),
                     .emitted = bl_alloc(n),
                     .map = bl_alloc(n * sizeof *r.map),
                     .again = bl_alloc(n * sizeof *r.again),
                     .again_level = bl_alloc(n * sizeof *r.again_level)};
    bool good = r.to && r.level && r.entry && r.late && r.needed && r.stored && r.emitted &&
                r.map && r.again && r.again_level;
    if (good)
        memset(r.again, 0xff, n * sizeof *r.again);
    bl_status status = good ? rewrite(plan, &r) : bl_no_memory(n * sizeof *r.level);
    plan->graph = r.to;
    plan->again = r.is_again;
    bl_release(r.level);
    bl_release(r.entry);
    bl_release(r.late);
    bl_release(r.needed);
    bl_release(r.stored);
    bl_release(r.emitted);
    bl_release(r.map);
    bl_release(r.again);
    bl_release(r.again_level);
    return status;
}
