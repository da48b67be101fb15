/* ballast doctor: what this installation has, what is missing, and how to get it. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ballast/program.h"
#include "base/base.h"
#include "cli.h"

typedef struct finding {
    bool fine;
    const char *what, *detail, *remedy; /* remedy: shown where it is not fine */
} finding;

static void print(const finding *f, bool json, bool *first)
{
    if (json) {
        printf("%s\n  {\"what\": \"%s\", \"fine\": %s, \"detail\": \"%s\"}", *first ? "" : ",",
               f->what, f->fine ? "true" : "false", f->fine ? f->detail : f->remedy);
        *first = false;
        return;
    }
    const char *mark = f->fine ? "ok" : "--";
    if (cli_colour(STDOUT_FILENO))
        mark = f->fine ? "\033[32mok\033[0m" : "\033[33m--\033[0m";
    printf("%s  %-16s %s\n", mark, f->what, f->fine ? f->detail : f->remedy);
}

static bool on_path(const char *program)
{
    const char *path = getenv("PATH");
    for (const char *at = path; at && *at;) {
        size_t length = strcspn(at, ":");
        char *candidate = bl_format("%.*s/%s", (int)length, at, program);
        bool found = candidate && access(candidate, X_OK) == 0;
        bl_release(candidate);
        if (found)
            return true;
        at += length + (at[length] == ':');
    }
    return false;
}

static const char *processor(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return "AVX-512";
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? "AVX2" : NULL;
}

/* Compiles and runs 1 + 1 on the device: the whole engine in one sentence. */
static bool engine_adds(const bl_device *device)
{
    bl_graph *g = bl_graph_new();
    if (!g)
        return false;
    bl_tensor x = bl_input(g, "x", BL_F32, BL_SCALAR), y = bl_add(x, 1);
    float one = 1;
    bl_array in = {.type = bl_type_of(x), .data = &one}, out = {0};
    bool fine = bl_evaluate(device, &x, &in, 1, &y, &out, 1) == BL_OK && bl_f32(&out)[0] == 2;
    bl_array_free(&out);
    bl_graph_free(g);
    return fine;
}

int cli_doctor(int argc, char **argv)
{
    bool json = false;
    const cli_option options[] = {
        {.name = "json", .kind = CLI_FLAG, .value = &json, .text = "print JSON"}, {0}};
    const cli_usage usage = {.command = "doctor",
                             .synopsis = "ballast doctor [--json]",
                             .description =
                                 "Says what this installation can do. Optional parts that are "
                                 "missing are listed with the command that installs them.",
                             .options = {options}};
    cli_texts operands = {0};
    int status = cli_parse(&usage, argc, argv, &operands);
    if (status >= 0)
        return status;

    char cores[32];
    snprintf(cores, sizeof cores, "%ld processors", sysconf(_SC_NPROCESSORS_ONLN));
    const char *vector = processor();
    bool reference = engine_adds(bl_device_reference()), cpu = engine_adds(bl_device_cpu());
    const finding findings[] = {
        {true, "ballast", BALLAST_VERSION, ""},
        {reference, "reference", "the reference executor computes",
         "the reference executor fails: this build is broken"},
        {cpu, "cpu", "the cpu executor computes", "the cpu executor fails: this build is broken"},
        {vector != NULL, "vectors", vector ? vector : "",
         "no AVX2 found: everything works, slowly"},
        {true, "cores", cores, ""},
        {access("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz", R_OK) == 0,
         "fashion-mnist", "data set installed",
         "not installed: apt-get install dataset-fashion-mnist"},
        {on_path("gnuplot"), "gnuplot", "plots in reports by gnuplot",
         "not installed: apt-get install gnuplot-nox"},
    };
    bool first = true;
    if (json)
        fputs("[", stdout);
    for (size_t i = 0; i < sizeof findings / sizeof *findings; i++)
        print(&findings[i], json, &first);
    if (json)
        fputs("\n]\n", stdout);
    return reference && cpu ? CLI_OK : CLI_NO;
}
