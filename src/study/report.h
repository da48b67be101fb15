/* The report: one self-contained HTML page. */
#ifndef BL_STUDY_REPORT_H
#define BL_STUDY_REPORT_H

#include "study/outcome.h"

/* Can a file be written there? Asked before the runs, not after. */
bl_status bl_report_check(const char *path);
/* Verdicts first, intervals as a forest plot, learning curves with bands, what each arm did, cost,
 * the exact command, versions, data hash, seeds. Written whole or not at all. */
bl_status bl_report_write(const bl_outcome *outcome, const char *command, const char *path);

#endif
