/* The cpu executor: compiling a graph into a flat list of kernels, and replaying it. See cpu.h. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "exec/cpu/cpu.h"
#include "exec/work.h"

const bl_loops *bl_loops_best(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return &bl_loops_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &bl_loops_avx2;
#endif
    return &bl_loops_base;
}

/* --- freeing ---------------------------------------------------------------------------------- */

static void print_profile(const cpu_plan *plan);

static void free_plan(void *pointer)
{
    cpu_plan *plan = pointer;
    if (!plan)
        return;
    if (plan->profile && plan->runs)
        print_profile(plan);
    for (int32_t k = 0; k < plan->kernels; k++)
        if (plan->kernel[k].free)
            plan->kernel[k].free(plan->kernel[k].data);
    cpu_pool_free(plan->pool);
    cpu_free_engine(plan);
    bl_arena_free(plan->arena);
    bl_graph_free(plan->graph);
    bl_release(plan->ids);
    bl_release(plan->again);
    bl_release(plan->fact);
    bl_release(plan->group);
    bl_release(plan->kernel);
    bl_release(plan->address);
    bl_release(plan->value);
    bl_release(plan->home);
    bl_release(plan->over);
    bl_release(plan->slot);
    bl_release(plan->before);
    bl_release(plan->after);
    bl_release(plan->slab);
    bl_release(plan->constants);
    bl_release(plan->scratch);
    bl_release(plan);
}

/* --- compiling -------------------------------------------------------------------------------- */

static bl_status make_kernel(cpu_plan *plan, int32_t g)
{
    cpu_group *group = &plan->group[g];
    cpu_kernel *kernel = &plan->kernel[plan->kernels++];
    kernel->group = g;
    kernel->node = group->node[group->nodes - 1];
    if (!group->fused)
        return cpu_prepare_opaque(plan, kernel, cpu_node(plan, kernel->node));
    cpu_settle(plan, group);
    return BL_OK;
}

static bl_status allocate(cpu_plan *plan)
{
    size_t n = (size_t)plan->nodes + 1;
    plan->arena = bl_arena_new();
    plan->fact = bl_alloc(n * sizeof *plan->fact);
    plan->address = bl_alloc(n * sizeof *plan->address);
    plan->value = bl_alloc(n * sizeof *plan->value);
    plan->home = bl_alloc(n * sizeof *plan->home);
    plan->over = bl_alloc(n * sizeof *plan->over);
    plan->slot = bl_alloc(n * sizeof *plan->slot);
    if (!plan->arena || !plan->fact || !plan->address || !plan->value || !plan->home ||
        !plan->over || !plan->slot)
        return bl_no_memory(n * sizeof *plan->fact);
    for (size_t i = 0; i < n; i++)
        plan->home[i] = plan->over[i] = -1;
    return BL_OK;
}

/* What a group moves and computes. */
static void count_work(cpu_plan *plan, cpu_kernel *kernel)
{
    const cpu_group *group = &plan->group[kernel->group];
    const bl_graph *graph = plan->signature.graph;
    if (!group->fused) {
        kernel->flops = bl_node_flops(graph, kernel->node);
        kernel->bytes = bl_node_bytes(graph, kernel->node);
        return;
    }
    int32_t before = -1;
    for (int32_t n = 0; n < group->nodes; n++) {
        int32_t id = group->node[n];
        const cpu_fact *fact = &plan->fact[id];
        const bl_node *node = cpu_node(plan, id);
        kernel->flops += bl_node_flops(graph, id);
        kernel->bytes += fact->stored ? (double)bl_type_bytes(node->type) : 0;
        for (int i = 0; i < (fact->view ? 1 : node->operands); i++) {
            int32_t source = fact->view ? fact->view->source : cpu_source(plan, node->operand[i]);
            if (plan->fact[source].group != fact->group && source != before)
                kernel->bytes += (double)bl_type_bytes(cpu_node(plan, source)->type);
            before = source;
        }
    }
}

static bl_status make_plan(cpu_plan *plan)
{
    BL_TRY(cpu_recompute(plan));
    plan->nodes = (int32_t)bl_graph_size(plan->graph);
    BL_TRY(allocate(plan));
    BL_TRY(cpu_pool_new(plan->threads, &plan->pool));
    BL_TRY(cpu_find_views(plan));
    BL_TRY(cpu_find_kinds(plan));
    BL_TRY(cpu_fuse(plan));
    plan->kernel = bl_alloc(((size_t)plan->groups + 1) * sizeof *plan->kernel);
    if (!plan->kernel)
        return bl_no_memory((size_t)plan->groups * sizeof *plan->kernel);
    for (int32_t g = 0; g < plan->groups; g++)
        if (plan->group[g].nodes > 0)
            BL_TRY(make_kernel(plan, g));
    BL_TRY(cpu_place(plan));
    for (int32_t k = 0; k < plan->kernels; k++) {
        if (plan->group[plan->kernel[k].group].fused)
            BL_TRY(cpu_lower(plan, &plan->kernel[k]));
        count_work(plan, &plan->kernel[k]);
    }
    plan->scratch = bl_alloc_unset(plan->scratch_bytes + 64);
    return plan->scratch ? BL_OK : bl_no_memory(plan->scratch_bytes);
}

static bl_status compile(const bl_signature *signature, void **out)
{
    cpu_plan *plan = bl_alloc(sizeof *plan);
    if (!plan)
        return bl_no_memory(sizeof *plan);
    plan->signature = *signature;
    plan->loops = bl_loops_best();
    plan->threads = signature->threads;
    const char *profile = getenv("BL_PROFILE");
    plan->profile = profile && profile[0] == '1';
    int threads = omp_get_max_threads();
    omp_set_num_threads(1); /* oneDNN's primitives are parts: one thread each */
    bl_status status = make_plan(plan);
    omp_set_num_threads(threads);
    if (status != BL_OK)
        free_plan(plan);
    else
        *out = plan;
    return status;
}

/* --- running ---------------------------------------------------------------------------------- */

static void bind(cpu_plan *plan, void *const *input, void *const *output)
{
    for (int i = 0; i < plan->signature.inputs; i++)
        plan->address[plan->signature.input[i]] = input[i];
    for (int o = 0; o < plan->signature.outputs; o++) {
        int32_t source = cpu_source(plan, plan->signature.output[o]);
        if (plan->home[source] == o)
            plan->address[source] = output[o];
    }
}

/* Shows what a kernel wrote to the check of BL_CHECK=1. */
static bl_status show_results(const cpu_plan *plan, const cpu_kernel *kernel)
{
    const cpu_group *group = &plan->group[kernel->group];
    for (int32_t n = 0; n < group->nodes; n++)
        if (plan->fact[group->node[n]].stored)
            BL_TRY(bl_check_node(plan->signature.check, group->node[n],
                                 plan->address[group->node[n]]));
    return BL_OK;
}

static bl_status run_kernels(cpu_plan *plan)
{
    double start = plan->profile ? bl_seconds_now() : 0;
    for (int32_t k = 0; k < plan->kernels; k++) {
        BL_TRY(plan->kernel[k].run(plan, &plan->kernel[k]));
        if (plan->signature.check)
            BL_TRY(show_results(plan, &plan->kernel[k]));
        if (plan->profile) {
            double end = bl_seconds_now();
            plan->kernel[k].seconds += end - start;
            start = end;
        }
    }
    plan->runs++;
    return BL_OK;
}

static bl_status run(void *pointer, void *const *input, void *const *output)
{
    cpu_plan *plan = pointer;
    bind(plan, input, output);
    for (int c = 0; c < plan->befores; c++)
        memcpy(plan->before[c].staged, input[plan->before[c].input], plan->before[c].bytes);
    int threads = omp_get_max_threads();
    if (threads != 1)
        omp_set_num_threads(1);
    bl_status status = run_kernels(plan);
    if (threads != 1)
        omp_set_num_threads(threads);
    BL_TRY(status);
    for (int c = 0; c < plan->afters; c++) {
        const cpu_copy *copy = &plan->after[c];
        const char *from = copy->from < 0 ? copy->staged : plan->address[copy->from];
        memcpy(output[copy->output], from + copy->offset, copy->bytes);
    }
    return BL_OK;
}

/* --- what it does ----------------------------------------------------------------------------- */

static void explain_kernel(const cpu_plan *plan, const cpu_kernel *kernel, bl_text *text)
{
    const cpu_group *group = &plan->group[kernel->group];
    char type[BL_TYPE_TEXT];
    bl_text_add(text, "%-9s", kernel->how);
    if (group->fused)
        bl_text_add(text, " [%lld x %lld]", (long long)(group->count / group->columns),
                    (long long)group->columns);
    for (int32_t n = 0; n < group->nodes; n++)
        bl_text_add(text, " %s", bl_op_name(cpu_node(plan, group->node[n])->op));
    bl_text_add(text, " ->");
    for (int32_t n = 0; n < group->nodes; n++)
        if (plan->fact[group->node[n]].stored)
            bl_text_add(text, " %s", bl_type_text(cpu_node(plan, group->node[n])->type, type));
    bl_text_add(text, "  %.4g flops, %.4g bytes", kernel->flops, kernel->bytes);
}

static char *explain(const void *pointer)
{
    const cpu_plan *plan = pointer;
    bl_text text = {0};
    bl_text_add(&text, "cpu (%s): %d kernels, %zu bytes of memory\n", plan->loops->name,
                (int)plan->kernels, plan->slab_bytes + plan->constant_bytes + plan->scratch_bytes);
    for (int32_t k = 0; k < plan->kernels; k++) {
        explain_kernel(plan, &plan->kernel[k], &text);
        bl_text_add(&text, "\n");
    }
    if (text.failed) {
        bl_text_free(&text);
        return NULL;
    }
    return text.at;
}

static void print_profile(const cpu_plan *plan)
{
    double total = 0;
    for (int32_t k = 0; k < plan->kernels; k++)
        total += plan->kernel[k].seconds;
    fprintf(stderr, "%lld runs, %.2f us each in kernels\n", (long long)plan->runs,
            1e6 * total / (double)plan->runs);
    for (int32_t k = 0; k < plan->kernels; k++) {
        const cpu_kernel *kernel = &plan->kernel[k];
        double seconds = kernel->seconds / (double)plan->runs;
        bl_text text = {0};
        explain_kernel(plan, kernel, &text);
        fprintf(stderr, "%9.2f us %5.1f %%  %7.2f GFLOP/s %7.2f GB/s  %s\n", 1e6 * seconds,
                100 * kernel->seconds / total, 1e-9 * kernel->flops / seconds,
                1e-9 * kernel->bytes / seconds, text.at ? text.at : "");
        bl_text_free(&text);
    }
}

static bl_work work(const void *pointer)
{
    const cpu_plan *plan = pointer;
    bl_work total = {.kernels = plan->kernels,
                     .memory = plan->slab_bytes + plan->constant_bytes + plan->scratch_bytes};
    for (int32_t k = 0; k < plan->kernels; k++) {
        total.flops += plan->kernel[k].flops;
        total.bytes += plan->kernel[k].bytes;
    }
    return total;
}

const bl_executor bl_executor_cpu = {
    .name = "cpu",
    .compile = compile,
    .run = run,
    .free = free_plan,
    .explain = explain,
    .work = work,
};
