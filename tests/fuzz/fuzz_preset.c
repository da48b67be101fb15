/* Presets: what --save-preset wrote, or a user changed. */
#include "fuzz.h"

#include "study/tune.h"

static const bl_job_data *digits(void)
{
    static bl_plan plan;
    static bl_job_data *data;
    if (data)
        return data;
    plan = bl_plan_new();
    plan.data = bl_copy_text("digits");
    if (!plan.data || bl_job_data_open(&plan, &data) != BL_OK)
        abort();
    return data;
}

static void fuzz(const char *bytes, size_t count)
{
    const char *arm[] = {"baseline", "elr", "null"};
    bl_tuning tuning;
    const char *path = file_of(bytes, count);
    check(bl_preset_read(path, digits(), arm, 3, &tuning));
    bl_tuning_free(&tuning);
}
