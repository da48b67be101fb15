/* Splits: which rows train, which choose, which judge. All choices go through bl_subset, which is
 * stratified where there are classes. */
#include "data/dataset.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The first k of a random order of `rows`; `order` and `rows` have `count` places. */
static void draw(const int32_t *rows, int64_t count, int64_t k, bl_key key, int32_t *order,
                 int32_t *chosen)
{
    bl_random r = bl_random_new(key);
    bl_random_permutation(&r, order, count);
    for (int64_t i = 0; i < k; i++)
        chosen[i] = rows[order[i]];
}

/* How many of k each class gives: its share rounded down, then one more by largest remainder. */
static void quotas(const int64_t *size, int32_t classes, int64_t count, int64_t k, int64_t *quota)
{
    int64_t given = 0;
    for (int32_t c = 0; c < classes; c++) {
        quota[c] = (int64_t)((__int128)k * size[c] / count);
        given += quota[c];
    }
    for (; given < k; given++) {
        int32_t best = -1;
        __int128 most = -1;
        for (int32_t c = 0; c < classes; c++) {
            __int128 remainder = (__int128)k * size[c] - (__int128)quota[c] * count;
            if (quota[c] < size[c] && remainder > most)
                most = remainder, best = c;
        }
        quota[best]++;
    }
}

/* Counts the classes of `rows`, and sorts the rows by class into `grouped`; `next` has a place a
 * class for the next row of it. */
static void group_by_class(const bl_dataset *d, const int32_t *rows, int64_t count, int64_t *size,
                           int64_t *next, int32_t *grouped)
{
    const int32_t *label = bl_i32(&d->target);
    memset(size, 0, (size_t)d->classes * sizeof *size);
    for (int64_t i = 0; i < count; i++)
        size[label[rows[i]]]++;
    int64_t begin = 0;
    for (int32_t c = 0; c < d->classes; c++) {
        next[c] = begin;
        begin += size[c];
    }
    for (int64_t i = 0; i < count; i++)
        grouped[next[label[rows[i]]]++] = rows[i];
}

/* Room for one choice. */
struct room {
    int64_t *size, *quota;
    int32_t *grouped, *order, *rows;
};

static void room_free(struct room *room)
{
    bl_release(room->size);
    bl_release(room->quota);
    bl_release(room->grouped);
    bl_release(room->order);
    bl_release(room->rows);
}

static bl_status room_new(int32_t classes, const int32_t *rows, int64_t count, struct room *room)
{
    size_t class_bytes = (size_t)(classes + 1) * sizeof(int64_t), bytes = (size_t)count * 4;
    *room = (struct room){bl_alloc(class_bytes), bl_alloc(class_bytes), bl_alloc(bytes),
                          bl_alloc(bytes), bl_alloc(bytes)};
    if (!room->size || !room->quota || !room->grouped || !room->order || !room->rows) {
        room_free(room);
        return bl_no_memory(3 * bytes + 2 * class_bytes);
    }
    for (int64_t i = 0; i < count; i++)
        room->rows[i] = rows ? rows[i] : (int32_t)i;
    return BL_OK;
}

/* The quota of each class out of its rows, ascending in the end. */
static void draw_by_class(int32_t classes, bl_key key, const struct room *room, int32_t *chosen)
{
    int64_t begin = 0, total = 0;
    for (int32_t c = 0; c < classes; c++) {
        draw(room->grouped + begin, room->size[c], room->quota[c], bl_key_derive(key, (uint32_t)c),
             room->order, chosen + total);
        begin += room->size[c];
        total += room->quota[c];
    }
    qsort(chosen, (size_t)total, sizeof *chosen, ascending);
}

bl_status bl_subset(const bl_dataset *d, const int32_t *rows, int64_t count, int64_t k, bl_key key,
                    int32_t *chosen)
{
    BL_TRY(bl_dataset_check_rows(d, rows, count));
    if (k < 0 || k > count)
        return bl_fail(BL_INVALID, "%s: %lld examples asked, but there are %lld", d->name,
                       (long long)k, (long long)count);
    if (k == 0)
        return BL_OK;
    bool stratified = d->target_kind == BL_CLASSES;
    struct room room;
    BL_TRY(room_new(stratified ? d->classes : 0, rows, count, &room));
    if (stratified) {
        group_by_class(d, room.rows, count, room.size, room.quota, room.grouped);
        quotas(room.size, d->classes, count, k, room.quota);
        draw_by_class(d->classes, key, &room, chosen);
    } else {
        draw(room.rows, count, k, key, room.order, chosen);
        qsort(chosen, (size_t)k, sizeof *chosen, ascending);
    }
    room_free(&room);
    return BL_OK;
}

bl_status bl_imbalance(const bl_dataset *d, const int32_t *rows, int64_t count, double ratio,
                       bl_key key, int32_t *kept, int64_t *kept_count)
{
    BL_TRY(bl_dataset_check_rows(d, rows, count));
    if (d->target_kind != BL_CLASSES)
        return bl_fail(BL_INVALID, "%s: class imbalance needs classes", d->name);
    if (!(ratio >= 1 && isfinite(ratio)))
        return bl_fail(BL_INVALID, "imbalance ratio %g; it must be 1 or more", ratio);
    struct room room;
    BL_TRY(room_new(d->classes, rows, count, &room));
    group_by_class(d, room.rows, count, room.size, room.quota, room.grouped);
    int64_t largest = 0;
    for (int32_t c = 0; c < d->classes; c++)
        largest = room.size[c] > largest ? room.size[c] : largest;
    *kept_count = 0;
    for (int32_t c = 0; c < d->classes; c++) {
        double share = pow(ratio, d->classes > 1 ? -(double)c / (d->classes - 1) : 0);
        int64_t most = (int64_t)fmax(1, floor((double)largest * share + 1e-9));
        room.quota[c] = room.size[c] < most ? room.size[c] : most;
        *kept_count += room.quota[c];
    }
    draw_by_class(d->classes, key, &room, kept);
    room_free(&room);
    return BL_OK;
}

/* A share of `available` (below 1) or a number (1 and above). */
static bl_status how_many(const bl_dataset *d, const char *part, double asked, int64_t available,
                          int64_t *count)
{
    *count = 0;
    if (asked == 0)
        return BL_OK;
    if (!(asked > 0) || (asked >= 1 && asked != floor(asked)))
        return bl_fail(BL_INVALID,
                       "%s: a %s part of %g; give a share below 1 or a whole number of examples",
                       d->name, part, asked);
    double number = asked < 1 ? fmax(1, round(asked * (double)available)) : asked;
    if (number >= (double)available)
        return bl_fail(BL_INVALID, "%s: a %s part of %g leaves nothing of %lld examples to train",
                       d->name, part, asked, (long long)available);
    *count = (int64_t)number;
    return BL_OK;
}

/* Takes the rows of `part` (ascending) out of `rows` (ascending). */
static void take_out(int32_t *rows, int64_t *count, const int32_t *part, int64_t part_count)
{
    int64_t left = 0, at = 0;
    for (int64_t i = 0; i < *count; i++) {
        if (at < part_count && part[at] == rows[i])
            at++;
        else
            rows[left++] = rows[i];
    }
    *count = left;
}

static bl_status hold_out(const bl_dataset *d, const char *name, double asked, bl_key key,
                          bl_split *s, int32_t **part, int64_t *part_count)
{
    BL_TRY(how_many(d, name, asked, s->train_count, part_count));
    if (!(*part = bl_alloc((size_t)*part_count * sizeof **part)))
        return bl_no_memory((size_t)*part_count * sizeof **part);
    BL_TRY(
        bl_subset(d, s->train, s->train_count, *part_count, bl_key_derive_name(key, name), *part));
    take_out(s->train, &s->train_count, *part, *part_count);
    return BL_OK;
}

static bl_status fixed_test(const bl_dataset *d, bl_split *s)
{
    s->test_count = d->test_count;
    if (!(s->test = bl_alloc((size_t)s->test_count * sizeof *s->test)))
        return bl_no_memory((size_t)s->test_count * sizeof *s->test);
    for (int64_t i = 0; i < s->test_count; i++)
        s->test[i] = (int32_t)(s->train_count + i);
    return BL_OK;
}

static bl_status split(const bl_dataset *d, const bl_split_options *options, bl_key key,
                       bl_split *s)
{
    s->train_count = d->count - d->test_count;
    if (!(s->train = bl_alloc((size_t)s->train_count * sizeof *s->train)))
        return bl_no_memory((size_t)s->train_count * sizeof *s->train);
    for (int64_t i = 0; i < s->train_count; i++)
        s->train[i] = (int32_t)i;
    if (d->test_count > 0)
        BL_TRY(fixed_test(d, s));
    else
        BL_TRY(hold_out(d, "test", options->test, key, s, &s->test, &s->test_count));
    BL_TRY(hold_out(d, "validation", options->validation, key, s, &s->validation,
                    &s->validation_count));
    if (options->train < 0 || options->train > s->train_count)
        return bl_fail(BL_INVALID, "%s: %lld training examples asked, but %lld are left", d->name,
                       (long long)options->train, (long long)s->train_count);
    if (options->train == 0)
        return BL_OK;
    BL_TRY(bl_subset(d, s->train, s->train_count, options->train, bl_key_derive_name(key, "train"),
                     s->train));
    s->train_count = options->train;
    return BL_OK;
}

bl_status bl_split_new(const bl_dataset *d, const bl_split_options *options, bl_key key,
                       bl_split *out)
{
    *out = (bl_split){0};
    bl_status status = split(d, options, key, out);
    if (status != BL_OK)
        bl_split_free(out);
    return status;
}

void bl_split_free(bl_split *s)
{
    bl_release(s->train);
    bl_release(s->validation);
    bl_release(s->test);
    *s = (bl_split){0};
}
