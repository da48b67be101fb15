/* One data set of ballast compare: its arms, and all that is run for them, in order: tuning,
 * screening, planning, the comparison, the rows at equal cost. What a command does with the
 * outcomes is in compare.c. */
#ifndef CLI_COMPARISON_H
#define CLI_COMPARISON_H

#include "cli.h"
#include "plan_options.h"
#include "study/outcome.h"
#include "study/ranks.h"

typedef struct cli_compare_flags {
    cli_plan plan;
    cli_texts arms;
    int64_t workers, trials;
    double alpha, min_effect, patience;
    const char *seeds, *store, *html, *preset, *save_preset, *name, *suspects;
    const char *command; /* as the user gave it */
    int replicates;      /* of seeds; 0: planned by pilots */
    bl_ranks *ranks;     /* under mpirun */
    bool json, csv, latex, fresh, no_screen, no_equal_cost;
} cli_compare_flags;

/* The canonical texts of the arms: the baseline first, none twice. */
typedef struct cli_arms {
    char *at[CLI_TEXTS_MAX + 1];
    const char *given[CLI_TEXTS_MAX + 1]; /* as the user wrote them */
    int count;
} cli_arms;

/* A data set with its study; the outcome borrows from all of it. */
typedef struct cli_comparison {
    bl_plan plan;
    bl_job_data *data;
    cli_arms arms;
    bl_tuning tuning;
    bl_screening screening;
    bl_pilot pilot;
    const char **setting, **name; /* of the arms that are run; what they are called */
    bl_choice *choice;            /* of these arms; borrowed from the tuning */
    bl_outcome outcome;
} cli_comparison;

/* What all studies of a command share. */
typedef struct cli_compare_shared {
    char program[4096];
    const char *worker[3], *store;
} cli_compare_shared;

typedef struct cli_compare_meter {
    const bl_job_data *data;
    const char *what; /* "runs", "trial runs" */
    bool terminal;
    double last; /* second of the last line in a pipe */
} cli_compare_meter;

/* Reads the data and checks the arms, so that all that is wrong is said before any run; close it
 * also after an error. */
bl_status cli_comparison_open(const cli_compare_flags *f, const char *path, cli_comparison *c);
void cli_comparison_close(cli_comparison *c);
/* Everything up to the outcome of all[i]; those before it have been run. */
bl_status cli_comparison_run(const cli_compare_flags *f, const cli_compare_shared *shared,
                             cli_comparison *all, int i);
/* The options of a study of all arms; the meter is what its reports go to. */
bl_study_options cli_comparison_options(const cli_compare_flags *f,
                                        const cli_compare_shared *shared, const cli_comparison *c,
                                        cli_compare_meter *m);

#endif
