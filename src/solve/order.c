/* Orders of numbers on the host: what pruning by magnitude and remapping by rank are made of. Many
 * numbers are sorted digit by digit of their bits, in time that grows as their count does; digits
 * in which all agree, as the last ones of doubles that were floats do, cost nothing. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ballast/solve.h"
#include "base/base.h"

typedef struct ranked {
    uint64_t key;
    int64_t index;
} ranked;

/* A number whose order is that of the doubles: -0 is 0, and what is no number comes last. */
static uint64_t ordered(double x)
{
    uint64_t bits;
    if (isnan(x))
        return UINT64_MAX;
    x += 0.0; /* -0 becomes 0 */
    memcpy(&bits, &x, sizeof bits);
    return bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
}

enum { DIGIT = 11, DIGITS = 6, VALUES = 1 << DIGIT }; /* 6 x 11 bits are more than 64 */

static unsigned digit_of(uint64_t key, int digit)
{
    return (unsigned)(key >> (digit * DIGIT)) & (VALUES - 1);
}

/* Sorts by one digit, equal ones in their order, into `to`; false, with nothing done, where all
 * have the same. start[VALUES] is how often each occurs. */
static bool sort_by_digit(const ranked *from, ranked *to, int64_t n, int digit, int64_t *start)
{
    if (start[digit_of(from[0].key, digit)] == n)
        return false;
    for (int64_t v = 0, sum = 0; v < VALUES; v++) {
        int64_t count = start[v];
        start[v] = sum;
        sum += count;
    }
    for (int64_t i = 0; i < n; i++)
        to[start[digit_of(from[i].key, digit)]++] = from[i];
    return true;
}

/* Sorts item[n], n >= 1, digit by digit from the lowest; `other` is scratch of the same size, and
 * the one that holds the result is returned. */
static ranked *sort_by_digits(ranked *item, ranked *other, int64_t n, int64_t (*count)[VALUES])
{
    for (int64_t i = 0; i < n; i++)
        for (int d = 0; d < DIGITS; d++)
            count[d][digit_of(item[i].key, d)]++;
    for (int d = 0; d < DIGITS; d++)
        if (sort_by_digit(item, other, n, d, count[d])) {
            ranked *sorted = other;
            other = item;
            item = sorted;
        }
    return item;
}

static int by_key(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

bl_status bl_ascending_order(const double *key, int64_t n, int64_t *order)
{
    enum { FEW = 1024 }; /* then counting digits takes longer than comparing */
    size_t counts = n > FEW ? DIGITS * VALUES * sizeof(int64_t) : 0;
    size_t bytes = counts + (size_t)(n > FEW ? 2 * n : n) * sizeof(ranked);
    int64_t(*count)[VALUES] = n > 0 ? bl_alloc(bytes) : NULL;
    if (!count)
        return n > 0 ? bl_no_memory(bytes) : BL_OK;
    ranked *item = (ranked *)((char *)count + counts);
    for (int64_t i = 0; i < n; i++)
        item[i] = (ranked){ordered(key[i]), i};
    if (n > FEW)
        item = sort_by_digits(item, item + n, n, count);
    else
        qsort(item, (size_t)n, sizeof *item, by_key);
    for (int64_t i = 0; i < n; i++)
        order[i] = item[i].index;
    bl_release(count);
    return BL_OK;
}

static void number_in_order(const int32_t *value, int64_t n, const int64_t *order, int32_t *number,
                            int32_t *values)
{
    *values = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i == 0 || value[order[i]] != value[order[i - 1]])
            ++*values;
        number[order[i]] = *values - 1;
    }
}

bl_status bl_number_values(const int32_t *value, int64_t n, int32_t *number, int32_t *values)
{
    size_t bytes = (size_t)(n + 1) * (sizeof(double) + sizeof(int64_t));
    double *key = bl_alloc(bytes);
    if (!key)
        return bl_no_memory(bytes);
    int64_t *order = (int64_t *)(key + n + 1);
    for (int64_t i = 0; i < n; i++)
        key[i] = value[i];
    bl_status status = bl_ascending_order(key, n, order);
    if (status == BL_OK)
        number_in_order(value, n, order, number, values);
    bl_release(key);
    return status;
}
