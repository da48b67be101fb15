/* What t-SNE over all pairs (tsne.c) and over near ones (tsne_tree.c) share. */
#ifndef BL_SOLVE_TSNE_H
#define BL_SOLVE_TSNE_H

#include "base/base.h"

/* Turns the squared distances d[n] of a point to others, of which entry `self` (-1: none) is
 * itself, into probabilities w[n] of a normal distribution, so wide that their entropy is that of
 * `perplexity` equal neighbours. d is scratch afterwards. */
void bl_tsne_conditional(double *d, int64_t n, int64_t self, double perplexity, double *w);

/* The map's points, coordinates apart: [0] along, [1] across. */
typedef struct bl_tsne_points {
    int64_t n;
    double *at[2], *speed[2], *gain[2];
    double *pull[2], *push[2]; /* sum_j p_ij w_ij (y_i - y_j); sum_j w_ij^2 (y_i - y_j) */
    double *memory;
} bl_tsne_points;

bl_status bl_tsne_points_new(const double *y, int64_t n, bl_tsne_points *out);
void bl_tsne_points_free(bl_tsne_points *points, double *y); /* where they are goes to y, or NULL */

/* Step `step` of momentum descent, whose gains grow by 0.2 where a coordinate goes on downhill and
 * fall by a fifth where not (Jacobs 1988), after pull and push have been filled; total is the sum of
 * all w_ij = 1 / (1 + |y_i - y_j|^2), j != i. */
void bl_tsne_descend(bl_tsne_points *points, int64_t step, double total);

#endif
