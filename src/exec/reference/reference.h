/* The reference executor's kernels: one plain loop per primitive.
 *
 * To add a primitive, write reference_NAME in the file of its class; the table in reference.c is
 * made from ops.def, so a missing one does not link. An elementwise primitive needs nothing here:
 * its loop is generated from the meaning column.
 *
 * Arithmetic that adds and multiplies (sums, contractions, indexed addition) is done on "wide"
 * copies of the operands: double for f32, f64 and bool, uint64_t for the integers, whose
 * wrap-around is exact modulo 2^64 and so modulo every smaller power of two. */
#ifndef BL_EXEC_REFERENCE_H
#define BL_EXEC_REFERENCE_H

#include "base/base.h"
#include "exec/executor.h"

typedef struct bl_call { /* one node's turn */
    const bl_graph *graph;
    const bl_node *node;
    void *const *value; /* the buffer of every node, by id */
    void *result;
    uint64_t *scratch; /* as many 8-byte elements as scratch_elements says */
} bl_call;

static inline const void *operand(const bl_call *call, int i)
{
    return call->value[call->node->operand[i]];
}

static inline bl_type operand_type(const bl_call *call, int i)
{
    return bl_node_at(call->graph, call->node->operand[i])->type;
}

typedef bl_status bl_kernel(const bl_call *call);
bl_kernel reference_elementwise;

#define KERNEL_LEAF(name) bl_kernel reference_##name;
#define KERNEL_UNARY(name)
#define KERNEL_BINARY(name)
#define KERNEL_TERNARY(name)
#define KERNEL_MOVE(name)                        bl_kernel reference_##name;
#define KERNEL_INDEX(name)                       bl_kernel reference_##name;
#define KERNEL_REDUCE(name)                      bl_kernel reference_##name;
#define KERNEL_CONTRACT(name)                    bl_kernel reference_##name;
#define KERNEL_LINALG(name)                      bl_kernel reference_##name;
#define KERNEL_CONTROL(name)                     bl_kernel reference_##name;
#define OP(class, name, operands, meaning, text) KERNEL_##class(name)
#include "graph/ops.def"
#undef OP
#undef KERNEL_LEAF
#undef KERNEL_UNARY
#undef KERNEL_BINARY
#undef KERNEL_TERNARY
#undef KERNEL_MOVE
#undef KERNEL_INDEX
#undef KERNEL_REDUCE
#undef KERNEL_CONTRACT
#undef KERNEL_LINALG
#undef KERNEL_CONTROL

/* The kernel of a primitive; the cpu executor runs what it has no faster loop for by it. */
bl_kernel *reference_kernel(bl_op op);

/* Eight-byte elements of scratch memory that the node's kernel uses. */
size_t scratch_elements(const bl_graph *graph, const bl_node *node);

/* --- elements in double: `count` of them from `start` on */
void load_doubles(bl_dtype dtype, const void *from, int64_t start, int64_t count, double *to);
void store_doubles(bl_dtype dtype, const double *from, int64_t start, int64_t count, void *to);

/* --- wide elements: whole arrays, and the loops of ring.h on them */
bool is_wide_integer(bl_dtype dtype);
void widen(bl_dtype dtype, const void *from, int64_t count, uint64_t *to);
void narrow(bl_dtype dtype, const uint64_t *from, int64_t count, void *to);

/* --- strided views: element (i, j, ..) is at offset + i stride[0] + j stride[1] + .. */
typedef struct bl_view {
    int64_t offset, stride[BL_MAX_RANK];
} bl_view;
bl_view row_major(bl_shape shape);
/* Advances a row-major index; false after the last one. */
bool next_index(bl_shape shape, int64_t *index);
int64_t at_index(const bl_view *view, bl_shape shape, const int64_t *index);

/* A shape seen as outer x length x inner, length being the size of one axis. */
typedef struct bl_lanes {
    int64_t outer, length, inner;
} bl_lanes;
bl_lanes lanes_of(bl_shape shape, int axis);

/* --- sums and products of wide elements */
typedef struct bl_dot_sizes {
    int64_t batch, m, k, n;
    bool transpose_a, transpose_b;
} bl_dot_sizes;

typedef struct bl_conv_sizes { /* pairs are rows, columns */
    int64_t batch, image[2], inputs, window[2], outputs, result[2];
    int64_t stride[2], dilation[2], low[2], groups;
} bl_conv_sizes;

/* Every place of every window: example, row and column of the result, row and column in the
 * window. */
bl_shape window_places(const bl_conv_sizes *sizes);
/* The pixel of the batch that a place lies on; -1 in the padding. */
int64_t pixel_under(const bl_conv_sizes *sizes, const int64_t *place);

typedef struct bl_ring {
    void (*add_rows)(void *to, const int32_t *index, const void *rows, int64_t count, int64_t row);
    void (*add_along)(void *to, const int32_t *index, const void *updates, bl_lanes lanes,
                      int64_t length);
    void (*reduce)(const void *x, bl_shape shape, bl_view to, bool product, void *result);
    void (*fill)(void *to, int64_t count, int value);
    void (*running_sum)(void *x, bl_lanes lanes);
    void (*dot)(const void *a, const void *b, const bl_dot_sizes *sizes, void *result);
    void (*conv)(bl_op op, const bl_conv_sizes *sizes, void *x, void *w, void *z);
    void (*fold)(const bl_conv_sizes *sizes, const void *windows, void *x);
} bl_ring;

extern const bl_ring real_ring, integer_ring;
const bl_ring *ring_of(bl_dtype dtype);

#endif
