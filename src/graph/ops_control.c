/* Control: loops over a body graph, hand-written gradients, and nodes with several results.
 *
 * A loop's operands are its first carries, what its steps read in turn, and the outer values that
 * its body uses. A node with several results is one run of bytes, and `part` takes a result out, so
 * that everything else (types, passes, memory) still knows one value a node.
 *
 * Every scan also stacks the carries that its steps began with, since its gradient needs them;
 * where nothing does, bl_optimize takes them off again (pass/loop.c). */
#define BL_KEEP_PLACE
#include <string.h>

#include "base/base.h"
#include "graph/build.h"
#include "graph/pass/pass.h"

/* --- several results ---------------------------------------------------------------------------
 */

enum { ALIGNMENT = 64 };

int64_t bl_result_place(const bl_control *control, int i)
{
    int64_t at = 0;
    for (int j = 0; j < i; j++) {
        int64_t bytes = (int64_t)bl_type_bytes(control->result[j]);
        at += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    return at;
}

static bl_type all_results(const bl_control *control)
{
    return (bl_type){BL_U8, BL_SHAPE(bl_result_place(control, control->results))};
}

TYPE(part)
{
    int64_t end = attr->a[1] + (int64_t)bl_type_bytes(wanted);
    REQUIRE(
        x[0].dtype == BL_U8 && x[0].shape.rank == 1 && attr->a[1] >= 0 && end <= x[0].shape.dim[0],
        "%s at byte %lld is not within %s", bl_show(wanted), (long long)attr->a[1], bl_show(x[0]));
    return wanted;
}
/* grad.c gathers the cotangents of parts itself. */
ZERO_GRADIENT(part)

bl_tensor bl_part(bl_tensor z, int i)
{
    if (bl_is_poison(z))
        return z;
    const bl_control *control = bl_node_at(z.graph, z.id)->attr->control;
    bl_attr attr = {.a = {i, bl_result_place(control, i)}};
    return bl_node_new_typed(z.graph, BL_OP_part, &z, 1, attr, control->result[i]);
}

/* The type of one row of x, and of `steps` rows; bl_no_type where there is no such. */
static bl_type row_of(bl_type x)
{
    if (x.shape.rank < 1)
        return bl_no_type;
    x.shape = bl_shape_drop(x.shape, 1);
    return x;
}

static bl_type stacked(bl_type row, int64_t steps)
{
    if (row.shape.rank == BL_MAX_RANK)
        return bl_no_type;
    memmove(row.shape.dim + 1, row.shape.dim, (size_t)row.shape.rank * sizeof *row.shape.dim);
    row.shape.dim[0] = steps;
    row.shape.rank++;
    return row;
}

/* --- bodies ------------------------------------------------------------------------------------
 */

bl_type bl_body_input(const bl_body *body, int i)
{
    return bl_node_at(body->graph, body->input[i])->type;
}

bl_type bl_body_output(const bl_body *body, int i)
{
    return bl_node_at(body->graph, body->output[i])->type;
}

static bool inline_live(bl_graph *g, const bl_body *body, const bool *live, int32_t *map,
                        int32_t *operand)
{
    for (int32_t id = 0; id < (int32_t)bl_graph_size(body->graph); id++) {
        const bl_node *node = bl_node_at(body->graph, id);
        if (!live[id] || node->op == BL_OP_input)
            continue;
        for (int i = 0; i < node->operands; i++)
            operand[i] = map[node->operand[i]];
        bl_tensor copy = bl_node_copy(g, node, operand);
        if (bl_is_poison(copy))
            return false;
        map[id] = copy.id;
    }
    return true;
}

bool bl_body_inline(bl_graph *g, const bl_body *body, const bl_tensor *input, bl_tensor *output)
{
    size_t nodes = (size_t)bl_graph_size(body->graph);
    bool *live = bl_alloc(nodes), good = false;
    int32_t *map = bl_alloc(nodes * sizeof *map);
    int32_t *operand = bl_alloc((size_t)bl_most_operands(body->graph) * sizeof *operand);
    if (live && map && operand) {
        for (int o = 0; o < body->outputs; o++)
            live[body->output[o]] = true;
        bl_mark_operands(body->graph, live);
        for (int i = 0; i < body->inputs; i++)
            map[body->input[i]] = input[i].id;
        good = inline_live(g, body, live, map, operand);
        for (int o = 0; o < body->outputs; o++)
            output[o] = (bl_tensor){.graph = g, .id = map[body->output[o]]};
    } else {
        bl_out_of_memory(g);
    }
    bl_release(live);
    bl_release(map);
    bl_release(operand);
    return good;
}

/* --- building a loop ---------------------------------------------------------------------------
 */

typedef struct loop {
    bl_op op;
    bl_graph *g, *inner;
    bl_control control;
    bool backwards;
    bl_tensor *operand; /* carries, rows to read; then what is captured */
    int operands;
    bl_tensor *input;  /* of the body, for the carries and rows */
    bl_tensor *output; /* of the body */
    bl_type *result;
    bl_tensor go; /* while: whether to take the first step */
} loop;

static bool loop_memory(loop *l)
{
    struct bl_arena *arena = bl_graph_arena(l->g);
    size_t inputs = (size_t)l->control.carries + (size_t)l->control.inputs;
    size_t outputs = 2 * (size_t)l->control.carries + (size_t)l->control.outputs + 1;
    l->operand = bl_arena_alloc(arena, (inputs + outputs) * sizeof *l->operand);
    l->input = bl_arena_alloc(arena, (inputs + 1) * sizeof *l->input);
    l->output = bl_arena_alloc(arena, outputs * sizeof *l->output);
    l->result = bl_arena_alloc(arena, outputs * sizeof *l->result);
    if (l->operand && l->input && l->output && l->result)
        return true;
    bl_out_of_memory(l->g);
    return false;
}

static bool add_operand(loop *l, bl_tensor x, const char *what, int i)
{
    const char *name = bl_op_name(l->op);
    if (bl_is_poison(x)) {
        bl_spoil(l->g, name);
        return false;
    }
    if (bl_is_number(x)) {
        bl_poison(l->g, "%s: %s %d is the bare number %g; bl_full makes a tensor of it", name, what,
                  i, x.number);
        return false;
    }
    l->operand[l->operands++] = x;
    return true;
}

static bool add_operands(loop *l, const bl_tensor *carry, const bl_tensor *x)
{
    const bl_control *c = &l->control;
    for (int i = 0; i < c->carries; i++) {
        if (!add_operand(l, carry[i], "carry", i))
            return false;
        l->result[i] = bl_type_of(carry[i]);
    }
    for (int i = 0; i < c->inputs; i++) {
        if (!add_operand(l, x[i], "input", i))
            return false;
        bl_type type = bl_type_of(x[i]);
        if (type.shape.rank >= 1 && type.shape.dim[0] == c->steps)
            continue;
        bl_poison(l->g, "%s: input %d must have %lld rows, not be %s", bl_op_name(l->op), i,
                  (long long)c->steps, bl_show(type));
        return false;
    }
    return true;
}

/* Checks the operands and opens the body, with an input for each. False after an error. */
static bool open_loop(loop *l, const bl_tensor *carry, const bl_tensor *x)
{
    bl_control *c = &l->control;
    l->g = bl_innermost(bl_innermost(l->g, carry, c->carries), x, c->inputs);
    if (c->steps < 0 || c->carries < 0 || c->inputs < 0 || c->outputs < 0) {
        bl_poison(l->g, "%s: %lld steps, %d carries, %d inputs, %d outputs: a count is negative",
                  bl_op_name(l->op), (long long)c->steps, c->carries, c->inputs, c->outputs);
        return false;
    }
    if (!loop_memory(l) || !add_operands(l, carry, x))
        return false;
    l->inner = bl_body_open(l->g);
    for (int i = 0; i < l->operands && l->inner; i++) {
        bl_type type = bl_type_of(l->operand[i]);
        type = i < c->carries ? type : row_of(type);
        l->input[i] = bl_input(l->inner, i < c->carries ? "carry" : "x", type.dtype, type.shape);
    }
    return l->inner != NULL;
}

/* What the body gave as its next carry i, or poison: of the carry's type, if it is a number. */
static bl_tensor next_carry(const loop *l, int i, bl_tensor next)
{
    bl_type type = l->result[i];
    if (bl_is_poison(next))
        return bl_spoil(l->inner, bl_op_name(l->op));
    if (bl_is_number(next))
        return bl_full(l->inner, type.dtype, type.shape, next.number);
    bl_tensor inside = bl_capture(l->inner, next);
    if (bl_is_poison(inside))
        return bl_poison(l->inner, "%s: the body gives a tensor of another graph as carry %d",
                         bl_op_name(l->op), i);
    if (bl_type_equal(bl_type_of(inside), type))
        return inside;
    return bl_poison(l->inner, "%s: carry %d is %s, but the body makes it %s", bl_op_name(l->op), i,
                     bl_show(type), bl_show(bl_type_of(inside)));
}

static bl_tensor step_output(const loop *l, int i, bl_tensor y)
{
    const char *name = bl_op_name(l->op);
    if (bl_is_poison(y))
        return bl_spoil(l->inner, name);
    if (bl_is_number(y))
        return bl_poison(l->inner,
                         "%s: output %d is the bare number %g; bl_full makes a tensor of it", name,
                         i, y.number);
    bl_tensor inside = bl_capture(l->inner, y);
    if (bl_is_poison(inside))
        return bl_poison(l->inner, "%s: the body gives a tensor of another graph as output %d",
                         name, i);
    return inside;
}

/* The node, of the operands and what is known of the results. */
static bl_tensor add_control(loop *l)
{
    bl_control *kept = bl_arena_alloc(bl_graph_arena(l->g), sizeof *kept);
    if (!kept)
        return bl_out_of_memory(l->g);
    l->control.result = l->result;
    *kept = l->control;
    return bl_node_new(l->g, l->op, l->operand, l->operands,
                       (bl_attr){.control = kept, .flag = l->backwards});
}

/* The condition of the first step is the first operand of while. */
static bool prepend_condition(loop *l)
{
    bl_tensor *longer =
        bl_arena_alloc(bl_graph_arena(l->g), ((size_t)l->operands + 1) * sizeof *longer);
    if (!longer)
        return false;
    longer[0] = l->go;
    for (int i = 0; i < l->operands; i++)
        longer[1 + i] = l->operand[i];
    l->operand = longer;
    l->operands++;
    return true;
}

/* Completes the body with `outputs` outputs and adds the loop's node. */
static bl_tensor close_loop(loop *l, int outputs)
{
    int inputs = l->control.carries + l->control.inputs;
    l->control.body =
        bl_body_close(l->inner, l->input, inputs, l->output, outputs, &l->operand, &l->operands);
    if (!l->control.body)
        return bl_poisoned(l->g);
    if (l->op == BL_OP_while && !prepend_condition(l))
        return bl_out_of_memory(l->g);
    return add_control(l);
}

/* --- scan --------------------------------------------------------------------------------------
 */

/* The operands are what the body's inputs say, and the carries keep their types. */
static bl_type loop_type(bl_graph *graph, const bl_type *x, int n, int first_carry,
                         const bl_control *c)
{
    int own = first_carry + c->carries + c->inputs;
    const bl_body *body = c->body;
    REQUIRE(n == first_carry + body->inputs && n >= own, "takes %d operands, not %d",
            first_carry + body->inputs, n);
    for (int i = first_carry; i < n; i++) {
        bool rows = i >= first_carry + c->carries && i < own;
        bl_type type = rows ? row_of(x[i]) : x[i], wanted = bl_body_input(body, i - first_carry);
        REQUIRE(bl_type_equal(type, wanted) && (!rows || x[i].shape.dim[0] == c->steps),
                "operand %d is %s, but the body takes %s", i, bl_show(x[i]), bl_show(wanted));
    }
    for (int i = 0; i < c->carries; i++)
        REQUIRE(bl_type_equal(bl_body_output(body, first_carry + i), x[first_carry + i]),
                "carry %d is %s, but the body makes it %s", i, bl_show(x[first_carry + i]),
                bl_show(bl_body_output(body, first_carry + i)));
    return all_results(c);
}

TYPE(scan)
{
    const bl_control *c = attr->control;
    for (int i = 0; i < c->outputs; i++)
        REQUIRE(bl_type_equal(c->result[c->carries + i],
                              stacked(bl_body_output(c->body, c->carries + i), c->steps)),
                "output %d of the body is %s, but its rows are in %s", i,
                bl_show(bl_body_output(c->body, c->carries + i)),
                bl_show(c->result[c->carries + i]));
    return loop_type(graph, x, n, 0, c);
}

/* Adds the carries that the steps begin with to the outputs, and the node. */
static bl_tensor finish_scan(loop *l)
{
    bl_control *c = &l->control;
    int given = c->carries + c->outputs;
    for (int i = 0; i < c->carries; i++)
        l->output[given + i] = l->input[i];
    c->outputs += c->carries;
    c->results = c->carries + c->outputs;
    for (int i = c->carries; i < c->results && bl_graph_status(l->inner) == BL_OK; i++) {
        l->result[i] = stacked(bl_type_of(l->output[i]), c->steps);
        if (l->result[i].shape.rank < 0)
            bl_poison(l->inner, "scan: %s has too many axes to be stacked",
                      bl_show(bl_type_of(l->output[i])));
    }
    return close_loop(l, c->results);
}

static bl_tensor build_scan(loop *l, bl_scan_body *body, void *context)
{
    bl_control *c = &l->control;
    bl_tensor *y = l->output + c->carries;
    for (int i = 0; i < c->carries + c->outputs; i++)
        l->output[i] = bl_number(0);
    body(l->inner, l->input, l->input + c->carries, l->output, y, context);
    for (int i = 0; i < c->carries; i++)
        l->output[i] = next_carry(l, i, l->output[i]);
    for (int i = 0; i < c->outputs; i++)
        y[i] = step_output(l, i, y[i]);
    return finish_scan(l);
}

void(bl_scan)(bl_graph *g, int64_t steps, bl_scan_body *body, void *context, const bl_tensor *carry,
              int carries, const bl_tensor *x, int inputs, bl_tensor *carry_last, bl_tensor *y,
              int outputs)
{
    loop l = {
        .op = BL_OP_scan,
        .g = g,
        .control = {.steps = steps, .carries = carries, .inputs = inputs, .outputs = outputs}};
    bl_tensor z = bl_poisoned(g);
    if (g && open_loop(&l, carry, x))
        z = build_scan(&l, body, context);
    for (int i = 0; i < carries; i++)
        carry_last[i] = bl_is_poison(z) ? z : bl_part(z, i);
    for (int i = 0; i < outputs; i++)
        y[i] = bl_is_poison(z) ? z : bl_part(z, carries + i);
}

/* --- the gradient of scan ----------------------------------------------------------------------
 *
 * A scan the other way. Its carries are the cotangents of the carries, and the sums of what reaches
 * the captured values; its rows are the carries that each step began with, the rows that it read,
 * and the cotangents of the rows that it gave; it gives the cotangents of the rows that it read. */

typedef struct scan_gradient {
    loop back;
    const bl_control *forward;
    const bl_tensor *x, *gs; /* operands, and cotangents of the results, of the forward scan */
    bl_tensor z, *dx;
    int captured;
} scan_gradient;

static bool is_real(bl_tensor x)
{
    return bl_dtype_is_float(bl_type_of(x).dtype);
}

static bool wanted_row(const scan_gradient *s, int i)
{
    return !bl_is_poison(s->dx[s->forward->carries + i]);
}

static bool wanted_capture(const scan_gradient *s, int i)
{
    return !bl_is_poison(s->dx[s->forward->carries + s->forward->inputs + i]);
}

static bl_tensor captured(const scan_gradient *s, int i)
{
    return s->x[s->forward->carries + s->forward->inputs + i];
}

/* Whether result i, a stack of rows, has a cotangent. */
static bool has_cotangent(const scan_gradient *s, int i)
{
    return !bl_is_number(s->gs[s->forward->carries + i]);
}

/* The first carries of the backward scan, and how many. */
static int back_carries(const scan_gradient *s, bl_tensor *carry)
{
    int count = 0;
    for (int i = 0; i < s->forward->carries; i++)
        if (is_real(s->x[i]))
            carry[count++] = bl_is_number(s->gs[i]) ? bl_zeros_like(s->x[i]) : s->gs[i];
    for (int i = 0; i < s->captured; i++)
        if (wanted_capture(s, i))
            carry[count++] = bl_zeros_like(captured(s, i));
    return count;
}

static int back_rows(const scan_gradient *s, bl_tensor *row)
{
    const bl_control *c = s->forward;
    int count = 0, begun = c->results - c->carries;
    for (int i = 0; i < c->carries; i++)
        row[count++] = bl_part(s->z, begun + i);
    for (int i = 0; i < c->inputs; i++)
        row[count++] = s->x[c->carries + i];
    for (int i = 0; i < c->outputs; i++)
        if (has_cotangent(s, i))
            row[count++] = s->gs[c->carries + i];
    return count;
}

/* Room for the tensors of one step: operands of the forward body, its outputs, and beside each of
 * the two what the derivative needs. */
typedef struct step {
    bl_tensor *input, *output, *y, *cotangent, *at, *slope;
    int ys, ats;
} step;

static bool step_memory(const scan_gradient *s, step *t)
{
    size_t inputs = (size_t)s->forward->body->inputs, outputs = (size_t)s->forward->body->outputs;
    bl_tensor *all =
        bl_arena_alloc(bl_graph_arena(s->back.g), 3 * (inputs + outputs + 1) * sizeof *all);
    if (!all) {
        bl_out_of_memory(s->back.g);
        return false;
    }
    *t = (step){.input = all,
                .at = all + inputs,
                .slope = all + 2 * inputs,
                .output = all + 3 * inputs,
                .y = all + 3 * inputs + outputs,
                .cotangent = all + 3 * inputs + 2 * outputs};
    return true;
}

/* Computes the forward step again within the backward body, and collects the outputs that have a
 * cotangent and the inputs that want one. */
static bool repeat_step(const scan_gradient *s, step *t)
{
    const bl_control *c = s->forward;
    const bl_tensor *adjoint = s->back.input, *row = adjoint + s->back.control.carries;
    int own = c->carries + c->inputs, next_adjoint = 0, next_row = own;
    for (int i = 0; i < own; i++)
        t->input[i] = row[i];
    for (int i = 0; i < s->captured; i++)
        t->input[own + i] = bl_capture(s->back.inner, captured(s, i));
    if (bl_graph_status(s->back.inner) != BL_OK ||
        !bl_body_inline(s->back.inner, c->body, t->input, t->output))
        return false;
    for (int i = 0; i < c->results; i++) {
        bool carry = i < c->carries;
        if (carry ? !is_real(s->x[i]) : !has_cotangent(s, i - c->carries))
            continue;
        t->y[t->ys] = t->output[i];
        t->cotangent[t->ys++] = carry ? adjoint[next_adjoint++] : row[next_row++];
    }
    for (int i = 0; i < own + s->captured; i++)
        if (i < c->carries ? is_real(s->x[i]) : !bl_is_poison(s->dx[i]))
            t->at[t->ats++] = t->input[i];
    return true;
}

/* The body of the backward scan: writes its outputs. */
static void step_back(scan_gradient *s)
{
    step t;
    loop *back = &s->back;
    if (!step_memory(s, &t) || !repeat_step(s, &t)) {
        bl_poison(back->inner, "scan: memory was short");
        return;
    }
    bl_vjp(t.y, t.cotangent, t.ys, t.at, t.ats, t.slope);
    int slope = 0, given = 0, rows = back->control.carries;
    for (int i = 0; i < s->forward->carries; i++)
        if (is_real(s->x[i]))
            back->output[given++] = t.slope[slope++];
    for (int i = 0; i < s->forward->inputs; i++)
        if (wanted_row(s, i))
            back->output[rows++] = t.slope[slope++];
    for (; given < back->control.carries; given++)
        back->output[given] = bl_add(back->input[given], t.slope[slope++]);
}

/* Hands the results of the backward scan to the operands of the forward one. */
static void hand_out(const scan_gradient *s, bl_tensor back)
{
    const bl_control *c = s->forward;
    int next = 0, next_row = s->back.control.carries;
    for (int i = 0; i < c->carries; i++) {
        if (!is_real(s->x[i]))
            continue;
        if (!bl_is_poison(s->dx[i]))
            s->dx[i] = bl_part(back, next);
        next++;
    }
    for (int i = 0; i < c->inputs; i++)
        if (wanted_row(s, i))
            s->dx[c->carries + i] = bl_part(back, next_row++);
    for (int i = 0; i < s->captured; i++)
        if (wanted_capture(s, i))
            s->dx[c->carries + c->inputs + i] = bl_part(back, next++);
}

VJP(scan)
{
    const bl_control *c = attr->control;
    scan_gradient s = {.forward = c, .x = x, .gs = gs, .z = z, .dx = dx};
    s.captured = n - c->carries - c->inputs;
    size_t most = (size_t)n + (size_t)c->results + 1;
    bl_tensor *operand = bl_arena_alloc(bl_graph_arena(graph), 2 * most * sizeof *operand);
    if (!operand) {
        bl_out_of_memory(graph);
        return;
    }
    s.back = (loop){.op = BL_OP_scan, .g = graph, .backwards = !attr->flag};
    s.back.control.steps = c->steps;
    s.back.control.carries = back_carries(&s, operand);
    s.back.control.inputs = back_rows(&s, operand + most);
    for (int i = 0; i < c->inputs; i++)
        s.back.control.outputs += wanted_row(&s, i);
    if (!open_loop(&s.back, operand, operand + most))
        return;
    step_back(&s);
    bl_tensor back = finish_scan(&s.back);
    if (!bl_is_poison(back))
        hand_out(&s, back);
}

/* --- while -------------------------------------------------------------------------------------
 */

TYPE(while)
{
    const bl_control *c = attr->control;
    REQUIRE(n >= 1 && x[0].dtype == BL_BOOL && x[0].shape.rank == 0,
            "the condition must be bool[], not %s", n ? bl_show(x[0]) : "missing");
    bl_type go = bl_body_output(c->body, 0);
    REQUIRE(go.dtype == BL_BOOL && go.shape.rank == 0, "the condition must be bool[], not %s",
            bl_show(go));
    return loop_type(graph, x, n, 1, c);
}
NO_GRADIENT(while)

/* The condition as bool[], of a graph around or of `g`. */
static bl_tensor checked_condition(bl_graph *g, bl_tensor go)
{
    if (bl_is_number(go))
        return bl_full(g, BL_BOOL, BL_SCALAR, go.number != 0);
    if (bl_is_poison(go))
        return bl_spoil(g, "while");
    bl_tensor inside = bl_capture(g, go);
    bl_type type = bl_type_of(go);
    if (!bl_is_poison(inside) && type.dtype == BL_BOOL && type.shape.rank == 0)
        return inside;
    return bl_poison(g, "while: the condition must be bool[], not %s", bl_show(type));
}

static bl_tensor build_while(loop *l, bl_while_condition *condition, bl_while_body *body,
                             void *context)
{
    int carries = l->control.carries;
    for (int i = 0; i <= carries; i++)
        l->output[i] = bl_number(0);
    body(l->inner, l->input, l->output + 1, context);
    for (int i = 0; i < carries; i++)
        l->output[1 + i] = next_carry(l, i, l->output[1 + i]);
    l->output[0] = bl_poisoned(l->inner);
    if (bl_graph_status(l->inner) == BL_OK)
        l->output[0] = checked_condition(l->inner, condition(l->inner, l->output + 1, context));
    memmove(l->result + 1, l->result, (size_t)carries * sizeof *l->result);
    l->result[0] = (bl_type){BL_I32, BL_SCALAR};
    l->control.results = 1 + carries;
    return close_loop(l, 1 + carries);
}

bl_tensor(bl_while)(bl_graph *g, int64_t limit, bl_while_condition *condition, bl_while_body *body,
                    void *context, const bl_tensor *carry, int carries, bl_tensor *carry_last)
{
    loop l = {.op = BL_OP_while, .g = g, .control = {.steps = limit, .carries = carries}};
    bl_tensor z = bl_poisoned(g);
    if (g && limit > INT32_MAX)
        bl_poison(g, "while: a limit of %lld steps is too large", (long long)limit);
    else if (g && open_loop(&l, carry, NULL)) {
        l.go = checked_condition(l.g, condition(l.g, l.operand, context));
        z = build_while(&l, condition, body, context);
    }
    for (int i = 0; i < carries; i++)
        carry_last[i] = bl_is_poison(z) ? z : bl_part(z, 1 + i);
    return bl_is_poison(z) ? z : bl_part(z, 0);
}

/* --- override_gradient -------------------------------------------------------------------------
 */

TYPE(override_gradient)
{
    const bl_control *c = attr->control;
    REQUIRE(n >= c->outputs, "takes at least %d operands, not %d", c->outputs, n);
    for (int i = 0; i < c->outputs; i++)
        REQUIRE(bl_type_equal(x[i], c->result[i]), "value %d is %s, not %s", i, bl_show(x[i]),
                bl_show(c->result[i]));
    return all_results(c);
}
VJP(override_gradient)
{
    const bl_control *c = attr->control;
    int inputs = n - c->outputs;
    bl_tensor *all = bl_arena_alloc(bl_graph_arena(graph), ((size_t)n + 1) * sizeof *all);
    if (!all) {
        bl_out_of_memory(graph);
        return;
    }
    bl_tensor *cotangent = all, *slope = all + c->outputs; /* bare zeros so far */
    for (int i = 0; i < c->outputs; i++)
        cotangent[i] = bl_is_number(gs[i]) ? bl_zeros_like(x[i]) : gs[i];
    c->rule(graph, x + c->outputs, x, cotangent, slope, c->context);
    for (int i = 0; i < inputs; i++) {
        if (!WANT(c->outputs + i))
            continue;
        bool constant = bl_is_number(slope[i]) && slope[i].number != 0;
        dx[c->outputs + i] = constant ? bl_full_like(x[c->outputs + i], slope[i].number) : slope[i];
    }
}

void(bl_override_gradient)(const bl_tensor *output, int outputs, const bl_tensor *input, int inputs,
                           bl_gradient_rule *rule, void *context, bl_tensor *result)
{
    bl_graph *g = bl_graph_of(output, outputs);
    loop l = {.op = BL_OP_override_gradient,
              .g = g ? bl_innermost(g, input, inputs) : NULL,
              .control = {.carries = inputs, .outputs = outputs, .results = outputs}};
    l.control.rule = rule, l.control.context = context;
    bl_tensor z = bl_poisoned(l.g);
    bool good = l.g && loop_memory(&l);
    for (int i = 0; i < outputs && good; i++) {
        good = add_operand(&l, output[i], "output", i);
        l.result[i] = bl_type_of(output[i]);
    }
    for (int i = 0; i < inputs && good; i++)
        good = add_operand(&l, input[i], "input", i);
    if (good)
        z = add_control(&l);
    for (int i = 0; i < outputs; i++)
        result[i] = bl_is_poison(z) ? z : bl_part(z, i);
}
