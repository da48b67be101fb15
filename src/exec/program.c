/* Compiling and running programs: what is the same for every executor.
 *
 * bl_compile optimises the graph into one of its own, checks the call and hands it to the device's
 * executor; bl_run checks the arrays. To add an executor, list its device in `devices`. With
 * BL_CHECK=1 in the environment when a program is compiled, every kernel of every run is compared
 * with the reference executor (check.c). */
#include "exec/executor.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

/* --- devices -----------------------------------------------------------------------------------
 */

static const bl_device devices[] = {
    {&bl_executor_cpu},
    {&bl_executor_reference},
};

const bl_device *bl_device_cpu(void)
{
    return &devices[0];
}
const bl_device *bl_device_reference(void)
{
    return &devices[1];
}

const bl_device *bl_device_named(const char *name)
{
    if (name && strcmp(name, "cpu") == 0)
        return bl_device_cpu();
    if (name && strcmp(name, "reference") == 0)
        return bl_device_reference();
    (void)!bl_fail(BL_NOT_FOUND, "there is no device \"%s\"; there are cpu and reference",
                   name ? name : "(null)");
    return NULL;
}

int bl_default_threads(void)
{
    const char *text = getenv("OMP_NUM_THREADS");
    long threads = text ? strtol(text, NULL, 10) : 1;
    return threads >= 1 && threads <= 1024 ? (int)threads : 1;
}

bl_status bl_index_error(const bl_node *node, int64_t at, int64_t value, int64_t rows)
{
    const char *scope = node->scope ? node->scope : "";
    return bl_fail(BL_INVALID, "%s: index %lld (element %lld) is not in 0 .. %lld, at %s:%d%s%s",
                   bl_op_name(node->op), (long long)value, (long long)at, (long long)(rows - 1),
                   node->file ? node->file : "?", node->line, scope[0] ? " in " : "", scope);
}

/* --- programs ----------------------------------------------------------------------------------
 */

struct bl_program {
    const bl_executor *executor;
    void *plan;
    bl_signature signature; /* whose arrays and graph the program owns */
    int32_t *ids;           /* of inputs, then outputs */
    bl_donation *donation;
    int *donor;      /* of each output: the input it overwrites, or -1 */
    void **data;     /* of inputs, then outputs: filled by every run */
    bl_check *check; /* of BL_CHECK=1, else NULL */
};

void bl_program_free(bl_program *p)
{
    if (!p)
        return;
    if (p->plan)
        p->executor->free(p->plan);
    bl_check_free(p->check);
    bl_graph_free(p->signature.graph);
    bl_release(p->ids);
    bl_release(p->donation);
    bl_release(p->donor);
    bl_release(p->data);
    bl_release(p);
}

static bl_type argument_type(const bl_program *p, int i)
{
    return bl_node_at(p->signature.graph, p->signature.input[i])->type;
}

static bl_type result_type(const bl_program *p, int o)
{
    return bl_node_at(p->signature.graph, p->signature.output[o])->type;
}

/* --- compiling ---------------------------------------------------------------------------------
 */

static bl_status check_tensors(const char *what, const bl_tensor *t, int count, bl_graph *graph)
{
    for (int i = 0; i < count; i++) {
        if (bl_is_number(t[i]))
            return bl_fail(BL_INVALID,
                           "compile: %s %d is the bare number %g; bl_full makes a tensor of it",
                           what, i, t[i].number);
        if (t[i].graph != graph)
            return bl_fail(BL_INVALID, "compile: %s %d belongs to another graph than output 0",
                           what, i);
    }
    return BL_OK;
}

static int by_id(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Inputs are bl_input nodes, each listed once. */
static bl_status check_inputs(const bl_tensor *inputs, int count)
{
    int32_t *ids = bl_alloc(((size_t)count + 1) * sizeof *ids);
    if (!ids)
        return bl_no_memory((size_t)count * sizeof *ids);
    bl_status status = BL_OK;
    for (int i = 0; i < count && status == BL_OK; i++) {
        ids[i] = inputs[i].id;
        const bl_node *node = bl_node_at(inputs[i].graph, ids[i]);
        if (node->op != BL_OP_input)
            status = bl_fail(BL_INVALID, "compile: input %d is not a bl_input but the result of %s",
                             i, bl_op_name(node->op));
    }
    if (status == BL_OK)
        qsort(ids, (size_t)count, sizeof *ids, by_id);
    for (int i = 1; i < count && status == BL_OK; i++)
        if (ids[i] == ids[i - 1])
            status = bl_fail(BL_INVALID, "compile: the input \"%s\" is listed twice",
                             bl_node_at(inputs[0].graph, ids[i])->name);
    bl_release(ids);
    return status;
}

static bl_status check_call(const bl_device *device, const bl_tensor *inputs, int input_count,
                            const bl_tensor *outputs, int output_count)
{
    if (!device)
        return bl_fail(BL_INVALID, "compile: the device is NULL; bl_device_cpu() is one");
    if (output_count < 1 || input_count < 0)
        return bl_fail(BL_INVALID,
                       "compile: %d inputs and %d outputs; at least one output is needed",
                       input_count, output_count);
    bl_graph *graph = outputs[0].graph;
    BL_TRY(check_tensors("output", outputs, output_count, graph));
    BL_TRY(check_tensors("input", inputs, input_count, graph));
    BL_TRY(bl_graph_status(graph));
    for (int o = 0; o < output_count; o++)
        if (bl_is_poison(outputs[o]))
            return bl_fail(BL_INVALID, "compile: output %d was not built", o);
    for (int i = 0; i < input_count; i++)
        if (bl_is_poison(inputs[i]))
            return bl_fail(BL_INVALID, "compile: input %d was not built", i);
    return check_inputs(inputs, input_count);
}

static bl_status allocate_program(bl_program *p, int inputs, int outputs)
{
    size_t both = (size_t)inputs + (size_t)outputs;
    p->ids = bl_alloc(both * sizeof *p->ids);
    p->data = bl_alloc(both * sizeof *p->data);
    p->donor = bl_alloc((size_t)outputs * sizeof *p->donor);
    if (!p->ids || !p->data || !p->donor)
        return bl_no_memory(both * sizeof *p->data);
    p->signature.inputs = inputs;
    p->signature.outputs = outputs;
    p->signature.input = p->ids;
    p->signature.output = p->ids + inputs;
    for (int o = 0; o < outputs; o++)
        p->donor[o] = -1;
    return BL_OK;
}

static bl_status optimize_into(bl_program *p, const bl_tensor *inputs, const bl_tensor *outputs)
{
    int in = p->signature.inputs, out = p->signature.outputs;
    bl_tensor *fresh = bl_alloc(((size_t)in + (size_t)out) * sizeof *fresh);
    if (!fresh)
        return bl_no_memory(((size_t)in + (size_t)out) * sizeof *fresh);
    bl_status status =
        bl_optimize(inputs, in, outputs, out, &p->signature.graph, fresh, fresh + in);
    for (int i = 0; i < in + out && status == BL_OK; i++)
        p->ids[i] = fresh[i].id;
    bl_release(fresh);
    return status;
}

static bl_status check_donation(const bl_program *p, bl_donation d)
{
    char from[BL_TYPE_TEXT], to[BL_TYPE_TEXT];
    if (d.input < 0 || d.input >= p->signature.inputs || d.output < 0 ||
        d.output >= p->signature.outputs)
        return bl_fail(
            BL_INVALID,
            "compile: donation of input %d to output %d, but there are %d inputs and %d outputs",
            d.input, d.output, p->signature.inputs, p->signature.outputs);
    if (!bl_type_equal(argument_type(p, d.input), result_type(p, d.output)))
        return bl_fail(BL_INVALID,
                       "compile: input %d is %s and cannot be donated to output %d, which is %s",
                       d.input, bl_type_text(argument_type(p, d.input), from), d.output,
                       bl_type_text(result_type(p, d.output), to));
    if (p->donor[d.output] >= 0)
        return bl_fail(BL_INVALID, "compile: two inputs are donated to output %d", d.output);
    return BL_OK;
}

static bl_status copy_donations(bl_program *p, const bl_compile_options *options)
{
    int count = options ? options->donations : 0;
    if (count <= 0)
        return BL_OK;
    p->donation = bl_alloc((size_t)count * sizeof *p->donation);
    bool *used = bl_alloc((size_t)p->signature.inputs + 1);
    bl_status status = p->donation && used ? BL_OK : bl_no_memory((size_t)count);
    for (int i = 0; i < count && status == BL_OK; i++) {
        bl_donation d = options->donation[i];
        status = check_donation(p, d);
        if (status == BL_OK && used[d.input])
            status = bl_fail(BL_INVALID, "compile: input %d is donated twice", d.input);
        if (status != BL_OK)
            break;
        used[d.input] = true;
        p->donor[d.output] = d.input;
        p->donation[i] = d;
    }
    bl_release(used);
    p->signature.donation = p->donation;
    p->signature.donations = count;
    return status;
}

static bl_status open_check(bl_program *p)
{
    const char *wanted = getenv("BL_CHECK");
    if (!wanted || strcmp(wanted, "1") != 0 || p->executor == &bl_executor_reference)
        return BL_OK;
    BL_TRY(bl_check_new(&p->signature, p->executor->name, &p->check));
    p->signature.check = p->check;
    return BL_OK;
}

static bl_status fill_program(bl_program *p, const bl_tensor *inputs, int input_count,
                              const bl_tensor *outputs, int output_count,
                              const bl_compile_options *options)
{
    BL_TRY(allocate_program(p, input_count, output_count));
    BL_TRY(optimize_into(p, inputs, outputs));
    BL_TRY(copy_donations(p, options));
    p->signature.threads = options && options->threads > 0 ? options->threads : bl_default_threads();
    BL_TRY(open_check(p));
    return p->executor->compile(&p->signature, &p->plan);
}

bl_status bl_compile(const bl_device *device, const bl_tensor *inputs, int input_count,
                     const bl_tensor *outputs, int output_count, const bl_compile_options *options,
                     bl_program **out)
{
    *out = NULL;
    BL_TRY(check_call(device, inputs, input_count, outputs, output_count));
    bl_program *p = bl_alloc(sizeof *p);
    if (!p)
        return bl_no_memory(sizeof *p);
    p->executor = device->executor;
    bl_status status = fill_program(p, inputs, input_count, outputs, output_count, options);
    if (status != BL_OK)
        bl_program_free(p);
    else
        *out = p;
    return status;
}

/* --- running -----------------------------------------------------------------------------------
 */

/* The name of an array is written only for an error: it would cost a small program a fifth of its
 * time. */
static bl_status check_array(const bl_array *array, bl_type expected, const char *what, int number,
                             const char *name)
{
    char given[BL_TYPE_TEXT], wanted[BL_TYPE_TEXT], quoted[128] = "";
    bool same = bl_type_equal(array->type, expected);
    if (same && (array->data || bl_type_bytes(expected) == 0))
        return BL_OK;
    if (name)
        snprintf(quoted, sizeof quoted, ", \"%s\",", name);
    if (same)
        return bl_fail(BL_INVALID, "run: %s %d%s has no data", what, number, quoted);
    return bl_fail(BL_INVALID, "run: %s %d%s is %s, but the program was compiled for %s", what,
                   number, quoted, bl_type_text(array->type, given),
                   bl_type_text(expected, wanted));
}

static bl_status check_arrays(const bl_program *p, const bl_array *inputs, const bl_array *outputs)
{
    for (int i = 0; i < p->signature.inputs; i++) {
        const char *name = bl_node_at(p->signature.graph, p->signature.input[i])->name;
        BL_TRY(check_array(&inputs[i], argument_type(p, i), "input", i, name ? name : ""));
    }
    for (int o = 0; o < p->signature.outputs; o++) {
        BL_TRY(check_array(&outputs[o], result_type(p, o), "output", o, NULL));
        if (p->donor[o] >= 0 && outputs[o].data != inputs[p->donor[o]].data)
            return bl_fail(BL_INVALID,
                           "run: input %d is donated to output %d, so both must have one buffer",
                           p->donor[o], o);
    }
    return BL_OK;
}

static bl_status run_checked(bl_program *p, void *const *input, void *const *output)
{
    BL_TRY(bl_check_start(p->check, input));
    BL_TRY(p->executor->run(p->plan, input, output));
    return bl_check_outputs(p->check, output);
}

bl_status bl_run(bl_program *p, const bl_array *inputs, const bl_array *outputs)
{
    BL_TRY(check_arrays(p, inputs, outputs));
    void **output = p->data + p->signature.inputs;
    for (int i = 0; i < p->signature.inputs; i++)
        p->data[i] = inputs[i].data;
    for (int o = 0; o < p->signature.outputs; o++)
        output[o] = outputs[o].data;
    return p->check ? run_checked(p, p->data, output) : p->executor->run(p->plan, p->data, output);
}

char *bl_program_explain(const bl_program *p)
{
    return p->executor->explain(p->plan);
}

bl_work bl_program_work(const bl_program *p)
{
    return p->executor->work(p->plan);
}

bl_status bl_evaluate(const bl_device *device, const bl_tensor *inputs, const bl_array *values,
                      int input_count, const bl_tensor *outputs, bl_array *results,
                      int output_count)
{
    bl_program *p = NULL;
    for (int o = 0; o < output_count; o++)
        results[o] = (bl_array){0};
    BL_TRY(bl_compile(device, inputs, input_count, outputs, output_count, NULL, &p));
    bl_status status = BL_OK;
    for (int o = 0; o < output_count && status == BL_OK; o++)
        status = bl_array_new(result_type(p, o).dtype, result_type(p, o).shape, &results[o]);
    if (status == BL_OK)
        status = bl_run(p, values, results);
    bl_program_free(p);
    for (int o = 0; o < output_count && status != BL_OK; o++)
        bl_array_free(&results[o]);
    return status;
}
