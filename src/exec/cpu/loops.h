/* The innermost loops, one per primitive and element type, compiled once per instruction set.
 *
 * loops.inc is the one source; loops_base.c, loops_avx2.c and loops_avx512.c include it and are
 * compiled with their flags (CMakeLists.txt). bl_loops_best picks a table for this processor. To
 * widen: a row in ops.def is enough for a correct loop, made from its meaning; a fast one is a line
 * in the lists of loops.inc. */
#ifndef BL_CPU_LOOPS_H
#define BL_CPU_LOOPS_H

#include "graph/node.h"

/* z[i] = f(x[i], y[i], w[i]) for i < n; z may be exactly x, y or w, but not overlap otherwise. */
typedef void bl_loop(void *z, const void *x, const void *y, const void *w, int64_t n);

/* Which operands are single elements. */
enum { BL_VV, BL_VS, BL_SV, BL_BINARY_MODES };
enum { BL_VVV, BL_VVS, BL_VSV, BL_VSS, BL_TERNARY_MODES };

/* Two primitives of f32 in one loop, (x first y) second w, which saves writing and reading what is
 * between. _VS: y is single; FROM: the operands the other way round, y - x and w - ..; FINITE: what
 * is finite stays, else w. */
enum {
    BL_ADD_VV,
    BL_ADD_VS,
    BL_SUB_VV,
    BL_SUB_VS,
    BL_FROM_VS,
    BL_MUL_VV,
    BL_MUL_VS,
    BL_DIV_VV,
    BL_DIV_VS,
    BL_PAIR_FIRSTS
};
enum {
    BL_THEN_ADD,
    BL_THEN_SUB,
    BL_THEN_FROM,
    BL_THEN_MUL,
    BL_THEN_DIV,
    BL_THEN_FINITE,
    BL_PAIR_SECONDS
};

/* Sums: what each part of a reduction accumulates. */
enum { BL_SUM, BL_MAX, BL_MIN, BL_REDUCTIONS };

/* A product is done in parts of up to these sizes. */
enum { BL_GEMM_ROWS = 192, BL_GEMM_COLUMNS = 512, BL_GEMM_DEPTH = 256, BL_GEMM_VECTORS = 32 };

/* c[m,n] = sum over k of a[m,k] b[k,n], each with its strides. */
typedef struct bl_gemm {
    int64_t m, n, k;
    const void *a, *b;
    int64_t a_row, a_column, b_row, b_column;
    void *c;
    int64_t c_row;
    void *scratch;               /* bl_gemm_scratch elements, aligned to a line */
    const void *next_a, *next_b; /* of a product of the same form that follows; or NULL */
} bl_gemm;

/* Elements of the panels of b, of whole pairs of vectors. */
static inline int64_t bl_gemm_panels(int64_t n, int64_t depth)
{
    int64_t whole = n + BL_GEMM_VECTORS - n % BL_GEMM_VECTORS;
    return depth * (n < BL_GEMM_COLUMNS ? whole : BL_GEMM_COLUMNS);
}

/* Elements of scratch memory that a product m x n with sums of k takes: panels of b, and slivers of
 * a with a line after each. A product with one column may be done as its transposed. */
static inline int64_t bl_gemm_scratch(int64_t m, int64_t n, int64_t k)
{
    int64_t depth = k < BL_GEMM_DEPTH ? k : BL_GEMM_DEPTH;
    return bl_gemm_panels(n == 1 ? m : n, depth) + (depth + 8) * BL_GEMM_ROWS;
}

/* Convolutions with 3 x 3 filters and stride 1 in tiles of 4 x 4 results (winograd.inc). Channels
 * are multiples of 16. */
typedef struct bl_winograd {
    int64_t images, height, width, in, result_height, result_width, out;
    int64_t top, left;    /* zeros before an image's first row and column */
    int64_t down, across; /* tiles of a result */
    int64_t tiles;        /* that are done together */
    float *image;         /* [images,height,width,in] */
    float *filter;        /* [36,in,out]: read, or, by the gradient, written */
    float *result;        /* [images,result_height,result_width,out]: written, or its cotangent */
    float *scratch;       /* bl_winograd_products elements, aligned to a line */
    float *zeros;         /* a pixel of either, read where there is no image */
    float *unwanted;      /* a pixel, written where a tile is larger than the result */
} bl_winograd;

static inline int64_t bl_winograd_products(int64_t tiles, int64_t in, int64_t out)
{
    return 36 * (tiles * (in + out) + 32);
}

typedef struct bl_loops {
    const char *name;
    /* By the operands' type (of the values, for select). NULL: the type rule refuses it. */
    bl_loop *unary[BL_OPS][BL_DTYPES];
    bl_loop *binary[BL_OPS][BL_DTYPES][BL_BINARY_MODES];
    bl_loop *ternary[BL_OPS][BL_DTYPES][BL_TERNARY_MODES];
    bl_loop *cast[BL_DTYPES][BL_DTYPES]; /* from, to */

    bl_loop *pair[BL_PAIR_FIRSTS][BL_PAIR_SECONDS][2]; /* whether w is single */
    bl_loop *sub_exp[2];                               /* e^(x - y); whether y is single */
    float (*exp_sum)(float *z, const float *x, float y,
                     int64_t n); /* z = e^(x - y); the sum; or NULL */
    bl_loop *finite_else[2];     /* x where finite, else w; whether single */

    /* z[r] = reduction of x[r,0..columns), for rows; f32 and f64 (others NULL). */
    void (*reduce_rows[BL_REDUCTIONS][BL_DTYPES])(void *z, const void *x, int64_t rows,
                                                  int64_t columns);
    /* z[c] = z[c] op x[r,c]: sums in the element type. */
    void (*reduce_columns[BL_REDUCTIONS][BL_DTYPES])(void *z, const void *x, int64_t rows,
                                                     int64_t columns);
    /* z[r,c] = x[r] */
    void (*spread[9])(void *z, const void *x, int64_t rows, int64_t columns); /* by element size */
    /* z[i,j] = x[j,i], of 4 bytes; z_row and x_row: elements from row to row. */
    void (*transpose)(void *z, int64_t z_row, const void *x, int64_t x_row, int64_t rows,
                      int64_t columns);
    void (*gemm[BL_DTYPES])(const bl_gemm *product); /* f32 and f64 (others NULL) */
    void (*winograd)(const bl_winograd *convolution); /* results, of images and a filter */
    void (*winograd_gradient)(const bl_winograd *convolution); /* of the filter */
    /* u[36,count] of a filter w[3,3,count], and w of the sums that make its gradient */
    void (*winograd_filter)(const float *w, int64_t count, float *u);
    void (*winograd_filter_gradient)(const float *u, int64_t count, float *w);
    void (*philox)(const uint32_t *key, uint32_t word2, uint32_t word3, uint64_t first_block,
                   int64_t blocks, uint32_t *out);
} bl_loops;

extern const bl_loops bl_loops_base;
#if defined(__x86_64__)
extern const bl_loops bl_loops_avx2, bl_loops_avx512;
#endif

/* The widest of this processor. */
const bl_loops *bl_loops_best(void);

#endif
