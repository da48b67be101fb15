/* Composites of the decompositions: parts of them that several methods start from. */
#define BL_KEEP_PLACE
#include "graph/build.h"

void(bl_truncated_svd)(bl_tensor x, int64_t rank, bl_tensor *u, bl_tensor *s, bl_tensor *v)
{
    bl_svd(x, u, s, v);
    if (bl_is_poison(*s))
        return;
    if (rank < 0 || rank > bl_dim(*s, -1)) {
        *u = *s = *v =
            bl_poison(x.graph,
                      "truncated_svd: rank is %lld, expected at most %lld, the "
                      "smaller side of %s",
                      (long long)rank, (long long)bl_dim(*s, -1), bl_show(bl_type_of(x)));
        return;
    }
    *u = bl_slice_axis(*u, -1, 0, rank);
    *s = bl_slice_axis(*s, -1, 0, rank);
    *v = bl_slice_axis(*v, -1, 0, rank);
}
