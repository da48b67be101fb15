/* Names, choices and verdicts, written to the study's store. */
#include "study/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- what differs ----------------------------------------------------------------------------- */
/* What a member is called in a sentence; the others are called what they are. */
static const char *call(const char *key)
{
    static const char *const names[][2] = {{"hash", "the hash of the data"},
                                           {"program", "the program's hash"},
                                           {"version", "the program's version"},
                                           {"preset", "the hash of the preset"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i][0], key))
            return names[i][1];
    return key;
}

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
    bl_text_add(text, "%s%s was ", text->length ? "; " : "", call(name));
    add_value(text, before);
    bl_text_add(text, ", now ");
    add_value(text, now);
}

static bool holds(const json_t *list, const json_t *wanted)
{
    size_t i;
    const json_t *value;
    json_array_foreach((json_t *)list, i, value)
    {
        if (json_equal(value, wanted))
            return true;
    }
    return false;
}

/* The elements of one list that the other lacks, a sentence each; whether there were any. */
static bool add_lacking(bl_text *text, const json_t *list, const json_t *other, const char *what)
{
    size_t i;
    const json_t *value;
    bool any = false;
    json_array_foreach((json_t *)list, i, value)
    {
        if (holds(other, value))
            continue;
        any = true;
        bl_text_add(text, "%s%s ", text->length ? "; " : "", what);
        add_value(text, value);
    }
    return any;
}

static void add_list_differences(bl_text *text, const char *name, const json_t *before,
                                 const json_t *now)
{
    char lost[64], found[64];
    snprintf(lost, sizeof lost, "%s: no longer", name);
    snprintf(found, sizeof found, "%s: newly", name);
    bool any = add_lacking(text, before, now, lost);
    any = add_lacking(text, now, before, found) || any;
    if (!any)
        add_difference(text, name, before, now); /* another order */
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
        else if (json_is_array(value) && json_is_array(other))
            add_list_differences(text, key, value, other);
        else
            add_difference(text, key, value, other);
    }
    json_object_foreach((json_t *)now, key, value)
    {
        if (!json_object_get(before, key))
            add_difference(text, key, NULL, value);
    }
}

/* A study's plan or a command's configuration. The hash of the data is called so, as its path is
 * "data" too. */
static json_t *read_plan(const char *text)
{
    json_t *plan = json_loads(text, 0, NULL), *hash = json_object_get(plan, "data");
    if (json_is_string(hash) && json_object_get(plan, "plan")) {
        json_object_set(plan, "hash", hash);
        json_object_del(plan, "data");
    }
    return plan;
}

bl_status bl_plan_differences(const char *before, const char *now, bl_text *text)
{
    json_t *old = read_plan(before), *new = read_plan(now);
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

static bl_status refuse(bl_store *store, int64_t study, const bl_store_label *label,
                        const bl_store_other *other)
{
    found own = {.study = study};
    bl_text text = {0};
    bl_status status = bl_store_each(store, keep_plan, &own);
    if (status == BL_OK)
        status = bl_plan_differences(other->plan, own.plan ? own.plan : "", &text);
    if (status == BL_OK && other->configuration)
        status = bl_plan_differences(other->configuration, label->configuration, &text);
    if (status == BL_OK)
        status = bl_fail(BL_INVALID,
                         "the name %s is another comparison's: %s. Take another name, or --fresh "
                         "to forget what was stored and take this one",
                         label->name, text.at);
    bl_release(own.plan);
    bl_text_free(&text);
    return status;
}

bl_status bl_record_name(const bl_study_options *o, const bl_job_data *data,
                         const bl_store_label *label)
{
    bl_store *store = NULL;
    int64_t study;
    bl_store_other other = {0};
    if (!*label->name || strspn(label->name, "0123456789") == strlen(label->name))
        return bl_fail(BL_INVALID, "\"%s\" cannot name a study: a name is not empty, nor a number",
                       label->name);
    bl_status status = bl_study_open(o, data, false, &store, &study);
    if (status == BL_OK)
        status = bl_store_name(store, study, label, o->fresh, &other);
    if (status == BL_OK && other.plan)
        status = refuse(store, study, label, &other);
    bl_store_other_free(&other);
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

bl_status bl_record_saying(const bl_study_options *o, const bl_job_data *data,
                           const bl_store_saying *saying)
{
    bl_store *store = NULL;
    int64_t study;
    bl_status status = bl_study_open(o, data, false, &store, &study);
    if (status == BL_OK)
        status = bl_store_say(store, study, saying);
    bl_store_close(store);
    return status;
}
