/* Mutual information, in nats, from samples: of two discrete variables by their frequencies, of a
 * number and a class by distances to neighbours. Both sort first, so that the rest is linear. */
#include <math.h>

#include "ballast/solve.h"
#include "base/base.h"

/* --- two discrete variables ------------------------------------------------------------------- */

/* Samples grouped by the value of one variable. */
typedef struct grouped {
    int32_t *number; /* [n], of each sample's value */
    int32_t values;
    int64_t *first;  /* [values + 1], where a value's samples start in `sample` */
    int64_t *sample; /* [n] */
} grouped;

static void free_groups(grouped *g)
{
    bl_release(g->number);
    bl_release(g->first);
    bl_release(g->sample);
}

static bl_status group_by_value(const int32_t *value, int64_t n, grouped *g)
{
    size_t count = (size_t)n + 2, bytes = count * (sizeof *g->number + 2 * sizeof *g->first);
    *g = (grouped){.number = bl_alloc(count * sizeof *g->number),
                   .first = bl_alloc(count * sizeof *g->first),
                   .sample = bl_alloc(count * sizeof *g->sample)};
    bl_status status = g->number && g->first && g->sample ? BL_OK : bl_no_memory(bytes);
    if (status == BL_OK)
        status = bl_number_values(value, n, g->number, &g->values);
    if (status != BL_OK) {
        free_groups(g);
        return status;
    }
    for (int64_t v = 0; v <= g->values + 1; v++)
        g->first[v] = 0;
    for (int64_t i = 0; i < n; i++) /* one place too far, until the samples are put */
        g->first[g->number[i] + 2]++;
    for (int64_t v = 2; v <= g->values; v++)
        g->first[v] += g->first[v - 1];
    for (int64_t i = 0; i < n; i++)
        g->sample[g->first[g->number[i] + 1]++] = i;
    return BL_OK;
}

static int64_t size_of(const grouped *g, int32_t value)
{
    return g->first[value + 1] - g->first[value];
}

/* sum over pairs of values of n_ab log(n n_ab / (n_a n_b)); joint[values of b] is zero. */
static double sum_of_pairs(const grouped *a, const grouped *b, int64_t n, int64_t *joint)
{
    double sum = 0;
    for (int32_t v = 0; v < a->values; v++) {
        for (int64_t i = a->first[v]; i < a->first[v + 1]; i++)
            joint[b->number[a->sample[i]]]++;
        for (int64_t i = a->first[v]; i < a->first[v + 1]; i++) {
            int32_t w = b->number[a->sample[i]];
            double both = (double)joint[w], alone = (double)size_of(a, v) * (double)size_of(b, w);
            if (joint[w] > 0)
                sum += both * log(both * (double)n / alone);
            joint[w] = 0;
        }
    }
    return sum;
}

bl_status bl_mutual_information(const int32_t *a, const int32_t *b, int64_t n, double *nats)
{
    grouped x, y;
    BL_TRY(group_by_value(a, n, &x));
    bl_status status = group_by_value(b, n, &y);
    if (status != BL_OK) {
        free_groups(&x);
        return status;
    }
    size_t bytes = ((size_t)y.values + 1) * sizeof(int64_t);
    int64_t *joint = bl_alloc(bytes);
    if (joint) {
        *nats = sum_of_pairs(&x, &y, n, joint) / (double)n;
    } else {
        status = bl_no_memory(bytes);
    }
    bl_release(joint);
    free_groups(&x);
    free_groups(&y);
    return status;
}

/* --- a number and a class --------------------------------------------------------------------- */

/* Samples whose class has another one, in ascending order. */
typedef struct neighbourhood {
    double *x;        /* [kept] */
    double *member;   /* [kept], those of one class after another, each ascending */
    double *harmonic; /* [n + 1]: H(i - 1), which is digamma(i) + 0.577.. */
    int64_t kept;
} neighbourhood;

/* How many of x[kept] are nearer to `at` than `radius`, or equal to it. */
static int64_t count_within(const neighbourhood *h, double at, double radius)
{
    int64_t low = 0, high = h->kept, start;
    while (low < high) { /* the first that is within */
        int64_t middle = (low + high) / 2;
        bool within = h->x[middle] >= at || at - h->x[middle] < radius;
        *(within ? &high : &low) = within ? middle : middle + 1;
    }
    start = low;
    high = h->kept;
    while (low < high) { /* the first beyond */
        int64_t middle = (low + high) / 2;
        bool within = h->x[middle] <= at || h->x[middle] - at < radius;
        *(within ? &low : &high) = within ? middle + 1 : middle;
    }
    return low - start;
}

/* sum of digamma(k_i) - digamma(n_y) - digamma(m_i) over a class, x[count] ascending, count >= 2.
 * The k nearest of a sample and itself lie side by side, in a window that only moves up. */
static double sum_of_class(const neighbourhood *h, const double *x, int64_t count, int64_t k)
{
    int64_t near = k < count - 1 ? k : count - 1, first = 0;
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        while (first + near < i ||
               (first + near + 1 < count && x[first + near + 1] - x[i] < x[i] - x[first]))
            first++;
        double radius = fmax(x[i] - x[first], x[first + near] - x[i]);
        int64_t within = count_within(h, x[i], radius);
        sum += h->harmonic[near] - h->harmonic[count] - h->harmonic[within];
    }
    return sum;
}

/* Fills x and member from the groups; order[n] sorts the samples. */
static void keep_samples(neighbourhood *h, const double *x, const grouped *y, const int64_t *order,
                         int64_t n, int64_t *next)
{
    h->kept = 0;
    for (int32_t v = 0; v < y->values; v++)
        next[v] = y->first[v];
    for (int64_t i = 0; i < n; i++) {
        int32_t v = y->number[order[i]];
        h->member[next[v]++] = x[order[i]];
        if (size_of(y, v) > 1)
            h->x[h->kept++] = x[order[i]];
    }
}

static double estimate(const neighbourhood *h, const grouped *y, int64_t k)
{
    double sum = 0;
    for (int32_t v = 0; v < y->values; v++)
        if (size_of(y, v) > 1)
            sum += sum_of_class(h, h->member + y->first[v], size_of(y, v), k);
    return fmax(0, h->harmonic[h->kept] + sum / (double)h->kept);
}

static void fill_harmonic(double *harmonic, int64_t n)
{
    harmonic[0] = 0;
    for (int64_t i = 1; i <= n; i++)
        harmonic[i] = i == 1 ? 0 : harmonic[i - 1] + 1 / (double)(i - 1);
}

bl_status bl_mutual_information_nearest(const double *x, const int32_t *y, int64_t n, int64_t k,
                                        double *nats)
{
    grouped classes;
    BL_TRY(group_by_value(y, n, &classes));
    size_t count = (size_t)n + 1, bytes = count * (3 * sizeof(double) + 2 * sizeof(int64_t));
    double *room = bl_alloc(bytes);
    if (!room) {
        free_groups(&classes);
        return bl_no_memory(bytes);
    }
    int64_t *order = (int64_t *)(room + 3 * count), *next = order + count;
    neighbourhood h = {.x = room, .member = room + count, .harmonic = room + 2 * count};
    bl_status status = bl_ascending_order(x, n, order);
    if (status == BL_OK) {
        keep_samples(&h, x, &classes, order, n, next);
        fill_harmonic(h.harmonic, n);
        *nats = h.kept ? estimate(&h, &classes, k) : (double)NAN;
    }
    bl_release(room);
    free_groups(&classes);
    return status;
}
