/* Metrics, on the host and in double: what a trained model is judged by. To add one, compute it
 * here and append it to the list; the tasks say which one is primary and in which direction. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/training.h"

enum { CALIBRATION_BINS = 15 };

static void add(bl_metric *out, int *count, const char *name, double value)
{
    snprintf(out[*count].name, sizeof out->name, "%s", name);
    out[(*count)++].value = value;
}

/* Log of the sum of exponentials of a row; *best is the first largest. */
static double log_sum(const float *row, int64_t classes, int64_t *best)
{
    *best = 0;
    for (int64_t c = 1; c < classes; c++)
        if (row[c] > row[*best])
            *best = c;
    double sum = 0;
    for (int64_t c = 0; c < classes; c++)
        sum += exp((double)row[c] - row[*best]);
    return row[*best] + log(sum);
}

/* Expected calibration error (Naeini et al. 2015): equal-width bins of the largest probability. */
typedef struct bl_calibration {
    double confidence[CALIBRATION_BINS], correct[CALIBRATION_BINS]; /* sums */
} bl_calibration;

static double calibration_error(const bl_calibration *c, double n)
{
    double error = 0;
    for (int i = 0; i < CALIBRATION_BINS; i++)
        error += fabs(c->confidence[i] - c->correct[i]);
    return error / n;
}

/* Logits that are not finite predict nothing: every metric is NaN then. */
int bl_metrics_classification(const bl_array *logits, const int32_t *labels, bl_metric *out)
{
    int64_t n = logits->type.shape.dim[0], classes = logits->type.shape.dim[1];
    double nll = 0, correct = 0, counted = (double)n;
    bl_calibration bins = {{0}, {0}};
    for (int64_t i = 0; i < n; i++) {
        const float *row = bl_f32(logits) + i * classes;
        int64_t best;
        double total = log_sum(row, classes, &best);
        if (!isfinite(total)) {
            counted = NAN;
            break;
        }
        double confidence = exp(row[best] - total);
        bool right = best == labels[i];
        nll += total - row[labels[i]];
        correct += right;
        int bin = (int)(confidence * CALIBRATION_BINS);
        bin = bin < CALIBRATION_BINS ? bin : CALIBRATION_BINS - 1;
        bins.confidence[bin] += confidence;
        bins.correct[bin] += right;
    }
    int count = 0;
    add(out, &count, "accuracy", 100 * correct / counted);
    add(out, &count, "error", 100 * (counted - correct) / counted);
    add(out, &count, "nll", nll / counted);
    add(out, &count, "ece", 100 * calibration_error(&bins, counted));
    return count;
}

int bl_metrics_regression(const bl_array *predictions, const float *targets, double scale,
                          bl_metric *out)
{
    int64_t n = bl_array_count(predictions);
    const float *p = bl_f32(predictions);
    double absolute = 0, squared = 0, mean = 0, spread = 0;
    for (int64_t i = 0; i < n; i++) {
        double difference = (double)p[i] - targets[i];
        absolute += fabs(difference);
        squared += difference * difference;
        mean += (double)targets[i] / (double)n;
    }
    for (int64_t i = 0; i < n; i++)
        spread += (targets[i] - mean) * (targets[i] - mean);
    int count = 0;
    add(out, &count, "mae", scale * absolute / (double)n);
    add(out, &count, "rmse", scale * sqrt(squared / (double)n));
    add(out, &count, "r2", spread > 0 ? 1 - squared / spread : NAN);
    return count;
}

double bl_mean_loss(const bl_array *logits, const bl_array *targets, const char *loss)
{
    int64_t n = logits->type.shape.dim[0], outputs = logits->type.shape.dim[1];
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const float *row = bl_f32(logits) + i * outputs;
        int64_t best;
        if (strcmp(loss, "cross_entropy") == 0) {
            sum += log_sum(row, outputs, &best) - row[bl_i32(targets)[i]];
            continue;
        }
        for (int64_t k = 0; k < outputs; k++) {
            double difference = (double)row[k] - bl_f32(targets)[i * outputs + k];
            double one = strcmp(loss, "absolute") == 0 ? fabs(difference) : difference * difference;
            sum += one / (double)outputs;
        }
    }
    return sum / (double)n;
}
