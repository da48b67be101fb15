/* Times whole training steps on the cpu executor: forward, backward and update, one thread unless
 * told otherwise.
 *
 *     bench_steps [--threads N] [--explain] [WORKLOAD..]
 *
 * prints the median, the least and the lower quartile of microseconds a step. A workload is a
 * function that builds the loss from its parameters; the update is shared. To add one: write it,
 * list it in `workloads`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ballast/program.h"

enum { MOST = 64 };

typedef struct step { /* inputs in order; the first `state` are updated by outputs of the same
                         number */
    bl_graph *graph;
    bl_tensor input[MOST], output[MOST];
    int inputs, outputs;
    bl_tensor parameter[MOST];
    int parameters;
    int64_t limit[MOST]; /* of an integer input: values below it */
} step;

static bl_tensor add_input(step *s, bl_dtype dtype, bl_shape shape, int64_t limit)
{
    s->limit[s->inputs] = limit;
    return s->input[s->inputs++] = bl_input(s->graph, "x", dtype, shape);
}

static bl_tensor parameter(step *s, bl_shape shape)
{
    return s->parameter[s->parameters++] = add_input(s, BL_F32, shape, 0);
}

/* The first outputs are the new values of the first inputs. */
static void momentum(step *s, bl_tensor loss)
{
    bl_tensor gradient[MOST], velocity[MOST], next[MOST];
    int n = s->parameters;
    bl_grad(loss, s->parameter, n, gradient);
    for (int i = 0; i < n; i++)
        velocity[i] = add_input(s, BL_F32, bl_type_of(s->parameter[i]).shape, 0);
    for (int i = 0; i < n; i++) {
        bl_tensor g = bl_add(gradient[i], bl_mul(5e-4, s->parameter[i]));
        next[i] = bl_add(bl_mul(0.9, velocity[i]), g);
        s->output[i] = bl_sub(s->parameter[i], bl_mul(0.001, next[i]));
    }
    memcpy(s->output + n, next, (size_t)n * sizeof *next);
    s->outputs = 2 * n;
}

static void adam(step *s, bl_tensor loss)
{
    bl_tensor gradient[MOST], m[MOST], v[MOST];
    int n = s->parameters;
    bl_grad(loss, s->parameter, n, gradient);
    for (int i = 0; i < n; i++)
        m[i] = add_input(s, BL_F32, bl_type_of(s->parameter[i]).shape, 0);
    for (int i = 0; i < n; i++)
        v[i] = bl_square(add_input(s, BL_F32, bl_type_of(s->parameter[i]).shape, 0));
    bl_tensor rate = add_input(s, BL_F32, BL_SCALAR, 0);
    for (int i = 0; i < n; i++) {
        bl_tensor new_m = bl_add(bl_mul(0.9, m[i]), bl_mul(0.1, gradient[i]));
        bl_tensor new_v = bl_add(bl_mul(0.999, v[i]), bl_mul(0.001, bl_square(gradient[i])));
        bl_tensor slope = bl_div(new_m, bl_add(bl_sqrt(new_v), 1e-8));
        s->output[i] = bl_sub(s->parameter[i], bl_mul(bl_mul(rate, 1e-6), slope));
        s->output[n + i] = new_m;
        s->output[2 * n + i] = new_v;
    }
    s->outputs = 3 * n;
}

static bl_tensor dense(step *s, bl_tensor x, bl_tensor w, bl_tensor b)
{
    (void)s;
    return bl_add(bl_matmul(x, w), b);
}

/* The parameters of a network of dense layers: weights and biases. */
static void dense_parameters(step *s, const int64_t *size, int layers)
{
    for (int i = 0; i < layers; i++) {
        parameter(s, BL_SHAPE(size[i], size[i + 1]));
        parameter(s, BL_SHAPE(size[i + 1]));
    }
}

static bl_tensor classify(step *s, const int64_t *size, int layers, int64_t batch)
{
    bl_tensor h = add_input(s, BL_F32, BL_SHAPE(batch, size[0]), 0);
    for (int i = 0; i < layers; i++) {
        h = dense(s, h, s->parameter[2 * i], s->parameter[2 * i + 1]);
        h = i + 1 < layers ? bl_relu(h) : h;
    }
    return h;
}

static void tiny(step *s)
{
    const int64_t size[] = {10, 32, 32, 1};
    dense_parameters(s, size, 3);
    /* inputs that are updated come first: the data follow the slots, so they are made here last */
    bl_tensor x = bl_input(s->graph, "x", BL_F32, BL_SHAPE(64, 10));
    bl_tensor y = bl_input(s->graph, "y", BL_F32, BL_SHAPE(64, 1)), h = x;
    for (int i = 0; i < 3; i++) {
        h = dense(s, h, s->parameter[2 * i], s->parameter[2 * i + 1]);
        h = i < 2 ? bl_tanh(h) : h;
    }
    bl_tensor loss = bl_mean(bl_square(bl_sub(h, y)));
    adam(s, loss);
    s->input[s->inputs++] = x;
    s->input[s->inputs++] = y;
    s->output[s->outputs++] = loss;
}

static void perceptron(step *s, const int64_t *size, int64_t batch)
{
    dense_parameters(s, size, 3);
    int first = s->inputs;
    bl_tensor logits = classify(s, size, 3, batch);
    bl_tensor y = add_input(s, BL_I32, BL_SHAPE(batch), 10);
    bl_tensor x = s->input[first];
    s->inputs = first;
    bl_tensor loss = bl_cross_entropy(logits, y);
    momentum(s, loss);
    s->input[s->inputs++] = x;
    s->limit[s->inputs] = 10;
    s->input[s->inputs++] = y;
    s->output[s->outputs++] = loss;
}

static void small(step *s)
{
    perceptron(s, (const int64_t[]){64, 128, 128, 10}, 64);
}
static void mlp(step *s)
{
    perceptron(s, (const int64_t[]){784, 512, 512, 10}, 128);
}

static void elr(step *s)
{
    const int64_t size[] = {784, 512, 512, 10};
    dense_parameters(s, size, 3);
    int first = s->inputs;
    bl_tensor logits = classify(s, size, 3, 128);
    bl_tensor x = s->input[first];
    s->inputs = first;
    bl_tensor y = bl_input(s->graph, "y", BL_I32, BL_SHAPE(128));
    bl_tensor bank = bl_input(s->graph, "bank", BL_F32, BL_SHAPE(50000, 10));
    bl_tensor index = bl_input(s->graph, "index", BL_I32, BL_SHAPE(128));
    bl_tensor p = bl_clamp(bl_softmax(logits, -1), 1e-4, 1 - 1e-4);
    bl_tensor still = bl_stop_gradient(p), old = bl_take(bank, index);
    bl_tensor now = bl_div(still, bl_sum_keep(still, -1));
    bl_tensor t = bl_add(bl_mul(0.7, old), bl_mul(0.3, now));
    bl_tensor reg = bl_mean(bl_log(bl_sub(1, bl_sum(bl_mul(t, p), -1))));
    bl_tensor loss = bl_add(bl_cross_entropy(logits, y), bl_mul(3, reg));
    momentum(s, loss);
    s->input[s->inputs++] = bank;
    s->output[s->outputs++] = bl_put(bank, index, t);
    s->input[s->inputs++] = x;
    s->limit[s->inputs] = 10;
    s->input[s->inputs++] = y;
    s->limit[s->inputs] = -1; /* distinct */
    s->input[s->inputs++] = index;
    s->output[s->outputs++] = loss;
}

static bl_tensor batch_norm(bl_tensor x, bl_tensor scale, bl_tensor shift)
{
    bl_tensor mean = bl_mean_keep(x, 0, 1, 2), centred = bl_sub(x, mean);
    bl_tensor variance = bl_mean_keep(bl_square(centred), 0, 1, 2);
    return bl_add(bl_mul(bl_mul(centred, bl_rsqrt(bl_add(variance, 1e-5))), scale), shift);
}

/* Three convolutions with batch norm on 32 images of 28 x 28, then a dense layer. */
static void convnet(step *s)
{
    const int64_t channels[] = {1, 16, 32, 32};
    for (int i = 0; i < 3; i++) {
        parameter(s, BL_SHAPE(3, 3, channels[i], channels[i + 1]));
        parameter(s, BL_SHAPE(channels[i + 1]));
        parameter(s, BL_SHAPE(channels[i + 1]));
    }
    bl_tensor w = parameter(s, BL_SHAPE(32, 10)), b = parameter(s, BL_SHAPE(10));
    bl_tensor x = bl_input(s->graph, "x", BL_F32, BL_SHAPE(32, 28, 28, 1)), h = x;
    bl_tensor y = bl_input(s->graph, "y", BL_I32, BL_SHAPE(32));
    for (int i = 0; i < 3; i++) {
        int64_t stride = i == 2 ? 2 : 1;
        bl_conv_options o = {.stride = {stride, stride}, .low = {1, 1}, .high = {1, 1}};
        h = bl_conv(h, s->parameter[3 * i], o);
        h = bl_relu(batch_norm(h, s->parameter[3 * i + 1], s->parameter[3 * i + 2]));
        h = i == 0 ? bl_max_pool2(h) : h;
    }
    bl_tensor loss = bl_cross_entropy(dense(s, bl_mean(h, 1, 2), w, b), y);
    momentum(s, loss);
    s->input[s->inputs++] = x;
    s->limit[s->inputs] = 10;
    s->input[s->inputs++] = y;
    s->output[s->outputs++] = loss;
}

/* One block of a transformer: 16 sequences of 64, width 64, 4 heads. */
static bl_tensor layer_norm(bl_tensor x, bl_tensor scale)
{
    bl_tensor centred = bl_sub(x, bl_mean_keep(x, -1));
    bl_tensor variance = bl_mean_keep(bl_square(centred), -1);
    return bl_mul(bl_mul(centred, bl_rsqrt(bl_add(variance, 1e-5))), scale);
}

static void attention(step *s)
{
    enum { BATCH = 16, LENGTH = 64, WIDTH = 64, HEADS = 4 };
    bl_tensor qkv = parameter(s, BL_SHAPE(WIDTH, 3 * WIDTH)),
              out = parameter(s, BL_SHAPE(WIDTH, WIDTH));
    bl_tensor up = parameter(s, BL_SHAPE(WIDTH, 4 * WIDTH)),
              down = parameter(s, BL_SHAPE(4 * WIDTH, WIDTH));
    bl_tensor n1 = parameter(s, BL_SHAPE(WIDTH)), n2 = parameter(s, BL_SHAPE(WIDTH));
    bl_tensor x = bl_input(s->graph, "x", BL_F32, BL_SHAPE(BATCH * LENGTH, WIDTH)), part[3];
    bl_tensor all = bl_matmul(layer_norm(x, n1), qkv);
    for (int i = 0; i < 3; i++)
        part[i] = bl_transpose(bl_reshape(bl_slice_axis(all, 1, i * WIDTH, (i + 1) * WIDTH),
                                          BL_SHAPE(BATCH, LENGTH, HEADS, WIDTH / HEADS)),
                               0, 2, 1, 3);
    bl_tensor p = bl_softmax(bl_mul(bl_dot(part[0], part[1], false, true), 0.25), -1);
    bl_tensor mixed = bl_transpose(bl_dot(p, part[2], false, false), 0, 2, 1, 3);
    bl_tensor h = bl_add(x, bl_matmul(bl_reshape(mixed, BL_SHAPE(BATCH * LENGTH, WIDTH)), out));
    h = bl_add(h, bl_matmul(bl_gelu(bl_matmul(layer_norm(h, n2), up)), down));
    bl_tensor loss = bl_mean(bl_square(h));
    momentum(s, loss);
    s->input[s->inputs++] = x;
    s->output[s->outputs++] = loss;
}

/* --- timing ----------------------------------------------------------------------------------- */

static const struct workload {
    const char *name;
    void (*build)(step *s);
} workloads[] = {{"tiny", tiny}, {"small", small},     {"mlp", mlp},
                 {"elr", elr},   {"convnet", convnet}, {"attention", attention}};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void fill(bl_array *a, int64_t limit, bl_random *random)
{
    double scale = a->type.shape.rank > 1 ? 0.1 : 0.01;
    for (int64_t i = 0; i < bl_array_count(a); i++)
        bl_array_set(a, i,
                     limit < 0   ? (double)i
                     : limit > 0 ? (double)bl_random_below(random, (uint32_t)limit)
                                 : scale * bl_random_gauss(random));
}

static bl_status time_runs(bl_program *p, const bl_array *inputs, const bl_array *outputs)
{
    enum { SAMPLES = 4000 };
    static double sample[SAMPLES];
    int count = 0;
    double start = now();
    for (; count < 10 || (count < SAMPLES && now() - start < 1.5e6); count++) {
        double before = now();
        BL_TRY(bl_run(p, inputs, outputs));
        sample[count] = now() - before;
    }
    qsort(sample, (size_t)count, sizeof *sample, ascending);
    printf("median %9.1f us   least %9.1f   quartile %9.1f   of %d", sample[count / 2], sample[0],
           sample[count / 4], count);
    return BL_OK;
}

static bl_status run_workload(const struct workload *w, int threads, bool explain)
{
    step s = {.graph = bl_graph_new()};
    bl_random random = bl_random_new(bl_key_from_seed(1));
    bl_donation donation[MOST];
    bl_array in[MOST], out[MOST];
    bl_program *p = NULL;
    w->build(&s);
    bl_compile_options options = {threads, donation, s.outputs - 1};
    for (int i = 0; i < s.outputs - 1; i++)
        donation[i] = (bl_donation){i, i};
    double start = now();
    BL_TRY(bl_compile(bl_device_cpu(), s.input, s.inputs, s.output, s.outputs, &options, &p));
    double compiled = now() - start;
    for (int i = 0; i < s.inputs; i++) {
        bl_type t = bl_type_of(s.input[i]);
        BL_TRY(bl_array_new(t.dtype, t.shape, &in[i]));
        fill(&in[i], s.limit[i], &random);
    }
    for (int o = 0; o < s.outputs - 1; o++)
        out[o] = in[o];
    BL_TRY(bl_array_new(BL_F32, BL_SCALAR, &out[s.outputs - 1]));
    BL_TRY(bl_run(p, in, out));
    double loss = bl_array_get(&out[s.outputs - 1], 0);
    printf("%-10s ", w->name);
    BL_TRY(time_runs(p, in, out));
    bl_work work = bl_program_work(p);
    printf("   %3lld kernels  %7.1f MFLOP  compile %.1f ms  loss %.5f -> %.5f\n",
           (long long)work.kernels, 1e-6 * work.flops, 1e-3 * compiled, loss,
           bl_array_get(&out[s.outputs - 1], 0));
    if (explain) {
        char *text = bl_program_explain(p);
        printf("%s", text ? text : "");
        free(text);
    }
    for (int i = 0; i < s.inputs; i++)
        bl_array_free(&in[i]);
    bl_array_free(&out[s.outputs - 1]);
    bl_program_free(p);
    bl_graph_free(s.graph);
    return BL_OK;
}

int main(int argc, char **argv)
{
    int threads = 1, named = 0;
    bool explain = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
            threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--explain") == 0)
            explain = true;
        else
            named++;
    }
    for (size_t w = 0; w < sizeof workloads / sizeof *workloads; w++) {
        bool wanted = named == 0;
        for (int i = 1; i < argc; i++)
            wanted |= strcmp(argv[i], workloads[w].name) == 0;
        if (wanted && run_workload(&workloads[w], threads, explain) != BL_OK) {
            fprintf(stderr, "%s: %s\n", workloads[w].name, bl_error());
            return 1;
        }
    }
    return 0;
}
