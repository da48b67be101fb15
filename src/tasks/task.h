/* A task is what a user has: a kind of target, with a default model and recipe chosen by the shape
 * of the data, a loss, and the metric that decides.
 *
 * To add one: a file that defines a bl_task, and its line in task.c. */
#ifndef BL_TASKS_TASK_H
#define BL_TASKS_TASK_H

#include "ballast/data.h"
#include "train/train.h"

typedef struct bl_task {
    const char *name;
    bl_target_kind target; /* what the data's target must be */
    const char *metric;    /* that verdicts are about, as train's metrics name it */
    bool higher_is_better;
    /* `train_count`: examples trained on; a recipe for them, everything set. */
    bl_recipe (*recipe)(const bl_dataset *d, int64_t train_count);
} bl_task;

extern const bl_task bl_task_classification, bl_task_regression;

/* By name, or by the data's target where name is NULL. Errors: unknown name (with the nearest); a
 * task that does not fit the target. */
bl_status bl_task_find(const char *name, const bl_dataset *d, const bl_task **out);

/* Steps in all are kept near `steps`: epochs for that, within [least, most]. */
int64_t bl_epochs_for(int64_t steps, int64_t train_count, int64_t batch, int64_t least,
                      int64_t most);

#endif
