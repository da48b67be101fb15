/* BL_CHECK=1: a wrong kernel is found and named, and right ones raise no alarm. */
#include <stdlib.h>

#include "exec/cpu/cpu.h"
#include "random_graph.h"
#include "support.h"

static bl_status compile_checked(const bl_device *device, const bl_tensor *x, int inputs,
                                 const bl_tensor *y, int outputs, const bl_compile_options *options,
                                 bl_program **p)
{
    assert_int_equal(setenv("BL_CHECK", "1", 1), 0);
    bl_status status = bl_compile(device, x, inputs, y, outputs, options, p);
    assert_int_equal(unsetenv("BL_CHECK"), 0);
    return status;
}

/* --- a planted error ---------------------------------------------------------------------------
 */

/* The cpu executor, with the kernel of the only dot wrong in element 3. */
static cpu_run *right_run;

static bl_status run_wrongly(cpu_plan *plan, cpu_kernel *kernel)
{
    BL_TRY(right_run(plan, kernel));
    ((float *)plan->address[kernel->node])[3] += 0.01f;
    return BL_OK;
}

static bl_status compile_wrongly(const bl_signature *signature, void **out)
{
    BL_TRY(bl_executor_cpu.compile(signature, out));
    cpu_plan *plan = *out;
    for (int32_t k = 0; k < plan->kernels; k++)
        if (cpu_node(plan, plan->kernel[k].node)->op == BL_OP_dot) {
            right_run = plan->kernel[k].run;
            plan->kernel[k].run = run_wrongly;
        }
    return BL_OK;
}

/* A kernel before it and two after it, which are wrong only because it is. */
static void the_wrong_kernel_is_named_and_none_after_it(void **state)
{
    bl_executor wrong = bl_executor_cpu;
    wrong.compile = compile_wrongly;
    bl_tensor x = input(state, BL_F32, 2, 2), before = bl_exp(x);
    bl_scope(*state, "layer");
    int line = __LINE__ + 1;
    bl_tensor product = bl_dot(before, x, false, false);
    bl_scope_end(*state);
    bl_tensor y = bl_sum(bl_cumsum(bl_tanh(product), 0));
    bl_array in = array_of(bl_type_of(x), VALUES(0, 0, 1, 2)),
             out = array_of((bl_type){0}, VALUES(0));
    bl_program *p = NULL;
    char expected[200];
    expect_ok(compile_checked(&(bl_device){&wrong}, &x, 1, &y, 1, NULL, &p));
    assert_int_equal(bl_run(p, &in, &out), BL_INVALID);
    assert_non_null(strstr(bl_error(), "BL_CHECK: element 3 of dot (node "));
    snprintf(expected, sizeof expected, "test_check.c:%d in layer) is 14.788", line);
    assert_non_null(strstr(bl_error(), ", f32[2,2], at "));
    assert_non_null(strstr(bl_error(), " on cpu and 14.7781124 on reference"));
    if (!strstr(bl_error(), expected))
        fail_msg("%s", bl_error());
    bl_program_free(p);
    bl_array_free(&in);
    bl_array_free(&out);
}

/* An executor that shows no kernels: its outputs are compared at the end. */
static bl_status run_wrong_outputs(void *plan, void *const *in, void *const *out)
{
    BL_TRY(bl_executor_reference.run(plan, in, out));
    ((float *)out[0])[1] += 0.01f;
    return BL_OK;
}

static void outputs_are_compared_and_donated_inputs_remembered(void **state)
{
    bl_executor wrong = bl_executor_reference;
    wrong.name = "wrong";
    wrong.run = run_wrong_outputs;
    bl_tensor x = input(state, BL_F32, 3), y = bl_neg(x);
    bl_compile_options options = {.donation = &(bl_donation){0, 0}, .donations = 1};
    bl_program *p = NULL;
    expect_ok(compile_checked(&(bl_device){&wrong}, &x, 1, &y, 1, &options, &p));
    bl_array buffer = array_of(bl_type_of(x), VALUES(1, 2, 3));
    assert_int_equal(bl_run(p, &buffer, &buffer), BL_INVALID);
    assert_non_null(strstr(bl_error(), "BL_CHECK: element 1 of neg (node 1, f32[3], at "));
    assert_non_null(strstr(bl_error(), "on wrong and -2 on reference"));
    bl_program_free(p);
    bl_array_free(&buffer);
}

/* --- no false alarm ----------------------------------------------------------------------------
 */

static void check_random_graph(uint64_t seed, random_graph r)
{
    bl_tensor y[RANDOM_OUTPUTS + 1], dx = r.output[0];
    bl_array out[RANDOM_OUTPUTS + 1];
    bl_program *p = NULL;
    if (r.inputs > 0 && bl_type_of(r.input[0]).dtype == BL_F64 &&
        bl_type_of(r.output[0]).dtype == BL_F64)
        bl_grad(bl_sum(r.output[0]), &r.input[0], 1, &dx);
    for (int o = 0; o <= r.outputs; o++) {
        y[o] = o < r.outputs ? r.output[o] : dx;
        expect_ok(bl_array_new(bl_type_of(y[o]).dtype, bl_type_of(y[o]).shape, &out[o]));
    }
    expect_ok(compile_checked(bl_device_cpu(), r.input, r.inputs, y, r.outputs + 1, NULL, &p));
    for (int run = 0; run < 2; run++)
        if (bl_run(p, r.value, out) != BL_OK)
            fail_msg("seed %llu: %s", (unsigned long long)seed, bl_error());
    bl_program_free(p);
    for (int o = 0; o <= r.outputs; o++)
        bl_array_free(&out[o]);
    random_graph_free(&r);
}

static void random_graphs_raise_no_alarm(BL_UNUSED void **state)
{
    for (uint64_t seed = 1; seed <= 400; seed++) {
        check_random_graph(seed, random_graph_new(seed, 50));
        check_random_graph(seed, random_smooth_graph_new(seed, 50));
    }
}

/* The mean of what was centred is nothing but rounding; a step in place; rows of a bank. */
static void sums_that_cancel_raise_no_alarm(void **state)
{
    bl_tensor x[] = {input(state, BL_F32, 400, 30), input(state, BL_I32, 4)};
    bl_tensor centred = bl_sub(x[0], bl_mean_keep(x[0], 0));
    bl_tensor y[] = {bl_add(x[0], bl_mean_keep(centred, 0)), bl_mean(centred, 0),
                     bl_sum(bl_take(bl_softmax(centred, 1), x[1]))};
    bl_compile_options options = {.donation = &(bl_donation){0, 0}, .donations = 1};
    bl_array in[2], out[3];
    bl_random random = bl_random_new(bl_key_from_seed(3));
    bl_program *p = NULL;
    for (int i = 0; i < 2; i++)
        expect_ok(bl_array_new(bl_type_of(x[i]).dtype, bl_type_of(x[i]).shape, &in[i]));
    for (int64_t i = 0; i < bl_array_count(&in[0]); i++)
        bl_array_set(&in[0], i, 100 + bl_random_gauss(&random));
    for (int o = 1; o < 3; o++)
        expect_ok(bl_array_new(BL_F32, bl_type_of(y[o]).shape, &out[o]));
    out[0] = in[0];
    expect_ok(compile_checked(bl_device_cpu(), x, 2, y, 3, &options, &p));
    for (int run = 0; run < 3; run++)
        expect_ok(bl_run(p, in, out));
    bl_program_free(p);
    bl_array_free(&in[0]);
    bl_array_free(&in[1]);
    bl_array_free(&out[1]);
    bl_array_free(&out[2]);
}

static void any_allocation_may_fail(void **state)
{
    bl_tensor x = input(state, BL_F32, 3, 3), y = bl_sum(bl_tanh(bl_dot(x, x, false, true)));
    bl_array in = array_of(bl_type_of(x), VALUES(1, 2, 3, 4, 5, 6, 7, 8, 9));
    bl_array out = array_of((bl_type){0}, VALUES(0));
    bool done = false;
    for (int64_t n = 1; !done; n++) {
        bl_program *p = NULL;
        bl_fail_allocation(n);
        bl_status status = compile_checked(bl_device_cpu(), &x, 1, &y, 1, NULL, &p);
        if (status == BL_OK)
            status = bl_run(p, &in, &out);
        done = failure_to_come();
        bl_fail_allocation(0);
        assert_int_equal(status, done ? BL_OK : BL_NO_MEMORY);
        bl_program_free(p);
        assert_true(n < 5000);
    }
    bl_array_free(&in);
    bl_array_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_wrong_kernel_is_named_and_none_after_it),
        TEST(outputs_are_compared_and_donated_inputs_remembered),
        cmocka_unit_test(random_graphs_raise_no_alarm),
        TEST(sums_that_cancel_raise_no_alarm),
        TEST(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
