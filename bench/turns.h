/* What the benchmark programs share that a script lets take turns with other libraries: a clock, and
 * the loop that runs as often as it is told. */
#ifndef BENCH_TURNS_H
#define BENCH_TURNS_H

#include <stdio.h>

#include "base/base.h"

static inline double now(void) /* microseconds */
{
    return 1e6 * bl_seconds_now();
}

/* Microseconds of one of `times` calls. */
static inline bl_status time_calls(bl_status (*call)(void *context), void *context, long times,
                                   double *microseconds)
{
    double start = now();
    for (long i = 0; i < times; i++)
        BL_TRY(call(context));
    *microseconds = (now() - start) / (double)times;
    return BL_OK;
}

/* Every number N read from standard input calls N times and prints microseconds a call. */
static inline bl_status take_turns(bl_status (*call)(void *context), void *context)
{
    double microseconds;
    fflush(stdout);
    for (long times; scanf("%ld", &times) == 1 && times > 0; fflush(stdout)) {
        BL_TRY(time_calls(call, context, times, &microseconds));
        printf("%.4f\n", microseconds);
    }
    return BL_OK;
}

#endif
