/* What the files of the report share. Texts that come from outside (names, paths, the command) go
 * through bl_page_escaped. Colours are the variables of the style sheet, which has them for light
 * and for dark. */
#ifndef BL_STUDY_REPORT_PAGE_H
#define BL_STUDY_REPORT_PAGE_H

#include "study/tell.h"

typedef struct bl_page {
    bl_text text;
    const bl_outcome *outcome;
    bl_layout digits;
    char *no_plots; /* why there are none, or NULL */
} bl_page;

/* --- words and numbers --- */
void bl_page_escaped(bl_text *text, const char *words);
/* In the unit of the layout. */
double bl_page_scaled(const bl_page *p, double value);
bl_interval bl_page_scaled_interval(const bl_page *p, bl_interval i);
/* A number with a real minus; an en dash where there is none. `sign`: a plus as well. */
void bl_page_number(bl_text *text, double value, int decimals, bool sign);
/* " [low, high]", or nothing where there is none. */
void bl_page_interval(bl_text *text, bl_interval i, int decimals, bool sign);
/* The name of an arm, which may break after a bracket, a comma or a plus. */
void bl_page_breakable(bl_text *text, const char *arm);
/* The verdict's word in its colour, then what more there is to say: "(about 12 more)". */
void bl_page_verdict_mark(bl_text *text, const bl_comparison *c);
bool bl_page_did_nothing(const bl_arm_outcome *arm);

/* --- sections and tables --- */
void bl_page_open_section(bl_text *text, const char *heading);
void bl_page_close_section(bl_text *text);
void bl_page_open_table(bl_text *text);
/* The same, whose rows become cards on a narrow screen, a cell a line under its label. */
void bl_page_open_cards(bl_text *text);
void bl_page_close_table(bl_text *text);
/* The head of a table: names of columns, the first of them to the left. */
void bl_page_head(bl_text *text, const char *const *column, int columns);
/* The arm as the head of a row. */
void bl_page_arm_name(bl_text *text, const bl_arm_outcome *arm);
/* A cell for a number, to be closed by </td>; and one with three significant digits. The label
 * names the column where a row is a card. */
void bl_page_open_cell(bl_text *text, const char *label);
void bl_page_short_number(bl_text *text, double value, const char *label);

/* A plot of every arm but the baseline, side by side. False, with nothing added, where they cannot
 * be drawn. */
bool bl_page_plots(const bl_page *p,
                   bl_status (*plot)(const bl_outcome *outcome, int a, bl_text *out),
                   bl_text *text);

/* --- the sections, as they follow one another --- */
void bl_report_across(const bl_telling *telling, bl_text *text); /* several data sets alone */
void bl_report_lead(const bl_page *p, bl_text *text);
void bl_report_verdicts(bl_page *p);
void bl_report_differences(bl_page *p);
void bl_report_equal_cost(bl_page *p); /* these two where the study has it */
void bl_report_screening(bl_page *p);
void bl_report_curves(bl_page *p);
void bl_report_effects(bl_page *p);
void bl_report_metrics(bl_page *p);
void bl_report_groups(bl_page *p);
void bl_report_suspects(bl_page *p); /* where an arm doubts labels */
void bl_report_gain(bl_page *p);
void bl_report_scores(bl_page *p);
void bl_report_tuning(bl_page *p);
void bl_report_reading(bl_page *p);
void bl_report_again(bl_page *p, const char *command);

#endif
