/* The reference executor: every node in turn, each by its plain loop. The definition of what a
 * program computes; every other executor is tested against it.
 *
 * The plan owns a buffer for every node that is alive at the same time; a buffer whose node was
 * used for the last time serves a later node of about its size. Outputs are copied to the caller at
 * the end, so that donated inputs stay whole until then. */
#include "exec/reference/reference.h"

#include <string.h>

#include "exec/work.h"

#define KERNEL_LEAF(name)     reference_##name
#define KERNEL_UNARY(name)    reference_elementwise
#define KERNEL_BINARY(name)   reference_elementwise
#define KERNEL_TERNARY(name)  reference_elementwise
#define KERNEL_MOVE(name)     reference_##name
#define KERNEL_INDEX(name)    reference_##name
#define KERNEL_REDUCE(name)   reference_##name
#define KERNEL_CONTRACT(name) reference_##name
#define KERNEL_LINALG(name)   reference_##name
#define KERNEL_CONTROL(name)  reference_##name
static bl_kernel *const kernels[BL_OPS] = {
#define OP(class, name, operands, meaning, text) [BL_OP_##name] = KERNEL_##class(name),
#include "graph/ops.def"
#undef OP
};

bl_kernel *reference_kernel(bl_op op)
{
    return kernels[op];
}

typedef struct plan {
    bl_signature signature; /* its arrays are the program's, and outlive the plan */
    int32_t nodes;
    void **value;  /* of every node */
    void **buffer; /* what value points into, to be freed */
    size_t buffers, buffer_capacity, memory;
    uint64_t *scratch;
    bl_nested **nested; /* of every node that is a loop */
    void **staged;      /* an output that is an input which another output overwrites, else NULL */
} plan;

size_t scratch_elements(const bl_graph *graph, const bl_node *node)
{
    bl_op_class class = bl_op_class_of(node->op);
    bool moves_rows =
        node->op == BL_OP_take || node->op == BL_OP_put || node->op == BL_OP_take_along;
    if (moves_rows ||
        (class != BL_INDEX && class != BL_REDUCE && class != BL_CONTRACT && class != BL_LINALG))
        return 0;
    int64_t count = bl_type_count(node->type);
    for (int i = 0; i < node->operands; i++)
        count += bl_type_count(bl_node_at(graph, node->operand[i])->type);
    return (size_t)count;
}

static void free_plan(void *pointer)
{
    plan *p = pointer;
    if (!p)
        return;
    for (size_t i = 0; i < p->buffers; i++)
        bl_release(p->buffer[i]);
    for (int32_t id = 0; p->nested && id < p->nodes; id++)
        bl_nested_free(p->nested[id]);
    bl_release(p->nested);
    bl_release(p->buffer);
    bl_release(p->value);
    bl_release(p->scratch);
    bl_release(p->staged);
    bl_release(p);
}

static bl_status new_buffer(plan *p, size_t bytes, void **out)
{
    if (!BL_GROW(p->buffer, p->buffers, p->buffer_capacity))
        return bl_no_memory(bytes);
    *out = bl_alloc_aligned(bytes ? bytes : 1);
    if (!*out)
        return bl_no_memory(bytes);
    p->buffer[p->buffers++] = *out;
    p->memory += bytes;
    return BL_OK;
}

/* --- which nodes share a buffer -------------------------------------------------------------- */

/* Free buffers by size class: class c holds 2^c bytes. A node's buffer is threaded on a list
 * through `next`. */
enum { SIZE_CLASSES = 64, NEVER = INT32_MAX };

typedef struct sharing {
    int32_t *last_use; /* of each node: the id of its last user; NEVER for outputs and constants */
    int32_t *next;     /* the next free node in the list */
    int32_t first[SIZE_CLASSES]; /* the first node of which the buffer is free, or -1 */
} sharing;

static int size_class(size_t bytes)
{
    int class = 6;
    while (((size_t)1 << class) < bytes)
        class ++;
    return class;
}

static void find_last_uses(const plan *p, sharing *s)
{
    const bl_signature *signature = &p->signature;
    for (int32_t id = 0; id < p->nodes; id++) {
        const bl_node *node = bl_node_at(signature->graph, id);
        s->last_use[id] = node->op == BL_OP_constant || node->op == BL_OP_input ? NEVER : id;
        for (int i = 0; i < node->operands; i++)
            if (s->last_use[node->operand[i]] != NEVER)
                s->last_use[node->operand[i]] = id;
    }
    for (int o = 0; o < signature->outputs; o++)
        s->last_use[signature->output[o]] = NEVER;
}

/* A node's operands are given back once its own buffer is taken: no kernel works in place. */
static void give_back_operands(const plan *p, sharing *s, int32_t id)
{
    const bl_node *node = bl_node_at(p->signature.graph, id);
    for (int i = -1; i < node->operands; i++) {
        int32_t done = i < 0 ? id : node->operand[i];
        if (s->last_use[done] != id)
            continue;
        int class = size_class(bl_type_bytes(bl_node_at(p->signature.graph, done)->type));
        s->last_use[done] = NEVER; /* once, also if it is an operand twice */
        s->next[done] = s->first[class];
        s->first[class] = done;
    }
}

static bl_status place_constant(plan *p, int32_t id)
{
    const bl_node *node = bl_node_at(p->signature.graph, id);
    if (node->attr->data) {
        p->value[id] = (void *)(uintptr_t)node->attr->data; /* only read: it is nobody's result */
        return BL_OK;
    }
    BL_TRY(new_buffer(p, bl_type_bytes(node->type), &p->value[id]));
    bl_array array = {node->type, p->value[id]};
    for (int64_t i = 0; i < bl_type_count(node->type); i++)
        bl_array_set(&array, i, node->attr->value);
    return BL_OK;
}

static bl_status place_nodes(plan *p, sharing *s)
{
    find_last_uses(p, s);
    for (int class = 0; class < SIZE_CLASSES; class ++)
        s->first[class] = -1;
    for (int32_t id = 0; id < p->nodes; id++) {
        const bl_node *node = bl_node_at(p->signature.graph, id);
        int class = size_class(bl_type_bytes(node->type));
        int32_t shared = s->first[class];
        if (node->op == BL_OP_input)
            continue;
        if (node->op == BL_OP_constant) {
            BL_TRY(place_constant(p, id));
        } else if (shared >= 0) {
            s->first[class] = s->next[shared];
            p->value[id] = p->value[shared];
        } else {
            BL_TRY(new_buffer(p, (size_t)1 << class, &p->value[id]));
        }
        give_back_operands(p, s, id);
    }
    return BL_OK;
}

static bl_status share_buffers(plan *p)
{
    size_t bytes = (size_t)p->nodes * sizeof(int32_t);
    sharing s = {.last_use = bl_alloc(bytes), .next = bl_alloc(bytes)};
    bl_status status = s.last_use && s.next ? place_nodes(p, &s) : bl_no_memory(bytes);
    bl_release(s.last_use);
    bl_release(s.next);
    return status;
}

/* --- compile and run ---------------------------------------------------------------------------
 */

static bool is_donated(const bl_signature *signature, int32_t id)
{
    for (int d = 0; d < signature->donations; d++)
        if (signature->input[signature->donation[d].input] == id)
            return true;
    return false;
}

static bl_status stage_outputs(plan *p)
{
    for (int o = 0; o < p->signature.outputs; o++) {
        int32_t id = p->signature.output[o];
        const bl_node *node = bl_node_at(p->signature.graph, id);
        if (node->op == BL_OP_input && is_donated(&p->signature, id))
            BL_TRY(new_buffer(p, bl_type_bytes(node->type), &p->staged[o]));
    }
    return BL_OK;
}

static bl_status compile_loops(plan *p)
{
    p->nested = bl_alloc(((size_t)p->nodes + 1) * sizeof *p->nested);
    if (!p->nested)
        return bl_no_memory((size_t)p->nodes * sizeof *p->nested);
    for (int32_t id = 0; id < p->nodes; id++) {
        const bl_node *node = bl_node_at(p->signature.graph, id);
        if (!bl_is_loop(node))
            continue;
        BL_TRY(bl_nested_new(&bl_executor_reference, node, p->signature.threads, &p->nested[id]));
        p->memory += bl_nested_memory(p->nested[id]);
    }
    return BL_OK;
}

static bl_status fill_plan(plan *p)
{
    size_t scratch = 0;
    for (int32_t id = 0; id < p->nodes; id++) {
        size_t elements = scratch_elements(p->signature.graph, bl_node_at(p->signature.graph, id));
        scratch = elements > scratch ? elements : scratch;
    }
    p->value = bl_alloc(((size_t)p->nodes + 1) * sizeof *p->value);
    p->staged = bl_alloc(((size_t)p->signature.outputs + 1) * sizeof *p->staged);
    p->scratch = bl_alloc_aligned((scratch + 1) * sizeof *p->scratch);
    if (!p->value || !p->staged || !p->scratch)
        return bl_no_memory(scratch * sizeof *p->scratch);
    p->memory += scratch * sizeof *p->scratch;
    BL_TRY(share_buffers(p));
    BL_TRY(compile_loops(p));
    return stage_outputs(p);
}

static bl_status compile(const bl_signature *signature, void **out)
{
    plan *p = bl_alloc(sizeof *p);
    if (!p)
        return bl_no_memory(sizeof *p);
    p->signature = *signature;
    p->nodes = (int32_t)bl_graph_size(signature->graph);
    bl_status status = fill_plan(p);
    if (status != BL_OK)
        free_plan(p);
    else
        *out = p;
    return status;
}

static void copy_bytes(void *to, const void *from, size_t bytes)
{
    if (bytes > 0 && to != from)
        memcpy(to, from, bytes);
}

static void copy_outputs(const plan *p, void *const *output)
{
    const bl_signature *signature = &p->signature;
    for (int o = 0; o < signature->outputs; o++)
        if (p->staged[o])
            copy_bytes(p->staged[o], p->value[signature->output[o]],
                       bl_type_bytes(bl_node_at(signature->graph, signature->output[o])->type));
    for (int o = 0; o < signature->outputs; o++)
        copy_bytes(output[o], p->staged[o] ? p->staged[o] : p->value[signature->output[o]],
                   bl_type_bytes(bl_node_at(signature->graph, signature->output[o])->type));
}

static bl_status run(void *pointer, void *const *input, void *const *output)
{
    plan *p = pointer;
    for (int i = 0; i < p->signature.inputs; i++)
        p->value[p->signature.input[i]] = input[i];
    for (int32_t id = 0; id < p->nodes; id++) {
        bl_call call = {p->signature.graph, bl_node_at(p->signature.graph, id), p->value,
                        p->value[id], p->scratch};
        BL_TRY(p->nested[id] ? bl_nested_run(p->nested[id], p->value, p->value[id])
                             : kernels[call.node->op](&call));
    }
    copy_outputs(p, output);
    return BL_OK;
}

/* --- what it does ------------------------------------------------------------------------------
 */

static bool is_kernel(bl_op op)
{
    return op != BL_OP_input && op != BL_OP_constant;
}

static bl_work work(const void *pointer)
{
    const plan *p = pointer;
    bl_work total = {.memory = p->memory};
    for (int32_t id = 0; id < p->nodes; id++) {
        total.flops += bl_node_flops(p->signature.graph, id);
        total.bytes += bl_node_bytes(p->signature.graph, id);
        total.kernels += is_kernel(bl_node_at(p->signature.graph, id)->op);
    }
    return total;
}

static void explain_node(const bl_graph *graph, int32_t id, bl_text *text)
{
    const bl_node *node = bl_node_at(graph, id);
    char type[BL_TYPE_TEXT];
    bl_text_add(text, "%%%d = %s", id, bl_op_name(node->op));
    for (int i = 0; i < node->operands; i++)
        bl_text_add(text, "%s%%%d", i ? ", " : " ", node->operand[i]);
    if (node->op == BL_OP_input)
        bl_text_add(text, " \"%s\"", node->name ? node->name : "");
    if (node->op == BL_OP_constant && !node->attr->data)
        bl_text_add(text, " %.9g", node->attr->value);
    bl_text_add(text, " : %s", bl_type_text(node->type, type));
    if (is_kernel(node->op))
        bl_text_add(text, "  %.4g flops, %.4g bytes", bl_node_flops(graph, id),
                    bl_node_bytes(graph, id));
    if (node->scope && node->scope[0])
        bl_text_add(text, "  in %s", node->scope);
    bl_text_add(text, "\n");
}

static char *explain(const void *pointer)
{
    const plan *p = pointer;
    bl_text text = {0};
    for (int32_t id = 0; id < p->nodes; id++)
        explain_node(p->signature.graph, id, &text);
    if (text.failed) {
        bl_text_free(&text);
        return NULL;
    }
    return text.at;
}

const bl_executor bl_executor_reference = {
    .name = "reference",
    .compile = compile,
    .run = run,
    .free = free_plan,
    .explain = explain,
    .work = work,
};
