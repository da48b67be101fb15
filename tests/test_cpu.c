/* The cpu executor against the reference executor, and what is its own: donated buffers,
 * threads. The accuracy of its innermost loops is in test_loops.c.
 *
 * BL_SEED=n runs one random graph and prints it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

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

/* --- reductions on large and odd shapes ---------------------------------------------------------
 */

/* y of one f32 input, whose elements are random normal numbers. */
static bl_array gaussian_array(bl_shape shape, uint64_t seed)
{
    bl_array x;
    bl_random random = bl_random_new(bl_key_from_seed(seed));
    expect_ok(bl_array_new(BL_F32, shape, &x));
    for (int64_t i = 0; i < bl_array_count(&x); i++)
        bl_array_set(&x, i, bl_random_gauss(&random));
    return x;
}

static void expect_near(bl_graph *g, bl_shape shape, bl_tensor (*build)(bl_tensor),
                        double tolerance)
{
    bl_tensor x = bl_input(g, "x", BL_F32, shape), y = build(x);
    bl_array in = gaussian_array(shape, 7), a, b;
    expect_ok(bl_evaluate(bl_device_reference(), &x, &in, 1, &y, &a, 1));
    expect_ok(bl_evaluate(bl_device_cpu(), &x, &in, 1, &y, &b, 1));
    int64_t i = first_difference(&a, &b, tolerance);
    if (i >= 0)
        fail_msg("element %lld of %s: %.9g, but %.9g expected", (long long)i, bl_show(a.type),
                 bl_array_get(&b, i), bl_array_get(&a, i));
    bl_array_free(&in);
    bl_array_free(&a);
    bl_array_free(&b);
}

static bl_tensor softmax_rows(bl_tensor x)
{
    return bl_softmax(x, -1);
}
static bl_tensor logsumexp_rows(bl_tensor x)
{
    return bl_logsumexp(x, -1);
}
static bl_tensor column_means(bl_tensor x)
{
    return bl_mean(bl_square(x), 0);
}
static bl_tensor all_mean(bl_tensor x)
{
    return bl_mean(bl_square(x));
}
static bl_tensor largest_of_columns(bl_tensor x)
{
    return bl_reduce_max(bl_neg(x), 0);
}
static bl_tensor product(bl_tensor x)
{
    return bl_mul(0.01, bl_dot(x, x, true, false));
}
static bl_tensor normalised(bl_tensor x)
{
    bl_tensor centred = bl_sub(x, bl_mean_keep(x, -1));
    return bl_div(centred, bl_sqrt(bl_add(bl_mean_keep(bl_square(centred), -1), 1e-5)));
}
static bl_tensor standardised_columns(bl_tensor x)
{
    bl_tensor centred = bl_sub(x, bl_mean_keep(x, 0));
    return bl_mul(centred, bl_rsqrt(bl_add(bl_mean_keep(bl_square(centred), 0), 1e-5)));
}

static void reductions_agree_on_odd_shapes(void **state)
{
    bl_tensor (*const build[])(bl_tensor) = {softmax_rows, logsumexp_rows,      column_means,
                                             all_mean,     normalised,          largest_of_columns,
                                             product,      standardised_columns};
    static const int64_t size[][2] = {{1, 1},    {1, 1000}, {1000, 1},  {37, 10},  {129, 128},
                                      {65, 129}, {3, 3001}, {2, 20011}, {5003, 7}, {300, 300}};
    for (int s = 0; s < COUNT_OF(size); s++)
        for (int i = 0; i < COUNT_OF(build); i++)
            if (build[i] != product || size[s][1] < 1000)
                expect_near(*state, BL_SHAPE(size[s][0], size[s][1]), build[i], 2e-5);
}

static bl_tensor middle_sum(bl_tensor x)
{
    return bl_sum(x, 1);
}
static bl_tensor outer_and_inner_sum(bl_tensor x)
{
    return bl_sum(x, 0, 2);
}
static bl_tensor middle_largest(bl_tensor x)
{
    return bl_reduce_max(x, 1);
}
static bl_tensor running(bl_tensor x)
{
    return bl_cumsum(x, 1);
}
static bl_tensor first_largest(bl_tensor x)
{
    return bl_cast(bl_argmax(x, 1), BL_F32);
}
static bl_tensor order(bl_tensor x)
{
    return bl_cast(bl_argsort(x, 1, true), BL_F32);
}

static void axes_in_the_middle_agree(void **state)
{
    bl_tensor (*const build[])(bl_tensor) = {middle_sum, outer_and_inner_sum, middle_largest,
                                             running,    first_largest,       order};
    for (int i = 0; i < COUNT_OF(build); i++)
        for (int64_t inner = 1; inner < 60; inner = 3 * inner + 1) /* 1 4 13 40 */
            expect_near(*state, BL_SHAPE(7, 133, inner), build[i], 1e-5);
}

static bl_tensor turned(bl_tensor x)
{
    return bl_transpose(x);
}
static bl_tensor turned_and_more(bl_tensor x)
{
    bl_tensor z = bl_transpose(x);
    return bl_add(bl_mul(z, bl_sin(z)), bl_mul(1e-2, bl_sum_keep(z, -1)));
}

static void transposed_operands_are_read_in_blocks(void **state)
{
    static const int64_t size[][2] = {{1, 70},   {70, 1},    {16, 16},   {37, 10},   {129, 128},
                                      {65, 129}, {3, 20011}, {20011, 3}, {300, 500}, {5000, 17}};
    for (int s = 0; s < COUNT_OF(size); s++) {
        expect_near(*state, BL_SHAPE(size[s][0], size[s][1]), turned, 0);
        expect_near(*state, BL_SHAPE(size[s][0], size[s][1]), turned_and_more, 1e-5);
    }
    expect_near(*state, BL_SHAPE(3, 100, 90), turned, 0);
}

/* --- windows, products, bytes -------------------------------------------------------------------
 */

/* The two executors on random elements in [-range, range], which are not 0 and where unsigned not
 * negative; reals to one part in 10^6, integers exactly; the cpu on one thread and on three. */
static void expect_same(const bl_tensor *x, int inputs, bl_tensor y, double range)
{
    bl_array in[2], a, b;
    bl_random random = bl_random_new(bl_key_from_seed(11));
    for (int i = 0; i < inputs; i++) {
        bl_type type = bl_type_of(x[i]);
        expect_ok(bl_array_new(type.dtype, type.shape, &in[i]));
        for (int64_t j = 0; j < bl_array_count(&in[i]); j++) {
            double value = range * (2 * bl_random_unit(&random) - 1);
            bool unsigned_type = type.dtype == BL_U8 || type.dtype == BL_U32;
            double whole = copysign(fmax(1, round(fabs(value))), unsigned_type ? 1 : value);
            bl_array_set(&in[i], j, bl_dtype_is_float(type.dtype) ? value : whole);
        }
    }
    bool real = bl_dtype_is_float(bl_type_of(y).dtype);
    expect_ok(bl_evaluate(bl_device_reference(), x, in, inputs, &y, &a, 1));
    for (int threads = 1; threads <= 3; threads += 2) {
        bl_program *p = NULL;
        bl_compile_options options = {.threads = threads};
        expect_ok(bl_compile(bl_device_cpu(), x, inputs, &y, 1, &options, &p));
        expect_ok(bl_array_new(bl_type_of(y).dtype, bl_type_of(y).shape, &b));
        expect_ok(bl_run(p, in, &b));
        for (int64_t i = 0; i < bl_array_count(&a); i++) {
            double e = bl_array_get(&a, i), got = bl_array_get(&b, i);
            if (!close_enough(got, e, real ? 1e-6 * (1 + fabs(e)) : 0))
                fail_msg("element %lld of %s, %d threads: %.9g, but %.9g expected", (long long)i,
                         bl_show(a.type), threads, got, e);
        }
        bl_program_free(p);
        bl_array_free(&b);
    }
    for (int i = 0; i < inputs; i++)
        bl_array_free(&in[i]);
    bl_array_free(&a);
}

static const bl_dtype numbers[] = {BL_F32, BL_F64, BL_I32, BL_U32, BL_I8, BL_U8};

static void windows_agree(void **state)
{
    static const struct {
        int64_t image[4], rows, columns;
        bl_conv_options options;
    } row[] = {
        {{2, 5, 7, 3}, 3, 3, {{1, 1}, {1, 1}, {1, 1}, {1, 1}, 1}},
        {{1, 9, 4, 1}, 2, 3, {{2, 1}, {0, 2}, {3, 0}, {1, 2}, 1}},
        {{3, 6, 6, 2}, 1, 1, {{3, 2}, {0, 0}, {0, 0}, {1, 1}, 1}},
        {{1, 2, 3, 5}, 2, 5, {{1, 1}, {4, 6}, {1, 7}, {3, 1}, 1}}, /* windows in the padding only */
        {{2, 40, 33, 9}, 5, 4, {{1, 2}, {2, 1}, {2, 3}, {2, 3}, 1}},
    };
    for (int i = 0; i < COUNT_OF(row); i++)
        for (int d = 0; d < COUNT_OF(numbers); d++) {
            const int64_t *s = row[i].image;
            bl_shape shape = BL_SHAPE(s[0], s[1], s[2], s[3]);
            bl_tensor x = bl_input(*state, "x", numbers[d], shape);
            bl_tensor z = bl_patches(x, row[i].rows, row[i].columns, row[i].options);
            expect_same(&x, 1, z, 100);
            bl_tensor taken = bl_input(*state, "taken", numbers[d], bl_type_of(z).shape);
            expect_same(&taken, 1, bl_fold(taken, shape, row[i].options), 100);
        }
}

static void products_over_axes_agree(void **state)
{
    for (int d = 0; d < COUNT_OF(numbers); d++) {
        bl_tensor x = bl_input(*state, "x", numbers[d], BL_SHAPE(5, 7, 3, 11));
        bl_tensor one = bl_input(*state, "one", numbers[d], BL_SHAPE(1, 1));
        expect_same(&x, 1, bl_prod(x, 0), 3);
        expect_same(&x, 1, bl_prod(x, 1, 3), 3);
        expect_same(&x, 1, bl_prod(x, 0, 2), 3);
        expect_same(&x, 1, bl_prod(x, 1, 2), 3);
        expect_same(&x, 1, bl_prod(x, 3), 3);
        expect_same(&x, 1, bl_prod(bl_slice_axis(x, 0, 0, 1)), 3);
        expect_same(&one, 1, bl_prod(one), 3);
    }
}

static void products_of_bytes_are_exact(void **state)
{
    static const int64_t size[][4] = {{1, 1, 1, 1},   {2, 3, 5, 7},  {1, 33, 100, 70},
                                      {3, 1, 65, 9},  {2, 40, 1, 4}, {1, 130, 129, 131},
                                      {1, 5, 9001, 6}};
    for (int i = 0; i < COUNT_OF(size); i++)
        for (int flags = 0; flags < 4; flags++) {
            int64_t b = size[i][0], m = size[i][1], k = size[i][2], n = size[i][3];
            bool ta = flags & 1, tb = flags >> 1;
            bl_tensor x[2] = {
                bl_input(*state, "x", BL_I8, ta ? BL_SHAPE(b, k, m) : BL_SHAPE(b, m, k)),
                bl_input(*state, "y", BL_I8, tb ? BL_SHAPE(b, n, k) : BL_SHAPE(b, k, n))};
            expect_same(x, 2, bl_dot(x[0], x[1], ta, tb), 127);
        }
}

/* In values and in gradients by images, whose padding is not multiplied. In gradients by filters,
 * with padding on one side only, oneDNN does multiply it, and 0 x infinity is NaN (onednn.c). */
static void an_infinity_beside_padding_stays_one(void **state)
{
    static const bl_conv_options options[] = {
        {.low = {1, 1}, .high = {1, 1}},
        {.low = {0, 2}, .high = {2, 0}, .stride = {2, 1}},
        {.low = {2, 1}, .high = {0, 1}, .dilation = {2, 2}},
    };
    for (int i = 0; i < 2 * COUNT_OF(options); i++) {
        bl_tensor x[] = {input(state, BL_F32, 1, 7, 6, 9), input(state, BL_F32, 3, 3, 9, 5)};
        bl_tensor y = bl_conv(x[0], x[1], options[i / 2]);
        if (i % 2)
            bl_grad(bl_sum(bl_square(y)), x, 1, &y);
        bl_array in[2], expected, actual;
        for (int k = 0; k < 2; k++) {
            expect_ok(bl_array_new(BL_F32, bl_type_of(x[k]).shape, &in[k]));
            for (int64_t j = 0; j < bl_array_count(&in[k]); j++)
                bl_array_set(&in[k], j, 0.125 * (double)(1 + j % 7));
        }
        bl_array_set(&in[0], 0, INFINITY);
        expect_ok(bl_evaluate(bl_device_reference(), x, in, 2, &y, &expected, 1));
        expect_ok(bl_evaluate(bl_device_cpu(), x, in, 2, &y, &actual, 1));
        for (int64_t j = 0; j < bl_array_count(&expected); j++)
            if (!isfinite(bl_array_get(&expected, j)))
                assert_true(bl_array_get(&actual, j) == bl_array_get(&expected, j));
            else
                assert_true(isfinite(bl_array_get(&actual, j)));
        bl_array_free(&expected);
        bl_array_free(&actual);
        bl_array_free(&in[0]);
        bl_array_free(&in[1]);
    }
}

/* --- convolutions in tiles -------------------------------------------------------------------- */

/* A convolution with 3 x 3 filters, or one of its adjoints, of the first inputs as `dtype`. */
static bl_tensor filtered(bl_op op, const bl_tensor x[2], const int64_t s[9], bl_dtype dtype)
{
    bl_conv_options o = {.low = {s[5], s[6]}, .high = {s[7], s[8]}};
    bl_tensor a = bl_cast(x[0], dtype), b = bl_cast(x[1], dtype);
    return op == BL_OP_conv      ? bl_conv(a, b, o)
           : op == BL_OP_conv_dx ? bl_conv_dx(a, b, BL_SHAPE(s[0], s[1], s[2], s[3]), o)
                                 : bl_conv_dw(a, b, BL_SHAPE(3, 3, s[3], s[4]), o);
}

/* Of f32 beside the sum in f64: errors are measured by the largest sum of absolute values, as tiles
 * share them. */
static void expect_accurate(void **state, bl_op op, const int64_t s[9])
{
    bl_shape image = BL_SHAPE(s[0], s[1], s[2], s[3]), filter = BL_SHAPE(3, 3, s[3], s[4]);
    bl_shape result = BL_SHAPE(s[0], s[1] + s[5] + s[7] - 2, s[2] + s[6] + s[8] - 2, s[4]);
    bl_tensor x[2] = {bl_input(*state, "x", BL_F32, op == BL_OP_conv_dx ? result : image),
                      bl_input(*state, "y", BL_F32, op == BL_OP_conv_dw ? result : filter)};
    bl_tensor size[2] = {bl_abs(x[0]), bl_abs(x[1])}, y = filtered(op, x, s, BL_F32);
    bl_tensor truth[2] = {filtered(op, x, s, BL_F64), filtered(op, size, s, BL_F64)};
    bl_array in[2], expected[2], actual[2];
    for (int i = 0; i < 2; i++)
        in[i] = gaussian_array(bl_type_of(x[i]).shape, 20 + (uint64_t)i);
    expect_ok(bl_evaluate(bl_device_reference(), x, in, 2, truth, expected, 2));
    for (int i = 0; i < 2; i++) {
        bl_program *p = NULL;
        bl_compile_options options = {.threads = 1 + 2 * i};
        expect_ok(bl_compile(bl_device_cpu(), x, 2, &y, 1, &options, &p));
        char *plan = bl_program_explain(p);
        assert_non_null(strstr(plan, "winograd"));
        bl_release(plan);
        expect_ok(bl_array_new(BL_F32, bl_type_of(y).shape, &actual[i]));
        expect_ok(bl_run(p, in, &actual[i]));
        bl_program_free(p);
    }
    double largest = 0;
    for (int64_t i = 0; i < bl_array_count(&expected[1]); i++)
        largest = fmax(largest, bl_array_get(&expected[1], i));
    for (int64_t i = 0; i < bl_array_count(&actual[0]); i++) {
        double e = bl_array_get(&expected[0], i), got = bl_array_get(&actual[0], i);
        assert_true(got == bl_array_get(&actual[1], i));
        if (fabs(got - e) > 4e-7 * largest)
            fail_msg("element %lld of %s: %.9g, but %.9g expected", (long long)i,
                     bl_show(actual[0].type), got, e);
    }
    for (int i = 0; i < 2; i++) {
        bl_array_free(&in[i]);
        bl_array_free(&expected[i]);
        bl_array_free(&actual[i]);
    }
}

static void convolutions_in_tiles_are_accurate(void **state)
{
    static const int64_t size[][9] = {{5, 9, 11, 16, 32, 1, 1, 1, 1},
                                      {3, 14, 10, 48, 16, 0, 0, 0, 0},
                                      {2, 21, 18, 16, 64, 2, 0, 1, 2},
                                      {9, 10, 13, 16, 16, 3, 4, 3, 1},
                                      {1, 32, 32, 16, 32, 1, 1, 1, 1}};
    for (int i = 0; i < COUNT_OF(size); i++) {
        expect_accurate(state, BL_OP_conv, size[i]);
        expect_accurate(state, BL_OP_conv_dx, size[i]);
        expect_accurate(state, BL_OP_conv_dw, size[i]);
    }
}

/* A stack of rows x columns as the heads of an attention lie: interleaved, a slice of wider rows.
 */
static bl_tensor interleaved(void **state, bl_dtype dtype, const int64_t stack[2], int64_t rows,
                             int64_t columns, bl_tensor *input)
{
    *input = bl_input(*state, "x", dtype, BL_SHAPE(stack[0], rows, stack[1], columns + 2));
    bl_tensor x = bl_slice_axis(bl_round(*input), 3, 1, columns + 1);
    return bl_transpose(x, 0, 2, 1, 3);
}

/* Whole numbers, so that every order of a sum gives the same. */
static void products_read_views_where_they_lie(void **state)
{
    static const int64_t size[][5] = {
        {1, 1, 1, 1, 1},    {2, 3, 5, 7, 3},     {1, 2, 33, 40, 17},   {1, 1, 130, 49, 300},
        {1, 1, 7, 1, 600},  {1, 1, 1, 33, 40},   {3, 1, 12, 16, 32},   {1, 1, 100, 1, 30},
        {2, 1, 12, 10, 64}, {1, 1, 300, 65, 90}, {1, 1, 210, 600, 513}};
    for (int i = 0; i < COUNT_OF(size); i++)
        for (int flags = 0; flags < 8; flags++) {
            const int64_t *s = size[i], m = s[2], n = s[3], k = s[4];
            bool ta = flags & 1, tb = flags >> 1 & 1;
            bl_dtype dtype = flags & 4 ? BL_F64 : BL_F32;
            bl_tensor x[2], a = interleaved(state, dtype, s, ta ? k : m, ta ? m : k, &x[0]);
            bl_tensor b = interleaved(state, dtype, s, tb ? n : k, tb ? k : n, &x[1]);
            expect_same(x, 2, bl_dot(a, b, ta, tb), 4);
        }
}

/* 10^6 times 0.1 added up in f32 one by one gives 100958.3. */
static void long_sums_keep_their_digits(void **state)
{
    enum { N = 1000000 };
    bl_tensor x = input(state, BL_F32, N), y[2];
    y[0] = bl_sum(x);
    y[1] = bl_sum(bl_reshape(x, BL_SHAPE(N / 4, 4)), 0);
    bl_array in, out[2];
    expect_ok(bl_array_new(BL_F32, BL_SHAPE(N), &in));
    for (int i = 0; i < N; i++)
        bl_f32(&in)[i] = 0.1f;
    expect_ok(bl_evaluate(bl_device_cpu(), &x, &in, 1, y, out, 2));
    assert_true(fabs(bl_array_get(&out[0], 0) - 1e5) < 0.05);
    assert_true(fabs(bl_array_get(&out[1], 3) - 2.5e4) < 0.05);
    bl_array_free(&in);
    bl_array_free(&out[0]);
    bl_array_free(&out[1]);
}

static void sorting_puts_nan_last_and_keeps_ties(void **state)
{
    bl_tensor x = input(state, BL_F32, 6), y = bl_argsort(x, 0, false);
    bl_array in = array_of(bl_type_of(x), VALUES(1, NAN, -0.0, 0, -INFINITY, 1)), out;
    expect_ok(bl_evaluate(bl_device_cpu(), &x, &in, 1, &y, &out, 1));
    expect_array(&out, VALUES(4, 2, 3, 0, 5, 1));
    bl_array_free(&in);
    bl_array_free(&out);
}

/* Doubles that agree in their upper halves, and the first few alone. */
static void doubles_are_sorted_to_the_last_bit(void **state)
{
    bl_tensor x = input(state, BL_F64, 20), y = bl_argsort(x, 0, true);
    bl_tensor both[2] = {bl_slice_axis(bl_argsort(bl_neg(x), 0, false), 0, 0, 2), y};
    bl_array in, out[2];
    expect_ok(bl_array_new(BL_F64, BL_SHAPE(20), &in));
    for (int i = 0; i < 20; i++)
        bl_f64(&in)[i] = 1 + (i * 7 % 10) * 0x1p-52;
    bl_f64(&in)[5] = NAN;
    expect_ok(bl_evaluate(bl_device_cpu(), &x, &in, 1, both, out, 2));
    bl_array reference;
    expect_ok(bl_evaluate(bl_device_reference(), &x, &in, 1, &y, &reference, 1));
    assert_memory_equal(bl_i32(&out[1]), bl_i32(&reference), 20 * sizeof(int32_t));
    const int32_t want[2] = {7, 17}; /* 49 mod 10 is 9, the largest */
    assert_memory_equal(bl_i32(&out[0]), want, sizeof want);
    bl_array_free(&in);
    bl_array_free(&out[0]);
    bl_array_free(&out[1]);
    bl_array_free(&reference);
}

/* The places of a top-k with k = 0; sorting wrote before its room. Seen under a sanitizer alone. */
static void a_sort_of_which_nothing_is_read(void **state)
{
    bl_tensor x = input(state, BL_F32, 3, 40), sorted = bl_argsort(x, 1, false);
    bl_tensor none[2] = {bl_slice_axis(sorted, 1, 0, 0), bl_sum(bl_abs(x))};
    bl_array in, out[2];
    expect_ok(bl_array_new(BL_F32, BL_SHAPE(3, 40), &in));
    for (int i = 0; i < 120; i++)
        bl_f32(&in)[i] = (float)(i % 7 - 3);
    expect_ok(bl_evaluate(bl_device_cpu(), &x, &in, 1, none, out, 2));
    assert_int_equal(bl_array_count(&out[0]), 0);
    bl_array_free(&in);
    bl_array_free(&out[0]);
    bl_array_free(&out[1]);
}

/* --- errors ------------------------------------------------------------------------------------
 */

static void an_index_out_of_range_is_named(void **state)
{
    bl_tensor x[2] = {input(state, BL_F32, 4, 2), input(state, BL_I32, 3)};
    bl_tensor y = bl_take(x[0], x[1]);
    bl_array in[2] = {array_of(bl_type_of(x[0]), VALUES(0, 1, 2, 3, 4, 5, 6, 7)),
                      array_of(bl_type_of(x[1]), VALUES(0, -1, 3))};
    bl_array out;
    assert_int_equal(bl_evaluate(bl_device_cpu(), x, in, 2, &y, &out, 1), BL_INVALID);
    assert_non_null(strstr(bl_error(), "take: index -1 (element 1) is not in 0 .. 3"));
    bl_array_free(&in[0]);
    bl_array_free(&in[1]);
}

/* --- donated buffers ---------------------------------------------------------------------------
 */

enum { DONATED = 300 };

/* Runs outputs y on x with donations, on the cpu in place and on the reference apart. */
static void expect_donation(const bl_tensor *x, int inputs, const bl_tensor *y, int outputs,
                            const bl_donation *donation, int donations)
{
    bl_array in[4], out[4], expected[4];
    bl_program *p = NULL;
    bl_compile_options options = {1, donation, donations};
    for (int i = 0; i < inputs; i++) {
        bl_type t = bl_type_of(x[i]);
        expect_ok(bl_array_new(t.dtype, t.shape, &in[i]));
        for (int64_t e = 0; e < bl_array_count(&in[i]); e++)
            bl_array_set(&in[i], e, t.dtype == BL_I32 ? (double)(e * 7 % 11) : (double)e / 8 - i);
    }
    expect_ok(bl_evaluate(bl_device_reference(), x, in, inputs, y, expected, outputs));
    expect_ok(bl_compile(bl_device_cpu(), x, inputs, y, outputs, &options, &p));
    for (int o = 0; o < outputs; o++) {
        bl_type t = bl_type_of(y[o]);
        expect_ok(bl_array_new(t.dtype, t.shape, &out[o]));
    }
    for (int d = 0; d < donations; d++) {
        bl_array_free(&out[donation[d].output]);
        out[donation[d].output] = in[donation[d].input];
    }
    expect_ok(bl_run(p, in, out));
    for (int o = 0; o < outputs; o++)
        if (first_difference(&out[o], &expected[o], 1e-4) >= 0)
            fail_msg("output %d differs at element %lld", o,
                     (long long)first_difference(&out[o], &expected[o], 1e-4));
    bl_program_free(p);
    for (int d = 0; d < donations; d++)
        out[donation[d].output].data = NULL;
    for (int i = 0; i < inputs; i++)
        bl_array_free(&in[i]);
    for (int o = 0; o < outputs; o++) {
        bl_array_free(&out[o]);
        bl_array_free(&expected[o]);
    }
}

#define DONATE(x, y, ...)                                                                          \
    expect_donation(x, COUNT_OF(x), y, COUNT_OF(y), (const bl_donation[]){__VA_ARGS__},            \
                    COUNT_OF(((const bl_donation[]){__VA_ARGS__})))

static void donated_state_is_updated_in_place(void **state)
{
    bl_tensor x[] = {input(state, BL_F32, DONATED), input(state, BL_F32, DONATED)};
    bl_tensor v = bl_add(bl_mul(0.9, x[1]), x[0]);
    bl_tensor y[] = {bl_sub(x[0], bl_mul(0.1, v)), v};
    DONATE(x, y, {0, 0}, {1, 1});
}

static void donated_buffers_may_be_exchanged(void **state)
{
    bl_tensor x[] = {input(state, BL_F32, DONATED), input(state, BL_F32, DONATED)};
    bl_tensor y[] = {x[1], x[0]};
    DONATE(x, y, {0, 0}, {1, 1});
    bl_tensor z[] = {bl_add(x[1], 1), bl_mul(x[0], 2)};
    DONATE(x, z, {0, 0}, {1, 1});
}

static void a_donated_buffer_may_be_read_elsewhere(void **state)
{
    bl_tensor x[] = {input(state, BL_F32, 17, 17), input(state, BL_F32, 17)};
    bl_tensor y[] = {bl_add(bl_transpose(x[0]), x[0]), bl_sum(bl_mul(x[0], 2), 0)};
    DONATE(x, y, {0, 0}, {1, 1});
    bl_tensor reversed[] = {bl_mul(3, bl_reverse(x[0], 0)), bl_add(x[1], bl_reverse(x[1], 0))};
    DONATE(x, reversed, {0, 0}, {1, 1});
    bl_tensor centred[] = {bl_sub(x[0], bl_mean_keep(x[0], -1)), bl_sub(x[1], bl_sum(x[0], 1))};
    DONATE(x, centred, {0, 0}, {1, 1});
    bl_tensor late[] = {bl_add(x[0], 1), bl_sum(bl_dot(x[0], x[0], false, true), 0)};
    DONATE(x, late, {0, 0}, {1, 1});
}

static void rows_of_a_donated_bank_are_replaced(void **state)
{
    bl_tensor x[] = {input(state, BL_F32, 50, 3), input(state, BL_I32, 5)};
    bl_tensor old = bl_take(x[0], x[1]);
    bl_tensor y[] = {bl_put(x[0], x[1], bl_add(bl_mul(old, 0.5), 1)), bl_sum(old)};
    DONATE(x, y, {0, 0});
    bl_tensor twice[] = {bl_put(bl_put(x[0], x[1], old), x[1], bl_neg(old)), bl_sum(x[0])};
    DONATE(x, twice, {0, 0});
}

/* A bank that is updated in place costs no memory of its own. */
static void a_donated_bank_is_not_copied(void **state)
{
    bl_tensor x[] = {input(state, BL_F32, 50000, 10), input(state, BL_I32, 5)};
    bl_tensor y = bl_put(x[0], x[1], bl_mul(0.5, bl_take(x[0], x[1])));
    bl_program *p = NULL;
    bl_compile_options options = {1, &(bl_donation){0, 0}, 1};
    expect_ok(bl_compile(bl_device_cpu(), x, 2, &y, 1, &options, &p));
    assert_true(bl_program_work(p).memory < 100000);
    bl_program_free(p);
}

/* --- threads -----------------------------------------------------------------------------------
 */

static bl_array run_with_threads(const bl_tensor *x, const bl_array *in, bl_tensor y, int threads)
{
    bl_program *p = NULL;
    bl_compile_options options = {.threads = threads};
    bl_type type = bl_type_of(y);
    bl_array out;
    expect_ok(bl_compile(bl_device_cpu(), x, 2, &y, 1, &options, &p));
    expect_ok(bl_array_new(type.dtype, type.shape, &out));
    expect_ok(bl_run(p, in, &out));
    bl_program_free(p);
    return out;
}

static void results_do_not_depend_on_the_threads(void **state)
{
    bl_tensor x[] = {input(state, BL_F32, 1000, 300), input(state, BL_F32, 300)};
    bl_tensor h = bl_add(bl_tanh(bl_mul(x[0], x[1])), x[1]);
    bl_tensor y = bl_add(bl_mul(bl_sum(h, 0), bl_sum(bl_softmax(h, -1))), bl_reduce_max(h, 0));
    bl_array in[2];
    bl_random random = bl_random_new(bl_key_from_seed(5));
    for (int i = 0; i < 2; i++) {
        expect_ok(bl_array_new(BL_F32, bl_type_of(x[i]).shape, &in[i]));
        for (int64_t e = 0; e < bl_array_count(&in[i]); e++)
            bl_array_set(&in[i], e, bl_random_gauss(&random));
    }
    bl_array one = run_with_threads(x, in, y, 1);
    for (int threads = 2; threads < 5; threads++) {
        bl_array more = run_with_threads(x, in, y, threads);
        assert_memory_equal(one.data, more.data, bl_type_bytes(one.type));
        bl_array_free(&more);
    }
    bl_array_free(&one);
    bl_array_free(&in[0]);
    bl_array_free(&in[1]);
}

/* Large enough to be cut into several tasks. */
static void contractions_do_not_depend_on_the_threads(void **state)
{
    bl_tensor x[] = {input(state, BL_F32, 16, 24, 24, 32), input(state, BL_F32, 3, 3, 32, 64)};
    bl_conv_options same = {.low = {1, 1}, .high = {1, 1}};
    bl_tensor z = bl_conv(x[0], x[1], same), d[2];
    bl_grad(bl_sum(bl_square(z)), x, 2, d);
    bl_tensor rows = bl_reshape(z, BL_SHAPE(1024, 576));
    bl_tensor y =
        bl_add(bl_sum(bl_dot(rows, rows, true, false), 0),
               bl_reshape(bl_slice_axis(bl_reshape(d[1], BL_SHAPE(-1)), 0, 0, 576), BL_SHAPE(576)));
    y = bl_add(y, bl_sum(d[0]));
    bl_array in[2];
    bl_random random = bl_random_new(bl_key_from_seed(6));
    for (int i = 0; i < 2; i++) {
        expect_ok(bl_array_new(BL_F32, bl_type_of(x[i]).shape, &in[i]));
        for (int64_t e = 0; e < bl_array_count(&in[i]); e++)
            bl_array_set(&in[i], e, 0.1 * bl_random_gauss(&random));
    }
    bl_array one = run_with_threads(x, in, y, 1), two = run_with_threads(x, in, y, 2), expected;
    assert_memory_equal(one.data, two.data, bl_type_bytes(one.type));
    expect_ok(bl_evaluate(bl_device_reference(), x, in, 2, &y, &expected, 1));
    for (int64_t i = 0; i < 576; i++)
        assert_true(close_to(bl_array_get(&one, i), bl_array_get(&expected, i), 1e-3));
    bl_array_free(&one);
    bl_array_free(&two);
    bl_array_free(&expected);
    bl_array_free(&in[0]);
    bl_array_free(&in[1]);
}

/* --- failing allocations ------------------------------------------------------------------------
 */

static void every_failed_allocation_is_a_status(void **state)
{
    bl_tensor x[] = {input(state, BL_F32, 200, 30), input(state, BL_F32, 30, 200)};
    bl_tensor y = bl_sum(bl_softmax(bl_dot(x[0], x[1], false, false), -1), 0);
    bool done = false;
    for (int64_t n = 1; !done; n++) {
        bl_program *p = NULL;
        bl_fail_allocation(n);
        bl_status status = bl_compile(bl_device_cpu(), x, 2, &y, 1, NULL, &p);
        done = failure_to_come();
        bl_fail_allocation(0);
        assert_int_equal(status, done ? BL_OK : BL_NO_MEMORY);
        bl_program_free(p);
        assert_true(n < 2000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_graphs_agree_with_the_reference),
        TEST(reductions_agree_on_odd_shapes),
        TEST(axes_in_the_middle_agree),
        TEST(transposed_operands_are_read_in_blocks),
        TEST(windows_agree),
        TEST(products_over_axes_agree),
        TEST(an_infinity_beside_padding_stays_one),
        TEST(convolutions_in_tiles_are_accurate),
        TEST(products_read_views_where_they_lie),
        TEST(products_of_bytes_are_exact),
        TEST(long_sums_keep_their_digits),
        TEST(sorting_puts_nan_last_and_keeps_ties),
        TEST(doubles_are_sorted_to_the_last_bit),
        TEST(a_sort_of_which_nothing_is_read),
        TEST(an_index_out_of_range_is_named),
        TEST(donated_state_is_updated_in_place),
        TEST(donated_buffers_may_be_exchanged),
        TEST(a_donated_buffer_may_be_read_elsewhere),
        TEST(rows_of_a_donated_bank_are_replaced),
        TEST(a_donated_bank_is_not_copied),
        TEST(results_do_not_depend_on_the_threads),
        TEST(contractions_do_not_depend_on_the_threads),
        TEST(every_failed_allocation_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
