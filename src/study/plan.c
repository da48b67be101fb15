/* The plan of a study, to JSON and back: every field is named once. A new field gets a row in
 * PLAN_FIELDS, and in the command line one in cli/plan_options.c. */
#include "study/plan.h"

#include "base/base.h"

bl_plan bl_plan_new(void)
{
    return (bl_plan){.learning_rate = -1,
                     .weight_decay = -1,
                     .momentum = -1,
                     .epochs = -1,
                     .batch = -1,
                     .width = -1,
                     .depth = -1};
}

/* Every field of a plan, once: its kind and its name. */
/* clang-format off */
#define PLAN_FIELDS(TEXT, NUMBER, INTEGER)                                                         \
    TEXT(data)                                                                                     \
    TEXT(target)                                                                                   \
    TEXT(columns)                                                                                  \
    TEXT(labels)                                                                                   \
    TEXT(test)                                                                                     \
    TEXT(task)                                                                                     \
    TEXT(label_noise)                                                                              \
    TEXT(model)                                                                                    \
    TEXT(optimizer)                                                                                \
    TEXT(schedule)                                                                                 \
    TEXT(loss)                                                                                     \
    NUMBER(test_fraction)                                                                          \
    NUMBER(imbalance)                                                                              \
    NUMBER(learning_rate)                                                                          \
    NUMBER(weight_decay)                                                                           \
    NUMBER(momentum)                                                                               \
    INTEGER(keep_columns)                                                                          \
    INTEGER(fixed_split)                                                                           \
    INTEGER(train_count)                                                                           \
    INTEGER(study_seed)                                                                            \
    INTEGER(epochs)                                                                                \
    INTEGER(batch)                                                                                 \
    INTEGER(width)                                                                                 \
    INTEGER(depth)
/* clang-format on */

json_t *bl_plan_to_json(const bl_plan *plan)
{
    json_t *json = json_object();
    int failures = json == NULL;
#define TEXT(name)                                                                                 \
    failures += plan->name && json_object_set_new(json, #name, json_string(plan->name)) != 0;
#define NUMBER(name) failures += json_object_set_new(json, #name, json_real(plan->name)) != 0;
#define INTEGER(name)                                                                              \
    failures += json_object_set_new(json, #name, json_integer((json_int_t)plan->name)) != 0;
    PLAN_FIELDS(TEXT, NUMBER, INTEGER)
#undef TEXT
#undef NUMBER
#undef INTEGER
    if (!failures)
        return json;
    json_decref(json);
    return NULL;
}

static bl_status read_text(const json_t *json, const char *name, char **out)
{
    const json_t *value = json_object_get(json, name);
    if (!value)
        return BL_OK;
    if (!json_is_string(value))
        return bl_fail(BL_INVALID, "plan: %s is not a text", name);
    *out = bl_copy_text(json_string_value(value));
    return *out ? BL_OK : bl_no_memory(json_string_length(value));
}

static bl_status read_number(const json_t *json, const char *name, bool whole, json_t **out)
{
    *out = json_object_get(json, name);
    if (!*out || (whole ? json_is_integer(*out) : json_is_number(*out)))
        return BL_OK;
    return bl_fail(BL_INVALID, "plan: %s is not a %s", name, whole ? "whole number" : "number");
}

bl_status bl_plan_from_json(const json_t *json, bl_plan *plan)
{
    *plan = bl_plan_new();
    json_t *value;
    bl_status status =
        json_is_object(json) ? BL_OK : bl_fail(BL_INVALID, "a plan is a JSON object");
#define TEXT(name)                                                                                 \
    if (status == BL_OK)                                                                           \
        status = read_text(json, #name, &plan->name);
#define NUMBER(name)                                                                               \
    if (status == BL_OK)                                                                           \
        status = read_number(json, #name, false, &value);                                          \
    if (status == BL_OK && value)                                                                  \
        plan->name = json_number_value(value);
#define INTEGER(name)                                                                              \
    if (status == BL_OK)                                                                           \
        status = read_number(json, #name, true, &value);                                           \
    if (status == BL_OK && value)                                                                  \
        plan->name = (__typeof__(plan->name))json_integer_value(value);
    PLAN_FIELDS(TEXT, NUMBER, INTEGER)
#undef TEXT
#undef NUMBER
#undef INTEGER
    if (status != BL_OK)
        bl_plan_free(plan);
    return status;
}

void bl_plan_free(bl_plan *plan)
{
#define TEXT(name) bl_release(plan->name);
#define NONE(name)
    PLAN_FIELDS(TEXT, NONE, NONE)
#undef TEXT
#undef NONE
    *plan = bl_plan_new();
}
