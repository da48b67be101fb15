/* The primitives that are sums of products, for reals (in double) and integers (modulo 2^64). */
#include "exec/reference/reference.h"

#define WIDE       double
#define RING(name) real_##name
#include "exec/reference/ring.h"
#undef WIDE
#undef RING

#define WIDE       uint64_t
#define RING(name) integer_##name
#include "exec/reference/ring.h"
#undef WIDE
#undef RING

const bl_ring *ring_of(bl_dtype dtype)
{
    return is_wide_integer(dtype) ? &integer_ring : &real_ring;
}
