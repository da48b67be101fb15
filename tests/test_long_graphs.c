/* The long tier: tens of thousands of random graphs of several sizes. The cpu executor with one and
 * with two threads against the reference; gradients, and for one graph in four second gradients,
 * computed by the cpu executor in f64, against central differences of the reference.
 *
 * BL_SEED=n BL_STEPS=m runs one graph; BL_GRAPHS=n so many of each test. A failure names seed and
 * steps. */
#include <stdlib.h>
#include <time.h>

#include "random_graph.h"
#include "support.h"

enum { GRAPHS = 20000, FIRST_SEED = 500000 };
static const int sizes[] = {4, 12, 30, 60, 120, 300}; /* steps of the generator */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --- what every test goes through --------------------------------------------------------------
 */

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static void over_graphs(void (*check)(uint64_t seed, int steps))
{
    double start = seconds();
    uint64_t count = number_from("BL_GRAPHS", GRAPHS), seed = number_from("BL_SEED", 0);
    if (seed) {
        check(seed, (int)number_from("BL_STEPS", 30));
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        check(FIRST_SEED + i, sizes[i % COUNT_OF(sizes)]);
    print_message("%llu graphs from seed %d in %.0f s\n", (unsigned long long)count, FIRST_SEED,
                  seconds() - start);
}

static void expect_built(const random_graph *r, uint64_t seed, int steps, bl_status status)
{
    if (!r->graph || status != BL_OK)
        fail_msg("BL_SEED=%llu BL_STEPS=%d: %s", (unsigned long long)seed, steps, bl_error());
}

static bl_status run_once(const bl_device *device, int threads, const random_graph *r,
                          const bl_tensor *y, int outputs, bl_array *out)
{
    bl_program *p = NULL;
    bl_compile_options options = {.threads = threads};
    bl_status status = bl_compile(device, r->input, r->inputs, y, outputs, &options, &p);
    for (int o = 0; o < outputs && status == BL_OK; o++)
        status = bl_array_new(bl_type_of(y[o]).dtype, bl_type_of(y[o]).shape, &out[o]);
    if (status == BL_OK)
        status = bl_run(p, r->value, out);
    bl_program_free(p);
    return status;
}

/* --- values ------------------------------------------------------------------------------------
 */

static void expect_close(const random_graph *r, uint64_t seed, int steps, int o,
                         const bl_array *got, const bl_array *expected)
{
    double tolerance = random_graph_tolerance(r, o) + 1e-12;
    for (int64_t i = 0; i < bl_array_count(got); i++) {
        double g = bl_array_get(got, i), e = bl_array_get(expected, i);
        if (!(g == e || (isnan(g) && isnan(e)) || fabs(g - e) <= tolerance))
            fail_msg("BL_SEED=%llu BL_STEPS=%d: output %d, element %lld of %s is %.9g, but %.9g "
                     "(+- %.3g) on the reference",
                     (unsigned long long)seed, steps, o, (long long)i, bl_show(got->type), g, e,
                     tolerance);
    }
}

static void compare_executors(uint64_t seed, int steps)
{
    random_graph r = random_graph_new(seed, steps);
    bl_array out[3][RANDOM_OUTPUTS] = {{{{0}, NULL}}};
    expect_built(&r, seed, steps, bl_graph_status(r.graph));
    for (int i = 0; i < 3; i++)
        expect_built(&r, seed, steps,
                     run_once(i ? bl_device_cpu() : bl_device_reference(), i ? i : 1, &r, r.output,
                              r.outputs, out[i]));
    for (int o = 0; o < r.outputs; o++) {
        expect_close(&r, seed, steps, o, &out[1][o], &out[0][o]);
        if (memcmp(out[1][o].data, out[2][o].data, bl_type_bytes(out[1][o].type)) != 0)
            fail_msg("BL_SEED=%llu BL_STEPS=%d: output %d differs between one and two threads",
                     (unsigned long long)seed, steps, o);
        for (int i = 0; i < 3; i++)
            bl_array_free(&out[i][o]);
    }
    random_graph_free(&r);
}

static void random_graphs_agree_with_the_reference(BL_UNUSED void **state)
{
    over_graphs(compare_executors);
}

/* --- gradients ---------------------------------------------------------------------------------
 */

/* A sum of what is real among the outputs, each brought to a size of about 1. */
static bl_tensor scalar_of(const random_graph *r)
{
    bl_tensor sum = bl_full(r->graph, BL_F64, BL_SCALAR, 0);
    for (int o = 0; o < r->outputs; o++) {
        bl_type t = bl_type_of(r->output[o]);
        if (t.dtype != BL_F64)
            continue;
        bl_shape row = BL_SHAPE(bl_type_count(t));
        bl_tensor weight = bl_cos(bl_iota(r->graph, BL_F64, row, 0));
        double size = fmax(1, r->bound[o]) * sqrt((double)bl_type_count(t) + 1);
        sum = bl_add(sum, bl_div(bl_sum(bl_mul(bl_reshape(r->output[o], row), weight)), size));
    }
    return sum;
}

typedef struct line { /* through the values of the inputs, along a random direction */
    bl_array middle[RANDOM_INPUTS], direction[RANDOM_INPUTS];
} line;

static void draw_line(random_graph *r, line *l, bool again)
{
    for (int i = 0; i < r->inputs; i++) {
        if (again && r->value[i].type.dtype == BL_F64)
            random_fill(r, &r->value[i], 1);
        expect_ok(bl_array_copy(&r->value[i], &l->middle[i]));
        expect_ok(bl_array_copy(&r->value[i], &l->direction[i]));
        if (r->value[i].type.dtype == BL_F64)
            random_fill(r, &l->direction[i], 1);
    }
}

static void free_line(const random_graph *r, line *l)
{
    for (int i = 0; i < r->inputs; i++) {
        bl_array_free(&l->middle[i]);
        bl_array_free(&l->direction[i]);
    }
}

/* The scalar y at `step` along the line. */
static double along(random_graph *r, const line *l, bl_program *p, double step)
{
    double y = 0;
    for (int i = 0; i < r->inputs; i++)
        for (int64_t at = 0; r->value[i].type.dtype == BL_F64 && at < bl_array_count(&r->value[i]);
             at++)
            bl_f64(&r->value[i])[at] =
                bl_f64(&l->middle[i])[at] + step * bl_f64(&l->direction[i])[at];
    bl_array out = {{BL_F64, BL_SCALAR}, &y};
    expect_ok(bl_run(p, r->value, &out));
    return y;
}

static double slope_along(const random_graph *r, const line *l, const bl_tensor *x, int reals,
                          const bl_tensor *dx)
{
    bl_array out[RANDOM_INPUTS] = {{{0}, NULL}};
    double slope = 0;
    expect_ok(run_once(bl_device_cpu(), 1 + r->inputs % 2, r, dx, reals, out));
    for (int n = 0; n < reals; n++) {
        int i = 0;
        while (r->input[i].id != x[n].id)
            i++;
        for (int64_t at = 0; at < bl_array_count(&out[n]); at++)
            slope += bl_f64(&out[n])[at] * bl_f64(&l->direction[i])[at];
        bl_array_free(&out[n]);
    }
    return slope;
}

/* Whether a difference quotient is the slope. Where none is, but they are not the same either, the
 * line crosses a kink or step here: `kink`. */
static bool is_slope(random_graph *r, const line *l, bl_program *p, double slope, bool *kink,
                     double *quotient)
{
    static const double steps[] = {1e-4, 1e-5, 1e-6, 1e-7};
    double least = INFINITY, most = -INFINITY, tolerance = 2e-5 * (1 + fabs(slope));
    for (int i = 0; i < COUNT_OF(steps); i++) {
        *quotient = (along(r, l, p, steps[i]) - along(r, l, p, -steps[i])) / (2 * steps[i]);
        if (fabs(*quotient - slope) <= tolerance)
            return true;
        least = fmin(least, *quotient), most = fmax(most, *quotient);
    }
    *kink = !(most - least <= tolerance);
    return false;
}

static int64_t points, kinks, flat;

/* Writes the gradient of y and compares it, along random lines, with differences. */
static void expect_slopes(random_graph *r, bl_tensor y, const bl_tensor *x, int reals,
                          bl_tensor *dx, const char *name)
{
    bl_program *p = NULL;
    bool found = false, kink = true;
    bl_grad(y, x, reals, dx);
    if (bl_compile(bl_device_reference(), r->input, r->inputs, &y, 1, NULL, &p) != BL_OK)
        fail_msg("%s: %s", name, bl_error());
    for (int attempt = 0; attempt < 4 && kink && !found; attempt++) {
        line l = {0};
        double quotient;
        draw_line(r, &l, attempt > 0);
        double slope = slope_along(r, &l, x, reals, dx);
        found = is_slope(r, &l, p, slope, &kink, &quotient);
        points++, kinks += !found, flat += fabs(slope) < 1e-9;
        if (!found && (!kink || attempt == 3))
            fail_msg("%s: the slope is %.10g, but by differences %.10g", name, slope, quotient);
        free_line(r, &l);
    }
    bl_program_free(p);
}

/* The gradient along a random direction that is the same everywhere. */
static bl_tensor gradient_along(random_graph *r, const bl_tensor *dx, int reals)
{
    bl_tensor sum = bl_full(r->graph, BL_F64, BL_SCALAR, 0);
    for (int n = 0; n < reals; n++) {
        bl_array direction;
        expect_ok(bl_array_new(BL_F64, bl_type_of(dx[n]).shape, &direction));
        random_fill(r, &direction, 1);
        sum = bl_add(sum, bl_sum(bl_mul(dx[n], bl_constant(r->graph, &direction))));
        bl_array_free(&direction);
    }
    return sum;
}

static void compare_gradients(uint64_t seed, int steps)
{
    random_graph r = random_smooth_graph_new(seed, steps);
    expect_built(&r, seed, steps, bl_graph_status(r.graph));
    bl_tensor y = scalar_of(&r), x[RANDOM_INPUTS], dx[RANDOM_INPUTS], ddx[RANDOM_INPUTS];
    char name[80];
    int reals = 0;
    for (int i = 0; i < r.inputs; i++)
        if (r.value[i].type.dtype == BL_F64)
            x[reals++] = r.input[i];
    snprintf(name, sizeof name, "BL_SEED=%llu BL_STEPS=%d, gradient", (unsigned long long)seed,
             steps);
    if (reals > 0)
        expect_slopes(&r, y, x, reals, dx, name);
    if (reals > 0 && seed % 4 == 0) {
        memcpy(strstr(name, "gradient"), "second g", 8);
        expect_slopes(&r, gradient_along(&r, dx, reals), x, reals, ddx, name);
    }
    random_graph_free(&r);
}

static void random_gradients_agree_with_central_differences(BL_UNUSED void **state)
{
    over_graphs(compare_gradients);
    print_message("%lld points: %lld drawn again at a kink, %lld of slope 0\n", (long long)points,
                  (long long)kinks, (long long)flat);
    assert_true(kinks * 50 <= points && flat * 4 <= points);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_graphs_agree_with_the_reference),
        cmocka_unit_test(random_gradients_agree_with_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
