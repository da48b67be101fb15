/* What an elementwise primitive means in each element type: the one definition that constant
 * folding and the reference executor share.
 *
 * The meaning column of ops.def is in doubles. A double holds every value of every element type
 * exactly, so a value is computed in double and rounded to the node's type. Integers wrap around as
 * C's unsigned ones do; a quotient or remainder by 0 is 0. */
#ifndef BL_GRAPH_MEANING_H
#define BL_GRAPH_MEANING_H

#include "graph/node.h"

/* The result, of type `to`, at operands of type `from` (the type of the values: of y for select).
 */
double bl_op_value(bl_op op, bl_dtype from, bl_dtype to, double x, double y, double z);

/* Rounds to the nearest f32, wraps around an integer, makes a bool 0 or 1. */
double bl_round_to(bl_dtype to, double value);

/* True where an integer's result is not simply the rounded meaning in double. */
bool bl_op_needs_integers(bl_op op);

static inline bool bl_dtype_is_integer(bl_dtype dtype)
{
    return dtype == BL_I32 || dtype == BL_U32 || dtype == BL_I8 || dtype == BL_U8;
}

#endif
