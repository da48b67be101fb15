/* Sorting plain numbers; an order of indices is bl_ascending_order of the solvers. */
#include <stdlib.h>

#include "base/base.h"

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void bl_sort_doubles(double *x, size_t count)
{
    qsort(x, count, sizeof *x, ascending);
}
