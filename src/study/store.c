/* The SQLite file of studies; the only file that knows SQLite. Each public function is one
 * transaction. To change the schema, append a step to `steps`: older files take the steps they
 * lack. */
#include "study/store.h"

#include <errno.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Seconds without a sign of life after which an owner on another machine counts as gone. */
enum { SILENCE = 60 };

struct bl_store {
    sqlite3 *db;
    char *path;
    char host[32];
    char owner[64];                /* this process: "host/pid/start time" */
    int64_t (*clock)(void *clock); /* Unix time */
    void *clock_context;
};

/* --- SQLite with our errors ----------------------------------------------------------------------
 */
static bl_status failed(bl_store *s, int code)
{
    int primary = code & 0xff;
    if (primary == SQLITE_NOTADB || primary == SQLITE_CORRUPT)
        return bl_fail(BL_INVALID, "%s: not a store of studies (%s)", s->path,
                       sqlite3_errmsg(s->db));
    if (primary == SQLITE_NOMEM)
        return bl_no_memory(0);
    return bl_fail(BL_IO, "store %s: %s", s->path,
                   primary == SQLITE_FULL ? "the disk is full; what was finished is kept"
                                          : sqlite3_errmsg(s->db));
}

static bl_status run_sql(bl_store *s, const char *sql)
{
    int code = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? BL_OK : failed(s, code);
}

/* A statement with its values: i integer (int64_t), t text. */
static bl_status prepare(bl_store *s, sqlite3_stmt **statement, const char *sql, const char *kinds,
                         ...)
{
    int code = sqlite3_prepare_v2(s->db, sql, -1, statement, NULL);
    if (code != SQLITE_OK)
        return failed(s, code);
    va_list values;
    va_start(values, kinds);
    for (int i = 0; kinds[i] && code == SQLITE_OK; i++)
        code = kinds[i] == 'i' ? sqlite3_bind_int64(*statement, i + 1, va_arg(values, int64_t))
                               : sqlite3_bind_text(*statement, i + 1, va_arg(values, const char *),
                                                   -1, SQLITE_TRANSIENT);
    va_end(values);
    if (code == SQLITE_OK)
        return BL_OK;
    sqlite3_finalize(*statement);
    return failed(s, code);
}

/* Runs a prepared statement that returns nothing. */
static bl_status finish(bl_store *s, sqlite3_stmt *statement)
{
    int code = sqlite3_step(statement);
    sqlite3_finalize(statement);
    return code == SQLITE_DONE || code == SQLITE_ROW ? BL_OK : failed(s, code);
}

static bl_status begin(bl_store *s)
{
    return run_sql(s, "BEGIN IMMEDIATE");
}

/* Commits after BL_OK, else rolls back and keeps the first message. */
static bl_status end(bl_store *s, bl_status status)
{
    if (status == BL_OK)
        status = run_sql(s, "COMMIT");
    if (status != BL_OK && !sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

/* --- who owns a job
 * -------------------------------------------------------------------------------- */
/* When a process started, in clock ticks since boot: tells it from a later one with its number. 0:
 * there is no such process, or none that goes on: it was stopped, or has ended and is not yet
 * missed by who started it. */
static unsigned long long start_time(long pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    char *at = strrchr(text, ')'); /* the name may hold anything; the state follows */
    if (!at || !at[1] || strchr("TtZX", at[2]))
        return 0;
    for (int field = 0; at && field < 20; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

static void name_owner(bl_store *s)
{
    snprintf(s->owner, sizeof s->owner, "%s/%ld/%llu", s->host, (long)getpid(),
             start_time((long)getpid()));
}

static int64_t now(const bl_store *s)
{
    return s->clock(s->clock_context);
}

/* On this machine the process is looked up. Another machine (or a container with a name of its own)
 * can only be judged by its last sign of life; one from the future says that a clock was set back,
 * and whoever lives will give another soon. */
static bool is_alive(const bl_store *s, const char *owner, int64_t beat)
{
    size_t n = strlen(s->host);
    if (strncmp(owner, s->host, n) != 0 || owner[n] != '/')
        return llabs((long long)(now(s) - beat)) < SILENCE;
    char *rest;
    long pid = strtol(owner + n + 1, &rest, 10);
    return *rest == '/' && start_time(pid) == strtoull(rest + 1, NULL, 10);
}

static int64_t unix_time(void *context)
{
    (void)context;
    return (int64_t)time(NULL);
}

void bl_store_pretend(bl_store *s, const char *host, int64_t (*clock)(void *), void *context)
{
    snprintf(s->host, sizeof s->host, "%s", host);
    name_owner(s);
    s->clock = clock;
    s->clock_context = context;
}

/* --- opening
 * ---------------------------------------------------------------------------------------- */
static bl_status make_folders(const char *path)
{
    char *copy = bl_copy_text(path);
    if (!copy)
        return bl_no_memory(strlen(path));
    bl_status status = BL_OK;
    for (char *slash = strchr(copy + 1, '/'); slash && status == BL_OK;
         slash = strchr(slash + 1, '/')) {
        *slash = 0;
        int why = mkdir(copy, 0777) == 0 ? 0 : errno;
        if (why && why != EEXIST && access(copy, F_OK) != 0)
            status = bl_fail(BL_IO, "store %s: cannot make the folder %s: %s", path, copy,
                             strerror(why));
        *slash = '/';
    }
    bl_release(copy);
    return status;
}

static const char *const steps[] = {
    "CREATE TABLE studies (id INTEGER PRIMARY KEY, plan TEXT NOT NULL UNIQUE);"
    "CREATE TABLE jobs (study INTEGER NOT NULL REFERENCES studies(id), arm TEXT NOT NULL,"
    " replicate INTEGER NOT NULL, state TEXT NOT NULL, owner TEXT, result TEXT, error TEXT,"
    " PRIMARY KEY (study, arm, replicate)) WITHOUT ROWID;"
    "PRAGMA user_version = 1",
    "ALTER TABLE jobs ADD COLUMN beat INTEGER NOT NULL DEFAULT 0;" /* Unix time */
    "CREATE INDEX pending ON jobs (study, replicate) WHERE state = 'pending';"
    "CREATE INDEX running ON jobs (study, owner) WHERE state = 'running';"
    "PRAGMA user_version = 2",
    "ALTER TABLE studies ADD COLUMN name TEXT;"
    "ALTER TABLE studies ADD COLUMN made INTEGER NOT NULL DEFAULT 0;" /* Unix time */
    "CREATE UNIQUE INDEX names ON studies (name) WHERE name IS NOT NULL;"
    "CREATE TABLE choices (study INTEGER NOT NULL REFERENCES studies(id), arm TEXT NOT NULL,"
    " trials INTEGER NOT NULL, chosen INTEGER NOT NULL, setting TEXT NOT NULL,"
    " PRIMARY KEY (study, arm, trials)) WITHOUT ROWID;"
    "CREATE TABLE sayings (study INTEGER NOT NULL REFERENCES studies(id), command TEXT NOT NULL,"
    " said INTEGER NOT NULL, outcome_table TEXT NOT NULL, outcome_json TEXT NOT NULL,"
    " PRIMARY KEY (study, command)) WITHOUT ROWID;"
    "PRAGMA user_version = 3",
    /* A name is of a command's configuration: several may be of one study, and one of several. */
    "DROP INDEX names;"
    "CREATE TABLE names (name TEXT NOT NULL, place INTEGER NOT NULL,"
    " study INTEGER NOT NULL REFERENCES studies(id), configuration TEXT,"
    " PRIMARY KEY (name, place)) WITHOUT ROWID;"
    "CREATE INDEX named ON names (study);"
    "ALTER TABLE sayings ADD COLUMN name TEXT;"
    "INSERT INTO names SELECT name, 0, id, NULL FROM studies WHERE name IS NOT NULL;"
    "UPDATE sayings SET name = (SELECT name FROM studies WHERE id = study);"
    "UPDATE studies SET name = NULL;"
    "PRAGMA user_version = 4"};

enum { SCHEMA = sizeof steps / sizeof *steps };

static bl_status schema_version(bl_store *s, int *version)
{
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement, "PRAGMA user_version", ""));
    int code = sqlite3_step(statement);
    *version = code == SQLITE_ROW ? sqlite3_column_int(statement, 0) : 0;
    sqlite3_finalize(statement);
    return code == SQLITE_ROW ? BL_OK : failed(s, code);
}

/* In one transaction, so that of two commands that make a file only one does. */
static bl_status take_steps(bl_store *s)
{
    int version;
    BL_TRY(schema_version(s, &version));
    for (; version >= 0 && version < SCHEMA; version++)
        BL_TRY(run_sql(s, steps[version]));
    return BL_OK;
}

static bl_status create_schema(bl_store *s)
{
    int version;
    BL_TRY(schema_version(s, &version));
    if (version == SCHEMA)
        return BL_OK;
    if (version > SCHEMA)
        return bl_fail(BL_INVALID,
                       "store %s: written by a later ballast (schema %d, this one knows %d)",
                       s->path, version, SCHEMA);
    BL_TRY(begin(s));
    return end(s, take_steps(s));
}

/* A store that could not be made leaves nothing behind; one that has content is another command's,
 * which made it at the same time. */
static void remove_files(const char *path)
{
    struct stat about;
    if (stat(path, &about) != 0 || about.st_size > 0)
        return;
    static const char *const ending[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < sizeof ending / sizeof *ending; i++) {
        char *file = bl_format("%s%s", path, ending[i]);
        if (file)
            unlink(file);
        bl_release(file);
    }
}

/* SQLite does not wait for a lock when it changes the journal of a new file, so that of two
 * commands that start at once one is told "locked": it waits here. */
static bl_status set_up(bl_store *s)
{
    enum { TRIES = 2000, PAUSE = 10 /* milliseconds */ };
    int code = SQLITE_BUSY;
    for (int i = 0; i < TRIES && (code & 0xff) == SQLITE_BUSY; i++) {
        if (i > 0)
            sqlite3_sleep(PAUSE);
        code = sqlite3_exec(s->db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL);
    }
    if (code != SQLITE_OK)
        return failed(s, code);
    return run_sql(s, "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON");
}

bl_status bl_store_open(const char *path, bl_store **out)
{
    *out = NULL;
    BL_TRY(make_folders(path));
    struct stat about;
    bool is_new = stat(path, &about) != 0;
    if (!is_new && S_ISDIR(about.st_mode))
        return bl_fail(BL_INVALID, "store %s is a folder, but must be a file", path);
    bl_store *s = bl_alloc(sizeof *s);
    if (!s || !(s->path = bl_copy_text(path))) {
        bl_release(s);
        return bl_no_memory(sizeof *s);
    }
    gethostname(s->host, sizeof s->host - 1);
    name_owner(s);
    s->clock = unix_time;
    int code = sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    bl_status status = code == SQLITE_OK ? BL_OK : failed(s, code);
    if (status == BL_OK) {
        sqlite3_busy_timeout(s->db, 20000);
        sqlite3_extended_result_codes(s->db, 1);
        status = set_up(s);
    }
    if (status == BL_OK)
        status = create_schema(s);
    if (status != BL_OK) {
        bl_store_close(s);
        if (is_new)
            remove_files(path);
        return status;
    }
    *out = s;
    return BL_OK;
}

void bl_store_close(bl_store *s)
{
    if (!s)
        return;
    sqlite3_close(s->db);
    bl_release(s->path);
    bl_release(s);
}

char *bl_store_default_path(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (state && *state)
        return bl_format("%s/ballast/studies.db", state);
    return bl_format("%s/.local/state/ballast/studies.db", home && *home ? home : ".");
}

/* --- studies and jobs
 * --------------------------------------------------------------------------------- */
static bl_status forget(bl_store *s, const char *sql, int64_t study)
{
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement, sql, "i", study));
    return finish(s, statement);
}

static bl_status forget_results(bl_store *s, int64_t study)
{
    BL_TRY(forget(s, "DELETE FROM jobs WHERE study = ?", study));
    BL_TRY(forget(s, "DELETE FROM choices WHERE study = ?", study));
    return forget(s, "DELETE FROM sayings WHERE study = ?", study);
}

static bl_status find_study(bl_store *s, const char *plan, int64_t *study)
{
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement, "INSERT OR IGNORE INTO studies (plan, made) VALUES (?, ?)", "ti",
                   plan, now(s)));
    BL_TRY(finish(s, statement));
    BL_TRY(prepare(s, &statement, "SELECT id FROM studies WHERE plan = ?", "t", plan));
    int code = sqlite3_step(statement);
    *study = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_finalize(statement);
    return code == SQLITE_ROW ? BL_OK : failed(s, code);
}

bl_status bl_store_study(bl_store *s, const char *plan, bool fresh, int64_t *study)
{
    BL_TRY(begin(s));
    bl_status status = find_study(s, plan, study);
    if (status == BL_OK && fresh)
        status = forget_results(s, *study);
    return end(s, status);
}

bl_status bl_store_want(bl_store *s, int64_t study, const char *const *arm, int arms,
                        int replicates)
{
    BL_TRY(begin(s));
    bl_status status = BL_OK;
    sqlite3_stmt *statement;
    for (int i = 0; i < arms * replicates && status == BL_OK; i++) {
        status = prepare(
            s, &statement,
            "INSERT INTO jobs (study, arm, replicate, state) VALUES (?, ?, ?, 'pending')"
            " ON CONFLICT DO UPDATE SET state = 'pending', error = NULL WHERE state = 'failed'",
            "iti", study, arm[i % arms], (int64_t)(i / arms));
        if (status == BL_OK)
            status = finish(s, statement);
    }
    return end(s, status);
}

/* Running jobs of processes that are gone are pending again. */
static bl_status take_over(bl_store *s, int64_t study)
{
    enum { MOST = 64 };
    char gone[MOST][64];
    int count = 0;
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement,
                   "SELECT owner, max(beat) FROM jobs WHERE study = ? AND state = 'running'"
                   " GROUP BY owner",
                   "i", study));
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        const char *owner = (const char *)sqlite3_column_text(statement, 0);
        if (owner && count < MOST && !is_alive(s, owner, sqlite3_column_int64(statement, 1)))
            snprintf(gone[count++], sizeof gone[0], "%s", owner);
    }
    sqlite3_finalize(statement);
    if (code != SQLITE_DONE)
        return failed(s, code);
    for (int i = 0; i < count; i++) {
        BL_TRY(prepare(s, &statement,
                       "UPDATE jobs SET state = 'pending', owner = NULL WHERE study = ? AND owner "
                       "= ? AND state = 'running'",
                       "it", study, gone[i]));
        BL_TRY(finish(s, statement));
    }
    return BL_OK;
}

static int position_of(const char *const *arm, int arms, const char *name)
{
    int i = 0;
    while (i < arms && strcmp(arm[i], name) != 0)
        i++;
    return i;
}

/* The pending job of the lowest replicate, then of the first arm: its position in `arm`, or
 * `arms` if there is none. */
static bl_status first_pending(bl_store *s, int64_t study, const char *const *arm, int arms,
                               int replicates, int *best, int *replicate)
{
    sqlite3_stmt *statement;
    *best = arms;
    BL_TRY(prepare(s, &statement,
                   "SELECT arm, replicate FROM jobs WHERE study = ? AND state = 'pending' AND"
                   " replicate < ? ORDER BY replicate",
                   "ii", study, (int64_t)replicates));
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        int r = sqlite3_column_int(statement, 1);
        if (*best < arms && r > *replicate)
            break;
        int i = position_of(arm, arms, (const char *)sqlite3_column_text(statement, 0));
        if (i < *best) {
            *best = i;
            *replicate = r;
        }
    }
    sqlite3_finalize(statement);
    return code == SQLITE_ROW || code == SQLITE_DONE ? BL_OK : failed(s, code);
}

static bl_status claim_next(bl_store *s, int64_t study, const char *const *arm, int arms,
                            int replicates, bl_claim *claim)
{
    int best, replicate = 0;
    BL_TRY(take_over(s, study));
    BL_TRY(first_pending(s, study, arm, arms, replicates, &best, &replicate));
    if (best == arms)
        return BL_OK;
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement,
                   "UPDATE jobs SET state = 'running', owner = ?, beat = ? WHERE study = ? AND arm "
                   "= ? AND replicate = ?",
                   "tiiti", s->owner, now(s), study, arm[best], (int64_t)replicate));
    BL_TRY(finish(s, statement));
    claim->replicate = replicate;
    claim->arm = bl_copy_text(arm[best]);
    return claim->arm ? BL_OK : bl_no_memory(strlen(arm[best]));
}

bl_status bl_store_claim(bl_store *s, int64_t study, const char *const *arm, int arms,
                         int replicates, bl_claim *claim)
{
    *claim = (bl_claim){0};
    BL_TRY(begin(s));
    bl_status status = end(s, claim_next(s, study, arm, arms, replicates, claim));
    if (status != BL_OK)
        bl_claim_free(claim);
    return status;
}

void bl_claim_free(bl_claim *claim)
{
    bl_release(claim->arm);
    *claim = (bl_claim){0};
}

/* A result counts whoever holds the job by now: the same job gives the same result, and the first
 * one stays. */
bl_status bl_store_finish(bl_store *s, int64_t study, const bl_claim *claim, const char *result)
{
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement,
                   "INSERT INTO jobs (study, arm, replicate, state, result) VALUES (?, ?, ?, "
                   "'done', ?) ON CONFLICT DO UPDATE SET state = 'done', owner = NULL, error = "
                   "NULL, result = excluded.result WHERE state <> 'done'",
                   "itit", study, claim->arm, (int64_t)claim->replicate, result));
    return finish(s, statement);
}

bl_status bl_store_fail(bl_store *s, int64_t study, const bl_claim *claim, const char *error)
{
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement,
                   "UPDATE jobs SET state = 'failed', owner = NULL, error = ? WHERE study = ? AND "
                   "arm = ? AND replicate = ? AND owner = ?",
                   "titit", error, study, claim->arm, (int64_t)claim->replicate, s->owner));
    return finish(s, statement);
}

bl_status bl_store_beat(bl_store *s, int64_t study)
{
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement,
                   "UPDATE jobs SET beat = ? WHERE study = ? AND owner = ? AND state = 'running'",
                   "iit", now(s), study, s->owner));
    return finish(s, statement);
}

bl_status bl_store_release(bl_store *s, int64_t study)
{
    BL_TRY(begin(s));
    sqlite3_stmt *statement;
    bl_status status = prepare(s, &statement,
                               "UPDATE jobs SET state = 'pending', owner = NULL WHERE study = ? "
                               "AND owner = ? AND state = 'running'",
                               "it", study, s->owner);
    if (status == BL_OK)
        status = finish(s, statement);
    return end(s, status);
}

bl_status bl_store_count(bl_store *s, int64_t study, const char *const *arm, int arms,
                         int replicates, bl_store_counts *counts)
{
    *counts = (bl_store_counts){0};
    for (int a = 0; a < arms; a++) {
        sqlite3_stmt *statement;
        BL_TRY(prepare(s, &statement,
                       "SELECT state, count(*) FROM jobs WHERE study = ? AND arm = ? AND replicate "
                       "< ? GROUP BY state",
                       "iti", study, arm[a], (int64_t)replicates));
        int code;
        while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
            const char *state = (const char *)sqlite3_column_text(statement, 0);
            int *to = !strcmp(state, "pending")   ? &counts->pending
                      : !strcmp(state, "running") ? &counts->running
                      : !strcmp(state, "done")    ? &counts->done
                                                  : &counts->failed;
            *to += sqlite3_column_int(statement, 1);
        }
        sqlite3_finalize(statement);
        if (code != SQLITE_DONE)
            return failed(s, code);
    }
    return BL_OK;
}

static char *column_copy(sqlite3_stmt *statement, int column)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    return text ? bl_copy_text(text) : NULL;
}

bl_status bl_store_result(bl_store *s, int64_t study, const char *arm, int replicate, char **result,
                          char **error)
{
    *result = *error = NULL;
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement,
                   "SELECT result, error FROM jobs WHERE study = ? AND arm = ? AND replicate = ?",
                   "iti", study, arm, (int64_t)replicate));
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        *result = column_copy(statement, 0);
        *error = column_copy(statement, 1);
    }
    sqlite3_finalize(statement);
    return code == SQLITE_ROW || code == SQLITE_DONE ? BL_OK : failed(s, code);
}

/* --- names, choices, verdicts
 * ------------------------------------------------------------------------- */
/* Another study or configuration in this place of the name; a configuration that an older program
 * did not write down may be any. */
static bl_status find_other(bl_store *s, int64_t study, const bl_store_label *label,
                            bl_store_other *other)
{
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement,
                   "SELECT plan, configuration FROM names JOIN studies ON id = study"
                   " WHERE names.name = ? AND place = ? AND (study <> ? OR configuration <> ?)",
                   "tiit", label->name, (int64_t)label->place, study, label->configuration));
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        other->plan = column_copy(statement, 0);
        other->configuration = column_copy(statement, 1);
    }
    sqlite3_finalize(statement);
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        return failed(s, code);
    return code == SQLITE_ROW && !other->plan ? bl_no_memory(0) : BL_OK;
}

static bl_status name_study(bl_store *s, int64_t study, const bl_store_label *label, bool fresh,
                            bl_store_other *other)
{
    sqlite3_stmt *statement;
    if (!fresh)
        BL_TRY(find_other(s, study, label, other));
    if (other->plan)
        return BL_OK;
    if (fresh && label->place == 0) {
        BL_TRY(prepare(s, &statement, "DELETE FROM names WHERE name = ?", "t", label->name));
        BL_TRY(finish(s, statement));
    }
    BL_TRY(prepare(s, &statement,
                   "INSERT OR REPLACE INTO names (name, place, study, configuration)"
                   " VALUES (?, ?, ?, ?)",
                   "tiit", label->name, (int64_t)label->place, study, label->configuration));
    return finish(s, statement);
}

bl_status bl_store_name(bl_store *s, int64_t study, const bl_store_label *label, bool fresh,
                        bl_store_other *other)
{
    *other = (bl_store_other){0};
    BL_TRY(begin(s));
    bl_status status = end(s, name_study(s, study, label, fresh, other));
    if (status != BL_OK)
        bl_store_other_free(other);
    return status;
}

void bl_store_other_free(bl_store_other *other)
{
    bl_release(other->plan);
    bl_release(other->configuration);
    *other = (bl_store_other){0};
}

bl_status bl_store_choose(bl_store *s, int64_t study, const char *arm, int trials, int chosen,
                          const char *setting)
{
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement,
                   "INSERT OR REPLACE INTO choices (study, arm, trials, chosen, setting)"
                   " VALUES (?, ?, ?, ?, ?)",
                   "itiit", study, arm, (int64_t)trials, (int64_t)chosen, setting));
    return finish(s, statement);
}

/* What is said later has a later time, also within a second and where a clock was set back. */
bl_status bl_store_say(bl_store *s, int64_t study, const bl_store_saying *saying)
{
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement,
                   "INSERT OR REPLACE INTO sayings (study, command, said, outcome_table,"
                   " outcome_json, name) VALUES (?1, ?2, max(?3, 1 + coalesce((SELECT max(said)"
                   " FROM sayings WHERE study = ?1), 0)), ?4, ?5, ?6)",
                   "itittt", study, saying->command, now(s), saying->table, saying->json,
                   saying->name));
    return finish(s, statement);
}

/* --- looking
 * ------------------------------------------------------------------------------------------ */
static const char *column(sqlite3_stmt *statement, int i)
{
    return (const char *)sqlite3_column_text(statement, i);
}

/* Calls `visit` for every row of a prepared statement, and ends it. */
static bl_status each_row(bl_store *s, sqlite3_stmt *statement,
                          bl_status (*visit)(sqlite3_stmt *, void *), void *context)
{
    bl_status status = BL_OK;
    int code = SQLITE_ROW;
    while (status == BL_OK && (code = sqlite3_step(statement)) == SQLITE_ROW)
        status = visit(statement, context);
    sqlite3_finalize(statement);
    return status != BL_OK || code == SQLITE_DONE ? status : failed(s, code);
}

typedef struct looking {
    bl_status (*row)(void *, const bl_store_row *);
    bl_status (*name)(void *, const char *, int64_t);
    bl_status (*saying)(void *, const bl_store_saying *);
    bl_status (*choice)(void *, const bl_store_choice *);
    bl_status (*job)(void *, const bl_store_job *);
    void *context;
} looking;

static bl_status look_at_study(sqlite3_stmt *at, void *context)
{
    const looking *l = context;
    const bl_store_row row = {.id = sqlite3_column_int64(at, 0),
                              .name = column(at, 1),
                              .plan = column(at, 2),
                              .made = sqlite3_column_int64(at, 3),
                              .command = column(at, 4),
                              .json = column(at, 5),
                              .said = sqlite3_column_int64(at, 6),
                              .counts = {.pending = sqlite3_column_int(at, 7),
                                         .running = sqlite3_column_int(at, 8),
                                         .done = sqlite3_column_int(at, 9),
                                         .failed = sqlite3_column_int(at, 10)}};
    return l->row(l->context, &row);
}

bl_status bl_store_each(bl_store *s, bl_status (*visit)(void *, const bl_store_row *),
                        void *context)
{
    looking l = {.row = visit, .context = context};
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement,
                   "SELECT id, (SELECT group_concat(name, ', ') FROM (SELECT DISTINCT name"
                   " FROM names WHERE study = id ORDER BY name)), plan, made,"
                   " last.command, last.outcome_json, last.said,"
                   " (SELECT count(*) FROM jobs WHERE study = id AND state = 'pending'),"
                   " (SELECT count(*) FROM jobs WHERE study = id AND state = 'running'),"
                   " (SELECT count(*) FROM jobs WHERE study = id AND state = 'done'),"
                   " (SELECT count(*) FROM jobs WHERE study = id AND state = 'failed')"
                   " FROM studies LEFT JOIN sayings AS last ON last.study = id AND last.command ="
                   " (SELECT command FROM sayings WHERE study = id ORDER BY said DESC, command DESC"
                   " LIMIT 1) ORDER BY id",
                   ""));
    return each_row(s, statement, look_at_study, &l);
}

static bl_status look_at_name(sqlite3_stmt *at, void *context)
{
    const looking *l = context;
    return l->name(l->context, column(at, 0), sqlite3_column_int64(at, 1));
}

bl_status bl_store_each_name(bl_store *s, bl_status (*visit)(void *, const char *, int64_t),
                             void *context)
{
    looking l = {.name = visit, .context = context};
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement, "SELECT name, study FROM names ORDER BY name, place", ""));
    return each_row(s, statement, look_at_name, &l);
}

static bl_status look_at_saying(sqlite3_stmt *at, void *context)
{
    const looking *l = context;
    const bl_store_saying saying = {.name = column(at, 0),
                                    .command = column(at, 1),
                                    .table = column(at, 2),
                                    .json = column(at, 3),
                                    .said = sqlite3_column_int64(at, 4)};
    return l->saying(l->context, &saying);
}

bl_status bl_store_each_saying(bl_store *s, int64_t study,
                               bl_status (*visit)(void *, const bl_store_saying *), void *context)
{
    looking l = {.saying = visit, .context = context};
    sqlite3_stmt *statement;
    BL_TRY(prepare(
        s, &statement,
        "SELECT name, command, outcome_table, outcome_json, said FROM sayings WHERE study = ?"
        " ORDER BY said, command",
        "i", study));
    return each_row(s, statement, look_at_saying, &l);
}

static bl_status look_at_choice(sqlite3_stmt *at, void *context)
{
    const looking *l = context;
    const bl_store_choice choice = {.arm = column(at, 0),
                                    .setting = column(at, 1),
                                    .trials = sqlite3_column_int(at, 2),
                                    .chosen = sqlite3_column_int(at, 3)};
    return l->choice(l->context, &choice);
}

bl_status bl_store_each_choice(bl_store *s, int64_t study,
                               bl_status (*visit)(void *, const bl_store_choice *), void *context)
{
    looking l = {.choice = visit, .context = context};
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement,
                   "SELECT arm, setting, trials, chosen FROM choices WHERE study = ?"
                   " ORDER BY arm, trials",
                   "i", study));
    return each_row(s, statement, look_at_choice, &l);
}

static bl_status look_at_job(sqlite3_stmt *at, void *context)
{
    const looking *l = context;
    const bl_store_job job = {column(at, 0), column(at, 2), column(at, 3), column(at, 4),
                              sqlite3_column_int(at, 1)};
    return l->job(l->context, &job);
}

bl_status bl_store_each_job(bl_store *s, int64_t study,
                            bl_status (*visit)(void *, const bl_store_job *), void *context)
{
    looking l = {.job = visit, .context = context};
    sqlite3_stmt *statement;
    BL_TRY(prepare(s, &statement,
                   "SELECT arm, replicate, state, result, error FROM jobs WHERE study = ?"
                   " ORDER BY arm, replicate",
                   "i", study));
    return each_row(s, statement, look_at_job, &l);
}

static bl_status count_running(sqlite3_stmt *at, void *context)
{
    *(int *)context = sqlite3_column_int(at, 0);
    return BL_OK;
}

static bl_status remove_study(bl_store *s, int64_t study)
{
    int running = 0;
    sqlite3_stmt *statement;
    BL_TRY(take_over(s, study));
    BL_TRY(prepare(s, &statement, "SELECT count(*) FROM jobs WHERE study = ? AND state = 'running'",
                   "i", study));
    BL_TRY(each_row(s, statement, count_running, &running));
    if (running)
        return bl_fail(BL_INVALID, "study %lld: %d of its runs are being done by another command",
                       (long long)study, running);
    BL_TRY(forget_results(s, study));
    BL_TRY(forget(s, "DELETE FROM names WHERE study = ?", study));
    return forget(s, "DELETE FROM studies WHERE id = ?", study);
}

bl_status bl_store_remove(bl_store *s, int64_t study)
{
    BL_TRY(begin(s));
    return end(s, remove_study(s, study));
}
