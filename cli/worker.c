/* ballast worker: runs jobs for a study. Not for people: `ballast compare` starts it.
 *
 * Reads a job a line, {"plan":{..},"arm":"elr","replicate":3,"data_hash":"c9f2.."}, and answers in
 * lines: progress about twice a second, then the result, the job's error, or why it is unfit for
 * any job of this study. Ends with its parent. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/base.h"
#include "cli.h"
#include "study/job.h"

/* The data of the last plan: all jobs of a study have the same. */
typedef struct open_plan {
    bl_plan plan;
    json_t *json;
    bl_job_data *data;
} open_plan;

static void close_plan(open_plan *open)
{
    bl_job_data_close(open->data);
    bl_plan_free(&open->plan);
    json_decref(open->json);
    *open = (open_plan){0};
}

static bl_status use_plan(open_plan *open, json_t *json)
{
    if (open->json && json_equal(open->json, json))
        return BL_OK;
    close_plan(open);
    open->plan = bl_plan_new();
    BL_TRY(bl_plan_from_json(json, &open->plan));
    BL_TRY(bl_job_data_open(&open->plan, &open->data));
    open->json = json_incref(json);
    return BL_OK;
}

/* The study was planned on data of this hash; a file may have changed since. */
static bl_status check_data(const open_plan *open, const char *wanted)
{
    char hash[17];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)bl_job_data_hash(open->data));
    if (!wanted || !strcmp(hash, wanted))
        return BL_OK;
    return bl_fail(BL_INVALID, "%s changed while the study ran: start it again", open->plan.data);
}

static int answer(FILE *channel, const char *key, json_t *value)
{
    json_t *line = json_pack("{s:o}", key, value);
    char *text =
        line ? json_dumps(line, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    bool written = text && fprintf(channel, "%s\n", text) >= 0 && fflush(channel) != EOF;
    free(text);
    json_decref(line);
    return written ? CLI_OK : CLI_BAD;
}

typedef struct meter {
    FILE *channel;
    double last; /* second of the last report */
} meter;

static void report(void *context, int64_t step, int64_t steps, int64_t epoch, double loss)
{
    (void)epoch;
    (void)loss;
    meter *m = context;
    double now = bl_seconds_now();
    if (now - m->last < 0.5)
        return;
    m->last = now;
    double share = steps > 0 ? (double)step / (double)steps : 0;
    if (answer(m->channel, "progress", json_real(share)) != CLI_OK)
        _exit(CLI_BAD); /* the parent is gone */
}

/* *fit: whether the data are those of the study, so that what goes wrong is the job's fault. */
static bl_status run(open_plan *open, const char *line, FILE *channel, json_t **result, bool *fit)
{
    json_error_t where;
    json_t *job = json_loads(line, 0, &where), *plan = json_object_get(job, "plan");
    const char *arm = json_string_value(json_object_get(job, "arm"));
    const json_t *replicate = json_object_get(job, "replicate");
    bool whole = plan && arm && json_is_integer(replicate);
    bl_status status =
        whole ? use_plan(open, plan)
              : bl_fail(BL_INVALID, "a job line is not {\"plan\":..,\"arm\":..,\"replicate\":..}");
    if (status == BL_OK)
        status = check_data(open, json_string_value(json_object_get(job, "data_hash")));
    *fit = status == BL_OK || !whole;
    if (status == BL_OK) {
        meter m = {.channel = channel};
        bl_progress progress = {.report = report, .context = &m};
        bl_job description = {
            .plan = &open->plan, .arm = arm, .replicate = (int)json_integer_value(replicate)};
        bl_run_result outcome = {0};
        status = bl_job_run(&description, open->data, &progress, &outcome);
        if (status == BL_OK && !(*result = bl_run_result_to_json(&outcome)))
            status = bl_fail(BL_NO_MEMORY, "memory is short for a result");
        bl_run_result_free(&outcome);
    }
    json_decref(job);
    return status;
}

/* Standard output for answers alone: what a library prints there (DNNL_VERBOSE=1) goes to standard
 * error instead. */
static FILE *private_output(void)
{
    int descriptor = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    if (descriptor < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        return NULL;
    return fdopen(descriptor, "w");
}

int cli_worker(int argc, char **argv)
{
    const cli_option options[] = {{0}};
    const cli_usage usage = {.command = "worker",
                             .synopsis = "ballast worker",
                             .description = "Runs the jobs of a study; started by ballast compare.",
                             .options = {options}};
    cli_texts operands = {0};
    int status = cli_parse(&usage, argc, argv, &operands);
    if (status >= 0)
        return status;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* no run outlives the study that asked for it */
    FILE *channel = private_output();
    if (!channel)
        return cli_fail("worker", bl_fail(BL_IO, "cannot open the channel to the study"));
    open_plan open = {0};
    char *line = NULL;
    size_t capacity = 0;
    status = CLI_OK;
    while (status == CLI_OK && getline(&line, &capacity, stdin) > 0) {
        json_t *result = NULL;
        bool fit;
        status = run(&open, line, channel, &result, &fit) == BL_OK
                     ? answer(channel, "result", result)
                     : answer(channel, fit ? "error" : "unfit", json_string(bl_error()));
    }
    free(line);
    close_plan(&open);
    fclose(channel);
    return status;
}
