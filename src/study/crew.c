/* Workers here and on other ranks: what the first rank makes of the messages of the others. */
#include "study/crew.h"

#include <stdlib.h>
#include <string.h>

enum { SILENCE = 60 /* seconds after which a rank is lost; it shows life every five */ };

struct bl_crew {
    int each;
    double patience;
    bl_pool *pool;
    bl_ranks *ranks;
    int64_t *job; /* [workers]: the number of the last that each was given; 0: none */
    double moved; /* when the last event was */
    char *self;   /* this rank, as bl_rank_self says it */
};

int bl_crew_count(int each, const bl_ranks *ranks)
{
    return each * (ranks ? ranks->size : 1);
}

bl_status bl_crew_start(int each, const char *const *argv, double patience, bl_ranks *ranks,
                        bl_crew **out)
{
    *out = NULL;
    bl_crew *crew = bl_alloc(sizeof *crew);
    if (!crew)
        return bl_no_memory(sizeof *crew);
    crew->each = each;
    crew->patience = patience;
    crew->ranks = ranks;
    crew->moved = bl_seconds_now();
    bl_status status = ranks ? bl_rank_self(argv[0], &crew->self) : BL_OK;
    crew->job = bl_alloc((size_t)bl_crew_count(each, ranks) * sizeof *crew->job);
    if (status == BL_OK && !crew->job)
        status = bl_no_memory(sizeof *crew->job);
    if (status == BL_OK)
        status = bl_pool_start(each, argv, patience, &crew->pool);
    if (status != BL_OK) {
        bl_crew_stop(crew);
        return status;
    }
    for (int rank = 1; ranks && rank < ranks->size; rank++)
        if (ranks->other[rank].heard == 0)
            ranks->other[rank].heard = bl_seconds_now();
    *out = crew;
    return BL_OK;
}

void bl_crew_stop(bl_crew *crew)
{
    if (!crew)
        return;
    bl_pool_stop(crew->pool);
    bl_release(crew->job);
    bl_release(crew->self);
    bl_release(crew);
}

bool bl_crew_ready(const bl_crew *crew, int worker)
{
    int rank = worker / crew->each;
    return rank == 0 || (crew->ranks->other[rank].ready && !crew->ranks->other[rank].lost);
}

bl_status bl_crew_send(bl_crew *crew, int worker, const char *line)
{
    int rank = worker / crew->each;
    if (rank == 0)
        return bl_pool_send(crew->pool, worker, line);
    crew->job[worker] = ++crew->ranks->jobs;
    char *text = bl_format("%lld %s", (long long)crew->job[worker], line);
    if (!text)
        return bl_no_memory(strlen(line));
    bl_status status = bl_ranks_post(crew->ranks, rank, worker % crew->each, BL_RANK_JOB, text);
    bl_release(text);
    return status;
}

/* --- other ranks ------------------------------------------------------------------------------ */

/* A rank said what it is. Its results must be the same as those of this one, bit for bit. */
static bl_status greet(bl_crew *crew, int rank, const char *self)
{
    bl_other_rank *other = &crew->ranks->other[rank];
    char build[17], instructions[16], here[16];
    if (sscanf(self, "%16s %15s", build, instructions) != 2 || strlen(build) != 16 ||
        sscanf(crew->self, "%*s %15s", here) != 1)
        return bl_fail(BL_INVALID, "rank %d says that it is \"%.80s\"", rank, self);
    const char *host = strrchr(self, ' ') + 1;
    if (strncmp(self, crew->self, 16) != 0)
        return bl_fail(BL_INVALID, "rank %d (%s) runs another build of ballast than rank 0", rank,
                       host);
    if (strcmp(instructions, here) != 0)
        return bl_fail(BL_INVALID,
                       "rank %d (%s) computes with %s, rank 0 with %s, and their results would "
                       "differ in the last bits: use machines of one kind",
                       rank, host, instructions, here);
    bl_release(other->host);
    if (!(other->host = bl_copy_text(host)))
        return bl_no_memory(0);
    char wanted[48];
    snprintf(wanted, sizeof wanted, "%d %.17g", crew->each, crew->patience);
    other->ready = true;
    return bl_ranks_post(crew->ranks, rank, 0, BL_RANK_WORKERS, wanted);
}

static bl_status is_broken(const bl_other_rank *other, const bl_rank_message *m)
{
    return bl_fail(BL_IO, "rank %d%s%s%s: %s", m->rank, other->host ? " (" : "",
                   other->host ? other->host : "", other->host ? ")" : "", m->text);
}

/* What a message of a rank's worker is as an event; the text changes hands. */
static bl_event event_of(const bl_crew *crew, bl_rank_message *m)
{
    static const struct {
        bl_rank_kind kind;
        bl_event_kind event;
    } kinds[] = {{BL_RANK_PROGRESS, BL_EVENT_PROGRESS},
                 {BL_RANK_RESULT, BL_EVENT_RESULT},
                 {BL_RANK_ERROR, BL_EVENT_ERROR},
                 {BL_RANK_UNFIT, BL_EVENT_UNFIT},
                 {BL_RANK_DIED, BL_EVENT_DIED}};
    bl_event event = {.worker = m->rank * crew->each + m->worker};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (m->kind == kinds[i].kind)
            event.kind = kinds[i].event;
    if (event.kind == BL_EVENT_PROGRESS) {
        event.share = strtod(m->text, NULL);
    } else if (event.kind != BL_EVENT_NONE) {
        event.text = m->text;
        m->text = NULL;
    }
    return event;
}

/* Whether a message of a worker is about the job that it has, or had last; what is said of one
 * before comes too late. */
static bool is_current(const bl_crew *crew, bl_rank_message *m)
{
    return bl_rank_number(m->text) == crew->job[m->rank * crew->each + m->worker];
}

static bl_status take_in(bl_crew *crew, bl_rank_message *m, bl_event *event)
{
    if (m->rank < 1 || m->rank >= crew->ranks->size || m->worker < 0 || m->worker >= crew->each)
        return bl_fail(BL_INVALID, "a message from worker %d of rank %d, which is not there",
                       m->worker, m->rank);
    bl_other_rank *other = &crew->ranks->other[m->rank];
    other->heard = bl_seconds_now();
    switch (m->kind) {
    case BL_RANK_ALIVE:
        return BL_OK;
    case BL_RANK_READY:
        return greet(crew, m->rank, m->text);
    case BL_RANK_BROKEN:
        return is_broken(other, m);
    default:
        break;
    }
    if (!is_current(crew, m) || other->lost)
        return BL_OK;
    *event = event_of(crew, m);
    if (event->kind != BL_EVENT_UNFIT || !other->host)
        return BL_OK;
    char *where = bl_format("rank %d (%s): %s", m->rank, other->host, event->text);
    if (!where)
        return bl_no_memory(0);
    bl_release(event->text);
    event->text = where;
    return BL_OK;
}

/* After all messages were read: is a rank silent? Each of its workers is reported as dead. */
static bl_status find_lost(bl_crew *crew, bl_event *event)
{
    double t = bl_seconds_now();
    for (int rank = 1; rank < crew->ranks->size; rank++) {
        bl_other_rank *other = &crew->ranks->other[rank];
        if (!other->lost && t - other->heard > SILENCE) {
            other->lost = true;
            other->dying = crew->each;
        }
        if (other->dying > 0) {
            event->kind = BL_EVENT_DIED;
            event->worker = rank * crew->each + --other->dying;
            event->text = bl_format("rank %d (%s) gave no sign of life for %d s", rank,
                                    other->host ? other->host : "unknown", SILENCE);
            return event->text ? BL_OK : bl_no_memory(0);
        }
    }
    return BL_OK;
}

/* The next event of another rank, if there is one now. */
static bl_status look(bl_crew *crew, bl_event *event)
{
    bl_rank_message m;
    do {
        BL_TRY(bl_ranks_take(crew->ranks, &m));
        bl_status status =
            m.kind == BL_RANK_NONE ? find_lost(crew, event) : take_in(crew, &m, event);
        bl_release(m.text);
        BL_TRY(status);
    } while (m.kind != BL_RANK_NONE && event->kind == BL_EVENT_NONE);
    return bl_ranks_show_life(crew->ranks);
}

bl_status bl_crew_wait(bl_crew *crew, int milliseconds, bl_event *event)
{
    if (!crew->ranks)
        return bl_pool_wait(crew->pool, milliseconds, event);
    double end = bl_seconds_now() + milliseconds / 1e3;
    *event = (bl_event){0};
    bl_status status;
    do {
        status = look(crew, event);
        if (status == BL_OK && event->kind == BL_EVENT_NONE)
            status =
                bl_pool_wait(crew->pool, bl_ranks_pause(bl_seconds_now() - crew->moved), event);
    } while (status == BL_OK && event->kind == BL_EVENT_NONE && bl_seconds_now() < end);
    if (event->kind != BL_EVENT_NONE)
        crew->moved = bl_seconds_now();
    return status;
}
