/* A preparation as JSON and back. Reading checks every part, since model files come from anywhere.
 */
#include "data/preparation.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const kinds[] = {"table", "images", "matrix"};
static const char *const target_kinds[] = {"", "classes", "values", "none"};

/* --- writing */

static json_t *texts(char *const *text, int64_t count)
{
    json_t *list = json_array();
    for (int64_t i = 0; list && i < count; i++)
        if (json_array_append_new(list, json_string(text[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *numbers(const double *x, int64_t count)
{
    json_t *list = json_array();
    for (int64_t i = 0; list && i < count; i++)
        if (json_array_append_new(list, json_real(x[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *rule_json(const bl_rule *r)
{
    if (r->kind == BL_CATEGORICAL)
        return json_pack("{s:s, s:o}", "name", r->name, "categories",
                         texts(r->category, r->categories));
    return json_pack("{s:s, s:f, s:f, s:b}", "name", r->name, "mean", r->mean, "sd", r->sd,
                     "missing", r->indicator);
}

static json_t *inputs_json(const bl_preparation *p)
{
    json_t *list = json_array();
    if (p->kind == BL_TABLE) {
        for (int32_t i = 0; list && i < p->rules; i++)
            if (json_array_append_new(list, rule_json(&p->rule[i])) != 0) {
                json_decref(list);
                return NULL;
            }
        return json_pack("{s:s, s:o}", "kind", kinds[p->kind], "columns", list);
    }
    for (int i = 0; list && i < p->shape.rank; i++)
        json_array_append_new(list, json_integer(p->shape.dim[i]));
    return json_pack("{s:s, s:o, s:o, s:o}", "kind", kinds[p->kind], "shape", list, "mean",
                     numbers(p->mean, p->statistics), "sd", numbers(p->sd, p->statistics));
}

static json_t *target_json(const bl_preparation *p)
{
    const char *kind = target_kinds[p->target_kind];
    if (p->target_kind == BL_CLASSES)
        return json_pack("{s:s, s:s, s:o}", "kind", kind, "name", p->target_name, "classes",
                         texts(p->class_name, p->classes));
    if (p->target_kind == BL_VALUES)
        return json_pack("{s:s, s:s, s:f, s:f}", "kind", kind, "name", p->target_name, "mean",
                         p->target_mean, "sd", p->target_sd);
    return json_pack("{s:s, s:s}", "kind", kind, "name", p->target_name);
}

bl_status bl_preparation_to_json(const bl_preparation *p, char **text)
{
    *text = NULL;
    json_t *whole = json_pack("{s:s, s:i, s:o, s:o}", "format", "ballast preparation", "version", 1,
                              "inputs", inputs_json(p), "target", target_json(p));
    char *dumped = whole ? json_dumps(whole, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(whole);
    if (dumped)
        *text = bl_copy_text(dumped);
    free(dumped);
    return *text
               ? BL_OK
               : bl_fail(BL_NO_MEMORY,
                         "preparation: cannot be written: memory is short, or a name is not UTF-8");
}

/* --- reading */

static bl_status wrong(const char *what)
{
    return bl_fail(BL_INVALID, "preparation: %s", what);
}

static int find_word(const json_t *word, const char *const *words, int first, int count)
{
    for (int i = first; json_is_string(word) && i < count; i++)
        if (strcmp(words[i], json_string_value(word)) == 0)
            return i;
    return -1;
}

static bl_status read_text(const json_t *value, char **out)
{
    if (!json_is_string(value))
        return wrong("a name is missing");
    *out = bl_copy_text(json_string_value(value));
    return *out ? BL_OK : bl_no_memory(json_string_length(value));
}

/* `count` is the number of texts read, so that what was read can be freed. */
static bl_status read_texts(const json_t *list, char ***out, int32_t *count)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > INT32_MAX)
        return wrong("a list of texts is missing");
    if (!(*out = bl_alloc(n * sizeof **out)))
        return bl_no_memory(n * sizeof **out);
    for (size_t i = 0; i < n; i++) {
        BL_TRY(read_text(json_array_get(list, i), &(*out)[i]));
        *count = (int32_t)i + 1;
    }
    return BL_OK;
}

static bl_status read_mean_and_sd(const json_t *mean, const json_t *sd, double *m, double *s)
{
    *m = json_number_value(mean), *s = json_number_value(sd);
    if (!json_is_number(mean) || !json_is_number(sd) || !isfinite(*m) || !isfinite(*s) || *s < 0)
        return wrong("mean and sd must be finite numbers, sd not negative");
    return BL_OK;
}

static bl_status read_rule(const json_t *about, bl_rule *r)
{
    BL_TRY(read_text(json_object_get(about, "name"), &r->name));
    const json_t *categories = json_object_get(about, "categories");
    r->kind = categories ? BL_CATEGORICAL : BL_NUMERIC;
    if (!categories) {
        r->indicator = json_is_true(json_object_get(about, "missing"));
        return read_mean_and_sd(json_object_get(about, "mean"), json_object_get(about, "sd"),
                                &r->mean, &r->sd);
    }
    BL_TRY(read_texts(categories, &r->category, &r->categories));
    for (int32_t i = 1; i < r->categories; i++)
        if (strcmp(r->category[i - 1], r->category[i]) >= 0)
            return wrong("categories must be sorted and distinct");
    return BL_OK;
}

static bl_status read_rules(const json_t *columns, bl_preparation *p)
{
    size_t n = json_array_size(columns);
    if (!json_is_array(columns) || n > INT32_MAX)
        return wrong("a table needs a list of columns");
    if (!(p->rule = bl_alloc(n * sizeof *p->rule)))
        return bl_no_memory(n * sizeof *p->rule);
    p->rules = (int32_t)n;
    for (size_t i = 0; i < n; i++)
        BL_TRY(read_rule(json_array_get(columns, i), &p->rule[i]));
    return bl_preparation_place(p);
}

static bl_status read_shape(const json_t *sizes, bl_preparation *p)
{
    int rank = p->kind == BL_IMAGES ? 3 : 1;
    if (json_array_size(sizes) != (size_t)rank)
        return wrong("images need three sizes, a matrix one");
    p->shape = (bl_shape){.rank = rank};
    int64_t product = 1;
    for (int i = 0; i < rank; i++) {
        p->shape.dim[i] = json_integer_value(json_array_get(sizes, (size_t)i));
        if (p->shape.dim[i] < 1 || __builtin_mul_overflow(product, p->shape.dim[i], &product) ||
            product > INT32_MAX)
            return wrong("a size is not a whole number of 1 or more, or too large");
    }
    return BL_OK;
}

static bl_status read_statistics(const json_t *inputs, bl_preparation *p)
{
    BL_TRY(read_shape(json_object_get(inputs, "shape"), p));
    const json_t *mean = json_object_get(inputs, "mean"), *sd = json_object_get(inputs, "sd");
    p->statistics = p->shape.dim[p->shape.rank - 1];
    size_t n = (size_t)p->statistics;
    if (json_array_size(mean) != n || json_array_size(sd) != n)
        return wrong("mean and sd must be as many as channels or features");
    p->mean = bl_alloc(n * sizeof *p->mean);
    p->sd = bl_alloc(n * sizeof *p->sd);
    if (!p->mean || !p->sd)
        return bl_no_memory(2 * n * sizeof *p->mean);
    for (size_t i = 0; i < n; i++)
        BL_TRY(read_mean_and_sd(json_array_get(mean, i), json_array_get(sd, i), &p->mean[i],
                                &p->sd[i]));
    return BL_OK;
}

static bl_status read_target(const json_t *target, bl_preparation *p)
{
    int kind = find_word(json_object_get(target, "kind"), target_kinds, 1, 4);
    if (kind < 0)
        return wrong("the target's kind must be classes, values or none");
    p->target_kind = (bl_target_kind)kind;
    BL_TRY(read_text(json_object_get(target, "name"), &p->target_name));
    if (p->target_kind == BL_CLASSES)
        return read_texts(json_object_get(target, "classes"), &p->class_name, &p->classes);
    if (p->target_kind == BL_VALUES)
        return read_mean_and_sd(json_object_get(target, "mean"), json_object_get(target, "sd"),
                                &p->target_mean, &p->target_sd);
    return BL_OK;
}

static bl_status read_whole(const json_t *whole, bl_preparation *p)
{
    const json_t *inputs = json_object_get(whole, "inputs");
    const json_t *version = json_object_get(whole, "version");
    if (!json_is_integer(version) || json_integer_value(version) != 1)
        return wrong("version 1 is expected; was this file written by a newer Ballast?");
    int kind = find_word(json_object_get(inputs, "kind"), kinds, 0, 3);
    if (kind < 0)
        return wrong("the kind of inputs must be table, images or matrix");
    p->kind = (bl_data_kind)kind;
    BL_TRY(p->kind == BL_TABLE ? read_rules(json_object_get(inputs, "columns"), p)
                               : read_statistics(inputs, p));
    return read_target(json_object_get(whole, "target"), p);
}

bl_status bl_preparation_from_json(const char *text, bl_preparation **out)
{
    *out = NULL;
    json_error_t error;
    json_t *whole = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!whole)
        return bl_fail(BL_INVALID, "preparation: not JSON: %s at %d", error.text, error.position);
    bl_preparation *p = bl_alloc(sizeof *p);
    bl_status status = p ? read_whole(whole, p) : bl_no_memory(sizeof *p);
    json_decref(whole);
    if (status == BL_OK)
        *out = p;
    else
        bl_preparation_free(p);
    return status;
}
