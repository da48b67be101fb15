/* Best-of-k curves and edges of ranges: arithmetic on the scores of trials. */
#include "study/budget.h"

#include <math.h>

#include "base/base.h"
#include "study/tune.h"

/* The scores that are numbers, the worst first, lower ones better; the others count as the worst.
 */
static int ascending(const double *score, int trials, bool higher, double *sorted)
{
    int n = 0, diverged = 0;
    for (int i = 0; i < trials; i++)
        if (isnan(score[i]))
            diverged++;
        else
            sorted[n++] = higher ? score[i] : -score[i];
    bl_sort_doubles(sorted, (size_t)n);
    if (!n)
        return 0;
    for (int i = n - 1; i >= 0; i--)
        sorted[i + diverged] = sorted[i];
    for (int i = 0; i < diverged; i++)
        sorted[i] = sorted[diverged];
    return n + diverged;
}

/* Among all subsets of k of n, a share C(i-1, k-1) / C(n, k) has the i-th as its best: k / n for
 * the last, and (i - k) / (i - 1) times that of i for i - 1. */
void bl_expected_best(const double *score, int trials, bool higher, double *expected)
{
    double sorted[BL_TRIALS_MOST];
    int n = ascending(score, trials, higher, sorted);
    for (int k = 1; k <= trials; k++) {
        double share = (double)k / n, sum = 0;
        for (int i = n; i >= k; i--) {
            sum += share * sorted[i - 1];
            share *= (double)(i - k) / (i > 1 ? i - 1 : 1);
        }
        expected[k - 1] = !n ? NAN : higher ? sum : -sum;
    }
}

/* The best of the trials that are not among `taken`; -1 if there is none. */
static int best_but(const double *score, int trials, bool higher, const int *taken, int count)
{
    int best = -1;
    for (int i = 0; i < trials; i++) {
        bool free = !isnan(score[i]);
        for (int t = 0; t < count; t++)
            free = free && taken[t] != i;
        if (free && (best < 0 || (higher ? score[i] > score[best] : score[i] < score[best])))
            best = i;
    }
    return best;
}

int bl_search_edge(const double *score, const double *place, int trials, bool higher)
{
    enum { LEAST = 8, LOOKED_AT = 3 };
    int top[LOOKED_AT], counted = 0;
    for (int i = 0; i < trials; i++)
        counted += !isnan(score[i]);
    if (counted < LEAST)
        return 0;
    bool upper = true, lower = true;
    for (int t = 0; t < LOOKED_AT; t++) {
        top[t] = best_but(score, trials, higher, top, t);
        double share = t ? 1.0 / 3 : 1.0 / 6, at = place[top[t]];
        upper = upper && at >= 1 - share;
        lower = lower && at <= share;
    }
    return upper ? 1 : lower ? -1 : 0;
}
