/* Tuning with the same budget for every arm, the baseline included: so many trials each, of which
 * the best setting is frozen before any test example is read.
 *
 * A trial is a setting from the arm's space (space.h), run with TUNING_SEEDS seeds that are used
 * for nothing else and scored by their mean on a held-out part of the training examples. Trials are
 * jobs of the study, in its store: workers share them, and what was killed goes on. The choice
 * follows from the stored trials alone, so it is the same whenever it is asked for. `null` is the
 * baseline with other seeds, and takes over its choice. */
#ifndef BL_STUDY_TUNE_H
#define BL_STUDY_TUNE_H

#include "study/study.h"

enum { BL_TUNING_SEEDS = 2, BL_TRIALS_MOST = 1000 };

/* What was chosen for an arm. */
struct bl_choice {
    char *arm;     /* as the user named it, canonical */
    char *setting; /* frozen: what the comparison runs */
    int trials;    /* 0: reused from a preset, or untuned */
    int chosen;    /* the trial, from 0; trial 0 is the arm as given */
    int diverged;  /* trials with a run that diverged or failed */
    double *best; /* [trials] best score among the first 1, 2, ..; NaN while all of them diverged */
    double *score;    /* [trials], NaN where it diverged */
    double *expected; /* [trials] best of 1, 2, .. of them: budget.h */
    char *edge;       /* a sentence where the best lie at an end of the searched rates; or NULL */
    double seconds;   /* spent on its trials; not deterministic */
};

typedef struct bl_tuning {
    int arms, trials;
    bool preset;       /* choices read from a file */
    bl_choice *choice; /* [arms] */
} bl_tuning;

/* Runs the trials that the store lacks and chooses. options->arm are the arms, and given[] the same
 * as the user wrote them: what they set is fixed. bl_tuning_free it, whatever is returned. */
bl_status bl_tune(const bl_study_options *options, const bl_job_data *data,
                  const char *const *given, int trials, bl_tuning *out);
void bl_tuning_free(bl_tuning *tuning);

/* Frozen choices as a file, one a data set. */
bl_status bl_preset_write(const bl_tuning *const *tuning, const bl_job_data *const *data, int count,
                          const char *path);
/* And back for the arms of another study; an arm that the file lacks is an error. A file of one
 * data set serves any data, one of several the data that it has. */
bl_status bl_preset_read(const char *path, const bl_job_data *data, const char *const *arm,
                         int arms, bl_tuning *out);

/* "lambda=1.7, learning_rate=0.021, weight_decay=3e-05": what differs from the arm's name. */
void bl_choice_text(const bl_choice *choice, bl_text *text);

#endif
