/* Loops: the body is optimised as a graph of its own, and what no one needs of a scan is taken off.
 *
 * A scan gives more than most programs want: the carries that every step began with, and in
 * gradients the cotangents of everything. A result is needed if someone uses it; a carry also if
 * something that is needed depends on it in the body. */
#include "graph/pass/pass.h"

typedef struct shrinking {
    const bl_control *control;
    const bl_body *body;
    int first;         /* the body's outputs before its carries: whether while goes on */
    bool *keep_output; /* of the body: carries, rows given */
    bool *keep_input;  /* of the body: carries, rows read, captured */
    bool *live;        /* nodes of the body */
    bl_tensor *input, *output, *input_new, *output_new;
} shrinking;

static void free_shrinking(shrinking *s)
{
    bl_release(s->keep_output);
    bl_release(s->keep_input);
    bl_release(s->live);
    bl_release(s->input);
}

static bl_status new_shrinking(const bl_control *control, shrinking *s)
{
    const bl_body *body = control->body;
    size_t inputs = (size_t)body->inputs, outputs = (size_t)body->outputs;
    size_t nodes = (size_t)bl_graph_size(body->graph);
    *s = (shrinking){.control = control,
                     .body = body,
                     .keep_output = bl_alloc(outputs + 1),
                     .keep_input = bl_alloc(inputs + 1),
                     .live = bl_alloc(nodes + 1),
                     .input = bl_alloc((2 * (inputs + outputs) + 1) * sizeof(bl_tensor))};
    if (!s->keep_output || !s->keep_input || !s->live || !s->input)
        return bl_no_memory((inputs + outputs + nodes) * sizeof(bl_tensor));
    s->output = s->input + inputs;
    s->input_new = s->output + outputs;
    s->output_new = s->input_new + inputs;
    return BL_OK;
}

/* What the outputs that are kept need. Marks only grow, so the loop ends. */
static void find_needed(shrinking *s)
{
    const bl_body *body = s->body;
    for (bool changed = true; changed;) {
        changed = false;
        for (int o = 0; o < body->outputs; o++)
            if (s->keep_output[o])
                s->live[body->output[o]] = true;
        bl_mark_operands(body->graph, s->live);
        for (int i = 0; i < body->inputs; i++)
            s->keep_input[i] = s->keep_input[i] || s->live[body->input[i]];
        for (int i = 0; i < s->control->carries; i++) {
            bool *output = &s->keep_output[s->first + i];
            changed = changed || (s->keep_input[i] && !*output);
            s->keep_input[i] = *output = s->keep_input[i] || *output;
        }
    }
}

/* The optimised body of what is kept; one user. */
static bl_status new_body(shrinking *s, bl_body **out)
{
    int inputs = 0, outputs = 0;
    bl_graph *g;
    for (int i = 0; i < s->body->inputs; i++)
        if (s->keep_input[i])
            s->input[inputs++] = (bl_tensor){.graph = s->body->graph, .id = s->body->input[i]};
    for (int o = 0; o < s->body->outputs; o++)
        if (s->keep_output[o])
            s->output[outputs++] = (bl_tensor){.graph = s->body->graph, .id = s->body->output[o]};
    if (outputs == 0)
        g = bl_graph_new();
    else
        BL_TRY(bl_optimize(s->input, inputs, s->output, outputs, &g, s->input_new, s->output_new));
    *out = g ? bl_body_new(g, s->input_new, inputs, s->output_new, outputs) : NULL;
    return *out ? BL_OK : bl_no_memory(sizeof **out);
}

static int count_kept(const bool *keep, int from, int to)
{
    int count = 0;
    for (int i = from; i < to; i++)
        count += keep[i];
    return count;
}

/* The draft's control, of what is kept, in the arena of `to`. Result i is output i of the body. */
static bl_status new_control(bl_graph *to, bl_draft *draft, const shrinking *s, bl_body *body,
                             int *place)
{
    const bl_control *old = s->control;
    bl_control *control = bl_arena_alloc(bl_graph_arena(to), sizeof *control);
    bl_type *result =
        bl_arena_alloc(bl_graph_arena(to), ((size_t)old->results + 1) * sizeof *result);
    if (!control || !result || !bl_body_hold(to, body))
        return bl_no_memory(sizeof *control);
    *control = *old;
    control->results = 0;
    for (int i = 0; i < old->results; i++) {
        place[i] = s->keep_output[i] ? control->results : -1;
        if (s->keep_output[i])
            result[control->results++] = old->result[i];
    }
    int own = old->carries + old->inputs;
    control->body = body;
    control->result = result;
    control->carries = count_kept(s->keep_input, 0, old->carries);
    control->inputs = count_kept(s->keep_input, old->carries, own);
    control->outputs = control->results - control->carries - s->first;
    draft->attr.control = control;
    draft->node.type.shape.dim[0] = bl_result_place(control, control->results);
    return BL_OK;
}

/* The condition of while comes before the body's inputs. */
static void keep_operands(bl_draft *draft, const shrinking *s)
{
    int count = s->first;
    for (int i = 0; i < s->body->inputs; i++)
        if (s->keep_input[i])
            draft->operand[count++] = draft->operand[s->first + i];
    draft->node.operands = count;
}

/* The carries of while are all kept, since its condition looks at them. */
bl_status bl_rewrite_loop(bl_graph *to, bl_draft *draft, const bool *used, int *place)
{
    shrinking s;
    bl_body *body = NULL;
    bl_status status = new_shrinking(draft->attr.control, &s);
    if (status == BL_OK) {
        s.first = draft->node.op == BL_OP_while;
        for (int o = 0; o < s.body->outputs; o++)
            s.keep_output[o] = s.first || used[o];
        find_needed(&s);
        status = new_body(&s, &body);
    }
    if (status == BL_OK)
        status = new_control(to, draft, &s, body, place);
    if (status == BL_OK)
        keep_operands(draft, &s);
    if (body)
        bl_body_drop(body); /* `to` is a user now */
    free_shrinking(&s);
    return status;
}
