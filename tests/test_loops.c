/* The innermost loops of the cpu executor, in every instruction set of this processor: how accurate
 * functions are, and that loops for two primitives are the two in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "exec/cpu/loops.h"
#include "support.h"

/* --- accuracy --------------------------------------------------------------------------------- */

/* Distance of a float from the true value in units of the last place of the true value. */
static double units_off(float got, double expected)
{
    float nearest = (float)expected;
    if (isnan(expected))
        return isnan(got) ? 0 : INFINITY;
    if (isinf(nearest) || isinf(got))
        return got == nearest ? 0 : INFINITY;
    if (expected == 0)
        return got == 0 && signbit(got) == signbit(nearest) ? 0 : INFINITY;
    int exponent;
    (void)frexp(expected, &exponent);
    double unit = ldexp(1, (exponent < -125 ? -125 : exponent) - 24);
    return fabs((double)got - expected) / unit;
}

static float float_with_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void sweep(const bl_loops *loops, bl_op op, double bound)
{
    enum { BLOCK = 1000, STRIDE = 4099 }; /* every 4099th float of all: over a million */
    float x[BLOCK], z[BLOCK];
    double worst = 0;
    float at = 0;
    uint64_t bits = 0;
    while (bits <= UINT32_MAX) {
        int n = 0;
        for (; n < BLOCK && bits <= UINT32_MAX; n++, bits += STRIDE)
            x[n] = float_with_bits((uint32_t)bits);
        loops->unary[op][BL_F32](z, x, x, x, n);
        for (int i = 0; i < n; i++) {
            double off = units_off(z[i], bl_op_scalar(op, (double)x[i], 0, 0));
            if (off > worst)
                worst = off, at = x[i];
        }
    }
    if (worst > bound)
        fail_msg("%s (%s) is off by %.2f units at %.9g", bl_op_name(op), loops->name, worst,
                 (double)at);
}

static const float special[] = {0.0f,     -0.0f,     1.0f,     -1.0f,       0.5f,    -0.5f,
                                INFINITY, -INFINITY, NAN,      1e-45f,      -1e-45f, 1e-38f,
                                -1e-38f,  3.4e38f,   -3.4e38f, 88.72f,      88.73f,  -87.4f,
                                -103.9f,  -104.1f,   0.625f,   0.6249999f,  1e-4f,   -1e-7f,
                                2.0f,     -2.0f,     3.0f,     0.99999994f, 1e6f,    1.0000001e6f};

static void specials(const bl_loops *loops, bl_op op, double bound)
{
    enum { N = COUNT_OF(special) };
    float z[N];
    loops->unary[op][BL_F32](z, special, special, special, N);
    for (int i = 0; i < N; i++) {
        double expected = bl_op_scalar(op, (double)special[i], 0, 0);
        if (units_off(z[i], expected) > bound)
            fail_msg("%s (%s) of %.9g is %.9g, expected %.9g", bl_op_name(op), loops->name,
                     (double)special[i], (double)z[i], expected);
    }
}

static int sets_of_loops(const bl_loops *set[3])
{
    int count = 0;
    set[count++] = &bl_loops_base;
#if defined(__x86_64__)
    if (bl_loops_best() != &bl_loops_base)
        set[count++] = &bl_loops_avx2;
    if (bl_loops_best() == &bl_loops_avx512)
        set[count++] = &bl_loops_avx512;
#endif
    return count;
}

static void functions_are_accurate_everywhere(void **state)
{
    static const struct {
        bl_op op;
        double bound;
    } row[] = {{BL_OP_exp, 2},   {BL_OP_expm1, 3},   {BL_OP_log, 2},     {BL_OP_log1p, 3},
               {BL_OP_tanh, 4},  {BL_OP_sigmoid, 4}, {BL_OP_sin, 1},     {BL_OP_cos, 1},
               {BL_OP_erf, 3},   {BL_OP_atan, 3},    {BL_OP_sqrt, 0.51}, {BL_OP_rsqrt, 1.5},
               {BL_OP_floor, 0}, {BL_OP_round, 0},   {BL_OP_neg, 0},     {BL_OP_abs, 0}};
    const bl_loops *set[3];
    (void)state;
    for (int l = sets_of_loops(set) - 1; l >= 0; l--)
        for (int i = 0; i < COUNT_OF(row); i++) {
            specials(set[l], row[i].op, row[i].bound);
            sweep(set[l], row[i].op, row[i].bound);
        }
}

/* Distance of a double from the true value in units of its last place. */
static double double_units_off(double got, long double expected)
{
    double nearest = (double)expected;
    if (isnan(nearest) || isinf(nearest) || isinf(got) || nearest == 0)
        return got == nearest || (isnan(nearest) && isnan(got)) ? 0 : INFINITY;
    int exponent;
    (void)frexp(nearest, &exponent);
    return fabs((double)((long double)got - expected)) /
           ldexp(1, (exponent < -1021 ? -1021 : exponent) - 53);
}

static double double_with_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static long double sigmoidl(long double x)
{
    return 1 / (1 + expl(-x));
}

static void doubles_are_accurate_everywhere(void **state)
{
    enum { N = 1000000 };
    static const struct {
        bl_op op;
        long double (*exact)(long double);
        double bound;
    } row[] = {{BL_OP_exp, expl, 1.5},   {BL_OP_log, logl, 1},   {BL_OP_log1p, log1pl, 2},
               {BL_OP_expm1, expm1l, 2}, {BL_OP_tanh, tanhl, 3}, {BL_OP_sigmoid, sigmoidl, 3}};
    static const double edge[] = {0,
                                  -0.0,
                                  1,
                                  -1,
                                  INFINITY,
                                  -INFINITY,
                                  NAN,
                                  5e-324,
                                  -5e-324,
                                  1e-310,
                                  -1e-310,
                                  709.78,
                                  709.79,
                                  -708.5,
                                  -745.1,
                                  -745.2,
                                  -1e300,
                                  1e300,
                                  0.70710678118654746,
                                  0.70710678118654757};
    const bl_loops *set[3];
    bl_random random = bl_random_new(bl_key_from_seed(5));
    (void)state;
    for (int l = sets_of_loops(set) - 1; l >= 0; l--)
        for (int i = 0; i < COUNT_OF(row) * N; i++) {
            int k = i % N;
            double z[8], x[8]; /* a vector of what is alike, and its end */
            for (int j = 0; j < 8; j++) {
                double small = bl_random_gauss(&random);
                x[j] = k % 3 == 0   ? double_with_bits((uint64_t)bl_random_bits32(&random) << 32 |
                                                       bl_random_bits32(&random))
                       : k % 3 == 1 ? small
                                    : 300 * small;
                if (k < COUNT_OF(edge))
                    x[j] = edge[k];
            }
            bl_op op = row[i / N].op;
            set[l]->unary[op][BL_F64](z, x, x, x, 8);
            for (int j = 0; j < 8; j++) {
                double off = double_units_off(z[j], row[i / N].exact((long double)x[j]));
                if (off > row[i / N].bound)
                    fail_msg("%s (%s) of %.17g is %.17g, %.2f units off", bl_op_name(op),
                             set[l]->name, x[j], z[j], off);
            }
            i += 7;
        }
}

static void gammas_of_doubles_are_accurate(void **state)
{
    enum { N = 100000 };
    static const bl_op op[] = {BL_OP_lgamma, BL_OP_digamma};
    static const double edge[] = {1e-30, 1e-300, 0,    -0.5,  1,        2,
                                  7.999, 8,      1e15, 1e300, INFINITY, NAN};
    const bl_loops *set[3];
    bl_random random = bl_random_new(bl_key_from_seed(7));
    (void)state;
    for (int l = sets_of_loops(set) - 1; l >= 0; l--)
        for (int i = 0; i < 2 * N; i++) {
            double x = i / 2 < COUNT_OF(edge) ? edge[i / 2] : exp(4 * bl_random_gauss(&random)), z;
            double expected = bl_op_scalar(op[i % 2], x, 0, 0);
            set[l]->unary[op[i % 2]][BL_F64](&z, &x, &x, &x, 1);
            bool same = z == expected || (isnan(z) && isnan(expected));
            if (!same && !(fabs(z - expected) <= 2e-14 * fmax(1, fabs(expected))))
                fail_msg("%s (%s) of %.17g is %.17g, expected %.17g", bl_op_name(op[i % 2]),
                         set[l]->name, x, z, expected);
        }
}

static void powers_are_accurate_everywhere(void **state)
{
    enum { N = COUNT_OF(special), RANDOM = 100000 };
    const bl_loops *set[3];
    bl_random random = bl_random_new(bl_key_from_seed(3));
    (void)state;
    for (int l = sets_of_loops(set) - 1; l >= 0; l--)
        for (int i = 0; i < N * N + RANDOM; i++) {
            float x = special[i / N % N], y = special[i % N], z;
            if (i >= N * N) {
                x = (float)exp(8 * bl_random_gauss(&random));
                y = (float)(4 * bl_random_gauss(&random));
            }
            double expected = pow((double)x, (double)y);
            for (int mode = BL_VV; mode < BL_BINARY_MODES; mode++) {
                set[l]->binary[BL_OP_pow][BL_F32][mode](&z, &x, &y, &y, 1);
                if (units_off(z, expected) > 3)
                    fail_msg("pow(%.9g, %.9g) is %.9g, expected %.9g, by loop %d", (double)x,
                             (double)y, (double)z, expected, mode);
            }
        }
}

/* --- two primitives in one loop ----------------------------------------------------------------
 */

static double pair_expected(int first, int second, double x, double y, double w)
{
    const double p[BL_PAIR_FIRSTS] = {x + y, x + y, x - y, x - y, y - x,
                                      x * y, x * y, x / y, x / y};
    const double z[BL_PAIR_SECONDS] = {p[first] + w, p[first] - w,
                                       w - p[first], p[first] * w,
                                       p[first] / w, isfinite(p[first]) ? p[first] : w};
    return z[second];
}

static void pairs_are_the_two_in_turn(void **state)
{
    enum { N = 37 };
    const bl_loops *set[3];
    bl_random random = bl_random_new(bl_key_from_seed(5));
    float x[N], y[N], w[N], z[N];
    (void)state;
    for (int i = 0; i < N; i++) {
        x[i] = (float)bl_random_gauss(&random);
        y[i] = 1 + fabsf((float)bl_random_gauss(&random));
        w[i] = 1 + fabsf((float)bl_random_gauss(&random));
    }
    x[3] = INFINITY, x[7] = -INFINITY;
    for (int l = sets_of_loops(set) - 1; l >= 0; l--)
        for (int first = 0; first < BL_PAIR_FIRSTS; first++)
            for (int second = 0; second < BL_PAIR_SECONDS; second++)
                for (int single = 0; single < 2; single++) {
                    bool one_y = first == BL_ADD_VS || first == BL_SUB_VS || first == BL_FROM_VS ||
                                 first == BL_MUL_VS || first == BL_DIV_VS;
                    set[l]->pair[first][second][single](z, x, y, w, N);
                    for (int i = 0; i < N; i++) {
                        double e =
                            pair_expected(first, second, (double)x[i], (double)y[one_y ? 0 : i],
                                          (double)w[single ? 0 : i]);
                        if (!(fabs((double)z[i] - e) <= 1e-6 * (4 + fabs(e))) &&
                            (isfinite(e) || (double)z[i] != e))
                            fail_msg("pair %d %d %d of %s: %.9g, expected %.9g", first, second,
                                     single, set[l]->name, (double)z[i], e);
                    }
                }
}

static void exponentials_of_differences_are_those_of_exp(void **state)
{
    enum { N = 35 };
    const bl_loops *set[3];
    float x[N], y[N], z[N], d[N], e[N];
    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = (float)(i * i) - 200, y[i] = (float)i / 3;
    x[3] = INFINITY, x[4] = -INFINITY, x[5] = NAN;
    for (int l = sets_of_loops(set) - 1; l >= 0; l--)
        for (int single = 0; single < 2; single++) {
            for (int i = 0; i < N; i++)
                d[i] = x[i] - y[single ? 0 : i];
            set[l]->sub_exp[single](z, x, y, y, N);
            set[l]->unary[BL_OP_exp][BL_F32](e, d, d, d, N);
            assert_memory_equal(z, e, sizeof z);
            set[l]->finite_else[single](z, x, x, y, N);
            for (int i = 0; i < N; i++)
                assert_true(z[i] == (isfinite(x[i]) ? x[i] : y[single ? 0 : i]));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions_are_accurate_everywhere),
        cmocka_unit_test(doubles_are_accurate_everywhere),
        cmocka_unit_test(gammas_of_doubles_are_accurate),
        cmocka_unit_test(powers_are_accurate_everywhere),
        cmocka_unit_test(pairs_are_the_two_in_turn),
        cmocka_unit_test(exponentials_of_differences_are_those_of_exp),
    };
    return cmocka_run_group_tests_name("loops", tests, NULL, NULL);
}
