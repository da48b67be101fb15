/* CSV and LaTeX. */
#include "study/export.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- cells ------------------------------------------------------------------------------------ */
/* With as many digits as give the number back. */
static void csv_number(bl_text *text, double x)
{
    if (isfinite(x))
        bl_text_add(text, ",%.17g", x);
    else
        bl_text_add(text, ",");
}

static void csv_comparison(bl_text *text, const bl_comparison *c)
{
    char verdict[64];
    bl_verdict_text(c, verdict);
    const double number[] = {c->difference,
                             c->difference_interval.low,
                             c->difference_interval.high,
                             c->p,
                             c->adjusted_p,
                             c->d_z,
                             c->better,
                             c->better_interval.low,
                             c->better_interval.high};
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        csv_number(text, number[i]);
    bl_text_add(text, ",");
    bl_text_add_cell(text, bl_test_name(c->test), ',');
    bl_text_add(text, ",%s,", bl_verdict_name(c->verdict));
    bl_text_add_cell(text, verdict, ',');
}

enum { COMPARISON_CELLS = 12 };

static void csv_blank(bl_text *text, int cells)
{
    for (int i = 0; i < cells; i++)
        bl_text_add(text, ",");
}

static void csv_data(const bl_outcome *o, bool with_data, bl_text *text)
{
    if (!with_data)
        return;
    bl_text_add_cell(text, o->plan->data, ',');
    bl_text_add(text, ",%s,", o->metric);
}

static void csv_arm(const bl_outcome *o, int a, bl_text *text)
{
    const bl_arm_outcome *arm = &o->arm[a];
    bl_text_add_cell(text, arm->arm, ',');
    bl_text_add(text, a ? ",arm," : ",baseline,");
    bl_text_add_cell(text, arm->choice ? arm->choice->setting : "", ',');
    bl_text_add(text, ",%d,%d,%d", arm->runs, arm->diverged, arm->failed);
    csv_number(text, arm->mean);
    csv_number(text, arm->interval.low);
    csv_number(text, arm->interval.high);
    if (a > 0)
        csv_comparison(text, &arm->comparison);
    else
        csv_blank(text, COMPARISON_CELLS);
    csv_number(text, arm->work);
    csv_number(text, arm->total_work);
    bl_text_add(text, "\n");
}

static void csv_matched(const bl_outcome *o, const bl_matched *m, bl_text *text)
{
    const bl_arm_outcome *arm = &o->arm[m->arm];
    bl_text_add_cell(text, arm->arm, ',');
    bl_text_add(text, ",equal cost,,%d,%d,%d", arm->runs, arm->diverged, arm->failed);
    csv_blank(text, 3);
    csv_comparison(text, &m->comparison);
    csv_number(text, arm->work);
    csv_number(text, arm->total_work);
    bl_text_add(text, "\n");
}

static void csv_screened(const bl_screened *arm, bl_text *text)
{
    bl_text_add_cell(text, arm->arm, ',');
    bl_text_add(text, ",screened out,,%d,,,,,", arm->pairs);
    csv_number(text, arm->difference);
    csv_blank(text, COMPARISON_CELLS - 1 + 2);
    bl_text_add(text, "\n");
}

void bl_csv_head(const char *first, const char *mean, bl_text *text)
{
    bl_text_add(text,
                "%sarm,kind,setting,runs,diverged,failed,%s,low,high,difference,"
                "difference_low,difference_high,p,p_adjusted,effect_size,better,better_low,"
                "better_high,test,verdict,verdict_text,work,total_work\n",
                first, mean);
}

bl_status bl_csv_rows(const bl_outcome *o, bool with_data, bl_text *text)
{
    for (int a = 0; a < o->arms; a++) {
        csv_data(o, with_data, text);
        csv_arm(o, a, text);
    }
    for (int i = 0; i < o->matches; i++) {
        csv_data(o, with_data, text);
        csv_matched(o, &o->matched[i], text);
    }
    for (int a = 0; o->screening && a < o->screening->arms; a++) {
        if (!o->screening->arm[a].round)
            continue;
        csv_data(o, with_data, text);
        csv_screened(&o->screening->arm[a], text);
    }
    return text->failed ? bl_no_memory(text->length) : BL_OK;
}

bl_status bl_outcome_csv(const bl_outcome *o, bl_text *text)
{
    bl_csv_head("", o->metric, text);
    return bl_csv_rows(o, false, text);
}

bl_status bl_across_csv(const bl_across *a, bl_text *text)
{
    for (int i = 0; i < a->rows; i++) {
        const bl_across_row *r = &a->row[i];
        bl_text_add(text, ",gain in percent,");
        bl_text_add_cell(text, r->arm, ',');
        bl_text_add(text, ",over data sets,,%d,,", r->sets);
        csv_blank(text, 3);
        const double number[] = {r->iqm,
                                 r->interval.low,
                                 r->interval.high,
                                 r->p,
                                 r->adjusted_p,
                                 NAN,
                                 (double)r->better / r->sets};
        for (size_t k = 0; k < sizeof number / sizeof *number; k++)
            csv_number(text, number[k]);
        csv_blank(text, 2);
        bl_text_add(text, ",signed-rank over data sets,%s,", bl_verdict_name(r->verdict));
        bl_text_add_cell(text, r->note, ',');
        csv_blank(text, 2);
        bl_text_add(text, "\n");
    }
    return text->failed ? bl_no_memory(text->length) : BL_OK;
}

/* --- LaTeX ------------------------------------------------------------------------------------ */
static void latex_text(bl_text *text, const char *plain)
{
    for (; *plain; plain++)
        switch (*plain) {
        case '\\':
            bl_text_add(text, "\\textbackslash{}");
            break;
        case '~':
            bl_text_add(text, "\\textasciitilde{}");
            break;
        case '^':
            bl_text_add(text, "\\textasciicircum{}");
            break;
        case '<': /* these four are other characters in LaTeX's oldest encoding */
            bl_text_add(text, "\\textless{}");
            break;
        case '>':
            bl_text_add(text, "\\textgreater{}");
            break;
        case '|':
            bl_text_add(text, "\\textbar{}");
            break;
        case '"':
            bl_text_add(text, "{''}");
            break;
        case '&':
        case '%':
        case '$':
        case '#':
        case '_':
        case '{':
        case '}':
            bl_text_add(text, "\\%c", *plain);
            break;
        default:
            bl_text_add(text, "%c", *plain);
        }
}

static void latex_p(bl_text *text, double p)
{
    if (isnan(p))
        bl_text_add(text, " & --");
    else if (p < 0.001)
        bl_text_add(text, " & $<0.001$");
    else
        bl_text_add(text, " & $%.3f$", p);
}

static void latex_comparison(const bl_comparison *c, const bl_layout *l, bl_text *text)
{
    double unit = l->unit;
    int d = l->difference;
    if (isfinite(c->difference))
        bl_text_add(text, " & $%+.*f$", d, c->difference / unit);
    else
        bl_text_add(text, " & --");
    if (isfinite(c->difference_interval.low))
        bl_text_add(text, " & $[%+.*f,\\,%+.*f]$", d, c->difference_interval.low / unit, d,
                    c->difference_interval.high / unit);
    else
        bl_text_add(text, " & --");
    latex_p(text, c->adjusted_p);
    bl_text_add(text, " & $%.2f$ & %s", c->better, bl_verdict_name(c->verdict));
}

static void latex_arm(const bl_outcome *o, int a, const bl_layout *l, bl_text *text)
{
    const bl_arm_outcome *arm = &o->arm[a];
    latex_text(text, arm->arm);
    double half = (arm->interval.high - arm->interval.low) / 2 / l->unit;
    if (!isfinite(arm->mean))
        bl_text_add(text, " & --");
    else if (isfinite(half))
        bl_text_add(text, " & $%.*f \\pm %.*f$", l->mean, arm->mean / l->unit, l->mean, half);
    else
        bl_text_add(text, " & $%.*f$", l->mean, arm->mean / l->unit);
    if (a > 0)
        latex_comparison(&arm->comparison, l, text);
    else
        bl_text_add(text, " & & & & &");
    if (isfinite(arm->work))
        bl_text_add(text, " & $%.2f$ \\\\\n", arm->work);
    else
        bl_text_add(text, " & -- \\\\\n");
}

static void latex_head(const bl_outcome *o, const bl_layout *l, bl_text *text)
{
    bl_text_add(
        text,
        "%% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\\footnotesize\n"
        "\\setlength{\\tabcolsep}{3.5pt}\n\\begin{tabular}{@{}lrrrrrlr@{}}\n\\toprule\narm & ");
    latex_text(text, o->metric);
    if (l->unit != 1)
        bl_text_add(text, " ($10^{%.0f}$)", log10(l->unit));
    bl_text_add(text,
                " & difference & %g\\,\\%% interval & $p$ & $P$(better) & verdict & cost "
                "\\\\\n\\midrule\n",
                100 * (1 - o->alpha));
}

static void latex_caption(bl_text *text, const char *data)
{
    bl_text_add(text, "\\bottomrule\n\\end{tabular}\n\\caption{\\texttt{");
    latex_text(text, data);
    bl_text_add(text, "}: ");
}

bl_status bl_outcome_latex(const bl_outcome *o, bl_text *text)
{
    bl_layout l = bl_outcome_layout(o);
    latex_head(o, &l, text);
    for (int a = 0; a < o->arms; a++)
        latex_arm(o, a, &l, text);
    for (int i = 0; i < o->matches; i++) {
        const bl_matched *m = &o->matched[i];
        if (i == 0)
            bl_text_add(text, "\\midrule\n\\multicolumn{8}{l}{at equal cost} \\\\\n");
        latex_text(text, o->arm[m->arm].arm);
        bl_text_add(text, " & %lld epochs", (long long)m->epochs);
        latex_comparison(&m->comparison, &l, text);
        bl_text_add(text, " & $%.2f$ \\\\\n", o->arm[m->arm].total_work);
    }
    bl_text footer = {0};
    latex_caption(text, o->plan->data);
    bl_outcome_footer(o, &footer);
    if (footer.at)
        latex_text(text, footer.at);
    text->failed = text->failed || footer.failed;
    bl_text_free(&footer);
    bl_text_add(text, "}\n\\end{table}\n");
    return text->failed ? bl_no_memory(text->length) : BL_OK;
}

/* Where runs diverged, a gain or an end of its interval may be infinite, or none. */
static void latex_gain(bl_text *text, const bl_across_row *r)
{
    bool known = isfinite(r->interval.low) && isfinite(r->interval.high);
    bl_text_add(text, isfinite(r->iqm) ? " & $%+.2f$" : " & --", r->iqm);
    bl_text_add(text, known ? " & $[%+.2f,\\,%+.2f]$" : " & --", r->interval.low, r->interval.high);
}

bl_status bl_across_latex(const bl_across *a, bl_text *text)
{
    bl_text_add(text,
                "\\begin{table}\n\\centering\\footnotesize\n\\begin{tabular}{@{}lrrrrl@{}}"
                "\n\\toprule\narm & better & "
                "gain (\\%%) & %g\\,\\%% interval & $p$ & verdict \\\\\n\\midrule\n",
                100 * (1 - a->alpha));
    for (int i = 0; i < a->rows; i++) {
        const bl_across_row *r = &a->row[i];
        latex_text(text, r->arm);
        bl_text_add(text, " & %d of %d", r->better, r->sets);
        latex_gain(text, r);
        latex_p(text, r->adjusted_p);
        bl_text_add(text, " & %s \\\\\n", bl_verdict_name(r->verdict));
    }
    bl_text_add(
        text,
        "\\bottomrule\n\\end{tabular}\n\\caption{Over %d data sets. Gain: interquartile "
        "mean over data sets and replicates, in percent of the baseline; its interval is by "
        "resampling replicates within each data set. $p$: signed-rank over the data sets' "
        "means, Holm over %d arm%s.}\n\\end{table}\n",
        a->sets, a->rows, a->rows == 1 ? "" : "s");
    return text->failed ? bl_no_memory(text->length) : BL_OK;
}

/* --- every job -------------------------------------------------------------------------------- */
typedef struct jobs {
    json_t *list;    /* every job, its result parsed */
    json_t *metrics; /* names of metrics, an object */
} jobs;

static bl_status add_job(void *context, const bl_store_job *job)
{
    jobs *j = context;
    json_t *result = job->result ? json_loads(job->result, 0, NULL) : NULL;
    if (job->result && !result)
        return bl_fail(BL_INVALID, "the stored result of %s, replicate %d, is damaged", job->arm,
                       job->replicate);
    json_object_update_missing(j->metrics, json_object_get(result, "metrics"));
    json_t *entry = json_pack("{s:s,s:i,s:s,s:o}", "arm", job->arm, "replicate", job->replicate,
                              "state", job->state, "result", result ? result : json_null());
    if (entry && job->error)
        json_object_set_new(entry, "error", json_string(job->error));
    return entry && json_array_append_new(j->list, entry) == 0 ? BL_OK : bl_no_memory(0);
}

static bl_status read_jobs(bl_store *store, int64_t study, jobs *j)
{
    *j = (jobs){json_array(), json_object()};
    return j->list && j->metrics ? bl_store_each_job(store, study, add_job, j) : bl_no_memory(0);
}

static void free_jobs(jobs *j)
{
    json_decref(j->list);
    json_decref(j->metrics);
}

static void csv_member(bl_text *text, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    csv_number(text, json_is_number(value) ? json_number_value(value) : NAN);
}

static void csv_job(const json_t *job, const json_t *metrics, bl_text *text)
{
    const json_t *result = json_object_get(job, "result");
    const char *name, *error = json_string_value(json_object_get(job, "error"));
    json_t *unused;
    bl_text_add_cell(text, json_string_value(json_object_get(job, "arm")), ',');
    bl_text_add(text, ",%lld,%s", (long long)json_integer_value(json_object_get(job, "replicate")),
                json_string_value(json_object_get(job, "state")));
    json_object_foreach((json_t *)metrics, name, unused)
    {
        csv_member(text, json_object_get(result, "metrics"), name);
    }
    csv_member(text, result, "steps");
    csv_member(text, json_object_get(result, "work"), "flops");
    csv_member(text, json_object_get(result, "timing"), "seconds");
    bl_text_add(text, ",%s,", json_is_true(json_object_get(result, "diverged")) ? "1" : "0");
    bl_text_add_cell(text, error ? error : "", ',');
    bl_text_add(text, "\n");
}

bl_status bl_export_csv(bl_store *store, int64_t study, bl_text *text)
{
    jobs j;
    bl_status status = read_jobs(store, study, &j);
    const char *name;
    json_t *job;
    size_t i;
    if (status == BL_OK) {
        bl_text_add(text, "arm,replicate,state");
        json_object_foreach(j.metrics, name, job)
        {
            bl_text_add(text, ",%s", name);
        }
        bl_text_add(text, ",steps,flops_per_step,seconds,diverged,error\n");
        json_array_foreach(j.list, i, job)
        {
            csv_job(job, j.metrics, text);
        }
        status = text->failed ? bl_no_memory(text->length) : BL_OK;
    }
    free_jobs(&j);
    return status;
}

bl_status bl_export_json(bl_store *store, int64_t study, bl_text *text)
{
    jobs j;
    bl_status status = read_jobs(store, study, &j);
    char *dump = status == BL_OK
                     ? json_dumps(j.list, JSON_INDENT(1) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17))
                     : NULL;
    if (dump)
        bl_text_add(text, "%s\n", dump);
    if (status == BL_OK && (!dump || text->failed))
        status = bl_no_memory(0);
    free(dump);
    free_jobs(&j);
    return status;
}

/* --- presets ---------------------------------------------------------------------------------- */
typedef struct preset {
    int64_t study;
    json_t *json; /* as --save-preset writes it, but for scores */
} preset;

static bl_status begin_preset(void *context, const bl_store_row *row)
{
    preset *p = context;
    if (row->id != p->study)
        return BL_OK;
    json_t *known = json_loads(row->plan, 0, NULL);
    const char *version = json_string_value(json_object_get(known, "version")),
               *hash = json_string_value(json_object_get(known, "data"));
    p->json = json_pack("{s:i,s:s?,s:s?,s:i,s:i,s:[]}", "schema", 1, "ballast", version,
                        "data_hash", hash, "trials", 0, "seeds", BL_TUNING_SEEDS, "arms");
    json_decref(known);
    return p->json ? BL_OK : bl_no_memory(0);
}

/* Choices come arm by arm, those by more trials later. */
static bl_status add_choice(void *context, const bl_store_choice *c)
{
    preset *p = context;
    json_t *arms = json_object_get(p->json, "arms"),
           *entry = json_pack("{s:s,s:s,s:i}", "arm", c->arm, "setting", c->setting, "trials",
                              c->trials);
    size_t last = json_array_size(arms);
    const char *before =
        json_string_value(json_object_get(json_array_get(arms, last ? last - 1 : 0), "arm"));
    if (before && !strcmp(before, c->arm))
        json_array_remove(arms, last - 1);
    if (c->trials > json_integer_value(json_object_get(p->json, "trials")))
        json_object_set_new(p->json, "trials", json_integer(c->trials));
    return entry && json_array_append_new(arms, entry) == 0 ? BL_OK : bl_no_memory(0);
}

static bl_status add_preset(bl_store *store, int64_t study, json_t *all)
{
    preset p = {.study = study};
    bl_status status = bl_store_each(store, begin_preset, &p);
    if (status == BL_OK)
        status = bl_store_each_choice(store, study, add_choice, &p);
    if (status == BL_OK && !json_array_size(json_object_get(p.json, "arms")))
        status = bl_fail(BL_INVALID, "nothing was tuned in study %lld", (long long)study);
    if (status == BL_OK)
        status = json_array_append(all, p.json) == 0 ? BL_OK : bl_no_memory(0);
    json_decref(p.json);
    return status;
}

bl_status bl_export_presets(bl_store *store, const int64_t *study, int count, bl_text *text)
{
    json_t *all = json_array();
    bl_status status = all ? BL_OK : bl_no_memory(0);
    for (int i = 0; i < count && status == BL_OK; i++)
        status = add_preset(store, study[i], all);
    char *dump = status == BL_OK ? json_dumps(count == 1 ? json_array_get(all, 0) : all,
                                              JSON_INDENT(1) | JSON_SORT_KEYS)
                                 : NULL;
    if (dump)
        bl_text_add(text, "%s\n", dump);
    if (status == BL_OK && (!dump || text->failed))
        status = bl_no_memory(0);
    free(dump);
    json_decref(all);
    return status;
}
