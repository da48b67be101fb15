/* The report: sections in the order in which a reader asks. What does it say, how sure is it, how
 * did the runs go, what did each arm really do, what did it cost, and how is it done again?
 *
 * One more section: a function that adds a <section> to page->text, called in `sections`. Texts
 * that come from outside (names, paths, the command) go through `escaped`. Colours are the
 * variables of the style sheet, which has them for light and for dark. */
#include "study/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "study/plot.h"
#include "study/report_style.h"

typedef struct page {
    bl_text text;
    const bl_outcome *outcome;
    bl_layout digits;
    char *no_plots; /* why there are none, or NULL */
} page;

/* --- words and numbers
 * ------------------------------------------------------------------------------- */
static void escaped(bl_text *text, const char *words)
{
    for (; *words; words++) {
        unsigned char c = (unsigned char)*words;
        const char *name = c == '&'    ? "&amp;"
                           : c == '<'  ? "&lt;"
                           : c == '>'  ? "&gt;"
                           : c == '"'  ? "&quot;"
                           : c == '\'' ? "&#39;"
                                       : NULL;
        if (name)
            bl_text_add(text, "%s", name);
        else
            bl_text_add_n(text, c < ' ' && c != '\n' && c != '\t' ? "?" : words, 1);
    }
}

static double scaled(const page *p, double value)
{
    return value / p->digits.unit;
}

static bl_interval scaled_interval(const page *p, bl_interval i)
{
    return (bl_interval){scaled(p, i.low), scaled(p, i.high)};
}

/* A number with a real minus; an en dash where there is none. */
static void number(bl_text *text, double value, int decimals, bool sign)
{
    if (!isfinite(value)) {
        bl_text_add(text, "–");
        return;
    }
    char digits[400];
    snprintf(digits, sizeof digits, "%.*f", decimals, fabs(value));
    bool zero = !digits[strspn(digits, "0.")];
    bl_text_add(text, "%s%s", zero ? "" : value < 0 ? "−" : sign ? "+" : "", digits);
}

static void interval(bl_text *text, bl_interval i, int decimals, bool sign)
{
    if (!isfinite(i.low) || !isfinite(i.high))
        return;
    bl_text_add(text, " <small>[");
    number(text, i.low, decimals, sign);
    bl_text_add(text, ", ");
    number(text, i.high, decimals, sign);
    bl_text_add(text, "]</small>");
}

static void open_cell(bl_text *text)
{
    bl_text_add(text, "<td class=\"n\">");
}

/* A cell with three significant digits. */
static void short_number(bl_text *text, double value, const char *unit)
{
    if (isfinite(value))
        bl_text_add(text, "<td class=\"n\">%.3g%s</td>", value, unit);
    else
        bl_text_add(text, "<td class=\"n\">–</td>");
}

/* A line may break after a bracket, a comma or a plus. */
static void breakable(bl_text *text, const char *arm)
{
    for (; *arm; arm++) {
        escaped(text, (char[]){*arm, 0});
        if (strchr("(,+", *arm))
            bl_text_add(text, "<wbr>");
    }
}

static void arm_name(bl_text *text, const bl_arm_outcome *arm)
{
    bl_text_add(text, "<th scope=\"row\"><code>");
    breakable(text, arm->arm);
    bl_text_add(text, "</code></th>");
}

/* The verdict's word in its colour, then what more there is to say: "(about 12 more)". */
static void verdict_mark(bl_text *text, const bl_comparison *c)
{
    char words[64];
    bl_verdict_text(c, words);
    const char *name = bl_verdict_name(c->verdict), *more = words + strlen(name);
    bl_text_add(text, "<b class=\"verdict %s\">%s</b>", name, name);
    if (*more) {
        bl_text_add(text, "<small>");
        escaped(text, more);
        bl_text_add(text, "</small>");
    }
}

static void open_section(bl_text *text, const char *heading)
{
    bl_text_add(text, "<section>\n<h2>%s</h2>\n", heading);
}

static void close_section(bl_text *text)
{
    bl_text_add(text, "</section>\n");
}

static void open_table(bl_text *text)
{
    bl_text_add(text, "<div class=\"scroll\" tabindex=\"0\"><table>\n");
}

static void close_table(bl_text *text)
{
    bl_text_add(text, "</table></div>\n");
}

/* The head of a table: names of columns, the first of them to the left. */
static void head(bl_text *text, const char *const *column, int columns)
{
    bl_text_add(text, "<thead><tr>");
    for (int i = 0; i < columns; i++)
        bl_text_add(text, "<th scope=\"col\">%s</th>", column[i]);
    bl_text_add(text, "</tr></thead>\n");
}

/* --- the headline
 * ------------------------------------------------------------------------------------ */
static bool did_nothing(const bl_arm_outcome *arm)
{
    return arm->runs > 0 && arm->inert == arm->runs;
}

enum { HEADLINE_NAMES = 5 }; /* of one verdict; the table has the others */

/* "elr and mixup help": the arms of one verdict, if there are any. */
static void headline_of(const page *p, bl_verdict verdict, bool *first, bl_text *text)
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
        count += o->arm[a].comparison.verdict == verdict;
    if (!count)
        return;
    bl_text_add(text, "%s<span class=\"%s\">", *first ? "" : "; ", bl_verdict_name(verdict));
    *first = false;
    int named = count > HEADLINE_NAMES ? HEADLINE_NAMES - 1 : count;
    for (int a = 1; a < o->arms && done < named; a++) {
        if (o->arm[a].comparison.verdict != verdict)
            continue;
        bl_text_add(text, "%s", !done ? "" : done == count - 1 ? " and " : ", ");
        breakable(text, o->arm[a].arm);
        done++;
    }
    if (count > named)
        bl_text_add(text, " and %d others", count - named);
    bl_text_add(text, " %s</span>", count == 1 ? one[verdict] : many[verdict]);
}

static void headline(const page *p, bl_text *text)
{
    static const bl_verdict order[] = {BL_HELPS, BL_HURTS, BL_EQUIVALENT, BL_UNDECIDED};
    bool first = true;
    bl_text_add(text, "<h1>");
    for (int i = 0; i < BL_VERDICTS; i++)
        headline_of(p, order[i], &first, text);
    bl_text_add(text, ".</h1>\n");
}

/* Every arm that did nothing is named as an error, before any number. */
static void errors(const page *p, bl_text *text)
{
    const bl_outcome *o = p->outcome;
    for (int a = 1; a < o->arms; a++)
        if (did_nothing(&o->arm[a])) {
            bl_text_add(text, "<p class=\"error\">Error: <code>");
            escaped(text, o->arm[a].arm);
            bl_text_add(text, "</code> did nothing in any of its runs, so its verdict says "
                              "nothing about it.</p>\n");
        }
}

static void lead(const page *p, bl_text *text)
{
    const bl_outcome *o = p->outcome;
    headline(p, text);
    bl_text_add(text, "<p class=\"lead\">The metric is %s on <code>", o->metric);
    escaped(text, o->plan->data ? o->plan->data : "?");
    bl_text_add(text, "</code>");
    if (o->plan->label_noise) {
        bl_text_add(text, " with label noise <code>");
        escaped(text, o->plan->label_noise);
        bl_text_add(text, "</code>");
    }
    bl_text_add(text,
                ", over %d training runs of each arm, paired with the baseline, which reaches ",
                o->replicates);
    number(text, scaled(p, o->arm[0].mean), p->digits.mean, false);
    if (p->digits.unit != 1)
        bl_text_add(text, " × %.0e", p->digits.unit);
    bl_text_add(text, ". %s is better.</p>\n", o->higher_is_better ? "Higher" : "Lower");
    errors(p, text);
}

/* --- the table of verdicts
 * --------------------------------------------------------------------------- */
static void p_value(bl_text *text, double p)
{
    open_cell(text);
    if (p < 0.001)
        bl_text_add(text, "&lt;0.001");
    else
        number(text, p, 3, false);
    bl_text_add(text, "</td>");
}

static void compared_cells(const page *p, const bl_comparison *c, bl_text *text)
{
    open_cell(text);
    number(text, scaled(p, c->difference), p->digits.difference, true);
    interval(text, scaled_interval(p, c->difference_interval), p->digits.difference, true);
    bl_text_add(text, "</td>");
    p_value(text, c->adjusted_p);
    open_cell(text);
    number(text, 100 * c->better, 0, false);
    bl_text_add(text, " %%");
    interval(text, (bl_interval){100 * c->better_interval.low, 100 * c->better_interval.high}, 0,
             false);
    bl_text_add(text, "</td><td>");
    verdict_mark(text, c);
    bl_text_add(text, "</td>");
}

static void cost_cells(const bl_arm_outcome *arm, bl_text *text)
{
    open_cell(text);
    number(text, arm->work, 2, false);
    bl_text_add(text, "</td>");
    short_number(text, arm->seconds, "");
    short_number(text, 1e3 * arm->seconds_per_step, "");
}

static void verdict_row(const page *p, int a, bl_text *text)
{
    const bl_arm_outcome *arm = &p->outcome->arm[a];
    bl_text_add(text, "<tr>");
    arm_name(text, arm);
    open_cell(text);
    number(text, scaled(p, arm->mean), p->digits.mean, false);
    interval(text, scaled_interval(p, arm->interval), p->digits.mean, false);
    bl_text_add(text, "</td>");
    if (a > 0)
        compared_cells(p, &arm->comparison, text);
    else
        bl_text_add(text, "<td></td><td></td><td></td><td></td>");
    cost_cells(arm, text);
    bl_text_add(text, "</tr>\n");
}

/* What the numbers alone do not tell: diverged runs, tests that could not decide. */
static void notes(const page *p, bl_text *text)
{
    const bl_outcome *o = p->outcome;
    bl_text_add(text, "<ul class=\"notes\">");
    for (int a = 0; a < o->arms; a++) {
        const bl_arm_outcome *arm = &o->arm[a];
        const char *note = a ? arm->comparison.note : "";
        if (!arm->diverged && !note[0])
            continue;
        bl_text_add(text, "\n<li><code>");
        escaped(text, arm->arm);
        bl_text_add(text, "</code>: ");
        if (arm->diverged)
            bl_text_add(text, "%d of %d runs diverged. ", arm->diverged, o->replicates);
        escaped(text, note);
        bl_text_add(text, "</li>");
    }
    bl_text_add(text, "</ul>\n");
}

static void verdicts(page *p)
{
    bl_text *text = &p->text;
    char *mean = bl_format("mean %s", p->outcome->metric);
    const char *const column[] = {"arm",          mean ? mean : "mean", "difference",
                                  "p, corrected", "P(better)",          "verdict",
                                  "cost",         "s per run",          "ms per step"};
    open_section(text, "Verdicts");
    open_table(text);
    head(text, column, 9);
    bl_text_add(text, "<tbody>\n");
    for (int a = 0; a < p->outcome->arms; a++)
        verdict_row(p, a, text);
    bl_text_add(text, "</tbody>");
    close_table(text);
    bl_text_add(text,
                "<p class=\"note\">In brackets: %g %% intervals. Difference: arm minus baseline, "
                "over pairs of runs. Cost: counted work of a training step, the baseline's is 1. "
                "Seconds are measured medians and vary from machine to machine.",
                100 * (1 - p->outcome->alpha));
    if (p->digits.unit != 1)
        bl_text_add(text, " Means and differences are in units of %.0e.", p->digits.unit);
    bl_text_add(text, "</p>\n");
    notes(p, text);
    close_section(text);
    bl_release(mean);
}

/* --- differences
 * ------------------------------------------------------------------------------------- */
static double percent_of(bl_interval range, double value)
{
    return 100 * (value - range.low) / (range.high - range.low);
}

static void bar(bl_text *text, bl_interval range, const char *what, double low, double high)
{
    bl_text_add(text, "<i class=\"%s\" style=\"left:%.2f%%;width:%.2f%%\"></i>", what,
                percent_of(range, low), percent_of(range, high) - percent_of(range, low));
}

/* The same picture without gnuplot: an interval is a bar, a mean a mark. */
static void difference_bars(const page *p, bl_text *text)
{
    const bl_outcome *o = p->outcome;
    bl_interval range = bl_difference_range(o);
    bl_text_add(text, "<div class=\"bars\">\n");
    for (int a = 1; a < o->arms; a++) {
        const bl_comparison *c = &o->arm[a].comparison;
        char what[48];
        bl_text_add(text, "<code>");
        escaped(text, o->arm[a].arm);
        bl_text_add(text, "</code><span class=\"track\">");
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
    bl_text_add(text, "</div>\n");
}

static void differences(page *p)
{
    bl_text *text = &p->text;
    open_section(text, "Differences from the baseline");
    if (p->no_plots) {
        bl_text_add(text, "<p class=\"note\">There are bars and tables here in place of plots: ");
        escaped(text, p->no_plots);
        bl_text_add(text, ". With the package gnuplot-nox the report has plots.</p>\n");
    }
    bl_text_add(text, "<figure class=\"scroll\" tabindex=\"0\">\n");
    if (p->no_plots || bl_plot_differences(p->outcome, text) != BL_OK)
        difference_bars(p, text);
    bl_text_add(text,
                "</figure>\n<p class=\"note\">Marks are mean differences, bars their %g %% "
                "intervals (not corrected for the number of arms); the line is no difference",
                100 * (1 - p->outcome->alpha));
    if (p->outcome->min_effect > 0)
        bl_text_add(text, ", the band is too small to matter (within %g)", p->outcome->min_effect);
    bl_text_add(text, ".</p>\n");
    close_section(text);
}

/* --- learning curves
 * --------------------------------------------------------------------------------- */
enum { CURVE_COLUMNS = 5 };

static void curve_row(const page *p, const bl_arm_outcome *arm, bl_text *text)
{
    bl_mean_point *points;
    int count;
    if (bl_mean_curve(p->outcome, arm, &points, &count) != BL_OK) {
        text->failed = true;
        return;
    }
    bl_text_add(text, "<tr>");
    arm_name(text, arm);
    for (int i = 0; i < CURVE_COLUMNS && count; i++) {
        const bl_mean_point *at = &points[i * (count - 1) / (CURVE_COLUMNS - 1)];
        bl_text_add(text, "<td class=\"n\">%.4g <small>at %lld</small></td>", at->mean,
                    (long long)at->epoch);
    }
    bl_text_add(text, "</tr>\n");
    bl_release(points);
}

static void curve_table(const page *p, bl_text *text)
{
    open_table(text);
    bl_text_add(text,
                "<thead><tr><th scope=\"col\">arm</th><th scope=\"col\" colspan=\"%d\">mean "
                "%s at epoch</th></tr></thead>\n<tbody>\n",
                CURVE_COLUMNS, p->outcome->metric);
    for (int a = 0; a < p->outcome->arms; a++)
        curve_row(p, &p->outcome->arm[a], text);
    bl_text_add(text, "</tbody>");
    close_table(text);
}

/* False if a curve could not be drawn; then nothing is added. */
static bool curve_plots(const page *p, bl_text *text)
{
    bl_text plots = {0};
    bl_status status = BL_OK;
    bl_text_add(&plots, "<div class=\"curves\">\n");
    for (int a = 1; a < p->outcome->arms && status == BL_OK; a++) {
        bl_text_add(&plots, "<figure><figcaption><code>");
        escaped(&plots, p->outcome->arm[a].arm);
        bl_text_add(&plots, "</code></figcaption>\n");
        status = bl_plot_curve(p->outcome, a, &plots);
        bl_text_add(&plots, "</figure>\n");
    }
    bl_text_add(&plots, "</div>\n");
    if (status == BL_OK && !plots.failed)
        bl_text_add_n(text, plots.at, plots.length);
    text->failed = text->failed || plots.failed;
    bl_text_free(&plots);
    return status == BL_OK;
}

static void curves(page *p)
{
    bl_text *text = &p->text;
    open_section(text, "Learning curves");
    if (!p->no_plots && curve_plots(p, text))
        bl_text_add(text,
                    "<p class=\"note\">%s by epoch: the mean of the runs and a band from the "
                    "lowest to the highest; grey is the baseline. ",
                    p->outcome->metric);
    else
        curve_table(p, text), bl_text_add(text, "<p class=\"note\">");
    bl_text_add(text, "A run that ended early counts with its last value. Measured on at most "
                      "1000 test examples, so the end of a curve may differ a little from the "
                      "scores above.</p>\n");
    close_section(text);
}

/* --- what the arms did, and other metrics
 * ------------------------------------------------------------ */
static void effect_row(const bl_arm_outcome *arm, bl_text *text)
{
    bl_text did = {0};
    bl_effect_text(arm, &did);
    bl_text_add(text, "<tr>");
    arm_name(text, arm);
    bl_text_add(text, "<td class=\"words\">");
    if (did_nothing(arm))
        bl_text_add(text, "<b class=\"error\">Error: nothing in any of its runs</b>");
    else if (did.at)
        escaped(text, did.at);
    if (arm->inert && !did_nothing(arm))
        bl_text_add(text, "<br><b class=\"error\">nothing in %d of %d runs</b>", arm->inert,
                    arm->runs);
    bl_text_add(text, "</td></tr>\n");
    text->failed = text->failed || did.failed;
    bl_text_free(&did);
}

static void effects(page *p)
{
    bl_text *text = &p->text;
    open_section(text, "What each arm did");
    open_table(text);
    bl_text_add(text, "<tbody>\n");
    for (int a = 1; a < p->outcome->arms; a++)
        effect_row(&p->outcome->arm[a], text);
    bl_text_add(text, "</tbody>");
    close_table(text);
    bl_text_add(text,
                "<p class=\"note\">Averages over the runs. Sites: activations and weights it "
                "replaced. Of the gradient: how far it is from the baseline's on the same batch, "
                "relative to it. Of the step: what it added after the optimiser's step.</p>\n");
    close_section(text);
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

/* The metrics of the first run of the baseline name the columns: every run has the same. */
static void metrics(page *p)
{
    const bl_outcome *o = p->outcome;
    bl_text *text = &p->text;
    json_t *first = json_object_get(o->arm[0].result[0], "metrics"), *value;
    const char *name;
    open_section(text, "Other metrics");
    open_table(text);
    bl_text_add(text, "<thead><tr><th scope=\"col\">mean of the runs</th>");
    json_object_foreach(first, name, value)
    {
        bl_text_add(text, "<th scope=\"col\">");
        escaped(text, name);
        bl_text_add(text, "</th>");
    }
    bl_text_add(text, "</tr></thead>\n<tbody>\n");
    for (int a = 0; a < o->arms; a++) {
        bl_text_add(text, "<tr>");
        arm_name(text, &o->arm[a]);
        json_object_foreach(first, name, value)
        {
            double mean = mean_metric(o, &o->arm[a], name);
            bl_text_add(text, isfinite(mean) ? "<td class=\"n\">%.4g</td>" : "<td>–</td>", mean);
        }
        bl_text_add(text, "</tr>\n");
    }
    bl_text_add(text, "</tbody>");
    close_table(text);
    bl_text_add(text,
                "<p class=\"note\">Verdicts are on %s alone. Diverged runs are left out of "
                "these means.</p>\n",
                o->metric);
    close_section(text);
}

/* --- gain against cost, scores
 * ----------------------------------------------------------------------- */
static void gain_table(const page *p, bl_text *text)
{
    static const char *const column[] = {"arm", "gain", "cost"};
    open_table(text);
    head(text, column, 3);
    bl_text_add(text, "<tbody>\n");
    for (int a = 1; a < p->outcome->arms; a++) {
        const bl_arm_outcome *arm = &p->outcome->arm[a];
        bl_text_add(text, "<tr>");
        arm_name(text, arm);
        open_cell(text);
        number(text, scaled(p, bl_gain(p->outcome, arm)), p->digits.difference, true);
        bl_text_add(text, "</td>");
        open_cell(text);
        number(text, arm->work, 2, false);
        bl_text_add(text, "</td></tr>\n");
    }
    bl_text_add(text, "</tbody>");
    close_table(text);
}

static void gain(page *p)
{
    bl_text *text = &p->text;
    open_section(text, "Gain against cost");
    bl_text_add(text, "<figure class=\"scroll\" tabindex=\"0\">\n");
    if (p->no_plots || bl_plot_gain(p->outcome, text) != BL_OK)
        gain_table(p, text);
    bl_text_add(text, "</figure>\n<p class=\"note\">A positive gain is better than the baseline. "
                      "Work is counted in operations and is the same on every machine.</p>\n");
    close_section(text);
}

static void scores(page *p)
{
    const bl_outcome *o = p->outcome;
    bl_text *text = &p->text;
    bl_text_add(text, "<section>\n<details><summary>Every score (%s)</summary>\n", o->metric);
    open_table(text);
    bl_text_add(text, "<thead><tr><th scope=\"col\">replicate</th>");
    for (int a = 0; a < o->arms; a++) {
        bl_text_add(text, "<th scope=\"col\"><code>");
        escaped(text, o->arm[a].arm);
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
    close_table(text);
    bl_text_add(text, "</details>\n");
    close_section(text);
}

/* --- how to read it, how to do it again
 * -------------------------------------------------------------- */
static void population(const bl_outcome *o, bl_text *text)
{
    if (o->resplit)
        bl_text_add(text,
                    "<p>The verdicts speak of new random splits of this data into %lld training "
                    "and %lld test examples. The splits overlap, so variances are corrected "
                    "(Nadeau and Bengio 2003). They do not speak of other data.</p>\n",
                    (long long)o->train_count, (long long)o->test_count);
    else
        bl_text_add(text,
                    "<p>The verdicts speak of new training runs on these %lld examples, judged on "
                    "this fixed test set of %lld. They do not speak of other test sets.</p>\n",
                    (long long)o->train_count, (long long)o->test_count);
    bl_text_add(text, "<p>Runs of a pair share split, label noise, initial weights and order. The "
                      "arms were not tuned: each ran with its own options and the recipe below, "
                      "so an arm that is undecided or hurts here may do better when tuned.</p>\n");
}

/* --- tuning ----------------------------------------------------------------------------------- */
/* Best-of-k is shown for k = 1, 2, 4, .. and the whole budget. */
static int next_budget(int k, int trials)
{
    return k < trials && 2 * k > trials ? trials : 2 * k;
}

static void tuning_head(int trials, const char *metric, bool measured, bl_text *text)
{
    bl_text_add(text, "<thead><tr><th scope=\"col\">arm</th><th scope=\"col\">setting</th>");
    for (int k = 1; k <= trials; k = next_budget(k, trials))
        bl_text_add(text, "<th scope=\"col\" class=\"n\">%s, best of %d</th>", metric, k);
    bl_text_add(text, "%s</tr></thead>\n<tbody>\n",
                measured ? "<th scope=\"col\" class=\"n\">diverged</th><th scope=\"col\" "
                           "class=\"n\">seconds</th>"
                         : "");
}

static void tuning_row(const page *p, const bl_arm_outcome *arm, bl_text *text)
{
    const bl_choice *c = arm->choice;
    bl_text_add(text, "<tr>");
    arm_name(text, arm);
    bl_text_add(text, "<td class=\"words\"><code>");
    breakable(text, c->setting);
    bl_text_add(text, "</code></td>");
    for (int k = 1; k <= c->trials; k = next_budget(k, c->trials)) {
        open_cell(text);
        number(text, scaled(p, c->best[k - 1]), p->digits.mean, false);
        bl_text_add(text, "</td>");
    }
    if (c->trials) {
        bl_text_add(text, "<td class=\"n\">%d</td>", c->diverged);
        short_number(text, c->seconds, "");
    }
    bl_text_add(text, "</tr>\n");
}

static void tuning(page *p)
{
    const bl_outcome *o = p->outcome;
    const bl_choice *c = o->arm[0].choice;
    bl_text *text = &p->text;
    open_section(text, "How the arms were tuned");
    if (!c) {
        bl_text_add(text, "<p>No arm was tuned: each is <b>untuned</b>, with its default options "
                          "and the recipe's learning rate and weight decay. With --trials 12 each "
                          "gets the same search, the baseline included.</p>\n");
        close_section(text);
        return;
    }
    if (c->trials)
        bl_text_add(text,
                    "<p>Every arm, the baseline included, had %d trials: the first is the arm as "
                    "given, the others are points of a scrambled Halton sequence over learning "
                    "rate, weight decay and the options that were left open. A trial's score is "
                    "the mean of %d seeds, which nothing else uses, on a held-out fifth of the "
                    "training examples. The test part was read after the choice.%s</p>\n",
                    c->trials, BL_TUNING_SEEDS,
                    o->resplit
                        ? " Trials split the data anew, as replicates do, so that an example "
                          "tested here may have been trained on there."
                        : "");
    else
        bl_text_add(text, "<p>The settings were read from a preset.</p>\n");
    open_table(text);
    tuning_head(c->trials, o->metric, c->trials > 0, text);
    for (int a = 0; a < o->arms; a++)
        tuning_row(p, &o->arm[a], text);
    bl_text_add(text, "</tbody>");
    close_table(text);
    close_section(text);
}

static void reading(page *p)
{
    const bl_outcome *o = p->outcome;
    bl_text *text = &p->text;
    open_section(text, "How to read the verdicts");
    population(o, text);
    bl_text_add(text,
                "<dl>\n<dt><b class=\"verdict helps\">helps</b> <b class=\"verdict "
                "hurts\">hurts</b></dt>\n<dd>The difference is real: if no arm differed, the "
                "chance of any such verdict in this table would be at most %g %% (Holm's "
                "correction over %d arm%s).</dd>\n",
                100 * o->alpha, o->compared, o->compared == 1 ? "" : "s");
    if (o->min_effect > 0)
        bl_text_add(
            text,
            "<dt><b class=\"verdict equivalent\">equivalent</b></dt>\n<dd>Whatever the "
            "difference is, it is shown to be smaller than %g (two one-sided tests).</dd>\n",
            o->min_effect);
    bl_text_add(text,
                "<dt><b class=\"verdict undecided\">undecided</b></dt>\n<dd>Neither is shown. That "
                "is not evidence of no difference. The number of further replicates is a rough "
                "guide from the difference seen so far.%s</dd>\n",
                o->min_effect > 0 ? ""
                                  : " With --min-effect, the smallest difference that matters, "
                                    "an arm can also be shown to be equivalent.");
    bl_text_add(text, "<dt>P(better)</dt>\n<dd>In how many of the pairs the arm was better than "
                      "the baseline, ties counted half.</dd>\n</dl>\n");
    close_section(text);
}

static void fact(bl_text *text, const char *name, const char *format, ...) BL_PRINTF(3, 4);
static void fact(bl_text *text, const char *name, const char *format, ...)
{
    char value[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(value, sizeof value, format, arguments);
    va_end(arguments);
    bl_text_add(text, "<tr><th scope=\"row\">%s</th><td class=\"words\">", name);
    escaped(text, value);
    bl_text_add(text, "</td></tr>\n");
}

static void recipe_facts(const bl_recipe *r, bl_text *text)
{
    fact(text, "model", "%s, width %lld, depth %lld", r->model.name, (long long)r->model.width,
         (long long)r->model.depth);
    if (!strcmp(r->optimizer, "sgd"))
        fact(text, "optimizer", "sgd, momentum %g%s", r->momentum,
             r->nesterov ? " (Nesterov)" : "");
    else
        fact(text, "optimizer", "%s, beta1 %g, beta2 %g, epsilon %g", r->optimizer, r->beta1,
             r->beta2, r->epsilon);
    fact(text, "learning rate", "%g, schedule %s", r->learning_rate, r->schedule);
    fact(text, "weight decay", "%g", r->weight_decay);
    fact(text, "training", "%lld epochs, batches of %lld", (long long)r->epochs,
         (long long)r->batch);
    fact(text, "loss", "%s", r->loss);
}

static void plan_json(const bl_plan *plan, bl_text *text)
{
    json_t *json = bl_plan_to_json(plan);
    char *dump = json ? json_dumps(json, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    bl_text_add(text, "<details><summary>The plan, as workers receive it</summary>\n<pre>");
    if (dump)
        escaped(text, dump);
    else
        text->failed = true;
    bl_text_add(text, "</pre></details>\n");
    free(dump);
    json_decref(json);
}

static void again(page *p, const char *command)
{
    const bl_outcome *o = p->outcome;
    bl_text *text = &p->text;
    open_section(text, "How to do it again");
    bl_text_add(text, "<pre>");
    escaped(text, command);
    bl_text_add(text, "</pre>\n");
    open_table(text);
    bl_text_add(text, "<tbody>\n");
    fact(text, "version", "ballast %s", BALLAST_VERSION);
    fact(text, "data", "%s", bl_job_summary(o->data));
    fact(text, "data hash", "%016llx", (unsigned long long)bl_job_data_hash(o->data));
    fact(text, "study seed", "%llu", (unsigned long long)o->plan->study_seed);
    fact(text, "replicates", "%d of each arm", o->replicates);
    recipe_facts(bl_job_recipe(o->data), text);
    bl_text_add(text, "</tbody>");
    close_table(text);
    bl_text_add(text, "<p class=\"note\">On the same kind of processor the same command gives the "
                      "same scores, bit for bit, with any number of workers.</p>\n");
    plan_json(o->plan, text);
    close_section(text);
}

/* --- the page
 * ---------------------------------------------------------------------------------------- */
/* Draws one picture to see whether gnuplot can. */
static bl_status try_plots(page *p)
{
    bl_text probe = {0};
    if (bl_plot_differences(p->outcome, &probe) != BL_OK) {
        p->no_plots = bl_copy_text(bl_error());
        if (!p->no_plots)
            return bl_no_memory(0);
    }
    bl_text_free(&probe);
    return BL_OK;
}

static void sections(page *p, const char *command)
{
    bl_text *text = &p->text;
    bl_text_add(text, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                      "<meta name=\"color-scheme\" content=\"light dark\">\n<title>Ballast: ");
    escaped(text, p->outcome->plan->data ? p->outcome->plan->data : "study");
    bl_text_add(text, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n", report_style);
    lead(p, text);
    verdicts(p);
    differences(p);
    curves(p);
    effects(p);
    metrics(p);
    gain(p);
    scores(p);
    tuning(p);
    reading(p);
    again(p, command);
    bl_text_add(text, "</main>\n</body>\n</html>\n");
}

bl_status bl_report_write(const bl_outcome *outcome, const char *command, const char *path)
{
    page p = {.outcome = outcome, .digits = bl_outcome_layout(outcome)};
    bl_status status = try_plots(&p);
    if (status == BL_OK) {
        sections(&p, command);
        status = p.text.failed ? bl_no_memory(p.text.length)
                               : bl_write_file(path, p.text.at, p.text.length);
    }
    bl_text_free(&p.text);
    bl_release(p.no_plots);
    return status;
}
