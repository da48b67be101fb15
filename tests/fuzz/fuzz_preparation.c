/* Preparations in JSON, and the table they make of new rows. */
#include "fuzz.h"

static void fuzz(const char *bytes, size_t count)
{
    char *text = bl_format("%.*s", (int)count, bytes);
    bl_preparation *p = NULL, *again = NULL;
    if (text && bl_preparation_from_json(text, &p) == BL_OK) {
        char *written = NULL;
        if (bl_preparation_to_json(p, &written) != BL_OK ||
            bl_preparation_from_json(written, &again) != BL_OK)
            abort();
        bl_free_text(written);
    }
    bl_preparation_free(p);
    bl_preparation_free(again);
    bl_release(text);
}
