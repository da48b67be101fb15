/* From pilots to a number of replicates. */
#include "study/pilot.h"

#include <math.h>

#include "study/setting.h"
#include "study/stats.h"

static const double POWER = 0.8;

/* Standard deviation of the paired differences; NaN where a run diverged. */
static double deviation_of(const double *arm, const double *baseline, int pairs)
{
    double difference[BL_PLANNED_MOST];
    for (int r = 0; r < pairs; r++)
        difference[r] = arm[r] - baseline[r];
    return bl_standard_deviation(difference, pairs);
}

/* An effect so many deviations large; of no spread at all, no more than the least is asked. */
static int pairs_for(const bl_pilot *pilot, int pairs, double ratio, double level)
{
    return pilot->deviation > 0 ? bl_pairs_needed_after_pilots(pilot->min_effect / pilot->deviation,
                                                               pairs, ratio, level, POWER)
                                : BL_PLANNED_LEAST;
}

bl_status bl_plan_from(const double *score, int arms, int pairs, int family, double ratio,
                       double alpha, double min_effect, bl_pilot *out)
{
    *out = (bl_pilot){.min_effect = min_effect, .family = family};
    if (!(min_effect > 0))
        return bl_fail(BL_INVALID,
                       "a number of replicates can be planned only for a smallest "
                       "effect above 0, not %g",
                       min_effect);
    if (pairs < 2 || pairs > BL_PLANNED_MOST)
        return bl_fail(BL_INVALID, "%d pilots: must be from 2 to %d", pairs, BL_PLANNED_MOST);
    bool unknown = false; /* a pilot diverged, and ranks may have to decide */
    for (int a = 1; a < arms; a++) {
        double s = deviation_of(score + a * pairs, score, pairs);
        unknown = unknown || isnan(s);
        out->deviation = s > out->deviation ? s : out->deviation;
    }
    double level = alpha / family;
    out->needed = unknown ? -1 : pairs_for(out, pairs, ratio, level);
    out->capped = out->needed < 0 || out->needed > BL_PLANNED_MOST;
    out->planned = out->capped                      ? BL_PLANNED_MOST
                   : out->needed < BL_PLANNED_LEAST ? BL_PLANNED_LEAST
                                                    : out->needed;
    out->detectable = unknown ? NAN
                              : out->deviation * bl_detectable_after_pilots(pairs, out->planned,
                                                                            ratio, level, POWER);
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
        status = bl_plan_from(score, jobs->arms, jobs->replicates,
                              bl_study_family(jobs, data, jobs->arms - 1), bl_job_overlap(data),
                              alpha, min_effect, out);
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
