/* One data set tells what its outcome does; several tell that one after the other, and what is over
 * them. */
#include "study/tell.h"

#include <stdlib.h>
#include <string.h>

#include "study/export.h"

bl_status bl_telling_new(int count, bl_telling *out)
{
    *out = (bl_telling){.count = count};
    out->outcome = bl_alloc((size_t)count * sizeof *out->outcome);
    return out->outcome ? BL_OK : bl_no_memory((size_t)count);
}

bl_status bl_telling_complete(bl_telling *t)
{
    return t->count > 1 ? bl_across_new(t->outcome, t->count, &t->across) : BL_OK;
}

void bl_telling_free(bl_telling *t)
{
    if (t->count > 1)
        bl_across_free(&t->across);
    bl_release(t->outcome);
    *t = (bl_telling){0};
}

bl_status bl_tell_table(const bl_telling *t, bool colour, bl_text *text)
{
    if (t->count == 1)
        return bl_outcome_table(t->outcome[0], colour, text);
    for (int i = 0; i < t->count; i++) {
        bl_text_add(text, "%s\n", t->outcome[i]->plan->data);
        BL_TRY(bl_outcome_table(t->outcome[i], colour, text));
        bl_text_add(text, "\n");
    }
    return bl_across_table(&t->across, text);
}

/* --- JSON ------------------------------------------------------------------------------------- */
static bl_status across_json(const bl_telling *t, json_t **out)
{
    json_t *studies = json_array(), *rows = NULL;
    bl_status status = BL_OK;
    for (int i = 0; i < t->count && status == BL_OK; i++) {
        json_t *one;
        status = bl_outcome_json(t->outcome[i], true, &one);
        if (status == BL_OK)
            json_array_append_new(studies, one);
    }
    if (status == BL_OK)
        status = bl_across_json(&t->across, &rows);
    *out = status == BL_OK
               ? json_pack("{s:i,s:O,s:O}", "schema", 1, "studies", studies, "across", rows)
               : NULL;
    json_decref(studies);
    json_decref(rows);
    return status == BL_OK && !*out ? bl_no_memory(0) : status;
}

bl_status bl_tell_json(const bl_telling *t, bl_text *text)
{
    json_t *json = NULL;
    BL_TRY(t->count == 1 ? bl_outcome_json(t->outcome[0], true, &json) : across_json(t, &json));
    char *dump = json_dumps(json, JSON_INDENT(1) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    if (dump)
        bl_text_add(text, "%s\n", dump);
    bool failed = !dump || text->failed;
    free(dump);
    json_decref(json);
    return failed ? bl_no_memory(0) : BL_OK;
}

/* --- CSV and LaTeX ---------------------------------------------------------------------------- */
bl_status bl_tell_csv(const bl_telling *t, bl_text *text)
{
    if (t->count == 1)
        return bl_outcome_csv(t->outcome[0], text);
    bl_csv_head("data,metric,", "mean", text);
    for (int i = 0; i < t->count; i++)
        BL_TRY(bl_csv_rows(t->outcome[i], true, text));
    return bl_across_csv(&t->across, text);
}

bl_status bl_tell_latex(const bl_telling *t, bl_text *text)
{
    for (int i = 0; i < t->count; i++)
        BL_TRY(bl_outcome_latex(t->outcome[i], text));
    return t->count > 1 ? bl_across_latex(&t->across, text) : BL_OK;
}
