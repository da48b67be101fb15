/* Paired halving. What a round decides follows from stored results alone, so it is the same
 * whenever it is asked for. */
#include "study/screen.h"

#include <math.h>

#include "study/setting.h"

enum { ROUNDS_MOST = 32 };

/* The arms left, by number; the baseline, arm 0, is always the first of them. */
typedef struct field {
    bool higher;
    bl_screen_source *source;
    void *context;
    int *left, lefts;
    double *score, *gain; /* gain: of every arm, better is larger; -inf where a run diverged */
} field;

static double mean_difference(const double *arm, const double *baseline, int pairs)
{
    double sum = 0;
    for (int r = 0; r < pairs; r++)
        sum += arm[r] - baseline[r];
    return isfinite(sum) ? sum / pairs : NAN;
}

static bl_status run_round(field *f, int round, bl_screening *out)
{
    int pairs = BL_SCREEN_PAIRS * round;
    BL_TRY(f->source(f->context, f->left, f->lefts, pairs, f->score));
    for (int i = 1; i < f->lefts; i++) {
        bl_screened *arm = &out->arm[f->left[i] - 1];
        arm->pairs = pairs;
        arm->difference = mean_difference(f->score + i * pairs, f->score, pairs);
        f->gain[f->left[i]] = isnan(arm->difference) ? -INFINITY
                              : f->higher            ? arm->difference
                                                     : -arm->difference;
    }
    return BL_OK;
}

/* Those that are among the `keep` best; of equal ones the first given. */
static void halve(field *f, int round, bl_screening *out)
{
    int half = f->lefts / 2 /* of the arms, rounded up */,
        keep = half > BL_SCREEN_KEEP ? half : BL_SCREEN_KEEP, kept = 1;
    for (int i = 1; i < f->lefts; i++) {
        int before = 0; /* arms that are better, or as good and earlier */
        for (int k = 1; k < f->lefts; k++)
            before += f->gain[f->left[k]] > f->gain[f->left[i]] ||
                      (k < i && f->gain[f->left[k]] == f->gain[f->left[i]]);
        out->arm[f->left[i] - 1].round = before < keep ? 0 : round;
    }
    for (int i = 1; i < f->lefts; i++)
        if (!out->arm[f->left[i] - 1].round)
            f->left[kept++] = f->left[i];
    f->lefts = kept;
}

bl_status bl_screen_rounds(int arms, bool higher_is_better, bl_screen_source *source, void *context,
                           bl_screening *out)
{
    size_t n = (size_t)(arms > 0 ? arms : 1);
    *out = (bl_screening){.arm = bl_alloc(n * sizeof *out->arm)};
    field f = {.higher = higher_is_better,
               .source = source,
               .context = context,
               .left = bl_alloc(n * sizeof *f.left),
               .score = bl_alloc(n * BL_SCREEN_PAIRS * ROUNDS_MOST * sizeof *f.score),
               .gain = bl_alloc(n * sizeof *f.gain)};
    bl_status status = out->arm && f.left && f.score && f.gain ? BL_OK : bl_no_memory(n);
    if (status == BL_OK) {
        out->arms = arms - 1;
        for (; f.lefts < arms; f.lefts++)
            f.left[f.lefts] = f.lefts;
    }
    while (status == BL_OK && f.lefts - 1 > BL_SCREEN_KEEP) {
        status = run_round(&f, ++out->rounds, out);
        if (status == BL_OK)
            halve(&f, out->rounds, out);
    }
    bl_release(f.left);
    bl_release(f.score);
    bl_release(f.gain);
    return status;
}

/* --- scores by jobs --------------------------------------------------------------------------- */
typedef struct jobs {
    const bl_study_options *options;
    const bl_job_data *data;
    char **job; /* [arms]: screening settings */
    const char **running;
} jobs;

static bl_status run_jobs(void *context, const int *arm, int arms, int pairs, double *score)
{
    jobs *j = context;
    bl_study_options options = *j->options;
    for (int i = 0; i < arms; i++)
        j->running[i] = j->job[arm[i]];
    options.arm = j->running;
    options.arms = arms;
    options.replicates = pairs;
    return bl_study_scores(&options, j->data, score, NULL);
}

static bl_status name_jobs(jobs *j)
{
    int arms = j->options->arms;
    j->job = bl_alloc((size_t)arms * sizeof *j->job);
    j->running = bl_alloc((size_t)arms * sizeof *j->running);
    if (!j->job || !j->running)
        return bl_no_memory((size_t)arms);
    for (int a = 0; a < arms; a++)
        if (!(j->job[a] = bl_setting_for(BL_FOR_SCREENING, j->options->arm[a])))
            return bl_no_memory(0);
    return BL_OK;
}

/* Whether an arm that left did nothing in any of its runs. */
static bl_status audit(const jobs *j, int a, bl_screened *arm)
{
    enum { PAIRS_MOST = BL_SCREEN_PAIRS * ROUNDS_MOST };
    bl_study_options options = *j->options;
    json_t *result[PAIRS_MOST] = {0};
    char *error = NULL;
    options.arm = (const char *const *)&j->job[a];
    options.arms = 1;
    options.replicates = arm->pairs;
    bl_status status = bl_study_results(&options, j->data, result, &error);
    arm->inert = arm->pairs > 0;
    for (int r = 0; r < arm->pairs; r++) {
        const json_t *effect = json_object_get(result[r], "effect");
        arm->inert = arm->inert && json_is_true(json_object_get(effect, "inert"));
        json_decref(result[r]);
    }
    bl_release(error);
    return status;
}

bl_status bl_screen(const bl_study_options *o, const bl_job_data *data, const char *const *name,
                    bl_screening *out)
{
    bool higher;
    jobs j = {.options = o, .data = data};
    *out = (bl_screening){0};
    (void)bl_job_primary_metric(data, &higher);
    bl_status status = name_jobs(&j);
    if (status == BL_OK)
        status = bl_screen_rounds(o->arms, higher, run_jobs, &j, out);
    for (int a = 0; a < out->arms && status == BL_OK; a++) {
        if (!(out->arm[a].arm = bl_copy_text(name[a + 1])))
            status = bl_no_memory(0);
        else if (out->arm[a].round)
            status = audit(&j, a + 1, &out->arm[a]);
    }
    for (int a = 0; j.job && a < o->arms; a++)
        bl_release(j.job[a]);
    bl_release(j.job);
    bl_release(j.running);
    return status;
}

void bl_screening_free(bl_screening *screening)
{
    for (int a = 0; a < screening->arms; a++)
        bl_release(screening->arm[a].arm);
    bl_release(screening->arm);
    *screening = (bl_screening){0};
}
