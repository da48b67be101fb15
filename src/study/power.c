/* Power of a paired t test: how many replicates show a difference, and which one so many show. */
#include "study/stats.h"

#include <math.h>

#define MOST_PAIRS 100000

double bl_effective_replicates(int n, double ratio)
{
    return 1 / (1.0 / n + ratio);
}

double bl_power(double d_z, int n, double ratio, double alpha)
{
    if (n < 2 || isnan(d_z) || !(alpha > 0 && alpha < 1))
        return NAN;
    double shift = fmin(fabs(d_z), 1000) * sqrt(bl_effective_replicates(n, ratio));
    double critical = bl_t_quantile(1 - alpha / 2, n - 1);
    return 1 - bl_noncentral_t_cdf(critical, n - 1, shift) +
           bl_noncentral_t_cdf(-critical, n - 1, shift);
}

/* The trapezoid rule over u = log(sigma of the pilots / true sigma), as in bl_noncentral_t_cdf. */
double bl_power_after_pilots(double d_z, int pilots, int n, double ratio, double alpha)
{
    if (pilots < 2)
        return NAN;
    double df = pilots - 1, step = 0.6 / (1 + sqrt(df)), sum = 0, weights = 0;
    for (int side = 0; side < 2; side++)
        for (int i = side;; i++) {
            double u = (side ? -step : step) * i;
            double weight = exp(df * (u - expm1(2 * u) / 2));
            weights += weight;
            sum += weight * bl_power(d_z * exp(u), n, ratio, alpha);
            if (weight < 1e-6)
                break;
        }
    return sum / weights;
}

/* pilots 0: d_z is in known standard deviations. */
static double power_of(double d_z, int pilots, int n, double ratio, double alpha)
{
    return pilots ? bl_power_after_pilots(d_z, pilots, n, ratio, alpha)
                  : bl_power(d_z, n, ratio, alpha);
}

static int pairs_needed(double d_z, int pilots, double ratio, double alpha, double power)
{
    int low = 1, high = 2; /* low is too few */
    while (!(power_of(d_z, pilots, high, ratio, alpha) >= power)) {
        if (high == MOST_PAIRS || isnan(d_z) || d_z == 0)
            return -1;
        low = high;
        high = high < MOST_PAIRS / 2 ? 2 * high : MOST_PAIRS;
    }
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (power_of(d_z, pilots, middle, ratio, alpha) >= power)
            high = middle;
        else
            low = middle;
    }
    return high;
}

static double detectable(int pilots, int n, double ratio, double alpha, double power)
{
    if (n < 2 || !(alpha > 0 && alpha < 1))
        return NAN;
    double low = 0, high = 1;
    while (power_of(high, pilots, n, ratio, alpha) < power && high < 1000)
        low = high, high *= 2;
    for (int i = 0; i < 24; i++) {
        double middle = (low + high) / 2;
        if (power_of(middle, pilots, n, ratio, alpha) < power)
            low = middle;
        else
            high = middle;
    }
    return high;
}

int bl_pairs_needed(double d_z, double ratio, double alpha, double power)
{
    return pairs_needed(d_z, 0, ratio, alpha, power);
}

double bl_detectable_effect(int n, double ratio, double alpha, double power)
{
    return detectable(0, n, ratio, alpha, power);
}

int bl_pairs_needed_after_pilots(double d_z, int pilots, double ratio, double alpha, double power)
{
    return pilots < 2 ? -1 : pairs_needed(d_z, pilots, ratio, alpha, power);
}

double bl_detectable_after_pilots(int pilots, int n, double ratio, double alpha, double power)
{
    return pilots < 2 ? NAN : detectable(pilots, n, ratio, alpha, power);
}
