/* A folder of folders of images: dir/cat/1.png, dir/dog/2.jpg. The class is the inner folder's
 * name. With dir/train and dir/test above the classes, test/ is the fixed test part. All images
 * must have one size; they are grey if all are, else in colour. */
#include "data/dataset.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum { NO_CLASS = -1 };

/* Names in a folder, sorted, hidden ones left out. */
struct names {
    char **name;
    size_t count, capacity;
};

static void names_free(struct names *n)
{
    bl_free_texts(n->name, (int64_t)n->count);
    *n = (struct names){0};
}

static bl_status add_name(struct names *n, const char *name)
{
    char *copy = bl_copy_text(name);
    if (!copy || !BL_GROW(n->name, n->count, n->capacity)) {
        bl_release(copy);
        return bl_no_memory(strlen(name));
    }
    n->name[n->count++] = copy;
    return BL_OK;
}

static bool is_utf8(const char *text)
{
    size_t left = strlen(text), length = 1;
    for (; left > 0 && length > 0; text += length, left -= length)
        length = bl_utf8_length(text, left);
    return length > 0;
}

static bl_status list(const char *folder, struct names *out)
{
    *out = (struct names){0};
    DIR *directory = opendir(folder);
    if (!directory)
        return bl_fail(BL_IO, "%s: cannot list this folder", folder);
    bl_status status = BL_OK;
    for (struct dirent *e; status == BL_OK && (e = readdir(directory));)
        if (e->d_name[0] != '.')
            status = is_utf8(e->d_name)
                         ? add_name(out, e->d_name)
                         : bl_fail(BL_INVALID, "%s: the name %s in it is not UTF-8: rename it",
                                   folder, e->d_name);
    closedir(directory);
    if (status == BL_OK && out->count > 0)
        qsort(out->name, out->count, sizeof *out->name, bl_compare_texts);
    else if (status != BL_OK)
        names_free(out);
    return status;
}

static bool is_png(const char *name)
{
    return bl_ends_with(name, ".png");
}

static bool is_jpeg(const char *name)
{
    return bl_ends_with(name, ".jpg") || bl_ends_with(name, ".jpeg");
}

/* What has been read. Images keep their own channels until all are known. */
struct collection {
    struct names classes, example;
    bl_array *image;
    size_t images, image_capacity;
    int32_t *label;
    size_t label_capacity;
    int64_t ignored;
    bool colour;
};

static void collection_free(struct collection *c)
{
    names_free(&c->classes);
    names_free(&c->example);
    for (size_t i = 0; i < c->images; i++)
        bl_array_free(&c->image[i]);
    bl_release(c->image);
    bl_release(c->label);
}

static bl_status decode(const char *path, bl_array *image)
{
    char *bytes = NULL;
    size_t count = 0;
    BL_TRY(bl_read_file(path, &bytes, &count));
    bl_status status = is_png(path) ? bl_png_decode(bytes, count, path, image)
                                    : bl_jpeg_decode(bytes, count, path, image);
    bl_release(bytes);
    return status;
}

static bl_status add_image(struct collection *c, const char *path, const char *shown, int32_t label)
{
    bl_array image;
    BL_TRY(decode(path, &image));
    const int64_t *dim = image.type.shape.dim;
    const int64_t *first = c->images > 0 ? c->image[0].type.shape.dim : dim;
    if (dim[0] != first[0] || dim[1] != first[1]) {
        bl_fail(BL_INVALID, "%s: %lldx%lld pixels, but the images before it have %lldx%lld", path,
                (long long)dim[1], (long long)dim[0], (long long)first[1], (long long)first[0]);
        bl_array_free(&image);
        return BL_INVALID;
    }
    if (!BL_GROW(c->image, c->images, c->image_capacity) ||
        !BL_GROW(c->label, c->images, c->label_capacity)) {
        bl_array_free(&image);
        return bl_no_memory(sizeof image);
    }
    c->colour |= dim[2] == 3;
    c->label[c->images] = label;
    c->image[c->images++] = image;
    return add_name(&c->example, shown);
}

static bl_status read_class(struct collection *c, const char *folder, const char *shown,
                            int32_t label)
{
    struct names files;
    BL_TRY(list(folder, &files));
    bl_status status = BL_OK;
    for (size_t i = 0; i < files.count && status == BL_OK; i++) {
        if (!is_png(files.name[i]) && !is_jpeg(files.name[i])) {
            c->ignored++;
            continue;
        }
        char *path = bl_format("%s/%s", folder, files.name[i]);
        char *place = bl_format("%s/%s", shown, files.name[i]);
        status = path && place ? add_image(c, path, place, label) : bl_no_memory(strlen(folder));
        bl_release(path);
        bl_release(place);
    }
    names_free(&files);
    return status;
}

static int32_t find_class(const struct collection *c, const char *name)
{
    for (size_t i = 0; i < c->classes.count; i++)
        if (strcmp(c->classes.name[i], name) == 0)
            return (int32_t)i;
    return -1;
}

static bl_status read_class_folder(struct collection *c, const char *path, const char *name,
                                   bool new_classes)
{
    if (new_classes)
        BL_TRY(add_name(&c->classes, name));
    int32_t label = find_class(c, name);
    if (label < 0)
        return bl_fail(BL_INVALID, "%s: there is no class \"%s\" to train", path, name);
    return read_class(c, path, name, label);
}

static bl_status read_entry(struct collection *c, const char *folder, const char *name,
                            bool new_classes)
{
    char *path = bl_format("%s/%s", folder, name);
    if (!path)
        return bl_no_memory(strlen(folder));
    bl_status status = BL_OK;
    if (bl_is_folder(path))
        status = read_class_folder(c, path, name, new_classes);
    else if (is_png(name) || is_jpeg(name))
        status = add_image(c, path, name, NO_CLASS);
    else
        c->ignored++;
    bl_release(path);
    return status;
}

/* The class folders of one part. */
static bl_status read_part(struct collection *c, const char *folder, bool new_classes)
{
    struct names entries;
    BL_TRY(list(folder, &entries));
    bl_status status = BL_OK;
    for (size_t i = 0; i < entries.count && status == BL_OK; i++)
        status = read_entry(c, folder, entries.name[i], new_classes);
    names_free(&entries);
    return status;
}

/* All images as one u8 [N,H,W,C]; grey ones are repeated in colour where some are in colour. */
static bl_status join(const struct collection *c, bl_array *out)
{
    const int64_t *dim = c->image[0].type.shape.dim;
    int64_t channels = c->colour ? 3 : 1, pixels = dim[0] * dim[1];
    BL_TRY(bl_array_new(BL_U8, BL_SHAPE((int64_t)c->images, dim[0], dim[1], channels), out));
    for (size_t i = 0; i < c->images; i++) {
        uint8_t *to = bl_u8(out) + (int64_t)i * pixels * channels;
        const uint8_t *from = bl_u8(&c->image[i]);
        bool repeat = c->image[i].type.shape.dim[2] < channels;
        for (int64_t p = 0; p < pixels * channels; p++)
            to[p] = from[repeat ? p / channels : p];
    }
    return BL_OK;
}

static bl_status label_images(struct collection *c, const char *path, bl_dataset *d)
{
    for (size_t i = 0; i < c->images; i++)
        if (c->classes.count > 0 && c->label[i] == NO_CLASS)
            return bl_fail(BL_INVALID, "%s: \"%s\" lies beside the class folders, not in one", path,
                           d->example[i]);
    d->target_kind = BL_NO_TARGET;
    if (c->classes.count == 0)
        return BL_OK;
    BL_TRY(bl_dataset_name_classes(d, (const char *const *)c->classes.name,
                                   (int32_t)c->classes.count));
    bl_array labels = {{BL_I32, BL_SHAPE(d->count)}, c->label};
    return bl_dataset_set_labels(d, &labels, BL_CLASSES, path);
}

static bl_status fill(struct collection *c, const char *path, bl_dataset *d)
{
    if (c->images == 0)
        return bl_fail(BL_INVALID,
                       "%s: no data found: expected folders of .png or .jpg files, a folder a "
                       "class, or x.npy, or train-images-idx3-ubyte",
                       path);
    if (c->ignored > 0)
        BL_TRY(bl_dataset_note(d, "%lld files that are not images were ignored",
                               (long long)c->ignored));
    bl_array inputs;
    BL_TRY(join(c, &inputs));
    BL_TRY(bl_dataset_set_inputs(d, inputs, path));
    d->example = c->example.name;
    c->example = (struct names){0};
    return label_images(c, path, d);
}

static bl_status read_all(struct collection *c, const char *train, const char *test,
                          const char *path, bl_dataset *d)
{
    BL_TRY(read_part(c, train, true));
    size_t trained = c->images;
    if (test)
        BL_TRY(read_part(c, test, false));
    d->test_count = (int64_t)(c->images - trained);
    return fill(c, path, d);
}

bl_status bl_read_image_folder(const char *path, const bl_data_options *options, bl_dataset *d)
{
    struct collection c = {0};
    char *train = bl_format("%s/train", path), *test = bl_format("%s/test", path);
    bl_status status = bl_no_memory(strlen(path));
    if (train && test) {
        bool parts = bl_is_folder(train);
        const char *test_part = options->test                 ? options->test
                                : parts && bl_is_folder(test) ? test
                                                              : NULL;
        status = read_all(&c, parts ? train : path, test_part, path, d);
    }
    bl_release(train);
    bl_release(test);
    collection_free(&c);
    return status;
}

bl_status bl_read_image_file(const char *path, const bl_data_options *options, bl_dataset *d)
{
    (void)options;
    struct collection c = {0};
    bl_status status = add_image(&c, path, bl_base_name(path), NO_CLASS);
    if (status == BL_OK)
        status = fill(&c, path, d);
    collection_free(&c);
    return status;
}
