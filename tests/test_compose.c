/* Windows, their adjoint, products of small integers, and the composites over images, groups,
 * attention and order: values by hand, edges, and the messages of bad operands. */
#include "support.h"

#define S(...) BL_SHAPE(__VA_ARGS__)
#define F(...) ((bl_conv_options){__VA_ARGS__})

/* --- windows -----------------------------------------------------------------------------------
 */

static void patches_are_windows_in_row_major_order(void **state)
{
    bl_tensor x = input(state, BL_F32, 1, 2, 3, 1), z = bl_patches(x, 2, 2, F(0));
    expect_type(z, "f32[1,1,2,2,2,1]");
    expect_result(z, x, VALUES(1, 2, 3, 4, 5, 6), VALUES(1, 2, 4, 5, 2, 3, 5, 6));
}

static void padding_is_zero_and_dilation_skips(void **state)
{
    bl_tensor x = input(state, BL_I32, 1, 1, 3, 1);
    bl_tensor z = bl_patches(x, 1, 2, F(.low = {0, 1}, .dilation = {1, 2}, .stride = {1, 2}));
    expect_result(z, x, VALUES(7, 8, 9), VALUES(0, 8));
}

static void fold_adds_up_what_overlaps(void **state)
{
    bl_tensor x = input(state, BL_I8, 1, 1, 2, 1, 2, 1);
    expect_result(bl_fold(x, S(1, 1, 3, 1), F(0)), x, VALUES(1, 2, 3, 4), VALUES(1, 5, 4));
    bl_tensor counts = bl_fold(bl_patches(bl_full(*state, BL_F32, S(1, 3, 3, 1), 1), 2, 2, F(0)),
                               S(1, 3, 3, 1), F(0));
    expect_result(counts, x, VALUES(1, 2, 3, 4), VALUES(1, 2, 1, 2, 4, 2, 1, 2, 1));
}

static void a_convolution_is_patches_times_the_filter(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 5, 4, 3), w = bl_iota(*state, BL_F64, S(2, 3, 3, 2), 2);
    bl_conv_options o = F(.stride = {2, 1}, .low = {1, 2}, .high = {0, 1}, .dilation = {2, 1});
    bl_tensor z = bl_conv(x, w, o), windows = bl_patches(x, 2, 3, o);
    bl_tensor rows = bl_reshape(windows, S(2, bl_dim(z, 1), bl_dim(z, 2), 18));
    double values[120], zero[120] = {0};
    for (int i = 0; i < 120; i++)
        values[i] = (i * 37 % 19) - 9;
    bl_tensor difference = bl_sub(z, bl_matmul(rows, bl_reshape(w, S(18, 2))));
    assert_in_range(bl_type_count(bl_type_of(difference)), 1, 120);
    expect_result(difference, x, values, zero);
}

static void windows_of_nothing(void **state)
{
    bl_tensor x = input(state, BL_F32, 0, 3, 3, 2), z = bl_patches(x, 2, 2, F(0));
    expect_type(z, "f32[0,2,2,2,2,2]");
    expect_result(bl_sum(bl_fold(z, S(0, 3, 3, 2), F(0))), x, VALUES(0), VALUES(0));
    bl_tensor none = input(state, BL_F32, 1, 3, 3, 0);
    expect_result(bl_sum(bl_patches(none, 3, 3, F(0))), none, VALUES(0), VALUES(0));
}

/* --- distances ---------------------------------------------------------------------------------
 */

static void distances_of_all_rows_to_all_rows(void **state)
{
    bl_tensor x = input(state, BL_F32, 2, 2), y = bl_iota(*state, BL_F32, S(3, 2), 0);
    bl_tensor z = bl_square_distances(x, y);
    expect_type(z, "f32[2,3]");
    expect_result(z, x, VALUES(0, 0, 1, 4), VALUES(0, 2, 8, 17, 9, 5));
    expect_gradient(bl_sum(z), x, VALUES(0, 0, 1, 4), VALUES(-6, -6, 0, 18));
    expect_gradient(bl_sum(bl_square_distances(x, x)), x, VALUES(1, 2, 1, 2), VALUES(0, 0, 0, 0));
    expect_type(bl_square_distances(bl_full(*state, BL_F32, S(4, 1, 5, 2), 0), x), "f32[4,1,5,2]");
}

static void distances_need_rows_of_equal_length(void **state)
{
    bl_tensor x = input(state, BL_F32, 2, 2);
    expect_error(bl_square_distances(x, bl_full(*state, BL_F32, S(3, 1), 0)),
                 "square_distances: f32[2,2] and f32[3,1], expected rows of equal length");
}

/* --- rows, products, systems -------------------------------------------------------------------
 */

static void one_entry_of_an_axis(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 3), z = bl_pick(x, 1, 2), last = bl_pick(x, -2, 1);
    const double *values = VALUES(1, 2, 3, 4, 5, 6);
    expect_type(z, "f64[2]");
    expect_result(z, x, values, VALUES(3, 6));
    expect_result(last, x, values, VALUES(4, 5, 6));
    expect_gradient(bl_sum(bl_square(z)), x, values, VALUES(0, 0, 6, 0, 0, 12));
}

static void products_and_lengths_over_all_entries(void **state)
{
    bl_tensor x = input(state, BL_F32, 2, 2);
    const double *values = VALUES(3, 0, 0, -4);
    expect_result(bl_length(x), x, values, VALUES(5));
    expect_gradient(bl_length(x), x, values, VALUES(0.6, 0, 0, -0.8));
    expect_gradient(bl_length(x), x, VALUES(0, 0, 0, 0), VALUES(0, 0, 0, 0));
    expect_result(bl_inner(x, bl_iota(*state, BL_F32, S(2, 2), 1)), x, values, VALUES(-4));
    expect_gradient(bl_inner(x, x), x, values, VALUES(6, 0, 0, -8));
    expect_type(bl_inner(bl_to_f64(x), 2), "f64[]");
}

static void short_rows_are_divided_by_the_floor(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 2), floor = bl_full(*state, BL_F64, BL_SCALAR, 2);
    expect_result(bl_unit_rows(x, floor), x, VALUES(3, 4, 0, 1), VALUES(0.6, 0.8, 0, 0.5));
}

/* x^T x = [[2,0],[0,8]], so rows of b are divided by 4 and 10. */
static void ridge_systems(void **state)
{
    bl_tensor b = input(state, BL_F64, 2, 2);
    bl_array rows = array_of((bl_type){BL_F64, S(3, 2)}, VALUES(1, 2, 1, -2, 0, 0));
    bl_tensor x = bl_constant(*state, &rows), z = bl_ridge_solve(b, x, 2);
    bl_array_free(&rows);
    expect_result(z, b, VALUES(4, 10, 8, -5), VALUES(1, 1, 2, -0.5));
    expect_gradient(bl_sum(z), b, VALUES(0, 0, 0, 0), VALUES(0.25, 0.1, 0.25, 0.1));
    expect_result(bl_identity(*state, BL_F64, 2), b, VALUES(0, 0, 0, 0), VALUES(1, 0, 0, 1));
    expect_type(bl_identity(*state, BL_F32, 0), "f32[0,0]");
}

/* --- small integers ----------------------------------------------------------------------------
 */

static void products_of_i8_are_summed_in_i32(void **state)
{
    bl_tensor x = input(state, BL_I8, 2, 3), z = bl_dot(x, x, false, true);
    expect_type(z, "i32[2,2]");
    expect_result(z, x, VALUES(-128, -128, -128, 127, 127, 127),
                  VALUES(49152, -48768, -48768, 48387));
}

/* --- pooling, resizing -------------------------------------------------------------------------
 */

static void overlapping_maxima_share_a_pixel(void **state)
{
    bl_tensor x = input(state, BL_F64, 1, 1, 5, 1);
    bl_tensor z = bl_max_pool(x, 1, 3, F(.stride = {1, 2}));
    const double *values = VALUES(1, 2, 9, 4, 3);
    expect_result(z, x, values, VALUES(9, 9));
    expect_gradient(bl_sum(z), x, values, VALUES(0, 0, 2, 0, 0));
}

static void padding_is_never_the_maximum(void **state)
{
    bl_tensor x = input(state, BL_F64, 1, 2, 2, 1);
    bl_tensor z = bl_max_pool(x, 3, 3, F(.low = {1, 1}, .high = {1, 1}));
    expect_result(z, x, VALUES(-4, -3, -2, -1), VALUES(-1, -1, -1, -1));
}

static void mean_pool_counts_padding_as_zeros(void **state)
{
    bl_tensor x = input(state, BL_F64, 1, 1, 3, 1);
    bl_tensor z = bl_mean_pool(x, 1, 2, F(.stride = {1, 2}, .high = {0, 1}));
    expect_result(z, x, VALUES(2, 4, 6), VALUES(3, 3));
}

static void a_transposed_convolution_spreads_the_filter(void **state)
{
    bl_tensor x = input(state, BL_F64, 1, 1, 2, 1);
    bl_array weights = array_of((bl_type){BL_F64, S(1, 3, 1, 1)}, VALUES(1, 10, 100));
    bl_tensor z = bl_conv_transpose(x, bl_constant(*state, &weights), F(.stride = {1, 2}));
    bl_array_free(&weights);
    expect_result(z, x, VALUES(1, 2), VALUES(1, 10, 102, 20, 200));
}

static void bilinear_sizes(void **state)
{
    bl_tensor x = input(state, BL_F64, 1, 1, 2, 1);
    expect_result(bl_resize_bilinear(x, 1, 4), x, VALUES(0, 4), VALUES(0, 1, 3, 4));
    bl_tensor tall = input(state, BL_F64, 1, 4, 1, 1);
    expect_result(bl_resize_bilinear(tall, 2, 1), tall, VALUES(0, 2, 4, 6), VALUES(1, 5));
    assert_int_equal(bl_resize_bilinear(x, 1, 2).id, x.id);
    bl_tensor square = input(state, BL_F64, 1, 2, 2, 1);
    expect_result(bl_resize_bilinear(square, 3, 3), square, VALUES(0, 2, 4, 6),
                  VALUES(0, 1, 2, 2, 3, 4, 4, 5, 6));
}

static void aligned_corners_stay(void **state)
{
    bl_tensor x = input(state, BL_F64, 1, 2, 3, 1);
    const double *values = VALUES(0, 1, 4, 10, 11, 14);
    expect_result(bl_resize_aligned(x, 3, 5), x, values,
                  VALUES(0, 0.5, 1, 2.5, 4, 5, 5.5, 6, 7.5, 9, 10, 10.5, 11, 12.5, 14));
    expect_result(bl_resize_aligned(x, 1, 2), x, values, VALUES(0, 4));
    expect_gradient(bl_sum(bl_resize_aligned(x, 2, 2)), x, values, VALUES(1, 0, 1, 1, 0, 1));
}

/* Between corners that stay: bilinear in x[rows,columns,channels]. */
static double between(const double *x, const int64_t *from, double row, double column, int64_t c)
{
    int64_t i = (int64_t)row, j = (int64_t)column, W = from[1], C = from[2];
    int64_t down = i + 1 < from[0] ? i + 1 : i, right = j + 1 < W ? j + 1 : j;
    double a = row - (double)i, b = column - (double)j;
    return (1 - a) * ((1 - b) * x[(i * W + j) * C + c] + b * x[(i * W + right) * C + c]) +
           a * ((1 - b) * x[(down * W + j) * C + c] + b * x[(down * W + right) * C + c]);
}

/* Bands of the matrices, few channels and many; the gradient is the adjoint, <x, A^T y> = <A x, y>,
 * and so is the gradient's. */
static void large_images_are_resized_by_bands(void **state)
{
    static const int64_t sizes[][5] = {{97, 130, 2, 150, 101}, {100, 98, 40, 96, 111}};
    for (int s = 0; s < 2; s++) {
        const int64_t *n = sizes[s], count = n[0] * n[1] * n[2], rows = n[3], columns = n[4];
        bl_tensor x = input(state, BL_F64, 1, n[0], n[1], n[2]),
                  y = bl_resize_aligned(x, rows, columns);
        double *values = bl_alloc((size_t)count * sizeof *values);
        bl_random r = bl_random_new(bl_key_from_seed(4));
        for (int64_t i = 0; i < count; i++)
            values[i] = bl_random_gauss(&r);
        bl_array got = evaluate(y, &x, (const double *const *)&values, 1);
        for (int64_t i = 0; i < bl_array_count(&got); i++) {
            int64_t c = i % n[2], j = i / n[2] % columns, k = i / n[2] / columns;
            double row = (double)(k * (n[0] - 1)) / (double)(rows - 1);
            double column = (double)(j * (n[1] - 1)) / (double)(columns - 1);
            assert_true(close_to(bl_array_get(&got, i), between(values, n, row, column, c), 1e-12));
        }
        bl_tensor w = bl_sin(bl_mul(y, 3)),
                  slope = gradient(bl_sum(bl_mul(y, bl_stop_gradient(w))), x);
        bl_tensor apart = bl_sub(bl_sum(bl_mul(x, slope)), bl_sum(bl_mul(y, w)));
        expect_result(bl_div(apart, bl_sum(bl_abs(y))), x, values, VALUES(0));
        bl_tensor square =
            gradient(bl_sum(bl_square(y)), x); /* 2 A^T A x: its gradient along v, 2 A^T A v */
        bl_tensor v = bl_cos(x), along = gradient(bl_sum(bl_mul(square, bl_stop_gradient(v))), x);
        bl_tensor again = bl_sum(bl_square(bl_resize_aligned(v, rows, columns)));
        apart = bl_sub(bl_sum(bl_mul(along, v)), bl_mul(2, again));
        expect_result(bl_div(apart, again), x, values, VALUES(0));
        bl_array_free(&got);
        bl_release(values);
    }
}

static void the_nearest_pixel_is_copied(void **state)
{
    bl_tensor x = input(state, BL_F64, 1, 2, 3, 1); /* [0 1 2; 3 4 5] */
    const double *values = VALUES(0, 1, 2, 3, 4, 5);
    expect_result(bl_resize_nearest(x, 4, 2), x, values, VALUES(0, 1, 0, 1, 3, 4, 3, 4));
    expect_result(bl_resize_nearest(x, 2, 3), x, values, values);
    expect_gradient(bl_sum(bl_resize_nearest(x, 4, 2)), x, values, VALUES(2, 2, 0, 2, 2, 0));
}

static void filters_mirror_the_image_with_or_without_its_edge(void **state)
{
    bl_tensor x = input(state, BL_F64, 1, 1, 3, 1); /* 1 2 4 */
    const double *values = VALUES(1, 2, 4), *kernel = VALUES(0, 0, 0, 0, 0, 0, 1);
    expect_result(bl_filter_axes(x, VALUES(0, 0, 1), 1, false), x, values, VALUES(2, 4, 4));
    expect_result(bl_filter_axes(x, VALUES(0, 0, 1), 1, true), x, values, VALUES(2, 4, 2));
    expect_result(bl_filter_axes(x, VALUES(1, 0, 0), 1, false), x, values, VALUES(1, 1, 2));
    expect_result(bl_filter_axes(x, VALUES(1, 0, 0), 1, true), x, values, VALUES(2, 1, 2));
    /* three places on: 1 2 4 | 4 2 1, and 1 2 4 | 2 1 2 */
    expect_result(bl_filter_axes(x, kernel, 3, false), x, values, VALUES(4, 2, 1));
    expect_result(bl_filter_axes(x, kernel, 3, true), x, values, VALUES(2, 1, 2));
    bl_tensor y = bl_filter_axes(x, VALUES(0.25, 0.5, 0.25), 1, false);
    expect_result(y, x, values, VALUES(1.25, 2.25, 3.5));
    expect_gradient(bl_sum(bl_mul(y, bl_iota(*state, BL_F64, S(1, 1, 3, 1), 2))), x, values,
                    VALUES(0.25, 1, 1.75));
}

static void a_blur_keeps_what_is_constant(void **state)
{
    bl_tensor x = input(state, BL_F64, 1, 2, 2, 1);
    expect_result(bl_gaussian_blur(x, 3, 9, false), x, VALUES(7, 7, 7, 7), VALUES(7, 7, 7, 7));
    expect_result(bl_gaussian_blur(x, 1e-200, 1, true), x, VALUES(1, 2, 3, 4), VALUES(1, 2, 3, 4));
}

static void activations_have_their_slopes_at_zero_and_far_out(void **state)
{
    bl_tensor x = input(state, BL_F32, 3);
    const double *values = VALUES(-4, 0, 4);
    expect_result(bl_leaky_relu(x, 0.25), x, values, VALUES(-1, 0, 4));
    expect_gradient(bl_sum(bl_leaky_relu(x, 0.25)), x, values, VALUES(0.25, 1, 1));
    expect_result(bl_softsign(x), x, values, VALUES(-0.8, 0, 0.8));
    double e4 = 1 / (1 + exp(-4));
    expect_result(bl_silu(x), x, values, VALUES(-4 * (1 - e4), 0, 4 * e4));
    expect_gradient(bl_sum(bl_silu(x)), x, VALUES(0, -800, 800), VALUES(0.5, 0, 1));
    expect_gradient(bl_sum(bl_softsign(x)), x, values, VALUES(0.04, 1, 0.04));
    expect_result(bl_softsign(x), x, VALUES(-INFINITY, 1e-30, NAN), VALUES(-1, 1e-30, NAN));
    bl_tensor far = bl_mul(1e6, gradient(bl_sum(bl_mul(1e6, bl_softsign(x))), x));
    expect_result(far, x, VALUES(-99999, 9999, 999999), VALUES(100, 1e4, 1));
    bl_tensor bend = gradient(bl_sum(gradient(bl_sum(bl_softsign(x)), x)), x); /* -2s/(1+|x|)^3 */
    expect_result(bend, x, VALUES(-1, 1, 3), VALUES(0.25, -0.25, -0.03125));
}

/* --- normalisation -----------------------------------------------------------------------------
 */

static void normalised_groups(void **state)
{
    bl_tensor x = input(state, BL_F64, 1, 2, 4); /* groups {0,1} and {2,3} over both rows */
    const double *values = VALUES(1, 3, 0, 0, 1, 3, 0, 0);
    expect_result(bl_group_normalize(x, 2, 1, 0, 0.5), x, values,
                  VALUES(-sqrt(2. / 3), sqrt(2. / 3), 0, 0, -sqrt(2. / 3), sqrt(2. / 3), 0, 0));
    expect_result(bl_instance_normalize(x, 2, 1, 1), x, values, VALUES(1, 1, 1, 1, 1, 1, 1, 1));
    expect_result(bl_layer_normalize(x, 1, 0, 0.5), x, values,
                  VALUES(0, sqrt(2), -sqrt(0.5), -sqrt(0.5), 0, sqrt(2), -sqrt(0.5), -sqrt(0.5)));
}

static void a_constant_row_normalises_to_zero_with_a_finite_gradient(void **state)
{
    bl_tensor x = input(state, BL_F32, 1, 3), z = bl_layer_normalize(x, 1, 0, 1e-5);
    expect_result(z, x, VALUES(80, 80, 80), VALUES(0, 0, 0));
    expect_gradient(bl_sum(bl_mul(z, bl_iota(*state, BL_F32, S(1, 3), 1))), x, VALUES(80, 80, 80),
                    VALUES(-sqrt(1e5), 0, sqrt(1e5)));
}

/* --- attention ---------------------------------------------------------------------------------
 */

static void attention_is_a_weighted_mean(void **state)
{
    bl_tensor q = input(state, BL_F64, 1, 1);
    bl_array keys = array_of((bl_type){BL_F64, S(2, 1)}, VALUES(0, 1));
    bl_tensor k = bl_constant(*state, &keys), v = bl_add(bl_mul(k, 4), 1);
    bl_array_free(&keys);
    expect_result(bl_attention(q, k, v, 1), q, VALUES(log(3)), VALUES(4));
    expect_result(bl_attention(q, k, v, 1), q, VALUES(800), VALUES(5));
}

static void a_row_that_sees_nothing_is_zero_with_gradient_zero(void **state)
{
    bl_tensor q = input(state, BL_F64, 2, 1);
    bl_tensor mask = bl_lt(bl_iota(*state, BL_I32, S(2, 2), 0), 1); /* row 1 sees nothing */
    bl_tensor z = bl_attention(q, q, q, mask);
    expect_result(z, q, VALUES(0, 6), VALUES(3, 0));
    bl_tensor second = bl_reshape(bl_slice_axis(z, 0, 1, 2), BL_SCALAR);
    expect_gradient(second, q, VALUES(0, 6), VALUES(0, 0));
    bl_tensor twice = gradient(bl_sum(bl_square(z)), q);
    expect_gradient(bl_mul(0, bl_sum(twice)), q, VALUES(80, -80), VALUES(0, 0));
}

/* Two heads of one column each are two attentions side by side. */
static void heads_share_the_columns(void **state)
{
    bl_tensor q = input(state, BL_F64, 1, 2, 2);
    bl_tensor causal =
        bl_le(bl_iota(*state, BL_I32, S(2, 2), 1), bl_iota(*state, BL_I32, S(2, 2), 0));
    bl_tensor z = bl_multi_head_attention(q, q, q, causal, 2);
    expect_result(z, q, VALUES(1, 3, 0, 0), VALUES(1, 3, 0.5, 1.5));
    expect_type(bl_multi_head_attention(q, bl_full(*state, BL_F64, S(1, 5, 2), 1),
                                        bl_full(*state, BL_F64, S(1, 5, 6), 1), 1, 2),
                "f64[1,2,6]");
}

static void a_linear_map_of_rows(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 1, 2), w = bl_iota(*state, BL_F64, S(3, 2), 0);
    expect_result(bl_linear(x, w, 0), x, VALUES(1, 2, 3, 4), VALUES(0, 3, 6, 0, 7, 14));
    expect_result(bl_linear(x, w, bl_iota(*state, BL_F64, S(3), 0)), x, VALUES(1, 2, 3, 4),
                  VALUES(0, 4, 8, 0, 8, 16));
    bl_tensor row = input(state, BL_F64, 2);
    expect_result(bl_linear(row, w, 0), row, VALUES(1, 2), VALUES(0, 3, 6));
}

/* --- order -------------------------------------------------------------------------------------
 */

static void sorting_keeps_ties_in_order(void **state)
{
    bl_tensor x = input(state, BL_F64, 4), value, index;
    const double *values = VALUES(2, 5, 2, 5);
    expect_result(bl_sort(x, 0, false), x, values, VALUES(2, 2, 5, 5));
    bl_top_k(x, 3, &value, &index);
    expect_result(value, x, values, VALUES(5, 5, 2));
    expect_result(index, x, values, VALUES(1, 3, 0));
    expect_gradient(bl_sum(value), x, values, VALUES(1, 1, 0, 1));
    bl_top_k(x, 0, &value, NULL);
    expect_type(value, "f64[0]");
}

static void sparsemax_is_the_nearest_point_of_the_simplex(void **state)
{
    bl_tensor x = input(state, BL_F64, 4, 3), p = bl_sparsemax(x);
    const double *values = VALUES(1, 0, -1, 0.5, 0.5, 0.1, 80, -80, 79.5, -3, -3, -3);
    const double third = 1.0 / 3;
    expect_result(p, x, values,
                  VALUES(1, 0, 0, 1.4 / 3, 1.4 / 3, 0.2 / 3, 0.75, 0, 0.25, third, third, third));
    /* of p_1: the second row has all in its support, the third the first and last */
    bl_tensor first = bl_sum(bl_slice_axis(p, 1, 0, 1));
    expect_gradient(
        first, x, values,
        VALUES(0, 0, 0, 2 * third, -third, -third, 0.5, 0, -0.5, 2 * third, -third, -third));
    expect_gradient(bl_sum(p), x, values, VALUES(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    bl_tensor one = input(state, BL_F32, 2, 1);
    expect_result(bl_sparsemax(one), one, VALUES(-80, 80), VALUES(1, 1));
}

/* The same number many times over, far below a few that share everything. */
static void sparsemax_of_a_long_row(void **state)
{
    enum { N = 20000 };
    bl_tensor x = input(state, BL_F32, N), p = bl_sparsemax(x);
    static double values[N], expected[N];
    for (int i = 0; i < N; i++)
        values[i] = i < 4 ? 3 : i < 5 ? 3 - 0.25 : -77;
    for (int i = 0; i < 4; i++)
        expected[i] = 0.25;
    expect_result(p, x, values, expected);
    values[4] = 3 - 0.125; /* now all five: tau = 3 - (1 + 0.125) / 5 */
    for (int i = 0; i < 5; i++)
        expected[i] = values[i] - 3 + 1.125 / 5;
    expect_result(p, x, values, expected);
}

/* --- errors ------------------------------------------------------------------------------------
 */

#define REFUSES(expression, message)                                                               \
    do {                                                                                           \
        bl_graph *fresh = bl_graph_new();                                                          \
        bl_tensor image = bl_input(fresh, "x", BL_F32, S(1, 4, 4, 3));                             \
        bl_tensor matrix = bl_input(fresh, "m", BL_F32, S(2, 3));                                  \
        (void)matrix, (void)image;                                                                 \
        expect_error(expression, message);                                                         \
        bl_graph_free(fresh);                                                                      \
    } while (0)

static bl_tensor top(bl_tensor x, int64_t k)
{
    bl_tensor value;
    bl_top_k(x, k, &value, NULL);
    return value;
}

static void dropout_keeps_what_is_drawn_at_the_rate(void **state)
{
    bl_tensor x = input(state, BL_F64, 2, 2);
    bl_tensor u = bl_constant(*state, &(bl_array){{BL_F64, S(2)}, (double[]){0.5, 0.4}});
    const double *values = VALUES(1, 2, 3, NAN);
    expect_result(bl_drop(x, u, 0.5), x, values, VALUES(2, 0, 6, 0));
    expect_result(bl_drop_rows(x, u, 0.5), x, values, VALUES(2, 4, 0, 0));
    expect_result(bl_drop_rows(x, u, 0), x, VALUES(1, 2, 3, 4), VALUES(1, 2, 3, 4));
    expect_gradient(bl_sum(bl_drop(x, u, 0.5)), x, values, VALUES(2, 0, 2, 0));
    expect_error(bl_drop_rows(x, x, 0.5),
                 "drop_rows: needs x[B,..] and u[B], not f64[2,2] and f64[2,2]");
}

/* At the first step the direction is the gradient's sign, whatever the averages keep. */
static void adam_corrects_averages_that_began_at_zero(void **state)
{
    bl_tensor g = input(state, BL_F64, 3), m = bl_zeros_like(g), v = bl_zeros_like(g);
    bl_tensor one = bl_adam(g, 1, 0.9, 0.999, 0, &m, &v);
    expect_result(one, g, VALUES(1e-4, 0, -5), VALUES(1, 0, -1));
    expect_result(m, g, VALUES(1e-4, 0, -5), VALUES(1e-5, 0, -0.5));
    expect_result(v, g, VALUES(1e-4, 0, -5), VALUES(1e-11, 0, 0.025));
    bl_tensor step = bl_constant(*state, &(bl_array){{BL_I32, S(3)}, (int32_t[]){2, 2, 2}});
    bl_tensor two = bl_adam(bl_mul(g, 3), step, 0.5, 0.75, 1, &m, &v);
    double mean = (0.5 * -0.5 + 0.5 * -15) / 0.75, square = (0.75 * 0.025 + 0.25 * 225) / 0.4375;
    expect_result(bl_slice_axis(two, 0, 2, 3), g, VALUES(0, 0, -5),
                  VALUES(mean / (sqrt(square) + 1)));
}

/* Steps of 2, code 1 for 0: -2 .. 4 are codes 0 .. 3. The ends belong to the range. */
static void few_bits_pass_gradients_inside_their_range(void **state)
{
    bl_tensor x = input(state, BL_F64, 6), code;
    const double *values = VALUES(-9, -2, 1, 3.2, 4, 8);
    bl_tensor y = bl_fake_quantize(x, 2, 1, 0, 3, &code);
    expect_result(code, x, values, VALUES(0, 0, 1, 3, 3, 3));
    expect_result(y, x, values, VALUES(-2, -2, 0, 4, 4, 4));
    expect_gradient(bl_sum(y), x, values, VALUES(0, 1, 1, 1, 1, 0));

    bl_tensor scale = bl_input(*state, "scale", BL_F64, BL_SCALAR);
    bl_tensor slope = gradient(bl_fake_quantize(3.2, scale, 1, 0, 3, NULL), scale);
    expect_result(slope, scale, VALUES(2), VALUES(2 - 1.6));
    slope = gradient(bl_fake_quantize(9, scale, 1, 0, 3, NULL), scale);
    expect_result(slope, scale, VALUES(2), VALUES(2));
}

static void errors_name_what_is_wrong(void **state)
{
    (void)state;
    REFUSES(bl_patches(matrix, 1, 1, F(0)), "patches: image must be [B,H,W,C], not f32[2,3]");
    REFUSES(bl_patches(image, 5, 1, F(0)),
            "patches: a window of 5 x 1 is larger than the padded image f32[1,4,4,3]");
    REFUSES(bl_patches(image, 0, 1, F(0)),
            "patches: strides, dilations and windows are at least 1, padding at least 0");
    REFUSES(bl_patches(image, 2, 2, F(.groups = 3)), "patches: windows have no groups, not 3");
    REFUSES(bl_fold(matrix, S(1, 2, 2, 1), F(0)),
            "fold: needs windows [B,H',W',h,w,C], not f32[2,3]");
    REFUSES(bl_fold(bl_patches(image, 2, 2, F(0)), S(1, 5, 4, 3), F(0)),
            "fold: the windows of f32[1,5,4,3] are f32[1,4,3,2,2,3], not f32[1,3,3,2,2,3]");
    REFUSES(bl_ridge_solve(matrix, bl_transpose(matrix), 1),
            "ridge_solve: needs b[k,n] and x[m,n], not f32[2,3] and f32[3,2]");
    REFUSES(bl_linear(matrix, image, 0),
            "linear: needs x[..,I] and w[O,I], not f32[2,3] and f32[1,4,4,3]");
    REFUSES(bl_multi_head_attention(bl_expand(matrix, 0), bl_expand(matrix, 0),
                                    bl_expand(matrix, 0), 1, 2),
            "multi_head_attention: 2 heads cannot share f32[1,2,3], expected [B,T,D] with D a "
            "multiple");
    REFUSES(bl_resize_aligned(image, 0, 3), "resize_aligned: cannot resize f32[1,4,4,3] to 0 x 3");
    REFUSES(bl_sparsemax(bl_cast(matrix, BL_I32)),
            "sparsemax: operand must be f32 or f64, not i32[2,3]");
    REFUSES(bl_dot(bl_cast(matrix, BL_I32), bl_cast(matrix, BL_I32), false, true),
            "dot: operands must both be f32, both f64 or both i8, not i32[2,3] and i32[2,3]");
    REFUSES(bl_max_pool(matrix, 2, 2, F(0)),
            "max_pool: needs a float image [B,H,W,C], not f32[2,3]");
    REFUSES(bl_conv_transpose(image, matrix, F(0)),
            "conv_transpose: filter must be [h,w,O/groups,I], not f32[2,3]");
    REFUSES(bl_resize_bilinear(image, 0, 4),
            "resize_bilinear: cannot resize f32[1,4,4,3] to 0 x 4");
    REFUSES(bl_resize_nearest(image, 4, 0), "resize_nearest: cannot resize f32[1,4,4,3] to 4 x 0");
    REFUSES(bl_filter_axes(matrix, VALUES(1), 0, false),
            "filter_axes: needs a float image [B,H,W,C], not f32[2,3]");
    REFUSES(bl_gaussian_blur(image, 0, 1, false),
            "gaussian_blur: sigma is 0 and the radius 1, expected a sigma > 0 and a "
            "radius of 0 to 65536");
    REFUSES(bl_group_normalize(image, 2, 1, 0, 0),
            "group_normalize: 3 channels are not 2 equal groups");
    REFUSES(bl_layer_normalize(image, matrix, 0, 0),
            "layer_normalize: scale and shift must be [3] or numbers, not f32[2,3]");
    REFUSES(bl_attention(matrix, bl_transpose(matrix), matrix, 1),
            "attention: needs q[..,T,d] k[..,S,d] v[..,S,e], not f32[2,3], f32[3,2] and f32[2,3]");
    REFUSES(bl_attention(matrix, matrix, matrix, matrix),
            "attention: mask must be bool, not f32[2,3]");
    REFUSES(top(matrix, 4), "top_k: there are no 4 largest of f32[2,3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(patches_are_windows_in_row_major_order),
        TEST(padding_is_zero_and_dilation_skips),
        TEST(distances_of_all_rows_to_all_rows),
        TEST(distances_need_rows_of_equal_length),
        TEST(one_entry_of_an_axis),
        TEST(products_and_lengths_over_all_entries),
        TEST(short_rows_are_divided_by_the_floor),
        TEST(ridge_systems),
        TEST(fold_adds_up_what_overlaps),
        TEST(a_convolution_is_patches_times_the_filter),
        TEST(windows_of_nothing),
        TEST(products_of_i8_are_summed_in_i32),
        TEST(overlapping_maxima_share_a_pixel),
        TEST(padding_is_never_the_maximum),
        TEST(mean_pool_counts_padding_as_zeros),
        TEST(a_transposed_convolution_spreads_the_filter),
        TEST(bilinear_sizes),
        TEST(aligned_corners_stay),
        TEST(large_images_are_resized_by_bands),
        TEST(the_nearest_pixel_is_copied),
        TEST(filters_mirror_the_image_with_or_without_its_edge),
        TEST(a_blur_keeps_what_is_constant),
        TEST(activations_have_their_slopes_at_zero_and_far_out),
        TEST(normalised_groups),
        TEST(a_constant_row_normalises_to_zero_with_a_finite_gradient),
        TEST(attention_is_a_weighted_mean),
        TEST(a_row_that_sees_nothing_is_zero_with_gradient_zero),
        TEST(heads_share_the_columns),
        TEST(a_linear_map_of_rows),
        TEST(sorting_keeps_ties_in_order),
        TEST(dropout_keeps_what_is_drawn_at_the_rate),
        TEST(adam_corrects_averages_that_began_at_zero),
        TEST(sparsemax_is_the_nearest_point_of_the_simplex),
        TEST(sparsemax_of_a_long_row),
        TEST(few_bits_pass_gradients_inside_their_range),
        TEST(errors_name_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
