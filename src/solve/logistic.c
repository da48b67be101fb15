/* Multinomial logistic regression without a penalty, by L-BFGS. */
#include <math.h>

#include "ballast/solve.h"
#include "base/base.h"

static const double TOLERANCE = 1e-7; /* of the derivatives of a mean */

typedef struct regression {
    const double *feature, *weight;
    const int32_t *label;
    int64_t n, size, classes;
    double *score; /* [classes], of one row */
} regression;

static void add_multiple(double *restrict to, double factor, const double *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += factor * x[i];
}

/* score = feature row . coefficients + intercepts; features that are 0, as most of a one-hot row
 * are, cost nothing. */
static void score_row(const regression *r, const double *coefficient, int64_t row)
{
    const double *x = r->feature + row * r->size, *intercept = coefficient + r->size * r->classes;
    for (int64_t c = 0; c < r->classes; c++)
        r->score[c] = intercept[c];
    for (int64_t j = 0; j < r->size; j++)
        if (x[j] != 0)
            add_multiple(r->score, x[j], coefficient + j * r->classes, r->classes);
}

/* Scores become probabilities; -log of the label's is returned. */
static double normalise(const regression *r, int32_t label)
{
    double most = r->score[0], sum = 0, own = r->score[label];
    for (int64_t c = 1; c < r->classes; c++)
        most = fmax(most, r->score[c]);
    for (int64_t c = 0; c < r->classes; c++)
        sum += r->score[c] = exp(r->score[c] - most);
    for (int64_t c = 0; c < r->classes; c++)
        r->score[c] /= sum;
    return log(sum) - (own - most);
}

/* The weighted mean of -log p and its gradient. */
static double objective(const double *coefficient, double *gradient, void *context)
{
    const regression *r = context;
    double sum = 0;
    for (int64_t i = 0; i < (r->size + 1) * r->classes; i++)
        gradient[i] = 0;
    for (int64_t row = 0; row < r->n; row++) {
        const double *x = r->feature + row * r->size;
        double weight = r->weight[row] / (double)r->n;
        score_row(r, coefficient, row);
        sum += weight * normalise(r, r->label[row]);
        r->score[r->label[row]] -= 1;
        for (int64_t j = 0; j < r->size; j++)
            if (x[j] != 0)
                add_multiple(gradient + j * r->classes, weight * x[j], r->score, r->classes);
        add_multiple(gradient + r->size * r->classes, weight, r->score, r->classes);
    }
    return sum;
}

static bool is_separated(const regression *r, const double *coefficient)
{
    for (int64_t row = 0; row < r->n; row++) {
        score_row(r, coefficient, row);
        for (int64_t c = 0; c < r->classes; c++)
            if (c != r->label[row] && !(r->score[c] < r->score[r->label[row]]))
                return false;
    }
    return true;
}

static double mean_log_loss(const regression *r, const double *coefficient)
{
    double sum = 0;
    for (int64_t row = 0; row < r->n; row++) {
        score_row(r, coefficient, row);
        sum += normalise(r, r->label[row]);
    }
    return sum / (double)r->n;
}

bl_status bl_logistic_regression(const double *feature, const int32_t *label, const double *weight,
                                 int64_t n, int64_t size, int64_t classes, double *coefficient,
                                 double *log_loss)
{
    size_t bytes = (size_t)classes * sizeof(double);
    regression r = {feature, weight, label, n, size, classes, bl_alloc(bytes)};
    if (!r.score)
        return bl_no_memory(bytes);
    double value;
    int64_t unknowns = (size + 1) * classes;
    for (int64_t i = 0; i < unknowns; i++)
        coefficient[i] = 0;
    bl_status status =
        bl_smooth_minimum(objective, &r, unknowns, TOLERANCE, 100, coefficient, &value);
    if (status == BL_OK && !is_separated(&r, coefficient))
        status = bl_smooth_minimum(objective, &r, unknowns, TOLERANCE, 1000, coefficient, &value);
    *log_loss = mean_log_loss(&r, coefficient);
    bl_release(r.score);
    return status;
}
