/* A CSV file as a data set: which columns are numbers and which are categories, which say nothing,
 * and what the target is. Every decision that the user may want to change leaves a note. */
#include "data/dataset.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { FEW_DISTINCT = 20, MOST_CLASSES = 65536 };

#define COMMA_HINT "; numbers such as 3,5 and 1,200 must be written 3.5 and 1200"

/* The rows of the file, then those of the test file. */
struct source {
    bl_cells part[2];
    int parts;
    int64_t rows;
    const char *path;
};

/* One column's cells, looked at. */
struct look {
    const char *name;
    const char **text; /* [rows], NULL where missing */
    double *number;    /* [rows], NaN where missing or not a number */
    int64_t present, numbers, infinite;
    int64_t first_text;    /* the first row that is present and not a number, or -1 */
    bool whole;            /* every number is a whole number */
    const char **distinct; /* see find_distinct */
    int64_t distincts;
};

static void look_free(struct look *l)
{
    bl_release(l->text);
    bl_release(l->number);
    bl_release(l->distinct);
    *l = (struct look){0};
}

static bool is_missing(const char *text)
{
    static const char *const words[] = {"", "NA", "N/A", "NaN", "nan", "NAN", "null", "NULL", "?"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(text, words[i]) == 0)
            return true;
    return false;
}

static int32_t find_column(const bl_cells *cells, const char *name)
{
    for (int32_t j = 0; j < cells->columns; j++)
        if (strcmp(cells->name[j], name) == 0)
            return j;
    return -1;
}

static bl_status no_column(const bl_cells *cells, const char *name, const char *purpose)
{
    const char *nearest = bl_nearest(name, (const char *const *)cells->name, cells->columns);
    bl_text names = {0};
    for (int32_t j = 0; j < cells->columns && j < 20; j++)
        bl_text_add(&names, j ? ", %s" : "%s", cells->name[j]);
    bl_status status = nearest
                           ? bl_fail(BL_NOT_FOUND, "%s: no column \"%s\"%s; did you mean \"%s\"?",
                                     cells->where, name, purpose, nearest)
                           : bl_fail(BL_NOT_FOUND, "%s: no column \"%s\"%s; the columns are %s%s",
                                     cells->where, name, purpose, names.failed ? "" : names.at,
                                     cells->columns > 20 ? ", .." : "");
    bl_text_free(&names);
    return status;
}

/* "prices.csv:12", the place of a row. */
static const char *place(const struct source *s, int64_t row, char *text, size_t size)
{
    const bl_cells *cells = &s->part[row >= s->part[0].rows];
    int64_t local = row >= s->part[0].rows ? row - s->part[0].rows : row;
    snprintf(text, size, "%s:%lld", bl_base_name(cells->where), (long long)cells->line[local]);
    return text;
}

/* A decimal comma, or commas between thousands: "3,5" and "1,200" are text here. */
static bool has_comma_number(const struct look *l)
{
    char plain[64];
    const char *text = l->distincts > 0 ? l->distinct[0] : "";
    size_t length = strlen(text);
    bool comma = strchr(text, ',') && length < sizeof plain;
    for (size_t i = 0; comma && i <= length; i++)
        plain[i] = text[i] == ',' ? '0' : text[i];
    double value;
    return comma && bl_parse_double(plain, &value);
}

/* `guess`: the column's number in the first part; tables of many columns are read in linear time.
 */
static bl_status gather(const struct source *s, const char *name, int32_t guess, const char **text)
{
    int64_t at = 0;
    for (int p = 0; p < s->parts; p++) {
        const bl_cells *cells = &s->part[p];
        bool guessed = guess < cells->columns && strcmp(cells->name[guess], name) == 0;
        int32_t column = guessed ? guess : find_column(cells, name);
        if (column < 0)
            return no_column(cells, name, p > 0 ? ", which the training file has" : "");
        for (int64_t i = 0; i < cells->rows; i++) {
            const char *cell = cells->cell[i * cells->columns + column];
            text[at++] = is_missing(cell) ? NULL : cell;
        }
    }
    return BL_OK;
}

static void count_numbers(struct look *l, int64_t rows)
{
    l->first_text = -1;
    l->whole = true;
    for (int64_t i = 0; i < rows; i++) {
        l->number[i] = NAN;
        if (!l->text[i])
            continue;
        l->present++;
        double value;
        if (!bl_parse_double(l->text[i], &value) || isnan(value)) { /* "-nan" is no number */
            if (l->first_text < 0)
                l->first_text = i;
            continue;
        }
        l->number[i] = value;
        l->numbers++;
        l->infinite += !isfinite(value);
        l->whole &= value == floor(value);
    }
}

static bl_status look_at(const struct source *s, const char *name, int32_t guess, struct look *l)
{
    size_t n = (size_t)s->rows;
    *l = (struct look){.name = name,
                       .text = bl_alloc(n * sizeof *l->text),
                       .number = bl_alloc(n * sizeof *l->number)};
    bl_status status =
        l->text && l->number ? gather(s, name, guess, l->text) : bl_no_memory(n * 16);
    if (status == BL_OK)
        count_numbers(l, s->rows);
    else
        look_free(l);
    return status;
}

/* Sorts the present texts and keeps one of each: the slow part, so only where it is needed. */
static bl_status find_distinct(struct look *l, int64_t rows)
{
    if (l->distinct)
        return BL_OK;
    if (!(l->distinct = bl_alloc((size_t)l->present * sizeof *l->distinct)))
        return bl_no_memory((size_t)l->present * sizeof *l->distinct);
    int64_t count = 0;
    for (int64_t i = 0; i < rows; i++)
        if (l->text[i])
            l->distinct[count++] = l->text[i];
    if (count > 0)
        qsort(l->distinct, (size_t)count, sizeof *l->distinct, bl_compare_texts);
    for (int64_t i = 0; i < count; i++)
        if (i == 0 || strcmp(l->distinct[i], l->distinct[l->distincts - 1]) != 0)
            l->distinct[l->distincts++] = l->distinct[i];
    return BL_OK;
}

/* Every present cell must be a finite number. */
static bl_status check_numbers(const struct source *s, const struct look *l)
{
    char at[320];
    if (l->first_text >= 0)
        return bl_fail(BL_INVALID, "%s: column \"%s\" is \"%.40s\", not a number",
                       place(s, l->first_text, at, sizeof at), l->name, l->text[l->first_text]);
    for (int64_t i = 0; i < s->rows && l->infinite > 0; i++)
        if (isinf(l->number[i]))
            return bl_fail(BL_INVALID,
                           "%s: column \"%s\" is %.40s; leave the cell empty if it is missing",
                           place(s, i, at, sizeof at), l->name, l->text[i]);
    return BL_OK;
}

/* --- categories */

struct category {
    const char *text;
    double number;
    int32_t from;
};

static int by_number(const void *a, const void *b)
{
    const struct category *x = a, *y = b;
    if (x->number != y->number)
        return x->number < y->number ? -1 : 1;
    return strcmp(x->text, y->text);
}

/* The distinct texts as categories, by number where all are numbers ("2" before "10"), and the code
 * of every row. */
static bl_status make_categories(const struct look *l, int64_t rows, char ***names,
                                 int32_t *categories, int32_t *code)
{
    size_t n = (size_t)l->distincts;
    struct category *sorted = bl_alloc(n * sizeof *sorted);
    int32_t *rank = bl_alloc(n * sizeof *rank);
    char **copy = bl_alloc(n * sizeof *copy);
    bool made = sorted && rank && copy;
    for (size_t i = 0; made && i < n; i++) {
        sorted[i] = (struct category){l->distinct[i], 0, (int32_t)i};
        if (l->numbers == l->present)
            made = bl_parse_double(l->distinct[i], &sorted[i].number);
    }
    if (made && n > 0)
        qsort(sorted, n, sizeof *sorted, by_number);
    for (size_t i = 0; made && i < n; i++) {
        rank[sorted[i].from] = (int32_t)i;
        made = (copy[i] = bl_copy_text(sorted[i].text)) != NULL;
    }
    for (int64_t i = 0; made && i < rows; i++) {
        const char **found =
            l->text[i] ? bsearch(&l->text[i], l->distinct, n, sizeof *l->distinct, bl_compare_texts)
                       : NULL;
        code[i] = found ? rank[found - l->distinct] : -1;
    }
    bl_release(sorted);
    bl_release(rank);
    if (!made) {
        bl_free_texts(copy, l->distincts);
        return bl_no_memory(n * sizeof *sorted);
    }
    *names = copy;
    *categories = (int32_t)n;
    return BL_OK;
}

/* --- columns */

enum wish { NO_WISH, WISH_NUMERIC, WISH_CATEGORICAL, WISH_DROP };

/* What "zip=categorical,age=numeric" says of a column. */
static enum wish wish_for(const char *list, const char *name)
{
    static const struct {
        const char *word;
        enum wish wish;
    } words[] = {{"numeric", WISH_NUMERIC}, {"categorical", WISH_CATEGORICAL}, {"drop", WISH_DROP}};
    size_t length = strlen(name);
    for (const char *at = list; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        if (strncmp(at, name, length) != 0 || at[length] != '=')
            continue;
        const char *word = at + length + 1;
        for (int i = 0; i < 3; i++)
            if (strcspn(word, ",") == strlen(words[i].word) &&
                strncmp(word, words[i].word, strlen(words[i].word)) == 0)
                return words[i].wish;
    }
    return NO_WISH;
}

/* Every entry of the list must name a column and a kind. */
static bl_status check_wishes(const bl_cells *cells, const char *list)
{
    for (const char *at = list; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        char entry[256];
        snprintf(entry, sizeof entry, "%.*s", (int)strcspn(at, ","), at);
        char *equals = strrchr(entry, '=');
        if (equals)
            *equals = '\0';
        if (equals && find_column(cells, entry) < 0)
            return no_column(cells, entry, "");
        if (!equals || wish_for(at, entry) == NO_WISH)
            return bl_fail(BL_INVALID,
                           "%s: the kind of a column is \"%.*s\", but must be NAME=numeric, "
                           "NAME=categorical or NAME=drop",
                           cells->where, (int)strcspn(at, ","), at);
    }
    return BL_OK;
}

/* 0, 1, 2, .. under a name, or the lack of one, that says it is an index; otherwise it may be time.
 */
static bool is_row_number(const struct look *l, int64_t rows)
{
    static const char *const names[] = {"column 1", "Unnamed: 0", "id", "index", "row"};
    bool named = false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        named |= strcasecmp(l->name, names[i]) == 0;
    if (!named)
        return false;
    if (l->numbers != rows || rows < 3 || (l->number[0] != 0 && l->number[0] != 1))
        return false;
    for (int64_t i = 1; i < rows; i++)
        if (l->number[i] != l->number[i - 1] + 1)
            return false;
    return true;
}

static bool is_constant(const struct look *l, int64_t rows, bool numeric)
{
    for (int64_t i = 0; numeric && i < rows; i++)
        if (!(l->number[i] == l->number[0])) /* NaN, which is missing, is not equal either */
            return false;
    return numeric || (l->distincts == 1 && l->present == rows);
}

/* Why a column says nothing, or NULL. */
static const char *useless(const struct look *l, int64_t rows, bool numeric)
{
    if (l->present == 0)
        return "it is empty";
    if (is_constant(l, rows, numeric))
        return "it is the same in every row";
    if (!numeric && l->distincts == rows && rows > 2)
        return "its text differs in every row, as an id does";
    if (numeric && is_row_number(l, rows))
        return "it numbers the rows";
    return NULL;
}

static bl_status note_mixture(const struct source *s, const struct look *l, bl_dataset *d)
{
    char at[320];
    if (l->numbers == 0 && has_comma_number(l))
        return bl_dataset_note(d, "column \"%s\" is read as text" COMMA_HINT, l->name);
    if (l->numbers * 10 < l->present * 9 || l->first_text < 0)
        return BL_OK;
    return bl_dataset_note(d,
                           "column \"%s\": %lld of %lld cells are numbers, but it is read as text "
                           "because of \"%.40s\" (%s)",
                           l->name, (long long)l->numbers, (long long)l->present,
                           l->text[l->first_text], place(s, l->first_text, at, sizeof at));
}

static bl_status make_column(const struct source *s, struct look *l, bool numeric, bl_column *c)
{
    if (!(c->name = bl_copy_text(l->name)))
        return bl_no_memory(strlen(l->name));
    c->kind = numeric ? BL_NUMERIC : BL_CATEGORICAL;
    if (numeric) {
        BL_TRY(check_numbers(s, l));
        c->number = l->number;
        l->number = NULL;
        return BL_OK;
    }
    if (!(c->code = bl_alloc((size_t)s->rows * sizeof *c->code)))
        return bl_no_memory((size_t)s->rows * sizeof *c->code);
    return make_categories(l, s->rows, &c->category, &c->categories, c->code);
}

static bl_status add_column(const struct source *s, struct look *l, enum wish wish,
                            const bl_data_options *options, bl_dataset *d)
{
    bool numeric =
        wish == WISH_NUMERIC || (wish == NO_WISH && l->present > 0 && l->numbers == l->present);
    if (!numeric)
        BL_TRY(find_distinct(l, s->rows));
    if (wish == NO_WISH && !numeric)
        BL_TRY(note_mixture(s, l, d));
    const char *reason = useless(l, s->rows, numeric);
    if (wish == NO_WISH && reason && !options->keep_columns && !options->like)
        return bl_dataset_note(d, "column \"%s\" is left out: %s", l->name, reason);
    d->columns++;
    return make_column(s, l, numeric, &d->column[d->columns - 1]);
}

static bl_status read_column(const struct source *s, const char *name, int32_t guess,
                             enum wish wish, const bl_data_options *options, bl_dataset *d)
{
    struct look l;
    if (wish == WISH_DROP)
        return BL_OK;
    BL_TRY(look_at(s, name, guess, &l));
    bl_status status = add_column(s, &l, wish, options, d);
    look_free(&l);
    return status;
}

static bl_status read_columns(const struct source *s, const char *target,
                              const bl_data_options *options, bl_dataset *d)
{
    const bl_cells *cells = &s->part[0];
    BL_TRY(check_wishes(cells, options->columns));
    if (!(d->column = bl_alloc((size_t)cells->columns * sizeof *d->column)))
        return bl_no_memory((size_t)cells->columns * sizeof *d->column);
    for (int32_t j = 0; j < cells->columns; j++)
        if (!target || strcmp(cells->name[j], target) != 0)
            BL_TRY(read_column(s, cells->name[j], j, wish_for(options->columns, cells->name[j]),
                               options, d));
    if (d->columns == 0)
        return bl_fail(
            BL_INVALID,
            "%s: no column is left to predict from beside the target %s; constant columns "
            "and identifiers are dropped unless they are to be kept",
            s->path, target ? target : "");
    return BL_OK;
}

/* The columns that a fitted model knows, as it knows them. */
static bl_status read_known_columns(const struct source *s, const bl_data_options *options,
                                    bl_dataset *d)
{
    int32_t count = bl_preparation_columns(options->like);
    if (!(d->column = bl_alloc((size_t)count * sizeof *d->column)))
        return bl_no_memory((size_t)count * sizeof *d->column);
    for (int32_t i = 0; i < count; i++) {
        bl_column_kind kind;
        const char *name = bl_preparation_column(options->like, i, &kind);
        if (find_column(&s->part[0], name) < 0)
            return no_column(&s->part[0], name, ", which the model needs");
        BL_TRY(read_column(s, name, i, kind == BL_NUMERIC ? WISH_NUMERIC : WISH_CATEGORICAL,
                           options, d));
    }
    return BL_OK;
}

/* --- target */

/* Classes, unless the numbers are fractions or many; then `distinct` need not be known. */
static bl_target_kind target_kind(const struct look *l, const bl_data_options *options)
{
    if (options->target_kind != BL_INFER_TARGET)
        return options->target_kind;
    if (options->like)
        return bl_preparation_target_kind(options->like);
    if (l->numbers < l->present)
        return BL_CLASSES;
    bool few = l->distinct && l->distincts <= FEW_DISTINCT && l->distincts * 2 <= l->present;
    return l->whole && few ? BL_CLASSES : BL_VALUES;
}

static bl_status note_target(const struct look *l, const bl_data_options *options, bl_dataset *d)
{
    if (options->target_kind != BL_INFER_TARGET || options->like || l->numbers < l->present)
        return BL_OK;
    if (d->target_kind == BL_CLASSES)
        return bl_dataset_note(d, "target %s is read as %d classes: it has few whole numbers",
                               l->name, d->classes);
    return bl_dataset_note(d, "target %s is read as a number to estimate", l->name);
}

static bl_status make_values(const struct source *s, const struct look *l, bl_dataset *d)
{
    BL_TRY(check_numbers(s, l));
    BL_TRY(bl_array_new(BL_F64, BL_SHAPE(s->rows), &d->target));
    memcpy(d->target.data, l->number, (size_t)s->rows * sizeof *l->number);
    return BL_OK;
}

static bl_status make_classes(const struct source *s, struct look *l, bl_dataset *d)
{
    BL_TRY(find_distinct(l, s->rows));
    if (l->distincts > MOST_CLASSES)
        return bl_fail(BL_INVALID,
                       "%s: the target \"%s\" has %lld distinct values; at most %d can "
                       "be classes",
                       s->path, l->name, (long long)l->distincts, MOST_CLASSES);
    BL_TRY(bl_array_new(BL_I32, BL_SHAPE(s->rows), &d->target));
    return make_categories(l, s->rows, &d->class_name, &d->classes, bl_i32(&d->target));
}

static bl_status make_target(const struct source *s, struct look *l, const bl_data_options *options,
                             bl_dataset *d)
{
    char at[320];
    for (int64_t i = 0; i < s->rows; i++)
        if (!l->text[i])
            return bl_fail(BL_INVALID, "%s: the target \"%s\" is missing; leave such rows out",
                           place(s, i, at, sizeof at), l->name);
    if (!(d->target_name = bl_copy_text(l->name)))
        return bl_no_memory(strlen(l->name));
    bool inferred = options->target_kind == BL_INFER_TARGET && !options->like;
    if (inferred && l->first_text >= 0 && l->numbers * 10 >= l->present * 9)
        return bl_fail(BL_INVALID,
                       "%s: the target \"%s\" is \"%.40s\", but nearly all others are numbers; "
                       "correct the cell, or say that the target is classes",
                       place(s, l->first_text, at, sizeof at), l->name, l->text[l->first_text]);
    if (l->whole || l->numbers < l->present)
        BL_TRY(find_distinct(l, s->rows));
    d->target_kind = target_kind(l, options);
    if (d->target_kind == BL_VALUES)
        BL_TRY(make_values(s, l, d));
    else if (d->target_kind == BL_CLASSES)
        BL_TRY(make_classes(s, l, d));
    return note_target(l, options, d);
}

static bl_status read_target(const struct source *s, const bl_data_options *options, bl_dataset *d)
{
    const bl_cells *cells = &s->part[0];
    if (!options->target) {
        d->target_kind = BL_NO_TARGET;
        return BL_OK;
    }
    if (find_column(cells, options->target) < 0)
        return options->like ? BL_OK : no_column(cells, options->target, " to predict");
    struct look l;
    BL_TRY(look_at(s, options->target, 0, &l));
    bl_status status = make_target(s, &l, options, d);
    look_free(&l);
    return status;
}

/* --- the whole */

static bl_status name_rows(const struct source *s, bl_dataset *d)
{
    if (!(d->example = bl_alloc((size_t)s->rows * sizeof *d->example)))
        return bl_no_memory((size_t)s->rows * sizeof *d->example);
    char at[320];
    for (int64_t i = 0; i < s->rows; i++)
        if (!(d->example[i] = bl_copy_text(place(s, i, at, sizeof at))))
            return bl_no_memory(sizeof at);
    return BL_OK;
}

static bl_status make_dataset(const struct source *s, const bl_data_options *options, bl_dataset *d)
{
    if (s->part[0].rows == 0)
        return bl_fail(BL_INVALID, "%s: there is a header, but no rows", s->path);
    if (s->rows > INT32_MAX)
        return bl_fail(BL_UNSUPPORTED, "%s: more than 2^31-1 rows", s->path);
    d->kind = BL_TABLE;
    d->count = s->rows;
    d->test_count = s->parts > 1 ? s->part[1].rows : 0;
    BL_TRY(read_target(s, options, d));
    BL_TRY(options->like ? read_known_columns(s, options, d)
                         : read_columns(s, options->target, options, d));
    return name_rows(s, d);
}

bl_status bl_dataset_from_cells(const bl_cells *cells, const bl_data_options *options,
                                bl_dataset *d)
{
    const struct source s = {
        .part = {*cells}, .parts = 1, .rows = cells->rows, .path = cells->where};
    return make_dataset(&s, options, d);
}

static bl_status add_part(struct source *s, const char *path)
{
    char *bytes = NULL;
    size_t count = 0;
    BL_TRY(bl_read_file(path, &bytes, &count));
    bl_status status = bl_csv_parse(bytes, count, path, &s->part[s->parts]);
    bl_release(bytes);
    if (status == BL_OK)
        s->rows += s->part[s->parts++].rows;
    return status;
}

bl_status bl_read_csv(const char *path, const bl_data_options *options, bl_dataset *d)
{
    struct source s = {.path = path};
    bl_status status = add_part(&s, path);
    if (status == BL_OK && options->test)
        status = add_part(&s, options->test);
    if (status == BL_OK)
        status = make_dataset(&s, options, d);
    for (int p = 0; p < s.parts; p++)
        bl_cells_free(&s.part[p]);
    return status;
}
