/* k-means. Assigning and averaging lower the same sum in turns, so that an assignment that comes
 * back has ended the search: what further turns would do is nothing. Rows stay where they are, so
 * they are transposed once, and a loop over a block of them is the inner one. */
#include <math.h>
#include <string.h>

#include "ballast/solve.h"
#include "base/base.h"
#include "base/wide.h"
#include "exec/cpu/pool.h"
#include "exec/executor.h"

enum {
    BLOCK = 32,     /* rows: as many sums as registers hold */
    LEAST = 1000000 /* terms of an assignment: with fewer, threads take longer to start */
};

/* The nearest centroid of each row of block[size,BLOCK], the first of equals. A distance that is no
 * number is further than any. */
BL_WIDE(assign_block,
        (const double *block, const double *centroid, int64_t clusters, int64_t size,
         int32_t nearest[BLOCK]),
        (block, centroid, clusters, size, nearest))
{
    double best[BLOCK], which[BLOCK]; /* of one width, so that both are chosen at once */
    for (int j = 0; j < BLOCK; j++) {
        best[j] = INFINITY;
        which[j] = 0;
    }
    for (int64_t c = 0; c < clusters; c++) {
        double sum[BLOCK] = {0};
        for (int64_t d = 0; d < size; d++)
            for (int j = 0; j < BLOCK; j++) {
                double apart = block[d * BLOCK + j] - centroid[c * size + d];
                sum[j] += apart * apart;
            }
        for (int j = 0; j < BLOCK; j++) {
            which[j] = sum[j] < best[j] ? (double)c : which[j];
            best[j] = sum[j] < best[j] ? sum[j] : best[j];
        }
    }
    for (int j = 0; j < BLOCK; j++)
        nearest[j] = (int32_t)which[j];
}

typedef struct clustering {
    int64_t count, size, clusters;
    const double *rows;
    double *centroid, *block; /* [clusters,size]; all rows, [size,BLOCK] for each block */
    double *sum;              /* [clusters,size], scratch */
    int64_t *members;         /* [clusters], scratch */
    int32_t *assignment, *before;
    cpu_pool *pool;
} clustering;

static void transpose_rows(clustering *k)
{
    for (int64_t i = 0; i < k->count; i++)
        for (int64_t d = 0; d < k->size; d++)
            k->block[(i - i % BLOCK) * k->size + d * BLOCK + i % BLOCK] = k->rows[i * k->size + d];
}

static void assign_part(void *context, int64_t part, int thread)
{
    const clustering *k = context;
    int64_t first = part * BLOCK, many = k->count - first < BLOCK ? k->count - first : BLOCK;
    int32_t nearest[BLOCK];
    (void)thread;
    assign_block(k->block + first * k->size, k->centroid, k->clusters, k->size, nearest);
    memcpy(k->assignment + first, nearest, (size_t)many * sizeof *nearest);
}

static void assign(clustering *k)
{
    cpu_pool_run(k->pool, assign_part, k, (k->count + BLOCK - 1) / BLOCK);
}

/* The mean of each cluster's rows; one that has none stays. */
static void update_means(clustering *k)
{
    int64_t size = k->size;
    memset(k->sum, 0, (size_t)(k->clusters * size) * sizeof *k->sum);
    memset(k->members, 0, (size_t)k->clusters * sizeof *k->members);
    for (int64_t i = 0; i < k->count; i++) {
        double *of_cluster = k->sum + k->assignment[i] * size;
        k->members[k->assignment[i]]++;
        for (int64_t d = 0; d < size; d++)
            of_cluster[d] += k->rows[i * size + d];
    }
    for (int64_t c = 0; c < k->clusters; c++)
        for (int64_t d = 0; d < size && k->members[c] > 0; d++)
            k->centroid[c * size + d] = k->sum[c * size + d] / (double)k->members[c];
}

static void take_turns(clustering *k, int64_t iterations)
{
    size_t assigned = (size_t)k->count * sizeof *k->assignment;
    assign(k);
    for (int64_t i = 0; i < iterations && k->count > 0; i++) {
        memcpy(k->before, k->assignment, assigned);
        update_means(k);
        assign(k);
        if (memcmp(k->before, k->assignment, assigned) == 0)
            break;
    }
}

bl_status bl_kmeans(const double *rows, int64_t count, int64_t size, int64_t clusters,
                    int64_t iterations, double *centroid, int32_t *assignment)
{
    int64_t whole = (count + BLOCK - 1) / BLOCK * BLOCK;
    size_t bytes = (size_t)((clusters + whole) * size) * sizeof(double) +
                   (size_t)clusters * sizeof(int64_t) + (size_t)count * sizeof(int32_t) + 1;
    clustering k = {
        count, size, clusters, rows, centroid, bl_alloc_aligned(bytes), .assignment = assignment};
    if (!k.block)
        return bl_no_memory(bytes);
    k.sum = k.block + whole * size;
    k.members = (int64_t *)(k.sum + clusters * size);
    k.before = (int32_t *)(k.members + clusters);
    int threads = count * size * clusters < LEAST ? 1 : bl_default_threads();
    bl_status status = cpu_pool_new(threads, &k.pool);
    if (status == BL_OK) {
        transpose_rows(&k);
        take_turns(&k, iterations);
    }
    cpu_pool_free(k.pool);
    bl_release(k.block);
    return status;
}
