/* Names, choices and verdicts, written to the study's store. */
#include "study/record.h"

#include <stdlib.h>
#include <string.h>

#include "study/store.h"

/* --- what differs ----------------------------------------------------------------------------- */
/* In a plan, what is not given is null or negative. */
static void add_value(bl_text *text, const json_t *value)
{
    bool given =
        value && !json_is_null(value) && !(json_is_number(value) && json_number_value(value) < 0);
    char *shown =
        given ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6)) : NULL;
    bl_text_add(text, "%s", shown ? shown : "not given");
    free(shown);
}

static void add_difference(bl_text *text, const char *name, const json_t *before, const json_t *now)
{
    if (before && now ? json_equal(before, now) : before == now)
        return;
    bl_text_add(text, "%s%s was ", text->length ? "; " : "", name);
    add_value(text, before);
    bl_text_add(text, ", now ");
    add_value(text, now);
}

/* Members of either object, nested ones too. */
static void add_differences(bl_text *text, const json_t *before, const json_t *now)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)before, key, value)
    {
        const json_t *other = json_object_get(now, key);
        if (json_is_object(value) && json_is_object(other))
            add_differences(text, value, other);
        else
            add_difference(text, key, value, other);
    }
    json_object_foreach((json_t *)now, key, value)
    {
        if (!json_object_get(before, key))
            add_difference(text, key, NULL, value);
    }
}

bl_status bl_plan_differences(const char *before, const char *now, bl_text *text)
{
    json_t *old = json_loads(before, 0, NULL), *new = json_loads(now, 0, NULL);
    bool readable = json_is_object(old) && json_is_object(new);
    if (readable)
        add_differences(text, old, new);
    json_decref(old);
    json_decref(new);
    if (!readable)
        return bl_fail(BL_INVALID, "a stored plan is damaged");
    return text->failed ? bl_no_memory(text->length) : BL_OK;
}

/* --- names ------------------------------------------------------------------------------------ */
typedef struct found {
    int64_t study;
    char *plan;
} found;

static bl_status keep_plan(void *context, const bl_store_row *row)
{
    found *f = context;
    if (row->id != f->study)
        return BL_OK;
    f->plan = bl_copy_text(row->plan);
    return f->plan ? BL_OK : bl_no_memory(0);
}

static bl_status refuse(bl_store *store, int64_t study, const char *name, const char *other)
{
    found own = {.study = study};
    bl_text text = {0};
    bl_status status = bl_store_each(store, keep_plan, &own);
    if (status == BL_OK)
        status = bl_plan_differences(other, own.plan ? own.plan : "", &text);
    if (status == BL_OK)
        status = bl_fail(BL_INVALID,
                         "the name %s is another study's: %s. Take another name, or --fresh to "
                         "take this one away from it",
                         name, text.at);
    bl_release(own.plan);
    bl_text_free(&text);
    return status;
}

bl_status bl_record_name(const bl_study_options *o, const bl_job_data *data, const char *name)
{
    bl_store *store = NULL;
    int64_t study;
    char *other = NULL;
    if (!*name || strspn(name, "0123456789") == strlen(name))
        return bl_fail(BL_INVALID, "\"%s\" cannot name a study: a name is not empty, nor a number",
                       name);
    bl_status status = bl_study_open(o, data, false, &store, &study);
    if (status == BL_OK)
        status = bl_store_name(store, study, name, o->fresh, &other);
    if (status == BL_OK && other)
        status = refuse(store, study, name, other);
    bl_release(other);
    bl_store_close(store);
    return status;
}

/* --- choices and sayings ---------------------------------------------------------------------- */
bl_status bl_record_choices(const bl_study_options *o, const bl_job_data *data,
                            const bl_tuning *tuning)
{
    bl_store *store = NULL;
    int64_t study;
    bl_status status = bl_study_open(o, data, false, &store, &study);
    for (int a = 0; a < tuning->arms && status == BL_OK; a++) {
        const bl_choice *c = &tuning->choice[a];
        status = bl_store_choose(store, study, c->arm, c->trials, c->chosen, c->setting);
    }
    bl_store_close(store);
    return status;
}

static bl_status say(const bl_study_options *o, const bl_outcome *outcome, const char *command,
                     const char *table, const char *json)
{
    bl_store *store = NULL;
    int64_t study;
    bl_status status = bl_study_open(o, outcome->data, false, &store, &study);
    if (status == BL_OK)
        status = bl_store_say(store, study, command, table, json);
    bl_store_close(store);
    return status;
}

bl_status bl_record_saying(const bl_study_options *o, const bl_outcome *outcome,
                           const char *command)
{
    bl_text table = {0};
    json_t *json = NULL;
    bl_status status = bl_outcome_table(outcome, false, &table);
    if (status == BL_OK)
        status = bl_outcome_json(outcome, true, &json);
    char *text =
        json ? json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    if (status == BL_OK)
        status = text ? say(o, outcome, command, table.at, text) : bl_no_memory(0);
    free(text);
    json_decref(json);
    bl_text_free(&table);
    return status;
}
