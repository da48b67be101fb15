/* Nearest rows. Distances to a block of rows are computed for one query at a time, coordinate by
 * coordinate over a transposed block, so that the inner loop runs over rows and every sum adds its
 * terms in the same order; the k nearest so far are a heap with the worst on top. */
#include <math.h>

#include "ballast/solve.h"
#include "base/base.h"

enum { BLOCK = 64 };

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

/* block[size,BLOCK] = rows[first..first+many), transposed. */
static void transpose_block(const double *rows, int64_t first, int64_t many, int64_t size,
                            double *block)
{
    for (int64_t j = 0; j < many; j++)
        for (int64_t d = 0; d < size; d++)
            block[d * BLOCK + j] = rows[(first + j) * size + d];
}

static void block_distances(const double *query, const double *block, int64_t size,
                            double distance[BLOCK])
{
    for (int j = 0; j < BLOCK; j++)
        distance[j] = 0;
    for (int64_t d = 0; d < size; d++) {
        for (int j = 0; j < BLOCK; j++) {
            double difference = query[d] - block[d * BLOCK + j];
            distance[j] += difference * difference;
        }
    }
}

static void offer_block(const double *query, const double *block, int64_t size, int64_t first,
                        int64_t many, neighbour *heap, int64_t *held, int64_t k)
{
    double distance[BLOCK];
    block_distances(query, block, size, distance);
    for (int64_t j = 0; j < many; j++)
        offer(heap, held, k, (neighbour){distance[j], (int32_t)(first + j)});
}

bl_status bl_nearest_rows(const double *query, int64_t queries, const double *rows, int64_t count,
                          int64_t size, int64_t k, int32_t *index, double *distance)
{
    if (queries == 0)
        return BL_OK;
    size_t heaps = (size_t)(queries * k) * sizeof(neighbour);
    size_t blocks = (size_t)(size * BLOCK + 1) * sizeof(double);
    neighbour *heap = bl_alloc(heaps);
    double *block = bl_alloc_aligned(blocks);
    if (!heap || !block) {
        bl_release(heap);
        bl_release(block);
        return bl_no_memory(heaps + blocks);
    }
    for (int64_t first = 0; first < count; first += BLOCK) {
        int64_t many = count - first < BLOCK ? count - first : BLOCK;
        transpose_block(rows, first, many, size, block);
        for (int64_t q = 0; q < queries; q++) {
            int64_t held = first < k ? first : k;
            offer_block(query + q * size, block, size, first, many, heap + q * k, &held, k);
        }
    }
    for (int64_t q = 0; q < queries; q++) {
        put_in_order(heap + q * k, k);
        for (int64_t i = q * k; i < (q + 1) * k; i++) {
            if (index)
                index[i] = heap[i].row;
            if (distance)
                distance[i] = heap[i].distance;
        }
    }
    bl_release(heap);
    bl_release(block);
    return BL_OK;
}
