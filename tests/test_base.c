/* Arrays, text, files and safetensors. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/base.h"

static void expect_error(bl_status got, bl_status want, const char *words)
{
    if (got != want || !strstr(bl_error(), words))
        fail_msg("status %d, message \"%s\"; expected status %d and \"%s\"", got, bl_error(), want,
                 words);
}

static void types_are_written_and_counted(void **state)
{
    (void)state;
    char text[BL_TYPE_TEXT];
    bl_type type = {BL_F32, BL_SHAPE(128, 784)};
    assert_string_equal(bl_type_text(type, text), "f32[128,784]");
    assert_string_equal(bl_type_text((bl_type){BL_I32, BL_SCALAR}, text), "i32[]");
    assert_int_equal(bl_type_bytes(type), 128 * 784 * 4);
    assert_int_equal(bl_shape_count(BL_SCALAR), 1);
    bl_array a;
    expect_error(bl_array_new(BL_F64, BL_SHAPE(INT64_MAX / 2, 4), &a), BL_INVALID, "too large");
    expect_error(bl_array_new(BL_F64, BL_SHAPE(2, -1), &a), BL_INVALID, "negative");
}

static void elements_round_to_their_type(void **state)
{
    (void)state;
    for (bl_dtype dtype = 0; dtype < BL_DTYPES; dtype++) {
        bl_array a;
        assert_int_equal(bl_array_new(dtype, BL_SHAPE(2), &a), BL_OK);
        assert_int_equal((uintptr_t)a.data % 64, 0);
        assert_true(bl_array_get(&a, 1) == 0);
        bl_array_set(&a, 1, 1);
        assert_true(bl_array_get(&a, 1) == 1);
        bl_array_set(&a, 0, 1e300);
        double largest[] = {INFINITY, 1e300, INT32_MAX, UINT32_MAX, 127, 255, 1};
        assert_true(bl_array_get(&a, 0) == largest[dtype]);
        bl_array_free(&a);
    }
}

static void messages_may_quote_the_message_before(void **state)
{
    (void)state;
    assert_int_equal(bl_fail(BL_IO, "inner"), BL_IO);
    assert_int_equal(bl_fail(BL_INVALID, "outer (%s)", bl_error()), BL_INVALID);
    bl_fail_in(BL_INVALID, "file %d", 3);
    assert_string_equal(bl_error(), "file 3: outer (inner)");
}

static void numbers_are_whole_texts(void **state)
{
    (void)state;
    double x;
    int64_t n;
    assert_true(bl_parse_double("-1.5e3", &x) && x == -1500);
    assert_true(bl_parse_double("inf", &x) && isinf(x));
    assert_false(bl_parse_double("", &x) || bl_parse_double("1.5 ", &x) ||
                 bl_parse_double(" 1", &x) || bl_parse_double("0x10", &x) ||
                 bl_parse_double("1,5", &x));
    assert_true(bl_parse_int("-42", &n) && n == -42);
    assert_false(bl_parse_int("4.0", &n) || bl_parse_int("99999999999999999999", &n));
}

static void the_nearest_name_is_near(void **state)
{
    (void)state;
    const char *names[] = {"elr", "mixup", "fashion-mnist"};
    assert_string_equal(bl_nearest("mxiup", names, 3), "mixup");
    assert_string_equal(bl_nearest("ELR", names, 3), "elr");
    assert_string_equal(bl_nearest("fashion", names, 3), "fashion-mnist");
    assert_null(bl_nearest("zebra", names, 3));
    assert_null(bl_nearest("", names, 3));
}

static void text_grows_and_an_arena_keeps(void **state)
{
    (void)state;
    bl_text text = {0};
    for (int i = 0; i < 1000; i++)
        bl_text_add(&text, "%d,", i);
    assert_false(text.failed);
    assert_int_equal(text.length, 10 * 2 + 90 * 3 + 900 * 4);
    bl_text_free(&text);
    bl_arena *arena = bl_arena_new();
    char *first = bl_arena_text(arena, "first");
    for (size_t size = 1; size < 300000; size = size * 3 + 1) {
        char *block = bl_arena_alloc(arena, size);
        assert_int_equal((uintptr_t)block % 16, 0);
        for (size_t i = 0; i < size; i++)
            assert_int_equal(block[i], 0);
        memset(block, 7, size);
    }
    assert_string_equal(first, "first");
    bl_arena_free(arena);
}

static void the_chosen_allocation_fails(void **state)
{
    (void)state;
    bl_fail_allocation(2);
    void *a = bl_alloc(8), *b = bl_alloc(8), *c = bl_alloc(8);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
    bl_release(a);
    bl_release(c);
}

static char path[] = "/tmp/ballast-test-XXXXXX";

static void a_file_is_written_whole(void **state)
{
    (void)state;
    char *bytes;
    size_t count;
    assert_int_equal(bl_write_file(path, "one\0two", 7), BL_OK);
    assert_int_equal(bl_read_file(path, &bytes, &count), BL_OK);
    assert_int_equal(count, 7);
    assert_memory_equal(bytes, "one\0two\0", 8);
    bl_release(bytes);
    expect_error(bl_read_file("/nowhere/file", &bytes, &count), BL_NOT_FOUND, "/nowhere/file");
    expect_error(bl_read_file("/tmp", &bytes, &count), BL_IO, "/tmp");
    expect_error(bl_write_file("/nowhere/file", "", 0), BL_NOT_FOUND, "/nowhere/file");
    assert_int_equal(bl_write_file("/dev/null", "x", 1), BL_OK);
}

static void safetensors_come_back_as_they_went(void **state)
{
    (void)state;
    bl_dictionary d = {0}, back;
    for (bl_dtype dtype = 0; dtype < BL_DTYPES; dtype++) {
        bl_array a;
        assert_int_equal(bl_array_new(dtype, BL_SHAPE(3, 1 + dtype), &a), BL_OK);
        for (int64_t i = 0; i < bl_array_count(&a); i++)
            bl_array_set(&a, i, (double)(i % 2));
        assert_int_equal(bl_dictionary_set(&d, bl_dtype_name(dtype), a), BL_OK);
    }
    bl_array empty;
    assert_int_equal(bl_array_new(BL_F32, BL_SHAPE(0, 5), &empty), BL_OK);
    assert_int_equal(bl_dictionary_set(&d, "empty \"name\"", empty), BL_OK);
    assert_int_equal(bl_dictionary_set_note(&d, "note", "old"), BL_OK);
    assert_int_equal(bl_dictionary_set_note(&d, "note", "new \xc3\xa9"), BL_OK);
    assert_int_equal(bl_safetensors_write(path, &d), BL_OK);
    assert_int_equal(bl_safetensors_read(path, &back), BL_OK);
    assert_int_equal(back.count, d.count);
    assert_string_equal(bl_dictionary_note(&back, "note"), "new \xc3\xa9");
    for (size_t i = 0; i < d.count; i++) {
        const bl_array *a = bl_dictionary_find(&back, d.entry[i].name);
        assert_non_null(a);
        assert_true(bl_type_equal(a->type, d.entry[i].array.type));
        assert_memory_equal(a->data, d.entry[i].array.data, bl_type_bytes(a->type));
    }
    bl_dictionary_free(&d);
    bl_dictionary_free(&back);
}

/* Parses a header given as text, with `data` bytes after it. */
static bl_status parse(const char *header, const void *data, size_t count, bl_dictionary *d)
{
    char bytes[1024] = {(char)(strlen(header) & 255), (char)(strlen(header) >> 8)};
    memcpy(bytes + 8, header, strlen(header));
    memcpy(bytes + 8 + strlen(header), data, count);
    return bl_safetensors_parse(bytes, 8 + strlen(header) + count, "case", d);
}

static void narrow_floats_widen_and_long_integers_narrow(void **state)
{
    (void)state;
    bl_dictionary d;
    const uint16_t half[] = {0x3c00, 0xc500, 0x0001, 0x7c00}; /* 1, -5, 2^-24, infinity */
    assert_int_equal(
        parse("{\"x\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]}}", half, 8, &d),
        BL_OK);
    const float want[] = {1, -5, 0x1p-24f, INFINITY};
    assert_memory_equal(bl_dictionary_find(&d, "x")->data, want, sizeof want);
    bl_dictionary_free(&d);
    const int64_t wide[] = {-7, INT64_C(1) << 40};
    assert_int_equal(
        parse("{\"x\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]}}", wide, 8, &d),
        BL_OK);
    assert_true(bl_array_get(bl_dictionary_find(&d, "x"), 0) == -7);
    bl_dictionary_free(&d);
    expect_error(
        parse("{\"x\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[0,16]}}", wide, 16, &d),
        BL_INVALID, "case: array \"x\": element 1 is 1099511627776");
}

static void malformed_safetensors_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        bl_status status;
        const char *words;
    } bad[] = {
        {"[", BL_INVALID, "header, byte"},
        {"[]", BL_INVALID, "must be a JSON object"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         BL_INVALID, "duplicate"},
        {"{\"x\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", BL_UNSUPPORTED, "F31"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", BL_INVALID, "match"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", BL_INVALID, "begins"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", BL_INVALID, "end at"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"y\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
         BL_INVALID, "begins"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[9],\"data_offsets\":[0,36]}}", BL_INVALID,
         "outside"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", BL_INVALID, ">= 0"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}",
         BL_INVALID, "match"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}",
         BL_INVALID, "rank 9"},
        {"{\"x\":7}", BL_INVALID, "exactly"},
        {"{\"__metadata__\":{\"k\":1}}", BL_INVALID, "text"},
    };
    bl_dictionary d;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_error(parse(bad[i].header, "\0\0\0\0\0\0\0\0", 8, &d), bad[i].status, bad[i].words);
    expect_error(bl_safetensors_parse("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, "case", &d),
                 BL_INVALID, "header should have");
    expect_error(bl_safetensors_parse("abc", 3, "case", &d), BL_INVALID, "too few");
}

static void a_text_is_cleaned(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
    } rows[] = {{"", ""},
                {"caf\xc3\xa9 \xf0\x9f\x98\x80", "caf\xc3\xa9 \xf0\x9f\x98\x80"},
                {"\x1b[31m\n\t\x7f.", " [31m   ."},
                {"\xc2\x9b\xc2\xa0", "  \xc2\xa0"},
                {"\xe9t\xe9", "?t?"},
                {"\xc3", "?"},
                {"\xed\xa0\x80\xc0\xaf", "?????"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[32];
        snprintf(text, sizeof text, "%s", rows[i].from);
        bl_clean_text(text);
        assert_string_equal(text, rows[i].to);
        (void)bl_fail(BL_INVALID, "%s", rows[i].from);
        assert_string_equal(bl_error(), rows[i].to);
    }
}

int main(void)
{
    close(mkstemp(path));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_is_cleaned),
        cmocka_unit_test(types_are_written_and_counted),
        cmocka_unit_test(elements_round_to_their_type),
        cmocka_unit_test(messages_may_quote_the_message_before),
        cmocka_unit_test(numbers_are_whole_texts),
        cmocka_unit_test(the_nearest_name_is_near),
        cmocka_unit_test(text_grows_and_an_arena_keeps),
        cmocka_unit_test(the_chosen_allocation_fails),
        cmocka_unit_test(a_file_is_written_whole),
        cmocka_unit_test(safetensors_come_back_as_they_went),
        cmocka_unit_test(narrow_floats_widen_and_long_integers_narrow),
        cmocka_unit_test(malformed_safetensors_are_refused),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failures;
}
