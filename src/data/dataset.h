/* Inside src/data: building data sets, and the readers.
 *
 * A reader is one file in read/. It fills a zeroed bl_dataset and leaves notes; bl_dataset_open
 * calls it, names the set, checks and hashes it, and frees it if the reader fails. What decodes
 * untrusted bytes is a function of memory alone (bl_*_parse, bl_*_decode), so that it can be
 * fuzzed. A message begins with `where`, the file's name. */
#ifndef BL_DATA_DATASET_H
#define BL_DATA_DATASET_H

#include "base/base.h"
#include "ballast/data.h"

/* --- building */
bl_status bl_dataset_note(bl_dataset *d, const char *format, ...) BL_PRINTF(2, 3);
/* Images and matrices (NaN and infinities refused); takes the array over, also on failure. */
bl_status bl_dataset_set_inputs(bl_dataset *d, bl_array inputs, const char *where);
/* Whole numbers become classes, others values, unless `kind` says which. */
bl_status bl_dataset_set_labels(bl_dataset *d, const bl_array *labels, bl_target_kind kind,
                                const char *where);
/* Names 0, 1, .. for classes that have none. */
bl_status bl_dataset_name_classes(bl_dataset *d, const char *const *names, int32_t classes);
/* Appends rows of the same type; `a` grows. */
bl_status bl_array_append(bl_array *a, const bl_array *rows, const char *where);
bl_status bl_dataset_finish(bl_dataset *d); /* checks consistency, hashes */
/* `rows` are numbers of examples; NULL: 0, 1, .., count - 1. */
bl_status bl_dataset_check_rows(const bl_dataset *d, const int32_t *rows, int64_t count);
void bl_free_texts(char **texts, int64_t count);

/* --- decoding bytes */
bl_status bl_gunzip(const char *bytes, size_t count, const char *where, char **out,
                    size_t *out_count);
bl_status bl_read_perhaps_gzip(const char *path, char **bytes, size_t *count);
bl_status bl_idx_parse(const char *bytes, size_t count, const char *where, bl_array *out); /* u8 */
bl_status bl_npy_parse(const char *bytes, size_t count, const char *where, bl_array *out);
bl_status bl_png_decode(const char *bytes, size_t count, const char *where, bl_array *out);
bl_status bl_jpeg_decode(const char *bytes, size_t count, const char *where, bl_array *out);

/* A CSV file as texts. Cells are row-major; line[i] is where row i begins. */
typedef struct bl_cells {
    bl_arena *arena;
    const char *where;
    char delimiter;
    char **name;
    int32_t columns;
    const char **cell;
    int64_t *line;
    int64_t rows;
} bl_cells;
bl_status bl_csv_parse(const char *bytes, size_t count, const char *where, bl_cells *out);
void bl_cells_free(bl_cells *cells);
bl_status bl_dataset_from_cells(const bl_cells *cells, const bl_data_options *options,
                                bl_dataset *d); /* bl_dataset_finish is still to be called */

/* --- readers */
bl_status bl_read_csv(const char *path, const bl_data_options *options, bl_dataset *d);
bl_status bl_read_idx_file(const char *path, const bl_data_options *options, bl_dataset *d);
bl_status bl_read_idx_folder(const char *path, const bl_data_options *options, bl_dataset *d);
bl_status bl_read_npy_file(const char *path, const bl_data_options *options, bl_dataset *d);
bl_status bl_read_npy_folder(const char *path, const bl_data_options *options, bl_dataset *d);
bl_status bl_read_image_folder(const char *path, const bl_data_options *options, bl_dataset *d);
bl_status bl_read_image_file(const char *path, const bl_data_options *options, bl_dataset *d);
bool bl_is_builtin(const char *name);
bl_status bl_read_builtin(const char *name, bl_dataset *d);

/* --- files */
bool bl_is_file(const char *path);
bool bl_is_folder(const char *path);
bool bl_ends_with(const char *text, const char *end); /* without regard to case */
const char *bl_base_name(const char *path);

/* --- preparation: what a reader of new rows must know of it */
int32_t bl_preparation_columns(const struct bl_preparation *p);
const char *bl_preparation_column(const struct bl_preparation *p, int32_t i, bl_column_kind *kind);

#endif
