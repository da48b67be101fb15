/* The report, second part: how the runs went, what each arm really did, and what it cost. */
#include "study/report_page.h"

#include <math.h>

#include "study/plot.h"

/* --- learning curves -------------------------------------------------------------------------- */
enum { CURVE_COLUMNS = 5 };

static void curve_row(const bl_page *p, const bl_arm_outcome *arm, bl_text *text)
{
    bl_mean_point *points;
    int count;
    if (bl_mean_curve(p->outcome, arm, &points, &count) != BL_OK) {
        text->failed = true;
        return;
    }
    bl_text_add(text, "<tr>");
    bl_page_arm_name(text, arm);
    for (int i = 0; i < CURVE_COLUMNS && count; i++) {
        const bl_mean_point *at = &points[i * (count - 1) / (CURVE_COLUMNS - 1)];
        bl_text_add(text, "<td class=\"n\">%.4g <small>at %lld</small></td>", at->mean,
                    (long long)at->epoch);
    }
    bl_text_add(text, "</tr>\n");
    bl_release(points);
}

static void curve_table(const bl_page *p, bl_text *text)
{
    bl_page_open_table(text);
    bl_text_add(text,
                "<thead><tr><th scope=\"col\">arm</th><th scope=\"col\" colspan=\"%d\">mean "
                "%s at epoch</th></tr></thead>\n<tbody>\n",
                CURVE_COLUMNS, p->outcome->metric);
    for (int a = 0; a < p->outcome->arms; a++)
        curve_row(p, &p->outcome->arm[a], text);
    bl_text_add(text, "</tbody>");
    bl_page_close_table(text);
}

void bl_report_curves(bl_page *p)
{
    bl_text *text = &p->text;
    bl_page_open_section(text, "Learning curves");
    if (bl_page_plots(p, bl_plot_curve, text))
        bl_text_add(text,
                    "<p class=\"note\">%s by epoch: the mean of the runs and a band from the "
                    "lowest to the highest; grey is the baseline. ",
                    p->outcome->metric);
    else
        curve_table(p, text), bl_text_add(text, "<p class=\"note\">");
    bl_text_add(text, "A run that ended early counts with its last value. Measured on at most "
                      "1000 test examples, so the end of a curve may differ a little from the "
                      "scores above.</p>\n");
    bl_page_close_section(text);
}

/* --- what the arms did, and other metrics ----------------------------------------------------- */
static void effect_row(const bl_arm_outcome *arm, bl_text *text)
{
    bl_text did = {0};
    bl_effect_text(arm, &did);
    bl_text_add(text, "<tr>");
    bl_page_arm_name(text, arm);
    bl_text_add(text, "<td class=\"words\">");
    if (bl_page_did_nothing(arm))
        bl_text_add(text, "<b class=\"error\">Error: nothing in any of its runs</b>");
    else if (did.at)
        bl_page_escaped(text, did.at);
    if (arm->inert && !bl_page_did_nothing(arm))
        bl_text_add(text, "<br><b class=\"error\">nothing in %d of %d runs</b>", arm->inert,
                    arm->runs);
    bl_text_add(text, "</td></tr>\n");
    text->failed = text->failed || did.failed;
    bl_text_free(&did);
}

void bl_report_effects(bl_page *p)
{
    bl_text *text = &p->text;
    bl_page_open_section(text, "What each arm did");
    bl_page_open_table(text);
    bl_text_add(text, "<tbody>\n");
    for (int a = 1; a < p->outcome->arms; a++)
        effect_row(&p->outcome->arm[a], text);
    bl_text_add(text, "</tbody>");
    bl_page_close_table(text);
    bl_text_add(text,
                "<p class=\"note\">Averages over the runs. Sites: activations and weights it "
                "replaced. Of the gradient: how far it is from the baseline's on the same batch, "
                "relative to it. Of the step: what it added after the optimiser's step.</p>\n");
    bl_page_close_section(text);
}

static double mean_metric(const bl_outcome *o, const bl_arm_outcome *arm, const char *name)
{
    double sum = 0;
    int count = 0;
    for (int r = 0; r < o->replicates; r++) {
        json_t *value = json_object_get(json_object_get(arm->result[r], "metrics"), name);
        if (json_is_number(value)) {
            sum += json_number_value(value);
            count++;
        }
    }
    return count ? sum / count : NAN;
}

static void metric_row(const bl_page *p, const bl_arm_outcome *arm, json_t *names, bl_text *text)
{
    const char *name;
    json_t *value;
    bl_text_add(text, "<tr>");
    bl_page_arm_name(text, arm);
    json_object_foreach(names, name, value)
    {
        double mean = mean_metric(p->outcome, arm, name);
        bl_page_open_cell(text, name);
        bl_text_add(text, isfinite(mean) ? "%.4g</td>" : "–</td>", mean);
    }
    bl_text_add(text, "</tr>\n");
}

/* The metrics of the first run of the baseline name the columns: every run has the same. */
void bl_report_metrics(bl_page *p)
{
    const bl_outcome *o = p->outcome;
    bl_text *text = &p->text;
    json_t *first = json_object_get(o->arm[0].result[0], "metrics"), *value;
    const char *name;
    bl_page_open_section(text, "Other metrics");
    bl_page_open_cards(text);
    bl_text_add(text, "<thead><tr><th scope=\"col\">mean of the runs</th>");
    json_object_foreach(first, name, value)
    {
        bl_text_add(text, "<th scope=\"col\">");
        bl_page_escaped(text, name);
        bl_text_add(text, "</th>");
    }
    bl_text_add(text, "</tr></thead>\n<tbody>\n");
    for (int a = 0; a < o->arms; a++)
        metric_row(p, &o->arm[a], first, text);
    bl_text_add(text, "</tbody>");
    bl_page_close_table(text);
    bl_text_add(text,
                "<p class=\"note\">Verdicts are on %s alone. Diverged runs are left out of "
                "these means.</p>\n",
                o->metric);
    bl_page_close_section(text);
}

/* --- gain against cost, scores ---------------------------------------------------------------- */
static void gain_table(const bl_page *p, bl_text *text)
{
    static const char *const column[] = {"arm", "gain", "cost"};
    bl_page_open_table(text);
    bl_page_head(text, column, 3);
    bl_text_add(text, "<tbody>\n");
    for (int a = 1; a < p->outcome->arms; a++) {
        const bl_arm_outcome *arm = &p->outcome->arm[a];
        bl_text_add(text, "<tr>");
        bl_page_arm_name(text, arm);
        bl_page_open_cell(text, "gain");
        bl_page_number(text, bl_page_scaled(p, bl_gain(p->outcome, arm)), p->digits.difference,
                       true);
        bl_text_add(text, "</td>");
        bl_page_open_cell(text, "cost");
        bl_page_number(text, arm->work, 2, false);
        bl_text_add(text, "</td></tr>\n");
    }
    bl_text_add(text, "</tbody>");
    bl_page_close_table(text);
}

void bl_report_gain(bl_page *p)
{
    bl_text *text = &p->text;
    bl_page_open_section(text, "Gain against cost");
    bl_text_add(text, "<figure>\n<div class=\"wide\">\n");
    bool plot = !p->no_plots && bl_plot_gain(p->outcome, text) == BL_OK;
    bl_text_add(text, "</div>\n<div%s>\n", plot ? " class=\"narrow\"" : "");
    gain_table(p, text);
    bl_text_add(text, "</div>\n</figure>\n<p class=\"note\">A positive gain is better than the "
                      "baseline. Cost is the work of a training step, counted in operations and "
                      "the same on every machine.</p>\n");
    bl_page_close_section(text);
}

void bl_report_scores(bl_page *p)
{
    const bl_outcome *o = p->outcome;
    bl_text *text = &p->text;
    bl_text_add(text, "<section>\n<details><summary>Every score (%s)</summary>\n", o->metric);
    bl_page_open_table(text);
    bl_text_add(text, "<thead><tr><th scope=\"col\">replicate</th>");
    for (int a = 0; a < o->arms; a++) {
        bl_text_add(text, "<th scope=\"col\"><code>");
        bl_page_escaped(text, o->arm[a].arm);
        bl_text_add(text, "</code></th>");
    }
    bl_text_add(text, "</tr></thead>\n<tbody>\n");
    for (int r = 0; r < o->replicates; r++) {
        bl_text_add(text, "<tr><th scope=\"row\">%d</th>", r);
        for (int a = 0; a < o->arms; a++)
            bl_text_add(text,
                        isfinite(o->arm[a].score[r]) ? "<td class=\"n\">%.6g</td>"
                                                     : "<td class=\"n\">diverged</td>",
                        o->arm[a].score[r]);
        bl_text_add(text, "</tr>\n");
    }
    bl_text_add(text, "</tbody>");
    bl_page_close_table(text);
    bl_text_add(text, "</details>\n");
    bl_page_close_section(text);
}
