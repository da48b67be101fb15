/* What a run is asked besides its metrics: how it serves each group of the test part, and which
 * training labels the arm has come to doubt. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/training.h"

enum { THIRDS = 3, MOST_SUSPECTS = 1000 };

static int64_t first_largest(const float *row, int64_t count)
{
    int64_t best = 0;
    for (int64_t c = 1; c < count; c++)
        best = row[c] > row[best] ? c : best;
    return best;
}

/* --- groups ----------------------------------------------------------------------------------- */
static void accuracy_by_class(const bl_array *logits, const int32_t *labels, int64_t classes,
                              bl_group *group)
{
    for (int64_t i = 0; i < logits->type.shape.dim[0]; i++) {
        bl_group *own = &group[labels[i]];
        own->count++;
        own->value += first_largest(bl_f32(logits) + i * classes, classes) == labels[i];
    }
    for (int64_t c = 0; c < classes; c++)
        group[c].value = group[c].count ? 100 * group[c].value / (double)group[c].count : NAN;
}

/* How many of the sorted values are below x. */
static int64_t rank_of(const double *sorted, int64_t count, double x)
{
    int64_t low = 0, high = count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (sorted[middle] < x)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Silverman's width for a smoothed density of the sorted values, robust against long tails. */
static double smoothing_width(const double *sorted, int64_t count)
{
    double mean = 0, square = 0, n = (double)count;
    for (int64_t i = 0; i < count; i++)
        mean += sorted[i] / n;
    for (int64_t i = 0; i < count; i++)
        square += (sorted[i] - mean) * (sorted[i] - mean) / n;
    double spread = sqrt(square),
           middle = (sorted[3 * (count - 1) / 4] - sorted[(count - 1) / 4]) / 1.34;
    return 1.06 * (middle > 0 && middle < spread ? middle : spread) * pow(n, -0.2);
}

/* density[i]: how many training labels lie near test label i. */
static void label_density(const bl_training_data *data, double *sorted, double *density)
{
    int64_t n = data->train.count;
    for (int64_t i = 0; i < n; i++)
        sorted[i] = bl_f32(&data->train.targets)[i];
    bl_sort_doubles(sorted, (size_t)n);
    double width = smoothing_width(sorted, n);
    for (int64_t i = 0; i < data->test.count; i++) {
        double label = bl_f32(&data->test.targets)[i];
        density[i] = (double)(rank_of(sorted, n, nextafter(label + width, INFINITY)) -
                              rank_of(sorted, n, label - width));
    }
}

/* Mean absolute error of the third of the test labels with the fewest training labels near them, of
 * the middle and of the densest third. Labels of equal density stay together. */
static bl_status error_by_density(const bl_training_data *data, const bl_array *predictions,
                                  bl_group *group)
{
    int64_t n = data->test.count;
    double *sorted = bl_alloc((size_t)(data->train.count + 1) * sizeof *sorted),
           *density = bl_alloc((size_t)n * sizeof *density),
           *ordered = bl_alloc((size_t)n * sizeof *ordered);
    bl_status status = sorted && density && ordered ? BL_OK : bl_no_memory((size_t)n);
    if (status == BL_OK) {
        label_density(data, sorted, density);
        memcpy(ordered, density, (size_t)n * sizeof *ordered);
        bl_sort_doubles(ordered, (size_t)n);
    }
    for (int64_t i = 0; status == BL_OK && i < n; i++) {
        int third = density[i] < ordered[n / 3] ? 0 : density[i] < ordered[2 * n / 3] ? 1 : 2;
        double difference = (double)bl_f32(predictions)[i] - bl_f32(&data->test.targets)[i];
        group[third].count++;
        group[third].value += data->target_scale * fabs(difference);
    }
    for (int g = 0; g < THIRDS; g++)
        group[g].value = group[g].count ? group[g].value / (double)group[g].count : NAN;
    bl_release(sorted);
    bl_release(density);
    bl_release(ordered);
    return status;
}

bl_status bl_find_groups(const bl_training *t, const bl_array *outputs, bl_run_result *result)
{
    const bl_training_data *data = t->data;
    if (!data->classes && bl_array_count(outputs) != data->test.count)
        return BL_OK; /* of vectors there is no density here */
    int64_t groups = data->classes ? data->classes : THIRDS;
    result->group = bl_alloc((size_t)groups * sizeof *result->group);
    if (!result->group)
        return bl_no_memory((size_t)groups * sizeof *result->group);
    result->groups = (int)groups;
    if (!data->classes)
        return error_by_density(data, outputs, result->group);
    accuracy_by_class(outputs, bl_i32(&data->test.targets), data->classes, result->group);
    return BL_OK;
}

/* --- suspects --------------------------------------------------------------------------------- */
static int most_doubtful_first(const void *a, const void *b)
{
    const bl_suspect *p = a, *q = b;
    if (p->doubt != q->doubt)
        return p->doubt > q->doubt ? -1 : 1;
    return (p->example > q->example) - (p->example < q->example);
}

/* The beliefs f32 [N,C] of the first part that keeps some; NULL if none does. */
static const bl_array *beliefs_of(bl_training *t)
{
    const bl_array *beliefs = NULL;
    for (int i = 0; i < t->arm->parts && !beliefs; i++) {
        t->part = i;
        if (t->arm->part[i].hooks->beliefs)
            beliefs = bl_training_state(t, t->arm->part[i].hooks->beliefs);
    }
    return beliefs;
}

/* An example whose row is zero was never seen. */
static void doubt_label(const bl_training_data *data, const float *belief, int64_t i,
                        bl_run_result *result)
{
    int32_t given = bl_i32(&data->train.targets)[i];
    double sum = 0;
    for (int64_t c = 0; c < data->classes; c++)
        sum += belief[c];
    int64_t believed = first_largest(belief, data->classes);
    if (!(sum > 0) || !isfinite(sum) || believed == given)
        return;
    result->suspect[result->suspects++] =
        (bl_suspect){.example = (int32_t)i,
                     .given = given,
                     .believed = (int32_t)believed,
                     .truth = data->true_labels ? data->true_labels[i] : -1,
                     .doubt = ((double)belief[believed] - belief[given]) / sum};
}

bl_status bl_find_suspects(bl_training *t, bl_run_result *result)
{
    const bl_training_data *data = t->data;
    const bl_array *beliefs = data->classes ? beliefs_of(t) : NULL;
    int64_t n = data->train.count;
    if (!beliefs)
        return BL_OK;
    if (!(result->suspect = bl_alloc((size_t)n * sizeof *result->suspect)))
        return bl_no_memory((size_t)n * sizeof *result->suspect);
    result->doubts = true;
    for (int64_t i = 0; i < n; i++) {
        doubt_label(data, bl_f32(beliefs) + i * data->classes, i, result);
        result->wrong_labels +=
            data->true_labels && data->true_labels[i] != bl_i32(&data->train.targets)[i];
    }
    qsort(result->suspect, (size_t)result->suspects, sizeof *result->suspect, most_doubtful_first);
    result->suspects = result->suspects < MOST_SUSPECTS ? result->suspects : MOST_SUSPECTS;
    return BL_OK;
}
