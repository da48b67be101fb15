/* Regression: one number; squared error on standardised targets, decided by the mean absolute error
 * in the target's own units. */
#include "tasks/task.h"

static bl_recipe recipe(const bl_dataset *d, int64_t train_count)
{
    bool images = d->kind == BL_IMAGES;
    bl_recipe r = {.model = {.name = images ? "cnn" : "mlp",
                             .width = images ? 16 : 64,
                             .depth = 2,
                             .outputs = 1},
                   .optimizer = "adamw",
                   .learning_rate = 2e-3,
                   .weight_decay = 1e-2,
                   .beta1 = 0.9,
                   .beta2 = 0.999,
                   .momentum = 0.9,
                   .epsilon = 1e-8,
                   .schedule = "cosine",
                   .step_factor = 0.1,
                   .loss = "squared"};
    r.batch = train_count < 500 ? 32 : 64;
    r.epochs = bl_epochs_for(1500, train_count, r.batch, 10, 100);
    return r;
}

const bl_task bl_task_regression = {.name = "regression",
                                    .target = BL_VALUES,
                                    .metric = "mae",
                                    .higher_is_better = false,
                                    .recipe = recipe};
