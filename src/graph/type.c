/* What is known of tensors and how it is shown; the helpers that builders share (build.h). */
#define BL_KEEP_PLACE
#include <math.h>
#include <string.h>

#include "base/base.h"
#include "graph/build.h"

const bl_type bl_no_type = {.shape = {.rank = -1}};

bl_tensor(bl_number)(double value)
{
    return (bl_tensor){.number = value};
}

bool bl_is_poison(bl_tensor x)
{
    return x.id < 0;
}

bool bl_is_number(bl_tensor x)
{
    return !x.graph && x.id >= 0;
}

bl_type bl_type_of(bl_tensor x)
{
    if (bl_is_poison(x))
        return bl_no_type;
    if (bl_is_number(x))
        return (bl_type){BL_F64, BL_SCALAR};
    return bl_node_at(x.graph, x.id)->type;
}

int bl_rank(bl_tensor x)
{
    return bl_is_poison(x) ? 0 : bl_type_of(x).shape.rank;
}

int64_t bl_dim(bl_tensor x, int axis)
{
    int index;
    if (bl_is_poison(x) || !bl_axis_index("dim", x.graph, bl_rank(x), axis, &index))
        return 1;
    return bl_type_of(x).shape.dim[index];
}

/* --- for messages ------------------------------------------------------------------------------
 */

const char *bl_show(bl_type type)
{
    static _Thread_local char buffer[4][BL_TYPE_TEXT];
    static _Thread_local unsigned next;
    char *text = buffer[next++ % 4];
    if (type.shape.rank < 0)
        return strcpy(text, "poison");
    return bl_type_text(type, text);
}

const char *bl_show_shape(bl_shape shape)
{
    return strchr(bl_show((bl_type){BL_F32, shape}), '[');
}

bool bl_dtype_holds(bl_dtype dtype, double value)
{
    switch (dtype) {
    case BL_I32:
        return value == trunc(value) && value >= INT32_MIN && value <= INT32_MAX;
    case BL_U32:
        return value == trunc(value) && value >= 0 && value <= UINT32_MAX;
    case BL_I8:
        return value == trunc(value) && value >= INT8_MIN && value <= INT8_MAX;
    case BL_U8:
        return value == trunc(value) && value >= 0 && value <= UINT8_MAX;
    case BL_BOOL:
        return value == 0 || value == 1;
    default:
        return true;
    }
}

/* --- operands ----------------------------------------------------------------------------------
 */

bl_graph *bl_graph_of(const bl_tensor *x, int count)
{
    for (int i = 0; i < count; i++)
        if (x[i].graph)
            return bl_innermost(x[i].graph, x + i, count - i);
    return NULL;
}

bool bl_need_tensor(const char *builder, bl_tensor x)
{
    if (bl_is_poison(x)) {
        bl_spoil(x.graph, builder);
        return false;
    }
    if (bl_is_number(x)) {
        bl_poison(NULL, "%s: needs a tensor, not the bare number %g", builder, x.number);
        return false;
    }
    return true;
}

static bool broadcast_shape(bl_shape *all, bl_shape one)
{
    int rank = all->rank > one.rank ? all->rank : one.rank;
    bl_shape result = {.rank = rank};
    for (int i = 0; i < rank; i++) { /* i counts from the last axis */
        int64_t a = i < all->rank ? all->dim[all->rank - 1 - i] : 1;
        int64_t b = i < one.rank ? one.dim[one.rank - 1 - i] : 1;
        if (a != b && a != 1 && b != 1)
            return false;
        result.dim[rank - 1 - i] = a == 1 ? b : a;
    }
    *all = result;
    return true;
}

/* The type that x[0..count) agree on, which is `like` in dtype for those from `first` on. */
static bool agree(const char *builder, bl_graph *g, const bl_tensor *x, int count, int first,
                  bl_type *like)
{
    bool typed = false;
    *like = (bl_type){BL_F32, BL_SCALAR};
    for (int i = 0; i < count; i++) {
        if (bl_is_number(x[i]))
            continue;
        if (bl_is_poison(x[i]) || !bl_is_within(g, x[i].graph)) {
            bl_is_poison(x[i]) ? bl_spoil(g, builder)
                               : bl_poison(g, "%s: operands are of different graphs", builder);
            return false;
        }
        bl_type type = bl_type_of(x[i]);
        if (i >= first && typed && type.dtype != like->dtype) {
            bl_poison(g, "%s: dtypes differ: %s and %s", builder, bl_show(*like), bl_show(type));
            return false;
        }
        bl_shape before = like->shape;
        if (!broadcast_shape(&like->shape, type.shape)) {
            bl_poison(g, "%s: shapes do not broadcast: %s and %s", builder, bl_show_shape(before),
                      bl_show_shape(type.shape));
            return false;
        }
        if (i >= first) {
            like->dtype = type.dtype;
            typed = true;
        }
    }
    return true;
}

bool bl_match(const char *builder, bl_tensor *x, int count, int first)
{
    bl_graph *g = bl_graph_of(x, count);
    bl_type like;
    if (!agree(builder, g, x, count, first, &like))
        return false;
    for (int i = 0; i < count; i++) {
        bl_dtype dtype = i < first ? BL_BOOL : like.dtype;
        if (bl_is_number(x[i]) && !bl_dtype_holds(dtype, x[i].number)) {
            bl_poison(g, "%s: %g is not a value of %s", builder, x[i].number, bl_dtype_name(dtype));
            return false;
        }
        x[i] = bl_is_number(x[i]) ? bl_full(g, dtype, like.shape, x[i].number)
                                  : bl_broadcast(bl_capture(g, x[i]), like.shape);
        if (bl_is_poison(x[i]))
            return false;
    }
    return true;
}

/* --- axes --------------------------------------------------------------------------------------
 */

bool bl_axis_index(const char *builder, bl_graph *g, int rank, int axis, int *index)
{
    *index = axis < 0 ? axis + rank : axis;
    if (*index >= 0 && *index < rank)
        return true;
    bl_poison(g, "%s: there is no axis %d of %d axes", builder, axis, rank);
    return false;
}

bool bl_axis_set(const char *builder, bl_tensor x, const int *axes, uint32_t *set)
{
    int rank = bl_rank(x), index;
    *set = 0;
    if (axes[0] == BL_END)
        *set = (1u << rank) - 1;
    for (; *axes != BL_END; axes++) {
        if (!bl_axis_index(builder, x.graph, rank, *axes, &index))
            return false;
        if (*set & 1u << index) {
            bl_poison(x.graph, "%s: axis %d is given twice", builder, *axes);
            return false;
        }
        *set |= 1u << index;
    }
    return true;
}

bl_shape bl_shape_keep(bl_shape shape, uint32_t set)
{
    for (int i = 0; i < shape.rank; i++)
        if (set & 1u << i)
            shape.dim[i] = 1;
    return shape;
}

bl_shape bl_shape_drop(bl_shape shape, uint32_t set)
{
    bl_shape result = BL_SCALAR;
    for (int i = 0; i < shape.rank; i++)
        if (!(set & 1u << i))
            result.dim[result.rank++] = shape.dim[i];
    return result;
}

int64_t bl_shape_over(bl_shape shape, uint32_t set)
{
    int64_t product = 1;
    for (int i = 0; i < shape.rank; i++)
        if (set & 1u << i)
            product *= shape.dim[i];
    return product;
}
