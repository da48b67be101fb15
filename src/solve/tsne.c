/* t-SNE (van der Maaten and Hinton 2008): a map in two dimensions in which near neighbours stay
 * near.
 *
 * Everything is exact: all pairs are looked at in every step. The loops over pairs run in LANES
 * sums side by side, which the compiler turns into vector instructions without reordering anything
 * that the result depends on. */
#include <math.h>
#include <string.h>

#include "ballast/solve.h"
#include "base/base.h"
#include "solve/tsne.h"

enum { LANES = 4, MOST_TRIALS = 200 };

/* --- affinities ------------------------------------------------------------------------------- */

/* The entropy, in nats, of w_j = exp(-beta d_j) over the row without entry `self`, and how it falls
 * with beta: minus beta times the variance of d. w is written; its sum is returned. */
static double weigh(const double *d, int64_t n, int64_t self, double beta, double *w,
                    double *entropy, double *slope)
{
    double sum = 0, first = 0, second = 0;
    for (int64_t j = 0; j < n; j++) {
        w[j] = j == self ? 0 : exp(-beta * d[j]);
        sum += w[j];
        first += w[j] * d[j];
        second += w[j] * d[j] * d[j];
    }
    double mean = first / sum;
    *entropy = log(sum) + beta * mean;
    *slope = -beta * (second / sum - mean * mean);
    return sum;
}

/* Newton's step, where it stays between what is known to be too low and too high. */
static double next_beta(double beta, double step, double low, double high)
{
    double next = fmin(beta + step, 4 * beta);
    if (next > low && next < high)
        return next;
    return isinf(high) ? 4 * beta : (low + high) / 2;
}

/* Where points coincide there may be no such beta: the last one tried is as near as numbers allow.
 */
void bl_tsne_conditional(double *d, int64_t n, int64_t self, double perplexity, double *w)
{
    double nearest = INFINITY, mean = 0, low = 0, high = INFINITY, sum = 1;
    for (int64_t j = 0; j < n; j++)
        nearest = j != self && d[j] < nearest ? d[j] : nearest;
    for (int64_t j = 0; j < n; j++) {
        d[j] = j == self ? 0 : d[j] - nearest; /* the same probabilities, and no underflow */
        mean += d[j] / (double)(n - 1);
    }
    double beta = mean > 0 ? 1 / mean : 1, entropy, slope;
    for (int trial = 0; trial < MOST_TRIALS; trial++) {
        sum = weigh(d, n, self, beta, w, &entropy, &slope);
        double excess = entropy - log(perplexity);
        if (fabs(excess) <= 1e-10)
            break;
        if (excess > 0)
            low = beta;
        else
            high = beta;
        double next = next_beta(beta, -excess / slope, low, high);
        if (next == beta || !(next < 1e150))
            break;
        beta = next;
    }
    for (int64_t j = 0; j < n; j++)
        w[j] /= sum;
}

static void squared_distances(const double *x, int64_t n, int64_t size, double *distance)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < i; j++) {
            double sum = 0;
            for (int64_t k = 0; k < size; k++) {
                double difference = x[i * size + k] - x[j * size + k];
                sum += difference * difference;
            }
            distance[i * n + j] = distance[j * n + i] = sum;
        }
}

bl_status bl_tsne_affinities(const double *x, int64_t n, int64_t size, double perplexity, double *p)
{
    size_t bytes = (size_t)n * sizeof(double);
    double *row = bl_alloc(bytes);
    if (!row)
        return bl_no_memory(bytes);
    squared_distances(x, n, size, p);
    for (int64_t i = 0; i < n; i++) {
        p[i * n + i] = 0;
        bl_tsne_conditional(p + i * n, n, i, perplexity, row);
        memcpy(p + i * n, row, bytes);
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++)
            p[i * n + j] = p[j * n + i] = (p[i * n + j] + p[j * n + i]) / (2 * (double)n);
    bl_release(row);
    return BL_OK;
}

/* --- the map ---------------------------------------------------------------------------------- */

/* What acts on point i: sum_j p_ij w_ij (y_i - y_j) pulls, sum_j w_ij^2 (y_i - y_j) pushes, with
 * w = 1 / (1 + |y_i - y_j|^2); returns the sum of w over all others. */
static double forces(const bl_tsne_points *m, const double *affinities, int64_t i)
{
    double sum[LANES] = {0}, pull[2][LANES] = {{0}}, push[2][LANES] = {{0}};
    const double *p = affinities + i * m->n, *ax = m->at[0], *ay = m->at[1];
    int64_t whole = m->n - m->n % LANES;
    for (int64_t first = 0; first < whole; first += LANES)
        for (int l = 0; l < LANES; l++) {
            int64_t j = first + l;
            double dx = ax[i] - ax[j], dy = ay[i] - ay[j], w = 1 / (1 + dx * dx + dy * dy);
            sum[l] += w;
            pull[0][l] += p[j] * w * dx, pull[1][l] += p[j] * w * dy;
            push[0][l] += w * w * dx, push[1][l] += w * w * dy;
        }
    for (int64_t j = whole; j < m->n; j++) {
        double dx = ax[i] - ax[j], dy = ay[i] - ay[j], w = 1 / (1 + dx * dx + dy * dy);
        sum[0] += w;
        pull[0][0] += p[j] * w * dx, pull[1][0] += p[j] * w * dy;
        push[0][0] += w * w * dx, push[1][0] += w * w * dy;
    }
    for (int d = 0; d < 2; d++) {
        m->pull[d][i] = (pull[d][0] + pull[d][1]) + (pull[d][2] + pull[d][3]);
        m->push[d][i] = (push[d][0] + push[d][1]) + (push[d][2] + push[d][3]);
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]) - 1; /* without itself */
}

/* One step of momentum descent; the gradient is 4 (exaggeration pull - push / sum of all w). */
void bl_tsne_descend(bl_tsne_points *m, int64_t step, double total)
{
    const int64_t early = 250; /* steps in which groups form: attraction is exaggerated */
    double rate = fmax((double)m->n / 48, 50);
    double exaggeration = step < early ? 12 : 1, momentum = step < early ? 0.5 : 0.8;
    for (int d = 0; d < 2; d++)
        for (int64_t i = 0; i < m->n; i++) {
            double slope = 4 * (exaggeration * m->pull[d][i] - m->push[d][i] / total);
            double *speed = &m->speed[d][i], *gain = &m->gain[d][i];
            *gain = *speed * slope < 0 ? *gain + 0.2 : fmax(*gain * 0.8, 0.01);
            *speed = momentum * *speed - rate * *gain * slope;
            m->at[d][i] += *speed;
        }
}

bl_status bl_tsne_points_new(const double *y, int64_t n, bl_tsne_points *out)
{
    size_t bytes = (size_t)(10 * n + 1) * sizeof(double);
    double *memory = bl_alloc_aligned(bytes);
    if (!memory)
        return bl_no_memory(bytes);
    *out = (bl_tsne_points){.n = n, .memory = memory};
    for (int d = 0; d < 2; d++) {
        double *part = memory + 5 * d * n;
        out->at[d] = part, out->speed[d] = part + n, out->gain[d] = part + 2 * n;
        out->pull[d] = part + 3 * n, out->push[d] = part + 4 * n;
        for (int64_t i = 0; i < n; i++) {
            out->at[d][i] = y[2 * i + d];
            out->gain[d][i] = 1;
        }
    }
    return BL_OK;
}

void bl_tsne_points_free(bl_tsne_points *points, double *y)
{
    for (int64_t i = 0; i < points->n && y; i++)
        for (int d = 0; d < 2; d++)
            y[2 * i + d] = points->at[d][i];
    bl_release(points->memory);
}

bl_status bl_tsne_map(const double *p, int64_t n, int64_t iterations, double *y)
{
    bl_tsne_points m;
    BL_TRY(bl_tsne_points_new(y, n, &m));
    for (int64_t step = 0; step < iterations; step++) {
        double total = 0;
        for (int64_t i = 0; i < n; i++)
            total += forces(&m, p, i);
        bl_tsne_descend(&m, step, total);
    }
    bl_tsne_points_free(&m, y);
    return BL_OK;
}
