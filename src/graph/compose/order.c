/* Composites that pick and put in order: one entry of an axis; sort and top-k, from argsort and
 * take_along. Their gradients go back to where each value came from. */
#define BL_KEEP_PLACE
#include "graph/build.h"

bl_tensor(bl_pick)(bl_tensor x, int axis, int64_t i)
{
    return bl_squeeze(bl_slice_axis(x, axis, i, i + 1), axis);
}

bl_tensor(bl_sort)(bl_tensor x, int axis, bool descending)
{
    if (!bl_need_tensor("sort", x))
        return bl_poisoned(x.graph);
    return bl_take_along(x, bl_argsort(x, axis, descending), axis);
}

void(bl_top_k)(bl_tensor x, int64_t k, bl_tensor *value, bl_tensor *index)
{
    bl_tensor first = bl_poisoned(x.graph);
    if (bl_need_tensor("top_k", x)) {
        if (bl_rank(x) < 1 || k < 0 || k > bl_dim(x, -1))
            first = bl_poison(x.graph, "top_k: there are no %lld largest of %s", (long long)k,
                              bl_show(bl_type_of(x)));
        else
            first = bl_slice_axis(bl_argsort(x, -1, true), -1, 0, k);
    }
    *value = bl_is_poison(first) ? first : bl_take_along(x, first, -1);
    if (index)
        *index = first;
}
