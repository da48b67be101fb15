/* What one or more cores of this machine can do at most, so that bench/run.py can say how far a
 * step is from its floor.
 *
 *     bench_peak THREADS
 *
 * A line of JSON: "gflops", multiply-adds on registers in single precision, the rate no matrix
 * product can pass; "memory", GB/s of b + s c to a with stores past the caches, 256 MB an array;
 * "cache", the same with 1 MB an array a thread; "gexp", 1e9 exponentials a second by a polynomial
 * of degree five on registers. Each is the best of several trials, all threads together. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { MOST_THREADS = 64 };

typedef struct job {
    double (*work)(struct job *job); /* returns how much was done */
    float *a, *b, *c;
    size_t count;
    pthread_barrier_t *start;
    double done, seconds;
    float result; /* so that no work is thought useless */
} job;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The loops on registers, written once and compiled for three widths of vector; twelve independent
 * sums hide the latency of two units. */
#define TWELVE(X)    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define SUM_START(k) sum##k = zero + (float)k;
#define SUM_NEXT(k)  sum##k = sum##k * factor + term;
#define SUM_ADD(k)   zero += sum##k;
#define EXP_START(k) x##k = zero - 0.1f * (float)k;
#define EXP_NEXT(k)                                                                                \
    {                                                                                              \
        vec t = x##k * 1.44269504f, shifted = t + 12582912.0f, f = t - (shifted - 12582912.0f);    \
        vec y = (((f * 0.00133f + 0.00961f) * f + 0.0555f) * f + 0.24022f) * f + 0.69315f;         \
        zero += (vec)((ivec)(y * f + 1.0f) + ((ivec)shifted << 23));                               \
        x##k *= 0.99999f;                                                                          \
    }

/* 2^x is a polynomial of what rounding leaves, the integer added to the exponent's bits: adding
 * 1.5 2^23 rounds. */
#define LOOPS(suffix, instructions, width)                                                         \
    instructions static double multiply_add_##suffix(long rounds, float *result)                   \
    {                                                                                              \
        typedef float vec __attribute__((vector_size(4 * (width))));                               \
        vec zero = {0}, factor = zero + 0.999f, term = zero + 0.001f;                              \
        vec TWELVE(SUM_NAME) last = zero;                                                          \
        TWELVE(SUM_START)                                                                          \
        for (long r = 0; r < rounds; r++) {                                                        \
            TWELVE(SUM_NEXT)                                                                       \
        }                                                                                          \
        TWELVE(SUM_ADD)                                                                            \
        *result = (zero + last)[0];                                                                \
        return 2.0 * (width)*12 * (double)rounds;                                                  \
    }                                                                                              \
    instructions static double exponentials_##suffix(long rounds, float *result)                   \
    {                                                                                              \
        typedef float vec __attribute__((vector_size(4 * (width))));                               \
        typedef int ivec __attribute__((vector_size(4 * (width))));                                \
        vec zero = {0}, TWELVE(EXP_NAME) last = zero;                                              \
        TWELVE(EXP_START)                                                                          \
        for (long r = 0; r < rounds; r++) {                                                        \
            TWELVE(EXP_NEXT)                                                                       \
        }                                                                                          \
        *result = (zero + last)[0];                                                                \
        return 12.0 * (width) * (double)rounds;                                                    \
    }
#define SUM_NAME(k) sum##k,
#define EXP_NAME(k) x##k,

#if defined(__x86_64__)
LOOPS(wide, __attribute__((target("avx512f,avx512dq,fma"))), 16)
LOOPS(medium, __attribute__((target("avx2,fma"))), 8)
#define CHOOSE(name)                                                                               \
    (__builtin_cpu_supports("avx512f") ? name##_wide                                               \
     : __builtin_cpu_supports("avx2")  ? name##_medium                                             \
                                       : name##_narrow)
#else
#define CHOOSE(name) name##_narrow
#endif
LOOPS(narrow, , 4)

static double products(job *j)
{
    return CHOOSE(multiply_add)(10000000, &j->result);
}

static double exponentials(job *j)
{
    return CHOOSE(exponentials)(3000000, &j->result);
}

static void triad(float *restrict a, const float *restrict b, const float *restrict c, size_t n)
{
    size_t i = 0;
#if defined(__x86_64__)
    for (; n > (1u << 20) && i + 4 <= n; i += 4)
        _mm_stream_ps(a + i, _mm_add_ps(_mm_load_ps(b + i),
                                        _mm_mul_ps(_mm_set1_ps(0.5f), _mm_load_ps(c + i))));
#endif
    for (; i < n; i++)
        a[i] = b[i] + 0.5f * c[i];
}

static double traffic(job *j)
{
    int rounds = j->count > (1u << 20) ? 1 : 100;
    for (int r = 0; r < rounds; r++) {
        triad(j->a, j->b, j->c, j->count);
        __asm__ volatile("" : : "r"(j->a) : "memory");
    }
    return 12.0 * (double)j->count * rounds;
}

static void *thread_main(void *argument)
{
    job *j = argument;
    pthread_barrier_wait(j->start);
    double start = now();
    j->done = j->work(j);
    j->seconds = now() - start;
    return NULL;
}

/* Work a second of all threads, in 1e9: the best of the trials, a trial as long as its slowest
 * thread. */
static double rate(double (*work)(job *), int threads, size_t count)
{
    static job jobs[MOST_THREADS];
    double best = 0;
    for (int t = 0; t < threads; t++) {
        jobs[t] = (job){.work = work, .count = count};
        float **arrays[] = {&jobs[t].a, &jobs[t].b, &jobs[t].c};
        for (int k = 0; k < 3 && count; k++) {
            *arrays[k] = aligned_alloc(64, count * sizeof(float));
            if (!*arrays[k])
                return 0;
            memset(*arrays[k], 0, count * sizeof(float));
        }
    }
    for (int trial = 0; trial < 7; trial++) {
        pthread_t id[MOST_THREADS];
        pthread_barrier_t start;
        pthread_barrier_init(&start, NULL, (unsigned)threads);
        for (int t = 0; t < threads; t++) {
            jobs[t].start = &start;
            if (pthread_create(&id[t], NULL, thread_main, &jobs[t]) != 0)
                exit(1);
        }
        double done = 0, longest = 0;
        for (int t = 0; t < threads; t++) {
            pthread_join(id[t], NULL);
            done += jobs[t].done;
            longest = jobs[t].seconds > longest ? jobs[t].seconds : longest;
        }
        pthread_barrier_destroy(&start);
        best = done / longest > best ? done / longest : best;
    }
    for (int t = 0; t < threads; t++)
        free(jobs[t].a), free(jobs[t].b), free(jobs[t].c);
    return 1e-9 * best;
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (threads < 1 || threads > MOST_THREADS)
        return 2;
    printf("{\"threads\": %d, \"gflops\": %.1f, ", threads, rate(products, threads, 0));
    printf("\"memory\": %.1f, ",
           rate(traffic, threads, (256u << 20) / sizeof(float) / (size_t)threads));
    printf("\"cache\": %.1f, ", rate(traffic, threads, (1u << 20) / sizeof(float)));
    printf("\"gexp\": %.2f}\n", rate(exponentials, threads, 0));
    return 0;
}
