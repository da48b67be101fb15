/* Methods that test theories of training - stability of grokking, corrupted arithmetic, limits of
 * high dimension, neural collapse, kernels of wide networks: what their specs refuse, and facts
 * about values and gradients at shapes and corners that the reference cases do not have. */
#include "calls.h"

/* Refuses a call, made of text only, after its inputs are given. */
#define REFUSE(f, json, words, ...)                                                                \
    do {                                                                                           \
        call c = start(f, json);                                                                   \
        __VA_ARGS__;                                                                               \
        refuse(&c, words);                                                                         \
    } while (0)

/* --- grokking at the edge of numerical stability ---------------------------------------------- */

static void stablemax_is_smooth_at_zero_and_far_out(void **state)
{
    (void)state;
    call c = start("grokking_stability_stablemax", NULL);
    F32(&c, "z", S(4), 0, 1, -1, 1e30); /* a single axis */
    accept(&c, NULL);
    near(result(&c, "p", 3), 1);
    finish(&c);
    c = start("grokking_stability_stablemax", NULL);
    F32(&c, "z", S(1, 3), 0, 1, -1); /* s = 1, 2, 1/2 */
    accept(&c, NULL);
    expect(&c, "p", 2 / 7.0, 4 / 7.0, 1 / 7.0);
    finish(&c);
    c = start("grokking_stability_stablemax_ce", "{\"reduction\": \"sum\"}");
    F32(&c, "z", S(1, 3), 0, 1, -1);
    I32(&c, "y", S(1), 0);
    accept(&c, "loss");
    expect(&c, "loss", log(3.5));
    near(slope(&c, "z", 0), 2 / 7.0 - 1);
    near(slope(&c, "z", 1), 2 / 7.0);
    near(slope(&c, "z", 2), 1 / 14.0);
    finish(&c);
    c = start("grokking_stability_stablemax_ce", NULL);
    F32(&c, "z", S(1, 2), 80, -80); /* where softmax has no gradient left */
    I32(&c, "y", S(1), 0);
    accept(&c, "loss");
    assert_true(slope(&c, "z", 1) > 1e-7 && result(&c, "loss", 0) > 1e-4);
    finish(&c);
}

static void a_gradient_along_its_weights_vanishes(void **state)
{
    (void)state;
    call c = start("grokking_stability_perp_grad", NULL);
    F32(&c, "w", S(3), 0.1, 0.2, -0.7);
    F32(&c, "g", S(3), 0.3, 0.6, -2.1);
    accept(&c, NULL);
    expect(&c, "g_out", 0, 0, 0);
    expect(&c, "coef", 3);
    finish(&c);
    c = start("grokking_stability_perp_grad", NULL);
    F32(&c, "w", S(2, 1), 0, 0);
    F32(&c, "g", S(2, 1), 3, 4);
    accept(&c, NULL);
    expect(&c, "g_out", 3, 4);
    expect(&c, "coef", 0);
    finish(&c);
    c = start("grokking_stability_perp_grad", NULL);
    F32(&c, "w", S(2), 2, 0);
    F32(&c, "g", S(2), 3, 4);
    accept(&c, NULL);
    expect(&c, "g_out", 0, 5);
    c.options = "{\"rescale\": false}";
    accept(&c, NULL);
    expect(&c, "g_out", 0, 4);
    finish(&c);
    c = start("grokking_stability_perp_grad", NULL);
    F32(&c, "w", S(2), 2, 0);
    F32(&c, "g", S(2), 0, 0);
    accept(&c, NULL);
    expect(&c, "g_out", 0, 0);
    finish(&c);
}

static void a_collapsed_example_may_be_wrong(void **state)
{
    (void)state;
    call c = start("grokking_stability_softmax_collapse", NULL);
    F32(&c, "z", S(3, 2), 40, 0, 40, 0, 1, 1);
    I32(&c, "y", S(3), 0, 1, 0);
    accept(&c, NULL);
    expect(&c, "flag", 1, 1, 0);
    expect(&c, "collapsed", 2 / 3.0);
    expect(&c, "zero_loss", 1 / 3.0);
    finish(&c);
}

static void a_step_that_lengthens_weights_has_cosine_one(void **state)
{
    (void)state;
    call c = start("grokking_stability_nlm", NULL);
    F32(&c, "w", S(2), 3, 4);
    F32(&c, "g", S(2), -6, -8);
    accept(&c, NULL);
    expect(&c, "cosine", 1);
    finish(&c);
    c = start("grokking_stability_nlm", NULL);
    F32(&c, "w", S(2), 0, 0);
    F32(&c, "g", S(2), 1, 1);
    accept(&c, NULL);
    expect(&c, "cosine", 0);
    finish(&c);
}

static void grokking_stability_refuses(void **state)
{
    (void)state;
    REFUSE("grokking_stability_stablemax", NULL, "z has 0 classes, expected at least 1",
           F32(&c, "z", S(2, 0), 0));
    REFUSE("grokking_stability_stablemax", NULL, "z[1] is inf", F32(&c, "z", S(2), 0, INFINITY));
    REFUSE("grokking_stability_stablemax_ce", NULL, "y[0] is 2, expected 0 <= . < C (C is 2)",
           F32(&c, "z", S(1, 2), 0, 0), I32(&c, "y", S(1), 2));
    REFUSE("grokking_stability_stablemax_ce", NULL, "y must be i32[1], not i32[2]",
           F32(&c, "z", S(1, 2), 0, 0), I32(&c, "y", S(2), 0, 0));
    REFUSE("grokking_stability_stablemax_ce", "{\"reduction\": \"none\"}",
           "option reduction is \"none\", expected one of mean|sum");
    REFUSE("grokking_stability_perp_grad", "{\"eps\": 0}", "option eps is 0, expected (0,inf)");
    REFUSE("grokking_stability_perp_grad", NULL, "g must be f32[2], not f32[3]",
           F32(&c, "w", S(2), 0, 0), F32(&c, "g", S(3), 0, 0, 0));
    REFUSE("grokking_stability_perp_grad", NULL, "g[0] is nan", F32(&c, "w", S(1), 0),
           F32(&c, "g", S(1), NAN));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stablemax_is_smooth_at_zero_and_far_out),
        cmocka_unit_test(a_gradient_along_its_weights_vanishes),
        cmocka_unit_test(a_collapsed_example_may_be_wrong),
        cmocka_unit_test(a_step_that_lengthens_weights_has_cosine_one),
        cmocka_unit_test(grokking_stability_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
