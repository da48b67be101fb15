/* From pilots to a number of replicates. */
#include "study/pilot.h"

#include <math.h>

#include "study/setting.h"
#include "study/stats.h"

static const double POWER = 0.8;

/* Standard deviation of the differences of pairs that are both finite; NaN if there are none. */
static double deviation_of(const double *arm, const double *baseline, int pairs)
{
    double difference[BL_PLANNED_MOST];
    int n = 0;
    for (int r = 0; r < pairs; r++)
        if (isfinite(arm[r]) && isfinite(baseline[r]))
            difference[n++] = arm[r] - baseline[r];
    return bl_standard_deviation(difference, n);
}

bl_status bl_plan_from(const double *score, int arms, int pairs, double ratio, double alpha,
                       double min_effect, bl_pilot *out)
{
    *out = (bl_pilot){.min_effect = min_effect};
    if (!(min_effect > 0))
        return bl_fail(BL_INVALID,
                       "a number of replicates can be planned only for a smallest "
                       "effect above 0, not %g",
                       min_effect);
    if (pairs > BL_PLANNED_MOST)
        return bl_fail(BL_INVALID, "%d pilots: at most %d", pairs, BL_PLANNED_MOST);
    bool unknown = false; /* an arm whose pilots diverged says nothing about its spread */
    for (int a = 1; a < arms; a++) {
        double s = deviation_of(score + a * pairs, score, pairs);
        unknown = unknown || isnan(s);
        out->deviation = s > out->deviation ? s : out->deviation;
    }
    double level = alpha / (arms - 1);
    out->needed = out->deviation > 0
                      ? bl_pairs_needed(min_effect / out->deviation, ratio, level, POWER)
                      : BL_PLANNED_LEAST;
    out->planned = out->needed < 0 || unknown || out->needed > BL_PLANNED_MOST ? BL_PLANNED_MOST
                   : out->needed < BL_PLANNED_LEAST                            ? BL_PLANNED_LEAST
                                                                               : out->needed;
    out->detectable = out->deviation * bl_detectable_effect(out->planned, ratio, level, POWER);
    return BL_OK;
}

static bl_status run_pilots(const bl_study_options *jobs, const bl_job_data *data, double alpha,
                            double min_effect, bl_pilot *out)
{
    size_t runs = (size_t)jobs->arms * (size_t)jobs->replicates;
    double *score = bl_alloc(runs * sizeof *score);
    if (!score)
        return bl_no_memory(runs);
    bl_status status = bl_study_scores(jobs, data, score, NULL);
    if (status == BL_OK)
        status = bl_plan_from(score, jobs->arms, jobs->replicates, bl_job_overlap(data), alpha,
                              min_effect, out);
    bl_release(score);
    return status;
}

bl_status bl_plan_replicates(const bl_study_options *o, const bl_job_data *data, double alpha,
                             double min_effect, bl_pilot *out)
{
    bl_study_options jobs = *o;
    char **job = bl_alloc((size_t)o->arms * sizeof *job);
    bl_status status = job ? BL_OK : bl_no_memory(0);
    for (int a = 0; a < o->arms && status == BL_OK; a++)
        if (!(job[a] = bl_setting_for(BL_FOR_PILOT, o->arm[a])))
            status = bl_no_memory(0);
    jobs.arm = (const char *const *)job;
    jobs.replicates = BL_PILOT_PAIRS;
    if (status == BL_OK)
        status = run_pilots(&jobs, data, alpha, min_effect, out);
    for (int a = 0; job && a < o->arms; a++)
        bl_release(job[a]);
    bl_release(job);
    return status;
}
