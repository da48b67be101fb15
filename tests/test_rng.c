/* Philox against the published known answers of its authors, and the draws built on it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/base.h"

static void expect_philox(const uint32_t counter[4], const uint32_t key[2], const uint32_t want[4])
{
    uint32_t out[4];
    bl_philox(counter, key, out);
    for (int i = 0; i < 4; i++)
        assert_int_equal(out[i], want[i]);
}

static void philox_gives_the_known_answers(void **state)
{
    (void)state;
    const uint32_t f = 0xffffffff;
    expect_philox((uint32_t[]){0, 0, 0, 0}, (uint32_t[]){0, 0},
                  (uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    expect_philox((uint32_t[]){f, f, f, f}, (uint32_t[]){f, f},
                  (uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    expect_philox((uint32_t[]){0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                  (uint32_t[]){0xa4093822, 0x299f31d0},
                  (uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

static void a_stream_is_the_blocks_in_order(void **state)
{
    (void)state;
    bl_key key = bl_key_from_seed(UINT64_C(0x0123456789abcdef));
    assert_int_equal(key.word[0], 0x89abcdef);
    bl_random r = bl_random_new(key);
    for (uint32_t block = 0; block < 3; block++) {
        uint32_t want[4];
        bl_philox((uint32_t[]){block, 0, 0, 0}, key.word, want);
        for (int j = 0; j < 4; j++)
            assert_int_equal(bl_random_bits32(&r), want[j]);
    }
    uint32_t folded[4];
    bl_philox((uint32_t[]){7, 0, 1, 0}, key.word, folded);
    assert_int_equal(bl_key_derive(key, 7).word[0], folded[0]);
    assert_int_equal(bl_key_derive(key, 7).word[1], folded[1]);
}

static void moments(double (*draw)(bl_random *), double mean, double variance)
{
    enum { N = 200000 };
    bl_random r = bl_random_new(bl_key_from_seed(1));
    double sum = 0, squares = 0;
    for (int i = 0; i < N; i++) {
        double x = draw(&r);
        sum += x, squares += x * x;
    }
    double m = sum / N, v = squares / N - m * m;
    assert_true(fabs(m - mean) < 5 * sqrt(variance / N));
    assert_true(fabs(v / variance - 1) < 0.05);
}

static double gamma_small(bl_random *r)
{
    return bl_random_gamma(r, 0.4);
}
static double gamma_large(bl_random *r)
{
    return bl_random_gamma(r, 3.5);
}
static double beta(bl_random *r)
{
    return bl_random_beta(r, 0.5, 1.5);
}
static double below(bl_random *r)
{
    return bl_random_below(r, 6);
}

static void draws_have_their_mean_and_variance(void **state)
{
    (void)state;
    moments(bl_random_unit, 0.5, 1.0 / 12);
    moments(bl_random_gauss, 0, 1);
    moments(gamma_small, 0.4, 0.4);
    moments(gamma_large, 3.5, 3.5);
    moments(beta, 0.25, 0.5 * 1.5 / (4 * 3));
    moments(below, 2.5, 35.0 / 12);
}

static void a_permutation_holds_each_number_once(void **state)
{
    (void)state;
    int32_t order[100];
    bool seen[100] = {0};
    bl_random r = bl_random_new(bl_key_from_seed(3));
    bl_random_permutation(&r, order, 100);
    int fixed = 0;
    for (int i = 0; i < 100; i++) {
        assert_false(seen[order[i]]);
        seen[order[i]] = true;
        fixed += order[i] == i;
    }
    assert_true(fixed < 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(a_stream_is_the_blocks_in_order),
        cmocka_unit_test(draws_have_their_mean_and_variance),
        cmocka_unit_test(a_permutation_holds_each_number_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
