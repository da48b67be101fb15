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
/* An arm without all its runs, or that did nothing in them, has no verdict and is no matter to the
 * others'. */
static bool has_verdict(const bl_arm_outcome *arm)
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
        if (has_verdict(&o->arm[a]))
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
            arm->comparison = has_verdict(arm) ? row[next++] : no_comparison(o, arm);
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
    }
    bl_release(o->arm);
    bl_release(o->matched);
    *o = (bl_outcome){0};
}

/* --- groups ----------------------------------------------------------------------------------- */
int bl_group_count(const bl_outcome *o)
{
    const json_t *groups = json_object_get(o->arm[0].result[0], "groups");
    return (int)json_array_size(json_object_get(groups, "value"));
}

const char *bl_group_name(const bl_outcome *o, int group)
{
    static const char *const third[] = {"few labels near", "middle", "most labels near"};
    const char *name = bl_job_class(o->data, group);
    return name ? name : third[group < 3 ? group : 2];
}

double bl_group_mean(const bl_outcome *o, const bl_arm_outcome *arm, int group, double *count)
{
    double sum = 0, examples = 0;
    int runs = 0;
    for (int r = 0; r < o->replicates; r++) {
        const json_t *groups = json_object_get(arm->result[r], "groups");
        const json_t *value = json_array_get(json_object_get(groups, "value"), (size_t)group);
        if (!json_is_number(value))
            continue;
        sum += json_number_value(value);
        examples += (double)json_integer_value(
            json_array_get(json_object_get(groups, "count"), (size_t)group));
        runs++;
    }
    *count = runs ? examples / runs : NAN;
    return runs ? sum / runs : NAN;
}

/* --- JSON
 * -----------------------------------------------------------------------------------------------
 */
/* Not-a-number has no JSON: null. */
static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *interval(bl_interval i)
{
    return json_pack("[o,o]", real(i.low), real(i.high));
}

static json_t *comparison_json(const bl_comparison *c)
{
    char verdict[64];
    bl_verdict_text(c, verdict);
    return json_pack("{s:s,s:s,s:i,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:s,s:o,s:o,s:o,s:s}", "verdict",
                     bl_verdict_name(c->verdict), "verdict_text", verdict, "replicates_more",
                     c->verdict == BL_UNDECIDED ? c->pairs_more : 0, "difference",
                     real(c->difference), "difference_interval", interval(c->difference_interval),
                     "p", real(c->p), "p_adjusted", real(c->adjusted_p), "effect_size",
                     real(c->d_z), "better", real(c->better), "better_interval",
                     interval(c->better_interval), "test", bl_test_name(c->test), "floor",
                     real(c->floor), "sign_flip_p", real(c->sign_flip_p), "equivalence_p",
                     real(c->adjusted_equivalence_p), "note", c->note);
}

static json_t *effect_json(const bl_arm_outcome *arm)
{
    const bl_arm_effect *e = &arm->effect;
    json_t *measures = json_object();
    for (int i = 0; i < e->measures; i++)
        json_object_set_new(measures, e->measure[i].name, real(e->measure[i].value));
    return json_pack("{s:I,s:o,s:o,s:o,s:o,s:o,s:b,s:o,s:b,s:i}", "sites", (json_int_t)e->sites,
                     "examples_changed", real(e->examples_changed), "gradient_share",
                     real(e->gradient_share), "update_share", real(e->update_share), "host_moved",
                     real(e->host_moved), "parameters_moved", real(e->parameters_moved),
                     "ended_early", e->ended_early, "measures", measures, "inert", e->inert,
                     "inert_runs", arm->inert);
}

static json_t *runs_json(const bl_outcome *o, const bl_arm_outcome *arm, bool timing)
{
    json_t *runs = json_array();
    for (int r = 0; r < o->replicates; r++) {
        json_t *run = arm->result[r] ? json_copy(arm->result[r]) : json_null();
        if (!timing)
            json_object_del(run, "timing");
        json_array_append_new(runs, run);
    }
    return runs;
}

static json_t *choice_json(const bl_choice *c, bool timing)
{
    json_t *best = json_array(), *score = json_array(), *expected = json_array();
    for (int i = 0; i < c->trials; i++) {
        json_array_append_new(best, real(c->best[i]));
        json_array_append_new(score, real(c->score[i]));
        json_array_append_new(expected, real(c->expected[i]));
    }
    json_t *json = json_pack("{s:s,s:i,s:i,s:i,s:o}", "setting", c->setting, "trials", c->trials,
                             "chosen", c->chosen, "diverged", c->diverged, "best", best);
    json_object_set_new(json, "scores", score);
    json_object_set_new(json, "expected_best", expected);
    json_object_set_new(json, "edge", c->edge ? json_string(c->edge) : json_null());
    if (json && timing)
        json_object_set_new(json, "timing", json_pack("{s:o}", "seconds", real(c->seconds)));
    return json;
}

static json_t *arm_json(const bl_outcome *o, int a, bool timing)
{
    const bl_arm_outcome *arm = &o->arm[a];
    json_t *json =
        json_pack("{s:s,s:o,s:o,s:i,s:i,s:o,s:o,s:o,s:o}", "arm", arm->arm, "mean", real(arm->mean),
                  "interval", interval(arm->interval), "diverged", arm->diverged, "failed",
                  arm->failed, "work", real(arm->work), "total_work", real(arm->total_work),
                  "effect", effect_json(arm), "runs", runs_json(o, arm, timing));
    json_t *groups = json_array();
    for (int g = 0; g < bl_group_count(o); g++) {
        double count;
        json_array_append_new(groups, real(bl_group_mean(o, arm, g, &count)));
    }
    json_object_set_new(json, "groups", groups);
    if (json && arm->failed)
        json_object_set_new(json, "error", json_string(arm->error ? arm->error : "not run"));
    if (json && a > 0 && arm->effect.inert && !arm->failed)
        json_object_set_new(json, "error", json_string(arm->comparison.note));
    if (json && a > 0 && has_verdict(arm))
        json_object_set_new(json, "comparison", comparison_json(&arm->comparison));
    if (json && arm->choice)
        json_object_set_new(json, "tuning", choice_json(arm->choice, timing));
    if (json && timing)
        json_object_set_new(json, "timing",
                            json_pack("{s:o,s:o}", "seconds", real(arm->seconds),
                                      "seconds_per_step", real(arm->seconds_per_step)));
    return json;
}

static json_t *groups_json(const bl_outcome *o)
{
    json_t *names = json_array();
    for (int g = 0; g < bl_group_count(o); g++)
        json_array_append_new(names, json_string(bl_group_name(o, g)));
    return names;
}

static json_t *screening_json(const bl_screening *s)
{
    if (!s || !s->rounds)
        return json_null();
    json_t *arms = json_array();
    for (int a = 0; a < s->arms; a++)
        json_array_append_new(arms,
                              json_pack("{s:s,s:i,s:i,s:b,s:o}", "arm", s->arm[a].arm, "round",
                                        s->arm[a].round, "pairs", s->arm[a].pairs, "inert",
                                        s->arm[a].inert, "difference", real(s->arm[a].difference)));
    return json_pack("{s:i,s:o}", "rounds", s->rounds, "arms", arms);
}

static json_t *pilot_json(const bl_pilot *p)
{
    if (!p || !p->planned)
        return json_null();
    return json_pack("{s:i,s:i,s:i,s:i,s:b,s:i,s:o,s:o,s:o}", "pairs", BL_PILOT_PAIRS, "planned",
                     p->planned, "needed", p->needed, "most", BL_PLANNED_MOST, "capped", p->capped,
                     "family", p->family, "deviation", real(p->deviation), "min_effect",
                     real(p->min_effect), "detectable", real(p->detectable));
}

static json_t *matched_json(const bl_outcome *o)
{
    json_t *rows = json_array();
    for (int i = 0; i < o->matches; i++)
        json_array_append_new(rows,
                              json_pack("{s:s,s:I,s:o,s:o}", "arm", o->arm[o->matched[i].arm].arm,
                                        "epochs", (json_int_t)o->matched[i].epochs, "total_work",
                                        real(o->arm[o->matched[i].arm].total_work), "comparison",
                                        comparison_json(&o->matched[i].comparison)));
    return rows;
}

bl_status bl_outcome_json(const bl_outcome *o, bool timing, json_t **out)
{
    json_t *arms = json_array();
    for (int a = 0; a < o->arms; a++)
        json_array_append_new(arms, arm_json(o, a, timing));
    char hash[17];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)bl_job_data_hash(o->data));
    *out = json_pack("{s:i,s:s,s:s,s:s,s:o,s:s,s:b,s:b,s:I,s:I,s:i,s:f,s:o,s:b,s:o}", "schema", 1,
                     "ballast", BALLAST_VERSION, "data", bl_job_summary(o->data), "data_hash", hash,
                     "plan", bl_plan_to_json(o->plan), "metric", o->metric, "higher_is_better",
                     o->higher_is_better, "resplit", o->resplit, "train_count",
                     (json_int_t)o->train_count, "test_count", (json_int_t)o->test_count,
                     "replicates", o->replicates, "alpha", o->alpha, "min_effect",
                     o->min_effect > 0 ? json_real(o->min_effect) : json_null(), "tuned",
                     o->arm[0].choice != NULL, "arms", arms);
    if (!*out)
        return bl_fail(BL_NO_MEMORY, "memory is short for the result as JSON");
    json_object_set_new(*out, "family", json_integer(o->family));
    json_object_set_new(*out, "groups", groups_json(o));
    json_object_set_new(*out, "screening", screening_json(o->screening));
    json_object_set_new(*out, "pilot", pilot_json(o->pilot));
    json_object_set_new(*out, "equal_cost", matched_json(o));
    return BL_OK;
}
