/* The pictures of a report as gnuplot scripts.
 *
 * One more picture: a function that adds commands to a bl_text, the plot command last, and hands
 * them to bl_gnuplot under an id of its own; report.c shows it and says what it shows. */
#include "study/plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "study/gnuplot.h"

static const char *const ink[BL_VERDICTS] = {[BL_UNDECIDED] = BL_INK_UNDECIDED,
                                             [BL_HELPS] = BL_INK_HELPS,
                                             [BL_HURTS] = BL_INK_HURTS,
                                             [BL_EQUIVALENT] = BL_INK_EQUIVALENT};

enum { LABEL = 30 }; /* longest name in a picture; the tables have the whole of it */

/* A name between single quotes, for gnuplot: shortened, without what has a meaning there. */
static void quoted(bl_text *script, const char *name)
{
    size_t length = strlen(name), shown = length > LABEL ? LABEL - 1 : length;
    bl_text_add(script, "'");
    for (size_t i = 0; i < shown; i++)
        if (name[i] >= ' ' && !strchr("'%\\`", name[i]))
            bl_text_add_n(script, name + i, 1);
    bl_text_add(script, "%s'", shown < length ? "…" : "");
}

static bl_status draw(bl_text *script, int width, int height, const char *id, const char *label,
                      bl_text *out)
{
    bl_status status = script->failed ? bl_no_memory(script->length)
                                      : bl_gnuplot(script->at, width, height, id, label, out);
    bl_text_free(script);
    return status;
}

static void widen(bl_interval *range, double value)
{
    if (!isfinite(value))
        return;
    range->low = value < range->low ? value : range->low;
    range->high = value > range->high ? value : range->high;
}

static bl_interval padded(bl_interval range, double share)
{
    double width = range.high - range.low;
    double pad = width > 0 ? share * width : fabs(range.high) > 0 ? 0.1 * fabs(range.high) : 1;
    return (bl_interval){range.low - pad, range.high + pad};
}

/* --- differences
 * ------------------------------------------------------------------------------------- */
bl_interval bl_difference_range(const bl_outcome *o)
{
    bl_interval range = {0, 0};
    for (int a = 1; a < o->arms; a++) {
        const bl_comparison *c = &o->arm[a].comparison;
        widen(&range, c->difference);
        widen(&range, c->difference_interval.low);
        widen(&range, c->difference_interval.high);
    }
    widen(&range, o->min_effect);
    widen(&range, -o->min_effect);
    return padded(range, 0.06);
}

double bl_gain(const bl_outcome *o, const bl_arm_outcome *arm)
{
    return o->higher_is_better ? arm->comparison.difference : -arm->comparison.difference;
}

static void lines_behind(const bl_outcome *o, bl_text *script)
{
    bl_interval x = bl_difference_range(o);
    bl_text_add(script, "set xrange [%.17g:%.17g]\nset yrange [0.4:%d.6]\n", x.low, x.high,
                o->arms - 1);
    if (o->min_effect > 0)
        bl_text_add(script,
                    "set object rectangle from %.17g,graph 0 to %.17g,graph 1 behind "
                    "fillcolor rgb '" BL_INK_EQUIVALENT
                    "' fillstyle transparent solid 0.13 noborder\n",
                    -o->min_effect, o->min_effect);
    bl_text_add(script, "set arrow from 0,graph 0 to 0,graph 1 nohead linewidth 1.2\n"
                        "set grid xtics linetype 1 linecolor rgb '" BL_INK_FAINT "'\n"
                        "set border 1 linecolor rgb '" BL_INK_BASELINE "'\n"
                        "set tics nomirror scale 0 textcolor rgb 'black'\n");
}

/* A datablock an arm, since each has the colour of its verdict. */
static void differences_data(const bl_outcome *o, bl_text *script)
{
    for (int a = 1; a < o->arms; a++) {
        const bl_comparison *c = &o->arm[a].comparison;
        bool interval = isfinite(c->difference_interval.low);
        bl_text_add(script, "$arm%d << END\n", a);
        if (isfinite(c->difference))
            bl_text_add(script, "%.17g %d %.17g %.17g\n", c->difference, o->arms - a,
                        interval ? c->difference_interval.low : c->difference,
                        interval ? c->difference_interval.high : c->difference);
        else
            bl_text_add(script, "NaN %d NaN NaN\n", o->arms - a);
        bl_text_add(script, "END\n");
    }
}

bl_status bl_plot_differences(const bl_outcome *o, bl_text *out)
{
    bl_text script = {0};
    lines_behind(o, &script);
    bl_text_add(&script, "set xlabel 'difference in %s, arm - baseline (%s is better)'\n",
                o->metric, o->higher_is_better ? "right" : "left");
    bl_text_add(&script, "set ytics (");
    for (int a = 1; a < o->arms; a++) {
        bl_text_add(&script, "%s", a > 1 ? ", " : "");
        quoted(&script, o->arm[a].arm);
        bl_text_add(&script, " %d", o->arms - a);
    }
    bl_text_add(&script, ")\n");
    differences_data(o, &script);
    for (int a = 1; a < o->arms; a++)
        bl_text_add(&script,
                    "%s $arm%d using 1:2:3:4 with xerrorbars pointtype 7 pointsize 0.9 linewidth "
                    "2.5 linecolor rgb '%s' notitle",
                    a > 1 ? "," : "plot", a, ink[o->arm[a].comparison.verdict]);
    bl_text_add(&script, "\n");
    return draw(&script, 640, 76 + 38 * (o->arms - 1), "differences",
                "Differences from the baseline with their intervals, as in the table of verdicts",
                out);
}

/* --- learning curves
 * --------------------------------------------------------------------------------- */
static json_t *curve_point(const json_t *result, size_t i, int64_t *epoch, double *metric)
{
    json_t *point = json_array_get(json_object_get(result, "curve"), i);
    json_t *value = json_object_get(point, "metric");
    *epoch = json_integer_value(json_object_get(point, "epoch"));
    *metric = json_is_number(value) ? json_number_value(value) : NAN;
    return point;
}

/* Adds an epoch where there is none of that number yet. */
static void add_epoch(bl_mean_point *points, int *count, int64_t epoch)
{
    int at = 0;
    while (at < *count && points[at].epoch < epoch)
        at++;
    if (at < *count && points[at].epoch == epoch)
        return;
    memmove(points + at + 1, points + at, (size_t)(*count - at) * sizeof *points);
    points[at] = (bl_mean_point){epoch, 0, INFINITY, -INFINITY};
    ++*count;
}

/* The metric of a run at an epoch; after its end the last one; NaN if it was not evaluated then. */
static double metric_at(const json_t *result, int64_t epoch)
{
    double metric, last = NAN;
    int64_t at = -1;
    for (size_t i = 0; curve_point(result, i, &at, &metric); i++) {
        if (at == epoch)
            return metric;
        last = metric;
    }
    bool ended = at >= 0 && at < epoch && !json_is_true(json_object_get(result, "diverged"));
    return ended ? last : NAN;
}

static void average_point(const bl_outcome *o, const bl_arm_outcome *arm, bl_mean_point *p)
{
    int runs = 0;
    for (int r = 0; r < o->replicates; r++) {
        double metric = metric_at(arm->result[r], p->epoch);
        if (!isfinite(metric))
            continue;
        p->mean += metric;
        p->low = metric < p->low ? metric : p->low;
        p->high = metric > p->high ? metric : p->high;
        runs++;
    }
    p->mean /= runs; /* add_epoch was called for at least one */
}

bl_status bl_mean_curve(const bl_outcome *o, const bl_arm_outcome *arm, bl_mean_point **points,
                        int *count)
{
    size_t room = 1;
    for (int r = 0; r < o->replicates; r++)
        room += json_array_size(json_object_get(arm->result[r], "curve"));
    *count = 0;
    *points = bl_alloc(room * sizeof **points);
    if (!*points)
        return bl_no_memory(room * sizeof **points);
    int64_t epoch;
    double metric;
    for (int r = 0; r < o->replicates; r++)
        for (size_t i = 0; curve_point(arm->result[r], i, &epoch, &metric); i++)
            if (isfinite(metric))
                add_epoch(*points, count, epoch);
    for (int i = 0; i < *count; i++)
        average_point(o, arm, &(*points)[i]);
    return BL_OK;
}

/* Adds the datablock $NAME and widens the range by all but the first tenth of the training, whose
 * steep start would hide what comes after. */
static bl_status curve_data(const bl_outcome *o, int a, const char *name, bl_text *script,
                            bl_interval *range)
{
    bl_mean_point *points;
    int count;
    BL_TRY(bl_mean_curve(o, &o->arm[a], &points, &count));
    if (name)
        bl_text_add(script, "$%s << END\n", name);
    for (int i = 0; i < count; i++) {
        if (name)
            bl_text_add(script, "%lld %.17g %.17g %.17g\n", (long long)points[i].epoch,
                        points[i].mean, points[i].low, points[i].high);
        if (10 * points[i].epoch >= points[count - 1].epoch) {
            widen(range, points[i].low);
            widen(range, points[i].high);
        }
    }
    if (name)
        bl_text_add(script, "%sEND\n", count ? "" : "NaN NaN NaN NaN\n");
    bl_release(points);
    return BL_OK;
}

enum { SMALL_WIDTH = 340, SMALL_HEIGHT = 230 }; /* pictures that stand side by side */

static void small_axes(bl_interval y, const char *x, bl_text *script)
{
    bl_text_add(script,
                "set autoscale xfix\nset yrange [%.17g:%.17g]\nset xlabel '%s'\n"
                "set grid ytics linetype 1 linecolor rgb '" BL_INK_FAINT "'\n"
                "set border 1 linecolor rgb '" BL_INK_BASELINE "'\n"
                "set tics nomirror scale 0 textcolor rgb 'black'\n",
                y.low, y.high, x);
}

static bl_status curve_script(const bl_outcome *o, int shown, bl_text *script)
{
    bl_interval range = {INFINITY, -INFINITY};
    for (int a = 0; a < o->arms; a++)
        BL_TRY(curve_data(o, a, a == 0 ? "baseline" : a == shown ? "arm" : NULL, script, &range));
    if (!(range.low <= range.high))
        return bl_fail(BL_INVALID, "no run has a learning curve");
    range = padded(range, 0.04);
    small_axes(range, "epoch", script);
    static const char *const name[] = {"baseline", "arm"};
    const char *colour[] = {BL_INK_BASELINE, ink[o->arm[shown].comparison.verdict]};
    for (int i = 0; i < 2; i++)
        bl_text_add(script,
                    "%s $%s using 1:3:4 with filledcurves fillcolor rgb '%s' "
                    "fillstyle transparent solid 0.2 noborder notitle",
                    i ? "," : "plot", name[i], colour[i]);
    for (int i = 0; i < 2; i++)
        bl_text_add(script, ", $%s using 1:2 with lines linewidth 2 linecolor rgb '%s' notitle",
                    name[i], colour[i]);
    bl_text_add(script, "\n");
    return BL_OK;
}

bl_status bl_plot_curve(const bl_outcome *o, int a, bl_text *out)
{
    bl_text script = {0};
    bl_status status = curve_script(o, a, &script);
    if (status != BL_OK) {
        bl_text_free(&script);
        return status;
    }
    char id[32], label[96];
    snprintf(id, sizeof id, "curve%d", a);
    snprintf(label, sizeof label, "%s by epoch, of this arm and of the baseline", o->metric);
    return draw(&script, SMALL_WIDTH, SMALL_HEIGHT, id, label, out);
}

/* --- best of k -------------------------------------------------------------------------------- */
static void search_data(const bl_choice *c, const char *name, bl_text *script)
{
    bl_text_add(script, "$%s << END\n", name);
    for (int k = 0; k < c->trials; k++)
        if (isfinite(c->expected[k]))
            bl_text_add(script, "%d %.17g\n", k + 1, c->expected[k]);
        else
            bl_text_add(script, "%d NaN\n", k + 1);
    bl_text_add(script, "END\n");
}

bl_status bl_plot_search(const bl_outcome *o, int a, bl_text *out)
{
    bl_interval range = {INFINITY, -INFINITY};
    for (int i = 0; i < o->arms; i++)
        for (int k = 0; k < o->arm[i].choice->trials; k++)
            widen(&range, o->arm[i].choice->expected[k]);
    if (!(range.low <= range.high))
        return bl_fail(BL_INVALID, "no trial has a score");
    bl_text script = {0};
    char id[32], label[96];
    small_axes(padded(range, 0.06), "trials", &script);
    bl_text_add(&script, "set xtics %d\n", 1 + o->arm[0].choice->trials / 10);
    search_data(o->arm[0].choice, "baseline", &script);
    search_data(o->arm[a].choice, "arm", &script);
    const char *colour = a ? ink[o->arm[a].comparison.verdict] : BL_INK_BASELINE;
    bl_text_add(&script,
                "plot $baseline using 1:2 with lines linewidth 2 linecolor rgb '" BL_INK_BASELINE
                "' notitle, $arm using 1:2 with linespoints linewidth 2 pointtype 7 pointsize 0.5 "
                "linecolor rgb '%s' notitle\n",
                colour);
    snprintf(id, sizeof id, "search%d", a);
    snprintf(label, sizeof label, "expected best %s by number of trials", o->metric);
    return draw(&script, SMALL_WIDTH, SMALL_HEIGHT, id, label, out);
}

/* --- gain against cost
 * ------------------------------------------------------------------------------- */
enum { GAIN_WIDTH = 640, LETTER = 8, LINE = 17 }; /* pixels */

/* Where an arm stands, and how high its name stands in the margin, as a share of the plot. */
typedef struct named_point {
    int arm;
    double work, gain, height;
} named_point;

static int lower_first(const void *a, const void *b)
{
    const named_point *p = a, *q = b;
    int order = (p->gain > q->gain) - (p->gain < q->gain);
    return order ? order : q->arm - p->arm;
}

/* Moves the names, from the lowest up, so far apart that none covers another; then those that left
 * the plot at the top back down. */
static void spread(named_point *p, int count, double space)
{
    for (int i = 1; i < count; i++)
        p[i].height = fmax(p[i].height, p[i - 1].height + space);
    double most = 1;
    for (int i = count - 1; i >= 0; i--) {
        p[i].height = fmin(p[i].height, most);
        most = p[i].height - space;
    }
}

/* The arms that have a place, and the ranges of the axes. */
static int points_of(const bl_outcome *o, named_point *points, bl_interval *x, bl_interval *y)
{
    int count = 0;
    *x = (bl_interval){0.95, 1.05};
    *y = (bl_interval){0, 0};
    for (int a = 0; a < o->arms; a++) {
        named_point p = {.arm = a, .work = o->arm[a].work};
        p.gain = a ? bl_gain(o, &o->arm[a]) : 0;
        if (!isfinite(p.gain) || !isfinite(p.work) || p.work <= 0)
            continue;
        widen(x, p.work);
        widen(y, p.gain);
        points[count++] = p;
    }
    return count;
}

/* Names stand in the right margin, each with a thin line to its point. */
static void gain_names(const bl_outcome *o, const named_point *points, int count, bl_text *script)
{
    for (int i = 0; i < count; i++) {
        const named_point *p = &points[i];
        bl_text_add(script,
                    "set arrow from %.17g,%.17g to graph 1.02,graph %.5f nohead back linewidth 0.5 "
                    "linecolor rgb '" BL_INK_BASELINE "'\nset label ",
                    p->work, p->gain, p->height);
        quoted(script, o->arm[p->arm].arm);
        bl_text_add(script, " at graph 1.03,graph %.5f left\n", p->height);
    }
}

static void gain_axes(const bl_outcome *o, bl_interval x, bl_interval y, bool wide, bl_text *script)
{
    bl_text_add(script,
                "%sset xrange [%.17g:%.17g]\nset yrange [%.17g:%.17g]\n"
                "set xlabel 'counted work of a training step (baseline = 1)'\n"
                "set ylabel 'gain in %s'\n"
                "set grid linetype 1 linecolor rgb '" BL_INK_FAINT "'\n"
                "set border 3 linecolor rgb '" BL_INK_BASELINE "'\n"
                "set tics nomirror scale 0 textcolor rgb 'black'\n"
                "set arrow from graph 0,first 0 to graph 1,first 0 nohead linewidth 1.2\n",
                wide ? "set logscale x 2\n" : "", x.low, x.high, y.low, y.high, o->metric);
}

/* The margins in pixels, so that the names keep their distance from each other. */
static void gain_margins(const bl_outcome *o, const named_point *points, int count, int height,
                         bl_text *script)
{
    size_t longest = 0;
    for (int i = 0; i < count; i++) {
        size_t letters = strlen(o->arm[points[i].arm].arm);
        longest = letters > longest ? letters : longest;
    }
    double names = (double)(LETTER * (longest < LABEL ? longest : LABEL)) + 24;
    bl_text_add(script,
                "set lmargin at screen %.5f\nset rmargin at screen %.5f\n"
                "set tmargin at screen %.5f\nset bmargin at screen %.5f\n",
                66.0 / GAIN_WIDTH, 1 - names / GAIN_WIDTH, 1 - 14.0 / height, 56.0 / height);
}

static void gain_script(const bl_outcome *o, named_point *points, int *height, bl_text *script)
{
    bl_interval x, y;
    int count = points_of(o, points, &x, &y);
    bool wide = x.high > 4 * x.low;
    x = wide ? (bl_interval){x.low / 1.3, x.high * 1.3} : padded(x, 0.06);
    y = padded(y, 0.08);
    *height = 70 + LINE * count > 320 ? 70 + LINE * count : 320;
    qsort(points, (size_t)count, sizeof *points, lower_first);
    for (int i = 0; i < count; i++)
        points[i].height = (points[i].gain - y.low) / (y.high - y.low);
    spread(points, count, (double)LINE / (*height - 70));
    gain_axes(o, x, y, wide, script);
    gain_margins(o, points, count, *height, script);
    gain_names(o, points, count, script);
    for (int i = 0; i < count; i++)
        bl_text_add(script, "$arm%d << END\n%.17g %.17g\nEND\n", i, points[i].work, points[i].gain);
    for (int i = 0; i < count; i++) {
        int a = points[i].arm;
        bl_text_add(script,
                    "%s $arm%d using 1:2 with points pointtype 7 pointsize 1.1 linecolor rgb '%s' "
                    "notitle",
                    i ? "," : "plot", i, a ? ink[o->arm[a].comparison.verdict] : BL_INK_BASELINE);
    }
    bl_text_add(script, "\n");
}

bl_status bl_plot_gain(const bl_outcome *o, bl_text *out)
{
    named_point *points = bl_alloc((size_t)o->arms * sizeof *points);
    if (!points)
        return bl_no_memory((size_t)o->arms * sizeof *points);
    bl_text script = {0};
    int height;
    gain_script(o, points, &height, &script);
    bl_release(points);
    return draw(&script, GAIN_WIDTH, height, "gain",
                "Gain of each arm against the work of a training step", out);
}
