/* argsort: a stable merge sort of keys whose unsigned order is the order asked for.
 *
 * A key holds an element's value, turned into an unsigned number, above its position: so equal
 * values keep their order, and the comparisons are of integers. 64-bit values are left to the
 * reference loop. */
#include <math.h>
#include <string.h>

#include "exec/cpu/cpu.h"

/* Unsigned order = order of the values; -0 equals 0; NaN last. */
static uint32_t key_of(bl_dtype dtype, const void *x, int64_t i)
{
    switch (dtype) {
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

static bl_status run_argsort(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    bl_type x = cpu_node(plan, node->operand[0])->type;
    const void *from = cpu_operand(plan, node, 0);
    int32_t *z = plan->address[kernel->node];
    int64_t length = x.shape.dim[node->attr->axis], inner = 1;
    for (int i = node->attr->axis + 1; i < x.shape.rank; i++)
        inner *= x.shape.dim[i];
    int64_t lanes = length ? bl_type_count(x) / length : 0;
    uint32_t flip = node->attr->flag ? UINT32_MAX : 0;
    uint64_t *key = (uint64_t *)(void *)plan->scratch;
    for (int64_t lane = 0; lane < lanes; lane++) {
        int64_t first = lane / inner * length * inner + lane % inner;
        for (int64_t l = 0; l < length; l++)
            key[l] =
                (uint64_t)(key_of(x.dtype, from, first + l * inner) ^ flip) << 32 | (uint64_t)l;
        const uint64_t *sorted = sort(key, key + length, length);
        for (int64_t l = 0; l < length; l++)
            z[first + l * inner] = (int32_t)(uint32_t)sorted[l];
    }
    return BL_OK;
}

bl_status cpu_prepare_argsort(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    bl_type x = cpu_node(plan, node->operand[0])->type;
    if (x.dtype == BL_F64 || bl_type_count(x) == 0)
        return BL_UNSUPPORTED;
    size_t scratch = 2 * (size_t)x.shape.dim[node->attr->axis] * sizeof(uint64_t);
    if (scratch > plan->scratch_bytes)
        plan->scratch_bytes = scratch;
    kernel->run = run_argsort;
    kernel->how = "sort";
    return BL_OK;
}
