/* Element types, shapes, and arrays of data. A new element type is a row of `dtypes` and a case in
 * bl_array_get and bl_array_set. */
#include "base/base.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
    bool is_float;
} dtypes[BL_DTYPES] = {
    [BL_F32] = {"f32", 4, true},    [BL_F64] = {"f64", 8, true}, [BL_I32] = {"i32", 4, false},
    [BL_U32] = {"u32", 4, false},   [BL_I8] = {"i8", 1, false},  [BL_U8] = {"u8", 1, false},
    [BL_BOOL] = {"bool", 1, false},
};

static bool known(bl_dtype dtype)
{
    return (unsigned)dtype < BL_DTYPES;
}

const char *bl_dtype_name(bl_dtype dtype)
{
    return known(dtype) ? dtypes[dtype].name : "?";
}
size_t bl_dtype_size(bl_dtype dtype)
{
    return known(dtype) ? dtypes[dtype].size : 0;
}
bool bl_dtype_is_float(bl_dtype dtype)
{
    return known(dtype) && dtypes[dtype].is_float;
}

int64_t bl_shape_count(bl_shape shape)
{
    int64_t count = 1;
    for (int i = 0; i < shape.rank; i++)
        count *= shape.dim[i];
    return count;
}

bool bl_shape_equal(bl_shape a, bl_shape b)
{
    if (a.rank != b.rank)
        return false;
    for (int i = 0; i < a.rank; i++)
        if (a.dim[i] != b.dim[i])
            return false;
    return true;
}

int64_t bl_type_count(bl_type type)
{
    return bl_shape_count(type.shape);
}

size_t bl_type_bytes(bl_type type)
{
    return (size_t)bl_type_count(type) * bl_dtype_size(type.dtype);
}

bool bl_type_equal(bl_type a, bl_type b)
{
    return a.dtype == b.dtype && bl_shape_equal(a.shape, b.shape);
}

char *bl_type_text(bl_type type, char text[BL_TYPE_TEXT])
{
    size_t used = (size_t)snprintf(text, BL_TYPE_TEXT, "%s[", bl_dtype_name(type.dtype));
    for (int i = 0; i < type.shape.rank && i < BL_MAX_RANK && used < BL_TYPE_TEXT; i++)
        used += (size_t)snprintf(text + used, BL_TYPE_TEXT - used, i ? ",%lld" : "%lld",
                                 (long long)type.shape.dim[i]);
    if (used < BL_TYPE_TEXT - 1)
        memcpy(text + used, "]", 2);
    return text;
}

/* The number of bytes, or a failure where it does not fit or a size is negative. */
static bl_status checked_bytes(bl_type type, size_t *bytes)
{
    if (!known(type.dtype))
        return bl_fail(BL_INVALID, "array: unknown element type %d", (int)type.dtype);
    if (type.shape.rank < 0 || type.shape.rank > BL_MAX_RANK)
        return bl_fail(BL_INVALID, "array: rank %d, but 0..%d is possible", type.shape.rank,
                       BL_MAX_RANK);
    char text[BL_TYPE_TEXT];
    int64_t size = (int64_t)bl_dtype_size(type.dtype);
    bool empty = false, large = false;
    for (int i = 0; i < type.shape.rank; i++) {
        if (type.shape.dim[i] < 0)
            return bl_fail(BL_INVALID, "array: negative size in %s", bl_type_text(type, text));
        if (type.shape.dim[i] == 0)
            empty = true;
        else
            large |= __builtin_mul_overflow(size, type.shape.dim[i], &size);
    }
    if (large || size > PTRDIFF_MAX - 64)
        return bl_fail(BL_INVALID, "array: %s is too large to address", bl_type_text(type, text));
    *bytes = empty ? 0 : (size_t)size;
    return BL_OK;
}

bl_status bl_array_new(bl_dtype dtype, bl_shape shape, bl_array *out)
{
    *out = (bl_array){0};
    bl_type type = {dtype, shape};
    size_t bytes = 0;
    BL_TRY(checked_bytes(type, &bytes));
    void *data = bl_alloc_aligned(bytes);
    if (!data)
        return bl_no_memory(bytes);
    *out = (bl_array){type, data};
    return BL_OK;
}

bl_status bl_array_copy(const bl_array *from, bl_array *out)
{
    bl_array copy;
    BL_TRY(bl_array_new(from->type.dtype, from->type.shape, &copy));
    size_t bytes = bl_type_bytes(from->type);
    if (bytes)
        memcpy(copy.data, from->data, bytes);
    *out = copy;
    return BL_OK;
}

void bl_array_free(bl_array *array)
{
    bl_release(array->data);
    *array = (bl_array){0};
}

int64_t bl_array_count(const bl_array *array)
{
    return bl_type_count(array->type);
}

double bl_array_get(const bl_array *array, int64_t i)
{
    switch (array->type.dtype) {
    case BL_F32:
        return ((const float *)array->data)[i];
    case BL_F64:
        return ((const double *)array->data)[i];
    case BL_I32:
        return ((const int32_t *)array->data)[i];
    case BL_U32:
        return ((const uint32_t *)array->data)[i];
    case BL_I8:
        return ((const int8_t *)array->data)[i];
    case BL_U8:
        return ((const uint8_t *)array->data)[i];
    case BL_BOOL:
        return ((const uint8_t *)array->data)[i] != 0;
    case BL_DTYPES:
        break;
    }
    return NAN;
}

/* The nearest integer in [low, high]; 0 for NaN. */
static double nearest_in(double value, double low, double high)
{
    if (isnan(value))
        return 0;
    double whole = nearbyint(value);
    return whole < low ? low : whole > high ? high : whole;
}

void bl_array_set(bl_array *array, int64_t i, double value)
{
    switch (array->type.dtype) {
    case BL_F32:
        ((float *)array->data)[i] = (float)value;
        return;
    case BL_F64:
        ((double *)array->data)[i] = value;
        return;
    case BL_I32:
        ((int32_t *)array->data)[i] = (int32_t)nearest_in(value, INT32_MIN, INT32_MAX);
        return;
    case BL_U32:
        ((uint32_t *)array->data)[i] = (uint32_t)nearest_in(value, 0, UINT32_MAX);
        return;
    case BL_I8:
        ((int8_t *)array->data)[i] = (int8_t)nearest_in(value, -128, 127);
        return;
    case BL_U8:
        ((uint8_t *)array->data)[i] = (uint8_t)nearest_in(value, 0, 255);
        return;
    case BL_BOOL:
        ((uint8_t *)array->data)[i] = value != 0;
        return;
    case BL_DTYPES:
        return;
    }
}

double *bl_array_doubles(const bl_array *array)
{
    int64_t count = bl_array_count(array);
    double *value = bl_alloc((size_t)(count + 1) * sizeof *value);
    for (int64_t i = 0; value && i < count; i++)
        value[i] = bl_array_get(array, i);
    return value;
}
