/* Two instructions in one: where a sum, difference or product of f32 is read once, by another one,
 * by exp or by a select of what is finite, the two become a single loop, and what is between never
 * leaves the processor's registers. A sum over rows of exponentials is taken with them.
 *
 * Runs on a program whose slots are each written once, before registers are handed out. To add a
 * pair, give it a loop in loops.h and say below when it fits. */
#include "exec/cpu/map.h"

typedef struct pairing {
    const bl_loops *loops;
    const cpu_program *program;
    cpu_list *list;
    int32_t *reads, *writer; /* of every slot: how often it is read, which instruction writes it */
} pairing;

/* Distinct slots that an instruction reads; returns how many. */
static int read_slots(const cpu_instruction *i, int32_t slot[3])
{
    int count = 0;
    const int32_t all[3] = {i->x, i->y, i->w};
    for (int o = 0; o < 3; o++) {
        bool seen = all[o] < 0;
        for (int q = 0; q < count; q++)
            seen |= slot[q] == all[o];
        if (!seen)
            slot[count++] = all[o];
    }
    return count;
}

static bool is_arithmetic(const cpu_instruction *i)
{
    return i->kind == DO_LOOP && i->dtype == BL_F32 &&
           (i->op == BL_OP_add || i->op == BL_OP_sub || i->op == BL_OP_mul || i->op == BL_OP_div);
}

/* The instruction that writes a slot, if it can be drawn into instruction `at`: nobody else reads
 * the slot, and nothing is written to memory in between that it reads. */
static cpu_instruction *writer_of(const pairing *p, int32_t slot, int32_t at)
{
    if (slot < 0 || p->program->slot[slot].kind != SLOT_REGISTER || p->reads[slot] != 1 ||
        p->writer[slot] < 0)
        return NULL;
    cpu_instruction *first = &p->list->at[p->writer[slot]];
    if (first->kind != DO_LOOP || first->class != p->list->at[at].class)
        return NULL;
    for (int32_t n = p->writer[slot] + 1; n < at; n++) {
        const cpu_instruction *between = &p->list->at[n];
        if (between->z >= 0 && !cpu_is_state(between) &&
            p->program->slot[between->z].kind == SLOT_MEMORY)
            return NULL;
    }
    return first;
}

/* The row of the table for the first of two, or -1; a single x is brought to the second place. */
static int first_of(cpu_instruction *i)
{
    bool single_x = i->mode == BL_SV, single = single_x || i->mode == BL_VS;
    if (i->op == BL_OP_div)
        return single_x ? -1 : single ? BL_DIV_VS : BL_DIV_VV;
    if (single_x) {
        int32_t x = i->x;
        i->x = i->y;
        i->y = x;
    }
    if (i->op == BL_OP_add)
        return single ? BL_ADD_VS : BL_ADD_VV;
    if (i->op == BL_OP_mul)
        return single ? BL_MUL_VS : BL_MUL_VV;
    return single_x ? BL_FROM_VS : single ? BL_SUB_VS : BL_SUB_VV;
}

/* The column for the second, whose left (or right) operand is the first; -1: there is none. */
static int second_of(const cpu_instruction *i, bool left)
{
    switch (i->op) {
    case BL_OP_add:
        return BL_THEN_ADD;
    case BL_OP_mul:
        return BL_THEN_MUL;
    case BL_OP_div:
        return left ? BL_THEN_DIV : -1;
    default:
        return left ? BL_THEN_SUB : BL_THEN_FROM;
    }
}

static bool join_arithmetic(const pairing *p, int32_t at)
{
    cpu_instruction *i = &p->list->at[at];
    if (!is_arithmetic(i))
        return false;
    for (int left = 1; left >= 0; left--) {
        if (i->x == i->y || i->mode == (left ? BL_SV : BL_VS) || second_of(i, left) < 0)
            continue; /* the other operand is what repeats, or nothing fits */
        cpu_instruction *first = writer_of(p, left ? i->x : i->y, at);
        int row = first && is_arithmetic(first) ? first_of(first) : -1;
        if (row < 0)
            continue;
        i->w = left ? i->y : i->x;
        i->loop = p->loops->pair[row][second_of(i, left)][i->mode != BL_VV];
        i->x = first->x, i->y = first->y;
        i->op = BL_OPS;
        first->kind = DO_NOTHING;
        return true;
    }
    return false;
}

static bool join_exp(const pairing *p, int32_t at)
{
    cpu_instruction *i = &p->list->at[at];
    if (i->kind != DO_LOOP || i->dtype != BL_F32 || i->op != BL_OP_exp)
        return false;
    cpu_instruction *first = writer_of(p, i->x, at);
    if (!first || !is_arithmetic(first) || first->op != BL_OP_sub || first->mode == BL_SV)
        return false;
    i->loop = p->loops->sub_exp[first->mode == BL_VS];
    i->x = first->x, i->y = first->y, i->w = first->y;
    i->op = BL_OPS;
    first->kind = DO_NOTHING;
    return true;
}

/* select(isfinite(y), y, w), and the arithmetic before it, if y is read by nothing else. */
static bool join_finite(const pairing *p, int32_t at)
{
    cpu_instruction *i = &p->list->at[at];
    if (i->kind != DO_LOOP || i->dtype != BL_F32 || i->op != BL_OP_select ||
        (i->mode != BL_VVV && i->mode != BL_VVS))
        return false;
    cpu_instruction *first = writer_of(p, i->x, at);
    if (!first || first->op != BL_OP_isfinite || first->x != i->y)
        return false;
    bool single = i->mode == BL_VVS;
    i->loop = p->loops->finite_else[single];
    i->x = i->y;
    i->op = BL_OPS;
    first->kind = DO_NOTHING;
    p->reads[i->x]--;
    first = i->x == i->w ? NULL : writer_of(p, i->x, at);
    int row = first && is_arithmetic(first) ? first_of(first) : -1;
    if (row >= 0) {
        i->loop = p->loops->pair[row][BL_THEN_FINITE][single];
        i->x = first->x, i->y = first->y;
        first->kind = DO_NOTHING;
    }
    return true;
}

/* A sum over the rows of e^(x - y), y one a row: it is taken where the exponentials are. (What is
 * one a row never lies over an operand, so it may be written that early.) */
static bool join_sum(const pairing *p, int32_t at)
{
    cpu_instruction *i = &p->list->at[at];
    if (i->kind != DO_REDUCE_ROW || i->reduction != BL_SUM || i->dtype != BL_F32 ||
        !p->loops->exp_sum || p->writer[i->x] < 0)
        return false;
    cpu_instruction *first = &p->list->at[p->writer[i->x]];
    if (first->kind != DO_LOOP || first->loop != p->loops->sub_exp[1] || first->class != CPU_FULL)
        return false;
    first->kind = DO_EXP_SUM;
    first->w = i->z;
    i->kind = DO_NOTHING;
    return true;
}

static void count_reads(const pairing *p)
{
    for (int32_t n = 0; n < p->list->count; n++) {
        const cpu_instruction *i = &p->list->at[n];
        int32_t slot[3];
        int slots = read_slots(i, slot);
        for (int s = 0; s < slots; s++)
            p->reads[slot[s]]++;
        if (!cpu_is_state(i))
            p->writer[i->z] = n;
    }
}

static void remove_nothing(cpu_list *list)
{
    int32_t kept = 0;
    for (int32_t n = 0; n < list->count; n++)
        if (list->at[n].kind != DO_NOTHING)
            list->at[kept++] = list->at[n];
    list->count = kept;
}

bl_status cpu_pair(const bl_loops *loops, cpu_program *program)
{
    size_t slots = (size_t)program->slots + 1;
    pairing p = {loops, program, &program->each, bl_alloc(slots * sizeof *p.reads),
                 bl_alloc(slots * sizeof *p.writer)};
    if (p.reads && p.writer) {
        for (size_t s = 0; s < slots; s++)
            p.writer[s] = -1;
        count_reads(&p);
        for (int32_t n = 0; n < p.list->count; n++)
            (void)(join_arithmetic(&p, n) || join_exp(&p, n) || join_finite(&p, n) ||
                   join_sum(&p, n));
        remove_nothing(p.list);
    }
    bl_status status = p.reads && p.writer ? BL_OK : bl_no_memory(slots * sizeof *p.reads);
    bl_release(p.reads);
    bl_release(p.writer);
    return status;
}
