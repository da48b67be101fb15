/* Layers against the textbook: convolution, transposed convolution, resizing, normalisations,
 * attention and small integers, each beside a few plain loops in double, on the reference executor
 * in f64 and on the cpu executor in f64 and f32.
 *
 * To add one: a builder, the loops that say what it means, and a call of `agree`. */
#include "nn/nn.h"
#include "support.h"

#define S(...) BL_SHAPE(__VA_ARGS__)

enum { INPUTS = 3, MOST = 4000 };

typedef struct layer {
    bl_shape shape[INPUTS]; /* of the inputs; of rank 0 where there are fewer */
    bl_conv_options o;
    int64_t size[2]; /* rows and columns of an image, or groups */
    bl_tensor (*build)(const struct layer *l, const bl_tensor *x);
    /* z[..] for the inputs, in row-major order. */
    void (*naive)(const struct layer *l, double *const *x, bl_shape result, double *z);
} layer;

static int inputs_of(const layer *l)
{
    int count = 0;
    while (count < INPUTS && l->shape[count].rank > 0)
        count++;
    return count;
}

static void run_one(const layer *l, const bl_device *device, bl_dtype dtype, double *const *x,
                    double tolerance)
{
    bl_graph *g = bl_graph_new();
    bl_tensor in[INPUTS], y;
    bl_array value[INPUTS], out;
    int inputs = inputs_of(l);
    for (int i = 0; i < inputs; i++) {
        in[i] = bl_input(g, "x", dtype, l->shape[i]);
        value[i] = array_of((bl_type){dtype, l->shape[i]}, x[i]);
    }
    y = l->build(l, in);
    expect_ok(bl_graph_status(g));
    double *expected = bl_alloc(MOST * sizeof *expected);
    assert_true(expected && bl_type_count(bl_type_of(y)) <= MOST);
    l->naive(l, x, bl_type_of(y).shape, expected);
    expect_ok(bl_evaluate(device, in, value, inputs, &y, &out, 1));
    for (int64_t i = 0; i < bl_array_count(&out); i++)
        if (!close_to(bl_array_get(&out, i), expected[i], tolerance))
            fail_msg("element %lld of %s is %.12g, by plain loops %.12g", (long long)i,
                     bl_show(out.type), bl_array_get(&out, i), expected[i]);
    bl_release(expected);
    bl_array_free(&out);
    for (int i = 0; i < inputs; i++)
        bl_array_free(&value[i]);
    bl_graph_free(g);
}

static void agree(const layer *l, bool only_f32)
{
    double *x[INPUTS];
    bl_random random = bl_random_new(bl_key_from_seed(21));
    for (int i = 0; i < inputs_of(l); i++) {
        int64_t count = bl_shape_count(l->shape[i]);
        x[i] = bl_alloc((size_t)count * sizeof(double));
        for (int64_t at = 0; at < count; at++) /* numbers that f32 holds */
            x[i][at] = (double)(float)(2 * bl_random_unit(&random) - 1);
    }
    if (!only_f32) {
        run_one(l, bl_device_reference(), BL_F64, x, 1e-12);
        run_one(l, bl_device_cpu(), BL_F64, x, 1e-12);
    }
    run_one(l, bl_device_reference(), BL_F32, x, 1e-5);
    run_one(l, bl_device_cpu(), BL_F32, x, 1e-5);
    for (int i = 0; i < inputs_of(l); i++)
        bl_release(x[i]);
}

/* Element [b,i,j,c] of an image; 0 outside. */
static double pixel(const double *x, bl_shape s, int64_t b, int64_t i, int64_t j, int64_t c)
{
    bool inside = i >= 0 && i < s.dim[1] && j >= 0 && j < s.dim[2];
    return inside ? x[((b * s.dim[1] + i) * s.dim[2] + j) * s.dim[3] + c] : 0;
}

/* Calls the block for every b, i, j, c of an image, with `at` its place in row-major order. */
#define OVER_IMAGE(s)                                                                              \
    for (int64_t at = 0, b BL_UNUSED, i BL_UNUSED, j BL_UNUSED, c;                                 \
         at < bl_shape_count(s) && (c = at % (s).dim[3], j = at / (s).dim[3] % (s).dim[2],         \
                                   i = at / (s).dim[3] / (s).dim[2] % (s).dim[1],                  \
                                   b = at / (s).dim[3] / (s).dim[2] / (s).dim[1], true);           \
         at++)

/* --- convolutions ------------------------------------------------------------------------------
 */

static bl_tensor build_conv(const layer *l, const bl_tensor *x)
{
    return bl_conv(x[0], x[1], l->o);
}

static void naive_conv(const layer *l, double *const *x, bl_shape result, double *z)
{
    bl_shape image = l->shape[0], w = l->shape[1]; /* w[h,w,I/groups,O] */
    int64_t in = w.dim[2], out = w.dim[3] / l->o.groups;
    OVER_IMAGE(result)
    {
        z[at] = 0;
        for (int64_t p = 0; p < w.dim[0]; p++)
            for (int64_t q = 0; q < w.dim[1]; q++)
                for (int64_t k = 0; k < in; k++)
                    z[at] += pixel(x[0], image, b,
                                   i * l->o.stride[0] - l->o.low[0] + p * l->o.dilation[0],
                                   j * l->o.stride[1] - l->o.low[1] + q * l->o.dilation[1],
                                   c / out * in + k) *
                             x[1][((p * w.dim[1] + q) * in + k) * w.dim[3] + c];
    }
}

static void convolutions_with_stride_padding_dilation_and_groups(BL_UNUSED void **state)
{
    static const bl_conv_options options[] = {
        {{1, 1}, {0, 0}, {0, 0}, {1, 1}, 1}, {{2, 3}, {0, 0}, {0, 0}, {1, 1}, 1},
        {{1, 1}, {1, 2}, {2, 0}, {1, 1}, 1}, {{1, 1}, {0, 0}, {0, 0}, {2, 3}, 1},
        {{1, 1}, {0, 0}, {0, 0}, {1, 1}, 2}, {{1, 1}, {1, 1}, {1, 1}, {1, 1}, 4},
        {{2, 1}, {2, 1}, {1, 3}, {2, 2}, 2}, {{3, 2}, {0, 3}, {2, 0}, {1, 2}, 4}};
    for (int i = 0; i < COUNT_OF(options); i++) {
        layer l = {.shape = {S(2, 9, 8, 4), S(3, 2, 4 / options[i].groups, 8)},
                   .o = options[i],
                   .build = build_conv,
                   .naive = naive_conv};
        agree(&l, false);
    }
}

static bl_tensor build_transposed(const layer *l, const bl_tensor *x)
{
    return bl_conv_transpose(x[0], x[1], l->o);
}

/* Every pixel spreads the filter, w[h,w,O/groups,I]. */
static void naive_transposed(const layer *l, double *const *x, bl_shape result, double *z)
{
    bl_shape image = l->shape[0], w = l->shape[1];
    int64_t in = image.dim[3] / l->o.groups, out = w.dim[2];
    for (int64_t i = 0; i < bl_shape_count(result); i++)
        z[i] = 0;
    OVER_IMAGE(image)
    {
        for (int64_t p = 0; p < w.dim[0]; p++)
            for (int64_t q = 0; q < w.dim[1]; q++)
                for (int64_t k = 0; k < out; k++) {
                    int64_t row = i * l->o.stride[0] + p * l->o.dilation[0] - l->o.low[0];
                    int64_t column = j * l->o.stride[1] + q * l->o.dilation[1] - l->o.low[1];
                    if (row >= 0 && row < result.dim[1] && column >= 0 && column < result.dim[2])
                        z[((b * result.dim[1] + row) * result.dim[2] + column) * result.dim[3] +
                          c / in * out + k] +=
                            x[0][at] * x[1][((p * w.dim[1] + q) * out + k) * w.dim[3] + c];
                }
    }
}

static void transposed_convolutions(BL_UNUSED void **state)
{
    static const bl_conv_options options[] = {{{1, 1}, {0, 0}, {0, 0}, {1, 1}, 1},
                                              {{2, 2}, {1, 1}, {1, 0}, {1, 1}, 1},
                                              {{2, 3}, {0, 1}, {0, 0}, {2, 1}, 2}};
    for (int i = 0; i < COUNT_OF(options); i++) {
        layer l = {.shape = {S(2, 4, 5, 4), S(3, 3, 6 / options[i].groups, 4)},
                   .o = options[i],
                   .build = build_transposed,
                   .naive = naive_transposed};
        agree(&l, false);
    }
}

/* --- resizing ----------------------------------------------------------------------------------
 */

static bl_tensor build_resize(const layer *l, const bl_tensor *x)
{
    return bl_resize_bilinear(x[0], l->size[0], l->size[1]);
}

/* Where the centre of output pixel i of `to` lies among `from`: the lower neighbour and the share
 * of the upper one. */
static int64_t neighbour(int64_t i, int64_t to, int64_t from, double *share)
{
    double place = ((double)i + 0.5) * (double)from / (double)to - 0.5;
    place = fmin(fmax(place, 0), (double)(from - 1));
    int64_t low = (int64_t)floor(place);
    *share = place - (double)low;
    return low;
}

static void naive_resize(const layer *l, double *const *x, bl_shape result, double *z)
{
    bl_shape s = l->shape[0];
    OVER_IMAGE(result)
    {
        double down, right;
        int64_t p = neighbour(i, result.dim[1], s.dim[1], &down);
        int64_t q = neighbour(j, result.dim[2], s.dim[2], &right);
        z[at] = (1 - down) * ((1 - right) * pixel(x[0], s, b, p, q, c) +
                              right * pixel(x[0], s, b, p, q + 1, c)) +
                down * ((1 - right) * pixel(x[0], s, b, p + 1, q, c) +
                        right * pixel(x[0], s, b, p + 1, q + 1, c));
    }
}

static void bilinear_resizing(BL_UNUSED void **state)
{
    static const int64_t size[][2] = {{10, 8}, {3, 9}, {1, 1}, {7, 5}, {5, 13}};
    for (int i = 0; i < COUNT_OF(size); i++) {
        layer l = {.shape = {S(2, 5, 4, 3)}, .build = build_resize, .naive = naive_resize};
        memcpy(l.size, size[i], sizeof l.size);
        agree(&l, false);
    }
}

/* --- normalisations ----------------------------------------------------------------------------
 */

/* Normalises the elements of x at which `member` is `set`, then scales and shifts by channel. */
static void normalise(const layer *l, double *const *x, bl_shape s, double *z,
                      int64_t (*member)(const layer *l, int64_t b, int64_t c), int64_t set)
{
    double n = 0, mean = 0, variance = 0;
    OVER_IMAGE(s) if (member(l, b, c) == set) n += 1, mean += x[0][at];
    mean /= n;
    OVER_IMAGE(s) if (member(l, b, c) == set) variance += pow(x[0][at] - mean, 2);
    variance /= n;
    OVER_IMAGE(s)
    if (member(l, b, c) == set)
        z[at] = (x[0][at] - mean) / sqrt(variance + 1e-5) * x[1][c] + x[2][c];
}

static int64_t group_of(const layer *l, int64_t b, int64_t c)
{
    int64_t groups = l->size[0];
    return b * groups + c / (l->shape[0].dim[3] / groups);
}

static void naive_groups(const layer *l, double *const *x, bl_shape s, double *z)
{
    for (int64_t set = 0; set < s.dim[0] * l->size[0]; set++)
        normalise(l, x, s, z, group_of, set);
}

static int64_t channel_of(BL_UNUSED const layer *l, BL_UNUSED int64_t b, int64_t c)
{
    return c;
}

static void naive_batch(const layer *l, double *const *x, bl_shape s, double *z)
{
    for (int64_t set = 0; set < s.dim[3]; set++)
        normalise(l, x, s, z, channel_of, set);
}

/* Over the last axis of each pixel. */
static void naive_layer_norm(const layer *l, double *const *x, bl_shape s, double *z)
{
    int64_t channels = s.dim[3];
    for (int64_t row = 0; row < bl_shape_count(s) / channels; row++) {
        layer one = {.shape = {S(1, 1, 1, channels)}, .size = {1}};
        double *part[] = {x[0] + row * channels, x[1], x[2]};
        naive_groups(&one, part, one.shape[0], z + row * channels);
    }
    (void)l;
}

static bl_tensor build_layer_norm(BL_UNUSED const layer *l, const bl_tensor *x)
{
    return bl_layer_normalize(x[0], x[1], x[2], 1e-5);
}
static bl_tensor build_groups(const layer *l, const bl_tensor *x)
{
    return bl_group_normalize(x[0], l->size[0], x[1], x[2], 1e-5);
}
static bl_tensor build_instances(BL_UNUSED const layer *l, const bl_tensor *x)
{
    return bl_instance_normalize(x[0], x[1], x[2], 1e-5);
}

/* The model's batch normalisation, with its gain and shift as inputs. */
static bl_tensor gain_or_shift(void *context, const bl_parameter *declared)
{
    const bl_tensor *x = context;
    return strstr(declared->path, "gain") ? x[1] : x[2];
}
static bl_tensor old_statistic(void *context, BL_UNUSED const char *path, bl_type type,
                               double initial)
{
    const bl_tensor *x = context;
    return bl_full(x[0].graph, type.dtype, type.shape, initial);
}
static void no_statistic(BL_UNUSED void *context, BL_UNUSED const char *path,
                         BL_UNUSED bl_tensor next)
{
}

static bl_tensor build_batch(BL_UNUSED const layer *l, const bl_tensor *x)
{
    bl_tensor copy[INPUTS] = {x[0], x[1], x[2]};
    bl_model m = {.graph = x[0].graph,
                  .training = true,
                  .rate = bl_full(x[0].graph, BL_F32, BL_SCALAR, 0.1),
                  .context = copy,
                  .parameter = gain_or_shift,
                  .statistic = old_statistic,
                  .set_statistic = no_statistic};
    return bl_batch_norm(&m, "norm", x[0]);
}

static void batch_layer_group_and_instance_normalisation(BL_UNUSED void **state)
{
    layer l = {.shape = {S(3, 4, 5, 6), S(6), S(6)}, .size = {2}};
    l.build = build_layer_norm, l.naive = naive_layer_norm;
    agree(&l, false);
    l.build = build_groups, l.naive = naive_groups;
    agree(&l, false);
    l.size[0] = 6, l.build = build_instances;
    agree(&l, false);
    l.build = build_batch, l.naive = naive_batch;
    agree(&l, true);
}

/* --- attention ---------------------------------------------------------------------------------
 */

/* size[0] is 1 where position t sees only those up to t. */
static bl_tensor build_attention(const layer *l, const bl_tensor *x)
{
    bl_shape seen = S(l->shape[0].dim[1], l->shape[1].dim[1]);
    bl_tensor mask =
        bl_ge(bl_iota(x[0].graph, BL_I32, seen, 0), bl_iota(x[0].graph, BL_I32, seen, 1));
    return l->size[0] ? bl_attention(x[0], x[1], x[2], mask) : bl_attention(x[0], x[1], x[2], 1);
}

static void naive_attention(const layer *l, double *const *x, BL_UNUSED bl_shape result, double *z)
{
    const int64_t *q = l->shape[0].dim, *k = l->shape[1].dim, *v = l->shape[2].dim;
    for (int64_t b = 0; b < q[0]; b++)
        for (int64_t t = 0; t < q[1]; t++) {
            double sum = 0, *row = z + (b * q[1] + t) * v[2];
            for (int64_t e = 0; e < v[2]; e++)
                row[e] = 0;
            for (int64_t s = 0; s < k[1] && (!l->size[0] || s <= t); s++) {
                double score = 0;
                for (int64_t d = 0; d < q[2]; d++)
                    score += x[0][(b * q[1] + t) * q[2] + d] * x[1][(b * k[1] + s) * k[2] + d];
                double weight = exp(score / sqrt((double)q[2]));
                sum += weight;
                for (int64_t e = 0; e < v[2]; e++)
                    row[e] += weight * x[2][(b * v[1] + s) * v[2] + e];
            }
            for (int64_t e = 0; e < v[2]; e++)
                row[e] /= sum;
        }
}

static void attention_with_and_without_a_mask(BL_UNUSED void **state)
{
    layer l = {.shape = {S(2, 7, 5), S(2, 9, 5), S(2, 9, 3)},
               .build = build_attention,
               .naive = naive_attention};
    agree(&l, false);
    l.size[0] = 1;
    agree(&l, false);
}

/* --- small integers ----------------------------------------------------------------------------
 */

static void products_of_i8_are_exact_in_i32(BL_UNUSED void **state)
{
    enum { M = 5, K = 300, N = 7 };
    const bl_device *devices[] = {bl_device_reference(), bl_device_cpu()};
    bl_random random = bl_random_new(bl_key_from_seed(4));
    for (int run = 0; run < 8; run++) {
        bl_graph *g = bl_graph_new();
        bool ta = run >> 1 & 1, tb = run >> 2 & 1;
        bl_tensor x[2] = {bl_input(g, "a", BL_I8, ta ? S(K, M) : S(M, K)),
                          bl_input(g, "b", BL_I8, tb ? S(N, K) : S(K, N))};
        bl_tensor y = bl_dot(x[0], x[1], ta, tb);
        bl_array in[2], out;
        for (int i = 0; i < 2; i++) {
            expect_ok(bl_array_new(BL_I8, bl_type_of(x[i]).shape, &in[i]));
            for (int64_t at = 0; at < bl_array_count(&in[i]); at++) /* many of the largest */
                bl_array_set(&in[i], at, fmax(-128, (double)bl_random_below(&random, 300) - 172));
        }
        expect_ok(bl_evaluate(devices[run & 1], x, in, 2, &y, &out, 1));
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) {
                double sum = 0;
                for (int k = 0; k < K; k++)
                    sum += bl_array_get(&in[0], ta ? k * M + m : m * K + k) *
                           bl_array_get(&in[1], tb ? n * K + k : k * N + n);
                assert_true(bl_array_get(&out, m * N + n) == sum);
            }
        bl_array_free(&in[0]);
        bl_array_free(&in[1]);
        bl_array_free(&out);
        bl_graph_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_with_stride_padding_dilation_and_groups),
        cmocka_unit_test(transposed_convolutions),
        cmocka_unit_test(bilinear_resizing),
        cmocka_unit_test(batch_layer_group_and_instance_normalisation),
        cmocka_unit_test(attention_with_and_without_a_mask),
        cmocka_unit_test(products_of_i8_are_exact_in_i32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
