/* Products of bytes with sums of 32 bits, exact modulo 2^32.
 *
 * The operands are widened to 16 bits and laid out row by row along the summed axis, where
 * processors multiply and add eight pairs in one instruction. oneDNN is not used: without VNNI its
 * products of bytes saturate. To add a product of other integers: widen it to what the processor
 * multiplies, and keep DEPTH so small that a sum of products fits. */
#include "exec/cpu/cpu.h"

enum {
    DEPTH = 4096, /* of a sum in int32_t: 2^12 products of at most 2^14 */
    ROWS = 32,    /* of a part: their operand stays in the second cache */
    LEAST_SHARED = 1 << 20
};

typedef struct bytes_product {
    int64_t m, n, k;
    const int16_t *a, *b; /* [m,k] and [n,k] */
    uint32_t *z;
} bytes_product;

/* [rows,columns], or that of the transposed, as [rows,columns]. */
static void widen(const int8_t *x, int64_t rows, int64_t columns, bool transposed, int16_t *to)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            to[i * columns + j] = x[transposed ? j * rows + i : i * columns + j];
}

/* One row of a by four of b. */
static void add_four(const int16_t *a, const int16_t *b, int64_t step, int64_t k, uint32_t *z)
{
    const int16_t *b1 = b + step, *b2 = b1 + step, *b3 = b2 + step;
    int32_t sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
    for (int64_t i = 0; i < k; i++) {
        sum0 += (int32_t)a[i] * b[i];
        sum1 += (int32_t)a[i] * b1[i];
        sum2 += (int32_t)a[i] * b2[i];
        sum3 += (int32_t)a[i] * b3[i];
    }
    z[0] += (uint32_t)sum0;
    z[1] += (uint32_t)sum1;
    z[2] += (uint32_t)sum2;
    z[3] += (uint32_t)sum3;
}

static void add_one(const int16_t *a, const int16_t *b, int64_t k, uint32_t *z)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < k; i++)
        sum += (int32_t)a[i] * b[i];
    *z += (uint32_t)sum;
}

static void run_rows(void *context, int64_t part, int thread)
{
    const bytes_product *p = context;
    int64_t first = part * ROWS, end = first + ROWS < p->m ? first + ROWS : p->m;
    (void)thread;
    for (int64_t i = first * p->n; i < end * p->n; i++)
        p->z[i] = 0;
    for (int64_t at = 0; at < p->k; at += DEPTH) {
        int64_t depth = p->k - at < DEPTH ? p->k - at : DEPTH, j = 0;
        for (; j + 4 <= p->n; j += 4)
            for (int64_t i = first; i < end; i++)
                add_four(p->a + i * p->k + at, p->b + j * p->k + at, p->k, depth,
                         p->z + i * p->n + j);
        for (; j < p->n; j++)
            for (int64_t i = first; i < end; i++)
                add_one(p->a + i * p->k + at, p->b + j * p->k + at, depth, p->z + i * p->n + j);
    }
}

static bytes_product sizes_of(const cpu_plan *plan, const bl_node *node)
{
    bl_shape a = cpu_node(plan, node->operand[0])->type.shape, z = node->type.shape;
    return (bytes_product){.m = z.dim[z.rank - 2],
                           .n = z.dim[z.rank - 1],
                           .k = a.dim[node->attr->flag ? a.rank - 2 : a.rank - 1]};
}

static bl_status run_bytes(cpu_plan *plan, cpu_kernel *kernel)
{
    const bl_node *node = cpu_node(plan, kernel->node);
    const int8_t *a = cpu_operand(plan, node, 0), *b = cpu_operand(plan, node, 1);
    bytes_product p = sizes_of(plan, node);
    int16_t *wide_a = (int16_t *)(void *)plan->scratch, *wide_b = wide_a + p.m * p.k;
    int64_t batch = bl_type_count(node->type) / (p.m * p.n);
    p.a = wide_a;
    p.b = wide_b;
    for (int64_t i = 0; i < batch; i++) {
        widen(a + i * p.m * p.k, p.m, p.k, node->attr->flag, wide_a);
        widen(b + i * p.n * p.k, p.n, p.k, !node->attr->flag2, wide_b);
        p.z = (uint32_t *)plan->address[kernel->node] + i * p.m * p.n;
        bool shared = p.m * p.n * p.k >= LEAST_SHARED;
        cpu_pool_run(shared ? plan->pool : NULL, run_rows, &p, (p.m + ROWS - 1) / ROWS);
    }
    return BL_OK;
}

bl_status cpu_prepare_dot_of_bytes(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    bytes_product p = sizes_of(plan, node);
    if (bl_type_count(node->type) == 0)
        return BL_UNSUPPORTED;
    size_t scratch = (size_t)((p.m + p.n) * p.k) * sizeof(int16_t);
    scratch = (scratch + 63) & ~(size_t)63;
    cpu_reserve_scratch(plan, scratch);
    kernel->run = run_bytes;
    kernel->how = "bytes";
    return BL_OK;
}
