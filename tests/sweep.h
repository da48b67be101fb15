/* What the sweep over the table of primitives does to one case: a primitive, its attributes, and
 * the types and values of its operands.
 *
 *     sweep_case c = {.op = BL_OP_add, .operands = 2, .x = {{type, .low = -2, .high = 2}, ..}};
 *     check(sweep, &c);
 *
 * The case is built with its operands in every form (as they are, transposed, every second element,
 * backwards), run on the cpu and on the reference executor, with numbers that are smooth, equal or
 * special, and compared. Where the operands are floats, so are the gradient and the gradient of the
 * gradient; in f64 both are compared with central differences. A dtype that the entry does not list
 * must be refused. */
#ifndef BL_TESTS_SWEEP_H
#define BL_TESTS_SWEEP_H

#include "support.h"

enum { OPERANDS = 6, FORMS = 4, ALL_DTYPES = (1 << BL_DTYPES) - 1 };
enum { FLOATS = 1 << BL_F32 | 1 << BL_F64, BOOLS = 1 << BL_BOOL, NUMBERS = ALL_DTYPES & ~BOOLS };
enum { SIGNED = FLOATS | 1 << BL_I32 | 1 << BL_I8 };

/* Which numbers: within low..high; few, so that many are equal; the edges of the dtype. */
typedef enum numbers { SMOOTH, TIES, SPECIAL, KINDS } numbers;

typedef struct sweep_operand {
    bl_type type;
    double low, high; /* smooth floats */
    int64_t below;    /* an index: 0 .. below - 1 */
    bool distinct;    /* an index without repetition */
    uint32_t one;     /* axes along which it is broadcast from size 1 */
} sweep_operand;

typedef struct sweep_case {
    bl_op op;
    int operands;
    sweep_operand x[OPERANDS];
    bl_attr attr;
    bl_type wanted; /* of a primitive that is told its type, else all zero */
    bool told;
    /* Where the primitive needs more than attributes. */
    bl_tensor (*build)(bl_graph *g, const bl_tensor *x, const struct sweep_case *c);
} sweep_case;

typedef struct sweep sweep;
typedef struct entry {
    void (*cases)(sweep *s, bl_dtype dtype); /* calls check for every case of a dtype */
    unsigned dtypes;                         /* that it takes */
    int orders;                              /* of derivatives that it has: 0, 1, 2 */
    unsigned slopes;                         /* operands that it has derivatives in, by bit */
    double low[3], high[3];                  /* where the operands are smooth */
    double loose;                            /* times the usual tolerance; 0: 1 */
    bool smooth;                             /* only smooth numbers are valid */
    double least;                            /* size by which errors in f64 are measured */
} entry;

struct sweep {
    const entry *e;
    bl_op op;
    bl_random random;
    int64_t cases, differences;
    bool seen; /* the primitive, in a graph that was run */
};

/* --- numbers -----------------------------------------------------------------------------------
 */

/* Of an infinite number in a window, what lies in the padding makes NaN or nothing: not tested. */
static inline double special_number(bl_op op, bl_dtype dtype, int64_t i)
{
    bool elementwise = bl_op_is_elementwise(op) || bl_op_class_of(op) == BL_LEAF;
    bool window = bl_op_class_of(op) == BL_CONTRACT && op != BL_OP_dot;
    static const double large[] = {0,    -0.0, 1,    -1,  2,        -2,        0.5,   -0.5,
                                   3,    -7,   12,   100, 127,      -128,      1e-3,  1e10,
                                   -1e4, 0.25, 1e-5, NAN, INFINITY, -INFINITY, 1e-40, -1e-40};
    static const double small[] = {0, -0.0, 1, -1, 0.5, 2, 1e-40, 3, INFINITY, -INFINITY, NAN};
    static const double whole[] = {0,  1, 2,   3,    7,          100,          127,
                                   -1, 8, 255, -128, 2147483647, -2147483648., 4294967295.};
    if (dtype == BL_BOOL)
        return (double)(i % 2);
    if (!bl_dtype_is_float(dtype))
        return elementwise ? whole[i % COUNT_OF(whole)] : (double)(i % 120);
    if (!elementwise)
        return small[i % (COUNT_OF(small) - 3 * window)];
    double value = large[i % COUNT_OF(large)];
    return dtype == BL_F64 && fabs(value) == 1e-40 ? value * 1e-270 : value;
}

/* The whole number nearest to value that the dtype holds. */
static inline double held(bl_dtype dtype, double value)
{
    static const double low[BL_DTYPES] = {[BL_I32] = INT32_MIN, [BL_I8] = INT8_MIN};
    static const double high[BL_DTYPES] = {[BL_I32] = INT32_MAX,
                                           [BL_U32] = UINT32_MAX,
                                           [BL_I8] = INT8_MAX,
                                           [BL_U8] = UINT8_MAX,
                                           [BL_BOOL] = 1};
    return bl_dtype_is_float(dtype) ? value : fmin(fmax(value, low[dtype]), high[dtype]);
}

static inline void fill_index(sweep *s, const sweep_operand *x, bl_array *a, numbers kind)
{
    int32_t order[4096];
    assert_in_range(x->below, 0, 4096);
    bl_random_permutation(&s->random, order, x->below);
    bool every_second = bl_array_count(a) > x->below; /* will be read */
    for (int64_t i = 0; i < bl_array_count(a); i++)
        bl_i32(a)[i] = x->distinct    ? order[every_second ? i / 2 : i]
                       : kind == TIES ? (int32_t)x->below - 1
                                      : (int32_t)bl_random_below(&s->random, (uint32_t)x->below);
}

static inline void fill_operand(sweep *s, const sweep_case *c, int o, bl_array *a, numbers kind)
{
    const sweep_operand *x = &c->x[o];
    bl_dtype dtype = a->type.dtype;
    if (x->below || x->distinct) {
        fill_index(s, x, a, kind);
        return;
    }
    static const int step[OPERANDS] = {1, 5, 7, 11, 13, 17};
    bool along = (x->one || c->x[1 - (o > 0)].one) && bl_array_count(a) > 1; /* all pairs */
    for (int64_t i = 0; i < bl_array_count(a); i++) {
        double unit = bl_random_unit(&s->random), value = x->low + (x->high - x->low) * unit;
        if (bl_op_is_elementwise(c->op)) /* no two operands meet where one of them is moved */
            value = (floor(value * 1024) + 0.3 * o) / 1024;
        if (kind == TIES)
            value = (double)bl_random_below(&s->random, 5) / 2 - 1;
        if (kind == SPECIAL)
            value = special_number(c->op, dtype, along ? i : (i + 1) * step[o]);
        else if (!bl_dtype_is_float(dtype))
            value = kind == TIES ? (double)bl_random_below(&s->random, 3) : floor(19 * unit) - 9;
        bl_array_set(a, i, held(dtype, value));
    }
}

/* --- forms of operands -------------------------------------------------------------------------
 */

/* The type of the input from which an operand is made: 0 the same, 1 transposed, 2 every second
 * element of the last axis, 3 backwards along the first. */
static inline bl_type form_type(const sweep_operand *x, int form)
{
    bl_type t = x->type;
    int rank = t.shape.rank;
    for (int i = 0; i < rank; i++)
        if (x->one >> i & 1)
            t.shape.dim[i] = 1;
    if (form == 1)
        for (int i = 0; i < rank / 2; i++) {
            int64_t dim = t.shape.dim[i];
            t.shape.dim[i] = t.shape.dim[rank - 1 - i];
            t.shape.dim[rank - 1 - i] = dim;
        }
    if (form == 2)
        t.shape.dim[rank - 1] *= 2;
    return t;
}

static inline bl_tensor in_form(bl_tensor x, const sweep_operand *to, int form)
{
    bl_shape start = {.rank = bl_rank(x)}, stop = bl_type_of(x).shape, step = start;
    for (int i = 0; i < step.rank; i++)
        step.dim[i] = 1 + (form == 2 && i == step.rank - 1);
    if (form == 1)
        x = bl_transpose(x);
    if (form == 2 && stop.dim[stop.rank - 1] > 0)
        start.dim[stop.rank - 1] = 1, x = bl_slice(x, start, stop, step);
    if (form == 3)
        x = bl_reverse(x, 0);
    return bl_broadcast(x, to->type.shape);
}

/* Form number `which` of FORMS^operands; false if an operand of rank 0 cannot take it. */
static inline bool forms_of(const sweep_case *c, int which, int *form)
{
    for (int o = 0; o < c->operands; o++, which /= FORMS) {
        form[o] = which % FORMS;
        if (form[o] && c->x[o].type.shape.rank == 0)
            return false;
    }
    return which == 0;
}

/* --- building ----------------------------------------------------------------------------------
 */

typedef struct built {
    bl_graph *graph;
    bl_tensor x[OPERANDS], y;
    bl_array in[OPERANDS];
} built;

static inline built build_case(sweep *s, const sweep_case *c, const int *form)
{
    built b = {.graph = bl_graph_new()};
    bl_tensor operand[OPERANDS];
    for (int o = 0; o < c->operands; o++) {
        bl_type t = form_type(&c->x[o], form[o]);
        b.x[o] = bl_input(b.graph, "x", t.dtype, t.shape);
        operand[o] = in_form(b.x[o], &c->x[o], form[o]);
    }
    expect_ok(bl_graph_status(b.graph));
    b.y = c->build  ? c->build(b.graph, operand, c)
          : c->told ? bl_node_new_typed(b.graph, c->op, operand, c->operands, c->attr, c->wanted)
                    : bl_node_new(b.graph, c->op, operand, c->operands, c->attr);
    for (int32_t id = 0; id < bl_graph_size(b.graph); id++)
        s->seen |= bl_node_at(b.graph, id)->op == s->op;
    return b;
}

static inline void fill_case(sweep *s, const sweep_case *c, built *b, numbers kind)
{
    for (int o = 0; o < c->operands; o++) {
        bl_type t = bl_type_of(b->x[o]);
        if (!b->in[o].data)
            expect_ok(bl_array_new(t.dtype, t.shape, &b->in[o]));
        fill_operand(s, c, o, &b->in[o], kind);
    }
}

static inline void free_case(const sweep_case *c, built *b)
{
    for (int o = 0; o < c->operands; o++)
        bl_array_free(&b->in[o]);
    bl_graph_free(b->graph);
}

/* --- comparing ---------------------------------------------------------------------------------
 */

static inline double largest_of(const bl_array *a)
{
    double largest = 0;
    for (int64_t i = 0; i < bl_array_count(a); i++)
        if (isfinite(bl_array_get(a, i)))
            largest = fmax(largest, fabs(bl_array_get(a, i)));
    return largest;
}

/* What f32 (or f64) rounding may move one element by: a few units of its own where the primitive is
 * elementwise, else of the largest; more for each derivative. */
static inline double allowed(const sweep *s, const bl_array *expected, int64_t at, int order,
                             double largest)
{
    static const double f32[] = {5e-7, 2e-6, 1e-5};
    bl_dtype dtype = expected->type.dtype;
    double unit = dtype == BL_F32   ? f32[order]
                  : dtype == BL_F64 ? f32[order] * (order ? 1e-6 : 2e-9)
                                    : 0;
    double loose = s->e->loose > 0 ? s->e->loose : 1;
    bool own = bl_op_is_elementwise(s->op) && order == 0;
    double scale = own ? fabs(bl_array_get(expected, at)) : fmax(1, largest);
    if (own && dtype == BL_F64)
        scale = fmax(s->e->least, scale);
    if (!own)
        loose *= dtype == BL_F64 ? 10 : 2;
    return isfinite(scale) ? unit * loose * scale : 0;
}

static inline void expect_equal(const sweep *s, const bl_array *got, const bl_array *expected,
                                int order, const char *what)
{
    double largest = largest_of(expected);
    for (int64_t i = 0; i < bl_array_count(expected); i++) {
        double g = bl_array_get(got, i), e = bl_array_get(expected, i);
        if (g == e || (isnan(g) && isnan(e)) ||
            fabs(g - e) <= allowed(s, expected, i, order, largest))
            continue;
        fail_msg("%s, %s: element %lld of %s is %.17g, but %.17g on the reference",
                 bl_op_name(s->op), what, (long long)i, bl_show(expected->type), g, e);
    }
}

typedef struct pair { /* a program on both executors */
    bl_program *cpu, *reference;
    bl_array *got, *expected;
    int outputs;
} pair;

static inline pair compile_pair(sweep *s, const sweep_case *c, const built *b, const bl_tensor *y,
                                int outputs)
{
    pair p = {.outputs = outputs};
    bl_compile_options options = {.threads = s->cases % 7 == 0 ? 2 : 1};
    expect_ok(bl_compile(bl_device_cpu(), b->x, c->operands, y, outputs, &options, &p.cpu));
    expect_ok(bl_compile(bl_device_reference(), b->x, c->operands, y, outputs, NULL, &p.reference));
    p.got = bl_alloc((size_t)outputs * sizeof *p.got);
    p.expected = bl_alloc((size_t)outputs * sizeof *p.expected);
    for (int o = 0; o < outputs; o++) {
        bl_type t = bl_type_of(y[o]);
        expect_ok(bl_array_new(t.dtype, t.shape, &p.got[o]));
        expect_ok(bl_array_new(t.dtype, t.shape, &p.expected[o]));
    }
    return p;
}

static inline void run_pair(sweep *s, pair *p, const built *b)
{
    expect_ok(bl_run(p->reference, b->in, p->expected));
    expect_ok(bl_run(p->cpu, b->in, p->got));
    s->cases++;
}

static inline void free_pair(pair *p)
{
    for (int o = 0; o < p->outputs; o++) {
        bl_array_free(&p->got[o]);
        bl_array_free(&p->expected[o]);
    }
    bl_release(p->got);
    bl_release(p->expected);
    bl_program_free(p->cpu);
    bl_program_free(p->reference);
}

static const char *const kind_name[KINDS] = {"smooth numbers", "equal numbers", "special numbers"};

static inline void check_values(sweep *s, const sweep_case *c, built *b)
{
    pair p = compile_pair(s, c, b, &b->y, 1);
    for (int kind = SMOOTH; kind < (s->e->smooth ? TIES : KINDS); kind++) {
        fill_case(s, c, b, (numbers)kind);
        run_pair(s, &p, b);
        expect_equal(s, &p.got[0], &p.expected[0], 0, kind_name[kind]);
    }
    free_pair(&p);
}

/* --- derivatives -------------------------------------------------------------------------------
 */

/* The sum of t in the dtype of the operands, weighted by fixed numbers between 0.5 and 1.5. */
static inline bl_tensor weighted(bl_tensor t, bl_dtype dtype)
{
    bl_random random = bl_random_new(bl_key_from_seed(7));
    bl_array a;
    expect_ok(bl_is_poison(t) ? bl_graph_status(t.graph) : BL_OK);
    expect_ok(bl_array_new(dtype, bl_type_of(t).shape, &a));
    for (int64_t i = 0; i < bl_array_count(&a); i++)
        bl_array_set(&a, i, 0.5 + bl_random_unit(&random));
    bl_tensor sum = bl_sum(bl_mul(bl_cast(t, dtype), bl_constant(t.graph, &a)));
    bl_array_free(&a);
    return sum;
}

/* Outputs of the program of derivatives: the primitive, a scalar of it, a scalar of the gradient,
 * both gradients. */
enum { RESULT, VALUE, SLOPE, FIRST, SECOND = FIRST + OPERANDS, OUTPUTS = SECOND + OPERANDS };

static inline bool has_float(const sweep_case *c, int o)
{
    return bl_dtype_is_float(c->x[o].type.dtype);
}

static inline void differentiate(const sweep *s, const sweep_case *c, const built *b, bl_tensor *y)
{
    bl_dtype dtype = c->x[s->op == BL_OP_select].type.dtype;
    bl_tensor x[OPERANDS], first[OPERANDS], second[OPERANDS];
    int n = 0;
    for (int o = 0; o < c->operands; o++)
        if (has_float(c, o))
            x[n++] = b->x[o];
    y[RESULT] = b->y;
    y[VALUE] = y[SLOPE] = weighted(b->y, dtype);
    bl_grad(y[VALUE], x, n, first);
    if (s->e->orders > 1) {
        y[SLOPE] = weighted(first[0], dtype);
        for (int i = 1; i < n; i++)
            y[SLOPE] = bl_add(y[SLOPE], weighted(first[i], dtype));
        bl_grad(y[SLOPE], x, n, second);
    }
    for (int o = 0, i = 0; o < OPERANDS; o++) {
        bool is = o < c->operands && has_float(c, o);
        y[FIRST + o] = is ? first[i] : y[VALUE];
        y[SECOND + o] = is && s->e->orders > 1 ? second[i] : y[VALUE];
        i += is;
    }
    expect_ok(bl_graph_status(b->graph));
}

static inline void compare_derivatives(const sweep *s, const sweep_case *c, const pair *p,
                                       numbers kind)
{
    expect_equal(s, &p->got[RESULT], &p->expected[RESULT], 0, kind_name[kind]);
    for (int o = 0; o < c->operands; o++) {
        if (!has_float(c, o))
            continue;
        expect_equal(s, &p->got[FIRST + o], &p->expected[FIRST + o], 1, kind_name[kind]);
        if (s->e->orders > 1)
            expect_equal(s, &p->got[SECOND + o], &p->expected[SECOND + o], 2, kind_name[kind]);
    }
}

static inline void expect_difference(const sweep *s, int order, int o, int64_t at, double got,
                                     double expected)
{
    if (fabs(got - expected) > 5e-6 * (1 + fabs(expected)))
        fail_msg("%s: derivative %d in element %lld of operand %d is %.10g, by differences %.10g",
                 bl_op_name(s->op), order, (long long)at, o, got, expected);
}

/* Moves one element of one operand by +-h on the reference executor. */
static inline void difference(sweep *s, pair *p, built *b, int o, int64_t at)
{
    const double h = 1e-5;
    double first = bl_array_get(&p->expected[FIRST + o], at), value[2], slope[2];
    double second = s->e->orders > 1 ? bl_array_get(&p->expected[SECOND + o], at) : 0;
    double x = bl_array_get(&b->in[o], at);
    for (int side = 0; side < 2; side++) {
        bl_array_set(&b->in[o], at, side ? x + h : x - h);
        expect_ok(bl_run(p->reference, b->in, p->expected));
        value[side] = bl_array_get(&p->expected[VALUE], 0);
        slope[side] = bl_array_get(&p->expected[SLOPE], 0);
    }
    bl_array_set(&b->in[o], at, x);
    expect_ok(bl_run(p->reference, b->in, p->expected));
    bool has = s->e->slopes >> o & 1;
    expect_difference(s, 1, o, at, first, has ? (value[1] - value[0]) / (2 * h) : 0);
    if (s->e->orders > 1)
        expect_difference(s, 2, o, at, second, has ? (slope[1] - slope[0]) / (2 * h) : 0);
    s->differences++;
}

static inline void check_differences(sweep *s, const sweep_case *c, pair *p, built *b)
{
    for (int o = 0; o < c->operands; o++) {
        int64_t count = bl_array_count(&b->in[o]);
        if (!has_float(c, o) || c->x[o].type.dtype != BL_F64 || count > 500)
            continue;
        for (int64_t i = 0; i < (count < 3 ? count : 3); i++)
            difference(s, p, b, o, (int64_t)bl_random_below(&s->random, (uint32_t)count));
    }
}

/* A gradient is never NaN where the value and the operands are finite; nor is the next where it is
 * finite itself. Only where the primitive is elementwise and nothing is broadcast. */
static inline void check_never_nan(const sweep *s, const sweep_case *c, const pair *p,
                                   const built *b)
{
    for (int64_t i = 0; i < bl_array_count(&p->expected[RESULT]); i++) {
        bool finite = isfinite(bl_array_get(&p->expected[RESULT], i));
        for (int o = 0; o < c->operands; o++)
            finite &= isfinite(bl_array_get(&b->in[o], i));
        for (int order = FIRST; order <= SECOND && finite; order += OPERANDS) {
            bool next = true;
            for (int o = 0; o < c->operands; o++) {
                if (!has_float(c, o) || (order == SECOND && s->e->orders < 2))
                    continue;
                double slope = bl_array_get(&p->expected[order + o], i);
                if (isnan(slope))
                    fail_msg("%s (%s): derivative %d in operand %d is NaN at %.9g, %.9g",
                             bl_op_name(s->op), bl_show(c->x[o].type), 1 + (order == SECOND), o,
                             bl_array_get(&b->in[0], i), bl_array_get(&b->in[c->operands > 1], i));
                next &= isfinite(slope) != 0;
            }
            finite = next;
        }
    }
}

static inline void check_derivatives(sweep *s, const sweep_case *c, built *b)
{
    bl_tensor y[OUTPUTS];
    bool broadcast = false;
    for (int o = 0; o < c->operands; o++)
        broadcast |= c->x[o].one != 0;
    differentiate(s, c, b, y);
    pair p = compile_pair(s, c, b, y, OUTPUTS);
    for (int kind = SMOOTH; kind < (s->e->smooth ? TIES : KINDS); kind++) {
        if (kind == SPECIAL && (!bl_op_is_elementwise(c->op) || broadcast))
            continue;
        fill_case(s, c, b, (numbers)kind);
        run_pair(s, &p, b);
        if (kind != SPECIAL)
            compare_derivatives(s, c, &p, (numbers)kind);
        else
            check_never_nan(s, c, &p, b);
        if (kind == SMOOTH)
            check_differences(s, c, &p, b);
    }
    free_pair(&p);
}

/* A gradient that does not exist is an error with the primitive's name. */
static inline void expect_no_gradient(const sweep *s, built *b)
{
    bl_tensor dx;
    if (s->op == BL_OP_while)
        return; /* test_control.c */
    bl_grad(bl_sum(b->y), &b->x[0], 1, &dx);
    assert_int_equal(bl_graph_status(b->graph), BL_INVALID);
    assert_non_null(strstr(bl_error(), bl_op_name(s->op)));
    assert_non_null(strstr(bl_error(), "has no gradient"));
}

/* --- a case ------------------------------------------------------------------------------------
 */

static inline bool all_equal(const int *form, int count)
{
    for (int i = 1; i < count; i++)
        if (form[i] != form[0])
            return false;
    return true;
}

static inline bool differentiable(const sweep *s, const sweep_case *c)
{
    for (int o = 0; o < c->operands; o++)
        if (has_float(c, o))
            return s->e->orders > 0;
    return false;
}

/* One case in one form. Derivatives are checked in the forms in which all operands are alike. */
static inline void check_form(sweep *s, const sweep_case *c, const int *form)
{
    built b = build_case(s, c, form);
    if (bl_is_poison(b.y)) {
        expect_ok(bl_graph_status(b.graph));
        fail_msg("%s is poison", bl_op_name(s->op));
    }
    check_values(s, c, &b);
    if (differentiable(s, c) && all_equal(form, c->operands))
        check_derivatives(s, c, &b);
    else if (s->e->orders == 0 && all_equal(form, c->operands) && form[0] == 0)
        expect_no_gradient(s, &b);
    free_case(c, &b);
}

static inline void check_refused(sweep *s, const sweep_case *c)
{
    built b = build_case(s, c, (int[OPERANDS]){0});
    if (!bl_is_poison(b.y))
        fail_msg("%s takes %s, which its entry does not list", bl_op_name(s->op),
                 bl_show(c->x[0].type));
    assert_int_equal(bl_graph_status(b.graph), BL_INVALID);
    free_case(c, &b);
    s->cases++;
}

/* All forms of f32 operands; of other dtypes, those in which all operands are alike. */
static inline void check(sweep *s, const sweep_case *c, bl_dtype dtype)
{
    int form[OPERANDS] = {0};
    if (!(s->e->dtypes >> dtype & 1)) {
        check_refused(s, c);
        return;
    }
    int most = 1;
    for (int o = 0; o < (c->operands < 3 ? c->operands : 3); o++)
        most *= FORMS;
    for (int which = 0; which < most; which++)
        if (forms_of(c, which, form) && (dtype == BL_F32 || all_equal(form, c->operands)))
            check_form(s, c, form);
}

#endif
