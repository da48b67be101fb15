/* What the builders of the graph layer share: finding the graph of their operands, bringing
 * operands to one dtype and shape, and reading axes.
 *
 * A builder is written like this: answer for bare numbers, check what the primitive's TYPE rule
 * cannot know, add one node. It returns bl_poisoned(g) after anything here has refused. */
#ifndef BL_GRAPH_BUILD_H
#define BL_GRAPH_BUILD_H

#include "graph/node.h"

static inline bl_tensor bl_poisoned(bl_graph *g)
{
    return (bl_tensor){.graph = g, .id = -1};
}

/* The graph of the first operand that has one, or a body within it that another operand is of; NULL
 * where all are bare numbers. */
bl_graph *bl_graph_of(const bl_tensor *x, int count);
/* Whether g is `outer`, or the body of a loop within it that is being built. */
bool bl_is_within(const bl_graph *g, const bl_graph *outer);
/* g, or the body within it that an operand is of. */
bl_graph *bl_innermost(bl_graph *g, const bl_tensor *x, int count);

/* Poison for a builder that was given poison: keeps the graph's error, or states one. */
bl_tensor bl_spoil(bl_graph *g, const char *builder);

/* Poison, and the graph's status BL_NO_MEMORY. */
bl_tensor bl_out_of_memory(bl_graph *g);

/* False, and an error with the builder's name, unless x is a tensor (poison gives false as well).
 */
bool bl_need_tensor(const char *builder, bl_tensor x);

/* Brings all operands to one shape (numpy's broadcasting) and x[first..count) to one dtype. Numbers
 * become constants of that type; an operand before `first` is a bool. At least one is a tensor. */
bool bl_match(const char *builder, bl_tensor *x, int count, int first);

/* The axis counted from the front, of `rank` axes. */
bool bl_axis_index(const char *builder, bl_graph *g, int rank, int axis, int *index);

/* The bit set of a list that ends with BL_END; an empty list is every axis. */
bool bl_axis_set(const char *builder, bl_tensor x, const int *axes, uint32_t *set);

/* The shape with the axes of `set` at size 1. */
bl_shape bl_shape_keep(bl_shape shape, uint32_t set);
/* The shape without the axes of `set`. */
bl_shape bl_shape_drop(bl_shape shape, uint32_t set);
/* The product of the sizes of the axes of `set`. */
int64_t bl_shape_over(bl_shape shape, uint32_t set);

/* bl_pad with `between` elements of `value` between neighbours. */
bl_tensor bl_pad_between(bl_tensor x, bl_shape low, bl_shape high, bl_shape between, double value);

/* bl_random_bits from block `first` on. */
bl_tensor bl_random_bits_from(bl_tensor key, uint32_t stream0, uint32_t stream1, uint32_t first,
                              bl_shape shape);

/* "[3,4]", for messages; shares the buffers of bl_show. */
const char *bl_show_shape(bl_shape shape);

/* Whether a value survives conversion to the dtype (any does to a float). */
bool bl_dtype_holds(bl_dtype dtype, double value);

#endif
