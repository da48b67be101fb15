/* The innermost loops for any processor; see loops.h. */
#define LOOPS      bl_loops_base
#define LOOPS_NAME "base"
#include "exec/cpu/loops.inc"
