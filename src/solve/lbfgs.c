/* Minima of smooth functions of many variables: the limited-memory method of Broyden, Fletcher,
 * Goldfarb and Shanno (Nocedal 1980). A line search by halving and doubling finds a step that
 * lowers the value enough and ends where the slope is less steep (Lewis and Overton 2013), so that
 * every step tells something of the curvature. */
#include <math.h>

#include "ballast/solve.h"
#include "base/base.h"

enum { PAIRS = 10, MOST_TRIALS = 50 };

typedef struct search {
    bl_smooth *function;
    void *context;
    int64_t n;
    double *x, *gradient, *next, *next_gradient, *direction;
    double *step[PAIRS], *change[PAIRS]; /* of x and of the gradient, the newest at `newest` */
    double curvature[PAIRS];             /* step . change, positive */
    int pairs, newest;
} search;

static double product(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void add_multiple(double *to, double factor, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += factor * x[i];
}

static double largest(const double *x, int64_t n)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, fabs(x[i]));
    return most;
}

/* direction = -H gradient, H the inverse Hessian that the pairs tell of. */
static void choose_direction(search *s)
{
    double share[PAIRS];
    for (int64_t i = 0; i < s->n; i++)
        s->direction[i] = -s->gradient[i];
    for (int p = 0; p < s->pairs; p++) { /* newest first */
        int at = (s->newest - p + PAIRS) % PAIRS;
        share[at] = product(s->step[at], s->direction, s->n) / s->curvature[at];
        add_multiple(s->direction, -share[at], s->change[at], s->n);
    }
    if (s->pairs > 0) {
        const double *change = s->change[s->newest];
        double scale = s->curvature[s->newest] / product(change, change, s->n);
        for (int64_t i = 0; i < s->n; i++)
            s->direction[i] *= scale;
    }
    for (int p = s->pairs - 1; p >= 0; p--) {
        int at = (s->newest - p + PAIRS) % PAIRS;
        double back = product(s->change[at], s->direction, s->n) / s->curvature[at];
        add_multiple(s->direction, share[at] - back, s->step[at], s->n);
    }
}

/* next = x + length direction, with its value and gradient; false where no length is found that
 * lowers the value. */
static bool search_line(search *s, double value, double *next_value)
{
    double slope = product(s->gradient, s->direction, s->n), low = 0, high = INFINITY;
    double length = s->pairs ? 1 : fmin(1, 1 / largest(s->gradient, s->n));
    for (int trial = 0; trial < MOST_TRIALS; trial++) {
        for (int64_t i = 0; i < s->n; i++)
            s->next[i] = s->x[i] + length * s->direction[i];
        *next_value = s->function(s->next, s->next_gradient, s->context);
        if (!(*next_value <= value + 1e-4 * length * slope))
            high = length;
        else if (product(s->next_gradient, s->direction, s->n) < 0.9 * slope)
            low = length;
        else
            return *next_value < value;
        length = isinf(high) ? 2 * low : (low + high) / 2;
    }
    return false;
}

static void swap(double **a, double **b)
{
    double *kept = *a;
    *a = *b;
    *b = kept;
}

static void take_step(search *s)
{
    int at = (s->newest + 1) % PAIRS;
    for (int64_t i = 0; i < s->n; i++) {
        s->step[at][i] = s->next[i] - s->x[i];
        s->change[at][i] = s->next_gradient[i] - s->gradient[i];
    }
    s->curvature[at] = product(s->step[at], s->change[at], s->n);
    if (s->curvature[at] > 0) {
        s->newest = at;
        s->pairs += s->pairs < PAIRS;
    }
    swap(&s->x, &s->next);
    swap(&s->gradient, &s->next_gradient);
}

bl_status bl_smooth_minimum(bl_smooth *function, void *context, int64_t n, double tolerance,
                            int64_t most, double *x, double *value)
{
    size_t bytes = (size_t)(n * (5 + 2 * PAIRS) + 1) * sizeof(double);
    double *room = bl_alloc(bytes), *rest = room;
    if (!room)
        return bl_no_memory(bytes);
    search s = {.function = function, .context = context, .n = n};
    double **part[] = {&s.x, &s.gradient, &s.next, &s.next_gradient, &s.direction};
    for (int i = 0; i < 5; i++, rest += n)
        *part[i] = rest;
    for (int i = 0; i < PAIRS; i++, rest += 2 * n)
        s.step[i] = rest, s.change[i] = rest + n;
    for (int64_t i = 0; i < n; i++)
        s.x[i] = x[i];
    *value = function(s.x, s.gradient, context);
    for (int64_t steps = 0; steps < most && largest(s.gradient, n) > tolerance; steps++) {
        double next_value;
        choose_direction(&s);
        if (!search_line(&s, *value, &next_value))
            break;
        take_step(&s);
        *value = next_value;
    }
    for (int64_t i = 0; i < n; i++)
        x[i] = s.x[i];
    bl_release(room);
    return BL_OK;
}
