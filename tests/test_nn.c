/* Models: which parameters and sites they have, and what their layers compute. */
#include "support.h"

#include "nn/nn.h"

/* --- a recorder: parameters get constant values, sites are written down ----------------------- */
enum { MOST = 80 };
typedef struct recorder {
    bl_graph *graph;
    bl_parameter parameter[MOST];
    char path[MOST][BL_PATH_BYTES];
    int parameters;
    char sites[2000];
    int64_t weights;          /* numbers in all parameters */
    bl_tensor mean, variance; /* next running statistics of the last normalisation */
} recorder;

static bl_tensor parameter(void *context, const bl_parameter *declared)
{
    recorder *r = context;
    snprintf(r->path[r->parameters], BL_PATH_BYTES, "%s", declared->path);
    r->parameter[r->parameters] = *declared;
    r->parameter[r->parameters].path = r->path[r->parameters];
    r->parameters++;
    r->weights += bl_type_count(declared->type);
    double value = declared->start == BL_INIT_ONE ? 1 : declared->role == BL_WEIGHT ? 0.01 : 0;
    return bl_full(r->graph, BL_F32, declared->type.shape, value);
}

static bl_tensor site(void *context, const bl_site_info *info, bl_tensor value)
{
    static const char kind[] = "HFIB";
    recorder *r = context;
    size_t used = strlen(r->sites);
    snprintf(r->sites + used, sizeof r->sites - used, "%s:%c%d ", info->path, kind[info->kind],
             bl_rank(value));
    return value;
}

static bl_tensor statistic(void *context, const char *path, bl_type type, double initial)
{
    recorder *r = context;
    (void)path;
    return bl_full(r->graph, type.dtype, type.shape, initial);
}

static void set_statistic(void *context, const char *path, bl_tensor next)
{
    recorder *r = context;
    *(strstr(path, "mean") ? &r->mean : &r->variance) = next;
}

static bl_model model(recorder *r, void **state, const char *name, int64_t width, int64_t depth)
{
    *r = (recorder){.graph = *state};
    return (bl_model){.architecture = {.name = name, .width = width, .depth = depth, .outputs = 10},
                      .graph = *state,
                      .training = true,
                      .rate = bl_full(*state, BL_F32, BL_SCALAR, 0.1),
                      .context = r,
                      .parameter = parameter,
                      .site = site,
                      .statistic = statistic,
                      .set_statistic = set_statistic};
}

static void expect_shape(bl_tensor x, bl_shape shape)
{
    if (bl_is_poison(x)) {
        expect_ok(bl_graph_status(x.graph));
        fail_msg("poison");
    }
    assert_true(bl_shape_equal(bl_type_of(x).shape, shape));
}

/* --- models ----------------------------------------------------------------------------------- */
static void mlp_has_its_layers_and_sites(void **state)
{
    recorder r;
    bl_model m = model(&r, state, "mlp", 32, 3);
    expect_shape(bl_model_forward(&m, input(state, BL_F32, 5, 4, 4, 1)), BL_SHAPE(5, 10));
    expect_shape(m.features, BL_SHAPE(5, 32));
    assert_string_equal(r.sites, "dense1/out:H2 dense2/out:H2 features:F2 ");
    assert_int_equal(r.parameters, 8);
    assert_string_equal(r.parameter[0].path, "dense1/weight");
    assert_true(bl_shape_equal(r.parameter[0].type.shape, BL_SHAPE(16, 32)));
    assert_true(r.parameter[0].role == BL_WEIGHT && r.parameter[0].start == BL_INIT_HE);
    assert_true(r.parameter[1].role == BL_BIAS && r.parameter[1].start == BL_INIT_ZERO);
    assert_string_equal(r.parameter[6].path, "classifier/weight");
    assert_true(r.parameter[6].classifier && !r.parameter[5].classifier);
}

static void linear_takes_its_input_as_features(void **state)
{
    recorder r;
    bl_model m = model(&r, state, "linear", 0, 0);
    bl_tensor x = input(state, BL_F32, 3, 7);
    expect_shape(bl_model_forward(&m, x), BL_SHAPE(3, 10));
    assert_int_equal(m.features.id, x.id);
}

static void cnn_pools_odd_sizes(void **state)
{
    recorder r;
    bl_model m = model(&r, state, "cnn", 0, 0);
    expect_shape(bl_model_forward(&m, input(state, BL_F32, 2, 28, 28, 1)), BL_SHAPE(2, 10));
    assert_true(bl_shape_equal(r.parameter[6].type.shape, BL_SHAPE(7 * 7 * 32, 64)));
    assert_string_equal(r.sites, "conv1/out:I4 conv2/out:I4 features:F2 ");
    bl_model odd = model(&r, state, "cnn", 8, 0);
    expect_shape(bl_model_forward(&odd, input(state, BL_F32, 2, 7, 9, 3)), BL_SHAPE(2, 10));
    assert_true(bl_shape_equal(r.parameter[0].type.shape, BL_SHAPE(3, 3, 3, 8)));
    assert_true(bl_shape_equal(r.parameter[6].type.shape, BL_SHAPE(2 * 3 * 16, 64)));
}

/* He et al. 2016 state 0.27 million parameters. */
static void resnet20_has_its_size_and_branches(void **state)
{
    recorder r;
    bl_model m = model(&r, state, "resnet20", 0, 0);
    expect_shape(bl_model_forward(&m, input(state, BL_F32, 2, 32, 32, 3)), BL_SHAPE(2, 10));
    assert_int_equal(r.weights, 269722);
    assert_non_null(strstr(r.sites, "block9/branch:B4 block9/out:I4 features:F2"));
    expect_shape(m.features, BL_SHAPE(2, 64));
}

static void a_wrong_model_is_refused(void **state)
{
    recorder r;
    bl_model m = model(&r, state, "mlpp", 8, 1);
    assert_true(bl_is_poison(bl_model_forward(&m, input(state, BL_F32, 2, 3))));
    assert_int_equal(bl_graph_status(*state), BL_INVALID);
    assert_non_null(strstr(bl_error(), "linear, mlp, cnn, resnet20"));
}

static void a_perceptron_has_limits(void **state)
{
    recorder r;
    bl_model m = model(&r, state, "mlp", 8, 1000000000);
    assert_true(bl_is_poison(bl_model_forward(&m, input(state, BL_F32, 2, 3))));
    assert_int_equal(bl_graph_status(*state), BL_INVALID);
    assert_non_null(strstr(bl_error(), "depth from 1 to 64, not 8 and 1000000000"));
}

static void a_cnn_refuses_a_table(void **state)
{
    recorder r;
    bl_model m = model(&r, state, "cnn", 8, 1);
    assert_true(bl_is_poison(bl_model_forward(&m, input(state, BL_F32, 2, 3))));
    assert_int_equal(bl_graph_status(*state), BL_INVALID);
    assert_non_null(strstr(bl_error(), "images"));
}

/* --- layers ----------------------------------------------------------------------------------- */
static void expect_numbers(bl_tensor y, bl_tensor x, const double *values, const double *expected)
{
    bl_array in = array_of(bl_type_of(x), values), out;
    expect_ok(bl_evaluate(bl_device_reference(), &x, &in, 1, &y, &out, 1));
    for (int64_t i = 0; i < bl_array_count(&out); i++)
        if (fabs(bl_array_get(&out, i) - expected[i]) > 5e-5)
            fail_msg("[%lld]: %g, expected %g", (long long)i, bl_array_get(&out, i), expected[i]);
    bl_array_free(&in);
    bl_array_free(&out);
}

/* Values 1 3 5 7: mean 4, variance 5 (unbiased 20/3); running ones start at 0 and 1. */
static void batch_norm_normalises_and_remembers(void **state)
{
    recorder r;
    bl_model m = model(&r, state, "mlp", 1, 1);
    bl_tensor x = input(state, BL_F32, 4, 1), y = bl_batch_norm(&m, "norm", x);
    const double s = 1 / sqrt(5 + 1e-5), *values = VALUES(1, 3, 5, 7);
    expect_numbers(y, x, values, VALUES(-3 * s, -s, s, 3 * s));
    expect_numbers(r.mean, x, values, VALUES(0.4));
    expect_numbers(r.variance, x, values, VALUES(0.9 + 0.1 * 20 / 3));
    m.training = false; /* running mean 0 and variance 1 */
    expect_numbers(bl_batch_norm(&m, "norm", x), x, values, VALUES(1, 3, 5, 7));
}

static void layer_norm_normalises_rows(void **state)
{
    recorder r;
    bl_model m = model(&r, state, "mlp", 1, 1);
    bl_tensor x = input(state, BL_F32, 2, 2);
    expect_numbers(bl_layer_norm(&m, "norm", x), x, VALUES(1, 3, 10, 10), VALUES(-1, 1, 0, 0));
}

/* A filter of ones sums its window: 9 numbers inside, 6 at an edge, 4 in a corner. */
static void convolution_keeps_the_size(void **state)
{
    recorder r;
    bl_model m = model(&r, state, "cnn", 1, 1);
    bl_tensor x = input(state, BL_F32, 1, 3, 3, 1);
    bl_tensor y = bl_mul(100, bl_convolution(&m, "conv", x, 3, 1, 1, true));
    expect_numbers(y, x, VALUES(1, 1, 1, 1, 1, 1, 1, 1, 1), VALUES(4, 6, 4, 6, 9, 6, 4, 6, 4));
    expect_shape(bl_convolution(&m, "conv", x, 3, 5, 2, false), BL_SHAPE(1, 2, 2, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(mlp_has_its_layers_and_sites),
        TEST(linear_takes_its_input_as_features),
        TEST(cnn_pools_odd_sizes),
        TEST(resnet20_has_its_size_and_branches),
        TEST(a_wrong_model_is_refused),
        TEST(a_perceptron_has_limits),
        TEST(a_cnn_refuses_a_table),
        TEST(batch_norm_normalises_and_remembers),
        TEST(layer_norm_normalises_rows),
        TEST(convolution_keeps_the_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
