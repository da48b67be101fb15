/* Runs the programs of fused groups: see map.h.
 *
 * The tiles of a kernel are cut into parts whose number depends only on the shape; a part has its
 * own accumulators, and these are joined in order at the end. So a result does not depend on the
 * number of threads, which share the parts. */
#include "exec/cpu/map.h"

#include <math.h>
#include <string.h>

enum { FLUSH_ROWS = 64 }; /* rows added in f32 before they go to the doubles */

typedef struct tile {
    int64_t row, rows, column, columns;
} tile;

typedef struct part {
    const cpu_program *program;
    const cpu_plan *plan;
    void **at; /* of every slot, in this tile */
    char *states;
    int64_t pending; /* rows not flushed */
    tile tile;
} part;

static int64_t elements(const tile *t, cpu_class class)
{
    return class == CPU_FULL ? t->rows * t->columns : class == CPU_ROW ? t->rows : 1;
}

/* --- instructions ----------------------------------------------------------------------------- */

#define STRIDED(T)                                                                                 \
    for (int64_t i = 0; i < n; i++)                                                                \
    ((T *)to)[i] = ((const T *)from)[i * stride]

static void copy_strided(void *to, const void *from, int64_t n, int64_t stride, int size)
{
    if (stride == 1) {
        memcpy(to, from, (size_t)(n * size));
        return;
    }
    switch (size) {
    case 1:
        STRIDED(uint8_t);
        break;
    case 4:
        STRIDED(uint32_t);
        break;
    default:
        STRIDED(uint64_t);
    }
}

/* The last two axes of a view, whose inner one is short: `blocks` times `run` elements. What is
 * repeated is written once and then doubled. */
#define BLOCKS(T)                                                                                  \
    for (int64_t b = 0; b < blocks; b++)                                                           \
        for (int64_t i = 0; i < run; i++)                                                          \
    ((T *)to)[b * run + i] = ((const T *)from)[b * outer + i * stride]

static void copy_blocks(char *to, const char *from, int64_t blocks, int64_t outer, int64_t run,
                        int64_t stride, int size)
{
    if (outer == 0 && blocks > 1) {
        copy_strided(to, from, run, stride, size);
        int64_t done = run * size, all = blocks * run * size;
        for (; done < all; done *= 2)
            memcpy(to + done, to, (size_t)(2 * done < all ? done : all - done));
        return;
    }
    switch (size) {
    case 1:
        BLOCKS(uint8_t);
        break;
    case 4:
        BLOCKS(uint32_t);
        break;
    default:
        BLOCKS(uint64_t);
    }
}

/* Where in a view one is. */
typedef struct position {
    int64_t index[BL_MAX_RANK], at;
} position;

static position position_of(const cpu_view *view, int64_t element)
{
    position p = {.at = view->offset};
    for (int i = view->rank - 1; i >= 0; i--) {
        p.index[i] = element % view->dim[i];
        element /= view->dim[i];
        p.at += p.index[i] * view->stride[i];
    }
    return p;
}

static void advance(const cpu_view *view, position *p, int axis, int64_t by)
{
    p->at += by * view->stride[axis];
    p->index[axis] += by;
    for (int i = axis; i > 0 && p->index[i] == view->dim[i]; i--) {
        p->at += view->stride[i - 1] - view->dim[i] * view->stride[i];
        p->index[i] = 0;
        p->index[i - 1]++;
    }
}

enum { SHORT_RUN = 64 };

/* Elements start .. start + n of a view, in its order. */
static void gather(const bl_loops *loops, const cpu_view *view, const char *from, int64_t start,
                   int64_t n, int size, char *to)
{
    int last = view->rank - 1;
    position p = position_of(view, start);
    while (n > 0) {
        const char *here = from + p.at * size;
        int64_t run = view->dim[last] - p.index[last];
        bool turned = cpu_is_turned(view) && size == 4;
        if (run == view->dim[last] && (run < SHORT_RUN || turned) && last > 0 && n >= run) {
            int64_t blocks = view->dim[last - 1] - p.index[last - 1];
            blocks = blocks < n / run ? blocks : n / run;
            if (turned)
                loops->transpose(to, run, here, view->stride[last], blocks, run);
            else
                copy_blocks(to, here, blocks, view->stride[last - 1], run, view->stride[last],
                            size);
            advance(view, &p, last - 1, blocks);
            run *= blocks;
        } else {
            run = run < n ? run : n;
            copy_strided(to, here, run, view->stride[last], size);
            advance(view, &p, last, run);
        }
        to += run * size;
        n -= run;
    }
}

static void do_gather(const part *p, const cpu_instruction *i)
{
    const cpu_slot *z = &p->program->slot[i->z];
    const tile *t = &p->tile;
    int64_t start = i->class == CPU_ROW ? t->row : t->row * p->program->columns + t->column;
    gather(p->plan->loops, &i->view, p->plan->address[i->view.source], start, elements(t, i->class),
           z->size, p->at[i->z]);
}

static void do_spread(const part *p, const cpu_instruction *i)
{
    int size = p->program->slot[i->x].size;
    bool by_row = i->from == CPU_ROW;
    p->plan->loops->spread[size](p->at[i->z], p->at[i->x], by_row ? p->tile.rows : 1,
                                 by_row ? p->tile.columns : elements(&p->tile, i->class));
}

static void do_repeat(const part *p, const cpu_instruction *i)
{
    size_t bytes = (size_t)(p->program->columns * p->program->slot[i->z].size);
    for (int64_t r = 0; r < p->program->tile_rows; r++)
        memcpy((char *)p->at[i->z] + (size_t)r * bytes, p->at[i->x], bytes);
}

static bool is_real_sum(const cpu_state *s)
{
    return s->reduction == BL_SUM && bl_dtype_is_float(s->dtype);
}

static void flush_real(const cpu_state *s, char *states, int64_t segments)
{
    double *total = (double *)(void *)(states + s->total);
    if (s->dtype == BL_F32) {
        float *x = (float *)(void *)(states + s->offset);
        for (int64_t r = 0; r < segments; r++)
            for (int64_t c = 0; c < s->columns; c++)
                total[c] += (double)x[r * s->columns + c];
    } else {
        double *x = (double *)(void *)(states + s->offset);
        for (int64_t r = 0; r < segments; r++)
            for (int64_t c = 0; c < s->columns; c++)
                total[c] += x[r * s->columns + c];
    }
    memset(states + s->offset, 0, (size_t)s->width * bl_dtype_size(s->dtype));
}

/* Rows shorter than the accumulators' width are taken several at a time. */
static void reduce_column(const part *p, const cpu_instruction *i)
{
    const cpu_state *s = &p->program->state[i->z];
    const tile *t = &p->tile;
    size_t size = bl_dtype_size(s->dtype);
    char *z = p->states + s->offset + (size_t)t->column * size;
    const char *x = p->at[i->x];
    int64_t together = s->width / s->columns, whole = t->rows / together;
    if (together == 1) {
        i->reduce(z, x, t->rows, t->columns);
        return;
    }
    i->reduce(z, x, whole, s->width);
    i->reduce(z, x + (size_t)(whole * s->width) * size, t->rows - whole * together, s->columns);
}

static void reduce_all(const part *p, const cpu_instruction *i)
{
    const cpu_state *s = &p->program->state[i->z];
    uint64_t cell;
    i->reduce(&cell, p->at[i->x], 1, elements(&p->tile, i->class));
    if (is_real_sum(s)) {
        float x;
        double d;
        memcpy(&x, &cell, sizeof x);
        memcpy(&d, &cell, sizeof d);
        *(double *)(void *)(p->states + s->total) += s->dtype == BL_F32 ? (double)x : d;
    } else {
        p->plan->loops->reduce_columns[s->reduction][s->dtype](p->states + s->offset, &cell, 1, 1);
    }
}

/* Bytes from one row of a slot to the next. */
static int64_t row_bytes(const part *p, int32_t s)
{
    const cpu_slot *slot = &p->program->slot[s];
    return slot->by_column || slot->class == CPU_SINGLE ? 0
           : slot->class == CPU_ROW                     ? slot->size
                                                        : p->tile.columns * slot->size;
}

static void do_loop(const part *p, const cpu_instruction *i)
{
    char *z = p->at[i->z];
    const char *x = p->at[i->x], *y = p->at[i->y], *w = p->at[i->w];
    if (!i->by_row) {
        i->loop(z, x, y, w, elements(&p->tile, i->class));
        return;
    }
    int64_t next_z = row_bytes(p, i->z), next_x = row_bytes(p, i->x), next_y = row_bytes(p, i->y),
            next_w = row_bytes(p, i->w);
    for (int64_t r = 0; r < p->tile.rows; r++, z += next_z, x += next_x, y += next_y, w += next_w)
        i->loop(z, x, y, w, p->tile.columns);
}

static void exp_sum(const part *p, const cpu_instruction *i)
{
    int64_t n = p->tile.columns, next_x = row_bytes(p, i->x), next_y = row_bytes(p, i->y);
    float *z = p->at[i->z], *sum = p->at[i->w];
    const char *x = p->at[i->x], *y = p->at[i->y];
    for (int64_t r = 0; r < p->tile.rows; r++, z += n, x += next_x, y += next_y)
        sum[r] = p->plan->loops->exp_sum(z, (const float *)(const void *)x,
                                         *(const float *)(const void *)y, n);
}

static void step(const part *p, const cpu_instruction *i)
{
    void *const *at = p->at;
    switch (i->kind) {
    case DO_LOOP:
        do_loop(p, i);
        break;
    case DO_COPY:
        memcpy(at[i->z], at[i->x],
               (size_t)(elements(&p->tile, i->class) * p->program->slot[i->z].size));
        break;
    case DO_SPREAD:
        do_spread(p, i);
        break;
    case DO_GATHER:
        do_gather(p, i);
        break;
    case DO_REPEAT:
        do_repeat(p, i);
        break;
    case DO_REDUCE_ROW:
        i->reduce(at[i->z], at[i->x], p->tile.rows, p->tile.columns);
        break;
    case DO_EXP_SUM:
        exp_sum(p, i);
        break;
    case DO_REDUCE_COLUMN:
        reduce_column(p, i);
        break;
    case DO_REDUCE_ALL:
        reduce_all(p, i);
        break;
    case DO_NOTHING:
        break;
    }
}

/* --- parts ------------------------------------------------------------------------------------ */

static void start_states(const cpu_program *program, char *states)
{
    memset(states, 0, program->state_bytes);
    for (int32_t s = 0; s < program->states; s++)
        if (program->state[s].reduction != BL_SUM)
            cpu_fill_worst(program->state[s].dtype, program->state[s].reduction,
                           states + program->state[s].offset, program->state[s].width);
}

static void flush_states(part *p)
{
    for (int32_t s = 0; s < p->program->states; s++) {
        const cpu_state *state = &p->program->state[s];
        if (!state->of_all && is_real_sum(state))
            flush_real(state, p->states, state->width / state->columns);
    }
    p->pending = 0;
}

static void point_slots(const part *p, char *registers)
{
    for (int32_t s = 0; s < p->program->slots; s++) {
        const cpu_slot *slot = &p->program->slot[s];
        p->at[s] = slot->kind == SLOT_REGISTER
                       ? registers + slot->offset
                       : (char *)p->plan->address[slot->node] + slot->offset;
    }
}

static void move_slots(const part *p)
{
    const cpu_program *program = p->program;
    const tile *t = &p->tile;
    for (int32_t m = 0; m < program->movings; m++) {
        const cpu_slot *slot = &program->slot[program->moving[m]];
        int64_t element = slot->by_column          ? t->column
                          : slot->class == CPU_ROW ? t->row
                                                   : t->row * program->columns + t->column;
        p->at[program->moving[m]] =
            (char *)p->plan->address[slot->node] + slot->offset + element * slot->size;
    }
}

/* Asks for the next tile's operands while this one is computed: the processor's own prefetching
 * starts anew in every page, and a tile is hardly more than one. */
static void fetch_next_tile(const part *p)
{
    const cpu_program *program = p->program;
    for (int32_t m = 0; m < program->movings; m++) {
        const cpu_slot *slot = &program->slot[program->moving[m]];
        if (slot->class != CPU_FULL || slot->by_column)
            continue;
        int64_t bytes = p->tile.rows * p->tile.columns * slot->size;
        const char *from = (const char *)p->at[program->moving[m]] + bytes;
        for (int64_t b = 0; b < bytes; b += 64)
            __builtin_prefetch(from + b, 0, 3);
    }
}

static tile tile_at(const cpu_program *p, int64_t number)
{
    if (p->tile_columns == p->columns) {
        int64_t row = number * p->tile_rows, left = p->rows - row;
        return (tile){row, left < p->tile_rows ? left : p->tile_rows, 0, p->columns};
    }
    int64_t across = (p->columns + p->tile_columns - 1) / p->tile_columns;
    int64_t column = number % across * p->tile_columns, left = p->columns - column;
    return (tile){number / across, 1, column, left < p->tile_columns ? left : p->tile_columns};
}

static void run_part(const cpu_plan *plan, const cpu_program *program, int64_t number, char *states,
                     char *registers)
{
    part p = {.program = program, .plan = plan, .states = states};
    p.at = (void **)(void *)(registers + program->register_bytes) - program->slots;
    if (program->states)
        start_states(program, states);
    point_slots(&p, registers);
    int64_t first = program->tiles * number / program->parts;
    int64_t end = program->tiles * (number + 1) / program->parts;
    p.tile = (tile){0, program->tile_rows, 0, program->tile_columns};
    for (int32_t i = 0; i < program->once.count; i++)
        step(&p, &program->once.at[i]);
    for (int64_t t = first; t < end; t++) {
        p.tile = tile_at(program, t);
        move_slots(&p);
        if (t + 1 < end)
            fetch_next_tile(&p);
        for (int32_t i = 0; i < program->each.count; i++)
            step(&p, &program->each.at[i]);
        p.pending += p.tile.column + p.tile.columns == program->columns ? p.tile.rows : 0;
        if (p.pending >= FLUSH_ROWS && program->states)
            flush_states(&p);
    }
    if (program->states)
        flush_states(&p);
}

/* --- joining the parts ------------------------------------------------------------------------ */

static void store_total(const cpu_state *s, const char *states, void *z)
{
    const double *total = (const double *)(const void *)(states + s->total);
    for (int64_t c = 0; c < s->columns; c++)
        if (s->dtype == BL_F32)
            ((float *)z)[c] = (float)total[c];
        else
            ((double *)z)[c] = total[c];
}

static void finish_state(const cpu_plan *plan, const cpu_program *program, const cpu_state *s,
                         char *states)
{
    void *z = plan->address[s->node];
    bool real = is_real_sum(s);
    size_t bytes = program->state_bytes, size = bl_dtype_size(s->dtype);
    for (int64_t p = 1; p < program->parts; p++) {
        char *other = states + (size_t)p * bytes;
        if (real)
            plan->loops->reduce_columns[BL_SUM][BL_F64](states + s->total, other + s->total, 1,
                                                        s->columns);
        else
            plan->loops->reduce_columns[s->reduction][s->dtype](states + s->offset,
                                                                other + s->offset, 1, s->width);
    }
    if (real) {
        store_total(s, states, z);
        return;
    }
    memcpy(z, states + s->offset, (size_t)s->columns * size);
    plan->loops->reduce_columns[s->reduction][s->dtype](
        z, states + s->offset + (size_t)s->columns * size, s->width / s->columns - 1, s->columns);
}

typedef struct parts {
    const cpu_plan *plan;
    const cpu_program *program;
} parts;

static void do_part(void *context, int64_t number, int thread)
{
    const parts *p = context;
    const cpu_program *program = p->program;
    char *states = p->plan->scratch;
    char *registers = states + (size_t)program->parts * program->state_bytes;
    run_part(p->plan, program, number, states + (size_t)number * program->state_bytes,
             registers + (size_t)thread * program->register_bytes);
}

bl_status cpu_run_map(cpu_plan *plan, cpu_kernel *kernel)
{
    const cpu_program *program = kernel->data;
    parts p = {plan, program};
    cpu_pool_run(program->heavy ? plan->pool : NULL, do_part, &p, program->parts);
    for (int32_t s = 0; s < program->states; s++)
        finish_state(plan, program, &program->state[s], plan->scratch);
    return BL_OK;
}

void cpu_free_program(void *pointer)
{
    cpu_program *p = pointer;
    if (!p)
        return;
    bl_release(p->once.at);
    bl_release(p->each.at);
    bl_release(p->slot);
    bl_release(p->moving);
    bl_release(p->state);
    bl_release(p);
}
