/* Work on the host that falls into parts. See parts.h. */
#include "solve/parts.h"

#include "exec/cpu/pool.h"
#include "exec/executor.h"

typedef struct work {
    bl_part_work *part;
    void *context;
    char *scratch;
    size_t scratch_bytes; /* of a thread */
} work;

static void run_part(void *context, int64_t part, int thread)
{
    const work *w = context;
    w->part(w->context, part, w->scratch + (size_t)thread * w->scratch_bytes);
}

bl_status bl_in_parts(bl_part_work *part, void *context, int64_t parts, size_t scratch_bytes,
                      double operations)
{
    int threads = operations < 1e6 || parts < 2 ? 1 : bl_default_threads();
    size_t line = (scratch_bytes + 63) / 64 * 64; /* no two threads write one */
    work w = {part, context, bl_alloc_aligned((size_t)threads * line + 1), line};
    cpu_pool *pool = NULL;
    if (!w.scratch)
        return bl_no_memory((size_t)threads * line);
    bl_status status = cpu_pool_new(threads, &pool);
    if (status == BL_OK)
        cpu_pool_run(pool, run_part, &w, parts);
    cpu_pool_free(pool);
    bl_release(w.scratch);
    return status;
}
