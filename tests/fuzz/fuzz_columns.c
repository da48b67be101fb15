/* The texts of options that describe data: label noise, and kinds of columns. */
#include "fuzz.h"

static void fuzz(const char *bytes, size_t count)
{
    static const char table[] = "a,b,y\n1,x,cat\n2,z,dog\n3,x,cat\n4,x,dog\n";
    char *text = text_of(bytes, count);
    bl_noise noise;
    bl_cells cells;
    bl_dataset d = {0};
    if (bl_csv_parse(table, sizeof table - 1, "case", &cells) != BL_OK)
        abort();
    bl_status read = bl_dataset_from_cells(
        &cells, &(bl_data_options){.target = "y", .columns = text, .keep_columns = true}, &d);
    check(read);
    bl_status status = bl_noise_parse(text, &noise);
    check_sentence(status);
    if (read == BL_OK && status == BL_OK && d.target_kind == BL_CLASSES) {
        int32_t labels[4] = {0, 1, 0, 1};
        uint8_t wrong[4];
        check_sentence(bl_noise_apply(&noise, &d, labels, 4, bl_key_from_seed(1), wrong));
        for (int i = 0; i < 4; i++)
            if (labels[i] < 0 || labels[i] >= d.classes)
                abort();
    }
    bl_dataset_free(&d);
    bl_cells_free(&cells);
    bl_release(text);
}
