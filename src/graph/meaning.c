/* What an elementwise primitive means in each element type. See meaning.h. */
#include "graph/meaning.h"

#include <math.h>

static double wrap_bits(bl_dtype to, uint64_t bits)
{
    switch (to) {
    case BL_I32:
        return (int32_t)(uint32_t)bits;
    case BL_U32:
        return (uint32_t)bits;
    case BL_I8:
        return (int8_t)(uint8_t)bits;
    default:
        return (uint8_t)bits;
    }
}

double bl_round_to(bl_dtype to, double value)
{
    switch (to) {
    case BL_F32:
        return (float)value;
    case BL_F64:
        return value;
    case BL_BOOL:
        return value != 0;
    default:
        /* Sums and differences of 32-bit integers are far below the bound. */
        return fabs(value) < 0x1p62 ? wrap_bits(to, (uint64_t)(int64_t)value) : 0;
    }
}

static double lowest(bl_dtype dtype)
{
    return dtype == BL_I32 ? INT32_MIN : dtype == BL_I8 ? INT8_MIN : 0;
}

static double highest(bl_dtype dtype)
{
    return dtype == BL_I32   ? INT32_MAX
           : dtype == BL_U32 ? UINT32_MAX
           : dtype == BL_I8  ? INT8_MAX
                             : UINT8_MAX;
}

/* A real number out of an integer's range becomes the nearest one in it, and NaN 0. */
static double real_to_integer(bl_dtype to, double value)
{
    if (isnan(value))
        return 0;
    value = trunc(value);
    return value < lowest(to) ? lowest(to) : value > highest(to) ? highest(to) : value;
}

bool bl_op_needs_integers(bl_op op)
{
    return op == BL_OP_mul || op == BL_OP_div || op == BL_OP_rem || op == BL_OP_cast;
}

static double integer_value(bl_op op, bl_dtype to, int64_t x, int64_t y)
{
    switch (op) {
    case BL_OP_mul:
        return wrap_bits(to, (uint64_t)x * (uint64_t)y);
    case BL_OP_div:
        return y == 0 ? 0 : wrap_bits(to, (uint64_t)(x / y));
    default:
        return y == 0 ? 0 : wrap_bits(to, (uint64_t)(x % y));
    }
}

double bl_op_value(bl_op op, bl_dtype from, bl_dtype to, double x, double y, double z)
{
    if (op == BL_OP_cast)
        return bl_dtype_is_integer(to) && bl_dtype_is_float(from) ? real_to_integer(to, x)
                                                                  : bl_round_to(to, x);
    if (bl_dtype_is_integer(from) && bl_op_needs_integers(op))
        return integer_value(op, to, (int64_t)x, (int64_t)y);
    return bl_round_to(to, bl_op_scalar(op, x, y, z));
}
