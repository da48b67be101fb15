/* k-means. Assigning and averaging lower the same sum in turns, so that an assignment that comes
 * back has ended the search: what further turns would do is nothing. */
#include <string.h>

#include "ballast/solve.h"
#include "base/base.h"

/* The mean of each cluster's rows; one that has none stays. `sum` and `members` are scratch. */
static void update_means(const double *rows, int64_t count, int64_t size, const int32_t *assignment,
                         int64_t clusters, double *centroid, double *sum, int64_t *members)
{
    memset(sum, 0, (size_t)(clusters * size) * sizeof *sum);
    memset(members, 0, (size_t)clusters * sizeof *members);
    for (int64_t i = 0; i < count; i++) {
        double *of_cluster = sum + assignment[i] * size;
        members[assignment[i]]++;
        for (int64_t d = 0; d < size; d++)
            of_cluster[d] += rows[i * size + d];
    }
    for (int64_t c = 0; c < clusters; c++)
        for (int64_t d = 0; d < size && members[c] > 0; d++)
            centroid[c * size + d] = sum[c * size + d] / (double)members[c];
}

bl_status bl_kmeans(const double *rows, int64_t count, int64_t size, int64_t clusters,
                    int64_t iterations, double *centroid, int32_t *assignment)
{
    size_t bytes = (size_t)(clusters * size) * sizeof(double) + (size_t)clusters * sizeof(int64_t) +
                   (size_t)count * sizeof(int32_t) + 1;
    double *sum = bl_alloc_aligned(bytes);
    if (!sum)
        return bl_no_memory(bytes);
    int64_t *members = (int64_t *)(sum + clusters * size);
    int32_t *before = (int32_t *)(members + clusters);
    size_t assigned = (size_t)count * sizeof *before;
    bl_status status = bl_nearest_rows(rows, count, centroid, clusters, size, 1, assignment, NULL);
    for (int64_t i = 0; i < iterations && status == BL_OK; i++) {
        if (count > 0)
            memcpy(before, assignment, assigned);
        update_means(rows, count, size, assignment, clusters, centroid, sum, members);
        status = bl_nearest_rows(rows, count, centroid, clusters, size, 1, assignment, NULL);
        if (count == 0 || memcmp(before, assignment, assigned) == 0)
            break;
    }
    bl_release(sum);
    return status;
}
