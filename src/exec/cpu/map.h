/* A fused group as a program of loops over tiles.
 *
 * The group's elements are rows x columns. A tile is a few whole rows, one row, or a stretch of
 * one; its values live in registers, which are stretches of scratch memory small enough for the
 * first cache. lower.c writes the program, pair.c
 * shortens it, map.c runs it. To add an instruction: a kind here, its
 * case in map.c's step, and a place in lower.c that emits it. */
#ifndef BL_CPU_MAP_H
#define BL_CPU_MAP_H

#include "exec/cpu/cpu.h"

typedef enum cpu_slot_kind { SLOT_REGISTER, SLOT_MEMORY } cpu_slot_kind;

typedef struct cpu_slot {
    cpu_slot_kind kind;
    cpu_class class;
    bool by_column; /* memory: one row, the same for all */
    int32_t node;   /* memory: whose */
    int size;       /* bytes of an element */
    int64_t offset; /* bytes: in the node's memory, or in the thread's registers */
} cpu_slot;

typedef enum cpu_instruction_kind {
    DO_LOOP,          /* z = loop(x, y, w) */
    DO_COPY,          /* z = x */
    DO_SPREAD,        /* z, of every element of `class`, from x, one a row or single */
    DO_GATHER,        /* z from memory through a view */
    DO_REPEAT,        /* z, whole rows, from one row x */
    DO_REDUCE_ROW,    /* z, one a row, from x */
    DO_EXP_SUM,       /* z = e^(x - y) row by row, y one a row; w, one a row, is its sum */
    DO_REDUCE_COLUMN, /* into state z */
    DO_REDUCE_ALL,
    DO_NOTHING /* taken into another; never run */
} cpu_instruction_kind;

typedef struct cpu_instruction {
    cpu_instruction_kind kind;
    cpu_class class; /* how many elements */
    cpu_class from;  /* of spread: what x is */
    bool by_row;     /* of a loop over several long rows: an operand is one a row, or one row */
    bl_loop *loop;
    bl_op op; /* of a loop: which primitive, and how its operands are read; pairs have none */
    int mode;
    int32_t z, x, y, w; /* slots; z a state for column and all; -1: none */
    int reduction;      /* BL_SUM, .. */
    bl_dtype dtype;     /* of what is read */
    cpu_view view;      /* of gather */
    void (*reduce)(void *z, const void *x, int64_t rows, int64_t columns);
} cpu_instruction;

/* Whether neighbours in memory are neighbours along the last axis but one: a transposed matrix. */
static inline bool cpu_is_turned(const cpu_view *view)
{
    return view->rank > 1 && view->stride[view->rank - 2] == 1 &&
           view->stride[view->rank - 1] != 1 && view->dim[view->rank - 2] > 1;
}

/* Whether z is a state, not a slot. */
static inline bool cpu_is_state(const cpu_instruction *i)
{
    return i->kind == DO_REDUCE_COLUMN || i->kind == DO_REDUCE_ALL;
}

typedef struct cpu_state { /* what a part accumulates of a reduction over columns or all */
    int32_t node;
    bool of_all;
    int reduction;
    bl_dtype dtype;
    int64_t columns, width; /* width: columns, several times over where rows are short */
    int64_t offset, total; /* bytes in the part's states: elements, and doubles for sums of reals */
} cpu_state;

typedef struct cpu_list {
    cpu_instruction *at;
    int32_t count;
    size_t capacity;
} cpu_list;

typedef struct cpu_program {
    cpu_list once, each; /* before the tiles of a part; for every tile */
    cpu_slot *slot;
    int32_t slots;
    size_t slot_capacity;
    int32_t *moving; /* slots whose address depends on the tile */
    int32_t movings;
    cpu_state *state;
    int32_t states;
    size_t state_capacity;
    int64_t rows, columns, tile_rows, tile_columns, parts, tiles;
    size_t state_bytes, register_bytes; /* a part's, a thread's */
    bool heavy;                         /* worth waking another thread for */
} cpu_program;

bl_status cpu_pair(const bl_loops *loops, cpu_program *program);
bl_status cpu_run_map(cpu_plan *plan, cpu_kernel *kernel);
void cpu_free_program(void *program);

#endif
