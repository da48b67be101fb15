/* Random sequences of builders, with whatever operands, axes and shapes the bytes say: a graph is
 * either built, differentiated, optimised and run, or refused with a sentence. */
#include "fuzz.h"

#include "ballast/program.h"
#include "graph/node.h"

enum { MOST = 40, LARGEST = 4096 };

typedef struct reader {
    const unsigned char *at, *end;
} reader;

static int next(reader *r)
{
    return r->at < r->end ? *r->at++ : 0;
}

static bl_shape shape(reader *r)
{
    bl_shape s = {.rank = next(r) % 5};
    for (int i = 0; i < s.rank; i++)
        s.dim[i] = next(r) % 6 - (next(r) % 16 == 0);
    return s;
}

static bl_tensor unary(int which, bl_tensor x)
{
    static bl_tensor (*const builder[])(bl_tensor) = {
        (bl_neg),      (bl_abs),           (bl_exp),      (bl_log),  (bl_sqrt),
        (bl_tanh),     (bl_sigmoid),       (bl_floor),    (bl_not),  (bl_relu),
        (bl_softplus), (bl_stop_gradient), (bl_isfinite), (bl_rsqrt)};
    return builder[which % (int)(sizeof builder / sizeof *builder)](x);
}

static bl_tensor binary(int which, bl_tensor a, bl_tensor b)
{
    static bl_tensor (*const builder[])(bl_tensor, bl_tensor) = {
        (bl_add), (bl_sub), (bl_mul), (bl_div), (bl_pow),    (bl_max),  (bl_min),
        (bl_rem), (bl_eq),  (bl_lt),  (bl_and), (bl_matmul), (bl_take), (bl_cross_entropy)};
    return builder[which % (int)(sizeof builder / sizeof *builder)](a, b);
}

static bl_tensor build(bl_graph *g, reader *r, const bl_tensor *t, int count)
{
    bl_tensor a = t[next(r) % count], b = t[next(r) % count], c = t[next(r) % count];
    int axis = next(r) % 7 - 3, which = next(r);
    switch (next(r) % 18) {
    case 0:
        return unary(which, a);
    case 1:
    case 2:
        return binary(which, a, b);
    case 3:
        return bl_select(a, b, c);
    case 4:
        return bl_reshape(a, shape(r));
    case 5:
        return bl_broadcast(a, shape(r));
    case 6:
        return bl_sum(a, axis);
    case 7:
        return bl_reduce_max_keep(a, axis);
    case 8:
        return bl_softmax(a, axis);
    case 9:
        return bl_slice_axis(a, axis, next(r) % 5 - 1, next(r) % 7);
    case 10:
        return bl_concat((bl_tensor[]){a, b}, 2, axis);
    case 11:
        return bl_cast(a, (bl_dtype)(which % BL_DTYPES));
    case 12:
        return bl_argsort(a, axis, which & 1);
    case 13:
        return bl_take_along(a, b, axis);
    case 14:
        return bl_full(g, (bl_dtype)(which % BL_DTYPES), shape(r), next(r) - 100);
    case 15:
        return bl_conv(
            a, b,
            (bl_conv_options){.stride = {which % 4, 1}, .low = {which & 1, 0}, .groups = axis});
    case 16:
        return bl_transpose(a);
    default:
        return bl_cumsum(a, axis);
    }
}

static bl_status use(bl_graph *g, const bl_tensor *t, int count)
{
    bl_tensor y = t[count - 1], dx;
    if (!bl_is_number(y) && bl_dtype_is_float(bl_type_of(y).dtype)) {
        y = bl_sum(y);
        bl_grad(y, &t[0], 1, &dx);
        y = bl_add(y, bl_sum(dx));
    }
    bl_status status = bl_graph_status(g);
    for (int64_t i = 0; status == BL_OK && i < bl_graph_size(g); i++)
        if (bl_type_count(bl_node_at(g, (int32_t)i)->type) > LARGEST)
            return BL_OK; /* nothing is learned from waiting */
    bl_array x = {0}, out = {0};
    if (status == BL_OK)
        status = bl_array_new(BL_F32, bl_type_of(t[0]).shape, &x);
    const bl_device *devices[] = {bl_device_reference(), bl_device_cpu()};
    for (int d = 0; d < 2 && status == BL_OK; d++) {
        status = bl_evaluate(devices[d], &t[0], &x, 1, &y, &out, 1);
        bl_array_free(&out);
    }
    bl_array_free(&x);
    return status;
}

static void fuzz(const char *bytes, size_t count)
{
    reader r = {(const unsigned char *)bytes, (const unsigned char *)bytes + count};
    bl_graph *g = bl_graph_new();
    bl_tensor t[MOST];
    int built = 0;
    t[built++] = bl_input(g, "x", BL_F32, BL_SHAPE(2, 3));
    t[built++] = bl_iota(g, BL_I32, BL_SHAPE(2), 0);
    t[built++] = bl_full(g, BL_F32, BL_SHAPE(1, 4, 4, 2), 0.5);
    t[built++] = bl_number(1.5);
    while (built < MOST && r.at < r.end) {
        bl_tensor made = build(g, &r, t, built);
        if (bl_is_poison(made))
            break;
        if (bl_is_number(made) || bl_type_count(bl_type_of(made)) <= LARGEST)
            t[built++] = made;
    }
    if (!bl_is_number(t[built - 1]) && use(g, t, built) != BL_OK && !*bl_error())
        abort(); /* a refusal without a sentence */
    bl_graph_free(g);
}
