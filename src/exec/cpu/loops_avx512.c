/* The innermost loops for AVX-512; see loops.h. */
#define LOOPS      bl_loops_avx512
#define LOOPS_NAME "avx512"
#include "exec/cpu/loops.inc"
