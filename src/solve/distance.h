/* Squared distances of rows in double: the one order of summing that nearest rows and t-SNE share. */
#ifndef BL_SOLVE_DISTANCE_H
#define BL_SOLVE_DISTANCE_H

#include <stdint.h>

#include "base/wide.h"

/* |a - b|^2 of two rows of `size`, eight sums side by side; for loops within a BL_WIDE. */
BL_WIDE_INLINE double bl_squared_distance(const double *a, const double *b, int64_t size)
{
    double sum[8] = {0};
    int64_t d = 0;
    for (; d + 8 <= size; d += 8)
        for (int j = 0; j < 8; j++)
            sum[j] += (a[d + j] - b[d + j]) * (a[d + j] - b[d + j]);
    for (int j = 0; d + j < size; j++)
        sum[j] += (a[d + j] - b[d + j]) * (a[d + j] - b[d + j]);
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

#endif
