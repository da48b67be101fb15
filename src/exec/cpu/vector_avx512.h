/* What AVX-512 has instructions of its own for, and loops.inc therefore writes by hand: the
 * exponential by a table of sixteen in a register, and the joining of sixteen values into one.
 *
 * Everything else is plain C that the compiler turns into vectors (vector_math.h). Add a function
 * here only where a measurement says that the compiler's version is far off. */
#ifndef BL_CPU_VECTOR_AVX512_H
#define BL_CPU_VECTOR_AVX512_H

#include <immintrin.h>

/* The first n of sixteen. */
static inline __mmask16 first_of_16(int64_t n)
{
    return (__mmask16)(n < 16 ? (1u << n) - 1 : 0xffffu);
}

/* e^x = 2^n e^r, n being x / ln 2 rounded to sixteenths: 2^(n - floor n) is in the table, and the
 * scaling by 2^floor(n) is one instruction that is right where it over- or underflows. For a
 * cubic |r| <= ln(2) / 32 is small enough; beyond lie only infinities and what 2^n makes infinite
 * or 0 anyway. Error: 1.1 units in the last place. */
static inline __m512 exp_of_16(__m512 x)
{
    const __m512 table =
        _mm512_setr_ps(1.0f, 1.0442737f, 1.0905077f, 1.1387886f, 1.1892071f, 1.2418578f, 1.2968396f,
                       1.3542556f, 1.4142135f, 1.4768262f, 1.5422108f, 1.6104903f, 1.6817929f,
                       1.7562522f, 1.8340081f, 1.9152066f);
    const __m512 sixteenths = _mm512_set1_ps(786432.0f); /* 1.5 * 2^19: adding it rounds to them */
    __m512 rounded = _mm512_fmadd_ps(x, _mm512_set1_ps(1.44269504089f), sixteenths);
    __m512 n = _mm512_sub_ps(rounded, sixteenths);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f), r);
    r = _mm512_range_ps(r, _mm512_set1_ps(0.03f), 2); /* the smaller, the sign kept */
    __m512 t = _mm512_permutexvar_ps(_mm512_castps_si512(rounded), table);
    __m512 p = _mm512_fmadd_ps(r, _mm512_set1_ps(0.16667032f), _mm512_set1_ps(0.5000162f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(t, r), p, t);
    return _mm512_scalef_ps(p, n);
}

/* The same for eight doubles, by eighths: |r| <= ln(2) / 16 needs an eighth power. Error: 1.2 units. */
static inline __m512d exp_of_8(__m512d x)
{
    const __m512d table = _mm512_setr_pd(1, 1.0905077326652577, 1.189207115002721, 1.2968395546510096, 1.4142135623730951, 1.5422108254079407, 1.681792830507429, 1.8340080864093424);
    const __m512d eighths = _mm512_set1_pd(844424930131968.0); /* 1.5 * 2^49 */
    __m512d rounded = _mm512_fmadd_pd(x, _mm512_set1_pd(1.4426950408889634074), eighths);
    __m512d n = _mm512_sub_pd(rounded, eighths);
    __m512d r = _mm512_fnmadd_pd(n, _mm512_set1_pd(0.69314718036912381649), x);
    r = _mm512_fnmadd_pd(n, _mm512_set1_pd(1.9082149292705877e-10), r);
    r = _mm512_range_pd(r, _mm512_set1_pd(0.05), 2);
    __m512d t = _mm512_permutexvar_pd(_mm512_castpd_si512(rounded), table);
    __m512d p = _mm512_fmadd_pd(r, _mm512_set1_pd(1.0 / 40320.0), _mm512_set1_pd(1.0 / 5040.0));
    p = _mm512_fmadd_pd(p, r, _mm512_set1_pd(1.0 / 720.0));
    p = _mm512_fmadd_pd(p, r, _mm512_set1_pd(1.0 / 120.0));
    p = _mm512_fmadd_pd(p, r, _mm512_set1_pd(1.0 / 24.0));
    p = _mm512_fmadd_pd(p, r, _mm512_set1_pd(1.0 / 6.0));
    p = _mm512_fmadd_pd(p, r, _mm512_set1_pd(0.5));
    p = _mm512_fmadd_pd(p, r, _mm512_set1_pd(1.0));
    p = _mm512_fmadd_pd(_mm512_mul_pd(t, r), p, t);
    return _mm512_scalef_pd(p, n);
}

/* --- sixteen into one, by halves ------------------------------------------------------------- */

#define JOIN_16(name, op)                                                                          \
    static inline float name(__m512 x)                                                             \
    {                                                                                              \
        __m256 eight = _mm256_##op##_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));  \
        __m128 y = _mm_##op##_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));  \
        y = _mm_##op##_ps(y, _mm_movehl_ps(y, y));                                                 \
        return _mm_cvtss_f32(_mm_##op##_ss(y, _mm_movehdup_ps(y)));                                \
    }
JOIN_16(add_of_16, add)
JOIN_16(max_of_16, max)
JOIN_16(min_of_16, min)

/* A stretch of n values, by four times sixteen running ones. The processor's maximum and minimum
 * forget what is not a number; whether there was any is noted beside. */
#define STRETCH_16(name, op, start, is_undefined)                                                  \
    static inline float name##_stretch(const float *x, int64_t n)                                  \
    {                                                                                              \
        const __m512 none = _mm512_set1_ps(start);                                                 \
        if (n <= 16) {                                                                             \
            __m512 x16 = _mm512_mask_loadu_ps(none, first_of_16(n), x);                            \
            return is_undefined(x16, x16) ? NAN : op##_of_16(x16);                                 \
        }                                                                                          \
        __m512 a = none, b = none, c = none, d = none;                                             \
        __mmask16 undefined = 0;                                                                   \
        int64_t i = 0;                                                                             \
        for (; i + 64 <= n; i += 64) {                                                             \
            __m512 p = _mm512_loadu_ps(x + i), q = _mm512_loadu_ps(x + i + 16),                    \
                   r = _mm512_loadu_ps(x + i + 32), s = _mm512_loadu_ps(x + i + 48);               \
            a = _mm512_##op##_ps(a, p), b = _mm512_##op##_ps(b, q);                                \
            c = _mm512_##op##_ps(c, r), d = _mm512_##op##_ps(d, s);                                \
            undefined |= is_undefined(p, q) | is_undefined(r, s);                                  \
        }                                                                                          \
        for (; i < n; i += 16) {                                                                   \
            __m512 p = _mm512_mask_loadu_ps(none, first_of_16(n - i), x + i);                      \
            a = _mm512_##op##_ps(a, p);                                                            \
            undefined |= is_undefined(p, p);                                                       \
        }                                                                                          \
        a = _mm512_##op##_ps(_mm512_##op##_ps(a, b), _mm512_##op##_ps(c, d));                      \
        return undefined ? NAN : op##_of_16(a);                                                    \
    }
#define NOT_NUMBERS(p, q) _mm512_cmp_ps_mask(p, q, _CMP_UNORD_Q)
#define NEVER(p, q)       (__mmask16)0
STRETCH_16(sum_f32, add, 0.0f, NEVER)
STRETCH_16(max_f32, max, -INFINITY, NOT_NUMBERS)
STRETCH_16(min_f32, min, INFINITY, NOT_NUMBERS)

/* z = e^(x - y), and the sum, by stretches as above. */
static inline float exp_sum_stretch(float *z, const float *x, __m512 y, int64_t n)
{
    __m512 a = _mm512_setzero_ps(), b = a;
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m512 p = exp_of_16(_mm512_sub_ps(_mm512_loadu_ps(x + i), y));
        __m512 q = exp_of_16(_mm512_sub_ps(_mm512_loadu_ps(x + i + 16), y));
        _mm512_storeu_ps(z + i, p);
        _mm512_storeu_ps(z + i + 16, q);
        a = _mm512_add_ps(a, p), b = _mm512_add_ps(b, q);
    }
    for (; i < n; i += 16) {
        __mmask16 some = first_of_16(n - i);
        __m512 p = exp_of_16(_mm512_sub_ps(_mm512_maskz_loadu_ps(some, x + i), y));
        _mm512_mask_storeu_ps(z + i, some, p);
        a = _mm512_mask_add_ps(a, some, a, p);
    }
    return add_of_16(_mm512_add_ps(a, b));
}

/* --- random bits ------------------------------------------------------------------------------ */

typedef struct product_512 { /* of sixteen 32-bit numbers with one: both halves */
    __m512i low, high;
} product_512;

static inline product_512 products_of_16(__m512i x, __m512i factor)
{
    const __mmask16 odd = 0xaaaa;
    __m512i even = _mm512_mul_epu32(x, factor);
    __m512i other = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), factor);
    return (product_512){_mm512_mask_blend_epi32(odd, even, _mm512_slli_epi64(other, 32)),
                         _mm512_mask_blend_epi32(odd, _mm512_srli_epi64(even, 32), other)};
}

/* The four words of sixteen blocks, a block after the other. */
static inline void store_blocks(uint32_t *out, const __m512i c[4])
{
    __m512i a = _mm512_unpacklo_epi32(c[0], c[1]), b = _mm512_unpackhi_epi32(c[0], c[1]);
    __m512i d = _mm512_unpacklo_epi32(c[2], c[3]), e = _mm512_unpackhi_epi32(c[2], c[3]);
    /* Lane l of these: blocks 4 l, 4 l + 1, 4 l + 2, 4 l + 3. */
    __m512i t[4] = {_mm512_unpacklo_epi64(a, d), _mm512_unpackhi_epi64(a, d),
                    _mm512_unpacklo_epi64(b, e), _mm512_unpackhi_epi64(b, e)};
    __m512i low = _mm512_shuffle_i32x4(t[0], t[1], 0x44),
            high = _mm512_shuffle_i32x4(t[0], t[1], 0xee);
    __m512i low2 = _mm512_shuffle_i32x4(t[2], t[3], 0x44),
            high2 = _mm512_shuffle_i32x4(t[2], t[3], 0xee);
    _mm512_storeu_si512(out, _mm512_shuffle_i32x4(low, low2, 0x88));
    _mm512_storeu_si512(out + 16, _mm512_shuffle_i32x4(low, low2, 0xdd));
    _mm512_storeu_si512(out + 32, _mm512_shuffle_i32x4(high, high2, 0x88));
    _mm512_storeu_si512(out + 48, _mm512_shuffle_i32x4(high, high2, 0xdd));
}

/* Philox4x32-10 of sixteen counters from `first` on: 64 numbers. */
static inline void philox_of_16(const uint32_t *key, uint32_t word2, uint32_t word3, uint64_t first,
                                uint32_t *out)
{
    uint32_t k0 = key[0], k1 = key[1];
    __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i start = _mm512_set1_epi32((int)(uint32_t)first), low = _mm512_add_epi32(start, lane);
    __mmask16 carry = _mm512_cmplt_epu32_mask(low, start);
    __m512i high = _mm512_set1_epi32((int)(uint32_t)(first >> 32));
    __m512i c[4] = {low, _mm512_mask_add_epi32(high, carry, high, _mm512_set1_epi32(1)),
                    _mm512_set1_epi32((int)word2), _mm512_set1_epi32((int)word3)};
    const __m512i m0 = _mm512_set1_epi32((int)0xD2511F53u),
                  m1 = _mm512_set1_epi32((int)0xCD9E8D57u);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        product_512 p = products_of_16(c[0], m0), q = products_of_16(c[2], m1);
        c[0] = _mm512_ternarylogic_epi32(q.high, c[1], _mm512_set1_epi32((int)k0), 0x96);
        c[2] = _mm512_ternarylogic_epi32(p.high, c[3], _mm512_set1_epi32((int)k1), 0x96);
        c[1] = q.low, c[3] = p.low;
    }
    store_blocks(out, c);
}

#endif
