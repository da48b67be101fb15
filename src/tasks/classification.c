/* Classification: cross-entropy, decided by accuracy. */
#include "tasks/task.h"

#include <string.h>

static bl_recipe step_schedule(const char *model, int64_t width, int64_t depth)
{
    return (bl_recipe){.model = {.name = model, .width = width, .depth = depth},
                       .optimizer = "sgd",
                       .momentum = 0.9,
                       .beta1 = 0.9,
                       .beta2 = 0.999,
                       .epsilon = 1e-8,
                       .schedule = "step",
                       .step_at = {0.6, 0.85},
                       .step_factor = 0.1,
                       .loss = "cross_entropy"};
}

/* Small images, such as 8x8 digits: a run is a second or less. */
static bl_recipe tiny_images(int64_t train_count)
{
    bl_recipe r = step_schedule("mlp", 128, 2);
    r.learning_rate = 0.05;
    r.weight_decay = 1e-4;
    r.batch = train_count < 500 ? 32 : 64;
    r.epochs = bl_epochs_for(900, train_count, r.batch, 10, 100);
    return r;
}

/* Grey images such as Fashion-MNIST: the recipe of spec 08. */
static bl_recipe grey_images(int64_t train_count)
{
    bl_recipe r = step_schedule("mlp", 512, 2);
    r.learning_rate = 0.02;
    r.weight_decay = 1e-3;
    r.batch = train_count < 2000 ? 64 : 128;
    r.epochs = bl_epochs_for(3100, train_count, r.batch, 8, 60);
    return r;
}

static bl_recipe colour_images(int64_t train_count)
{
    bl_recipe r = step_schedule("cnn", 16, 1);
    r.learning_rate = 0.05;
    r.weight_decay = 5e-4;
    r.batch = train_count < 2000 ? 64 : 128;
    r.epochs = bl_epochs_for(1500, train_count, r.batch, 8, 60);
    strcpy(r.schedule, "cosine");
    return r;
}

static bl_recipe table(int64_t train_count)
{
    bl_recipe r = step_schedule("mlp", 64, 2);
    strcpy(r.optimizer, "adamw");
    strcpy(r.schedule, "cosine");
    r.learning_rate = 2e-3;
    r.weight_decay = 1e-2;
    r.batch = train_count < 500 ? 32 : 64;
    r.epochs = bl_epochs_for(1500, train_count, r.batch, 10, 100);
    return r;
}

static bl_recipe recipe(const bl_dataset *d, int64_t train_count)
{
    bl_recipe r;
    if (d->kind != BL_IMAGES)
        r = table(train_count);
    else if (d->inputs.type.shape.dim[3] > 1)
        r = colour_images(train_count);
    else if (d->inputs.type.shape.dim[1] * d->inputs.type.shape.dim[2] <= 256)
        r = tiny_images(train_count);
    else
        r = grey_images(train_count);
    r.model.outputs = d->classes;
    return r;
}

const bl_task bl_task_classification = {.name = "classification",
                                        .target = BL_CLASSES,
                                        .metric = "accuracy",
                                        .higher_is_better = true,
                                        .recipe = recipe};
