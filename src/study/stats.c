/* A row of the table: an arm beside the baseline, and the verdicts of all rows; stats.h says which
 * test decides when, and why. distributions.c, power.c and paired_tests.c have what this is made
 * of.
 *
 * One more test: a value of bl_test with its name and its floor, and a branch of `decide`. It then
 * needs a known answer and a false-alarm simulation in tests/test_stats.c. */
#include "study/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

#define FRACTION_BITS 40

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
