/* The cpu executor against the reference executor, and what is its own: accuracy of its functions,
 * donated buffers, threads.
 *
 * BL_SEED=n runs one random graph and prints it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "exec/cpu/loops.h"
#include "random_graph.h"
#include "support.h"

enum { GRAPHS = 2500, FIRST_SEED = 1000 };

/* --- random graphs ---------------------------------------------------------------------------- */

static bool close_enough(double a, double b, double tolerance)
{
    return (isnan(a) && isnan(b)) || a == b || fabs(a - b) <= tolerance;
}

static int64_t first_difference(const bl_array *a, const bl_array *b, double tolerance)
{
    for (int64_t i = 0; i < bl_array_count(a); i++)
        if (!close_enough(bl_array_get(a, i), bl_array_get(b, i), tolerance))
            return i;
    return -1;
}

static void print_programs(const random_graph *r)
{
    bl_program *p = NULL;
    expect_ok(bl_compile(bl_device_cpu(), r->input, r->inputs, r->output, r->outputs, NULL, &p));
    char *cpu = bl_program_explain(p);
    bl_program_free(p);
    expect_ok(
        bl_compile(bl_device_reference(), r->input, r->inputs, r->output, r->outputs, NULL, &p));
    char *reference = bl_program_explain(p);
    bl_program_free(p);
    print_message("%s\n%s", reference, cpu);
    bl_release(cpu);
    bl_release(reference);
}

static void compare_once(uint64_t seed, int steps)
{
    random_graph r = random_graph_new(seed, steps);
    bl_array expected[RANDOM_OUTPUTS] = {0}, actual[RANDOM_OUTPUTS] = {0};
    expect_ok(bl_graph_status(r.graph));
    expect_ok(bl_evaluate(bl_device_reference(), r.input, r.value, r.inputs, r.output, expected,
                          r.outputs));
    expect_ok(
        bl_evaluate(bl_device_cpu(), r.input, r.value, r.inputs, r.output, actual, r.outputs));
    for (int o = 0; o < r.outputs; o++) {
        int64_t i =
            first_difference(&expected[o], &actual[o], random_graph_tolerance(&r, o) + 1e-12);
        if (i >= 0) {
            print_programs(&r);
            fail_msg("seed %llu, output %d, element %lld: %.9g, but %.9g expected (+- %.3g)",
                     (unsigned long long)seed, o, (long long)i, bl_array_get(&actual[o], i),
                     bl_array_get(&expected[o], i), random_graph_tolerance(&r, o));
        }
    }
    for (int o = 0; o < r.outputs; o++) {
        bl_array_free(&expected[o]);
        bl_array_free(&actual[o]);
    }
    random_graph_free(&r);
}

static void random_graphs_agree_with_the_reference(void **state)
{
    (void)state;
    const char *seed = getenv("BL_SEED");
    if (seed) {
        compare_once(strtoull(seed, NULL, 10), 40);
        return;
    }
    for (uint64_t i = 0; i < GRAPHS; i++)
        compare_once(FIRST_SEED + i, 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_graphs_agree_with_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
