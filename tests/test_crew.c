/* Messages between ranks, over a cluster that a test plays: what crosses on the way is not mistaken
 * for something else. The same under mpirun, with workers that are killed, is tests/cli/mpi.sh. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "study/cluster.h"
#include "study/crew.h"

enum { MOST = 16 };

/* Messages to this rank, and the texts that it sent. */
struct bl_cluster {
    bl_cluster_message to[MOST];
    int given, taken;
    char sent[MOST][64];
    int count;
};

static int post(bl_cluster *c, const bl_cluster_message *m)
{
    if (m->bytes[0] != BL_RANK_ALIVE && c->count < MOST)
        snprintf(c->sent[c->count++], sizeof c->sent[0], "%d:%.*s", m->worker, (int)m->count,
                 m->bytes);
    return 0;
}

/* The message to quit waits for all answers. */
static int take(bl_cluster *c, bl_cluster_message *m)
{
    *m = (bl_cluster_message){0};
    bool waits = c->taken < c->given && c->to[c->taken].bytes[0] == BL_RANK_QUIT;
    if (c->taken < c->given && !(waits && c->count < c->to[c->taken].rank)) {
        *m = c->to[c->taken++];
        m->bytes = strdup(m->bytes);
        m->rank = 1;
    }
    return 0;
}

static const bl_cluster_calls calls = {.post = post, .take = take};

static void give(bl_cluster *c, int rank, const char *text)
{
    c->to[c->given++] =
        (bl_cluster_message){.rank = rank, .bytes = (char *)text, .count = strlen(text)};
}

static void expect_event(bl_crew *crew, bl_event_kind kind, const char *text)
{
    bl_event event;
    assert_int_equal(bl_crew_wait(crew, 20, &event), BL_OK);
    assert_int_equal(event.kind, kind);
    if (text)
        assert_string_equal(event.text, text);
    bl_release(event.text);
}

/* A worker dies idle while its next job is on the way: that job is not sent again, for its answer
 * would come twice and the second be taken for that of the job after it. */
static void what_is_said_of_an_earlier_job_is_dropped(void **state)
{
    (void)state;
    static const char *const argv[] = {"/bin/cat", NULL};
    bl_cluster cluster = {0};
    bl_ranks ranks = {.mpi = &calls, .cluster = &cluster, .size = 2};
    ranks.other = calloc(2, sizeof *ranks.other);
    bl_crew *crew;
    assert_int_equal(bl_crew_start(1, argv, 0, &ranks, &crew), BL_OK);
    char *self, ready[400];
    assert_int_equal(bl_rank_self(argv[0], &self), BL_OK);
    snprintf(ready, sizeof ready, "%c%s", BL_RANK_READY, self);
    give(&cluster, 1, ready);
    expect_event(crew, BL_EVENT_NONE, NULL);
    assert_true(bl_crew_ready(crew, 1));

    assert_int_equal(bl_crew_send(crew, 1, "A"), BL_OK);
    give(&cluster, 1, "p1 0.5");
    expect_event(crew, BL_EVENT_PROGRESS, NULL);
    give(&cluster, 1, "r1 {\"a\":1}");
    expect_event(crew, BL_EVENT_RESULT, "{\"a\":1}");
    assert_int_equal(bl_crew_send(crew, 1, "B"), BL_OK);
    give(&cluster, 1, "d1 it was idle");
    expect_event(crew, BL_EVENT_NONE, NULL);
    give(&cluster, 1, "d2 it was at work");
    expect_event(crew, BL_EVENT_DIED, "it was at work");
    assert_int_equal(bl_crew_send(crew, 1, "B"), BL_OK);
    give(&cluster, 1, "r2 {\"late\":1}");
    give(&cluster, 1, "nonsense");
    expect_event(crew, BL_EVENT_NONE, NULL);
    give(&cluster, 1, "u3 no data");
    bl_event event;
    assert_int_equal(bl_crew_wait(crew, 20, &event), BL_OK);
    assert_int_equal(event.kind, BL_EVENT_UNFIT);
    assert_non_null(strstr(event.text, "rank 1 (")); /* and the machine's name */
    bl_release(event.text);
    assert_string_equal(cluster.sent[1], "0:j1 A");
    assert_string_equal(cluster.sent[2], "0:j2 B");
    assert_string_equal(cluster.sent[3], "0:j3 B");
    bl_crew_stop(crew);

    /* The numbers go on in the next crew, to which the old answers mean nothing. */
    assert_int_equal(bl_crew_start(1, argv, 0, &ranks, &crew), BL_OK);
    give(&cluster, 1, "d3 it was idle");
    expect_event(crew, BL_EVENT_NONE, NULL);
    assert_int_equal(bl_crew_send(crew, 1, "C"), BL_OK);
    assert_string_equal(cluster.sent[4], "0:j4 C");
    bl_crew_stop(crew);
    bl_release(ranks.other[1].host);
    free(ranks.other);
    bl_release(self);
}

static void a_rank_answers_with_the_number_of_the_job(void **state)
{
    (void)state;
    static const char *const argv[] = {
        "/bin/sh", "-c",
        "read line; echo '{\"progress\":0.5}'; echo \"{\\\"result\\\":$line}\"; read line", NULL};
    bl_cluster cluster = {0};
    bl_ranks ranks = {.mpi = &calls, .cluster = &cluster, .rank = 1, .size = 2};
    give(&cluster, 0, "w1 0");
    give(&cluster, 0, "j7 {\"x\":1}");
    give(&cluster, 3, "q"); /* after three answers: ready, progress, result */
    assert_int_equal(bl_ranks_serve(&ranks, argv), BL_OK);
    assert_int_equal(cluster.sent[0][2], BL_RANK_READY);
    assert_string_equal(cluster.sent[1], "0:p7 0.500000");
    assert_string_equal(cluster.sent[2], "0:r7 {\"x\":1}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_said_of_an_earlier_job_is_dropped),
        cmocka_unit_test(a_rank_answers_with_the_number_of_the_job),
    };
    return cmocka_run_group_tests_name("crew", tests, NULL, NULL);
}
