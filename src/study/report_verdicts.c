/* The report, first part: what the study says and how sure it is. */
#include "study/report_page.h"

#include <math.h>
#include <string.h>

#include "study/plot.h"

/* --- the headline ----------------------------------------------------------------------------- */
enum { HEADLINE_NAMES = 5 }; /* of one verdict; the table has the others */

/* An arm that failed or did nothing has no verdict. */
static bool is_of(const bl_arm_outcome *arm, bl_verdict verdict)
{
    return arm->comparison.pairs && arm->comparison.verdict == verdict;
}

/* "elr and mixup help": the arms of one verdict, if there are any. */
static void headline_of(const bl_page *p, bl_verdict verdict, bool *first, bl_text *text)
{
    static const char *const one[BL_VERDICTS] = {[BL_HELPS] = "helps",
                                                 [BL_HURTS] = "hurts",
                                                 [BL_EQUIVALENT] = "is equivalent to the baseline",
                                                 [BL_UNDECIDED] = "is undecided"};
    static const char *const many[BL_VERDICTS] = {[BL_HELPS] = "help",
                                                  [BL_HURTS] = "hurt",
                                                  [BL_EQUIVALENT] =
                                                      "are equivalent to the baseline",
                                                  [BL_UNDECIDED] = "are undecided"};
    const bl_outcome *o = p->outcome;
    int count = 0, done = 0;
    for (int a = 1; a < o->arms; a++)
        count += is_of(&o->arm[a], verdict);
    if (!count)
        return;
    bl_text_add(text, "%s<span class=\"%s\">", *first ? "" : "; ", bl_verdict_name(verdict));
    *first = false;
    int named = count > HEADLINE_NAMES ? HEADLINE_NAMES - 1 : count;
    for (int a = 1; a < o->arms && done < named; a++) {
        if (!is_of(&o->arm[a], verdict))
            continue;
        bl_text_add(text, "%s", !done ? "" : done == count - 1 ? " and " : ", ");
        bl_page_breakable(text, o->arm[a].arm);
        done++;
    }
    if (count > named)
        bl_text_add(text, " and %d others", count - named);
    bl_text_add(text, " %s</span>", count == 1 ? one[verdict] : many[verdict]);
}

static void headline(const bl_page *p, bl_text *text)
{
    static const bl_verdict order[] = {BL_HELPS, BL_HURTS, BL_EQUIVALENT, BL_UNDECIDED};
    bool first = true;
    bl_text_add(text, "<h1>");
    for (int i = 0; i < BL_VERDICTS; i++)
        headline_of(p, order[i], &first, text);
    bl_text_add(text, ".</h1>\n");
}

/* Every arm that did nothing is named as an error, before any number. */
static void errors(const bl_page *p, bl_text *text)
{
    const bl_outcome *o = p->outcome;
    for (int a = 1; a < o->arms; a++)
        if (bl_page_did_nothing(&o->arm[a])) {
            bl_text_add(text, "<p class=\"error\">Error: <code>");
            bl_page_escaped(text, o->arm[a].arm);
            bl_text_add(text, "</code> did nothing in any of its runs, so its verdict says "
                              "nothing about it.</p>\n");
        }
}

void bl_report_lead(const bl_page *p, bl_text *text)
{
    const bl_outcome *o = p->outcome;
    headline(p, text);
    bl_text_add(text, "<p class=\"lead\">The metric is %s on <code>", o->metric);
    bl_page_escaped(text, o->plan->data ? o->plan->data : "?");
    bl_text_add(text, "</code>");
    if (o->plan->label_noise) {
        bl_text_add(text, " with label noise <code>");
        bl_page_escaped(text, o->plan->label_noise);
        bl_text_add(text, "</code>");
    }
    bl_text_add(text,
                ", over %d training runs of each arm, paired with the baseline, which reaches ",
                o->replicates);
    bl_page_number(text, bl_page_scaled(p, o->arm[0].mean), p->digits.mean, false);
    if (p->digits.unit != 1)
        bl_text_add(text, " × %.0e", p->digits.unit);
    bl_text_add(text, ". %s is better.</p>\n", o->higher_is_better ? "Higher" : "Lower");
    errors(p, text);
}

/* --- the table of verdicts -------------------------------------------------------------------- */
static void p_value(bl_text *text, double p)
{
    bl_page_open_cell(text, "p, corrected");
    if (p < 0.001)
        bl_text_add(text, "&lt;0.001");
    else
        bl_page_number(text, p, 3, false);
    bl_text_add(text, "</td>");
}

static void verdict_cell(const bl_comparison *c, bl_text *text)
{
    bl_text_add(text, "<td class=\"said\">");
    bl_page_verdict_mark(text, c);
    bl_text_add(text, "</td>");
}

static void difference_cell(const bl_page *p, const bl_comparison *c, bl_text *text)
{
    bl_page_open_cell(text, "difference");
    bl_page_number(text, bl_page_scaled(p, c->difference), p->digits.difference, true);
    bl_page_interval(text, bl_page_scaled_interval(p, c->difference_interval), p->digits.difference,
                     true);
    bl_text_add(text, "</td>");
}

static void better_cells(const bl_comparison *c, bl_text *text)
{
    p_value(text, c->adjusted_p);
    bl_page_open_cell(text, "P(better)");
    bl_page_number(text, 100 * c->better, 0, false);
    bl_text_add(text, " %%");
    bl_page_interval(
        text, (bl_interval){100 * c->better_interval.low, 100 * c->better_interval.high}, 0, false);
    bl_text_add(text, "</td>");
}

static void cost_cells(const bl_arm_outcome *arm, bl_text *text)
{
    bl_page_open_cell(text, "cost");
    bl_page_number(text, arm->work, 2, false);
    bl_text_add(text, "</td>");
    bl_page_short_number(text, arm->seconds, "s per run");
    bl_page_short_number(text, 1e3 * arm->seconds_per_step, "ms per step");
    bl_page_short_number(text, arm->memory / 1e6, "MB");
}

static void verdict_row(const bl_page *p, int a, bl_text *text)
{
    const bl_arm_outcome *arm = &p->outcome->arm[a];
    bl_text_add(text, "<tr>");
    bl_page_arm_name(text, arm);
    if (a > 0) {
        verdict_cell(&arm->comparison, text);
        difference_cell(p, &arm->comparison, text);
    } else {
        bl_text_add(text, "<td></td><td></td>");
    }
    bl_page_open_cell(text, p->outcome->metric);
    bl_page_number(text, bl_page_scaled(p, arm->mean), p->digits.mean, false);
    bl_page_interval(text, bl_page_scaled_interval(p, arm->interval), p->digits.mean, false);
    bl_text_add(text, "</td>");
    if (a > 0)
        better_cells(&arm->comparison, text);
    else
        bl_text_add(text, "<td></td><td></td>");
    cost_cells(arm, text);
    bl_text_add(text, "</tr>\n");
}

/* What the numbers alone do not tell: diverged runs, tests that could not decide. */
static void notes(const bl_page *p, bl_text *text)
{
    const bl_outcome *o = p->outcome;
    bl_text_add(text, "<ul class=\"notes\">");
    for (int a = 0; a < o->arms; a++) {
        const bl_arm_outcome *arm = &o->arm[a];
        const char *note = a ? arm->comparison.note : "";
        if (!arm->diverged && !note[0])
            continue;
        bl_text_add(text, "\n<li><code>");
        bl_page_escaped(text, arm->arm);
        bl_text_add(text, "</code>: ");
        if (arm->diverged)
            bl_text_add(text, "%d of %d runs diverged. ", arm->diverged, o->replicates);
        bl_page_escaped(text, note);
        bl_text_add(text, "</li>");
    }
    bl_text_add(text, "</ul>\n");
}

void bl_report_verdicts(bl_page *p)
{
    bl_text *text = &p->text;
    char *mean = bl_format("mean %s", p->outcome->metric);
    const char *const column[] = {"arm",          "verdict",   "difference", mean ? mean : "mean",
                                  "p, corrected", "P(better)", "cost",       "s per run",
                                  "ms per step",  "MB"};
    bl_page_open_section(text, "Verdicts");
    bl_page_open_cards(text);
    bl_page_head(text, column, 10);
    bl_text_add(text, "<tbody>\n");
    for (int a = 0; a < p->outcome->arms; a++)
        verdict_row(p, a, text);
    bl_text_add(text, "</tbody>");
    bl_page_close_table(text);
    bl_text_add(text,
                "<p class=\"note\">In brackets: %g %% intervals. Difference: arm minus baseline, "
                "over pairs of runs. Cost: counted work of a training step, the baseline's is 1. "
                "Seconds are measured medians and vary from machine to machine; MB are the scratch "
                "memory of a step.",
                100 * (1 - p->outcome->alpha));
    if (p->digits.unit != 1)
        bl_text_add(text, " Means and differences are in units of %.0e.", p->digits.unit);
    bl_text_add(text, "</p>\n");
    notes(p, text);
    bl_page_close_section(text);
    bl_release(mean);
}

/* --- differences ------------------------------------------------------------------------------ */
static double percent_of(bl_interval range, double value)
{
    return 100 * (value - range.low) / (range.high - range.low);
}

static void bar(bl_text *text, bl_interval range, const char *what, double low, double high)
{
    bl_text_add(text, "<i class=\"%s\" style=\"left:%.2f%%;width:%.2f%%\"></i>", what,
                percent_of(range, low), percent_of(range, high) - percent_of(range, low));
}

/* The picture for narrow screens, and for all where there is no gnuplot: an interval is a bar, a
 * mean a mark. */
static void difference_bar(const bl_page *p, int a, bl_interval range, bl_text *text)
{
    const bl_outcome *o = p->outcome;
    const bl_comparison *c = &o->arm[a].comparison;
    char what[48];
    bl_text_add(text, "<span class=\"named\"><code>");
    bl_page_breakable(text, o->arm[a].arm);
    bl_text_add(text, "</code> <span class=\"n\">");
    bl_page_number(text, bl_page_scaled(p, c->difference), p->digits.difference, true);
    bl_page_interval(text, bl_page_scaled_interval(p, c->difference_interval), p->digits.difference,
                     true);
    bl_text_add(text, "</span></span><span class=\"track\">");
    if (o->min_effect > 0)
        bar(text, range, "band", -o->min_effect, o->min_effect);
    bar(text, range, "zero", 0, 0);
    snprintf(what, sizeof what, "interval %s", bl_verdict_name(c->verdict));
    if (isfinite(c->difference_interval.low) && isfinite(c->difference_interval.high))
        bar(text, range, what, c->difference_interval.low, c->difference_interval.high);
    snprintf(what, sizeof what, "mean %s", bl_verdict_name(c->verdict));
    if (isfinite(c->difference))
        bar(text, range, what, c->difference, c->difference);
    bl_text_add(text, "</span>\n");
}

static void difference_bars(const bl_page *p, bool narrow, bl_text *text)
{
    const bl_outcome *o = p->outcome;
    bl_text_add(text, "<div class=\"bars%s\">\n", narrow ? " narrow" : "");
    for (int a = 1; a < o->arms; a++)
        difference_bar(p, a, bl_difference_range(o), text);
    bl_text_add(text, "</div>\n");
}

void bl_report_differences(bl_page *p)
{
    bl_text *text = &p->text;
    bl_page_open_section(text, "Differences from the baseline");
    if (p->no_plots) {
        bl_text_add(text, "<p class=\"note\">There are bars and tables here in place of plots: ");
        bl_page_escaped(text, p->no_plots);
        bl_text_add(text, ". With the package gnuplot-nox the report has plots.</p>\n");
    }
    bl_text_add(text, "<figure>\n<div class=\"wide\">\n");
    bool plot = !p->no_plots && bl_plot_differences(p->outcome, text) == BL_OK;
    bl_text_add(text, "</div>\n");
    difference_bars(p, plot, text);
    bl_text_add(text,
                "</figure>\n<p class=\"note\">Marks are mean differences in %s, arm minus "
                "baseline (%s is better), bars their %g %% "
                "intervals (not corrected for the number of arms); the line is no difference",
                p->outcome->metric, p->outcome->higher_is_better ? "right" : "left",
                100 * (1 - p->outcome->alpha));
    if (p->outcome->min_effect > 0)
        bl_text_add(text, ", the band is too small to matter (within %g)", p->outcome->min_effect);
    bl_text_add(text, ".</p>\n");
    bl_page_close_section(text);
}

/* --- equal cost and screening ----------------------------------------------------------------- */
static void equal_cost_row(const bl_page *p, const bl_matched *m, bl_text *text)
{
    bl_text_add(text, "<tr>");
    bl_page_arm_name(text, &p->outcome->arm[m->arm]);
    verdict_cell(&m->comparison, text);
    difference_cell(p, &m->comparison, text);
    better_cells(&m->comparison, text);
    bl_page_open_cell(text, "cost");
    bl_page_number(text, p->outcome->arm[m->arm].total_work, 2, false);
    bl_text_add(text, "</td><td class=\"n\" data-label=\"baseline's epochs\">%lld</td></tr>\n",
                (long long)m->epochs);
}

void bl_report_equal_cost(bl_page *p)
{
    static const char *const column[] = {"arm",       "verdict", "difference",       "p, corrected",
                                         "P(better)", "cost",    "baseline's epochs"};
    const bl_outcome *o = p->outcome;
    bl_text *text = &p->text;
    if (!o->matches)
        return;
    bl_page_open_section(text, "At equal cost");
    bl_text_add(text, "<p>A training run of these arms costs more, or less, than one of the "
                      "baseline. Here each is compared with a baseline that was trained for as "
                      "many epochs as cost the same.</p>\n");
    bl_page_open_cards(text);
    bl_page_head(text, column, 7);
    bl_text_add(text, "<tbody>\n");
    for (int i = 0; i < o->matches; i++)
        equal_cost_row(p, &o->matched[i], text);
    bl_text_add(text, "</tbody>");
    bl_page_close_table(text);
    bl_text_add(text,
                "<p class=\"note\">Cost: counted work of a whole run, that of the baseline in the "
                "table above is 1. Holm's correction over these rows.</p>\n");
    bl_page_close_section(text);
}

static void screening_row(const bl_page *p, const bl_screened *arm, bl_text *text)
{
    bl_text_add(text, "<tr><th scope=\"row\"><code>");
    bl_page_breakable(text, arm->arm);
    bl_text_add(text, "</code></th><td data-label=\"left\">");
    if (arm->round)
        bl_text_add(text, "in round %d", arm->round);
    else
        bl_text_add(text, "compared");
    bl_text_add(text, "</td><td class=\"n\" data-label=\"pairs\">%d</td>", arm->pairs);
    bl_page_open_cell(text, "difference");
    if (isfinite(arm->difference))
        bl_page_number(text, bl_page_scaled(p, arm->difference), p->digits.difference, true);
    else
        bl_text_add(text, "diverged");
    bl_text_add(text, "</td></tr>\n");
}

void bl_report_screening(bl_page *p)
{
    static const char *const column[] = {"arm", "left", "pairs", "difference"};
    const bl_screening *s = p->outcome->screening;
    bl_text *text = &p->text;
    if (!s || !s->rounds)
        return;
    bl_page_open_section(text, "How arms were screened");
    bl_text_add(text,
                "<p>Of %d arms, paired halving on held-out training examples left %d for the "
                "comparison, in %d round%s. An arm that left has no verdict. The comparison "
                "used fresh replicates, so that having won a round is no evidence.</p>\n",
                s->arms, p->outcome->arms - 1, s->rounds, s->rounds == 1 ? "" : "s");
    bl_page_open_cards(text);
    bl_page_head(text, column, 4);
    bl_text_add(text, "<tbody>\n");
    for (int a = 0; a < s->arms; a++)
        screening_row(p, &s->arm[a], text);
    bl_text_add(text, "</tbody>");
    bl_page_close_table(text);
    bl_page_close_section(text);
}
