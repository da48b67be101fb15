/* Times bl_sinkhorn on the cpu executor: the value of entropic transport and its gradient in the
 * cost, exactly LIMIT iterations, compiled once, one thread.
 *
 *     bench_sinkhorn FILE RESULTS
 *
 * FILE has cost [n,m] in single or double precision, which is that of the solve, a [n], b [m] and
 * the notes `epsilon` and `limit`. The value, the plan and the gradient go to RESULTS; then every
 * number N read from standard input solves N times and prints microseconds a solve.
 * bench/sinkhorn.py writes the file and alternates with other solvers. */
#include <stdio.h>
#include <stdlib.h>

#include "ballast/program.h"
#include "ballast/solve.h"
#include "turns.h"

enum { COST, A, B, INPUTS, VALUE = 0, PLAN, GRADIENT, OUTPUTS };

typedef struct bench {
    bl_dictionary file, found;
    bl_graph *graph;
    bl_program *program;
    bl_array given[INPUTS], got[OUTPUTS];
} bench;

static bl_status note(const bench *b, const char *name, double *number)
{
    const char *text = bl_dictionary_note(&b->file, name);
    if (!text)
        return bl_fail(BL_INVALID, "the file has no note %s", name);
    char *end;
    *number = strtod(text, &end);
    return *text && !*end ? BL_OK : bl_fail(BL_INVALID, "note %s is %s, no number", name, text);
}

static bl_status compile(bench *b)
{
    static const char *const name[] = {"cost", "a", "b"};
    bl_tensor in[INPUTS], out[OUTPUTS];
    double epsilon, limit;
    BL_TRY(note(b, "epsilon", &epsilon));
    BL_TRY(note(b, "limit", &limit));
    b->graph = bl_graph_new();
    if (!b->graph)
        return bl_fail(BL_NO_MEMORY, "no memory");
    for (int i = 0; i < INPUTS; i++) {
        const bl_array *array = bl_dictionary_find(&b->file, name[i]);
        if (!array)
            return bl_fail(BL_INVALID, "the file has no %s", name[i]);
        b->given[i] = *array;
        in[i] = bl_input(b->graph, name[i], array->type.dtype, array->type.shape);
    }
    bl_transport t;
    bl_sinkhorn(in[COST], in[A], in[B], epsilon, 0, (int64_t)limit, &t);
    out[VALUE] = t.value;
    out[PLAN] = t.plan;
    bl_grad(t.value, in, 1, &out[GRADIENT]);
    BL_TRY(bl_graph_status(b->graph));
    bl_compile_options options = {.threads = 1};
    BL_TRY(bl_compile(bl_device_cpu(), in, INPUTS, out, OUTPUTS, &options, &b->program));
    for (int i = 0; i < OUTPUTS; i++) {
        bl_type type = bl_type_of(out[i]);
        BL_TRY(bl_array_new(type.dtype, type.shape, &b->got[i]));
    }
    return bl_run(b->program, b->given, b->got);
}

static bl_status write_results(bench *b, const char *path)
{
    static const char *const name[] = {"value", "plan", "gradient"};
    for (int i = 0; i < OUTPUTS; i++) {
        bl_array copy;
        BL_TRY(bl_array_copy(&b->got[i], &copy));
        BL_TRY(bl_dictionary_set(&b->found, name[i], copy));
    }
    return bl_safetensors_write(path, &b->found);
}

static bl_status solve(void *context)
{
    bench *b = context;
    return bl_run(b->program, b->given, b->got);
}

int main(int argc, char **argv)
{
    static bench b;
    if (argc != 3) {
        fputs("usage: bench_sinkhorn FILE RESULTS\n", stderr);
        return 2;
    }
    bl_status status = bl_safetensors_read(argv[1], &b.file);
    if (status == BL_OK)
        status = compile(&b);
    if (status == BL_OK)
        status = write_results(&b, argv[2]);
    if (status == BL_OK && puts("ready") != EOF)
        status = take_turns(solve, &b);
    if (status != BL_OK)
        fprintf(stderr, "bench_sinkhorn: %s\n", bl_error());
    for (int i = 0; i < OUTPUTS; i++)
        bl_array_free(&b.got[i]);
    bl_program_free(b.program);
    bl_graph_free(b.graph);
    bl_dictionary_free(&b.found);
    bl_dictionary_free(&b.file);
    return status != BL_OK;
}
