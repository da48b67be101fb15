/* Pieces of the texts in a contract's rows, for the two languages that are read there: types
 * (types.c) and conditions (conditions.c). */
#ifndef BL_METHODS_PIECES_H
#define BL_METHODS_PIECES_H

#include <ctype.h>
#include <string.h>

#include "methods/contract.h"

typedef struct piece {
    const char *at;
    int length;
} piece;

static inline piece trim(const char *at, const char *end)
{
    while (at < end && isspace((unsigned char)*at))
        at++;
    while (end > at && isspace((unsigned char)end[-1]))
        end--;
    return (piece){at, (int)(end - at)};
}

/* The next piece up to `separator` outside brackets; false at the end. */
static inline bool next_piece(const char **rest, char separator, piece *out)
{
    if (!*rest)
        return false;
    int depth = 0;
    const char *at = *rest;
    while (*at && !(*at == separator && depth == 0)) {
        depth += strchr("[({", *at) ? 1 : strchr("])}", *at) ? -1 : 0;
        at++;
    }
    *out = trim(*rest, at);
    *rest = *at ? at + 1 : NULL;
    return out->length > 0 || *rest != NULL;
}

static inline bool piece_is(piece p, const char *text)
{
    return strlen(text) == (size_t)p.length && strncmp(p.at, text, (size_t)p.length) == 0;
}

static inline bool copy_name(piece p, char *out, size_t size)
{
    if (p.length <= 0 || (size_t)p.length >= size)
        return false;
    memcpy(out, p.at, (size_t)p.length);
    out[p.length] = '\0';
    return true;
}

static inline const bl_symbol *find_symbol(const bl_symbols *symbols, piece name, bool is_shape,
                                           int index)
{
    for (int i = 0; i < symbols->count; i++) {
        const bl_symbol *s = &symbols->at[i];
        if (s->is_shape == is_shape && s->index == index && piece_is(name, s->name))
            return s;
    }
    return NULL;
}

#endif
