/* The verdict table, for people: at most 80 columns, deterministic. */
#include "study/outcome.h"

#include <math.h>
#include <string.h>

enum { NAME = 21, MEAN = 15, DIFFERENCE = 23, P = 8, BETTER = 7, COST = 6 };

/* --- words
 * ----------------------------------------------------------------------------------------- */
void bl_verdict_text(const bl_comparison *c, char text[64])
{
    if (!c->pairs)
        snprintf(text, 64, "no verdict");
    else if (c->verdict != BL_UNDECIDED)
        snprintf(text, 64, "%s", bl_verdict_name(c->verdict));
    else if (c->pairs_more < 0)
        snprintf(text, 64,
                 c->ratio > 0 ? "undecided (needs more data)" : "undecided (no effect seen)");
    else
        snprintf(text, 64, "undecided (about %d more)", c->pairs_more);
}

void bl_add_short_number(bl_text *text, double value)
{
    double size = fabs(value);
    bl_text_add(text, size >= 999.5 && size < 1e7 ? "%.0f" : "%.3g", value);
}

/* Adds "value what" or ", value what". */
static void list(bl_text *text, bool *first, double value, const char *what)
{
    bl_text_add(text, "%s", *first ? "" : ", ");
    bl_add_short_number(text, value);
    bl_text_add(text, "%s", what);
    *first = false;
}

void bl_effect_text(const bl_arm_outcome *arm, bl_text *text)
{
    const bl_arm_effect *e = &arm->effect;
    bool first = true;
    if (e->sites > 0)
        bl_text_add(text, "%lld site%s", (long long)e->sites, e->sites == 1 ? "" : "s"),
            first = false;
    if (e->examples_changed > 0)
        list(text, &first, 100 * e->examples_changed, " % of examples changed");
    if (e->gradient_share > 0)
        list(text, &first, 100 * e->gradient_share, " % of the gradient");
    if (e->parameters_moved > 0)
        list(text, &first, 100 * e->parameters_moved, " % off the trained weights");
    if (e->update_share > 0)
        list(text, &first, 100 * e->update_share, " % of the step");
    if (e->host_moved > 0)
        list(text, &first, 100 * e->host_moved, " % of the weights between epochs");
    for (int i = 0; i < e->measures; i++) {
        bl_text_add(text, "%s%s ", first ? "" : ", ", e->measure[i].name);
        bl_add_short_number(text, e->measure[i].value);
        first = false;
    }
    if (first)
        bl_text_add(text, "%s",
                    !strcmp(arm->arm, "null")   ? "the baseline with other seeds"
                    : e->inert || arm->diverged ? "nothing"
                                                : "nothing but holding examples out");
}

/* --- numbers
 * --------------------------------------------------------------------------------------- */
/* Decimals so that the smallest of the half intervals shows two digits. */
static int decimals_for(double smallest)
{
    if (!(smallest > 0) || isinf(smallest))
        return 2;
    int decimals = 1 - (int)floor(log10(smallest));
    return decimals < 0 ? 0 : decimals > 4 ? 4 : decimals;
}

/* Numbers that the columns cannot hold are shown divided by a power of 1000, which the head of the
 * column names. */
static double unit_of(const bl_outcome *o)
{
    double size = fabs(o->arm[0].mean), unit = 1;
    if (!isfinite(size) || size == 0)
        return 1;
    while (size / unit >= 1e5)
        unit *= 1000;
    while (size / unit < 0.1 && unit > 1e-300)
        unit /= 1000;
    return unit;
}

static void keep_smaller(double *smallest, bl_interval i)
{
    double half = (i.high - i.low) / 2;
    if (half > 0 && half < *smallest)
        *smallest = half;
}

bl_layout bl_outcome_layout(const bl_outcome *o)
{
    double unit = unit_of(o);
    double mean = INFINITY, difference = INFINITY;
    for (int a = 0; a < o->arms; a++) {
        keep_smaller(&mean, o->arm[a].interval);
        if (a > 0)
            keep_smaller(&difference, o->arm[a].comparison.difference_interval);
    }
    int d = decimals_for(difference / unit);
    return (bl_layout){unit, decimals_for(mean / unit), d < 3 ? d : 3}; /* more does not fit */
}

/* Adds `cell` right-aligned in `width` columns; the cell may hold characters of several bytes. */
static void right(bl_text *text, int width, const char *cell)
{
    int columns = 0;
    for (const char *at = cell; *at; at++)
        columns += ((unsigned char)*at & 0xc0) != 0x80;
    bl_text_add(text, "%*s%s", width > columns ? width - columns : 0, "", cell);
}

static void p_text(double p, char cell[32])
{
    if (isnan(p))
        snprintf(cell, 32, "-");
    else if (p < 0.001)
        snprintf(cell, 32, "<0.001");
    else
        snprintf(cell, 32, "%.3f", p);
}

/* --- rows
 * --------------------------------------------------------------------------------------------- */
static void colour_verdict(bl_text *text, bl_verdict verdict, bool colour, const char *words)
{
    static const char *const code[BL_VERDICTS] = {
        [BL_UNDECIDED] = "33", [BL_HELPS] = "1;32", [BL_HURTS] = "1;31", [BL_EQUIVALENT] = "36"};
    if (colour)
        bl_text_add(text, "\033[%sm%s\033[0m", code[verdict], words);
    else
        bl_text_add(text, "%s", words);
}

/* An arm far from the baseline may need more than the column holds: then without its interval. */
static void mean_text(const bl_arm_outcome *arm, const bl_layout *l, char cell[64])
{
    double mean = arm->mean / l->unit,
           half = (arm->interval.high - arm->interval.low) / 2 / l->unit;
    if (!isfinite(mean))
        snprintf(cell, 64, "diverged");
    else if (!isfinite(half) ||
             snprintf(cell, 64, "%.*f ±%.*f", l->mean, mean, l->mean, half) > MEAN)
        snprintf(cell, 64, fabs(mean) < 1e9 ? "%.*f" : "%.*g", l->mean, mean);
}

/* A wide interval gives up decimals until it fits, a far too wide one is left out. */
static void difference_text(const bl_comparison *c, const bl_layout *l, char cell[64])
{
    double difference = c->difference / l->unit, low = c->difference_interval.low / l->unit,
           high = c->difference_interval.high / l->unit;
    if (!isfinite(difference)) {
        snprintf(cell, 64, "-");
        return;
    }
    for (int d = l->difference; d >= 0 && isfinite(low); d--)
        if (snprintf(cell, 64, "%+.*f [%+.*f,%+.*f]", d, difference, d, low, d, high) < DIFFERENCE)
            return;
    snprintf(cell, 64, fabs(difference) < 1e9 ? "%+.*f" : "%+.*g", l->difference, difference);
}

static void numbers(const bl_outcome *o, int a, const bl_layout *l, bl_text *text)
{
    const bl_arm_outcome *arm = &o->arm[a];
    const bl_comparison *c = &arm->comparison;
    char cell[64];
    mean_text(arm, l, cell);
    right(text, MEAN, cell);
    if (a > 0) {
        difference_text(c, l, cell);
        right(text, DIFFERENCE, cell);
        p_text(c->adjusted_p, cell);
        right(text, P, cell);
        snprintf(cell, sizeof cell, isnan(c->better) ? "-" : "%.0f %%", 100 * c->better);
        right(text, BETTER, cell);
        snprintf(cell, sizeof cell, isfinite(arm->work) ? "%.2f" : "-", arm->work);
        right(text, COST, cell);
    }
    bl_text_add(text, "\n");
}

/* A sentence, folded at 80 columns. */
static void folded(bl_text *text, int indent, const char *sentence)
{
    int column = 0;
    while (*sentence) {
        int length = (int)strcspn(sentence, " ");
        if (column && column + 1 + length > 80) {
            bl_text_add(text, "\n");
            column = 0;
        }
        bl_text_add(text, "%*s%.*s", column ? 1 : indent, "", length, sentence);
        column += length + (column ? 1 : indent);
        sentence += length;
        sentence += *sentence == ' ';
    }
    bl_text_add(text, "\n");
}

/* Why an arm has no verdict, in the colour of trouble. */
static void error(const bl_arm_outcome *arm, bool colour, bl_text *text)
{
    bl_text line = {0};
    bl_text_add(&line, "ERROR: %s", arm->comparison.note);
    bl_text_add(text, "%s", colour ? "\033[1;31m" : "");
    if (line.at)
        folded(text, 4, line.at);
    bl_text_add(text, "%s", colour ? "\033[0m" : "");
    text->failed = text->failed || line.failed;
    bl_text_free(&line);
}

/* "  = helps", then what the arm did, on the same line where there is room. */
static void explanation(const bl_arm_outcome *arm, bool colour, bl_text *text)
{
    char verdict[64];
    bl_text did = {0};
    bl_verdict_text(&arm->comparison, verdict);
    bl_effect_text(arm, &did);
    bl_text_add(text, "  = ");
    colour_verdict(text, arm->comparison.verdict, colour, verdict);
    size_t untuned = arm->choice ? 0 : strlen("; untuned");
    if (untuned)
        bl_text_add(text, "; untuned");
    if (did.at && strlen(verdict) + untuned + did.length + 6 <= 80) {
        bl_text_add(text, "; %s\n", did.at);
    } else {
        bl_text_add(text, "\n");
        if (did.at)
            folded(text, 4, did.at);
    }
    bl_text_free(&did);
    if (arm->effect.inert) {
        error(arm, colour, text);
        return;
    }
    if (arm->inert)
        bl_text_add(text, "    did nothing in %d of %d runs\n", arm->inert, arm->runs);
    if (arm->comparison.note[0])
        folded(text, 4, arm->comparison.note);
}

static void failure(const bl_arm_outcome *arm, bool colour, bl_text *text)
{
    char verdict[64];
    bl_verdict_text(&arm->comparison, verdict);
    bl_text_add(text, "\n  = ");
    colour_verdict(text, BL_HURTS, colour, verdict); /* in the colour of trouble */
    bl_text_add(text, "\n");
    error(arm, colour, text);
}

/* A name too long for its column has lines of its own, broken after a plus or a comma. */
static void long_name(const char *name, bl_text *text)
{
    int column = 0;
    while (*name) {
        size_t plain = strcspn(name, "+,");
        int length = (int)plain + (name[plain] != 0);
        if (column > 2 && column + length > 80) {
            bl_text_add(text, "\n  ");
            column = 2;
        }
        bl_text_add(text, "%.*s", length, name);
        column += length;
        name += length;
    }
    bl_text_add(text, "\n%*s", NAME, "");
}

/* "    tuned (trial 7 of 12): learning_rate=0.021,.." */
static void choice(const bl_choice *c, bl_text *text)
{
    bl_text line = {0};
    if (c->trials)
        bl_text_add(&line, "tuned, trial %d of %d is best: ", c->chosen + 1, c->trials);
    else
        bl_text_add(&line, "by preset: ");
    bl_choice_text(c, &line);
    if (c->diverged)
        bl_text_add(&line, "; %d trial%s diverged", c->diverged, c->diverged == 1 ? "" : "s");
    if (line.at)
        folded(text, 4, line.at);
    text->failed = text->failed || line.failed;
    bl_text_free(&line);
}

static void row(const bl_outcome *o, int a, const bl_layout *l, bool colour, bl_text *text)
{
    const bl_arm_outcome *arm = &o->arm[a];
    if (strlen(arm->arm) > NAME)
        long_name(arm->arm, text);
    else
        bl_text_add(text, "%-*s", NAME, arm->arm);
    if (arm->failed) {
        failure(arm, colour, text);
        return;
    }
    numbers(o, a, l, text);
    if (a == 0 && !arm->choice)
        bl_text_add(text, "    untuned\n");
    if (arm->choice)
        choice(arm->choice, text);
    if (a > 0)
        explanation(arm, colour, text);
    else if (arm->diverged) /* of an arm, its comparison says so */
        bl_text_add(text, "    %d of %d runs diverged\n", arm->diverged, o->replicates);
}

static void head(const bl_outcome *o, const bl_layout *l, bl_text *text)
{
    char cell[64], unit[24] = "";
    if (l->unit != 1)
        snprintf(unit, sizeof unit, "/1e%.0f", log10(l->unit));
    bl_text_add(text, "%-*s", NAME, "arm");
    snprintf(cell, sizeof cell, "%s%s ±%g %%", o->metric, unit, 100 * (1 - o->alpha));
    right(text, MEAN, cell);
    right(text, DIFFERENCE, "difference");
    right(text, P, "p");
    right(text, BETTER, "better");
    right(text, COST, "cost");
    bl_text_add(text, "\n");
}

/* A difference in the metric's units, with the sign. */
static void signed_text(double x, const bl_layout *l, char cell[64])
{
    if (isnan(x))
        snprintf(cell, 64, "diverged");
    else
        snprintf(cell, 64, "%+.*f", l->difference, x / l->unit);
}

static bool has_edge(const bl_outcome *o, int a, const char *edge)
{
    const bl_choice *c = o->arm[a].choice;
    return c && c->edge && !strcmp(c->edge, edge);
}

bool bl_edge_text(const bl_outcome *o, int a, bl_text *line)
{
    const char *edge = o->arm[a].choice ? o->arm[a].choice->edge : NULL;
    if (!edge)
        return false;
    for (int b = 0; b < a; b++)
        if (has_edge(o, b, edge))
            return false;
    for (int b = a; b < o->arms; b++)
        if (has_edge(o, b, edge))
            bl_text_add(line, "%s%s", b > a ? ", " : "", o->arm[b].arm);
    bl_text_add(line, ": %s", edge);
    return !line->failed;
}

static void edges(const bl_outcome *o, bl_text *text)
{
    for (int a = 0; a < o->arms; a++) {
        bl_text line = {0};
        if (bl_edge_text(o, a, &line))
            folded(text, 0, line.at);
        text->failed = text->failed || line.failed;
        bl_text_free(&line);
    }
}

/* The arms that a screening left out. */
static void screened_out(const bl_outcome *o, const bl_layout *l, bl_text *text)
{
    const bl_screening *s = o->screening;
    for (int a = 0; s && a < s->arms; a++) {
        const bl_screened *arm = &s->arm[a];
        char cell[64];
        if (!arm->round)
            continue;
        signed_text(arm->difference, l, cell);
        bl_text line = {0};
        bl_text_add(&line, "%s: screened out in round %d of %d (%s on held-out examples, %d pairs)",
                    arm->arm, arm->round, s->rounds, cell, arm->pairs);
        if (arm->inert)
            bl_text_add(&line, "; ERROR: this arm did nothing in any of them");
        if (line.at)
            folded(text, 0, line.at);
        text->failed = text->failed || line.failed;
        bl_text_free(&line);
    }
}

/* Arms that cost more or less than the baseline, beside a baseline of their cost. */
static void equal_cost(const bl_outcome *o, const bl_layout *l, bool colour, bl_text *text)
{
    char cell[64];
    if (!o->matches)
        return;
    bl_text_add(text, "\n%-*s", NAME, "at equal cost");
    right(text, MEAN, "baseline");
    right(text, DIFFERENCE, "difference");
    right(text, P, "p");
    right(text, BETTER, "better");
    right(text, COST, "cost");
    bl_text_add(text, "\n");
    for (int i = 0; i < o->matches; i++) {
        const bl_matched *m = &o->matched[i];
        const bl_arm_outcome *arm = &o->arm[m->arm];
        const bl_comparison *c = &m->comparison;
        if (strlen(arm->arm) > NAME)
            long_name(arm->arm, text);
        else
            bl_text_add(text, "%-*s", NAME, arm->arm);
        snprintf(cell, sizeof cell, "%lld epochs", (long long)m->epochs);
        right(text, MEAN, cell);
        difference_text(c, l, cell);
        right(text, DIFFERENCE, cell);
        p_text(c->adjusted_p, cell);
        right(text, P, cell);
        snprintf(cell, sizeof cell, "%.0f %%", 100 * c->better);
        right(text, BETTER, cell);
        snprintf(cell, sizeof cell, "%.2f", arm->total_work);
        right(text, COST, cell);
        bl_verdict_text(c, cell);
        bl_text_add(text, "\n  = ");
        colour_verdict(text, c->verdict, colour, cell);
        bl_text_add(text, "\n");
        if (c->note[0])
            folded(text, 4, c->note);
    }
}

/* How the arms were tuned, and on what. */
static void tuning_note(const bl_outcome *o, bl_text *line)
{
    const bl_choice *c = o->arm[0].choice;
    if (!c)
        bl_text_add(line, " Arms are untuned;");
    else if (!c->trials)
        bl_text_add(line, " Settings by preset;");
    else
        bl_text_add(line,
                    " Each arm had %d trials of %d seeds, scored on a held-out fifth of the "
                    "training examples%s;",
                    c->trials, BL_TUNING_SEEDS,
                    o->resplit ? " of splits of their own, so that examples tested now may have "
                                 "been among them"
                               : "");
}

/* How the number of replicates was planned. */
static void pilot_note(const bl_outcome *o, const bl_layout *l, bl_text *line)
{
    const bl_pilot *p = o->pilot;
    if (!p || !p->planned)
        return;
    int d = l->difference + 1;
    if (isnan(p->detectable)) {
        bl_text_add(line,
                    " some of the %d pilots of each arm, since dropped, diverged: how far pairs "
                    "differ is not known, and as many replicates were run as are planned at most;",
                    BL_PILOT_PAIRS);
        return;
    }
    bl_text_add(line,
                " %d pilots of each arm, since dropped, differed by a standard deviation of "
                "up to %.*f:",
                BL_PILOT_PAIRS, d, p->deviation / l->unit);
    if (p->needed < 0)
        bl_text_add(line, " no number of replicates shows an effect of %g;",
                    p->min_effect / l->unit);
    else if (p->capped)
        bl_text_add(line, " an effect of %g would need %d replicates, more than the %d at most;",
                    p->min_effect / l->unit, p->needed, BL_PLANNED_MOST);
    bl_text_add(line, " %d show one of %.*f with 80 %% power;", p->planned, d,
                p->detectable / l->unit);
}

void bl_outcome_footer(const bl_outcome *o, bl_text *line)
{
    const bl_layout l = bl_outcome_layout(o);
    if (o->resplit)
        bl_text_add(
            line,
            "Of new splits of this data (%lld train, %lld test); variance corrected for their "
            "overlap (Nadeau-Bengio).",
            (long long)o->train_count, (long long)o->test_count);
    else
        bl_text_add(line, "Of new training runs (%lld examples) on this fixed test set of %lld.",
                    (long long)o->train_count, (long long)o->test_count);
    tuning_note(o, line);
    bl_text_add(line, " %d paired replicates, seed %llu; p by Holm over %d arm%s at %g%s;",
                o->replicates, (unsigned long long)o->plan->study_seed, o->family,
                o->family == 1 ? "" : "s", o->alpha,
                o->family > o->compared
                    ? ", the screened ones among them: screening saw examples of these data that "
                      "are tested now"
                    : "");
    pilot_note(o, &l, line);
    if (o->min_effect > 0)
        bl_text_add(line, " equivalent means within %g;", o->min_effect);
    bl_text_add(line, " cost is counted work per step%s; data %016llx.",
                o->matches ? ", at equal cost that of a whole run, the baseline's schedule being "
                             "stretched over its epochs"
                           : "",
                (unsigned long long)bl_job_data_hash(o->data));
}

static void footer(const bl_outcome *o, bl_text *text)
{
    bl_text line = {0};
    bl_outcome_footer(o, &line);
    if (line.at)
        folded(text, 0, line.at);
    text->failed = text->failed || line.failed;
    bl_text_free(&line);
}

bl_status bl_outcome_table(const bl_outcome *o, bool colour, bl_text *text)
{
    bl_layout l = bl_outcome_layout(o);
    head(o, &l, text);
    for (int a = 0; a < o->arms; a++)
        row(o, a, &l, colour, text);
    edges(o, text);
    screened_out(o, &l, text);
    equal_cost(o, &l, colour, text);
    bl_text_add(text, "\n");
    footer(o, text);
    return text->failed ? bl_no_memory(text->length) : BL_OK;
}

bl_status bl_outcome_timing(const bl_outcome *o, bl_text *text)
{
    bl_text_add(text, "measured seconds:");
    for (int a = 0; a < o->arms; a++)
        bl_text_add(text, "%s %s %.3g a run, %.3g ms a step", a ? ";" : "", o->arm[a].arm,
                    o->arm[a].seconds, 1e3 * o->arm[a].seconds_per_step);
    bl_text_add(text, "\n");
    return text->failed ? bl_no_memory(text->length) : BL_OK;
}
