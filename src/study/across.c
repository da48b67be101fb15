/* Verdicts over data sets. */
#include "study/across.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DRAWS = 2000, NAME = 28 };

double bl_interquartile_mean(double *x, int n)
{
    bl_sort_doubles(x, (size_t)n);
    double cut = n / 4.0, sum = 0, total = 0;
    for (int i = 0; i < n; i++) { /* element i covers i..i+1 of n; what lies within is its weight */
        double from = i > cut ? i : cut, to = i + 1 < n - cut ? i + 1 : n - cut;
        if (to > from) {
            sum += (to - from) * x[i];
            total += to - from;
        }
    }
    return sum / total;
}

bl_status bl_iqm_interval(const double *x, int strata, int n, int draws, double alpha, bl_key key,
                          bl_interval *out)
{
    size_t all = (size_t)strata * (size_t)n;
    double *sample = bl_alloc(all * sizeof *sample), *seen = bl_alloc((size_t)draws * sizeof *seen);
    bl_status status = sample && seen ? BL_OK : bl_no_memory(all);
    bl_random random = bl_random_new(key);
    for (int d = 0; d < draws && status == BL_OK; d++) {
        for (int s = 0; s < strata; s++)
            for (int i = 0; i < n; i++)
                sample[s * n + i] = x[s * n + (int)bl_random_below(&random, (uint32_t)n)];
        seen[d] = bl_interquartile_mean(sample, (int)all);
    }
    if (status == BL_OK) {
        bl_sort_doubles(seen, (size_t)draws);
        int low = (int)floor(alpha / 2 * draws), high = draws - 1 - low;
        *out = (bl_interval){seen[low], seen[high]};
    }
    bl_release(sample);
    bl_release(seen);
    return status;
}

/* --- gains -------------------------------------------------------------------------------------
 */
static double gain(const bl_outcome *o, double arm, double baseline)
{
    double scale = 100 / fabs(o->arm[0].mean);
    if (!isfinite(arm) || !isfinite(baseline))
        return isfinite(arm) ? INFINITY : isfinite(baseline) ? -INFINITY : 0;
    return (o->higher_is_better ? 1 : -1) * scale * (arm - baseline);
}

static const bl_arm_outcome *find_arm(const bl_outcome *o, const char *name)
{
    for (int a = 1; a < o->arms; a++)
        if (!strcmp(o->arm[a].arm, name) && !o->arm[a].failed)
            return &o->arm[a];
    return NULL;
}

static bool in_all(const bl_outcome *const *outcome, int sets, const char *name)
{
    for (int s = 0; s < sets; s++)
        if (!find_arm(outcome[s], name))
            return false;
    return true;
}

/* Fills gains [sets * n] and the mean of each set. */
static void gains_of(const bl_outcome *const *outcome, int sets, const char *name, double *gains,
                     double *mean)
{
    for (int s = 0; s < sets; s++) {
        const bl_outcome *o = outcome[s];
        const bl_arm_outcome *arm = find_arm(o, name);
        mean[s] = 0;
        for (int r = 0; r < o->replicates; r++) {
            double g = gain(o, arm->score[r], o->arm[0].score[r]);
            gains[s * o->replicates + r] = g;
            mean[s] += g / o->replicates;
        }
        if (isnan(mean[s])) /* each diverged somewhere: neither is better */
            mean[s] = 0;
    }
}

static bl_status fill_row(const bl_outcome *const *outcome, int sets, const char *name,
                          double *gains, double *mean, bl_across_row *row)
{
    int n = outcome[0]->replicates;
    *row = (bl_across_row){.arm = name, .sets = sets, .p = NAN, .adjusted_p = NAN};
    gains_of(outcome, sets, name, gains, mean);
    for (int s = 0; s < sets; s++) {
        row->better += mean[s] > 0;
        row->worse += mean[s] < 0;
    }
    BL_TRY(bl_iqm_interval(gains, sets, n, DRAWS, outcome[0]->alpha,
                           bl_key_derive_name(bl_key_from_seed(outcome[0]->plan->study_seed), name),
                           &row->interval));
    row->iqm = bl_interquartile_mean(gains, sets * n);
    BL_TRY(bl_signed_rank(mean, sets, &row->p, NULL));
    BL_TRY(bl_signed_ranks(mean, sets, gains)); /* the gains are done with */
    double sum = 0;
    for (int s = 0; s < sets; s++)
        sum += gains[s];
    row->direction = (sum > 0) - (sum < 0);
    return BL_OK;
}

/* Refuses where no arm could reach a verdict; else Holm. */
static bl_status decide(bl_across *a)
{
    double floor = bl_test_floor(BL_TEST_SIGNED_RANK, a->sets);
    int needed = a->sets;
    while (bl_test_floor(BL_TEST_SIGNED_RANK, needed) > a->alpha / a->rows)
        needed++;
    double p[256];
    for (int i = 0; i < a->rows; i++)
        p[i] = a->row[i].p;
    if (needed == a->sets)
        BL_TRY(bl_holm(p, a->rows, p));
    for (int i = 0; i < a->rows; i++) {
        bl_across_row *row = &a->row[i];
        if (needed > a->sets) {
            row->p = NAN;
            snprintf(
                row->note, sizeof row->note,
                "no test: signed-rank over %d data sets cannot give a p below %.3g, and %.3g is "
                "needed; compare at least %d",
                a->sets, floor, a->alpha / a->rows, needed);
            continue;
        }
        row->adjusted_p = p[i];
        if (p[i] <= a->alpha && row->direction)
            row->verdict = row->direction > 0 ? BL_HELPS : BL_HURTS;
    }
    return BL_OK;
}

bl_status bl_across_new(const bl_outcome *const *outcome, int sets, bl_across *out)
{
    enum { MOST = 256 };
    const bl_outcome *first = outcome[0];
    *out = (bl_across){.sets = sets, .alpha = first->alpha};
    size_t room = (size_t)sets * (size_t)first->replicates;
    double *gains = bl_alloc(room * sizeof *gains), *mean = bl_alloc((size_t)sets * sizeof *mean);
    out->row = bl_alloc((size_t)first->arms * sizeof *out->row);
    bl_status status = gains && mean && out->row ? BL_OK : bl_no_memory(room);
    if (status == BL_OK && first->arms > MOST)
        status = bl_fail(BL_INVALID, "%d arms over several data sets: at most %d", first->arms - 1,
                         MOST - 1);
    for (int a = 1; a < first->arms && status == BL_OK; a++)
        if (in_all(outcome, sets, first->arm[a].arm))
            status =
                fill_row(outcome, sets, first->arm[a].arm, gains, mean, &out->row[out->rows++]);
    if (status == BL_OK && out->rows)
        status = decide(out);
    bl_release(gains);
    bl_release(mean);
    if (status != BL_OK)
        bl_across_free(out);
    return status;
}

void bl_across_free(bl_across *across)
{
    bl_release(across->row);
    *across = (bl_across){0};
}

/* --- telling -----------------------------------------------------------------------------------
 */
bl_status bl_across_table(const bl_across *a, bl_text *text)
{
    bl_text_add(text, "over %d data sets\n%-*s %8s %26s %8s\n", a->sets, NAME, "arm", "better",
                "gain, % of the baseline", "p");
    for (int i = 0; i < a->rows; i++) {
        const bl_across_row *row = &a->row[i];
        char better[24], gain[64], p[16] = "-";
        snprintf(better, sizeof better, "%d of %d", row->better, row->sets);
        snprintf(gain, sizeof gain, "%+.2f [%+.2f,%+.2f]", row->iqm, row->interval.low,
                 row->interval.high);
        if (isfinite(row->adjusted_p))
            snprintf(p, sizeof p, row->adjusted_p < 0.001 ? "<0.001" : "%.3f", row->adjusted_p);
        if (strlen(row->arm) > NAME)
            bl_text_add(text, "%s\n%-*s", row->arm, NAME, "");
        else
            bl_text_add(text, "%-*s", NAME, row->arm);
        bl_text_add(text, " %8s %26s %8s\n  = %s%s%s\n", better, gain, p,
                    bl_verdict_name(row->verdict), *row->note ? "\n    " : "", row->note);
    }
    if (!a->rows)
        bl_text_add(text, "no arm has all its runs on every data set\n");
    bl_text_add(text,
                "\nGain: interquartile mean over data sets and replicates, its %g %% interval by\n"
                "resampling replicates within each data set: of new runs on these data sets.\n"
                "p: signed-rank over the data sets' means, Holm over %d arm%s: of data sets like "
                "these.\n",
                100 * (1 - a->alpha), a->rows, a->rows == 1 ? "" : "s");
    return text->failed ? bl_no_memory(text->length) : BL_OK;
}

bl_status bl_across_json(const bl_across *a, json_t **out)
{
    json_t *rows = json_array();
    for (int i = 0; i < a->rows; i++) {
        const bl_across_row *r = &a->row[i];
        json_array_append_new(
            rows, json_pack("{s:s,s:i,s:i,s:i,s:o,s:[o,o],s:o,s:o,s:s,s:s}", "arm", r->arm, "sets",
                            r->sets, "better", r->better, "worse", r->worse, "gain",
                            bl_json_real(r->iqm), "gain_interval", bl_json_real(r->interval.low),
                            bl_json_real(r->interval.high), "p", bl_json_real(r->p), "p_adjusted",
                            bl_json_real(r->adjusted_p), "verdict", bl_verdict_name(r->verdict),
                            "note", r->note));
    }
    *out = rows;
    return rows ? BL_OK : bl_fail(BL_NO_MEMORY, "memory is short for the result as JSON");
}
