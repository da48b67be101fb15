/* argsort: a stable merge sort of keys whose unsigned order is the order asked for.
 *
 * A key holds an element's value, turned into an unsigned number, above its position: so equal
 * values keep their order, and the comparisons are of integers. Doubles are sorted by the upper
 * halves of their values first, then those that agree in them by the lower. Where only the first
 * few of an order are read, as of a top-k, no others are looked for. */
#include <math.h>
#include <string.h>

#include "exec/cpu/cpu.h"

/* Unsigned order = order of the values; -0 equals 0; NaN last. Of 64 bits where doubles are sorted,
 * else of 32. */
static uint64_t key_of(bl_dtype dtype, const void *x, int64_t i)
{
    switch (dtype) {
    case BL_F64: {
        double value = ((const double *)x)[i];
        uint64_t bits;
        if (isnan(value))
            return UINT64_MAX;
        value = value == 0 ? 0.0 : value;
        memcpy(&bits, &value, sizeof bits);
        return bits >> 63 ? ~bits : bits | 0x8000000000000000u;
    }
    case BL_F32: {
        float value = ((const float *)x)[i];
        uint32_t bits;
        if (isnan(value))
            return UINT32_MAX;
        value = value == 0 ? 0.0f : value;
        memcpy(&bits, &value, sizeof bits);
        return bits >> 31 ? ~bits : bits | 0x80000000u;
    }
    case BL_I32:
        return (uint32_t)((const int32_t *)x)[i] ^ 0x80000000u;
    case BL_U32:
        return ((const uint32_t *)x)[i];
    case BL_I8:
        return (uint32_t)(((const int8_t *)x)[i] + 128);
    default:
        return ((const uint8_t *)x)[i];
    }
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void insert(uint64_t *key, int64_t count)
{
    for (int64_t i = 1; i < count; i++) {
        uint64_t one = key[i];
        int64_t j = i;
        for (; j > 0 && key[j - 1] > one; j--)
            key[j] = key[j - 1];
        key[j] = one;
    }
}

/* Runs of 16 by insertion, then merges from one buffer to the other; returns the sorted one. */
static uint64_t *sort(uint64_t *key, uint64_t *other, int64_t count)
{
    enum { RUN = 16 };
    for (int64_t start = 0; start < count; start += RUN)
        insert(key + start, smaller(RUN, count - start));
    for (int64_t run = RUN; run < count; run *= 2) {
        for (int64_t start = 0; start < count; start += 2 * run) {
            const uint64_t *left = key + start, *middle = left + smaller(run, count - start);
            const uint64_t *right = middle, *end = key + smaller(start + 2 * run, count);
            for (uint64_t *to = other + start; left < middle || right < end; to++) {
                bool from_right = left == middle || (right < end && *right < *left);
                *to = from_right ? *right++ : *left++;
            }
        }
        uint64_t *sorted = other;
        other = key;
        key = sorted;
    }
    return key;
}

/* Elements along the axis of one argsort, and what is asked for. */
typedef struct lane {
    bl_dtype dtype;
    const void *x;
    int64_t first, step, length; /* of x */
    uint64_t flip;               /* all ones where the order is descending */
} lane;

static uint64_t key_at(const lane *l, int64_t i)
{
    return key_of(l->dtype, l->x, l->first + i * l->step) ^ l->flip;
}

/* Of doubles whose keys agree in their upper halves, the order by the lower halves. */
static void sort_equal_halves(const lane *l, uint64_t *sorted, uint64_t *room)
{
    for (int64_t start = 0, end; start < l->length; start = end) {
        for (end = start + 1; end < l->length && sorted[end] >> 32 == sorted[start] >> 32;)
            end++;
        int64_t count = end - start;
        if (count == 1)
            continue;
        for (int64_t j = 0; j < count; j++) {
            uint64_t place = sorted[start + j] & UINT32_MAX;
            room[j] = key_at(l, (int64_t)place) << 32 | place;
        }
        memcpy(sorted + start, sort(room, room + count, count), (size_t)count * sizeof *room);
    }
}

/* All places in order. key: room for four times the length. */
static void sort_lane(const lane *l, uint64_t *key, int32_t *z)
{
    int shift = l->dtype == BL_F64 ? 32 : 0;
    for (int64_t i = 0; i < l->length; i++)
        key[i] = key_at(l, i) >> shift << 32 | (uint64_t)i;
    uint64_t *sorted = sort(key, key + l->length, l->length);
    if (l->dtype == BL_F64)
        sort_equal_halves(l, sorted, key + 2 * l->length);
    for (int64_t i = 0; i < l->length; i++)
        z[l->first + i * l->step] = (int32_t)(uint32_t)sorted[i];
}

/* The first `wanted` places alone: an element below the last of those so far is put among them. Of
 * random elements few are. */
static void choose_first(const lane *l, int64_t wanted, uint64_t *key, int32_t *z)
{
    int64_t found = 0;
    for (int64_t i = 0; i < l->length; i++) {
        uint64_t one = key_at(l, i);
        if (found == wanted && one >= key[wanted - 1])
            continue;
        int64_t j = found < wanted ? found++ : wanted - 1;
        for (; j > 0 && key[j - 1] > one; j--) {
            key[j] = key[j - 1];
            z[l->first + j * l->step] = z[l->first + (j - 1) * l->step];
        }
        key[j] = one;
        z[l->first + j * l->step] = (int32_t)i;
    }
}

/* How many of the first along its axis anyone reads of an argsort: those of a top-k are a slice. */
static int64_t first_read(const cpu_plan *plan, int32_t id)
{
    const bl_node *sorted = cpu_node(plan, id);
    int64_t most = 0, all = sorted->type.shape.dim[sorted->attr->axis];
    if (plan->signature.check)
        return all;
    for (int o = 0; o < plan->signature.outputs; o++)
        if (plan->signature.output[o] == id)
            return all;
    for (int32_t user = id + 1; user < plan->nodes; user++) {
        const bl_node *node = cpu_node(plan, user);
        for (int i = 0; i < node->operands; i++) {
            if (node->operand[i] != id)
                continue;
            if (node->op != BL_OP_slice)
                return all;
            int64_t end = node->attr->b[sorted->attr->axis];
            most = end > most ? end : most;
        }
    }
    return most;
}

typedef struct argsort {
    int64_t wanted;
} argsort;

static bl_status run_argsort(cpu_plan *plan, cpu_kernel *kernel)
{
    enum { FEW = 8 }; /* choosing is quicker for at most one in so many */
    const bl_node *node = cpu_node(plan, kernel->node);
    bl_type x = cpu_node(plan, node->operand[0])->type;
    int64_t length = x.shape.dim[node->attr->axis], inner = 1;
    for (int i = node->attr->axis + 1; i < x.shape.rank; i++)
        inner *= x.shape.dim[i];
    uint64_t mask = x.dtype == BL_F64 ? UINT64_MAX : UINT32_MAX;
    lane l = {x.dtype, cpu_operand(plan, node, 0), 0, inner, length, node->attr->flag ? mask : 0};
    int64_t lanes = length ? bl_type_count(x) / length : 0;
    int64_t wanted = ((const argsort *)kernel->data)->wanted;
    uint64_t *key = (uint64_t *)(void *)plan->scratch;
    for (int64_t i = 0; i < lanes && wanted > 0; i++) {
        l.first = i / inner * length * inner + i % inner;
        if (wanted <= length / FEW)
            choose_first(&l, wanted, key, plan->address[kernel->node]);
        else
            sort_lane(&l, key, plan->address[kernel->node]);
    }
    return BL_OK;
}

bl_status cpu_prepare_argsort(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    bl_type x = cpu_node(plan, node->operand[0])->type;
    if (bl_type_count(x) == 0)
        return BL_UNSUPPORTED;
    argsort *data = bl_alloc(sizeof *data);
    if (!data)
        return bl_no_memory(sizeof *data);
    data->wanted = first_read(plan, kernel->node);
    kernel->data = data;
    kernel->free = bl_release;
    size_t scratch = 4 * (size_t)x.shape.dim[node->attr->axis] * sizeof(uint64_t);
    if (scratch > plan->scratch_bytes)
        plan->scratch_bytes = scratch;
    kernel->run = run_argsort;
    kernel->how = "sort";
    return BL_OK;
}
