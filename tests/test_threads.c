/* Two threads that build, differentiate, compile and run different graphs at once. Under
 * ThreadSanitizer (`make tsan`) this shows that they share nothing; without it, that each gets its
 * own results and its own error messages. */
#include <pthread.h>
#include <sched.h>

#include "random_graph.h"
#include "support.h"

enum { THREADS = 2, GRAPHS = 60 };

typedef struct work {
    uint64_t first_seed;
    char failure[300];
} work;

/* The results of y, into out. */
static bl_status run_on(const bl_device *device, const random_graph *r, const bl_tensor *y,
                        int outputs, int threads, bl_array *out)
{
    bl_program *p = NULL;
    bl_compile_options options = {.threads = threads};
    BL_TRY(bl_compile(device, r->input, r->inputs, y, outputs, &options, &p));
    bl_status status = BL_OK;
    for (int o = 0; o < outputs && status == BL_OK; o++)
        status = bl_array_new(bl_type_of(y[o]).dtype, bl_type_of(y[o]).shape, &out[o]);
    if (status == BL_OK)
        status = bl_run(p, r->value, out);
    bl_program_free(p);
    return status;
}

static bool same(const bl_array *a, const bl_array *b)
{
    for (int64_t i = 0; i < bl_array_count(a); i++)
        if (!close_to(bl_array_get(a, i), bl_array_get(b, i), 1e-6))
            return false;
    return true;
}

/* One graph: outputs and the gradient of one of them, on both executors. */
static bl_status one_graph(random_graph *r, bool *agree)
{
    bl_tensor y[RANDOM_OUTPUTS + 1];
    bl_array a[RANDOM_OUTPUTS + 1] = {{{0}, NULL}}, b[RANDOM_OUTPUTS + 1] = {{{0}, NULL}};
    memcpy(y, r->output, sizeof r->output);
    int outputs = r->outputs;
    if (r->inputs > 0 && bl_type_of(r->input[0]).dtype == BL_F64 &&
        bl_type_of(y[0]).dtype == BL_F64)
        bl_grad(bl_sum(y[0]), &r->input[0], 1, &y[outputs++]);
    BL_TRY(bl_graph_status(r->graph));
    bl_status status = run_on(bl_device_cpu(), r, y, outputs, 2, a);
    if (status == BL_OK)
        status = run_on(bl_device_reference(), r, y, outputs, 1, b);
    for (int o = 0; o < outputs; o++) {
        *agree &= status != BL_OK || same(&a[o], &b[o]);
        bl_array_free(&a[o]);
        bl_array_free(&b[o]);
    }
    return status;
}

/* A refusal, whose message the other thread must not see or change. */
static bool refuses(uint64_t seed)
{
    char expected[40];
    bl_graph *g = bl_graph_new();
    bl_tensor x = bl_input(g, "x", BL_F32, BL_SHAPE(2, (int64_t)seed));
    bl_tensor bad = bl_reshape(x, BL_SHAPE(7));
    snprintf(expected, sizeof expected, "has %llu elements", (unsigned long long)(2 * seed));
    bool right = bl_is_poison(bad) && bl_graph_status(g) == BL_INVALID;
    sched_yield();
    right &= strstr(bl_error(), expected) != NULL;
    bl_graph_free(g);
    return right;
}

static void *live(void *context)
{
    work *w = context;
    for (uint64_t seed = w->first_seed; seed < w->first_seed + GRAPHS && !w->failure[0]; seed++) {
        random_graph r = random_smooth_graph_new(seed, 40);
        bool agree = true;
        bl_status status = r.graph ? one_graph(&r, &agree) : BL_NO_MEMORY;
        if (status != BL_OK || !agree || !refuses(seed))
            snprintf(w->failure, sizeof w->failure, "seed %llu: %s", (unsigned long long)seed,
                     status != BL_OK ? bl_error() : "results or messages are not its own");
        random_graph_free(&r);
    }
    return NULL;
}

static void two_threads_build_differentiate_compile_and_run(BL_UNUSED void **state)
{
    work w[THREADS] = {{.first_seed = 9000}, {.first_seed = 9500}};
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, live, &w[i]), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    for (int i = 0; i < THREADS; i++)
        if (w[i].failure[0])
            fail_msg("%s", w[i].failure);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_threads_build_differentiate_compile_and_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
