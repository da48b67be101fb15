/* The store of studies and the pool of workers: what is done stays done, what a dead process held
 * is taken over, a worker that dies is replaced. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "study/pool.h"
#include "study/store.h"

static const char *const arms[] = {"baseline", "elr"};
static char folder[] = "/tmp/ballast-store-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char *command = bl_format("rm -rf %s", folder);
    int code = system(command);
    bl_release(command);
    return code;
}

static char *path_of(const char *name)
{
    return bl_format("%s/%s", folder, name);
}

static bl_claim claim(bl_store *store, int64_t study)
{
    bl_claim c;
    assert_int_equal(bl_store_claim(store, study, arms, 2, 2, &c), BL_OK);
    return c;
}

static void jobs_are_claimed_replicate_by_replicate_and_once(void **state)
{
    (void)state;
    char *path = path_of("deep/er/studies.db");
    bl_store *store;
    int64_t study;
    assert_int_equal(bl_store_open(path, &store), BL_OK);
    assert_int_equal(bl_store_study(store, "plan", false, &study), BL_OK);
    assert_int_equal(bl_store_want(store, study, arms, 2, 2), BL_OK);
    for (int i = 0; i < 4; i++) {
        bl_claim c = claim(store, study);
        assert_string_equal(c.arm, arms[i % 2]);
        assert_int_equal(c.replicate, i / 2);
        assert_int_equal(bl_store_finish(store, study, &c, "{\"x\":1}"), BL_OK);
        bl_claim_free(&c);
    }
    bl_claim none = claim(store, study);
    assert_null(none.arm);
    bl_store_close(store);

    char *result, *error; /* and they are still there for the next command */
    assert_int_equal(bl_store_open(path, &store), BL_OK);
    assert_int_equal(bl_store_want(store, study, arms, 2, 2), BL_OK);
    none = claim(store, study);
    assert_null(none.arm);
    assert_int_equal(bl_store_result(store, study, "elr", 1, &result, &error), BL_OK);
    assert_string_equal(result, "{\"x\":1}");
    assert_null(error);
    bl_release(result);
    bl_store_close(store);
    bl_release(path);
}

static void jobs_of_a_process_that_is_gone_are_taken_over(void **state)
{
    (void)state;
    char *path = path_of("gone.db");
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) { /* claims a job and vanishes without a word */
        bl_store *store;
        int64_t study;
        bl_claim c = {0};
        bool held = bl_store_open(path, &store) == BL_OK &&
                    bl_store_study(store, "plan", false, &study) == BL_OK &&
                    bl_store_want(store, study, arms, 2, 2) == BL_OK &&
                    bl_store_claim(store, study, arms, 2, 2, &c) == BL_OK && c.arm;
        _exit(held ? 0 : 1);
    }
    int how;
    waitpid(child, &how, 0);
    assert_int_equal(how, 0);
    bl_store *store;
    int64_t study;
    assert_int_equal(bl_store_open(path, &store), BL_OK);
    assert_int_equal(bl_store_study(store, "plan", false, &study), BL_OK);
    bl_store_counts counts;
    assert_int_equal(bl_store_count(store, study, arms, 2, 2, &counts), BL_OK);
    assert_int_equal(counts.running, 1);
    bl_claim c = claim(store, study);
    assert_string_equal(c.arm, "baseline");
    assert_int_equal(c.replicate, 0);
    bl_claim_free(&c);
    bl_store_close(store);
    bl_release(path);
}

static void two_commands_never_hold_one_job(void **state)
{
    (void)state;
    char *path = path_of("two.db");
    bl_store *a, *b;
    int64_t study;
    assert_int_equal(bl_store_open(path, &a), BL_OK);
    assert_int_equal(bl_store_open(path, &b), BL_OK);
    assert_int_equal(bl_store_study(a, "plan", false, &study), BL_OK);
    assert_int_equal(bl_store_want(a, study, arms, 2, 2), BL_OK);
    assert_int_equal(bl_store_want(b, study, arms, 2, 2), BL_OK);
    bool seen[4] = {false};
    for (int i = 0; i < 4; i++) {
        bl_claim c = claim(i % 2 ? b : a, study);
        int job = c.replicate * 2 + !strcmp(c.arm, "elr");
        assert_false(seen[job]);
        seen[job] = true;
        bl_claim_free(&c);
    }
    bl_store_close(a);
    bl_store_close(b);
    bl_release(path);
}

static void fresh_forgets_and_failures_are_tried_again(void **state)
{
    (void)state;
    char *path = path_of("fresh.db");
    bl_store *store;
    int64_t study;
    assert_int_equal(bl_store_open(path, &store), BL_OK);
    assert_int_equal(bl_store_study(store, "plan", false, &study), BL_OK);
    assert_int_equal(bl_store_want(store, study, arms, 1, 1), BL_OK);
    bl_claim c = claim(store, study);
    assert_int_equal(bl_store_fail(store, study, &c, "out of luck"), BL_OK);
    bl_claim_free(&c);
    char *result, *error;
    assert_int_equal(bl_store_result(store, study, "baseline", 0, &result, &error), BL_OK);
    assert_null(result);
    assert_string_equal(error, "out of luck");
    bl_release(error);
    assert_int_equal(bl_store_want(store, study, arms, 1, 1), BL_OK);
    c = claim(store, study);
    assert_string_equal(c.arm, "baseline");
    assert_int_equal(bl_store_finish(store, study, &c, "{}"), BL_OK);
    bl_claim_free(&c);
    assert_int_equal(bl_store_study(store, "plan", true, &study), BL_OK);
    assert_int_equal(bl_store_result(store, study, "baseline", 0, &result, &error), BL_OK);
    assert_null(result);
    bl_store_close(store);
    bl_release(path);
}

static void what_is_not_a_store_is_refused(void **state)
{
    (void)state;
    char *path = path_of("text.db");
    const char text[] =
        "this is a file with some text in it, long enough to have a database header's size; it "
        "is certainly not a database of any kind";
    assert_int_equal(bl_write_file(path, text, sizeof text), BL_OK);
    bl_store *store;
    assert_int_equal(bl_store_open(path, &store), BL_INVALID);
    assert_non_null(strstr(bl_error(), "text.db"));
    assert_int_equal(bl_store_open("/proc/none/studies.db", &store), BL_IO);
    bl_release(path);
}

/* --- workers: shell scripts that speak the protocol
 * ------------------------------------------------- */
static bl_event next(bl_pool *pool)
{
    bl_event event;
    do
        assert_int_equal(bl_pool_wait(pool, 5000, &event), BL_OK);
    while (event.kind == BL_EVENT_NONE);
    return event;
}

static void a_worker_answers_and_a_dead_one_is_replaced(void **state)
{
    (void)state;
    const char *const argv[] = {
        "/bin/sh", "-c",
        "while read line; do [ \"$line\" = die ] && kill -9 $$; echo '{\"progress\":0.5}'; "
        "echo \"{\\\"result\\\":{\\\"threads\\\":$OMP_NUM_THREADS}}\"; done",
        NULL};
    bl_pool *pool;
    assert_int_equal(bl_pool_start(2, argv, &pool), BL_OK);
    assert_int_equal(bl_pool_send(pool, 1, "work"), BL_OK);
    bl_event event = next(pool);
    assert_int_equal(event.kind, BL_EVENT_PROGRESS);
    assert_int_equal(event.worker, 1);
    assert_true(event.share > 0.49 && event.share < 0.51);
    event = next(pool);
    assert_int_equal(event.kind, BL_EVENT_RESULT);
    assert_string_equal(event.text, "{\"threads\":1}");
    bl_release(event.text);
    assert_int_equal(bl_pool_send(pool, 0, "die"), BL_OK);
    event = next(pool);
    assert_int_equal(event.kind, BL_EVENT_DIED);
    assert_int_equal(event.worker, 0);
    assert_non_null(strstr(event.text, "signal 9"));
    bl_release(event.text);
    assert_int_equal(bl_pool_send(pool, 0, "work"), BL_OK);
    assert_int_equal(next(pool).kind, BL_EVENT_PROGRESS);
    bl_pool_stop(pool);
}

static void a_worker_that_cannot_start_is_an_error(void **state)
{
    (void)state;
    const char *const argv[] = {"/no/such/program", NULL};
    bl_pool *pool;
    assert_int_equal(bl_pool_start(1, argv, &pool), BL_IO);
    assert_non_null(strstr(bl_error(), "/no/such/program"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_claimed_replicate_by_replicate_and_once),
        cmocka_unit_test(jobs_of_a_process_that_is_gone_are_taken_over),
        cmocka_unit_test(two_commands_never_hold_one_job),
        cmocka_unit_test(fresh_forgets_and_failures_are_tried_again),
        cmocka_unit_test(what_is_not_a_store_is_refused),
        cmocka_unit_test(a_worker_answers_and_a_dead_one_is_replaced),
        cmocka_unit_test(a_worker_that_cannot_start_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
