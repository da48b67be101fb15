/* Running a study: claims jobs from the store, hands them to workers, writes down what they answer.
 */
#include "study/study.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "study/pool.h"
#include "study/store.h"

enum { ATTEMPTS = 3 };

typedef struct runner {
    const bl_study_options *options;
    bl_store *store;
    bl_pool *pool;
    int64_t study;
    char *plan;      /* as workers receive it */
    bl_claim *claim; /* [workers]: what each is doing; arm is NULL where idle */
    double *share;   /* [workers]: how much of it is done */
    int *deaths;     /* [arms * replicates]: workers that this job has cost */
    double started, reported;
    int done_before;
} runner;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What the study is known by: everything that a result depends on. */
static char *study_identity(const bl_study_options *o, const bl_job_data *data)
{
    json_t *plan = bl_plan_to_json(o->plan);
    char *text =
        plan ? json_dumps(plan, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    char *identity =
        text ? bl_format("{\"data\":\"%016llx\",\"plan\":%s,\"version\":\"%s\"}",
                         (unsigned long long)bl_job_data_hash(data), text, BALLAST_VERSION)
             : NULL;
    free(text);
    json_decref(plan);
    return identity;
}

static bl_status open_runner(runner *r, const bl_study_options *o, const bl_job_data *data)
{
    json_t *plan = bl_plan_to_json(o->plan);
    r->plan =
        plan ? json_dumps(plan, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(plan);
    r->claim = bl_alloc((size_t)o->workers * sizeof *r->claim);
    r->share = bl_alloc((size_t)o->workers * sizeof *r->share);
    r->deaths = bl_alloc((size_t)(o->arms * o->replicates) * sizeof *r->deaths);
    char *identity = study_identity(o, data);
    bl_status status =
        r->plan && r->claim && r->share && r->deaths && identity ? BL_OK : bl_no_memory(0);
    if (status == BL_OK)
        status = bl_store_open(o->store, &r->store);
    if (status == BL_OK)
        status = bl_store_study(r->store, identity, o->fresh, &r->study);
    if (status == BL_OK)
        status = bl_store_want(r->store, r->study, o->arm, o->arms, o->replicates);
    bl_release(identity);
    return status;
}

static void close_runner(runner *r)
{
    bl_pool_stop(r->pool);
    for (int i = 0; r->claim && i < r->options->workers; i++)
        bl_claim_free(&r->claim[i]);
    bl_store_close(r->store);
    free(r->plan);
    bl_release(r->claim);
    bl_release(r->share);
    bl_release(r->deaths);
}

/* --- handing out
 * ------------------------------------------------------------------------------------ */
static bl_status send_job(runner *r, int worker)
{
    const bl_claim *claim = &r->claim[worker];
    json_t *job = json_pack("{s:s,s:i}", "arm", claim->arm, "replicate", claim->replicate);
    char *fields = job ? json_dumps(job, JSON_COMPACT) : NULL;
    /* The plan is spliced in as text: it is parsed by the worker alone. */
    char *line = fields ? bl_format("{\"plan\":%s,%s", r->plan, fields + 1) : NULL;
    bl_status status = line ? bl_pool_send(r->pool, worker, line) : bl_no_memory(0);
    bl_release(line);
    free(fields);
    json_decref(job);
    return status;
}

/* Gives every idle worker a job, as long as there are any; counts those at work. */
static bl_status hand_out(runner *r, int *busy)
{
    const bl_study_options *o = r->options;
    *busy = 0;
    bool more = true;
    for (int i = 0; i < o->workers; i++) {
        if (!r->claim[i].arm && more) {
            BL_TRY(
                bl_store_claim(r->store, r->study, o->arm, o->arms, o->replicates, &r->claim[i]));
            more = r->claim[i].arm != NULL;
            r->share[i] = 0;
            if (more)
                BL_TRY(send_job(r, i));
        }
        *busy += r->claim[i].arm != NULL;
    }
    return BL_OK;
}

/* --- writing down
 * ------------------------------------------------------------------------------------- */
static int job_number(const runner *r, const bl_claim *claim)
{
    int arm = 0;
    while (strcmp(r->options->arm[arm], claim->arm) != 0)
        arm++;
    return claim->replicate * r->options->arms + arm;
}

static bl_status worker_died(runner *r, const bl_event *event)
{
    bl_claim *claim = &r->claim[event->worker];
    if (!claim->arm)
        return BL_OK;
    if (++r->deaths[job_number(r, claim)] < ATTEMPTS)
        return send_job(r, event->worker);
    BL_TRY(bl_store_fail(r->store, r->study, claim, event->text));
    bl_claim_free(claim);
    return BL_OK;
}

static bl_status take_in(runner *r, const bl_event *event)
{
    bl_claim *claim = &r->claim[event->worker];
    switch (event->kind) {
    case BL_EVENT_NONE:
        return BL_OK;
    case BL_EVENT_PROGRESS:
        r->share[event->worker] = event->share;
        return BL_OK;
    case BL_EVENT_DIED:
        return worker_died(r, event);
    case BL_EVENT_RESULT:
    case BL_EVENT_ERROR:
        if (!claim->arm)
            return bl_fail(BL_INVALID, "a worker answered a job it was not given");
        BL_TRY(event->kind == BL_EVENT_RESULT
                   ? bl_store_finish(r->store, r->study, claim, event->text)
                   : bl_store_fail(r->store, r->study, claim, event->text));
        bl_claim_free(claim);
        return BL_OK;
    }
    return BL_OK;
}

static bl_status report(runner *r, bool always)
{
    const bl_study_options *o = r->options;
    double t = now();
    if (!o->report || (!always && t - r->reported < 0.1))
        return BL_OK;
    r->reported = t;
    bl_store_counts counts;
    BL_TRY(bl_store_count(r->store, r->study, o->arm, o->arms, o->replicates, &counts));
    bl_study_progress progress = {.done = counts.done,
                                  .failed = counts.failed,
                                  .total = o->arms * o->replicates,
                                  .seconds = t - r->started,
                                  .done_before = r->done_before};
    for (int i = 0; i < o->workers; i++)
        progress.doing += r->claim[i].arm ? r->share[i] : 0;
    o->report(o->context, &progress);
    return BL_OK;
}

/* Until nothing is pending and nobody, here or in another command, is at work. */
static bl_status run_jobs(runner *r)
{
    const bl_study_options *o = r->options;
    for (;;) {
        if (o->stop && *o->stop)
            return bl_fail(BL_INTERRUPTED, "interrupted");
        int busy;
        BL_TRY(hand_out(r, &busy));
        BL_TRY(report(r, false));
        bl_store_counts counts = {.running = 1};
        if (!busy)
            BL_TRY(bl_store_count(r->store, r->study, o->arm, o->arms, o->replicates, &counts));
        if (!busy && counts.pending + counts.running == 0)
            return report(r, true);
        bl_event event;
        bl_status status = bl_pool_wait(r->pool, 100, &event);
        if (status == BL_OK)
            status = take_in(r, &event);
        bl_release(event.text);
        BL_TRY(status);
    }
}

bl_status bl_study_run(const bl_study_options *o, const bl_job_data *data)
{
    runner r = {.options = o, .started = now()};
    bl_status status = open_runner(&r, o, data);
    if (status == BL_OK && o->start)
        o->start(o->context);
    bl_store_counts counts = {0};
    if (status == BL_OK)
        status = bl_store_count(r.store, r.study, o->arm, o->arms, o->replicates, &counts);
    r.done_before = counts.done;
    if (status == BL_OK && counts.pending + counts.running > 0) {
        status = bl_pool_start(o->workers, o->worker, &r.pool);
        if (status == BL_OK)
            status = run_jobs(&r);
        bl_pool_stop(r.pool);
        r.pool = NULL;
        if (status != BL_OK && r.store) { /* keep the first message, give the claims back */
            char *message = bl_copy_text(bl_error());
            bl_status released = bl_store_release(r.store, r.study);
            (void)released; /* another process will find that this one is gone */
            if (message)
                status = bl_fail(status, "%s", message);
            bl_release(message);
        }
    }
    close_runner(&r);
    return status;
}

/* --- reading back -------------------------------------------------------------------------------
 */
static bl_status read_result(bl_store *store, int64_t study, const char *arm, int replicate,
                             json_t **result, char **error)
{
    char *text, *why;
    BL_TRY(bl_store_result(store, study, arm, replicate, &text, &why));
    json_error_t where;
    bl_status status = BL_OK;
    if (text && !(*result = json_loads(text, 0, &where)))
        status = bl_fail(BL_INVALID, "the stored result of %s, replicate %d, is damaged: %s", arm,
                         replicate, where.text);
    bl_release(text);
    if (*error)
        bl_release(why);
    else
        *error = why;
    return status;
}

bl_status bl_study_results(const bl_study_options *o, const bl_job_data *data, const char *arm,
                           json_t **result, char **error)
{
    bl_store *store = NULL;
    int64_t study;
    char *identity = study_identity(o, data);
    *error = NULL;
    bl_status status = identity ? bl_store_open(o->store, &store) : bl_no_memory(0);
    if (status == BL_OK)
        status = bl_store_study(store, identity, false, &study);
    for (int r = 0; r < o->replicates && status == BL_OK; r++)
        status = read_result(store, study, arm, r, &result[r], error);
    bl_store_close(store);
    bl_release(identity);
    return status;
}
