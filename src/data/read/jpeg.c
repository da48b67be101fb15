/* JPEG images, to u8 [H,W,1] where the file is grey and [H,W,3] otherwise. libjpeg leaves through
 * longjmp on errors; everything that must survive one lives in struct reader. */
#include "data/dataset.h"

#include <setjmp.h>

#include <jpeglib.h>

enum { MOST_PIXELS = 1 << 26 };

struct reader {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    jmp_buf leave;
    char message[JMSG_LENGTH_MAX];
    bl_array pixels;
    bl_status status;
};

static void on_error(j_common_ptr jpeg)
{
    struct reader *r = jpeg->client_data;
    jpeg->err->format_message(jpeg, r->message);
    r->status = BL_INVALID;
    longjmp(r->leave, 1);
}

/* A warning (level -1) means damaged data; libjpeg would go on with grey pixels. */
static void on_message(j_common_ptr jpeg, int level)
{
    if (level < 0)
        on_error(jpeg);
}

static void decode(struct reader *r)
{
    struct jpeg_decompress_struct *j = &r->jpeg;
    jpeg_read_header(j, TRUE);
    if ((uint64_t)j->image_width * j->image_height > MOST_PIXELS) {
        snprintf(r->message, sizeof r->message, "%ux%u pixels are more than %d", j->image_width,
                 j->image_height, MOST_PIXELS);
        r->status = BL_UNSUPPORTED;
        return;
    }
    j->out_color_space = j->jpeg_color_space == JCS_GRAYSCALE ? JCS_GRAYSCALE : JCS_RGB;
    j->dct_method = JDCT_ISLOW;
    jpeg_start_decompress(j);
    size_t width = (size_t)j->output_width * (size_t)j->output_components;
    r->status = bl_array_new(
        BL_U8, BL_SHAPE(j->output_height, j->output_width, j->output_components), &r->pixels);
    if (r->status != BL_OK)
        return;
    while (j->output_scanline < j->output_height) {
        JSAMPROW row = bl_u8(&r->pixels) + j->output_scanline * width;
        jpeg_read_scanlines(j, &row, 1);
    }
    jpeg_finish_decompress(j);
}

bl_status bl_jpeg_decode(const char *bytes, size_t count, const char *where, bl_array *out)
{
    *out = (bl_array){0};
    struct reader *r = bl_alloc(sizeof *r);
    if (!r)
        return bl_no_memory(sizeof *r);
    r->jpeg.err = jpeg_std_error(&r->errors);
    r->jpeg.client_data = r;
    r->errors.error_exit = on_error;
    r->errors.emit_message = on_message;
    if (setjmp(r->leave) == 0) {
        jpeg_create_decompress(&r->jpeg);
        jpeg_mem_src(&r->jpeg, (const unsigned char *)bytes, count);
        decode(r);
    }
    jpeg_destroy_decompress(&r->jpeg);
    bl_status status = r->status;
    if (status == BL_OK)
        *out = r->pixels;
    else
        bl_array_free(&r->pixels);
    if (status == BL_INVALID)
        bl_fail(status, "%s: not a readable JPEG file: %s", where, r->message);
    else if (status == BL_UNSUPPORTED)
        bl_fail(status, "%s: %s", where, r->message);
    bl_release(r);
    return status;
}
