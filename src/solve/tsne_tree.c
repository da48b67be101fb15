/* t-SNE of many points (van der Maaten 2014): only neighbours pull, and what pushes from afar does
 * so as groups.
 *
 * The map is cut into quarters again and again (Barnes and Hut 1986). Points are put in the order
 * in which the cells are gone through, so that those which follow each other lie together: LANES of
 * them take the same way through the cells, and a cell is taken as a whole if it is far enough for
 * all of them. A share of points is a part of the work, and sums over shares are added in their
 * order, so that the number of threads does not show. */
#include <math.h>
#include <string.h>

#include "ballast/solve.h"
#include "base/base.h"
#include "base/wide.h"
#include "exec/cpu/pool.h"
#include "exec/executor.h"
#include "solve/tsne.h"

enum {
    LANES = 8,   /* points that go through the cells together */
    SHARE = 128, /* points that a thread takes at a time */
    DEPTH = 21   /* bits of a coordinate in a place code */
};

/* The width of a cell over its distance, below which it is taken as a whole. */
static const double ANGLE = 0.5;

/* --- who pulls whom --------------------------------------------------------------------------- */

/* Row i has the entries first[i] .. first[i + 1] - 1. */
typedef struct affinities {
    int64_t *first; /* [n + 1] */
    int32_t *other;
    double *p;
} affinities;

static void free_affinities(affinities *a)
{
    bl_release(a->first);
    bl_release(a->other);
    bl_release(a->p);
    *a = (affinities){0};
}

/* nearest, d [n,k + 1]: k neighbours without the point itself, packed at the start of a row. */
static void leave_out_itself(int32_t *nearest, double *d, int64_t n, int64_t k)
{
    for (int64_t i = 0; i < n; i++) {
        int32_t *row = nearest + i * (k + 1);
        double *distance = d + i * (k + 1);
        int64_t itself = 0;
        while (itself < k && row[itself] != i)
            itself++;
        for (int64_t j = itself; j < k; j++) {
            row[j] = row[j + 1];
            distance[j] = distance[j + 1];
        }
    }
}

/* Adds v to row i's entry for j, which is appended if there is none; end[i] is where the row ends.
 */
static void add_entry(affinities *a, int64_t *end, int64_t i, int32_t j, double v)
{
    int64_t place = a->first[i];
    while (place < end[i] && a->other[place] != j)
        place++;
    a->other[place] = j;
    a->p[place] += v;
    end[i] += place == end[i];
}

/* Every neighbour makes two entries, which may meet those of the other direction. */
static bl_status join_directions(const int32_t *nearest, const double *w, int64_t n, int64_t k,
                                 affinities *a)
{
    size_t entries = (size_t)(2 * n * k + 1), bytes = (size_t)(n + 1) * sizeof(int64_t);
    int64_t *end = bl_alloc(bytes);
    *a = (affinities){bl_alloc(bytes), bl_alloc(entries * sizeof *a->other),
                      bl_alloc(entries * sizeof *a->p)};
    if (!end || !a->first || !a->other || !a->p) {
        bl_release(end);
        free_affinities(a);
        return bl_no_memory(bytes + entries * (sizeof *a->other + sizeof *a->p));
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < k; j++)
            a->first[nearest[i * (k + 1) + j] + 1]++;
    for (int64_t i = 0; i < n; i++) {
        end[i] = a->first[i];
        a->first[i + 1] += a->first[i] + k;
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < k; j++) {
            int32_t other = nearest[i * (k + 1) + j];
            double half = w[i * (k + 1) + j] / (2 * (double)n);
            add_entry(a, end, i, other, half);
            add_entry(a, end, other, (int32_t)i, half);
        }
    int64_t next = 0; /* closes the gaps of entries that met */
    for (int64_t i = 0; i < n; i++) {
        int64_t from = a->first[i];
        a->first[i] = next;
        for (int64_t e = from; e < end[i]; e++, next++) {
            a->other[next] = a->other[e];
            a->p[next] = a->p[e];
        }
    }
    a->first[n] = next;
    bl_release(end);
    return BL_OK;
}

static bl_status find_affinities(const double *x, int64_t n, int64_t size, double perplexity,
                                 affinities *out)
{
    int64_t k = (int64_t)fmin(floor(3 * perplexity), (double)(n - 1)), count = n * (k + 1);
    size_t bytes = (size_t)count * (2 * sizeof(double) + sizeof(int32_t));
    double *d = bl_alloc(bytes), *w = d ? d + count : NULL;
    if (!d)
        return bl_no_memory(bytes);
    int32_t *nearest = (int32_t *)(w + count);
    bl_status status = bl_nearest_rows(x, n, x, n, size, k + 1, nearest, d);
    if (status == BL_OK) {
        leave_out_itself(nearest, d, n, k);
        for (int64_t i = 0; i < n; i++)
            bl_tsne_conditional(d + i * (k + 1), k, -1, perplexity, w + i * (k + 1));
        status = join_directions(nearest, w, n, k, out);
    }
    bl_release(d);
    return status;
}

/* --- cells ------------------------------------------------------------------------------------ */

/* Cells in the order of a walk; all that lie within cell c come before cell `next`. */
typedef struct cell {
    double x, y, points, width2; /* centre of its points, how many, width^2; 0 if it is not cut */
    int64_t next;
} cell;

typedef struct map {
    bl_tsne_points points;
    affinities pulls;
    cell *cells;
    int64_t count;           /* of cells */
    size_t room;             /* for cells */
    int64_t *order;          /* [n]: points by place code */
    double *key;             /* [n]: place codes, in doubles: they have 42 bits */
    uint64_t *code;          /* [n], in order */
    double *x, *y, *partial; /* [n] in order; sums of w of each share */
} map;

/* The bits of the whole number below x with gaps for those of the other coordinate; of 0 where x is
 * not within 0 .. 2^DEPTH. */
static uint64_t spread(double x)
{
    uint64_t whole = x >= 0 && x < ldexp(1, DEPTH) ? (uint64_t)x : 0, out = 0;
    for (int b = 0; b < DEPTH; b++)
        out |= (whole >> b & 1) << (2 * b);
    return out;
}

/* Orders the points by their places in a square, which has the side that is returned. */
static bl_status order_points(map *m, double *side)
{
    const bl_tsne_points *p = &m->points;
    double low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
    for (int d = 0; d < 2; d++)
        for (int64_t i = 0; i < p->n; i++) {
            low[d] = fmin(low[d], p->at[d][i]);
            high[d] = fmax(high[d], p->at[d][i]);
        }
    *side = fmax(fmax(high[0] - low[0], high[1] - low[1]), 1e-300);
    double scale = (ldexp(1, DEPTH) - 1) / *side;
    for (int64_t i = 0; i < p->n; i++)
        m->key[i] = (double)(spread((p->at[0][i] - low[0]) * scale) |
                             spread((p->at[1][i] - low[1]) * scale) << 1);
    BL_TRY(bl_ascending_order(m->key, p->n, m->order));
    for (int64_t i = 0; i < p->n; i++) {
        m->code[i] = (uint64_t)m->key[m->order[i]];
        m->x[i] = p->at[0][m->order[i]];
        m->y[i] = p->at[1][m->order[i]];
    }
    return BL_OK;
}

/* Adds the cell of points first .. stop - 1, which agree in the first `level` pairs of bits, and
 * those within; a cell of one point, or of points that all the bits do not part, is not cut. */
static bl_status add_cells(map *m, int64_t first, int64_t stop, int level, double width)
{
    if (!BL_GROW(m->cells, m->count, m->room))
        return bl_no_memory((size_t)m->count * sizeof *m->cells);
    int64_t own = m->count++;
    cell c = {.points = (double)(stop - first)};
    for (int64_t i = first; i < stop; i++) {
        c.x += m->x[i] / c.points;
        c.y += m->y[i] / c.points;
    }
    bool cut = stop - first > 1 && level < DEPTH;
    c.width2 = cut ? width * width : 0;
    for (int64_t i = first; i < stop && cut;) {
        int shift = 2 * (DEPTH - 1 - level);
        uint64_t quarter = m->code[i] >> shift;
        int64_t end = i;
        while (end < stop && m->code[end] >> shift == quarter)
            end++;
        BL_TRY(add_cells(m, i, end, level + 1, width / 2));
        i = end;
    }
    c.next = m->count;
    m->cells[own] = c;
    return BL_OK;
}

/* --- forces ----------------------------------------------------------------------------------- */

/* push and sum of w of LANES points, from all cells. A point is in a cell of its own, or with those
 * that are in the same place: it adds 1 to the sum and does not push. */
BL_WIDE(push_lanes,
        (const cell *cells, int64_t count, double angle2, const double *x, const double *y,
         double push[2][LANES], double sum[LANES]),
        (cells, count, angle2, x, y, push, sum))
{
    double px[LANES] = {0}, py[LANES] = {0}, total[LANES] = {0};
    for (int64_t i = 0; i < count;) {
        const cell *c = &cells[i];
        double dx[LANES], dy[LANES], square[LANES];
        int near = 0;
        for (int l = 0; l < LANES; l++) {
            dx[l] = x[l] - c->x;
            dy[l] = y[l] - c->y;
            square[l] = dx[l] * dx[l] + dy[l] * dy[l];
            near |= c->width2 > angle2 * square[l];
        }
        if (near) {
            i++;
            continue;
        }
        for (int l = 0; l < LANES; l++) {
            double w = 1 / (1 + square[l]), all = c->points * w;
            total[l] += all;
            px[l] += all * w * dx[l];
            py[l] += all * w * dy[l];
        }
        i = c->next;
    }
    for (int l = 0; l < LANES; l++) {
        push[0][l] = px[l];
        push[1][l] = py[l];
        sum[l] = total[l];
    }
}

static void pull_point(const map *m, int64_t i)
{
    const bl_tsne_points *p = &m->points;
    double x = 0, y = 0;
    for (int64_t e = m->pulls.first[i]; e < m->pulls.first[i + 1]; e++) {
        int32_t j = m->pulls.other[e];
        double dx = p->at[0][i] - p->at[0][j], dy = p->at[1][i] - p->at[1][j];
        double w = m->pulls.p[e] / (1 + dx * dx + dy * dy);
        x += w * dx;
        y += w * dy;
    }
    p->pull[0][i] = x;
    p->pull[1][i] = y;
}

/* A part: the points first .. of the order. Lanes that have none repeat the last one. */
static void act_on_share(void *context, int64_t part, int thread)
{
    map *m = context;
    const bl_tsne_points *p = &m->points;
    int64_t stop = (part + 1) * SHARE < p->n ? (part + 1) * SHARE : p->n;
    (void)thread;
    m->partial[part] = 0;
    for (int64_t first = part * SHARE; first < stop; first += LANES) {
        double x[LANES], y[LANES], push[2][LANES], sum[LANES];
        int64_t many = stop - first < LANES ? stop - first : LANES;
        for (int l = 0; l < LANES; l++) {
            x[l] = m->x[first + (l < many ? l : many - 1)];
            y[l] = m->y[first + (l < many ? l : many - 1)];
        }
        push_lanes(m->cells, m->count, ANGLE * ANGLE, x, y, push, sum);
        for (int64_t l = 0; l < many; l++) {
            int64_t i = m->order[first + l];
            p->push[0][i] = push[0][l];
            p->push[1][i] = push[1][l];
            m->partial[part] += sum[l] - 1; /* without itself */
            pull_point(m, i);
        }
    }
}

static bl_status descend(map *m, int64_t iterations, cpu_pool *pool)
{
    int64_t shares = (m->points.n + SHARE - 1) / SHARE;
    for (int64_t step = 0; step < iterations; step++) {
        double side, total = 0;
        BL_TRY(order_points(m, &side));
        m->count = 0;
        BL_TRY(add_cells(m, 0, m->points.n, 0, side));
        cpu_pool_run(pool, act_on_share, m, shares);
        for (int64_t s = 0; s < shares; s++)
            total += m->partial[s];
        bl_tsne_descend(&m->points, step, total);
    }
    return BL_OK;
}

static bl_status map_new(const double *y, int64_t n, map *m)
{
    size_t count = (size_t)n + 1, bytes = count * (4 * sizeof(double) + 2 * sizeof(int64_t));
    m->x = bl_alloc_aligned(bytes);
    if (!m->x)
        return bl_no_memory(bytes);
    m->y = m->x + count;
    m->partial = m->y + count;
    m->key = m->partial + count;
    m->order = (int64_t *)(m->key + count);
    m->code = (uint64_t *)(m->order + count);
    return bl_tsne_points_new(y, n, &m->points);
}

bl_status bl_tsne(const double *x, int64_t n, int64_t size, double perplexity, int64_t iterations,
                  double *y)
{
    map m = {0};
    cpu_pool *pool = NULL;
    bl_status status = find_affinities(x, n, size, perplexity, &m.pulls);
    if (status == BL_OK)
        status = map_new(y, n, &m);
    if (status == BL_OK)
        status = cpu_pool_new(bl_default_threads(), &pool);
    if (status == BL_OK)
        status = descend(&m, iterations, pool);
    cpu_pool_free(pool);
    bl_tsne_points_free(&m.points, status == BL_OK ? y : NULL);
    bl_release(m.x);
    bl_release(m.cells);
    free_affinities(&m.pulls);
    return status;
}
