/* Worker processes, exec'ed and never forked without exec (libgomp and SQLite do not survive that).
 */
#include "study/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

typedef struct worker {
    pid_t pid;
    int channel; /* its standard input and output */
    bl_text unread;
    double heard; /* when it was last heard of; 0: it has no job */
} worker;

struct bl_pool {
    int count;
    worker *worker;
    const char *const *argv;
    char **environment; /* ours, with OMP_NUM_THREADS=1 */
    double patience;
};

/* --- starting and ending
 * --------------------------------------------------------------------------- */
static char **one_thread_environment(void)
{
    size_t n = 0;
    while (environ[n])
        n++;
    char **copy = bl_alloc((n + 2) * sizeof *copy);
    size_t kept = 0;
    for (size_t i = 0; copy && i < n; i++)
        if (strncmp(environ[i], "OMP_NUM_THREADS=", 16) != 0)
            copy[kept++] = environ[i];
    if (copy)
        copy[kept] = (char *)"OMP_NUM_THREADS=1";
    return copy;
}

/* In a process group of its own, so that Ctrl-C on the terminal reaches only the parent. */
static int spawn(worker *w, const char *const *argv, char **environment, int theirs)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, theirs, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, theirs, STDOUT_FILENO);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    int code =
        posix_spawn(&w->pid, argv[0], &actions, &attributes, (char *const *)argv, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return code;
}

static bl_status start(bl_pool *pool, worker *w)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return bl_fail(BL_IO, "cannot start a worker: %s", strerror(errno));
    int code = spawn(w, pool->argv, pool->environment, ends[1]);
    close(ends[1]);
    if (code != 0) {
        close(ends[0]);
        w->channel = -1;
        w->pid = 0;
        return bl_fail(BL_IO, "cannot start the worker %s: %s", pool->argv[0], strerror(code));
    }
    w->channel = ends[0];
    bl_text_free(&w->unread);
    w->unread = (bl_text){0};
    return BL_OK;
}

/* Ends a worker, if it has not ended by itself, and returns how it ended. */
static int finish(worker *w)
{
    int how = 0;
    if (w->channel >= 0)
        close(w->channel);
    if (w->pid > 0) {
        kill(w->pid, SIGKILL);
        while (waitpid(w->pid, &how, 0) < 0 && errno == EINTR)
            continue;
    }
    bl_text_free(&w->unread);
    *w = (worker){.channel = -1};
    return how;
}

bl_status bl_pool_start(int count, const char *const *argv, double patience, bl_pool **out)
{
    *out = NULL;
    if (count < 1 || count > BL_POOL_MOST)
        return bl_fail(BL_INVALID, "%d workers: must be from 1 to %d", count, BL_POOL_MOST);
    bl_pool *pool = bl_alloc(sizeof *pool);
    if (!pool)
        return bl_no_memory(sizeof *pool);
    pool->argv = argv;
    pool->patience = patience > 0 ? patience : BL_POOL_PATIENCE;
    pool->environment = one_thread_environment();
    pool->worker = bl_alloc((size_t)count * sizeof *pool->worker);
    bl_status status = pool->environment && pool->worker ? BL_OK : bl_no_memory((size_t)count);
    for (; pool->count < count && status == BL_OK; pool->count++) {
        pool->worker[pool->count].channel = -1;
        status = start(pool, &pool->worker[pool->count]);
    }
    if (status != BL_OK) {
        bl_pool_stop(pool);
        return status;
    }
    *out = pool;
    return BL_OK;
}

void bl_pool_stop(bl_pool *pool)
{
    if (!pool)
        return;
    for (int i = 0; i < pool->count; i++)
        finish(&pool->worker[i]);
    bl_release(pool->worker);
    bl_release(pool->environment);
    bl_release(pool);
}

/* --- talking
 * ------------------------------------------------------------------------------------------ */
bl_status bl_pool_send(bl_pool *pool, int index, const char *line)
{
    if (pool->worker[index].channel < 0)
        BL_TRY(start(pool, &pool->worker[index]));
    char *text = bl_format("%s\n", line);
    if (!text)
        return bl_no_memory(strlen(line));
    size_t length = strlen(text), sent = 0;
    while (sent < length) {
        ssize_t n = send(pool->worker[index].channel, text + sent, length - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break; /* it died; bl_pool_wait will say so */
        sent += (size_t)n;
    }
    bl_release(text);
    pool->worker[index].heard = bl_seconds_now();
    return BL_OK;
}

/* A line that is no answer leaves the kind BL_EVENT_NONE. */
static bl_status read_line(const char *line, bl_event *event)
{
    json_error_t error;
    json_t *json = json_loads(line, 0, &error);
    const json_t *progress = json_object_get(json, "progress"),
                 *result = json_object_get(json, "result");
    const char *unfit = json_string_value(json_object_get(json, "unfit")),
               *sentence = unfit ? unfit : json_string_value(json_object_get(json, "error"));
    bl_status status = BL_OK;
    if (json_is_number(progress)) {
        event->kind = BL_EVENT_PROGRESS;
        event->share = json_number_value(progress);
    } else if (result || sentence) {
        char *text =
            result ? json_dumps(result, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17))
                   : NULL;
        event->kind = result ? BL_EVENT_RESULT : unfit ? BL_EVENT_UNFIT : BL_EVENT_ERROR;
        event->text = bl_copy_text(result ? text : sentence);
        if (!event->text)
            status = bl_no_memory(strlen(line));
        free(text);
    }
    json_decref(json);
    return status;
}

/* Ends a worker and says why; the next job starts a new one. */
static bl_status lose(worker *w, const char *line, bl_event *event)
{
    event->kind = BL_EVENT_DIED;
    event->text = line ? bl_format("the worker wrote \"%.80s\", which is no answer", line) : NULL;
    int how = finish(w);
    if (!line)
        event->text = WIFSIGNALED(how)
                          ? bl_format("the worker was ended by signal %d (%s)", WTERMSIG(how),
                                      strsignal(WTERMSIG(how)))
                          : bl_format("the worker ended with status %d", WEXITSTATUS(how));
    return event->text ? BL_OK : bl_no_memory(64);
}

/* Ends the first worker that has been silent over its job for too long. One whose words are still
 * to be read is not silent: it may be this process that was stopped. */
static bl_status end_hanging(bl_pool *pool, const struct pollfd *watched, bl_event *event)
{
    double t = bl_seconds_now();
    int i = 0;
    for (; i < pool->count; i++) {
        const worker *w = &pool->worker[i];
        bool silent = w->channel >= 0 && !watched[i].revents && w->heard > 0;
        if (silent && t - w->heard > pool->patience)
            break;
    }
    if (i == pool->count)
        return BL_OK;
    finish(&pool->worker[i]);
    event->kind = BL_EVENT_DIED;
    event->worker = i;
    event->text = bl_format("the worker gave no sign of life for %g s", pool->patience);
    return event->text ? BL_OK : bl_no_memory(64);
}

/* Takes one whole line out of what was read. */
static bool next_line(worker *w, bl_event *event, bl_status *status)
{
    char *end = w->unread.at ? memchr(w->unread.at, '\n', w->unread.length) : NULL;
    if (!end)
        return false;
    *end = 0;
    *status = read_line(w->unread.at, event);
    if (*status == BL_OK && event->kind == BL_EVENT_NONE) {
        *status = lose(w, w->unread.at, event);
        return true;
    }
    w->heard = event->kind == BL_EVENT_PROGRESS ? bl_seconds_now() : 0;
    size_t used = (size_t)(end - w->unread.at) + 1;
    memmove(w->unread.at, w->unread.at + used, w->unread.length - used);
    w->unread.length -= used;
    return true;
}

bl_status bl_pool_wait(bl_pool *pool, int milliseconds, bl_event *event)
{
    *event = (bl_event){0};
    bl_status status = BL_OK;
    struct pollfd watched[BL_POOL_MOST];
    int count = pool->count;
    for (int i = 0; i < count; i++) {
        event->worker = i;
        if (next_line(&pool->worker[i], event, &status))
            return status;
        watched[i] = (struct pollfd){.fd = pool->worker[i].channel, .events = POLLIN};
    }
    if (poll(watched, (nfds_t)count, milliseconds) < 0)
        return BL_OK; /* a signal */
    BL_TRY(end_hanging(pool, watched, event));
    if (event->kind != BL_EVENT_NONE)
        return BL_OK;
    for (int i = 0; i < count; i++) {
        if (!watched[i].revents)
            continue;
        worker *w = &pool->worker[i];
        char bytes[16384];
        ssize_t n = read(w->channel, bytes, sizeof bytes);
        event->worker = i;
        if (n == 0 || (n < 0 && errno != EINTR))
            return lose(w, NULL, event);
        bl_text_add_n(&w->unread, bytes, n < 0 ? 0 : (size_t)n);
        if (w->unread.failed)
            return bl_no_memory(w->unread.length);
        if (next_line(w, event, &status))
            return status;
    }
    return BL_OK;
}
