/* An outcome in other people's formats. */
#ifndef BL_STUDY_EXPORT_H
#define BL_STUDY_EXPORT_H

#include "study/outcome.h"
#include "study/store.h"

/* One line an arm, RFC 4180; rows at equal cost follow with "equal cost" in the column `kind`, arms
 * that were screened out with "screened out". Empty cells where there is no number. */
bl_status bl_outcome_csv(const bl_outcome *outcome, bl_text *text);
/* A table environment for booktabs, with the footer as its caption. */
bl_status bl_outcome_latex(const bl_outcome *outcome, bl_text *text);

/* Every job of a stored study: as lines of CSV, or as a JSON list. */
bl_status bl_export_csv(bl_store *store, int64_t study, bl_text *text);
bl_status bl_export_json(bl_store *store, int64_t study, bl_text *text);

#endif
