/* Graphs as built: types, broadcasting, bare numbers, errors and their places, scopes, size.
 * Values and gradients are in test_gradient.c. */
#include <stdlib.h>

#include "support.h"

#include <time.h>

/* --- types -------------------------------------------------------------------------------------
 */

static void binary_builders_broadcast_as_numpy_does(void **state)
{
    bl_tensor a = input(state, BL_F32, 4, 1, 3), b = input(state, BL_F32, 5, 1);
    expect_type(bl_add(a, b), "f32[4,5,3]");
    expect_type(bl_lt(a, scalar_input(state, BL_F32)), "bool[4,1,3]");
    expect_type(bl_mul(input(state, BL_F32, 1, 3), input(state, BL_F32, 0, 1)), "f32[0,3]");
}

static void numbers_take_the_dtype_of_what_they_meet(void **state)
{
    expect_type(bl_mul(0.5, input(state, BL_F64, 3)), "f64[3]");
    expect_type(bl_sub(input(state, BL_I32, 3), 1), "i32[3]");
    expect_type(bl_select(input(state, BL_BOOL, 3), 1, 0), "f32[3]");
    expect_type(bl_select(input(state, BL_BOOL, 3), scalar_input(state, BL_F64), 0), "f64[3]");
}

static void arithmetic_on_numbers_gives_numbers(void **state)
{
    (void)state;
    bl_tensor share = bl_sub(1, 0.7);
    assert_true(bl_is_number(share));
    assert_true(share.number == 1 - 0.7);
    assert_true(bl_sqrt(bl_number(9)).number == 3);
    assert_true(bl_clamp(7, 0, 5).number == 5);
    assert_true(bl_cast(2.7, BL_I32).number == 2);
    assert_true(bl_is_number(bl_sum(share)));
    assert_int_equal(bl_graph_size(NULL), 0);
}

static void reductions_drop_or_keep_axes(void **state)
{
    bl_tensor x = input(state, BL_F32, 2, 3, 4);
    expect_type(bl_sum(x), "f32[]");
    expect_type(bl_sum(x, -1), "f32[2,3]");
    expect_type(bl_mean_keep(x, 0, 2), "f32[1,3,1]");
    expect_type(bl_argmax(x, 1), "i32[2,4]");
    expect_type(bl_sum(scalar_input(state, BL_F32)), "f32[]");
    expect_type(bl_sum(input(state, BL_F32, 0, 3), 0), "f32[3]");
}

static void movement_types(void **state)
{
    bl_tensor x = input(state, BL_F32, 2, 3, 4);
    expect_type(bl_transpose(x), "f32[4,3,2]");
    expect_type(bl_transpose(x, 0, 2, 1), "f32[2,4,3]");
    expect_type(bl_reshape(x, BL_SHAPE(-1, 6)), "f32[4,6]");
    expect_type(bl_slice(x, BL_SHAPE(0, 0, 1), BL_SHAPE(2, 3, 4), BL_SHAPE(1, 2, 3)), "f32[2,2,1]");
    expect_type(bl_pad(x, BL_SHAPE(0, 1, 2), BL_SHAPE(0, 0, 1), 0), "f32[2,4,7]");
    expect_type(bl_concat((bl_tensor[]){x, x, x, x}, 4, 1), "f32[2,12,4]");
    expect_type(bl_expand(x, -1), "f32[2,3,4,1]");
    expect_type(bl_squeeze(bl_slice_axis(x, 1, 2, 3), 1), "f32[2,4]");
}

static void contraction_types(void **state)
{
    bl_tensor x = input(state, BL_F32, 5, 2, 3), w = input(state, BL_F32, 3, 4);
    expect_type(bl_matmul(x, w), "f32[5,2,4]");
    expect_type(bl_matmul(input(state, BL_F32, 3), w), "f32[4]");
    expect_type(bl_matmul(x, input(state, BL_F32, 3)), "f32[5,2]");
    expect_type(bl_matmul(input(state, BL_F32, 6, 1, 2, 3), input(state, BL_F32, 5, 3, 4)),
                "f32[6,5,2,4]");
    expect_type(bl_matmul(input(state, BL_F32, 0, 3), w), "f32[0,4]");
    bl_tensor image = input(state, BL_F32, 2, 8, 9, 4), filter = input(state, BL_F32, 3, 3, 2, 6);
    bl_conv_options o = {.stride = {2, 1}, .low = {1, 0}, .high = {1, 0}, .groups = 2};
    expect_type(bl_conv(image, filter, o), "f32[2,4,7,6]");
}

static void builders_add_nothing_where_nothing_moves(void **state)
{
    bl_tensor x = input(state, BL_F32, 2, 3);
    bl_tensor same[] = {bl_reshape(x, BL_SHAPE(2, 3)), bl_broadcast(x, BL_SHAPE(2, 3)),
                        bl_transpose(x, 0, 1),         bl_cast(x, BL_F32),
                        bl_slice_axis(x, 1, 0, 3),     bl_concat(&x, 1, 0)};
    for (int i = 0; i < COUNT_OF(same); i++)
        assert_int_equal(same[i].id, x.id);
    assert_int_equal(bl_graph_size(*state), 1);
}

static void equal_attributes_have_equal_bytes(void **state)
{
    bl_tensor x = input(state, BL_F32, 2, 3);
    bl_tensor a = bl_sum(x, 1), b = bl_sum(x, -1);
    assert_memory_equal(bl_node_at(*state, a.id)->attr, bl_node_at(*state, b.id)->attr,
                        sizeof(bl_attr));
}

/* --- errors ------------------------------------------------------------------------------------
 */

static void take_names_the_bad_index(void **state)
{
    bl_tensor rows = bl_take(input(state, BL_F32, 4, 2), input(state, BL_F32, 3));
    expect_error(rows, "take: index must be i32[B], not f32[3]");
}

static void matmul_shows_both_shapes(void **state)
{
    bl_tensor z = bl_matmul(input(state, BL_F32, 128, 784), input(state, BL_F32, 512, 10));
    expect_error(z, "matmul: inner sizes differ: [128,784] x [512,10]");
}

/* One mistake each; x and d are f32[2,3] and f64[2,3], n is i32[2,3]. */
#define MISTAKES(X)                                                                                \
    X(bl_add(x, d), "add: dtypes differ: f32[2,3] and f64[2,3]")                                   \
    X(bl_add(x, input(state, BL_F32, 2)), "add: shapes do not broadcast: [2,3] and [2]")           \
    X(bl_add(n, 0.5), "add: 0.5 is not a value of i32")                                            \
    X(bl_sum(x, 2), "sum: there is no axis 2 of 2 axes")                                           \
    X(bl_sum(x, 1, -1), "sum: axis -1 is given twice")                                             \
    X(bl_reshape(x, BL_SHAPE(-1, 4)), "reshape: f32[2,3] cannot become [-1,4]")                    \
    X(bl_reshape(x, BL_SHAPE(7)), "reshape: [2,3] has 6 elements, [7] has 7")                      \
    X(bl_broadcast(x, BL_SHAPE(2, 4)), "broadcast: f32[2,3] does not broadcast to [2,4]")          \
    X(bl_slice_axis(x, 1, 2, 4), "slice: axis 1: 2 to 4 is outside f32[2,3]")                      \
    X(bl_exp(n), "exp: operand must be f32 or f64, not i32[2,3]")                                  \
    X(bl_not(x), "not: operand must be bool, not f32[2,3]")                                        \
    X(bl_transpose(x, 1), "transpose: 1 axes are named, f32[2,3] has 2")                           \
    X(bl_transpose(x, 1, 1), "transpose: the axes of f32[2,3] are not each named once")            \
    X(bl_concat((bl_tensor[]){x, d}, 2, 0),                                                        \
      "concat: operand 1: f32[2,3] and f64[2,3] differ beside axis 0")                             \
    X(bl_cross_entropy(x, n),                                                                      \
      "cross_entropy: logits must be float [..,C] and labels i32[..], not f32[2,3] and i32[2,3]")  \
    X(gradient(x, x), "grad: y must be a scalar, not f32[2,3]")                                    \
    X(gradient(bl_sum(n), n), "grad: there is no derivative in i32[2,3]")                          \
    X(gradient(bl_sum(bl_trigamma(x)), x), "trigamma has no gradient")                             \
    X(bl_reduce_max(input(state, BL_F32, 0, 3), 0),                                                \
      "reduce_max: the reduced axes of f32[0,3] are empty, and nothing has no extreme")            \
    X(bl_put(x, input(state, BL_I32, 2), d), "put: rows must be f32[2,3], not f64[2,3]")           \
    X(bl_uniform(x, BL_SHAPE(4)), "random_bits: key must be u32[2], not f32[2,3]")                 \
    X(bl_iota(*state, BL_U8, BL_SHAPE(300), 0), "iota: 300 is too many for u8")                    \
    X(bl_conv(input(state, BL_F32, 1, 4, 4, 3), input(state, BL_F32, 3, 3, 2, 5),                  \
              (bl_conv_options){0}),                                                               \
      "conv: channels do not match: f32[1,4,4,3] with f32[3,3,2,5] in 1 groups")                   \
    X(bl_max_pool2(input(state, BL_F32, 1, 3, 4, 1)),                                              \
      "max_pool2: needs [B,H,W,C] with H and W even, not f32[1,3,4,1]")                            \
    X(input(state, BL_F32, 1 << 30, 1 << 30),                                                      \
      "input: a shape has at most 8 axes of sizes 0 or more and 2^40 elements")                    \
    X(bl_broadcast(input(state, BL_F32, 1, 1), BL_SHAPE(INT64_MAX / 2, 8)),                        \
      "broadcast: a shape has at most 8 axes of sizes 0 or more and 2^40 elements")

static void errors_name_what_is_wrong(void **unused)
{
    (void)unused;
#define X(expression, message)                                                                     \
    {                                                                                              \
        void *own, **state = &own;                                                                 \
        new_graph(state);                                                                          \
        BL_UNUSED bl_tensor x = input(state, BL_F32, 2, 3);                                        \
        BL_UNUSED bl_tensor d = input(state, BL_F64, 2, 3), n = input(state, BL_I32, 2, 3);        \
        expect_error(expression, message);                                                         \
        free_graph(state);                                                                         \
    }
    MISTAKES(X)
#undef X
}

static void the_first_error_is_kept_with_scope_file_and_line(void **state)
{
    bl_graph *g = *state;
    bl_scope(g, "elr_loss");
    bl_scope(g, "reg");
    int line = __LINE__ + 1;
    bl_tensor bad = bl_add(input(state, BL_F32, 2), input(state, BL_F32, 3));
    bl_scope_end(g);
    bl_scope_end(g);
    expect_error(bl_exp(bl_sum(bad)), "add: shapes do not broadcast: [2] and [3] in elr_loss/reg");
    char place[64];
    snprintf(place, sizeof place, " at test_graph.c:%d", line);
    assert_non_null(strstr(bl_error(), place));
}

static void composites_report_the_place_of_their_caller(void **state)
{
    int line = __LINE__ + 1;
    bl_tensor z = bl_softmax(input(state, BL_F32, 3), 1);
    expect_error(z, "softmax: there is no axis 1 of 1 axes");
    char place[64];
    snprintf(place, sizeof place, " at test_graph.c:%d", line);
    assert_non_null(strstr(bl_error(), place));
}

static void tensors_of_two_graphs_do_not_mix(void **state)
{
    bl_graph *other = bl_graph_new();
    bl_tensor y = bl_input(other, "y", BL_F32, BL_SHAPE(2));
    expect_error(bl_mul(input(state, BL_F32, 2), y), "mul: operands are of different graphs");
    bl_graph_free(other);
}

static void a_bare_number_is_no_tensor(void **state)
{
    expect_error(bl_reshape(3, BL_SHAPE(1)), "reshape: needs a tensor, not the bare number 3");
    bl_tensor z = bl_add(input(state, BL_F32, 2), bl_argmax(4, 0));
    assert_true(bl_is_poison(z));
    assert_int_equal(bl_graph_status(*state), BL_INVALID);
    assert_non_null(strstr(bl_error(), "argmax: needs a tensor, not the bare number 4"));
}

static void nodes_keep_their_scope(void **state)
{
    bl_tensor x = input(state, BL_F32, 2);
    bl_scope(*state, "block1");
    bl_tensor y = bl_exp(x);
    bl_scope_end(*state);
    bl_tensor z = bl_exp(y);
    assert_string_equal(bl_node_at(*state, y.id)->scope, "block1");
    assert_string_equal(bl_node_at(*state, z.id)->scope, "");
    assert_string_equal(bl_node_at(*state, x.id)->name, "x");
}

/* --- the whole ---------------------------------------------------------------------------------
 */

static void verification_passes_on_what_builders_make(void **state)
{
    bl_tensor x = input(state, BL_F32, 4, 6), dx;
    bl_tensor loss = bl_cross_entropy(bl_softplus(x), bl_argmax(x, 1));
    bl_grad(bl_add(loss, bl_mean(bl_prod(x, 1))), &x, 1, &dx);
    expect_ok(bl_verify(*state));
}

static void verification_names_a_node_of_the_wrong_type(void **state)
{
    bl_tensor x = input(state, BL_F32, 4);
    bl_node broken = *bl_node_at(*state, bl_exp(x).id);
    broken.type.dtype = BL_F64;
    bl_node_copy(*state, &broken, &x.id);
    assert_int_equal(bl_verify(*state), BL_INVALID);
    assert_string_equal(bl_error(), "node 2, exp: has type f64[4], but its rule gives f32[4]");
}

static void copies_keep_data_name_and_place(void **state)
{
    bl_graph *g = bl_graph_new();
    bl_scope(g, "part");
    bl_array a = array_of((bl_type){BL_F32, BL_SHAPE(2)}, VALUES(3, 4));
    int line = __LINE__ + 1;
    bl_tensor c = bl_constant(g, &a);
    bl_array_free(&a);
    bl_tensor copy = bl_node_copy(*state, bl_node_at(g, c.id), NULL);
    bl_tensor named = bl_input(g, "weight", BL_F32, BL_SHAPE(2));
    bl_tensor again = bl_node_copy(*state, bl_node_at(g, named.id), NULL);
    bl_graph_free(g);
    const bl_node *node = bl_node_at(*state, copy.id);
    assert_true(((const float *)node->attr->data)[1] == 4);
    assert_string_equal(node->scope, "part");
    assert_int_equal(node->line, line);
    assert_string_equal(bl_node_at(*state, again.id)->name, "weight");
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Slow tools such as valgrind set BL_PATIENCE to the factor that they cost. */
static double patience(void)
{
    const char *factor = getenv("BL_PATIENCE");
    return factor ? atof(factor) : 1;
}

static void fifty_thousand_nodes_in_a_second(void **state)
{
    double start = seconds();
    bl_tensor x = input(state, BL_F32, 8), y = x, dx;
    for (int i = 0; i < 25000; i++)
        y = bl_mul(bl_sin(y), x); /* deep, and x has 25 000 readers */
    bl_grad(bl_sum(y), &x, 1, &dx);
    expect_ok(bl_graph_status(*state));
    assert_true(bl_graph_size(*state) > 150000);
    if (seconds() - start > patience())
        fail_msg("took %.2f s of processor time", seconds() - start);
}

static void gradients_touch_only_the_path(void **state)
{
    bl_tensor x = input(state, BL_F32, 8), y = input(state, BL_F32, 8), dx;
    bl_tensor unrelated = y;
    for (int i = 0; i < 100; i++)
        unrelated = bl_exp(unrelated);
    bl_tensor loss = bl_sum(bl_mul(x, unrelated));
    int64_t before = bl_graph_size(*state);
    bl_grad(loss, &x, 1, &dx);
    assert_in_range(bl_graph_size(*state) - before, 1, 5);
}

/* Builds something of every kind. */
static void build_all(bl_graph *g)
{
    bl_scope(g, "all");
    bl_tensor x = bl_input(g, "x", BL_F32, BL_SHAPE(2, 3)), dx, hv;
    bl_tensor parts[5] = {x, x, x, x, x};
    bl_tensor y = bl_sum(bl_softmax(bl_concat(parts, 5, 1), -1), 0);
    bl_tensor loss = bl_sum(bl_square(y));
    bl_grad(loss, &x, 1, &dx);
    bl_hvp(loss, &x, &dx, 1, &hv);
    bl_jvp(y, &x, &dx, 1);
    bl_scope_end(g);
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    bool finished = false;
    for (int64_t n = 1; !finished; n++) {
        assert_true(n < 10000);
        bl_fail_allocation(n);
        bl_graph *g = bl_graph_new();
        if (g)
            build_all(g);
        bl_fail_allocation(0);
        bl_status status = bl_graph_status(g);
        finished = status == BL_OK;
        if (!finished)
            assert_non_null(strstr(bl_error(), "memory"));
        bl_graph_free(g);
    }
}

static void scalar_meanings(void **state)
{
    (void)state;
    assert_true(close_to(bl_digamma_scalar(1), -0.57721566490153286, 1e-15));
    assert_true(close_to(bl_digamma_scalar(0.5), -1.9635100260214235, 1e-15));
    assert_true(close_to(bl_digamma_scalar(-0.5), 0.03648997397857652, 1e-14));
    assert_true(close_to(bl_trigamma_scalar(1), 1.6449340668482264, 1e-15));
    assert_true(close_to(bl_trigamma_scalar(0.5), 4.9348022005446793, 1e-15));
    assert_true(close_to(bl_trigamma_scalar(-0.5), 8.9348022005446793, 1e-14));
    assert_true(bl_sigmoid_scalar(-800) == 0 && bl_sigmoid_scalar(800) == 1);
    assert_true(bl_op_scalar(BL_OP_max, NAN, 1, 0) != bl_op_scalar(BL_OP_max, 0, 1, 0));
    assert_true(isnan(bl_op_scalar(BL_OP_min, 1, NAN, 0)));
    assert_true(bl_op_scalar(BL_OP_round, 2.5, 0, 0) == 2);
    assert_true(bl_op_scalar(BL_OP_rem, -7, 3, 0) == -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(binary_builders_broadcast_as_numpy_does),
        TEST(numbers_take_the_dtype_of_what_they_meet),
        TEST(arithmetic_on_numbers_gives_numbers),
        TEST(reductions_drop_or_keep_axes),
        TEST(movement_types),
        TEST(contraction_types),
        TEST(builders_add_nothing_where_nothing_moves),
        TEST(equal_attributes_have_equal_bytes),
        TEST(take_names_the_bad_index),
        TEST(matmul_shows_both_shapes),
        TEST(errors_name_what_is_wrong),
        TEST(the_first_error_is_kept_with_scope_file_and_line),
        TEST(composites_report_the_place_of_their_caller),
        TEST(tensors_of_two_graphs_do_not_mix),
        TEST(a_bare_number_is_no_tensor),
        TEST(nodes_keep_their_scope),
        TEST(verification_passes_on_what_builders_make),
        TEST(verification_names_a_node_of_the_wrong_type),
        TEST(copies_keep_data_name_and_place),
        TEST(fifty_thousand_nodes_in_a_second),
        TEST(gradients_touch_only_the_path),
        TEST(any_allocation_may_fail),
        TEST(scalar_meanings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
