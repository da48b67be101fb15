/* Common subexpressions: nodes with equal primitive, operands, attributes and type are one node.
 *
 * Inputs are never merged: two arguments may have equal types and names. Random bits are, since the
 * same key gives the same bits. */
#include "graph/pass/pass.h"

#include <string.h>

bl_status bl_merger_new(int64_t nodes, bl_merger *out)
{
    *out = (bl_merger){.slots = 64};
    while (out->slots < 2 * (size_t)nodes + 2)
        out->slots *= 2;
    out->slot = bl_alloc(out->slots * sizeof *out->slot);
    out->hash = bl_alloc(out->slots * sizeof *out->hash);
    if (out->slot && out->hash)
        return BL_OK;
    return bl_no_memory(out->slots * sizeof *out->hash);
}

void bl_merger_free(bl_merger *merger)
{
    bl_release(merger->slot);
    bl_release(merger->hash);
}

/* Enough bytes of a constant's data to tell most of them apart. */
enum { HASHED_BYTES = 256 };

static uint64_t hash_node(const bl_node *node)
{
    const bl_attr *attr = node->attr;
    size_t bytes = bl_type_bytes(node->type), rank = (size_t)node->type.shape.rank;
    int64_t head[] = {node->op,   node->operands, node->type.dtype, node->type.shape.rank,
                      attr->axis, attr->axes,     attr->flag,       attr->flag2};
    uint64_t hash = bl_hash(head, sizeof head, 0);
    hash = bl_hash(node->operand, (size_t)node->operands * sizeof *node->operand, hash);
    hash = bl_hash(node->type.shape.dim, rank * sizeof(int64_t), hash);
    hash = bl_hash(&attr->value, sizeof attr->value, hash);
    hash = bl_hash(attr->a, sizeof attr->a, hash);
    hash = bl_hash(attr->b, sizeof attr->b, hash);
    if (attr->data)
        hash = bl_hash(attr->data, bytes < HASHED_BYTES ? bytes : HASHED_BYTES, hash);
    return hash;
}

static bool same_pair(const int64_t *a, const int64_t *b)
{
    return a[0] == b[0] && a[1] == b[1];
}

static bool same_conv(const bl_conv_options *a, const bl_conv_options *b)
{
    return same_pair(a->stride, b->stride) && same_pair(a->low, b->low) &&
           same_pair(a->high, b->high) && same_pair(a->dilation, b->dilation) &&
           a->groups == b->groups;
}

static bool same_data(const bl_node *a, const bl_node *b)
{
    const void *x = a->attr->data, *y = b->attr->data;
    if (!x || !y)
        return x == y;
    return memcmp(x, y, bl_type_bytes(a->type)) == 0;
}

/* By fields, since a struct's padding may differ; the value by bits, since 0 and -0 differ and a
 * NaN equals itself. */
static bool same_attr(const bl_attr *a, const bl_attr *b)
{
    return a->axis == b->axis && a->axes == b->axes && a->flag == b->flag && a->flag2 == b->flag2 &&
           a->control == b->control && memcmp(&a->value, &b->value, sizeof a->value) == 0 &&
           memcmp(a->a, b->a, sizeof a->a) == 0 && memcmp(a->b, b->b, sizeof a->b) == 0 &&
           memcmp(a->c, b->c, sizeof a->c) == 0 && same_conv(&a->conv, &b->conv);
}

static bool same_node(const bl_node *a, const bl_node *b)
{
    return a->op == b->op && a->op != BL_OP_input && a->operands == b->operands &&
           bl_type_equal(a->type, b->type) &&
           memcmp(a->operand, b->operand, (size_t)a->operands * sizeof *a->operand) == 0 &&
           same_attr(a->attr, b->attr) && same_data(a, b);
}

int32_t bl_merge(bl_merger *merger, bl_graph *g, const bl_draft *draft)
{
    uint64_t hash = hash_node(&draft->node);
    size_t at = (size_t)hash & (merger->slots - 1);
    for (; merger->slot[at]; at = (at + 1) & (merger->slots - 1)) {
        int32_t id = merger->slot[at] - 1;
        if (merger->hash[at] == hash && same_node(&draft->node, bl_node_at(g, id)))
            return id;
    }
    bl_tensor added = bl_node_copy(g, &draft->node, draft->operand);
    if (bl_is_poison(added))
        return -1;
    merger->slot[at] = added.id + 1;
    merger->hash[at] = hash;
    return added.id;
}
