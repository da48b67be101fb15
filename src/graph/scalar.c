/* The elementwise primitives on single doubles, generated from the meaning column of ops.def, and
 * the special functions that libm does not have. */
#include <math.h>

#include "graph/node.h"

#define NO_SCALAR NAN

double bl_op_scalar(bl_op op, BL_UNUSED double x, BL_UNUSED double y, BL_UNUSED double z)
{
    switch (op) {
#define OP(class, name, operands, meaning, text)                                                   \
    case BL_OP_##name:                                                                             \
        return meaning;
#include "graph/ops.def"
#undef OP
    case BL_OPS:
        break;
    }
    return NAN;
}

double bl_sigmoid_scalar(double x)
{
    if (x >= 0)
        return 1 / (1 + exp(-x));
    double e = exp(x); /* cannot overflow here */
    return e / (1 + e);
}

double bl_lgamma_scalar(double x)
{
    int sign; /* lgamma would write a global */
    return lgamma_r(x, &sign);
}

#define PI 3.14159265358979323846

/* x - the nearest integer: tan and sin of pi x are exact functions of it. */
static double from_integer(double x)
{
    return x - rint(x);
}

/* Abramowitz and Stegun 6.3: reflection (6.3.7), recurrence (6.3.5) up to 10, then the asymptotic
 * series (6.3.18), whose first neglected term is below 1e-16 there. */
double bl_digamma_scalar(double x)
{
    if (x == floor(x) && x <= 0)
        return NAN; /* a pole: no one-sided limit is better than the other */
    if (x < 0)
        return bl_digamma_scalar(1 - x) - PI / tan(PI * from_integer(x));
    double sum = 0;
    for (; x < 10; x++)
        sum -= 1 / x;
    double r = 1 / (x * x);
    double series =
        r *
        (1.0 / 12 -
         r * (1.0 / 120 -
              r * (1.0 / 252 - r * (1.0 / 240 - r * (1.0 / 132 - r * (691.0 / 32760 - r / 12))))));
    return sum + log(x) - 0.5 / x - series;
}

/* Abramowitz and Stegun 6.4: the same three steps (6.4.7, 6.4.6, 6.4.12). */
double bl_trigamma_scalar(double x)
{
    if (x == floor(x) && x <= 0)
        return INFINITY;
    if (x < 0) {
        double s = sin(PI * from_integer(x));
        return PI * PI / (s * s) - bl_trigamma_scalar(1 - x);
    }
    double sum = 0;
    for (; x < 10; x++)
        sum += 1 / (x * x);
    double r = 1 / (x * x);
    double series =
        1.0 / 6 -
        r * (1.0 / 30 -
             r * (1.0 / 42 - r * (1.0 / 30 - r * (5.0 / 66 - r * (691.0 / 2730 - r * 7.0 / 6)))));
    return sum + 1 / x + 0.5 * r + r / x * series;
}
