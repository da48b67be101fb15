/* The cpu executor's plan and the pieces that make it.
 *
 * compile.c reads a graph in this order:
 *   recompute.c  values that are cheap to compute are computed again where they are needed late.
 *   views.c    broadcasts, transposes, slices, reshapes, constants and iotas become views: how
 *              another node's storage is read. They cost nothing until someone needs them in
 * memory. fuse.c     elementwise nodes and reductions are gathered into groups; a group is one
 * kernel. What is left (contractions, indexing, sorting, ..) is a group of its own. memory.c
 * storage that is alive at the same time gets its own place in one slab; donated buffers and dying
 * operands are written in place. lower.c    a fused group becomes a program of loops over tiles
 * that stay in the first cache. The result is a flat list of kernels, which run replays.
 *
 * To add a kernel for a primitive: write a bl_prepare in the file of its class that fills in
 * kernel.run (and kernel.data), and list it in kernels.c. Until then the reference executor's loop
 * runs it. */
#ifndef BL_CPU_H
#define BL_CPU_H

#include "base/base.h"
#include "exec/cpu/loops.h"
#include "exec/cpu/pool.h"
#include "exec/executor.h"

/* --- views ------------------------------------------------------------------------------------ */

/* Element (i, j, ..) of a node is element offset + i stride[0] + j stride[1] + .. of `source`. */
typedef struct cpu_view {
    int32_t source;
    int rank;
    int64_t offset, dim[BL_MAX_RANK], stride[BL_MAX_RANK];
} cpu_view;

/* Joins neighbouring axes that are one axis in memory and drops those of size 1. */
cpu_view cpu_coalesce(cpu_view view);
bool cpu_is_contiguous(const cpu_view *view); /* row-major without gaps; the offset may be any */
int64_t cpu_view_count(const cpu_view *view);

/* --- what is known of every node -------------------------------------------------------------- */

typedef enum cpu_kind {
    CPU_STORED, /* input or constant: in memory before the first kernel */
    CPU_VIEW,   /* only a way to read another node */
    CPU_FUSED,  /* an instruction of a fused group */
    CPU_OPAQUE, /* a kernel of its own */
    CPU_EMPTY   /* has no elements */
} cpu_kind;

/* Which elements of a group's rows x columns a value has: all of them, one a row, or one. */
typedef enum cpu_class { CPU_FULL, CPU_ROW, CPU_SINGLE } cpu_class;

typedef enum cpu_reduction { CPU_NOT, CPU_OF_ROW, CPU_OF_COLUMN, CPU_OF_ALL } cpu_reduction;

typedef struct cpu_fact {
    cpu_kind kind;
    cpu_view *view;          /* of a view, constant or iota; else NULL: row-major */
    int32_t group;           /* -1: none */
    bool stored;             /* needs memory */
    bool terminal;           /* a reduction whose result exists only when its kernel is done */
    cpu_class space;         /* in its group: CPU_FULL or CPU_ROW */
    cpu_class operand_space; /* of a reduction */
    cpu_reduction reduction;
    int64_t columns;     /* of a reduction: elements of a row */
    int32_t last_reader; /* the last group that reads it from memory */
} cpu_fact;

typedef struct cpu_group {
    bool fused;
    int64_t count, columns; /* columns 0: not settled */
    int32_t *node;          /* ascending */
    int32_t nodes;
} cpu_group;

/* --- the plan --------------------------------------------------------------------------------- */

typedef struct cpu_plan cpu_plan;
typedef struct cpu_kernel cpu_kernel;
typedef bl_status cpu_run(cpu_plan *plan, cpu_kernel *kernel);

struct cpu_kernel {
    cpu_run *run;
    void (*free)(void *data);
    void *data;
    int32_t group, node; /* node: the last of the group, which names it */
    bool in_place;       /* opaque: the result may lie over operand 0 */
    const char *how;     /* "map", "onednn", "reference", .. */
    double flops, bytes, seconds;
};

typedef struct cpu_copy { /* at the start or the end of a run */
    int32_t from;         /* node, or -1: `staged` */
    void *staged;
    int output, input; /* one of them, else -1 */
    size_t offset, bytes;
} cpu_copy;

struct cpu_plan {
    bl_signature signature; /* of `graph`, which recompute.c wrote; donations outlive the plan */
    bl_graph *graph;
    int32_t *ids;           /* of the signature */
    bool *again;            /* of every node: a copy that belongs to its late users */
    int32_t nodes;
    const bl_loops *loops;
    int threads;
    cpu_pool *pool; /* NULL: one thread */
    cpu_fact *fact;
    cpu_group *group;
    int32_t groups;
    size_t group_capacity;
    cpu_kernel *kernel;
    int32_t kernels;
    void **address; /* of every stored node */
    void **value;   /* operands as the reference kernels want them */
    int32_t *home;  /* of every node: the output it is written to, or -1 */
    int32_t *over;  /* of every node: the operand of its kernel over which it is written, or -1 */
    int32_t *slot;  /* of every node, while its group is lowered */
    char *slab, *constants;
    size_t slab_bytes, constant_bytes, scratch_bytes;
    char *scratch; /* scratch_bytes for every thread */
    cpu_copy *before, *after;
    int befores, afters;
    bl_arena *arena; /* of views and groups */
    void *engine;    /* oneDNN's, made when first needed */
    bool profile;
    int64_t runs;
};

static inline const bl_node *cpu_node(const cpu_plan *plan, int32_t id)
{
    return bl_node_at(plan->signature.graph, id);
}

/* Every kernel may use this much of plan->scratch while it runs. */
static inline void cpu_reserve_scratch(cpu_plan *plan, size_t bytes)
{
    if (bytes > plan->scratch_bytes)
        plan->scratch_bytes = bytes;
}

/* How node `id` is read: its view, or the whole of it in row-major order. */
cpu_view cpu_view_of(const cpu_plan *plan, int32_t id);
/* The node in whose memory `id` is. */
int32_t cpu_source(const cpu_plan *plan, int32_t id);
/* Where operand i of a kernel's node begins; its view is contiguous or the kernel reads views. */
void *cpu_operand(const cpu_plan *plan, const bl_node *node, int i);

/* Writes the plan's own graph, in which some values are computed again where they are needed late. */
bl_status cpu_recompute(cpu_plan *plan);
bl_status cpu_find_views(cpu_plan *plan);
/* Copies what is only a view but wanted in memory: it becomes an instruction of its own. */
bl_status cpu_find_kinds(cpu_plan *plan);
/* The reduction that fuses, if it is one. */
cpu_reduction cpu_reduction_of(const cpu_plan *plan, int32_t id, int64_t *columns);
/* BL_SUM, BL_MAX or BL_MIN, of sum, reduce_max or reduce_min. */
int cpu_reduction_index(bl_op op);
/* n elements that every other value beats: the start of BL_MAX or BL_MIN. */
void cpu_fill_worst(bl_dtype dtype, int reduction, void *z, int64_t n);
bl_status cpu_fuse(cpu_plan *plan);
/* Rows and columns of a fused group are settled by what it reads, if no reduction did. */
void cpu_settle(cpu_plan *plan, cpu_group *group);
bl_status cpu_place(cpu_plan *plan);
bl_status cpu_lower(cpu_plan *plan, cpu_kernel *kernel);
/* How a fused group reads a view of `space`: an element for all, one a row, or every element; where
 * `direct`, straight from memory. by_column: one row, the same for all. */
typedef struct cpu_reading {
    cpu_class class;
    bool direct, by_column;
} cpu_reading;
cpu_reading cpu_read(const cpu_group *group, const cpu_view *view, cpu_class space);
cpu_view cpu_operand_view(const cpu_plan *plan, const bl_node *node, int i);

/* Fills in the kernel of an opaque node. */
typedef bl_status cpu_prepare(cpu_plan *plan, cpu_kernel *kernel, const bl_node *node);
cpu_prepare cpu_prepare_opaque, cpu_prepare_reference, cpu_prepare_dot, cpu_prepare_convolution;
cpu_prepare cpu_prepare_take, cpu_prepare_put, cpu_prepare_add_at, cpu_prepare_random_bits;
cpu_prepare cpu_prepare_concat, cpu_prepare_pad, cpu_prepare_take_along, cpu_prepare_add_along;
cpu_prepare cpu_prepare_argsort, cpu_prepare_reduce, cpu_prepare_arg, cpu_prepare_cumsum;
cpu_prepare cpu_prepare_product, cpu_prepare_patches, cpu_prepare_fold, cpu_prepare_dot_of_bytes;
cpu_prepare cpu_prepare_loop;
cpu_prepare cpu_prepare_cholesky, cpu_prepare_triangular_solve, cpu_prepare_eigh, cpu_prepare_svd;
cpu_run cpu_run_reference; /* the reference executor's loop, whose scratch memory the plan has */
/* Whether the kernel of `node` reads operand i through any view of this form. */
bool cpu_reads_view(const bl_node *node, int i, const cpu_view *view);

bool cpu_is_fill(const cpu_view *view); /* one element, repeated */
bool cpu_dot_reads(const bl_node *node, const cpu_view *view);

/* Convolutions: oneDNN's (onednn.c), and of 3 x 3 filters in tiles (winograd.c). x[N,H,W,I] with
 * w[h,w,I/groups,O] gives z[N,H',W',O]; one of them is what the kernel computes. */
typedef struct cpu_convolution {
    bl_shape x, w, z;
    const bl_conv_options *options;
} cpu_convolution;

/* Cuts images into stretches for the tasks of a kernel; returns how many. */
int cpu_share_images(int64_t images, double products, int64_t *stretch);
/* Whether tiles serve it; then *out says how. */
bool cpu_winograd_suits(const cpu_convolution *shape, bl_op op, bl_winograd *out);
bl_status cpu_prepare_winograd(cpu_plan *plan, cpu_kernel *kernel, bl_op op, const bl_winograd *c);
void cpu_free_engine(cpu_plan *plan);

#endif
