/* Work on the host that falls into parts, on OMP_NUM_THREADS threads (1 if unset).
 *
 * What a part computes may depend on nothing but its number: then the number of threads does not
 * show in the result, to the last bit. Sums over parts are added by the caller, in their order. */
#ifndef BL_SOLVE_PARTS_H
#define BL_SOLVE_PARTS_H

#include "base/base.h"

/* scratch is the thread's own, aligned, 0 before its first part. */
typedef void bl_part_work(void *context, int64_t part, void *scratch);

/* All parts, in any order. With fewer than a million `operations` in all, which take less time than
 * threads to start, on this thread alone. */
bl_status bl_in_parts(bl_part_work *part, void *context, int64_t parts, size_t scratch_bytes,
                      double operations);

#endif
