/* t-SNE (van der Maaten and Hinton 2008): a map in two dimensions in which near neighbours stay
 * near.
 *
 * Everything is exact: all pairs are looked at in every step. The loops over pairs run in LANES
 * sums side by side, which the compiler turns into vector instructions without reordering anything
 * that the result depends on, and points are shared out over threads. */
#include <math.h>
#include <string.h>

#include "ballast/solve.h"
#include "base/base.h"
#include "base/wide.h"
#include "exec/cpu/pool.h"
#include "exec/executor.h"
#include "solve/distance.h"
#include "solve/parts.h"
#include "solve/tsne.h"

enum {
    LANES = 4,
    SHARE = 32, /* points that a thread takes at a time */
    FEW = 256,  /* points whose steps are over before a second thread wakes */
    MOST_TRIALS = 200
};

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

typedef struct affinities {
    const double *x;
    int64_t n, size;
    double perplexity, *p;
} affinities;

BL_WIDE(row_distances,
        (const double *x, const double *rows, int64_t n, int64_t size, double *distance),
        (x, rows, n, size, distance))
{
    for (int64_t j = 0; j < n; j++)
        distance[j] = bl_squared_distance(x, rows + j * size, size);
}

/* Row i of the probabilities; scratch is [n]. */
static void affinity_row(void *context, int64_t i, void *scratch)
{
    const affinities *a = context;
    double *row = a->p + i * a->n;
    row_distances(a->x + i * a->size, a->x, a->n, a->size, row);
    bl_tsne_conditional(row, a->n, i, a->perplexity, scratch);
    memcpy(row, scratch, (size_t)a->n * sizeof *row);
}

bl_status bl_tsne_affinities(const double *x, int64_t n, int64_t size, double perplexity, double *p)
{
    affinities a = {x, n, size, perplexity, p};
    double operations = (double)n * (double)n * (double)(size + 100);
    BL_TRY(bl_in_parts(affinity_row, &a, n, (size_t)n * sizeof(double), operations));
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++)
            p[i * n + j] = p[j * n + i] = (p[i * n + j] + p[j * n + i]) / (2 * (double)n);
    return BL_OK;
}

/* --- the map ---------------------------------------------------------------------------------- */

/* What acts on a point at x, y: [0] and [1] are sum_j p_ij w_ij (y_i - y_j), which pulls, [2] and
 * [3] are sum_j w_ij^2 (y_i - y_j), which pushes, with w = 1 / (1 + |y_i - y_j|^2); [4] is the sum
 * of w over all, itself included. */
BL_WIDE(add_forces,
        (double x, double y, const double *ax, const double *ay, const double *p, int64_t n,
         double force[5]),
        (x, y, ax, ay, p, n, force))
{
    double sum[5][LANES] = {{0}};
    int64_t whole = n - n % LANES;
    for (int64_t first = 0; first < whole; first += LANES)
        for (int l = 0; l < LANES; l++) {
            int64_t j = first + l;
            double dx = x - ax[j], dy = y - ay[j], w = 1 / (1 + dx * dx + dy * dy);
            sum[0][l] += p[j] * w * dx, sum[1][l] += p[j] * w * dy;
            sum[2][l] += w * w * dx, sum[3][l] += w * w * dy;
            sum[4][l] += w;
        }
    for (int64_t j = whole; j < n; j++) {
        double dx = x - ax[j], dy = y - ay[j], w = 1 / (1 + dx * dx + dy * dy);
        sum[0][0] += p[j] * w * dx, sum[1][0] += p[j] * w * dy;
        sum[2][0] += w * w * dx, sum[3][0] += w * w * dy;
        sum[4][0] += w;
    }
    for (int k = 0; k < 5; k++)
        force[k] = (sum[k][0] + sum[k][1]) + (sum[k][2] + sum[k][3]);
}

typedef struct map {
    bl_tsne_points points;
    const double *p;
    double *partial; /* [n]: of each point, the sum of w over all others */
} map;

static void act_on_share(void *context, int64_t part, int thread)
{
    map *m = context;
    const bl_tsne_points *t = &m->points;
    int64_t stop = (part + 1) * SHARE < t->n ? (part + 1) * SHARE : t->n;
    (void)thread;
    for (int64_t i = part * SHARE; i < stop; i++) {
        double force[5];
        add_forces(t->at[0][i], t->at[1][i], t->at[0], t->at[1], m->p + i * t->n, t->n, force);
        t->pull[0][i] = force[0], t->pull[1][i] = force[1];
        t->push[0][i] = force[2], t->push[1][i] = force[3];
        m->partial[i] = force[4] - 1; /* without itself */
    }
}

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

static void descend(map *m, int64_t iterations, cpu_pool *pool)
{
    int64_t n = m->points.n;
    for (int64_t step = 0; step < iterations; step++) {
        double total = 0;
        cpu_pool_run(pool, act_on_share, m, (n + SHARE - 1) / SHARE);
        for (int64_t i = 0; i < n; i++)
            total += m->partial[i];
        bl_tsne_descend(&m->points, step, total);
    }
}

bl_status bl_tsne_map(const double *p, int64_t n, int64_t iterations, double *y)
{
    size_t bytes = (size_t)(n + 1) * sizeof(double);
    map m = {.p = p, .partial = bl_alloc(bytes)};
    cpu_pool *pool = NULL;
    bl_status status = m.partial ? bl_tsne_points_new(y, n, &m.points) : bl_no_memory(bytes);
    if (status == BL_OK)
        status = cpu_pool_new(n < FEW ? 1 : bl_default_threads(), &pool);
    if (status == BL_OK)
        descend(&m, iterations, pool);
    cpu_pool_free(pool);
    bl_tsne_points_free(&m.points, status == BL_OK ? y : NULL);
    bl_release(m.partial);
    return status;
}
