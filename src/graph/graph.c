/* The node table of a graph, its scopes and its first error.
 *
 * Nodes are kept in chunks that never move, so a pointer to a node stays good while a gradient rule
 * adds more. Everything a graph owns is in its arena. A failure of any kind (a bad operand, no
 * memory) makes poison and keeps the first message; no builder needs another way to fail. */
#define BL_KEEP_PLACE
#include <string.h>

#include "base/base.h"
#include "graph/build.h"

#define CHUNK 1024

/* A tensor of the graph around this one, and what stands for it here. */
typedef struct capture {
    int32_t outer, inner;
} capture;

struct bl_graph {
    bl_arena *arena;
    bl_node **chunk; /* CHUNK nodes each */
    size_t chunks, chunk_capacity;
    int32_t count;
    bl_status status;
    const char *error;  /* of the first failure */
    const char *rule;   /* the primitive whose type rule is running: the prefix of its messages */
    const char **scope; /* the full names of the open scopes */
    size_t scopes, scope_capacity;
    bl_body **body; /* that nodes of this graph run */
    size_t bodies, body_capacity;
    bl_graph *outer; /* around this one, while it is the body of a loop being built */
    capture *capture;
    size_t captures, capture_capacity;
};

static _Thread_local struct {
    const char *file;
    int line;
} place;

static const bl_attr no_attr;

void(bl_at)(const char *file, int line)
{
    place.file = file;
    place.line = line;
}

bl_graph *(bl_graph_new)(void)
{
    bl_graph *g = bl_alloc(sizeof *g);
    if (!g)
        return NULL;
    g->arena = bl_arena_new();
    if (!g->arena) {
        bl_release(g);
        return NULL;
    }
    return g;
}

void bl_graph_free(bl_graph *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->bodies; i++)
        bl_body_drop(g->body[i]);
    bl_arena_free(g->arena);
    bl_release(g->chunk);
    bl_release(g->scope);
    bl_release(g->body);
    bl_release(g->capture);
    bl_release(g);
}

bl_status bl_graph_status(const bl_graph *g)
{
    if (!g)
        return bl_fail(BL_NO_MEMORY, "there is no graph: memory was short");
    if (g->status == BL_OK)
        return BL_OK;
    return bl_fail(g->status, "%s", g->error);
}

int64_t bl_graph_size(const bl_graph *g)
{
    return g ? g->count : 0;
}

struct bl_arena *bl_graph_arena(bl_graph *g)
{
    return g->arena;
}

const bl_node *bl_node_at(const bl_graph *g, int32_t id)
{
    return &g->chunk[id / CHUNK][id % CHUNK];
}

/* --- errors ------------------------------------------------------------------------------------
 */

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static const char *current_scope(const bl_graph *g)
{
    return g && g->scopes ? g->scope[g->scopes - 1] : "";
}

static void keep_error(bl_graph *g, bl_status status, const char *message)
{
    const char *scope = current_scope(g), *rule = g && g->rule ? g->rule : "";
    char text[1024];
    int length = snprintf(text, sizeof text, "%s%s%s%s%s", rule, *rule ? ": " : "", message,
                          *scope ? " in " : "", scope);
    if (place.file && length > 0 && (size_t)length < sizeof text)
        snprintf(text + length, sizeof text - (size_t)length, " at %s:%d", file_name(place.file),
                 place.line);
    if (!g) {
        (void)bl_fail(status, "%s", text);
        return;
    }
    g->status = status;
    g->error = bl_arena_text(g->arena, text);
    if (!g->error) {
        g->status = BL_NO_MEMORY;
        g->error = "memory was short while a graph was being built";
    }
}

bl_tensor bl_poison(bl_graph *g, const char *format, ...)
{
    if (g && g->status != BL_OK)
        return bl_poisoned(g);
    char message[768];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    keep_error(g, BL_INVALID, message);
    return bl_poisoned(g);
}

bl_tensor bl_out_of_memory(bl_graph *g)
{
    if (g->status == BL_OK) {
        g->status = BL_NO_MEMORY;
        g->error = "memory was short while a graph was being built";
    }
    return bl_poisoned(g);
}

bl_tensor bl_spoil(bl_graph *g, const char *builder)
{
    if (!g) /* the message of what made the poison is still this thread's */
        return bl_poisoned(NULL);
    return bl_poison(g, "%s: an operand is in error: %s", builder, bl_error());
}

/* --- scopes ------------------------------------------------------------------------------------
 */

void bl_scope(bl_graph *g, const char *name)
{
    if (!g)
        return;
    const char *outer = current_scope(g);
    size_t size = strlen(outer) + strlen(name) + 2;
    char *full = bl_arena_alloc(g->arena, size);
    if (!full || !BL_GROW(g->scope, g->scopes, g->scope_capacity)) {
        bl_out_of_memory(g);
        return;
    }
    snprintf(full, size, "%s%s%s", outer, *outer ? "/" : "", name);
    g->scope[g->scopes++] = full;
}

void bl_scope_end(bl_graph *g)
{
    if (!g || g->status == BL_NO_MEMORY)
        return;
    if (g->scopes == 0)
        bl_poison(g, "scope_end: no scope is open");
    else
        g->scopes--;
}

/* --- nodes -------------------------------------------------------------------------------------
 */

static bl_type_rule *const type_rules[BL_OPS] = {
#define OP(class, name, operands, meaning, text) [BL_OP_##name] = name##_type,
#include "graph/ops.def"
#undef OP
};

static const struct {
    const char *name;
    bl_op_class class;
    int operands;
} table[BL_OPS] = {
#define OP(class, name, operands, meaning, text)                                                   \
    [BL_OP_##name] = {#name, BL_##class, operands},
#include "graph/ops.def"
#undef OP
};

bl_op_class bl_op_class_of(bl_op op)
{
    return table[op].class;
}

const char *bl_op_name(bl_op op)
{
    return table[op].name;
}

bool bl_op_is_elementwise(bl_op op)
{
    bl_op_class class = table[op].class;
    return class == BL_UNARY || class == BL_BINARY || class == BL_TERNARY;
}

/* 2^40 elements: far above any machine's memory, and products of a few sizes cannot overflow. */
static bool shape_fits(bl_shape shape)
{
    if (shape.rank < 0 || shape.rank > BL_MAX_RANK)
        return false;
    int64_t product = 1;
    for (int i = 0; i < shape.rank; i++) {
        if (shape.dim[i] < 0 || shape.dim[i] > INT64_C(1) << 40)
            return false;
        product *= shape.dim[i] ? shape.dim[i] : 1;
        if (product > INT64_C(1) << 40)
            return false;
    }
    return true;
}

static bl_type checked_type(bl_graph *graph, bl_op op, const bl_type *operands, int count,
                            const bl_attr *attr, bl_type wanted)
{
    REQUIRE(table[op].operands < 0 || table[op].operands == count, "takes %d operands, not %d",
            table[op].operands, count);
    REQUIRE(shape_fits(wanted.shape),
            "a shape has at most %d axes of sizes 0 or more and 2^40 elements", BL_MAX_RANK);
    REQUIRE(wanted.dtype < BL_DTYPES, "there is no dtype %d", (int)wanted.dtype);
    bl_type type = type_rules[op](graph, operands, count, attr, wanted);
    if (type.shape.rank < 0)
        return bl_no_type;
    REQUIRE(shape_fits(type.shape), "the result has more than %d axes or 2^40 elements",
            BL_MAX_RANK);
    return type;
}

bl_type bl_node_type(bl_graph *g, bl_op op, const bl_type *operands, int count, const bl_attr *attr,
                     bl_type wanted)
{
    const char *outer = g->rule;
    g->rule = table[op].name;
    bl_type type = checked_type(g, op, operands, count, attr, wanted);
    g->rule = outer;
    return type;
}

/* Field by field, so that padding is zero and equal attributes have equal bytes. */
static const bl_attr *attr_in_arena(bl_graph *g, const bl_attr *from)
{
    bl_attr copy;
    memset(&copy, 0, sizeof copy);
    copy.axis = from->axis;
    copy.axes = from->axes;
    copy.flag = from->flag;
    copy.flag2 = from->flag2;
    copy.value = from->value;
    copy.control = from->control;
    copy.data = from->data;
    memcpy(copy.a, from->a, sizeof copy.a);
    memcpy(copy.b, from->b, sizeof copy.b);
    memcpy(copy.c, from->c, sizeof copy.c);
    memcpy(&copy.conv, &from->conv, sizeof copy.conv);
    if (memcmp(&copy, &no_attr, sizeof copy) == 0)
        return &no_attr;
    bl_attr *kept = bl_arena_alloc(g->arena, sizeof *kept);
    if (kept)
        memcpy(kept, &copy, sizeof copy);
    return kept;
}

static bl_node *next_node(bl_graph *g)
{
    if (g->count == INT32_MAX)
        return NULL;
    if (g->count % CHUNK == 0) {
        bl_node *chunk = bl_arena_alloc(g->arena, CHUNK * sizeof *chunk);
        if (!chunk || !BL_GROW(g->chunk, g->chunks, g->chunk_capacity))
            return NULL;
        g->chunk[g->chunks++] = chunk;
    }
    return &g->chunk[g->count / CHUNK][g->count % CHUNK];
}

static bl_tensor append(bl_graph *g, bl_op op, const int32_t *operand, int count,
                        const bl_attr *attr, bl_type type)
{
    const bl_attr *kept = attr_in_arena(g, attr);
    int32_t *many = count > 3 ? bl_arena_alloc(g->arena, (size_t)count * sizeof *many) : NULL;
    if (!kept || (count > 3 && !many))
        return bl_out_of_memory(g);
    bl_node *node = next_node(g);
    if (!node)
        return bl_out_of_memory(g);
    node->op = op;
    node->operands = count;
    node->operand = many ? many : node->operand_small;
    for (int i = 0; i < count; i++)
        node->operand[i] = operand[i];
    node->type = type;
    node->attr = kept;
    node->name = NULL;
    node->scope = current_scope(g);
    node->file = place.file;
    node->line = place.line;
    return (bl_tensor){.graph = g, .id = g->count++};
}

/* Operand types and ids of one call; on the stack where they are few. */
#define FEW 8

static bool read_operands(bl_graph *g, bl_op op, const bl_tensor *operands, int count,
                          bl_type *types, int32_t *ids)
{
    for (int i = 0; i < count; i++) {
        if (bl_is_poison(operands[i])) {
            bl_spoil(g, table[op].name);
            return false;
        }
        bl_tensor x = operands[i].graph == g ? operands[i] : bl_capture(g, operands[i]);
        if (bl_is_poison(x)) {
            bl_poison(g, "%s: operand %d is of another graph, or a bare number", table[op].name, i);
            return false;
        }
        types[i] = bl_type_of(x);
        ids[i] = x.id;
    }
    return true;
}

bl_tensor bl_node_new_typed(bl_graph *g, bl_op op, const bl_tensor *operands, int count,
                            bl_attr attr, bl_type wanted)
{
    if (!g)
        return bl_poisoned(NULL);
    g = bl_innermost(g, operands, count);
    bl_type few_types[FEW], *types = few_types;
    int32_t few_ids[FEW], *ids = few_ids;
    if (count > FEW) {
        types = bl_alloc((size_t)count * sizeof *types);
        ids = bl_alloc((size_t)count * sizeof *ids);
    }
    bl_tensor result = bl_poisoned(g);
    if (!types || !ids) {
        result = bl_out_of_memory(g);
    } else if (read_operands(g, op, operands, count, types, ids)) {
        bl_type type = bl_node_type(g, op, types, count, &attr, wanted);
        if (type.shape.rank >= 0)
            result = append(g, op, ids, count, &attr, type);
    }
    if (count > FEW) {
        bl_release(types);
        bl_release(ids);
    }
    return result;
}

bl_tensor bl_node_new(bl_graph *g, bl_op op, const bl_tensor *operands, int count, bl_attr attr)
{
    return bl_node_new_typed(g, op, operands, count, attr, (bl_type){0});
}

/* The last node of the graph, where the caller has just made it. */
static bl_node *last_node(bl_graph *g)
{
    return &g->chunk[(g->count - 1) / CHUNK][(g->count - 1) % CHUNK];
}

static const bl_control *control_in_arena(bl_graph *g, const bl_control *from)
{
    size_t bytes = (size_t)from->results * sizeof *from->result;
    bl_control *copy = bl_arena_alloc(g->arena, sizeof *copy);
    bl_type *result = bl_arena_alloc(g->arena, bytes);
    if (!copy || !result || (from->body && !bl_body_hold(g, from->body)))
        return NULL;
    *copy = *from;
    if (bytes > 0)
        memcpy(result, from->result, bytes);
    copy->result = result;
    return copy;
}

bl_tensor bl_node_copy(bl_graph *g, const bl_node *like, const int32_t *operand)
{
    bl_attr attr = *like->attr;
    if (attr.data) {
        size_t bytes = bl_type_bytes(like->type);
        void *data = bl_arena_alloc(g->arena, bytes);
        if (!data)
            return bl_out_of_memory(g);
        memcpy(data, attr.data, bytes);
        attr.data = data;
    }
    if (attr.control && !(attr.control = control_in_arena(g, attr.control)))
        return bl_out_of_memory(g);
    const char *scope = *like->scope ? bl_arena_text(g->arena, like->scope) : "";
    const char *name = like->name ? bl_arena_text(g->arena, like->name) : NULL;
    if (!scope || (like->name && !name))
        return bl_out_of_memory(g);
    bl_tensor copy = append(g, like->op, operand, like->operands, &attr, like->type);
    if (bl_is_poison(copy))
        return copy;
    bl_node *made = last_node(g);
    made->file = like->file;
    made->line = like->line;
    made->scope = scope;
    made->name = name;
    return copy;
}

bl_tensor(bl_input)(bl_graph *g, const char *name, bl_dtype dtype, bl_shape shape)
{
    if (!g)
        return bl_poisoned(NULL);
    const char *kept = bl_arena_text(g->arena, name ? name : "");
    if (!kept)
        return bl_out_of_memory(g);
    bl_tensor x = bl_node_new_typed(g, BL_OP_input, NULL, 0, (bl_attr){0}, (bl_type){dtype, shape});
    if (!bl_is_poison(x))
        last_node(g)->name = kept;
    return x;
}

/* --- bodies ------------------------------------------------------------------------------------
 */

bool bl_is_within(const bl_graph *g, const bl_graph *outer)
{
    while (g && g != outer)
        g = g->outer;
    return g != NULL;
}

bl_graph *bl_innermost(bl_graph *g, const bl_tensor *x, int count)
{
    for (int i = 0; i < count; i++)
        if (x[i].graph && x[i].graph != g && bl_is_within(x[i].graph, g))
            g = x[i].graph;
    return g;
}

bl_graph *bl_body_open(bl_graph *outer)
{
    if (!outer)
        return NULL;
    bl_graph *g = bl_graph_new();
    if (!g) {
        bl_out_of_memory(outer);
        return NULL;
    }
    if (*current_scope(outer))
        bl_scope(g, current_scope(outer));
    g->outer = outer;
    return g;
}

/* From the graph directly around g. */
static bl_tensor capture_one(bl_graph *g, bl_tensor t)
{
    for (size_t i = 0; i < g->captures; i++)
        if (g->capture[i].outer == t.id)
            return (bl_tensor){.graph = g, .id = g->capture[i].inner};
    const bl_node *node = bl_node_at(t.graph, t.id);
    bl_tensor inner = node->op == BL_OP_constant
                          ? bl_node_copy(g, node, NULL)
                          : bl_input(g, "captured", node->type.dtype, node->type.shape);
    if (bl_is_poison(inner))
        return inner;
    if (!BL_GROW(g->capture, g->captures, g->capture_capacity))
        return bl_out_of_memory(g);
    g->capture[g->captures++] = (capture){t.id, inner.id};
    return inner;
}

/* Outermost first, through every graph between. */
bl_tensor bl_capture(bl_graph *g, bl_tensor t)
{
    if (bl_is_poison(t) || bl_is_number(t) || !bl_is_within(g, t.graph))
        return bl_poisoned(g);
    while (t.graph != g && !bl_is_poison(t)) {
        bl_graph *next = g;
        while (next->outer != t.graph)
            next = next->outer;
        t = capture_one(next, t);
    }
    return t;
}

bl_body *bl_body_new(bl_graph *g, const bl_tensor *input, int inputs, const bl_tensor *output,
                     int outputs)
{
    bl_body *body = bl_alloc(sizeof *body);
    int32_t *ids = bl_arena_alloc(g->arena, ((size_t)inputs + (size_t)outputs) * sizeof *ids);
    if (!body || !ids) {
        bl_release(body);
        bl_graph_free(g);
        return NULL;
    }
    for (int i = 0; i < inputs; i++)
        ids[i] = input[i].id;
    for (int i = 0; i < outputs; i++)
        ids[inputs + i] = output[i].id;
    *body = (bl_body){
        .graph = g, .inputs = inputs, .outputs = outputs, .input = ids, .output = ids + inputs};
    atomic_init(&body->users, 1);
    return body;
}

bool bl_body_hold(bl_graph *g, bl_body *body)
{
    if (!BL_GROW(g->body, g->bodies, g->body_capacity))
        return false;
    atomic_fetch_add(&body->users, 1);
    g->body[g->bodies++] = body;
    return true;
}

void bl_body_drop(bl_body *body)
{
    if (atomic_fetch_sub(&body->users, 1) > 1)
        return;
    bl_graph_free(body->graph);
    bl_release(body);
}

/* The first error of a body becomes the error of the graph around it, word for word. */
static void pass_on_error(bl_graph *outer, const bl_graph *g)
{
    if (outer->status != BL_OK)
        return;
    outer->status = g->status;
    outer->error = bl_arena_text(outer->arena, g->error);
    if (!outer->error) {
        outer->status = BL_NO_MEMORY;
        outer->error = "memory was short while a graph was being built";
    }
}

/* The given inputs and operands, and after them the captured ones, in the outer graph's arena. */
static bool append_captured(bl_graph *g, const bl_tensor *input, int inputs, bl_tensor **all,
                            bl_tensor **operand, int *operands)
{
    size_t most = (size_t)inputs + (size_t)*operands + g->captures + 1;
    bl_tensor *longer = bl_arena_alloc(g->outer->arena, most * sizeof *longer);
    *all = bl_arena_alloc(g->arena, most * sizeof **all);
    if (!longer || !*all)
        return false;
    for (int i = 0; i < *operands; i++)
        longer[i] = (*operand)[i];
    for (int i = 0; i < inputs; i++)
        (*all)[i] = input[i];
    int count = 0;
    for (size_t i = 0; i < g->captures; i++) {
        if (bl_node_at(g, g->capture[i].inner)->op != BL_OP_input)
            continue;
        (*all)[inputs + count] = (bl_tensor){.graph = g, .id = g->capture[i].inner};
        longer[*operands + count++] = (bl_tensor){.graph = g->outer, .id = g->capture[i].outer};
    }
    *operand = longer;
    *operands += count;
    return true;
}

bl_body *bl_body_close(bl_graph *g, const bl_tensor *input, int inputs, const bl_tensor *output,
                       int outputs, bl_tensor **operand, int *operands)
{
    bl_graph *outer = g->outer;
    bl_tensor *all;
    int before = *operands;
    if (g->status == BL_OK && !append_captured(g, input, inputs, &all, operand, operands))
        bl_out_of_memory(g);
    g->outer = NULL;
    if (g->status != BL_OK) {
        pass_on_error(outer, g);
        bl_graph_free(g);
        return NULL;
    }
    bl_body *body = bl_body_new(g, all, inputs + *operands - before, output, outputs);
    bool held = body && bl_body_hold(outer, body);
    if (body)
        bl_body_drop(body); /* the graph around it is the user now */
    if (held)
        return body;
    bl_out_of_memory(outer);
    return NULL;
}
