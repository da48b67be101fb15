/* Several data sets: does an arm help in general? Each has its own study and verdicts; over them,
 *
 *   signed-rank   over the data sets' mean gains, one number each (Demsar, JMLR 7, 2006): speaks of
 *                 data sets like these, and needs six of them
 *   IQM           the interquartile mean of all gains, data sets x replicates, with an interval
 * from resampling replicates within each data set (Agarwal et al., NeurIPS 2021, arXiv 2108.13264):
 * speaks of new runs on these data sets
 *
 * A gain is arm minus baseline over the baseline's mean, in percent, with its sign so that more is
 * better, because data sets have different units. A diverged run is worse than any gain. */
#ifndef BL_STUDY_ACROSS_H
#define BL_STUDY_ACROSS_H

#include "study/outcome.h"

typedef struct bl_across_row {
    const char *arm;
    int sets, better, worse; /* data sets: in all, with a gain, with a loss */
    double iqm;              /* percent of the baseline's mean */
    bl_interval interval;
    double p, adjusted_p; /* NaN where the test is refused */
    int direction;        /* of the sum of signed ranks: 1 better, -1 worse, 0 neither */
    bl_verdict verdict;
    char note[200]; /* why there is no p, or "" */
} bl_across_row;

typedef struct bl_across {
    int sets, rows; /* rows: the arms that every data set has */
    bl_across_row *row;
    double alpha;
} bl_across;

/* The mean of the middle half: a quarter is cut off at each end, weighing the elements it falls in.
 * Sorts x. Infinite elements may be cut off, or make it infinite or NaN. */
double bl_interquartile_mean(double *x, int n);
/* The percentile interval of the IQM of `strata` x n numbers, x[s * n + i], by `draws` resamplings
 * within each stratum. */
bl_status bl_iqm_interval(const double *x, int strata, int n, int draws, double alpha, bl_key key,
                          bl_interval *out);

/* Outcomes of one command, one a data set. bl_across_free. */
bl_status bl_across_new(const bl_outcome *const *outcome, int sets, bl_across *out);
void bl_across_free(bl_across *across);
bl_status bl_across_table(const bl_across *across, bl_text *text);
bl_status bl_across_json(const bl_across *across, json_t **out);

#endif
