/* Trained models: a description in JSON around the weights of a linear model, read and, where it
 * fits, used on two rows. */
#include "fuzz.h"

#include "tasks/saved.h"

static bl_status weights(bl_dictionary *state)
{
    bl_array weight, bias;
    BL_TRY(bl_array_new(BL_F32, BL_SHAPE(2, 2), &weight));
    BL_TRY(bl_dictionary_set(state, "param/classifier/weight", weight));
    BL_TRY(bl_array_new(BL_F32, BL_SHAPE(2), &bias));
    return bl_dictionary_set(state, "param/classifier/bias", bias);
}

static void predict(const bl_saved *model)
{
    static const char table[] = "a,b\n1,2\n3,4\n";
    bl_cells cells;
    bl_dataset d = {0};
    bl_array out;
    if (bl_csv_parse(table, sizeof table - 1, "case", &cells) != BL_OK)
        abort();
    bl_status status =
        bl_dataset_from_cells(&cells, &(bl_data_options){.like = model->preparation}, &d);
    if (status == BL_OK && (status = bl_dataset_finish(&d)) == BL_OK)
        status = bl_saved_predict(model, &d, &out);
    check_sentence(status);
    if (status == BL_OK)
        bl_array_free(&out);
    bl_dataset_free(&d);
    bl_cells_free(&cells);
}

static void fuzz(const char *bytes, size_t count)
{
    char *text = text_of(bytes, count);
    const char *path = file_of("", 0);
    bl_dictionary state = {0};
    if (weights(&state) != BL_OK || bl_dictionary_set_note(&state, "ballast", text) != BL_OK ||
        bl_safetensors_write(path, &state) != BL_OK)
        goto done; /* a text that is not UTF-8 */
    bl_saved model;
    bl_status status = bl_saved_read(path, &model);
    check(status);
    if (status == BL_OK) {
        predict(&model);
        bl_saved_free(&model);
    }
done:
    bl_dictionary_free(&state);
    bl_release(text);
}
