/* Products of matrices, and of stacks of them: the blocked loops of gemm.inc over views.
 *
 * Operands are read as they lie, transposed, a slice of wider rows, with any number of stacked
 * axes, so that the heads of an attention need no copies. A product is shared out in parts,
 * stretches of a matrix's rows or columns; an element's sum is the same whatever part it is in, so
 * their number may depend on the threads. To read operands of another form, widen cpu_dot_reads. */
#include "exec/cpu/cpu.h"

enum {
    PART_PRODUCT = 1 << 20, /* multiply-adds below which waking a thread does not pay */
    GRAIN = 32,             /* rows or columns: a part is whole grains, the last with the rest */
    PARTS_EACH = 2          /* of a thread, so that one which is held up does not hold up all */
};

typedef struct matrix { /* element (i, j) is at i row + j column, after the offset of its stack */
    int64_t row, column;
} matrix;

typedef struct product {
    int64_t m, n, k;
    matrix a, b;
    int axes; /* stacked */
    int64_t batch, dim[BL_MAX_RANK], a_step[BL_MAX_RANK], b_step[BL_MAX_RANK];
    bool by_rows;
    int64_t parts; /* of every matrix */
    size_t scratch;
} product;

typedef struct product_run {
    const cpu_plan *plan;
    const product *product;
    const char *a, *b;
    char *z;
    bl_dtype dtype;
} product_run;

static matrix matrix_of(const cpu_view *view, bool transposed)
{
    int64_t row = view->stride[view->rank - 2], column = view->stride[view->rank - 1];
    return transposed ? (matrix){column, row} : (matrix){row, column};
}

/* A step along one of its axes is a step in memory. */
bool cpu_dot_reads(const bl_node *node, const cpu_view *view)
{
    int r = view->rank;
    return bl_dtype_is_float(node->type.dtype) &&
           (view->stride[r - 1] == 1 || view->stride[r - 2] == 1);
}

/* Elements from the start of an operand to its matrix number `at` of the stack. */
static int64_t offset_of(const product *p, const int64_t *step, int64_t at)
{
    int64_t offset = 0;
    for (int i = p->axes - 1; i >= 0; at /= p->dim[i--])
        offset += at % p->dim[i] * step[i];
    return offset;
}

static void run_part(void *context, int64_t number, int thread)
{
    const product_run *run = context;
    const product *p = run->product;
    int64_t part = number % p->parts, at = number / p->parts;
    int64_t size = (int64_t)bl_dtype_size(run->dtype), grains = (p->by_rows ? p->m : p->n) / GRAIN;
    int64_t from = grains * part / p->parts * GRAIN, end = grains * (part + 1) / p->parts * GRAIN;
    int64_t row = p->by_rows ? from : 0, column = p->by_rows ? 0 : from;
    const char *a = run->a + size * (offset_of(p, p->a_step, at) + row * p->a.row);
    const char *b = run->b + size * (offset_of(p, p->b_step, at) + column * p->b.column);
    bl_gemm g = {p->m,        p->n,
                 p->k,        a,
                 b,           p->a.row,
                 p->a.column, p->b.row,
                 p->b.column, run->z + size * ((at * p->m + row) * p->n + column),
                 p->n,        run->plan->scratch + (size_t)thread * p->scratch,
                 NULL,        NULL};
    if (part < p->parts - 1)
        *(p->by_rows ? &g.m : &g.n) = end - from;
    else
        *(p->by_rows ? &g.m : &g.n) -= from;
    if (at + 1 < p->batch && p->parts == 1) {
        g.next_a = run->a + size * offset_of(p, p->a_step, at + 1);
        g.next_b = run->b + size * offset_of(p, p->b_step, at + 1);
    }
    run->plan->loops->gemm[run->dtype](&g);
}

static bl_status run_product(cpu_plan *plan, cpu_kernel *kernel)
{
    const product *p = kernel->data;
    const bl_node *node = cpu_node(plan, kernel->node);
    product_run run = {.plan = plan,
                       .product = p,
                       .a = cpu_operand(plan, node, 0),
                       .b = cpu_operand(plan, node, 1),
                       .z = plan->address[kernel->node],
                       .dtype = node->type.dtype};
    bool shared = p->batch * p->m * p->n * p->k >= 2 * PART_PRODUCT;
    cpu_pool_run(shared ? plan->pool : NULL, run_part, &run, p->batch * p->parts);
    return BL_OK;
}

/* Columns, as every part packs the rows of b that it needs anew; rows where it is a that is packed,
 * or where there are more of them. */
static void share_out(const cpu_plan *plan, product *p)
{
    double work = (double)(p->batch * p->m) * (double)(p->n * p->k);
    int64_t wanted = (int64_t)plan->threads * PARTS_EACH;
    p->parts = 1;
    p->by_rows = p->a.column != 1 ? p->m >= p->n / 4 : p->m >= 4 * p->n;
    if (plan->threads == 1 || p->batch >= wanted || work < 2.0 * PART_PRODUCT)
        return;
    int64_t grains = (p->by_rows ? p->m : p->n) / GRAIN;
    p->parts = (int64_t)(work / PART_PRODUCT) / p->batch;
    p->parts = p->parts < wanted ? p->parts : wanted;
    p->parts = p->parts < grains ? p->parts : grains;
    p->parts = p->parts < 1 ? 1 : p->parts;
}

bl_status cpu_prepare_dot(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    cpu_view a = cpu_operand_view(plan, node, 0), b = cpu_operand_view(plan, node, 1);
    bool ta = node->attr->flag, tb = node->attr->flag2;
    int r = node->type.shape.rank;
    if (cpu_view_count(&a) == 0 || cpu_view_count(&b) == 0)
        return BL_UNSUPPORTED;
    if (!bl_dtype_is_float(node->type.dtype))
        return cpu_prepare_dot_of_bytes(plan, kernel, node);
    product *p = bl_alloc(sizeof *p);
    if (!p)
        return bl_no_memory(sizeof *p);
    *p = (product){.batch = 1,
                   .m = node->type.shape.dim[r - 2],
                   .n = node->type.shape.dim[r - 1],
                   .k = a.dim[ta ? r - 2 : r - 1],
                   .a = matrix_of(&a, ta),
                   .b = matrix_of(&b, tb),
                   .axes = r - 2};
    for (int i = 0; i < r - 2; i++) {
        p->batch *= p->dim[i] = node->type.shape.dim[i];
        p->a_step[i] = a.stride[i];
        p->b_step[i] = b.stride[i];
    }
    share_out(plan, p);
    p->scratch = (size_t)bl_gemm_scratch(p->m, p->n, p->k) * bl_dtype_size(node->type.dtype);
    p->scratch = (p->scratch + 63) & ~(size_t)63;
    cpu_reserve_scratch(plan, (size_t)plan->threads * p->scratch);
    kernel->data = p;
    kernel->free = bl_release;
    kernel->run = run_product;
    kernel->how = "dot";
    return BL_OK;
}
