/* Data: what readers make of files, and what splits, noise, preparation and batches promise. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <jpeglib.h>
#include <png.h>

#include "data/dataset.h"

static char folder[] = "/tmp/ballast-data-XXXXXX";

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

/* A path in the test's folder; the last few stay valid. */
static const char *in_folder(const char *name)
{
    static char path[4][256];
    static int next;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
    return path[next];
}

static const char *file(const char *name, const char *text)
{
    const char *path = in_folder(name);
    ok(bl_write_file(path, text, strlen(text)));
    return path;
}

static bl_status read_csv(const char *text, const bl_data_options *options, bl_dataset *d)
{
    return bl_dataset_open(file("t.csv", text), options, d);
}

/* --- readers */

static void digits_are_the_known_digits(void **state)
{
    (void)state;
    bl_dataset d;
    ok(bl_dataset_open("digits", NULL, &d));
    const int counts[10] = {178, 182, 177, 183, 181, 182, 181, 179, 174, 180};
    int seen[10] = {0};
    assert_int_equal(d.kind, BL_IMAGES);
    assert_int_equal(d.count, 1797);
    assert_int_equal(d.classes, 10);
    int64_t ink = 0;
    for (int64_t i = 0; i < d.count * 64; i++)
        ink += bl_u8(&d.inputs)[i];
    assert_int_equal(ink, 561718);
    for (int64_t i = 0; i < d.count; i++)
        seen[bl_i32(&d.target)[i]]++;
    assert_memory_equal(seen, counts, sizeof counts);
    const uint8_t row[8] = {0, 0, 5, 13, 9, 1, 0, 0};
    assert_memory_equal(d.inputs.data, row, 8);
    char *summary = bl_dataset_summary(&d);
    assert_string_equal(summary, "1797 images 8x8x1, 10 classes");
    assert_non_null(strstr(d.source, "CC BY 4.0"));
    bl_free_text(summary);
    bl_dataset_free(&d);
}

static void fashion_mnist_is_read_or_its_package_named(void **state)
{
    (void)state;
    bl_dataset d;
    bl_status status = bl_dataset_open("fashion-mnist", NULL, &d);
    if (status != BL_OK) {
        expect_error(status, BL_NOT_FOUND, "apt install dataset-fashion-mnist");
        return;
    }
    assert_int_equal(d.count, 70000);
    assert_int_equal(d.test_count, 10000);
    assert_string_equal(d.class_name[9], "ankle boot");
    int test[10] = {0};
    for (int64_t i = 60000; i < 70000; i++)
        test[bl_i32(&d.target)[i]]++;
    for (int c = 0; c < 10; c++)
        assert_int_equal(test[c], 1000);
    bl_dataset_free(&d);
}

static void unknown_names_are_answered_with_the_nearest(void **state)
{
    (void)state;
    bl_dataset d;
    expect_error(bl_dataset_open("fashion_mnist", NULL, &d), BL_NOT_FOUND,
                 "did you mean fashion-mnist?");
    expect_error(bl_dataset_open(file("x.parquet", "PAR1"), NULL, &d), BL_UNSUPPORTED,
                 "unknown kind of file");
    expect_error(bl_dataset_open("digits", &(bl_data_options){.target = "y"}, &d), BL_INVALID,
                 "a target column was given, but has no meaning for a built-in data set");
}

static const char odd_csv[] = "\xef\xbb\xbf"
                              "age,\"city, state\",note,same,id,price\r\n"
                              "31,\"Rome, \"\"IT\"\"\",\"two\nlines\",1,a1,10.5\r\n"
                              " 29 ,Oslo,x,1,a2,11\r\n"
                              "\r\n"
                              "NA,,\"two\nlines\",1,a3,12.25\r\n"
                              "40,Oslo,?,1,a4,-3e1\r\n";

static void an_odd_csv_is_read_as_meant(void **state)
{
    (void)state;
    bl_dataset d;
    ok(read_csv(odd_csv, &(bl_data_options){.target = "price"}, &d));
    assert_int_equal(d.count, 4);
    assert_int_equal(d.columns, 3); /* same and id are left out */
    assert_string_equal(d.column[0].name, "age");
    assert_int_equal(d.column[0].kind, BL_NUMERIC);
    assert_true(d.column[0].number[1] == 29 && isnan(d.column[0].number[2]));
    const bl_column *city = &d.column[1];
    assert_string_equal(city->name, "city, state");
    assert_int_equal(city->categories, 2);
    assert_string_equal(city->category[1], "Rome, \"IT\"");
    const int32_t codes[4] = {1, 0, -1, 0};
    assert_memory_equal(city->code, codes, sizeof codes);
    assert_string_equal(d.column[2].category[0], "two\nlines");
    assert_int_equal(d.column[2].code[3], -1);
    assert_int_equal(d.target_kind, BL_VALUES);
    assert_true(bl_f64(&d.target)[3] == -30);
    assert_string_equal(d.example[1], "t.csv:4");
    assert_string_equal(d.example[2], "t.csv:6");
    assert_non_null(strstr(d.notes, "column \"same\" is left out: it is the same in every row"));
    assert_non_null(strstr(d.notes, "column \"id\" is left out"));
    bl_dataset_free(&d);
    ok(read_csv(",t,y\n0,1,5.5\n1,2,6\n2,3,7\n", &(bl_data_options){.target = "y"}, &d));
    assert_int_equal(d.columns,
                     1); /* a nameless index is left out, 1, 2, 3 of a named column not */
    assert_string_equal(d.column[0].name, "t");
    bl_dataset_free(&d);
    ok(read_csv(odd_csv, &(bl_data_options){.target = "price", .keep_columns = true}, &d));
    assert_int_equal(d.columns, 5);
    bl_dataset_free(&d);
}

static void numbers_that_are_read_as_text_are_told(void **state)
{
    (void)state;
    bl_dataset d;
    ok(read_csv("a;b;y\n1,5;x;1.5\n2,5;x;2\n2,5;z;3\n", &(bl_data_options){.target = "y"}, &d));
    assert_non_null(strstr(d.notes, "column \"a\" is read as text; numbers such as 3,5 and 1,200 "
                                    "must be written 3.5 and 1200\n"));
    assert_null(strstr(d.notes, "\"b\""));
    bl_dataset_free(&d);
    /* Said too of a column that is then left out; a character that is cut is no half character. */
    bl_text text = {0};
    bl_text_add(&text, "a,b,y\n");
    for (int i = 0; i < 20; i++)
        bl_text_add(&text, i == 9 ? "%s,%d,1.5\n" : "%.0s%d,%d,2\n",
                    "123456789012345678901234567890123456789\xc3\xa4", i, i % 3);
    ok(read_csv(text.at, &(bl_data_options){.target = "y"}, &d));
    assert_non_null(strstr(
        d.notes, "column \"a\": 19 of 20 cells are numbers, but it is read as text because "
                 "of \"123456789012345678901234567890123456789?\" (t.csv:11)\n"
                 "column \"a\" is left out: its text differs in every row, as an id does\n"));
    bl_dataset_free(&d);
    bl_text_free(&text);
}

static void malformed_csv_names_line_and_expectation(void **state)
{
    (void)state;
    static const struct {
        const char *text, *target, *columns;
        bl_status status;
        const char *words;
    } bad[] = {
        {"", "y", NULL, BL_INVALID, "the file is empty"},
        {"a,y\n", "y", NULL, BL_INVALID, "no rows"},
        {"a,y\n1,2\n\n3\n", "y", NULL, BL_INVALID, "t.csv:4: 1 fields, but the header has 2"},
        {"a,a\n1,2\n", "a", NULL, BL_INVALID, "columns 1 and 2 are both named \"a\""},
        {"a,price\n1,2\n", "prise", NULL, BL_NOT_FOUND, "did you mean \"price\"?"},
        {"a,y\n1,2\n", "zzzzz", NULL, BL_NOT_FOUND, "the columns are a, y"},
        {"a,y\n1,2\n2,\n", "y", NULL, BL_INVALID, "t.csv:3: the target \"y\" is missing"},
        {"a,y\n1,2.5\n-nan,3\n3,4\n", "y", "a=numeric", BL_INVALID, "column \"a\" is \"-nan\""},
        {"a,y\n1,1\n2,2\n3,3\n4,4\n5,5\n6,6\n7,7\n8,8\n9,9\n8,o\n", "y", NULL, BL_INVALID,
         "t.csv:11: the target \"y\" is \"o\", but nearly all others are numbers"},
        {"a,y\n1,2\n2,nan\n", "y", NULL, BL_INVALID, "t.csv:3: the target"},
        {"a,y\n1,2.5\n2,inf\n3,4\n", "y", NULL, BL_INVALID, "t.csv:3: column \"y\" is inf"},
        {"a,y\n\"1,2\n2,3\n", "y", NULL, BL_INVALID, "t.csv:2: the quote opened"},
        {"a,y\n1\"5,2\n", "y", NULL, BL_INVALID, "t.csv:2: a stray quote"},
        {"a,y\n1,2\n\xff,3\n", "y", NULL, BL_INVALID, "t.csv:3: not UTF-8"},
        {"a,y\n1,2\nx,3\n", "y", "a=numeric", BL_INVALID, "t.csv:3: column \"a\" is \"x\""},
        {"a,y\n1,2\n3,3\n", "y", "b=numeric", BL_NOT_FOUND, "no column \"b\""},
        {"a,y\n1,2\n3,3\n", "y", "a=number", BL_INVALID, "NAME=numeric"},
        {"a,y\n1,2\n1,3\n", "y", NULL, BL_INVALID, "no column is left"},
    };
    bl_dataset d;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_error(
            read_csv(bad[i].text,
                     &(bl_data_options){.target = bad[i].target, .columns = bad[i].columns}, &d),
            bad[i].status, bad[i].words);
    expect_error(read_csv("a,y\n1,2.5\nx,b\n3,9\n",
                          &(bl_data_options){.target = "y", .target_kind = BL_VALUES}, &d),
                 BL_INVALID, "t.csv:3: column \"y\" is \"b\", not a number");
}

static void the_target_decides_between_classes_and_values(void **state)
{
    (void)state;
    bl_dataset d;
    ok(read_csv("a;y\n1;10\n2;2\n5;2\n4;10\n", &(bl_data_options){.target = "y"}, &d));
    assert_int_equal(d.target_kind, BL_CLASSES);
    assert_string_equal(d.class_name[0], "2"); /* numbers in order: 2 before 10 */
    assert_int_equal(bl_i32(&d.target)[0], 1);
    bl_dataset_free(&d);
    ok(read_csv("a\ty\n1\t10\n2\t2\n5\t2\n4\t10\n",
                &(bl_data_options){.target = "y", .target_kind = BL_VALUES}, &d));
    assert_int_equal(d.target_kind, BL_VALUES);
    bl_dataset_free(&d);
    ok(read_csv("a,y\n1,1\n2,2\n5,3\n4,4\n", &(bl_data_options){.target = "y"}, &d));
    assert_int_equal(d.target_kind, BL_VALUES); /* every value once */
    bl_dataset_free(&d);
    ok(read_csv("a,y\n1,b\n2,a\n5,3\n4,a\n",
                &(bl_data_options){.target = "y", .columns = "a=categorical"}, &d));
    assert_int_equal(d.classes, 3);
    assert_int_equal(d.column[0].kind, BL_CATEGORICAL);
    bl_dataset_free(&d);
}

static void a_test_file_follows_the_training_file(void **state)
{
    (void)state;
    bl_dataset d;
    const char *test = file("test.csv", "y,a\nno,7\nmaybe,8\n");
    ok(read_csv("a,y\n1,yes\n2,no\n5,yes\n", &(bl_data_options){.target = "y", .test = test}, &d));
    assert_int_equal(d.count, 5);
    assert_int_equal(d.test_count, 2);
    assert_true(d.column[0].number[3] == 7);
    assert_int_equal(d.classes, 3);
    assert_string_equal(d.example[4], "test.csv:3");
    bl_dataset_free(&d);
    file("test.csv", "y,b\nno,7\n");
    expect_error(
        read_csv("a,y\n1,yes\n2,no\n5,yes\n", &(bl_data_options){.target = "y", .test = test}, &d),
        BL_NOT_FOUND, "no column \"a\", which the training file has");
}

static void results_are_added_to_a_csv(void **state)
{
    (void)state;
    const char *names[] = {"guess"}, *cells[] = {"7", "8,5"};
    ok(bl_csv_add_columns(file("t.csv", "a,\"b,c\"\n1,\"x \"\"y\"\"\"\n2,\n"), in_folder("out.csv"),
                          names, 1, cells, 2));
    char *bytes;
    size_t count;
    ok(bl_read_file(in_folder("out.csv"), &bytes, &count));
    assert_string_equal(bytes, "a,\"b,c\",guess\n1,\"x \"\"y\"\"\",7\n2,,\"8,5\"\n");
    bl_release(bytes);
    expect_error(bl_csv_add_columns(in_folder("t.csv"), in_folder("out.csv"), names, 1, cells, 1),
                 BL_INVALID, "has 2 rows, but 1 results");
}

static void idx_files_find_their_labels(void **state)
{
    (void)state;
    const char images[] = "\0\0\x08\x03\0\0\0\x03\0\0\0\x01\0\0\0\x02\x01\x02\x03\x04\x05\x06";
    const char labels[] = "\0\0\x08\x01\0\0\0\x03\x01\0\x01";
    const char *path = in_folder("my-images-idx3-ubyte");
    ok(bl_write_file(path, images, sizeof images - 1));
    bl_dataset d;
    expect_error(bl_dataset_open(path, NULL, &d), BL_NOT_FOUND, "my-labels-idx1-ubyte");
    ok(bl_dataset_open(path, &(bl_data_options){.target_kind = BL_NO_TARGET}, &d));
    assert_int_equal(d.target_kind, BL_NO_TARGET);
    bl_dataset_free(&d);
    ok(bl_write_file(in_folder("my-labels-idx1-ubyte"), labels, sizeof labels - 1));
    ok(bl_dataset_open(path, NULL, &d));
    assert_int_equal(d.count, 3);
    assert_int_equal(bl_u8(&d.inputs)[4], 5);
    assert_int_equal(bl_i32(&d.target)[2], 1);
    bl_dataset_free(&d);
    ok(bl_write_file(path, images, sizeof images - 2));
    expect_error(bl_dataset_open(path, NULL, &d), BL_INVALID,
                 "header says u8[3,1,2], but 5 bytes follow");
    ok(bl_write_file(path, "\0\0\x08\x03\xca\xc4\xc4\xca\xc4\xc4\xc4\x10\0\0\0\0", 16));
    expect_error(bl_dataset_open(path, NULL, &d), BL_INVALID, "my-images-idx3-ubyte: array: u8[");
    ok(bl_write_file(path, "\0\0\x0d\x03", 4));
    expect_error(bl_dataset_open(path, NULL, &d), BL_UNSUPPORTED, "0x0d");
    ok(bl_write_file(path, "\x1f\x8b\x08\0\0\0\0\0\0\3", 10));
    expect_error(bl_dataset_open(path, NULL, &d), BL_INVALID, "cut off");
}

static void write_npy(const char *name, const char *type, const char *shape, const void *data,
                      size_t count)
{
    char header[128], bytes[512] = "\x93NUMPY\x01";
    snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n",
             type, shape);
    bytes[8] = (char)strlen(header);
    memcpy(bytes + 10, header, strlen(header));
    memcpy(bytes + 10 + strlen(header), data, count);
    ok(bl_write_file(in_folder(name), bytes, 10 + strlen(header) + count));
}

static void npy_folders_have_parts(void **state)
{
    (void)state;
    bl_dataset d;
    const double x[] = {1, 2, 3, 4, 5, 6};
    const int64_t y[] = {0, 2, 1};
    mkdir(in_folder("npy"), 0777);
    write_npy("npy/x.npy", "<f8", "(3, 2)", x, sizeof x);
    write_npy("npy/y.npy", "<i8", "(3,)", y, sizeof y);
    ok(bl_dataset_open(in_folder("npy"), NULL, &d));
    assert_int_equal(d.kind, BL_MATRIX);
    assert_true(bl_f32(&d.inputs)[3] == 4);
    assert_int_equal(bl_i32(&d.target)[1], 2);
    assert_int_equal(d.classes, 3);
    uint64_t hash = d.hash;
    bl_dataset_free(&d);
    write_npy("npy/x_test.npy", "<f8", "(1, 2)", x, 16);
    expect_error(bl_dataset_open(in_folder("npy"), NULL, &d), BL_NOT_FOUND, "belong together");
    write_npy("npy/y_test.npy", "<i8", "(1,)", y, 8);
    ok(bl_dataset_open(in_folder("npy"), NULL, &d));
    assert_int_equal(d.count, 4);
    assert_int_equal(d.test_count, 1);
    assert_true(d.hash != hash);
    bl_dataset_free(&d);
    write_npy("i.npy", "|u1", "(3, 1, 2)", "abcdef", 6);
    write_npy("v.npy", "<f8", "(3,)", x, 24);
    ok(bl_dataset_open(in_folder("i.npy"), &(bl_data_options){.labels = in_folder("v.npy")}, &d));
    assert_int_equal(d.kind, BL_IMAGES);
    assert_int_equal(d.target_kind, BL_VALUES);
    bl_dataset_free(&d);
    const double odd[] = {1, NAN};
    write_npy("n.npy", "<f8", "(2, 1)", odd, 16);
    expect_error(bl_dataset_open(in_folder("n.npy"), NULL, &d), BL_INVALID, "row 1, feature 0");
    write_npy("n.npy", ">f8", "(2, 1)", odd, 16);
    expect_error(bl_dataset_open(in_folder("n.npy"), NULL, &d), BL_UNSUPPORTED, ">f8");
    write_npy("n.npy", "<f8", "(4611686018427387904, 4)", odd, 16);
    expect_error(bl_dataset_open(in_folder("n.npy"), NULL, &d), BL_INVALID, "bytes follow");
}

/* --- image folders */

static void write_png(const char *name, uint32_t width, bool colour, uint8_t value)
{
    uint8_t pixels[64];
    memset(pixels, value, sizeof pixels);
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = width,
                       .height = 2,
                       .format = colour ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY};
    assert_true(png_image_write_to_file(&image, in_folder(name), 0, pixels, 0, NULL));
}

static void write_jpeg(const char *name, uint8_t value)
{
    struct jpeg_compress_struct jpeg = {0};
    struct jpeg_error_mgr errors;
    uint8_t pixels[3] = {value, value, value};
    JSAMPROW row = pixels;
    FILE *f = fopen(in_folder(name), "wb");
    assert_non_null(f);
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_stdio_dest(&jpeg, f);
    jpeg.image_width = 3, jpeg.image_height = 2;
    jpeg.input_components = 1, jpeg.in_color_space = JCS_GRAYSCALE;
    jpeg_set_defaults(&jpeg);
    jpeg_start_compress(&jpeg, TRUE);
    jpeg_write_scanlines(&jpeg, &row, 1);
    jpeg_write_scanlines(&jpeg, &row, 1);
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    fclose(f);
}

static void folders_of_images_are_classes(void **state)
{
    (void)state;
    bl_dataset d;
    mkdir(in_folder("pets"), 0777);
    mkdir(in_folder("pets/dog"), 0777);
    mkdir(in_folder("pets/cat"), 0777);
    expect_error(bl_dataset_open(in_folder("pets"), NULL, &d), BL_INVALID, "no data found");
    write_png("pets/cat/2.png", 3, false, 20);
    write_png("pets/cat/1.PNG", 3, false, 10);
    write_jpeg("pets/dog/a.jpg", 200);
    file("pets/dog/notes.txt", "hello");
    ok(bl_dataset_open(in_folder("pets"), NULL, &d));
    assert_int_equal(d.count, 3);
    assert_int_equal(d.inputs.type.shape.dim[3], 1);
    assert_string_equal(d.class_name[0], "cat");
    assert_string_equal(d.example[0], "cat/1.PNG");
    assert_int_equal(bl_u8(&d.inputs)[0], 10);
    assert_int_equal(bl_u8(&d.inputs)[6], 20);
    assert_true(abs(bl_u8(&d.inputs)[12] - 200) <= 1);
    assert_int_equal(bl_i32(&d.target)[2], 1);
    assert_non_null(strstr(d.notes, "1 files that are not images"));
    bl_dataset_free(&d);
    write_png("pets/dog/b.png", 3, true, 30);
    ok(bl_dataset_open(in_folder("pets"), NULL, &d));
    assert_int_equal(d.inputs.type.shape.dim[3], 3); /* one in colour: all in colour */
    assert_int_equal(bl_u8(&d.inputs)[17], 10);
    bl_dataset_free(&d);
    write_png("pets/dog/c.png", 4, true, 30);
    expect_error(bl_dataset_open(in_folder("pets"), NULL, &d), BL_INVALID,
                 "dog/c.png: 4x2 pixels, but the images before it have 3x2");
    file("pets/dog/c.png", "\x89PNG\r\n\x1a\n broken");
    expect_error(bl_dataset_open(in_folder("pets"), NULL, &d), BL_INVALID,
                 "dog/c.png: not a readable PNG");
    unlink(in_folder("pets/dog/c.png"));
    write_png("pets/c.png", 3, true, 30);
    expect_error(bl_dataset_open(in_folder("pets"), NULL, &d), BL_INVALID,
                 "\"c.png\" lies beside the class folders");
    ok(bl_dataset_open(in_folder("pets/c.png"), NULL, &d));
    assert_int_equal(d.target_kind, BL_NO_TARGET);
    assert_int_equal(d.count, 1);
    bl_dataset_free(&d);
    ok(bl_dataset_open(in_folder("pets/cat"), NULL, &d));
    assert_int_equal(d.target_kind, BL_NO_TARGET);
    assert_int_equal(d.count, 2);
    bl_dataset_free(&d);
    unlink(in_folder("pets/c.png"));
    file("pets/dog/d.jpg", "\xff\xd8\xff\xe0 broken");
    expect_error(bl_dataset_open(in_folder("pets"), NULL, &d), BL_INVALID,
                 "dog/d.jpg: not a readable JPEG");
}

static void train_and_test_folders_are_parts(void **state)
{
    (void)state;
    static const char *const folders[] = {"p",         "p/train", "p/train/a",
                                          "p/train/b", "p/test",  "p/test/b"};
    bl_dataset d;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        mkdir(in_folder(folders[i]), 0777);
    write_png("p/train/a/1.png", 2, false, 1);
    write_png("p/train/b/1.png", 2, false, 2);
    write_png("p/test/b/1.png", 2, false, 3);
    ok(bl_dataset_open(in_folder("p"), NULL, &d));
    assert_int_equal(d.count, 3);
    assert_int_equal(d.test_count, 1);
    assert_int_equal(bl_i32(&d.target)[2], 1);
    bl_dataset_free(&d);
    mkdir(in_folder("p/test/c"), 0777);
    write_png("p/test/c/1.png", 2, false, 3);
    expect_error(bl_dataset_open(in_folder("p"), NULL, &d), BL_INVALID, "no class \"c\" to train");
}

int main(void)
{
    if (!mkdtemp(folder))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digits_are_the_known_digits),
        cmocka_unit_test(fashion_mnist_is_read_or_its_package_named),
        cmocka_unit_test(unknown_names_are_answered_with_the_nearest),
        cmocka_unit_test(an_odd_csv_is_read_as_meant),
        cmocka_unit_test(numbers_that_are_read_as_text_are_told),
        cmocka_unit_test(malformed_csv_names_line_and_expectation),
        cmocka_unit_test(the_target_decides_between_classes_and_values),
        cmocka_unit_test(a_test_file_follows_the_training_file),
        cmocka_unit_test(results_are_added_to_a_csv),
        cmocka_unit_test(idx_files_find_their_labels),
        cmocka_unit_test(npy_folders_have_parts),
        cmocka_unit_test(folders_of_images_are_classes),
        cmocka_unit_test(train_and_test_folders_are_parts),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) == 0 ? failures : 1;
}
