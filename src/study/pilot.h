/* How many replicates a study needs to see the smallest effect that matters.
 *
 * Five pilot replicates of every arm, with seeds of their own, say how much paired differences
 * vary; the study then has as many as show `min_effect` with 80 % power at the level that Holm's
 * correction leaves in the worst case, between 6 and 30. That five pilots know the spread badly is
 * reckoned with: the power is 80 % on average over what it may be (bl_power_after_pilots). The
 * pilots' differences decide nothing and the pilots are dropped: kept, they would give 6.7 % false
 * alarms instead of 5. */
#ifndef BL_STUDY_PILOT_H
#define BL_STUDY_PILOT_H

#include "study/study.h"

enum { BL_PILOT_PAIRS = 5, BL_PLANNED_LEAST = 6, BL_PLANNED_MOST = 30 };

typedef struct bl_pilot {
    int planned;       /* replicates of the study; 0: there was no pilot */
    int needed;        /* the same before the limits; -1: no number of replicates will do, or a
                        * pilot diverged so that the spread is not known */
    bool capped;       /* more than BL_PLANNED_MOST would be needed */
    int family;        /* arms that the correction counts */
    double deviation;  /* the largest standard deviation of an arm's paired differences */
    double min_effect; /* in units of the metric, as is: */
    double detectable; /* the smallest effect that `planned` replicates show with 80 % power */
} bl_pilot;

/* Runs the pilots that the store lacks. options->arm are settings, the baseline first. */
bl_status bl_plan_replicates(const bl_study_options *options, const bl_job_data *data, double alpha,
                             double min_effect, bl_pilot *out);

/* The plan for pilot scores [arms * pairs], arm by arm, the baseline first: what the above does
 * with what it ran. `ratio` as in stats.h; the correction is for `family` arms. */
bl_status bl_plan_from(const double *score, int arms, int pairs, int family, double ratio,
                       double alpha, double min_effect, bl_pilot *out);

#endif
