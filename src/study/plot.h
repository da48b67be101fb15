/* The pictures of a study's report, drawn by gnuplot from an outcome. Each adds one <svg> element,
 * or fails as bl_gnuplot does and adds nothing; the report then shows the numbers instead. */
#ifndef BL_STUDY_PLOT_H
#define BL_STUDY_PLOT_H

#include "study/outcome.h"

/* An average learning curve of the replicates of an arm. */
typedef struct bl_mean_point {
    int64_t epoch;
    double mean, low, high; /* over the runs; one that ended before counts with its last value,
                             * one that diverged with none */
} bl_mean_point;

/* *points is to be released with bl_release; its epochs ascend. */
bl_status bl_mean_curve(const bl_outcome *outcome, const bl_arm_outcome *arm,
                        bl_mean_point **points, int *count);

/* The range of an axis that shows the differences, zero and the smallest that matters. */
bl_interval bl_difference_range(const bl_outcome *outcome);
/* The difference, positive where the arm is better. */
double bl_gain(const bl_outcome *outcome, const bl_arm_outcome *arm);

/* Differences with their intervals, an arm a line. */
bl_status bl_plot_differences(const bl_outcome *outcome, bl_text *out);
/* The learning curve of arm `a` over that of the baseline: means, and bands from the worst to the
 * best run. The vertical range is that of all arms. */
bl_status bl_plot_curve(const bl_outcome *outcome, int a, bl_text *out);
/* Expected best validation score of 1, 2, .. trials, of arm `a` over that of the baseline; only
 * where the arms were tuned. */
bl_status bl_plot_search(const bl_outcome *outcome, int a, bl_text *out);
/* What each arm gains against what a step of it costs. */
bl_status bl_plot_gain(const bl_outcome *outcome, bl_text *out);

#endif
