/* The report: sections in the order in which a reader asks. What does it say, how sure is it, how
 * did the runs go, what did each arm really do, what did it cost, and how is it done again?
 *
 *     report_html.c       words, numbers, tables
 *     report_verdicts.c   what it says and how sure it is
 *     report_across.c     what is over several data sets; a page of several has it first
 *     report_runs.c       the runs
 *     report_groups.c     groups of test examples, suspect labels
 *     report_method.c     tuning, reading, doing it again
 *     report_style.h      the style sheet
 *
 * One more section: a function that adds a <section> to page->text, declared in report_page.h and
 * called in `sections`. */
#include "study/report.h"

#include <stdio.h>
#include <string.h>

#include "study/plot.h"
#include "study/report_page.h"
#include "study/report_style.h"

/* --- the page --------------------------------------------------------------------------------- */
/* Draws one picture to see whether gnuplot can. */
static bl_status try_plots(bl_page *p)
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

static void head(bl_text *text, const char *title)
{
    bl_text_add(text, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                      "<meta name=\"color-scheme\" content=\"light dark\">\n<title>Ballast: ");
    bl_page_escaped(text, title);
    bl_text_add(text, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n", report_style);
}

static void sections(bl_page *p, const char *command)
{
    bl_report_lead(p, &p->text);
    bl_report_verdicts(p);
    bl_report_differences(p);
    bl_report_equal_cost(p);
    bl_report_screening(p);
    bl_report_curves(p);
    bl_report_effects(p);
    bl_report_metrics(p);
    bl_report_groups(p);
    bl_report_gain(p);
    bl_report_suspects(p);
    bl_report_scores(p);
    bl_report_tuning(p);
    bl_report_reading(p);
    bl_report_again(p, command);
}

static bl_status study(const bl_outcome *outcome, const char *command, bl_text *text)
{
    bl_page p = {.text = *text, .outcome = outcome, .digits = bl_outcome_layout(outcome)};
    bl_status status = try_plots(&p);
    if (status == BL_OK)
        sections(&p, command);
    *text = p.text;
    bl_release(p.no_plots);
    return status;
}

/* --- several data sets ------------------------------------------------------------------------ */
/* Adds a study's part of a page; the ids in it, and what refers to them, get a prefix of their
 * own, since every study has the same. */
static void add_with_prefix(bl_text *text, const char *part, int set)
{
    static const char *const before[] = {" id='", " id=\"", "href='#", "url(#"};
    for (const char *at = part; *at;) {
        size_t n = 0;
        for (size_t i = 0; i < sizeof before / sizeof *before && !n; i++)
            if (!strncmp(at, before[i], strlen(before[i])))
                n = strlen(before[i]);
        if (n)
            bl_text_add(text, "%.*sset%d-", (int)n, at, set + 1);
        size_t plain = n ? n : 1 + strcspn(at + 1, " hu");
        if (!n)
            bl_text_add_n(text, at, plain);
        at += plain;
    }
}

static bl_status add_set(const bl_telling *t, int set, const char *command, bl_text *text)
{
    bl_text part = {0};
    bl_status status = study(t->outcome[set], command, &part);
    if (status == BL_OK && part.failed)
        status = bl_no_memory(part.length);
    if (status == BL_OK) {
        bl_text_add(text, "<article id='data-%d'>\n<p class=\"lead\"><code>", set + 1);
        bl_page_escaped(text, t->outcome[set]->plan->data);
        bl_text_add(text, "</code>, %d of %d</p>\n", set + 1, t->count);
        add_with_prefix(text, part.at, set);
        bl_text_add(text, "</article>\n");
    }
    bl_text_free(&part);
    return status;
}

static bl_status page_of_several(const bl_telling *t, const char *command, bl_text *text)
{
    char title[32];
    snprintf(title, sizeof title, "%d data sets", t->count);
    head(text, title);
    bl_report_across(t, text);
    for (int i = 0; i < t->count; i++)
        BL_TRY(add_set(t, i, command, text));
    return BL_OK;
}

bl_status bl_report_write(const bl_telling *t, const char *command, const char *path)
{
    bl_text text = {0};
    bl_status status;
    if (t->count > 1) {
        status = page_of_several(t, command, &text);
    } else {
        const char *data = t->outcome[0]->plan->data;
        head(&text, data ? data : "study");
        status = study(t->outcome[0], command, &text);
    }
    bl_text_add(&text, "</main>\n</body>\n</html>\n");
    if (status == BL_OK)
        status =
            text.failed ? bl_no_memory(text.length) : bl_write_file(path, text.at, text.length);
    bl_text_free(&text);
    return status;
}
