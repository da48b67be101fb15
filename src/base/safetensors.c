/* Dictionaries of named arrays, and their file format, safetensors: eight bytes of header length,
 * a JSON header {"name": {"dtype", "shape", "data_offsets"}, "__metadata__": {text: text}}, then
 * the arrays, without gaps or overlaps.
 *
 * Reading trusts nothing: every number in the header is checked before it is used. One more
 * element type of the format is a row of `formats`. */
#include "base/base.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* --- dictionary */

bl_array *bl_dictionary_find(const bl_dictionary *d, const char *name)
{
    for (size_t i = 0; i < d->count; i++)
        if (strcmp(d->entry[i].name, name) == 0)
            return &d->entry[i].array;
    return NULL;
}

bl_status bl_dictionary_set(bl_dictionary *d, const char *name, bl_array array)
{
    bl_array *old = bl_dictionary_find(d, name);
    if (old) {
        bl_array_free(old);
        *old = array;
        return BL_OK;
    }
    char *copy = bl_copy_text(name);
    if (!copy || !BL_GROW(d->entry, d->count, d->capacity)) {
        bl_release(copy);
        bl_array_free(&array);
        return bl_no_memory(sizeof *d->entry);
    }
    d->entry[d->count++] = (struct bl_entry){copy, array};
    return BL_OK;
}

static struct bl_note *find_note(const bl_dictionary *d, const char *key)
{
    for (size_t i = 0; i < d->notes; i++)
        if (strcmp(d->note[i].key, key) == 0)
            return &d->note[i];
    return NULL;
}

const char *bl_dictionary_note(const bl_dictionary *d, const char *key)
{
    const struct bl_note *note = find_note(d, key);
    return note ? note->value : NULL;
}

bl_status bl_dictionary_set_note(bl_dictionary *d, const char *key, const char *value)
{
    struct bl_note *old = find_note(d, key);
    char *value_copy = bl_copy_text(value);
    if (!value_copy)
        return bl_no_memory(strlen(value) + 1);
    if (old) {
        bl_release(old->value);
        old->value = value_copy;
        return BL_OK;
    }
    char *key_copy = bl_copy_text(key);
    if (!key_copy || !BL_GROW(d->note, d->notes, d->note_capacity)) {
        bl_release(key_copy);
        bl_release(value_copy);
        return bl_no_memory(sizeof *d->note);
    }
    d->note[d->notes++] = (struct bl_note){key_copy, value_copy};
    return BL_OK;
}

void bl_dictionary_free(bl_dictionary *d)
{
    for (size_t i = 0; i < d->count; i++) {
        bl_release(d->entry[i].name);
        bl_array_free(&d->entry[i].array);
    }
    for (size_t i = 0; i < d->notes; i++) {
        bl_release(d->note[i].key);
        bl_release(d->note[i].value);
    }
    bl_release(d->entry);
    bl_release(d->note);
    *d = (bl_dictionary){0};
}

/* --- element types of the format, and what they become here */

static float from_bfloat16(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static float from_half(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31u;
    uint32_t fraction = bits & 0x3ffu, wide;
    if (exponent == 31) { /* infinity, NaN */
        wide = sign | 0x7f800000u | fraction << 13;
    } else if (exponent > 0) {
        wide = sign | (exponent + 112) << 23 | fraction << 13;
    } else { /* zero, subnormal: fraction * 2^-24 */
        float value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

enum conversion { AS_IS, HALF, BFLOAT, LONG, TRUTH };

static const struct format {
    const char *name;
    size_t size; /* bytes an element in the file */
    bl_dtype dtype;
    enum conversion conversion;
} formats[] = {
    {"F32", 4, BL_F32, AS_IS},   {"F64", 8, BL_F64, AS_IS}, {"I32", 4, BL_I32, AS_IS},
    {"U32", 4, BL_U32, AS_IS},   {"I8", 1, BL_I8, AS_IS},   {"U8", 1, BL_U8, AS_IS},
    {"BOOL", 1, BL_BOOL, TRUTH}, {"F16", 2, BL_F32, HALF},  {"BF16", 2, BL_F32, BFLOAT},
    {"I64", 8, BL_I32, LONG},
};
enum { FORMATS = sizeof formats / sizeof *formats };

static const struct format *find_format(const char *name)
{
    for (int i = 0; i < FORMATS; i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}

static const struct format *format_of(bl_dtype dtype)
{
    for (int i = 0; i < FORMATS; i++)
        if (formats[i].dtype == dtype)
            return &formats[i];
    return NULL;
}

/* Copies `count` elements at `from` into the array, widening or narrowing. */
static bl_status convert(const struct format *format, const char *from, bl_array *to, int64_t count)
{
    for (int64_t i = 0; i < count && format->conversion != AS_IS; i++) {
        uint16_t small;
        int64_t wide;
        const char *at = from + (size_t)i * format->size;
        switch (format->conversion) {
        case HALF:
            memcpy(&small, at, 2), bl_f32(to)[i] = from_half(small);
            break;
        case BFLOAT:
            memcpy(&small, at, 2), bl_f32(to)[i] = from_bfloat16(small);
            break;
        case TRUTH:
            bl_u8(to)[i] = *at != 0;
            break;
        case LONG:
            memcpy(&wide, at, 8);
            if (wide < INT32_MIN || wide > INT32_MAX)
                return bl_fail(BL_INVALID, "element %lld is %lld, which does not fit i32",
                               (long long)i, (long long)wide);
            bl_i32(to)[i] = (int32_t)wide;
            break;
        case AS_IS:
            break;
        }
    }
    if (format->conversion == AS_IS && count > 0)
        memcpy(to->data, from, (size_t)count * format->size);
    return BL_OK;
}

/* --- reading */

/* Where an array lies, for the test that the arrays tile the data exactly. */
struct extent {
    int64_t begin, end;
    const char *name;
};

static int by_begin(const void *a, const void *b)
{
    const struct extent *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static bl_status read_shape(const json_t *sizes, bl_shape *shape)
{
    if (!json_is_array(sizes))
        return bl_fail(BL_INVALID, "\"shape\" must be a list of sizes");
    if (json_array_size(sizes) > BL_MAX_RANK)
        return bl_fail(BL_INVALID, "rank %zu, but at most %d is possible", json_array_size(sizes),
                       BL_MAX_RANK);
    *shape = (bl_shape){.rank = (int)json_array_size(sizes)};
    for (int i = 0; i < shape->rank; i++) {
        const json_t *size = json_array_get(sizes, (size_t)i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return bl_fail(BL_INVALID, "size %d of \"shape\" must be a whole number >= 0", i);
        shape->dim[i] = json_integer_value(size);
    }
    return BL_OK;
}

static bl_status read_extent(const json_t *offsets, int64_t available, struct extent *extent)
{
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return bl_fail(BL_INVALID, "\"data_offsets\" must be two whole numbers");
    extent->begin = json_integer_value(begin), extent->end = json_integer_value(end);
    if (extent->begin < 0 || extent->end < extent->begin || extent->end > available)
        return bl_fail(BL_INVALID,
                       "\"data_offsets\" [%lld,%lld] lie outside the %lld bytes of data",
                       (long long)extent->begin, (long long)extent->end, (long long)available);
    return BL_OK;
}

/* Bytes of `count` elements as the header's shape says; false on overflow. */
static bool shape_bytes(bl_shape shape, size_t size, int64_t *bytes)
{
    int64_t product = (int64_t)size;
    for (int i = 0; i < shape.rank; i++)
        if (__builtin_mul_overflow(product, shape.dim[i], &product))
            return false;
    *bytes = product;
    return true;
}

static bl_status read_array(const json_t *about, const char *data, int64_t available,
                            struct extent *extent, bl_array *out)
{
    const json_t *dtype = json_object_get(about, "dtype");
    if (!json_is_object(about) || json_object_size(about) != 3 || !json_is_string(dtype))
        return bl_fail(BL_INVALID, "must have exactly \"dtype\", \"shape\" and \"data_offsets\"");
    const struct format *format = find_format(json_string_value(dtype));
    if (!format)
        return bl_fail(BL_UNSUPPORTED,
                       "dtype \"%.16s\"; those read are F32 F64 I32 U32 I8 U8 BOOL F16 BF16 I64",
                       json_string_value(dtype));
    bl_shape shape;
    BL_TRY(read_shape(json_object_get(about, "shape"), &shape));
    BL_TRY(read_extent(json_object_get(about, "data_offsets"), available, extent));
    int64_t bytes = 0;
    if (!shape_bytes(shape, format->size, &bytes) || bytes != extent->end - extent->begin)
        return bl_fail(BL_INVALID, "%lld bytes of data do not match the shape",
                       (long long)(extent->end - extent->begin));
    BL_TRY(bl_array_new(format->dtype, shape, out));
    bl_status status = convert(format, data + extent->begin, out, bl_array_count(out));
    if (status != BL_OK)
        bl_array_free(out);
    return status;
}

static bl_status read_notes(const json_t *notes, bl_dictionary *d)
{
    if (!json_is_object(notes))
        return bl_fail(BL_INVALID, "\"__metadata__\" must be an object");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)notes, key, value)
    {
        if (!json_is_string(value))
            return bl_fail(BL_INVALID, "\"__metadata__\": the value of \"%.64s\" must be a text",
                           key);
        BL_TRY(bl_dictionary_set_note(d, key, json_string_value(value)));
    }
    return BL_OK;
}

static bl_status check_tiling(struct extent *extent, size_t count, int64_t available)
{
    if (count > 0)
        qsort(extent, count, sizeof *extent, by_begin);
    int64_t reached = 0;
    for (size_t i = 0; i < count; i++) {
        if (extent[i].begin != reached)
            return bl_fail(BL_INVALID, "array \"%.64s\" begins at byte %lld, but %s ends at %lld",
                           extent[i].name, (long long)extent[i].begin,
                           i ? "the one before it" : "the header", (long long)reached);
        reached = extent[i].end;
    }
    if (reached != available)
        return bl_fail(BL_INVALID, "the arrays end at byte %lld, but there are %lld bytes of data",
                       (long long)reached, (long long)available);
    return BL_OK;
}

static bl_status read_header(const json_t *header, const char *data, int64_t available,
                             struct extent *extent, bl_dictionary *d)
{
    size_t count = 0;
    const char *name;
    json_t *about;
    json_object_foreach((json_t *)header, name, about)
    {
        if (strcmp(name, "__metadata__") == 0) {
            BL_TRY(read_notes(about, d));
            continue;
        }
        bl_array array = {0};
        extent[count].name = name;
        bl_status status = read_array(about, data, available, &extent[count++], &array);
        if (status != BL_OK)
            return bl_fail_in(status, "array \"%.64s\"", name);
        BL_TRY(bl_dictionary_set(d, name, array));
    }
    return check_tiling(extent, count, available);
}

static bl_status parse(const char *bytes, size_t count, bl_dictionary *out)
{
    if (count < 8)
        return bl_fail(BL_INVALID, "%zu bytes are too few for a safetensors file", count);
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | (unsigned char)bytes[i];
    if (length > count - 8)
        return bl_fail(BL_INVALID, "the header should have %llu bytes, but %zu are left",
                       (unsigned long long)length, count - 8);
    json_error_t error;
    json_t *header = json_loadb(bytes + 8, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!header)
        return bl_fail(BL_INVALID, "header, byte %d: %s", error.position, error.text);
    bl_status status = BL_INVALID;
    struct extent *extent = NULL;
    if (!json_is_object(header))
        bl_fail(BL_INVALID, "the header must be a JSON object");
    else if (!(extent = bl_alloc((json_object_size(header) + 1) * sizeof *extent)))
        status = bl_no_memory(json_object_size(header) * sizeof *extent);
    else
        status =
            read_header(header, bytes + 8 + length, (int64_t)(count - 8 - length), extent, out);
    bl_release(extent);
    json_decref(header);
    return status;
}

bl_status bl_safetensors_parse(const char *bytes, size_t count, const char *where,
                               bl_dictionary *out)
{
    *out = (bl_dictionary){0};
    bl_status status = parse(bytes, count, out);
    if (status == BL_OK)
        return BL_OK;
    bl_dictionary_free(out);
    return bl_fail_in(status, "%s", where);
}

bl_status bl_safetensors_read(const char *path, bl_dictionary *out)
{
    *out = (bl_dictionary){0};
    char *bytes = NULL;
    size_t count = 0;
    BL_TRY(bl_read_file(path, &bytes, &count));
    bl_status status = bl_safetensors_parse(bytes, count, path, out);
    bl_release(bytes);
    return status;
}

/* --- writing: wider elements first, so that every array is aligned; then by name */

static int by_width_and_name(const void *a, const void *b)
{
    const struct bl_entry *x = *(const struct bl_entry *const *)a;
    const struct bl_entry *y = *(const struct bl_entry *const *)b;
    size_t width_x = bl_dtype_size(x->array.type.dtype),
           width_y = bl_dtype_size(y->array.type.dtype);
    if (width_x != width_y)
        return width_x > width_y ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp((*(const struct bl_note *const *)a)->key,
                  (*(const struct bl_note *const *)b)->key);
}

static bool add_notes(json_t *header, const bl_dictionary *d)
{
    const struct bl_note **sorted = bl_alloc(d->notes * sizeof *sorted);
    json_t *notes = json_object();
    bool added = sorted && notes && json_object_set(header, "__metadata__", notes) == 0;
    for (size_t i = 0; added && i < d->notes; i++)
        sorted[i] = &d->note[i];
    if (added)
        qsort(sorted, d->notes, sizeof *sorted, by_key);
    for (size_t i = 0; added && i < d->notes; i++)
        added = json_object_set_new(notes, sorted[i]->key, json_string(sorted[i]->value)) == 0;
    json_decref(notes);
    bl_release(sorted);
    return added;
}

static bool add_array(json_t *header, const struct bl_entry *entry, int64_t *offset)
{
    json_t *sizes = json_array();
    for (int i = 0; sizes && i < entry->array.type.shape.rank; i++)
        json_array_append_new(sizes, json_integer(entry->array.type.shape.dim[i]));
    int64_t end = *offset + (int64_t)bl_type_bytes(entry->array.type);
    json_t *about =
        json_pack("{s:s, s:o, s:[I,I]}", "dtype", format_of(entry->array.type.dtype)->name, "shape",
                  sizes, "data_offsets", (json_int_t)*offset, (json_int_t)end);
    *offset = end;
    return json_object_set_new(header, entry->name, about) == 0;
}

/* The header's text, padded with blanks so that the data begin at a multiple of 64 bytes. */
static char *header_text(const bl_dictionary *d, const struct bl_entry **sorted, size_t *length)
{
    json_t *header = json_object();
    bool made = header && (d->notes == 0 || add_notes(header, d));
    int64_t offset = 0;
    for (size_t i = 0; made && i < d->count; i++)
        made = add_array(header, sorted[i], &offset);
    char *text = made ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    if (!text)
        return NULL;
    bl_text padded = {0};
    bl_text_add_n(&padded, text, strlen(text));
    free(text);
    while (!padded.failed && (padded.length + 8) % 64 != 0)
        bl_text_add_n(&padded, " ", 1);
    if (padded.failed)
        bl_text_free(&padded);
    *length = padded.length;
    return padded.at;
}

static bl_status check_names(const bl_dictionary *d)
{
    for (size_t i = 0; i < d->count; i++)
        if (strcmp(d->entry[i].name, "__metadata__") == 0)
            return bl_fail(BL_INVALID, "an array may not be named __metadata__");
    return BL_OK;
}

bl_status bl_safetensors_write(const char *path, const bl_dictionary *d)
{
    BL_TRY(check_names(d));
    const struct bl_entry **sorted = bl_alloc(d->count * sizeof *sorted);
    bl_piece *piece = bl_alloc((d->count + 2) * sizeof *piece);
    size_t length = 0;
    char *header = NULL;
    for (size_t i = 0; sorted && i < d->count; i++)
        sorted[i] = &d->entry[i];
    if (sorted && d->count > 0)
        qsort(sorted, d->count, sizeof *sorted, by_width_and_name);
    bl_status status = BL_OK;
    if (!sorted || !piece || !(header = header_text(d, sorted, &length))) {
        status = bl_fail(BL_NO_MEMORY,
                         "%s: the header cannot be made: memory is short, or a name "
                         "is not UTF-8",
                         path);
    } else {
        unsigned char size[8];
        for (int i = 0; i < 8; i++)
            size[i] = (unsigned char)(length >> 8 * i);
        piece[0] = (bl_piece){size, 8};
        piece[1] = (bl_piece){header, length};
        for (size_t i = 0; i < d->count; i++)
            piece[i + 2] = (bl_piece){sorted[i]->array.data, bl_type_bytes(sorted[i]->array.type)};
        status = bl_write_pieces(path, piece, d->count + 2);
    }
    bl_release(header);
    bl_release(piece);
    bl_release(sorted);
    return status;
}
