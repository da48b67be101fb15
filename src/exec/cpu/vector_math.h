/* Transcendental functions of one f32, without branches, so that a loop over them vectorises.
 *
 * Each is a reduction of the argument to a short interval, a polynomial fitted there by weighted
 * minimax, and a reconstruction; special values are put right by selects at the end. Errors in
 * units in the last place against libm in double, over all binades (tests/test_loops.c measures
 * them): exp 2 (AVX-512: 1.1), expm1 3, log 2, log1p 3, tanh 4, sigmoid 4, sin and cos 2, erf 3, atan 3, pow 3. To
 * add one, write it here, list it in FAST_UNARY of loops.inc and add a row to the test. */
#ifndef BL_CPU_VECTOR_MATH_H
#define BL_CPU_VECTOR_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline double double_of(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline uint64_t bits_of_double(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

/* 2^n for -126 <= n <= 127; any n gives some bits. */
static inline float power_of_2(int32_t n)
{
    return float_of((uint32_t)(n + 127) << 23);
}

/* x = n ln 2 + r, |r| <= ln(2) / 2: adding 1.5 * 2^23 rounds to an integer and leaves it in the low
 * bits. ln 2 is subtracted in two parts, of which the first has few bits, so n times it is exact.
 */
typedef struct reduced {
    float r;
    int32_t n;
} reduced;

static inline reduced reduce_exp(float x)
{
    const float magic = 12582912.0f;
    float shifted = x * 1.44269504089f + magic, n = shifted - magic;
    float r = x - n * 0.693359375f;
    reduced z = {r + n * 2.12194440e-4f, (int32_t)(bits_of(shifted) - bits_of(magic))};
    return z;
}

/* e^r for |r| <= ln(2) / 2. */
static inline float exp_reduced(float r)
{
    float p = 1.991937763e-04f;
    p = p * r + 1.394722497e-03f;
    p = p * r + 8.333262643e-03f;
    p = p * r + 4.166625375e-02f;
    p = p * r + 1.666666687e-01f;
    p = p * r + 5.000000083e-01f;
    return p * (r * r) + r + 1.0f;
}

static inline float vm_exp(float x)
{
    float c = x < -104.0f ? -104.0f : x;
    c = c > 89.0f ? 89.0f : c;
    reduced z = reduce_exp(c);
    int32_t half = z.n >> 1; /* in two steps, so that overflow and subnormals come out right */
    return exp_reduced(z.r) * power_of_2(half) * power_of_2(z.n - half);
}

/* e^x for |x| <= 80. */
static inline float exp_moderate(float x)
{
    reduced z = reduce_exp(x);
    return exp_reduced(z.r) * power_of_2(z.n);
}

static inline float vm_expm1(float x)
{
    float c = x < -30.0f ? -30.0f : x;
    c = c > 89.0f ? 89.0f : c;
    reduced z = reduce_exp(c);
    float r = z.r, p = 1.991503113e-04f;
    p = p * r + 1.394205986e-03f;
    p = p * r + 8.333271722e-03f;
    p = p * r + 4.166634188e-02f;
    p = p * r + 1.666666682e-01f;
    p = p * r + 5.000000049e-01f;
    p = p * (r * r) + r;
    float scale = power_of_2(z.n - 1);
    float y = (scale * p + (scale - 0.5f)) * 2.0f;
    y = z.n == 0 ? p : y;
    return x == 0.0f ? x : y;
}

/* x = 2^n (1 + r) for a positive finite x, with 1 + r in [sqrt(1/2), sqrt(2)). */
static inline reduced reduce_log(float x)
{
    int tiny = x < 1.17549435e-38f;
    uint32_t bits = bits_of(tiny ? x * 8388608.0f : x);
    int32_t exponent = (int32_t)(bits - 0x3f3504f3u) >> 23;
    float r = float_of(bits - ((uint32_t)exponent << 23)) - 1.0f;
    return (reduced){r, tiny ? exponent - 23 : exponent};
}

static inline float vm_log(float x)
{
    reduced z = reduce_log(x);
    float f = z.r, n = (float)z.n;
    float p = 7.040965887e-02f;
    p = p * f - 1.197992111e-01f;
    p = p * f + 1.191676491e-01f;
    p = p * f - 1.235586117e-01f;
    p = p * f + 1.420953395e-01f;
    p = p * f - 1.667055126e-01f;
    p = p * f + 2.000268771e-01f;
    p = p * f - 2.499996855e-01f;
    p = p * f + 3.333330434e-01f;
    float square = f * f, y = p * f * square;
    y = y - n * 2.12194440e-4f;
    y = y - 0.5f * square;
    y = (f + y) + n * 0.693359375f;
    y = x < INFINITY ? y : x;
    y = x == 0.0f ? -INFINITY : y;
    return x < 0.0f ? NAN : y;
}

/* log(u) of u = 1 + x rounded, and what the rounding lost, divided by u. */
static inline float vm_log1p(float x)
{
    float u = 1.0f + x, lost = x > 1.0f ? 1.0f - (u - x) : x - (u - 1.0f);
    float y = vm_log(u) + (u > 0.0f ? lost / u : 0.0f);
    y = x < INFINITY ? y : x;
    return x == 0.0f ? x : y;
}

static inline float vm_tanh(float x)
{
    float a = fabsf(x), s = x * x;
    float p = 2.097718226e-03f;
    p = p * s - 8.128997049e-03f;
    p = p * s + 2.168164127e-02f;
    p = p * s - 5.394339952e-02f;
    p = p * s + 1.333318054e-01f;
    p = p * s - 3.333333019e-01f;
    float b = a > 20.0f ? 20.0f : a;
    float large = 1.0f - 2.0f / (exp_moderate(2.0f * b) + 1.0f);
    float y = copysignf(a < 0.625f ? p * s * a + a : large, x);
    return x == x ? y : x;
}

static inline float vm_sigmoid(float x)
{
    float e = vm_exp(-fabsf(x)), d = 1.0f / (1.0f + e);
    return x < 0.0f ? e * d : d;
}

/* x = n pi/2 + r in double, where |x| <= 1e6: the parts of pi/2 have 33 bits, so n times them is
 * exact. */
static inline double reduce_angle(double x, uint64_t *n)
{
    const double magic = 6755399441055744.0;
    double shifted = x * 0.63661977236758134308 + magic, k = shifted - magic;
    *n = bits_of_double(shifted);
    double r = x - k * 1.57079632673412561417;
    return r - k * 6.07710050650619224932e-11;
}

static inline double sin_reduced(double r)
{
    double s = r * r, p = -2.5052108385441720e-08;
    p = p * s + 2.7557319223985893e-06;
    p = p * s - 1.9841269841269841e-04;
    p = p * s + 8.3333333333333333e-03;
    p = p * s - 1.6666666666666667e-01;
    return p * s * r + r;
}

static inline double cos_reduced(double r)
{
    double s = r * r, p = 2.0876756987868099e-09;
    p = p * s - 2.7557319223985888e-07;
    p = p * s + 2.4801587301587302e-05;
    p = p * s - 1.3888888888888889e-03;
    p = p * s + 4.1666666666666667e-02;
    p = p * s - 0.5;
    return p * s + 1.0;
}

static inline float vm_sin(float x)
{
    uint64_t n;
    double r = reduce_angle((double)x, &n), s = sin_reduced(r), c = cos_reduced(r);
    double y = n & 1 ? c : s;
    y = n & 2 ? -y : y;
    return x == 0.0f ? x : (float)y;
}

static inline float vm_cos(float x)
{
    uint64_t n;
    double r = reduce_angle((double)x, &n), s = sin_reduced(r), c = cos_reduced(r);
    double y = n & 1 ? s : c;
    y = (n + 1) & 2 ? -y : y;
    return (float)y;
}

static inline float vm_erf(float x)
{
    float a = fabsf(x), s = x * x;
    float p = 8.362306806e-05f;
    p = p * s - 8.141480220e-04f;
    p = p * s + 5.200989967e-03f;
    p = p * s - 2.685941348e-02f;
    p = p * s + 1.128369650e-01f;
    p = p * s - 3.761263386e-01f;
    float small = p * s * a + 1.128379167f * a;
    float b = a > 4.0f ? 4.0f : a;
    float q = 6.628188686e-07f;
    q = q * b + 1.232991058e-05f;
    q = q * b - 3.847851097e-04f;
    q = q * b + 4.013395291e-03f;
    q = q * b - 2.481279277e-02f;
    q = q * b + 1.079057027e-01f;
    q = q * b + 6.336273157e-01f;
    q = q * b + 1.129397063e+00f;
    q = q * b - 1.533822437e-04f;
    float y = copysignf(a < 0.92f ? small : 1.0f - exp_moderate(-q), x);
    return x == x ? y : x;
}

static inline float vm_atan(float x)
{
    float a = fabsf(x), t = a > 1.0f ? 1.0f / a : a, s = t * t;
    float p = -1.827184644e-03f;
    p = p * s + 1.106431500e-02f;
    p = p * s - 3.145546907e-02f;
    p = p * s + 5.823432004e-02f;
    p = p * s - 8.419445964e-02f;
    p = p * s + 1.095757185e-01f;
    p = p * s - 1.426524460e-01f;
    p = p * s + 1.999863855e-01f;
    p = p * s - 3.333330186e-01f;
    float y = p * s * t + t;
    y = a > 1.0f ? 1.57079632679f - y : y;
    y = copysignf(y, x);
    return x == x ? y : x;
}

/* A number as the sum of two floats, the second at most half a unit in the last place of the first.
 */
typedef struct twofold {
    float high, low;
} twofold;

/* a + b, where |a| >= |b| or a is 0. */
static inline twofold sum_of(float a, float b)
{
    float high = a + b;
    return (twofold){high, (a - high) + b};
}

static inline twofold product_of(float a, float b)
{
    float high = a * b;
    return (twofold){high, fmaf(a, b, -high)};
}

/* log2 of a positive finite float: exponent + log2(1 + f), with log(1 + f) = f + f^2 (f (1/3 + f p)
 * - 1/2), every step in two floats but the polynomial p. */
static inline twofold log2_of(float x)
{
    reduced part = reduce_log(x);
    float f = part.r;
    float p = -6.2003299594e-02f;
    p = p * f + 1.0680516064e-01f;
    p = p * f - 1.0728996992e-01f;
    p = p * f + 1.1017874628e-01f;
    p = p * f - 1.2436651438e-01f;
    p = p * f + 1.4287196100e-01f;
    p = p * f - 1.6668722034e-01f;
    p = p * f + 2.0000006258e-01f;
    p = p * f - 2.4999980628e-01f;
    twofold third = sum_of(0.333333343f, p * f), cubic = product_of(third.high, f);
    cubic.low += (third.low - 9.93410754e-09f) * f;
    twofold factor = sum_of(-0.5f, cubic.high), square = product_of(f, f);
    twofold rest = product_of(square.high, factor.high);
    rest.low += square.high * (factor.low + cubic.low) + square.low * factor.high;
    twofold log = sum_of(f, rest.high), scaled = product_of(log.high, 1.44269502f);
    scaled.low += (log.low + rest.low) * 1.44269502f + log.high * 1.92596299e-08f;
    twofold z = sum_of((float)part.n, scaled.high);
    z.low += scaled.low;
    return z;
}

/* 2^(n + d) for an integer n and |d| <= 1/2. */
static inline float exp2_of(int32_t n, float d)
{
    int32_t half = n >> 1;
    float p = 1.547471183e-04f;
    p = p * d + 1.339998329e-03f;
    p = p * d + 9.618010372e-03f;
    p = p * d + 5.550328642e-02f;
    p = p * d + 2.402265072e-01f;
    p = p * d + 6.931471825e-01f;
    return (p * d + 1.0f) * power_of_2(half) * power_of_2(n - half);
}

/* The integer nearest to x, |x| <= 200. */
static inline reduced nearest(float x)
{
    const float magic = 12582912.0f;
    float shifted = x + magic;
    return (reduced){shifted - magic, (int32_t)(bits_of(shifted) - bits_of(magic))};
}

/* |x|^y as 2^(y log2 |x|); what has no such logarithm, and the sign, last. */
static inline float vm_pow(float x, float y)
{
    float a = fabsf(x), w = y > 1e30f ? 1e30f : y < -1e30f ? -1e30f : y;
    twofold log = log2_of(a), z = product_of(log.high, w);
    float c = z.high < -200.0f ? -200.0f : z.high;
    c = c > 200.0f ? 200.0f : c;
    float low = c == z.high ? z.low + log.low * w : 0.0f;
    reduced near = nearest(c);
    float r = exp2_of(near.n, (c - near.r) + low),
          limit = (a == 0.0f) == (y > 0.0f) ? 0.0f : INFINITY;
    r = ((a == 0.0f) | (a == INFINITY)) ? limit : r;
    r = a == a ? r : a;
    float half = y * 0.5f;
    int integer = floorf(y) == y, odd = integer & (floorf(half) != half);
    uint32_t negative = bits_of(x) & 0x80000000u;
    r = float_of(bits_of(r) ^ (odd ? negative : 0u));
    r = ((x < 0.0f) & (x > -INFINITY) & !integer) ? NAN : r;
    r = y == y ? r : y;
    return ((x == 1.0f) | (y == 0.0f)) ? 1.0f : r;
}

/* a^y for positive finite a and |y| <= POW_SMALL: only the integer part of log2 a needs more digits
 * than a float, and its product with y is exact in two. */
#define POW_SMALL 4.0f
static inline float vm_small_power(float a, float y)
{
    reduced part = reduce_log(a);
    float f = part.r;
    float p = -1.1297070980e-01f;
    p = p * f + 1.8782453239e-01f;
    p = p * f - 1.9061331451e-01f;
    p = p * f + 2.0429642498e-01f;
    p = p * f - 2.3963654041e-01f;
    p = p * f + 2.8858524561e-01f;
    p = p * f - 3.6069643497e-01f;
    p = p * f + 4.8089790344e-01f;
    p = p * f - 7.2134733200e-01f;
    p = p * f + 1.4426950216e+00f;
    twofold whole = product_of((float)part.n, y);
    float rest = p * f * y, z = whole.high + rest;
    float c = z < -200.0f ? -200.0f : z;
    c = c > 200.0f ? 200.0f : c;
    reduced near = nearest(c);
    float d = (whole.high - near.r) + (rest + whole.low);
    return exp2_of(near.n, c == z ? d : 0.0f);
}

#endif
