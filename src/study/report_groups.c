/* The report, part of the runs: for whom an arm is better, and whose labels it doubts. */
#include "study/report_page.h"

#include "study/suspects.h"

/* --- groups ----------------------------------------------------------------------------------- */
enum { GROUPS_SHOWN = 24 }; /* more are folded away */

static void group_row(const bl_page *p, int group, bl_text *text)
{
    const bl_outcome *o = p->outcome;
    const bl_group_outcome *baseline = &o->arm[0].group[group];
    bl_text_add(text, "<tr><th scope=\"row\">");
    bl_page_escaped(text, bl_group_name(o, group));
    bl_text_add(text, "</th>");
    bl_page_short_number(text, baseline->count, "test examples");
    bl_page_open_cell(text, "baseline");
    bl_page_number(text, bl_page_scaled(p, baseline->mean), p->digits.mean, false);
    bl_text_add(text, "</td>");
    for (int a = 1; a < o->arms; a++) {
        const bl_group_outcome *g = &o->arm[a].group[group];
        bl_page_open_cell(text, o->arm[a].arm);
        bl_page_number(text, bl_page_scaled(p, g->difference), p->digits.difference, true);
        bl_page_interval(text, bl_page_scaled_interval(p, g->interval), p->digits.difference, true);
        bl_text_add(text, "</td>");
    }
    bl_text_add(text, "</tr>\n");
}

static void group_table(const bl_page *p, int groups, bl_text *text)
{
    const bl_outcome *o = p->outcome;
    bl_page_open_cards(text);
    bl_text_add(text,
                "<thead><tr><th scope=\"col\">%s</th><th scope=\"col\">test examples</th>"
                "<th scope=\"col\">baseline</th>",
                o->higher_is_better ? "class" : "a third of the test labels");
    for (int a = 1; a < o->arms; a++) {
        bl_text_add(text, "<th scope=\"col\"><code>");
        bl_page_breakable(text, o->arm[a].arm);
        bl_text_add(text, "</code></th>");
    }
    bl_text_add(text, "</tr></thead>\n<tbody>\n");
    for (int g = 0; g < groups; g++)
        group_row(p, g, text);
    bl_text_add(text, "</tbody>");
    bl_page_close_table(text);
}

void bl_report_groups(bl_page *p)
{
    const bl_outcome *o = p->outcome;
    bl_text *text = &p->text;
    bool classes = bl_job_class(o->data, 0) != NULL;
    int groups = o->groups;
    if (!groups)
        return;
    bl_page_open_section(text, classes ? "Accuracy by class" : "Error by density of labels");
    if (groups > GROUPS_SHOWN)
        bl_text_add(text, "<details><summary>All %d classes</summary>\n", groups);
    group_table(p, groups, text);
    if (groups > GROUPS_SHOWN)
        bl_text_add(text, "</details>\n");
    bl_text_add(text,
                "<p class=\"note\">The baseline's mean %s in each group, and the differences of "
                "the arms from it with %.4g %% intervals. %sExploratory: no interval here is "
                "corrected for the number of groups and arms, so that about one in %.0f misses the "
                "true difference by chance alone; the verdicts are on all test examples "
                "together.</p>\n",
                classes ? "accuracy in percent" : "absolute error", 100 * (1 - o->alpha),
                classes ? "" : "Groups are by how many training labels lie near a test label. ",
                1 / o->alpha);
    bl_page_close_section(text);
}

/* --- suspects --------------------------------------------------------------------------------- */
enum { SUSPECTS_SHOWN = 20 };

static void class_cell(const bl_page *p, const char *label, int32_t class, bl_text *text)
{
    bl_text_add(text, "<td data-label=\"%s\">", label);
    bl_page_escaped(text, bl_job_class(p->outcome->data, class));
    bl_text_add(text, "</td>");
}

static void suspect_row(const bl_page *p, const bl_suspected *s, bl_text *text)
{
    const char *source = bl_job_example(p->outcome->data, s->example);
    bl_text_add(text, "<tr><th scope=\"row\">");
    if (source)
        bl_page_breakable(text, source);
    else
        bl_text_add(text, "row %d", s->example);
    bl_text_add(text, "</th>");
    class_cell(p, "given", s->given, text);
    class_cell(p, "believed", s->believed, text);
    if (s->truth >= 0)
        class_cell(p, "true", s->truth, text);
    bl_page_short_number(text, s->doubt, "doubt");
    bl_text_add(text, "<td class=\"n\" data-label=\"runs\">%d</td></tr>\n", s->runs);
}

static void suspect_table(const bl_page *p, const bl_suspects *s, bl_text *text)
{
    bool known = s->at[0].truth >= 0;
    bl_page_open_table(text);
    bl_text_add(text,
                "<thead><tr><th scope=\"col\">example</th><th scope=\"col\">given</th>"
                "<th scope=\"col\">believed</th>%s<th scope=\"col\">doubt</th>"
                "<th scope=\"col\">runs</th></tr></thead>\n<tbody>\n",
                known ? "<th scope=\"col\">true</th>" : "");
    for (int i = 0; i < s->count && i < SUSPECTS_SHOWN; i++)
        suspect_row(p, &s->at[i], text);
    bl_text_add(text, "</tbody>");
    bl_page_close_table(text);
}

static void suspects_of(const bl_page *p, int a, const bl_suspects *s, bl_text *text)
{
    const bl_arm_outcome *arm = &p->outcome->arm[a];
    bl_page_open_section(text, "Suspect labels");
    bl_text_add(text, "<p><code>");
    bl_page_breakable(text, arm->arm);
    bl_text_add(text,
                "</code> came to believe another class than the given one in %d cases; these are "
                "the %d it doubts most. --suspects FILE writes all of them.",
                s->count, s->count < SUSPECTS_SHOWN ? s->count : SUSPECTS_SHOWN);
    if (s->suspected && s->wrong)
        bl_text_add(text,
                    " Labels were spoiled on purpose here, in each run others: %.0f %% of its "
                    "suspects are wrong, and they are %.0f %% of all wrong labels.",
                    100 * (double)s->right / (double)s->suspected,
                    100 * (double)s->right / (double)s->wrong);
    bl_text_add(text, "</p>\n");
    suspect_table(p, s, text);
    bl_text_add(text,
                "<p class=\"note\">Doubt: the share it gives to the class believed minus that of "
                "the class given, added up over the runs that suspected it, out of %d; a run "
                "trains on a part of the examples. A suspect is a label to look at, not an error."
                "</p>\n",
                arm->runs);
    bl_page_close_section(text);
}

void bl_report_suspects(bl_page *p)
{
    for (int a = 0; a < p->outcome->arms; a++) {
        bl_suspects s;
        if (bl_suspects_of(p->outcome, a, &s) != BL_OK)
            p->text.failed = true;
        if (s.count)
            suspects_of(p, a, &s, &p->text);
        bl_release(s.at);
    }
}
