/* Screening: with more than five arms the study is spent on those that may help.
 *
 * Paired halving: in each round every arm left, and the baseline, runs a few more screening
 * replicates, scored on a held-out part of the training examples; the better half by mean paired
 * difference goes on, until five are left. These are then compared on replicates that no screening
 * has used, so that having won a round is no evidence. An arm that left has no verdict, and does
 * not count in the correction for many arms, but on re-splits: bl_study_family. */
#ifndef BL_STUDY_SCREEN_H
#define BL_STUDY_SCREEN_H

#include "study/study.h"

enum { BL_SCREEN_KEEP = 5, BL_SCREEN_PAIRS = 4 /* more in every round */ };

typedef struct bl_screened {
    char *arm;
    int round;         /* in which it left, from 1; 0: it is in the study */
    int pairs;         /* that it ran */
    double difference; /* mean, in units of the metric; NaN where a run diverged or failed */
    bool inert;        /* it left, and had done nothing in any of its runs: an error */
} bl_screened;

typedef struct bl_screening {
    int arms, rounds; /* without the baseline; no rounds: there was nothing to screen */
    bl_screened *arm; /* in the order they were given */
} bl_screening;

/* Scores of `arms` arms by their numbers, the baseline (0) first, in `pairs` replicates:
 * score[arms * pairs]. */
typedef bl_status bl_screen_source(void *context, const int *arm, int arms, int pairs,
                                   double *score);

/* The rounds themselves, with scores from anywhere: out->arm[].arm is left NULL. bl_screening_free
 * it, whatever is returned. */
bl_status bl_screen_rounds(int arms, bool higher_is_better, bl_screen_source *source, void *context,
                           bl_screening *out);

/* Runs the rounds that the store lacks. options->arm are settings, the baseline first, and name[]
 * what they are called. bl_screening_free it, whatever is returned. */
bl_status bl_screen(const bl_study_options *options, const bl_job_data *data,
                    const char *const *name, bl_screening *out);
void bl_screening_free(bl_screening *screening);

#endif
