/* Limits of the machine: every allocation of a program's life may fail, and graphs of 50 000 nodes
 * are built, differentiated and compiled in two seconds on a stack of 256 KiB, so nothing recurses.
 */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "support.h"

#define S(...) BL_SHAPE(__VA_ARGS__)

/* --- failing allocations ------------------------------------------------------------------------
 */

enum { INPUTS = 4, OUTPUTS = 6 };

static void add_and_keep(BL_UNUSED bl_graph *g, const bl_tensor *carry, const bl_tensor *x,
                         bl_tensor *carry_next, bl_tensor *y, void *context)
{
    carry_next[0] = bl_tanh(bl_add(carry[0], bl_mul(x[0], *(const bl_tensor *)context)));
    y[0] = bl_exp(carry[0]);
}

static bl_tensor recurrence(bl_graph *g, bl_tensor rows)
{
    bl_tensor start = bl_full(g, BL_F32, S(6), 0.5), scale = bl_sum(rows, 0), last, y;
    bl_scan(g, 3, add_and_keep, &scale, &start, 1, &rows, 1, &last, &y, 1);
    return bl_add(bl_sum(last), bl_sum(y));
}

/* Some of every kind of kernel, first and second derivatives. */
static void build(bl_graph *g, bl_tensor *x, bl_tensor *y)
{
    bl_scope(g, "life");
    x[0] = bl_input(g, "image", BL_F32, S(2, 6, 6, 2));
    x[1] = bl_input(g, "filter", BL_F32, S(3, 3, 2, 4));
    x[2] = bl_input(g, "matrix", BL_F32, S(3, 6));
    x[3] = bl_input(g, "index", BL_I32, S(4));
    bl_tensor z = bl_relu(bl_conv(x[0], x[1], (bl_conv_options){.low = {1, 1}, .high = {1, 1}}));
    bl_tensor rows = bl_reshape(bl_max_pool2(z), S(-1, 6)), dx[2], hv[2];
    bl_tensor product = bl_softmax(bl_dot(rows, x[2], false, true), -1);
    bl_tensor taken =
        bl_add_at(bl_put(x[2], bl_slice_axis(x[3], 0, 0, 1), bl_slice_axis(x[2], 0, 1, 2)), x[3],
                  bl_take(x[2], x[3]));
    bl_tensor sorted = bl_cumsum(bl_sort(bl_concat((bl_tensor[]){taken, x[2]}, 2, 0), 0, true), 1);
    bl_tensor noise = bl_normal(bl_cast(bl_slice_axis(x[3], 0, 0, 2), BL_U32), S(6));
    y[0] = bl_add(bl_sum(bl_mul(product, product)), recurrence(g, bl_mul(x[2], noise)));
    y[0] = bl_add(y[0], bl_mean(bl_square(sorted)));
    bl_grad(y[0], x, 2, dx);
    bl_hvp(y[0], x, dx, 2, hv);
    y[1] = dx[0], y[2] = dx[1], y[3] = hv[1];
    y[4] = bl_cholesky(bl_add(bl_dot(x[2], x[2], false, true),
                              bl_mul(9, bl_onehot(bl_iota(g, BL_I32, S(3), 0), 3, BL_F32))));
    y[5] = bl_argmax(product, 1);
    bl_scope_end(g);
}

static bl_status run_life(const bl_device *device, bl_array *in, bl_array *out, const bl_tensor *x,
                          const bl_tensor *y)
{
    bl_program *p = NULL;
    bl_status status =
        bl_compile(device, x, INPUTS, y, OUTPUTS, &(bl_compile_options){.threads = 2}, &p);
    for (int i = 0; i < INPUTS && status == BL_OK; i++)
        status = bl_array_new(bl_type_of(x[i]).dtype, bl_type_of(x[i]).shape, &in[i]);
    for (int o = 0; o < OUTPUTS && status == BL_OK; o++)
        status = bl_array_new(bl_type_of(y[o]).dtype, bl_type_of(y[o]).shape, &out[o]);
    if (status == BL_OK) {
        for (int i = 0; i < INPUTS; i++)
            for (int64_t at = 0; at < bl_array_count(&in[i]); at++)
                bl_array_set(&in[i], at,
                             i == 3 ? (double)(at % 3) : (double)(at * 7 % 5) / 4 - 0.4);
        status = bl_run(p, in, out);
    }
    bl_program_free(p);
    return status;
}

static bl_status live(const bl_device *device)
{
    bl_graph *g = bl_graph_new();
    bl_tensor x[INPUTS], y[OUTPUTS];
    bl_array in[INPUTS] = {{{0}, NULL}}, out[OUTPUTS] = {{{0}, NULL}};
    if (!g)
        return bl_no_memory(1); /* a graph says nothing where there is none */
    build(g, x, y);
    bl_status status = bl_graph_status(g);
    if (status == BL_OK)
        status = run_life(device, in, out, x, y);
    for (int i = 0; i < INPUTS; i++)
        bl_array_free(&in[i]);
    for (int o = 0; o < OUTPUTS; o++)
        bl_array_free(&out[o]);
    bl_graph_free(g);
    return status;
}

static void fail_each(const bl_device *device)
{
    bool to_come = false;
    int64_t n = 1;
    for (; !to_come; n++) {
        bl_fail_allocation(n);
        bl_status status = live(device);
        to_come = failure_to_come();
        bl_fail_allocation(0);
        bool right = to_come ? status == BL_OK
                             : status == BL_NO_MEMORY && strstr(bl_error(), "memory") != NULL;
        if (!right || n > 20000)
            fail_msg("allocation %lld: status %d: %s", (long long)n, (int)status, bl_error());
    }
    print_message("%lld allocations failed in turn\n", (long long)n - 2);
    assert_true(n > 150);
}

static void any_allocation_of_a_life_on_the_reference_may_fail(BL_UNUSED void **state)
{
    fail_each(bl_device_reference());
}
static void any_allocation_of_a_life_on_the_cpu_may_fail(BL_UNUSED void **state)
{
    fail_each(bl_device_cpu());
}

/* --- large graphs on a small stack --------------------------------------------------------------
 */

enum { MANY = 50000, STACK = 256 * 1024 };

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Slow tools such as valgrind set BL_PATIENCE to the factor that they cost. */
static double patience(void)
{
    const char *factor = getenv("BL_PATIENCE");
    return factor ? atof(factor) : 1;
}

static bl_tensor deep(bl_tensor x)
{
    bl_tensor y = x;
    for (int i = 0; i < MANY / 2; i++)
        y = bl_tanh(bl_add(y, x));
    return bl_sum(y);
}

static bl_tensor deep_gradient(bl_tensor x)
{
    bl_tensor y = x;
    for (int i = 0; i < MANY / 8; i++)
        y = bl_mul(bl_sin(y), x);
    return gradient(bl_sum(y), x);
}

/* Reductions, so that no kernel can hold it all. */
static bl_tensor many_kernels(bl_tensor x)
{
    bl_tensor y = x;
    for (int i = 0; i < MANY / 4; i++)
        y = bl_add(bl_exp(bl_sub(y, bl_reduce_max_keep(y, 1))), x);
    return y;
}

static bl_tensor many_products(bl_tensor x)
{
    bl_tensor y = x;
    for (int i = 0; i < MANY / 4; i++)
        y = bl_mul(0.5, bl_dot(bl_transpose(bl_reverse(y, 1)), x, false, true));
    return y;
}

static bl_tensor wide(bl_tensor x)
{
    bl_tensor *part = bl_alloc(MANY * sizeof *part), y = x;
    for (int i = 0; part && i < MANY; i++)
        part[i] = bl_mul(x, i % 1000 + 2);
    if (part)
        y = bl_concat(part, MANY, 0);
    bl_release(part);
    return y;
}

/* All are alive until the end, in pairs that add up. */
static bl_tensor tree(bl_tensor x)
{
    bl_tensor *part = bl_alloc(MANY / 2 * sizeof *part), y = x;
    for (int i = 0; part && i < MANY / 2; i++)
        part[i] = bl_cumsum(bl_mul(x, i % 1000 + 2), 1);
    for (int n = MANY / 2; part && n > 1; n -= n / 2)
        for (int i = 0; i < n / 2; i++)
            part[i] = bl_add(part[i], part[n - 1 - i]);
    if (part)
        y = part[0];
    bl_release(part);
    return y;
}

typedef struct large {
    const bl_device *device;
    bl_tensor (*build)(bl_tensor x);
    char failure[200];
    double seconds;
    int64_t nodes;
} large;

/* On its own thread, so not with the functions of cmocka. */
static void *compile_large(void *context)
{
    large *l = context;
    bl_graph *g = bl_graph_new();
    bl_tensor x = bl_input(g, "x", BL_F32, S(2, 2)), y = l->build(x);
    bl_program *p = NULL;
    l->nodes = bl_graph_size(g);
    double start = seconds();
    if (bl_compile(l->device, &x, 1, &y, 1, NULL, &p) != BL_OK)
        snprintf(l->failure, sizeof l->failure, "%s", bl_error());
    l->seconds = seconds() - start;
    bl_program_free(p);
    bl_graph_free(g);
    return NULL;
}

static void compile_on_a_small_stack(const char *name, bl_tensor (*build_large)(bl_tensor x))
{
    const bl_device *devices[] = {bl_device_cpu(), bl_device_reference()};
    for (int d = 0; d < 2; d++) {
        large l = {.device = devices[d], .build = build_large};
        pthread_attr_t small;
        pthread_t thread;
        assert_int_equal(pthread_attr_init(&small), 0);
        assert_int_equal(pthread_attr_setstacksize(&small, STACK), 0);
        assert_int_equal(pthread_create(&thread, &small, compile_large, &l), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        pthread_attr_destroy(&small);
        print_message("%-14s %6lld nodes, %s: %.2f s\n", name, (long long)l.nodes,
                      d ? "reference" : "cpu", l.seconds);
        if (l.failure[0] || l.seconds > 2 * patience() || l.nodes < MANY * 8 / 10)
            fail_msg("%s: %s, %.2f s", name, l.failure, l.seconds);
    }
}

static void fifty_thousand_nodes_compile_on_a_small_stack(BL_UNUSED void **state)
{
    compile_on_a_small_stack("deep", deep);
    compile_on_a_small_stack("deep gradient", deep_gradient);
    compile_on_a_small_stack("many kernels", many_kernels);
    compile_on_a_small_stack("many products", many_products);
    compile_on_a_small_stack("wide", wide);
    compile_on_a_small_stack("tree", tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_allocation_of_a_life_on_the_reference_may_fail),
        cmocka_unit_test(any_allocation_of_a_life_on_the_cpu_may_fail),
        cmocka_unit_test(fifty_thousand_nodes_compile_on_a_small_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
