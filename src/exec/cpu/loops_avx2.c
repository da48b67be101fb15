/* The innermost loops for AVX2 with FMA; see loops.h. */
#define LOOPS      bl_loops_avx2
#define LOOPS_NAME "avx2"
#include "exec/cpu/loops.inc"
