/* Calls of contract functions in tests: inputs by name, then outputs that are expected or words of
 * the error.
 *
 *     call c = start("ms_penalty", "{\"s\": 2}");
 *     F32(&c, "gamma", S(2), 1, -3);
 *     U8(&c, "pruned", S(2), 1, 1);
 *     accept(&c, "penalty");                 with gradients of the output penalty, or NULL
 *     expect(&c, "penalty", 8);
 *     near(slope(&c, "gamma", 1), -2);
 *     finish(&c);
 */
#ifndef BL_TESTS_CALLS_H
#define BL_TESTS_CALLS_H

#include "methods/method.h"
#include "support.h"

typedef struct call {
    const bl_contract *contract;
    const char *options;
    bl_dictionary in, out, cotangent, gradient;
} call;

static inline call start(const char *function, const char *options)
{
    call c = {.options = options};
    expect_ok(bl_function_find(function, &c.contract));
    return c;
}

static inline void give_to(bl_dictionary *d, const char *name, bl_type type, const double *values)
{
    expect_ok(bl_dictionary_set(d, name, array_of(type, values)));
}

static inline void give(call *c, const char *name, bl_dtype dtype, bl_shape shape,
                        const double *values)
{
    give_to(&c->in, name, (bl_type){dtype, shape}, values);
}

#define F32(c, name, shape, ...) give(c, name, BL_F32, shape, VALUES(__VA_ARGS__))
#define I32(c, name, shape, ...) give(c, name, BL_I32, shape, VALUES(__VA_ARGS__))
#define U8(c, name, shape, ...)  give(c, name, BL_U8, shape, VALUES(__VA_ARGS__))
#define S(...)                   BL_SHAPE(__VA_ARGS__)

static inline bl_status run(call *c, const char *wrt)
{
    bl_dictionary_free(&c->out);
    bl_dictionary_free(&c->gradient);
    c->out = c->gradient = (bl_dictionary){0};
    bool cotangent = c->cotangent.count > 0, gradient = wrt || cotangent;
    return bl_function_call(c->contract, bl_device_reference(), &c->in, c->options, &c->out, wrt,
                            cotangent ? &c->cotangent : NULL, gradient ? &c->gradient : NULL);
}

static inline void accept(call *c, const char *wrt)
{
    expect_ok(run(c, wrt));
}

static inline void finish(call *c)
{
    bl_dictionary_free(&c->in);
    bl_dictionary_free(&c->out);
    bl_dictionary_free(&c->cotangent);
    bl_dictionary_free(&c->gradient);
}

static inline double result(const call *c, const char *name, int64_t i)
{
    const bl_array *array = bl_dictionary_find(&c->out, name);
    assert_non_null(array);
    assert_in_range(i, 0, bl_array_count(array) - 1);
    return bl_array_get(array, i);
}

static inline double slope(const call *c, const char *name, int64_t i)
{
    const bl_array *array = bl_dictionary_find(&c->gradient, name);
    assert_non_null(array);
    return bl_array_get(array, i);
}

static inline void near(double got, double expected)
{
    if (!close_to(got, expected, 2e-6))
        fail_msg("%.9g, expected %.9g", got, expected);
}

static inline void expect_values(const call *c, const char *name, int64_t count,
                                 const double *values)
{
    const bl_array *array = bl_dictionary_find(&c->out, name);
    assert_non_null(array);
    assert_int_equal(bl_array_count(array), count);
    for (int64_t i = 0; i < count; i++)
        if (!close_to(bl_array_get(array, i), values[i], 2e-6))
            fail_msg("%s[%lld] is %.9g, expected %.9g", name, (long long)i, bl_array_get(array, i),
                     values[i]);
}
#define expect(c, name, ...)                                                                       \
    expect_values(c, name, COUNT_OF(VALUES(__VA_ARGS__)), VALUES(__VA_ARGS__))

static inline void all_finite(const bl_dictionary *d)
{
    for (size_t e = 0; e < d->count; e++)
        for (int64_t i = 0; i < bl_array_count(&d->entry[e].array); i++)
            if (!isfinite(bl_array_get(&d->entry[e].array, i)))
                fail_msg("%s[%lld] is not finite", d->entry[e].name, (long long)i);
}

/* Runs and frees the call, which must fail with these words. */
static inline void refuse(call *c, const char *words)
{
    bl_status status = run(c, NULL);
    if (status != BL_INVALID || !strstr(bl_error(), words))
        fail_msg("%s: status %d, \"%s\"; expected \"%s\"", c->contract->name, status,
                 status == BL_OK ? "" : bl_error(), words);
    finish(c);
}

/* Refuses a call, made of text only, after its inputs are given. */
#define REFUSE(f, json, words, ...)                                                                \
    do {                                                                                           \
        call c = start(f, json);                                                                   \
        __VA_ARGS__;                                                                               \
        refuse(&c, words);                                                                         \
    } while (0)

#endif
