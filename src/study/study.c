/* Running a study: claims jobs from the store, hands them to workers, writes down what they answer.
 * This process alone touches the store; workers know neither it nor each other. */
#include "study/study.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "study/crew.h"
#include "study/store.h"

enum { ATTEMPTS = 3 };

typedef struct runner {
    const bl_study_options *options;
    bl_store *store;
    bl_crew *crew;
    int workers; /* of the crew */
    int64_t study;
    char *plan; /* as workers receive it */
    uint64_t data_hash;
    bl_claim *claim; /* [workers]: what each is doing; arm is NULL where idle */
    double *share;   /* [workers]: how much of it is done */
    int *deaths;     /* [arms * replicates]: workers that this job has cost */
    double started, reported, beaten;
    int done_before;
} runner;

static bl_status plan_text(const bl_study_options *o, char **text)
{
    json_t *plan = bl_plan_to_json(o->plan);
    *text = plan ? json_dumps(plan, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(plan);
    return *text
               ? BL_OK
               : bl_fail(BL_INVALID, "the plan cannot be written as JSON: a name or path in it is "
                                     "not UTF-8, or memory is short");
}

/* What the study is known by: everything that a result depends on, the program that computes it
 * included, so that no table mixes runs of two builds. */
static bl_status study_identity(const bl_study_options *o, const bl_job_data *data, char **identity)
{
    char *program, *plan;
    size_t size;
    BL_TRY(bl_read_file(o->worker[0], &program, &size));
    unsigned long long hash = bl_hash(program, size, 0);
    bl_release(program);
    BL_TRY(plan_text(o, &plan));
    *identity = bl_format("{\"data\":\"%016llx\",\"plan\":%s,\"program\":\"%016llx\","
                          "\"version\":\"%s\"}",
                          (unsigned long long)bl_job_data_hash(data), plan, hash, BALLAST_VERSION);
    free(plan);
    return *identity ? BL_OK : bl_no_memory(0);
}

bl_status bl_study_open(const bl_study_options *o, const bl_job_data *data, bool fresh,
                        bl_store **store, int64_t *study)
{
    char *identity;
    BL_TRY(study_identity(o, data, &identity));
    bl_status status = bl_store_open(o->store, store);
    if (status == BL_OK)
        status = bl_store_study(*store, identity, fresh, study);
    bl_release(identity);
    return status;
}

static bl_status open_runner(runner *r, const bl_study_options *o, const bl_job_data *data)
{
    BL_TRY(plan_text(o, &r->plan));
    r->data_hash = bl_job_data_hash(data);
    r->workers = bl_crew_count(o->workers, o->ranks);
    r->claim = bl_alloc((size_t)r->workers * sizeof *r->claim);
    r->share = bl_alloc((size_t)r->workers * sizeof *r->share);
    r->deaths = bl_alloc((size_t)(o->arms * o->replicates) * sizeof *r->deaths);
    if (!r->claim || !r->share || !r->deaths)
        return bl_no_memory(0);
    BL_TRY(bl_study_open(o, data, o->fresh, &r->store, &r->study));
    return bl_store_want(r->store, r->study, o->arm, o->arms, o->replicates);
}

static void close_runner(runner *r)
{
    bl_crew_stop(r->crew);
    for (int i = 0; r->claim && i < r->workers; i++)
        bl_claim_free(&r->claim[i]);
    bl_store_close(r->store);
    free(r->plan);
    bl_release(r->claim);
    bl_release(r->share);
    bl_release(r->deaths);
}

/* --- handing out ------------------------------------------------------------------------------
 */
static bl_status send_job(runner *r, int worker)
{
    const bl_claim *claim = &r->claim[worker];
    char hash[17];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)r->data_hash);
    json_t *job = json_pack("{s:s,s:i,s:s}", "arm", claim->arm, "replicate", claim->replicate,
                            "data_hash", hash);
    char *fields = job ? json_dumps(job, JSON_COMPACT) : NULL;
    /* The plan is spliced in as text: it is parsed by the worker alone. */
    char *line = fields ? bl_format("{\"plan\":%s,%s", r->plan, fields + 1) : NULL;
    bl_status status = line ? bl_crew_send(r->crew, worker, line) : bl_no_memory(0);
    bl_release(line);
    free(fields);
    json_decref(job);
    return status;
}

/* A job for an idle worker: that of one that is lost with its rank, or the store's next. */
static bl_status find_job(runner *r, bl_claim *claim)
{
    const bl_study_options *o = r->options;
    for (int i = 0; i < r->workers; i++)
        if (r->claim[i].arm && !bl_crew_ready(r->crew, i)) {
            *claim = r->claim[i];
            r->claim[i] = (bl_claim){0};
            return BL_OK;
        }
    return bl_store_claim(r->store, r->study, o->arm, o->arms, o->replicates, claim);
}

/* Gives every idle worker a job, as long as there are any; counts those at work. */
static bl_status hand_out(runner *r, int *busy)
{
    *busy = 0;
    bool more = true;
    for (int i = 0; i < r->workers; i++) {
        if (!r->claim[i].arm && more && bl_crew_ready(r->crew, i)) {
            BL_TRY(find_job(r, &r->claim[i]));
            more = r->claim[i].arm != NULL;
            r->share[i] = 0;
            if (more)
                BL_TRY(send_job(r, i));
        }
        *busy += r->claim[i].arm != NULL;
    }
    return BL_OK;
}

/* --- writing down -----------------------------------------------------------------------------
 */
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
    if (!claim->arm || !bl_crew_ready(r->crew, event->worker)) /* find_job gives it to another */
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
    case BL_EVENT_UNFIT: /* nothing is wrong with the job */
        return bl_fail(BL_INVALID, "%s", event->text);
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
    double t = bl_seconds_now();
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
    for (int i = 0; i < r->workers; i++)
        progress.doing += r->claim[i].arm ? r->share[i] : 0;
    o->report(o->context, &progress);
    return BL_OK;
}

static bl_status show_life(runner *r)
{
    double t = bl_seconds_now();
    if (t - r->beaten < 10)
        return BL_OK;
    r->beaten = t;
    return bl_store_beat(r->store, r->study);
}

/* Whether every job is done or has failed. Jobs that another command holds are waited for; those
 * that another command forgot (--fresh) are asked for again. */
static bl_status is_over(runner *r, int busy, bool *over)
{
    const bl_study_options *o = r->options;
    bl_store_counts counts;
    *over = false;
    if (busy)
        return BL_OK;
    BL_TRY(bl_store_count(r->store, r->study, o->arm, o->arms, o->replicates, &counts));
    *over = counts.done + counts.failed == o->arms * o->replicates;
    if (!*over && counts.pending + counts.running == 0)
        return bl_store_want(r->store, r->study, o->arm, o->arms, o->replicates);
    return BL_OK;
}

static bl_status run_jobs(runner *r)
{
    const bl_study_options *o = r->options;
    for (;;) {
        if (o->stop && *o->stop)
            return bl_fail(BL_INTERRUPTED, "interrupted");
        int busy;
        bool over;
        BL_TRY(hand_out(r, &busy));
        BL_TRY(report(r, false));
        BL_TRY(show_life(r));
        BL_TRY(is_over(r, busy, &over));
        if (over)
            return report(r, true);
        bl_event event;
        bl_status status = bl_crew_wait(r->crew, 100, &event);
        if (status == BL_OK)
            status = take_in(r, &event);
        bl_release(event.text);
        BL_TRY(status);
    }
}

bl_status bl_study_run(const bl_study_options *o, const bl_job_data *data)
{
    runner r = {.options = o, .started = bl_seconds_now()};
    bl_status status = open_runner(&r, o, data);
    if (status == BL_OK && o->start)
        o->start(o->context);
    bl_store_counts counts = {0};
    if (status == BL_OK)
        status = bl_store_count(r.store, r.study, o->arm, o->arms, o->replicates, &counts);
    r.done_before = counts.done;
    if (status == BL_OK && counts.pending + counts.running > 0) {
        status = bl_crew_start(o->workers, o->worker, o->patience, o->ranks, &r.crew);
        if (status == BL_OK)
            status = run_jobs(&r);
        bl_crew_stop(r.crew);
        r.crew = NULL;
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

/* --- reading back -----------------------------------------------------------------------------
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

bl_status bl_study_results(const bl_study_options *o, const bl_job_data *data, json_t **result,
                           char **error)
{
    bl_store *store = NULL;
    int64_t study;
    bl_status status = bl_study_open(o, data, false, &store, &study);
    for (int a = 0; a < o->arms && status == BL_OK; a++)
        for (int r = 0; r < o->replicates && status == BL_OK; r++)
            status =
                read_result(store, study, o->arm[a], r, &result[a * o->replicates + r], &error[a]);
    bl_store_close(store);
    return status;
}

/* On a fixed test part, screening has seen nothing of what is tested, and the arms it left out are
 * no matter. On re-splits it has seen examples that are tested now: the luck of these data that let
 * an arm through is there again (7 % false alarms instead of 5 with 40 arms,
 * tests/test_planning.c), so all arms count. */
int bl_study_family(const bl_study_options *o, const bl_job_data *data, int compared)
{
    return compared + (bl_job_resplits(data) ? o->screened : 0);
}

double bl_score_of(const json_t *result, const char *metric)
{
    const json_t *value = json_object_get(json_object_get(result, "metrics"), metric);
    bool counts = json_is_number(value) && !json_is_true(json_object_get(result, "diverged"));
    return counts ? json_number_value(value) : NAN;
}

static void read_scores(const bl_study_options *o, const bl_job_data *data, json_t *const *result,
                        double *score, double *seconds)
{
    bool higher;
    const char *metric = bl_job_primary_metric(data, &higher);
    for (int a = 0; a < o->arms; a++) {
        double spent = 0;
        for (int r = 0; r < o->replicates; r++) {
            const json_t *run = result[a * o->replicates + r];
            score[a * o->replicates + r] = bl_score_of(run, metric);
            spent += json_number_value(json_object_get(json_object_get(run, "timing"), "seconds"));
        }
        if (seconds)
            seconds[a] = spent;
    }
}

bl_status bl_study_scores(const bl_study_options *o, const bl_job_data *data, double *score,
                          double *seconds)
{
    size_t runs = (size_t)o->arms * (size_t)o->replicates;
    json_t **result = bl_alloc(runs * sizeof *result);
    char **error = bl_alloc((size_t)o->arms * sizeof *error);
    bl_status status = result && error ? bl_study_run(o, data) : bl_no_memory(runs);
    if (status == BL_OK)
        status = bl_study_results(o, data, result, error);
    if (status == BL_OK)
        read_scores(o, data, result, score, seconds);
    for (size_t i = 0; result && i < runs; i++)
        json_decref(result[i]);
    for (int a = 0; error && a < o->arms; a++)
        bl_release(error[a]);
    bl_release(result);
    bl_release(error);
    return status;
}
