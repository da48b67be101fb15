/* NPY arrays, and what becomes of them as inputs and labels. */
#include "fuzz.h"

static void fuzz(const char *bytes, size_t count)
{
    bl_array array;
    bl_dataset d;
    bl_status status = bl_npy_parse(bytes, count, "case", &array);
    check(status);
    if (status != BL_OK)
        return;
    check(bl_dataset_from_arrays("case", &array, &array, 0, &d));
    bl_dataset_free(&d);
    bl_array_free(&array);
}
