/* Splits, label noise, preparation and batches: the counts and values they promise. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "data/dataset.h"

static void expect_error(bl_status got, bl_status want, const char *words)
{
    if (got != want || !strstr(bl_error(), words))
        fail_msg("status %d, message \"%s\"; expected status %d and \"%s\"", got, bl_error(), want,
                 words);
}

static void ok(bl_status status)
{
    if (status != BL_OK)
        fail_msg("%s", bl_error());
}

static const bl_key key = {{11, 7}};

static void read_table(const char *text, const char *target, const bl_preparation *like,
                       bl_dataset *d)
{
    char path[] = "/tmp/ballast-split-XXXXXX.csv";
    close(mkstemps(path, 4));
    ok(bl_write_file(path, text, strlen(text)));
    ok(bl_dataset_open(path, &(bl_data_options){.target = target, .like = like}, d));
    unlink(path);
}

/* --- splits */

static void parts_are_disjoint_and_stratified(void **state)
{
    (void)state;
    bl_dataset d;
    bl_split s, again, more;
    ok(bl_dataset_open("digits", NULL, &d));
    ok(bl_split_new(&d, &(bl_split_options){.test = 0.2, .validation = 100, .train = 500}, key,
                    &s));
    assert_int_equal(s.test_count, 359);
    assert_int_equal(s.validation_count, 100);
    assert_int_equal(s.train_count, 500);
    int of_class[10] = {0}, seen[1797] = {0};
    for (int64_t i = 0; i < 359; i++)
        of_class[bl_i32(&d.target)[s.test[i]]]++, seen[s.test[i]]++;
    for (int64_t i = 0; i < 100; i++)
        seen[s.validation[i]]++;
    for (int64_t i = 0; i < 500; i++)
        seen[s.train[i]]++;
    for (int i = 0; i < 1797; i++)
        assert_true(seen[i] <= 1);
    const int counts[10] = {178, 182, 177, 183, 181, 182, 181, 179, 174, 180};
    for (int c = 0; c < 10; c++)
        assert_true(fabs(of_class[c] - 359.0 * counts[c] / 1797) < 1);
    ok(bl_split_new(&d, &(bl_split_options){.test = 0.2, .validation = 100, .train = 500}, key,
                    &again));
    assert_memory_equal(s.train, again.train, 500 * 4);
    ok(bl_split_new(&d, &(bl_split_options){.test = 0.2, .validation = 0.3}, key, &more));
    assert_memory_equal(s.test, more.test, 359 * 4); /* each part has its own key */
    bl_split_free(&s);
    bl_split_free(&again);
    bl_split_free(&more);
    expect_error(bl_split_new(&d, &(bl_split_options){.test = 1797}, key, &s), BL_INVALID,
                 "leaves nothing");
    expect_error(bl_split_new(&d, &(bl_split_options){.test = -0.1}, key, &s), BL_INVALID,
                 "share below 1");
    expect_error(bl_split_new(&d, &(bl_split_options){.train = 1798}, key, &s), BL_INVALID,
                 "1798 training examples asked, but 1797");
    bl_dataset_free(&d);
}

static void a_fixed_test_part_stays_the_test_part(void **state)
{
    (void)state;
    bl_dataset d;
    bl_split s;
    bl_array x, y;
    ok(bl_array_new(BL_F32, BL_SHAPE(10, 2), &x));
    ok(bl_array_new(BL_F64, BL_SHAPE(10), &y));
    ok(bl_dataset_from_arrays("made", &x, &y, 3, &d));
    ok(bl_split_new(&d, &(bl_split_options){.test = 0.5, .validation = 2}, key, &s));
    const int32_t test[] = {7, 8, 9};
    assert_int_equal(s.test_count, 3);
    assert_memory_equal(s.test, test, sizeof test);
    assert_int_equal(s.validation_count, 2);
    assert_int_equal(s.train_count, 5);
    bl_split_free(&s);
    bl_dataset_free(&d);
    bl_array_free(&x);
    bl_array_free(&y);
}

static void imbalance_follows_the_exponential_profile(void **state)
{
    (void)state;
    bl_dataset d;
    int32_t kept[1797], count[10] = {0};
    int64_t kept_count;
    ok(bl_dataset_open("digits", NULL, &d));
    ok(bl_imbalance(&d, NULL, d.count, 10, key, kept, &kept_count));
    for (int64_t i = 0; i < kept_count; i++)
        count[bl_i32(&d.target)[kept[i]]]++;
    for (int c = 1; c < 10; c++) /* 183 is the largest class */
        assert_int_equal(count[c], (int)floor(183 * pow(10, -c / 9.0) + 1e-9));
    assert_int_equal(count[0], 178);
    bl_dataset_free(&d);
}

/* --- noise */

enum { MANY = 20000 };

static void make_labels(int32_t *labels, int32_t classes)
{
    for (int32_t i = 0; i < MANY; i++)
        labels[i] = i % classes;
}

static double share_wrong(const char *text, const bl_dataset *d, int32_t *labels, uint8_t *wrong)
{
    bl_noise noise;
    double sum = 0;
    ok(bl_noise_parse(text, &noise));
    make_labels(labels, d->classes);
    ok(bl_noise_apply(&noise, d, labels, MANY, key, wrong));
    for (int32_t i = 0; i < MANY; i++) {
        assert_int_equal(wrong[i], labels[i] != i % d->classes);
        sum += wrong[i];
    }
    return sum / MANY;
}

static void noise_spoils_the_promised_share(void **state)
{
    (void)state;
    static int32_t labels[MANY], again[MANY];
    static uint8_t wrong[MANY];
    bl_dataset d;
    ok(bl_dataset_open("digits", NULL, &d));
    /* five standard deviations are 0.017; symmetric: all classes, so 0.4 (1 - 1/10) are wrong */
    assert_true(fabs(share_wrong("0.4", &d, labels, wrong) - 0.36) < 0.017);
    share_wrong("symmetric:0.4", &d, again, wrong);
    assert_memory_equal(labels, again, sizeof labels);
    assert_true(fabs(share_wrong("other:0.4", &d, labels, wrong) - 0.4) < 0.017);
    int to[10] = {0};
    for (int32_t i = 0; i < MANY; i += 10)
        to[labels[i]] += wrong[i];
    for (int c = 1; c < 10; c++) /* 2000 zeros, a ninth of 0.4 each: 89, sd 9 */
        assert_true(fabs(to[c] - 2000 * 0.4 / 9) < 46);
    assert_true(share_wrong("other:1", &d, labels, wrong) == 1);
    assert_true(share_wrong("0", &d, labels, wrong) == 0);
    assert_true(share_wrong("pairs:1:9->1,3<->5", &d, labels, wrong) == 0.3);
    assert_int_equal(labels[9], 1);
    assert_int_equal(labels[3], 5);
    assert_int_equal(labels[5], 3);
    bl_dataset_free(&d);
}

static void bad_noise_is_refused(void **state)
{
    (void)state;
    bl_noise noise;
    bl_dataset d;
    int32_t label = 3;
    ok(bl_dataset_open("digits", NULL, &d));
    expect_error(bl_noise_parse("1.5", &noise), BL_INVALID, "rate from 0 to 1");
    expect_error(bl_noise_parse("pairs:0.4", &noise), BL_INVALID, "pairs:0.4:cat<->dog");
    expect_error(bl_noise_parse("nan", &noise), BL_INVALID, "rate");
    static const char *const bad[][2] = {{"pairs:1:3->x", "no class \"x\""},
                                         {"pairs:1:3->3", "its own partner"},
                                         {"pairs:1:3->4,3->5", "two partners"},
                                         {"pairs:1:34", "not a pair"},
                                         {"pairs:1:", "no pairs"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ok(bl_noise_parse(bad[i][0], &noise));
        expect_error(bl_noise_apply(&noise, &d, &label, 1, key, NULL), BL_INVALID, bad[i][1]);
    }
    label = 10;
    ok(bl_noise_parse("0.5", &noise));
    expect_error(bl_noise_apply(&noise, &d, &label, 1, key, NULL), BL_INVALID, "not in 0..9");
    bl_dataset_free(&d);
}

/* --- preparation */

static const char table[] = "x,c,m,y\n"
                            "1,red,5,10\n"
                            "3,red,,20\n"
                            "2,blue,5,30\n"
                            "2,blue,5,40.5\n"
                            "9,green,7,50\n";

static void expect_row(const float *got, const double *want, int count)
{
    for (int i = 0; i < count; i++)
        if (fabs((double)got[i] - want[i]) > 1e-6)
            fail_msg("feature %d is %.8g, expected %.8g", i, (double)got[i], want[i]);
}

static void tables_become_standard_features(void **state)
{
    (void)state;
    bl_dataset d, fresh;
    bl_preparation *p, *back;
    float out[25], same[25], y[5];
    read_table(table, "y", NULL, &d);
    const int32_t rows[] = {0, 1, 2, 3}; /* x: mean 2, sd sqrt(1/2); m: constant, once missing */
    ok(bl_preparation_fit(&d, rows, 4, &p));
    assert_int_equal(bl_preparation_shape(p).dim[0], 5);
    static const char *const names[] = {"x", "c = blue", "c = red", "m", "m (missing)"};
    for (int i = 0; i < 5; i++)
        assert_string_equal(bl_preparation_feature(p, i), names[i]);
    ok(bl_preparation_inputs(p, &d, NULL, 5, out));
    const double r = sqrt(2);
    expect_row(out, (double[]){-r, 0, 1, 0, 0}, 5);
    expect_row(out + 5, (double[]){r, 0, 1, 0, 1}, 5);
    expect_row(out + 20, (double[]){7 * r, 0, 0, 0, 0}, 5); /* green is unseen */
    ok(bl_preparation_targets(p, &d, NULL, 5, y));
    const double mean = 25.125; /* of 10, 20, 30 and 40.5 */
    const double sd = sqrt((15.125 * 15.125 + 5.125 * 5.125 + 4.875 * 4.875 + 15.375 * 15.375) / 4);
    expect_row(y, (double[]){(10 - mean) / sd}, 1);
    assert_true(fabs(bl_preparation_to_units(p, (double)y[4]) - 50) < 1e-5);
    assert_true(fabs(bl_preparation_unit(p) - sd) < 1e-12);

    char *text;
    ok(bl_preparation_to_json(p, &text));
    ok(bl_preparation_from_json(text, &back));
    bl_free_text(text);
    ok(bl_preparation_inputs(back, &d, NULL, 5, same));
    assert_memory_equal(out, same, sizeof out);

    read_table("c,extra,m,x\nred,1,,1\npink,2,5,3\n", "y", back, &fresh);
    assert_int_equal(fresh.target_kind, BL_NO_TARGET);
    ok(bl_preparation_inputs(back, &fresh, NULL, 2, out));
    expect_row(out, (double[]){-r, 0, 1, 0, 1, r, 0, 0, 0, 0}, 10);
    bl_dataset_free(&fresh);
    bl_preparation_free(p);
    bl_preparation_free(back);
    bl_dataset_free(&d);
}

static void images_are_normalised_by_channel(void **state)
{
    (void)state;
    bl_array pixels;
    bl_dataset d;
    bl_preparation *p;
    ok(bl_array_new(BL_U8, BL_SHAPE(2, 1, 2, 3), &pixels));
    const uint8_t values[] = {0, 10, 7, 4, 20, 7, 0, 30, 7, 4, 40, 7};
    memcpy(pixels.data, values, sizeof values);
    ok(bl_dataset_from_arrays("made", &pixels, NULL, 0, &d));
    ok(bl_preparation_fit(&d, NULL, 2, &p));
    float out[12];
    ok(bl_preparation_inputs(p, &d, NULL, 2, out));
    double sd = sqrt(125);
    expect_row(out, (double[]){-1, -15 / sd, 0, 1, -5 / sd, 0, -1, 5 / sd, 0, 1, 15 / sd, 0}, 12);
    ok(bl_preparation_pixels(p, values, 1, out)); /* one image that was changed after reading */
    expect_row(out, (double[]){-1, -15 / sd, 0, 1, -5 / sd, 0}, 6);
    bl_preparation_free(p);
    bl_dataset_free(&d);
    bl_array_free(&pixels);
}

static void classes_are_matched_by_name(void **state)
{
    (void)state;
    bl_dataset d, fresh;
    bl_preparation *p;
    int32_t labels[3];
    read_table("x,y\n1,b\n2,a\n3,c\n", "y", NULL, &d);
    ok(bl_preparation_fit(&d, NULL, 3, &p));
    read_table("y,x\nc,1\nb,2\n", "y", p, &fresh);
    ok(bl_preparation_targets(p, &fresh, NULL, 2, labels));
    assert_int_equal(labels[0], 2);
    assert_int_equal(labels[1], 1);
    bl_dataset_free(&fresh);
    read_table("y,x\nd,1\nb,2\n", "y", p, &fresh);
    expect_error(bl_preparation_targets(p, &fresh, NULL, 2, labels), BL_INVALID,
                 "the class \"d\", unknown to the model");
    bl_dataset_free(&fresh);
    bl_preparation_free(p);
    bl_dataset_free(&d);
}

static void bad_preparations_are_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"{", "not JSON"},
        {"{}", "version"},
        {"{\"version\":1}", "kind of inputs"},
        {"{\"version\":1,\"inputs\":{\"kind\":\"table\"}}", "list of columns"},
        {"{\"version\":1,\"inputs\":{\"kind\":\"table\",\"columns\":[{}]}}", "name is missing"},
        {"{\"version\":1,\"inputs\":{\"kind\":\"table\",\"columns\":[{\"name\":\"x\",\"mean\":0,"
         "\"sd\":-1}]}}",
         "not negative"},
        {"{\"version\":1,\"inputs\":{\"kind\":\"images\",\"shape\":[8,8,1],\"mean\":[],\"sd\":[]}}",
         "as many as channels"},
        {"{\"version\":1,\"inputs\":{\"kind\":\"matrix\",\"shape\":[1],\"mean\":[0],\"sd\":[1]}}",
         "target's kind"},
    };
    bl_preparation *p;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_error(bl_preparation_from_json(bad[i][0], &p), BL_INVALID, bad[i][1]);
}

/* --- memory */

/* Every allocation on the way from a file to features may fail; none may crash or leak. */
static bl_status from_file_to_features(const char *path)
{
    bl_dataset d = {0};
    bl_split s = {0};
    bl_preparation *p = NULL, *back = NULL;
    float *x = NULL;
    char *text = NULL;
    bl_status status = bl_dataset_open(path, &(bl_data_options){.target = "y"}, &d);
    if (status == BL_OK)
        status = bl_split_new(&d, &(bl_split_options){.test = 1}, key, &s);
    if (status == BL_OK)
        status = bl_preparation_fit(&d, s.train, s.train_count, &p);
    if (status == BL_OK)
        status = bl_preparation_to_json(p, &text);
    if (status == BL_OK)
        status = bl_preparation_from_json(text, &back);
    if (status == BL_OK) {
        x = malloc((size_t)(s.train_count * bl_shape_count(bl_preparation_shape(back)) + 1) * 4);
        status = bl_preparation_inputs(back, &d, s.train, s.train_count, x);
    }
    free(x);
    bl_preparation_free(p);
    bl_preparation_free(back);
    bl_free_text(text);
    bl_split_free(&s);
    bl_dataset_free(&d);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    char path[] = "/tmp/ballast-split-XXXXXX.csv";
    close(mkstemps(path, 4));
    ok(bl_write_file(path, table, strlen(table)));
    int64_t n = 0;
    for (bl_status status = BL_NO_MEMORY; status != BL_OK;) {
        bl_fail_allocation(++n);
        status = from_file_to_features(path);
        bl_fail_allocation(0);
        if (status != BL_OK && status != BL_NO_MEMORY)
            fail_msg("allocation %d: %s", (int)n, bl_error());
    }
    assert_true(n > 50);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_disjoint_and_stratified),
        cmocka_unit_test(a_fixed_test_part_stays_the_test_part),
        cmocka_unit_test(imbalance_follows_the_exponential_profile),
        cmocka_unit_test(noise_spoils_the_promised_share),
        cmocka_unit_test(bad_noise_is_refused),
        cmocka_unit_test(tables_become_standard_features),
        cmocka_unit_test(images_are_normalised_by_channel),
        cmocka_unit_test(classes_are_matched_by_name),
        cmocka_unit_test(bad_preparations_are_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
