/* Running gnuplot, and making its SVG fit into a page.
 *
 * One socket is gnuplot's standard input and output: the script is sent whole, then the sending
 * side is closed and the picture read to its end. That cannot block both sides, since gnuplot
 * writes only at the last line of a script, its plot command. */
#include "study/gnuplot.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { PATIENCE = 30000 }; /* milliseconds without a byte after which gnuplot is given up */

/* --- the process
 * ------------------------------------------------------------------------------------- */
static int spawn(pid_t *pid, int channel)
{
    static const char *const argv[] = {"gnuplot", "-d", NULL}; /* -d: nobody's own settings */
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, channel, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, channel, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int code = posix_spawnp(pid, argv[0], &actions, NULL, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return code;
}

static void send_all(int channel, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t sent = send(channel, bytes, count, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            break; /* it ended; how, waitpid tells */
        bytes += sent;
        count -= (size_t)sent;
    }
    shutdown(channel, SHUT_WR);
}

/* False if it fell silent. */
static bool receive_all(int channel, bl_text *text)
{
    for (;;) {
        struct pollfd watched = {.fd = channel, .events = POLLIN};
        int ready = poll(&watched, 1, PATIENCE);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return false;
        char bytes[16384];
        ssize_t n = read(channel, bytes, sizeof bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return true;
        bl_text_add_n(text, bytes, (size_t)n);
    }
}

static bl_status run(const char *script, bl_text *output)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return bl_fail(BL_IO, "gnuplot cannot be started: %s", strerror(errno));
    pid_t pid;
    int code = spawn(&pid, ends[1]);
    close(ends[1]);
    if (code != 0) {
        close(ends[0]);
        return code == ENOENT ? bl_fail(BL_NOT_FOUND, "the program gnuplot is not installed")
                              : bl_fail(BL_IO, "gnuplot cannot be started: %s", strerror(code));
    }
    send_all(ends[0], script, strlen(script));
    bool spoke = receive_all(ends[0], output);
    close(ends[0]);
    if (!spoke)
        kill(pid, SIGKILL);
    int how = 0;
    while (waitpid(pid, &how, 0) < 0 && errno == EINTR)
        continue;
    if (!spoke)
        return bl_fail(BL_IO, "gnuplot did not answer within %d seconds", PATIENCE / 1000);
    if (!WIFEXITED(how) || WEXITSTATUS(how) != 0)
        return bl_fail(BL_IO, "gnuplot failed with status %d", how);
    return output->failed ? bl_no_memory(output->length) : BL_OK;
}

/* --- the picture
 * ------------------------------------------------------------------------------------- */
/* What is replaced in gnuplot's SVG; a '$' stands for the prefix of the ids. */
static const struct change {
    const char *from, *to;
} changes[] = {
    {" id='", " id='$-"},
    {" id=\"", " id=\"$-"},
    {"xlink:href='#", "href='#$-"},
    {"url(#", "url(#$-"},
    {"'black'", "'currentColor'"},
    {"\"black\"", "\"currentColor\""},
    {"'white'", "'var(--page)'"},
    {"\"white\"", "\"var(--page)\""},
    {" font-family=\"Arial\"", ""},
    {" xmlns=\"http://www.w3.org/2000/svg\"\n", ""},
    {" xmlns:xlink=\"http://www.w3.org/1999/xlink\"\n", ""},
};

static void add_replacement(bl_text *out, const char *to, const char *id)
{
    const char *mark = strchr(to, '$');
    if (mark)
        bl_text_add(out, "%.*s%s%s", (int)(mark - to), to, id, mark + 1);
    else
        bl_text_add(out, "%s", to);
}

/* The variable that stands for a colour of gnuplot.h, which gnuplot writes as "rgb(1,0,2)" or
 * "rgb(  1,   0,   2)", and the length of that; black is the colour of the text. NULL if there is
 * no such colour. */
static const char *variable_at(const char *at, size_t *length)
{
    static const char *const variable[] = {"var(--faint)", "var(--undecided)",  "var(--helps)",
                                           "var(--hurts)", "var(--equivalent)", "var(--baseline)"};
    int red, green, blue, end = 0;
    if (strncmp(at, "rgb(", 4) != 0 ||
        sscanf(at, "rgb(%3d,%4d,%4d)%n", &red, &green, &blue, &end) != 3 || !end)
        return NULL;
    *length = (size_t)end;
    if (!red && !green && !blue)
        return "currentColor";
    bool ours = red == 1 && green == 0 && blue >= 0 && blue < 6;
    return ours ? variable[blue] : NULL;
}

/* Where the element that starts at `at` ends, if it only names the picture; else NULL. */
static const char *after_naming(const char *at)
{
    const char *close = !strncmp(at, "<title>", 7)  ? "</title>"
                        : !strncmp(at, "<desc>", 6) ? "</desc>"
                                                    : NULL;
    const char *end = close ? strstr(at, close) : NULL;
    return end ? end + strlen(close) : NULL;
}

/* The replacement for what is at `at`, and the length of that; NULL if it stays. */
static const char *replacement_at(const char *at, size_t *length)
{
    const char *after = after_naming(at);
    if (after) {
        *length = (size_t)(after - at);
        return "";
    }
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        *length = strlen(changes[i].from);
        if (!strncmp(at, changes[i].from, *length))
            return changes[i].to;
    }
    return variable_at(at, length);
}

static void fit_into_page(const char *svg, const char *id, bl_text *out)
{
    while (*svg) {
        size_t length;
        const char *to = replacement_at(svg, &length);
        if (to) {
            add_replacement(out, to, id);
            svg += length;
        } else {
            bl_text_add_n(out, svg++, 1);
        }
    }
}

bl_status bl_gnuplot(const char *commands, int width, int height, const char *id, const char *label,
                     bl_text *out)
{
    bl_text script = {0}, output = {0};
    bl_text_add(&script,
                "set encoding utf8\n"
                "set terminal svg size %d,%d dynamic noenhanced font 'Arial,13'\n%s",
                width, height, commands);
    bl_status status = script.failed ? bl_no_memory(script.length) : run(script.at, &output);
    const char *svg = status == BL_OK && output.at ? strstr(output.at, "<svg") : NULL;
    if (status == BL_OK && !svg)
        status = bl_fail(BL_IO, "gnuplot drew nothing");
    if (status == BL_OK) {
        bl_text_add(out, "<svg role=\"img\" aria-label=\"%s\" style=\"max-width:%dpx\"", label,
                    width);
        fit_into_page(svg + 4, id, out);
        status = out->failed ? bl_no_memory(out->length) : BL_OK;
    }
    bl_text_free(&script);
    bl_text_free(&output);
    return status;
}
