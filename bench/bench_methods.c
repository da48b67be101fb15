/* Times contract functions on the cpu executor: values and gradients, compiled once, one thread.
 *
 *     bench_methods [--threads N] FILE..             the median of each
 *     bench_methods [--threads N] --turns RESULTS FILE
 *     bench_methods --list                           the functions that have a gradient
 *
 * A file is a reference case (tests/cases): in.NAME, cot.NAME, metadata `function`, `options`,
 * `wrt`; computed are the outputs and gradients that it names as out.NAME and grad.NAME, whose
 * values are not looked at. A line of JSON a function. With --turns the results go to the file
 * RESULTS, then every number N read from standard input runs the program N times and prints
 * microseconds a run: bench/methods.py, which writes the files and compares, so alternates between
 * peers. BENCH_EXPLAIN=1 prints the program's kernels as well. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "methods/contract.h"
#include "turns.h"

enum { MOST = 96 };

typedef struct bench {
    bl_dictionary file;
    const bl_contract *contract;
    void *fields;
    bl_graph *graph;
    const char *in_name[MOST], *out_name[MOST];
    bl_tensor in[MOST], out[MOST];
    bl_array given[MOST], got[MOST];
    int inputs, outputs;
    bl_program *program;
    double compiled; /* microseconds to compile */
} bench;

static const char *after(const char *name, const char *prefix)
{
    size_t length = strlen(prefix);
    return strncmp(name, prefix, length) == 0 ? name + length : NULL;
}

/* --- binding ---------------------------------------------------------------------------------- */

static void *member(const bench *b, const bl_field *field)
{
    return (char *)b->fields + field->offset;
}

/* The graph's input of that name, or nothing where the file has none. */
static bool give(bench *b, const char *name, bl_tensor *out)
{
    for (size_t e = 0; e < b->file.count && b->inputs < MOST; e++) {
        const char *in = after(b->file.entry[e].name, "in.");
        if (!in || strcmp(in, name) != 0)
            continue;
        int i = b->inputs++;
        b->in_name[i] = in;
        b->given[i] = b->file.entry[e].array;
        b->in[i] = *out = bl_input(b->graph, name, b->given[i].type.dtype, b->given[i].type.shape);
        return true;
    }
    return false;
}

static bl_status bind_inputs(bench *b, const bl_field *table, int count)
{
    for (int k = 0; k < count; k++) {
        const bl_field *f = &table[k];
        if (f->kind == BL_FIELD_IN && !give(b, f->name, member(b, f)) &&
            !bl_has_condition(f->conditions, "optional"))
            return bl_fail(BL_INVALID, "the file has no in.%s", f->name);
        bl_tensors *list = member(b, f);
        for (int j = 0; f->kind == BL_FIELD_INS && j < BL_LIST_MAX; j++) {
            char *name = bl_list_name(f->name, j);
            bool given = name && give(b, name, &list->at[j]);
            bl_release(name);
            if (!given)
                break;
            list->count = j + 1;
        }
    }
    return BL_OK;
}

static bl_tensor output_named(const bench *b, const bl_field *table, int count, const char *name)
{
    for (int k = 0; k < count; k++) {
        const bl_field *f = &table[k];
        if (f->kind == BL_FIELD_OUT && strcmp(f->name, name) == 0)
            return *(bl_tensor *)member(b, f);
        const bl_tensors *list = member(b, f);
        for (int j = 0; f->kind == BL_FIELD_OUTS && j < list->count; j++) {
            char *entry = bl_list_name(f->name, j);
            bool same = entry && strcmp(entry, name) == 0;
            bl_release(entry);
            if (same)
                return list->at[j];
        }
    }
    return bl_poison(b->graph, "no output is called %s", name);
}

/* The outputs that the file names, and the gradients of `wrt` or with cotangents. */
static bl_status choose_outputs(bench *b, const bl_field *table, int count)
{
    const char *wrt = bl_dictionary_note(&b->file, "wrt");
    bl_tensor seeded[MOST], seed[MOST], x[MOST];
    int seeds = 0, gradients = 0;
    for (size_t e = 0; e < b->file.count && b->outputs < MOST; e++) {
        const char *name = b->file.entry[e].name, *out = after(name, "out.");
        const char *cotangent = after(name, "cot.");
        if (out) {
            b->out_name[b->outputs] = name;
            b->out[b->outputs++] = output_named(b, table, count, out);
        }
        if (cotangent) {
            seeded[seeds] = output_named(b, table, count, cotangent);
            seed[seeds++] = bl_constant(b->graph, &b->file.entry[e].array);
        }
    }
    int first = b->outputs;
    for (size_t e = 0; e < b->file.count && b->outputs < MOST; e++) {
        const char *gradient = after(b->file.entry[e].name, "grad.");
        for (int i = 0; gradient && i < b->inputs; i++) {
            if (strcmp(b->in_name[i], gradient) != 0)
                continue;
            x[gradients++] = b->in[i];
            b->out_name[b->outputs++] = b->file.entry[e].name;
        }
    }
    if (gradients && seeds)
        bl_vjp(seeded, seed, seeds, x, gradients, b->out + first);
    else if (gradients && wrt)
        bl_grad(output_named(b, table, count, wrt), x, gradients, b->out + first);
    else
        return bl_fail(BL_INVALID, "the file names no gradients, no cotangents and no wrt");
    return bl_graph_status(b->graph);
}

static bl_status bench_open(bench *b, const char *path, int threads)
{
    BL_TRY(bl_safetensors_read(path, &b->file));
    const char *function = bl_dictionary_note(&b->file, "function");
    BL_TRY(bl_function_find(function ? function : "", &b->contract));
    if (!b->contract->build)
        return bl_fail(BL_INVALID, "%s is a function on arrays", function);
    b->fields = bl_fields_new(b->contract);
    b->graph = bl_graph_new();
    if (!b->fields || !b->graph)
        return bl_fail(BL_NO_MEMORY, "no memory");
    BL_TRY(bl_options_set_json(b->contract, b->fields, bl_dictionary_note(&b->file, "options")));

    double start = now();
    int count;
    const bl_field *table = b->contract->table(&count);
    BL_TRY(bind_inputs(b, table, count));
    bl_contract_build_in(b->graph, b->contract, b->fields);
    BL_TRY(bl_graph_status(b->graph));
    BL_TRY(choose_outputs(b, table, count));
    bl_compile_options options = {.threads = threads};
    BL_TRY(
        bl_compile(bl_device_cpu(), b->in, b->inputs, b->out, b->outputs, &options, &b->program));
    b->compiled = now() - start;
    for (int o = 0; o < b->outputs; o++) {
        bl_type type = bl_type_of(b->out[o]);
        BL_TRY(bl_array_new(type.dtype, type.shape, &b->got[o]));
    }
    return bl_run(b->program, b->given, b->got);
}

static void bench_close(bench *b)
{
    for (int o = 0; o < b->outputs; o++)
        bl_array_free(&b->got[o]);
    bl_program_free(b->program);
    bl_graph_free(b->graph);
    bl_release(b->fields);
    bl_dictionary_free(&b->file);
}

/* --- timing ----------------------------------------------------------------------------------- */

static bl_status run_once(void *context)
{
    bench *b = context;
    return bl_run(b->program, b->given, b->got);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bl_status time_alone(bench *b)
{
    enum { SAMPLES = 101 };
    double sample[SAMPLES], once;
    BL_TRY(time_calls(run_once, b, 3, &once));
    long times = once < 1000 ? (long)(1000 / once) + 1 : 1;
    int count = 0;
    for (double start = now(); count < SAMPLES && (count < 9 || now() - start < 1e6); count++)
        BL_TRY(time_calls(run_once, b, times, &sample[count]));
    qsort(sample, (size_t)count, sizeof *sample, ascending);
    printf("{\"function\": \"%s\", \"median_us\": %.3f, \"least_us\": %.3f, \"kernels\": %lld, "
           "\"compile_us\": %.0f}\n",
           b->contract->name, sample[count / 2], sample[0],
           (long long)bl_program_work(b->program).kernels, b->compiled);
    return BL_OK;
}

static bl_status answer(bench *b, const char *results)
{
    bl_dictionary found = {0};
    for (int o = 0; o < b->outputs; o++) {
        bl_array copy;
        BL_TRY(bl_array_copy(&b->got[o], &copy));
        BL_TRY(bl_dictionary_set(&found, b->out_name[o], copy));
    }
    bl_status status = bl_safetensors_write(results, &found);
    bl_dictionary_free(&found);
    BL_TRY(status);
    printf("{\"function\": \"%s\", \"kernels\": %lld, \"compile_us\": %.0f}\n", b->contract->name,
           (long long)bl_program_work(b->program).kernels, b->compiled);
    return take_turns(run_once, b);
}

static int bench_file(const char *path, int threads, const char *results)
{
    static bench b;
    b = (bench){0};
    bl_status status = bench_open(&b, path, threads);
    if (status == BL_OK && getenv("BENCH_EXPLAIN")) {
        char *text = bl_program_explain(b.program);
        fputs(text ? text : "", stderr);
        free(text);
    }
    if (status == BL_OK)
        status = results ? answer(&b, results) : time_alone(&b);
    if (status != BL_OK)
        fprintf(stderr, "bench_methods: %s: %s\n", path, bl_error());
    bench_close(&b);
    return status == BL_OK ? 0 : 1;
}

static bool has_gradient(const bl_contract *contract)
{
    int count;
    const bl_field *table = contract->table(&count);
    for (int i = 0; i < count && contract->build; i++)
        if ((table[i].kind == BL_FIELD_IN || table[i].kind == BL_FIELD_INS) &&
            bl_has_condition(table[i].conditions, "grad"))
            return true;
    return false;
}

static int list_functions(void)
{
    static const bl_contract *all[4096];
    int count = bl_functions(all, 4096);
    for (int i = 0; i < count; i++)
        if (has_gradient(all[i]))
            printf("%s\n", all[i]->name);
    return 0;
}

int main(int argc, char **argv)
{
    int threads = 1, failed = 0;
    const char *results = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0)
            return list_functions();
        if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
            threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--turns") == 0 && i + 1 < argc)
            results = argv[++i];
        else
            failed |= bench_file(argv[i], threads, results);
    }
    return failed;
}
