/* NPY files: "\x93NUMPY", two version bytes, the length of a header, the header, which is a Python
 * dictionary {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }, and the elements.
 * One more element type is a row of `types`. */
#include "data/dataset.h"

#include <ctype.h>
#include <string.h>

static const struct type {
    const char *name;
    size_t size;
    bl_dtype dtype; /* "<i8" is narrowed to i32, where it fits */
} types[] = {
    {"<f4", 4, BL_F32}, {"<f8", 8, BL_F64}, {"<i4", 4, BL_I32},
    {"<i8", 8, BL_I32}, {"|u1", 1, BL_U8},
};

static const struct type *find_type(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (length == 3 && memcmp(types[i].name, name, 3) == 0)
            return &types[i];
    return NULL;
}

struct header {
    const struct type *type;
    bool fortran_order;
    bl_shape shape;
};

/* A reader of the header's text, which ends in a zero byte. */
static void skip_blanks(const char **at)
{
    while (isspace((unsigned char)**at))
        (*at)++;
}

static bool accept(const char **at, const char *word)
{
    skip_blanks(at);
    size_t length = strlen(word);
    if (strncmp(*at, word, length) != 0)
        return false;
    *at += length;
    return true;
}

static bool read_quoted(const char **at, const char **word, size_t *length)
{
    skip_blanks(at);
    char quote = **at;
    const char *end = quote == '\'' || quote == '"' ? strchr(*at + 1, quote) : NULL;
    if (!end)
        return false;
    *word = *at + 1;
    *length = (size_t)(end - *word);
    *at = end + 1;
    return true;
}

static bool read_shape(const char **at, bl_shape *shape)
{
    *shape = (bl_shape){0};
    if (!accept(at, "("))
        return false;
    while (!accept(at, ")")) {
        skip_blanks(at);
        if (!isdigit((unsigned char)**at) || shape->rank >= BL_MAX_RANK)
            return false;
        int64_t size = 0;
        for (; isdigit((unsigned char)**at); (*at)++)
            if (__builtin_mul_overflow(size, 10, &size) ||
                __builtin_add_overflow(size, **at - '0', &size))
                return false;
        shape->dim[shape->rank++] = size;
        if (!accept(at, ",") && !accept(at, ")"))
            return false;
        else if ((*at)[-1] == ')')
            return true;
    }
    return true;
}

static bl_status read_field(const char **at, const char *where, struct header *h)
{
    const char *key, *value;
    size_t length, value_length;
    if (!read_quoted(at, &key, &length) || !accept(at, ":"))
        return bl_fail(BL_INVALID, "%s: the NPY header is not a dictionary of names", where);
    if (length == 5 && memcmp(key, "descr", 5) == 0) {
        if (!read_quoted(at, &value, &value_length))
            return bl_fail(BL_UNSUPPORTED, "%s: NPY records are not read", where);
        if (!(h->type = find_type(value, value_length)))
            return bl_fail(BL_UNSUPPORTED,
                           "%s: NPY element type %.*s; those read are <f4 <f8 <i4 <i8 |u1", where,
                           (int)(value_length < 16 ? value_length : 16), value);
        return BL_OK;
    }
    if (length == 13 && memcmp(key, "fortran_order", 13) == 0) {
        h->fortran_order = accept(at, "True");
        if (h->fortran_order || accept(at, "False"))
            return BL_OK;
    }
    if (length == 5 && memcmp(key, "shape", 5) == 0 && read_shape(at, &h->shape))
        return BL_OK;
    return bl_fail(BL_INVALID, "%s: the NPY header has a bad entry \"%.*s\"", where,
                   (int)(length < 32 ? length : 32), key);
}

static bl_status read_header(const char *text, const char *where, struct header *h)
{
    *h = (struct header){0};
    const char *at = text;
    int fields = 0;
    if (!accept(&at, "{"))
        return bl_fail(BL_INVALID, "%s: the NPY header must begin with {", where);
    for (; !accept(&at, "}"); fields++) {
        if (fields >= 3)
            return bl_fail(BL_INVALID, "%s: the NPY header has more than three entries", where);
        BL_TRY(read_field(&at, where, h));
        accept(&at, ",");
    }
    if (fields != 3 || !h->type)
        return bl_fail(BL_INVALID, "%s: the NPY header needs descr, fortran_order and shape",
                       where);
    if (h->fortran_order && h->shape.rank > 1)
        return bl_fail(BL_UNSUPPORTED, "%s: Fortran order; save it with numpy.ascontiguousarray(x)",
                       where);
    return BL_OK;
}

static bl_status copy_elements(const struct header *h, const char *from, const char *where,
                               bl_array *out)
{
    bl_status status = bl_array_new(h->type->dtype, h->shape, out);
    if (status != BL_OK)
        return bl_fail_in(status, "%s", where);
    int64_t count = bl_array_count(out);
    if (h->type->size == bl_dtype_size(h->type->dtype)) {
        if (count > 0)
            memcpy(out->data, from, bl_type_bytes(out->type));
        return BL_OK;
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t wide;
        memcpy(&wide, from + 8 * i, 8);
        if (wide < INT32_MIN || wide > INT32_MAX) {
            bl_array_free(out);
            return bl_fail(BL_UNSUPPORTED, "%s: element %lld is %lld, beyond 32 bits", where,
                           (long long)i, (long long)wide);
        }
        bl_i32(out)[i] = (int32_t)wide;
    }
    return BL_OK;
}

static bl_status parse_body(const char *bytes, size_t count, size_t prefix, size_t length,
                            const char *where, bl_array *out)
{
    char *text = bl_format("%.*s", (int)length, bytes + prefix);
    if (!text)
        return bl_no_memory(length);
    struct header h;
    bl_status status = read_header(text, where, &h);
    bl_release(text);
    if (status != BL_OK)
        return status;
    int64_t expected = (int64_t)h.type->size;
    bool large = false;
    for (int i = 0; i < h.shape.rank; i++)
        large |= __builtin_mul_overflow(expected, h.shape.dim[i], &expected);
    size_t body = count - prefix - length;
    char shown[BL_TYPE_TEXT];
    if (large || (size_t)expected != body)
        return bl_fail(BL_INVALID, "%s: the header says %s, but %zu bytes follow it", where,
                       bl_type_text((bl_type){h.type->dtype, h.shape}, shown), body);
    return copy_elements(&h, bytes + prefix + length, where, out);
}

bl_status bl_npy_parse(const char *bytes, size_t count, const char *where, bl_array *out)
{
    const unsigned char *b = (const unsigned char *)bytes;
    *out = (bl_array){0};
    if (count < 12 || memcmp(bytes, "\x93NUMPY", 6) != 0)
        return bl_fail(BL_INVALID, "%s: not an NPY file", where);
    if (b[6] < 1 || b[6] > 3)
        return bl_fail(BL_UNSUPPORTED, "%s: NPY version %d; 1 to 3 are read", where, b[6]);
    size_t prefix = b[6] == 1 ? 10 : 12, length = (size_t)b[8] | (size_t)b[9] << 8;
    if (b[6] > 1)
        length |= (size_t)b[10] << 16 | (size_t)b[11] << 24;
    if (length > count - prefix || length > 65536)
        return bl_fail(BL_INVALID, "%s: an NPY header of %zu bytes in a file of %zu", where, length,
                       count);
    return parse_body(bytes, count, prefix, length, where, out);
}

static bl_status read_array(const char *path, bl_array *out)
{
    char *bytes = NULL;
    size_t count = 0;
    *out = (bl_array){0};
    BL_TRY(bl_read_file(path, &bytes, &count));
    bl_status status = bl_npy_parse(bytes, count, path, out);
    bl_release(bytes);
    return status;
}

/* Reads x and, where there is a path, y; with a test part behind both, where there is one. */
static bl_status read_arrays(const char *const path[4], bl_array array[4])
{
    for (int i = 0; i < 4; i++)
        if (path[i])
            BL_TRY(read_array(path[i], &array[i]));
    for (int i = 0; i < 2; i++)
        if (path[i] && path[i + 2])
            BL_TRY(bl_array_append(&array[i], &array[i + 2], path[i + 2]));
    return BL_OK;
}

static bl_status read_parts(const char *const path[4], const bl_data_options *options,
                            bl_dataset *d)
{
    bl_array array[4] = {0};
    bl_status status = read_arrays(path, array);
    if (status == BL_OK && path[2])
        d->test_count = array[2].type.shape.rank > 0 ? array[2].type.shape.dim[0] : 0;
    if (status == BL_OK) {
        status = bl_dataset_set_inputs(d, array[0], path[0]);
        array[0] = (bl_array){0};
    }
    if (status == BL_OK && path[1])
        status = bl_dataset_set_labels(d, &array[1], options->target_kind, path[1]);
    for (int i = 0; i < 4; i++)
        bl_array_free(&array[i]);
    return status;
}

bl_status bl_read_npy_file(const char *path, const bl_data_options *options, bl_dataset *d)
{
    if (options->test)
        return bl_fail(BL_UNSUPPORTED,
                       "%s: for a test part, put x.npy, y.npy, x_test.npy and y_test.npy into a "
                       "folder and give the folder",
                       path);
    return read_parts((const char *const[4]){path, options->labels}, options, d);
}

bl_status bl_read_npy_folder(const char *path, const bl_data_options *options, bl_dataset *d)
{
    static const char *const names[4] = {"x.npy", "y.npy", "x_test.npy", "y_test.npy"};
    char *file[4] = {0};
    bl_status status = BL_OK;
    if (options->test)
        return bl_fail(BL_UNSUPPORTED, "%s: its test part is x_test.npy and y_test.npy", path);
    for (int i = 0; i < 4 && status == BL_OK; i++) {
        if (!(file[i] = bl_format("%s/%s", path, names[i]))) {
            status = bl_no_memory(strlen(path));
        } else if (!bl_is_file(file[i])) {
            bl_release(file[i]);
            file[i] = NULL;
        }
    }
    if (status == BL_OK && file[1] && (!file[2] != !file[3]))
        status = bl_fail(BL_NOT_FOUND, "%s: x_test.npy and y_test.npy belong together", path);
    if (status == BL_OK)
        status = read_parts((const char *const *)file, options, d);
    for (int i = 0; i < 4; i++)
        bl_release(file[i]);
    return status;
}
