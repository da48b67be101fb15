/* IDX files, the format of MNIST: two zero bytes, a type byte (8: unsigned bytes), the rank, the
 * sizes as big-endian 32-bit numbers, then the elements. Gzipped or plain. */
#include "data/dataset.h"

#include <string.h>

bl_status bl_idx_parse(const char *bytes, size_t count, const char *where, bl_array *out)
{
    const unsigned char *b = (const unsigned char *)bytes;
    *out = (bl_array){0};
    if (count < 4 || b[0] != 0 || b[1] != 0)
        return bl_fail(BL_INVALID, "%s: not an IDX file: it must begin with two zero bytes", where);
    if (b[2] != 8)
        return bl_fail(BL_UNSUPPORTED, "%s: IDX element type 0x%02x; only 0x08, bytes, is read",
                       where, b[2]);
    if (b[3] < 1 || b[3] > 4 || count < 4 + 4 * (size_t)b[3])
        return bl_fail(BL_INVALID, "%s: IDX rank %d; 1 to 4 is expected, with as many sizes", where,
                       b[3]);
    bl_shape shape = {.rank = b[3]};
    uint64_t elements = 1;
    bool large = false;
    for (int i = 0; i < shape.rank; i++) {
        const unsigned char *s = b + 4 + 4 * i;
        uint32_t size = (uint32_t)s[0] << 24 | (uint32_t)s[1] << 16 | (uint32_t)s[2] << 8 | s[3];
        shape.dim[i] = size;
        large |= __builtin_mul_overflow(elements, size, &elements);
    }
    size_t header = 4 + 4 * (size_t)shape.rank;
    char text[BL_TYPE_TEXT];
    if (large || elements != count - header)
        return bl_fail(BL_INVALID, "%s: the header says %s, but %zu bytes follow it", where,
                       bl_type_text((bl_type){BL_U8, shape}, text), count - header);
    bl_status status = bl_array_new(BL_U8, shape, out);
    if (status != BL_OK)
        return bl_fail_in(status, "%s", where);
    memcpy(out->data, bytes + header, count - header);
    return BL_OK;
}

static bl_status read_array(const char *path, bl_array *out)
{
    char *bytes = NULL;
    size_t count = 0;
    BL_TRY(bl_read_perhaps_gzip(path, &bytes, &count));
    bl_status status = bl_idx_parse(bytes, count, path, out);
    bl_release(bytes);
    return status;
}

/* "x-images-idx3-ubyte.gz" -> "x-labels-idx1-ubyte.gz", or the same without or with ".gz". */
static char *labels_beside(const char *images)
{
    const char *mark = strstr(bl_base_name(images), "images-idx3");
    if (!mark)
        return NULL;
    char *labels = bl_format("%.*slabels-idx1%s", (int)(mark - images), images, mark + 11);
    if (!labels || bl_is_file(labels))
        return labels;
    size_t length = strlen(labels);
    char *other = bl_ends_with(labels, ".gz") ? bl_format("%.*s", (int)length - 3, labels)
                                              : bl_format("%s.gz", labels);
    bl_release(labels);
    return other;
}

static bl_status read_labels(const char *images, const char *given, bl_array *out)
{
    char *path = given ? bl_copy_text(given) : labels_beside(images);
    if (!path)
        return bl_fail(BL_INVALID,
                       "%s: which file holds its labels? Name it, or call the files "
                       "NAME-images-idx3-ubyte and NAME-labels-idx1-ubyte",
                       images);
    bl_status status = read_array(path, out);
    if (status == BL_OK && out->type.shape.rank != 1) {
        status =
            bl_fail(BL_INVALID, "%s: labels must have rank 1, not %d", path, out->type.shape.rank);
        bl_array_free(out);
    }
    bl_release(path);
    return status;
}

/* Images and labels of one part; without labels where none are wanted. */
static bl_status read_part(const char *path, const char *labels_path, bool labelled,
                           bl_array *images, bl_array *labels)
{
    *labels = (bl_array){0};
    BL_TRY(read_array(path, images));
    bl_status status = BL_OK;
    if (images->type.shape.rank < 3)
        status = bl_fail(BL_INVALID, "%s: images must have rank 3 or 4, not %d", path,
                         images->type.shape.rank);
    if (status == BL_OK && labelled)
        status = read_labels(path, labels_path, labels);
    if (status == BL_OK && labelled && labels->type.shape.dim[0] != images->type.shape.dim[0])
        status =
            bl_fail(BL_INVALID, "%s: %lld images, but %lld labels", path,
                    (long long)images->type.shape.dim[0], (long long)labels->type.shape.dim[0]);
    if (status != BL_OK) {
        bl_array_free(images);
        bl_array_free(labels);
    }
    return status;
}

static bl_status read_parts(const char *train, const char *train_labels, const char *test,
                            const bl_data_options *options, bl_dataset *d)
{
    bl_array images, labels, test_images = {0}, test_labels = {0};
    bool labelled = options->target_kind != BL_NO_TARGET;
    BL_TRY(read_part(train, train_labels, labelled, &images, &labels));
    bl_status status = BL_OK;
    if (test) {
        status = read_part(test, NULL, labelled, &test_images, &test_labels);
        if (status == BL_OK)
            status = bl_array_append(&images, &test_images, test);
        if (status == BL_OK && labelled)
            status = bl_array_append(&labels, &test_labels, test);
        if (status == BL_OK)
            d->test_count = test_images.type.shape.dim[0];
    }
    if (status == BL_OK) {
        status = bl_dataset_set_inputs(d, images, train);
        images = (bl_array){0};
    }
    if (status == BL_OK && labelled)
        status = bl_dataset_set_labels(d, &labels, options->target_kind, train);
    bl_array_free(&images);
    bl_array_free(&labels);
    bl_array_free(&test_images);
    bl_array_free(&test_labels);
    return status;
}

bl_status bl_read_idx_file(const char *path, const bl_data_options *options, bl_dataset *d)
{
    return read_parts(path, options->labels, options->test, options, d);
}

static char *find_part(const char *folder, const char *name)
{
    char *plain = bl_format("%s/%s", folder, name);
    if (!plain || bl_is_file(plain))
        return plain;
    char *packed = bl_format("%s.gz", plain);
    bl_release(plain);
    if (packed && bl_is_file(packed))
        return packed;
    bl_release(packed);
    return NULL;
}

bl_status bl_read_idx_folder(const char *path, const bl_data_options *options, bl_dataset *d)
{
    char *train = find_part(path, "train-images-idx3-ubyte");
    char *test = find_part(path, "t10k-images-idx3-ubyte");
    bl_status status =
        train ? read_parts(train, options->labels, options->test ? options->test : test, options, d)
              : bl_fail(BL_NOT_FOUND, "%s: no train-images-idx3-ubyte[.gz] in this folder", path);
    bl_release(train);
    bl_release(test);
    return status;
}
