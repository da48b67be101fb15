/* Convolutions: oneDNN's.
 *
 * A large one is cut into tasks whose number depends only on its shape, each a oneDNN primitive
 * that runs on one thread: so results do not depend on the number of threads, and the threads are
 * ours (pool.h). Primitives are made when the program is compiled and hold no data: every run hands
 * them the addresses. Images are read as they are (NHWC); filters are brought to the layout that
 * oneDNN wants first, which is cheap, as they are small. To add a contraction: describe its
 * operands in a cpu_prepare, make the tasks, fill in the arguments. */
#include <dnnl.h>
#include <string.h>

#include "exec/cpu/cpu.h"

enum {
    TASK_PRODUCT = 8 << 20, /* multiply-adds of a task */
    TASKS = 16
};

void cpu_free_engine(cpu_plan *plan)
{
    if (plan->engine)
        dnnl_engine_destroy(plan->engine);
    plan->engine = NULL;
}

static dnnl_engine_t engine_of(cpu_plan *plan)
{
    dnnl_engine_t engine = NULL;
    if (!plan->engine && dnnl_engine_create(&engine, dnnl_cpu, 0) == dnnl_success)
        plan->engine = engine;
    return plan->engine;
}

/* --- tasks ------------------------------------------------------------------------------------ */

/* A primitive with its own stream and scratch memory, so that any thread may run it. */
typedef struct task {
    dnnl_primitive_t primitive;
    dnnl_stream_t stream;
    dnnl_memory_t memory[3], scratchpad;
    void *scratch;
    bool starved; /* could not be made for want of memory: not a reason to run something slower */
} task;

static void free_task(task *t)
{
    for (int i = 0; i < 3; i++)
        if (t->memory[i])
            dnnl_memory_destroy(t->memory[i]);
    if (t->scratchpad)
        dnnl_memory_destroy(t->scratchpad);
    if (t->primitive)
        dnnl_primitive_destroy(t->primitive);
    if (t->stream)
        dnnl_stream_destroy(t->stream);
    bl_release(t->scratch);
}

static bool any_starved(const task *t)
{
    for (int i = 0; i < TASKS; i++)
        if (t[i].starved)
            return true;
    return false;
}

static bool make_scratchpad(dnnl_engine_t engine, const_dnnl_primitive_desc_t description, task *t)
{
    const dnnl_memory_desc_t *d =
        dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
    size_t bytes = d ? dnnl_memory_desc_get_size(d) : 0;
    if (bytes == 0)
        return true;
    t->scratch = bl_alloc_unset(bytes);
    t->starved = !t->scratch;
    return t->scratch && dnnl_memory_create(&t->scratchpad, d, engine, t->scratch) == dnnl_success;
}

/* Takes the description over. */
static bool make_task(dnnl_engine_t engine, dnnl_primitive_desc_t description,
                      const dnnl_memory_desc_t *d, task *t)
{
    bool made = description && dnnl_primitive_create(&t->primitive, description) == dnnl_success &&
                dnnl_stream_create(&t->stream, engine, dnnl_stream_default_flags) == dnnl_success &&
                make_scratchpad(engine, description, t);
    if (description)
        dnnl_primitive_desc_destroy(description);
    for (int i = 0; i < 3 && made; i++)
        made = dnnl_memory_create(&t->memory[i], &d[i], engine, DNNL_MEMORY_NONE) == dnnl_success;
    return made;
}

static dnnl_primitive_desc_t describe(dnnl_engine_t engine, const void *operation,
                                      const_dnnl_primitive_desc_t hint)
{
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t description = NULL;
    if (dnnl_primitive_attr_create(&attributes) != dnnl_success)
        return NULL;
    if (dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user) !=
            dnnl_success ||
        dnnl_primitive_desc_create(&description, operation, attributes, engine, hint) !=
            dnnl_success)
        description = NULL;
    dnnl_primitive_attr_destroy(attributes);
    return description;
}

/* name: oneDNN's of the three memories. */
static bool run_task(const task *t, const int name[3], void *const place[3])
{
    dnnl_exec_arg_t argument[4];
    for (int i = 0; i < 3; i++) {
        dnnl_memory_set_data_handle(t->memory[i], place[i]);
        argument[i] = (dnnl_exec_arg_t){name[i], t->memory[i]};
    }
    argument[3] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, t->scratchpad};
    return dnnl_primitive_execute(t->primitive, t->stream, t->scratchpad ? 4 : 3, argument) ==
           dnnl_success;
}

static bl_status task_failed(void)
{
    return bl_fail(BL_UNSUPPORTED, "cpu: oneDNN could not run a primitive");
}

int cpu_share_images(int64_t images, double products, int64_t *stretch)
{
    double wanted = products / TASK_PRODUCT;
    int64_t parts = wanted < 1 ? 1 : wanted > TASKS ? TASKS : (int64_t)wanted;
    *stretch = (images + parts - 1) / parts;
    return (int)((images + *stretch - 1) / *stretch);
}

/* --- convolutions ----------------------------------------------------------------------------- */

/* Operands in the order image, filter, result; `sum` is the one that is computed. */
enum { IMAGE, FILTER, RESULT };

typedef struct convolution {
    int sum, tasks;
    int64_t stretch, images[2]; /* examples of a task; elements of an example: image, result */
    task task[TASKS];
    dnnl_primitive_t reorder; /* NULL where the filter is wanted as it is */
    dnnl_stream_t stream;
    dnnl_memory_t own_filter, filter; /* in our layout, in oneDNN's */
    size_t filter_bytes;              /* in oneDNN's layout */
    char *wanted; /* filters in that layout: one, or where it is the sum, one of each task */
} convolution;

static void free_convolution(void *data)
{
    convolution *c = data;
    if (!c)
        return;
    for (int t = 0; t < c->tasks; t++)
        free_task(&c->task[t]);
    if (c->own_filter)
        dnnl_memory_destroy(c->own_filter);
    if (c->filter)
        dnnl_memory_destroy(c->filter);
    if (c->reorder)
        dnnl_primitive_destroy(c->reorder);
    if (c->stream)
        dnnl_stream_destroy(c->stream);
    bl_release(c->wanted);
    bl_release(c);
}

static bl_status reorder_filter(const convolution *c, void *own)
{
    bool out = c->sum == FILTER;
    dnnl_memory_set_data_handle(c->own_filter, own);
    const dnnl_exec_arg_t argument[] = {{DNNL_ARG_FROM, out ? c->filter : c->own_filter},
                                        {DNNL_ARG_TO, out ? c->own_filter : c->filter}};
    return dnnl_primitive_execute(c->reorder, c->stream, 2, argument) == dnnl_success
               ? BL_OK
               : task_failed();
}

typedef struct convolution_run {
    const convolution *convolution;
    char *place[3];
    bool failed[TASKS];
} convolution_run;

static void run_convolution_task(void *context, int64_t number, int thread)
{
    static const int name[3][3] = {
        [IMAGE] = {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST},
        [FILTER] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST},
        [RESULT] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
    };
    convolution_run *run = context;
    const convolution *c = run->convolution;
    size_t example = (size_t)(number * c->stretch) * sizeof(float);
    (void)thread;
    void *const place[3] = {run->place[IMAGE] + example * (size_t)c->images[0],
                            run->place[FILTER] +
                                (c->sum == FILTER ? (size_t)number * c->filter_bytes : 0),
                            run->place[RESULT] + example * (size_t)c->images[1]};
    run->failed[number] = !run_task(&c->task[number], name[c->sum], place);
}

/* The tasks' filters added up in order, and brought to our layout. */
static bl_status finish_filter(const cpu_plan *plan, const convolution *c, void *own)
{
    bl_loop *add = plan->loops->binary[BL_OP_add][BL_F32][BL_VV];
    for (int t = 1; t < c->tasks; t++)
        add(c->wanted, c->wanted, c->wanted + (size_t)t * c->filter_bytes, c->wanted,
            (int64_t)(c->filter_bytes / sizeof(float)));
    if (c->reorder)
        return reorder_filter(c, own);
    memcpy(own, c->wanted, c->filter_bytes);
    return BL_OK;
}

static bl_status run_convolution(cpu_plan *plan, cpu_kernel *kernel)
{
    convolution *c = kernel->data;
    const bl_node *node = cpu_node(plan, kernel->node);
    convolution_run run = {.convolution = c};
    for (int i = 0, operand = 0; i < 3; i++)
        run.place[i] =
            i == c->sum ? plan->address[kernel->node] : cpu_operand(plan, node, operand++);
    if (c->sum == IMAGE) { /* conv_dx has its operands the other way round */
        char *first = run.place[FILTER];
        run.place[FILTER] = run.place[RESULT];
        run.place[RESULT] = first;
    }
    char *own = run.place[FILTER];
    if (c->wanted)
        run.place[FILTER] = c->wanted;
    if (c->sum != FILTER && c->reorder)
        BL_TRY(reorder_filter(c, own));
    cpu_pool_run(plan->pool, run_convolution_task, &run, c->tasks);
    for (int t = 0; t < c->tasks; t++)
        if (run.failed[t])
            return task_failed();
    return c->sum == FILTER ? finish_filter(plan, c, own) : BL_OK;
}

static void describe_image(dnnl_memory_desc_t *d, bl_shape s)
{
    const dnnl_dims_t dim = {s.dim[0], s.dim[3], s.dim[1], s.dim[2]};
    (void)dnnl_memory_desc_init_by_tag(d, 4, dim, dnnl_f32, dnnl_nhwc);
}

/* w[h,w,I/groups,O], as oneDNN counts: [groups,] O/groups, I/groups, h, w. */
static void describe_filter(dnnl_memory_desc_t *d, const cpu_convolution *s, bool any)
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
static dnnl_primitive_desc_t describe_convolution(dnnl_engine_t engine, int sum,
                                                  const dnnl_memory_desc_t *d,
                                                  const bl_conv_options *options)
{
    dnnl_convolution_desc_t operation, forward;
    if (describe_operation(&forward, RESULT, d, options) != dnnl_success)
        return NULL;
    dnnl_primitive_desc_t hint = describe(engine, &forward, NULL), description = NULL;
    if (sum == RESULT || !hint)
        return hint;
    if (describe_operation(&operation, sum, d, options) == dnnl_success)
        description = describe(engine, &operation, hint);
    dnnl_primitive_desc_destroy(hint);
    return description;
}

static bool make_reorder(dnnl_engine_t engine, convolution *c, const dnnl_memory_desc_t *own,
                         const dnnl_memory_desc_t *wanted)
{
    dnnl_primitive_desc_t description;
    bool out = c->sum == FILTER;
    if (dnnl_reorder_primitive_desc_create(&description, out ? wanted : own, engine,
                                           out ? own : wanted, engine, NULL) != dnnl_success)
        return false;
    bool made = dnnl_primitive_create(&c->reorder, description) == dnnl_success;
    dnnl_primitive_desc_destroy(description);
    return made &&
           dnnl_stream_create(&c->stream, engine, dnnl_stream_default_flags) == dnnl_success &&
           dnnl_memory_create(&c->own_filter, own, engine, DNNL_MEMORY_NONE) == dnnl_success &&
           dnnl_memory_create(&c->filter, wanted, engine, c->wanted) == dnnl_success;
}

/* The filter of the tasks after the first has the first's layout. */
static bool make_convolution_task(dnnl_engine_t engine, convolution *c, const cpu_convolution *s,
                                  int number, dnnl_memory_desc_t *filter)
{
    cpu_convolution part = *s;
    int64_t left = s->x.dim[0] - number * c->stretch;
    part.x.dim[0] = part.z.dim[0] = left < c->stretch ? left : c->stretch;
    dnnl_memory_desc_t d[3];
    describe_image(&d[IMAGE], part.x);
    d[FILTER] = *filter;
    describe_image(&d[RESULT], part.z);
    dnnl_primitive_desc_t description = describe_convolution(engine, c->sum, d, s->options);
    if (!description)
        return false;
    *filter = d[FILTER] = *dnnl_primitive_desc_query_md(
        description, c->sum == FILTER ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
    return make_task(engine, description, d, &c->task[number]);
}

static bool make_convolution(dnnl_engine_t engine, convolution *c, const cpu_convolution *s)
{
    dnnl_memory_desc_t filter, own;
    double products =
        (double)bl_shape_count(s->z) * (double)(s->w.dim[0] * s->w.dim[1] * s->w.dim[2]);
    describe_filter(&filter, s, true);
    describe_filter(&own, s, false);
    c->tasks = cpu_share_images(s->x.dim[0], products, &c->stretch);
    c->images[0] = bl_shape_count(s->x) / s->x.dim[0];
    c->images[1] = bl_shape_count(s->z) / s->z.dim[0];
    for (int t = 0; t < c->tasks; t++)
        if (!make_convolution_task(engine, c, s, t, &filter))
            return false;
    c->filter_bytes = (dnnl_memory_desc_get_size(&filter) + 63) & ~(size_t)63;
    bool same = dnnl_memory_desc_equal(&filter, &own);
    if (same)
        c->filter_bytes = dnnl_memory_desc_get_size(&own);
    if (same && c->sum != FILTER)
        return true;
    c->wanted = bl_alloc_aligned(c->filter_bytes * (size_t)(c->sum == FILTER ? c->tasks : 1));
    c->task[0].starved = !c->wanted;
    return c->wanted && (same || make_reorder(engine, c, &own, &filter));
}

/* One difference to the reference executor: where the cotangent is infinite, a filter's gradient
 * may be NaN instead, as some of oneDNN's kernels multiply it by the padding's zeros. */
bl_status cpu_prepare_convolution(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node)
{
    bl_type x = cpu_node(plan, node->operand[0])->type, y = cpu_node(plan, node->operand[1])->type;
    cpu_convolution s = {.options = &node->attr->conv};
    int sum = node->op == BL_OP_conv ? RESULT : node->op == BL_OP_conv_dx ? IMAGE : FILTER;
    s.x = sum == IMAGE ? node->type.shape : x.shape;
    s.w = sum == FILTER ? node->type.shape : y.shape;
    s.z = sum == RESULT ? node->type.shape : sum == IMAGE ? x.shape : y.shape;
    if (node->type.dtype != BL_F32 || bl_type_count(x) == 0 || bl_type_count(y) == 0)
        return BL_UNSUPPORTED;
    bl_winograd tiled;
    if (cpu_winograd_suits(&s, node->op, &tiled))
        return cpu_prepare_winograd(plan, kernel, node->op, &tiled);
    dnnl_engine_t engine = engine_of(plan);
    convolution *c = bl_alloc(sizeof *c);
    if (!c)
        return bl_no_memory(sizeof *c);
    c->sum = sum;
    if (!engine || !make_convolution(engine, c, &s)) {
        bl_status status = any_starved(c->task) ? bl_no_memory(sizeof *c) : BL_UNSUPPORTED;
        free_convolution(c);
        return status;
    }
    kernel->data = c;
    kernel->free = free_convolution;
    kernel->run = run_convolution;
    kernel->how = "onednn";
    return BL_OK;
}
