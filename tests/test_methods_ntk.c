/* Kernels of wide and deep networks: what their spec refuses, and facts at depths, angles and
 * ridges that the reference cases do not have. */
#include "calls.h"

/* --- dual maps -------------------------------------------------------------------------------- */

static const char *const activations[] = {
    "\"act\": \"relu\"",
    "\"act\": \"erf\"",
    "\"act\": \"sinh\", \"par\": 2.676",
    "\"act\": \"hermite\", \"par\": 1",
    "\"act\": \"hermite\", \"par\": 9",
    "\"act\": \"optimal\", \"par\": 1",
    "\"act\": \"optimal\", \"par\": 4",
};
enum { ACTIVATIONS = sizeof activations / sizeof *activations };

static void every_dual_map_is_one_at_one(void **state)
{
    (void)state;
    for (int i = 0; i < ACTIVATIONS; i++) {
        char options[80];
        snprintf(options, sizeof options, "{%s}", activations[i]);
        call c = start("wide_deep_ntk_dual", options);
        F32(&c, "t", S(2), 1, 1 + 9e-7); /* what rounding adds is clamped */
        accept(&c, NULL);
        expect(&c, "value", 1, 1);
        near(result(&c, "slope", 0), result(&c, "slope", 1));
        finish(&c);
    }
}

static void slopes_are_those_of_the_values(void **state)
{
    (void)state;
    for (int i = 0; i < ACTIVATIONS; i++) {
        char options[80];
        const double h = 1.0 / 1024;
        snprintf(options, sizeof options, "{%s}", activations[i]);
        call c = start("wide_deep_ntk_dual", options);
        F32(&c, "t", S(9), -0.5 - h, -0.5, -0.5 + h, -h, 0, h, 0.75 - h, 0.75, 0.75 + h);
        accept(&c, NULL);
        for (int at = 1; at < 9; at += 3) {
            double rise = result(&c, "value", at + 1) - result(&c, "value", at - 1);
            assert_true(fabs(rise / (2 * h) - result(&c, "slope", at)) < 3e-4);
        }
        finish(&c);
    }
}

static void zero_to_the_zero_is_one(void **state)
{
    (void)state;
    call c = start("wide_deep_ntk_dual", "{\"act\": \"hermite\", \"par\": 1}");
    F32(&c, "t", S(2), 0, -1);
    accept(&c, NULL);
    expect(&c, "value", 0, -1);
    expect(&c, "slope", 1, 1);
    finish(&c);
}

/* phi(t) is E sigma(x) sigma(z) for normal x, z of correlation t. Here at t = 1, where it is the
 * mean square, by the trapezoidal rule. */
static void every_activation_has_mean_square_one(void **state)
{
    (void)state;
    enum { POINTS = 4001 };
    double x[POINTS], step = 24.0 / (POINTS - 1);
    for (int j = 0; j < POINTS; j++)
        x[j] = -12 + step * j;
    for (int i = 0; i < ACTIVATIONS; i++) {
        char options[80];
        double sum = 0;
        snprintf(options, sizeof options, "{%s}", activations[i]);
        call c = start("wide_deep_ntk_activation", options);
        give(&c, "x", BL_F32, S(POINTS), x);
        accept(&c, NULL);
        for (int j = 0; j < POINTS; j++)
            sum += pow(result(&c, "value", j), 2) * exp(-x[j] * x[j] / 2) * step;
        assert_true(fabs(sum / sqrt(2 * M_PI) - 1) < 1e-4);
        finish(&c);
    }
}

static void activations_have_slopes(void **state)
{
    (void)state;
    call c = start("wide_deep_ntk_activation", "{\"act\": \"relu\"}");
    F32(&c, "x", S(3), -2, 0, 3);
    give_to(&c.cotangent, "value", (bl_type){BL_F32, S(3)}, VALUES(1, 1, 1));
    accept(&c, NULL);
    expect(&c, "value", 0, 0, 3 * sqrt(2));
    near(slope(&c, "x", 1), 0);
    near(slope(&c, "x", 2), sqrt(2));
    c.options = "{\"act\": \"hermite\", \"par\": 3}";
    accept(&c, NULL);
    expect(&c, "value", -2 / sqrt(6), 0, 18 / sqrt(6));
    near(slope(&c, "x", 0), 9 / sqrt(6));
    near(slope(&c, "x", 1), -3 / sqrt(6));
    finish(&c);
}

/* --- kernels ---------------------------------------------------------------------------------- */

static void a_network_without_layers_is_linear(void **state)
{
    (void)state;
    static const char *const kinds[] = {"nngp", "ntk"};
    for (int i = 0; i < 2; i++) {
        char options[80];
        snprintf(options, sizeof options, "{\"act\": \"erf\", \"depth\": 0, \"kind\": \"%s\"}",
                 kinds[i]);
        call c = start("wide_deep_ntk_kernel", options);
        F32(&c, "x1", S(1, 2), 1, 0);
        F32(&c, "x2", S(3, 2), 0.6, 0.8, -1, 0, 1.0005, 0); /* rounding makes rows longer */
        accept(&c, NULL);
        expect(&c, "k", 0.6, -1, 1);
        finish(&c);
    }
}

/* One layer of relu between orthogonal rows: phi(0) = 1/pi, and 1/pi + 0 * phi'(0). */
static void one_layer_by_hand(void **state)
{
    (void)state;
    call c = start("wide_deep_ntk_kernel", "{\"act\": \"relu\", \"depth\": 1}");
    F32(&c, "x1", S(2, 2), 1, 0, 0, 1);
    F32(&c, "x2", S(1, 2), 1, 0);
    accept(&c, NULL);
    expect(&c, "k", 1, 1 / M_PI);
    c.options = "{\"act\": \"relu\", \"depth\": 1, \"kind\": \"ntk\"}";
    accept(&c, NULL);
    expect(&c, "k", 2, 1 / M_PI); /* 1 + 1 phi'(1) */
    c.options = "{\"act\": \"relu\", \"depth\": 1, \"kind\": \"ntk\", \"scale\": \"limit\"}";
    accept(&c, NULL);
    expect(&c, "k", 2, 1 / M_PI); /* divided by phi'(0) (1 + 1) = 1 */
    finish(&c);
}

/* At depth 100 the iterates are of the order of 1e-60; scaled, they follow distance^-alpha. */
static void depth_leads_to_the_singular_kernel(void **state)
{
    (void)state;
    call c = start("wide_deep_ntk_kernel",
                   "{\"act\": \"optimal\", \"par\": 2, \"depth\": 100, \"scale\": \"limit\"}");
    const double angle[] = {0.02, 0.04};
    F32(&c, "x1", S(1, 2), 1, 0);
    F32(&c, "x2", S(2, 2), cos(angle[0]), sin(angle[0]), cos(angle[1]), sin(angle[1]));
    accept(&c, NULL);
    all_finite(&c.out);
    double ratio = result(&c, "k", 0) / result(&c, "k", 1), d0 = sin(0.01), d1 = sin(0.02);
    assert_true(fabs(ratio / pow(d1 / d0, 2) - 1) < 0.02);
    finish(&c);
}

/* --- classifiers ------------------------------------------------------------------------------ */

static void depth_chooses_one_of_three_classifiers(void **state)
{
    (void)state;
    static const struct {
        const char *options;
        double regime, alpha;
    } known[] = {
        {"{\"act\": \"relu\"}", 2, 0},
        {"{\"act\": \"hermite\", \"par\": 2}", 1, 0},
        {"{\"act\": \"optimal\", \"par\": 1}", 0, 1},
        {"{\"act\": \"optimal\", \"par\": 2}", 0, 2},
        {"{\"act\": \"optimal\", \"par\": 8}", 0, 8},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        call c = start("wide_deep_ntk_exponent", known[i].options);
        accept(&c, NULL);
        expect(&c, "regime", known[i].regime);
        expect(&c, "alpha", known[i].alpha);
        finish(&c);
    }
}

static void exact_hits_alone_count(void **state)
{
    (void)state;
    call c = start("wide_deep_ntk_singular", "{\"alpha\": 2}");
    F32(&c, "x", S(3, 2), 1, 0, 0, 1, 1, 0);
    F32(&c, "y", S(3, 2), 1, 0, -1, 5, 2, 1);
    F32(&c, "q", S(2, 2), 1, 0, 0, -1);
    accept(&c, NULL); /* (0, -1) has squared distances 2, 4, 2 */
    expect(&c, "score", 1.5, 0.5, (1.0 - 0.5 + 2.0) / 2.5, (0 + 2.5 + 1.0) / 2.5);
    finish(&c);
}

static void huge_exponents_leave_the_nearest_neighbour(void **state)
{
    (void)state;
    call c = start("wide_deep_ntk_singular", "{\"alpha\": 3000}");
    F32(&c, "x", S(2, 2), 1, 0, 0, 1);
    F32(&c, "y", S(2, 1), 1, -1);
    F32(&c, "q", S(2, 2), 0.8, 0.6, -0.8, -0.6);
    accept(&c, NULL);
    expect(&c, "score", 1, -1);
    finish(&c);
}

static void kernel_regression_by_hand(void **state)
{
    (void)state;
    call c = start("wide_deep_ntk_krr", NULL);
    F32(&c, "k_train", S(2, 2), 9, 0.5, 0.5, 9); /* the diagonal is taken to be 1 */
    F32(&c, "y", S(2, 1), 3, 0);
    F32(&c, "k_test", S(2, 3), 1, 0.5, 0, 0.5, 1, 0);
    accept(&c, NULL);
    expect(&c, "score", 3, 0, 0); /* training rows are answered exactly */
    c.options = "{\"unit_diagonal\": false, \"ridge\": 1}";
    F32(&c, "k_train", S(2, 2), 0, 2, -2, 0);
    accept(&c, NULL); /* A = [1 2; -2 1], s = (3, 6) / 5 */
    expect(&c, "score", 6.0 / 5, 7.5 / 5, 0);
    c.options = "{\"unit_diagonal\": false}";
    F32(&c, "k_train", S(2, 2), 0, 1, 1, 0); /* rows must change places */
    accept(&c, NULL);
    expect(&c, "score", 1.5, 3, 0);
    finish(&c);
}

/* --- rejections ------------------------------------------------------------------------------- */

static void activations_refuse(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{}", "option act is required"},
        {"{\"act\": \"gelu\"}",
         "option act is \"gelu\", expected one of relu|erf|sinh|hermite|optimal"},
        {"{\"act\": \"sinh\"}", "option par is 0, expected > 0 for sinh"},
        {"{\"act\": \"sinh\", \"par\": -1}", "option par is -1, expected > 0 for sinh"},
        {"{\"act\": \"hermite\", \"par\": 0}", "option par is 0, expected one of 1..9 for hermite"},
        {"{\"act\": \"hermite\", \"par\": 10}", "option par is 10, expected one of 1..9"},
        {"{\"act\": \"hermite\", \"par\": 2.5}", "option par is 2.5, expected one of 1..9"},
        {"{\"act\": \"optimal\", \"par\": 0}",
         "option par is 0, expected a whole number >= 1 for optimal"},
        {"{\"act\": \"optimal\", \"par\": 1.5}", "option par is 1.5, expected a whole number"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        REFUSE("wide_deep_ntk_exponent", bad[i][0], bad[i][1]);
        REFUSE("wide_deep_ntk_dual", bad[i][0], bad[i][1], F32(&c, "t", S(1), 0));
        REFUSE("wide_deep_ntk_activation", bad[i][0], bad[i][1], F32(&c, "x", S(1), 0));
    }
    REFUSE("wide_deep_ntk_exponent", "{\"act\": \"hermite\", \"par\": 1}",
           "option par is 1: the activation is linear");
    REFUSE("wide_deep_ntk_dual", "{\"act\": \"relu\"}", "t[1] is 1.00001, expected [-1,1]",
           F32(&c, "t", S(2), 1, 1.00001));
    REFUSE("wide_deep_ntk_dual", "{\"act\": \"relu\"}", "t[0] is -2, expected [-1,1]",
           F32(&c, "t", S(1), -2));
    REFUSE("wide_deep_ntk_dual", "{\"act\": \"relu\"}", "t[0] is nan, expected no NaN",
           F32(&c, "t", S(1), NAN));
}

#define ERF       "{\"act\": \"erf\", \"depth\": 1}"
#define ROWS(...) F32(&c, "x1", S(1, 2), 1, 0), F32(&c, "x2", S(2, 2), 0, 1, __VA_ARGS__)

static void kernels_refuse(void **state)
{
    (void)state;
    const char *f = "wide_deep_ntk_kernel";
    REFUSE(f, "{\"act\": \"erf\"}", "option depth is required");
    REFUSE(f, "{\"act\": \"erf\", \"depth\": -1}", "option depth is -1, expected >= 0");
    REFUSE(f, "{\"act\": \"erf\", \"depth\": 1, \"kind\": \"nnk\"}",
           "option kind is \"nnk\", expected one of nngp|ntk");
    REFUSE(f, "{\"act\": \"erf\", \"depth\": 1, \"scale\": \"unit\"}",
           "option scale is \"unit\", expected one of none|limit");
    REFUSE(f, "{\"act\": \"hermite\", \"par\": 2, \"depth\": 1, \"scale\": \"limit\"}",
           "scale is limit, but phi'(0) is 0 for hermite", ROWS(1, 0));
    REFUSE(f, "{\"act\": \"sinh\", \"depth\": 1}", "option par is 0, expected > 0 for sinh",
           ROWS(1, 0));
    REFUSE(f, ERF, "x2 has row 1 of length 0.99, expected 1", ROWS(0.99, 0));
    REFUSE(f, ERF, "x1 has row 0 of length 2, expected 1", ROWS(1, 0),
           F32(&c, "x1", S(1, 2), 2, 0));
    REFUSE(f, ERF, "x2 has row 1 of length nan, expected 1", ROWS(NAN, 0));
    REFUSE(f, ERF, "x1 has no rows, expected at least one", ROWS(1, 0),
           give(&c, "x1", BL_F32, S(0, 2), NULL));
    REFUSE(f, ERF, "x2 has no rows, expected at least one", ROWS(1, 0),
           give(&c, "x2", BL_F32, S(0, 2), NULL));
    REFUSE(f, ERF, "x2 must be f32[b,2], not f32[1,3]", ROWS(1, 0),
           F32(&c, "x2", S(1, 3), 1, 0, 0));
}

#define POINTS(...)                                                                                \
    F32(&c, "x", S(1, 2), 1, 0), F32(&c, "y", S(1, 1), 1), F32(&c, "q", S(1, 2), __VA_ARGS__)
#define SYSTEM(...)                                                                                \
    F32(&c, "k_train", S(2, 2), __VA_ARGS__), F32(&c, "y", S(2, 1), 1, 1),                         \
        F32(&c, "k_test", S(2, 1), 1, 1)

static void classifiers_refuse(void **state)
{
    (void)state;
    const char *f = "wide_deep_ntk_singular";
    REFUSE(f, NULL, "option alpha is required");
    REFUSE(f, "{\"alpha\": 0}", "option alpha is 0, expected (0,inf)");
    REFUSE(f, "{\"alpha\": -2}", "option alpha is -2, expected (0,inf)");
    REFUSE(f, "{\"alpha\": 1}", "q has row 0 of length 5, expected 1", POINTS(3, 4));
    REFUSE(f, "{\"alpha\": 1}", "x has row 0 of length 0, expected 1", POINTS(1, 0),
           F32(&c, "x", S(1, 2), 0, 0));
    REFUSE(f, "{\"alpha\": 1}", "x has no rows, expected at least one", POINTS(1, 0),
           give(&c, "x", BL_F32, S(0, 2), NULL), give(&c, "y", BL_F32, S(0, 1), NULL));
    REFUSE(f, "{\"alpha\": 1}", "y must be f32[1,C], not f32[2,1]", POINTS(1, 0),
           F32(&c, "y", S(2, 1), 1, 1));
    f = "wide_deep_ntk_krr";
    REFUSE(f, "{\"ridge\": -1}", "option ridge is -1, expected [0,inf)");
    REFUSE(f, NULL, "k_train: singular in column 1, expected independent columns",
           SYSTEM(1, 1, 1, 1));
    REFUSE(f, "{\"unit_diagonal\": false}", "k_train: singular in column 0", SYSTEM(0, 1, 0, 1));
    REFUSE(f, NULL, "k_train[0,1] is nan, expected finite", SYSTEM(1, NAN, 0, 1));
    REFUSE(f, NULL, "k_train must be f32[n,n], not f32[1,2]", SYSTEM(1, 0, 0, 1),
           F32(&c, "k_train", S(1, 2), 1, 0));
    REFUSE(f, NULL, "k_test must be f32[2,m], not f32[1,2]", SYSTEM(1, 0, 0, 1),
           F32(&c, "k_test", S(1, 2), 1, 0));
    REFUSE(f, NULL, "k_train has no rows, expected at least one",
           give(&c, "k_train", BL_F32, S(0, 0), NULL), give(&c, "y", BL_F32, S(0, 1), NULL),
           give(&c, "k_test", BL_F32, S(0, 1), NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_dual_map_is_one_at_one),
        cmocka_unit_test(slopes_are_those_of_the_values),
        cmocka_unit_test(zero_to_the_zero_is_one),
        cmocka_unit_test(every_activation_has_mean_square_one),
        cmocka_unit_test(activations_have_slopes),
        cmocka_unit_test(a_network_without_layers_is_linear),
        cmocka_unit_test(one_layer_by_hand),
        cmocka_unit_test(depth_leads_to_the_singular_kernel),
        cmocka_unit_test(depth_chooses_one_of_three_classifiers),
        cmocka_unit_test(exact_hits_alone_count),
        cmocka_unit_test(huge_exponents_leave_the_nearest_neighbour),
        cmocka_unit_test(kernel_regression_by_hand),
        cmocka_unit_test(activations_refuse),
        cmocka_unit_test(kernels_refuse),
        cmocka_unit_test(classifiers_refuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
