/* Loops over doubles in the processor's wider vectors, where it has them.
 *
 *     BL_WIDE(add_all, (const double *x, int64_t n, double *y), (x, n, y))
 *     {
 *         for (int64_t i = 0; i < n; i++)
 *             y[i] += x[i];
 *     }
 *
 * defines `static void add_all(..)`, built for any processor of its kind and once more for AVX2
 * without fused operations, so that both compute the same bits. What costs enough that the choice
 * at every call, a few cycles, is nothing. */
#ifndef BL_BASE_WIDE_H
#define BL_BASE_WIDE_H

#define BL_WIDE_INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__)
#define BL_WIDE(name, parameters, arguments)                                                       \
    BL_WIDE_INLINE void name##_anywhere parameters;                                                \
    static __attribute__((target("avx2"))) void name##_avx2 parameters                             \
    {                                                                                              \
        name##_anywhere arguments;                                                                 \
    }                                                                                              \
    static void name parameters                                                                    \
    {                                                                                              \
        if (__builtin_cpu_supports("avx2"))                                                        \
            name##_avx2 arguments;                                                                 \
        else                                                                                       \
            name##_anywhere arguments;                                                             \
    }                                                                                              \
    BL_WIDE_INLINE void name##_anywhere parameters
#else
#define BL_WIDE(name, parameters, arguments) static void name parameters
#endif

#endif
