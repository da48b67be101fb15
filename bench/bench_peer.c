/* Ballast as a peer in the comparison of whole training steps with PyTorch and JAX (bench/run.py).
 *
 *     bench_peer --inputs FOLDER --threads N [--turns] WORKLOAD..
 *
 * FOLDER is what bench/peer_inputs.py wrote; BALLAST_BENCH_INPUTS may name it too. Prints a line of
 * JSON a workload: milliseconds to build, differentiate and compile, and to the first result;
 * losses before any update and after three; the norm of all parameters (or of the gradients, where
 * only those are wanted) after four steps; then the median of five seconds of steps; or, with
 * --turns, for every line SECONDS of the standard input runs steps for so long and prints the
 * samples: pairs of milliseconds a step and how often the process was preempted meanwhile. A sample
 * is at least a millisecond long. To add a workload: write its loss, list it in `workloads`. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "ballast/program.h"
#include "base/base.h"

enum { MOST = 256, BATCHES = 4, ARRAYS = 64 };

/* A step's program: state first (updated in place), then the batch; outputs are the next state and
 * the loss. */
typedef struct step {
    bl_graph *graph;
    bl_dictionary file;
    const char *name[MOST]; /* of parameters, "00" or "stem" */
    bl_tensor parameter[MOST];
    int parameters;
    bl_tensor state[MOST], next[MOST];
    bl_array value[MOST];
    int states;
    bl_tensor batch[ARRAYS];
    int batch_arrays, batches;
} step;

static void die(const char *what)
{
    fprintf(stderr, "bench_peer: %s: %s\n", what, bl_error());
    exit(2);
}

static int add_state(step *s, bl_type type, const bl_array *start, double fill)
{
    int i = s->states++;
    if (i >= MOST || (start ? bl_array_copy(start, &s->value[i])
                            : bl_array_new(type.dtype, type.shape, &s->value[i])) != BL_OK)
        die("state");
    for (int64_t k = 0; !start && fill != 0 && k < bl_array_count(&s->value[i]); k++)
        bl_array_set(&s->value[i], k, fill);
    s->state[i] = bl_input(s->graph, "state", type.dtype, type.shape);
    s->next[i] = s->state[i];
    return i;
}

static bl_tensor p(step *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bl_tensor p(step *s, const char *format, ...)
{
    char name[64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    for (int i = 0; i < s->parameters; i++)
        if (!strcmp(s->name[i], name))
            return s->parameter[i];
    fprintf(stderr, "bench_peer: no parameter %s\n", name);
    exit(2);
}

/* --- losses ----------------------------------------------------------------------------------- */
static bl_tensor mlp(step *s, bl_tensor x, bl_tensor (*activation)(bl_tensor))
{
    for (int i = 0; i < s->parameters; i += 2) {
        x = bl_add(bl_dot(x, s->parameter[i], false, true), s->parameter[i + 1]);
        if (i < s->parameters - 2)
            x = activation(x);
    }
    return x;
}

static bl_tensor mlp_loss(step *s)
{
    return bl_cross_entropy(mlp(s, s->batch[0], (bl_relu)), s->batch[1]);
}

static bl_tensor elr_loss(step *s)
{
    int bank = add_state(s, (bl_type){BL_F32, BL_SHAPE(10000, 10)}, NULL, 0);
    bl_tensor z = mlp(s, s->batch[0], (bl_relu)), q = bl_clamp(bl_softmax(z, -1), 1e-4, 1 - 1e-4);
    bl_tensor d = bl_stop_gradient(q), old = bl_take(s->state[bank], s->batch[2]);
    bl_tensor t = bl_add(bl_mul(0.7, old), bl_mul(0.3, bl_div(d, bl_sum_keep(d, -1))));
    s->next[bank] = bl_put(s->state[bank], s->batch[2], t);
    bl_tensor reg = bl_mean(bl_log(bl_sub(1, bl_sum(bl_mul(t, q), -1))));
    return bl_add(bl_cross_entropy(z, s->batch[1]), bl_mul(3, reg));
}

static bl_tensor gradpen_loss(step *s)
{
    bl_tensor x = s->batch[0], ce = bl_cross_entropy(mlp(s, x, (bl_relu)), s->batch[1]), g;
    bl_grad(bl_mul(128, ce), &x, 1, &g);
    return bl_add(ce, bl_mul(10, bl_mean(bl_sum(bl_mul(g, g), -1))));
}

static bl_tensor tiny_loss(step *s)
{
    return bl_mean(bl_square(bl_sub(mlp(s, s->batch[0], (bl_tanh)), s->batch[1])));
}

static bl_tensor elementwise_loss(step *s)
{
    bl_tensor w = s->parameter[0], u = bl_mul(bl_pow(bl_add(bl_abs(w), 1e-3), 1.3), 0.5);
    u = bl_log1p(bl_exp(bl_neg(u)));
    return bl_mul(1e3, bl_mean(bl_square(bl_tanh(bl_mul(2, bl_mul(w, bl_tanh(u)))))));
}

/* -cost/epsilon, and its transpose: both halves of a step reduce rows, as in bl_sinkhorn. */
typedef struct scaled_cost {
    bl_tensor rows, columns;
} scaled_cost;

enum { POINTS = 512 };
static const double epsilon = 0.05;

/* u = f/epsilon and v = g/epsilon: u_i = log n - logsumexp_j(v_j - cost_ij/epsilon), and so for v. */
static void sinkhorn_step(bl_graph *g, const bl_tensor *carry, const bl_tensor *x, bl_tensor *next,
                          bl_tensor *y, void *context)
{
    (void)g, (void)x, (void)y;
    const scaled_cost *c = context;
    next[0] = bl_sub(log(POINTS), bl_logsumexp(bl_add(bl_expand(carry[1], 0), c->rows), 1));
    next[1] = bl_sub(log(POINTS), bl_logsumexp(bl_add(bl_expand(next[0], 0), c->columns), 1));
}

static bl_tensor transport(bl_graph *g, bl_tensor x, bl_tensor y)
{
    bl_tensor d = bl_sub(bl_expand(x, 1), bl_expand(y, 0));
    bl_tensor rows = bl_mul(-0.5 / epsilon, bl_sum(bl_mul(d, d), -1));
    scaled_cost c = {rows, bl_transpose(rows)};
    bl_tensor zero = bl_full(g, BL_F32, BL_SHAPE(POINTS), 0), start[2] = {zero, zero}, last[2];
    bl_scan(g, 100, sinkhorn_step, &c, start, 2, NULL, 0, last, NULL, 0);
    return bl_mul(epsilon, bl_add(bl_mean(last[0]), bl_mean(last[1])));
}

static bl_tensor sinkhorn_loss(step *s)
{
    bl_tensor x = s->parameter[0], y = s->batch[0];
    bl_tensor xy = transport(s->graph, x, y), xx = transport(s->graph, x, x),
              yy = transport(s->graph, y, y);
    return bl_sub(bl_sub(xy, bl_mul(0.5, xx)), bl_mul(0.5, yy));
}

static bl_tensor running(step *s, bl_tensor value, double start)
{
    int i = add_state(s, bl_type_of(value), NULL, start);
    s->next[i] = bl_add(bl_mul(0.9, s->state[i]), bl_mul(0.1, bl_stop_gradient(value)));
    return s->next[i];
}

static bl_tensor conv_norm(step *s, bl_tensor x, const char *conv, const char *norm, int64_t stride)
{
    x = bl_conv(x, p(s, "%s", conv),
                (bl_conv_options){.stride = {stride, stride}, .low = {1, 1}, .high = {1, 1}});
    bl_tensor mean = bl_mean(x, 0, 1, 2), centred = bl_sub(x, mean),
              variance = bl_mean(bl_mul(centred, centred), 0, 1, 2);
    double k = (double)(bl_dim(x, 0) * bl_dim(x, 1) * bl_dim(x, 2));
    running(s, mean, 0);
    running(s, bl_mul(variance, k / (k - 1)), 1);
    bl_tensor scale = bl_mul(bl_rsqrt(bl_add(variance, 1e-5)), p(s, "%s.g", norm));
    return bl_add(bl_mul(centred, scale), p(s, "%s.b", norm));
}

/* Every second row and column, channels padded with zeros on both sides. */
static bl_tensor shortcut(bl_tensor x)
{
    int64_t c = bl_dim(x, 3);
    bl_shape all = bl_type_of(x).shape;
    x = bl_slice(x, BL_SHAPE(0, 0, 0, 0), all, BL_SHAPE(1, 2, 2, 1));
    return bl_pad(x, BL_SHAPE(0, 0, 0, c / 2), BL_SHAPE(0, 0, 0, c / 2), 0);
}

static bl_tensor resnet20_loss(step *s)
{
    bl_tensor x = bl_relu(conv_norm(s, s->batch[0], "stem", "stembn", 1));
    for (int b = 0; b < 3; b++)
        for (int k = 0; k < 3; k++) {
            char name[4][16];
            for (int i = 0; i < 2; i++) {
                snprintf(name[i], sizeof name[i], "%d.%d.c%d", b, k, i + 1);
                snprintf(name[2 + i], sizeof name[2 + i], "%d.%d.n%d", b, k, i + 1);
            }
            int64_t stride = b && k == 0 ? 2 : 1;
            bl_tensor h = bl_relu(conv_norm(s, x, name[0], name[2], stride));
            h = conv_norm(s, h, name[1], name[3], 1);
            x = bl_relu(bl_add(h, stride == 2 ? shortcut(x) : x));
        }
    bl_tensor pooled = bl_mean(x, 1, 2);
    return bl_cross_entropy(bl_add(bl_dot(pooled, p(s, "fc.w"), false, true), p(s, "fc.b")),
                            s->batch[1]);
}

static bl_tensor linear(step *s, bl_tensor x, const char *name, int layer)
{
    return bl_add(bl_dot(x, p(s, "%d.%s.w", layer, name), false, true),
                  p(s, "%d.%s.b", layer, name));
}

static bl_tensor heads(bl_tensor x, int64_t which) /* a third of [2048,384] as [16,4,128,32] */
{
    bl_tensor part = bl_slice_axis(x, 1, 128 * which, 128 * (which + 1));
    return bl_transpose(bl_reshape(part, BL_SHAPE(16, 128, 4, 32)), 0, 2, 1, 3);
}

static bl_tensor attention(bl_tensor qkv, bl_tensor mask)
{
    bl_tensor scores = bl_div(bl_dot(heads(qkv, 0), heads(qkv, 1), false, true), sqrt(32));
    bl_tensor a =
        bl_dot(bl_softmax(bl_select(mask, scores, -1e30), -1), heads(qkv, 2), false, false);
    return bl_reshape(bl_transpose(a, 0, 2, 1, 3), BL_SHAPE(2048, 128));
}

static bl_tensor gpt_loss(step *s)
{
    bl_graph *g = s->graph;
    bl_tensor ids = bl_reshape(s->batch[0], BL_SHAPE(2048)),
              token = bl_reshape(bl_take(p(s, "tok"), ids), BL_SHAPE(16, 128, 128));
    bl_tensor x = bl_reshape(bl_add(token, p(s, "pos")), BL_SHAPE(2048, 128));
    bl_shape square = BL_SHAPE(128, 128);
    bl_tensor mask = bl_le(bl_iota(g, BL_I32, square, 1), bl_iota(g, BL_I32, square, 0));
    for (int l = 0; l < 4; l++) {
        bl_tensor n = bl_layer_normalize(x, p(s, "%d.ln1.g", l), p(s, "%d.ln1.b", l), 1e-5);
        x = bl_add(x, linear(s, attention(linear(s, n, "qkv", l), mask), "proj", l));
        n = bl_layer_normalize(x, p(s, "%d.ln2.g", l), p(s, "%d.ln2.b", l), 1e-5);
        x = bl_add(x, linear(s, bl_gelu(linear(s, n, "up", l)), "down", l));
    }
    x = bl_layer_normalize(x, p(s, "lnf.g"), p(s, "lnf.b"), 1e-5);
    return bl_cross_entropy(bl_dot(x, p(s, "head.w"), false, true),
                            bl_reshape(s->batch[1], BL_SHAPE(2048)));
}

static bl_tensor rows_cross_entropy(step *s)
{
    return bl_cross_entropy(p(s, "logits"), s->batch[0]);
}

static bl_tensor rows_norm(step *s)
{
    bl_tensor y = bl_layer_normalize(p(s, "x"), p(s, "gain"), p(s, "shift"), 1e-5);
    return bl_mean(bl_mul(y, s->batch[0]));
}

/* --- updates: what becomes of the state, given the gradients ---------------------------------- */
static void momentum(step *s, const bl_tensor *g, double rate)
{
    for (int i = 0; i < s->parameters; i++) {
        int m = add_state(s, bl_type_of(s->parameter[i]), NULL, 0);
        s->next[m] = bl_add(bl_mul(0.9, s->state[m]), g[i]);
        s->next[i] = bl_sub(s->parameter[i], bl_mul(rate, s->next[m]));
    }
}

static void descent(step *s, const bl_tensor *g, double rate)
{
    for (int i = 0; i < s->parameters; i++)
        s->next[i] = bl_sub(s->parameter[i], bl_mul(rate, g[i]));
}

static void adam_with(step *s, const bl_tensor *g, double rate, double decay)
{
    int n = add_state(s, (bl_type){BL_F32, BL_SCALAR}, NULL, 0);
    bl_tensor t = s->next[n] = bl_add(s->state[n], 1);
    bl_tensor b1 = bl_div(1, bl_sub(1, bl_pow(0.9, t))),
              b2 = bl_div(1, bl_sub(1, bl_pow(0.999, t)));
    for (int i = 0; i < s->parameters; i++) {
        int m = add_state(s, bl_type_of(g[i]), NULL, 0),
            v = add_state(s, bl_type_of(g[i]), NULL, 0);
        s->next[m] = bl_add(bl_mul(0.9, s->state[m]), bl_mul(0.1, g[i]));
        s->next[v] = bl_add(bl_mul(0.999, s->state[v]), bl_mul(0.001, bl_mul(g[i], g[i])));
        bl_tensor slope =
            bl_div(bl_mul(s->next[m], b1), bl_add(bl_sqrt(bl_mul(s->next[v], b2)), 1e-8));
        s->next[i] = bl_sub(bl_mul(s->parameter[i], 1 - rate * decay), bl_mul(rate, slope));
    }
}

static void adam(step *s, const bl_tensor *g, double rate)
{
    adam_with(s, g, rate, 0);
}

static void adamw(step *s, const bl_tensor *g, double rate)
{
    adam_with(s, g, rate, 0.01);
}

/* Only the gradients are wanted: parameters stay, a state of the same shape takes the gradient. */
static void keep(step *s, const bl_tensor *g, double rate)
{
    (void)rate;
    for (int i = 0; i < s->parameters; i++)
        s->next[add_state(s, bl_type_of(g[i]), NULL, 0)] = g[i];
}

static const struct workload {
    const char *name;
    bl_tensor (*loss)(step *s); /* NULL: a batch holds a gradient for each parameter */
    void (*update)(step *s, const bl_tensor *g, double rate);
    double rate;
} workloads[] = {
    {"mlp", mlp_loss, momentum, 0.01},
    {"elr", elr_loss, momentum, 0.01},
    {"resnet20", resnet20_loss, momentum, 0.1},
    {"gpt", gpt_loss, adamw, 3e-4},
    {"tiny", tiny_loss, adam, 1e-3},
    {"gradpen", gradpen_loss, momentum, 0.01},
    {"sinkhorn", sinkhorn_loss, descent, 51.2},
    {"elementwise", elementwise_loss, descent, 1},
    {"xent64", rows_cross_entropy, keep, 0},
    {"xent1024", rows_cross_entropy, keep, 0},
    {"xent65536", rows_cross_entropy, keep, 0},
    {"norm64", rows_norm, keep, 0},
    {"norm1024", rows_norm, keep, 0},
    {"norm65536", rows_norm, keep, 0},
    {"momentum", NULL, momentum, 0.1},
    {"adamw", NULL, adamw, 3e-4},
};

/* --- building --------------------------------------------------------------------------------- */
static void read_inputs(step *s, const char *folder, const char *name)
{
    char *path = bl_format("%s/%s.safetensors", folder, name);
    if (!path || bl_safetensors_read(path, &s->file) != BL_OK)
        die("inputs");
    bl_release(path);
    for (size_t i = 0; i < s->file.count; i++) {
        const struct bl_entry *e = &s->file.entry[i];
        int batch, array;
        if (!strncmp(e->name, "p/", 2)) {
            s->name[s->parameters] = e->name + 2;
            int at = add_state(s, e->array.type, &e->array, 0);
            s->parameter[s->parameters++] = s->state[at];
        } else if (sscanf(e->name, "b/%d/%d", &batch, &array) == 2 && batch < BATCHES &&
                   array < ARRAYS) {
            s->batches = batch + 1 > s->batches ? batch + 1 : s->batches;
            s->batch_arrays = array + 1 > s->batch_arrays ? array + 1 : s->batch_arrays;
        }
    }
}

typedef struct runner {
    bl_program *program;
    bl_array in[MOST], out[MOST], batch[BATCHES][ARRAYS];
    int states, batch_arrays, batches, step; /* step: the next one's number */
    float loss;
} runner;

static bl_tensor build(step *s, const struct workload *w)
{
    for (int j = 0; j < s->batch_arrays; j++) {
        char first[16];
        snprintf(first, sizeof first, "b/0/%d", j);
        bl_type type = bl_dictionary_find(&s->file, first)->type;
        s->batch[j] = bl_input(s->graph, "batch", type.dtype, type.shape);
    }
    if (!w->loss) {
        w->update(s, s->batch, w->rate);
        for (int i = 0; i < s->parameters; i++)
            if (!strcmp(s->name[i], "fc.b"))
                return bl_mean(bl_square(s->next[i]));
    }
    bl_tensor loss = w->loss(s), gradient[MOST];
    bl_grad(loss, s->parameter, s->parameters, gradient);
    w->update(s, gradient, w->rate);
    return loss;
}

/* Inputs: all state, then the batch. Outputs: the state that changes, each in its own place, then
 * the loss. */
static void compile(step *s, const struct workload *w, int threads, runner *r)
{
    bl_tensor loss = build(s, w), in[MOST], out[MOST];
    bl_donation donation[MOST];
    int changed = 0;
    for (int i = 0; i < s->states; i++) {
        in[i] = s->state[i];
        r->in[i] = s->value[i];
        if (s->next[i].id == s->state[i].id)
            continue;
        out[changed] = s->next[i];
        r->out[changed] = s->value[i];
        donation[changed] = (bl_donation){i, changed};
        changed++;
    }
    memcpy(in + s->states, s->batch, (size_t)s->batch_arrays * sizeof *in);
    out[changed] = loss;
    r->out[changed] = (bl_array){{BL_F32, BL_SCALAR}, &r->loss};
    bl_compile_options options = {.threads = threads, .donation = donation, .donations = changed};
    if (bl_compile(bl_device_cpu(), in, s->states + s->batch_arrays, out, changed + 1, &options,
                   &r->program) != BL_OK)
        die(w->name);
    r->states = s->states;
    r->batch_arrays = s->batch_arrays;
    r->batches = s->batches;
    for (int i = 0; i < s->batches; i++)
        for (int j = 0; j < s->batch_arrays; j++) {
            char name[16];
            snprintf(name, sizeof name, "b/%d/%d", i, j);
            r->batch[i][j] = *bl_dictionary_find(&s->file, name);
        }
}

static float run(runner *r)
{
    if (r->batch_arrays)
        memcpy(r->in + r->states, r->batch[r->step % r->batches],
               (size_t)r->batch_arrays * sizeof *r->in);
    r->step++;
    if (bl_run(r->program, r->in, r->out) != BL_OK)
        die("run");
    return r->loss;
}

/* Of all parameters, or of the gradients that `keep` put after them. */
static double norm(const step *s, const struct workload *w)
{
    double sum = 0;
    int first = w->update == keep ? s->parameters : 0;
    for (int i = first; i < first + s->parameters; i++)
        for (int64_t k = 0; k < bl_array_count(&s->value[i]); k++)
            sum += bl_array_get(&s->value[i], k) * bl_array_get(&s->value[i], k);
    return sqrt(sum);
}

/* --- timing ----------------------------------------------------------------------------------- */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static long preempted(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nivcsw;
}

typedef struct sample {
    long preempted;
    double milliseconds; /* a step */
} sample;

enum { SAMPLES = 20000 };

static int take(runner *r, double seconds, sample samples[SAMPLES])
{
    double best = 1e9, end = now() + seconds;
    for (int k = 0; k < 3 && (k == 0 || best < 0.05); k++) { /* a long step warms all up */
        double start = now();
        run(r);
        best = fmin(best, now() - start);
    }
    int inner = (int)fmax(1, 0.001 / best), count = 0;
    for (; count < SAMPLES && (count < 2 || now() < end); count++) {
        long before = preempted();
        double start = now();
        for (int k = 0; k < inner; k++)
            run(r);
        double taken = now() - start;
        samples[count] = (sample){preempted() - before, 1e3 * taken / inner};
    }
    return count;
}

static void take_turns(runner *r)
{
    static sample samples[SAMPLES];
    for (double seconds; scanf("%lf", &seconds) == 1; fflush(stdout)) {
        int count = take(r, seconds, samples);
        for (int i = 0; i < count; i++)
            printf("%s[%.6f, %ld]", i ? ", " : "[", samples[i].milliseconds, samples[i].preempted);
        puts("]");
    }
}

static int by_time(const void *a, const void *b)
{
    const sample *x = a, *y = b;
    return (x->milliseconds > y->milliseconds) - (x->milliseconds < y->milliseconds);
}

static int by_preemption(const void *a, const void *b)
{
    const sample *x = a, *y = b;
    return (x->preempted > y->preempted) - (x->preempted < y->preempted);
}

/* Of the samples without preemption; of the half with least, where there are fewer than seven. */
static void time_alone(runner *r)
{
    static sample samples[SAMPLES];
    int count = take(r, 5, samples), clean = 0, kept = 0;
    for (int i = 0; i < count; i++)
        clean += samples[i].preempted == 0;
    qsort(samples, (size_t)count, sizeof *samples, by_preemption);
    long limit = clean >= 7 ? 0 : samples[count / 2].preempted;
    while (kept < count && samples[kept].preempted <= limit)
        kept++;
    qsort(samples, (size_t)kept, sizeof *samples, by_time);
    printf(", \"median_ms\": %.5f, \"iqr\": [%.5f, %.5f], \"min_ms\": %.5f, \"clean\": %d, "
           "\"samples\": %d}\n",
           samples[kept / 2].milliseconds, samples[kept / 4].milliseconds,
           samples[3 * kept / 4].milliseconds, samples[0].milliseconds, clean, count);
    fflush(stdout);
}

static void bench(const struct workload *w, const char *folder, int threads, bool turns)
{
    static step s;
    static runner r;
    s = (step){.graph = bl_graph_new()};
    r = (runner){0};
    read_inputs(&s, folder, w->name);
    double start = now();
    compile(&s, w, threads, &r);
    double setup = now() - start, loss1 = run(&r), first = now() - start, loss4 = 0;
    for (int i = 0; i < 3; i++)
        loss4 = run(&r);
    bl_work work = bl_program_work(r.program);
    printf("{\"workload\": \"%s\", \"peer\": \"ballast\", \"threads\": %d, \"setup_ms\": %.2f, "
           "\"first_ms\": %.2f, \"loss1\": %.7g, \"loss4\": %.7g, \"norm\": %.7g, "
           "\"kernels\": %lld%s",
           w->name, threads, 1e3 * setup, 1e3 * first, loss1, loss4, norm(&s, w),
           (long long)work.kernels, turns ? "}\n" : "");
    fflush(stdout);
    if (getenv("BENCH_EXPLAIN")) {
        char *text = bl_program_explain(r.program);
        fputs(text ? text : "", stderr);
        free(text);
    }
    if (turns)
        take_turns(&r);
    else
        time_alone(&r);
    bl_program_free(r.program);
    for (int i = 0; i < s.states; i++)
        bl_array_free(&s.value[i]);
    bl_dictionary_free(&s.file);
    bl_graph_free(s.graph);
}

static const struct workload *find(const char *name)
{
    for (size_t k = 0; k < sizeof workloads / sizeof *workloads; k++)
        if (!strcmp(workloads[k].name, name))
            return &workloads[k];
    fprintf(stderr, "bench_peer: there is no workload %s\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    int threads = 1;
    const char *folder = getenv("BALLAST_BENCH_INPUTS");
    folder = folder ? folder : ".";
    bool turns = false;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--threads") && i + 1 < argc)
            threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--inputs") && i + 1 < argc)
            folder = argv[++i];
        else if (!strcmp(argv[i], "--turns"))
            turns = true;
        else
            bench(find(argv[i]), folder, threads, turns);
    return 0;
}
