/* Several data sets: what they say together, and where each is on the page. */
#include "study/report_page.h"

#include <math.h>
#include <string.h>

/* "sam helps", "no arm helps or hurts over 7 data sets". */
static void headline(const bl_across *a, bl_text *text)
{
    bool any = false;
    bl_text_add(text, "<h1>");
    for (int i = 0; i < a->rows; i++) {
        const bl_across_row *row = &a->row[i];
        if (row->verdict != BL_HELPS && row->verdict != BL_HURTS)
            continue;
        const char *name = bl_verdict_name(row->verdict);
        bl_text_add(text, "%s<span class=\"%s\">", any ? ", " : "", name);
        bl_page_escaped(text, row->arm);
        bl_text_add(text, " %s</span>", name);
        any = true;
    }
    bl_text_add(text, "%s over %d data sets</h1>\n", any ? "" : "Nothing is decided", a->sets);
}

static void list_sets(const bl_telling *t, bl_text *text)
{
    bl_text_add(text, "<ul>\n");
    for (int i = 0; i < t->count; i++) {
        bl_text_add(text, "<li><a href='#data-%d'>", i + 1);
        bl_page_escaped(text, t->outcome[i]->plan->data ? t->outcome[i]->plan->data : "?");
        bl_text_add(text, "</a></li>\n");
    }
    bl_text_add(text, "</ul>\n");
}

static void row_of(const bl_across_row *row, bl_text *text)
{
    const char *name = bl_verdict_name(row->verdict);
    bl_text_add(text, "<tr><th scope=\"row\">");
    bl_page_breakable(text, row->arm);
    bl_text_add(text,
                "</th><td class=\"said\"><b class=\"verdict %s\">%s</b></td><td class=\"n\">%d of "
                "%d</td><td class=\"n\">",
                name, name, row->better, row->sets);
    bl_page_number(text, row->iqm, 2, true);
    bl_page_interval(text, row->interval, 2, true);
    bl_text_add(text, "</td><td class=\"n\">");
    bl_page_number(text, row->adjusted_p, 3, false);
    bl_text_add(text, "</td></tr>\n");
}

static void notes(const bl_across *a, bl_text *text)
{
    bl_text_add(text, "<ul class=\"notes\">");
    for (int i = 0; i < a->rows; i++)
        if (*a->row[i].note) {
            bl_text_add(text, "<li>");
            bl_page_escaped(text, a->row[i].arm);
            bl_text_add(text, ": ");
            bl_page_escaped(text, a->row[i].note);
            bl_text_add(text, "</li>");
        }
    bl_text_add(text, "</ul>\n");
}

void bl_report_across(const bl_telling *t, bl_text *text)
{
    const bl_across *a = &t->across;
    headline(a, text);
    bl_text_add(text, "<p class=\"lead\">Each data set has a study of its own below:</p>\n");
    list_sets(t, text);
    bl_page_open_section(text, "Over the data sets");
    bl_page_open_table(text);
    bl_text_add(text, "<thead><tr><th>arm</th><th>verdict</th><th class=\"n\">better</th>"
                      "<th class=\"n\">gain, %% of the baseline</th>"
                      "<th class=\"n\">p, corrected</th></tr></thead>\n<tbody>\n");
    for (int i = 0; i < a->rows; i++)
        row_of(&a->row[i], text);
    bl_text_add(text, "</tbody>");
    bl_page_close_table(text);
    notes(a, text);
    if (!a->rows)
        bl_text_add(text, "<p class=\"note\">No arm has all its runs on every data set.</p>\n");
    bl_text_add(text,
                "<p class=\"note\">Gain: interquartile mean over data sets and replicates, with "
                "its %g %% interval by resampling replicates within each data set: it speaks of "
                "new runs on these data sets. p: signed-rank over the data sets' means, Holm over "
                "%d arm%s: it speaks of data sets like these, and needs six of them.</p>\n",
                100 * (1 - a->alpha), a->rows, a->rows == 1 ? "" : "s");
    bl_page_close_section(text);
}
