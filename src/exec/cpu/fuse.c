/* Fusion: which nodes share a kernel.
 *
 * Nodes are taken in order and put into numbered groups, which later run in the order of their
 * numbers. A node may join any group whose number is not below those of its operands' groups, so
 * no cycle can arise. It joins one that computes or reads one of its operands, if it fits: the same
 * elements, or one a row of them. A reduction over rows may be used by its own group (softmax,
 * norms); one over columns or over all is finished only when the kernel is, so its users are later.
 *
 * A second sweep, backwards, moves a node to the only group that uses it, where that costs no more
 * memory traffic: the momentum term of an update belongs to the update, not where it could first
 * be computed. A third joins a whole group to the first group that uses it, where both fit each
 * other. A group that is full is closed: the next node opens another, nothing fails. */
#include <string.h>

#include "exec/cpu/cpu.h"

enum {
    GROUP_NODES = 192,   /* nodes of a group */
    ROW_COLUMNS = 16384, /* the longest row that is kept in cache between reductions */
    CANDIDATES = 8
};

/* --- reductions ------------------------------------------------------------------------------- */

int cpu_reduction_index(bl_op op)
{
    return op == BL_OP_sum ? BL_SUM : op == BL_OP_reduce_max ? BL_MAX : BL_MIN;
}

cpu_reduction cpu_reduction_of(const cpu_plan *plan, int32_t id, int64_t *columns)
{
    const bl_node *node = cpu_node(plan, id);
    *columns = 0;
    if (node->op != BL_OP_sum && node->op != BL_OP_reduce_max && node->op != BL_OP_reduce_min)
        return CPU_NOT;
    bl_type x = cpu_node(plan, node->operand[0])->type;
    if (bl_type_count(x) == 0 || !plan->loops->reduce_rows[cpu_reduction_index(node->op)][x.dtype])
        return CPU_NOT;
    int changes = 0, last = -1, first = -1; /* runs of reduced and kept axes */
    int64_t inner = 1;
    for (int i = x.shape.rank - 1; i >= 0; i--) {
        int reduced = (int)(node->attr->axes >> i & 1);
        if (x.shape.dim[i] == 1)
            continue;
        if (last < 0)
            last = reduced;
        if (first >= 0 && first != reduced)
            changes++;
        first = reduced;
        if (changes == 0)
            inner *= x.shape.dim[i];
    }
    *columns = inner;
    if (last < 0 || changes > 1)
        return CPU_NOT;
    if (changes == 0)
        return last ? CPU_OF_ALL : CPU_NOT;
    if (last)
        return inner <= ROW_COLUMNS ? CPU_OF_ROW : CPU_NOT;
    return CPU_OF_COLUMN;
}

/* --- groups ----------------------------------------------------------------------------------- */

static int32_t new_group(cpu_plan *plan, bool fused, int64_t count)
{
    if (!BL_GROW(plan->group, plan->groups, plan->group_capacity))
        return -1;
    plan->group[plan->groups] = (cpu_group){.fused = fused, .count = count};
    return plan->groups++;
}

/* What a node of group g makes of a value of that group read through a view. */
typedef enum use { USE_NONE, USE_FULL, USE_ROW, USE_SPREAD } use;

static use use_in_group(const cpu_plan *plan, int32_t g, const cpu_view *view)
{
    const cpu_fact *fact = &plan->fact[view->source];
    const cpu_group *group = &plan->group[g];
    int64_t count = cpu_view_count(view);
    if (fact->terminal)
        return USE_NONE;
    if (cpu_is_contiguous(view))
        return count != bl_type_count(cpu_node(plan, view->source)->type) ? USE_NONE
               : fact->space == CPU_ROW                                   ? USE_ROW
                                                                          : USE_FULL;
    cpu_view z = cpu_coalesce(*view);
    if (fact->space == CPU_ROW && z.rank == 2 && z.stride[0] == 1 && z.stride[1] == 0 &&
        z.dim[1] == group->columns && count == group->count && z.offset == 0)
        return USE_SPREAD;
    return USE_NONE;
}

static bool is_reduction(const cpu_plan *plan, int32_t id)
{
    return plan->fact[id].reduction != CPU_NOT;
}

static int operand_count(const cpu_plan *plan, int32_t id)
{
    const cpu_fact *fact = &plan->fact[id];
    return fact->view ? 1 : cpu_node(plan, id)->operands; /* a copy reads its view */
}

static cpu_view fused_operand(const cpu_plan *plan, int32_t id, int i)
{
    const cpu_fact *fact = &plan->fact[id];
    return fact->view ? *fact->view : cpu_operand_view(plan, cpu_node(plan, id), i);
}

/* The space of a node that works element by element, or -1 if it does not fit group g. */
static int map_space(const cpu_plan *plan, int32_t id, int32_t g)
{
    const cpu_group *group = &plan->group[g];
    int64_t count = bl_type_count(cpu_node(plan, id)->type);
    int space = -1;
    for (int i = 0; i < operand_count(plan, id); i++) {
        cpu_view view = fused_operand(plan, id, i);
        int32_t from = plan->fact[view.source].group;
        if (from > g)
            return -1;
        if (from < g)
            continue;
        use u = use_in_group(plan, g, &view);
        int wanted = u == USE_ROW ? CPU_ROW : CPU_FULL;
        if (u == USE_NONE || (space >= 0 && space != wanted))
            return -1;
        space = wanted;
    }
    if (space < 0 && count == group->count)
        space = CPU_FULL;
    else if (space < 0 && group->columns && group->columns <= ROW_COLUMNS &&
             count * group->columns == group->count)
        space = CPU_ROW;
    if (space < 0)
        return -1;
    int64_t wanted = space == CPU_FULL ? group->count : group->count / group->columns;
    return count == wanted ? space : -1;
}

/* Whether a reduction fits group g; *operand_space is what it reduces. */
static bool reduction_fits(const cpu_plan *plan, int32_t id, int32_t g, cpu_class *operand_space)
{
    const cpu_group *group = &plan->group[g];
    const cpu_fact *fact = &plan->fact[id];
    cpu_view view = cpu_operand_view(plan, cpu_node(plan, id), 0);
    int32_t from = plan->fact[view.source].group;
    *operand_space = CPU_FULL;
    if (from > g)
        return false;
    if (from == g) {
        use u = use_in_group(plan, g, &view);
        if (u == USE_ROW && fact->reduction == CPU_OF_ALL) {
            *operand_space = CPU_ROW;
            return true;
        }
        if (u != USE_FULL)
            return false;
    } else if (cpu_view_count(&view) != group->count) {
        return false;
    }
    return fact->reduction == CPU_OF_ALL || group->columns == 0 || group->columns == fact->columns;
}

static bool join(cpu_plan *plan, int32_t id, int32_t g)
{
    cpu_fact *fact = &plan->fact[id];
    cpu_group *group = &plan->group[g];
    if (!group->fused || group->nodes >= GROUP_NODES)
        return false;
    if (is_reduction(plan, id)) {
        cpu_class operand_space;
        if (!reduction_fits(plan, id, g, &operand_space))
            return false;
        fact->operand_space = operand_space;
        fact->space = CPU_ROW;
        fact->terminal = fact->reduction != CPU_OF_ROW;
        if (fact->reduction != CPU_OF_ALL)
            group->columns = fact->columns;
    } else {
        int space = map_space(plan, id, g);
        if (space < 0)
            return false;
        fact->space = (cpu_class)space;
    }
    fact->group = g;
    group->nodes++;
    return true;
}

static void add_candidate(int32_t *candidate, int *count, int32_t g)
{
    int at = 0;
    while (at < *count && candidate[at] > g)
        at++;
    if (g < 0 || (at < *count && candidate[at] == g) || *count == CANDIDATES)
        return;
    memmove(candidate + at + 1, candidate + at, (size_t)(*count - at) * sizeof *candidate);
    candidate[at] = g;
    (*count)++;
}

static void note_readers(cpu_plan *plan, int32_t id)
{
    int32_t g = plan->fact[id].group;
    for (int i = 0; i < operand_count(plan, id); i++) {
        int32_t source = fused_operand(plan, id, i).source;
        if (plan->fact[source].group < g && plan->fact[source].last_reader < g)
            plan->fact[source].last_reader = g;
    }
}

static bl_status place_fused(cpu_plan *plan, int32_t id)
{
    int32_t candidate[CANDIDATES + 1];
    int candidates = 0;
    for (int i = 0; i < operand_count(plan, id); i++) {
        cpu_view view = fused_operand(plan, id, i);
        const cpu_fact *source = &plan->fact[view.source];
        add_candidate(candidate, &candidates, source->group);
        if (bl_type_count(cpu_node(plan, view.source)->type) > 1)
            add_candidate(candidate, &candidates, source->last_reader);
    }
    bool placed = false;
    for (int i = 0; i < candidates && !placed; i++)
        placed = join(plan, id, candidate[i]);
    if (!placed) {
        int32_t reduced = is_reduction(plan, id) ? cpu_node(plan, id)->operand[0] : id;
        int32_t g = new_group(plan, true, bl_type_count(cpu_node(plan, reduced)->type));
        if (g < 0)
            return bl_no_memory(sizeof(cpu_group));
        if (!join(plan, id, g)) /* cannot happen: an empty group takes any node */
            return bl_fail(BL_UNSUPPORTED, "cpu: node %d fits no group", (int)id);
    }
    note_readers(plan, id);
    return BL_OK;
}

static bl_status place_all(cpu_plan *plan)
{
    for (int32_t id = 0; id < plan->nodes; id++) {
        cpu_fact *fact = &plan->fact[id];
        if (fact->kind == CPU_FUSED) {
            fact->reduction = fact->view ? CPU_NOT : cpu_reduction_of(plan, id, &fact->columns);
            BL_TRY(place_fused(plan, id));
        } else if (fact->kind == CPU_OPAQUE) {
            fact->group = new_group(plan, false, 0);
            if (fact->group < 0)
                return bl_no_memory(sizeof(cpu_group));
            plan->group[fact->group].nodes = 1;
        }
    }
    return BL_OK;
}

/* --- the backward sweep ----------------------------------------------------------------------- */

/* Who reads a node: users[first[s] .. first[s + 1]). */
typedef struct users {
    int32_t *first, *user;
    int8_t *operand;
} users;

static bool reads(const cpu_plan *plan, int32_t id)
{
    return plan->fact[id].kind == CPU_FUSED || plan->fact[id].kind == CPU_OPAQUE;
}

static int read_count(const cpu_plan *plan, int32_t id)
{
    if (!reads(plan, id))
        return 0;
    return plan->fact[id].kind == CPU_FUSED ? operand_count(plan, id)
                                            : cpu_node(plan, id)->operands;
}

static int32_t read_source(const cpu_plan *plan, int32_t id, int i)
{
    return plan->fact[id].kind == CPU_FUSED ? fused_operand(plan, id, i).source
                                            : cpu_source(plan, cpu_node(plan, id)->operand[i]);
}

static bl_status find_users(const cpu_plan *plan, users *u)
{
    size_t n = (size_t)plan->nodes;
    u->first = bl_alloc((n + 2) * sizeof *u->first);
    if (!u->first)
        return bl_no_memory(n * sizeof *u->first);
    for (int32_t id = 0; id < plan->nodes; id++)
        for (int i = 0; i < read_count(plan, id); i++)
            u->first[read_source(plan, id, i) + 2]++;
    for (size_t s = 2; s < n + 2; s++)
        u->first[s] += u->first[s - 1];
    size_t edges = (size_t)u->first[n + 1] + 1;
    u->user = bl_alloc(edges * sizeof *u->user);
    u->operand = bl_alloc(edges);
    if (!u->user || !u->operand)
        return bl_no_memory(edges * sizeof *u->user);
    for (int32_t id = 0; id < plan->nodes; id++)
        for (int i = 0; i < read_count(plan, id); i++) {
            int32_t at = u->first[read_source(plan, id, i) + 1]++;
            u->user[at] = id;
            u->operand[at] = (int8_t)(i < 127 ? i : 127);
        }
    return BL_OK;
}

/* Needed outside the group that computes it. */
static bool is_stored(const cpu_plan *plan, const users *u, int32_t id)
{
    const cpu_fact *fact = &plan->fact[id];
    if (fact->stored || fact->terminal)
        return true;
    for (int32_t at = u->first[id]; at < u->first[id + 1]; at++)
        if (plan->fact[u->user[at]].group != fact->group)
            return true;
    return false;
}

/* The one later group in which every user of the node is, reading it element by element; else -1.
 * `space` is what the node would be there. */
static int32_t only_user(const cpu_plan *plan, const users *u, int32_t id, cpu_class *space)
{
    int32_t g = -1;
    int64_t count = bl_type_count(cpu_node(plan, id)->type);
    for (int32_t at = u->first[id]; at < u->first[id + 1]; at++) {
        int32_t user = u->user[at];
        const cpu_fact *fact = &plan->fact[user];
        if (fact->kind != CPU_FUSED || (g >= 0 && fact->group != g))
            return -1;
        cpu_view view = fused_operand(plan, user, u->operand[at]);
        if (!cpu_is_contiguous(&view) || cpu_view_count(&view) != count)
            return -1;
        cpu_class here = is_reduction(plan, user) ? fact->operand_space : fact->space;
        if (g >= 0 && here != *space)
            return -1;
        g = fact->group;
        *space = here;
    }
    return g > plan->fact[id].group ? g : -1;
}

static bool reads_already(const cpu_plan *plan, const users *u, int32_t source, int32_t g)
{
    for (int32_t at = u->first[source]; at < u->first[source + 1]; at++)
        if (plan->fact[u->user[at]].group == g)
            return true;
    return false;
}

/* Bytes moved if the node goes to group g, minus bytes saved. */
static int64_t moving_costs(const cpu_plan *plan, const users *u, int32_t id, int32_t g)
{
    int64_t cost = -2 * (int64_t)bl_type_bytes(cpu_node(plan, id)->type);
    for (int i = 0; i < operand_count(plan, id); i++) {
        int32_t source = fused_operand(plan, id, i).source;
        const bl_node *node = cpu_node(plan, source);
        int64_t bytes = (int64_t)bl_type_bytes(node->type);
        if (plan->fact[source].kind == CPU_STORED && plan->fact[source].view)
            continue; /* a constant */
        if (plan->fact[source].group == plan->fact[id].group && !is_stored(plan, u, source))
            cost += bytes;
        if (!reads_already(plan, u, source, g))
            cost += bytes;
    }
    return cost;
}

static void move_later(cpu_plan *plan, const users *u, int32_t id)
{
    cpu_fact *fact = &plan->fact[id];
    cpu_class space = CPU_FULL;
    if (fact->kind != CPU_FUSED || is_reduction(plan, id) || fact->stored)
        return;
    int32_t g = only_user(plan, u, id, &space);
    if (g < 0 || plan->group[g].nodes >= GROUP_NODES ||
        (!plan->again[id] && moving_costs(plan, u, id, g) > 0))
        return;
    plan->group[fact->group].nodes--;
    plan->group[g].nodes++;
    fact->group = g;
    fact->space = space;
}

/* --- joining groups --------------------------------------------------------------------------- */

/* The first later group that uses a node of group g, or -1. */
static int32_t first_user(const cpu_plan *plan, const users *u, int32_t g)
{
    int32_t first = -1;
    for (int32_t n = 0; n < plan->group[g].nodes; n++) {
        int32_t id = plan->group[g].node[n];
        for (int32_t at = u->first[id]; at < u->first[id + 1]; at++) {
            int32_t user = plan->fact[u->user[at]].group;
            if (user != g && (first < 0 || user < first))
                first = user;
        }
    }
    return first;
}

/* Whether `user`, a node of group g, could read the value in the group, were they in one. */
static bool could_read(const cpu_plan *plan, int32_t user, int operand, int32_t g)
{
    const cpu_fact *fact = &plan->fact[user];
    cpu_view view = fused_operand(plan, user, operand);
    use u = use_in_group(plan, g, &view);
    if (is_reduction(plan, user))
        return fact->operand_space == CPU_ROW ? u == USE_ROW : u == USE_FULL;
    return fact->space == CPU_ROW ? u == USE_ROW : u == USE_FULL || u == USE_SPREAD;
}

static bool groups_fit(const cpu_plan *plan, const users *u, int32_t g, int32_t into)
{
    const cpu_group *a = &plan->group[g], *b = &plan->group[into];
    if (!b->fused || a->count != b->count || a->nodes + b->nodes > GROUP_NODES ||
        (a->columns && b->columns && a->columns != b->columns))
        return false;
    int32_t columns_of = a->columns ? g : into;
    for (int32_t n = 0; n < a->nodes; n++)
        for (int32_t at = u->first[a->node[n]]; at < u->first[a->node[n] + 1]; at++)
            if (plan->fact[u->user[at]].group == into &&
                !could_read(plan, u->user[at], u->operand[at], columns_of))
                return false;
    return true;
}

/* Merges two ascending lists of nodes. */
static bl_status merge_nodes(cpu_plan *plan, const cpu_group *a, cpu_group *b)
{
    size_t bytes = ((size_t)a->nodes + (size_t)b->nodes) * sizeof(int32_t);
    int32_t *node = bl_arena_alloc(plan->arena, bytes), x = 0, y = 0, count = 0;
    if (!node)
        return bl_no_memory(bytes);
    while (x < a->nodes || y < b->nodes)
        node[count++] = y == b->nodes || (x < a->nodes && a->node[x] < b->node[y]) ? a->node[x++]
                                                                                   : b->node[y++];
    b->node = node;
    b->nodes = count;
    return BL_OK;
}

static bl_status join_later_group(cpu_plan *plan, const users *u, int32_t g)
{
    cpu_group *group = &plan->group[g];
    int32_t into = group->fused && group->nodes ? first_user(plan, u, g) : -1;
    if (into < 0 || !groups_fit(plan, u, g, into))
        return BL_OK;
    BL_TRY(merge_nodes(plan, group, &plan->group[into]));
    for (int32_t n = 0; n < group->nodes; n++)
        plan->fact[group->node[n]].group = into;
    if (group->columns)
        plan->group[into].columns = group->columns;
    group->nodes = 0;
    return BL_OK;
}

/* --- the result ------------------------------------------------------------------------------- */

static bl_status list_nodes(cpu_plan *plan)
{
    for (int32_t g = 0; g < plan->groups; g++) {
        cpu_group *group = &plan->group[g];
        size_t bytes = ((size_t)group->nodes + 1) * sizeof *group->node;
        group->node = bl_arena_alloc(plan->arena, bytes);
        if (!group->node)
            return bl_no_memory(bytes);
        group->nodes = 0;
    }
    for (int32_t id = 0; id < plan->nodes; id++)
        if (plan->fact[id].group >= 0) {
            cpu_group *group = &plan->group[plan->fact[id].group];
            group->node[group->nodes++] = id;
        }
    return BL_OK;
}

static bl_status move_and_list(cpu_plan *plan, users *u)
{
    BL_TRY(find_users(plan, u));
    for (int32_t id = plan->nodes - 1; id >= 0; id--)
        move_later(plan, u, id);
    BL_TRY(list_nodes(plan));
    for (int32_t g = plan->groups - 1; g >= 0; g--)
        BL_TRY(join_later_group(plan, u, g));
    for (int32_t id = 0; id < plan->nodes; id++)
        if (plan->fact[id].kind == CPU_FUSED && is_stored(plan, u, id))
            plan->fact[id].stored = true;
    return BL_OK;
}

bl_status cpu_fuse(cpu_plan *plan)
{
    BL_TRY(place_all(plan));
    users u = {0};
    bl_status status = move_and_list(plan, &u);
    bl_release(u.first);
    bl_release(u.user);
    bl_release(u.operand);
    return status;
}

/* --- rows and columns ------------------------------------------------------------------------- */

cpu_reading cpu_read(const cpu_group *group, const cpu_view *view, cpu_class space)
{
    cpu_view z = cpu_coalesce(*view);
    cpu_reading single = {CPU_SINGLE, true, false}, every = {CPU_FULL, true, false};
    bool still = true;
    for (int i = 0; i < z.rank; i++)
        still &= z.stride[i] == 0;
    if (still)
        return single;
    if (space == CPU_ROW)
        return (cpu_reading){CPU_ROW, z.rank == 1 && z.stride[0] == 1, false};
    if (z.rank == 1 && z.stride[0] == 1)
        return every;
    every.direct = false;
    int64_t outer = 1;
    int split = 0;
    while (split < z.rank && outer * z.dim[split] * group->columns <= group->count)
        outer *= z.dim[split++];
    if (outer * group->columns != group->count || split == 0 || split == z.rank)
        return every; /* no axis ends where a row does */
    bool same_rows = true, same_columns = true;
    for (int i = 0; i < split; i++)
        same_rows &= z.stride[i] == 0;
    for (int i = split; i < z.rank; i++)
        same_columns &= z.stride[i] == 0;
    if (same_columns)
        return (cpu_reading){CPU_ROW, split == 1 && z.stride[0] == 1, false};
    if (same_rows && z.rank - split == 1 && z.stride[split] == 1)
        return (cpu_reading){CPU_FULL, true, true};
    return every;
}

/* The columns at which a broadcast operand would be read directly, or 0. */
static int64_t columns_of(const cpu_group *group, const cpu_view *view)
{
    cpu_view z = cpu_coalesce(*view);
    if (cpu_view_count(view) != group->count || z.rank < 2)
        return 0;
    int64_t inner = 1;
    int i = z.rank - 1;
    bool still = z.stride[i] == 0;
    while (i >= 0 && (z.stride[i] == 0) == still)
        inner *= z.dim[i--];
    return inner;
}

void cpu_settle(cpu_plan *plan, cpu_group *group)
{
    if (group->columns)
        return;
    group->columns = group->count;
    for (int32_t n = 0; n < group->nodes; n++)
        for (int i = 0; i < operand_count(plan, group->node[n]); i++) {
            cpu_view view = fused_operand(plan, group->node[n], i);
            int64_t columns = columns_of(group, &view);
            if (columns == 0)
                continue;
            cpu_group try = *group;
            try.columns = columns;
            cpu_reading reading = cpu_read(&try, &view, CPU_FULL);
            if (reading.direct && (reading.by_column || reading.class == CPU_ROW)) {
                group->columns = columns;
                return;
            }
        }
}
