/* The report: sections in the order in which a reader asks. What does it say, how sure is it, how
 * did the runs go, what did each arm really do, what did it cost, and how is it done again?
 *
 *     report_html.c       words, numbers, tables
 *     report_verdicts.c   what it says and how sure it is
 *     report_runs.c       the runs
 *     report_method.c     tuning, reading, doing it again
 *     report_style.h      the style sheet
 *
 * One more section: a function that adds a <section> to page->text, declared in report_page.h and
 * called in `sections`. */
#include "study/report.h"

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

static void sections(bl_page *p, const char *command)
{
    bl_text *text = &p->text;
    bl_text_add(text, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                      "<meta name=\"color-scheme\" content=\"light dark\">\n<title>Ballast: ");
    bl_page_escaped(text, p->outcome->plan->data ? p->outcome->plan->data : "study");
    bl_text_add(text, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n", report_style);
    bl_report_lead(p, text);
    bl_report_verdicts(p);
    bl_report_differences(p);
    bl_report_curves(p);
    bl_report_effects(p);
    bl_report_metrics(p);
    bl_report_gain(p);
    bl_report_scores(p);
    bl_report_tuning(p);
    bl_report_reading(p);
    bl_report_again(p, command);
    bl_text_add(text, "</main>\n</body>\n</html>\n");
}

bl_status bl_report_write(const bl_outcome *outcome, const char *command, const char *path)
{
    bl_page p = {.outcome = outcome, .digits = bl_outcome_layout(outcome)};
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