/* Data sets in memory: building, checking, hashing, freeing. Readers are in read/. */
#include "data/dataset.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { MOST_CLASSES = 65536 };

void bl_free_texts(char **texts, int64_t count)
{
    for (int64_t i = 0; texts && i < count; i++)
        bl_release(texts[i]);
    bl_release(texts);
}

void bl_dataset_free(bl_dataset *d)
{
    for (int32_t i = 0; d->column && i < d->columns; i++) {
        bl_column *c = &d->column[i];
        bl_release(c->name);
        bl_release(c->number);
        bl_release(c->code);
        bl_free_texts(c->category, c->categories);
    }
    bl_release(d->column);
    bl_array_free(&d->inputs);
    bl_array_free(&d->target);
    bl_free_texts(d->class_name, d->classes);
    bl_free_texts(d->example, d->count);
    bl_release(d->name);
    bl_release(d->source);
    bl_release(d->notes);
    bl_release(d->target_name);
    *d = (bl_dataset){0};
}

bl_status bl_dataset_note(bl_dataset *d, const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    bl_clean_text(line);
    char *notes = bl_format("%s%s\n", d->notes ? d->notes : "", line);
    if (!notes)
        return bl_no_memory(sizeof line);
    bl_release(d->notes);
    d->notes = notes;
    return BL_OK;
}

static bl_status check_finite(const bl_array *a, const char *where)
{
    int64_t count = bl_array_count(a), rows = a->type.shape.dim[0];
    int64_t width = rows > 0 ? count / rows : 1;
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(bl_array_get(a, i)))
            return bl_fail(
                BL_INVALID,
                "%s: row %lld, feature %lld is %g; every feature must be a finite number", where,
                (long long)(i / width), (long long)(i % width), bl_array_get(a, i));
    return BL_OK;
}

/* Any numbers of rank 1 or more as f32 [N,D]. */
static bl_status as_matrix(bl_array *a)
{
    int64_t count = bl_array_count(a), rows = a->type.shape.dim[0];
    bl_array matrix;
    BL_TRY(bl_array_new(BL_F32, BL_SHAPE(rows, rows > 0 ? count / rows : 0), &matrix));
    for (int64_t i = 0; i < count; i++)
        bl_f32(&matrix)[i] = (float)bl_array_get(a, i);
    bl_array_free(a);
    *a = matrix;
    return BL_OK;
}

static bl_status set_inputs(bl_dataset *d, bl_array *a, const char *where)
{
    bl_shape *shape = &a->type.shape;
    char text[BL_TYPE_TEXT];
    if (a->type.dtype == BL_U8 && shape->rank == 3) { /* grey images */
        shape->rank = 4;
        shape->dim[3] = 1;
    }
    bool images = a->type.dtype == BL_U8 && shape->rank == 4;
    if (shape->rank < 1 || shape->dim[0] < 1 || bl_array_count(a) < 1)
        return bl_fail(BL_INVALID, "%s: %s has no examples", where, bl_type_text(a->type, text));
    if (shape->dim[0] > INT32_MAX)
        return bl_fail(BL_UNSUPPORTED, "%s: %lld examples are more than 2^31-1", where,
                       (long long)shape->dim[0]);
    d->kind = images ? BL_IMAGES : BL_MATRIX;
    d->count = shape->dim[0];
    if (images)
        return BL_OK;
    BL_TRY(as_matrix(a));
    return check_finite(a, where);
}

bl_status bl_dataset_set_inputs(bl_dataset *d, bl_array inputs, const char *where)
{
    d->inputs = inputs;
    return set_inputs(d, &d->inputs, where);
}

bl_status bl_dataset_name_classes(bl_dataset *d, const char *const *names, int32_t classes)
{
    d->class_name = bl_alloc((size_t)classes * sizeof *d->class_name);
    if (!d->class_name)
        return bl_no_memory((size_t)classes * sizeof *d->class_name);
    d->classes = classes;
    for (int32_t i = 0; i < classes; i++) {
        d->class_name[i] = names ? bl_copy_text(names[i]) : bl_format("%d", i);
        if (!d->class_name[i])
            return bl_no_memory(16);
    }
    return BL_OK;
}

static bl_status set_classes(bl_dataset *d, const bl_array *labels, const char *where)
{
    BL_TRY(bl_array_new(BL_I32, BL_SHAPE(d->count), &d->target));
    int32_t classes = d->classes;
    for (int64_t i = 0; i < d->count; i++) {
        double label = bl_array_get(labels, i);
        if (!(label >= 0 && label < MOST_CLASSES && label == floor(label)))
            return bl_fail(BL_INVALID,
                           "%s: label %g of example %lld; classes are whole numbers from 0 to %d",
                           where, label, (long long)i, MOST_CLASSES - 1);
        if (d->class_name && label >= d->classes)
            return bl_fail(BL_INVALID, "%s: label %g of example %lld, but there are %d classes",
                           where, label, (long long)i, d->classes);
        bl_i32(&d->target)[i] = (int32_t)label;
        if (label >= classes)
            classes = (int32_t)label + 1;
    }
    d->target_kind = BL_CLASSES;
    return d->class_name ? BL_OK : bl_dataset_name_classes(d, NULL, classes);
}

static bl_status set_values(bl_dataset *d, const bl_array *labels, const char *where)
{
    BL_TRY(bl_array_new(BL_F64, BL_SHAPE(d->count), &d->target));
    for (int64_t i = 0; i < d->count; i++) {
        double value = bl_array_get(labels, i);
        if (!isfinite(value))
            return bl_fail(BL_INVALID, "%s: the target of example %lld is %g; it must be finite",
                           where, (long long)i, value);
        bl_f64(&d->target)[i] = value;
    }
    d->target_kind = BL_VALUES;
    return BL_OK;
}

bl_status bl_dataset_set_labels(bl_dataset *d, const bl_array *labels, bl_target_kind kind,
                                const char *where)
{
    char text[BL_TYPE_TEXT];
    if (bl_array_count(labels) != d->count || labels->type.shape.rank < 1 ||
        labels->type.shape.dim[0] != d->count)
        return bl_fail(BL_INVALID, "%s: labels %s do not match %lld examples", where,
                       bl_type_text(labels->type, text), (long long)d->count);
    if (!(d->target_name = bl_copy_text("label")))
        return bl_no_memory(8);
    if (kind == BL_NO_TARGET) {
        d->target_kind = BL_NO_TARGET;
        return BL_OK;
    }
    bool values =
        kind == BL_VALUES || (kind == BL_INFER_TARGET && bl_dtype_is_float(labels->type.dtype));
    return values ? set_values(d, labels, where) : set_classes(d, labels, where);
}

bl_status bl_array_append(bl_array *a, const bl_array *rows, const char *where)
{
    bl_type a_row = a->type, b_row = rows->type;
    char text_a[BL_TYPE_TEXT], text_b[BL_TYPE_TEXT];
    a_row.shape.dim[0] = b_row.shape.dim[0] = 1;
    if (a_row.shape.rank < 1 || !bl_type_equal(a_row, b_row))
        return bl_fail(BL_INVALID, "%s: the test part is %s, but the training part is %s", where,
                       bl_type_text(rows->type, text_b), bl_type_text(a->type, text_a));
    bl_shape shape = a->type.shape;
    shape.dim[0] += rows->type.shape.dim[0];
    bl_array both;
    BL_TRY(bl_array_new(a->type.dtype, shape, &both));
    size_t first = bl_type_bytes(a->type);
    memcpy(both.data, a->data, first);
    memcpy((char *)both.data + first, rows->data, bl_type_bytes(rows->type));
    bl_array_free(a);
    *a = both;
    return BL_OK;
}

static uint64_t hash_text(const char *text, uint64_t hash)
{
    return bl_hash(text, strlen(text) + 1, hash);
}

static uint64_t hash_array(const bl_array *a, uint64_t hash)
{
    char text[BL_TYPE_TEXT];
    hash = hash_text(bl_type_text(a->type, text), hash);
    return a->data ? bl_hash(a->data, bl_type_bytes(a->type), hash) : hash;
}

static uint64_t hash_dataset(const bl_dataset *d)
{
    uint64_t hash = hash_array(&d->target, hash_array(&d->inputs, 0));
    size_t n = (size_t)d->count;
    for (int32_t i = 0; i < d->columns; i++) {
        const bl_column *c = &d->column[i];
        hash = hash_text(c->name, hash);
        if (c->kind == BL_NUMERIC)
            hash = bl_hash(c->number, n * sizeof *c->number, hash);
        else
            hash = bl_hash(c->code, n * sizeof *c->code, hash);
        for (int32_t j = 0; j < c->categories; j++)
            hash = hash_text(c->category[j], hash);
    }
    for (int32_t i = 0; i < d->classes; i++)
        hash = hash_text(d->class_name[i], hash);
    return bl_hash(&d->test_count, sizeof d->test_count, hash);
}

bl_status bl_dataset_finish(bl_dataset *d)
{
    if (!d->name)
        d->name = bl_copy_text("data");
    if (!d->source)
        d->source = bl_copy_text("");
    if (!d->notes)
        d->notes = bl_copy_text("");
    if (!d->name || !d->source || !d->notes)
        return bl_no_memory(8);
    if (d->target_kind == BL_INFER_TARGET)
        d->target_kind = BL_NO_TARGET;
    if (d->test_count < 0 || d->test_count >= d->count)
        return bl_fail(BL_INVALID, "%s: a test part of %lld of %lld examples leaves none to train",
                       d->name, (long long)d->test_count, (long long)d->count);
    d->hash = hash_dataset(d);
    return BL_OK;
}

bl_status bl_dataset_from_arrays(const char *name, const bl_array *inputs, const bl_array *labels,
                                 int64_t test_count, bl_dataset *out)
{
    *out = (bl_dataset){0};
    bl_array copy;
    BL_TRY(bl_array_copy(inputs, &copy));
    bl_status status = bl_dataset_set_inputs(out, copy, name);
    if (status == BL_OK && labels)
        status = bl_dataset_set_labels(out, labels, BL_INFER_TARGET, name);
    out->test_count = test_count;
    if (status == BL_OK && !(out->name = bl_copy_text(name)))
        status = bl_no_memory(strlen(name));
    if (status == BL_OK)
        status = bl_dataset_finish(out);
    if (status != BL_OK)
        bl_dataset_free(out);
    return status;
}

bl_status bl_dataset_check_rows(const bl_dataset *d, const int32_t *rows, int64_t count)
{
    if (count < 0 || (!rows && count > d->count))
        return bl_fail(BL_INVALID, "%s: %lld rows asked of %lld", d->name, (long long)count,
                       (long long)d->count);
    for (int64_t i = 0; rows && i < count; i++)
        if (rows[i] < 0 || rows[i] >= d->count)
            return bl_fail(BL_INVALID, "%s: row %d, but rows are 0 to %lld", d->name, rows[i],
                           (long long)d->count - 1);
    return BL_OK;
}

char *bl_dataset_summary(const bl_dataset *d)
{
    bl_text text = {0};
    const int64_t *dim = d->inputs.type.shape.dim;
    bl_text_add(&text, "%lld ", (long long)d->count);
    if (d->kind == BL_TABLE)
        bl_text_add(&text, "rows, %d column%s", d->columns, d->columns == 1 ? "" : "s");
    else if (d->kind == BL_IMAGES)
        bl_text_add(&text, "images %lldx%lldx%lld", (long long)dim[1], (long long)dim[2],
                    (long long)dim[3]);
    else
        bl_text_add(&text, "rows, %lld features", (long long)dim[1]);
    if (d->test_count > 0)
        bl_text_add(&text, " (%lld for testing)", (long long)d->test_count);
    if (d->target_kind == BL_CLASSES)
        bl_text_add(&text, ", %d classes", d->classes);
    if (d->target_kind == BL_VALUES)
        bl_text_add(&text, ", target %s in numbers", d->target_name);
    if (text.failed)
        bl_text_free(&text);
    return text.at;
}

bool bl_is_file(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && !S_ISDIR(about.st_mode);
}

bool bl_is_folder(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

bool bl_ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcasecmp(text + length - tail, end) == 0;
}

const char *bl_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}
