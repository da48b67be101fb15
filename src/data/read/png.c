/* PNG images, to u8 [H,W,1] where the file is grey and [H,W,3] otherwise. Transparency is laid on
 * black. libpng's simplified interface reports errors as values. */
#include "data/dataset.h"

#include <png.h>

enum { MOST_PIXELS = 1 << 26 };

bl_status bl_png_decode(const char *bytes, size_t count, const char *where, bl_array *out)
{
    *out = (bl_array){0};
    png_image image = {.version = PNG_IMAGE_VERSION};
    if (!png_image_begin_read_from_memory(&image, bytes, count))
        return bl_fail(BL_INVALID, "%s: not a readable PNG file: %s", where, image.message);
    bool colour = image.format & PNG_FORMAT_FLAG_COLOR;
    image.format = colour ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
    bl_status status = BL_OK;
    if ((uint64_t)image.width * image.height > MOST_PIXELS)
        status = bl_fail(BL_UNSUPPORTED, "%s: %ux%u pixels are more than %d", where, image.width,
                         image.height, MOST_PIXELS);
    else
        status = bl_array_new(BL_U8, BL_SHAPE(image.height, image.width, colour ? 3 : 1), out);
    if (status != BL_OK) {
        png_image_free(&image);
        return status;
    }
    png_color black = {0};
    if (png_image_finish_read(&image, &black, out->data, 0, NULL))
        return BL_OK;
    bl_array_free(out);
    return bl_fail(BL_INVALID, "%s: the PNG data are damaged: %s", where, image.message);
}
