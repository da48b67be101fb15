/* ballast predict: what a trained model says about new data, in the user's own file and units. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "cli.h"
#include "data/preparation.h"
#include "tasks/saved.h"

/* The new columns, as text: [columns][rows]. */
typedef struct table {
    int32_t columns;
    int64_t rows;
    const char *name[2];
    char **cell;
} table;

static bl_status fill(const bl_saved *saved, const bl_array *out, table *t)
{
    bool classes = bl_preparation_target_kind(saved->preparation) == BL_CLASSES;
    int64_t outputs = saved->architecture.outputs;
    t->columns = classes ? 2 : 1;
    t->name[0] = "prediction";
    t->name[1] = "probability";
    t->cell = bl_alloc((size_t)(t->columns * t->rows + 1) * sizeof *t->cell);
    if (!t->cell)
        return bl_no_memory((size_t)t->rows);
    for (int64_t i = 0; i < t->rows; i++) {
        const float *row = bl_f32(out) + i * outputs;
        int32_t best = 0;
        for (int32_t c = 1; classes && c < outputs; c++)
            best = row[c] > row[best] ? c : best;
        t->cell[i] = classes ? bl_copy_text(bl_preparation_class_name(saved->preparation, best))
                             : bl_format("%.7g", (double)row[0]);
        if (classes)
            t->cell[t->rows + i] = bl_format("%.4f", (double)row[best]);
        if (!t->cell[i] || (classes && !t->cell[t->rows + i]))
            return bl_no_memory(64);
    }
    return BL_OK;
}

static void free_table(table *t)
{
    for (int64_t i = 0; t->cell && i < t->columns * t->rows; i++)
        bl_release(t->cell[i]);
    bl_release(t->cell);
}

/* Lines of CSV: where each example came from, and the new columns. */
static bl_status print_lines(const bl_dataset *d, const table *t, const char *path)
{
    bl_text text = {0};
    bl_text_add(&text, "example");
    for (int32_t k = 0; k < t->columns; k++)
        bl_text_add(&text, ",%s", t->name[k]);
    bl_text_add(&text, "\n");
    for (int64_t i = 0; i < t->rows; i++) {
        if (d->example)
            bl_text_add_cell(&text, d->example[i], ',');
        else
            bl_text_add(&text, "%lld", (long long)i);
        for (int32_t k = 0; k < t->columns; k++) {
            bl_text_add(&text, ",");
            bl_text_add_cell(&text, t->cell[k * t->rows + i], ',');
        }
        bl_text_add(&text, "\n");
    }
    bl_status status = text.failed ? bl_no_memory(text.length) : cli_write(path, text.at);
    bl_text_free(&text);
    return status;
}

static bool is_csv(const char *data)
{
    return bl_ends_with(data, ".csv") || bl_ends_with(data, ".tsv");
}

static bl_status write_out(const char *data, const bl_dataset *d, const table *t, const char *path)
{
    if (is_csv(data) && path)
        return bl_csv_add_columns(data, path, t->name, t->columns, (const char *const *)t->cell,
                                  t->rows);
    return print_lines(d, t, path);
}

static bl_status predict(const char *model, const char *data, const char *path)
{
    bl_saved saved;
    BL_TRY(bl_saved_read(model, &saved));
    bl_dataset d = {0};
    bl_array out = {0};
    bl_status status = bl_dataset_open(
        data, is_csv(data) ? &(bl_data_options){.like = saved.preparation} : NULL, &d);
    table t = {.rows = d.count};
    if (status == BL_OK)
        status = bl_preparation_note_unseen(saved.preparation, &d);
    if (status == BL_OK)
        status = bl_saved_predict(&saved, &d, &out);
    if (status == BL_OK)
        status = fill(&saved, &out, &t);
    if (status == BL_OK)
        status = write_out(data, &d, &t, path);
    if (status == BL_OK && d.notes)
        fputs(d.notes, stderr);
    free_table(&t);
    bl_array_free(&out);
    bl_dataset_free(&d);
    bl_saved_free(&saved);
    return status;
}

int cli_predict(int argc, char **argv)
{
    const char *path = NULL;
    const cli_option options[] = {{.name = "output",
                                   .kind = CLI_TEXT,
                                   .value = &path,
                                   .argument = "FILE",
                                   .letter = 'o',
                                   .text = "for CSV data: the same file with the predictions as "
                                           "more columns; else lines of CSV (default: "
                                           "lines on standard output)"},
                                  {0}};
    const cli_usage usage = {.command = "predict",
                             .synopsis = "ballast predict MODEL DATA [-o FILE]",
                             .description = "Applies a model that ballast train wrote to new data. "
                                            "Preprocessing is inside the model: DATA "
                                            "needs the same columns, not the target. Values come "
                                            "in the target's own units, classes with "
                                            "their probability.",
                             .options = {options},
                             .least = 2,
                             .most = 2};
    cli_texts operands = {0};
    int code = cli_parse(&usage, argc, argv, &operands);
    if (code >= 0)
        return code;
    bl_status status = predict(operands.at[0], operands.at[1], path);
    return status == BL_OK ? CLI_OK : cli_fail("predict", status);
}
