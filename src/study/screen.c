/* Paired halving. What a round decides follows from stored results alone, so it is the same
 * whenever it is asked for. */
#include "study/screen.h"

#include <math.h>

#include "study/setting.h"

/* The arms left, by number; the baseline, arm 0, is always with them. */
typedef struct field {
    const bl_study_options *options;
    char **job; /* [arms]: screening settings */
    int *left, lefts;
    const char **running;
    double *score, *gain; /* gain: of every arm, better is larger; -inf where a run diverged */
} field;

static double mean_difference(const double *arm, const double *baseline, int pairs)
{
    double sum = 0;
    for (int r = 0; r < pairs; r++)
        sum += arm[r] - baseline[r];
    return isfinite(sum) ? sum / pairs : NAN;
}

static bl_status run_round(field *f, const bl_job_data *data, int round, bl_screening *out)
{
    bl_study_options jobs = *f->options;
    bool higher;
    int pairs = BL_SCREEN_PAIRS * round;
    (void)bl_job_primary_metric(data, &higher);
    f->running[0] = f->job[0];
    for (int i = 0; i < f->lefts; i++)
        f->running[i + 1] = f->job[f->left[i]];
    jobs.arm = f->running;
    jobs.arms = f->lefts + 1;
    jobs.replicates = pairs;
    BL_TRY(bl_study_scores(&jobs, data, f->score, NULL));
    for (int i = 0; i < f->lefts; i++) {
        bl_screened *arm = &out->arm[f->left[i] - 1];
        arm->pairs = pairs;
        arm->difference = mean_difference(f->score + (i + 1) * pairs, f->score, pairs);
        f->gain[f->left[i]] = isnan(arm->difference) ? -INFINITY
                              : higher               ? arm->difference
                                                     : -arm->difference;
    }
    return BL_OK;
}

/* Those that are among the `keep` best; of equal ones the first given. */
static void halve(field *f, int round, bl_screening *out)
{
    int half = (f->lefts + 1) / 2, keep = half > BL_SCREEN_KEEP ? half : BL_SCREEN_KEEP, kept = 0;
    for (int i = 0; i < f->lefts; i++) {
        int before = 0; /* arms that are better, or as good and earlier */
        for (int k = 0; k < f->lefts; k++)
            before += f->gain[f->left[k]] > f->gain[f->left[i]] ||
                      (k < i && f->gain[f->left[k]] == f->gain[f->left[i]]);
        out->arm[f->left[i] - 1].round = before < keep ? 0 : round;
    }
    for (int i = 0; i < f->lefts; i++)
        if (!out->arm[f->left[i] - 1].round)
            f->left[kept++] = f->left[i];
    f->lefts = kept;
}

static bl_status run_rounds(field *f, const bl_job_data *data, bl_screening *out)
{
    while (f->lefts > BL_SCREEN_KEEP) {
        out->rounds++;
        BL_TRY(run_round(f, data, out->rounds, out));
        halve(f, out->rounds, out);
    }
    return BL_OK;
}

static bl_status open_field(field *f, const char *const *name, bl_screening *out)
{
    size_t arms = (size_t)f->options->arms;
    enum { ROUNDS_MOST = 32 };
    f->job = bl_alloc(arms * sizeof *f->job);
    f->left = bl_alloc(arms * sizeof *f->left);
    f->running = bl_alloc(arms * sizeof *f->running);
    f->gain = bl_alloc(arms * sizeof *f->gain);
    f->score = bl_alloc(arms * BL_SCREEN_PAIRS * ROUNDS_MOST * sizeof *f->score);
    out->arm = bl_alloc(arms * sizeof *out->arm);
    if (!f->job || !f->left || !f->running || !f->gain || !f->score || !out->arm)
        return bl_no_memory(arms);
    for (int a = 0; a < f->options->arms; a++) {
        if (!(f->job[a] = bl_setting_for(BL_FOR_SCREENING, f->options->arm[a])))
            return bl_no_memory(0);
        if (a == 0)
            continue;
        f->left[f->lefts++] = a;
        if (!(out->arm[out->arms++].arm = bl_copy_text(name[a])))
            return bl_no_memory(0);
    }
    return BL_OK;
}

bl_status bl_screen(const bl_study_options *o, const bl_job_data *data, const char *const *name,
                    bl_screening *out)
{
    field f = {.options = o};
    *out = (bl_screening){0};
    bl_status status = open_field(&f, name, out);
    if (status == BL_OK)
        status = run_rounds(&f, data, out);
    for (int a = 0; f.job && a < o->arms; a++)
        bl_release(f.job[a]);
    bl_release(f.job);
    bl_release(f.left);
    bl_release(f.running);
    bl_release(f.gain);
    bl_release(f.score);
    return status;
}

void bl_screening_free(bl_screening *screening)
{
    for (int a = 0; a < screening->arms; a++)
        bl_release(screening->arm[a].arm);
    bl_release(screening->arm);
    *screening = (bl_screening){0};
}
