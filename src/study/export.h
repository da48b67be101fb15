/* An outcome in other people's formats. */
#ifndef BL_STUDY_EXPORT_H
#define BL_STUDY_EXPORT_H

#include "study/across.h"
#include "study/store.h"

/* One line an arm, RFC 4180; rows at equal cost follow with "equal cost" in the column `kind`, arms
 * that were screened out with "screened out". Empty cells where there is no number. */
bl_status bl_outcome_csv(const bl_outcome *outcome, bl_text *text);
/* Its parts: the line of names, where the mean's column has the metric's name or another; and the
 * lines, `with_data` after the name of the data set and the metric. */
void bl_csv_head(const char *first, const char *mean, bl_text *text);
bl_status bl_csv_rows(const bl_outcome *outcome, bool with_data, bl_text *text);
/* Lines of the kind "over data sets" in that form: the difference is the gain. */
bl_status bl_across_csv(const bl_across *across, bl_text *text);

/* A table environment for booktabs; its caption is the data set's name and the footer. */
bl_status bl_outcome_latex(const bl_outcome *outcome, bl_text *text);
bl_status bl_across_latex(const bl_across *across, bl_text *text);

/* Every job of a stored study: as lines of CSV, or as a JSON list. */
bl_status bl_export_csv(bl_store *store, int64_t study, bl_text *text);
bl_status bl_export_json(bl_store *store, int64_t study, bl_text *text);

/* What tuning chose in stored studies, as a file for compare --preset: where an arm was tuned by
 * several numbers of trials, by the most. BL_INVALID where nothing was tuned. */
bl_status bl_export_presets(bl_store *store, const int64_t *study, int count, bl_text *text);

#endif
