/* The statistics of a comparison; stats.h says what each function is and where it is from. */
#include "study/stats.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

/* --- distributions
 * ------------------------------------------------------------------------------------- */
double bl_normal_cdf(double x)
{
    return 0.5 * erfc(-x * M_SQRT1_2);
}

/* The x in [low, high] with f(x, context) = p, f rising; to the last bit that bisection gives. */
static double invert(double (*f)(double, double), double context, double p, double low, double high)
{
    for (int i = 0; i < 200; i++) {
        double middle = 0.5 * (low + high);
        if (middle == low || middle == high)
            break;
        if (f(middle, context) < p)
            low = middle;
        else
            high = middle;
    }
    return 0.5 * (low + high);
}

static double normal_tail(double x, double unused)
{
    (void)unused;
    return 0.5 * erfc(-x * M_SQRT1_2);
}

double bl_normal_quantile(double p)
{
    if (!(p >= 0 && p <= 1))
        return NAN;
    if (p == 0 || p == 1)
        return p == 0 ? -INFINITY : INFINITY;
    return p > 0.5 ? -invert(normal_tail, 0, 1 - p, -40, 0) : invert(normal_tail, 0, p, -40, 0);
}

static double beta_fraction(double a, double b, double x)
{
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double value = d;
    for (int m = 1; m <= 10000; m++) {
        double step = 1;
        for (int half = 0; half < 2; half++) {
            double k = m, term = half == 0
                                     ? k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k))
                                     : -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1));
            d = 1 + term * d;
            c = 1 + term / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            c = fabs(c) < tiny ? tiny : c;
            step = c * d;
            value *= step;
        }
        if (fabs(step - 1) < 1e-16)
            break;
    }
    return value;
}

double bl_incomplete_beta(double a, double b, double x)
{
    if (!(a > 0 && b > 0 && x >= 0 && x <= 1))
        return NAN;
    if (x == 0 || x == 1)
        return x;
    double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a
                                     : 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double bl_t_two_sided(double t, double df)
{
    if (!(df > 0) || isnan(t))
        return NAN;
    if (isinf(df))
        return erfc(fabs(t) * M_SQRT1_2);
    if (isinf(t))
        return 0;
    return bl_incomplete_beta(df / 2, 0.5, df / (df + t * t));
}

double bl_t_cdf(double t, double df)
{
    double tail = bl_t_two_sided(t, df) / 2;
    return t > 0 ? 1 - tail : tail;
}

static double t_lower(double t, double df)
{
    return bl_t_two_sided(t, df) / 2; /* t <= 0 */
}

double bl_t_quantile(double p, double df)
{
    if (!(df > 0) || !(p >= 0 && p <= 1))
        return NAN;
    if (p == 0 || p == 1)
        return p == 0 ? -INFINITY : INFINITY;
    if (p == 0.5)
        return 0;
    double lower = p < 0.5 ? p : 1 - p, bound = -1;
    while (t_lower(bound, df) > lower && bound > -1e300)
        bound *= 2;
    double t = invert(t_lower, df, lower, bound, 0);
    return p < 0.5 ? t : -t;
}

/* The density of log of sqrt(chi2 / df) at y is smooth and falls off fast on both sides, so that
 * the trapezoid rule is exact to rounding. */
double bl_noncentral_t_cdf(double t, double df, double shift)
{
    if (!(df > 0) || isnan(t) || isnan(shift))
        return NAN;
    enum { POINTS = 2000 };
    double width = 40 / sqrt(df) > 12 ? 12 : 40 / sqrt(df), low = -width,
           high = width < 3 ? width : 3;
    double log_scale = log(2) + (df / 2) * log(df / 2) - lgamma(df / 2),
           step = (high - low) / POINTS, sum = 0;
    for (int i = 0; i <= POINTS; i++) {
        double y = low + step * i, scale = exp(y);
        double density = exp(log_scale + df * y - df / 2 * scale * scale);
        sum += density * bl_normal_cdf(t * scale - shift);
    }
    return sum * step;
}

/* --- power
 * ---------------------------------------------------------------------------------------------- */
double bl_effective_replicates(int n, double ratio)
{
    return 1 / (1.0 / n + ratio);
}

double bl_power(double d_z, int n, double ratio, double alpha)
{
    double df = n - 1, shift = d_z * sqrt(bl_effective_replicates(n, ratio));
    double critical = -bl_t_quantile(alpha / 2, df);
    return 1 - bl_noncentral_t_cdf(critical, df, shift) + bl_noncentral_t_cdf(-critical, df, shift);
}

int bl_pairs_needed(double d_z, double ratio, double alpha, double power)
{
    enum { MOST = 1000000 };
    if (!(fabs(d_z) > 0) || bl_power(fabs(d_z), MOST, ratio, alpha) < power)
        return -1;
    int low = 1, high = 2; /* power(low) is too small, power(high) enough */
    while (bl_power(fabs(d_z), high, ratio, alpha) < power) {
        low = high;
        high = high > MOST / 2 ? MOST : 2 * high;
    }
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (bl_power(fabs(d_z), middle, ratio, alpha) < power)
            low = middle;
        else
            high = middle;
    }
    return high;
}

double bl_detectable_effect(int n, double ratio, double alpha, double power)
{
    double low = 0, high = 1;
    while (bl_power(high, n, ratio, alpha) < power && high < 1e6)
        high *= 2;
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        if (bl_power(middle, n, ratio, alpha) < power)
            low = middle;
        else
            high = middle;
    }
    return high;
}

/* --- tests on n differences
 * ------------------------------------------------------------------------------- */
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
    return bl_standard_deviation(x, n) * sqrt(1.0 / n + ratio);
}

double bl_paired_t(const double *difference, int n, double ratio, double *t)
{
    double mean = bl_average(difference, n), error = standard_error(difference, n, ratio);
    double statistic = error > 0 ? mean / error : mean > 0 ? INFINITY : mean < 0 ? -INFINITY : 0;
    if (t)
        *t = statistic;
    return n > 1 ? bl_t_two_sided(statistic, n - 1) : NAN;
}

bl_interval bl_mean_interval(const double *x, int n, double ratio, double alpha)
{
    double mean = bl_average(x, n),
           half = -bl_t_quantile(alpha / 2, n - 1) * standard_error(x, n, ratio);
    return (bl_interval){mean - half, mean + half};
}

double bl_equivalence(const double *difference, int n, double ratio, double margin)
{
    double mean = bl_average(difference, n), error = standard_error(difference, n, ratio);
    if (!(error > 0))
        return fabs(mean) < margin ? 0 : 1;
    double above = bl_t_cdf(-(mean + margin) / error, n - 1); /* P(T >= t) of "mean <= -margin" */
    double below = bl_t_cdf((mean - margin) / error, n - 1);
    return above > below ? above : below;
}

bl_status bl_sign_flip(const double *difference, int n, bl_key key, double *p)
{
    enum { EXACT = 20, DRAWS = 65535 };
    double observed = 0, size = 0;
    for (int i = 0; i < n; i++) {
        observed += difference[i];
        size += fabs(difference[i]);
    }
    double least = fabs(observed) - 1e-12 * size; /* sums in another order round otherwise */
    int64_t hits = 0, draws = n <= EXACT ? (int64_t)1 << n : DRAWS;
    bl_random random = bl_random_new(key);
    for (int64_t k = 0; k < draws; k++) {
        double sum = 0;
        uint32_t signs = (uint32_t)k;
        for (int i = 0; i < n; i++) {
            if (n > EXACT && i % 32 == 0)
                signs = bl_random_bits32(&random);
            sum += (signs >> (i % 32)) & 1 ? difference[i] : -difference[i];
        }
        hits += fabs(sum) >= least;
    }
    *p = n <= EXACT ? (double)hits / (double)draws : (1.0 + (double)hits) / (1.0 + (double)draws);
    return BL_OK;
}

typedef struct ranked {
    double size;
    int at;
} ranked;

static int by_size(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return x->size != y->size ? (x->size > y->size) - (x->size < y->size)
                              : (x->at > y->at) - (x->at < y->at);
}

bl_status bl_signed_ranks(const double *difference, int n, double *rank)
{
    ranked *order = bl_alloc((size_t)(n + 1) * sizeof *order);
    if (!order)
        return bl_no_memory((size_t)n * sizeof *order);
    int count = 0;
    for (int i = 0; i < n; i++) {
        rank[i] = 0;
        if (difference[i] != 0)
            order[count++] = (ranked){fabs(difference[i]), i};
    }
    qsort(order, (size_t)count, sizeof *order, by_size);
    for (int start = 0, end; start < count; start = end) {
        for (end = start; end < count && order[end].size == order[start].size; end++)
            continue;
        for (int k = start; k < end; k++) {
            double middle = 0.5 * (start + 1 + end);
            rank[order[k].at] = difference[order[k].at] > 0 ? middle : -middle;
        }
    }
    bl_release(order);
    return BL_OK;
}

/* P(|W+ - mean| >= |observed - mean|) over all signs, with ranks doubled to whole numbers. */
static bl_status exact_rank_p(const double *rank, int n, double *p)
{
    int64_t total = 0, positive = 0;
    for (int i = 0; i < n; i++) {
        total += llround(2 * fabs(rank[i]));
        positive += rank[i] > 0 ? llround(2 * rank[i]) : 0;
    }
    double *share = bl_alloc((size_t)(total + 1) * sizeof *share);
    if (!share)
        return bl_no_memory((size_t)total * sizeof *share);
    share[0] = 1;
    int64_t reach = 0;
    for (int i = 0; i < n; i++) {
        int64_t r = llround(2 * fabs(rank[i]));
        if (r == 0)
            continue;
        reach += r;
        for (int64_t s = reach; s >= 0; s--)
            share[s] = 0.5 * (share[s] + (s >= r ? share[s - r] : 0));
    }
    double sum = 0;
    int64_t distance = llabs(2 * positive - total);
    for (int64_t s = 0; s <= total; s++)
        sum += llabs(2 * s - total) >= distance ? share[s] : 0;
    *p = sum < 1 ? sum : 1;
    bl_release(share);
    return BL_OK;
}

bl_status bl_signed_rank(const double *difference, int n, double *p, int *effective)
{
    enum { EXACT = 200 };
    double *rank = bl_alloc((size_t)(n + 1) * sizeof *rank), sum = 0, squares = 0;
    int count = 0;
    bl_status status = rank ? bl_signed_ranks(difference, n, rank) : bl_no_memory((size_t)n);
    for (int i = 0; status == BL_OK && i < n; i++) {
        count += rank[i] != 0;
        sum += rank[i];
        squares += rank[i] * rank[i];
    }
    *p = 1;
    if (status == BL_OK && count > EXACT)
        *p = bl_t_two_sided(sum / sqrt(squares), INFINITY);
    else if (status == BL_OK && count)
        status = exact_rank_p(rank, n, p);
    if (effective)
        *effective = count;
    bl_release(rank);
    return status;
}

const char *bl_test_name(bl_test test)
{
    static const char *const name[BL_TESTS] = {
        [BL_TEST_PAIRED_T] = "paired t",
        [BL_TEST_RESPLIT_T] = "paired t, Nadeau-Bengio variance",
        [BL_TEST_SIGNED_RANK] = "signed-rank",
        [BL_TEST_RESPLIT_RANK] = "t on signed ranks, Nadeau-Bengio variance",
        [BL_TEST_SIGN_FLIP] = "sign-flip"};
    return name[test];
}

double bl_test_floor(bl_test test, int n)
{
    return test == BL_TEST_SIGNED_RANK || test == BL_TEST_SIGN_FLIP ? ldexp(1, 1 - (n > 0 ? n : 1))
                                                                    : 0;
}

bl_status bl_test_check(bl_test test, int n, int arms, double alpha)
{
    double floor_p = bl_test_floor(test, n), limit = alpha / arms;
    if (floor_p <= limit)
        return BL_OK;
    int enough = n;
    while (bl_test_floor(test, enough) > limit)
        enough++;
    return bl_fail(BL_INVALID,
                   "%s over %d pairs cannot give a p below %.3g, but alpha %g over %d arm%s needs "
                   "%.3g: run at least %d "
                   "replicates",
                   bl_test_name(test), n, floor_p, alpha, arms, arms == 1 ? "" : "s", limit,
                   enough);
}

/* --- many arms, shares
 * --------------------------------------------------------------------------------------- */
static int by_value(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return (x->size > y->size) - (x->size < y->size);
}

bl_status bl_holm(const double *p, int count, double *adjusted)
{
    ranked *order = bl_alloc((size_t)(count + 1) * sizeof *order);
    if (!order)
        return bl_no_memory((size_t)count * sizeof *order);
    for (int i = 0; i < count; i++)
        order[i] = (ranked){isnan(p[i]) ? 1 : p[i], i};
    qsort(order, (size_t)count, sizeof *order, by_value);
    double largest = 0;
    for (int k = 0; k < count; k++) {
        double scaled = order[k].size * (count - k);
        largest = fmax(largest, scaled < 1 ? scaled : 1);
        adjusted[order[k].at] = largest;
    }
    bl_release(order);
    return BL_OK;
}

bl_interval bl_wilson(double share, double n, double alpha)
{
    double z = -bl_normal_quantile(alpha / 2), z2 = z * z;
    double middle = (share + z2 / (2 * n)) / (1 + z2 / n);
    double half = z / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n * n));
    return (bl_interval){fmax(0, middle - half), fmin(1, middle + half)};
}

/* --- a row of the table
 * ----------------------------------------------------------------------------------------- */
static double alpha_of(const bl_compare_options *o)
{
    return o->alpha > 0 ? o->alpha : 0.05;
}

static bl_status check(const bl_compare_options *o, int n)
{
    if (n < 2)
        return bl_fail(BL_INVALID, "a comparison needs at least 2 replicates, not %d", n);
    if (!(alpha_of(o) > 0 && alpha_of(o) < 1))
        return bl_fail(BL_INVALID, "alpha is %g, but must be in (0,1)", o->alpha);
    if (!(o->min_effect >= 0))
        return bl_fail(BL_INVALID, "min_effect is %g, but must be at least 0", o->min_effect);
    if ((o->train_count > 0) != (o->test_count > 0))
        return bl_fail(BL_INVALID, "a re-split needs both parts, not %lld train and %lld test",
                       (long long)o->train_count, (long long)o->test_count);
    return BL_OK;
}

/* The finite ones of x, their mean and interval. */
static int summarise(const double *x, int n, double ratio, double alpha, double *room, double *mean,
                     bl_interval *i)
{
    int count = 0;
    for (int k = 0; k < n; k++)
        if (isfinite(x[k]))
            room[count++] = x[k];
    *mean = bl_average(room, count);
    *i = count > 1 ? bl_mean_interval(room, count, ratio, alpha) : (bl_interval){NAN, NAN};
    return count;
}

/* better[i]: how much better the arm is than the baseline; infinite where only one of them
 * diverged. */
static void oriented(const bl_compare_options *o, const double *arm, const double *baseline, int n,
                     double *better)
{
    for (int i = 0; i < n; i++) {
        bool a = isfinite(arm[i]), b = isfinite(baseline[i]);
        double d = a && b ? arm[i] - baseline[i] : 0;
        if (a && b && fabs(d) <= ldexp(fmax(fabs(arm[i]), fabs(baseline[i])), -40))
            d = 0;
        better[i] = a && b ? (o->higher_is_better ? d : -d) : a ? INFINITY : b ? -INFINITY : 0;
    }
}

static bl_status rank_test(bl_comparison *c, const double *better, int n, double *rank)
{
    BL_TRY(bl_signed_ranks(better, n, rank));
    double sd = bl_standard_deviation(rank, n);
    c->effect = sd > 0 ? bl_average(rank, n) / sd : 0;
    if (c->ratio > 0) {
        c->test = BL_TEST_RESPLIT_RANK;
        c->p = bl_paired_t(rank, n, c->ratio, NULL);
        return BL_OK;
    }
    int effective;
    c->test = BL_TEST_SIGNED_RANK;
    BL_TRY(bl_signed_rank(better, n, &c->p, &effective));
    c->floor = bl_test_floor(c->test, effective);
    return BL_OK;
}

static bl_status finite_test(const bl_compare_options *o, bl_comparison *c, const double *better,
                             int n)
{
    double sd = bl_standard_deviation(better, n);
    c->effect = sd > 0 ? bl_average(better, n) / sd : 0;
    if (c->ratio == 0)
        BL_TRY(bl_sign_flip(better, n, o->key, &c->sign_flip_p));
    if (o->min_effect > 0)
        c->equivalence_p = bl_equivalence(better, n, c->ratio, o->min_effect);
    if (sd > 0) {
        c->test = c->ratio > 0 ? BL_TEST_RESPLIT_T : BL_TEST_PAIRED_T;
        c->p = bl_paired_t(better, n, c->ratio, NULL);
        return BL_OK;
    }
    c->test = BL_TEST_SIGN_FLIP;
    c->floor = bl_test_floor(c->test, n);
    return bl_sign_flip(better, n, o->key, &c->p);
}

static bl_status decide(const bl_compare_options *o, bl_comparison *c, const double *better, int n,
                        double *room)
{
    double wins = 0, sum = 0;
    for (int i = 0; i < n; i++) {
        wins += better[i] > 0 ? 1 : better[i] == 0 ? 0.5 : 0;
        sum += isfinite(better[i]) ? better[i] : 0;
    }
    c->better = wins / n;
    c->better_interval = bl_wilson(c->better, bl_effective_replicates(n, c->ratio), alpha_of(o));
    bool diverged = c->arm_diverged + c->baseline_diverged > 0;
    BL_TRY(diverged ? rank_test(c, better, n, room) : finite_test(o, c, better, n));
    double lean = diverged ? bl_average(room, n) : sum;
    c->direction = lean > 0 ? 1 : lean < 0 ? -1 : 0;
    if (diverged)
        snprintf(c->note, sizeof c->note,
                 "%d arm and %d baseline runs diverged; they rank last and %s decides",
                 c->arm_diverged, c->baseline_diverged, bl_test_name(c->test));
    return BL_OK;
}

bl_status bl_compare(const bl_compare_options *o, const double *arm, const double *baseline, int n,
                     bl_comparison *c)
{
    BL_TRY(check(o, n));
    *c = (bl_comparison){.pairs = n,
                         .p = 1,
                         .adjusted_p = 1,
                         .adjusted_equivalence_p = 1,
                         .equivalence_p = 1,
                         .sign_flip_p = NAN,
                         .pairs_more = -1};
    c->ratio = o->train_count > 0 ? (double)o->test_count / (double)o->train_count : 0;
    double *room = bl_alloc((size_t)n * 2 * sizeof *room), *better = room + n, alpha = alpha_of(o);
    if (!room)
        return bl_no_memory((size_t)n * 2 * sizeof *room);
    c->arm_diverged = n - summarise(arm, n, c->ratio, alpha, room, &c->arm_mean, &c->arm_interval);
    c->baseline_diverged =
        n - summarise(baseline, n, c->ratio, alpha, room, &c->baseline_mean, &c->baseline_interval);
    for (int i = 0; i < n; i++)
        better[i] = isfinite(arm[i]) && isfinite(baseline[i]) ? arm[i] - baseline[i] : NAN;
    c->finite_pairs =
        summarise(better, n, c->ratio, alpha, room, &c->difference, &c->difference_interval);
    double sd = bl_standard_deviation(room, c->finite_pairs);
    c->d_z = sd > 0 ? c->difference / sd : NAN;
    if (!(sd > 0) && c->difference != 0)
        c->difference_interval = (bl_interval){NAN, NAN};
    oriented(o, arm, baseline, n, better);
    bl_status status = decide(o, c, better, n, room);
    if (o->min_effect > 0 && sd > 0 && fabs(c->effect) < o->min_effect / sd)
        c->effect = o->min_effect / sd;
    bl_release(room);
    return status;
}

const char *bl_verdict_name(bl_verdict verdict)
{
    static const char *const name[BL_VERDICTS] = {[BL_UNDECIDED] = "undecided",
                                                  [BL_HELPS] = "helps",
                                                  [BL_HURTS] = "hurts",
                                                  [BL_EQUIVALENT] = "equivalent"};
    return name[verdict];
}

static void give_verdict(bl_comparison *c, int arms, double alpha)
{
    if (c->adjusted_equivalence_p <= alpha)
        c->verdict = BL_EQUIVALENT;
    else if (c->adjusted_p <= alpha && c->direction != 0)
        c->verdict = c->direction > 0 ? BL_HELPS : BL_HURTS;
    else
        c->verdict = BL_UNDECIDED;
    if (c->verdict != BL_UNDECIDED)
        return;
    int needed = bl_pairs_needed(c->effect, c->ratio, alpha / arms, 0.8);
    c->pairs_more = needed < 0 ? -1 : needed > c->pairs ? needed - c->pairs : 1;
    if (!c->note[0] && c->floor > alpha / arms &&
        bl_test_check(c->test, c->pairs, arms, alpha) != BL_OK)
        snprintf(c->note, sizeof c->note, "%s", bl_error());
}

bl_status bl_verdicts(bl_comparison *row, int count, double alpha)
{
    double *p = bl_alloc((size_t)(count + 1) * 2 * sizeof *p), *equivalence = p + count;
    if (!p)
        return bl_no_memory((size_t)count * 2 * sizeof *p);
    for (int i = 0; i < count; i++) {
        p[i] = row[i].p;
        equivalence[i] = row[i].equivalence_p;
    }
    bl_status status = bl_holm(p, count, p);
    if (status == BL_OK)
        status = bl_holm(equivalence, count, equivalence);
    for (int i = 0; i < count && status == BL_OK; i++) {
        row[i].adjusted_p = p[i];
        row[i].adjusted_equivalence_p = equivalence[i];
        give_verdict(&row[i], count, alpha);
    }
    bl_release(p);
    return status;
}
