/* Concrete data: an element type, a shape and a row-major buffer; and random keys.
 *
 *     bl_array a;
 *     BL_TRY(bl_array_new(BL_F32, BL_SHAPE(128, 784), &a));   zero-filled
 *     float *x = bl_f32(&a);
 *     bl_array_free(&a);
 */
#ifndef BALLAST_ARRAY_H
#define BALLAST_ARRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ballast/status.h"

#define BL_MAX_RANK 8

typedef enum bl_dtype { BL_F32, BL_F64, BL_I32, BL_U32, BL_I8, BL_U8, BL_BOOL, BL_DTYPES } bl_dtype;

BL_API const char *bl_dtype_name(bl_dtype dtype); /* "f32" */
BL_API size_t bl_dtype_size(bl_dtype dtype);      /* bytes an element */
BL_API bool bl_dtype_is_float(bl_dtype dtype);

typedef struct bl_shape {
    int rank;
    int64_t dim[BL_MAX_RANK];
} bl_shape;

#define BL_SCALAR ((bl_shape){0})
#define BL_SHAPE(...)                                                                              \
    ((bl_shape){(int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), {__VA_ARGS__}})

BL_API int64_t bl_shape_count(bl_shape shape); /* product of the sizes; 1 for a scalar */
BL_API bool bl_shape_equal(bl_shape a, bl_shape b);

/* A type is what a value is before it has data. */
typedef struct bl_type {
    bl_dtype dtype;
    bl_shape shape;
} bl_type;

BL_API int64_t bl_type_count(bl_type type);
BL_API size_t bl_type_bytes(bl_type type);
BL_API bool bl_type_equal(bl_type a, bl_type b);

/* Writes "f32[128,784]" and returns `text`. */
#define BL_TYPE_TEXT 96
BL_API char *bl_type_text(bl_type type, char text[BL_TYPE_TEXT]);

typedef struct bl_array {
    bl_type type;
    void *data; /* row-major, 64-byte aligned when allocated here */
} bl_array;

/* Allocates a zero-filled array. Release it with bl_array_free, which accepts a zeroed struct.
 * Errors: a negative size, too many bytes; no memory. */
BL_API bl_status bl_array_new(bl_dtype dtype, bl_shape shape, bl_array *out);
/* An array of its own with the same type and values. Error: no memory. */
BL_API bl_status bl_array_copy(const bl_array *from, bl_array *out);
BL_API void bl_array_free(bl_array *array);
BL_API int64_t bl_array_count(const bl_array *array);

/* Element `i` in row-major order as a double, and its assignment (rounded to the dtype). */
BL_API double bl_array_get(const bl_array *array, int64_t i);
BL_API void bl_array_set(bl_array *array, int64_t i, double value);

static inline float *bl_f32(const bl_array *a) { return (float *)a->data; }
static inline double *bl_f64(const bl_array *a) { return (double *)a->data; }
static inline int32_t *bl_i32(const bl_array *a) { return (int32_t *)a->data; }
static inline uint32_t *bl_u32(const bl_array *a) { return (uint32_t *)a->data; }
static inline uint8_t *bl_u8(const bl_array *a) { return (uint8_t *)a->data; }

/* --- random keys ---------------------------------------------------------------------------
 * Philox4x32-10 (Salmon et al. 2011). A key names a stream; the same key gives the same numbers
 * on every executor and at every number of threads. Word j of block i of a stream is
 * philox(counter = {i low, i high, 0, 0}, key)[j]; folding uses counter {n, 0, 1, 0}. */
typedef struct bl_key {
    uint32_t word[2];
} bl_key;

BL_API bl_key bl_key_from_seed(uint64_t seed);
BL_API bl_key bl_key_derive(bl_key key, uint32_t n);           /* same as bl_key_fold in a graph */
BL_API bl_key bl_key_derive_name(bl_key key, const char *name); /* folds a 32-bit hash of name */
BL_API void bl_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* A sequential reader of one stream, for host code: splits, noise, shuffles. */
typedef struct bl_random {
    bl_key key;
    uint64_t block;
    uint32_t word[4];
    int used;
} bl_random;

BL_API bl_random bl_random_new(bl_key key);
BL_API uint32_t bl_random_bits32(bl_random *r);
BL_API double bl_random_unit(bl_random *r);                  /* [0,1), 53 bits */
BL_API uint32_t bl_random_below(bl_random *r, uint32_t n);   /* 0..n-1, unbiased; n >= 1 */
BL_API double bl_random_gauss(bl_random *r);                 /* standard normal */
BL_API double bl_random_gamma(bl_random *r, double shape);   /* > 0; Marsaglia and Tsang 2000 */
BL_API double bl_random_beta(bl_random *r, double a, double b); /* a, b > 0 */
BL_API void bl_random_permutation(bl_random *r, int32_t *out, int64_t n); /* of 0..n-1 */

#endif
