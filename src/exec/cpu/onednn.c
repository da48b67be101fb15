/* Contractions: oneDNN's matrix products and convolutions, and own loops where a call to it would
 * cost more than the product.
 *
 * Primitives are made when the program is compiled and hold no data: every run hands them the
 * addresses. Images are read as they are (NHWC); filters are brought to the layout that oneDNN
 * wants first, which is cheap, as they are small. To add a contraction: describe its operands in a
 * cpu_prepare, make the primitive, fill in the arguments. */
#include <dnnl.h>
#include <string.h>

#include "exec/cpu/cpu.h"

/* Products up to this many multiply-adds are done by our own loop (bench/bench_steps.c). */
enum { SMALL_PRODUCT = 160000 };

typedef struct engine {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
} engine;

void cpu_free_engine(cpu_plan *plan)
{
    engine *e = plan->engine;
    if (!e)
        return;
    if (e->stream)
        dnnl_stream_destroy(e->stream);
    if (e->engine)
        dnnl_engine_destroy(e->engine);
    bl_release(e);
    plan->engine = NULL;
}

static engine *engine_of(cpu_plan *plan)
{
    if (plan->engine)
        return plan->engine;
    engine *e = plan->engine = bl_alloc(sizeof *e);
    if (!e)
        return NULL;
    if (dnnl_engine_create(&e->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&e->stream, e->engine, dnnl_stream_default_flags) != dnnl_success) {
        cpu_free_engine(plan);
        return NULL;
    }
    return e;
}

/* --- products --------------------------------------------------------------------------------- */

typedef struct matrix { /* element (b, i, j) is at b batch + i row + j column */
    int64_t batch, row, column;
} matrix;

typedef struct product {
    int64_t batch, m, n, k;
    matrix a, b;
    dnnl_primitive_t primitive;
    dnnl_memory_t memory[3];
} product;

/* The last two axes as they are, the ones before as one; false if they are not one. */
static bool matrix_of(const cpu_view *view, bool transposed, matrix *out)
{
    int r = view->rank;
    cpu_view batch = *view;
    batch.rank = r - 2;
    batch = cpu_coalesce(batch);
    int64_t row = view->stride[r - 2], column = view->stride[r - 1];
    *out = transposed ? (matrix){0, column, row} : (matrix){0, row, column};
    if (batch.rank == 1)
        out->batch = batch.stride[0];
    return batch.rank <= 1 && (batch.rank == 0 || batch.stride[0] > 0);
}

/* One of the two axes has stride 1 and the other is at least as long as it. */
static bool is_plain(const cpu_view *view)
{
    int r = view->rank;
    int64_t row = view->stride[r - 2], column = view->stride[r - 1];
    int64_t rows = view->dim[r - 2], columns = view->dim[r - 1];
    return (column == 1 && row >= columns) || (row == 1 && column >= rows);
}

bool cpu_dot_reads(const cpu_plan *plan, const bl_node *node, const cpu_view *view)
{
    matrix m;
    (void)plan;
    return node->type.dtype == BL_F32 && is_plain(view) && matrix_of(view, false, &m);
}

static bl_status run_small(cpu_plan *plan, cpu_kernel *kernel)
{
    const product *p = kernel->data;
    const bl_node *node = cpu_node(plan, kernel->node);
    const float *a = cpu_operand(plan, node, 0), *b = cpu_operand(plan, node, 1);
    float *z = plan->address[kernel->node];
#pragma omp parallel for num_threads(                                                              \
    plan->threads) if (plan->threads > 1 && p->batch * p->m * p->n * p->k > 4 * SMALL_PRODUCT)
    for (int64_t i = 0; i < p->batch; i++)
        plan->loops->gemm(p->m, p->n, p->k, a + i * p->a.batch, p->a.row, p->a.column,
                          b + i * p->b.batch, p->b.row, p->b.column, z + i * p->m * p->n, p->n);
    return BL_OK;
}

static bl_status run_f64(cpu_plan *plan, cpu_kernel *kernel)
{
    const product *p = kernel->data;
    const bl_node *node = cpu_node(plan, kernel->node);
    const double *a = cpu_operand(plan, node, 0), *b = cpu_operand(plan, node, 1);
    double *z = plan->address[kernel->node];
    memset(z, 0, (size_t)(p->batch * p->m * p->n) * sizeof *z);
    for (int64_t i = 0; i < p->batch; i++, a += p->a.batch, b += p->b.batch)
        for (int64_t m = 0; m < p->m; m++, z += p->n)
            for (int64_t k = 0; k < p->k; k++) {
                double x = a[m * p->a.row + k * p->a.column];
                const double *row = b + k * p->b.row;
                if (p->b.column == 1)
                    for (int64_t n = 0; n < p->n; n++)
                        z[n] += x * row[n];
                else
                    for (int64_t n = 0; n < p->n; n++)
                        z[n] += x * row[n * p->b.column];
            }
    return BL_OK;
}

static bl_status execute(cpu_plan *plan, dnnl_primitive_t primitive, int count,
                         const dnnl_exec_arg_t *argument)
{
    engine *e = plan->engine;
    if (dnnl_primitive_execute(primitive, e->stream, count, argument) != dnnl_success)
        return bl_fail(BL_UNSUPPORTED, "cpu: oneDNN could not run a primitive");
    return BL_OK;
}

static bl_status run_product(cpu_plan *plan, cpu_kernel *kernel)
{
    product *p = kernel->data;
    const bl_node *node = cpu_node(plan, kernel->node);
    dnnl_memory_set_data_handle(p->memory[0], cpu_operand(plan, node, 0));
    dnnl_memory_set_data_handle(p->memory[1], cpu_operand(plan, node, 1));
    dnnl_memory_set_data_handle(p->memory[2], plan->address[kernel->node]);
    return execute(plan, p->primitive, 3,
                   (const dnnl_exec_arg_t[]){{DNNL_ARG_SRC, p->memory[0]},
                                             {DNNL_ARG_WEIGHTS, p->memory[1]},
                                             {DNNL_ARG_DST, p->memory[2]}});
}

static void free_product(void *data)
{
    product *p = data;
    if (!p)
        return;
    for (int i = 0; i < 3; i++)
        if (p->memory[i])
            dnnl_memory_destroy(p->memory[i]);
    if (p->primitive)
        dnnl_primitive_destroy(p->primitive);
    bl_release(p);
}

static dnnl_memory_desc_t describe_matrix(const product *p, matrix x, int64_t rows, int64_t columns)
{
    dnnl_memory_desc_t d;
    bool batched = p->batch > 1;
    const dnnl_dims_t dim = {p->batch, rows, columns}, stride = {x.batch, x.row, x.column};
    memset(&d, 0, sizeof d);
    (void)dnnl_memory_desc_init_by_strides(&d, batched ? 3 : 2, dim + !batched, dnnl_f32,
                                           stride + !batched);
    return d;
}

static bool make_product(engine *e, product *p)
{
    dnnl_memory_desc_t d[3] = {describe_matrix(p, p->a, p->m, p->k),
                               describe_matrix(p, p->b, p->k, p->n),
                               describe_matrix(p, (matrix){p->m * p->n, p->n, 1}, p->m, p->n)};
    dnnl_matmul_desc_t operation;
    dnnl_primitive_desc_t description;
    if (dnnl_matmul_desc_init(&operation, &d[0], &d[1], NULL, &d[2]) != dnnl_success ||
        dnnl_primitive_desc_create(&description, &operation, NULL, e->engine, NULL) != dnnl_success)
        return false;
    bool made = dnnl_primitive_create(&p->primitive, description) == dnnl_success;
    dnnl_primitive_desc_destroy(description);
    for (int i = 0; i < 3 && made; i++)
        made =
            dnnl_memory_create(&p->memory[i], &d[i], e->engine, DNNL_MEMORY_NONE) == dnnl_success;
    return made;
}

bl_status cpu_prepare_dot(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    cpu_view a = cpu_operand_view(plan, node, 0), b = cpu_operand_view(plan, node, 1);
    bool ta = node->attr->flag, tb = node->attr->flag2;
    int r = node->type.shape.rank;
    if (cpu_view_count(&a) == 0 || cpu_view_count(&b) == 0 || !bl_dtype_is_float(node->type.dtype))
        return BL_UNSUPPORTED;
    product *p = bl_alloc(sizeof *p);
    if (!p)
        return bl_no_memory(sizeof *p);
    kernel->data = p;
    kernel->free = free_product;
    *p = (product){.batch = 1,
                   .m = node->type.shape.dim[r - 2],
                   .n = node->type.shape.dim[r - 1],
                   .k = a.dim[ta ? r - 2 : r - 1]};
    for (int i = 0; i < r - 2; i++)
        p->batch *= node->type.shape.dim[i];
    if (!matrix_of(&a, ta, &p->a) || !matrix_of(&b, tb, &p->b))
        return BL_UNSUPPORTED;
    if (node->type.dtype == BL_F64) {
        kernel->run = run_f64;
        kernel->how = "dot";
        return BL_OK;
    }
    engine *e = p->m * p->n * p->k > SMALL_PRODUCT ? engine_of(plan) : NULL;
    bool large = e && make_product(e, p);
    kernel->run = large ? run_product : run_small;
    kernel->how = large ? "onednn" : "dot";
    return BL_OK;
}

/* --- convolutions ----------------------------------------------------------------------------- */

/* Operands in the order image, filter, result; `sum` is the one that is computed. */
enum { IMAGE, FILTER, RESULT };

typedef struct convolution {
    int sum;
    dnnl_primitive_t primitive, reorder; /* reorder: NULL where the filter is wanted as it is */
    dnnl_memory_t memory[3], own_filter; /* own_filter: in our layout */
    void *wanted;                        /* the filter's memory in oneDNN's layout */
} convolution;

static void free_convolution(void *data)
{
    convolution *c = data;
    if (!c)
        return;
    for (int i = 0; i < 3; i++)
        if (c->memory[i])
            dnnl_memory_destroy(c->memory[i]);
    if (c->own_filter)
        dnnl_memory_destroy(c->own_filter);
    if (c->primitive)
        dnnl_primitive_destroy(c->primitive);
    if (c->reorder)
        dnnl_primitive_destroy(c->reorder);
    bl_release(c->wanted);
    bl_release(c);
}

static bl_status reorder_filter(cpu_plan *plan, const convolution *c)
{
    bool out = c->sum == FILTER;
    return execute(
        plan, c->reorder, 2,
        (const dnnl_exec_arg_t[]){{DNNL_ARG_FROM, out ? c->memory[FILTER] : c->own_filter},
                                  {DNNL_ARG_TO, out ? c->own_filter : c->memory[FILTER]}});
}

static bl_status run_convolution(cpu_plan *plan, cpu_kernel *kernel)
{
    convolution *c = kernel->data;
    const bl_node *node = cpu_node(plan, kernel->node);
    void *place[3];
    for (int i = 0, operand = 0; i < 3; i++)
        place[i] = i == c->sum ? plan->address[kernel->node] : cpu_operand(plan, node, operand++);
    if (c->sum == IMAGE) { /* conv_dx has its operands the other way round */
        void *first = place[FILTER];
        place[FILTER] = place[RESULT];
        place[RESULT] = first;
    }
    for (int i = 0; i < 3; i++)
        dnnl_memory_set_data_handle(i == FILTER && c->reorder ? c->own_filter : c->memory[i],
                                    place[i]);
    if (c->reorder && c->sum != FILTER)
        BL_TRY(reorder_filter(plan, c));
    static const int name[3][3] = {
        [IMAGE] = {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST},
        [FILTER] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST},
        [RESULT] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
    };
    BL_TRY(execute(plan, c->primitive, 3,
                   (const dnnl_exec_arg_t[]){{name[c->sum][IMAGE], c->memory[IMAGE]},
                                             {name[c->sum][FILTER], c->memory[FILTER]},
                                             {name[c->sum][RESULT], c->memory[RESULT]}}));
    return c->reorder && c->sum == FILTER ? reorder_filter(plan, c) : BL_OK;
}

typedef struct conv_shape {
    bl_shape x, w, z;
    const bl_conv_options *options;
} conv_shape;

static void describe_image(dnnl_memory_desc_t *d, bl_shape s)
{
    const dnnl_dims_t dim = {s.dim[0], s.dim[3], s.dim[1], s.dim[2]};
    (void)dnnl_memory_desc_init_by_tag(d, 4, dim, dnnl_f32, dnnl_nhwc);
}

/* w[h,w,I/groups,O], as oneDNN counts: [groups,] O/groups, I/groups, h, w. */
static void describe_filter(dnnl_memory_desc_t *d, const conv_shape *s, bool any)
{
    int64_t h = s->w.dim[0], w = s->w.dim[1], in = s->w.dim[2], out = s->w.dim[3];
    int64_t groups = s->options->groups, each = out / groups;
    const dnnl_dims_t dim = {groups, each, in, h, w};
    const dnnl_dims_t stride = {each, 1, out, w * in * out, in * out};
    int skip = groups == 1;
    if (any)
        (void)dnnl_memory_desc_init_by_tag(d, 5 - skip, dim + skip, dnnl_f32, dnnl_format_tag_any);
    else
        (void)dnnl_memory_desc_init_by_strides(d, 5 - skip, dim + skip, dnnl_f32, stride + skip);
}

static dnnl_status_t describe_operation(dnnl_convolution_desc_t *operation, int sum,
                                        const dnnl_memory_desc_t *d, const bl_conv_options *o)
{
    const dnnl_dims_t stride = {o->stride[0], o->stride[1]}, low = {o->low[0], o->low[1]},
                      high = {o->high[0], o->high[1]},
                      dilation = {o->dilation[0] - 1, o->dilation[1] - 1};
    switch (sum) {
    case IMAGE:
        return dnnl_dilated_convolution_backward_data_desc_init(operation, dnnl_convolution_direct,
                                                                &d[IMAGE], &d[FILTER], &d[RESULT],
                                                                stride, dilation, low, high);
    case FILTER:
        return dnnl_dilated_convolution_backward_weights_desc_init(
            operation, dnnl_convolution_direct, &d[IMAGE], &d[FILTER], NULL, &d[RESULT], stride,
            dilation, low, high);
    default:
        return dnnl_dilated_convolution_forward_desc_init(
            operation, dnnl_forward_training, dnnl_convolution_direct, &d[IMAGE], &d[FILTER], NULL,
            &d[RESULT], stride, dilation, low, high);
    }
}

/* The primitive, told what the forward pass would be where it needs that. */
static dnnl_primitive_desc_t describe_convolution(engine *e, int sum, const dnnl_memory_desc_t *d,
                                                  const bl_conv_options *options)
{
    dnnl_convolution_desc_t operation, forward;
    dnnl_primitive_desc_t hint = NULL, description = NULL;
    if (describe_operation(&forward, RESULT, d, options) != dnnl_success ||
        dnnl_primitive_desc_create(&hint, &forward, NULL, e->engine, NULL) != dnnl_success)
        return NULL;
    if (sum == RESULT)
        return hint;
    if (describe_operation(&operation, sum, d, options) != dnnl_success ||
        dnnl_primitive_desc_create(&description, &operation, NULL, e->engine, hint) != dnnl_success)
        description = NULL;
    dnnl_primitive_desc_destroy(hint);
    return description;
}

static bool make_reorder(engine *e, convolution *c, const dnnl_memory_desc_t *own,
                         const dnnl_memory_desc_t *wanted)
{
    dnnl_primitive_desc_t description;
    bool out = c->sum == FILTER;
    if (dnnl_reorder_primitive_desc_create(&description, out ? wanted : own, e->engine,
                                           out ? own : wanted, e->engine, NULL) != dnnl_success)
        return false;
    bool made = dnnl_primitive_create(&c->reorder, description) == dnnl_success;
    dnnl_primitive_desc_destroy(description);
    c->wanted = bl_alloc_aligned(dnnl_memory_desc_get_size(wanted));
    return made && c->wanted &&
           dnnl_memory_create(&c->own_filter, own, e->engine, DNNL_MEMORY_NONE) == dnnl_success;
}

static bool make_convolution(engine *e, convolution *c, const conv_shape *s)
{
    dnnl_memory_desc_t d[3], own;
    describe_image(&d[IMAGE], s->x);
    describe_filter(&d[FILTER], s, true);
    describe_filter(&own, s, false);
    describe_image(&d[RESULT], s->z);
    dnnl_primitive_desc_t description = describe_convolution(e, c->sum, d, s->options);
    if (!description)
        return false;
    d[FILTER] = *dnnl_primitive_desc_query_md(
        description, c->sum == FILTER ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
    bool made = dnnl_primitive_create(&c->primitive, description) == dnnl_success;
    dnnl_primitive_desc_destroy(description);
    if (made && !dnnl_memory_desc_equal(&d[FILTER], &own))
        made = make_reorder(e, c, &own, &d[FILTER]);
    for (int i = 0; i < 3 && made; i++)
        made = dnnl_memory_create(&c->memory[i], &d[i], e->engine,
                                  i == FILTER && c->reorder ? c->wanted : DNNL_MEMORY_NONE) ==
               dnnl_success;
    return made;
}

bl_status cpu_prepare_convolution(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    bl_type x = cpu_node(plan, node->operand[0])->type, y = cpu_node(plan, node->operand[1])->type;
    conv_shape s = {.options = &node->attr->conv};
    int sum = node->op == BL_OP_conv ? RESULT : node->op == BL_OP_conv_dx ? IMAGE : FILTER;
    s.x = sum == IMAGE ? node->type.shape : x.shape;
    s.w = sum == FILTER ? node->type.shape : y.shape;
    s.z = sum == RESULT ? node->type.shape : sum == IMAGE ? x.shape : y.shape;
    if (node->type.dtype != BL_F32 || bl_type_count(x) == 0 || bl_type_count(y) == 0)
        return BL_UNSUPPORTED;
    engine *e = engine_of(plan);
    convolution *c = bl_alloc(sizeof *c);
    if (!c)
        return bl_no_memory(sizeof *c);
    c->sum = sum;
    if (!e || !make_convolution(e, c, &s)) {
        free_convolution(c);
        return BL_UNSUPPORTED;
    }
    kernel->data = c;
    kernel->free = free_convolution;
    kernel->run = run_convolution;
    kernel->how = "onednn";
    return BL_OK;
}
