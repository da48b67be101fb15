/* Gzip files, whole, into memory. */
#include "data/dataset.h"

#include <zlib.h>

/* Inflates one member after another (gzip allows several) into a growing text. */
static int inflate_all(z_stream *z, bl_text *out)
{
    char chunk[16384];
    int result = Z_OK;
    while (result == Z_OK) {
        z->next_out = (unsigned char *)chunk;
        z->avail_out = sizeof chunk;
        result = inflate(z, Z_NO_FLUSH);
        bl_text_add_n(out, chunk, sizeof chunk - z->avail_out);
        if (result == Z_STREAM_END && z->avail_in > 0)
            result = inflateReset(z);
        if (out->failed)
            return Z_MEM_ERROR;
    }
    return result;
}

bl_status bl_gunzip(const char *bytes, size_t count, const char *where, char **out,
                    size_t *out_count)
{
    *out = NULL;
    *out_count = 0;
    if (count > UINT32_MAX)
        return bl_fail(BL_UNSUPPORTED, "%s: compressed files above 4 GiB are not read", where);
    z_stream z = {.next_in = (unsigned char *)bytes, .avail_in = (unsigned)count};
    if (inflateInit2(&z, 15 + 16) != Z_OK)
        return bl_no_memory(65536);
    bl_text text = {0};
    int result = inflate_all(&z, &text);
    unsigned long long at = z.total_in;
    inflateEnd(&z);
    if (result == Z_STREAM_END) {
        *out = text.at;
        *out_count = text.length;
        return BL_OK;
    }
    bl_text_free(&text);
    if (result == Z_MEM_ERROR)
        return bl_no_memory(count);
    return bl_fail(BL_INVALID, "%s: the gzip data are %s at byte %llu", where,
                   result == Z_BUF_ERROR ? "cut off" : "damaged", at);
}

bl_status bl_read_perhaps_gzip(const char *path, char **bytes, size_t *count)
{
    BL_TRY(bl_read_file(path, bytes, count));
    const unsigned char *b = (const unsigned char *)*bytes;
    if (*count < 2 || b[0] != 0x1f || b[1] != 0x8b)
        return BL_OK;
    char *packed = *bytes;
    bl_status status = bl_gunzip(packed, *count, path, bytes, count);
    bl_release(packed);
    return status;
}
