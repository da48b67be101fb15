/* Wrong labels on purpose. A new kind is a value of bl_noise_kind, a case in bl_noise_apply, and a
 * word in bl_noise_parse. */
#include "data/dataset.h"

#include <math.h>
#include <string.h>

/* --- pairs of class names: "truck->automobile,cat<->dog" */

static int32_t find_class(const bl_dataset *d, const char *name, size_t length)
{
    for (int32_t c = 0; c < d->classes; c++)
        if (strlen(d->class_name[c]) == length && memcmp(d->class_name[c], name, length) == 0)
            return c;
    return -1;
}

static bl_status unknown_class(const bl_dataset *d, const char *name, size_t length)
{
    char word[64];
    snprintf(word, sizeof word, "%.*s", (int)(length < 63 ? length : 63), name);
    const char *nearest = bl_nearest(word, (const char *const *)d->class_name, d->classes);
    return bl_fail(BL_INVALID, "label noise: %s has no class \"%s\"%s%s%s", d->name, word,
                   nearest ? "; did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
}

static bl_status set_partner(int32_t *partner, int32_t from, int32_t to, const bl_dataset *d)
{
    if (partner[from] != from)
        return bl_fail(BL_INVALID, "label noise: class \"%s\" has two partners",
                       d->class_name[from]);
    if (from == to)
        return bl_fail(BL_INVALID, "label noise: class \"%s\" is its own partner",
                       d->class_name[from]);
    partner[from] = to;
    return BL_OK;
}

/* One "a->b" or "a<->b" of `length` characters. */
static bl_status read_pair(const char *pair, size_t length, const bl_dataset *d, int32_t *partner)
{
    const char *end = pair + length, *arrow = NULL;
    for (const char *at = pair; at + 2 <= end && !arrow; at++)
        if (at[0] == '-' && at[1] == '>')
            arrow = at;
    if (!arrow)
        return bl_fail(BL_INVALID,
                       "label noise: \"%.*s\" is not a pair; write cat->dog or cat<->dog",
                       (int)(length < 80 ? length : 80), pair);
    bool both = arrow > pair && arrow[-1] == '<';
    size_t left = (size_t)(arrow - pair) - (both ? 1 : 0), right = (size_t)(end - arrow) - 2;
    int32_t from = find_class(d, pair, left), to = find_class(d, arrow + 2, right);
    if (from < 0)
        return unknown_class(d, pair, left);
    if (to < 0)
        return unknown_class(d, arrow + 2, right);
    BL_TRY(set_partner(partner, from, to, d));
    return both ? set_partner(partner, to, from, d) : BL_OK;
}

/* partner[c] is the class that c is mistaken for, c itself if none. */
static bl_status read_pairs(const char *pairs, const bl_dataset *d, int32_t *partner)
{
    for (int32_t c = 0; c < d->classes; c++)
        partner[c] = c;
    if (!pairs || !*pairs)
        return bl_fail(BL_INVALID, "label noise: no pairs of classes; write cat->dog or cat<->dog");
    for (const char *at = pairs; at;) {
        const char *comma = strchr(at, ',');
        BL_TRY(read_pair(at, comma ? (size_t)(comma - at) : strlen(at), d, partner));
        at = comma ? comma + 1 : NULL;
    }
    return BL_OK;
}

/* --- the kinds */

static bl_status symmetric(double rate, int32_t classes, int32_t *labels, int64_t count, bl_key key)
{
    int32_t *order = bl_alloc((size_t)count * sizeof *order);
    if (!order)
        return bl_no_memory((size_t)count * sizeof *order);
    bl_random r = bl_random_new(key);
    bl_random_permutation(&r, order, count);
    int64_t picked = (int64_t)round(rate * (double)count);
    for (int64_t i = 0; i < picked; i++)
        labels[order[i]] = (int32_t)bl_random_below(&r, (uint32_t)classes);
    bl_release(order);
    return BL_OK;
}

/* Two draws an example whatever comes of them, so that one example's fate does not move another's.
 */
static void other(double rate, int32_t classes, int32_t *labels, int64_t count, bl_key key)
{
    bl_random r = bl_random_new(key);
    for (int64_t i = 0; i < count; i++) {
        bool changed = bl_random_unit(&r) < rate;
        int32_t step = 1 + (int32_t)floor(bl_random_unit(&r) * (classes - 1));
        if (changed)
            labels[i] = (labels[i] + step) % classes;
    }
}

static bl_status by_pairs(const bl_noise *noise, const bl_dataset *d, int32_t *labels,
                          int64_t count, bl_key key)
{
    int32_t *partner = bl_alloc((size_t)d->classes * sizeof *partner);
    if (!partner)
        return bl_no_memory((size_t)d->classes * sizeof *partner);
    bl_status status = read_pairs(noise->pairs, d, partner);
    bl_random r = bl_random_new(key);
    for (int64_t i = 0; status == BL_OK && i < count; i++)
        if (bl_random_unit(&r) < noise->rate)
            labels[i] = partner[labels[i]];
    bl_release(partner);
    return status;
}

static bl_status spoil(const bl_noise *noise, const bl_dataset *d, int32_t *labels, int64_t count,
                       bl_key key)
{
    switch (noise->kind) {
    case BL_NOISE_NONE:
        return BL_OK;
    case BL_NOISE_SYMMETRIC:
        return symmetric(noise->rate, d->classes, labels, count, key);
    case BL_NOISE_OTHER:
        other(noise->rate, d->classes, labels, count, key);
        return BL_OK;
    case BL_NOISE_PAIRS:
        return by_pairs(noise, d, labels, count, key);
    }
    return bl_fail(BL_INVALID, "label noise: unknown kind %d", (int)noise->kind);
}

static bl_status check(const bl_noise *noise, const bl_dataset *d, const int32_t *labels,
                       int64_t count)
{
    if (noise->kind != BL_NOISE_NONE && d->target_kind != BL_CLASSES)
        return bl_fail(BL_INVALID, "label noise: %s has no classes", d->name);
    if (!(noise->rate >= 0 && noise->rate <= 1))
        return bl_fail(BL_INVALID, "label noise: rate %g; it must be from 0 to 1", noise->rate);
    for (int64_t i = 0; d->target_kind == BL_CLASSES && i < count; i++)
        if (labels[i] < 0 || labels[i] >= d->classes)
            return bl_fail(BL_INVALID, "label noise: label %d of example %lld is not in 0..%d",
                           labels[i], (long long)i, d->classes - 1);
    return BL_OK;
}

bl_status bl_noise_apply(const bl_noise *noise, const bl_dataset *d, int32_t *labels, int64_t count,
                         bl_key key, uint8_t *wrong)
{
    BL_TRY(check(noise, d, labels, count));
    int32_t *clean = bl_alloc((size_t)count * sizeof *clean);
    if (!clean)
        return bl_no_memory((size_t)count * sizeof *clean);
    memcpy(clean, labels, (size_t)count * sizeof *clean);
    bl_status status = spoil(noise, d, labels, count, key);
    for (int64_t i = 0; wrong && i < count; i++)
        wrong[i] = labels[i] != clean[i];
    bl_release(clean);
    return status;
}

bl_status bl_noise_parse(const char *text, bl_noise *out)
{
    static const struct {
        const char *word;
        bl_noise_kind kind;
    } words[] = {
        {"symmetric:", BL_NOISE_SYMMETRIC}, {"other:", BL_NOISE_OTHER}, {"pairs:", BL_NOISE_PAIRS}};
    *out = (bl_noise){.kind = BL_NOISE_SYMMETRIC};
    const char *at = text;
    for (int i = 0; i < 3; i++)
        if (strncmp(text, words[i].word, strlen(words[i].word)) == 0) {
            out->kind = words[i].kind;
            at = text + strlen(words[i].word);
        }
    char number[32];
    size_t length = out->kind == BL_NOISE_PAIRS ? strcspn(at, ":") : strlen(at);
    snprintf(number, sizeof number, "%.*s", (int)(length < 31 ? length : 31), at);
    if (out->kind == BL_NOISE_PAIRS && at[length] == ':')
        out->pairs = at + length + 1;
    if (!bl_parse_double(number, &out->rate) || !(out->rate >= 0 && out->rate <= 1) ||
        (out->kind == BL_NOISE_PAIRS && !out->pairs))
        return bl_fail(BL_INVALID,
                       "label noise is \"%.80s\", but must be a rate from 0 to 1: 0.4, "
                       "symmetric:0.4, other:0.4 or pairs:0.4:cat<->dog",
                       text);
    return BL_OK;
}
