/* Text: growing strings, numbers in the C locale, hashes, and the nearest of some names. */
#define _GNU_SOURCE /* strtod_l: a number is read alike in every locale */
#include "base/base.h"

#include <ctype.h>
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

void bl_free_text(char *text)
{
    bl_release(text);
}

double bl_seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int bl_compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

size_t bl_utf8_length(const char *text, size_t left)
{
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80)
        return 1;
    size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || left < length)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xed && s[1] >= 0xa0, beyond = s[0] == 0xf4 && s[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : length;
}

void bl_clean_text(char *text)
{
    for (size_t left = strlen(text), length; left > 0; text += length, left -= length) {
        const unsigned char *s = (const unsigned char *)text;
        length = bl_utf8_length(text, left);
        if (length == 0)
            length = 1, *text = '?';
        else if (s[0] < ' ' || s[0] == 0x7f || (s[0] == 0xc2 && s[1] < 0xa0))
            memset(text, ' ', length);
    }
}

void bl_text_add_n(bl_text *text, const char *bytes, size_t count)
{
    if (text->failed)
        return;
    if (count >= SIZE_MAX / 2 - text->length) {
        text->failed = true;
        return;
    }
    size_t needed = text->length + count + 1;
    if (needed > text->capacity) {
        size_t capacity = needed + needed / 2 + 32;
        char *larger = bl_resize(text->at, capacity);
        if (!larger) {
            text->failed = true;
            return;
        }
        text->at = larger;
        text->capacity = capacity;
    }
    if (count)
        memcpy(text->at + text->length, bytes, count);
    text->length += count;
    text->at[text->length] = '\0';
}

static char *format_v(const char *format, va_list arguments)
{
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *formatted = length < 0 ? NULL : bl_alloc((size_t)length + 1);
    if (formatted)
        vsnprintf(formatted, (size_t)length + 1, format, arguments);
    return formatted;
}

void bl_text_add(bl_text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *formatted = format_v(format, arguments);
    va_end(arguments);
    if (formatted)
        bl_text_add_n(text, formatted, strlen(formatted));
    else
        text->failed = true;
    bl_release(formatted);
}

void bl_text_add_cell(bl_text *text, const char *cell, char delimiter)
{
    size_t length = strlen(cell);
    bool spaced = length > 0 && (strchr(" \t", cell[0]) || strchr(" \t", cell[length - 1]));
    if (!spaced && !strpbrk(cell, (char[]){delimiter, '"', '\n', '\r', 0})) {
        bl_text_add_n(text, cell, length);
        return;
    }
    bl_text_add_n(text, "\"", 1);
    for (; *cell; cell++)
        bl_text_add_n(text, *cell == '"' ? "\"\"" : cell, *cell == '"' ? 2 : 1);
    bl_text_add_n(text, "\"", 1);
}

void bl_text_free(bl_text *text)
{
    bl_release(text->at);
    *text = (bl_text){0};
}

char *bl_copy_text(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = bl_alloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

char *bl_format(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *formatted = format_v(format, arguments);
    va_end(arguments);
    return formatted;
}

/* Letters inserted, deleted, replaced or swapped with a neighbour, without regard to case; names
 * longer than the table are never near. */
enum { NAME_LIMIT = 63 };

static int edit_distance(const char *a, const char *b)
{
    int m = (int)strlen(a), n = (int)strlen(b);
    int cost[NAME_LIMIT + 1][NAME_LIMIT + 1];
    for (int j = 0; j <= n; j++)
        cost[0][j] = j;
    for (int i = 1; i <= m; i++) {
        cost[i][0] = i;
        for (int j = 1; j <= n; j++) {
            int differs = tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]);
            int best = cost[i - 1][j - 1] + differs;
            if (cost[i - 1][j] + 1 < best)
                best = cost[i - 1][j] + 1;
            if (cost[i][j - 1] + 1 < best)
                best = cost[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                cost[i - 2][j - 2] + 1 < best)
                best = cost[i - 2][j - 2] + 1;
            cost[i][j] = best;
        }
    }
    return cost[m][n];
}

const char *bl_nearest(const char *name, const char *const *candidates, int count)
{
    size_t length = strlen(name);
    if (length == 0 || length > NAME_LIMIT)
        return NULL;
    const char *nearest = NULL;
    int limit = (int)length / 3 + 1, best = limit + 1;
    for (int i = 0; i < count; i++) {
        size_t other = strlen(candidates[i]);
        if (other > NAME_LIMIT)
            continue;
        int distance = edit_distance(name, candidates[i]);
        if (distance < best && distance < (int)(length > other ? length : other)) {
            best = distance;
            nearest = candidates[i];
        }
    }
    for (int i = 0; i < count && !nearest && length >= 3; i++) /* an unfinished name */
        if (strncasecmp(candidates[i], name, length) == 0)
            nearest = candidates[i];
    return nearest;
}

bool bl_parse_double(const char *text, double *out)
{
    if (*text == '\0' || isspace((unsigned char)*text) || strpbrk(text, "xX("))
        return false; /* no blanks, no hexadecimal numbers, no nan(payload) */
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0); /* glibc hands out a constant */
    if (!c)
        return false;
    char *end = NULL;
    double value = strtod_l(text, &end, c);
    freelocale(c);
    if (end == text || *end != '\0')
        return false;
    *out = value;
    return true;
}

bool bl_parse_int(const char *text, int64_t *out)
{
    if (*text == '\0' || isspace((unsigned char)*text))
        return false;
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0')
        return false;
    *out = value;
    return true;
}

uint64_t bl_hash(const void *bytes, size_t count, uint64_t seed)
{
    const unsigned char *at = bytes;
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ seed;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return hash;
}
