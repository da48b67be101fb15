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
                "Differences from the baseline with 95 % intervals, as in the table of verdicts",
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

/* Adds a value to the point of its epoch; the sum is kept in `mean` and the runs in runs[]. */
static void gather(bl_mean_point *points, int *runs, int *count, int64_t epoch, double metric)
{
    int at = 0;
    while (at < *count && points[at].epoch < epoch)
        at++;
    if (at == *count || points[at].epoch != epoch) {
        size_t after = (size_t)(*count - at);
        memmove(points + at + 1, points + at, after * sizeof *points);
        memmove(runs + at + 1, runs + at, after * sizeof *runs);
        points[at] = (bl_mean_point){epoch, 0, INFINITY, -INFINITY};
        runs[at] = 0;
        ++*count;
    }
    bl_mean_point *p = &points[at];
    p->mean += metric;
    p->low = metric < p->low ? metric : p->low;
    p->high = metric > p->high ? metric : p->high;
    runs[at]++;
}

bl_status bl_mean_curve(const bl_outcome *o, const bl_arm_outcome *arm, bl_mean_point **points,
                        int *count)
{
    size_t room = 1;
    for (int r = 0; r < o->replicates; r++)
        room += json_array_size(json_object_get(arm->result[r], "curve"));
    *count = 0;
    *points = bl_alloc(room * sizeof **points);
    int *runs = bl_alloc(room * sizeof *runs);
    if (!*points || !runs) {
        bl_release(*points);
        bl_release(runs);
        *points = NULL;
        return bl_no_memory(room * sizeof **points);
    }
    int64_t epoch;
    double metric;
    for (int r = 0; r < o->replicates; r++)
        for (size_t i = 0; curve_point(arm->result[r], i, &epoch, &metric); i++)
            if (isfinite(metric))
                gather(*points, runs, count, epoch, metric);
    for (int i = 0; i < *count; i++)
        (*points)[i].mean /= runs[i];
    bl_release(runs);
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

static bl_status curve_script(const bl_outcome *o, int shown, bl_text *script)
{
    bl_interval range = {INFINITY, -INFINITY};
    for (int a = 0; a < o->arms; a++)
        BL_TRY(curve_data(o, a, a == 0 ? "baseline" : a == shown ? "arm" : NULL, script, &range));
    if (!(range.low <= range.high))
        return bl_fail(BL_INVALID, "no run has a learning curve");
    range = padded(range, 0.04);
    bl_text_add(script,
                "set yrange [%.17g:%.17g]\nset xlabel 'epoch'\n"
                "set grid ytics linetype 1 linecolor rgb '" BL_INK_FAINT "'\n"
                "set border 1 linecolor rgb '" BL_INK_BASELINE "'\n"
                "set tics nomirror scale 0 textcolor rgb 'black'\n",
                range.low, range.high);
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
    return draw(&script, 340, 230, id, label, out);
}

/* --- gain against cost
 * ------------------------------------------------------------------------------- */
enum { GAIN_WIDTH = 640, GAIN_HEIGHT = 340, LETTER = 8, LINE = 17 };

/* Where the name of a point stands: a box about the picture's pixels. */
typedef struct name_box {
    double left, top, width;
    bool leftwards;
} name_box;

static bool overlap(const name_box *a, const name_box *b)
{
    return a->left < b->left + b->width && b->left < a->left + a->width &&
           fabs(a->top - b->top) < LINE;
}

/* Moves the name away from its point, to either side and further up or down, until it is free of
 * the names before it; in a crowd the last try stays. */
static void place_name(name_box *names, int a, double x, double y, size_t letters)
{
    name_box *box = &names[a];
    box->width = (double)LETTER * (double)(letters < LABEL ? letters : LABEL);
    for (int attempt = 0; attempt < 12; attempt++) {
        static const double down[] = {-12, 10, -28, 26, -44, 42};
        box->leftwards = attempt % 2 == 1;
        box->left = box->leftwards ? x - 8 - box->width : x + 8;
        box->top = y + down[attempt / 2];
        bool inside = box->left > 50 && box->left + box->width < GAIN_WIDTH;
        int other = 0;
        while (other < a && !overlap(box, &names[other]))
            other++;
        if (inside && other == a)
            return;
    }
}

/* The data of a point, and its name. Pixels are about right: gnuplot alone knows its margins. */
static void gain_point(const bl_outcome *o, int a, bl_interval x, bl_interval y, bool wide,
                       name_box *names, bl_text *script)
{
    double gain = a ? bl_gain(o, &o->arm[a]) : 0, work = o->arm[a].work;
    if (!isfinite(gain) || !isfinite(work) || (wide && work <= 0)) {
        bl_text_add(script, "$arm%d << END\nNaN NaN\nEND\n", a);
        return;
    }
    double across =
        wide ? log(work / x.low) / log(x.high / x.low) : (work - x.low) / (x.high - x.low);
    double column = 70 + across * (GAIN_WIDTH - 90),
           line = 20 + (y.high - gain) / (y.high - y.low) * (GAIN_HEIGHT - 90);
    place_name(names, a, column, line, strlen(o->arm[a].arm));
    bl_text_add(script, "$arm%d << END\n%.17g %.17g\nEND\nset label ", a, work, gain);
    quoted(script, o->arm[a].arm);
    bl_text_add(script, " at %.17g,%.17g %s offset graph %.4f,graph %.4f\n", work, gain,
                names[a].leftwards ? "right" : "left",
                (names[a].leftwards ? -8.0 : 8.0) / (GAIN_WIDTH - 90),
                (line - names[a].top) / (GAIN_HEIGHT - 90));
}

bl_status bl_plot_gain(const bl_outcome *o, bl_text *out)
{
    bl_interval x = {0.95, 1.05}, y = {0, 0};
    for (int a = 1; a < o->arms; a++) {
        widen(&x, o->arm[a].work);
        widen(&y, bl_gain(o, &o->arm[a]));
    }
    bool wide = x.low > 0 && x.high > 4 * x.low;
    x = wide ? (bl_interval){x.low / 1.3, x.high * 1.6} : padded(x, 0.12);
    y = padded(y, 0.15);
    name_box *names = bl_alloc((size_t)o->arms * sizeof *names);
    if (!names)
        return bl_no_memory((size_t)o->arms * sizeof *names);
    bl_text script = {0};
    bl_text_add(&script,
                "%sset xrange [%.17g:%.17g]\nset yrange [%.17g:%.17g]\n"
                "set xlabel 'counted work of a training step (baseline = 1)'\n"
                "set ylabel 'gain in %s'\n"
                "set grid linetype 1 linecolor rgb '" BL_INK_FAINT "'\n"
                "set border 3 linecolor rgb '" BL_INK_BASELINE "'\n"
                "set tics nomirror scale 0 textcolor rgb 'black'\n"
                "set arrow from graph 0,first 0 to graph 1,first 0 nohead linewidth 1.2\n",
                wide ? "set logscale x\n" : "", x.low, x.high, y.low, y.high, o->metric);
    for (int a = 0; a < o->arms; a++)
        gain_point(o, a, x, y, wide, names, &script);
    bl_release(names);
    for (int a = 0; a < o->arms; a++)
        bl_text_add(&script,
                    "%s $arm%d using 1:2 with points pointtype 7 pointsize 1.1 linecolor rgb '%s' "
                    "notitle",
                    a ? "," : "plot", a, a ? ink[o->arm[a].comparison.verdict] : BL_INK_BASELINE);
    bl_text_add(&script, "\n");
    return draw(&script, GAIN_WIDTH, GAIN_HEIGHT, "gain",
                "Gain of each arm against the work of a training step", out);
}
