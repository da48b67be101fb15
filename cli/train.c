/* ballast train: one model, written with its preprocessing; scored on a part it did not see. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "cli.h"
#include "methods/method.h"
#include "plan_options.h"
#include "tasks/saved.h"

typedef struct flags {
    cli_plan plan;
    cli_texts arms; /* at most one */
    const char *arm, *output;
    bool json;
} flags;

/* --- progress --- */
typedef struct meter {
    bool terminal;
    double started, shown;
    int64_t first; /* step at the first report: a resumed run does not start at 0 */
} meter;

static void show(void *context, int64_t step, int64_t steps, int64_t epoch, double loss)
{
    meter *m = context;
    double t = bl_seconds_now();
    if (m->started == 0) {
        m->started = m->shown = t;
        m->first = step;
    }
    if (t - m->shown < (m->terminal ? 0.1 : 5))
        return;
    m->shown = t;
    double rate = (double)(step - m->first) / (t - m->started);
    double left = rate > 0 ? (double)(steps - step) / rate : 0;
    fprintf(stderr,
            "%sepoch %lld, step %lld of %lld, loss %.4g, %.0f steps a second, about %.0f s left%s",
            m->terminal ? "\r\033[K" : "", (long long)epoch, (long long)step, (long long)steps,
            loss, rate, left, m->terminal ? "" : "\n");
    fflush(stderr);
}

/* --- the run --- */
static json_t *metrics_json(const bl_run_result *result)
{
    json_t *json = json_object();
    for (int i = 0; i < result->metrics; i++)
        json_object_set_new(json, result->metric[i].name, json_real(result->metric[i].value));
    return json;
}

static bl_status tell(const flags *f, const bl_run_result *result)
{
    if (f->json) {
        json_t *json = bl_run_result_to_json(result);
        char *text =
            json ? json_dumps(json, JSON_INDENT(1) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17))
                 : NULL;
        bl_status status = text ? cli_write(NULL, text) : bl_no_memory(0);
        free(text);
        json_decref(json);
        return status == BL_OK ? cli_write(NULL, "\n") : status;
    }
    bl_text text = {0};
    bl_text_add(&text, "On the held-out test part:");
    for (int i = 0; i < result->metrics; i++)
        bl_text_add(&text, "%s %s %.4g", i ? "," : "", result->metric[i].name,
                    result->metric[i].value);
    bl_text_add(&text, "\nWrote %s after %lld epoch%s, %.1f s.\n", f->output,
                (long long)result->epochs, result->epochs == 1 ? "" : "s", result->seconds);
    bl_status status = text.failed ? bl_no_memory(text.length) : cli_write(NULL, text.at);
    bl_text_free(&text);
    return status;
}

static bl_status save(const flags *f, const bl_job *job, const bl_job_data *data,
                      const bl_run_result *result)
{
    if (result->diverged)
        return bl_fail(
            BL_INVALID,
            "training diverged (a loss or weight is not finite): try a smaller --learning-rate; "
            "nothing was written");
    bl_preparation *preparation = NULL;
    BL_TRY(bl_job_preparation(job, data, &preparation));
    json_t *json = metrics_json(result);
    char *metrics = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    bl_status status = metrics ? bl_saved_write(f->output, &bl_job_recipe(data)->model, preparation,
                                                job->arm, metrics, &result->state)
                               : bl_no_memory(0);
    free(metrics);
    json_decref(json);
    bl_preparation_free(preparation);
    return status;
}

static bl_status run(const flags *f, const bl_plan *plan, const bl_job_data *data,
                     const char *checkpoint)
{
    meter m = {.terminal = isatty(STDERR_FILENO)};
    bl_progress progress = {.report = show, .context = &m, .stop = cli_catch_interrupt()};
    bl_job job = {.plan = plan, .arm = f->arm, .checkpoint = checkpoint};
    bl_run_result result = {0};
    bl_status status = bl_job_run(&job, data, &progress, &result);
    if (m.terminal)
        fputs("\r\033[K", stderr);
    if (status == BL_INTERRUPTED)
        status =
            bl_fail(BL_INTERRUPTED,
                    "interrupted; the run is kept in %s, and the same command goes on", checkpoint);
    if (status == BL_OK)
        status = save(f, &job, data, &result);
    if (status == BL_OK || result.diverged)
        unlink(checkpoint); /* not before the model is written */
    if (status == BL_OK)
        status = tell(f, &result);
    bl_run_result_free(&result);
    return status;
}

static bl_status choose_arm(flags *f)
{
    if (f->arms.count > 1)
        return bl_fail(BL_INVALID,
                       "train takes one --arm; to train with both, join them: "
                       "--arm \"%s+%s\"",
                       f->arms.at[0], f->arms.at[1]);
    f->arm = f->arms.count ? f->arms.at[0] : "baseline";
    return BL_OK;
}

static bl_status train(flags *f, const char *path)
{
    BL_TRY(choose_arm(f));
    BL_TRY(cli_check_output(f->output, "output"));
    bl_plan plan;
    BL_TRY(cli_plan_make(&f->plan, path, &plan));
    bl_job_data *data = NULL;
    char *checkpoint = bl_format("%s.checkpoint", f->output);
    bl_status status = checkpoint ? bl_job_data_open(&plan, &data) : bl_no_memory(0);
    if (status == BL_OK)
        status = bl_job_check_arm(data, f->arm);
    if (status == BL_OK) {
        fprintf(stderr, "%s\n", bl_job_summary(data));
        status = run(f, &plan, data, checkpoint);
    }
    bl_release(checkpoint);
    bl_job_data_close(data);
    bl_plan_free(&plan);
    return status;
}

int cli_train(int argc, char **argv)
{
    flags f = {.output = "model.safetensors"};
    cli_plan_declare(&f.plan);
    const cli_option options[] = {
        {.name = "", .text = "Run"},
        {.name = "arm",
         .kind = CLI_TEXTS,
         .value = &f.arms,
         .argument = "ARM",
         .letter = 'a',
         .text = "the method to train with: conr, \"mixup(alpha=0.2)+ema\" (default: baseline)"},
        {.name = "output",
         .kind = CLI_TEXT,
         .value = &f.output,
         .argument = "FILE",
         .letter = 'o',
         .text = "where the model goes (default: model.safetensors)"},
        {.name = "json",
         .kind = CLI_FLAG,
         .value = &f.json,
         .text = "print the run's result as JSON"},
        {0},
    };
    const cli_usage usage = {
        .command = "train",
        .synopsis = "ballast train DATA [--target COLUMN] [--arm ARM] [-o FILE] [OPTION]...",
        .description = "Trains one model and writes it, with its preprocessing, as safetensors. A "
                       "part of the data is "
                       "held out and the model's score on it printed. Ctrl-C keeps the run; the "
                       "same command goes on "
                       "with it.\n\n  ballast train prices.csv --target price --arm conr -o "
                       "model.safetensors\n  ballast "
                       "predict model.safetensors new.csv",
        .options = {options, f.plan.options},
        .least = 1,
        .most = 1};
    cli_texts operands = {0};
    int code = cli_parse(&usage, argc, argv, &operands);
    if (code >= 0)
        return code;
    bl_status status = train(&f, operands.at[0]);
    return status == BL_OK ? CLI_OK : cli_fail("train", status);
}
