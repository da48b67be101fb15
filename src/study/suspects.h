/* Training labels that an arm has come to doubt, over all runs of a study. */
#ifndef BL_STUDY_SUSPECTS_H
#define BL_STUDY_SUSPECTS_H

#include "study/outcome.h"

typedef struct bl_suspected {
    int32_t example;         /* row of the data set, from 0 */
    int32_t given, believed; /* classes; given: what the run was trained on */
    int32_t truth;           /* where wrong labels were injected; else -1 */
    int runs;                /* that suspected it */
    double doubt; /* share believed minus share of the given label, summed over these runs and
                   * divided by all runs of the arm */
} bl_suspected;

typedef struct bl_suspects {
    bl_suspected
        *at; /* the most doubtful first; an example is there once for every pair of labels */
    int count;
    /* where wrong labels were injected, over all runs: suspects, those that are wrong, all wrong */
    int64_t suspected, right, wrong;
} bl_suspects;

/* Whether an arm, or a setting of one, keeps beliefs about the labels. */
bool bl_arm_doubts(const char *arm);
/* Of arm `a`; count 0 where it keeps none. Release ->at. */
bl_status bl_suspects_of(const bl_outcome *outcome, int a, bl_suspects *out);
/* All of them as CSV: arm, row, source, given, believed, doubt, runs, true. */
bl_status bl_suspects_csv(const bl_outcome *outcome, bl_text *text);

#endif
