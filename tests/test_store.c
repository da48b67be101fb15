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
#include <sqlite3.h>

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

static bl_claim claim_one(bl_store *store, int64_t study)
{
    bl_claim c;
    assert_int_equal(bl_store_claim(store, study, arms, 1, 1, &c), BL_OK);
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

/* Three processes that wait for one signal and then make the same new file. */
static void many_commands_may_make_one_file(void **state)
{
    (void)state;
    enum { FILES = 100, PROCESSES = 3 };
    for (int file = 0; file < FILES; file++) {
        char name[32];
        snprintf(name, sizeof name, "new-%d.db", file);
        char *path = path_of(name), start[1];
        int gate[2], how;
        assert_int_equal(pipe(gate), 0);
        for (int i = 0; i < PROCESSES; i++)
            if (fork() == 0) {
                bl_store *store;
                int64_t study;
                close(gate[1]);
                bool opened = read(gate[0], start, 1) == 0 && bl_store_open(path, &store) == BL_OK;
                _exit(opened && bl_store_study(store, "plan", false, &study) == BL_OK &&
                              bl_store_want(store, study, arms, 2, 2) == BL_OK
                          ? 0
                          : 1);
            }
        close(gate[0]);
        close(gate[1]); /* go */
        for (int i = 0; i < PROCESSES; i++) {
            assert_true(wait(&how) > 0);
            assert_int_equal(how, 0);
        }
        bl_release(path);
    }
}

/* --- what another version or another machine left behind: written by SQL
 * ---------------------------------------------------------------------------------------- */
static void run_sql(const char *path, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void an_older_file_is_brought_up_to_date(void **state)
{
    (void)state;
    char *path = path_of("older.db"), *result, *error;
    run_sql(path, "CREATE TABLE studies (id INTEGER PRIMARY KEY, plan TEXT NOT NULL UNIQUE);"
                  "CREATE TABLE jobs (study INTEGER NOT NULL REFERENCES studies(id), arm TEXT NOT "
                  "NULL, replicate INTEGER NOT NULL, state TEXT NOT NULL, owner TEXT, result TEXT, "
                  "error TEXT, PRIMARY KEY (study, arm, replicate)) WITHOUT ROWID;"
                  "INSERT INTO studies VALUES (7, 'plan');"
                  "INSERT INTO jobs VALUES (7, 'elr', 1, 'done', NULL, '{}', NULL);"
                  "PRAGMA user_version = 1");
    bl_store *store;
    int64_t study;
    assert_int_equal(bl_store_open(path, &store), BL_OK);
    assert_int_equal(bl_store_study(store, "plan", false, &study), BL_OK);
    assert_int_equal(bl_store_want(store, study, arms, 2, 2), BL_OK);
    assert_int_equal(bl_store_result(store, study, "elr", 1, &result, &error), BL_OK);
    assert_string_equal(result, "{}");
    bl_release(result);
    for (int i = 0; i < 3; i++) {
        bl_claim c = claim(store, study);
        assert_non_null(c.arm);
        bl_claim_free(&c);
    }
    assert_null(claim(store, study).arm);
    bl_store_close(store);

    run_sql(path, "PRAGMA user_version = 99");
    assert_int_equal(bl_store_open(path, &store), BL_INVALID);
    assert_non_null(strstr(bl_error(), "later ballast"));
    bl_release(path);
}

static void another_machine_is_gone_after_a_silent_minute(void **state)
{
    (void)state;
    char *path = path_of("machines.db");
    bl_store *store;
    int64_t study;
    assert_int_equal(bl_store_open(path, &store), BL_OK);
    assert_int_equal(bl_store_study(store, "plan", false, &study), BL_OK);
    assert_int_equal(bl_store_want(store, study, arms, 1, 1), BL_OK);
    run_sql(path, "UPDATE jobs SET state = 'running', owner = 'elsewhere/1/1',"
                  " beat = CAST(strftime('%s', 'now') AS INTEGER) - 30");
    assert_null(claim_one(store, study).arm);
    run_sql(path, "UPDATE jobs SET beat = beat - 40");
    bl_claim c = claim_one(store, study);
    assert_string_equal(c.arm, "baseline");

    /* It was alive after all, and its result comes first: ours changes nothing. */
    char *result, *error;
    run_sql(path, "UPDATE jobs SET state = 'done', owner = NULL, result = '\"theirs\"'");
    assert_int_equal(bl_store_finish(store, study, &c, "\"ours\""), BL_OK);
    assert_int_equal(bl_store_result(store, study, "baseline", 0, &result, &error), BL_OK);
    assert_string_equal(result, "\"theirs\"");
    bl_release(result);
    bl_claim_free(&c);
    bl_store_close(store);
    bl_release(path);
}

/* A clock that jumps neither loses a job nor gives its owner for alive for ever. */
static void clocks_that_jump_lose_nothing(void **state)
{
    (void)state;
    char *path = path_of("clocks.db");
    bl_store *store;
    int64_t study;
    assert_int_equal(bl_store_open(path, &store), BL_OK);
    assert_int_equal(bl_store_study(store, "plan", false, &study), BL_OK);
    assert_int_equal(bl_store_want(store, study, arms, 1, 1), BL_OK);
    static const char *const jump[] = {"+ 86400", "- 86400"}; /* its last sign is off by a day */
    for (int i = 0; i < 2; i++) {
        char *sql = bl_format("UPDATE jobs SET state = 'running', owner = 'elsewhere/1/1',"
                              " beat = CAST(strftime('%%s', 'now') AS INTEGER) %s",
                              jump[i]);
        run_sql(path, sql);
        bl_release(sql);
        bl_claim c = claim_one(store, study);
        assert_string_equal(c.arm, "baseline");
        bl_claim_free(&c);
    }
    /* The other one lives and finishes too: the first result stays, the second changes nothing. */
    bl_claim ours = {(char *)"baseline", 0};
    char *result, *error;
    assert_int_equal(bl_store_finish(store, study, &ours, "\"first\""), BL_OK);
    assert_int_equal(bl_store_finish(store, study, &ours, "\"second\""), BL_OK);
    assert_int_equal(bl_store_result(store, study, "baseline", 0, &result, &error), BL_OK);
    assert_string_equal(result, "\"first\"");
    bl_release(result);
    bl_store_close(store);
    bl_release(path);
}

/* --- what is remembered besides jobs ---------------------------------------------------------- */
typedef struct seen {
    int count;
    char text[512];
} seen;

static bl_status see_study(void *context, const bl_store_row *row)
{
    seen *s = context;
    s->count++;
    snprintf(s->text, sizeof s->text, "%s %s %s %d %d", row->name ? row->name : "-", row->plan,
             row->command ? row->command : "-", row->counts.done, row->counts.pending);
    return row->made > 1000000000 ? BL_OK
                                  : bl_fail(BL_INVALID, "made at %lld", (long long)row->made);
}

static bl_status see_saying(void *context, const bl_store_saying *saying)
{
    seen *s = context;
    s->count++;
    snprintf(s->text, sizeof s->text, "%s|%s|%s", saying->command, saying->table, saying->json);
    return BL_OK;
}

static bl_status see_job(void *context, const bl_store_job *job)
{
    seen *s = context;
    s->count++;
    snprintf(s->text, sizeof s->text, "%s %d %s %s", job->arm, job->replicate, job->state,
             job->result ? job->result : "-");
    return BL_OK;
}

static void names_and_verdicts_are_remembered_and_forgotten(void **state)
{
    (void)state;
    char *path = path_of("names.db"), *other;
    bl_store *store;
    int64_t one, two;
    assert_int_equal(bl_store_open(path, &store), BL_OK);
    assert_int_equal(bl_store_study(store, "first", false, &one), BL_OK);
    assert_int_equal(bl_store_name(store, one, "wine", false, &other), BL_OK);
    assert_null(other);
    assert_int_equal(bl_store_name(store, one, "wine", false, &other), BL_OK); /* its own name */
    assert_null(other);
    assert_int_equal(bl_store_want(store, one, arms, 2, 1), BL_OK);
    bl_claim c = claim(store, one);
    assert_int_equal(bl_store_finish(store, one, &c, "{}"), BL_OK);
    bl_claim_free(&c);
    assert_int_equal(bl_store_choose(store, one, "elr", 12, 3, "elr @ learning_rate=1"), BL_OK);
    assert_int_equal(bl_store_say(store, one, "compare", "table", "{}"), BL_OK);
    assert_int_equal(bl_store_say(store, one, "compare", "later table", "{}"), BL_OK);

    seen s = {0};
    assert_int_equal(bl_store_each(store, see_study, &s), BL_OK);
    assert_string_equal(s.text, "wine first compare 1 1");
    s = (seen){0};
    assert_int_equal(bl_store_each_saying(store, one, see_saying, &s), BL_OK);
    assert_int_equal(s.count, 1); /* the same command has one saying, its last */
    assert_string_equal(s.text, "compare|later table|{}");
    s = (seen){0};
    assert_int_equal(bl_store_each_job(store, one, see_job, &s), BL_OK);
    assert_int_equal(s.count, 2);
    assert_string_equal(s.text, "elr 0 pending -");

    assert_int_equal(bl_store_study(store, "second", false, &two), BL_OK);
    assert_int_equal(bl_store_name(store, two, "wine", false, &other), BL_OK);
    assert_string_equal(other, "first");
    bl_release(other);
    assert_int_equal(bl_store_name(store, two, "wine", true, &other), BL_OK);
    assert_null(other);

    c = claim(store, one); /* held by this process, which lives */
    assert_int_equal(bl_store_remove(store, one), BL_INVALID);
    assert_int_equal(bl_store_release(store, one), BL_OK);
    bl_claim_free(&c);
    assert_int_equal(bl_store_remove(store, one), BL_OK);
    s = (seen){0};
    assert_int_equal(bl_store_each(store, see_study, &s), BL_OK);
    assert_int_equal(s.count, 1);
    assert_string_equal(s.text, "wine second - 0 0");
    bl_store_close(store);
    bl_release(path);
}

static void a_sign_of_life_renews_the_lease(void **state)
{
    (void)state;
    char *path = path_of("beat.db");
    bl_store *store;
    int64_t study;
    assert_int_equal(bl_store_open(path, &store), BL_OK);
    assert_int_equal(bl_store_study(store, "plan", false, &study), BL_OK);
    assert_int_equal(bl_store_want(store, study, arms, 1, 1), BL_OK);
    bl_claim c = claim_one(store, study);
    run_sql(path, "UPDATE jobs SET beat = 5");
    assert_int_equal(bl_store_beat(store, study), BL_OK);
    sqlite3 *db;
    sqlite3_stmt *row;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT beat FROM jobs", -1, &row, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(row), SQLITE_ROW);
    assert_true(sqlite3_column_int64(row, 0) > 1000000000);
    sqlite3_finalize(row);
    sqlite3_close(db);
    bl_claim_free(&c);
    bl_store_close(store);
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

/* What is no answer ends the worker that gave it; a worker that closes its channel but lives on is
 * not waited for. */
static void a_worker_that_babbles_or_hangs_up_is_lost(void **state)
{
    (void)state;
    const char *const argv[] = {"/bin/sh", "-c",
                                "read line; [ $line = babble ] && echo hello; exec <&- >&-; "
                                "exec sleep 1000",
                                NULL};
    bl_pool *pool;
    assert_int_equal(bl_pool_start(1, argv, &pool), BL_OK);
    assert_int_equal(bl_pool_send(pool, 0, "babble"), BL_OK);
    bl_event event = next(pool);
    assert_int_equal(event.kind, BL_EVENT_DIED);
    assert_string_equal(event.text, "the worker wrote \"hello\", which is no answer");
    bl_release(event.text);
    assert_int_equal(bl_pool_send(pool, 0, "hang-up"), BL_OK);
    event = next(pool);
    assert_int_equal(event.kind, BL_EVENT_DIED);
    bl_release(event.text);
    bl_pool_stop(pool);
}

/* A worker that was stopped, or hangs, is ended once patience is, and its job can be sent again. */
static void a_worker_that_hangs_is_replaced(void **state)
{
    (void)state;
    const char *const argv[] = {"/bin/sh", "-c",
                                "read line; [ $line = hang ] && kill -STOP $$; "
                                "echo '{\"progress\":0.5}'; exec sleep 1000",
                                NULL};
    bl_pool *pool;
    assert_int_equal(bl_pool_start(1, argv, &pool), BL_OK);
    bl_pool_set_patience(pool, 0.2);
    assert_int_equal(bl_pool_send(pool, 0, "hang"), BL_OK);
    bl_event event = next(pool);
    assert_int_equal(event.kind, BL_EVENT_DIED);
    assert_string_equal(event.text, "the worker gave no sign of life for 0.2 s");
    bl_release(event.text);
    assert_int_equal(bl_pool_send(pool, 0, "work"), BL_OK);
    assert_int_equal(next(pool).kind, BL_EVENT_PROGRESS);
    event = next(pool); /* and is silent after that */
    assert_int_equal(event.kind, BL_EVENT_DIED);
    bl_release(event.text);
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
        cmocka_unit_test(many_commands_may_make_one_file),
        cmocka_unit_test(an_older_file_is_brought_up_to_date),
        cmocka_unit_test(another_machine_is_gone_after_a_silent_minute),
        cmocka_unit_test(clocks_that_jump_lose_nothing),
        cmocka_unit_test(names_and_verdicts_are_remembered_and_forgotten),
        cmocka_unit_test(a_sign_of_life_renews_the_lease),
        cmocka_unit_test(fresh_forgets_and_failures_are_tried_again),
        cmocka_unit_test(what_is_not_a_store_is_refused),
        cmocka_unit_test(a_worker_answers_and_a_dead_one_is_replaced),
        cmocka_unit_test(a_worker_that_babbles_or_hangs_up_is_lost),
        cmocka_unit_test(a_worker_that_hangs_is_replaced),
        cmocka_unit_test(a_worker_that_cannot_start_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
