/* Random numbers from a counter: Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random
 * numbers: as easy as 1, 2, 3", SC 2011), and the draws that host code needs.
 *
 * A draw is a function of a key and a position, so results do not depend on threads or order.
 * A new distribution reads bl_random_unit or bl_random_bits32 and nothing else. */
#include "base/base.h"

#include <math.h>
#include <string.h>

void bl_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)UINT32_C(0xD2511F53) * c0;
        uint64_t p1 = (uint64_t)UINT32_C(0xCD9E8D57) * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += UINT32_C(0x9E3779B9);
        k1 += UINT32_C(0xBB67AE85);
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

bl_key bl_key_from_seed(uint64_t seed)
{
    return (bl_key){{(uint32_t)seed, (uint32_t)(seed >> 32)}};
}

bl_key bl_key_derive(bl_key key, uint32_t n)
{
    uint32_t out[4];
    bl_philox((const uint32_t[4]){n, 0, 1, 0}, key.word, out);
    return (bl_key){{out[0], out[1]}};
}

bl_key bl_key_derive_name(bl_key key, const char *name)
{
    uint64_t hash = bl_hash(name, strlen(name), 0);
    return bl_key_derive(key, (uint32_t)(hash ^ hash >> 32));
}

bl_random bl_random_new(bl_key key)
{
    return (bl_random){.key = key, .used = 4};
}

uint32_t bl_random_bits32(bl_random *r)
{
    if (r->used >= 4) {
        uint32_t counter[4] = {(uint32_t)r->block, (uint32_t)(r->block >> 32), 0, 0};
        bl_philox(counter, r->key.word, r->word);
        r->block++;
        r->used = 0;
    }
    return r->word[r->used++];
}

double bl_random_unit(bl_random *r)
{
    uint64_t high = bl_random_bits32(r) >> 5, low = bl_random_bits32(r) >> 6; /* 27 and 26 bits */
    return (double)(high << 26 | low) * 0x1p-53;
}

/* Lemire 2019, "Fast random integer generation in an interval": the high half of a product, with
 * the few products rejected that would favour small results. */
uint32_t bl_random_below(bl_random *r, uint32_t n)
{
    if (n <= 1)
        return 0;
    uint32_t threshold = -n % n;
    for (;;) {
        uint64_t product = (uint64_t)bl_random_bits32(r) * n;
        if ((uint32_t)product >= threshold)
            return (uint32_t)(product >> 32);
    }
}

double bl_random_gauss(bl_random *r)
{
    double radius = sqrt(-2.0 * log1p(-bl_random_unit(r))); /* log of a number in (0,1] */
    return radius * cos(6.283185307179586476925 * bl_random_unit(r));
}

/* Marsaglia and Tsang 2000, "A simple method for generating gamma variables". */
double bl_random_gamma(bl_random *r, double shape)
{
    if (shape < 1.0) /* gamma(a) = gamma(a + 1) u^(1/a) */
        return bl_random_gamma(r, shape + 1.0) * pow(1.0 - bl_random_unit(r), 1.0 / shape);
    double d = shape - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);
    for (;;) {
        double x = bl_random_gauss(r), v = 1.0 + c * x;
        if (v <= 0.0)
            continue;
        v = v * v * v;
        double u = 1.0 - bl_random_unit(r);
        if (log(u) < 0.5 * x * x + d - d * v + d * log(v))
            return d * v;
    }
}

/* For tiny a and b both gammas may underflow to 0; then the mass sits at the ends, at 1 with
 * probability a / (a + b). */
double bl_random_beta(bl_random *r, double a, double b)
{
    double x = bl_random_gamma(r, a), y = bl_random_gamma(r, b);
    if (x + y > 0.0)
        return x / (x + y);
    return bl_random_unit(r) < a / (a + b) ? 1.0 : 0.0;
}

void bl_random_permutation(bl_random *r, int32_t *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = (int32_t)i;
    for (int64_t i = n - 1; i > 0; i--) {
        uint32_t j = bl_random_below(r, (uint32_t)(i + 1));
        int32_t swapped = out[i];
        out[i] = out[j];
        out[j] = swapped;
    }
}
