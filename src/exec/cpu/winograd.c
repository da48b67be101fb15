/* Convolutions with 3 x 3 filters and stride 1 by minimal filtering: which, and how they are shared
 * out. The arithmetic is in winograd.inc.
 *
 * The gradient by the image is such a convolution itself, of the cotangent with the filter turned
 * round. The gradient by the filter is summed over a task's images in the 36 products, brought
 * back, and added up over the tasks in order, whose number depends on shapes only: so results do
 * not depend on the number of threads.
 *
 * What is not finite spreads: an infinite pixel makes NaN, not infinity, of the results near it, up
 * to 16 of them beyond those that it is a part of. */
#include <string.h>

#include "exec/cpu/cpu.h"

enum {
    LANES = 16,               /* channels come in multiples of them */
    TILES = 128,              /* at most, together */
    SECOND_CACHE = 512 << 10, /* bytes for the products of the tiles that are done together */
    FEWEST = 1 << 20          /* multiply-adds below which transforms do not pay */
};

typedef struct winograd {
    bl_winograd all; /* without addresses; of all images */
    bl_op op;
    int64_t tasks, stretch; /* images of a task */
    int64_t filters;        /* elements of scratch memory before the threads' */
    int64_t each;           /* elements of a thread */
} winograd;

typedef struct winograd_run {
    const cpu_plan *plan;
    const winograd *winograd;
    float *image, *result;
    float *filters; /* [36,in,out] and, of conv_dx, the filter turned round, [3,3,in,out]; or of a
                       gradient every task's [3,3,in,out] */
} winograd_run;

static int64_t pixel(const bl_winograd *c)
{
    return c->in > c->out ? c->in : c->out;
}

static void run_task(void *context, int64_t number, int thread)
{
    const winograd_run *run = context;
    const winograd *w = run->winograd;
    const bl_loops *loops = run->plan->loops;
    bl_winograd c = w->all;
    int64_t first = number * w->stretch, left = c.images - first, filter = c.in * c.out;
    c.images = left < w->stretch ? left : w->stretch;
    c.image = run->image + first * c.height * c.width * c.in;
    c.result = run->result + first * c.result_height * c.result_width * c.out;
    c.scratch = run->filters + w->filters + thread * w->each;
    c.zeros = c.scratch + bl_winograd_products(c.tiles, c.in, c.out);
    c.unwanted = c.zeros + pixel(&c);
    memset(c.zeros, 0, (size_t)pixel(&c) * sizeof(float));
    if (w->op != BL_OP_conv_dw) {
        c.filter = run->filters;
        loops->winograd(&c);
        return;
    }
    c.filter = c.unwanted + pixel(&c);
    loops->winograd_gradient(&c);
    loops->winograd_filter_gradient(c.filter, filter, run->filters + 9 * filter * number);
}

/* w[h,w,in,out] of conv, as its adjoint applies it: [2-h,2-w,out,in]. */
static void turn(const float *w, int64_t in, int64_t out, float *turned)
{
    for (int64_t p = 8; p >= 0; p--, w += in * out)
        for (int64_t i = 0; i < in; i++)
            for (int64_t o = 0; o < out; o++)
                turned[(p * out + o) * in + i] = w[i * out + o];
}

static void add_up(const winograd_run *run, float *sum)
{
    const winograd *w = run->winograd;
    bl_loop *add = run->plan->loops->binary[BL_OP_add][BL_F32][BL_VV];
    int64_t count = 9 * w->all.in * w->all.out;
    memcpy(sum, run->filters, (size_t)count * sizeof *sum);
    for (int64_t t = 1; t < w->tasks; t++)
        add(sum, sum, run->filters + t * count, NULL, count);
}

static bl_status run_winograd(cpu_plan *plan, cpu_kernel *kernel)
{
    winograd *w = kernel->data;
    const bl_node *node = cpu_node(plan, kernel->node);
    int64_t in = w->all.in, out = w->all.out;
    float *first = cpu_operand(plan, node, 0), *second = cpu_operand(plan, node, 1);
    float *z = plan->address[kernel->node];
    winograd_run run = {plan, w, first, w->op == BL_OP_conv_dw ? second : z,
                        (float *)(void *)plan->scratch};
    if (w->op == BL_OP_conv_dx) {
        float *turned = run.filters + 36 * in * out;
        turn(second, out, in, turned);
        second = turned;
    }
    if (w->op != BL_OP_conv_dw)
        plan->loops->winograd_filter(second, in * out, run.filters);
    cpu_pool_run(plan->pool, run_task, &run, w->tasks);
    if (w->op == BL_OP_conv_dw)
        add_up(&run, z);
    return BL_OK;
}

static bool is_one(const int64_t of[2])
{
    return of[0] == 1 && of[1] == 1;
}

/* Whether tiles fit the results, and there is enough to do. */
static bool pays(const bl_winograd *c)
{
    int64_t results = c->result_height * c->result_width, tiled = 16 * c->down * c->across;
    return 2 * tiled <= 3 * results && c->images * results * 9 * c->in * c->out >= FEWEST;
}

bool cpu_winograd_suits(const cpu_convolution *s, bl_op op, bl_winograd *c)
{
    const bl_conv_options *o = s->options;
    const int64_t *x = s->x.dim, *z = s->z.dim;
    if (s->w.dim[0] != 3 || s->w.dim[1] != 3 || !is_one(o->stride) || !is_one(o->dilation) ||
        o->groups != 1 || x[3] % LANES || z[3] % LANES)
        return false;
    bool back = op == BL_OP_conv_dx;
    const int64_t *from = back ? z : x, *to = back ? x : z;
    *c = (bl_winograd){.images = x[0],
                       .height = from[1],
                       .width = from[2],
                       .in = from[3],
                       .result_height = to[1],
                       .result_width = to[2],
                       .out = to[3],
                       .top = back ? 2 - o->low[0] : o->low[0],
                       .left = back ? 2 - o->low[1] : o->low[1],
                       .down = (to[1] + 3) / 4,
                       .across = (to[2] + 3) / 4};
    c->tiles = SECOND_CACHE / (36 * (c->in + c->out) * (int64_t)sizeof(float)) / LANES * LANES;
    c->tiles = c->tiles < 2 * LANES ? 2 * LANES : c->tiles > TILES ? TILES : c->tiles;
    return pays(c);
}

bl_status cpu_prepare_winograd(cpu_plan *plan, cpu_kernel *kernel, bl_op op, const bl_winograd *c)
{
    winograd *w = bl_alloc(sizeof *w);
    if (!w)
        return bl_no_memory(sizeof *w);
    *w = (winograd){.all = *c, .op = op};
    int64_t filter = c->in * c->out;
    double products = (double)(c->images * c->result_height * c->result_width) * 9 * (double)filter;
    w->tasks = cpu_share_images(c->images, products, &w->stretch);
    w->filters = (op == BL_OP_conv ? 36 : op == BL_OP_conv_dx ? 45 : 9 * w->tasks) * filter;
    w->each = bl_winograd_products(c->tiles, c->in, c->out) + 2 * pixel(c) +
              (op == BL_OP_conv_dw ? 36 * filter : 0);
    cpu_reserve_scratch(plan, (size_t)(w->filters + plan->threads * w->each) * sizeof(float));
    kernel->data = w;
    kernel->free = bl_release;
    kernel->run = run_winograd;
    kernel->how = "winograd";
    return BL_OK;
}
