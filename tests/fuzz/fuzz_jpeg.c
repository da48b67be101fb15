/* JPEG images. */
#include "fuzz.h"

static void fuzz(const char *bytes, size_t count)
{
    bl_array pixels;
    check(bl_jpeg_decode(bytes, count, "case", &pixels));
    bl_array_free(&pixels);
}
