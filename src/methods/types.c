/* The language of types in a contract's rows, and the letters that they give a value.
 *
 *     type        alternative { "|" alternative }      f32[1] | f32[B]
 *     alternative dtype "[" [ size { "," size } ] "]"
 *     size        number | letter | letter "..." | "..." | "?"
 *
 * It is read afresh at every use: rows are short, and a table stays readable text. */
#include <stdlib.h>

#include "methods/pieces.h"

/* --- symbols ---------------------------------------------------------------------------------- */

static bool add_symbol(bl_symbols *symbols, piece name, bl_symbol symbol)
{
    if (symbols->count == BL_SYMBOLS || !copy_name(name, symbol.name, sizeof symbol.name))
        return false;
    symbols->at[symbols->count++] = symbol;
    return true;
}

void bl_symbols_add(bl_symbols *symbols, const char *name, double value)
{
    piece p = {name, (int)strlen(name)};
    add_symbol(symbols, p, (bl_symbol){.value = value});
}

/* --- types ------------------------------------------------------------------------------------ */

typedef enum size_kind { SIZE_NUMBER, SIZE_LETTER, SIZE_ANY, SIZE_SHAPE, SIZE_ANY_SHAPE } size_kind;

typedef struct size_item {
    size_kind kind;
    piece name;
    int64_t number;
} size_item;

typedef struct alternative {
    bl_dtype dtype;
    int count;
    size_item item[BL_MAX_RANK + 1];
} alternative;

static size_item read_size(piece p)
{
    size_item item = {.name = p};
    bool dots = p.length >= 3 && strncmp(p.at + p.length - 3, "...", 3) == 0;
    if (dots) {
        item.name.length -= 3;
        item.kind = item.name.length ? SIZE_SHAPE : SIZE_ANY_SHAPE;
    } else if (piece_is(p, "?")) {
        item.kind = SIZE_ANY;
    } else if (isdigit((unsigned char)*p.at)) {
        item.kind = SIZE_NUMBER;
        item.number = strtoll(p.at, NULL, 10);
    } else {
        item.kind = SIZE_LETTER;
    }
    return item;
}

/* A table's text is the programmer's; one that cannot be read matches nothing. */
static bool read_alternative(piece p, alternative *out)
{
    char text[128];
    *out = (alternative){.dtype = BL_DTYPES};
    if (!copy_name(p, text, sizeof text))
        return false;
    char *open = strchr(text, '[');
    if (!open || text[p.length - 1] != ']')
        return false;
    *open = text[p.length - 1] = '\0';
    for (bl_dtype d = 0; d < BL_DTYPES; d++)
        if (strcmp(text, bl_dtype_name(d)) == 0)
            out->dtype = d;
    const char *rest = p.at + (open + 1 - text);
    const char *end = p.at + p.length - 1;
    while (rest < end && out->count <= BL_MAX_RANK) {
        const char *comma = memchr(rest, ',', (size_t)(end - rest));
        piece size = trim(rest, comma ? comma : end);
        if (size.length == 0)
            break;
        out->item[out->count++] = read_size(size);
        rest = comma ? comma + 1 : end;
    }
    return out->dtype != BL_DTYPES;
}

static bool dtype_fits(bl_dtype declared, bl_dtype given)
{
    bool small = declared == BL_U8 || declared == BL_BOOL;
    return given == declared || (small && (given == BL_I32 || given == BL_U8 || given == BL_BOOL));
}

static bool match_size(const size_item *item, int64_t size, bl_symbols *symbols)
{
    if (item->kind == SIZE_NUMBER)
        return item->number == size;
    if (item->kind == SIZE_ANY)
        return true;
    const bl_symbol *known = find_symbol(symbols, item->name, false, 0);
    if (known)
        return known->value == (double)size;
    return add_symbol(symbols, item->name, (bl_symbol){.value = (double)size});
}

static bool match_shape(const size_item *item, int index, bl_shape shape, bl_symbols *symbols)
{
    if (item->kind == SIZE_ANY_SHAPE)
        return true;
    const bl_symbol *known = find_symbol(symbols, item->name, true, index);
    if (known)
        return bl_shape_equal(known->shape, shape);
    return add_symbol(symbols, item->name,
                      (bl_symbol){.index = index, .is_shape = true, .shape = shape});
}

static bool is_variadic(const size_item *item)
{
    return item->kind == SIZE_SHAPE || item->kind == SIZE_ANY_SHAPE;
}

static bool match_alternative(const alternative *a, int index, bl_type type, bl_symbols *symbols)
{
    int variadic = 0;
    for (int i = 0; i < a->count; i++)
        variadic += is_variadic(&a->item[i]);
    int many = type.shape.rank - (a->count - variadic); /* axes that the "..." covers */
    if (!dtype_fits(a->dtype, type.dtype) || many < 0 || (many > 0 && !variadic))
        return false;
    int axis = 0;
    for (int i = 0; i < a->count; i++) {
        if (!is_variadic(&a->item[i])) {
            if (!match_size(&a->item[i], type.shape.dim[axis++], symbols))
                return false;
            continue;
        }
        bl_shape part = {.rank = many};
        for (int j = 0; j < many; j++)
            part.dim[j] = type.shape.dim[axis++];
        if (!match_shape(&a->item[i], index, part, symbols))
            return false;
    }
    return true;
}

bool bl_pattern_match(const char *pattern, int index, bl_type type, bl_symbols *symbols,
                      bl_dtype *wanted)
{
    piece p;
    while (next_piece(&pattern, '|', &p)) {
        alternative a;
        int before = symbols->count;
        if (read_alternative(p, &a) && match_alternative(&a, index, type, symbols)) {
            *wanted = a.dtype;
            return true;
        }
        symbols->count = before;
    }
    return false;
}

static void show_size(const size_item *item, int index, const bl_symbols *symbols, bl_text *out)
{
    bool is_shape = item->kind == SIZE_SHAPE;
    const bl_symbol *known = NULL;
    if (item->kind == SIZE_LETTER || is_shape)
        known = find_symbol(symbols, item->name, is_shape, is_shape ? index : 0);
    if (known && !is_shape)
        bl_text_add(out, "%.0f", known->value);
    else if (known)
        for (int i = 0; i < known->shape.rank; i++)
            bl_text_add(out, "%s%lld", i ? "," : "", (long long)known->shape.dim[i]);
    else
        bl_text_add(out, "%.*s%s", item->name.length, item->name.at,
                    is_variadic(item) ? "..." : "");
}

void bl_pattern_show(const char *pattern, int index, const bl_symbols *symbols, bl_text *out)
{
    piece p;
    for (int n = 0; next_piece(&pattern, '|', &p); n++) {
        alternative a;
        if (!read_alternative(p, &a)) {
            bl_text_add(out, "%.*s", p.length, p.at);
            continue;
        }
        bl_text_add(out, "%s%s[", n ? " or " : "", bl_dtype_name(a.dtype));
        for (int i = 0; i < a.count; i++) {
            if (i)
                bl_text_add(out, ",");
            show_size(&a.item[i], index, symbols, out);
        }
        bl_text_add(out, "]");
    }
}

bool bl_pattern_resolve(const char *pattern, int index, const bl_symbols *symbols, bl_type *out)
{
    piece p;
    alternative a;
    if (!next_piece(&pattern, '|', &p) || !read_alternative(p, &a))
        return false;
    *out = (bl_type){.dtype = a.dtype};
    for (int i = 0; i < a.count; i++) {
        const size_item *item = &a.item[i];
        bl_shape part = {.rank = 1, .dim = {item->number}};
        if (item->kind != SIZE_NUMBER) {
            bool is_shape = item->kind == SIZE_SHAPE;
            const bl_symbol *known =
                find_symbol(symbols, item->name, is_shape, is_shape ? index : 0);
            if (!known || item->kind == SIZE_ANY || item->kind == SIZE_ANY_SHAPE)
                return false;
            part.dim[0] = (int64_t)known->value;
            if (is_shape)
                part = known->shape;
        }
        for (int j = 0; j < part.rank && out->shape.rank < BL_MAX_RANK; j++)
            out->shape.dim[out->shape.rank++] = part.dim[j];
    }
    return true;
}
