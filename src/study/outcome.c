/* From stored results to comparisons and verdicts. */
#include "study/outcome.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- reading results
 * ---------------------------------------------------------------------------------- */
static double number_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* The median of result.`group`.`key` over the runs that have it, each times result.`times` unless
 * that is NULL. */
static double median_of_product(const bl_arm_outcome *arm, int replicates, const char *group,
                                const char *key, const char *times)
{
    double *value = bl_alloc((size_t)(replicates + 1) * sizeof *value);
    int n = 0;
    for (int r = 0; value && r < replicates; r++) {
        double v = number_of(json_object_get(arm->result[r], group), key);
        v *= times ? number_of(arm->result[r], times) : 1;
        if (!isnan(v))
            value[n++] = v;
    }
    if (n)
        bl_sort_doubles(value, (size_t)n);
    double median = n ? (value[(n - 1) / 2] + value[n / 2]) / 2 : NAN;
    bl_release(value);
    return median;
}

static double median_of(const bl_arm_outcome *arm, int replicates, const char *group,
                        const char *key)
{
    return median_of_product(arm, replicates, group, key, NULL);
}

static void add_measures(const json_t *measures, double n, bl_arm_effect *effect)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)measures, name, value)
    {
        int i = 0;
        while (i < effect->measures && strcmp(effect->measure[i].name, name) != 0)
            i++;
        if (i == (int)(sizeof effect->measure / sizeof *effect->measure))
            continue;
        if (i == effect->measures)
            snprintf(effect->measure[effect->measures++].name, sizeof effect->measure[0].name, "%s",
                     name);
        effect->measure[i].value += json_number_value(value) / n;
    }
}

static void add_effect(const json_t *effect, double n, bl_arm_effect *mean)
{
    const struct {
        const char *name;
        double *mean;
    } number[] = {{"examples_changed", &mean->examples_changed},
                  {"gradient_share", &mean->gradient_share},
                  {"update_share", &mean->update_share},
                  {"host_moved", &mean->host_moved},
                  {"parameters_moved", &mean->parameters_moved}};
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        *number[i].mean += json_number_value(json_object_get(effect, number[i].name)) / n;
    mean->ended_early = mean->ended_early || json_is_true(json_object_get(effect, "ended_early"));
    add_measures(json_object_get(effect, "measures"), n, mean);
}

/* Means over the runs that did not diverge: what an arm did to numbers that overflowed says
 * nothing. If all diverged, over all (what is not finite counts as 0). */
static void average_effect(bl_arm_outcome *arm, int replicates)
{
    bool all = arm->runs == arm->diverged;
    double n = all ? arm->runs : arm->runs - arm->diverged, sites = 0;
    for (int r = 0; r < replicates; r++) {
        const json_t *effect = json_object_get(arm->result[r], "effect");
        arm->inert += json_is_true(json_object_get(effect, "inert"));
        if (!effect || (isnan(arm->score[r]) && !all))
            continue;
        sites += json_number_value(json_object_get(effect, "sites")) / n;
        add_effect(effect, n, &arm->effect);
    }
    arm->effect.sites = (int64_t)(sites + 0.5);
    arm->effect.inert = arm->runs > 0 && arm->inert == arm->runs;
}

static void summarise(bl_outcome *o, bl_arm_outcome *arm)
{
    for (int r = 0; r < o->replicates; r++) {
        arm->score[r] = bl_score_of(arm->result[r], o->metric);
        arm->runs += arm->result[r] != NULL;
        arm->diverged += arm->result[r] && isnan(arm->score[r]);
    }
    arm->failed = o->replicates - arm->runs;
    average_effect(arm, o->replicates);
    arm->work = median_of(arm, o->replicates, "work", "flops");
    arm->total_work = median_of_product(arm, o->replicates, "work", "flops", "steps");
    arm->memory = median_of(arm, o->replicates, "work", "memory");
    arm->seconds = median_of(arm, o->replicates, "timing", "seconds");
    arm->seconds_per_step = median_of(arm, o->replicates, "timing", "seconds_per_step");
}

/* --- comparing
 * ------------------------------------------------------------------------------------------ */
bool bl_has_verdict(const bl_arm_outcome *arm)
{
    return !arm->failed && !arm->effect.inert;
}

/* The row of an arm without a verdict: no numbers, and why. */
static bl_comparison no_comparison(const bl_outcome *o, const bl_arm_outcome *arm)
{
    const bl_interval none = {NAN, NAN};
    bl_comparison c = {.arm_mean = NAN,
                       .baseline_mean = NAN,
                       .arm_interval = none,
                       .baseline_interval = none,
                       .difference = NAN,
                       .difference_interval = none,
                       .d_z = NAN,
                       .better = NAN,
                       .better_interval = none,
                       .p = NAN,
                       .adjusted_p = NAN,
                       .sign_flip_p = NAN,
                       .equivalence_p = NAN,
                       .adjusted_equivalence_p = NAN,
                       .verdict = BL_UNDECIDED,
                       .pairs_more = -1};
    if (arm->failed)
        snprintf(c.note, sizeof c.note, "%d of %d runs failed: %s", arm->failed, o->replicates,
                 arm->error ? arm->error : "they were not run");
    else
        snprintf(c.note, sizeof c.note,
                 "this arm did nothing in any of its %d runs: it changed no example, no gradient "
                 "and no weight",
                 arm->runs);
    return c;
}

/* Compares the arms that have a verdict; row[o->compared] in the order of the arms. */
static bl_status compare_whole(bl_outcome *o, const bl_compare_options *options, int screened,
                               bl_comparison *row)
{
    const double *baseline = o->arm[0].score;
    for (int a = 1; a < o->arms; a++)
        if (bl_has_verdict(&o->arm[a]))
            BL_TRY(
                bl_compare(options, o->arm[a].score, baseline, o->replicates, &row[o->compared++]));
    o->family = o->compared + screened;
    return bl_verdicts_among(row, o->compared, o->family, o->alpha);
}

/* Mean and interval of an arm that is compared with nothing. */
static bl_status describe(const bl_outcome *o, bl_arm_outcome *arm)
{
    bl_compare_options options = bl_outcome_compare_options(o);
    bl_comparison c;
    BL_TRY(bl_compare(&options, arm->score, arm->score, o->replicates, &c));
    arm->mean = c.arm_mean;
    arm->interval = c.arm_interval;
    return BL_OK;
}

static bl_status fill_in(bl_outcome *o, const bl_comparison *row)
{
    double unit = o->arm[0].work, total = o->arm[0].total_work;
    for (int a = 0, next = 0; a < o->arms; a++) {
        bl_arm_outcome *arm = &o->arm[a];
        if (a > 0)
            arm->comparison = bl_has_verdict(arm) ? row[next++] : no_comparison(o, arm);
        if (arm->failed)
            arm->mean = arm->interval.low = arm->interval.high = NAN;
        else
            BL_TRY(describe(o, arm));
        arm->work /= unit;
        arm->total_work /= total;
    }
    return BL_OK;
}

bl_compare_options bl_outcome_compare_options(const bl_outcome *o)
{
    return (bl_compare_options){
        .alpha = o->alpha,
        .min_effect = o->min_effect,
        .higher_is_better = o->higher_is_better,
        .train_count = o->resplit ? bl_job_pool(o->data) - o->test_count : 0,
        .test_count = o->resplit ? o->test_count : 0,
        .key = bl_key_derive_name(bl_key_from_seed(o->plan->study_seed), "sign flips")};
}

static bl_status compare(bl_outcome *o, int screened)
{
    bl_compare_options options = bl_outcome_compare_options(o);
    bl_arm_outcome *baseline = &o->arm[0];
    if (baseline->failed)
        return bl_fail(BL_INVALID, "%d of %d runs of the baseline failed: %s", baseline->failed,
                       o->replicates, baseline->error ? baseline->error : "they were not run");
    BL_TRY(bl_compare(&options, baseline->score, baseline->score, o->replicates,
                      &baseline->comparison));
    bl_comparison *row = bl_alloc((size_t)o->arms * sizeof *row);
    if (!row)
        return bl_no_memory((size_t)o->arms * sizeof *row);
    bl_status status = compare_whole(o, &options, screened, row);
    if (status == BL_OK)
        status = fill_in(o, row);
    bl_release(row);
    return status;
}

static bl_status new_arms(const bl_study_options *options, bl_outcome *o)
{
    size_t n = (size_t)options->replicates;
    o->arm = bl_alloc((size_t)options->arms * sizeof *o->arm);
    if (!o->arm)
        return bl_no_memory((size_t)options->arms * sizeof *o->arm);
    while (o->arms < options->arms) {
        bl_arm_outcome *arm = &o->arm[o->arms];
        const bl_choice *choice = options->choice ? &options->choice[o->arms] : NULL;
        *arm = (bl_arm_outcome){.arm = choice ? choice->arm : options->arm[o->arms],
                                .choice = choice,
                                .result = bl_alloc(n * sizeof *arm->result),
                                .score = bl_alloc(n * sizeof *arm->score)};
        o->arms++;
        if (!arm->result || !arm->score)
            return bl_no_memory(n);
    }
    return BL_OK;
}

static bl_status read_arms(const bl_study_options *options, const bl_job_data *data, bl_outcome *o)
{
    size_t arms = (size_t)options->arms, n = (size_t)options->replicates;
    BL_TRY(new_arms(options, o));
    json_t **result = bl_alloc(arms * n * sizeof *result);
    char **error = bl_alloc(arms * sizeof *error);
    bl_status status =
        result && error ? bl_study_results(options, data, result, error) : bl_no_memory(arms * n);
    for (size_t a = 0; result && error && a < arms; a++) {
        memcpy(o->arm[a].result, result + a * n, n * sizeof *result);
        o->arm[a].error = error[a];
    }
    bl_release(result);
    bl_release(error);
    return status;
}

bl_status bl_outcome_new(const bl_study_options *options, const bl_job_data *data, double alpha,
                         double min_effect, bl_outcome *o)
{
    *o = (bl_outcome){.replicates = options->replicates,
                      .alpha = alpha,
                      .min_effect = min_effect,
                      .data = data,
                      .plan = options->plan,
                      .resplit = bl_job_resplits(data)};
    o->metric = bl_job_primary_metric(data, &o->higher_is_better);
    bl_job_counts(data, &o->train_count, &o->test_count);
    bl_status status = read_arms(options, data, o);
    for (int a = 0; a < o->arms && status == BL_OK; a++)
        summarise(o, &o->arm[a]);
    if (status == BL_OK)
        status = compare(o, bl_study_family(options, data, 0));
    if (status == BL_OK)
        status = bl_groups_read(o);
    if (status != BL_OK)
        bl_outcome_free(o);
    return status;
}

void bl_outcome_free(bl_outcome *o)
{
    for (int a = 0; a < o->arms; a++) {
        for (int r = 0; o->arm[a].result && r < o->replicates; r++)
            json_decref(o->arm[a].result[r]);
        bl_release(o->arm[a].result);
        bl_release(o->arm[a].score);
        bl_release(o->arm[a].error);
        bl_release(o->arm[a].group);
    }
    bl_release(o->arm);
    bl_release(o->matched);
    *o = (bl_outcome){0};
}
