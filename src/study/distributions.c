/* Distribution functions: normal, Student's t, noncentral t, through the incomplete beta function.
 * Each has a known answer in tests/test_stats.c. */
#include "study/stats.h"

#include <math.h>

#define TAU 6.283185307179586476925286766559

static double log_gamma(double x)
{
    int sign;
    return lgamma_r(x, &sign); /* lgamma writes a global variable */
}

/* The continued fraction of the incomplete beta function, which converges fast for
 * x < (a + 1) / (a + b + 2), by Lentz's method: numerator and denominator are kept off 0. */
static double beta_fraction(double a, double b, double x)
{
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double value = d;
    for (int m = 1; m < 100000; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        double change = 1;
        for (int half = 0; half < 2; half++) {
            double term = half ? odd : even;
            d = 1 + term * d;
            c = 1 + term / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            c = fabs(c) < tiny ? tiny : c;
            change = c * d;
            value *= change;
        }
        if (fabs(change - 1) < 1e-16)
            break;
    }
    return value;
}

/* I_x(a, b) with y = 1 - x given separately: near x = 1 the caller knows y better. */
static double incomplete_beta(double a, double b, double x, double y)
{
    if (x <= 0 || y <= 0)
        return x <= 0 ? 0 : 1;
    double front = exp(log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * log(x) + b * log(y));
    if (x < (a + 1) / (a + b + 2))
        return front * beta_fraction(a, b, x) / a;
    return 1 - front * beta_fraction(b, a, y) / b;
}

double bl_incomplete_beta(double a, double b, double x)
{
    if (!(a > 0 && b > 0 && x >= 0 && x <= 1))
        return NAN;
    return incomplete_beta(a, b, x, 1 - x);
}

double bl_t_two_sided(double t, double df)
{
    if (!(df > 0) || isnan(t))
        return NAN;
    if (isinf(t))
        return 0;
    if (isinf(df))
        return erfc(fabs(t) * sqrt(0.5));
    double scale = df + t * t;
    return isinf(scale) ? 0 : incomplete_beta(df / 2, 0.5, df / scale, t * t / scale);
}

double bl_t_cdf(double t, double df)
{
    double tail = bl_t_two_sided(t, df) / 2;
    return t < 0 ? tail : 1 - tail;
}

static double t_density(double t, double df)
{
    if (isinf(df))
        return exp(-t * t / 2) / sqrt(TAU);
    return exp(log_gamma((df + 1) / 2) - log_gamma(df / 2) - (df + 1) / 2 * log1p(t * t / df)) /
           sqrt(df * TAU / 2);
}

/* The t >= 0 whose upper tail is 0 < q <= 1/2: Newton's method on the logarithm of the tail,
 * bisected where it leaves the bracket. */
static double t_upper_quantile(double q, double df)
{
    double low = 0, high = 1;
    while (bl_t_two_sided(high, df) / 2 > q && high < 1e300)
        low = high, high *= 4;
    double t = low;
    for (int i = 0; i < 200; i++) {
        double tail = bl_t_two_sided(t, df) / 2;
        if (tail > q)
            low = t;
        else
            high = t;
        double next = t + (log(tail) - log(q)) * tail / t_density(t, df);
        if (!(next >= low && next <= high))
            next = (low + high) / 2;
        if (fabs(next - t) <= 4e-16 * fabs(next))
            return next;
        t = next;
    }
    return t;
}

double bl_t_quantile(double p, double df)
{
    if (!(df > 0 && p >= 0 && p <= 1))
        return NAN;
    if (p == 0 || p == 1)
        return p == 0 ? -INFINITY : INFINITY;
    if (p == 0.5)
        return 0;
    return p < 0.5 ? -t_upper_quantile(p, df) : t_upper_quantile(1 - p, df);
}

double bl_normal_cdf(double x)
{
    return bl_t_cdf(x, INFINITY);
}

double bl_normal_quantile(double p)
{
    return bl_t_quantile(p, INFINITY);
}

/* With u = log sqrt(chi2/df), whose density is proportional to exp(df (u - e^2u / 2)), the cdf is
 * the mean of Phi(t e^u - shift). The integrand is analytic and vanishes at both ends, so the
 * trapezoid rule converges geometrically once its step resolves both factors: the density has
 * width 1/sqrt(2 df), Phi changes over 1/shift. */
double bl_noncentral_t_cdf(double t, double df, double shift)
{
    if (!(df > 0) || isnan(t) || !isfinite(shift))
        return NAN;
    double step = 0.5 / (2 + sqrt(fmin(df, 1e12)) + fabs(shift)), sum = 0, weights = 0;
    if (isinf(df))
        return bl_normal_cdf(t - shift);
    for (int side = 0; side < 2; side++)
        for (int64_t i = side;; i++) {
            double u = (side ? -step : step) * (double)i;
            double weight = exp(df * (u - expm1(2 * u) / 2));
            weights += weight;
            sum += weight * bl_normal_cdf(t * exp(u) - shift);
            if (weight < 1e-18)
                break;
        }
    return sum / weights;
}
