/* Is the harness honest? Many studies of the baseline against itself with other seeds, on real
 * data: a difference is found in about alpha of them, or the statistics are wrong for these data.
 * The same scores with a planted difference say how large one must be to be found.
 *
 * Everything runs in this process and nothing is stored: a calibration is thousands of small runs.
 */
#ifndef BL_STUDY_CALIBRATE_H
#define BL_STUDY_CALIBRATE_H

#include "study/job.h"
#include "study/stats.h"

typedef struct bl_calibration_options {
    const bl_plan *plan; /* study i has the study seed plan->study_seed + i */
    int studies, replicates;
    int trials; /* each study first tunes the baseline so; null shares its setting. 0: untuned */
    double alpha;
    void (*report)(void *context, int studies_done); /* may be NULL */
    void *context;
    volatile const int *stop; /* may be NULL */
} bl_calibration_options;

enum { BL_PLANTED = 6 };

typedef struct bl_calibration {
    int studies, alarms;
    int low, high;    /* the central 95 % of the binomial distribution of alarms at alpha */
    double tail;      /* chance of at least so many alarms at alpha */
    double deviation; /* of the paired differences, in the metric; over all studies */
    int64_t runs;
    double seconds; /* not deterministic */
    struct {
        double effect; /* in deviations of the paired differences */
        double power;  /* share of studies in which it is found */
        double theory; /* bl_power */
    } planted[BL_PLANTED];
} bl_calibration;

/* BL_INVALID where a run diverges: then no difference is planted of known size. */
bl_status bl_calibrate(const bl_calibration_options *options, bl_calibration *out);
/* P(X <= k) of a binomial distribution. */
double bl_binomial_cdf(int k, int n, double p);

#endif
