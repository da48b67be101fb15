/* The store of studies and the pool of workers: what is done stays done, what a dead process held
 * is taken over, a worker that dies is replaced. */
#include <setjmp.h>
#include <signal.h>
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

/* A process that claims the first job and then does what `ending` says: "zombie", it has ended, but
 * who started it has not asked how; "stopped", as by Ctrl-Z. */
static pid_t claim_and(const char *path, const char *ending)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bl_store *store;
        int64_t study;
        bl_claim c = {0};
        bool held = bl_store_open(path, &store) == BL_OK &&
                    bl_store_study(store, "plan", false, &study) == BL_OK &&
                    bl_store_want(store, study, arms, 1, 1) == BL_OK &&
                    bl_store_claim(store, study, arms, 1, 1, &c) == BL_OK && c.arm &&
                    write(ready[1], "x", 1) == 1;
        if (held && !strcmp(ending, "stopped"))
            raise(SIGSTOP);
        _exit(held ? 0 : 1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    siginfo_t how;
    assert_int_equal(waitid(P_PID, (id_t)child, &how, WEXITED | WSTOPPED | WNOWAIT), 0);
    close(ready[0]);
    close(ready[1]);
    return child;
}

static void jobs_of_a_stopped_process_and_of_a_zombie_are_taken_over(void **state)
{
    (void)state;
    static const char *const ending[] = {"zombie", "stopped"};
    for (int i = 0; i < 2; i++) {
        char *path = path_of(ending[i]);
        pid_t child = claim_and(path, ending[i]);
        bl_store *store;
        int64_t study;
        assert_int_equal(bl_store_open(path, &store), BL_OK);
        assert_int_equal(bl_store_study(store, "plan", false, &study), BL_OK);
        bl_claim c = claim_one(store, study);
        assert_non_null(c.arm);
        bl_claim_free(&c);
        bl_store_close(store);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        bl_release(path);
    }
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
    snprintf(s->text, sizeof s->text, "%s|%s|%s|%s", saying->name, saying->command, saying->table,
             saying->json);
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

/* Files as versions 1 to 3 of the schema made them, with a finished job and what else they had. */
static const char *const older[] = {
    "CREATE TABLE studies (id INTEGER PRIMARY KEY, plan TEXT NOT NULL UNIQUE);"
    "CREATE TABLE jobs (study INTEGER NOT NULL REFERENCES studies(id), arm TEXT NOT NULL,"
    " replicate INTEGER NOT NULL, state TEXT NOT NULL, owner TEXT, result TEXT, error TEXT,"
    " PRIMARY KEY (study, arm, replicate)) WITHOUT ROWID;"
    "INSERT INTO studies VALUES (7, 'plan');"
    "INSERT INTO jobs VALUES (7, 'elr', 1, 'done', NULL, '{}', NULL);"
    "PRAGMA user_version = 1",
    "ALTER TABLE jobs ADD COLUMN beat INTEGER NOT NULL DEFAULT 0;"
    "CREATE INDEX pending ON jobs (study, replicate) WHERE state = 'pending';"
    "CREATE INDEX running ON jobs (study, owner) WHERE state = 'running';"
    "PRAGMA user_version = 2",
    "ALTER TABLE studies ADD COLUMN name TEXT;"
    "ALTER TABLE studies ADD COLUMN made INTEGER NOT NULL DEFAULT 0;"
    "CREATE UNIQUE INDEX names ON studies (name) WHERE name IS NOT NULL;"
    "CREATE TABLE choices (study INTEGER NOT NULL REFERENCES studies(id), arm TEXT NOT NULL,"
    " trials INTEGER NOT NULL, chosen INTEGER NOT NULL, setting TEXT NOT NULL,"
    " PRIMARY KEY (study, arm, trials)) WITHOUT ROWID;"
    "CREATE TABLE sayings (study INTEGER NOT NULL REFERENCES studies(id), command TEXT NOT NULL,"
    " said INTEGER NOT NULL, outcome_table TEXT NOT NULL, outcome_json TEXT NOT NULL,"
    " PRIMARY KEY (study, command)) WITHOUT ROWID;"
    "UPDATE studies SET name = 'wine', made = 2000000000;"
    "INSERT INTO sayings VALUES (7, 'compare', 2000000000, 'table', '{}');"
    "PRAGMA user_version = 3"};

/* What was done is there, what was not is claimed once. */
static void expect_to_go_on(const char *path)
{
    bl_store *store;
    int64_t study;
    char *result, *error;
    assert_int_equal(bl_store_open(path, &store), BL_OK);
    assert_int_equal(bl_store_study(store, "plan", false, &study), BL_OK);
    assert_int_equal(study, 7);
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
}

static void older_files_are_brought_up_to_date(void **state)
{
    (void)state;
    for (size_t version = 1; version <= sizeof older / sizeof *older; version++) {
        char name[32];
        snprintf(name, sizeof name, "older-%zu.db", version);
        char *path = path_of(name);
        for (size_t i = 0; i < version; i++)
            run_sql(path, older[i]);
        expect_to_go_on(path);
        bl_release(path);
    }
    /* The name is still one study's, of a configuration that the old program did not write down. */
    char *path = path_of("older-3.db");
    bl_store *store;
    bl_store_other other;
    const bl_store_label label = {"wine", 0, "{\"arms\":[]}"}, arm = {"wine", 0, "{}"};
    seen s = {0};
    assert_int_equal(bl_store_open(path, &store), BL_OK);
    assert_int_equal(bl_store_each(store, see_study, &s), BL_OK);
    assert_string_equal(s.text, "wine plan compare 1 0");
    assert_int_equal(bl_store_each_saying(store, 7, see_saying, &s), BL_OK);
    assert_string_equal(s.text, "wine|compare|table|{}");
    assert_int_equal(bl_store_name(store, 7, &label, false, &other), BL_OK);
    assert_null(other.plan);
    assert_int_equal(bl_store_name(store, 7, &arm, false, &other), BL_OK);
    assert_string_equal(other.configuration, "{\"arms\":[]}");
    bl_store_other_free(&other);
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

/* --- clocks that jump ------------------------------------------------------------------------- */
enum { MACHINES = 3, HELD = 3, CLOCK_JOBS = 24, DAY = 86400 };

/* A machine with a clock of its own that runs some claims at once. */
typedef struct machine {
    bl_store *store;
    int64_t clock;
    int restarts;
    bl_claim held[HELD];
} machine;

typedef struct world {
    char *path;
    int64_t study;
    machine machine[MACHINES];
    bl_random random;
    char first[CLOCK_JOBS][16]; /* the first result of each job, or "" */
    int claims, late, jumps;
} world;

static int64_t clock_of(void *context)
{
    return ((machine *)context)->clock;
}

/* It starts, or starts again under another name: what it held it knows nothing of. */
static void boot(world *w, int i)
{
    machine *m = &w->machine[i];
    for (int h = 0; h < HELD; h++)
        bl_claim_free(&m->held[h]);
    bl_store_close(m->store);
    assert_int_equal(bl_store_open(w->path, &m->store), BL_OK);
    char host[32];
    snprintf(host, sizeof host, "machine-%d-%d", i, m->restarts++);
    bl_store_pretend(m->store, host, clock_of, m);
}

static void claim_somewhere(world *w, machine *m)
{
    for (int h = 0; h < HELD; h++)
        if (!m->held[h].arm) {
            assert_int_equal(
                bl_store_claim(m->store, w->study, arms, 2, CLOCK_JOBS / 2, &m->held[h]), BL_OK);
            w->claims += m->held[h].arm != NULL;
            return;
        }
}

/* Every result says who got it and when, so that a second one would show. */
static void finish_something(world *w, int i)
{
    machine *m = &w->machine[i];
    bl_claim *c = &m->held[bl_random_below(&w->random, HELD)];
    if (!c->arm)
        return;
    char mine[16], *result, *error;
    int job = 2 * c->replicate + !strcmp(c->arm, "elr");
    snprintf(mine, sizeof mine, "\"%d %d\"", i, w->claims);
    assert_int_equal(bl_store_finish(m->store, w->study, c, mine), BL_OK);
    if (!*w->first[job])
        memcpy(w->first[job], mine, sizeof mine);
    else
        w->late++;
    assert_int_equal(bl_store_result(m->store, w->study, c->arm, c->replicate, &result, &error),
                     BL_OK);
    assert_string_equal(result, w->first[job]);
    bl_release(result);
    bl_claim_free(c);
}

static void step(world *w)
{
    int i = (int)bl_random_below(&w->random, MACHINES);
    machine *m = &w->machine[i];
    m->clock += bl_random_below(&w->random, 20);
    switch (bl_random_below(&w->random, 16)) {
    case 0: /* days forward or back */
        m->clock += (bl_random_below(&w->random, 2) ? 1 : -1) * DAY *
                    (1 + (int64_t)bl_random_below(&w->random, 9));
        w->jumps++;
        return;
    case 1:
        boot(w, i);
        return;
    case 2:
    case 3:
    case 4:
        assert_int_equal(bl_store_beat(m->store, w->study), BL_OK);
        return;
    case 5:
    case 6:
        finish_something(w, i);
        return;
    default:
        claim_somewhere(w, m);
    }
}

/* Machines whose clocks jump by days and that crash at any moment: every job is done in the end,
 * its first result stays, and a job is done twice only where its owner seemed gone. */
static void clocks_that_jump_lose_nothing_and_count_nothing_twice(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 5; seed++) {
        char name[32];
        snprintf(name, sizeof name, "clocks-%u.db", seed);
        world w = {.path = path_of(name), .random = bl_random_new(bl_key_from_seed(seed))};
        for (int i = 0; i < MACHINES; i++) {
            w.machine[i].clock = 2000000000;
            boot(&w, i);
        }
        assert_int_equal(bl_store_study(w.machine[0].store, "plan", false, &w.study), BL_OK);
        assert_int_equal(bl_store_want(w.machine[0].store, w.study, arms, 2, CLOCK_JOBS / 2),
                         BL_OK);
        bl_store_counts counts = {0};
        int steps = 0;
        for (; counts.done < CLOCK_JOBS && steps < 20000; steps++) {
            step(&w);
            assert_int_equal(
                bl_store_count(w.machine[0].store, w.study, arms, 2, CLOCK_JOBS / 2, &counts),
                BL_OK);
            assert_int_equal(counts.failed, 0);
            assert_int_equal(counts.pending + counts.running + counts.done, CLOCK_JOBS);
        }
        assert_int_equal(counts.done, CLOCK_JOBS);
        assert_true(w.jumps > 0);
        for (int i = 0; i < MACHINES; i++) {
            for (int h = 0; h < HELD; h++)
                bl_claim_free(&w.machine[i].held[h]);
            bl_store_close(w.machine[i].store);
        }
        print_message("seed %u: %d steps, %d jumps, %d claims, %d results too late\n", seed, steps,
                      w.jumps, w.claims, w.late);
        bl_release(w.path);
    }
}

/* --- names and verdicts ----------------------------------------------------------------------- */
static void names_and_verdicts_are_remembered_and_forgotten(void **state)
{
    (void)state;
    char *path = path_of("names.db");
    bl_store_other other;
    bl_store *store;
    int64_t one, two;
    assert_int_equal(bl_store_open(path, &store), BL_OK);
    assert_int_equal(bl_store_study(store, "first", false, &one), BL_OK);
    const bl_store_label label = {"wine", 0, "{}"}, other_arms = {"wine", 0, "{\"arms\":[]}"};
    assert_int_equal(bl_store_name(store, one, &label, false, &other), BL_OK);
    assert_null(other.plan);
    assert_int_equal(bl_store_name(store, one, &label, false, &other), BL_OK); /* its own name */
    assert_null(other.plan);
    assert_int_equal(bl_store_name(store, one, &other_arms, false, &other), BL_OK);
    assert_string_equal(other.plan, "first");
    assert_string_equal(other.configuration, "{}");
    bl_store_other_free(&other);
    const bl_store_label second_name = {"claret", 0, "{}"};
    assert_int_equal(bl_store_name(store, one, &second_name, false, &other), BL_OK);
    assert_int_equal(bl_store_want(store, one, arms, 2, 1), BL_OK);
    bl_claim c = claim(store, one);
    assert_int_equal(bl_store_finish(store, one, &c, "{}"), BL_OK);
    bl_claim_free(&c);
    assert_int_equal(bl_store_choose(store, one, "elr", 12, 3, "elr @ learning_rate=1"), BL_OK);
    bl_store_saying saying = {"wine", "compare", "table", "{}", 0};
    assert_int_equal(bl_store_say(store, one, &saying), BL_OK);
    saying.table = "later table";
    assert_int_equal(bl_store_say(store, one, &saying), BL_OK);

    seen s = {0};
    assert_int_equal(bl_store_each(store, see_study, &s), BL_OK);
    assert_string_equal(s.text, "claret, wine first compare 1 1");
    s = (seen){0};
    assert_int_equal(bl_store_each_saying(store, one, see_saying, &s), BL_OK);
    assert_int_equal(s.count, 1); /* the same command has one saying, its last */
    assert_string_equal(s.text, "wine|compare|later table|{}");
    s = (seen){0};
    assert_int_equal(bl_store_each_job(store, one, see_job, &s), BL_OK);
    assert_int_equal(s.count, 2);
    assert_string_equal(s.text, "elr 0 pending -");

    assert_int_equal(bl_store_study(store, "second", false, &two), BL_OK);
    assert_int_equal(bl_store_name(store, two, &label, false, &other), BL_OK);
    assert_string_equal(other.plan, "first");
    bl_store_other_free(&other);
    assert_int_equal(bl_store_name(store, two, &label, true, &other), BL_OK);
    assert_null(other.plan);

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
    assert_int_equal(bl_pool_start(2, argv, 0, &pool), BL_OK);
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
    assert_int_equal(bl_pool_start(1, argv, 0, &pool), BL_OK);
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
    assert_int_equal(bl_pool_start(1, argv, 0.2, &pool), BL_OK);
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
    assert_int_equal(bl_pool_start(1, argv, 0, &pool), BL_IO);
    assert_non_null(strstr(bl_error(), "/no/such/program"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_claimed_replicate_by_replicate_and_once),
        cmocka_unit_test(jobs_of_a_process_that_is_gone_are_taken_over),
        cmocka_unit_test(jobs_of_a_stopped_process_and_of_a_zombie_are_taken_over),
        cmocka_unit_test(two_commands_never_hold_one_job),
        cmocka_unit_test(many_commands_may_make_one_file),
        cmocka_unit_test(older_files_are_brought_up_to_date),
        cmocka_unit_test(another_machine_is_gone_after_a_silent_minute),
        cmocka_unit_test(clocks_that_jump_lose_nothing_and_count_nothing_twice),
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
