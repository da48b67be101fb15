/* Threads that sleep until there is a part of a kernel to do.
 *
 * Parts are claimed one at a time by whoever is free, the caller included, so a thread that gets no
 * processor claims nothing and delays nobody: two threads are not slower than one on a busy
 * machine, as they are where every part has its thread and all spin at a barrier (OpenMP). Which
 * thread does a part changes nothing in its result. */
#ifndef BL_CPU_POOL_H
#define BL_CPU_POOL_H

#include "base/base.h"

typedef struct cpu_pool cpu_pool;

/* One part's work; `thread` is below the number of threads and at most one part runs on each. */
typedef void cpu_part(void *context, int64_t part, int thread);

/* For `threads` threads, of which the caller is one; NULL in *out, and BL_OK, for a single one. */
bl_status cpu_pool_new(int threads, cpu_pool **out);
void cpu_pool_free(cpu_pool *pool);
/* Returns when all parts are done. A NULL pool does them one after the other. */
void cpu_pool_run(cpu_pool *pool, cpu_part *part, void *context, int64_t parts);

#endif
