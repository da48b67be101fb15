/* ballast calibrate: does `compare` find differences that are not there? */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "cli.h"
#include "plan_options.h"
#include "study/calibrate.h"

typedef struct flags {
    cli_plan plan;
    int64_t studies, seeds, trials;
    double alpha;
} flags;

static void show_progress(void *context, int done)
{
    const flags *f = context;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K%d of %lld studies%s", done, (long long)f->studies,
                done == f->studies ? "\r\033[K" : "");
}

/* Too many alarms by more than chance allows (one in a thousand). */
static bool is_bad(const bl_calibration *c)
{
    return c->tail < 0.001;
}

static void add_row(const char *design, int trials, const bl_calibration *c, bl_text *text)
{
    char name[64];
    snprintf(name, sizeof name, trials ? "%s, %d trials" : "%s, untuned", design, trials);
    bl_text_add(text, "%-26s %5d of %-5d %5.1f %%   %d to %d%s\n", name, c->alarms, c->studies,
                100.0 * c->alarms / c->studies, c->low, c->high,
                is_bad(c)            ? "  TOO MANY"
                : c->alarms < c->low ? "  (on the safe side)"
                                     : "");
    bl_text_add(text, "  found of a planted difference (theory):");
    for (int i = 0; i < BL_PLANTED; i++)
        bl_text_add(text, "%s %g sd %.0f %% (%.0f)",
                    i % 3 ? ","
                    : i   ? ",\n   "
                          : "\n   ",
                    c->planted[i].effect, 100 * c->planted[i].power, 100 * c->planted[i].theory);
    bl_text_add(text, "\n  sd of a paired difference: %.3g\n", c->deviation);
    fprintf(stderr, "%s: %lld runs in %.1f s, %.0f a second\n", name, (long long)c->runs,
            c->seconds, (double)c->runs / c->seconds);
}

static bl_status run_design(const flags *f, bl_plan *plan, bool fixed, bl_text *text, bool *bad)
{
    bl_job_data *data;
    plan->fixed_split = fixed;
    BL_TRY(bl_job_data_open(plan, &data));
    bool resplit = bl_job_resplits(data);
    bl_job_data_close(data);
    if (!fixed && !resplit)
        return BL_OK; /* the data have a test part of their own */
    for (int tuned = 0; tuned < (f->trials ? 2 : 1); tuned++) {
        bl_calibration_options options = {.plan = plan,
                                          .studies = (int)f->studies,
                                          .replicates = (int)f->seeds,
                                          .trials = tuned ? (int)f->trials : 0,
                                          .alpha = f->alpha,
                                          .report = show_progress,
                                          .context = (void *)f,
                                          .stop = cli_catch_interrupt()};
        bl_calibration c;
        BL_TRY(bl_calibrate(&options, &c));
        add_row(fixed ? "fixed test set" : "re-splits", options.trials, &c, text);
        *bad = *bad || is_bad(&c);
    }
    return BL_OK;
}

static bl_status calibrate(const flags *f, const char *path, bool *bad)
{
    bl_plan plan;
    bl_text text = {0};
    BL_TRY(cli_plan_make(&f->plan, path, &plan));
    bl_text_add(&text, "%-26s %14s %7s   95 %% band at %g\n", "the baseline against itself",
                "false alarms", "rate", f->alpha);
    bl_status status = run_design(f, &plan, true, &text, bad);
    if (status == BL_OK)
        status = run_design(f, &plan, false, &text, bad);
    if (status == BL_OK)
        status = text.failed ? bl_no_memory(text.length) : cli_write(NULL, text.at);
    bl_text_free(&text);
    bl_plan_free(&plan);
    return status;
}

int cli_calibrate(int argc, char **argv)
{
    flags f = {.studies = 400, .seeds = 10, .trials = 12, .alpha = 0.05};
    cli_plan_declare(&f.plan);
    f.plan.train = 100;
    f.plan.epochs = 3;
    f.plan.width = 16;
    const cli_option options[] = {
        {.name = "", .text = "Calibration"},
        {.name = "studies",
         .kind = CLI_INTEGER,
         .value = &f.studies,
         .argument = "N",
         .text = "studies of each design (default 400)",
         .low = 10,
         .high = 100000},
        {.name = "seeds",
         .kind = CLI_INTEGER,
         .value = &f.seeds,
         .argument = "N",
         .text = "paired replicates in a study (default 10)",
         .low = 2,
         .high = 1000},
        cli_trials_option(&f.trials, "of the designs with tuning (default 12; 0: none of them)"),
        cli_alpha_option(&f.alpha, "of the tests (default 0.05)"),
        {0},
    };
    const cli_usage usage = {
        .command = "calibrate",
        .synopsis = "ballast calibrate [DATA] [OPTION]...",
        .description =
            "Runs many studies of the baseline against itself with other seeds and counts those in "
            "which compare's test finds a difference: there should be about 5 of 100. Then plants "
            "a difference of known size and counts those in which it is found. On a fixed test set "
            "and on re-splits, untuned and tuned.\n\n"
            "DATA is digits unless given. The training is small on purpose: --train 100, --epochs "
            "3 and --width 16 unless given. Exit status 1: more false alarms than chance allows.",
        .options = {options, f.plan.options},
        .least = 0,
        .most = 1};
    cli_texts operands = {0};
    int code = cli_parse(&usage, argc, argv, &operands);
    if (code >= 0)
        return code;
    bool bad = false;
    bl_status status = calibrate(&f, operands.count ? operands.at[0] : "digits", &bad);
    if (status != BL_OK)
        return cli_fail("calibrate", status);
    return bad ? CLI_NO : CLI_OK;
}
