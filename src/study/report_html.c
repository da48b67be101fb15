/* What every section of the report is written with: escaped words, numbers, names of arms, tables.
 */
#include "study/report_page.h"

#include <math.h>
#include <string.h>

/* --- words and numbers ------------------------------------------------------------------------ */
void bl_page_escaped(bl_text *text, const char *words)
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

double bl_page_scaled(const bl_page *p, double value)
{
    return value / p->digits.unit;
}

bl_interval bl_page_scaled_interval(const bl_page *p, bl_interval i)
{
    return (bl_interval){bl_page_scaled(p, i.low), bl_page_scaled(p, i.high)};
}

/* A number with a real minus; an en dash where there is none. */
void bl_page_number(bl_text *text, double value, int decimals, bool sign)
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

void bl_page_interval(bl_text *text, bl_interval i, int decimals, bool sign)
{
    if (!isfinite(i.low) || !isfinite(i.high))
        return;
    bl_text_add(text, " <small>[");
    bl_page_number(text, i.low, decimals, sign);
    bl_text_add(text, ", ");
    bl_page_number(text, i.high, decimals, sign);
    bl_text_add(text, "]</small>");
}

void bl_page_open_cell(bl_text *text, const char *label)
{
    bl_text_add(text, "<td class=\"n\" data-label=\"");
    bl_page_escaped(text, label);
    bl_text_add(text, "\">");
}

/* A cell with three significant digits. */
void bl_page_short_number(bl_text *text, double value, const char *label)
{
    bl_page_open_cell(text, label);
    if (isfinite(value))
        bl_add_short_number(text, value);
    else
        bl_text_add(text, "–");
    bl_text_add(text, "</td>");
}

/* A line may break after a bracket, a comma or a plus. */
void bl_page_breakable(bl_text *text, const char *arm)
{
    for (; *arm; arm++) {
        bl_page_escaped(text, (char[]){*arm, 0});
        if (strchr("(,+", *arm))
            bl_text_add(text, "<wbr>");
    }
}

void bl_page_arm_name(bl_text *text, const bl_arm_outcome *arm)
{
    bl_text_add(text, "<th scope=\"row\"><code>");
    bl_page_breakable(text, arm->arm);
    bl_text_add(text, "</code></th>");
}

/* The verdict's word in its colour, then what more there is to say: "(about 12 more)". */
void bl_page_verdict_mark(bl_text *text, const bl_comparison *c)
{
    char words[64];
    bl_verdict_text(c, words);
    const char *name = bl_verdict_name(c->verdict), *said = c->pairs ? name : words,
               *more = words + strlen(said);
    bl_text_add(text, "<b class=\"verdict %s\">%s</b>", name, said);
    if (*more) {
        bl_text_add(text, "<small>");
        bl_page_escaped(text, more);
        bl_text_add(text, "</small>");
    }
}

void bl_page_open_section(bl_text *text, const char *heading)
{
    bl_text_add(text, "<section>\n<h2>%s</h2>\n", heading);
}

void bl_page_close_section(bl_text *text)
{
    bl_text_add(text, "</section>\n");
}

void bl_page_open_table(bl_text *text)
{
    bl_text_add(text, "<div class=\"scroll\" tabindex=\"0\"><table>\n");
}

void bl_page_open_cards(bl_text *text)
{
    bl_text_add(text, "<div class=\"scroll\" tabindex=\"0\"><table class=\"cards\">\n");
}

void bl_page_close_table(bl_text *text)
{
    bl_text_add(text, "</table></div>\n");
}

/* The head of a table: names of columns, the first of them to the left. */
void bl_page_head(bl_text *text, const char *const *column, int columns)
{
    bl_text_add(text, "<thead><tr>");
    for (int i = 0; i < columns; i++)
        bl_text_add(text, "<th scope=\"col\">%s</th>", column[i]);
    bl_text_add(text, "</tr></thead>\n");
}
bool bl_page_did_nothing(const bl_arm_outcome *arm)
{
    return arm->runs > 0 && arm->inert == arm->runs;
}

bool bl_page_plots(const bl_page *p,
                   bl_status (*plot)(const bl_outcome *outcome, int a, bl_text *out), bl_text *text)
{
    bl_text plots = {0};
    bl_status status = p->no_plots ? BL_UNSUPPORTED : BL_OK;
    bl_text_add(&plots, "<div class=\"curves\">\n");
    for (int a = 1; a < p->outcome->arms && status == BL_OK; a++) {
        bl_text_add(&plots, "<figure><figcaption><code>");
        bl_page_escaped(&plots, p->outcome->arm[a].arm);
        bl_text_add(&plots, "</code></figcaption>\n");
        status = plot(p->outcome, a, &plots);
        bl_text_add(&plots, "</figure>\n");
    }
    bl_text_add(&plots, "</div>\n");
    if (status == BL_OK && !plots.failed)
        bl_text_add_n(text, plots.at, plots.length);
    text->failed = text->failed || plots.failed;
    bl_text_free(&plots);
    return status == BL_OK;
}
