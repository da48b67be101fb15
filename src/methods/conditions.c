/* The language of value conditions in a contract's rows, and their check on arrays.
 *
 *     condition   part { "," part }
 *     part        word | [bound] ("<"|"<=") "." [("<"|"<=") bound] | ("<"|"<="|">"|">=") bound
 *                 | "in {" numbers "}" | "[" or "(" bound "," bound "]" or ")"
 *     bound       number | "inf" | "-inf" | letter or option
 *
 * One more word is a branch of bl_conditions_check. It is read afresh at every use, as types are.
 */
#include <math.h>
#include <stdlib.h>

#include "methods/pieces.h"

typedef struct interval {
    double low, high;
    bool low_open, high_open;
} interval;

/* A bound that names something unknown here (an option moved by a schedule) is no bound. */
static double read_bound(piece p, const bl_symbols *symbols, double unknown)
{
    char text[64];
    double value;
    const bl_symbol *known = find_symbol(symbols, p, false, 0);
    if (known)
        return known->value;
    if (copy_name(p, text, sizeof text) && bl_parse_double(text, &value))
        return value;
    return unknown;
}

/* "[a,b)" */
static bool read_brackets(piece p, const bl_symbols *symbols, interval *out)
{
    char first = p.length ? p.at[0] : '\0', last = p.length ? p.at[p.length - 1] : '\0';
    const char *comma = memchr(p.at, ',', (size_t)p.length);
    if (!strchr("[(", first) || !strchr("])", last) || !comma || !first || !last)
        return false;
    out->low_open = first == '(';
    out->high_open = last == ')';
    out->low = read_bound(trim(p.at + 1, comma), symbols, -INFINITY);
    out->high = read_bound(trim(comma + 1, p.at + p.length - 1), symbols, INFINITY);
    return true;
}

/* ">= 1", "< C" */
static bool read_comparison(piece p, const bl_symbols *symbols, interval *out)
{
    if (p.length < 2 || !strchr("<>", p.at[0]))
        return false;
    bool open = p.at[1] != '=';
    piece bound = trim(p.at + (open ? 1 : 2), p.at + p.length);
    *out = (interval){-INFINITY, INFINITY, false, false};
    if (p.at[0] == '<') {
        out->high = read_bound(bound, symbols, INFINITY);
        out->high_open = open;
    } else {
        out->low = read_bound(bound, symbols, -INFINITY);
        out->low_open = open;
    }
    return true;
}

/* "0 <= . < C", "0 <= ." */
static bool read_around_dot(piece p, const bl_symbols *symbols, interval *out)
{
    const char *end = p.at + p.length, *less = memchr(p.at, '<', (size_t)p.length);
    if (!less || less == p.at)
        return false;
    *out = (interval){-INFINITY, INFINITY, false, false};
    out->low_open = less[1] != '=';
    out->low = read_bound(trim(p.at, less), symbols, -INFINITY);
    const char *second = memchr(less + 1, '<', (size_t)(end - less - 1));
    if (second) {
        out->high_open = second[1] != '=';
        piece high = trim(second + (out->high_open ? 1 : 2), end);
        out->high = read_bound(high, symbols, INFINITY);
    }
    return true;
}

static bool read_interval(piece p, const bl_symbols *symbols, interval *out)
{
    return read_brackets(p, symbols, out) || read_comparison(p, symbols, out) ||
           read_around_dot(p, symbols, out);
}

/* A NaN lies in no interval. */
static bool inside(const interval *i, double x)
{
    return (i->low_open ? x > i->low : x >= i->low) && (i->high_open ? x < i->high : x <= i->high);
}

/* "in {0,1}" */
static bool listed(piece p, const bl_symbols *symbols, double x)
{
    const char *end = p.at + p.length, *at = memchr(p.at, '{', (size_t)p.length);
    while (at && at < end && *at != '}') {
        const char *stop = at + 1;
        while (stop < end && *stop != ',' && *stop != '}')
            stop++;
        if (x == read_bound(trim(at + 1, stop), symbols, (double)NAN))
            return true;
        at = stop;
    }
    return false;
}

bool bl_has_condition(const char *conditions, const char *word)
{
    piece p;
    while (next_piece(&conditions, ',', &p))
        if (piece_is(p, word))
            return true;
    return false;
}

static void show_place(const bl_array *array, int64_t i, char *out, size_t size)
{
    int64_t index[BL_MAX_RANK] = {0};
    for (int axis = array->type.shape.rank - 1; axis >= 0; axis--) {
        index[axis] = i % array->type.shape.dim[axis];
        i /= array->type.shape.dim[axis];
    }
    size_t used = 0;
    out[0] = '\0';
    for (int axis = 0; axis < array->type.shape.rank && used < size; axis++)
        used += (size_t)snprintf(out + used, size - used, "%s%lld", axis ? "," : "",
                                 (long long)index[axis]);
}

/* " (C is 10)" for the letters of a condition. */
static void show_letters(piece p, const bl_symbols *symbols, bl_text *out)
{
    const char *end = p.at + p.length;
    for (const char *at = p.at; at < end; at++) {
        const char *start = at;
        while (at < end && (isalnum((unsigned char)*at) || *at == '_'))
            at++;
        const bl_symbol *known = find_symbol(symbols, (piece){start, (int)(at - start)}, false, 0);
        if (at > start && known)
            bl_text_add(out, " (%s is %.9g)", known->name, known->value);
    }
}

static bl_status bad_element(const bl_array *array, int64_t i, piece expected,
                             const bl_symbols *symbols)
{
    char place[128], value[BL_NUMBER_TEXT];
    bl_text letters = {0};
    show_place(array, i, place, sizeof place);
    show_letters(expected, symbols, &letters);
    bl_number_text(bl_array_get(array, i), value);
    bl_status status = bl_fail(BL_INVALID, "%s%s%sis %s, expected %.*s%s", *place ? "[" : "", place,
                               *place ? "] " : "", value, expected.length, expected.at,
                               letters.at && !letters.failed ? letters.at : "");
    bl_text_free(&letters);
    return status;
}

static bl_status sorted_values(const bl_array *array, double **out)
{
    size_t count = (size_t)bl_array_count(array);
    double *value = bl_alloc((count + 1) * sizeof *value);
    if (!value)
        return bl_no_memory((count + 1) * sizeof *value);
    for (size_t i = 0; i < count; i++)
        value[i] = bl_array_get(array, (int64_t)i);
    bl_sort_doubles(value, count);
    *out = value;
    return BL_OK;
}

static bl_status check_distinct(const bl_array *array)
{
    double *value = NULL;
    BL_TRY(sorted_values(array, &value));
    int64_t count = bl_array_count(array), i = 1;
    while (i < count && value[i] != value[i - 1])
        i++;
    double twice = i < count ? value[i] : 0;
    bl_release(value);
    if (i < count)
        return bl_fail(BL_INVALID, "has %.9g more than once, expected distinct values", twice);
    return BL_OK;
}

static bl_status check_permutation(const bl_array *array)
{
    double *value = NULL;
    BL_TRY(sorted_values(array, &value));
    int64_t count = bl_array_count(array), i = 0;
    while (i < count && value[i] == (double)i)
        i++;
    bl_release(value);
    if (i < count)
        return bl_fail(BL_INVALID, "is not a permutation of 0..%lld: it lacks %lld",
                       (long long)count - 1, (long long)i);
    return BL_OK;
}

static double sum_of(const bl_array *array, int64_t begin, int64_t end)
{
    double sum = 0;
    for (int64_t i = begin; i < end; i++)
        sum += bl_array_get(array, i);
    return sum;
}

static bl_status check_sum(const bl_array *array)
{
    double sum = sum_of(array, 0, bl_array_count(array));
    if (!(sum > 0))
        return bl_fail(BL_INVALID, "sums to %.9g, expected a positive sum", sum);
    return BL_OK;
}

/* The number behind "sums to 1 within " and the like, or NaN. */
static double tolerance_behind(piece p, const char *words)
{
    size_t length = strlen(words);
    if ((size_t)p.length <= length || strncmp(p.at, words, length) != 0)
        return (double)NAN;
    return strtod(p.at + length, NULL);
}

static int64_t row_size(const bl_array *array)
{
    int rank = array->type.shape.rank;
    return rank > 0 ? array->type.shape.dim[rank - 1] : 1;
}

static bl_status check_unit_sum(const bl_array *array, bool rows, double tolerance)
{
    int64_t count = bl_array_count(array), size = rows ? row_size(array) : count;
    for (int64_t begin = 0; begin < count || (begin == 0 && !rows); begin += size ? size : 1) {
        char row[32] = "";
        double sum = sum_of(array, begin, begin + size);
        if (rows)
            snprintf(row, sizeof row, " in row %lld", (long long)(begin / size));
        if (!(fabs(sum - 1) <= tolerance))
            return bl_fail(BL_INVALID, "sums to %.6g%s, expected 1 within %g", sum, row, tolerance);
    }
    return BL_OK;
}

static bool all_zero(const bl_array *array, int64_t begin, int64_t end)
{
    while (begin < end && bl_array_get(array, begin) == 0)
        begin++;
    return begin == end;
}

static bl_status check_not_zero(const bl_array *array)
{
    if (all_zero(array, 0, bl_array_count(array)))
        return bl_fail(BL_INVALID, "is all 0, expected an element that is not");
    return BL_OK;
}

static bl_status check_no_zero_row(const bl_array *array)
{
    int64_t size = row_size(array), rows = bl_array_count(array) / (size ? size : 1);
    for (int64_t i = 0; i < rows; i++)
        if (all_zero(array, i * size, (i + 1) * size))
            return bl_fail(BL_INVALID, "is all 0 in row %lld, expected rows that are not",
                           (long long)i);
    return BL_OK;
}

/* A bound such as 0.8 means the nearest number that an f32 can hold. Compared as floats: gcc 12
 * takes a bound that went to float and back, two at a time, for the bound itself. */
static bool inside_f32(const interval *i, float x)
{
    float low = (float)i->low, high = (float)i->high;
    return (i->low_open ? x > low : x >= low) && (i->high_open ? x < high : x <= high);
}

/* The closed interval of floats that a condition's are, open bounds moved inwards. */
static void closed_f32(const interval *i, float *low, float *high)
{
    *low = i->low_open ? nextafterf((float)i->low, INFINITY) : (float)i->low;
    *high = i->high_open ? nextafterf((float)i->high, -INFINITY) : (float)i->high;
    if ((i->low_open && isinf((float)i->low) && i->low > 0) ||
        (i->high_open && isinf((float)i->high) && i->high < 0))
        *low = INFINITY, *high = -INFINITY; /* beyond infinity is nothing */
}

/* Whether all elements are inside, looked at many at a time; false also where that is not known. */
static bool all_inside(const interval *i, const bl_array *array)
{
    int64_t count = bl_array_count(array);
    int outside = 0;
    if (array->type.dtype == BL_F32) {
        const float *x = bl_f32(array);
        float low, high;
        closed_f32(i, &low, &high);
        for (int64_t k = 0; k < count; k++)
            outside |= !(x[k] >= low) | !(x[k] <= high);
        return !outside;
    }
    const int32_t *x = bl_i32(array);
    if (array->type.dtype != BL_I32)
        return false;
    for (int64_t k = 0; k < count; k++) {
        int low = i->low_open ? x[k] > i->low : x[k] >= i->low;
        int high = i->high_open ? x[k] < i->high : x[k] <= i->high;
        outside |= !low | !high;
    }
    return !outside;
}

/* Whether x is in a list; `seen` remembers values that are, so that the text is not read again for
 * every element. */
typedef struct seen {
    double value[8];
    int count;
} seen;

static bool listed_again(piece p, const bl_symbols *symbols, double x, seen *before)
{
    for (int i = 0; i < before->count; i++)
        if (before->value[i] == x)
            return true;
    if (!listed(p, symbols, x))
        return false;
    if (before->count < (int)(sizeof before->value / sizeof *before->value))
        before->value[before->count++] = x;
    return true;
}

static bl_status check_elements(piece p, const bl_symbols *symbols, const bl_array *array)
{
    interval range = {-INFINITY, INFINITY, false, false};
    seen before = {.count = 0};
    bool finite = piece_is(p, "finite"), integer = piece_is(p, "integer");
    bool number = piece_is(p, "no NaN");
    bool list = p.length > 3 && strncmp(p.at, "in ", 3) == 0;
    if (finite)
        range.low_open = range.high_open = true;
    else if (!integer && !number && !list && !read_interval(p, symbols, &range))
        return bl_fail(BL_INVALID, "has the condition \"%.*s\", which is not one", p.length, p.at);
    if (!integer && !list && all_inside(&range, array))
        return BL_OK;
    bool single = array->type.dtype == BL_F32;
    int64_t count = bl_array_count(array);
    for (int64_t i = 0; i < count; i++) {
        double x = bl_array_get(array, i);
        bool fine = integer  ? isfinite(x) && x == floor(x)
                    : list   ? listed_again(p, symbols, x, &before)
                    : single ? inside_f32(&range, (float)x)
                             : inside(&range, x);
        if (!fine)
            return bad_element(array, i, p, symbols);
    }
    return BL_OK;
}

bl_status bl_rows_check(const char *conditions, bl_shape shape)
{
    if (bl_has_condition(conditions, "rows > 0") && (shape.rank == 0 || shape.dim[0] == 0))
        return bl_fail(BL_INVALID, "has no rows, expected at least one");
    return BL_OK;
}

bl_status bl_conditions_check(const char *conditions, const bl_symbols *symbols,
                              const bl_array *array)
{
    BL_TRY(bl_rows_check(conditions, array->type.shape));
    piece p;
    while (next_piece(&conditions, ',', &p)) {
        if (piece_is(p, "grad") || piece_is(p, "rows > 0") || piece_is(p, "optional"))
            continue;
        if (piece_is(p, "distinct"))
            BL_TRY(check_distinct(array));
        else if (piece_is(p, "permutation"))
            BL_TRY(check_permutation(array));
        else if (piece_is(p, "sum > 0"))
            BL_TRY(check_sum(array));
        else if (piece_is(p, "not all 0"))
            BL_TRY(check_not_zero(array));
        else if (piece_is(p, "no zero row"))
            BL_TRY(check_no_zero_row(array));
        else if (!isnan(tolerance_behind(p, "sums to 1 within ")))
            BL_TRY(check_unit_sum(array, false, tolerance_behind(p, "sums to 1 within ")));
        else if (!isnan(tolerance_behind(p, "rows sum to 1 within ")))
            BL_TRY(check_unit_sum(array, true, tolerance_behind(p, "rows sum to 1 within ")));
        else
            BL_TRY(check_elements(p, symbols, array));
    }
    return BL_OK;
}

bl_status bl_range_check(const char *range, const bl_symbols *symbols, double value)
{
    char text[BL_NUMBER_TEXT];
    piece p;
    while (next_piece(&range, ',', &p)) {
        interval i;
        bool fine = true;
        if (piece_is(p, "integer"))
            fine = value == floor(value);
        else if (piece_is(p, "odd"))
            fine = fabs(fmod(value, 2)) == 1;
        else if (piece_is(p, "flag"))
            fine = value == 0 || value == 1;
        else if (piece_is(p, "finite"))
            fine = isfinite(value);
        else if (p.length > 3 && strncmp(p.at, "in ", 3) == 0)
            fine = listed(p, symbols, value);
        else if (read_interval(p, symbols, &i))
            fine = inside(&i, value);
        if (!fine)
            return bl_fail(BL_INVALID, "is %s, expected %.*s", bl_number_text(value, text),
                           p.length, p.at);
    }
    return BL_OK;
}
