/* The command line, from tables of cli_option: parsing, help, errors that name the nearest flag. */
#include "cli.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"

/* --- help --------------------------------------------------------------------------------------
 */
void cli_wrap(const char *text, int column, int indent, int width)
{
    while (*text) {
        size_t length = strcspn(text, " \n");
        if (column + (int)length + 1 > width && column > indent) {
            printf("\n%*s", indent, "");
            column = indent;
        }
        printf("%s%.*s", column > indent ? " " : "", (int)length, text);
        column += (int)length + 1;
        text += length;
        if (*text == '\n') {
            printf("\n%*s", indent, "");
            column = indent;
        }
        text += *text != 0;
    }
    putchar('\n');
}

static void print_option(const cli_option *o, int width)
{
    char left[64];
    snprintf(left, sizeof left, "%s%c%s--%s %s", o->letter ? "-" : "", o->letter ? o->letter : ' ',
             o->letter ? ", " : "   ", o->name, o->argument ? o->argument : "");
    enum { COLUMN = 30 };
    printf("  %-*s", COLUMN - 2, left);
    if (strlen(left) > COLUMN - 3)
        printf("\n%*s", COLUMN, "");
    cli_wrap(o->text, COLUMN, COLUMN, width);
}

static void print_help(const cli_usage *usage)
{
    int width = cli_width(STDOUT_FILENO);
    if (width > 100)
        width = 100;
    printf("Usage: %s\n\n", usage->synopsis);
    cli_wrap(usage->description, 0, 0, width);
    for (int t = 0; t < 3 && usage->options[t]; t++) {
        if (usage->options[t]->name && *usage->options[t]->name)
            puts("\nOptions:");
        for (const cli_option *o = usage->options[t]; o->name; o++)
            if (*o->name)
                print_option(o, width);
            else
                printf("\n%s:\n", o->text);
    }
    puts("\n      --help                  print this");
}

/* --- parsing ------------------------------------------------------------------------------------
 */
static const cli_option *find(const cli_usage *usage, const char *name, size_t length, char letter)
{
    for (int t = 0; t < 3 && usage->options[t]; t++)
        for (const cli_option *o = usage->options[t]; o->name; o++)
            if (*o->name && (letter ? o->letter == letter
                                    : strlen(o->name) == length && !memcmp(o->name, name, length)))
                return o;
    return NULL;
}

static int unknown(const cli_usage *usage, const char *argument)
{
    const char *names[128];
    int count = 0;
    for (int t = 0; t < 3 && usage->options[t]; t++)
        for (const cli_option *o = usage->options[t]; o->name && count < 128; o++)
            if (*o->name)
                names[count++] = o->name;
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(argument + strspn(argument, "-"), "="),
             argument + strspn(argument, "-"));
    const char *near = bl_nearest(name, names, count);
    fprintf(stderr, "ballast %s: there is no option %s%s%s%s; see ballast %s --help\n",
            usage->command, argument, near ? "; did you mean --" : "", near ? near : "",
            near ? "?" : "", usage->command);
    return CLI_BAD;
}

static int out_of_range(const cli_usage *usage, const cli_option *o, const char *text)
{
    fprintf(stderr, "ballast %s: --%s is \"%s\", but must be %s", usage->command, o->name, text,
            o->kind == CLI_INTEGER ? "a whole number" : "a number");
    if (o->low != 0 || o->high != 0) {
        if (isinf(o->high))
            fprintf(stderr, " of at least %g", o->low);
        else
            fprintf(stderr, o->kind == CLI_INTEGER ? " from %.0f to %.0f" : " from %g to %g",
                    o->low, o->high);
    }
    fputc('\n', stderr);
    return CLI_BAD;
}

static int assign(const cli_usage *usage, const cli_option *o, const char *text)
{
    bool limited = o->low != 0 || o->high != 0;
    double number = 0;
    int64_t integer = 0;
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)o->value = true;
        return -1;
    case CLI_TEXT:
        *(const char **)o->value = text;
        return -1;
    case CLI_TEXTS: {
        cli_texts *texts = o->value;
        if (texts->count == CLI_TEXTS_MAX) {
            fprintf(stderr, "ballast %s: --%s is given more than %d times\n", usage->command,
                    o->name, CLI_TEXTS_MAX);
            return CLI_BAD;
        }
        texts->at[texts->count++] = text;
        return -1;
    }
    case CLI_INTEGER:
        if (!bl_parse_int(text, &integer) ||
            (limited && ((double)integer < o->low || (double)integer > o->high)))
            return out_of_range(usage, o, text);
        *(int64_t *)o->value = integer;
        return -1;
    case CLI_NUMBER:
        if (!bl_parse_double(text, &number) || !isfinite(number) ||
            (limited && (number < o->low || number > o->high)))
            return out_of_range(usage, o, text);
        *(double *)o->value = number;
        return -1;
    }
    return -1;
}

/* Handles the option at argv[*i], moving *i past a separate value. */
static int parse_option(const cli_usage *usage, int argc, char **argv, int *i)
{
    const char *argument = argv[*i], *value = NULL;
    const cli_option *o;
    if (argument[1] == '-') {
        const char *equals = strchr(argument, '=');
        size_t length = equals ? (size_t)(equals - argument - 2) : strlen(argument + 2);
        o = find(usage, argument + 2, length, 0);
        value = equals ? equals + 1 : NULL;
    } else {
        o = find(usage, NULL, 0, argument[1]);
        value = argument[2] ? argument + 2 : NULL;
    }
    if (!o)
        return unknown(usage, argument);
    if (o->kind == CLI_FLAG) {
        if (value) {
            fprintf(stderr, "ballast %s: --%s takes no value\n", usage->command, o->name);
            return CLI_BAD;
        }
    } else if (!value) {
        if (*i + 1 >= argc) {
            fprintf(stderr, "ballast %s: --%s needs a value: --%s %s\n", usage->command, o->name,
                    o->name, o->argument ? o->argument : "VALUE");
            return CLI_BAD;
        }
        value = argv[++*i];
    }
    return assign(usage, o, value);
}

int cli_parse(const cli_usage *usage, int argc, char **argv, cli_texts *operands)
{
    bool only_operands = false;
    for (int i = 1; i < argc; i++) {
        if (!only_operands && !strcmp(argv[i], "--")) {
            only_operands = true;
        } else if (!only_operands && (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))) {
            print_help(usage);
            return CLI_OK;
        } else if (!only_operands && argv[i][0] == '-' && argv[i][1]) {
            int status = parse_option(usage, argc, argv, &i);
            if (status >= 0)
                return status;
        } else if (usage->most >= 0 && operands->count >= usage->most) {
            fprintf(stderr, "ballast %s: \"%s\" is one argument too many\nUsage: %s\n",
                    usage->command, argv[i], usage->synopsis);
            return CLI_BAD;
        } else if (operands->count < CLI_TEXTS_MAX) {
            operands->at[operands->count++] = argv[i];
        } else {
            fprintf(stderr, "ballast %s: more than %d arguments\n", usage->command, CLI_TEXTS_MAX);
            return CLI_BAD;
        }
    }
    if (operands->count < usage->least) {
        fprintf(stderr, "ballast %s: an argument is missing\nUsage: %s\n", usage->command,
                usage->synopsis);
        return CLI_BAD;
    }
    return -1;
}

/* --- output and signals --------------------------------------------------------------------------
 */
int cli_fail(const char *command, bl_status code)
{
    fprintf(stderr, "ballast %s: %s\n", command, bl_error());
    return code == BL_INTERRUPTED ? CLI_INTERRUPTED : CLI_BAD;
}

bl_status cli_write(const char *path, const char *text)
{
    if (path && strcmp(path, "-") != 0)
        return bl_write_file(path, text, strlen(text));
    if (fputs(text, stdout) == EOF || fflush(stdout) == EOF)
        return bl_fail(BL_IO, "standard output: %s", strerror(errno));
    return BL_OK;
}

bl_status cli_check_output(const char *path, const char *option)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? bl_format("%.*s", (int)(slash - path + 1), path) : bl_copy_text(".");
    struct stat info;
    bl_status status = folder ? BL_OK : bl_no_memory(0);
    if (status == BL_OK && (!*path || !strcmp(path, "-")))
        status = bl_fail(BL_INVALID, "--%s is \"%s\", but must be a file name", option, path);
    if (status == BL_OK && access(folder, W_OK) != 0)
        status = bl_fail(BL_IO, "--%s %s: the folder %s does not exist or cannot be written",
                         option, path, folder);
    if (status == BL_OK && stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        status = bl_fail(BL_IO, "--%s %s is a folder, but must be a file name", option, path);
    bl_release(folder);
    return status;
}

bool cli_colour(int descriptor)
{
    const char *none = getenv("NO_COLOR");
    return isatty(descriptor) && !(none && *none);
}

int cli_width(int descriptor)
{
    struct winsize size;
    if (isatty(descriptor) && ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40)
        return size.ws_col;
    return 80;
}

/* A signal handler can reach nothing but a global; this is the program's, not the library's. */
static volatile int interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

volatile const int *cli_catch_interrupt(void)
{
    /* SA_RESETHAND: the second one ends the program at once. */
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return &interrupted;
}
