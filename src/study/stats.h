/* The statistics of a comparison of training methods: does an arm beat the baseline, by how much,
 * and is there enough evidence to say so? Pure functions of arrays of doubles; nothing here knows
 * of jobs, stores or tables.
 *
 * Replicate i of an arm and replicate i of the baseline share split, label noise and order, so they
 * are a pair; what is tested is the n differences of one metric. A row of a table is one
 * bl_compare; the verdicts of all rows are then one bl_verdicts, because they are corrected for
 * each other:
 *
 *     bl_compare_options o = {.higher_is_better = true, .min_effect = 0.005};
 *     for (int i = 0; i < arms; i++)                                  without the baseline
 *         BL_TRY(bl_compare(&o, score[i], baseline_score, n, &row[i]));
 *     BL_TRY(bl_verdicts(row, arms, 0.05));
 *     printf("%s, p = %.3f\n", bl_verdict_name(row[0].verdict), row[0].adjusted_p);
 *
 * Which test decides (bl_compare chooses; one more test is a bl_test, its name, its floor and a
 * branch of `decide` in stats.c):
 *   fixed test set            two-sided paired t; the exact sign-flip test is a check, and what it
 *                             does not bear out is noted
 *   re-splits of one file     paired t with the variance of Nadeau and Bengio: the test parts
 *                             overlap, and a plain t rejects a true null in a quarter of studies
 *   some run diverged         signed-rank, in which a diverged run is worse than any finite one
 *   the same, re-splits       t on the signed ranks with the variance of Nadeau and Bengio
 *   all differences equal     sign-flip: with no spread, t would claim certainty from two pairs
 *
 * Sources: Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52, 2003
 * (variance of re-splits). Holm, Scand. J. Statistics 6, 1979. Schuirmann, J. Pharmacokinetics 15,
 * 1987 (two one-sided tests). Wilcoxon, Biometrics 1, 1945, and Conover and Iman, American
 * Statistician 35, 1981 (t on ranks). Fisher, The Design of Experiments, 1935 (sign flips). Wilson,
 * JASA 22, 1927. Bouthillier et al., MLSys 2021, arXiv 2103.03098 (P(arm better)). */
#ifndef BL_STUDY_STATS_H
#define BL_STUDY_STATS_H

#include "ballast/array.h"

/* --- distributions: NaN for an argument without meaning (df <= 0, p outside [0,1]) ----------- */

double bl_normal_cdf(double x);
double bl_normal_quantile(double p); /* -inf at 0, inf at 1 */

/* I_x(a, b), a and b > 0, by Lentz's continued fraction (Numerical Recipes, section 6.4). */
double bl_incomplete_beta(double a, double b, double x);

/* Student's t; df may be fractional, and INFINITY is the normal distribution. */
double bl_t_cdf(double t, double df);
double bl_t_quantile(double p, double df);
double bl_t_two_sided(double t, double df); /* P(|T| >= |t|), accurate far out in the tail */

/* P(T <= t) where T = (Z + shift) / sqrt(chi2 / df), by the trapezoid rule over log chi. */
double bl_noncentral_t_cdf(double t, double df, double shift);

/* --- power ----------------------------------------------------------------------------------
 * `ratio` is n_test / n_train of re-splits, 0 for a fixed test set; it bounds what any number of
 * re-splits can show, as they all draw on the same examples. */

/* As many independent replicates say as much as n re-splits: 1 / (1/n + ratio). */
double bl_effective_replicates(int n, double ratio);

/* The chance that a two-sided paired t test at `alpha` over n >= 2 pairs rejects, if differences
 * are normal with mean d_z standard deviations. */
double bl_power(double d_z, int n, double ratio, double alpha);

/* The fewest pairs (at least 2) with that power, or -1 if 100,000 are too few: with re-splits
 * that is common, and only more data helps. For 80 % at 5 %: d_z = 1 needs 10, 0.53 needs 30. */
int bl_pairs_needed(double d_z, double ratio, double alpha, double power);

/* The smallest |d_z| that n pairs show with that power. */
double bl_detectable_effect(int n, double ratio, double alpha, double power);

/* The same where the standard deviation that d_z is in was itself estimated from `pilots` >= 2
 * pairs: the power is that on average over what it may truly be (its square is the estimate's times
 * pilots - 1 over chi-squared). Taken for exact, five pilots would give 70 % instead of 80. */
double bl_power_after_pilots(double d_z, int pilots, int n, double ratio, double alpha);
int bl_pairs_needed_after_pilots(double d_z, int pilots, double ratio, double alpha, double power);
double bl_detectable_after_pilots(int pilots, int n, double ratio, double alpha, double power);

/* --- tests on n differences ----------------------------------------------------------------- */

typedef struct bl_interval {
    double low, high;
} bl_interval;

double bl_average(const double *x, int n);
double bl_standard_deviation(const double *x, int n); /* divisor n - 1; NaN below 2 */

/* Two-sided p of "the mean is 0": t = mean / (s sqrt(1/n + ratio)) with n - 1 degrees of freedom.
 * No spread: p is 0, or 1 if the mean is 0 too (bl_compare asks sign-flip instead). */
double bl_paired_t(const double *difference, int n, double ratio, double *t);

/* The interval of the mean by the same variance: mean +- t_(1-alpha/2) s sqrt(1/n + ratio). */
bl_interval bl_mean_interval(const double *x, int n, double ratio, double alpha);

/* Equivalence by two one-sided tests (TOST): the larger p of "the mean is <= -margin" and "the mean
 * is >= margin", by the same variance. */
double bl_equivalence(const double *difference, int n, double ratio, double margin);

/* The sign-flip (randomisation) test on the mean, two-sided: the share of the 2^n assignments of
 * signs whose mean is at least as far from 0. Exact up to 20 pairs; above, 65,535 random
 * assignments by `key`, with the observed one counted, (1 + hits) / (1 + draws). Valid if
 * differences are symmetric about 0 under the null; not on re-splits. */
bl_status bl_sign_flip(const double *difference, int n, bl_key key, double *p);

/* Wilcoxon's signed-rank test, two-sided and exact: zeros are dropped (Wilcoxon's rule), ties share
 * their mean rank, and the distribution given those ranks is found by dynamic programming over
 * doubled ranks. Above 200 nonzero pairs: normal, by the exact variance of the ranks. Differences
 * may be infinite (a run that diverged). `effective` (may be NULL) is the number of nonzero
 * pairs. */
bl_status bl_signed_rank(const double *difference, int n, double *p, int *effective);

/* The signed mean ranks themselves: 0 for a zero difference, else sign times rank. */
bl_status bl_signed_ranks(const double *difference, int n, double *rank);

typedef enum bl_test {
    BL_TEST_PAIRED_T,
    BL_TEST_RESPLIT_T,
    BL_TEST_SIGNED_RANK,
    BL_TEST_RESPLIT_RANK,
    BL_TEST_SIGN_FLIP,
    BL_TESTS
} bl_test;

const char *bl_test_name(bl_test test); /* "paired t" */

/* The smallest p the test can give with n (nonzero) pairs: 2^(1-n) for signed-rank and sign-flip,
 * 0 for those on t. */
double bl_test_floor(bl_test test, int n);

/* BL_INVALID with a sentence if the test cannot reject with n pairs when `arms` are compared with
 * the baseline, that is if its floor exceeds alpha / arms: "signed-rank over 5 pairs cannot give a
 * p below 0.0625, and 0.05 is needed (alpha 0.05 over 1 arm): run at least 6 replicates". */
bl_status bl_test_check(bl_test test, int n, int arms, double alpha);

/* --- many arms, shares ------------------------------------------------------------------------
 */

/* Holm's adjusted p values: adjusted <= alpha for all that are rejected with family-wise error
 * alpha. `adjusted` may be `p`. NaN counts as 1. */
bl_status bl_holm(const double *p, int count, double *adjusted);

/* Wilson's interval for a share of n trials; n may be fractional. */
bl_interval bl_wilson(double share, double n, double alpha);

/* --- a row of the table -----------------------------------------------------------------------
 */

typedef struct bl_compare_options {
    double alpha;      /* of tests, and 1 - alpha of intervals; 0: 0.05 */
    double min_effect; /* smallest difference that matters, in units of the metric; 0: none */
    bool higher_is_better;
    int64_t train_count, test_count; /* what a re-split makes of all data, before training takes a
                                      * subsample of its part; 0: fixed test set */
    bl_key key;                      /* of the sign-flip test above 20 pairs */
} bl_compare_options;

typedef enum bl_verdict {
    BL_UNDECIDED,  /* neither a difference nor its absence is shown; see pairs_more */
    BL_HELPS,      /* better than the baseline, family-wise error alpha */
    BL_HURTS,      /* worse */
    BL_EQUIVALENT, /* within +-min_effect, family-wise error alpha; also where a difference is
                    * significant, but shown to be too small to matter */
    BL_VERDICTS
} bl_verdict;

const char *bl_verdict_name(bl_verdict verdict); /* "helps" */

typedef struct bl_comparison {
    /* What was seen. Means, intervals, difference and d_z are of finite runs (for the difference:
     * of pairs with both finite) and NaN where there are too few; read them with the counts. */
    int pairs, finite_pairs, arm_diverged, baseline_diverged;
    double arm_mean, baseline_mean;
    bl_interval arm_interval, baseline_interval;
    double difference;               /* mean of arm - baseline, in units of the metric */
    bl_interval difference_interval; /* not corrected for the number of arms; NaN if all
                                      * differences are equal */
    double d_z;                      /* difference / standard deviation of the differences */
    double better; /* P(arm better): share of pairs, ties half; diverged is worse than finite */
    bl_interval better_interval; /* Wilson; for re-splits with the effective replicates */

    /* What the test says. */
    bl_test test;
    int direction;        /* 1: the arm looks better, -1: worse, 0: neither */
    double p;             /* two-sided, not corrected */
    double floor;         /* the smallest p this test could have given here */
    double sign_flip_p;   /* check on a fixed test set; NaN on re-splits or if any run diverged */
    double equivalence_p; /* TOST; 1 if there is no min_effect or any run diverged */

    /* Set by bl_verdicts. */
    double adjusted_p, adjusted_equivalence_p;
    bl_verdict verdict;
    int pairs_more; /* if undecided: more replicates for 80 % power at alpha / arms, if the true
                     * effect is the observed one or min_effect, whichever is larger; -1: no number
                     * of them will do. A rough guide: the observed effect is itself uncertain. */
    char note[320]; /* sentences for the reader, or "": what diverged, why no test could decide */

    /* For pairs_more. */
    double effect, least_effect; /* observed, and min_effect, in standard deviations */
    double ratio;                /* n_test / n_train of re-splits, else 0 */
} bl_comparison;

/* Compares n >= 2 pairs of scores. A score that is not finite is a run that diverged: it ranks
 * last, two of them tie, and then a rank test decides. Differences are rounded to
 * 2^-40 of the median score, so that rounding errors neither break ties nor pass for evidence.
 * BL_INVALID: n < 2, alpha outside (0,1), min_effect negative, one part of a re-split without the
 * other. */
bl_status bl_compare(const bl_compare_options *options, const double *arm, const double *baseline,
                     int n, bl_comparison *out);

/* Corrects the rows for each other and gives each its verdict. The rows are all arms that were
 * compared with one baseline, without it. p is adjusted by Holm, and so is equivalence_p, as a
 * family of its own: each kind of claim has family-wise error alpha. */
bl_status bl_verdicts(bl_comparison *rows, int count, double alpha);
/* The same where the rows were chosen among `family` >= count arms by data that they now are
 * compared on: those left out count as well. */
bl_status bl_verdicts_among(bl_comparison *rows, int count, int family, double alpha);

#endif
