/* The passes: an optimised graph computes what the graph did, and is what it should be. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <time.h>

#include "exec/executor.h"
#include "graph/pass/pass.h"
#include "random_graph.h"

static int open_graph(void **state)
{
    *state = bl_graph_new();
    return *state ? 0 : -1;
}

static int close_graph(void **state)
{
    bl_graph_free(*state);
    return 0;
}

/* --- the same values ----------------------------------------------------------------------------
 */

/* Runs a graph that was only copied, with dead code left out, or also optimised. */
static bl_status evaluate(const random_graph *r, bool optimized, bl_array *result)
{
    bl_tensor in[RANDOM_INPUTS], out[RANDOM_OUTPUTS];
    int32_t in_id[RANDOM_INPUTS], out_id[RANDOM_OUTPUTS];
    void *in_data[RANDOM_INPUTS], *out_data[RANDOM_OUTPUTS], *plan = NULL;
    bl_graph *g = NULL;
    BL_TRY(optimized
               ? bl_optimize(r->input, r->inputs, r->output, r->outputs, &g, in, out)
               : bl_copy_live(r->graph, r->input, r->inputs, r->output, r->outputs, &g, in, out));
    BL_TRY(bl_verify(g));
    for (int i = 0; i < r->inputs; i++) {
        in_id[i] = in[i].id;
        in_data[i] = r->value[i].data;
    }
    for (int o = 0; o < r->outputs; o++) {
        bl_type type = bl_type_of(out[o]);
        BL_TRY(bl_array_new(type.dtype, type.shape, &result[o]));
        out_id[o] = out[o].id;
        out_data[o] = result[o].data;
    }
    bl_signature signature = {.graph = g,
                              .input = in_id,
                              .inputs = r->inputs,
                              .output = out_id,
                              .outputs = r->outputs,
                              .threads = 1};
    BL_TRY(bl_executor_reference.compile(&signature, &plan));
    bl_status status = bl_executor_reference.run(plan, in_data, out_data);
    bl_executor_reference.free(plan);
    bl_graph_free(g);
    return status;
}

static void compare(const random_graph *r, uint64_t seed, const bl_array *a, const bl_array *b)
{
    for (int o = 0; o < r->outputs; o++) {
        assert_true(bl_type_equal(a[o].type, b[o].type));
        for (int64_t i = 0; i < bl_array_count(&a[o]); i++) {
            double x = bl_array_get(&a[o], i), y = bl_array_get(&b[o], i);
            if (!(fabs(x - y) <= random_graph_tolerance(r, o)))
                fail_msg("seed %llu, output %d, element %lld: %.9g, optimised %.9g, tolerance %g",
                         (unsigned long long)seed, o, (long long)i, x, y,
                         random_graph_tolerance(r, o));
        }
    }
}

static void optimised_graphs_compute_the_same(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        random_graph r = random_graph_new(seed, 60);
        bl_array plain[RANDOM_OUTPUTS] = {0}, optimized[RANDOM_OUTPUTS] = {0};
        if (bl_graph_status(r.graph) != BL_OK || evaluate(&r, false, plain) != BL_OK ||
            evaluate(&r, true, optimized) != BL_OK)
            fail_msg("seed %llu: %s", (unsigned long long)seed, bl_error());
        compare(&r, seed, plain, optimized);
        for (int o = 0; o < r.outputs; o++) {
            bl_array_free(&plain[o]);
            bl_array_free(&optimized[o]);
        }
        random_graph_free(&r);
    }
}

/* A generator that never made some primitive would test less than it says. */
static void random_graphs_cover_the_primitives(void **state)
{
    bool seen[BL_OPS] = {false};
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        random_graph r = random_graph_new(seed, 60);
        for (int32_t id = 0; id < (int32_t)bl_graph_size(r.graph); id++)
            seen[bl_node_at(r.graph, id)->op] = true;
        random_graph_free(&r);
    }
    for (int op = 0; op < BL_OPS; op++)
        if (!seen[op] && op != BL_OP_lgamma && op != BL_OP_trigamma)
            fail_msg("no random graph has %s", bl_op_name((bl_op)op));
}

/* --- what is left -------------------------------------------------------------------------------
 */

/* The optimised graph of one output; the caller frees it. */
static bl_graph *optimized(bl_tensor y, const bl_tensor *inputs, int count, bl_tensor *out)
{
    bl_graph *g = NULL;
    bl_tensor in[4];
    if (bl_graph_status(y.graph) != BL_OK ||
        bl_optimize(inputs, count, &y, 1, &g, in, out) != BL_OK)
        fail_msg("%s", bl_error());
    return g;
}

/* y is optimised to one node beside the inputs, of this primitive. */
static void expect_one(bl_tensor y, const bl_tensor *inputs, int count, bl_op op)
{
    bl_tensor out;
    bl_graph *g = optimized(y, inputs, count, &out);
    if (bl_node_at(g, out.id)->op != op || bl_graph_size(g) != count + (op != BL_OP_input))
        fail_msg("became %s of %d nodes, not one %s", bl_op_name(bl_node_at(g, out.id)->op),
                 (int)bl_graph_size(g), bl_op_name(op));
    bl_graph_free(g);
}

static bl_tensor input(void **state)
{
    return bl_input(*state, "x", BL_F32, BL_SHAPE(2, 3));
}

static void identities_leave_the_operand(void **state)
{
    bl_tensor x = input(state), c = bl_input(*state, "c", BL_BOOL, BL_SHAPE(2, 3));
    const bl_tensor same[] = {bl_mul(x, 1),
                              bl_mul(1, x),
                              bl_add(0, x),
                              bl_sub(x, 0),
                              bl_div(x, 1),
                              bl_pow(x, 1),
                              bl_neg(bl_neg(x)),
                              bl_stop_gradient(x),
                              bl_max(x, x),
                              bl_cast(bl_cast(x, BL_F64), BL_F32),
                              bl_reshape(bl_reshape(x, BL_SHAPE(6)), BL_SHAPE(2, 3)),
                              bl_transpose(bl_transpose(x)),
                              bl_reverse(bl_reverse(x, 0), 0),
                              bl_select(bl_gt(bl_full_like(x, 2), 1), x, bl_exp(x)),
                              bl_select(c, x, x),
                              bl_sum(bl_expand(x, 1), 1)};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        expect_one(same[i], (bl_tensor[]){x, c}, 2, BL_OP_input);
}

static void identities_leave_one_node(void **state)
{
    bl_tensor x = input(state), y = input(state), c = bl_gt(x, y);
    bl_tensor both[] = {x, y};
    expect_one(bl_mul(x, -1), &x, 1, BL_OP_neg);
    expect_one(bl_sub(0, x), &x, 1, BL_OP_neg);
    expect_one(bl_pow(x, 2), &x, 1, BL_OP_mul);
    expect_one(bl_add(x, bl_neg(y)), both, 2, BL_OP_sub);
    expect_one(bl_sub(x, bl_neg(y)), both, 2, BL_OP_add);
    expect_one(bl_dot(x, bl_transpose(y), false, false), both, 2, BL_OP_dot);
    expect_one(bl_and(c, bl_not(bl_not(c))), both, 2, BL_OP_gt);
    expect_one(bl_abs(bl_neg(x)), &x, 1, BL_OP_abs);
}

static bl_tensor placed(bl_tensor x, int64_t before, int64_t after)
{
    return bl_pad(x, BL_SHAPE(0, before), BL_SHAPE(0, after), 0);
}

static void slices_gradients_are_concatenated(void **state)
{
    bl_tensor x = input(state), y = input(state), both[] = {x, y};
    expect_one(bl_add(placed(x, 0, 3), placed(y, 3, 0)), both, 2, BL_OP_concat);
    expect_one(bl_add(placed(y, 3, 3), bl_add(placed(x, 6, 0), placed(y, 0, 6))), both, 2,
               BL_OP_concat);
    const bl_tensor kept[] = {
        bl_add(placed(x, 0, 2), placed(y, 2, 0)), /* they overlap */
        bl_add(placed(x, 0, 4), placed(y, 4, 0)), /* a gap */
        bl_add(placed(x, 0, 3), bl_pad(y, BL_SHAPE(0, 3), BL_SHAPE(0, 0), 1)),
        bl_add(placed(x, 0, 3), placed(x, 0, 3)),
    };
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        bl_tensor out;
        bl_graph *g = optimized(kept[i], both, 2, &out);
        assert_int_equal(bl_node_at(g, out.id)->op, BL_OP_add);
        bl_graph_free(g);
    }
}

static void constants_are_folded(void **state)
{
    bl_tensor c = bl_full(*state, BL_F32, BL_SHAPE(1000, 1000), 3);
    bl_tensor y = bl_add(bl_transpose(bl_mul(c, 2)), bl_exp(bl_zeros_like(c))), out;
    bl_graph *g = optimized(bl_sum(y, 0), NULL, 0, &out);
    const bl_node *node = bl_node_at(g, out.id);
    assert_int_equal(bl_graph_size(g), 1);
    assert_true(node->op == BL_OP_constant && !node->attr->data && node->attr->value == 7000);
    bl_graph_free(g);
}

static void small_arrays_are_folded_element_by_element(void **state)
{
    float values[] = {1, 2, 4};
    bl_tensor c = bl_constant(*state, &(bl_array){{BL_F32, BL_SHAPE(3)}, values}), out;
    bl_graph *g = optimized(bl_reshape(bl_mul(c, c), BL_SHAPE(3, 1)), NULL, 0, &out);
    const bl_node *node = bl_node_at(g, out.id);
    assert_true(node->op == BL_OP_constant && bl_graph_size(g) == 1);
    const float *folded = node->attr->data;
    assert_true(folded[0] == 1 && folded[1] == 4 && folded[2] == 16);
    bl_graph_free(g);
}

/* x * 0 is NaN where x is infinite or NaN, and x - x too. */
static void what_is_not_an_identity_stays(void **state)
{
    bl_tensor x = input(state), out;
    const bl_tensor kept[] = {bl_mul(x, 0), bl_sub(x, x), bl_div(x, x), bl_eq(x, x), bl_div(0, x)};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        bl_graph *g = optimized(kept[i], &x, 1, &out);
        assert_int_equal(bl_node_at(g, out.id)->op, bl_node_at(*state, kept[i].id)->op);
        bl_graph_free(g);
    }
}

static void common_subexpressions_are_one(void **state)
{
    bl_tensor x = input(state), y = input(state);
    bl_tensor a = bl_exp(bl_add(x, y)), b = bl_exp(bl_add(y, x)), out;
    bl_graph *g = optimized(bl_mul(a, b), (bl_tensor[]){x, y}, 2, &out);
    assert_int_equal(bl_graph_size(g), 5); /* x, y, add, exp, mul */
    bl_graph_free(g);
    bl_tensor s = bl_sub(bl_sum(x, 0), bl_sum(x, 1, 0)); /* other axes: not equal */
    g = optimized(s, (bl_tensor[]){x, y}, 2, &out);
    assert_int_equal(bl_graph_size(g), 7); /* x, y, two sums, reshape, broadcast, sub */
    bl_graph_free(g);
}

static void random_bits_of_one_key_and_stream_are_one(void **state)
{
    bl_tensor key = bl_input(*state, "key", BL_U32, BL_SHAPE(2)), out;
    bl_tensor same = bl_random_bits(key, 1, 2, BL_SHAPE(4));
    bl_tensor again = bl_random_bits(key, 1, 2, BL_SHAPE(4));
    bl_tensor other = bl_random_bits(key, 1, 3, BL_SHAPE(4));
    bl_graph *g = optimized(bl_mul(bl_add(same, again), other), &key, 1, &out);
    assert_int_equal(bl_graph_size(g), 5); /* key, two bits, add, mul */
    bl_graph_free(g);
}

static void dead_code_is_gone_but_inputs_stay(void **state)
{
    bl_tensor in[] = {input(state), input(state), input(state)}, out;
    bl_tensor y = bl_neg(in[1]), unused = bl_exp(bl_add(in[0], in[2]));
    bl_graph *g = optimized(y, in, 3, &out);
    assert_int_equal(bl_graph_size(g), 4);
    assert_false(bl_is_poison(unused));
    bl_graph_free(g);
}

static void places_survive(void **state)
{
    bl_tensor x = input(state), out;
    bl_scope(*state, "elr_loss");
    bl_tensor y = bl_exp(bl_mul(x, 1));
    bl_scope_end(*state);
    const bl_node *before = bl_node_at(*state, y.id);
    bl_graph *g = optimized(y, &x, 1, &out);
    const bl_node *after = bl_node_at(g, out.id);
    assert_string_equal(after->scope, "elr_loss");
    assert_int_equal(after->line, before->line);
    assert_string_equal(bl_node_at(g, 0)->name, "x");
    bl_graph_free(g);
}

/* --- size ----------------------------------------------------------------------------------------
 */

enum { MANY = 50000 };

static double seconds_to_compile(bl_tensor x, bl_tensor y)
{
    clock_t start = clock();
    bl_program *p = NULL;
    if (bl_compile(bl_device_reference(), &x, 1, &y, 1, NULL, &p) != BL_OK)
        fail_msg("%s", bl_error());
    bl_program_free(p);
    return (double)(clock() - start) / CLOCKS_PER_SEC;
}

static void a_long_chain_compiles_fast(void **state)
{
    bl_tensor x = input(state), y = x;
    for (int i = 0; i < MANY / 2; i++)
        y = bl_tanh(bl_add(y, x));
    assert_true(bl_graph_size(*state) > MANY);
    assert_true(seconds_to_compile(x, y) < 2);
}

/* Every step would collapse into the one before. */
static void a_long_chain_of_identities_compiles_fast(void **state)
{
    bl_tensor x = input(state), y = x;
    for (int i = 0; i < MANY / 2; i++)
        y = bl_transpose(bl_reshape(bl_transpose(bl_neg(bl_mul(y, 1))), BL_SHAPE(3, 2)));
    assert_true(seconds_to_compile(x, y) < 2);
}

static void a_wide_graph_compiles_fast(void **state)
{
    bl_tensor x = input(state);
    bl_tensor *parts = bl_alloc(MANY * sizeof *parts);
    assert_non_null(parts);
    for (int i = 0; i < MANY; i++)
        parts[i] = bl_mul(x, i % 1000 + 2);
    bl_tensor y = bl_concat(parts, MANY, 0);
    bl_release(parts);
    assert_true(seconds_to_compile(x, y) < 2);
}

/* --- memory
 * ---------------------------------------------------------------------------------------- */

/* Builds a small network, differentiates, optimises and compiles it, and runs it once. */
static bl_status train_once(void)
{
    bl_graph *g = bl_graph_new();
    bl_tensor in[] = {
        bl_input(g, "x", BL_F32, BL_SHAPE(4, 3)), bl_input(g, "labels", BL_I32, BL_SHAPE(4)),
        bl_input(g, "w", BL_F32, BL_SHAPE(3, 5)), bl_input(g, "v", BL_F32, BL_SHAPE(5, 2))};
    bl_tensor hidden = bl_tanh(bl_matmul(in[0], in[2]));
    bl_tensor out[3] = {bl_cross_entropy(bl_matmul(hidden, in[3]), in[1])};
    bl_grad(out[0], &in[2], 2, &out[1]);
    bl_array values[4] = {0}, results[3] = {0};
    bl_status status = g ? bl_graph_status(g) : BL_NO_MEMORY;
    for (int i = 0; i < 4 && status == BL_OK; i++)
        status = bl_array_new(bl_type_of(in[i]).dtype, bl_type_of(in[i]).shape, &values[i]);
    if (status == BL_OK)
        status = bl_evaluate(bl_device_reference(), in, values, 4, out, results, 3);
    if (status == BL_OK) {
        assert_float_equal(bl_f32(&results[0])[0], 0.6931472f, 1e-6);
        for (int o = 0; o < 3; o++)
            bl_array_free(&results[o]);
    }
    for (int i = 0; i < 4; i++)
        bl_array_free(&values[i]);
    bl_graph_free(g);
    return status;
}

static void every_failing_allocation_is_a_clean_error(void **state)
{
    (void)state;
    int64_t n = 1;
    for (; n < 100000; n++) {
        bl_fail_allocation(n);
        bl_status status = train_once();
        bl_fail_allocation(0);
        if (status == BL_OK)
            break;
        if (status != BL_NO_MEMORY)
            fail_msg("allocation %lld: status %d: %s", (long long)n, status, bl_error());
    }
    assert_in_range(n, 20, 99999); /* it took some allocations, and in the end all succeeded */
}

#define FACT(name) cmocka_unit_test_setup_teardown(name, open_graph, close_graph)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(optimised_graphs_compute_the_same),
        cmocka_unit_test(random_graphs_cover_the_primitives),
        FACT(identities_leave_the_operand),
        FACT(identities_leave_one_node),
        FACT(slices_gradients_are_concatenated),
        FACT(constants_are_folded),
        FACT(small_arrays_are_folded_element_by_element),
        FACT(what_is_not_an_identity_stays),
        FACT(common_subexpressions_are_one),
        FACT(random_bits_of_one_key_and_stream_are_one),
        FACT(dead_code_is_gone_but_inputs_stay),
        FACT(places_survive),
        FACT(a_long_chain_compiles_fast),
        FACT(a_long_chain_of_identities_compiles_fast),
        FACT(a_wide_graph_compiles_fast),
        cmocka_unit_test(every_failing_allocation_is_a_clean_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
