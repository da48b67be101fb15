/* The plan of a study: plain data that survives as JSON, so that a worker anywhere does the same.
 */
#ifndef BL_STUDY_PLAN_H
#define BL_STUDY_PLAN_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "ballast/status.h"

/* What is common to the runs of a study. Text fields are owned; bl_plan_free. 0 or NULL: chosen by
 * the task. */
typedef struct bl_plan {
    char *data;   /* name or path, as bl_dataset_open takes it */
    char *target; /* these four as in bl_data_options */
    char *columns, *labels, *test;
    bool keep_columns;
    char *task;          /* "classification", "regression"; NULL: by the data */
    int64_t train_count; /* subsample of the training part; 0: all */
    bool fixed_split; /* one split for all replicates and trials, so that the test part stays unseen
                       * until the comparison; results speak of it alone */
    double test_fraction; /* of re-splits, where there is no fixed test part; 0: 0.2 */
    char *label_noise;    /* of the training part, as bl_noise_parse reads it: "0.4", "pairs:.." */
    double imbalance;     /* first over last class, as bl_imbalance; 0: as it is */
    uint64_t study_seed;
    /* overrides of the task's recipe; negative or NULL: not given. Start from bl_plan_new. */
    char *model, *optimizer, *schedule, *loss;
    double learning_rate, weight_decay, momentum;
    int64_t epochs, batch, width, depth;
} bl_plan;

/* A plan with nothing chosen: every override not given. */
bl_plan bl_plan_new(void);

/* The plan as canonical JSON (sorted keys, exact numbers) and back: workers receive it as text. */
json_t *bl_plan_to_json(const bl_plan *plan);
bl_status bl_plan_from_json(const json_t *json, bl_plan *plan);
void bl_plan_free(bl_plan *plan);

#endif
