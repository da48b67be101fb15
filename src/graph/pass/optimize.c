/* bl_optimize: all passes over one graph. See pass.h. */
#include "graph/pass/pass.h"

/* Every input that an output depends on is an argument, or the program could not be run. */
static bl_status check_inputs_listed(const bl_tensor *inputs, int input_count, const bl_graph *g,
                                     const bool *live, bool *listed)
{
    for (int i = 0; i < input_count; i++)
        listed[inputs[i].id] = true;
    for (int32_t id = 0; id < (int32_t)bl_graph_size(g); id++) {
        const bl_node *node = bl_node_at(g, id);
        if (node->op == BL_OP_input && live[id] && !listed[id])
            return bl_fail(
                BL_INVALID,
                "compile: an output depends on the input \"%s\" (%s, at %s:%d), which is "
                "not listed",
                node->name ? node->name : "", bl_show(node->type), node->file ? node->file : "?",
                node->line);
    }
    return BL_OK;
}

/* Which results of a loop are needed, and where they are in the loop that replaces it. */
typedef struct loop_results {
    bool *used;
    int *place;
} loop_results;

typedef struct rewriting {
    const bl_graph *from;
    bl_graph *to;
    bool *live, *listed;
    int32_t *map;        /* from ids of `from` to ids of `to` */
    loop_results *loops; /* by ids of `from`; what they point to is in the arena of `to` */
    bl_draft draft;
    bl_merger merger;
} rewriting;

static void free_rewriting(rewriting *r)
{
    bl_graph_free(r->to);
    bl_merger_free(&r->merger);
    bl_release(r->live);
    bl_release(r->listed);
    bl_release(r->map);
    bl_release(r->loops);
    bl_release(r->draft.operand);
    bl_release(r->draft.data);
}

static bl_status new_rewriting(const bl_graph *from, rewriting *r)
{
    size_t nodes = (size_t)bl_graph_size(from);
    *r = (rewriting){.from = from,
                     .to = bl_graph_new(),
                     .live = bl_alloc(nodes),
                     .listed = bl_alloc(nodes),
                     .map = bl_alloc(nodes * sizeof(int32_t)),
                     .loops = bl_alloc(nodes * sizeof(loop_results))};
    r->draft.operand = bl_alloc((size_t)bl_most_operands(from) * sizeof(int32_t));
    r->draft.data = bl_alloc(FOLD_BYTES);
    if (!r->to || !r->live || !r->listed || !r->map || !r->loops || !r->draft.operand ||
        !r->draft.data)
        return bl_no_memory(nodes * sizeof(int32_t));
    return bl_merger_new((int64_t)nodes, &r->merger);
}

static void start_draft(rewriting *r, const bl_node *node)
{
    r->draft.node = *node;
    r->draft.attr = *node->attr;
    r->draft.node.attr = &r->draft.attr;
    r->draft.node.operand = r->draft.operand;
    for (int i = 0; i < node->operands; i++)
        r->draft.operand[i] = r->map[node->operand[i]];
}

static bool is_loop(const bl_node *node)
{
    return node->attr->control && node->attr->control->body;
}

/* Notes which results of the loops are taken out by a part. */
static bl_status find_used_results(rewriting *r)
{
    for (int32_t id = 0; id < (int32_t)bl_graph_size(r->from); id++) {
        const bl_node *node = bl_node_at(r->from, id);
        if (node->op != BL_OP_part || !r->live[id] ||
            !is_loop(bl_node_at(r->from, node->operand[0])))
            continue;
        loop_results *loop = &r->loops[node->operand[0]];
        size_t results = (size_t)bl_node_at(r->from, node->operand[0])->attr->control->results;
        if (!loop->used) {
            loop->used = bl_arena_alloc(bl_graph_arena(r->to), results);
            loop->place = bl_arena_alloc(bl_graph_arena(r->to), results * sizeof *loop->place);
        }
        if (!loop->used || !loop->place)
            return bl_no_memory(results * sizeof *loop->place);
        loop->used[node->attr->a[0]] = true;
    }
    return BL_OK;
}

/* A loop becomes one with an optimised body and only the results that are needed; the parts follow.
 */
static bl_status draft_loop(rewriting *r, int32_t id)
{
    const bl_node *node = bl_node_at(r->from, id);
    if (is_loop(node) && r->loops[id].used)
        return bl_rewrite_loop(r->to, &r->draft, r->loops[id].used, r->loops[id].place);
    if (node->op == BL_OP_part && r->loops[node->operand[0]].used) {
        int place = r->loops[node->operand[0]].place[node->attr->a[0]];
        const bl_node *loop = bl_node_at(r->to, r->draft.operand[0]);
        r->draft.attr.a[0] = place;
        r->draft.attr.a[1] = bl_result_place(loop->attr->control, place);
    }
    return BL_OK;
}

/* Each change takes the draft to simpler operands or a simpler primitive, so few are enough; the
 * bound is a guard, not a need. */
enum { MOST_CHANGES = 16 };

int32_t bl_merge_simplified(bl_merger *merger, bl_graph *g, bl_draft *draft)
{
    int32_t known = BL_CHANGED;
    for (int i = 0; i < MOST_CHANGES && known == BL_CHANGED; i++)
        known = bl_fold_constants(g, draft) ? BL_KEEP : bl_simplify(g, draft);
    return known < 0 ? bl_merge(merger, g, draft) : known;
}

static bl_status rewrite_node(rewriting *r, int32_t id)
{
    start_draft(r, bl_node_at(r->from, id));
    BL_TRY(draft_loop(r, id));
    int32_t known = bl_merge_simplified(&r->merger, r->to, &r->draft);
    if (known < 0)
        return bl_graph_status(r->to);
    r->map[id] = known;
    return BL_OK;
}

static bl_status rewrite(rewriting *r, const bl_tensor *inputs, int input_count,
                         const bl_tensor *outputs, int output_count)
{
    bl_mark_live(r->from, outputs, output_count, r->live);
    BL_TRY(check_inputs_listed(inputs, input_count, r->from, r->live, r->listed));
    BL_TRY(find_used_results(r));
    for (int32_t id = 0; id < (int32_t)bl_graph_size(r->from); id++)
        if (r->live[id] || r->listed[id])
            BL_TRY(rewrite_node(r, id));
    return BL_OK;
}

static void map_tensors(const rewriting *r, const bl_tensor *old, int count, bl_tensor *new)
{
    for (int i = 0; i < count; i++)
        new[i] = (bl_tensor){.graph = r->to, .id = r->map[old[i].id]};
}

static bl_status optimize_once(const bl_tensor *inputs, int input_count, const bl_tensor *outputs,
                               int output_count, bl_graph **out, bl_tensor *inputs_new,
                               bl_tensor *outputs_new)
{
    rewriting r;
    *out = NULL;
    bl_status status = new_rewriting(outputs[0].graph, &r);
    if (status == BL_OK)
        status = rewrite(&r, inputs, input_count, outputs, output_count);
    if (status == BL_OK) {
        map_tensors(&r, inputs, input_count, inputs_new);
        map_tensors(&r, outputs, output_count, outputs_new);
        status = bl_copy_live(r.to, inputs_new, input_count, outputs_new, output_count, out,
                              inputs_new, outputs_new);
    }
    free_rewriting(&r);
    return status;
}

bl_status bl_optimize(const bl_tensor *inputs, int input_count, const bl_tensor *outputs,
                      int output_count, bl_graph **out, bl_tensor *inputs_new,
                      bl_tensor *outputs_new)
{
    bl_graph *kept = NULL;
    bl_status status =
        optimize_once(inputs, input_count, outputs, output_count, out, inputs_new, outputs_new);
    if (status == BL_OK)
        status = bl_keep_results(*out, inputs_new, input_count, outputs_new, output_count, &kept);
    if (kept) {
        bl_graph_free(*out);
        status = optimize_once(inputs_new, input_count, outputs_new, output_count, out, inputs_new,
                               outputs_new);
        bl_graph_free(kept);
    }
#ifndef NDEBUG
    if (status == BL_OK)
        status = bl_verify(*out);
#endif
    if (status != BL_OK) {
        bl_graph_free(*out);
        *out = NULL;
    }
    return status;
}
