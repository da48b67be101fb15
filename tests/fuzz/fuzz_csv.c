/* CSV files: texts, then a data set with the last column as target, prepared. */
#include "fuzz.h"

static void prepare(const bl_dataset *d)
{
    bl_preparation *p = NULL;
    if (bl_preparation_fit(d, NULL, d->count, &p) != BL_OK)
        return;
    int64_t features = bl_preparation_shape(p).dim[0];
    float *x = bl_alloc((size_t)(features * d->count) * sizeof *x);
    if (!x || bl_preparation_inputs(p, d, NULL, d->count, x) != BL_OK)
        abort();
    for (int64_t i = 0; i < features * d->count; i++)
        if (!(x[i] - x[i] == 0)) /* finite */
            abort();
    bl_release(x);
    bl_preparation_free(p);
}

static void fuzz(const char *bytes, size_t count)
{
    bl_cells cells;
    bl_status status = bl_csv_parse(bytes, count, "case", &cells);
    check(status);
    if (status != BL_OK)
        return;
    bl_dataset d = {0};
    const char *target = cells.name[cells.columns - 1];
    status = bl_dataset_from_cells(&cells, &(bl_data_options){.target = target}, &d);
    check(status);
    if (status == BL_OK && bl_dataset_finish(&d) == BL_OK)
        prepare(&d);
    bl_dataset_free(&d);
    bl_cells_free(&cells);
}
