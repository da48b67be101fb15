/* Safetensors dictionaries. */
#include "fuzz.h"

static void fuzz(const char *bytes, size_t count)
{
    bl_dictionary d;
    check(bl_safetensors_parse(bytes, count, "case", &d));
    bl_dictionary_free(&d);
}
