/* CSV files as texts: quotes, CR LF, a byte order mark, comma, semicolon or tab. What the texts
 * mean is decided in table.c. Lines are handed to libcsv one at a time, so that a message can name
 * them. */
#include "data/dataset.h"

#include <csv.h>
#include <stdlib.h>
#include <string.h>

struct parser {
    bl_cells *out;
    const char **row; /* fields of the row being read */
    size_t fields, row_capacity, cell_capacity, line_capacity, cells;
    int64_t line, row_line;
    bool between_rows;
    bl_status status;
};

static void on_field(void *bytes, size_t length, void *context)
{
    struct parser *p = context;
    if (p->status != BL_OK)
        return;
    const char *text = bytes ? bytes : "";
    if (length > 0 && memchr(text, 0, length)) {
        p->status = bl_fail(BL_INVALID, "%s:%lld: a zero byte; CSV files are text", p->out->where,
                            (long long)p->line);
        return;
    }
    char *copy = bl_arena_alloc(p->out->arena, length + 1);
    if (!copy || !BL_GROW(p->row, p->fields, p->row_capacity)) {
        p->status = bl_no_memory(length + 1);
        return;
    }
    if (length > 0)
        memcpy(copy, text, length);
    p->row[p->fields++] = copy;
}

struct title {
    const char *name;
    size_t column;
};

static int by_name(const void *a, const void *b)
{
    const struct title *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->column > y->column) - (x->column < y->column);
}

static bl_status check_names(const struct parser *p)
{
    struct title *title = bl_alloc(p->fields * sizeof *title);
    if (!title)
        return bl_no_memory(p->fields * sizeof *title);
    for (size_t i = 0; i < p->fields; i++)
        title[i] = (struct title){p->out->name[i], i + 1};
    qsort(title, p->fields, sizeof *title, by_name);
    bl_status status = BL_OK;
    for (size_t i = 1; i < p->fields && status == BL_OK; i++)
        if (strcmp(title[i - 1].name, title[i].name) == 0)
            status = bl_fail(BL_INVALID,
                             "%s:%lld: columns %zu and %zu are both named \"%s\"; the first line "
                             "names the columns, each once",
                             p->out->where, (long long)p->row_line, title[i - 1].column,
                             title[i].column, title[i].name);
    bl_release(title);
    return status;
}

/* The first row. An empty name, as of a data frame's index, becomes "column 1". */
static bl_status take_header(struct parser *p)
{
    bl_cells *out = p->out;
    if (p->fields > INT32_MAX / 2)
        return bl_fail(BL_UNSUPPORTED, "%s: too many columns", out->where);
    out->name = bl_arena_alloc(out->arena, p->fields * sizeof *out->name);
    if (!out->name)
        return bl_no_memory(p->fields * sizeof *out->name);
    for (size_t i = 0; i < p->fields; i++) {
        char numbered[32];
        snprintf(numbered, sizeof numbered, "column %zu", i + 1);
        out->name[i] = bl_arena_text(out->arena, p->row[i][0] ? p->row[i] : numbered);
        if (!out->name[i])
            return bl_no_memory(32);
    }
    out->columns = (int32_t)p->fields;
    return check_names(p);
}

static bl_status take_row(struct parser *p)
{
    bl_cells *out = p->out;
    if (out->columns == 0)
        return take_header(p);
    if (p->fields != (size_t)out->columns)
        return bl_fail(BL_INVALID, "%s:%lld: %zu fields, but the header has %d", out->where,
                       (long long)p->row_line, p->fields, out->columns);
    if (!BL_GROW(out->line, out->rows, p->line_capacity))
        return bl_no_memory(sizeof *out->line);
    for (size_t i = 0; i < p->fields; i++) {
        if (!BL_GROW(out->cell, p->cells, p->cell_capacity))
            return bl_no_memory(sizeof *out->cell);
        out->cell[p->cells++] = p->row[i];
    }
    out->line[out->rows++] = p->row_line;
    return BL_OK;
}

static void on_row(int terminator, void *context)
{
    (void)terminator;
    struct parser *p = context;
    if (p->status == BL_OK)
        p->status = take_row(p);
    p->fields = 0;
    p->between_rows = true;
}

/* The most frequent of , ; and tab in the first line, outside quotes. */
static char find_delimiter(const char *bytes, size_t count)
{
    static const char candidates[] = ",;\t";
    size_t seen[3] = {0};
    bool quoted = false;
    for (size_t i = 0; i < count && (quoted || (bytes[i] != '\n' && bytes[i] != '\r')); i++) {
        quoted ^= bytes[i] == '"';
        const char *found = quoted || !bytes[i] ? NULL : strchr(candidates, bytes[i]);
        if (found)
            seen[found - candidates]++;
    }
    int best = 0;
    for (int i = 1; i < 3; i++)
        best = seen[i] > seen[best] ? i : best;
    return candidates[best];
}

static bl_status check_utf8(const char *bytes, size_t count, const char *where)
{
    int64_t line = 1;
    bool wide = count >= 2 && (!memcmp(bytes, "\xff\xfe", 2) || !memcmp(bytes, "\xfe\xff", 2));
    for (size_t i = 0; i < count;) {
        size_t length = bl_utf8_length(bytes + i, count - i);
        if (length == 0)
            return bl_fail(BL_INVALID,
                           "%s:%lld: not UTF-8; convert the file, e.g. iconv -f %s -t utf-8", where,
                           (long long)line, wide ? "utf-16" : "latin1");
        line += bytes[i] == '\n';
        i += length;
    }
    return BL_OK;
}

static size_t line_length(const char *at, size_t left)
{
    size_t n = 0;
    while (n < left && at[n] != '\n' && at[n] != '\r')
        n++;
    if (n + 1 < left && at[n] == '\r' && at[n + 1] == '\n')
        n++;
    return n < left ? n + 1 : n;
}

static bool is_blank(const char *at, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!strchr(" \t\r\n", at[i]) || at[i] == '\0')
            return false;
    return true;
}

static bl_status parse_lines(struct parser *p, struct csv_parser *csv, const char *bytes,
                             size_t count)
{
    for (size_t at = 0; at < count && p->status == BL_OK;) {
        size_t length = line_length(bytes + at, count - at);
        p->line++;
        if (p->between_rows && !is_blank(bytes + at, length)) {
            p->row_line = p->line;
            p->between_rows = false;
        }
        if (csv_parse(csv, bytes + at, length, on_field, on_row, p) != length)
            return bl_fail(BL_INVALID, "%s:%lld: %s; a quote inside a field is written twice",
                           p->out->where, (long long)p->line,
                           csv_error(csv) == CSV_EPARSE ? "a stray quote"
                                                        : csv_strerror(csv_error(csv)));
        at += length;
    }
    if (p->status == BL_OK && csv_fini(csv, on_field, on_row, p) != 0)
        return bl_fail(BL_INVALID, "%s:%lld: the quote opened in this row is never closed",
                       p->out->where, (long long)p->row_line);
    return p->status;
}

static bl_status parse(const char *bytes, size_t count, bl_cells *out)
{
    if (count >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0)
        bytes += 3, count -= 3;
    BL_TRY(check_utf8(bytes, count, out->where));
    out->delimiter = find_delimiter(bytes, count);
    if (!(out->arena = bl_arena_new()))
        return bl_no_memory(64);
    struct csv_parser csv;
    if (csv_init(&csv, CSV_STRICT | CSV_STRICT_FINI) != 0)
        return bl_fail(BL_NO_MEMORY, "%s: libcsv cannot start", out->where);
    csv_set_delim(&csv, (unsigned char)out->delimiter);
    struct parser p = {.out = out, .between_rows = true};
    bl_status status = parse_lines(&p, &csv, bytes, count);
    csv_free(&csv);
    bl_release(p.row);
    if (status == BL_OK && out->columns == 0)
        return bl_fail(BL_INVALID, "%s: the file is empty; its first line must name the columns",
                       out->where);
    return status;
}

bl_status bl_csv_parse(const char *bytes, size_t count, const char *where, bl_cells *out)
{
    *out = (bl_cells){.where = where};
    bl_status status = parse(bytes, count, out);
    if (status != BL_OK)
        bl_cells_free(out);
    return status;
}

void bl_cells_free(bl_cells *cells)
{
    bl_arena_free(cells->arena);
    bl_release(cells->cell);
    bl_release(cells->line);
    *cells = (bl_cells){0};
}

/* --- writing */

static void add_cell(bl_text *text, const char *cell, char delimiter, bool first)
{
    if (!first)
        bl_text_add_n(text, &delimiter, 1);
    bl_text_add_cell(text, cell, delimiter);
}

static bl_status write_more(const bl_cells *old, const char *to, const char *const *names,
                            int32_t columns, const char *const *cells, int64_t rows)
{
    if (rows != old->rows)
        return bl_fail(BL_INVALID, "%s has %lld rows, but %lld results are to be added", old->where,
                       (long long)old->rows, (long long)rows);
    bl_text text = {0};
    for (int64_t i = -1; i < rows; i++) {
        for (int32_t j = 0; j < old->columns; j++)
            add_cell(&text, i < 0 ? old->name[j] : old->cell[i * old->columns + j], old->delimiter,
                     j == 0);
        for (int32_t k = 0; k < columns; k++)
            add_cell(&text, i < 0 ? names[k] : cells[k * rows + i], old->delimiter, false);
        bl_text_add_n(&text, "\n", 1);
    }
    bl_status status =
        text.failed ? bl_no_memory(text.length) : bl_write_file(to, text.at, text.length);
    bl_text_free(&text);
    return status;
}

bl_status bl_csv_add_columns(const char *from, const char *to, const char *const *names,
                             int32_t columns, const char *const *cells, int64_t rows)
{
    char *bytes = NULL;
    size_t count = 0;
    bl_cells old;
    BL_TRY(bl_read_file(from, &bytes, &count));
    bl_status status = bl_csv_parse(bytes, count, from, &old);
    if (status == BL_OK) {
        status = write_more(&old, to, names, columns, cells, rows);
        bl_cells_free(&old);
    }
    bl_release(bytes);
    return status;
}
