/* Composites: cross entropies from logits. They work on logits shifted by their largest, so that
 * they and their gradients are finite at any finite logits and exact where one class dominates. */
#define BL_KEEP_PLACE
#include "graph/build.h"

bl_tensor(bl_onehot)(bl_tensor labels, int64_t classes, bl_dtype dtype)
{
    if (!bl_need_tensor("onehot", labels))
        return bl_poisoned(labels.graph);
    bl_type type = bl_type_of(labels);
    if (type.dtype != BL_I32 || type.shape.rank == BL_MAX_RANK)
        return bl_poison(labels.graph, "onehot: labels must be i32 of at most %d axes, not %s",
                         BL_MAX_RANK - 1, bl_show(type));
    type.shape.dim[type.shape.rank++] = classes;
    bl_tensor class = bl_iota(labels.graph, BL_I32, type.shape, -1);
    return bl_cast(bl_eq(class, bl_expand(labels, -1)), dtype);
}

/* labels i32 with the shape of the rows of logits. */
static bool labels_fit(const char *name, bl_tensor logits, bl_tensor labels)
{
    if (!bl_need_tensor(name, logits) || !bl_need_tensor(name, labels))
        return false;
    bl_type x = bl_type_of(logits), y = bl_type_of(labels);
    int last = x.shape.rank - 1;
    if (last >= 0 && y.dtype == BL_I32 && bl_dtype_is_float(x.dtype) &&
        bl_shape_equal(y.shape, bl_shape_drop(x.shape, 1u << last)))
        return true;
    bl_poison(logits.graph, "%s: logits must be float [..,C] and labels i32[..], not %s and %s",
              name, bl_show(x), bl_show(y));
    return false;
}

bl_tensor(bl_cross_entropy_rows)(bl_tensor logits, bl_tensor labels)
{
    if (!labels_fit("cross_entropy", logits, labels))
        return bl_poisoned(bl_graph_of((bl_tensor[]){logits, labels}, 2));
    bl_tensor chosen = bl_take_along(bl_log_softmax(logits, -1), bl_expand(labels, -1), -1);
    return bl_neg(bl_squeeze(chosen, -1));
}

bl_tensor(bl_cross_entropy)(bl_tensor logits, bl_tensor labels)
{
    return bl_mean(bl_cross_entropy_rows(logits, labels));
}

bl_tensor(bl_soft_cross_entropy)(bl_tensor logits, bl_tensor target)
{
    bl_graph *g = bl_graph_of((bl_tensor[]){logits, target}, 2);
    if (!bl_need_tensor("soft_cross_entropy", logits) ||
        !bl_need_tensor("soft_cross_entropy", target))
        return bl_poisoned(g);
    if (!bl_type_equal(bl_type_of(logits), bl_type_of(target)))
        return bl_poison(g, "soft_cross_entropy: logits %s and target %s differ",
                         bl_show(bl_type_of(logits)), bl_show(bl_type_of(target)));
    bl_tensor rows = bl_sum(bl_mul(target, bl_log_softmax(logits, -1)), -1);
    return bl_neg(bl_mean(rows));
}

bl_tensor(bl_binary_cross_entropy)(bl_tensor logits, bl_tensor target)
{
    return bl_sub(bl_softplus(logits), bl_mul(target, logits));
}

bl_tensor(bl_kl_divergence)(bl_tensor log_p, bl_tensor log_q, int axis)
{
    bl_tensor p = bl_exp(log_p), present = bl_gt(p, 0);
    bl_tensor ratio = bl_select(present, bl_sub(log_p, log_q), 0); /* 0 log 0 is 0 */
    return bl_sum(bl_mul(p, ratio), axis);
}
