/* Minima of functions of one variable: a grid finds the valley, golden section its floor. */
#include <math.h>

#include "ballast/solve.h"
#include "base/base.h"

enum { SECTIONS = 80 }; /* each leaves 0.618 of the interval: 2e-17 of it in the end */

static double golden_section(bl_curve *curve, void *context, double low, double high)
{
    double golden = (sqrt(5) - 1) / 2;
    for (int i = 0; i < SECTIONS; i++) {
        double left = high - golden * (high - low), right = low + golden * (high - low);
        if (curve(left, context) <= curve(right, context))
            high = right;
        else
            low = left;
    }
    return (low + high) / 2;
}

bl_minimum bl_grid_minimum(bl_curve *curve, void *context, double low, double high, int64_t points)
{
    bl_minimum best = {.x = low, .value = (double)NAN};
    double step = (high - low) / (double)(points - 1);
    for (int64_t i = 0; i < points; i++) {
        double x = i == points - 1 ? high : low + step * (double)i, value = curve(x, context);
        if (value < best.value || (isnan(best.value) && !isnan(value)))
            best = (bl_minimum){x, value, i};
    }
    double from = fmax(best.x - step, low), to = fmin(best.x + step, high);
    double x = golden_section(curve, context, from, to), value = curve(x, context);
    if (value < best.value)
        best.x = x, best.value = value;
    return best;
}
