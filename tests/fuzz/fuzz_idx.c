/* IDX, plain and gzipped. */
#include "fuzz.h"

static void fuzz(const char *bytes, size_t count)
{
    bl_array array;
    char *unpacked;
    size_t size;
    check(bl_idx_parse(bytes, count, "case", &array));
    bl_array_free(&array);
    bl_status status = bl_gunzip(bytes, count, "case", &unpacked, &size);
    check(status);
    if (status != BL_OK)
        return;
    check(bl_idx_parse(unpacked ? unpacked : "", size, "case", &array));
    bl_array_free(&array);
    bl_release(unpacked);
}
