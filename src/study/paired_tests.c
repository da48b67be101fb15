/* Tests on n paired differences, and what is made of many of them: Holm's correction, the interval
 * of a share. Which test decides when is in stats.h; one more needs a known answer and a
 * false-alarm simulation in tests/test_stats.c. */
#include "study/stats.h"

#include <math.h>
#include <stdlib.h>

#include "base/base.h"

#define ENUMERATED_PAIRS 20  /* 2^20 assignments of signs take a millisecond */
#define ENUMERATED_RANKS 200 /* the dynamic programme is cubic */
#define RANDOM_FLIPS     65535

/* --- tests on the mean */

double bl_average(const double *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i];
    return n > 0 ? sum / n : NAN;
}

double bl_standard_deviation(const double *x, int n)
{
    double mean = bl_average(x, n), sum = 0;
    for (int i = 0; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    return n > 1 ? sqrt(sum / (n - 1)) : NAN;
}

static double standard_error(const double *x, int n, double ratio)
{
    return bl_standard_deviation(x, n) / sqrt(bl_effective_replicates(n, ratio));
}

double bl_paired_t(const double *difference, int n, double ratio, double *t)
{
    double mean = bl_average(difference, n), error = standard_error(difference, n, ratio);
    double statistic = mean == 0 && error == 0 ? 0 : mean / error;
    if (t)
        *t = statistic;
    return bl_t_two_sided(statistic, n - 1);
}

bl_interval bl_mean_interval(const double *x, int n, double ratio, double alpha)
{
    double half = bl_t_quantile(1 - alpha / 2, n - 1) * standard_error(x, n, ratio);
    double mean = bl_average(x, n);
    return (bl_interval){mean - half, mean + half};
}

double bl_equivalence(const double *difference, int n, double ratio, double margin)
{
    double distance = margin - fabs(bl_average(difference, n)); /* to the nearer bound */
    double error = standard_error(difference, n, ratio);
    return distance == 0 ? 0.5 : bl_t_cdf(-distance / error, n - 1);
}

/* --- randomisation */

/* The sums of x under each of the 2^n assignments of signs. */
static void signed_sums(const double *x, int n, double *sum)
{
    sum[0] = 0;
    for (int i = 0; i < n; i++) {
        int64_t half = INT64_C(1) << i;
        for (int64_t j = 0; j < half; j++) {
            sum[j + half] = sum[j] + x[i];
            sum[j] -= x[i];
        }
    }
}

/* An assignment is one of the first half of the pairs and one of the second, so two tables of sums
 * give every mean by one addition. */
static double enumerate_flips(const double *x, int n, double bound)
{
    double first[1 << ENUMERATED_PAIRS / 2], second[1 << ENUMERATED_PAIRS / 2];
    int a = n / 2, b = n - a;
    int64_t hits = 0;
    signed_sums(x, a, first);
    signed_sums(x + a, b, second);
    for (int64_t i = 0; i < INT64_C(1) << a; i++)
        for (int64_t j = 0; j < INT64_C(1) << b; j++)
            hits += fabs(first[i] + second[j]) >= bound;
    return ldexp((double)hits, -n);
}

static double sample_flips(const double *x, int n, bl_key key, double bound)
{
    bl_random random = bl_random_new(key);
    int64_t hits = 0;
    for (int draw = 0; draw < RANDOM_FLIPS; draw++) {
        double sum = 0;
        uint32_t bits = 0;
        for (int i = 0; i < n; i++, bits >>= 1) {
            if (i % 32 == 0)
                bits = bl_random_bits32(&random);
            sum += bits & 1 ? x[i] : -x[i];
        }
        hits += fabs(sum) >= bound;
    }
    return (double)(1 + hits) / (1 + RANDOM_FLIPS);
}

bl_status bl_sign_flip(const double *difference, int n, bl_key key, double *p)
{
    double sum = 0, size = 0;
    for (int i = 0; i < n; i++)
        sum += difference[i], size += fabs(difference[i]);
    if (n < 1 || !isfinite(size))
        return bl_fail(BL_INVALID, "sign-flip: expected finite differences, got %d with sum %g", n,
                       size);
    double bound = fabs(sum) - 1e-12 * size; /* as far from 0, but for rounding */
    *p = n <= ENUMERATED_PAIRS ? enumerate_flips(difference, n, bound)
                               : sample_flips(difference, n, key, bound);
    return BL_OK;
}

/* --- ranks */

typedef struct ranked {
    double size;
    int place;
} ranked;

static int by_size(const void *a, const void *b)
{
    double x = ((const ranked *)a)->size, y = ((const ranked *)b)->size;
    return (x > y) - (x < y);
}

bl_status bl_signed_ranks(const double *difference, int n, double *rank)
{
    for (int i = 0; i < n; i++)
        if (isnan(difference[i]))
            return bl_fail(BL_INVALID, "signed-rank: difference %d is not a number", i);
    ranked *sorted = bl_alloc((size_t)(n > 0 ? n : 1) * sizeof *sorted);
    if (!sorted)
        return bl_no_memory((size_t)n * sizeof *sorted);
    int count = 0;
    for (int i = 0; i < n; i++) {
        rank[i] = 0;
        if (difference[i] != 0)
            sorted[count++] = (ranked){fabs(difference[i]), i};
    }
    qsort(sorted, (size_t)count, sizeof *sorted, by_size);
    for (int begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1; end < count && sorted[end].size == sorted[begin].size;)
            end++;
        double mean_rank = (begin + 1 + end) / 2.0;
        for (int i = begin; i < end; i++)
            rank[sorted[i].place] = copysign(mean_rank, difference[sorted[i].place]);
    }
    bl_release(sorted);
    return BL_OK;
}

/* Two-sided p of the sum of the positive ranks, given the ranks: chance[s] becomes the chance that
 * the doubled ranks (whole numbers, also for ties) which get a plus sum to s. */
static bl_status enumerate_ranks(const double *rank, int n, double *p)
{
    int64_t total = 0, positive = 0;
    for (int i = 0; i < n; i++) {
        int64_t doubled = llround(2 * fabs(rank[i]));
        total += doubled;
        positive += rank[i] > 0 ? doubled : 0;
    }
    double *chance = bl_alloc((size_t)(total + 1) * sizeof *chance);
    if (!chance)
        return bl_no_memory((size_t)(total + 1) * sizeof *chance);
    int64_t reached = 0;
    chance[0] = 1;
    for (int i = 0; i < n; i++) {
        int64_t doubled = llround(2 * fabs(rank[i]));
        if (doubled == 0)
            continue;
        reached += doubled;
        for (int64_t s = reached; s >= 0; s--)
            chance[s] = (chance[s] + (s >= doubled ? chance[s - doubled] : 0)) / 2;
    }
    int64_t smaller = positive < total - positive ? positive : total - positive;
    double tail = 0;
    for (int64_t s = 0; s <= smaller; s++)
        tail += chance[s];
    bl_release(chance);
    *p = fmin(1, 2 * tail);
    return BL_OK;
}

bl_status bl_signed_rank(const double *difference, int n, double *p, int *effective)
{
    double *rank = bl_alloc((size_t)(n > 0 ? n : 1) * sizeof *rank);
    if (!rank)
        return bl_no_memory((size_t)n * sizeof *rank);
    bl_status status = bl_signed_ranks(difference, n, rank);
    double sum = 0, squares = 0;
    int count = 0;
    for (int i = 0; i < n && status == BL_OK; i++) {
        count += rank[i] != 0;
        sum += rank[i];
        squares += rank[i] * rank[i];
    }
    if (status == BL_OK && count <= ENUMERATED_RANKS)
        status = enumerate_ranks(rank, n, p);
    else if (status == BL_OK)
        *p = bl_t_two_sided(sum / sqrt(squares), INFINITY);
    if (effective)
        *effective = count;
    bl_release(rank);
    return status;
}

/* --- many arms, shares */

static double one_if_nan(double p)
{
    return isnan(p) ? 1 : p;
}

/* Step down from the smallest p: the i-th of m (from 0) is multiplied by m - i, and no adjusted p
 * is smaller than the one before it. */
bl_status bl_holm(const double *p, int count, double *adjusted)
{
    if (count <= 0)
        return BL_OK;
    ranked *sorted = bl_alloc((size_t)count * sizeof *sorted);
    if (!sorted)
        return bl_no_memory((size_t)count * sizeof *sorted);
    for (int i = 0; i < count; i++)
        sorted[i] = (ranked){one_if_nan(p[i]), i};
    qsort(sorted, (size_t)count, sizeof *sorted, by_size);
    double largest = 0;
    for (int i = 0; i < count; i++) {
        largest = fmax(largest, fmin(1, (count - i) * sorted[i].size));
        adjusted[sorted[i].place] = largest;
    }
    bl_release(sorted);
    return BL_OK;
}

bl_interval bl_wilson(double share, double n, double alpha)
{
    double z = bl_normal_quantile(1 - alpha / 2), z2 = z * z;
    double centre = (share + z2 / (2 * n)) / (1 + z2 / n);
    double half = z / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n * n));
    return (bl_interval){fmax(0, centre - half), fmin(1, centre + half)};
}
