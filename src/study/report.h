/* The report of a study, or of several: one HTML page that needs nothing else, neither network nor
 * script. */
#ifndef BL_STUDY_REPORT_H
#define BL_STUDY_REPORT_H

#include "study/tell.h"

/* Writes the page. `command` is the line that the study was started with. Where gnuplot is not
 * installed the page has tables and bars in place of its plots, and says so. */
bl_status bl_report_write(const bl_telling *telling, const char *command, const char *path);

#endif
