/* A job's plan, as a worker receives it. What was read is written and read as the same. */
#include "fuzz.h"

#include "study/job.h"

static void fuzz(const char *bytes, size_t count)
{
    json_error_t where;
    json_t *json = json_loadb(bytes, count, 0, &where), *again = NULL;
    bl_plan plan, back;
    bl_status status = json ? bl_plan_from_json(json, &plan) : BL_INVALID;
    if (json)
        check_sentence(status);
    if (status == BL_OK) {
        json_t *written = bl_plan_to_json(&plan);
        if (!written || bl_plan_from_json(written, &back) != BL_OK)
            abort();
        again = bl_plan_to_json(&back);
        if (!json_equal(written, again))
            abort();
        json_decref(written);
        bl_plan_free(&back);
        bl_plan_free(&plan);
    }
    json_decref(again);
    json_decref(json);
}
