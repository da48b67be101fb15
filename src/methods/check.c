/* A reference case: one call of one function, with the values and gradients it must give.
 *
 * A safetensors file with in.NAME, out.NAME, cot.NAME, grad.NAME; in its metadata `function`,
 * `options`, `wrt`, `rtol`, `atol`. A case that cannot be run has failed: only a shortage of memory
 * is an error of the check itself. */
#include "methods/contract.h"

typedef struct reference_case {
    bl_dictionary file;
    const bl_contract *function;
    const char *options, *wrt;
    double rtol, atol;
    bl_dictionary in, cotangent; /* views of the file's arrays: names owned, data borrowed */
    bl_dictionary got, gradient;
    bool differentiated;
} reference_case;

/* Empties a dictionary of borrowed arrays. */
static void free_views(bl_dictionary *views)
{
    for (size_t i = 0; i < views->count; i++)
        views->entry[i].array = (bl_array){0};
    bl_dictionary_free(views);
}

static void case_end(reference_case *c)
{
    free_views(&c->in);
    free_views(&c->cotangent);
    bl_dictionary_free(&c->got);
    bl_dictionary_free(&c->gradient);
    bl_dictionary_free(&c->file);
}

static const char *after(const char *name, const char *prefix)
{
    size_t length = strlen(prefix);
    return strncmp(name, prefix, length) == 0 ? name + length : NULL;
}

static bl_status add_view(bl_dictionary *views, const char *name, const bl_array *array)
{
    BL_TRY(bl_dictionary_set(views, name, (bl_array){0}));
    *bl_dictionary_find(views, name) = *array;
    return BL_OK;
}

static bl_status sort_entries(reference_case *c)
{
    for (size_t i = 0; i < c->file.count; i++) {
        const struct bl_entry *e = &c->file.entry[i];
        const char *name;
        if ((name = after(e->name, "in.")))
            BL_TRY(add_view(&c->in, name, &e->array));
        else if ((name = after(e->name, "cot.")))
            BL_TRY(add_view(&c->cotangent, name, &e->array));
        else if (after(e->name, "grad."))
            c->differentiated = true;
        else if (!after(e->name, "out."))
            return bl_fail(BL_INVALID, "the tensor %s is none of in.*, out.*, cot.*, grad.*",
                           e->name);
    }
    return BL_OK;
}

static bl_status read_tolerance(const bl_dictionary *file, const char *key, double *out)
{
    const char *text = bl_dictionary_note(file, key);
    if (!text || !bl_parse_double(text, out) || !(*out >= 0))
        return bl_fail(BL_INVALID, "the metadata give %s as %s, expected a number >= 0", key,
                       text ? text : "nothing");
    return BL_OK;
}

static bl_status case_read(reference_case *c, const char *path)
{
    BL_TRY(bl_safetensors_read(path, &c->file));
    const char *function = bl_dictionary_note(&c->file, "function");
    if (!function)
        return bl_fail(BL_INVALID, "the metadata name no function");
    BL_TRY(bl_function_find(function, &c->function));
    c->options = bl_dictionary_note(&c->file, "options");
    c->wrt = bl_dictionary_note(&c->file, "wrt");
    BL_TRY(read_tolerance(&c->file, "rtol", &c->rtol));
    BL_TRY(read_tolerance(&c->file, "atol", &c->atol));
    return sort_entries(c);
}

/* |got - want| in units of what is allowed; NaN equals NaN, an infinity itself. */
static double excess(const reference_case *c, double got, double want)
{
    if (got == want || (isnan(got) && isnan(want)))
        return 0;
    if (!isfinite(got) || !isfinite(want))
        return INFINITY;
    double allowed = c->atol + c->rtol * fabs(want);
    return allowed > 0 ? fabs(got - want) / allowed : INFINITY;
}

static bl_status compare(const reference_case *c, const char *label, const bl_array *got,
                         const bl_array *want, double *worst)
{
    char got_type[BL_TYPE_TEXT], want_type[BL_TYPE_TEXT];
    if (!got)
        return bl_fail(BL_INVALID, "%s is missing from the results", label);
    if (!bl_shape_equal(got->type.shape, want->type.shape))
        return bl_fail(BL_INVALID, "%s is %s, expected %s", label,
                       bl_type_text(got->type, got_type), bl_type_text(want->type, want_type));
    int64_t count = bl_array_count(want), bad = -1;
    double largest = 0;
    for (int64_t i = 0; i < count; i++) {
        double x = excess(c, bl_array_get(got, i), bl_array_get(want, i));
        if (x > largest || (x == INFINITY && bad < 0)) {
            largest = x;
            bad = i;
        }
    }
    if (largest > *worst)
        *worst = largest;
    if (largest > 1)
        return bl_fail(BL_INVALID, "%s[%lld]: %.9g, expected %.9g", label, (long long)bad,
                       bl_array_get(got, bad), bl_array_get(want, bad));
    return BL_OK;
}

static bl_status case_compare(const reference_case *c, double *worst)
{
    size_t compared = 0;
    for (size_t i = 0; i < c->file.count; i++) {
        const struct bl_entry *e = &c->file.entry[i];
        const char *out = after(e->name, "out."), *grad = after(e->name, "grad.");
        if (!out && !grad)
            continue;
        compared++;
        BL_TRY(
            compare(c, e->name,
                    out ? bl_dictionary_find(&c->got, out) : bl_dictionary_find(&c->gradient, grad),
                    &e->array, worst));
    }
    return compared ? BL_OK : bl_fail(BL_INVALID, "the case expects nothing: it has no out.*");
}

static bl_status case_run(reference_case *c, const char *path, const bl_device *device,
                          double *worst)
{
    BL_TRY(case_read(c, path));
    bool cotangents = c->cotangent.count > 0;
    BL_TRY(bl_function_call(c->function, device, &c->in, c->options, &c->got, c->wrt,
                            cotangents ? &c->cotangent : NULL,
                            c->differentiated ? &c->gradient : NULL));
    return case_compare(c, worst);
}

bl_status bl_check_case(const char *path, const bl_device *device, bl_check_result *out)
{
    *out = (bl_check_result){0};
    reference_case c = {0};
    bl_status status = case_run(&c, path, device, &out->worst);
    case_end(&c);
    out->passed = status == BL_OK;
    if (!out->passed)
        out->message = bl_copy_text(bl_error());
    return status == BL_NO_MEMORY ? status : BL_OK;
}
