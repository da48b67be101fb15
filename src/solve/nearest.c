/* Nearest rows. The k nearest so far are a heap with the worst on top, and two bounds from below
 * say which rows need not be looked at. Rows are put into blocks of neighbours, halving what is
 * there at the median of its widest coordinate (Bentley 1975): a block's box bounds all of them,
 * which helps where there are few coordinates or groups. Bounds of a block's rows in single
 * precision, all at once, help anywhere. The distances of the others are sums of squared
 * differences in double, whose order does not depend on which row is the query. Rows that tie are
 * told apart by their number, so neither blocks nor threads show in the result. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "ballast/solve.h"
#include "base/base.h"
#include "base/wide.h"
#include "solve/distance.h"
#include "solve/parts.h"

enum {
    BLOCK = 64, /* rows whose bounds are computed at once: as many sums as registers hold */
    AXES = 8,   /* coordinates of a block's box */
    SHARE = 16  /* queries that a thread takes at a time */
};

typedef struct neighbour {
    double distance;
    int32_t row;
} neighbour;

static bool is_further(neighbour a, neighbour b)
{
    double x = isnan(a.distance) ? INFINITY : a.distance;
    double y = isnan(b.distance) ? INFINITY : b.distance;
    return x > y || (x == y && a.row > b.row);
}

/* Moves the entry at `place` down until no child is further. */
static void sift_down(neighbour *heap, int64_t place, int64_t count)
{
    neighbour moved = heap[place];
    for (int64_t child = 2 * place + 1; child < count; child = 2 * place + 1) {
        if (child + 1 < count && is_further(heap[child + 1], heap[child]))
            child++;
        if (!is_further(heap[child], moved))
            break;
        heap[place] = heap[child];
        place = child;
    }
    heap[place] = moved;
}

static void sift_up(neighbour *heap, int64_t place)
{
    neighbour moved = heap[place];
    while (place > 0 && is_further(moved, heap[(place - 1) / 2])) {
        heap[place] = heap[(place - 1) / 2];
        place = (place - 1) / 2;
    }
    heap[place] = moved;
}

static void offer(neighbour *heap, int64_t *held, int64_t k, neighbour candidate)
{
    if (*held < k) {
        heap[*held] = candidate;
        sift_up(heap, (*held)++);
    } else if (is_further(heap[0], candidate)) {
        heap[0] = candidate;
        sift_down(heap, 0, k);
    }
}

/* Leaves the heap in order, nearest first. */
static void put_in_order(neighbour *heap, int64_t count)
{
    for (int64_t last = count - 1; last > 0; last--) {
        neighbour furthest = heap[0];
        heap[0] = heap[last];
        heap[last] = furthest;
        sift_down(heap, 0, last);
    }
}

/* --- distances and bounds --------------------------------------------------------------------- */

BL_WIDE(squared_distance, (const double *a, const double *b, int64_t size, double *distance),
        (a, b, size, distance))
{
    *distance = bl_squared_distance(a, b, size);
}

/* bound[BLOCK] is at most the squared distance of a query q[size], whose square is `square`, to
 * each row of a block [size,BLOCK] with squares[BLOCK]: |q|^2 + |r|^2 - 2 <q,r>, less what rounding
 * may have added, `slack` of the squares. *near says whether any is below `worst`, or not a number.
 */
BL_WIDE(lower_bounds,
        (const float *q, float square, const float *block, const float *squares, int64_t size,
         float slack, float worst, float *bound, bool *near),
        (q, square, block, squares, size, slack, worst, bound, near))
{
    float product[BLOCK];
    for (int j = 0; j < BLOCK; j++)
        product[j] = size > 0 ? q[0] * block[j] : 0;
    for (int64_t d = 1; d < size; d++)
        for (int j = 0; j < BLOCK; j++)
            product[j] += q[d] * block[d * BLOCK + j];
    int below = 0;
    for (int j = 0; j < BLOCK; j++) {
        bound[j] = (square + squares[j]) * (1 - slack) - 2 * product[j];
        below |= !(bound[j] > worst);
    }
    *near = below != 0;
}

/* out[d * step] = x[d] around the middle, in single precision, and its square: NaN, which makes no
 * bound, where the middle is so far that the difference is rounding, or numbers leave the range. */
static void centre(const double *x, int64_t size, const double *middle, float *out, int64_t step,
                   float *square)
{
    double sum = 0, scale = 0;
    for (int64_t d = 0; d < size; d++) {
        double apart = x[d] - middle[d];
        out[d * step] = (float)apart;
        sum += apart * apart;
        scale += x[d] * x[d] + middle[d] * middle[d];
    }
    bool good = sum >= 1e-30 && sum <= 1e30 && sum >= 0x1p-40 * scale;
    *square = good ? (float)sum : (float)NAN;
}

/* --- blocks ----------------------------------------------------------------------------------- */

typedef struct search {
    const double *query, *rows;
    int64_t queries, count, size, k, blocks;
    float slack;
    double *middle; /* [size], of the rows */
    int axes;
    int64_t axis[AXES];   /* the widest coordinates */
    double *low, *high;   /* [AXES,blocks]: the blocks' boxes */
    double *key;          /* [count], scratch */
    int64_t *order;       /* [count]: rows, block by block */
    int64_t *place, *was; /* [count], scratch */
    float *q, *q_squares; /* the queries around the middle */
    float *r, *r_squares; /* [blocks BLOCK], the rows, in blocks [size,BLOCK] */
    neighbour *heap;      /* [queries,k] */
} search;

/* The least and largest value of a coordinate among rows first .. first+count-1 of the order. */
static void range_of(const search *s, int64_t d, int64_t first, int64_t count, double range[2])
{
    range[0] = INFINITY, range[1] = -INFINITY;
    for (int64_t i = first; i < first + count; i++) {
        double x = s->rows[s->order[i] * s->size + d];
        range[0] = x < range[0] ? x : range[0];
        range[1] = x > range[1] ? x : range[1];
    }
}

/* The coordinates with the widest range over all rows, widest first. */
static void choose_axes(search *s)
{
    double width[AXES], range[2];
    for (int64_t d = 0; d < s->size; d++) {
        range_of(s, d, 0, s->count, range);
        double wide = range[1] - range[0];
        int place = s->axes;
        for (; place > 0 && wide > width[place - 1]; place--)
            if (place < AXES) {
                width[place] = width[place - 1];
                s->axis[place] = s->axis[place - 1];
            }
        if (place == AXES)
            continue;
        width[place] = wide;
        s->axis[place] = d;
        s->axes += s->axes < AXES;
    }
}

static int64_t widest_axis(const search *s, int64_t first, int64_t count)
{
    int64_t widest = s->axis[0];
    double most = -1, range[2];
    for (int a = 0; a < s->axes; a++) {
        range_of(s, s->axis[a], first, count, range);
        if (range[1] - range[0] > most) {
            most = range[1] - range[0];
            widest = s->axis[a];
        }
    }
    return widest;
}

/* Orders rows first .. first+count-1 so that each block has neighbours; the depth is log2(count).
 */
static bl_status form_blocks(search *s, int64_t first, int64_t count)
{
    if (count <= BLOCK || s->size == 0)
        return BL_OK;
    int64_t d = widest_axis(s, first, count), half = (count / BLOCK + 1) / 2 * BLOCK;
    for (int64_t i = 0; i < count; i++) {
        s->was[i] = s->order[first + i];
        s->key[i] = s->rows[s->was[i] * s->size + d];
    }
    BL_TRY(bl_ascending_order(s->key, count, s->place));
    for (int64_t i = 0; i < count; i++)
        s->order[first + i] = s->was[s->place[i]];
    BL_TRY(form_blocks(s, first, half));
    return form_blocks(s, first + half, count - half);
}

static void fill_block(search *s, int64_t b)
{
    int64_t first = b * BLOCK, many = s->count - first < BLOCK ? s->count - first : BLOCK;
    for (int a = 0; a < s->axes; a++) {
        double range[2];
        range_of(s, s->axis[a], first, many, range);
        s->low[a * s->blocks + b] = range[0];
        s->high[a * s->blocks + b] = range[1];
    }
    for (int64_t i = first; i < first + many; i++)
        centre(s->rows + s->order[i] * s->size, s->size, s->middle,
               s->r + b * BLOCK * s->size + i % BLOCK, BLOCK, s->r_squares + i);
}

/* Adds to distance[blocks] how far x is outside of each box along one axis, squared. */
BL_WIDE(add_outside,
        (double x, const double *low, const double *high, int64_t blocks, double *distance),
        (x, low, high, blocks, distance))
{
    for (int64_t b = 0; b < blocks; b++) {
        double below = low[b] - x, above = x - high[b], outside = below > above ? below : above;
        outside = outside > 0 ? outside : 0;
        distance[b] += outside * outside;
    }
}

/* --- the search ------------------------------------------------------------------------------- */

static void search_block(const search *s, int64_t q, int64_t b, int64_t *held)
{
    int64_t first = b * BLOCK, many = s->count - first < BLOCK ? s->count - first : BLOCK;
    neighbour *heap = s->heap + q * s->k;
    const double *query = s->query + q * s->size;
    float bound[BLOCK], worst = (float)NAN;
    bool near;
    if (*held == s->k) /* rounded up */
        worst = nextafterf((float)heap[0].distance, INFINITY);
    lower_bounds(s->q + q * s->size, s->q_squares[q], s->r + first * s->size, s->r_squares + first,
                 s->size, s->slack, worst, bound, &near);
    for (int64_t j = 0; j < many && near; j++) {
        if (*held == s->k && (double)bound[j] > heap[0].distance)
            continue;
        neighbour candidate = {.row = (int32_t)s->order[first + j]};
        squared_distance(query, s->rows + candidate.row * s->size, s->size, &candidate.distance);
        offer(heap, held, s->k, candidate);
    }
}

/* Scratch of a thread. */
typedef struct share {
    int64_t start[SHARE], held[SHARE];
    double box[]; /* [SHARE,blocks] */
} share;

/* The block whose box is nearest is searched first. */
static void begin_query(const search *s, int64_t q, share *h, int i)
{
    double *box = h->box + i * s->blocks;
    memset(box, 0, (size_t)s->blocks * sizeof *box);
    for (int a = 0; a < s->axes; a++)
        add_outside(s->query[q * s->size + s->axis[a]], s->low + a * s->blocks,
                    s->high + a * s->blocks, s->blocks, box);
    h->start[i] = h->held[i] = 0;
    for (int64_t b = 1; b < s->blocks; b++)
        h->start[i] = box[b] < box[h->start[i]] ? b : h->start[i];
    search_block(s, q, h->start[i], &h->held[i]);
}

/* Whether a block may hold a row that is nearer than the worst. Rounding may have made boxes look
 * further, by less than 1e-12. */
static bool is_worth_it(const search *s, int64_t q, int64_t b, const share *h, int i)
{
    double box = h->box[i * s->blocks + b] * (1 - 1e-12);
    return b != h->start[i] && !(h->held[i] == s->k && box > s->heap[q * s->k].distance);
}

/* A part: a few queries and all blocks, each of which stays in the cache for all of the queries. */
static void search_part(void *context, int64_t part, void *scratch)
{
    const search *s = context;
    share *h = scratch;
    int64_t first = part * SHARE;
    int many = s->queries - first < SHARE ? (int)(s->queries - first) : SHARE;
    for (int i = 0; i < many; i++)
        begin_query(s, first + i, h, i);
    for (int64_t b = 0; b < s->blocks; b++)
        for (int i = 0; i < many; i++)
            if (is_worth_it(s, first + i, b, h, i))
                search_block(s, first + i, b, &h->held[i]);
    for (int i = 0; i < many; i++)
        put_in_order(s->heap + (first + i) * s->k, s->k);
}

static bl_status run_search(search *s)
{
    for (int64_t i = 0; i < s->count; i++) {
        s->order[i] = i;
        for (int64_t d = 0; d < s->size; d++)
            s->middle[d] += s->rows[i * s->size + d] / (double)s->count;
    }
    choose_axes(s);
    BL_TRY(form_blocks(s, 0, s->count));
    for (int64_t b = 0; b < s->blocks; b++)
        fill_block(s, b);
    for (int64_t q = 0; q < s->queries; q++)
        centre(s->query + q * s->size, s->size, s->middle, s->q + q * s->size, 1, s->q_squares + q);
    s->slack = 2 * FLT_EPSILON * (float)(s->size + 8);
    size_t scratch = sizeof(share) + (size_t)(SHARE * s->blocks) * sizeof(double);
    double operations = (double)s->queries * (double)s->count * (double)(s->size + 1);
    return bl_in_parts(search_part, s, (s->queries + SHARE - 1) / SHARE, scratch, operations);
}

/* Everything but the heap in one piece of memory; false if it is short. */
static bool search_new(search *s)
{
    int64_t size = s->size, count = s->count, whole = s->blocks * BLOCK;
    int64_t words = size + 2 * AXES * s->blocks + 4 * count;
    int64_t floats = (s->queries + whole) * (size + 1);
    s->heap = bl_alloc((size_t)(s->queries * s->k) * sizeof *s->heap);
    s->middle = bl_alloc_aligned((size_t)words * sizeof(double) + (size_t)floats * sizeof(float));
    if (!s->heap || !s->middle)
        return false;
    s->low = s->middle + size;
    s->high = s->low + AXES * s->blocks;
    s->key = s->high + AXES * s->blocks;
    s->order = (int64_t *)(s->key + count);
    s->place = s->order + count;
    s->was = s->place + count;
    s->r = (float *)(s->was + count);
    s->r_squares = s->r + whole * size;
    s->q = s->r_squares + whole;
    s->q_squares = s->q + s->queries * size;
    return true;
}

bl_status bl_nearest_rows(const double *query, int64_t queries, const double *rows, int64_t count,
                          int64_t size, int64_t k, int32_t *index, double *distance)
{
    if (queries == 0)
        return BL_OK;
    search s = {query, rows, queries, count, size, k, .blocks = (count + BLOCK - 1) / BLOCK};
    bl_status status = search_new(&s) ? run_search(&s) : bl_no_memory((size_t)(queries * k));
    for (int64_t i = 0; i < queries * k && status == BL_OK; i++) {
        if (index)
            index[i] = s.heap[i].row;
        if (distance)
            distance[i] = s.heap[i].distance;
    }
    bl_release(s.heap);
    bl_release(s.middle);
    return status;
}
