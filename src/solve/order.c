/* Orders of numbers on the host: what pruning by magnitude and remapping by rank are made of. */
#include <math.h>
#include <stdlib.h>

#include "ballast/solve.h"
#include "base/base.h"

typedef struct ranked {
    double key;
    int64_t index;
} ranked;

/* The index decides between equal keys, so that any sort is a stable one. */
static int by_key(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    int not_numbers = (isnan(x->key) != 0) - (isnan(y->key) != 0);
    if (not_numbers)
        return not_numbers;
    if (x->key < y->key || x->key > y->key)
        return x->key < y->key ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

bl_status bl_ascending_order(const double *key, int64_t n, int64_t *order)
{
    size_t bytes = (size_t)n * sizeof(ranked);
    ranked *item = bl_alloc(bytes);
    if (!item && n > 0)
        return bl_no_memory(bytes);
    for (int64_t i = 0; i < n; i++)
        item[i] = (ranked){key[i], i};
    if (n > 0)
        qsort(item, (size_t)n, sizeof *item, by_key);
    for (int64_t i = 0; i < n; i++)
        order[i] = item[i].index;
    bl_release(item);
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
