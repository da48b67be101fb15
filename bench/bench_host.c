/* Times functions that are called once and not compiled: fits, clustering, statistics.
 *
 *     bench_host FILE RESULTS
 *
 * FILE is a call: the function's inputs in.NAME, and the notes `function` and `options` (JSON). Its
 * outputs go to RESULTS as out.NAME; then every number N read from standard input calls it N times
 * and prints microseconds a call, checks of the inputs included. Threads are those of
 * OMP_NUM_THREADS. bench/host.py writes the files and alternates with other libraries. Solvers of
 * ballast/solve.h that no method's function stands for are in `solvers` below. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ballast/solve.h"
#include "methods/contract.h"
#include "turns.h"

typedef struct bench {
    bl_dictionary file, in, out;
    const char *function, *options;
} bench;

/* --- solvers ---------------------------------------------------------------------------------- */

static bl_status input(const bench *b, const char *name, const bl_array **out)
{
    *out = bl_dictionary_find(&b->in, name);
    return *out ? BL_OK : bl_fail(BL_INVALID, "the file has no in.%s", name);
}

/* x f64[n,size], init f64[n,2], perplexity and iterations f64[] -> map f64[n,2] */
static bl_status tsne(bench *b)
{
    const bl_array *x, *init, *perplexity, *iterations;
    bl_array map;
    BL_TRY(input(b, "x", &x));
    BL_TRY(input(b, "init", &init));
    BL_TRY(input(b, "perplexity", &perplexity));
    BL_TRY(input(b, "iterations", &iterations));
    BL_TRY(bl_array_copy(init, &map));
    int64_t n = x->type.shape.dim[0], size = x->type.shape.dim[1];
    bl_status status = bl_tsne(bl_f64(x), n, size, bl_array_get(perplexity, 0),
                               (int64_t)bl_array_get(iterations, 0), bl_f64(&map));
    if (status == BL_OK)
        return bl_dictionary_set(&b->out, "map", map);
    bl_array_free(&map);
    return status;
}

static const struct solver {
    const char *name;
    bl_status (*call)(bench *b);
} solvers[] = {{"bl_tsne", tsne}};

/* --- calls ------------------------------------------------------------------------------------ */

static bl_status call(void *context)
{
    bench *b = context;
    bl_dictionary_free(&b->out);
    b->out = (bl_dictionary){0};
    for (size_t i = 0; i < sizeof solvers / sizeof *solvers; i++)
        if (strcmp(b->function, solvers[i].name) == 0)
            return solvers[i].call(b);
    const bl_contract *contract;
    BL_TRY(bl_function_find(b->function, &contract));
    return bl_function_call(contract, bl_device_cpu(), &b->in, b->options, &b->out, NULL, NULL,
                            NULL);
}

static bl_status read_call(bench *b, const char *path)
{
    BL_TRY(bl_safetensors_read(path, &b->file));
    b->function = bl_dictionary_note(&b->file, "function");
    b->options = bl_dictionary_note(&b->file, "options");
    if (!b->function)
        return bl_fail(BL_INVALID, "%s has no note function", path);
    for (size_t e = 0; e < b->file.count; e++) {
        const char *name = b->file.entry[e].name;
        bl_array copy;
        if (strncmp(name, "in.", 3) != 0)
            continue;
        BL_TRY(bl_array_copy(&b->file.entry[e].array, &copy));
        BL_TRY(bl_dictionary_set(&b->in, name + 3, copy));
    }
    return BL_OK;
}

static bl_status write_results(const bench *b, const char *path)
{
    bl_dictionary named = {0};
    bl_status status = BL_OK;
    for (size_t e = 0; e < b->out.count && status == BL_OK; e++) {
        char name[128];
        bl_array copy;
        snprintf(name, sizeof name, "out.%s", b->out.entry[e].name);
        status = bl_array_copy(&b->out.entry[e].array, &copy);
        if (status == BL_OK)
            status = bl_dictionary_set(&named, name, copy);
    }
    if (status == BL_OK)
        status = bl_safetensors_write(path, &named);
    bl_dictionary_free(&named);
    return status;
}

int main(int argc, char **argv)
{
    static bench b;
    if (argc != 3) {
        fputs("usage: bench_host FILE RESULTS\n", stderr);
        return 2;
    }
    bl_status status = read_call(&b, argv[1]);
    if (status == BL_OK)
        status = call(&b);
    if (status == BL_OK)
        status = write_results(&b, argv[2]);
    if (status == BL_OK && puts("ready") != EOF)
        status = take_turns(call, &b);
    if (status != BL_OK)
        fprintf(stderr, "bench_host: %s\n", bl_error());
    bl_dictionary_free(&b.out);
    bl_dictionary_free(&b.in);
    bl_dictionary_free(&b.file);
    return status != BL_OK;
}
