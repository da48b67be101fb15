/* Flags into a plan. A flag that is added here works in every command that trains. */
#include "plan_options.h"

#include <math.h>
#include <string.h>

#include "base/base.h"
#include "study/tune.h"

void cli_plan_declare(cli_plan *p)
{
    *p = (cli_plan){.seed = 1, .learning_rate = -1, .weight_decay = -1, .momentum = -1};
    const cli_option table[] = {
        {.name = "", .text = "Data"},
        {.name = "target",
         .kind = CLI_TEXT,
         .value = &p->target,
         .argument = "COLUMN",
         .text = "the column to predict (CSV)"},
        {.name = "type",
         .kind = CLI_TEXTS,
         .value = &p->types,
         .argument = "COL=KIND",
         .text = "read a column as numeric or categorical, or drop it; may be repeated"},
        {.name = "keep-columns",
         .kind = CLI_FLAG,
         .value = &p->keep_columns,
         .text = "do not drop constant columns and identifiers"},
        {.name = "labels",
         .kind = CLI_TEXT,
         .value = &p->labels,
         .argument = "FILE",
         .text = "labels of IDX or NPY inputs, where they are not beside them"},
        {.name = "test",
         .kind = CLI_TEXT,
         .value = &p->test,
         .argument = "FILE",
         .text = "a fixed test set; without one every replicate splits the data anew"},
        {.name = "test-share",
         .kind = CLI_NUMBER,
         .value = &p->test_share,
         .argument = "SHARE",
         .text = "tested share of each split (default 0.2)",
         .low = 0.01,
         .high = 0.9},
        {.name = "fixed-split",
         .kind = CLI_FLAG,
         .value = &p->fixed_split,
         .text = "one split for all: its test part is unseen while arms are tuned, and the verdict "
                 "is on it alone"},
        {.name = "train",
         .kind = CLI_INTEGER,
         .value = &p->train,
         .argument = "N",
         .text = "train on N examples only, drawn anew in every replicate",
         .low = 2,
         .high = INFINITY},
        {.name = "label-noise",
         .kind = CLI_TEXT,
         .value = &p->noise,
         .argument = "NOISE",
         .text = "spoil training labels: 0.4 (that share gets a class drawn from all), other:0.4 "
                 "(another "
                 "class), pairs:0.4:cat<->dog,truck->car"},
        {.name = "imbalance",
         .kind = CLI_NUMBER,
         .value = &p->imbalance,
         .argument = "RATIO",
         .text = "thin out classes until the first is RATIO times the last",
         .low = 1,
         .high = INFINITY},
        {.name = "", .text = "Training (default: the task's recipe for data of this shape)"},
        {.name = "task",
         .kind = CLI_TEXT,
         .value = &p->task,
         .argument = "TASK",
         .text = "classification or regression, where the target leaves it open"},
        {.name = "model",
         .kind = CLI_TEXT,
         .value = &p->model,
         .argument = "NAME",
         .text = "linear, mlp, cnn or resnet20"},
        {.name = "width",
         .kind = CLI_INTEGER,
         .value = &p->width,
         .argument = "N",
         .text = "of the hidden layers",
         .low = 1,
         .high = 65536},
        {.name = "depth",
         .kind = CLI_INTEGER,
         .value = &p->depth,
         .argument = "N",
         .text = "number of hidden layers",
         .low = 1,
         .high = 64},
        {.name = "loss",
         .kind = CLI_TEXT,
         .value = &p->loss,
         .argument = "NAME",
         .text = "cross_entropy; squared or absolute in regression"},
        {.name = "optimizer",
         .kind = CLI_TEXT,
         .value = &p->optimizer,
         .argument = "NAME",
         .text = "sgd, adam or adamw"},
        {.name = "learning-rate",
         .kind = CLI_NUMBER,
         .value = &p->learning_rate,
         .argument = "RATE",
         .text = "at the start of the schedule",
         .low = 1e-12,
         .high = 1e6},
        {.name = "momentum",
         .kind = CLI_NUMBER,
         .value = &p->momentum,
         .argument = "SHARE",
         .text = "of sgd",
         .low = 0,
         .high = 0.9999},
        {.name = "weight-decay",
         .kind = CLI_NUMBER,
         .value = &p->weight_decay,
         .argument = "DECAY",
         .text = "of weights, not of biases",
         .low = 0,
         .high = 1e6},
        {.name = "schedule",
         .kind = CLI_TEXT,
         .value = &p->schedule,
         .argument = "NAME",
         .text = "constant, step, cosine or one_cycle"},
        {.name = "epochs",
         .kind = CLI_INTEGER,
         .value = &p->epochs,
         .argument = "N",
         .text = "passes over the training data",
         .low = 1,
         .high = 1e6},
        {.name = "batch",
         .kind = CLI_INTEGER,
         .value = &p->batch,
         .argument = "N",
         .text = "examples in a step",
         .low = 1,
         .high = 1e6},
        {.name = "study-seed",
         .kind = CLI_INTEGER,
         .value = &p->seed,
         .argument = "N",
         .text = "of everything random (default 1)",
         .low = 0,
         .high = 9e15},
        {0},
    };
    _Static_assert(sizeof table <= sizeof p->options, "the table must fit");
    memcpy(p->options, table, sizeof table);
}

cli_option cli_trials_option(int64_t *trials, const char *text)
{
    return (cli_option){.name = "trials",
                        .kind = CLI_INTEGER,
                        .value = trials,
                        .argument = "N",
                        .text = text,
                        .low = 0,
                        .high = BL_TRIALS_MOST};
}

cli_option cli_alpha_option(double *alpha, const char *text)
{
    return (cli_option){.name = "alpha",
                        .kind = CLI_NUMBER,
                        .value = alpha,
                        .argument = "P",
                        .text = text,
                        .low = 1e-6,
                        .high = 0.5};
}

static bool copy(const char *from, char **to)
{
    *to = from ? bl_copy_text(from) : NULL;
    return !from || *to;
}

/* "--type a=numeric --type b=drop" as one list. */
static char *joined(const cli_texts *texts)
{
    bl_text all = {0};
    for (int i = 0; i < texts->count; i++)
        bl_text_add(&all, "%s%s", i ? "," : "", texts->at[i]);
    char *copied = all.failed ? NULL : bl_copy_text(all.at);
    bl_text_free(&all);
    return copied;
}

bl_status cli_plan_make(const cli_plan *f, const char *data, bl_plan *plan)
{
    *plan = bl_plan_new();
    bool copied = copy(data, &plan->data) && copy(f->target, &plan->target) &&
                  copy(f->labels, &plan->labels) && copy(f->test, &plan->test) &&
                  copy(f->task, &plan->task) && copy(f->noise, &plan->label_noise) &&
                  copy(f->model, &plan->model) && copy(f->optimizer, &plan->optimizer) &&
                  copy(f->schedule, &plan->schedule) && copy(f->loss, &plan->loss) &&
                  (!f->types.count || (plan->columns = joined(&f->types)));
    if (!copied) {
        bl_plan_free(plan);
        return bl_no_memory(0);
    }
    plan->keep_columns = f->keep_columns;
    plan->fixed_split = f->fixed_split;
    plan->train_count = f->train;
    plan->test_fraction = f->test_share;
    plan->imbalance = f->imbalance;
    plan->study_seed = (uint64_t)f->seed;
    plan->learning_rate = f->learning_rate;
    plan->weight_decay = f->weight_decay;
    plan->momentum = f->momentum;
    if (f->epochs)
        plan->epochs = f->epochs;
    if (f->batch)
        plan->batch = f->batch;
    if (f->width)
        plan->width = f->width;
    if (f->depth)
        plan->depth = f->depth;
    return BL_OK;
}
