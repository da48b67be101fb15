/* The flags that say which data and which training: shared by compare and train. */
#ifndef CLI_PLAN_OPTIONS_H
#define CLI_PLAN_OPTIONS_H

#include "cli.h"
#include "study/job.h"

/* Where the flags go before they become a plan. */
typedef struct cli_plan {
    const char *target, *labels, *test, *task, *noise, *model, *optimizer, *schedule, *loss;
    cli_texts types;
    bool keep_columns, fixed_split;
    int64_t train, seed, epochs, batch, width, depth;
    double test_share, imbalance, learning_rate, weight_decay, momentum;
    cli_option options[32]; /* the table, pointing into this struct */
} cli_plan;

/* Options that studies of every kind have; what they are of, and the default, is the caller's. */
cli_option cli_trials_option(int64_t *trials, const char *text);
cli_option cli_alpha_option(double *alpha, const char *text);

/* Fills the table; call it before cli_parse with plan->options. */
void cli_plan_declare(cli_plan *plan);
/* The plan for `data`; bl_plan_free it. */
bl_status cli_plan_make(const cli_plan *flags, const char *data, bl_plan *plan);

#endif
