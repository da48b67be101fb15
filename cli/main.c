/* ballast: the program. Finds the subcommand and hands over.
 *
 * To add one: a file with cli_NAME, a row in commands.def, a test script in tests/cli. */
#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "cli.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *text; /* NULL: not listed */
} commands[] = {
#define COMMAND(name, text) {#name, cli_##name, text},
#include "commands.def"
#undef COMMAND
};
enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static void help(void)
{
    puts("ballast: which regularization method helps on your data?\n\n"
         "  ballast compare prices.csv --target price     a verdict for every method that fits\n"
         "  ballast train prices.csv --target price --arm conr -o model.safetensors\n"
         "  ballast predict model.safetensors new.csv\n\n"
         "Commands (ballast COMMAND --help explains each):\n");
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (commands[i].text)
            printf("  %-10s %s\n", commands[i].name, commands[i].text);
}

static int unknown(const char *name)
{
    const char *names[COMMAND_COUNT];
    for (int i = 0; i < COMMAND_COUNT; i++)
        names[i] = commands[i].name;
    const char *near = bl_nearest(name, names, COMMAND_COUNT);
    fprintf(stderr, "ballast: there is no command \"%s\"%s%s%s; ballast --help lists them\n", name,
            near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    return CLI_BAD;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        help();
        return CLI_BAD;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        help();
        return CLI_OK;
    }
    if (!strcmp(argv[1], "--version")) {
        puts("ballast " BALLAST_VERSION);
        return CLI_OK;
    }
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (!strcmp(argv[1], commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    return unknown(argv[1]);
}
