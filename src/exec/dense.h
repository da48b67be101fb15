/* Linear algebra on plain arrays for solvers on the host, by the library that the cpu executor has. */
#ifndef BL_EXEC_DENSE_H
#define BL_EXEC_DENSE_H

#include "base/base.h"

/* a[n,n] x = b[n,columns], all finite, by elimination with partial pivoting: b becomes x, a is used
 * up. *singular is the column where a turns out to be singular, from 0, or -1. */
bl_status bl_dense_solve(double *a, double *b, int64_t n, int64_t columns, int64_t *singular);

#endif
