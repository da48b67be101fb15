/* Data: reading what a user has, preparing it, splitting it, spoiling it on purpose.
 *
 *     bl_dataset d;
 *     BL_TRY(bl_dataset_open("prices.csv", &(bl_data_options){.target = "price"}, &d));
 *     bl_split s;
 *     BL_TRY(bl_split_new(&d, &(bl_split_options){.test = 0.2, .validation = 0.1}, key, &s));
 *     bl_preparation *p;                                  fitted on the training rows only
 *     BL_TRY(bl_preparation_fit(&d, s.train, s.train_count, &p));
 *     BL_TRY(bl_preparation_inputs(p, &d, s.train, s.train_count, x));    x: f32[count, ..]
 *     BL_TRY(bl_preparation_targets(p, &d, s.train, s.train_count, y));   y: i32[count], classes
 *
 * A data set is raw: values as they are in the file, rows addressed by number. A preparation turns
 * rows into floats for a network. Everything random takes a key and is a function of it alone.
 * In structs, pointers belong to the struct; the matching _free releases them and accepts a zeroed
 * struct. `rows` are row numbers of a data set; NULL means 0, 1, .., count-1. */
#ifndef BALLAST_DATA_H
#define BALLAST_DATA_H

#include "ballast/array.h"

/* --- data sets ----------------------------------------------------------------------------- */

typedef enum bl_column_kind { BL_NUMERIC, BL_CATEGORICAL } bl_column_kind;

typedef struct bl_column {
    char *name;
    bl_column_kind kind;
    double *number;  /* numeric: [count], NaN where the cell is missing; else NULL */
    int32_t *code;   /* categorical: [count], a position in `category`, -1 where missing; else NULL */
    char **category; /* the distinct texts, sorted */
    int32_t categories;
} bl_column;

typedef enum bl_data_kind {
    BL_TABLE,  /* columns */
    BL_IMAGES, /* inputs: u8 [count,H,W,C] */
    BL_MATRIX  /* inputs: f32 [count,D], every feature a number */
} bl_data_kind;

typedef enum bl_target_kind {
    BL_INFER_TARGET = 0, /* in options: decide from the data */
    BL_CLASSES,          /* target: i32 [count], a position in `class_name` */
    BL_VALUES,           /* target: f64 [count], in the user's units */
    BL_NO_TARGET         /* nothing to predict, or not known yet */
} bl_target_kind;

typedef struct bl_dataset {
    char *name;
    char *source; /* origin and licence, a sentence; "" for the user's own file */
    char *notes;  /* what reading decided: dropped columns, the inferred task; a line each, or "" */
    bl_data_kind kind;
    int64_t count;      /* examples, those of the fixed test part included */
    int64_t test_count; /* the last test_count examples are a fixed test part; 0 if there is none */
    bl_column *column;  /* table: the inputs, without the target */
    int32_t columns;
    bl_array inputs; /* images or matrix */
    bl_target_kind target_kind;
    char *target_name;
    bl_array target;
    char **class_name; /* classes: [classes] */
    int32_t classes;
    char **example; /* [count] where each example came from, "prices.csv:12", "cats/7.png"; or NULL */
    uint64_t hash;  /* of inputs and targets: the same data give the same number */
} bl_dataset;

typedef struct bl_data_options {
    const char *target;  /* CSV: the column to predict; NULL: none is read, target is BL_NO_TARGET */
    const char *columns; /* CSV: "zip=categorical,age=numeric,note=drop" */
    bl_target_kind target_kind; /* classes or values, where inference would choose the other; or
                                 * BL_NO_TARGET: IDX images without labels */
    const char *labels;         /* IDX, NPY: the labels' file, where it is not beside the inputs */
    const char *test;           /* a file or folder of the same kind: the fixed test part */
    const struct bl_preparation *like; /* CSV: for new rows of a fitted model: read its columns and
                                        * no others, as it has them; `target` may be absent */
    bool keep_columns; /* CSV: do not drop constant columns and columns of distinct texts (ids) */
} bl_data_options;

/* Opens by name or path; `options` may be NULL; an option that has no meaning there is an error.
 * Recognised, in this order:
 *   a built-in name (bl_dataset_builtin): digits, fashion-mnist
 *   NAME.csv, NAME.tsv        comma, semicolon or tab separated, with a header line
 *   NAME-images-idx3-ubyte[.gz], NAME.idx[.gz]    IDX images, the labels' file beside it
 *   a folder with train-images-idx3-ubyte[.gz]    and t10k-* as the fixed test part
 *   a folder with x.npy, y.npy                    and x_test.npy, y_test.npy as the test part
 *   NAME.npy                                      labels by options.labels
 *   a folder of folders of PNG or JPEG files      class names are folder names; train/, test/ above
 *   a folder of PNG or JPEG files, or one file    no target
 * NPY inputs of type u8 and shape [N,H,W] or [N,H,W,C] (C 1 or 3) are images, others a matrix.
 * Errors name the file, the line or byte, and what was expected. */
BL_API bl_status bl_dataset_open(const char *name_or_path, const bl_data_options *options,
                                 bl_dataset *out);
BL_API void bl_dataset_free(bl_dataset *d);

/* The i-th built-in name with its one-line description, or NULL past the end. */
BL_API const char *bl_dataset_builtin(int i, const char **description);

/* From arrays in memory, which are copied: inputs u8 [N,H,W,C] (images) or f32/f64 [N,D]; labels i32
 * [N] (classes 0..max) or f32/f64 [N] (values), or NULL. The last `test_count` rows are a test part. */
BL_API bl_status bl_dataset_from_arrays(const char *name, const bl_array *inputs,
                                        const bl_array *labels, int64_t test_count,
                                        bl_dataset *out);

/* "1797 images 8x8x1, 10 classes" */
BL_API char *bl_dataset_summary(const bl_dataset *d); /* bl_free_text it; NULL if memory is short */

/* --- splits --------------------------------------------------------------------------------- */

typedef struct bl_split_options {
    double test;       /* share (below 1) or number (1 and above) of examples; where the set has a
                        * fixed test part, that is the test part and this is ignored */
    double validation; /* share or number of what is left; 0: none */
    int64_t train;     /* keep this many of the remaining examples; 0: all */
} bl_split_options;

typedef struct bl_split { /* row numbers, ascending in each part */
    int32_t *train, *validation, *test;
    int64_t train_count, validation_count, test_count;
} bl_split;

/* Draws each part by its own key derived from `key`, stratified by class where there are classes
 * (class shares differ from the whole by less than one example). Errors: a part would be empty or
 * larger than what there is. */
BL_API bl_status bl_split_new(const bl_dataset *d, const bl_split_options *options, bl_key key,
                              bl_split *out);
BL_API void bl_split_free(bl_split *s);

/* Chooses k of the given rows (stratified by class) into `chosen`, ascending. */
BL_API bl_status bl_subset(const bl_dataset *d, const int32_t *rows, int64_t count, int64_t k,
                           bl_key key, int32_t *chosen);

/* Long-tailed classes: keeps rows so that class c of C has at most n_0 ratio^(-c/(C-1)) examples, n_0
 * the size of the largest; ratio >= 1 is that of the first class to the last. Writes the kept rows,
 * ascending, and their number; every class keeps at least one. */
BL_API bl_status bl_imbalance(const bl_dataset *d, const int32_t *rows, int64_t count, double ratio,
                              bl_key key, int32_t *kept, int64_t *kept_count);

/* --- label noise ------------------------------------------------------------------------------ */

typedef enum bl_noise_kind {
    BL_NOISE_NONE,
    BL_NOISE_SYMMETRIC, /* round(rate n) examples get a class drawn from ALL classes (perhaps the same) */
    BL_NOISE_OTHER,     /* each example, with probability rate, gets another class, uniformly */
    BL_NOISE_PAIRS      /* each example of a class on a list, with probability rate, gets its partner */
} bl_noise_kind;

typedef struct bl_noise {
    bl_noise_kind kind;
    double rate;       /* in [0,1] */
    const char *pairs; /* "truck->automobile,cat<->dog": class names, each at most once on a left side */
} bl_noise;

/* Reads "0.4" (symmetric), "symmetric:0.4", "other:0.4", "pairs:0.4:cat<->dog,truck->automobile". The
 * result points into `text`. */
BL_API bl_status bl_noise_parse(const char *text, bl_noise *out);

/* Changes labels[count] in place; wrong[i], unless NULL, tells whether labels[i] now differs. */
BL_API bl_status bl_noise_apply(const bl_noise *noise, const bl_dataset *d, int32_t *labels,
                                int64_t count, bl_key key, uint8_t *wrong);

/* --- preparation -------------------------------------------------------------------------------
 * Numbers: (x - mean) / sd over the cells present in the fitted rows; a missing cell becomes 0 (the
 * mean), and a column with missing cells in the fitted rows gets a second feature, 1 where missing.
 * Categories: one feature, 0 or 1, for each that occurs at least twice in the fitted rows (the 256
 * most frequent, if there are more); all are 0 for a rare, unseen or missing category.
 * Images: (x - mean) / sd with one mean and sd a channel over all fitted pixels.
 * Matrix: as numbers. Values (regression targets): (y - mean) / sd. Constants become 0. */

typedef struct bl_preparation bl_preparation;

BL_API bl_status bl_preparation_fit(const bl_dataset *d, const int32_t *rows, int64_t count,
                                    bl_preparation **out);
BL_API void bl_preparation_free(bl_preparation *p);

BL_API bl_shape bl_preparation_shape(const bl_preparation *p); /* of one example: [D] or [H,W,C] */
BL_API bl_target_kind bl_preparation_target_kind(const bl_preparation *p);
BL_API int32_t bl_preparation_classes(const bl_preparation *p); /* 0 for values */
BL_API const char *bl_preparation_class_name(const bl_preparation *p, int32_t label);
/* A feature of a table: "age", "age (missing)", "city = Rome"; NULL for images and matrices. */
BL_API const char *bl_preparation_feature(const bl_preparation *p, int64_t feature);

/* Writes f32 [count, shape]. `d` may be another data set than the fitted one: columns are matched by
 * name, categories by text. Errors: a column is missing or of the other kind; another shape. */
BL_API bl_status bl_preparation_inputs(const bl_preparation *p, const bl_dataset *d,
                                       const int32_t *rows, int64_t count, float *out);
/* Writes i32 [count] for classes (matched by name), f32 [count] standardised for values. */
BL_API bl_status bl_preparation_targets(const bl_preparation *p, const bl_dataset *d,
                                        const int32_t *rows, int64_t count, void *out);
/* Normalises raw images u8 [count,H,W,C], for pixels that were changed after reading. */
BL_API bl_status bl_preparation_pixels(const bl_preparation *p, const uint8_t *images,
                                       int64_t count, float *out);
/* A standardised value in the user's units, and the units of a difference (the sd). */
BL_API double bl_preparation_to_units(const bl_preparation *p, double standardised);
BL_API double bl_preparation_unit(const bl_preparation *p);

/* As JSON, for model files; reading it back gives the same floats. bl_free_text the text. */
BL_API bl_status bl_preparation_to_json(const bl_preparation *p, char **text);
BL_API bl_status bl_preparation_from_json(const char *text, bl_preparation **out);

/* --- results back into the user's file -------------------------------------------------------- */

/* Copies a CSV file with more columns at its right: cells[k * rows + i] is row i of column k. */
BL_API bl_status bl_csv_add_columns(const char *from, const char *to, const char *const *names,
                                    int32_t columns, const char *const *cells, int64_t rows);

#endif
