/* Transcendental functions of one double, without branches, so that a loop over them vectorises; as
 * vector_math.h is for floats. Only what methods compute in double by the million is here, the rest
 * is libm's.
 *
 * Errors against long double (tests/test_loops.c measures them), in units in the last place: exp 1
 * (AVX-512: 1.2), log 1, log1p 2, expm1 2, tanh 3, sigmoid 3; of lgamma
 * and digamma, for 1e-30 <= x <= 1e15, 2e-14 relative to 1 and to the value. */
#ifndef BL_CPU_VECTOR_DOUBLE_H
#define BL_CPU_VECTOR_DOUBLE_H

#include "exec/cpu/vector_math.h"

/* 2^n for -1022 <= n <= 1023, n given as n + 2^k, whose low bits are those of n. */
static inline double double_power_of_2(uint64_t n)
{
    return double_of((n + 1023) << 52);
}

/* x = n ln 2 + r, as reduce_exp. */
typedef struct reduced_double {
    double r;
    uint64_t n; /* as of double_power_of_2 */
} reduced_double;

static inline reduced_double reduce_exp_double(double x)
{
    const double magic = 6755399441055744.0; /* 1.5 2^52 */
    double shifted = x * 1.4426950408889634074 + magic, n = shifted - magic;
    double r = x - n * 0.69314718036912381649; /* of 33 bits */
    return (reduced_double){r - n * 1.9082149292705877e-10,
                            bits_of_double(shifted) - bits_of_double(magic)};
}

/* e^r - 1 for |r| <= ln(2) / 2 by Taylor's series, whose 14th term is below half a unit. */
static inline double expm1_reduced_double(double r)
{
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    return p * (r * r) + r;
}

/* The scaling is in two steps, so that overflow and subnormals come out right. */
static inline double vm_exp_double(double x)
{
    double c = x < -746.0 ? -746.0 : x;
    c = c > 710.0 ? 710.0 : c;
    reduced_double z = reduce_exp_double(c);
    uint64_t half = ((z.n + 2048) >> 1) - 1024;
    double y = expm1_reduced_double(z.r) + 1.0;
    return y * double_power_of_2(half) * double_power_of_2(z.n - half);
}

/* 2^n (e^r - 1) + (2^n - 1), halved until the end, for 2^1024 is no number. */
static inline double vm_expm1_double(double x)
{
    double c = x < -40.0 ? -40.0 : x;
    c = c > 710.0 ? 710.0 : c;
    reduced_double z = reduce_exp_double(c);
    double p = expm1_reduced_double(z.r), scale = double_power_of_2(z.n - 1);
    double y = (scale * p + (scale - 0.5)) * 2.0;
    y = z.n == 0 ? p : y;
    return x == 0.0 ? x : y;
}

/* e / (e + 2), e = e^(2|x|) - 1; beyond 20 it is 1. */
static inline double vm_tanh_double(double x)
{
    double size = fabs(x) > 20.0 ? 20.0 : fabs(x), e = vm_expm1_double(2.0 * size);
    double y = copysign(e / (e + 2.0), x);
    return x == x ? y : x;
}

static inline double vm_sigmoid_double(double x)
{
    double e = vm_exp_double(-fabs(x)), d = 1.0 / (1.0 + e);
    double y = x < 0.0 ? e * d : d;
    return x == x ? y : x;
}

/* A positive finite x = 2^n (1 + f), 1 + f in [sqrt(1/2), sqrt(2)), has the logarithm n ln 2 + f -
 * s (f - r): s = f / (2 + f), and log(1 + f) = 2 atanh(s) = 2 s + s r with a series r of s^2.
 * `error` is what x lacks of what is asked for, relative to it. */
static inline double log_of_sum(double x, double error)
{
    int tiny = x < 2.2250738585072014e-308;
    uint64_t bits = bits_of_double(tiny ? x * 18014398509481984.0 : x);
    uint64_t above = bits - 0x3fe6a09e667f3bcdu; /* sqrt(1/2) */
    uint64_t biased = ((above + 0x4000000000000000u) >> 52) - 1024;
    double f = double_of(bits - (biased << 52)) - 1.0;
    double n = double_of(0x4338000000000000u + biased) - 6755399441055744.0 - (tiny ? 54.0 : 0.0);
    double s = f / (2.0 + f), z = s * s, half = 0.5 * f * f;
    double r = 2.0 / 21.0;
    r = r * z + 2.0 / 19.0;
    r = r * z + 2.0 / 17.0;
    r = r * z + 2.0 / 15.0;
    r = r * z + 2.0 / 13.0;
    r = r * z + 2.0 / 11.0;
    r = r * z + 2.0 / 9.0;
    r = r * z + 2.0 / 7.0;
    r = r * z + 2.0 / 5.0;
    r = r * z + 2.0 / 3.0;
    r *= z;
    double low = s * (half + r) + (n * 1.9082149292705877e-10 + error);
    return n * 0.69314718036912381649 + (f - (half - low));
}

static inline double vm_log_double(double x)
{
    double y = log_of_sum(x, 0.0);
    y = x == INFINITY ? x : y;
    y = x == 0.0 ? -INFINITY : y;
    return x < 0.0 ? (double)NAN : x == x ? y : x;
}

static inline double vm_log1p_double(double x)
{
    double sum = 1.0 + x, error = x > 1.0 ? 1.0 - (sum - x) : x - (sum - 1.0);
    double y = log_of_sum(sum, error / sum);
    y = x == INFINITY ? x : y;
    y = fabs(x) < 1e-17 ? x : y;
    y = x == -1.0 ? -INFINITY : y;
    return x < -1.0 ? (double)NAN : x == x ? y : x;
}

/* Of a positive x, by Stirling's series at y >= 8: x, or x + 8, from which
 * product = x (x+1) .. (x+7) leads back, slope being its derivative. */
typedef struct shifted_gamma {
    double y, product, slope;
} shifted_gamma;

static inline shifted_gamma shift_gamma(double x)
{
    int small = x < 8.0;
    double p = x, d = 1.0;
    for (int i = 1; i < 8; i++) {
        d = d * (x + i) + p;
        p = p * (x + i);
    }
    return (shifted_gamma){small ? x + 8.0 : x, small ? p : 1.0, small ? d : 0.0};
}

static inline double vm_lgamma_double(double x)
{
    shifted_gamma s = shift_gamma(x);
    double w = 1.0 / s.y, z = w * w, p = -3617.0 / 122400.0;
    p = p * z + 1.0 / 156.0;
    p = p * z - 691.0 / 360360.0;
    p = p * z + 1.0 / 1188.0;
    p = p * z - 1.0 / 1680.0;
    p = p * z + 1.0 / 1260.0;
    p = p * z - 1.0 / 360.0;
    p = p * z + 1.0 / 12.0;
    double stirling = (s.y - 0.5) * vm_log_double(s.y) - s.y + 0.91893853320467274178 + p * w;
    return stirling - vm_log_double(s.product);
}

static inline double vm_digamma_double(double x)
{
    shifted_gamma s = shift_gamma(x);
    double w = 1.0 / s.y, z = w * w, p = -3617.0 / 8160.0;
    p = p * z + 1.0 / 12.0;
    p = p * z - 691.0 / 32760.0;
    p = p * z + 1.0 / 132.0;
    p = p * z - 1.0 / 240.0;
    p = p * z + 1.0 / 252.0;
    p = p * z - 1.0 / 120.0;
    p = p * z + 1.0 / 12.0;
    return vm_log_double(s.y) - 0.5 * w - p * z - s.slope / s.product;
}

#endif
