/* Opening data by name or path: recognising what it is. A new format is a reader in read/, a line
 * in `forms`, and a line in the list of ballast/data.h. */
#include "data/dataset.h"

#include <string.h>

static bool has(const char *folder, const char *file)
{
    char path[4096]; /* no longer path can be opened */
    int length = snprintf(path, sizeof path, "%s/%s", folder, file);
    return length > 0 && (size_t)length < sizeof path && bl_is_file(path);
}

static bool is_csv(const char *path)
{
    return bl_is_file(path) && (bl_ends_with(path, ".csv") || bl_ends_with(path, ".tsv"));
}

static bool is_idx(const char *path)
{
    return bl_is_file(path) && (strstr(bl_base_name(path), "idx3") || bl_ends_with(path, ".idx") ||
                                bl_ends_with(path, ".idx.gz"));
}

static bool is_idx_folder(const char *path)
{
    return has(path, "train-images-idx3-ubyte") || has(path, "train-images-idx3-ubyte.gz");
}

static bool is_npy_folder(const char *path)
{
    return has(path, "x.npy");
}

static bool is_npy(const char *path)
{
    return bl_is_file(path) && bl_ends_with(path, ".npy");
}

static bool is_image(const char *path)
{
    return bl_is_file(path) && (bl_ends_with(path, ".png") || bl_ends_with(path, ".jpg") ||
                                bl_ends_with(path, ".jpeg"));
}

static const struct form {
    const char *name;
    bool (*is)(const char *path);
    bl_status (*read)(const char *path, const bl_data_options *options, bl_dataset *d);
} forms[] = {
    {"a CSV file", is_csv, bl_read_csv},
    {"an IDX file", is_idx, bl_read_idx_file},
    {"a folder of IDX files", is_idx_folder, bl_read_idx_folder},
    {"a folder of NPY files", is_npy_folder, bl_read_npy_folder},
    {"an NPY file", is_npy, bl_read_npy_file},
    {"an image", is_image, bl_read_image_file},
    {"a folder of images", bl_is_folder, bl_read_image_folder},
};
enum { FORMS = sizeof forms / sizeof *forms };

static bl_status unknown(const char *name)
{
    const char *names[16];
    int count = 0;
    while (count < 16 && (names[count] = bl_dataset_builtin(count, NULL)))
        count++;
    const char *nearest = bl_nearest(name, names, count);
    if (bl_is_file(name))
        return bl_fail(BL_UNSUPPORTED,
                       "%s: unknown kind of file; those read are .csv, .tsv, .npy, .png, .jpg, "
                       "*-images-idx3-ubyte[.gz], and folders of images by class",
                       name);
    return bl_fail(BL_NOT_FOUND,
                   "\"%s\": no file or folder of this name, and no built-in data set (digits, "
                   "fashion-mnist)%s%s%s",
                   name, nearest ? "; did you mean " : "", nearest ? nearest : "",
                   nearest ? "?" : "");
}

/* An option that would have no effect is an error. */
static bl_status check_options(const char *name, const char *form, const bl_data_options *options)
{
    bool table = is_csv(name), built_in = bl_is_builtin(name);
    bool labels = is_idx(name) || is_idx_folder(name) || is_npy(name);
    const char *useless = options->target && !table    ? "a target column"
                          : options->columns && !table ? "kinds of columns"
                          : options->labels && !labels ? "a file of labels"
                          : options->test && built_in  ? "a test file"
                                                       : NULL;
    if (!useless)
        return BL_OK;
    return bl_fail(BL_INVALID, "%s: %s was given, but has no meaning for %s", name, useless, form);
}

static bl_status read_it(const char *name, const bl_data_options *options, bl_dataset *d)
{
    const struct form *form = NULL;
    for (int i = 0; i < FORMS && !form; i++)
        form = forms[i].is(name) ? &forms[i] : NULL;
    bool built_in = bl_is_builtin(name);
    if (!built_in && !form)
        return unknown(name);
    BL_TRY(check_options(name, built_in ? "a built-in data set" : form->name, options));
    return built_in ? bl_read_builtin(name, d) : form->read(name, options, d);
}

/* "data/prices.csv" is called "prices.csv", "pets/" "pets". */
static char *short_name(const char *path)
{
    char *copy = bl_copy_text(path);
    if (!copy)
        return NULL;
    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
        copy[n - 1] = '\0';
    char *name = bl_copy_text(bl_base_name(copy));
    bl_release(copy);
    return name;
}

bl_status bl_dataset_open(const char *name_or_path, const bl_data_options *options, bl_dataset *out)
{
    const bl_data_options none = {0};
    *out = (bl_dataset){0};
    bl_status status = read_it(name_or_path, options ? options : &none, out);
    if (status == BL_OK && !out->name && !(out->name = short_name(name_or_path)))
        status = bl_no_memory(strlen(name_or_path));
    if (status == BL_OK)
        status = bl_dataset_finish(out);
    if (status != BL_OK)
        bl_dataset_free(out);
    return status;
}
