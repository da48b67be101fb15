/* The report of a study: one HTML page that needs nothing else, neither network nor script. */
#ifndef BL_STUDY_REPORT_H
#define BL_STUDY_REPORT_H

#include "study/outcome.h"

/* Can a file be written at `path`? Asked before a study is run, not after it. BL_NOT_FOUND if its
 * folder does not exist, BL_INVALID if `path` is a folder itself, BL_IO if it may not be written.
 */
bl_status bl_report_check(const char *path);

/* Writes the page. `command` is the line that the study was started with. Where gnuplot is not
 * installed the page has tables and bars in place of its plots, and says so. */
bl_status bl_report_write(const bl_outcome *outcome, const char *command, const char *path);

#endif
