/* The baseline at the cost of each arm, as more jobs of the same study. */
#include "study/matched.h"

#include <math.h>
#include <string.h>

#include "study/setting.h"

static const double NEGLIGIBLE = 0.05;

/* The epochs at which the baseline costs what the arm does; 0 if that is not worth a row. */
static int64_t equal_epochs(const bl_arm_outcome *arm, int64_t epochs)
{
    double ratio = arm->total_work;
    if (arm->failed || arm->effect.inert || !isfinite(ratio) || fabs(ratio - 1) <= NEGLIGIBLE)
        return 0;
    int64_t equal = (int64_t)(ratio * (double)epochs + 0.5);
    equal = equal < 1 ? 1 : equal;
    return equal == epochs ? 0 : equal;
}

/* The settings that run: one for every number of epochs. */
typedef struct matching {
    char **job;
    int jobs;
    int *job_of; /* of a row */
} matching;

static bl_status list_rows(const bl_study_options *o, bl_outcome *outcome, matching *m)
{
    int64_t epochs = bl_job_recipe(outcome->data)->epochs;
    for (int a = 1; a < outcome->arms; a++) {
        int64_t equal = equal_epochs(&outcome->arm[a], epochs);
        if (!equal)
            continue;
        char *job = bl_setting_lasting(o->arm[0], equal);
        if (!job)
            return bl_no_memory(0);
        int at = 0;
        while (at < m->jobs && strcmp(m->job[at], job) != 0)
            at++;
        if (at < m->jobs)
            bl_release(job);
        else
            m->job[m->jobs++] = job;
        m->job_of[outcome->matches] = at;
        outcome->matched[outcome->matches++] = (bl_matched){.arm = a, .epochs = equal};
    }
    return BL_OK;
}

static bl_status compare_rows(bl_outcome *o, const matching *m, const double *score)
{
    bl_compare_options options = bl_outcome_compare_options(o);
    bl_comparison *row = bl_alloc((size_t)o->matches * sizeof *row);
    bl_status status = row ? BL_OK : bl_no_memory(0);
    for (int i = 0; i < o->matches && status == BL_OK; i++)
        status = bl_compare(&options, o->arm[o->matched[i].arm].score,
                            score + m->job_of[i] * o->replicates, o->replicates, &row[i]);
    if (status == BL_OK)
        status = bl_verdicts_among(row, o->matches, o->matches + o->family - o->compared, o->alpha);
    for (int i = 0; i < o->matches && status == BL_OK; i++)
        o->matched[i].comparison = row[i];
    bl_release(row);
    return status;
}

static bl_status run_rows(const bl_study_options *o, const bl_job_data *data, bl_outcome *outcome,
                          const matching *m)
{
    bl_study_options jobs = *o;
    jobs.arm = (const char *const *)m->job;
    jobs.arms = m->jobs;
    size_t runs = (size_t)m->jobs * (size_t)o->replicates;
    double *score = bl_alloc(runs * sizeof *score);
    if (!score)
        return bl_no_memory(runs);
    bl_status status = bl_study_scores(&jobs, data, score, NULL);
    if (status == BL_OK)
        status = compare_rows(outcome, m, score);
    bl_release(score);
    return status;
}

bl_status bl_match_cost(const bl_study_options *o, const bl_job_data *data, bl_outcome *outcome)
{
    size_t arms = (size_t)outcome->arms;
    matching m = {.job = bl_alloc(arms * sizeof *m.job),
                  .job_of = bl_alloc(arms * sizeof *m.job_of)};
    outcome->matched = bl_alloc(arms * sizeof *outcome->matched);
    bl_status status = m.job && m.job_of && outcome->matched ? BL_OK : bl_no_memory(arms);
    if (status == BL_OK)
        status = list_rows(o, outcome, &m);
    if (status == BL_OK && outcome->matches)
        status = run_rows(o, data, outcome, &m);
    for (int j = 0; j < m.jobs; j++)
        bl_release(m.job[j]);
    bl_release(m.job);
    bl_release(m.job_of);
    return status;
}
