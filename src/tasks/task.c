/* The list of tasks. */
#include "tasks/task.h"

#include <string.h>

static const bl_task *const tasks[] = {&bl_task_classification, &bl_task_regression};
enum { TASKS = sizeof tasks / sizeof *tasks };

static bl_status unknown(const char *name)
{
    const char *names[TASKS];
    for (int i = 0; i < TASKS; i++)
        names[i] = tasks[i]->name;
    const char *near = bl_nearest(name, names, TASKS);
    return bl_fail(BL_INVALID,
                   "there is no task \"%s\"%s%s%s; there are classification and regression", name,
                   near ? ": did you mean " : "", near ? near : "", near ? "?" : "");
}

bl_status bl_task_find(const char *name, const bl_dataset *d, const bl_task **out)
{
    *out = NULL;
    for (int i = 0; i < TASKS; i++)
        if (name ? !strcmp(name, tasks[i]->name) : tasks[i]->target == d->target_kind)
            *out = tasks[i];
    if (!*out && name)
        return unknown(name);
    if (!*out || (*out)->target != d->target_kind)
        return bl_fail(BL_INVALID, "%s: %s", d->name,
                       d->target_kind == BL_NO_TARGET
                           ? "nothing to predict is known; name the column with --target"
                       : d->target_kind == BL_CLASSES
                           ? "the target holds classes, which is no regression"
                           : "the target holds numbers, which is no classification");
    return BL_OK;
}

int64_t bl_epochs_for(int64_t steps, int64_t train_count, int64_t batch, int64_t least,
                      int64_t most)
{
    int64_t in_epoch = train_count > batch ? train_count / batch : 1;
    int64_t epochs = (steps + in_epoch - 1) / in_epoch;
    return epochs < least ? least : epochs > most ? most : epochs;
}
