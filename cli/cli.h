/* The program's parts: one file per subcommand, thin over the library.
 *
 * A subcommand is `int cli_NAME(int argc, char **argv)` with a row in commands.def. It declares its
 * flags once, in a table of cli_option; parsing, --help and the error for an unknown flag come from
 * that table. Exit status: 0 done, 1 done but the answer is no (a check that failed), 2 wrong use
 * or bad input, 130 interrupted. */
#ifndef CLI_H
#define CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "ballast/status.h"

#define COMMAND(name, text) int cli_##name(int argc, char **argv);
#include "commands.def"
#undef COMMAND

enum { CLI_OK = 0, CLI_NO = 1, CLI_BAD = 2, CLI_INTERRUPTED = 130 };

typedef enum cli_kind {
    CLI_FLAG,    /* bool *        --json */
    CLI_TEXT,    /* const char ** --target price */
    CLI_TEXTS,   /* cli_texts *   --arm A --arm B */
    CLI_INTEGER, /* int64_t *     --seeds 10 */
    CLI_NUMBER   /* double *      --label-noise 0.4 */
} cli_kind;

#define CLI_TEXTS_MAX 4096 /* operands too: a folder of files by the shell's star */
typedef struct cli_texts {
    int count;
    const char *at[CLI_TEXTS_MAX];
} cli_texts;

typedef struct cli_option {
    const char *name; /* "label-noise", without dashes; NULL ends a table; "" starts a group named
                         by `text` */
    cli_kind kind;
    void *value;          /* where it goes; its content is the default */
    const char *argument; /* "SHARE", for help */
    const char *text;     /* what it does, with the default where that helps */
    double low,
        high;    /* CLI_INTEGER and CLI_NUMBER: accepted range, both ends included; both 0: any */
    char letter; /* short form, -o; 0: none */
} cli_option;

typedef struct cli_usage {
    const char *command;          /* "compare" */
    const char *synopsis;         /* "ballast compare DATA [--target COLUMN] [--arm ARM]..." */
    const char *description;      /* a paragraph or two, with examples; --help wraps it */
    const cli_option *options[3]; /* tables, NULL-terminated list */
    int least, most;              /* how many operands; most < 0: any */
} cli_usage;

/* Parses argv[1..]; operands are collected into `operands`. Returns -1 to go on, or the exit status
 * (0 after --help, CLI_BAD after printing a sentence to standard error). */
int cli_parse(const cli_usage *usage, int argc, char **argv, cli_texts *operands);

/* Prints "ballast COMMAND: message" to standard error and returns CLI_BAD (CLI_INTERRUPTED for
 * BL_INTERRUPTED). */
int cli_fail(const char *command, bl_status code);

/* Writes text whole to `path` (temporary name, rename), or to standard output where path is NULL or
 * "-". A full disk or closed pipe is an error. */
bl_status cli_write(const char *path, const char *text);

/* Whether --OPTION PATH can be written, asked before the work and not after it. */
bl_status cli_check_output(const char *path, const char *option);

/* Prints text wrapped to the width and a newline; the cursor is at `column`, and every line but the
 * first is indented. */
void cli_wrap(const char *text, int column, int indent, int width);

bool cli_colour(int descriptor); /* a terminal, and NO_COLOR is not set */
int cli_width(int descriptor);   /* columns; 80 where it is not a terminal */

/* Non-zero after Ctrl-C (or SIGTERM), once cli_catch_interrupt was called; a second Ctrl-C ends the
 * program. */
volatile const int *cli_catch_interrupt(void);

#endif
