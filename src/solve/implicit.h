/* What the gradients of solutions share. */
#ifndef BL_SOLVE_IMPLICIT_H
#define BL_SOLVE_IMPLICIT_H

#include "base/base.h"
#include "graph/build.h"

/* x once more, as a node of its own in g (x may be of a graph around it): to differentiate in one
 * place where x is used, and not in all. */
static inline bl_tensor bl_apart(bl_graph *g, bl_tensor x)
{
    if (bl_is_poison(x) || bl_is_number(x))
        return x;
    x = x.graph == g ? x : bl_capture(g, x);
    return bl_node_new_typed(g, BL_OP_reshape, &x, 1, (bl_attr){0}, bl_type_of(x));
}

#endif
