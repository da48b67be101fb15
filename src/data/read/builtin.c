/* Data sets by name. One more is a row of `builtin` and a function that reads it. */
#include "data/dataset.h"

#include <string.h>

/* The files of data/digits, put into the library by the assembler: no path is needed to use them.
 * The build defines BL_DIGITS, the folder. */
#define EMBED(symbol, file)                                                                        \
    __asm__(".pushsection .rodata\n"                                                               \
            ".global " #symbol "\n.hidden " #symbol "\n" #symbol ":\n"                             \
            ".incbin \"" BL_DIGITS "/" file "\"\n"                                                 \
            ".global " #symbol "_end\n.hidden " #symbol "_end\n" #symbol "_end:\n"                 \
            ".popsection\n");                                                                      \
    extern const char symbol[], symbol##_end[]

EMBED(bl_digits_images, "digits-images-idx3-ubyte.gz");
EMBED(bl_digits_labels, "digits-labels-idx1-ubyte.gz");

static bl_status embedded(const char *begin, const char *end, bl_array *out)
{
    char *bytes = NULL;
    size_t count = 0;
    BL_TRY(bl_gunzip(begin, (size_t)(end - begin), "digits", &bytes, &count));
    bl_status status = bl_idx_parse(bytes, count, "digits", out);
    bl_release(bytes);
    return status;
}

static bl_status read_digits(bl_dataset *d)
{
    bl_array images, labels;
    BL_TRY(embedded(bl_digits_images, bl_digits_images_end, &images));
    BL_TRY(bl_dataset_set_inputs(d, images, "digits"));
    BL_TRY(embedded(bl_digits_labels, bl_digits_labels_end, &labels));
    bl_status status = bl_dataset_set_labels(d, &labels, BL_CLASSES, "digits");
    bl_array_free(&labels);
    return status;
}

static bl_status read_fashion_mnist(bl_dataset *d)
{
    static const char folder[] = "/usr/share/datasets/fashion-mnist";
    static const char *const classes[] = {"t-shirt", "trouser", "pullover", "dress", "coat",
                                          "sandal",  "shirt",   "sneaker",  "bag",   "ankle boot"};
    if (!bl_is_folder(folder))
        return bl_fail(BL_NOT_FOUND,
                       "fashion-mnist is not installed (%s does not exist): run "
                       "\"apt install dataset-fashion-mnist\", or give the folder of its IDX files",
                       folder);
    BL_TRY(bl_dataset_name_classes(d, classes, 10));
    return bl_read_idx_folder(folder, &(bl_data_options){0}, d);
}

static const struct builtin {
    const char *name, *description, *source;
    bl_status (*read)(bl_dataset *d);
} builtin[] = {
    {"digits", "1797 handwritten digits, 8x8, 10 classes; part of the library",
     "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning "
     "Repository, 1998; CC BY 4.0.",
     read_digits},
    {"fashion-mnist", "70000 photographs of clothes, 28x28, 10 classes, 10000 for testing",
     "Fashion-MNIST, H. Xiao, K. Rasul and R. Vollgraf, 2017, arXiv 1708.07747; MIT licence.",
     read_fashion_mnist},
};
enum { BUILTINS = sizeof builtin / sizeof *builtin };

const char *bl_dataset_builtin(int i, const char **description)
{
    if (i < 0 || i >= BUILTINS)
        return NULL;
    if (description)
        *description = builtin[i].description;
    return builtin[i].name;
}

static const struct builtin *find(const char *name)
{
    for (int i = 0; i < BUILTINS; i++)
        if (strcmp(builtin[i].name, name) == 0)
            return &builtin[i];
    return NULL;
}

bool bl_is_builtin(const char *name)
{
    return find(name) != NULL;
}

bl_status bl_read_builtin(const char *name, bl_dataset *d)
{
    const struct builtin *b = find(name);
    d->name = bl_copy_text(name);
    d->source = bl_copy_text(b->source);
    if (!d->name || !d->source)
        return bl_no_memory(strlen(b->source));
    return b->read(d);
}
