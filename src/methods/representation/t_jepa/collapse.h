/* Whether an encoder still tells rows of a table apart. */
#ifndef BL_METHODS_T_JEPA_COLLAPSE_H
#define BL_METHODS_T_JEPA_COLLAPSE_H

#include "base/base.h"

typedef struct tj_tokens {
    const float *h; /* [N,T,d]: N rows of T tokens */
    int64_t N, T, d;
} tj_tokens;

/* The variance over rows of each number of a row, averaged. */
double tj_variance_over_rows(const tj_tokens *t);
/* The variance of all numbers of the mean token of each row. */
double tj_variance_of_mean_tokens(const tj_tokens *t);
/* sum p log(p / q) of the distributions of a[n] and b[n], each on a grid from its least to its
 * largest number: Gaussian kernel densities of bandwidth std n^-0.2 there. Never infinite. */
double tj_divergence(const float *a, const float *b, int64_t n);
double tj_distance(const float *a, const float *b, int64_t n); /* Euclidean */

#endif
