/* Joining the other ranks, talking to them, and what a rank does that is not the first. */
#include "study/ranks.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "study/cluster.h"
#include "study/pool.h"

enum {
    BEAT = 5,          /* seconds between signs of life */
    PATIENCE = 3600,   /* a rank waits so long for the first, which may be writing a report */
    LONGEST_PAUSE = 20 /* milliseconds */
};

static bl_status mpi_failed(const bl_ranks *r, const char *what, int code)
{
    char text[256];
    r->mpi->describe(code, text);
    return bl_fail(BL_IO, "MPI, rank %d: cannot %s: %s", r->rank, what, text);
}

/* --- joining ---------------------------------------------------------------------------------- */

/* How many ranks this process was started with, as the starter says (Open MPI; MPICH and others by
 * PMI; Slurm with PMIx); 1 where it was started alone. */
static int started_with(void)
{
    const char *text = getenv("OMPI_COMM_WORLD_SIZE");
    if (!text)
        text = getenv("PMI_SIZE");
    if (!text && getenv("PMIX_RANK"))
        text = getenv("SLURM_STEP_NUM_TASKS");
    int64_t size;
    return text && bl_parse_int(text, &size) && size > 1 && size < 1 << 20 ? (int)size : 1;
}

/* Where no rank can join, the first says so and mpirun then ends the others: one sentence. */
static void let_the_first_speak(void)
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (!rank)
        rank = getenv("PMI_RANK");
    if (!rank)
        rank = getenv("PMIX_RANK");
    if (rank && strcmp(rank, "0") != 0)
        sleep(2);
}

static bl_status open_module(bl_ranks *r, int size)
{
    /* Global, because Open MPI opens parts of its own that look for the rest of it. The folder is
     * the program's run path, or LD_LIBRARY_PATH. */
    r->module = dlopen(BL_CLUSTER_MODULE, RTLD_NOW | RTLD_GLOBAL);
    r->mpi = r->module ? dlsym(r->module, BL_CLUSTER_SYMBOL) : NULL;
    if (r->mpi)
        return BL_OK;
    return bl_fail(BL_UNSUPPORTED,
                   "started by mpirun as one of %d ranks, but this ballast has no MPI (%s): build "
                   "it where libopenmpi-dev is installed, or start it without mpirun, which uses "
                   "the processors of this machine",
                   size, dlerror());
}

static bl_status join(bl_ranks *r)
{
    int size = started_with();
    BL_TRY(open_module(r, size));
    int code = r->mpi->join(&r->cluster, &r->rank, &r->size);
    if (code != 0)
        return mpi_failed(r, "start", code);
    r->other = bl_alloc((size_t)r->size * sizeof *r->other);
    if (!r->other)
        return bl_no_memory((size_t)r->size);
    if (r->size != size)
        return bl_fail(BL_UNSUPPORTED,
                       "mpirun started %d ranks, but MPI here sees %d: that mpirun belongs to "
                       "another MPI than the one ballast was built with",
                       size, r->size);
    return BL_OK;
}

bl_status bl_ranks_join(bl_ranks **out)
{
    *out = NULL;
    if (started_with() == 1)
        return BL_OK;
    bl_ranks *r = bl_alloc(sizeof *r);
    if (!r)
        return bl_no_memory(sizeof *r);
    bl_status status = join(r);
    if (status == BL_OK) {
        *out = r;
        return BL_OK;
    }
    let_the_first_speak();
    bl_release(r->other); /* the process ends: MPI has no second start */
    bl_release(r);
    return status;
}

void bl_ranks_leave(bl_ranks *r, bool orderly)
{
    if (!r)
        return;
    for (int rank = 1; rank < r->size && r->rank == 0; rank++)
        r->apart = r->apart || r->other[rank].lost;
    for (int rank = 1; rank < r->size && r->rank == 0 && orderly; rank++)
        if (!r->other[rank].lost)
            orderly = bl_ranks_post(r, rank, 0, r->apart ? BL_RANK_GO : BL_RANK_QUIT, "") == BL_OK;
    if (orderly && !r->apart)
        (void)r->mpi->leave(r->cluster); /* the work is done, and stored */
    for (int rank = 0; rank < r->size; rank++)
        bl_release(r->other[rank].host);
    bl_release(r->other);
    bl_release(r);
}

/* --- talking ---------------------------------------------------------------------------------- */
bl_status bl_ranks_post(bl_ranks *r, int rank, int worker, bl_rank_kind kind, const char *text)
{
    char *bytes = bl_format("%c%s", (char)kind, text);
    if (!bytes)
        return bl_no_memory(strlen(text));
    bl_cluster_message message = {rank, worker, bytes, strlen(bytes)};
    int code = r->mpi->post(r->cluster, &message);
    bl_release(bytes);
    return code == 0 ? BL_OK : mpi_failed(r, "send", code);
}

bl_status bl_ranks_take(bl_ranks *r, bl_rank_message *message)
{
    *message = (bl_rank_message){0};
    bl_cluster_message m;
    int code = r->mpi->take(r->cluster, &m);
    if (code != 0)
        return mpi_failed(r, "receive", code);
    if (!m.bytes)
        return BL_OK;
    message->kind = (bl_rank_kind)m.bytes[0];
    message->rank = m.rank;
    message->worker = m.worker;
    message->text = bl_copy_text(m.count ? m.bytes + 1 : "");
    free(m.bytes);
    return message->text ? BL_OK : bl_no_memory(m.count);
}

int64_t bl_rank_number(char *text)
{
    char *end = strchr(text, ' ');
    int64_t number;
    if (!end)
        return -1;
    *end = 0;
    bool read = bl_parse_int(text, &number) && number > 0;
    memmove(text, end + 1, strlen(end + 1) + 1);
    return read ? number : -1;
}

bl_status bl_ranks_show_life(bl_ranks *r)
{
    double t = bl_seconds_now();
    if (t - r->beaten < BEAT)
        return BL_OK;
    r->beaten = t;
    if (r->rank > 0)
        return bl_ranks_post(r, 0, 0, BL_RANK_ALIVE, "");
    for (int rank = 1; rank < r->size; rank++)
        if (!r->other[rank].lost)
            BL_TRY(bl_ranks_post(r, rank, 0, BL_RANK_ALIVE, ""));
    return BL_OK;
}

int bl_ranks_pause(double seconds)
{
    double pause = seconds * 1000 / 20;
    return pause < 1 ? 1 : pause > LONGEST_PAUSE ? LONGEST_PAUSE : (int)pause;
}

static const char *instructions(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return "AVX-512";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return "AVX2";
#endif
    return "basic";
}

bl_status bl_rank_self(const char *program, char **out)
{
    char *bytes, host[256] = "";
    size_t size;
    BL_TRY(bl_read_file(program, &bytes, &size));
    unsigned long long hash = bl_hash(bytes, size, 0);
    bl_release(bytes);
    gethostname(host, sizeof host - 1);
    *out = bl_format("%016llx %s %s", hash, instructions(), host);
    return *out ? BL_OK : bl_no_memory(0);
}

/* --- serving ---------------------------------------------------------------------------------- */
typedef struct server {
    bl_ranks *ranks;
    const char *const *worker;
    bl_pool *pool;
    int workers, busy;
    int64_t job[BL_POOL_MOST]; /* the number of each worker's, the last where it is idle */
    double heard, moved;       /* of the first rank; a job or an answer */
    bool done;
} server;

static bl_status obey(server *s, bl_rank_message *m)
{
    s->heard = bl_seconds_now();
    double patience;
    switch (m->kind) {
    case BL_RANK_WORKERS:
        s->workers = (int)bl_rank_number(m->text);
        if (s->pool || !bl_parse_double(m->text, &patience))
            return bl_fail(BL_INVALID, "the first rank asks for %d workers with patience \"%s\"",
                           s->workers, m->text);
        return bl_pool_start(s->workers, s->worker, patience, &s->pool);
    case BL_RANK_JOB:
        if (!s->pool || m->worker < 0 || m->worker >= s->workers)
            return bl_fail(BL_INVALID, "the first rank has a job for worker %d of %d", m->worker,
                           s->workers);
        s->busy++;
        s->moved = bl_seconds_now();
        s->job[m->worker] = bl_rank_number(m->text);
        return bl_pool_send(s->pool, m->worker, m->text);
    case BL_RANK_GO:
        s->ranks->apart = true;
        s->done = true;
        return BL_OK;
    case BL_RANK_QUIT:
        s->done = true;
        return BL_OK;
    default:
        return BL_OK;
    }
}

static bl_status pass_on(server *s, const bl_event *event)
{
    static const bl_rank_kind kind[] = {
        [BL_EVENT_NONE] = BL_RANK_NONE,     [BL_EVENT_PROGRESS] = BL_RANK_PROGRESS,
        [BL_EVENT_RESULT] = BL_RANK_RESULT, [BL_EVENT_ERROR] = BL_RANK_ERROR,
        [BL_EVENT_UNFIT] = BL_RANK_UNFIT,   [BL_EVENT_DIED] = BL_RANK_DIED};
    if (event->kind == BL_EVENT_NONE)
        return BL_OK;
    char share[32];
    snprintf(share, sizeof share, "%.6f", event->share);
    char *text = bl_format("%lld %s", (long long)s->job[event->worker],
                           event->kind == BL_EVENT_PROGRESS ? share : event->text);
    if (!text)
        return bl_no_memory(0);
    if (event->kind != BL_EVENT_PROGRESS) {
        s->busy -= s->busy > 0;
        s->moved = bl_seconds_now();
    }
    bl_status status = bl_ranks_post(s->ranks, 0, event->worker, kind[event->kind], text);
    bl_release(text);
    return status;
}

/* Until the next look for a message: none is expected while all workers are busy. */
static int pause_of(const server *s)
{
    return s->workers && s->busy == s->workers ? LONGEST_PAUSE
                                               : bl_ranks_pause(bl_seconds_now() - s->moved);
}

/* One look for a message and one at the workers. */
static bl_status serve_once(server *s)
{
    bl_rank_message message;
    BL_TRY(bl_ranks_take(s->ranks, &message));
    bl_status status = message.kind == BL_RANK_NONE ? BL_OK : obey(s, &message);
    bl_release(message.text);
    if (status != BL_OK || s->done)
        return status;
    bl_event event = {0};
    if (s->pool)
        status = bl_pool_wait(s->pool, message.kind == BL_RANK_NONE ? pause_of(s) : 0, &event);
    else
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    if (status == BL_OK)
        status = pass_on(s, &event);
    bl_release(event.text);
    if (status == BL_OK)
        status = bl_ranks_show_life(s->ranks);
    if (status == BL_OK && bl_seconds_now() - s->heard > PATIENCE)
        status = bl_fail(BL_IO, "rank %d: the first rank gives no sign of life", s->ranks->rank);
    return status;
}

/* Tells the first rank, which will say it and end the study. */
static void be_broken(server *s)
{
    bl_status status = bl_ranks_post(s->ranks, 0, 0, BL_RANK_BROKEN, bl_error());
    while (status == BL_OK && !s->done && bl_seconds_now() - s->heard < PATIENCE) {
        bl_rank_message message;
        status = bl_ranks_take(s->ranks, &message);
        if (message.kind == BL_RANK_QUIT || message.kind == BL_RANK_GO)
            status = obey(s, &message);
        bl_release(message.text);
        nanosleep(&(struct timespec){.tv_nsec = LONGEST_PAUSE * 1000000}, NULL);
    }
}

bl_status bl_ranks_serve(bl_ranks *ranks, const char *const *worker)
{
    server s = {
        .ranks = ranks, .worker = worker, .heard = bl_seconds_now(), .moved = bl_seconds_now()};
    char *self = NULL;
    bl_status status = bl_rank_self(worker[0], &self);
    if (status == BL_OK)
        status = bl_ranks_post(ranks, 0, 0, BL_RANK_READY, self);
    bl_release(self);
    while (status == BL_OK && !s.done)
        status = serve_once(&s);
    if (status != BL_OK)
        be_broken(&s);
    bl_pool_stop(s.pool);
    return s.done ? BL_OK : status;
}
