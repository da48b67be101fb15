/* What the trials of a search say about the search itself: what fewer of them would have found, and
 * whether its range was too narrow. */
#ifndef BL_STUDY_BUDGET_H
#define BL_STUDY_BUDGET_H

#include <stdbool.h>

/* Expected best-of-k curve: expected[k-1] is the mean, over all subsets of k of the trials, of the
 * best score in the subset (Dodge et al. 2019, arXiv 1909.03004, without replacement, so that the
 * last is the best of all). score[trials]; NaN where a trial diverged: it counts as the worst of
 * the others. All NaN where there are no others. trials is at most BL_TRIALS_MOST. */
void bl_expected_best(const double *score, int trials, bool higher, double *expected);

/* Whether the good trials crowd one end of a range: 1 the upper, -1 the lower, 0 neither. place[]
 * is where each trial lies in the range, from 0 to 1 on its scale. That is so where of at least
 * eight trials with a score the best lies in the outermost sixth and the next two in the outermost
 * third: were the option without effect, about 4 % of searches would look so. */
int bl_search_edge(const double *score, const double *place, int trials, bool higher);

#endif
