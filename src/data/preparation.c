/* Preparation: raw rows to floats, by statistics of the training rows alone. What a model needs to
 * read new data is here, and goes with it (preparation_json.c). */
#include "data/preparation.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CATEGORIES = 256, LEAST_ROWS = 2, PATTERN = 1024 };

void bl_preparation_free(bl_preparation *p)
{
    if (!p)
        return;
    for (int32_t i = 0; p->rule && i < p->rules; i++) {
        bl_release(p->rule[i].name);
        bl_free_texts(p->rule[i].category, p->rule[i].categories);
    }
    bl_release(p->rule);
    bl_release(p->mean);
    bl_release(p->sd);
    bl_free_texts(p->feature, p->features);
    bl_release(p->target_name);
    bl_free_texts(p->class_name, p->classes);
    bl_release(p);
}

/* --- statistics */

/* Mean and standard deviation (dividing by n) in two passes. A constant has sd exactly 0. */
struct moments {
    double least, most, sum, squares;
    int64_t count;
};

static void first_pass(struct moments *m, double x)
{
    m->least = m->count == 0 || x < m->least ? x : m->least;
    m->most = m->count == 0 || x > m->most ? x : m->most;
    m->sum += x;
    m->count++;
}

static double mean_of(const struct moments *m)
{
    return m->count == 0 ? 0 : m->least == m->most ? m->least : m->sum / (double)m->count;
}

static double sd_of(const struct moments *m)
{
    return m->count == 0 || m->least == m->most ? 0 : sqrt(m->squares / (double)m->count);
}

static bl_status check_moments(const char *what, double mean, double sd)
{
    if (isfinite(mean) && isfinite(sd))
        return BL_OK;
    return bl_fail(BL_INVALID, "%s: its numbers are too large to standardise", what);
}

static int32_t row_at(const int32_t *rows, int64_t i)
{
    return rows ? rows[i] : (int32_t)i;
}

static bl_status fit_numbers(const double *x, const int32_t *rows, int64_t count, const char *what,
                             double *mean, double *sd, bool *missing)
{
    struct moments m = {0};
    for (int64_t i = 0; i < count; i++)
        if (!isnan(x[row_at(rows, i)]))
            first_pass(&m, x[row_at(rows, i)]);
    *mean = mean_of(&m);
    for (int64_t i = 0; i < count; i++) {
        double deviation = x[row_at(rows, i)] - *mean;
        if (!isnan(deviation))
            m.squares += deviation * deviation;
    }
    *sd = sd_of(&m);
    *missing = m.count < count;
    return check_moments(what, *mean, *sd);
}

/* --- fitting a table */

struct frequency {
    int32_t code;
    int64_t rows;
};

static int by_rows(const void *a, const void *b)
{
    const struct frequency *x = a, *y = b;
    if (x->rows != y->rows)
        return x->rows > y->rows ? -1 : 1;
    return (x->code > y->code) - (x->code < y->code);
}

static bl_status fit_categories(const bl_column *c, const int32_t *rows, int64_t count, bl_rule *r)
{
    struct frequency *f = bl_alloc((size_t)c->categories * sizeof *f);
    r->category = bl_alloc(MOST_CATEGORIES * sizeof *r->category);
    bool made = f && r->category;
    for (int32_t j = 0; made && j < c->categories; j++)
        f[j].code = j;
    for (int64_t i = 0; made && i < count; i++)
        if (c->code[row_at(rows, i)] >= 0)
            f[c->code[row_at(rows, i)]].rows++;
    if (made && c->categories > 0)
        qsort(f, (size_t)c->categories, sizeof *f, by_rows);
    for (int32_t j = 0; made && j < c->categories && j < MOST_CATEGORIES; j++) {
        if (f[j].rows < LEAST_ROWS)
            break;
        r->category[r->categories] = bl_copy_text(c->category[f[j].code]);
        made = r->category[r->categories++] != NULL;
    }
    if (made && r->categories > 0)
        qsort(r->category, (size_t)r->categories, sizeof *r->category, bl_compare_texts);
    bl_release(f);
    return made ? BL_OK : bl_no_memory((size_t)c->categories * sizeof *f);
}

static bl_status fit_table(bl_preparation *p, const bl_dataset *d, const int32_t *rows,
                           int64_t count)
{
    if (!(p->rule = bl_alloc((size_t)d->columns * sizeof *p->rule)))
        return bl_no_memory((size_t)d->columns * sizeof *p->rule);
    p->rules = d->columns;
    for (int32_t j = 0; j < d->columns; j++) {
        const bl_column *c = &d->column[j];
        bl_rule *r = &p->rule[j];
        r->kind = c->kind;
        if (!(r->name = bl_copy_text(c->name)))
            return bl_no_memory(strlen(c->name));
        if (c->kind == BL_NUMERIC)
            BL_TRY(fit_numbers(c->number, rows, count, c->name, &r->mean, &r->sd, &r->indicator));
        else
            BL_TRY(fit_categories(c, rows, count, r));
    }
    BL_TRY(bl_preparation_place(p));
    if (p->features == 0)
        return bl_fail(BL_INVALID, "%s: no column says anything: every text occurs only once",
                       d->name);
    return BL_OK;
}

static bl_status name_features(bl_preparation *p, const bl_rule *r)
{
    for (int32_t k = 0; k < (r->kind == BL_CATEGORICAL ? r->categories : 1 + r->indicator); k++) {
        char *name = r->kind == BL_CATEGORICAL ? bl_format("%s = %s", r->name, r->category[k])
                     : k == 0                  ? bl_copy_text(r->name)
                                               : bl_format("%s (missing)", r->name);
        if (!name)
            return bl_no_memory(strlen(r->name));
        p->feature[r->at + k] = name;
    }
    return BL_OK;
}

bl_status bl_preparation_place(bl_preparation *p)
{
    int64_t features = 0;
    for (int32_t j = 0; j < p->rules; j++) {
        p->rule[j].at = features;
        features +=
            p->rule[j].kind == BL_CATEGORICAL ? p->rule[j].categories : 1 + p->rule[j].indicator;
    }
    if (!(p->feature = bl_alloc((size_t)features * sizeof *p->feature)))
        return bl_no_memory((size_t)features * sizeof *p->feature);
    p->features = features;
    p->shape = BL_SHAPE(features);
    for (int32_t j = 0; j < p->rules; j++)
        BL_TRY(name_features(p, &p->rule[j]));
    return BL_OK;
}

/* --- fitting images and matrices */

static bl_status room_for_statistics(bl_preparation *p, int64_t statistics)
{
    p->statistics = statistics;
    p->mean = bl_alloc((size_t)statistics * sizeof *p->mean);
    p->sd = bl_alloc((size_t)statistics * sizeof *p->sd);
    return p->mean && p->sd ? BL_OK : bl_no_memory(2 * (size_t)statistics * sizeof *p->mean);
}

/* Pixels are whole numbers, so the sums are exact and free of any order. */
static bl_status fit_images(bl_preparation *p, const bl_dataset *d, const int32_t *rows,
                            int64_t count)
{
    const int64_t *dim = d->inputs.type.shape.dim;
    int64_t pixels = dim[1] * dim[2], channels = dim[3];
    p->shape = BL_SHAPE(dim[1], dim[2], channels);
    BL_TRY(room_for_statistics(p, channels));
    for (int64_t c = 0; c < channels; c++) {
        uint64_t sum = 0, squares = 0;
        for (int64_t i = 0; i < count; i++) {
            const uint8_t *x = bl_u8(&d->inputs) + row_at(rows, i) * pixels * channels + c;
            for (int64_t k = 0; k < pixels; k++) {
                uint32_t value = x[k * channels];
                sum += value, squares += value * value;
            }
        }
        long double n = (long double)count * (long double)pixels;
        long double variance =
            (long double)squares / n - (long double)sum / n * ((long double)sum / n);
        bool constant =
            (unsigned __int128)squares * (uint64_t)(count * pixels) == (unsigned __int128)sum * sum;
        p->mean[c] = (double)((long double)sum / n);
        p->sd[c] = constant ? 0 : sqrt((double)variance);
    }
    return BL_OK;
}

static bl_status fit_matrix(bl_preparation *p, const bl_dataset *d, const int32_t *rows,
                            int64_t count)
{
    int64_t width = d->inputs.type.shape.dim[1];
    p->shape = BL_SHAPE(width);
    const float *x = bl_f32(&d->inputs);
    BL_TRY(room_for_statistics(p, width));
    struct moments *m = bl_alloc((size_t)width * sizeof *m);
    if (!m)
        return bl_no_memory((size_t)width * sizeof *m);
    for (int64_t i = 0; i < count; i++)
        for (int64_t k = 0; k < width; k++)
            first_pass(&m[k], x[row_at(rows, i) * width + k]);
    for (int64_t k = 0; k < width; k++)
        p->mean[k] = mean_of(&m[k]);
    for (int64_t i = 0; i < count; i++)
        for (int64_t k = 0; k < width; k++) {
            double deviation = x[row_at(rows, i) * width + k] - p->mean[k];
            m[k].squares += deviation * deviation;
        }
    for (int64_t k = 0; k < width; k++)
        p->sd[k] = sd_of(&m[k]);
    bl_release(m);
    return BL_OK;
}

/* --- fitting the target, and all */

static bl_status fit_target(bl_preparation *p, const bl_dataset *d, const int32_t *rows,
                            int64_t count)
{
    p->target_kind = d->target_kind;
    if (!(p->target_name = bl_copy_text(d->target_name ? d->target_name : "")))
        return bl_no_memory(8);
    bool missing;
    if (d->target_kind == BL_VALUES)
        return fit_numbers(bl_f64(&d->target), rows, count, d->target_name, &p->target_mean,
                           &p->target_sd, &missing);
    if (d->target_kind != BL_CLASSES)
        return BL_OK;
    if (d->classes < 2)
        return bl_fail(BL_INVALID, "%s: every example has the class \"%s\"; two are needed",
                       d->name, d->class_name[0]);
    if (!(p->class_name = bl_alloc((size_t)d->classes * sizeof *p->class_name)))
        return bl_no_memory((size_t)d->classes * sizeof *p->class_name);
    p->classes = d->classes;
    for (int32_t c = 0; c < d->classes; c++)
        if (!(p->class_name[c] = bl_copy_text(d->class_name[c])))
            return bl_no_memory(strlen(d->class_name[c]));
    return BL_OK;
}

static bl_status fit(bl_preparation *p, const bl_dataset *d, const int32_t *rows, int64_t count)
{
    p->kind = d->kind;
    switch (d->kind) {
    case BL_TABLE:
        BL_TRY(fit_table(p, d, rows, count));
        break;
    case BL_IMAGES:
        BL_TRY(fit_images(p, d, rows, count));
        break;
    case BL_MATRIX:
        BL_TRY(fit_matrix(p, d, rows, count));
        break;
    }
    return fit_target(p, d, rows, count);
}

bl_status bl_preparation_fit(const bl_dataset *d, const int32_t *rows, int64_t count,
                             bl_preparation **out)
{
    *out = NULL;
    BL_TRY(bl_dataset_check_rows(d, rows, count));
    if (count == 0)
        return bl_fail(BL_INVALID, "%s: no rows to fit a preparation on", d->name);
    bl_preparation *p = bl_alloc(sizeof *p);
    if (!p)
        return bl_no_memory(sizeof *p);
    bl_status status = fit(p, d, rows, count);
    if (status == BL_OK)
        *out = p;
    else
        bl_preparation_free(p);
    return status;
}

/* --- what it says */

bl_shape bl_preparation_shape(const bl_preparation *p)
{
    return p->shape;
}

bl_target_kind bl_preparation_target_kind(const bl_preparation *p)
{
    return p->target_kind;
}

int32_t bl_preparation_classes(const bl_preparation *p)
{
    return p->classes;
}

const char *bl_preparation_class_name(const bl_preparation *p, int32_t label)
{
    return label >= 0 && label < p->classes ? p->class_name[label] : NULL;
}

const char *bl_preparation_feature(const bl_preparation *p, int64_t feature)
{
    return feature >= 0 && feature < p->features ? p->feature[feature] : NULL;
}

int32_t bl_preparation_columns(const bl_preparation *p)
{
    return p->rules;
}

const char *bl_preparation_column(const bl_preparation *p, int32_t i, bl_column_kind *kind)
{
    *kind = p->rule[i].kind;
    return p->rule[i].name;
}

double bl_preparation_to_units(const bl_preparation *p, double standardised)
{
    return p->target_mean + p->target_sd * standardised;
}

double bl_preparation_unit(const bl_preparation *p)
{
    return p->target_sd;
}

/* --- applying */

/* 0 for a constant; a new value may be far out, but never beyond a float. */
static float standardise(double x, double mean, double sd)
{
    double z = sd > 0 ? (x - mean) / sd : 0;
    return (float)fmin(fmax(z, -FLT_MAX), FLT_MAX);
}

static const bl_column *find_column(const bl_dataset *d, const char *name)
{
    for (int32_t j = 0; j < d->columns; j++)
        if (strcmp(d->column[j].name, name) == 0)
            return &d->column[j];
    return NULL;
}

static void write_numbers(const bl_rule *r, const bl_column *c, const int32_t *rows, int64_t count,
                          int64_t width, float *out)
{
    for (int64_t i = 0; i < count; i++) {
        double x = c->number[row_at(rows, i)];
        float *to = out + i * width + r->at;
        to[0] = isnan(x) ? 0 : standardise(x, r->mean, r->sd);
        if (r->indicator)
            to[1] = isnan(x) ? 1.0F : 0.0F;
    }
}

/* The feature of a text, from 0, or -1 where the rule has none. */
static int32_t feature_of(const bl_rule *r, char *const *text)
{
    char **found = r->categories > 0 ? bsearch(text, r->category, (size_t)r->categories,
                                               sizeof *found, bl_compare_texts)
                                     : NULL;
    return found ? (int32_t)(found - r->category) : -1;
}

bl_status bl_preparation_note_unseen(const bl_preparation *p, bl_dataset *d)
{
    for (int32_t j = 0; j < p->rules; j++) {
        const bl_rule *r = &p->rule[j];
        const bl_column *c = find_column(d, r->name);
        int64_t cells = 0;
        const char *example = "";
        for (int64_t i = 0; c && c->kind == BL_CATEGORICAL && i < d->count; i++)
            if (c->code[i] >= 0 && feature_of(r, &c->category[c->code[i]]) < 0) {
                example = cells ? example : c->category[c->code[i]];
                cells++;
            }
        if (cells)
            BL_TRY(bl_dataset_note(d,
                                   "column \"%s\": %lld cell%s with a text that the model does not "
                                   "know, such as \"%.40s\", count%s as missing",
                                   r->name, (long long)cells, cells == 1 ? "" : "s", example,
                                   cells == 1 ? "s" : ""));
    }
    return BL_OK;
}

static bl_status write_categories(const bl_rule *r, const bl_column *c, const int32_t *rows,
                                  int64_t count, int64_t width, float *out)
{
    int32_t *feature = bl_alloc((size_t)c->categories * sizeof *feature);
    if (!feature)
        return bl_no_memory((size_t)c->categories * sizeof *feature);
    for (int32_t j = 0; j < c->categories; j++)
        feature[j] = feature_of(r, &c->category[j]);
    for (int64_t i = 0; i < count; i++) {
        int32_t code = c->code[row_at(rows, i)];
        if (code >= 0 && feature[code] >= 0)
            out[i * width + r->at + feature[code]] = 1;
    }
    bl_release(feature);
    return BL_OK;
}

static bl_status write_table(const bl_preparation *p, const bl_dataset *d, const int32_t *rows,
                             int64_t count, float *out)
{
    memset(out, 0, (size_t)(count * p->features) * sizeof *out);
    for (int32_t j = 0; j < p->rules; j++) {
        const bl_rule *r = &p->rule[j];
        const bl_column *c = find_column(d, r->name);
        if (!c)
            return bl_fail(BL_NOT_FOUND, "%s: no column \"%s\", which the model needs", d->name,
                           r->name);
        if (c->kind != r->kind)
            return bl_fail(BL_INVALID, "%s: column \"%s\" holds %s, but the model needs %s",
                           d->name, r->name, c->kind == BL_NUMERIC ? "numbers" : "text",
                           r->kind == BL_NUMERIC ? "numbers" : "text");
        if (r->kind == BL_NUMERIC)
            write_numbers(r, c, rows, count, p->features, out);
        else
            BL_TRY(write_categories(r, c, rows, count, p->features, out));
    }
    return BL_OK;
}

static void write_matrix(const bl_preparation *p, const bl_dataset *d, const int32_t *rows,
                         int64_t count, float *out)
{
    int64_t width = p->statistics;
    for (int64_t i = 0; i < count; i++)
        for (int64_t k = 0; k < width; k++)
            out[i * width + k] =
                standardise(bl_f32(&d->inputs)[row_at(rows, i) * width + k], p->mean[k], p->sd[k]);
}

/* mean[k] and scale[k] are those of the channel of value k. */
static void normalise(const uint8_t *restrict from, const float *restrict mean,
                      const float *restrict scale, int64_t count, float *restrict to)
{
    for (int64_t k = 0; k < count; k++)
        to[k] = ((float)from[k] - mean[k]) * scale[k];
}

/* Images by row number from `from`, or in order where `rows` is NULL. */
static bl_status write_images(const bl_preparation *p, const uint8_t *from, const int32_t *rows,
                              int64_t count, float *out)
{
    int64_t size = bl_shape_count(p->shape), channels = p->statistics;
    int64_t pattern = PATTERN * channels < size ? PATTERN * channels : size;
    float *mean = bl_alloc((size_t)pattern * 2 * sizeof *mean);
    if (!mean)
        return bl_no_memory((size_t)pattern * 2 * sizeof *mean);
    float *scale = mean + pattern;
    for (int64_t k = 0; k < pattern; k++) {
        double sd = p->sd[k % channels];
        mean[k] = (float)p->mean[k % channels];
        scale[k] = sd > 0 ? (float)(1 / sd) : 0;
    }
    for (int64_t i = 0; i < count; i++)
        for (int64_t k = 0; k < size; k += pattern)
            normalise(from + row_at(rows, i) * size + k, mean, scale,
                      pattern < size - k ? pattern : size - k, out + i * size + k);
    bl_release(mean);
    return BL_OK;
}

static bl_status check_shape(const bl_preparation *p, const bl_dataset *d)
{
    static const char *const kinds[] = {"a table", "images", "a matrix"};
    char wanted[BL_TYPE_TEXT], got[BL_TYPE_TEXT];
    if (d->kind != p->kind)
        return bl_fail(BL_INVALID, "%s is %s, but the model was fitted on %s", d->name,
                       kinds[d->kind], kinds[p->kind]);
    if (p->kind == BL_TABLE)
        return BL_OK;
    bl_type one = {d->inputs.type.dtype, p->shape}, is = {d->inputs.type.dtype, {0}};
    is.shape.rank = d->inputs.type.shape.rank - 1;
    for (int i = 0; i < is.shape.rank; i++)
        is.shape.dim[i] = d->inputs.type.shape.dim[i + 1];
    if (!bl_type_equal(one, is))
        return bl_fail(BL_INVALID, "%s: examples are %s, but the model was fitted on %s", d->name,
                       bl_type_text(is, got), bl_type_text(one, wanted));
    return BL_OK;
}

bl_status bl_preparation_inputs(const bl_preparation *p, const bl_dataset *d, const int32_t *rows,
                                int64_t count, float *out)
{
    BL_TRY(bl_dataset_check_rows(d, rows, count));
    BL_TRY(check_shape(p, d));
    switch (p->kind) {
    case BL_TABLE:
        return write_table(p, d, rows, count, out);
    case BL_IMAGES:
        return write_images(p, bl_u8(&d->inputs), rows, count, out);
    case BL_MATRIX:
        write_matrix(p, d, rows, count, out);
        return BL_OK;
    }
    return BL_OK;
}

bl_status bl_preparation_pixels(const bl_preparation *p, const uint8_t *images, int64_t count,
                                float *out)
{
    if (p->kind != BL_IMAGES)
        return bl_fail(BL_INVALID, "pixels: the preparation was not fitted on images");
    return write_images(p, images, NULL, count, out);
}

/* label[c] is the fitted class of the same name as class c of `d`, -1 if there is none. */
static void match_classes(const bl_preparation *p, const bl_dataset *d, int32_t *label)
{
    for (int32_t c = 0; c < d->classes; c++) {
        label[c] = c < p->classes && strcmp(p->class_name[c], d->class_name[c]) == 0 ? c : -1;
        for (int32_t k = 0; k < p->classes && label[c] < 0; k++)
            if (strcmp(p->class_name[k], d->class_name[c]) == 0)
                label[c] = k;
    }
}

static bl_status write_classes(const bl_preparation *p, const bl_dataset *d, const int32_t *rows,
                               int64_t count, int32_t *out)
{
    int32_t *label = bl_alloc((size_t)d->classes * sizeof *label);
    if (!label)
        return bl_no_memory((size_t)d->classes * sizeof *label);
    match_classes(p, d, label);
    bl_status status = BL_OK;
    for (int64_t i = 0; i < count && status == BL_OK; i++) {
        int32_t c = bl_i32(&d->target)[row_at(rows, i)];
        out[i] = label[c];
        if (label[c] < 0)
            status = bl_fail(BL_INVALID, "%s: row %d has the class \"%s\", unknown to the model",
                             d->name, row_at(rows, i), d->class_name[c]);
    }
    bl_release(label);
    return status;
}

bl_status bl_preparation_targets(const bl_preparation *p, const bl_dataset *d, const int32_t *rows,
                                 int64_t count, void *out)
{
    BL_TRY(bl_dataset_check_rows(d, rows, count));
    if (d->target_kind != p->target_kind || p->target_kind == BL_NO_TARGET)
        return bl_fail(BL_INVALID, "%s: it has %s to predict, the model has %s", d->name,
                       d->target_kind == BL_CLASSES  ? "classes"
                       : d->target_kind == BL_VALUES ? "a number"
                                                     : "nothing",
                       p->target_kind == BL_CLASSES  ? "classes"
                       : p->target_kind == BL_VALUES ? "a number"
                                                     : "nothing");
    if (p->target_kind == BL_CLASSES)
        return write_classes(p, d, rows, count, out);
    for (int64_t i = 0; i < count; i++)
        ((float *)out)[i] =
            standardise(bl_f64(&d->target)[row_at(rows, i)], p->target_mean, p->target_sd);
    return BL_OK;
}
