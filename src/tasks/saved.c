/* A trained model as a file. */
#include "tasks/saved.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- writing
 * ---------------------------------------------------------------------------------------- */
static char *description(const bl_architecture *a, const char *preparation, const char *arm,
                         const char *metrics)
{
    json_error_t where;
    json_t *json = json_pack(
        "{s:i,s:s,s:{s:s,s:I,s:I,s:I},s:o,s:s,s:o}", "format", 1, "version", BALLAST_VERSION,
        "model", "name", a->name, "width", (json_int_t)a->width, "depth", (json_int_t)a->depth,
        "outputs", (json_int_t)a->outputs, "preparation", json_loads(preparation, 0, &where), "arm",
        arm, "metrics", json_loads(metrics, 0, &where));
    char *text =
        json ? json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(json);
    return text;
}

bl_status bl_saved_write(const char *path, const bl_architecture *architecture,
                         const bl_preparation *preparation, const char *arm, const char *metrics,
                         const bl_dictionary *state)
{
    char *prepared;
    BL_TRY(bl_preparation_to_json(preparation, &prepared));
    char *text = description(architecture, prepared, arm, metrics);
    bl_dictionary file = {0};
    bl_status status = text ? bl_dictionary_set_note(&file, "ballast", text) : bl_no_memory(0);
    for (size_t i = 0; i < state->count && status == BL_OK; i++) {
        const char *name = state->entry[i].name;
        if (strncmp(name, "param/", 6) != 0 && strncmp(name, "model/", 6) != 0)
            continue;
        bl_array copy;
        status = bl_array_copy(&state->entry[i].array, &copy);
        if (status == BL_OK)
            status = bl_dictionary_set(&file, name, copy);
    }
    if (status == BL_OK)
        status = bl_safetensors_write(path, &file);
    bl_dictionary_free(&file);
    free(text);
    bl_free_text(prepared);
    return status;
}

/* --- reading
 * ------------------------------------------------------------------------------------------ */
static bl_status read_preparation(const json_t *json, bl_preparation **out)
{
    char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(17));
    if (!text)
        return bl_fail(BL_INVALID, "the description of its preprocessing is missing");
    bl_status status = bl_preparation_from_json(text, out);
    free(text);
    return status;
}

static bl_status check_outputs(const bl_saved *s)
{
    bool classes = bl_preparation_target_kind(s->preparation) == BL_CLASSES;
    int64_t wanted = classes ? bl_preparation_classes(s->preparation) : 1;
    if (s->architecture.outputs == wanted)
        return BL_OK;
    return bl_fail(BL_INVALID, "it has %lld outputs, but its target needs %lld",
                   (long long)s->architecture.outputs, (long long)wanted);
}

static bl_status read_description(const char *text, bl_saved *s)
{
    json_error_t where;
    json_t *json = json_loads(text, 0, &where);
    const char *name, *arm;
    json_int_t width, depth, outputs;
    json_t *preparation, *metrics;
    int format;
    if (!json ||
        json_unpack(json, "{s:i,s:{s:s,s:I,s:I,s:I},s:o,s:s,s:o}", "format", &format, "model",
                    "name", &name, "width", &width, "depth", &depth, "outputs", &outputs,
                    "preparation", &preparation, "arm", &arm, "metrics", &metrics) != 0) {
        json_decref(json);
        return bl_fail(BL_INVALID, "its description is damaged");
    }
    snprintf(s->name, sizeof s->name, "%s", name);
    s->architecture =
        (bl_architecture){.name = s->name, .width = width, .depth = depth, .outputs = outputs};
    s->arm = bl_copy_text(arm);
    char *dumped = json_dumps(metrics, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    s->metrics = dumped ? bl_copy_text(dumped) : NULL;
    free(dumped);
    bl_status status =
        s->arm && s->metrics ? read_preparation(preparation, &s->preparation) : bl_no_memory(0);
    if (status == BL_OK && format != 1)
        status = bl_fail(BL_INVALID, "its format is %d, this program reads 1", format);
    if (status == BL_OK)
        status = check_outputs(s);
    json_decref(json);
    return status;
}

bl_status bl_saved_read(const char *path, bl_saved *s)
{
    *s = (bl_saved){0};
    BL_TRY(bl_safetensors_read(path, &s->state));
    const char *text = bl_dictionary_note(&s->state, "ballast");
    bl_status status =
        text ? read_description(text, s)
             : bl_fail(BL_INVALID, "it holds arrays, but was not written by ballast train");
    if (status == BL_OK)
        return BL_OK;
    bl_saved_free(s);
    return bl_fail_in(status, "%s", path);
}

void bl_saved_free(bl_saved *s)
{
    bl_preparation_free(s->preparation);
    bl_dictionary_free(&s->state);
    bl_release(s->arm);
    bl_release(s->metrics);
    *s = (bl_saved){0};
}

/* --- predicting
 * ------------------------------------------------------------------------------------------ */
/* A row of logits into probabilities. */
static void softmax(float *row, int64_t classes)
{
    double largest = row[0], sum = 0;
    for (int64_t c = 1; c < classes; c++)
        largest = row[c] > largest ? row[c] : largest;
    for (int64_t c = 0; c < classes; c++)
        sum += exp(row[c] - largest);
    for (int64_t c = 0; c < classes; c++)
        row[c] = (float)(exp(row[c] - largest) / sum);
}

static bl_status prepared_inputs(const bl_saved *s, const bl_dataset *d, bl_array *out)
{
    bl_shape one = bl_preparation_shape(s->preparation),
             shape = {.rank = one.rank + 1, .dim = {d->count}};
    for (int i = 0; i < one.rank; i++)
        shape.dim[i + 1] = one.dim[i];
    BL_TRY(bl_array_new(BL_F32, shape, out));
    bl_status status = bl_preparation_inputs(s->preparation, d, NULL, d->count, bl_f32(out));
    if (status != BL_OK)
        bl_array_free(out);
    return status;
}

bl_status bl_saved_predict(const bl_saved *s, const bl_dataset *d, bl_array *out)
{
    bl_part part = {.count = d->count};
    BL_TRY(prepared_inputs(s, d, &part.inputs));
    bl_status status = bl_predict(&s->architecture, &s->state, &part, NULL, NULL, out);
    bl_array_free(&part.inputs);
    if (status != BL_OK)
        return bl_fail_in(status, "the model");
    bool classes = bl_preparation_target_kind(s->preparation) == BL_CLASSES;
    for (int64_t i = 0; i < d->count; i++)
        if (classes)
            softmax(bl_f32(out) + i * s->architecture.outputs, s->architecture.outputs);
        else
            bl_f32(out)[i] = (float)bl_preparation_to_units(s->preparation, bl_f32(out)[i]);
    return BL_OK;
}
