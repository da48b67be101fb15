/* A/A studies in one process. */
#include "study/calibrate.h"

#include <math.h>
#include <string.h>

#include "study/setting.h"
#include "study/space.h"
#include "study/tune.h"

double bl_binomial_cdf(int k, int n, double p)
{
    double sum = 0;
    for (int i = 0; i <= k && i <= n; i++)
        sum += exp(lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) + i * log(p) +
                   (n - i) * log1p(-p));
    return sum < 1 ? sum : 1;
}

typedef struct work {
    const bl_calibration_options *options;
    bl_compare_options compare;
    double *arm, *baseline; /* [studies * replicates] */
    bl_calibration *out;
} work;

static bl_status score(work *w, const bl_job_data *data, const bl_plan *plan, const char *setting,
                       int replicate, double *out)
{
    bool higher;
    const char *metric = bl_job_primary_metric(data, &higher);
    bl_job job = {.plan = plan, .arm = setting, .replicate = replicate};
    bl_run_result result = {0};
    BL_TRY(bl_job_run(&job, data, NULL, &result));
    *out = NAN;
    for (int i = 0; i < result.metrics && !result.diverged; i++)
        if (!strcmp(result.metric[i].name, metric))
            *out = result.metric[i].value;
    bl_run_result_free(&result);
    w->out->runs++;
    return BL_OK;
}

/* The baseline's setting that tuning would choose (tune.c), by runs in this process. */
static bl_status tune(work *w, const bl_job_data *data, const bl_plan *plan, char **best)
{
    bl_space space;
    bool higher;
    double top = NAN;
    (void)bl_job_primary_metric(data, &higher);
    bl_status status = bl_space_new("baseline", bl_job_recipe(data), plan->study_seed, &space);
    for (int t = 0; t < w->options->trials && status == BL_OK; t++) {
        char *setting = NULL, *trial = NULL;
        double sum = 0, one = 0;
        status = bl_space_setting(&space, t, &setting);
        if (status == BL_OK && !(trial = bl_setting_for(BL_FOR_TUNING, setting)))
            status = bl_no_memory(0);
        for (int s = 0; s < BL_TUNING_SEEDS && status == BL_OK; s++, sum += one)
            status = score(w, data, plan, trial, s, &one);
        if (status == BL_OK && (!*best || (!isnan(sum) && !(higher ? sum <= top : sum >= top)))) {
            bl_release(*best);
            *best = setting;
            setting = NULL;
            top = sum;
        }
        bl_release(setting);
        bl_release(trial);
    }
    bl_space_free(&space);
    return status;
}

static bl_status run_pairs(work *w, const bl_job_data *data, const bl_plan *plan,
                           const char *setting, double *arm, double *baseline)
{
    char *null = bl_format("null%s", setting + strlen("baseline"));
    bl_status status = null ? BL_OK : bl_no_memory(0);
    for (int r = 0; r < w->options->replicates && status == BL_OK; r++) {
        status = score(w, data, plan, setting, r, &baseline[r]);
        if (status == BL_OK)
            status = score(w, data, plan, null, r, &arm[r]);
        if (status == BL_OK && (!isfinite(arm[r]) || !isfinite(baseline[r])))
            status = bl_fail(BL_INVALID,
                             "a run diverged with %s, seed %llu: calibrate with a "
                             "lower learning rate",
                             setting, (unsigned long long)plan->study_seed);
    }
    bl_release(null);
    return status;
}

/* How re-splits are compared is the same in every study: see compare in outcome.c. */
static void settle(work *w, const bl_job_data *data, const bl_plan *plan)
{
    int64_t train, test;
    bool resplit = bl_job_resplits(data);
    bl_job_counts(data, &train, &test);
    w->compare = (bl_compare_options){
        .alpha = w->options->alpha,
        .train_count = resplit ? bl_job_pool(data) - test : 0,
        .test_count = resplit ? test : 0,
        .key = bl_key_derive_name(bl_key_from_seed(plan->study_seed), "sign flips")};
    (void)bl_job_primary_metric(data, &w->compare.higher_is_better);
}

static bl_status run_study(work *w, int index)
{
    const bl_calibration_options *o = w->options;
    bl_plan plan = *o->plan; /* texts borrowed */
    plan.study_seed += (uint64_t)index;
    bl_job_data *data = NULL;
    char *setting = NULL;
    size_t at = (size_t)index * (size_t)o->replicates;
    bl_status status = bl_job_data_open(&plan, &data);
    if (status == BL_OK) {
        settle(w, data, &plan);
        status = o->trials ? tune(w, data, &plan, &setting) : BL_OK;
    }
    if (status == BL_OK)
        status = run_pairs(w, data, &plan, setting ? setting : "baseline", w->arm + at,
                           w->baseline + at);
    bl_release(setting);
    bl_job_data_close(data);
    return status;
}

/* In how many studies a difference is found where `shift` is added to the arm's scores. */
static bl_status count_found(const work *w, double shift, double *scratch, int *found)
{
    const bl_calibration_options *o = w->options;
    *found = 0;
    for (int s = 0; s < o->studies; s++) {
        size_t at = (size_t)s * (size_t)o->replicates;
        bl_comparison c;
        for (int r = 0; r < o->replicates; r++)
            scratch[r] = w->arm[at + (size_t)r] + shift;
        BL_TRY(bl_compare(&w->compare, scratch, w->baseline + at, o->replicates, &c));
        *found += c.p <= o->alpha;
    }
    return BL_OK;
}

static bl_status conclude(work *w, double *scratch)
{
    static const double effects[BL_PLANTED] = {0.25, 0.5, 0.75, 1, 1.5, 2};
    const bl_calibration_options *o = w->options;
    bl_calibration *c = w->out;
    c->studies = o->studies;
    BL_TRY(count_found(w, 0, scratch, &c->alarms));
    while (bl_binomial_cdf(c->low, o->studies, o->alpha) < 0.025)
        c->low++;
    while (bl_binomial_cdf(c->high, o->studies, o->alpha) < 0.975)
        c->high++;
    c->tail = c->alarms ? 1 - bl_binomial_cdf(c->alarms - 1, o->studies, o->alpha) : 1;
    double square = 0;
    for (int s = 0; s < o->studies; s++) {
        size_t at = (size_t)s * (size_t)o->replicates;
        for (int r = 0; r < o->replicates; r++)
            scratch[r] = w->arm[at + (size_t)r] - w->baseline[at + (size_t)r];
        double one = bl_standard_deviation(scratch, o->replicates);
        square += one * one / o->studies;
    }
    c->deviation = sqrt(square);
    double ratio =
        w->compare.train_count ? (double)w->compare.test_count / (double)w->compare.train_count : 0;
    for (int i = 0; i < BL_PLANTED; i++) {
        int found;
        BL_TRY(count_found(w, effects[i] * c->deviation, scratch, &found));
        c->planted[i].effect = effects[i];
        c->planted[i].power = (double)found / o->studies;
        c->planted[i].theory = bl_power(effects[i], o->replicates, ratio, o->alpha);
    }
    return BL_OK;
}

bl_status bl_calibrate(const bl_calibration_options *o, bl_calibration *out)
{
    *out = (bl_calibration){0};
    if (o->studies < 1 || o->replicates < 2 || !(o->alpha > 0 && o->alpha < 1))
        return bl_fail(BL_INVALID,
                       "%d studies of %d replicates at alpha %g: must be at least 1, "
                       "at least 2, and between 0 and 1",
                       o->studies, o->replicates, o->alpha);
    size_t all = (size_t)o->studies * (size_t)o->replicates;
    double started = bl_seconds_now(), *scratch = bl_alloc((size_t)o->replicates * sizeof *scratch);
    work w = {.options = o,
              .out = out,
              .arm = bl_alloc(all * sizeof *w.arm),
              .baseline = bl_alloc(all * sizeof *w.baseline)};
    bl_status status = scratch && w.arm && w.baseline ? BL_OK : bl_no_memory(all);
    for (int s = 0; s < o->studies && status == BL_OK; s++) {
        status = o->stop && *o->stop ? bl_fail(BL_INTERRUPTED, "interrupted") : run_study(&w, s);
        if (status == BL_OK && o->report)
            o->report(o->context, s + 1);
    }
    out->seconds = bl_seconds_now() - started;
    if (status == BL_OK)
        status = conclude(&w, scratch);
    bl_release(w.arm);
    bl_release(w.baseline);
    bl_release(scratch);
    return status;
}
