/* Derivatives as graph transformations.
 *
 * vjp is one sweep over the nodes between the inputs and the outputs, newest first. A node takes
 * part where it depends on an x through floating-point values. Its cotangent is complete when the
 * sweep reaches it, because operands have smaller ids; its rule then adds to its operands'. The
 * nodes that rules add come after all of these, so a gradient can be differentiated again.
 *
 * jvp needs no rules of its own: a vjp is linear in its cotangent u, so differentiating
 * <vjp(u), tangent> in u gives the derivative along the tangent. */
#define BL_KEEP_PLACE
#include "base/base.h"
#include "graph/build.h"

static bl_vjp_rule *const vjp_rules[BL_OPS] = {
#define OP(class, name, operands, meaning, text) [BL_OP_##name] = name##_vjp,
#include "graph/ops.def"
#undef OP
};

/* The nodes low..high, by id - low. A cotangent of bare 0 (zeroed memory) means none so far. */
typedef struct sweep {
    bl_graph *g;
    int32_t low, high;
    bool *reached; /* depends on an x */
    bl_tensor *cotangent;
    bl_tensor *operand, *slope; /* scratch: the widest node's operands and their gradients */
    bl_tensor **parts;          /* of a node with several results: their cotangents */
} sweep;

static void end_sweep(sweep *s)
{
    bl_release(s->reached);
    bl_release(s->cotangent);
    bl_release(s->operand);
    bl_release(s->slope);
    bl_release(s->parts);
}

static bool begin_sweep(sweep *s)
{
    size_t count = (size_t)(s->high - s->low) + 1, widest = 1;
    for (int32_t id = s->low; id <= s->high; id++) {
        size_t operands = (size_t)bl_node_at(s->g, id)->operands;
        widest = operands > widest ? operands : widest;
    }
    s->reached = bl_alloc(count * sizeof *s->reached);
    s->cotangent = bl_alloc(count * sizeof *s->cotangent);
    s->operand = bl_alloc(widest * sizeof *s->operand);
    s->slope = bl_alloc(widest * sizeof *s->slope);
    s->parts = bl_alloc(count * sizeof *s->parts);
    if (s->reached && s->cotangent && s->operand && s->slope && s->parts)
        return true;
    bl_out_of_memory(s->g);
    return false;
}

static bool is_reached(const sweep *s, int32_t id)
{
    return id >= s->low && id <= s->high && s->reached[id - s->low];
}

/* Whether derivatives pass through the node: its value is real, or it has several results. */
static bool carries_slope(const bl_node *node)
{
    return node->attr->control ||
           (bl_dtype_is_float(node->type.dtype) && node->op != BL_OP_stop_gradient);
}

/* Marks what depends on an x, oldest first. */
static void reach(sweep *s, const bl_tensor *x, int count)
{
    for (int i = 0; i < count; i++)
        if (!bl_is_number(x[i]) && x[i].id <= s->high)
            s->reached[x[i].id - s->low] = true;
    for (int32_t id = s->low; id <= s->high; id++) {
        const bl_node *node = bl_node_at(s->g, id);
        if (!carries_slope(node))
            continue;
        for (int i = 0; i < node->operands && !s->reached[id - s->low]; i++)
            s->reached[id - s->low] = is_reached(s, node->operand[i]);
    }
}

static void accumulate(sweep *s, int32_t id, bl_tensor part)
{
    bl_tensor *sum = &s->cotangent[id - s->low];
    *sum = bl_is_number(*sum) ? part : bl_add(*sum, part);
}

/* The cotangent of result `at` of node `id`, which has several. */
static void accumulate_part(sweep *s, int32_t id, int at, bl_tensor part)
{
    bl_tensor **parts = &s->parts[id - s->low];
    size_t results = (size_t)bl_node_at(s->g, id)->attr->control->results;
    if (!*parts)
        *parts = bl_arena_alloc(bl_graph_arena(s->g), results * sizeof **parts);
    if (!*parts) {
        bl_out_of_memory(s->g);
        return;
    }
    (*parts)[at] = bl_is_number((*parts)[at]) ? part : bl_add((*parts)[at], part);
    s->cotangent[id - s->low] = part; /* there is one; the rule reads them in parts */
}

/* Calls the rule of one node and hands its results to the operands. */
static void pull_back(sweep *s, int32_t id)
{
    const bl_node *node = bl_node_at(s->g, id);
    bool any = false;
    if (node->op == BL_OP_part) {
        if (is_reached(s, node->operand[0]))
            accumulate_part(s, node->operand[0], (int)node->attr->a[0], s->cotangent[id - s->low]);
        return;
    }
    for (int i = 0; i < node->operands; i++) {
        bool wanted = is_reached(s, node->operand[i]);
        any = any || wanted;
        s->operand[i] = (bl_tensor){.graph = s->g, .id = node->operand[i]};
        s->slope[i] = wanted ? bl_number(0) : bl_poisoned(NULL);
    }
    if (!any)
        return;
    vjp_rules[node->op](s->g, node->attr, (bl_tensor){.graph = s->g, .id = id}, s->operand,
                        node->operands, s->cotangent[id - s->low], s->parts[id - s->low], s->slope);
    for (int i = 0; i < node->operands; i++) {
        if (!is_reached(s, node->operand[i]) || bl_is_number(s->slope[i]))
            continue;
        bl_type expected = bl_type_of(s->operand[i]), got = bl_type_of(s->slope[i]);
        if (bl_is_poison(s->slope[i]))
            continue; /* the graph has the error */
        if (!bl_type_equal(expected, got))
            bl_poison(s->g, "the gradient rule of %s gives %s for %s", bl_op_name(node->op),
                      bl_show(got), bl_show(expected));
        else
            accumulate(s, node->operand[i], s->slope[i]);
    }
}

/* Puts the cotangents at the outputs; false after an error. */
static bool seed(sweep *s, const bl_tensor *y, const bl_tensor *cotangent, int outputs)
{
    for (int j = 0; j < outputs; j++) {
        if (bl_is_number(y[j]) || y[j].id < s->low || !is_reached(s, y[j].id))
            continue;
        bl_tensor c = cotangent[j];
        if (bl_is_number(c))
            c = bl_full_like(y[j], c.number);
        if (bl_is_poison(c))
            return false;
        if (!bl_type_equal(bl_type_of(c), bl_type_of(y[j]))) {
            bl_poison(s->g, "vjp: the cotangent of %s is %s", bl_show(bl_type_of(y[j])),
                      bl_show(bl_type_of(c)));
            return false;
        }
        accumulate(s, y[j].id, c);
    }
    return true;
}

/* Checks the tensors of a call and returns their graph; NULL where nothing is left to do. */
static bl_graph *checked(const char *who, const bl_tensor *x, int count, bl_graph *g, bool floating)
{
    for (int i = 0; i < count; i++) {
        if (bl_is_poison(x[i])) {
            bl_spoil(g, who);
            return NULL;
        }
        if (bl_is_number(x[i]))
            continue;
        if (x[i].graph != g) {
            bl_poison(g, "%s: the tensors are of different graphs", who);
            return NULL;
        }
        if (floating && !bl_dtype_is_float(bl_type_of(x[i]).dtype)) {
            bl_poison(g, "%s: there is no derivative in %s", who, bl_show(bl_type_of(x[i])));
            return NULL;
        }
    }
    return g;
}

static void bounds(sweep *s, const bl_tensor *y, int outputs, const bl_tensor *x, int count)
{
    s->low = INT32_MAX;
    s->high = -1;
    for (int i = 0; i < count; i++)
        if (!bl_is_number(x[i]) && x[i].id < s->low)
            s->low = x[i].id;
    for (int j = 0; j < outputs; j++)
        if (!bl_is_number(y[j]) && y[j].id > s->high)
            s->high = y[j].id;
}

static void pull_all(sweep *s, const bl_tensor *y, const bl_tensor *cotangent, int outputs,
                     const bl_tensor *x, int count, bl_tensor *dx)
{
    if (!begin_sweep(s))
        return;
    reach(s, x, count);
    if (!seed(s, y, cotangent, outputs))
        return;
    for (int32_t id = s->high; id >= s->low; id--)
        if (s->reached[id - s->low] && !bl_is_number(s->cotangent[id - s->low]))
            pull_back(s, id);
    bool failed = bl_graph_status(s->g) != BL_OK;
    for (int i = 0; i < count; i++) {
        bool met = !bl_is_number(x[i]) && is_reached(s, x[i].id);
        bl_tensor total = met ? s->cotangent[x[i].id - s->low] : bl_number(0);
        dx[i] = failed ? bl_poisoned(s->g) : bl_is_number(total) ? bl_zeros_like(x[i]) : total;
    }
}

static void sweep_back(bl_graph *g, const bl_tensor *y, const bl_tensor *cotangent, int outputs,
                       const bl_tensor *x, int count, bl_tensor *dx)
{
    sweep s = {.g = g};
    bool good = checked("grad", x, count, s.g, true) && checked("grad", y, outputs, s.g, false);
    bounds(&s, y, outputs, x, count);
    for (int i = 0; i < count; i++)
        dx[i] = bl_is_number(x[i])         ? bl_number(0)
                : !good || s.low <= s.high ? bl_poisoned(s.g)
                                           : bl_zeros_like(x[i]);
    if (!good || s.low > s.high)
        return;
    pull_all(&s, y, cotangent, outputs, x, count, dx);
    end_sweep(&s);
}

/* Whether x is of a graph around the body g of a loop. */
static bool is_outside(const bl_graph *g, bl_tensor x)
{
    return g && x.graph && x.graph != g && bl_is_within(g, x.graph);
}

static bool any_outside(const bl_graph *g, const bl_tensor *x, int count)
{
    for (int i = 0; i < count; i++)
        if (is_outside(g, x[i]))
            return true;
    return false;
}

/* In a body, derivatives are taken in its own tensors: what it uses of the graphs around it may
 * depend on each other there, which the body does not see. */
static bool refuse_outside(bl_graph *g, const bl_tensor *x, int count, bl_tensor *dx)
{
    bool refused = any_outside(g, x, count);
    if (refused)
        bl_poison(g, "grad: in the body of a loop there are derivatives in its own tensors only, "
                     "not in those around it; make it a carry");
    for (int i = 0; i < count && refused; i++)
        dx[i] = bl_poisoned(g);
    return refused;
}

static void capture_all(bl_graph *g, const bl_tensor *from, int count, bl_tensor *to)
{
    for (int i = 0; i < count; i++)
        to[i] = is_outside(g, from[i]) && !bl_is_poison(from[i]) ? bl_capture(g, from[i]) : from[i];
}

void(bl_vjp)(const bl_tensor *y, const bl_tensor *cotangent, int outputs, const bl_tensor *x,
             int count, bl_tensor *dx)
{
    bl_graph *g = bl_graph_of(x, count);
    g = g ? bl_innermost(g, y, outputs) : NULL;
    if (refuse_outside(g, x, count, dx))
        return;
    if (!any_outside(g, y, outputs) && !any_outside(g, cotangent, outputs)) {
        sweep_back(g, y, cotangent, outputs, x, count, dx);
        return;
    }
    bl_tensor *inside = bl_alloc(2 * (size_t)outputs * sizeof *inside);
    if (!inside) {
        for (int i = 0; i < count; i++)
            dx[i] = bl_out_of_memory(g);
        return;
    }
    capture_all(g, y, outputs, inside);
    capture_all(g, cotangent, outputs, inside + outputs);
    sweep_back(g, inside, inside + outputs, outputs, x, count, dx);
    bl_release(inside);
}

/* Refuses, with poison for every result, unless y is a scalar. */
static bool is_scalar(const char *who, bl_tensor y, int count, bl_tensor *dx)
{
    if (!bl_is_poison(y) && bl_rank(y) == 0)
        return true;
    bl_tensor poison = bl_is_poison(y) ? bl_spoil(y.graph, who)
                                       : bl_poison(y.graph, "%s: y must be a scalar, not %s", who,
                                                   bl_show(bl_type_of(y)));
    for (int i = 0; i < count; i++)
        dx[i] = poison;
    return false;
}

void(bl_grad)(bl_tensor y, const bl_tensor *x, int count, bl_tensor *dx)
{
    if (is_scalar("grad", y, count, dx))
        bl_vjp(&y, (bl_tensor[]){bl_number(1)}, 1, x, count, dx);
}

bl_tensor(bl_jvp)(bl_tensor y, const bl_tensor *x, const bl_tensor *tangent, int count)
{
    if (bl_is_number(y))
        return bl_number(0);
    if (bl_is_poison(y))
        return bl_spoil(y.graph, "jvp");
    bl_tensor cotangent = bl_zeros_like(y), result = bl_poisoned(y.graph);
    bl_tensor *dx = bl_alloc((size_t)(count > 0 ? count : 1) * sizeof *dx);
    if (!dx)
        return bl_out_of_memory(y.graph);
    bl_vjp(&y, &cotangent, 1, x, count, dx);
    bl_vjp(dx, tangent, count, &cotangent, 1, &result);
    bl_release(dx);
    return result;
}

void(bl_hvp)(bl_tensor y, const bl_tensor *x, const bl_tensor *v, int count, bl_tensor *hv)
{
    if (!is_scalar("hvp", y, count, hv))
        return;
    bl_tensor *gradient = bl_alloc((size_t)(count > 0 ? count : 1) * sizeof *gradient);
    if (!gradient) {
        for (int i = 0; i < count; i++)
            hv[i] = bl_out_of_memory(y.graph);
        return;
    }
    bl_grad(y, x, count, gradient);
    bl_vjp(gradient, v, count, x, count, hv);
    bl_release(gradient);
}
