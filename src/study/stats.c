/* The statistics of a comparison; stats.h says which test decides when, and why. In the order of
 * the header: distributions, power, tests, corrections, and the row that puts them together.
 *
 * One more test: a value of bl_test with its name and its floor, and a branch of `decide`. It then
 * needs a known answer and a false-alarm simulation in tests/test_stats.c. */
#include "study/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

#define TAU              6.283185307179586476925286766559
#define MOST_PAIRS       100000
#define ENUMERATED_PAIRS 20  /* 2^20 assignments of signs take a millisecond */
#define ENUMERATED_RANKS 200 /* the dynamic programme is cubic */
#define RANDOM_FLIPS     65535
#define FRACTION_BITS    40

/* --- distributions */

static double log_gamma(double x)
{
    int sign;
    return lgamma_r(x, &sign); /* lgamma writes a global variable */
}

/* The continued fraction of the incomplete beta function, which converges fast for
 * x < (a + 1) / (a + b + 2), by Lentz's method: numerator and denominator are kept off 0. */
static double beta_fraction(double a, double b, double x)
{
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double value = d;
    for (int m = 1; m < 100000; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        double change = 1;
        for (int half = 0; half < 2; half++) {
            double term = half ? odd : even;
            d = 1 + term * d;
            c = 1 + term / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            c = fabs(c) < tiny ? tiny : c;
            change = c * d;
            value *= change;
        }
        if (fabs(change - 1) < 1e-16)
            break;
    }
    return value;
}

/* I_x(a, b) with y = 1 - x given separately: near x = 1 the caller knows y better. */
static double incomplete_beta(double a, double b, double x, double y)
{
    if (x <= 0 || y <= 0)
        return x <= 0 ? 0 : 1;
    double front = exp(log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * log(x) + b * log(y));
    if (x < (a + 1) / (a + b + 2))
        return front * beta_fraction(a, b, x) / a;
    return 1 - front * beta_fraction(b, a, y) / b;
}

double bl_incomplete_beta(double a, double b, double x)
{
    if (!(a > 0 && b > 0 && x >= 0 && x <= 1))
        return NAN;
    return incomplete_beta(a, b, x, 1 - x);
}

double bl_t_two_sided(double t, double df)
{
    if (!(df > 0) || isnan(t))
        return NAN;
    if (isinf(t))
        return 0;
    if (isinf(df))
        return erfc(fabs(t) * sqrt(0.5));
    double scale = df + t * t;
    return isinf(scale) ? 0 : incomplete_beta(df / 2, 0.5, df / scale, t * t / scale);
}

double bl_t_cdf(double t, double df)
{
    double tail = bl_t_two_sided(t, df) / 2;
    return t < 0 ? tail : 1 - tail;
}

static double t_density(double t, double df)
{
    if (isinf(df))
        return exp(-t * t / 2) / sqrt(TAU);
    return exp(log_gamma((df + 1) / 2) - log_gamma(df / 2) - (df + 1) / 2 * log1p(t * t / df)) /
           sqrt(df * TAU / 2);
}

/* The t >= 0 whose upper tail is 0 < q <= 1/2: Newton's method on the logarithm of the tail,
 * bisected where it leaves the bracket. */
static double t_upper_quantile(double q, double df)
{
    double low = 0, high = 1;
    while (bl_t_two_sided(high, df) / 2 > q && high < 1e300)
        low = high, high *= 4;
    double t = low;
    for (int i = 0; i < 200; i++) {
        double tail = bl_t_two_sided(t, df) / 2;
        if (tail > q)
            low = t;
        else
            high = t;
        double next = t + (log(tail) - log(q)) * tail / t_density(t, df);
        if (!(next >= low && next <= high))
            next = (low + high) / 2;
        if (fabs(next - t) <= 4e-16 * fabs(next))
            return next;
        t = next;
    }
    return t;
}

double bl_t_quantile(double p, double df)
{
    if (!(df > 0 && p >= 0 && p <= 1))
        return NAN;
    if (p == 0 || p == 1)
        return p == 0 ? -INFINITY : INFINITY;
    if (p == 0.5)
        return 0;
    return p < 0.5 ? -t_upper_quantile(p, df) : t_upper_quantile(1 - p, df);
}

double bl_normal_cdf(double x)
{
    return bl_t_cdf(x, INFINITY);
}

double bl_normal_quantile(double p)
{
    return bl_t_quantile(p, INFINITY);
}

/* With u = log sqrt(chi2/df), whose density is proportional to exp(df (u - e^2u / 2)), the cdf is
 * the mean of Phi(t e^u - shift). The integrand is analytic and vanishes at both ends, so the
 * trapezoid rule converges geometrically once its step resolves both factors: the density has
 * width 1/sqrt(2 df), Phi changes over 1/shift. */
double bl_noncentral_t_cdf(double t, double df, double shift)
{
    if (!(df > 0) || isnan(t) || !isfinite(shift))
        return NAN;
    double step = 0.5 / (2 + sqrt(fmin(df, 1e12)) + fabs(shift)), sum = 0, weights = 0;
    if (isinf(df))
        return bl_normal_cdf(t - shift);
    for (int side = 0; side < 2; side++)
        for (int64_t i = side;; i++) {
            double u = (side ? -step : step) * (double)i;
            double weight = exp(df * (u - expm1(2 * u) / 2));
            weights += weight;
            sum += weight * bl_normal_cdf(t * exp(u) - shift);
            if (weight < 1e-18)
                break;
        }
    return sum / weights;
}

/* --- power */

double bl_effective_replicates(int n, double ratio)
{
    return 1 / (1.0 / n + ratio);
}

double bl_power(double d_z, int n, double ratio, double alpha)
{
    if (n < 2 || isnan(d_z) || !(alpha > 0 && alpha < 1))
        return NAN;
    double shift = fmin(fabs(d_z), 1000) * sqrt(bl_effective_replicates(n, ratio));
    double critical = bl_t_quantile(1 - alpha / 2, n - 1);
    return 1 - bl_noncentral_t_cdf(critical, n - 1, shift) +
           bl_noncentral_t_cdf(-critical, n - 1, shift);
}

/* The trapezoid rule over u = log(sigma of the pilots / true sigma), as in bl_noncentral_t_cdf. */
double bl_power_after_pilots(double d_z, int pilots, int n, double ratio, double alpha)
{
    if (pilots < 2)
        return NAN;
    double df = pilots - 1, step = 0.6 / (1 + sqrt(df)), sum = 0, weights = 0;
    for (int side = 0; side < 2; side++)
        for (int i = side;; i++) {
            double u = (side ? -step : step) * i;
            double weight = exp(df * (u - expm1(2 * u) / 2));
            weights += weight;
            sum += weight * bl_power(d_z * exp(u), n, ratio, alpha);
            if (weight < 1e-6)
                break;
        }
    return sum / weights;
}

/* pilots 0: d_z is in known standard deviations. */
static double power_of(double d_z, int pilots, int n, double ratio, double alpha)
{
    return pilots ? bl_power_after_pilots(d_z, pilots, n, ratio, alpha)
                  : bl_power(d_z, n, ratio, alpha);
}

static int pairs_needed(double d_z, int pilots, double ratio, double alpha, double power)
{
    int low = 1, high = 2; /* low is too few */
    while (!(power_of(d_z, pilots, high, ratio, alpha) >= power)) {
        if (high == MOST_PAIRS || isnan(d_z) || d_z == 0)
            return -1;
        low = high;
        high = high < MOST_PAIRS / 2 ? 2 * high : MOST_PAIRS;
    }
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (power_of(d_z, pilots, middle, ratio, alpha) >= power)
            high = middle;
        else
            low = middle;
    }
    return high;
}

static double detectable(int pilots, int n, double ratio, double alpha, double power)
{
    if (n < 2 || !(alpha > 0 && alpha < 1))
        return NAN;
    double low = 0, high = 1;
    while (power_of(high, pilots, n, ratio, alpha) < power && high < 1000)
        low = high, high *= 2;
    for (int i = 0; i < 24; i++) {
        double middle = (low + high) / 2;
        if (power_of(middle, pilots, n, ratio, alpha) < power)
            low = middle;
        else
            high = middle;
    }
    return high;
}

int bl_pairs_needed(double d_z, double ratio, double alpha, double power)
{
    return pairs_needed(d_z, 0, ratio, alpha, power);
}

double bl_detectable_effect(int n, double ratio, double alpha, double power)
{
    return detectable(0, n, ratio, alpha, power);
}

int bl_pairs_needed_after_pilots(double d_z, int pilots, double ratio, double alpha, double power)
{
    return pilots < 2 ? -1 : pairs_needed(d_z, pilots, ratio, alpha, power);
}

double bl_detectable_after_pilots(int pilots, int n, double ratio, double alpha, double power)
{
    return pilots < 2 ? NAN : detectable(pilots, n, ratio, alpha, power);
}

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

/* --- floors */

const char *bl_test_name(bl_test test)
{
    static const char *const name[BL_TESTS] = {
        [BL_TEST_PAIRED_T] = "paired t",
        [BL_TEST_RESPLIT_T] = "paired t, re-split variance",
        [BL_TEST_SIGNED_RANK] = "signed-rank",
        [BL_TEST_RESPLIT_RANK] = "t on signed ranks, re-split variance",
        [BL_TEST_SIGN_FLIP] = "sign-flip",
    };
    return name[test];
}

static double floor_of(bl_test test, double n)
{
    bool counts = test == BL_TEST_SIGNED_RANK || test == BL_TEST_SIGN_FLIP;
    return counts ? fmin(1, exp2(1 - n)) : 0;
}

double bl_test_floor(bl_test test, int n)
{
    return floor_of(test, n);
}

/* The fewest pairs whose floor is at most `level`. */
static int pairs_for_floor(bl_test test, double level)
{
    int n = 1;
    while (bl_test_floor(test, n) > level && n < 1100)
        n++;
    return n;
}

#define SENTENCE 200

static void floor_sentence(char text[SENTENCE], bl_test test, int n, int arms, double alpha)
{
    double level = alpha / arms;
    snprintf(
        text, SENTENCE,
        "%s over %d pairs cannot give a p below %.3g, and %.3g is needed (alpha %g over %d arm%s): "
        "run at least %d replicates",
        bl_test_name(test), n, bl_test_floor(test, n), level, alpha, arms, arms == 1 ? "" : "s",
        pairs_for_floor(test, level));
}

static bl_status check_alpha(double alpha)
{
    if (!(alpha > 0 && alpha < 1))
        return bl_fail(BL_INVALID, "alpha is %g, expected a number between 0 and 1", alpha);
    return BL_OK;
}

bl_status bl_test_check(bl_test test, int n, int arms, double alpha)
{
    BL_TRY(check_alpha(alpha));
    if (n < 2 || arms < 1)
        return bl_fail(BL_INVALID, "%d pairs and %d arms: expected at least 2 and 1", n, arms);
    if (bl_test_floor(test, n) <= alpha / arms)
        return BL_OK;
    char text[SENTENCE];
    floor_sentence(text, test, n, arms, alpha);
    return bl_fail(BL_INVALID, "%s", text);
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

/* --- a row of the table */

/* The pairs of one comparison, prepared: what each test works on. */
typedef struct pairs {
    int n, finite;
    double *difference; /* arm - baseline, of pairs with both finite */
    double *gain;       /* of all pairs: positive is better, infinite if one of the two diverged */
    double *work;       /* n values */
} pairs;

/* The unit to which differences are rounded, or 0 if there is nothing to measure it by: 2^-40 of
 * the median size of the scores that are neither 0 nor diverged. (The largest would not do: a run
 * that nearly diverged would hide all other differences.) */
static double unit_of(const double *arm, const double *baseline, int n, double *work)
{
    int count = 0;
    for (int i = 0; i < n; i++) {
        double size = fabs(arm[i]) < INFINITY && arm[i] != 0 ? fabs(arm[i]) : fabs(baseline[i]);
        if (size < INFINITY && size > 0)
            work[count++] = size;
    }
    if (count == 0)
        return 0;
    bl_sort_doubles(work, (size_t)count);
    return ldexp(1, ilogb(work[count / 2]) - FRACTION_BITS);
}

static double rounded_difference(double a, double b, double unit)
{
    return unit > 0 ? round((a - b) / unit) * unit : a - b;
}

static void prepare(pairs *p, const double *arm, const double *baseline, bool higher_is_better)
{
    double unit = unit_of(arm, baseline, p->n, p->work);
    for (int i = 0; i < p->n; i++) {
        bool arm_finite = isfinite(arm[i]), baseline_finite = isfinite(baseline[i]);
        if (arm_finite && baseline_finite) {
            double d = rounded_difference(arm[i], baseline[i], unit);
            p->difference[p->finite++] = d;
            p->gain[i] = higher_is_better ? d : -d;
        } else {
            p->gain[i] = arm_finite ? INFINITY : baseline_finite ? -INFINITY : 0;
        }
    }
}

/* Mean and interval of the finite scores of one arm; returns how many diverged. */
static int summarise(const double *score, pairs *p, double ratio, double alpha, double *mean,
                     bl_interval *interval)
{
    int finite = 0;
    for (int i = 0; i < p->n; i++)
        if (isfinite(score[i]))
            p->work[finite++] = score[i];
    *mean = bl_average(p->work, finite);
    *interval = bl_mean_interval(p->work, finite, ratio, alpha);
    return p->n - finite;
}

static double share_better(const double *gain, int n)
{
    double points = 0;
    for (int i = 0; i < n; i++)
        points += gain[i] > 0 ? 1 : gain[i] == 0 ? 0.5 : 0;
    return points / n;
}

static bool all_equal(const double *x, int n)
{
    for (int i = 1; i < n; i++)
        if (x[i] != x[0])
            return false;
    return true;
}

static int sign_of(double x)
{
    return (x > 0) - (x < 0);
}

/* Some run diverged: ranks. On re-splits the exact distribution is wrong in the same way as a plain
 * t, so the ranks themselves go through the corrected t. */
static bl_status decide_by_rank(pairs *p, bl_comparison *row)
{
    int nonzero;
    BL_TRY(bl_signed_rank(p->gain, p->n, &row->p, &nonzero));
    BL_TRY(bl_signed_ranks(p->gain, p->n, p->work));
    double mean = bl_average(p->work, p->n);
    row->direction = sign_of(mean);
    row->effect = mean == 0 ? 0 : fabs(mean) / bl_standard_deviation(p->work, p->n);
    row->test = BL_TEST_SIGNED_RANK;
    if (row->ratio > 0) {
        row->test = BL_TEST_RESPLIT_RANK;
        if (all_equal(p->work, p->n)) /* no spread, as in decide_without_spread */
            row->p = mean == 0
                         ? 1
                         : floor_of(BL_TEST_SIGN_FLIP, bl_effective_replicates(p->n, row->ratio));
        else
            row->p = bl_paired_t(p->work, p->n, row->ratio, NULL);
    }
    row->floor = floor_of(row->test, nonzero);
    row->equivalence_p = 1; /* a run that diverged is not equivalent to anything */
    return BL_OK;
}

/* All differences are equal. The sign-flip test needs no scale; with re-splits its n is that of the
 * effective replicates, which never is enough to reject on overlapping test parts. */
static void decide_without_spread(pairs *p, double min_effect, bl_comparison *row)
{
    double replicates = bl_effective_replicates(p->n, row->ratio), d = p->difference[0];
    row->test = BL_TEST_SIGN_FLIP;
    row->floor = floor_of(BL_TEST_SIGN_FLIP, replicates);
    row->p = d == 0 ? 1 : row->floor;
    row->effect = d == 0 ? 0 : INFINITY;
    row->least_effect = min_effect > 0 ? INFINITY : 0;
    row->equivalence_p = fabs(d) < min_effect ? row->floor / 2 : 1; /* one-sided */
}

static void decide_by_t(pairs *p, double min_effect, bl_comparison *row)
{
    row->test = row->ratio > 0 ? BL_TEST_RESPLIT_T : BL_TEST_PAIRED_T;
    row->p = bl_paired_t(p->difference, p->n, row->ratio, NULL);
    row->effect = fabs(row->d_z);
    row->least_effect = min_effect / bl_standard_deviation(p->difference, p->n);
    row->equivalence_p =
        min_effect > 0 ? bl_equivalence(p->difference, p->n, row->ratio, min_effect) : 1;
}

static bl_status decide(const bl_compare_options *o, pairs *p, bl_comparison *row)
{
    if (row->arm_diverged + row->baseline_diverged > 0) {
        snprintf(row->note, sizeof row->note,
                 "%d of %d runs diverged, %d of the baseline's: ranks decide, means are of the "
                 "finite runs",
                 row->arm_diverged, row->pairs, row->baseline_diverged);
        return decide_by_rank(p, row);
    }
    row->direction = sign_of(bl_average(p->gain, p->n));
    if (all_equal(p->difference, p->n))
        decide_without_spread(p, o->min_effect, row);
    else
        decide_by_t(p, o->min_effect, row);
    if (row->ratio == 0)
        BL_TRY(bl_sign_flip(p->difference, p->n, o->key, &row->sign_flip_p));
    return BL_OK;
}

static bl_status check_options(const bl_compare_options *o, double alpha, int n)
{
    BL_TRY(check_alpha(alpha));
    if (n < 2)
        return bl_fail(BL_INVALID, "comparison: %d replicates, expected at least 2", n);
    if (!(o->min_effect >= 0 && o->min_effect < INFINITY))
        return bl_fail(BL_INVALID, "comparison: min_effect is %g, expected 0 or more",
                       o->min_effect);
    if (o->train_count < 0 || o->test_count < 0 || !o->train_count != !o->test_count)
        return bl_fail(BL_INVALID,
                       "comparison: re-splits with %lld training and %lld test examples: expected "
                       "both, or neither for a fixed test set",
                       (long long)o->train_count, (long long)o->test_count);
    return BL_OK;
}

static bl_status fill_row(const bl_compare_options *o, double alpha, const double *arm,
                          const double *baseline, pairs *p, bl_comparison *row)
{
    double ratio = row->ratio;
    prepare(p, arm, baseline, o->higher_is_better);
    row->finite_pairs = p->finite;
    row->arm_diverged = summarise(arm, p, ratio, alpha, &row->arm_mean, &row->arm_interval);
    row->baseline_diverged =
        summarise(baseline, p, ratio, alpha, &row->baseline_mean, &row->baseline_interval);
    row->difference = bl_average(p->difference, p->finite);
    row->difference_interval = (bl_interval){NAN, NAN};
    row->d_z = NAN;
    if (!all_equal(p->difference, p->finite)) {
        row->difference_interval = bl_mean_interval(p->difference, p->finite, ratio, alpha);
        row->d_z = row->difference / bl_standard_deviation(p->difference, p->finite);
    }
    row->better = share_better(p->gain, p->n);
    row->better_interval = bl_wilson(row->better, bl_effective_replicates(p->n, ratio), alpha);
    row->sign_flip_p = NAN;
    row->adjusted_p = row->adjusted_equivalence_p = NAN;
    return decide(o, p, row);
}

bl_status bl_compare(const bl_compare_options *options, const double *arm, const double *baseline,
                     int n, bl_comparison *out)
{
    double alpha = options->alpha == 0 ? 0.05 : options->alpha;
    *out = (bl_comparison){.pairs = n};
    BL_TRY(check_options(options, alpha, n));
    if (options->train_count > 0)
        out->ratio = (double)options->test_count / (double)options->train_count;
    double *block = bl_alloc(3 * (size_t)n * sizeof *block);
    if (!block)
        return bl_no_memory(3 * (size_t)n * sizeof *block);
    pairs p = {.n = n, .difference = block, .gain = block + n, .work = block + 2 * n};
    bl_status status = fill_row(options, alpha, arm, baseline, &p, out);
    bl_release(block);
    return status;
}

/* --- verdicts */

const char *bl_verdict_name(bl_verdict verdict)
{
    static const char *const name[BL_VERDICTS] = {
        [BL_UNDECIDED] = "undecided",
        [BL_HELPS] = "helps",
        [BL_HURTS] = "hurts",
        [BL_EQUIVALENT] = "equivalent",
    };
    return name[verdict];
}

static bl_verdict verdict_of(const bl_comparison *row, double alpha)
{
    if (row->adjusted_equivalence_p <= alpha)
        return BL_EQUIVALENT;
    if (row->adjusted_p <= alpha && row->direction != 0)
        return row->direction > 0 ? BL_HELPS : BL_HURTS;
    return BL_UNDECIDED;
}

/* How many more replicates for 80 % power at this level, or -1. */
static int pairs_more(const bl_comparison *row, double level)
{
    double effect = fmax(row->effect, row->least_effect);
    if (!(effect > 0) || (isinf(row->effect) && row->ratio > 0))
        return -1;
    int needed = bl_pairs_needed(effect, row->ratio, level, 0.8);
    if (needed > 0 && needed <= row->pairs) /* enough for min_effect, but the effect is smaller */
        needed = bl_pairs_needed(row->effect, row->ratio, level, 0.8);
    if (needed < 0)
        return -1;
    int least = pairs_for_floor(row->test, level);
    needed = needed > least ? needed : least;
    return needed > row->pairs ? needed - row->pairs : 1;
}

/* Adds the sentence why this row could not have been decided, if so. */
static void explain_floor(bl_comparison *row, int arms, double alpha)
{
    if (row->floor <= alpha / arms || row->ratio > 0)
        return;
    char text[SENTENCE];
    int tested = (int)lround(1 - log2(row->floor)); /* floor is 2^(1-n) */
    floor_sentence(text, row->test, tested, arms, alpha);
    size_t used = strlen(row->note);
    snprintf(row->note + used, sizeof row->note - used, "%s%s", used ? "; " : "", text);
}

/* Adds to a verdict by t that the sign-flip test, which assumes no normality, does not bear it out,
 * if so. */
static void explain_check(bl_comparison *row, double alpha)
{
    bool shown = row->verdict == BL_HELPS || row->verdict == BL_HURTS;
    if (!shown || row->test != BL_TEST_PAIRED_T || !(row->sign_flip_p > alpha))
        return;
    double least = floor_of(BL_TEST_SIGN_FLIP, row->pairs);
    if (least > alpha)
        snprintf(row->note, sizeof row->note,
                 "the check by sign-flip, which assumes no normality, cannot be below %.3g with %d "
                 "pairs",
                 least, row->pairs);
    else
        snprintf(row->note, sizeof row->note,
                 "the check by sign-flip, which assumes no normality, does not bear this out: "
                 "p = %.3g",
                 row->sign_flip_p);
}

/* The members of the family that have no row count with p = 1. */
static bl_status adjust(bl_comparison *rows, int count, int family, double *p)
{
    for (int i = 0; i < family; i++)
        p[i] = i < count ? rows[i].p : 1;
    BL_TRY(bl_holm(p, family, p));
    for (int i = 0; i < count; i++)
        rows[i].adjusted_p = p[i];
    for (int i = 0; i < family; i++)
        p[i] = i < count ? rows[i].equivalence_p : 1;
    BL_TRY(bl_holm(p, family, p));
    for (int i = 0; i < count; i++)
        rows[i].adjusted_equivalence_p = p[i];
    return BL_OK;
}

bl_status bl_verdicts_among(bl_comparison *rows, int count, int family, double alpha)
{
    BL_TRY(check_alpha(alpha));
    if (count <= 0)
        return BL_OK;
    if (family < count)
        return bl_fail(BL_INVALID, "%d rows among %d: expected at least as many", count, family);
    double *p = bl_alloc((size_t)family * sizeof *p);
    if (!p)
        return bl_no_memory((size_t)family * sizeof *p);
    bl_status status = adjust(rows, count, family, p);
    bl_release(p);
    BL_TRY(status);
    for (int i = 0; i < count; i++) {
        bl_comparison *row = &rows[i];
        row->verdict = verdict_of(row, alpha);
        row->pairs_more = 0;
        if (row->verdict == BL_UNDECIDED) {
            row->pairs_more = pairs_more(row, alpha / family);
            explain_floor(row, family, alpha);
        }
        explain_check(row, alpha);
    }
    return BL_OK;
}

bl_status bl_verdicts(bl_comparison *rows, int count, double alpha)
{
    return bl_verdicts_among(rows, count, count, alpha);
}
