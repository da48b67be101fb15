/* Solvers: known answers, bounds, ties, and the corners that a caller may reach. */
#include <stdlib.h>

#include "support.h"

#include "ballast/solve.h"

static void nearest_rows_come_in_order_and_ties_go_to_the_lower_row(void **state)
{
    (void)state;
    const double rows[] = {2, -1, 1, 5, -1, 0}, query[] = {0, 4.5};
    int32_t index[8];
    double distance[8];
    expect_ok(bl_nearest_rows(query, 2, rows, 6, 1, 4, index, distance));
    const int32_t expected[] = {5, 1, 2, 4, 3, 0, 2, 5};
    const double squares[] = {0, 1, 1, 1, 0.25, 6.25, 12.25, 20.25};
    assert_memory_equal(index, expected, sizeof expected);
    assert_memory_equal(distance, squares, sizeof squares);
}

/* Against the definition, over several blocks of rows, with many ties. */
static void nearest_rows_agree_with_a_full_sort(void **state)
{
    (void)state;
    enum { ROWS = 150, SIZE = 3, K = 40 };
    double rows[ROWS * SIZE], distance[ROWS * K];
    int32_t index[ROWS * K];
    bl_random r = bl_random_new(bl_key_from_seed(1));
    for (int i = 0; i < ROWS * SIZE; i++)
        rows[i] = bl_random_below(&r, 4);
    expect_ok(bl_nearest_rows(rows, ROWS, rows, ROWS, SIZE, K, index, distance));
    for (int q = 0; q < ROWS; q++) {
        for (int i = 0; i < K; i++) {
            int place = 0, row = index[q * K + i];
            double own = distance[q * K + i];
            for (int other = 0; other < ROWS; other++) {
                double d = 0;
                for (int c = 0; c < SIZE; c++)
                    d += pow(rows[q * SIZE + c] - rows[other * SIZE + c], 2);
                place += d < own || (d == own && other < row);
                assert_true(other != row || d == own);
            }
            assert_int_equal(place, i);
        }
    }
}

static double squared(const double *a, const double *b, int size)
{
    double sum = 0;
    for (int d = 0; d < size; d++)
        sum += (a[d] - b[d]) * (a[d] - b[d]);
    return isnan(sum) ? INFINITY : sum;
}

/* Every neighbour of rows[count,size] is at least as near as every row that is none. */
static void expect_nearest(const double *rows, int count, int size, int k)
{
    int32_t *index = bl_alloc((size_t)(count * k) * sizeof *index);
    double *distance = bl_alloc((size_t)(count * k) * sizeof *distance);
    expect_ok(bl_nearest_rows(rows, count, rows, count, size, k, index, distance));
    for (int q = 0; q < count; q++) {
        const int32_t *own = index + q * k;
        double worst = squared(rows + q * size, rows + own[k - 1] * size, size);
        for (int other = 0; other < count; other++) {
            double d = squared(rows + q * size, rows + other * size, size);
            bool listed = false;
            for (int i = 0; i < k; i++)
                listed |= own[i] == other;
            if (!listed && d < worst * (1 - 1e-13))
                fail_msg("row %d of size %d: %d at %g is missing, the last is at %g", q, size,
                         other, d, worst);
        }
    }
    bl_release(index);
    bl_release(distance);
}

/* Far from 0, so near to each other that single precision cannot tell them apart, out of its range,
 * groups, numbers that are none, all in one place. */
static void nearest_rows_are_right_where_bounds_are_not(void **state)
{
    (void)state;
    enum { ROWS = 200, MOST = 37 };
    static const int sizes[] = {1, 2, 9, MOST};
    static const double offset[] = {0, 1e6, 1e15, 0, 0, -3, 0},
                        scale[] = {1, 1, 1, 1e-30, 1e200, 1e-9, 0};
    static double rows[ROWS * MOST];
    bl_random r = bl_random_new(bl_key_from_seed(8));
    for (int i = 0; i < 7; i++)
        for (int s = 0; s < 4; s++) {
            for (int j = 0; j < ROWS * sizes[s]; j++)
                rows[j] = offset[i] + scale[i] * (bl_random_gauss(&r) + j / sizes[s] % 5 * 20);
            rows[7 * sizes[s]] = NAN;
            rows[90 * sizes[s]] = INFINITY;
            expect_nearest(rows, ROWS, sizes[s], 10);
        }
}

static void a_nan_is_further_than_anything(void **state)
{
    (void)state;
    const double rows[] = {NAN, 1e300, 3}, query[] = {0};
    int32_t index[3];
    expect_ok(bl_nearest_rows(query, 1, rows, 3, 1, 3, index, NULL));
    assert_int_equal(index[0], 2);
    assert_int_equal(index[1], 0); /* its distance and the overflowing one are alike: lower row */
    expect_ok(bl_nearest_rows(query, 0, rows, 3, 1, 3, index, NULL));
}

/* residual = (x0 - 3, 10 (x1 - x0^2)): a bent valley with its floor at (3, 9). */
static void valley(const double *x, double *residual, double *jacobian, void *context)
{
    (void)context;
    residual[0] = x[0] - 3;
    residual[1] = 10 * (x[1] - x[0] * x[0]);
    if (jacobian) {
        jacobian[0] = 1;
        jacobian[1] = 0;
        jacobian[2] = -20 * x[0];
        jacobian[3] = 10;
    }
}

static void least_squares_finds_the_floor_of_a_valley(void **state)
{
    (void)state;
    double x[] = {-1, 1}, sum;
    expect_ok(bl_least_squares(valley, NULL, 2, 2, VALUES(-10, -100), VALUES(10, 100), x, &sum));
    assert_true(fabs(x[0] - 3) < 1e-7 && fabs(x[1] - 9) < 1e-6 && sum < 1e-14);
}

/* With x0 <= 2 the best is at the bound; x1 follows. From a start at both upper bounds. */
static void least_squares_stops_at_a_bound(void **state)
{
    (void)state;
    double x[] = {2, 50}, sum;
    expect_ok(bl_least_squares(valley, NULL, 2, 2, VALUES(-10, -100), VALUES(2, 50), x, &sum));
    assert_true(x[0] == 2 && fabs(x[1] - 4) < 1e-9 && fabs(sum - 1) < 1e-12);
}

static void least_squares_refuses_what_it_has_no_room_for(void **state)
{
    (void)state;
    double x[9] = {0}, sum;
    assert_int_equal(bl_least_squares(valley, NULL, 2, 9, x, x, x, &sum), BL_INVALID);
    bl_fail_allocation(1);
    assert_int_equal(bl_least_squares(valley, NULL, 2, 2, x, x, x, &sum), BL_NO_MEMORY);
    bl_fail_allocation(1);
    assert_int_equal(bl_nearest_rows(x, 1, x, 1, 1, 1, NULL, NULL), BL_NO_MEMORY);
    bl_fail_allocation(2);
    assert_int_equal(bl_nearest_rows(x, 1, x, 1, 1, 1, NULL, NULL), BL_NO_MEMORY);
    bl_fail_allocation(0);
}

static void k_means_averages_and_leaves_empty_clusters(void **state)
{
    (void)state;
    const double rows[] = {0, 0, 0, 2, 8, 8, 10, 8};
    double centroid[] = {0, 1, 9, 9, 100, 100, 9, 9};
    int32_t assignment[4];
    expect_ok(bl_kmeans(rows, 4, 2, 4, 10, centroid, assignment));
    const double expected[] = {0, 1, 9, 8, 100, 100, 9, 9}; /* the tie is the first's */
    const int32_t cluster[] = {0, 0, 1, 1};
    assert_memory_equal(centroid, expected, sizeof expected);
    assert_memory_equal(assignment, cluster, sizeof cluster);
    bl_fail_allocation(1);
    assert_int_equal(bl_kmeans(rows, 4, 2, 4, 1, centroid, assignment), BL_NO_MEMORY);
    bl_fail_allocation(0);
}

enum { POINTS = 260, GROUPS = 4, WIDTH = 5 };

/* Groups of points far apart in five dimensions; point i is of group i % GROUPS. */
static void groups_of_points(double *x, double *y)
{
    bl_random r = bl_random_new(bl_key_from_seed(5));
    for (int i = 0; i < POINTS; i++)
        for (int d = 0; d < WIDTH; d++)
            x[i * WIDTH + d] = (i % GROUPS == d ? 12 : 0) + bl_random_gauss(&r);
    for (int i = 0; i < 2 * POINTS; i++)
        y[i] = 1e-4 * bl_random_gauss(&r);
}

/* Every row, before it was made symmetric, had the entropy of ten equal neighbours: in the mean
 * over both directions more. */
static void affinities_are_probabilities(void **state)
{
    (void)state;
    static double x[POINTS * WIDTH], y[2 * POINTS], p[POINTS * POINTS];
    groups_of_points(x, y);
    expect_ok(bl_tsne_affinities(x, POINTS, WIDTH, 10, p));
    double sum = 0, apart = 0, entropy = 0;
    for (int i = 0; i < POINTS; i++)
        for (int j = 0; j < POINTS; j++) {
            double q = p[i * POINTS + j];
            assert_true(q >= 0 && q == p[j * POINTS + i] && (i != j || q == 0));
            sum += q;
            apart += i % GROUPS == j % GROUPS ? 0 : q;
            entropy -= q > 0 ? q * log(q) : 0;
        }
    assert_true(fabs(sum - 1) < 1e-12 && apart < 1e-6);
    assert_true(entropy >= log(10.0 * POINTS) && entropy < log(30.0 * POINTS));
}

/* Point i's nearest neighbour on the map is of its own group, and the same map comes again. */
static void a_map_keeps_groups_together(void **state)
{
    (void)state;
    static double x[POINTS * WIDTH], y[2 * POINTS], again[2 * POINTS], p[POINTS * POINTS];
    static int32_t nearest[2 * POINTS];
    groups_of_points(x, y);
    memcpy(again, y, sizeof y);
    expect_ok(bl_tsne_affinities(x, POINTS, WIDTH, 20, p));
    expect_ok(bl_tsne_map(p, POINTS, 350, y));
    expect_ok(bl_tsne_map(p, POINTS, 350, again));
    assert_memory_equal(y, again, sizeof y);
    expect_ok(bl_nearest_rows(y, POINTS, y, POINTS, 2, 2, nearest, NULL));
    int strangers = 0;
    for (int i = 0; i < POINTS; i++)
        strangers += nearest[2 * i + 1] % GROUPS != i % GROUPS;
    assert_in_range(strangers, 0, POINTS / 50);
    double centroid[2 * GROUPS];
    int32_t cluster[POINTS];
    memcpy(centroid, y, sizeof centroid); /* a point of each */
    expect_ok(bl_kmeans(y, POINTS, 2, GROUPS, 100, centroid, cluster));
    int wrong = 0;
    for (int i = 0; i < POINTS; i++)
        wrong += cluster[i] != cluster[i % GROUPS];
    assert_in_range(wrong, 0, POINTS / 20);
}

/* With so few points everybody is a neighbour; the rest is what far groups are taken for. */
static void a_map_by_groups_is_nearly_the_exact_one(void **state)
{
    (void)state;
    static double x[POINTS * WIDTH], y[2 * POINTS], exact[2 * POINTS], p[POINTS * POINTS];
    groups_of_points(x, y);
    for (int i = 0; i < 2 * POINTS; i++)
        y[i] = exact[i] = 1e4 * y[i];
    expect_ok(bl_tsne_affinities(x, POINTS, WIDTH, 86.3, p));
    expect_ok(bl_tsne_map(p, POINTS, 3, exact));
    expect_ok(bl_tsne(x, POINTS, WIDTH, 86.3, 3, y));
    double apart = 0, size = 0;
    for (int i = 0; i < 2 * POINTS; i++) {
        apart = fmax(apart, fabs(y[i] - exact[i]));
        size = fmax(size, fabs(exact[i]));
    }
    assert_true(apart > 0 && apart < 0.01 * size);
}

static void a_map_by_groups_keeps_groups_together(void **state)
{
    (void)state;
    static double x[POINTS * WIDTH], y[2 * POINTS];
    static int32_t nearest[2 * POINTS];
    groups_of_points(x, y);
    memcpy(x + WIDTH, x, WIDTH * sizeof *x); /* points in one place */
    memcpy(y + 2, y, 2 * sizeof *y);
    expect_ok(bl_tsne(x, POINTS, WIDTH, 20, 350, y));
    expect_ok(bl_nearest_rows(y, POINTS, y, POINTS, 2, 2, nearest, NULL));
    int strangers = 0;
    for (int i = 2; i < POINTS; i++)
        strangers += nearest[2 * i + 1] % GROUPS != i % GROUPS;
    assert_in_range(strangers, 0, POINTS / 50);
    bl_status status = BL_NO_MEMORY;
    for (long n = 1; status == BL_NO_MEMORY; n++) {
        bl_fail_allocation(n);
        status = bl_tsne(x, POINTS, WIDTH, 20, 2, y);
        bl_fail_allocation(0);
    }
    assert_int_equal(status, BL_OK);
}

/* The same bytes at one, two and three threads. */
static void threads_do_not_show_in_results(void **state)
{
    (void)state;
    enum { ROWS = 3000, SIZE = 8, K = 5, CLUSTERS = 50 };
    static double x[ROWS * SIZE], distance[2][ROWS * K], y[2][2 * ROWS],
        centroid[2][CLUSTERS * SIZE];
    static double p[2][POINTS * POINTS], map[2][2 * POINTS];
    static int32_t index[2][ROWS * K], cluster[2][ROWS];
    bl_random r = bl_random_new(bl_key_from_seed(2));
    for (int i = 0; i < ROWS * SIZE; i++)
        x[i] = bl_random_gauss(&r);
    for (int threads = 1; threads <= 3; threads++) {
        int t = threads > 1;
        assert_int_equal(setenv("OMP_NUM_THREADS", (char[]){(char)('0' + threads), 0}, 1), 0);
        memcpy(centroid[t], x, sizeof centroid[t]);
        for (int i = 0; i < 2 * ROWS; i++)
            y[t][i] = 1e-4 * x[i];
        expect_ok(bl_nearest_rows(x, ROWS, x, ROWS, SIZE, K, index[t], distance[t]));
        expect_ok(bl_kmeans(x, ROWS, SIZE, CLUSTERS, 10, centroid[t], cluster[t]));
        expect_ok(bl_tsne(x, ROWS, SIZE, 5, 5, y[t]));
        memcpy(map[t], y[t], sizeof map[t]);
        expect_ok(bl_tsne_affinities(x, POINTS, SIZE, 5, p[t]));
        expect_ok(bl_tsne_map(p[t], POINTS, 5, map[t]));
        assert_memory_equal(index[t], index[0], sizeof index[0]);
        assert_memory_equal(distance[t], distance[0], sizeof distance[0]);
        assert_memory_equal(centroid[t], centroid[0], sizeof centroid[0]);
        assert_memory_equal(cluster[t], cluster[0], sizeof cluster[0]);
        assert_memory_equal(y[t], y[0], sizeof y[0]);
        assert_memory_equal(p[t], p[0], sizeof p[0]);
        assert_memory_equal(map[t], map[0], sizeof map[0]);
    }
    unsetenv("OMP_NUM_THREADS");
}

static void a_step_of_the_map_follows_the_gradient(void **state)
{
    (void)state;
    const double p[] = {0, 0.5, 0.5, 0};
    double y[] = {0, 0, 1, 0}; /* q = p: the pull is 12 times what it should be */
    expect_ok(bl_tsne_map(p, 2, 1, y));
    assert_true(fabs(y[0] - 50 * 0.8 * 4 * 0.25 * (12 - 1)) < 1e-9 && y[1] == 0);
    assert_true(fabs(y[0] + y[2] - 1) < 1e-9);
}

/* x1 + x2 = 2 (1, 3, 2 of them weighed): one unknown too many; then none of the equations hold. */
static void the_shortest_of_many_solutions(void **state)
{
    (void)state;
    double x[6], short_of[] = {1, 1, 3, 3, 2, 2}, right[] = {2, 6, 4};
    expect_ok(bl_minimum_norm(short_of, right, 3, 2, 1, x));
    assert_true(close_to(x[0], 1, 1e-14) && close_to(x[1], 1, 1e-14));
    const double wide[] = {3, 0, 4, 0, 2, 0}, two[] = {25, 50, 4, 8}; /* 2 x 3, two right sides */
    expect_ok(bl_minimum_norm(wide, two, 2, 3, 2, x));
    const double expected[] = {3, 6, 2, 4, 4, 8};
    for (int i = 0; i < 6; i++)
        assert_true(close_to(x[i], expected[i], 1e-14));
    const double none[4] = {0}, ones[] = {1, 1};
    expect_ok(bl_minimum_norm(none, ones, 2, 2, 1, x));
    assert_true(x[0] == 0 && x[1] == 0);
    const double line[] = {1, 0, 1, 1, 1, 2, 1, 3}, noisy[] = {1, 3, 2, 6}; /* 0.9 + 1.4 t */
    expect_ok(bl_minimum_norm(line, noisy, 4, 2, 1, x));
    assert_true(close_to(x[0], 0.9, 1e-14) && close_to(x[1], 1.4, 1e-14));
    const double bad[] = {1, NAN, 2, 3};
    expect_ok(bl_minimum_norm(bad, ones, 2, 2, 1, x));
    assert_true(isnan(x[0]) && isnan(x[1]));
    bl_fail_allocation(1);
    assert_int_equal(bl_minimum_norm(none, ones, 2, 2, 1, x), BL_NO_MEMORY);
    bl_fail_allocation(0);
}

/* A^T (A x - b) = 0, and x is in the span of A's rows: no multiple of the null vector in it. */
static void least_squares_of_random_rows_that_lack_a_rank(void **state)
{
    (void)state;
    enum { M = 37, N = 6 };
    double a[M * N], b[M], x[N], residual[M];
    bl_random r = bl_random_new(bl_key_from_seed(3));
    for (int i = 0; i < M; i++) {
        b[i] = bl_random_gauss(&r);
        for (int j = 0; j < N - 1; j++)
            a[i * N + j] = bl_random_gauss(&r);
        a[i * N + N - 1] = 2 * a[i * N] - a[i * N + 3]; /* null vector (2,0,0,-1,0,-1) */
    }
    expect_ok(bl_minimum_norm(a, b, M, N, 1, x));
    for (int i = 0; i < M; i++) {
        residual[i] = -b[i];
        for (int j = 0; j < N; j++)
            residual[i] += a[i * N + j] * x[j];
    }
    for (int j = 0; j < N; j++) {
        double normal = 0;
        for (int i = 0; i < M; i++)
            normal += a[i * N + j] * residual[i];
        assert_true(fabs(normal) < 1e-12);
    }
    assert_true(fabs(2 * x[0] - x[3] - x[5]) < 1e-13);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearest_rows_come_in_order_and_ties_go_to_the_lower_row),
        cmocka_unit_test(nearest_rows_agree_with_a_full_sort),
        cmocka_unit_test(nearest_rows_are_right_where_bounds_are_not),
        cmocka_unit_test(a_nan_is_further_than_anything),
        cmocka_unit_test(least_squares_finds_the_floor_of_a_valley),
        cmocka_unit_test(least_squares_stops_at_a_bound),
        cmocka_unit_test(least_squares_refuses_what_it_has_no_room_for),
        cmocka_unit_test(the_shortest_of_many_solutions),
        cmocka_unit_test(least_squares_of_random_rows_that_lack_a_rank),
        cmocka_unit_test(k_means_averages_and_leaves_empty_clusters),
        cmocka_unit_test(affinities_are_probabilities),
        cmocka_unit_test(a_map_keeps_groups_together),
        cmocka_unit_test(a_map_by_groups_is_nearly_the_exact_one),
        cmocka_unit_test(a_map_by_groups_keeps_groups_together),
        cmocka_unit_test(threads_do_not_show_in_results),
        cmocka_unit_test(a_step_of_the_map_follows_the_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
