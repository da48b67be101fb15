/* Keeping: what a later scan would compute again of an earlier one's steps.
 *
 * The gradient of a scan repeats each step from the carries that it began with. Where the step made
 * something small of something large (the maximum and the sum of a log-sum-exp), the small is worth
 * keeping: the earlier scan stacks it beside the carries, the later one reads it as a row, and what
 * led to it is dead there.
 *
 * What is the same in both is found by merging the two bodies into one graph, in which a row that
 * the later scan takes from the earlier one is the node that it was. A scan is part of one such
 * pair at most. The results that nothing needs any more are left to the next optimisation. */
#include <string.h>

#include "graph/pass/pass.h"

enum { SMALL = 8 }; /* so many times smaller than what it was made of */

typedef struct pair {
    int32_t first_id, later_id; /* scans of the graph */
    const bl_node *first, *later;
    bl_graph *both; /* the bodies, merged; a node of the first has an id below `own` */
    int32_t own;
    int32_t *of_first, *of_later; /* from ids of the bodies to ids of `both` */
    int *given;    /* of a node of `both`: which input of the later body it is, or -1 */
    int32_t *kept; /* nodes of `both` */
    int keeps;
    struct pair *next;
} pair;

typedef struct keeping {
    const bl_graph *from;
    bl_graph *to;
    int32_t *map, *operand;
    void *data;     /* of a constant that was folded */
    pair **pair_of; /* of every node: the pair that the scan is part of, or NULL */
    pair *all;
} keeping;

static bool is_scan(const bl_node *node)
{
    return node->op == BL_OP_scan;
}

static void free_pair(pair *p)
{
    bl_graph_free(p->both);
    bl_release(p->of_first);
    bl_release(p->of_later);
    bl_release(p->given);
    bl_release(p->kept);
    bl_release(p);
}

/* --- merging two bodies ----------------------------------------------------------------------- */

static bl_status merge_node(const keeping *k, pair *p, bl_merger *merger, const bl_node *node,
                            const int32_t *map, int32_t *out)
{
    bl_draft draft = {.node = *node, .attr = *node->attr, .operand = k->operand, .data = k->data};
    draft.node.attr = &draft.attr;
    draft.node.operand = k->operand;
    for (int i = 0; i < node->operands; i++)
        k->operand[i] = map[node->operand[i]];
    *out = bl_merge_simplified(merger, p->both, &draft);
    return *out < 0 ? bl_graph_status(p->both) : BL_OK;
}

/* The node of `both` that the later body's input i is, or -1. */
static int32_t known_input(const keeping *k, const pair *p, int i)
{
    const bl_control *first = p->first->attr->control, *later = p->later->attr->control;
    int32_t operand = p->later->operand[i];
    const bl_node *x = bl_node_at(k->from, operand);
    bool row = i < later->carries + later->inputs;
    if (i < later->carries)
        return -1;
    if (row && x->op == BL_OP_part && x->operand[0] == p->first_id &&
        x->attr->a[0] >= first->carries)
        return p->of_first[first->body->output[x->attr->a[0]]];
    int from = row ? first->carries : first->carries + first->inputs;
    int to = row ? first->carries + first->inputs : first->body->inputs;
    for (int j = from; j < to; j++)
        if (p->first->operand[j] == operand)
            return p->of_first[first->body->input[j]];
    return -1;
}

/* Before all else of the later body; two of its inputs stay two. */
static bl_status merge_inputs(const keeping *k, pair *p, bl_merger *merger)
{
    const bl_body *later = p->later->attr->control->body;
    for (int i = 0; i < later->inputs; i++) {
        int32_t *at = &p->of_later[later->input[i]];
        *at = known_input(k, p, i);
        if (*at < 0 || p->given[*at] >= 0)
            BL_TRY(merge_node(k, p, merger, bl_node_at(later->graph, later->input[i]), NULL, at));
        p->given[*at] = i;
    }
    return BL_OK;
}

static bl_status merge_bodies(const keeping *k, pair *p, bl_merger *merger)
{
    const bl_graph *first = p->first->attr->control->body->graph;
    const bl_graph *later = p->later->attr->control->body->graph;
    for (int32_t id = 0; id < (int32_t)bl_graph_size(first); id++)
        BL_TRY(merge_node(k, p, merger, bl_node_at(first, id), p->of_first, &p->of_first[id]));
    p->own = (int32_t)bl_graph_size(p->both);
    BL_TRY(merge_inputs(k, p, merger));
    for (int32_t id = 0; id < (int32_t)bl_graph_size(later); id++)
        if (bl_node_at(later, id)->op != BL_OP_input)
            BL_TRY(merge_node(k, p, merger, bl_node_at(later, id), p->of_later, &p->of_later[id]));
    return BL_OK;
}

static bool is_worth_keeping(const pair *p, int32_t id)
{
    const bl_node *node = bl_node_at(p->both, id);
    return id < p->own && bl_op_class_of(node->op) == BL_REDUCE &&
           SMALL * bl_type_bytes(node->type) <=
               bl_type_bytes(bl_node_at(p->both, node->operand[0])->type);
}

/* Walks back from the later body's outputs, up to what is given and what is worth keeping. */
static bl_status choose(pair *p)
{
    const bl_body *later = p->later->attr->control->body;
    int32_t nodes = (int32_t)bl_graph_size(p->both);
    bool *needed = bl_alloc((size_t)nodes + 1);
    if (!needed)
        return bl_no_memory((size_t)nodes);
    for (int o = 0; o < later->outputs; o++)
        needed[p->of_later[later->output[o]]] = true;
    for (int32_t id = nodes - 1; id >= 0; id--) {
        const bl_node *node = bl_node_at(p->both, id);
        if (!needed[id] || p->given[id] >= 0)
            continue;
        if (is_worth_keeping(p, id)) {
            p->kept[p->keeps++] = id;
            continue;
        }
        for (int i = 0; i < node->operands; i++)
            needed[node->operand[i]] = true;
    }
    bl_release(needed);
    return BL_OK;
}

static bl_status fill_pair(const keeping *k, pair *p)
{
    size_t first = (size_t)bl_graph_size(p->first->attr->control->body->graph);
    size_t later = (size_t)bl_graph_size(p->later->attr->control->body->graph);
    bl_merger merger = {0};
    p->both = bl_graph_new();
    p->of_first = bl_alloc((first + 1) * sizeof *p->of_first);
    p->of_later = bl_alloc((later + 1) * sizeof *p->of_later);
    p->given = bl_alloc((first + later + 1) * sizeof *p->given);
    p->kept = bl_alloc((first + 1) * sizeof *p->kept);
    if (!p->both || !p->of_first || !p->of_later || !p->given || !p->kept)
        return bl_no_memory((first + later) * sizeof *p->given);
    memset(p->given, 0xff, (first + later + 1) * sizeof *p->given);
    bl_status status = bl_merger_new((int64_t)(first + later), &merger);
    if (status == BL_OK)
        status = merge_bodies(k, p, &merger);
    bl_merger_free(&merger);
    return status == BL_OK ? choose(p) : status;
}

/* --- finding pairs ---------------------------------------------------------------------------- */

/* The scan of whose steps the scan `later` reads rows, if it is free, or -1. */
static int32_t first_of(const keeping *k, const bl_node *later)
{
    const bl_control *c = later->attr->control;
    for (int i = c->carries; i < c->carries + c->inputs; i++) {
        const bl_node *x = bl_node_at(k->from, later->operand[i]);
        int32_t first = x->op == BL_OP_part ? x->operand[0] : -1;
        if (first >= 0 && is_scan(bl_node_at(k->from, first)) && !k->pair_of[first] &&
            x->attr->a[0] >= bl_node_at(k->from, first)->attr->control->carries &&
            bl_node_at(k->from, first)->attr->control->steps == c->steps)
            return first;
    }
    return -1;
}

static bl_status find_pair(keeping *k, int32_t later)
{
    int32_t first = first_of(k, bl_node_at(k->from, later));
    if (first < 0)
        return BL_OK;
    pair *p = bl_alloc(sizeof *p);
    if (!p)
        return bl_no_memory(sizeof *p);
    *p = (pair){.first_id = first,
                .later_id = later,
                .first = bl_node_at(k->from, first),
                .later = bl_node_at(k->from, later)};
    bl_status status = fill_pair(k, p);
    if (status != BL_OK || p->keeps == 0) {
        free_pair(p);
        return status;
    }
    p->next = k->all;
    k->all = p;
    k->pair_of[first] = k->pair_of[later] = p;
    return BL_OK;
}

/* --- writing ---------------------------------------------------------------------------------- */

/* A control like `like` with this body, which it takes, and `more` results or rows. */
static bl_control *new_control(bl_graph *to, const bl_control *like, bl_body *body, int more)
{
    bl_control *control = bl_arena_alloc(bl_graph_arena(to), sizeof *control);
    size_t results = (size_t)(like->results + more);
    bl_type *result = bl_arena_alloc(bl_graph_arena(to), (results + 1) * sizeof *result);
    bool held = body && control && result && bl_body_hold(to, body);
    if (body)
        bl_body_drop(body);
    if (!held)
        return NULL;
    *control = *like;
    memcpy(result, like->result, (size_t)like->results * sizeof *result);
    control->body = body;
    control->result = result;
    return control;
}

static bl_status add_scan(keeping *k, int32_t id, const bl_control *control, int operands)
{
    bl_node node = *bl_node_at(k->from, id);
    bl_attr attr = *node.attr;
    attr.control = control;
    node.attr = &attr;
    node.operands = operands;
    node.type.shape.dim[0] = bl_result_place(control, control->results);
    bl_tensor copy = bl_node_copy(k->to, &node, k->operand);
    k->map[id] = copy.id;
    return bl_is_poison(copy) ? bl_graph_status(k->to) : BL_OK;
}

static bl_type stacked(bl_type row, int64_t steps)
{
    memmove(row.shape.dim + 1, row.shape.dim, (size_t)row.shape.rank * sizeof *row.shape.dim);
    row.shape.dim[0] = steps;
    row.shape.rank++;
    return row;
}

/* The earlier scan, which gives what is kept after its other results. */
static bl_status write_first(keeping *k, const pair *p)
{
    const bl_control *c = p->first->attr->control;
    int inputs = c->body->inputs, outputs = c->body->outputs + p->keeps;
    bl_tensor *t = bl_alloc(((size_t)inputs + (size_t)outputs + 1) * sizeof *t),
              *output = t + inputs;
    if (!t)
        return bl_no_memory((size_t)outputs * sizeof *t);
    for (int i = 0; i < inputs; i++)
        t[i] = (bl_tensor){.graph = p->both, .id = p->of_first[c->body->input[i]]};
    for (int o = 0; o < outputs; o++)
        output[o] = (bl_tensor){.graph = p->both,
                                .id = o < c->body->outputs ? p->of_first[c->body->output[o]]
                                                           : p->kept[o - c->body->outputs]};
    bl_graph *g;
    bl_status status = bl_copy_live(p->both, t, inputs, output, outputs, &g, t, output);
    bl_body *body = status == BL_OK ? bl_body_new(g, t, inputs, output, outputs) : NULL;
    bl_release(t);
    BL_TRY(status);
    bl_control *control = new_control(k->to, c, body, p->keeps);
    if (!control)
        return bl_no_memory(sizeof *control);
    bl_type *result = (bl_type *)(uintptr_t)control->result;
    for (int i = 0; i < p->keeps; i++)
        result[control->results++] = stacked(bl_node_at(p->both, p->kept[i])->type, c->steps);
    control->outputs += p->keeps;
    for (int i = 0; i < inputs; i++)
        k->operand[i] = k->map[p->first->operand[i]];
    return add_scan(k, p->first_id, control, inputs);
}

/* The later body, in which what is kept is an input; map is by ids of `both`. */
static bl_status copy_later(const keeping *k, const pair *p, bl_graph *g, int32_t *map)
{
    for (int32_t id = 0; id < (int32_t)bl_graph_size(p->both); id++) {
        const bl_node *node = bl_node_at(p->both, id);
        bool given = p->given[id] >= 0;
        for (int i = 0; i < p->keeps; i++)
            given = given || p->kept[i] == id;
        for (int i = 0; i < node->operands && !given; i++)
            k->operand[i] = map[node->operand[i]];
        bl_tensor copy = given ? bl_input(g, "kept", node->type.dtype, node->type.shape)
                               : bl_node_copy(g, node, k->operand);
        if (bl_is_poison(copy))
            return bl_graph_status(g);
        map[id] = copy.id;
    }
    return BL_OK;
}

/* Carries, rows, what is kept, captured values. */
static bl_body *later_body(const keeping *k, const pair *p)
{
    const bl_control *c = p->later->attr->control;
    const bl_body *old = c->body;
    int own = c->carries + c->inputs, inputs = old->inputs + p->keeps;
    size_t nodes = (size_t)bl_graph_size(p->both);
    bl_graph *g = bl_graph_new();
    int32_t *map = bl_alloc((nodes + 1) * sizeof *map);
    bl_tensor *t = bl_alloc(((size_t)inputs + (size_t)old->outputs + 1) * sizeof *t);
    bl_body *body = NULL;
    if (g && map && t && copy_later(k, p, g, map) == BL_OK) {
        for (int i = 0; i < inputs; i++) {
            int32_t at = i < own              ? p->of_later[old->input[i]]
                         : i < own + p->keeps ? p->kept[i - own]
                                              : p->of_later[old->input[i - p->keeps]];
            t[i] = (bl_tensor){.graph = g, .id = map[at]};
        }
        for (int o = 0; o < old->outputs; o++)
            t[inputs + o] = (bl_tensor){.graph = g, .id = map[p->of_later[old->output[o]]]};
        body = bl_body_new(g, t, inputs, t + inputs, old->outputs);
    } else {
        bl_graph_free(g);
    }
    bl_release(map);
    bl_release(t);
    return body;
}

static bl_status write_later(keeping *k, const pair *p)
{
    const bl_control *c = p->later->attr->control;
    int own = c->carries + c->inputs, inputs = c->body->inputs + p->keeps;
    bl_control *control = new_control(k->to, c, later_body(k, p), 0);
    if (!control)
        return bl_no_memory(sizeof *control);
    control->inputs += p->keeps;
    bl_tensor first = {.graph = k->to, .id = k->map[p->first_id]};
    int before = p->first->attr->control->results;
    for (int i = 0; i < inputs; i++) {
        bool kept = i >= own && i < own + p->keeps;
        k->operand[i] = kept ? bl_part(first, before + i - own).id
                             : k->map[p->later->operand[i < own ? i : i - p->keeps]];
    }
    BL_TRY(bl_graph_status(k->to));
    return add_scan(k, p->later_id, control, inputs);
}

static bl_status write(keeping *k)
{
    for (int32_t id = 0; id < (int32_t)bl_graph_size(k->from); id++) {
        const bl_node *node = bl_node_at(k->from, id);
        const pair *p = k->pair_of[id];
        if (p) {
            BL_TRY(id == p->first_id ? write_first(k, p) : write_later(k, p));
            continue;
        }
        for (int i = 0; i < node->operands; i++)
            k->operand[i] = k->map[node->operand[i]];
        bl_tensor copy = bl_node_copy(k->to, node, k->operand);
        if (bl_is_poison(copy))
            return bl_graph_status(k->to);
        k->map[id] = copy.id;
    }
    return BL_OK;
}

/* --- all -------------------------------------------------------------------------------------- */

/* Room for the operands of any node of the graph, of a body, and of a scan that reads more. */
static size_t operand_room(const bl_graph *g)
{
    size_t most = (size_t)bl_most_operands(g);
    for (int32_t id = 0; id < (int32_t)bl_graph_size(g); id++) {
        const bl_node *node = bl_node_at(g, id);
        if (!is_scan(node))
            continue;
        const bl_body *body = node->attr->control->body;
        size_t all = (size_t)node->operands + (size_t)bl_graph_size(body->graph);
        all += (size_t)bl_most_operands(body->graph);
        most = all > most ? all : most;
    }
    return most;
}

static bl_status keep(keeping *k)
{
    size_t nodes = (size_t)bl_graph_size(k->from) + 1;
    k->map = bl_alloc(nodes * sizeof *k->map);
    k->pair_of = bl_alloc(nodes * sizeof *k->pair_of);
    k->operand = bl_alloc(operand_room(k->from) * sizeof *k->operand);
    k->data = bl_alloc(FOLD_BYTES);
    if (!k->map || !k->pair_of || !k->operand || !k->data)
        return bl_no_memory(nodes * sizeof *k->pair_of);
    for (int32_t id = 0; id < (int32_t)bl_graph_size(k->from); id++)
        if (is_scan(bl_node_at(k->from, id)))
            BL_TRY(find_pair(k, id));
    if (!k->all)
        return BL_OK;
    k->to = bl_graph_new();
    return k->to ? write(k) : bl_no_memory(nodes);
}

bl_status bl_keep_results(const bl_graph *g, bl_tensor *inputs, int input_count, bl_tensor *outputs,
                          int output_count, bl_graph **out)
{
    keeping k = {.from = g};
    bl_status status = keep(&k);
    for (int i = 0; i < input_count && status == BL_OK && k.to; i++)
        inputs[i] = (bl_tensor){.graph = k.to, .id = k.map[inputs[i].id]};
    for (int o = 0; o < output_count && status == BL_OK && k.to; o++)
        outputs[o] = (bl_tensor){.graph = k.to, .id = k.map[outputs[o].id]};
    for (pair *p = k.all, *next; p; p = next) {
        next = p->next;
        free_pair(p);
    }
    bl_release(k.map);
    bl_release(k.pair_of);
    bl_release(k.operand);
    bl_release(k.data);
    if (status != BL_OK) {
        bl_graph_free(k.to);
        k.to = NULL;
    }
    *out = k.to;
    return status;
}
