/* Measures of collapse: variances, and a kernel density of the numbers of each row. In double. */
#include "methods/representation/t_jepa/collapse.h"

#include <math.h>

enum { GRID = 100 };

double tj_variance_over_rows(const tj_tokens *t)
{
    int64_t size = t->T * t->d;
    double total = 0;
    for (int64_t j = 0; j < size; j++) {
        double mean = 0, sum = 0;
        for (int64_t i = 0; i < t->N; i++)
            mean += (double)t->h[i * size + j] / (double)t->N;
        for (int64_t i = 0; i < t->N; i++)
            sum += pow((double)t->h[i * size + j] - mean, 2);
        total += sum / (double)t->N;
    }
    return size > 0 ? total / (double)size : 0;
}

/* Number k of the mean token of row i. */
static double mean_token(const tj_tokens *t, int64_t i, int64_t k)
{
    double sum = 0;
    for (int64_t j = 0; j < t->T; j++)
        sum += (double)t->h[(i * t->T + j) * t->d + k];
    return sum / (double)t->T;
}

double tj_variance_of_mean_tokens(const tj_tokens *t)
{
    double mean = 0, sum = 0, count = (double)(t->N * t->d);
    if (t->T == 0 || t->d == 0)
        return 0;
    for (int64_t i = 0; i < t->N; i++)
        for (int64_t k = 0; k < t->d; k++)
            mean += mean_token(t, i, k) / count;
    for (int64_t i = 0; i < t->N; i++)
        for (int64_t k = 0; k < t->d; k++)
            sum += pow(mean_token(t, i, k) - mean, 2) / count;
    return sum;
}

/* log of the kernel density of x[n] at `at`, up to what is the same on the grid; in logarithms, so
 * that a gap in the numbers is not a density of 0. */
static double log_density(const float *x, int64_t n, double at, double bandwidth)
{
    double nearest = INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++)
        nearest = fmin(nearest, pow((at - (double)x[i]) / bandwidth, 2) / 2);
    for (int64_t i = 0; i < n; i++)
        sum += exp(nearest - pow((at - (double)x[i]) / bandwidth, 2) / 2);
    return log(sum) - nearest;
}

/* log p of the numbers x[n] on GRID points from the least to the largest; equal numbers, and a
 * single one, give the same everywhere. */
static void log_distribution(const float *x, int64_t n, double log_p[GRID])
{
    double low = INFINITY, high = -INFINITY, mean = 0, sum = 0, largest = -INFINITY, total = 0;
    for (int64_t i = 0; i < n; i++) {
        low = fmin(low, (double)x[i]);
        high = fmax(high, (double)x[i]);
        mean += (double)x[i] / (double)n;
    }
    for (int64_t i = 0; i < n; i++)
        sum += pow((double)x[i] - mean, 2);
    double bandwidth = n > 1 ? sqrt(sum / (double)(n - 1)) * pow((double)n, -0.2) : 0;
    for (int g = 0; g < GRID; g++) {
        double at = low + (high - low) * g / (GRID - 1);
        log_p[g] = high > low ? log_density(x, n, at, bandwidth) : 0;
        largest = fmax(largest, log_p[g]);
    }
    for (int g = 0; g < GRID; g++)
        total += exp(log_p[g] - largest);
    for (int g = 0; g < GRID; g++)
        log_p[g] -= largest + log(total);
}

double tj_divergence(const float *a, const float *b, int64_t n)
{
    double log_p[GRID], log_q[GRID], sum = 0;
    log_distribution(a, n, log_p);
    log_distribution(b, n, log_q);
    for (int g = 0; g < GRID; g++)
        sum += exp(log_p[g]) * (log_p[g] - log_q[g]);
    return sum;
}

double tj_distance(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += pow((double)a[i] - (double)b[i], 2);
    return sqrt(sum);
}
