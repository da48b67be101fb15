/* A study: arms x replicates of one plan, run by workers, kept in a store, ended or resumed at any
 * moment, and read back as an outcome. */
#ifndef BL_STUDY_STUDY_H
#define BL_STUDY_STUDY_H

#include "study/job.h"

typedef struct bl_study_progress {
    int done, failed, total;
    double doing;    /* parts of runs in flight, summed */
    double seconds;  /* since the start */
    int done_before; /* found in the store */
} bl_study_progress;

typedef struct bl_choice bl_choice; /* study/tune.h */
typedef struct bl_store bl_store;   /* study/store.h */
typedef struct bl_ranks bl_ranks;   /* study/ranks.h */

typedef struct bl_study_options {
    const bl_plan *plan;
    const char *const *arm;        /* canonical arms or settings; the baseline first */
    const bl_choice *choice;       /* [arms]: which arms they are settings of; NULL: untuned */
    int arms, replicates, workers; /* of every rank */
    bl_ranks *ranks;               /* NULL: this machine alone */
    double patience;               /* seconds that a worker may be silent over a run; 0: 600 */
    int screened;                  /* arms that a screening left out (study/screen.h) */
    const char *store;             /* path */
    bool fresh;                    /* forget what the store has of this plan */
    const char *const *worker;     /* argv of a worker, NULL-terminated */
    void (*start)(void *context);  /* once, when the store is open and work begins; may be NULL */
    void (*report)(void *context, const bl_study_progress *progress); /* often; may be NULL */
    void *context;
    volatile const int *stop; /* non-zero: stop now, keep what is done, BL_INTERRUPTED */
} bl_study_options;

/* Runs what the store lacks. A worker that dies is replaced and its job tried three times in all;
 * then the job is marked failed, with the reason, and the others go on. */
bl_status bl_study_run(const bl_study_options *options, const bl_job_data *data);

/* The stored results: result[arms * replicates], arm by arm, NULL where a run failed; error[arms]
 * says why the first such run of an arm did (bl_release it). Both come in filled with NULL; what
 * was read before an error is the caller's to free. */
bl_status bl_study_results(const bl_study_options *options, const bl_job_data *data,
                           json_t **result, char **error);

/* Opens the store and finds the study of a plan in it; bl_store_close it. */
bl_status bl_study_open(const bl_study_options *options, const bl_job_data *data, bool fresh,
                        bl_store **store, int64_t *study);

/* Runs what the store lacks and reads back score[arms * replicates], the primary metric: NaN where
 * a run diverged or failed. seconds[arms], or NULL, gets what the runs of each took, summed; it is
 * not deterministic. */
bl_status bl_study_scores(const bl_study_options *options, const bl_job_data *data, double *score,
                          double *seconds);
/* How many arms the correction for many counts, of which `compared` have a verdict. */
int bl_study_family(const bl_study_options *options, const bl_job_data *data, int compared);
/* The metric of a stored result; NaN for NULL and where the run diverged. */
double bl_score_of(const json_t *result, const char *metric);

#endif
