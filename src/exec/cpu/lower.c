/* Lowering: a fused group becomes a program of loops over tiles (map.h).
 *
 * A value is full (an element for all of the tile), one a row, or single; an instruction works on
 * as many elements as its widest operand has, and a narrower operand is read as a single element or
 * spread first. Registers are handed out by last use; the tile's size follows from their number. */
#include "exec/cpu/map.h"

#include <string.h>

enum {
    SHORT_ROW = 128,        /* rows up to here are taken several at a time */
    CACHE_BYTES = 24 << 10, /* of registers */
    TILE_LEAST = 128,
    TILE_MOST = 1024,
    ROWS_MOST = 16,         /* long rows in a tile */
    TURNED_ROWS = 16,       /* of a transposed operand: a line of memory is one row of these */
    TURNED_MOST = 16 << 10, /* elements of a tile that has one */
    PART_ELEMENTS = 16384,
    PARTS_MOST = 16,
    STATE_BYTES = 1 << 20, /* of all parts */
    HEAVY = 500000         /* elements times instructions: some 50 microseconds */
};

typedef struct leaf { /* an operand in memory, already read */
    cpu_view view;
    cpu_class space;
    int32_t slot;
} leaf;

typedef struct lowering {
    cpu_plan *plan;
    cpu_group *group;
    cpu_program *program;
    bool short_rows; /* a tile is several rows, and they are taken together */
    bool long_rows;  /* a tile is several rows, if they fit the cache, taken one by one */
    leaf *leaf;
    int32_t leaves;
    size_t leaf_capacity;
    int32_t *spread; /* of every slot: its full version, or -1 */
    size_t spread_capacity;
} lowering;

/* --- slots ------------------------------------------------------------------------------------ */

static bl_status new_slot(lowering *l, cpu_slot slot, int32_t *out)
{
    cpu_program *p = l->program;
    if (!BL_GROW(p->slot, p->slots, p->slot_capacity) ||
        !BL_GROW(l->spread, p->slots, l->spread_capacity))
        return bl_no_memory(sizeof slot);
    l->spread[p->slots] = -1;
    p->slot[p->slots] = slot;
    *out = p->slots++;
    return BL_OK;
}

static bl_status new_register(lowering *l, cpu_class class, int size, int32_t *out)
{
    return new_slot(l, (cpu_slot){.kind = SLOT_REGISTER, .class = class, .node = -1, .size = size},
                    out);
}

static bl_status add(cpu_list *list, cpu_instruction instruction)
{
    if (!BL_GROW(list->at, list->count, list->capacity))
        return bl_no_memory(sizeof instruction);
    list->at[list->count++] = instruction;
    return BL_OK;
}

/* Single values, and what is the same in every tile, are computed before the tiles. */
static bl_status emit(lowering *l, cpu_instruction instruction)
{
    bool once = instruction.class == CPU_SINGLE || instruction.kind == DO_REPEAT ||
                (instruction.kind == DO_SPREAD && instruction.from == CPU_SINGLE);
    return add(once ? &l->program->once : &l->program->each, instruction);
}

static cpu_class class_of(const lowering *l, int32_t slot)
{
    return l->program->slot[slot].class;
}

/* A register of `class` with the value of a narrower slot. */
static bl_status spread(lowering *l, int32_t from, cpu_class class, int32_t *out)
{
    if (class_of(l, from) == class) {
        *out = from;
        return BL_OK;
    }
    if (l->spread[from] >= 0 && class_of(l, l->spread[from]) == class) {
        *out = l->spread[from];
        return BL_OK;
    }
    BL_TRY(new_register(l, class, l->program->slot[from].size, out));
    l->spread[from] = *out;
    return emit(l, (cpu_instruction){.kind = DO_SPREAD,
                                     .class = class,
                                     .from = class_of(l, from),
                                     .z = *out,
                                     .x = from,
                                     .y = -1,
                                     .w = -1});
}

/* --- operands --------------------------------------------------------------------------------- */

static bool same_leaf(const leaf *a, const cpu_view *view, cpu_class space)
{
    if (a->space != space || a->view.source != view->source || a->view.rank != view->rank ||
        a->view.offset != view->offset)
        return false;
    size_t bytes = (size_t)view->rank * sizeof view->dim[0];
    return memcmp(a->view.dim, view->dim, bytes) == 0 &&
           memcmp(a->view.stride, view->stride, bytes) == 0;
}

static bl_status gather_leaf(lowering *l, cpu_view view, cpu_class class, int size, int32_t *out)
{
    int64_t count = class == CPU_ROW ? l->program->rows : l->group->count;
    int64_t kept = 1;
    int rank = 0;
    while (rank < view.rank && kept < count)
        kept *= view.dim[rank++];
    view.rank = rank; /* of a value that is one a row: only the axes of the rows */
    BL_TRY(new_register(l, class, size, out));
    return emit(
        l,
        (cpu_instruction){
            .kind = DO_GATHER, .class = class, .z = *out, .x = -1, .y = -1, .w = -1, .view = view});
}

/* A register that holds one row, a slot in memory, as often as a tile has rows. */
static bl_status repeat_row(lowering *l, int32_t row, int32_t *out)
{
    int32_t whole = l->spread[row];
    if (whole < 0) {
        BL_TRY(new_register(l, CPU_FULL, l->program->slot[row].size, &whole));
        l->spread[row] = whole;
        BL_TRY(emit(
            l, (cpu_instruction){
                   .kind = DO_REPEAT, .class = CPU_FULL, .z = whole, .x = row, .y = -1, .w = -1}));
    }
    *out = whole;
    return BL_OK;
}

static bl_status read_leaf(lowering *l, cpu_view view, cpu_class space, int size, int32_t *out)
{
    cpu_reading reading = cpu_read(l->group, &view, space);
    view = cpu_coalesce(view);
    if (!reading.direct)
        return gather_leaf(l, view, reading.class, size, out);
    BL_TRY(new_slot(l,
                    (cpu_slot){.kind = SLOT_MEMORY,
                               .class = reading.class,
                               .by_column = reading.by_column,
                               .node = view.source,
                               .size = size,
                               .offset = view.offset * size},
                    out));
    return reading.by_column && l->short_rows ? repeat_row(l, *out, out) : BL_OK;
}

static bl_status leaf_slot(lowering *l, const cpu_view *view, cpu_class space, int size,
                           int32_t *out)
{
    for (int32_t i = 0; i < l->leaves; i++)
        if (same_leaf(&l->leaf[i], view, space)) {
            *out = l->leaf[i].slot;
            return BL_OK;
        }
    BL_TRY(read_leaf(l, *view, space, size, out));
    if (!BL_GROW(l->leaf, l->leaves, l->leaf_capacity))
        return bl_no_memory(sizeof *l->leaf);
    l->leaf[l->leaves++] = (leaf){*view, space, *out};
    return BL_OK;
}

/* The slot of operand i of a node that works in `space`. */
static bl_status operand_slot(lowering *l, int32_t id, int i, cpu_class space, int32_t *out)
{
    const cpu_fact *fact = &l->plan->fact[id];
    const bl_node *node = cpu_node(l->plan, id);
    cpu_view view = fact->view ? *fact->view : cpu_operand_view(l->plan, node, i);
    const cpu_fact *source = &l->plan->fact[view.source];
    if (source->group == fact->group) {
        *out = l->plan->slot[view.source];
        return BL_OK;
    }
    int size = (int)bl_dtype_size(cpu_node(l->plan, view.source)->type.dtype);
    return leaf_slot(l, &view, space, size, out);
}

/* --- instructions ----------------------------------------------------------------------------- */

/* Whether a class has one element in every tile. */
static bool is_one(const lowering *l, cpu_class class)
{
    return class == CPU_SINGLE || (class == CPU_ROW && !l->short_rows && !l->long_rows);
}

/* Whether a loop of class `class` finds one element of it where it stands. */
static bool is_one_in(const lowering *l, cpu_class own, cpu_class class)
{
    return is_one(l, own) || (own == CPU_ROW && class == CPU_FULL && l->long_rows);
}

/* Makes slot x fit an instruction of `class`: as it is, or single if `may_be_single`. */
static bl_status fit(lowering *l, int32_t *x, cpu_class class, bool may_be_single, bool *single)
{
    cpu_class own = class_of(l, *x);
    *single = false;
    if (own == class || (is_one(l, own) && is_one(l, class)))
        return BL_OK;
    if (is_one_in(l, own, class) && may_be_single) {
        *single = true;
        return BL_OK;
    }
    return spread(l, *x, class, x);
}

static bl_status choose_loop(lowering *l, const bl_node *node, cpu_instruction *i)
{
    const bl_loops *loops = l->plan->loops;
    bl_dtype from = cpu_node(l->plan, node->operand[node->op == BL_OP_select])->type.dtype;
    bool sx = false, sy = false, sw = false;
    i->op = node->op;
    i->dtype = from;
    BL_TRY(fit(l, &i->x, i->class, node->operands == 2, &sx));
    if (node->operands == 1) {
        i->loop = node->op == BL_OP_cast ? loops->cast[from][node->type.dtype]
                                         : loops->unary[node->op][from];
        return BL_OK;
    }
    BL_TRY(fit(l, &i->y, i->class, !sx, &sy));
    if (node->operands == 2) {
        i->mode = sx ? BL_SV : sy ? BL_VS : BL_VV;
        i->loop = loops->binary[node->op][from][i->mode];
        return BL_OK;
    }
    BL_TRY(fit(l, &i->w, i->class, true, &sw));
    i->mode = sy ? (sw ? BL_VSS : BL_VSV) : sw ? BL_VVS : BL_VVV;
    i->loop = loops->ternary[node->op][from][i->mode];
    return BL_OK;
}

static cpu_class wider(cpu_class a, cpu_class b)
{
    return a < b ? a : b;
}

static bl_status lower_map(lowering *l, int32_t id)
{
    const bl_node *node = cpu_node(l->plan, id);
    const cpu_fact *fact = &l->plan->fact[id];
    cpu_instruction i = {.kind = DO_LOOP, .class = CPU_SINGLE, .x = -1, .y = -1, .w = -1};
    int32_t *operand[3] = {&i.x, &i.y, &i.w};
    int operands = fact->view ? 1 : node->operands;
    for (int o = 0; o < operands; o++) {
        BL_TRY(operand_slot(l, id, o, fact->space, operand[o]));
        i.class = wider(i.class, class_of(l, *operand[o]));
    }
    if (fact->view || !bl_op_is_elementwise(node->op)) { /* a copy: the value is the operand's */
        l->plan->slot[id] = i.x;
        return BL_OK;
    }
    BL_TRY(choose_loop(l, node, &i));
    if (i.y < 0)
        i.y = i.x;
    if (i.w < 0)
        i.w = i.x;
    BL_TRY(new_register(l, i.class, (int)bl_dtype_size(node->type.dtype), &i.z));
    l->plan->slot[id] = i.z;
    return emit(l, i);
}

static bl_status add_state(lowering *l, int32_t id, int32_t *out)
{
    cpu_program *p = l->program;
    const bl_node *node = cpu_node(l->plan, id);
    cpu_state s = {.node = id,
                   .of_all = l->plan->fact[id].reduction == CPU_OF_ALL,
                   .reduction = cpu_reduction_index(node->op),
                   .dtype = node->type.dtype};
    bool real_sum = s.reduction == BL_SUM && bl_dtype_is_float(s.dtype);
    s.columns = s.of_all ? 1 : p->columns;
    int64_t together = s.of_all ? 1 : (SHORT_ROW - 1) / s.columns;
    s.width = s.columns * (together > 1 && l->short_rows ? together : 1);
    size_t at = p->state_bytes, size = bl_dtype_size(s.dtype);
    s.offset = (int64_t)at;
    at = (at + (size_t)s.width * size + 63) & ~(size_t)63;
    s.total = (int64_t)at;
    if (real_sum)
        at = (at + (size_t)s.columns * sizeof(double) + 63) & ~(size_t)63;
    p->state_bytes = at;
    if (!BL_GROW(p->state, p->states, p->state_capacity))
        return bl_no_memory(sizeof s);
    p->state[p->states] = s;
    *out = p->states++;
    return BL_OK;
}

/* What only a loop can read where it stands, one row for all, as a register of all rows. */
static bl_status every_row(lowering *l, int32_t slot, int32_t *out)
{
    *out = slot;
    return l->program->slot[slot].by_column && l->long_rows ? repeat_row(l, slot, out) : BL_OK;
}

static bl_status lower_reduction(lowering *l, int32_t id)
{
    const bl_node *node = cpu_node(l->plan, id);
    const cpu_fact *fact = &l->plan->fact[id];
    int reduction = cpu_reduction_index(node->op);
    cpu_instruction i = {.kind = DO_REDUCE_ROW,
                         .class = CPU_ROW,
                         .y = -1,
                         .w = -1,
                         .reduction = reduction,
                         .dtype = node->type.dtype,
                         .reduce = l->plan->loops->reduce_rows[reduction][node->type.dtype]};
    BL_TRY(operand_slot(l, id, 0, fact->operand_space, &i.x));
    BL_TRY(every_row(l, i.x, &i.x));
    BL_TRY(spread(l, i.x, fact->operand_space, &i.x));
    if (fact->reduction == CPU_OF_ROW) {
        BL_TRY(new_register(l, CPU_ROW, (int)bl_dtype_size(node->type.dtype), &i.z));
        l->plan->slot[id] = i.z;
        return emit(l, i);
    }
    i.class = fact->operand_space;
    i.kind = fact->reduction == CPU_OF_ALL ? DO_REDUCE_ALL : DO_REDUCE_COLUMN;
    if (i.kind == DO_REDUCE_COLUMN)
        i.reduce = l->plan->loops->reduce_columns[reduction][node->type.dtype];
    BL_TRY(add_state(l, id, &i.z));
    return emit(l, i);
}

/* --- outputs ---------------------------------------------------------------------------------- */

static bool instruction_reads(const cpu_instruction *i, int32_t slot)
{
    return i->x == slot || i->y == slot || i->w == slot;
}

/* Whether an instruction after `from` reads the memory of node `id`. */
static bool read_after(const cpu_program *p, int32_t from, int32_t id)
{
    for (int32_t n = from + 1; n < p->each.count; n++) {
        const cpu_instruction *i = &p->each.at[n];
        for (int32_t s = 0; s < p->slots; s++)
            if (p->slot[s].kind == SLOT_MEMORY && p->slot[s].node == id && instruction_reads(i, s))
                return true;
        if (i->kind == DO_GATHER && i->view.source == id)
            return true;
    }
    return false;
}

static int32_t writer_of(const cpu_program *p, int32_t slot)
{
    for (int32_t n = p->each.count - 1; n >= 0; n--)
        if (!cpu_is_state(&p->each.at[n]) && p->each.at[n].z == slot)
            return n;
    return -1;
}

/* The value goes from its register to memory; straight there, if nothing that is read later lies
 * under it. */
static bl_status store(lowering *l, int32_t id)
{
    const cpu_fact *fact = &l->plan->fact[id];
    cpu_program *p = l->program;
    int32_t slot, out, over = l->plan->over[id];
    BL_TRY(every_row(l, l->plan->slot[id], &slot));
    int size = (int)bl_dtype_size(cpu_node(l->plan, id)->type.dtype);
    BL_TRY(new_slot(
        l, (cpu_slot){.kind = SLOT_MEMORY, .class = fact->space, .node = id, .size = size}, &out));
    cpu_instruction i = {.kind = class_of(l, slot) == fact->space ? DO_COPY : DO_SPREAD,
                         .class = fact->space,
                         .from = class_of(l, slot),
                         .z = out,
                         .x = slot,
                         .y = -1,
                         .w = -1};
    int32_t writer = writer_of(p, slot);
    if (i.kind == DO_SPREAD || p->slot[slot].kind == SLOT_MEMORY || writer < 0 ||
        (over >= 0 && read_after(p, writer, over)))
        return add(&p->each, i);
    for (int32_t n = writer; n < p->each.count; n++) {
        cpu_instruction *j = &p->each.at[n];
        j->x = j->x == slot ? out : j->x;
        j->y = j->y == slot ? out : j->y;
        j->w = j->w == slot ? out : j->w;
        if (!cpu_is_state(j) && j->z == slot)
            j->z = out;
    }
    for (int32_t n = 0; n < l->group->nodes; n++) /* two copies of one view share a register */
        if (l->plan->slot[l->group->node[n]] == slot)
            l->plan->slot[l->group->node[n]] = out;
    return BL_OK;
}

/* --- registers -------------------------------------------------------------------------------- */

typedef struct allocation {
    int32_t *last; /* instruction that reads the slot last; -1: never */
    int32_t *place, *free;
    int32_t places, frees;
    cpu_class *class; /* of a place */
    int *size;
} allocation;

/* What is computed before the tiles stays for all of them. */
static void find_last_reads(const cpu_program *p, allocation *a)
{
    for (int32_t s = 0; s < p->slots; s++)
        a->last[s] = -1, a->place[s] = -1;
    for (int32_t n = 0; n < p->each.count; n++) {
        const cpu_instruction *i = &p->each.at[n];
        const int32_t slot[4] = {cpu_is_state(i) ? -1 : i->z, i->x, i->y, i->w};
        for (int o = 0; o < 4; o++)
            if (slot[o] >= 0)
                a->last[slot[o]] = n;
    }
    for (int32_t n = 0; n < p->once.count; n++)
        a->last[p->once.at[n].z] = INT32_MAX;
}

static void take_place(cpu_program *p, allocation *a, int32_t s)
{
    cpu_slot *slot = &p->slot[s];
    if (slot->kind != SLOT_REGISTER || a->place[s] >= 0)
        return;
    for (int32_t f = a->frees - 1; f >= 0; f--)
        if (a->class[a->free[f]] == slot->class && a->size[a->free[f]] == slot->size) {
            a->place[s] = a->free[f];
            a->free[f] = a->free[--a->frees];
            return;
        }
    a->class[a->places] = slot->class;
    a->size[a->places] = slot->size;
    a->place[s] = a->places++;
}

/* Gives back what the instruction reads last: the operands over which a loop may write its result
 * (`under`), or the other slots. */
static void free_places(const cpu_program *p, allocation *a, int32_t n, bool under)
{
    const cpu_instruction *i = &p->each.at[n];
    const int32_t slot[4] = {i->x, i->y, i->w, cpu_is_state(i) ? -1 : i->z};
    const cpu_slot *z = slot[3] >= 0 ? &p->slot[slot[3]] : NULL;
    for (int o = 0; o < 4; o++) {
        const cpu_slot *x = slot[o] >= 0 ? &p->slot[slot[o]] : NULL;
        bool seen = false;
        for (int q = 0; q < o; q++)
            seen |= slot[q] == slot[o];
        if (!x || seen || x->kind != SLOT_REGISTER || a->last[slot[o]] != n)
            continue;
        bool fits = (i->kind == DO_LOOP || i->kind == DO_EXP_SUM) && o < 3 &&
                    x->class == z->class && x->size == z->size && (o != 2 || i->kind == DO_LOOP);
        if (fits == under)
            a->free[a->frees++] = a->place[slot[o]];
    }
}

/* A result takes the place of an operand that dies, if it may: the tile stays small, and a load
 * from a place that differs from a store's only in its page can cost many cycles. */
static void assign(cpu_program *p, allocation *a)
{
    for (int32_t n = 0; n < p->once.count; n++)
        take_place(p, a, p->once.at[n].z);
    for (int32_t n = 0; n < p->each.count; n++) {
        const cpu_instruction *i = &p->each.at[n];
        free_places(p, a, n, true);
        if (!cpu_is_state(i))
            take_place(p, a, i->z);
        if (i->kind == DO_EXP_SUM)
            take_place(p, a, i->w);
        free_places(p, a, n, false);
    }
}

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

/* Elements of a tile in which every line that a transposed operand reads is used as a whole, or 0.
 */
static int64_t turned_tile(const cpu_program *p)
{
    int64_t most = 0;
    for (int32_t n = 0; n < p->each.count; n++) {
        const cpu_instruction *i = &p->each.at[n];
        if (i->kind != DO_GATHER || i->class != CPU_FULL || !cpu_is_turned(&i->view))
            continue;
        int64_t tile = TURNED_ROWS * i->view.dim[i->view.rank - 1];
        most = tile > most && tile <= TURNED_MOST ? tile : most;
    }
    return most;
}

/* Tiles of as many elements as keep the full registers in the first cache. */
static void size_tiles(lowering *l, const allocation *a)
{
    cpu_program *p = l->program;
    int64_t bytes = 4;
    for (int32_t i = 0; i < a->places; i++)
        bytes += a->class[i] == CPU_FULL ? a->size[i] : 0;
    int64_t tile = clamp(CACHE_BYTES / bytes & ~(int64_t)63, TILE_LEAST, TILE_MOST);
    int64_t turned = turned_tile(p);
    tile = turned > tile ? turned : tile;
    p->tile_rows = 1, p->tile_columns = p->columns;
    if (l->short_rows)
        p->tile_rows = clamp(tile / p->columns, 1, p->rows);
    else if (l->long_rows)
        p->tile_rows = clamp(CACHE_BYTES / bytes / p->columns, 1, clamp(p->rows, 1, ROWS_MOST));
    else
        p->tile_columns = tile < p->columns ? tile : p->columns;
    int64_t across = (p->columns + p->tile_columns - 1) / p->tile_columns;
    p->tiles = (p->rows + p->tile_rows - 1) / p->tile_rows * across;
    int64_t most = p->state_bytes ? STATE_BYTES / (int64_t)p->state_bytes : PARTS_MOST;
    p->parts = clamp(p->rows * p->columns / PART_ELEMENTS, 1, clamp(most, 1, PARTS_MOST));
    p->parts = p->parts < p->tiles ? p->parts : p->tiles;
}

static void place_registers(cpu_program *p, const allocation *a, int64_t *offset)
{
    int64_t at = 0;
    for (int32_t i = 0; i < a->places; i++) {
        int64_t count = a->class[i] == CPU_FULL  ? p->tile_rows * p->tile_columns
                        : a->class[i] == CPU_ROW ? p->tile_rows
                                                 : 1;
        offset[i] = at;
        at = (at + count * a->size[i] + 63) & ~(int64_t)63;
    }
    for (int32_t s = 0; s < p->slots; s++)
        if (a->place[s] >= 0)
            p->slot[s].offset = offset[a->place[s]];
    size_t pointers = (size_t)p->slots * sizeof(void *);
    p->register_bytes = ((size_t)at + pointers + 63) & ~(size_t)63;
}

static bl_status allocate(lowering *l)
{
    cpu_program *p = l->program;
    size_t n = (size_t)p->slots + 1;
    allocation a = {.last = bl_alloc(n * sizeof *a.last),
                    .place = bl_alloc(n * sizeof *a.place),
                    .free = bl_alloc(n * sizeof *a.free),
                    .class = bl_alloc(n * sizeof *a.class),
                    .size = bl_alloc(n * sizeof *a.size)};
    int64_t *offset = bl_alloc(n * sizeof *offset);
    p->moving = bl_alloc(n * sizeof *p->moving);
    bl_status status = BL_OK;
    if (a.last && a.place && a.free && a.class && a.size && offset && p->moving) {
        find_last_reads(p, &a);
        assign(p, &a);
        size_tiles(l, &a);
        place_registers(p, &a, offset);
    } else {
        status = bl_no_memory(n * sizeof *offset);
    }
    bl_release(a.last);
    bl_release(a.place);
    bl_release(a.free);
    bl_release(a.class);
    bl_release(a.size);
    bl_release(offset);
    return status;
}

static void find_moving(cpu_program *p)
{
    for (int32_t s = 0; s < p->slots; s++)
        if (p->slot[s].kind == SLOT_MEMORY && p->slot[s].class != CPU_SINGLE)
            p->moving[p->movings++] = s;
}

/* --- the group -------------------------------------------------------------------------------- */

/* Whether something is computed once a row. */
static bool needs_rows(const lowering *l)
{
    for (int32_t n = 0; n < l->group->nodes; n++) {
        const cpu_fact *fact = &l->plan->fact[l->group->node[n]];
        cpu_class space = fact->reduction == CPU_OF_ROW || fact->reduction == CPU_NOT
                              ? fact->space
                              : fact->operand_space;
        if (space == CPU_ROW)
            return true;
    }
    return false;
}

/* Loops that run row by row. */
static void find_by_row(const lowering *l, cpu_program *p)
{
    for (int32_t n = 0; n < p->each.count; n++) {
        cpu_instruction *i = &p->each.at[n];
        const int32_t slot[3] = {i->x, i->y, i->w};
        for (int o = 0; o < 3 && i->kind == DO_LOOP && i->class == CPU_FULL; o++)
            i->by_row |=
                l->long_rows && (class_of(l, slot[o]) == CPU_ROW || p->slot[slot[o]].by_column);
    }
}

static bl_status write_program(lowering *l)
{
    cpu_program *p = l->program;
    p->columns = l->group->columns;
    p->rows = l->group->count / p->columns;
    l->short_rows = p->columns <= SHORT_ROW && p->rows > 1;
    l->long_rows = !l->short_rows && needs_rows(l);
    for (int32_t n = 0; n < l->group->nodes; n++) {
        int32_t id = l->group->node[n];
        bool reduction = l->plan->fact[id].reduction != CPU_NOT;
        BL_TRY(reduction ? lower_reduction(l, id) : lower_map(l, id));
    }
    for (int32_t n = 0; n < l->group->nodes; n++) {
        int32_t id = l->group->node[n];
        if (l->plan->fact[id].stored && !l->plan->fact[id].terminal)
            BL_TRY(store(l, id));
    }
    BL_TRY(cpu_pair(l->plan->loops, p));
    find_by_row(l, p);
    BL_TRY(allocate(l));
    find_moving(p);
    p->heavy = p->rows * p->columns * p->each.count >= HEAVY;
    return BL_OK;
}

bl_status cpu_lower(cpu_plan *plan, cpu_kernel *kernel)
{
    lowering l = {.plan = plan, .group = &plan->group[kernel->group]};
    kernel->data = l.program = bl_alloc(sizeof(cpu_program));
    if (!l.program)
        return bl_no_memory(sizeof(cpu_program));
    kernel->free = cpu_free_program;
    kernel->run = cpu_run_map;
    kernel->how = "map";
    bl_status status = write_program(&l);
    size_t scratch = (size_t)l.program->parts * l.program->state_bytes +
                     (size_t)plan->threads * l.program->register_bytes;
    cpu_reserve_scratch(plan, scratch);
    bl_release(l.leaf);
    bl_release(l.spread);
    return status;
}
