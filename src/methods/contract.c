/* Contracts: walking a table, setting and checking options, building a graph function.
 *
 * A contract's table is the only description of a function: this file is what makes every method
 * reject bad input alike. An option has one of four kinds (number, integer, word, list of
 * integers), read from JSON (calls), from text (arms) or set by a hook. */
#define BL_KEEP_PLACE
#include "methods/contract.h"

#include <stdlib.h>

#include "graph/build.h"

/* --- fields ----------------------------------------------------------------------------------- */

static void *at(const void *fields, const bl_field *field)
{
    return (char *)(uintptr_t)fields + field->offset;
}

static const bl_field *table_of(const bl_contract *contract, int *count)
{
    return contract->table(count);
}

/* A number is a tensor in graph functions and arms, a double in host functions. */
static bl_tensor number_tensor(const bl_contract *contract, const void *fields,
                               const bl_field *field)
{
    return contract->on_arrays ? bl_number(*(double *)at(fields, field))
                               : *(bl_tensor *)at(fields, field);
}

static void set_number(const bl_contract *contract, void *fields, const bl_field *field,
                       double value)
{
    if (contract->on_arrays)
        *(double *)at(fields, field) = value;
    else
        *(bl_tensor *)at(fields, field) = bl_number(value);
}

void bl_contract_defaults(const bl_contract *contract, void *fields)
{
    int count;
    const bl_field *table = table_of(contract, &count);
    memset(fields, 0, contract->size);
    for (int i = 0; i < count; i++) {
        const bl_field *f = &table[i];
        if (f->kind != BL_FIELD_OPTION)
            continue;
        if (f->option == BL_OPTION_NUMBER)
            set_number(contract, fields, f, f->number);
        else if (f->option == BL_OPTION_INTEGER)
            *(int64_t *)at(fields, f) = f->integer;
        else if (f->option == BL_OPTION_WORD)
            *(const char **)at(fields, f) = f->word;
    }
}

void *bl_contract_defaulted(const bl_contract *contract, void *fields)
{
    bl_contract_defaults(contract, fields);
    return fields;
}

/* --- names ------------------------------------------------------------------------------------ */

bl_status bl_unknown_name(const char *what, const char *name, const char *const *known, int count)
{
    const char *nearest = bl_nearest(name, known, count);
    if (nearest)
        return bl_fail(BL_INVALID, "no %s is called %s; did you mean %s?", what, name, nearest);
    bl_text list = {0};
    for (int i = 0; i < count && i < 24; i++)
        bl_text_add(&list, "%s%s", i ? ", " : "", known[i]);
    bl_status status = count
                           ? bl_fail(BL_INVALID, "no %s is called %s; there are %s", what, name,
                                     list.at && !list.failed ? list.at : "others")
                           : bl_fail(BL_INVALID, "no %s is called %s; there are none", what, name);
    bl_text_free(&list);
    return status;
}

const bl_field *bl_option_find(const bl_contract *contract, const char *name)
{
    int count, options = 0;
    const bl_field *table = table_of(contract, &count);
    const char *known[64];
    for (int i = 0; i < count; i++) {
        if (table[i].kind != BL_FIELD_OPTION)
            continue;
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
        if (options < 64)
            known[options++] = table[i].name;
    }
    (void)bl_unknown_name("option", name, known, options);
    return NULL;
}

char *bl_list_name(const char *name, int i)
{
    int stem = (int)strcspn(name, "_");
    return bl_format("%.*s%d%s", stem, name, i, name + stem);
}

/* --- options: reading ------------------------------------------------------------------------- */

bool bl_option_is_flag(const bl_field *field)
{
    return field->option == BL_OPTION_INTEGER && bl_has_condition(field->conditions, "flag");
}

static bool is_required(const bl_field *field)
{
    return field->option == BL_OPTION_NUMBER    ? isnan(field->number)
           : field->option == BL_OPTION_INTEGER ? field->integer == BL_REQUIRED_INTEGER
                                                : field->option == BL_OPTION_WORD && !field->word;
}

/* Words live behind the struct, a slot for each word option, so that one release frees all. */
enum { WORD_SLOT = 64 };

static size_t round_up(size_t size)
{
    return (size + 15) / 16 * 16;
}

void *bl_fields_new(const bl_contract *contract)
{
    int count, words = 0;
    const bl_field *table = table_of(contract, &count);
    for (int i = 0; i < count; i++)
        words += table[i].kind == BL_FIELD_OPTION && table[i].option == BL_OPTION_WORD;
    void *fields = bl_alloc(round_up(contract->size) + (size_t)words * WORD_SLOT);
    if (fields)
        bl_contract_defaults(contract, fields);
    return fields;
}

static char *word_slot(const bl_contract *contract, void *fields, const bl_field *field)
{
    int count, before = 0;
    const bl_field *table = table_of(contract, &count);
    for (const bl_field *f = table; f < field; f++)
        before += f->kind == BL_FIELD_OPTION && f->option == BL_OPTION_WORD;
    return (char *)fields + round_up(contract->size) + before * WORD_SLOT;
}

static bool word_is_listed(const char *words, const char *word)
{
    size_t length = strlen(word);
    for (const char *rest = words; *rest;) {
        size_t n = strcspn(rest, "|");
        if (n == length && strncmp(rest, word, n) == 0)
            return true;
        rest += n + (rest[n] == '|');
    }
    return *words == '\0';
}

static bl_status set_word(const bl_contract *contract, void *fields, const bl_field *field,
                          const char *text)
{
    if (!word_is_listed(field->conditions, text) || strlen(text) >= WORD_SLOT)
        return bl_fail(BL_INVALID, "option %s is \"%s\", expected one of %s", field->name, text,
                       field->conditions);
    char *slot = word_slot(contract, fields, field);
    memcpy(slot, text, strlen(text) + 1);
    *(const char **)at(fields, field) = slot;
    return BL_OK;
}

static bool is_whole(double value)
{
    return value == floor(value) && fabs(value) <= 9007199254740992.0; /* 2^53 */
}

static bl_status set_integer(void *fields, const bl_field *field, double value)
{
    char text[BL_NUMBER_TEXT];
    if (!is_whole(value))
        return bl_fail(BL_INVALID, "option %s is %s, expected a whole number", field->name,
                       bl_number_text(value, text));
    *(int64_t *)at(fields, field) = (int64_t)value;
    return BL_OK;
}

static bool read_flag(const char *text, bool *out)
{
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *out = strcmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

/* The numbers of a row, or the one number that stands for itself; false if it is something else. */
static bool add_row(bl_integers *list, const json_t *row)
{
    int columns = json_is_array(row) ? (int)json_array_size(row) : 1;
    if (list->rows == 0)
        list->columns = columns;
    int used = list->rows * list->columns;
    if (columns != list->columns || columns == 0 || columns > BL_INTEGERS_MAX - used)
        return false;
    for (int i = 0; i < columns; i++) {
        const json_t *number = json_is_array(row) ? json_array_get(row, (size_t)i) : row;
        if (!json_is_number(number) || !is_whole(json_number_value(number)))
            return false;
        list->at[used + i] = (int64_t)json_number_value(number);
    }
    list->rows++;
    return true;
}

static bl_status set_integers(void *fields, const bl_field *field, const json_t *value)
{
    bl_integers list = {0};
    bool fits = json_is_array(value) && json_array_size(value) <= BL_INTEGERS_MAX;
    for (size_t i = 0; fits && i < json_array_size(value); i++)
        fits = json_is_array(json_array_get(value, i)) == json_is_array(json_array_get(value, 0)) &&
               add_row(&list, json_array_get(value, i));
    if (fits) {
        memcpy(at(fields, field), &list, sizeof list);
        return BL_OK;
    }
    char *shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    bl_status status = bl_fail(BL_INVALID,
                               "option %s is %.80s, expected whole numbers, [6,3], or rows of "
                               "equally many, at most %d in all",
                               field->name, shown ? shown : "?", BL_INTEGERS_MAX);
    free(shown);
    return status;
}

static bl_status set_integers_text(void *fields, const bl_field *field, const char *text)
{
    json_error_t where;
    json_t *value = json_loads(text, JSON_DECODE_ANY, &where);
    bl_status status =
        value ? set_integers(fields, field, value)
              : bl_fail(BL_INVALID, "option %s is %s, expected a list as [6,3]", field->name, text);
    json_decref(value);
    return status;
}

bl_status bl_option_set_text(const bl_contract *contract, void *fields, const bl_field *field,
                             const char *text)
{
    double value;
    if (field->option == BL_OPTION_INTEGERS)
        return set_integers_text(fields, field, text);
    if (field->option == BL_OPTION_WORD)
        return set_word(contract, fields, field, text);
    if (bl_option_is_flag(field)) {
        bool yes;
        if (!read_flag(text, &yes))
            return bl_fail(BL_INVALID, "option %s is %s, expected true or false", field->name,
                           text);
        return set_integer(fields, field, yes);
    }
    if (!bl_parse_double(text, &value) || isnan(value))
        return bl_fail(BL_INVALID, "option %s is \"%s\", expected a number", field->name, text);
    if (field->option == BL_OPTION_INTEGER)
        return set_integer(fields, field, value);
    set_number(contract, fields, field, value);
    return BL_OK;
}

static bl_status set_json(const bl_contract *contract, void *fields, const bl_field *field,
                          const json_t *value)
{
    if (field->option == BL_OPTION_INTEGERS)
        return set_integers(fields, field, value);
    if (json_is_string(value))
        return bl_option_set_text(contract, fields, field, json_string_value(value));
    if (json_is_boolean(value) && bl_option_is_flag(field))
        return set_integer(fields, field, json_is_true(value));
    if (!json_is_number(value) || field->option == BL_OPTION_WORD) {
        char *shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        bl_status status =
            bl_fail(BL_INVALID, "option %s is %s, expected %s", field->name, shown ? shown : "?",
                    field->option == BL_OPTION_WORD ? field->conditions
                    : bl_option_is_flag(field)      ? "true or false"
                                                    : "a number");
        free(shown);
        return status;
    }
    if (field->option == BL_OPTION_INTEGER)
        return set_integer(fields, field, json_number_value(value));
    set_number(contract, fields, field, json_number_value(value));
    return BL_OK;
}

bl_status bl_options_set_json(const bl_contract *contract, void *fields, const char *json)
{
    if (!json || !*json)
        return BL_OK;
    json_error_t where;
    json_t *object = json_loads(json, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(object)) {
        json_decref(object);
        return bl_fail(BL_INVALID, "options are not a JSON object (%s): %.120s",
                       object ? "another kind of value" : where.text, json);
    }
    bl_status status = BL_OK;
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value)
    {
        const bl_field *field = bl_option_find(contract, name);
        status = field ? set_json(contract, fields, field, value) : BL_INVALID;
        if (status != BL_OK)
            break;
    }
    json_decref(object);
    return status;
}

/* --- options: checking and showing ------------------------------------------------------------ */

/* NaN where the value is a tensor that a schedule moves: nobody can check it now. */
static double option_value(const bl_contract *contract, const void *fields, const bl_field *field)
{
    if (field->option == BL_OPTION_INTEGER)
        return (double)*(int64_t *)at(fields, field);
    bl_tensor number = number_tensor(contract, fields, field);
    return bl_is_number(number) ? number.number : (double)NAN;
}

static bool is_scheduled(const bl_contract *contract, const void *fields, const bl_field *field)
{
    return field->option == BL_OPTION_NUMBER &&
           !bl_is_number(number_tensor(contract, fields, field));
}

static bool is_missing(const bl_contract *contract, const void *fields, const bl_field *field)
{
    if (field->option == BL_OPTION_INTEGERS)
        return false;
    if (field->option == BL_OPTION_WORD)
        return *(const char **)at(fields, field) == NULL;
    if (field->option == BL_OPTION_INTEGER)
        return *(int64_t *)at(fields, field) == BL_REQUIRED_INTEGER;
    return !is_scheduled(contract, fields, field) && isnan(option_value(contract, fields, field));
}

static bool is_unset(const void *fields, const bl_field *field)
{
    return field->option == BL_OPTION_INTEGER &&
           *(const int64_t *)((const char *)fields + field->offset) == BL_UNSET_INTEGER;
}

static bl_status check_integers(const bl_integers *list, const bl_field *field,
                                const bl_symbols *symbols)
{
    for (int i = 0; i < list->rows * list->columns; i++) {
        if (bl_range_check(field->conditions, symbols, (double)list->at[i]) == BL_OK)
            continue;
        if (list->columns == 1)
            return bl_fail(BL_INVALID, "option %s[%d] %s", field->name, i, bl_error());
        return bl_fail(BL_INVALID, "option %s[%d,%d] %s", field->name, i / list->columns,
                       i % list->columns, bl_error());
    }
    return BL_OK;
}

static bl_status check_option(const bl_contract *contract, const void *fields,
                              const bl_field *field, const bl_symbols *symbols)
{
    if (is_missing(contract, fields, field))
        return bl_fail(BL_INVALID, "option %s is required (%s)", field->name, field->text);
    if (is_unset(fields, field))
        return BL_OK;
    if (field->option == BL_OPTION_INTEGERS)
        return check_integers(at(fields, field), field, symbols);
    if (field->option == BL_OPTION_WORD) {
        const char *word = *(const char **)at(fields, field);
        if (!word_is_listed(field->conditions, word))
            return bl_fail(BL_INVALID, "option %s is \"%s\", expected one of %s", field->name, word,
                           field->conditions);
        return BL_OK;
    }
    if (is_scheduled(contract, fields, field)) {
        bl_tensor t = number_tensor(contract, fields, field);
        char type[BL_TYPE_TEXT];
        if (!bl_is_poison(t) && bl_rank(t) != 0)
            return bl_fail(BL_INVALID, "option %s is %s, expected a number or a scalar",
                           field->name, bl_type_text(bl_type_of(t), type));
        return BL_OK;
    }
    double value = option_value(contract, fields, field);
    if (bl_range_check(field->conditions, symbols, value) != BL_OK)
        return bl_fail(BL_INVALID, "option %s %s", field->name, bl_error());
    return BL_OK;
}

bl_status bl_options_check(const bl_contract *contract, const void *fields, bl_symbols *symbols)
{
    int count;
    const bl_field *table = table_of(contract, &count);
    for (int i = 0; i < count; i++) {
        const bl_field *f = &table[i];
        bool has_value = f->option == BL_OPTION_NUMBER || f->option == BL_OPTION_INTEGER;
        if (f->kind == BL_FIELD_OPTION && has_value && !is_scheduled(contract, fields, f) &&
            !is_missing(contract, fields, f) && !is_unset(fields, f))
            bl_symbols_add(symbols, f->name, option_value(contract, fields, f));
    }
    for (int i = 0; i < count; i++)
        if (table[i].kind == BL_FIELD_OPTION)
            BL_TRY(check_option(contract, fields, &table[i], symbols));
    return BL_OK;
}

char *bl_number_text(double value, char text[BL_NUMBER_TEXT])
{
    double back;
    if (value == floor(value) && fabs(value) < 1e15) { /* 100, not 1e+02 */
        snprintf(text, BL_NUMBER_TEXT, "%.0f", value);
        return text;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, BL_NUMBER_TEXT, "%.*g", digits, value);
        if (bl_parse_double(text, &back) && back == value)
            break;
    }
    return text;
}

static void show_integer(const bl_field *field, int64_t value, bl_text *out)
{
    if (bl_option_is_flag(field))
        bl_text_add(out, "%s", value ? "true" : "false");
    else if (value == BL_UNSET_INTEGER)
        bl_text_add(out, "unset");
    else
        bl_text_add(out, "%lld", (long long)value);
}

static void show_integers(const bl_integers *list, bl_text *out)
{
    bl_text_add(out, "[");
    for (int i = 0; i < list->rows; i++) {
        bl_text_add(out, "%s%s", i ? "," : "", list->columns > 1 ? "[" : "");
        for (int j = 0; j < list->columns; j++)
            bl_text_add(out, "%s%lld", j ? "," : "", (long long)list->at[i * list->columns + j]);
        bl_text_add(out, "%s", list->columns > 1 ? "]" : "");
    }
    bl_text_add(out, "]");
}

void bl_option_show(const bl_contract *contract, const void *fields, const bl_field *field,
                    bl_text *out)
{
    char text[BL_NUMBER_TEXT];
    if (field->option == BL_OPTION_WORD)
        bl_text_add(out, "%s", *(const char **)at(fields, field));
    else if (field->option == BL_OPTION_INTEGER)
        show_integer(field, *(int64_t *)at(fields, field), out);
    else if (field->option == BL_OPTION_INTEGERS)
        show_integers(at(fields, field), out);
    else if (is_scheduled(contract, fields, field))
        bl_text_add(out, "scheduled");
    else
        bl_text_add(out, "%s", bl_number_text(option_value(contract, fields, field), text));
}

void bl_option_show_default(const bl_field *field, bl_text *out)
{
    char text[BL_NUMBER_TEXT];
    if (is_required(field))
        bl_text_add(out, "required");
    else if (field->option == BL_OPTION_WORD)
        bl_text_add(out, "%s", field->word);
    else if (field->option == BL_OPTION_INTEGER)
        show_integer(field, field->integer, out);
    else if (field->option == BL_OPTION_INTEGERS)
        bl_text_add(out, "[]");
    else
        bl_text_add(out, "%s", bl_number_text(field->number, text));
}

/* --- building a graph function ---------------------------------------------------------------- */

bl_status bl_type_error(const bl_field *field, const char *name, int index, bl_type given,
                        const bl_symbols *symbols)
{
    bl_text expected = {0};
    char type[BL_TYPE_TEXT];
    bl_pattern_show(field->type, index, symbols, &expected);
    bl_status status = bl_fail(BL_INVALID, "%s must be %s, not %s", name,
                               expected.at && !expected.failed ? expected.at : field->type,
                               bl_type_text(given, type));
    bl_text_free(&expected);
    return status;
}

/* Lifts a number, casts where the table allows another dtype. */
static bl_status check_tensor(bl_graph *graph, const bl_field *field, const char *name, int index,
                              bl_tensor *t, bl_symbols *symbols)
{
    if (bl_is_number(*t) && bl_has_condition(field->conditions, "optional"))
        return BL_OK; /* not given */
    if (bl_is_number(*t) && strncmp(field->type, "f32[]", 5) == 0)
        *t = bl_full(graph, BL_F32, BL_SCALAR, t->number);
    if (bl_is_number(*t))
        return bl_fail(BL_INVALID, "%s was not given, expected %s", name, field->type);
    bl_dtype wanted;
    bl_type type = bl_type_of(*t);
    if (!bl_pattern_match(field->type, index, type, symbols, &wanted))
        return bl_type_error(field, name, index, type, symbols);
    if (bl_rows_check(field->conditions, type.shape) != BL_OK)
        return bl_fail(BL_INVALID, "%s %s", name, bl_error());
    if (wanted != type.dtype)
        *t = bl_cast(*t, wanted);
    return BL_OK;
}

static bl_status check_list(bl_graph *graph, const bl_field *field, bl_tensors *list, int *length,
                            bl_symbols *symbols)
{
    if (*length < 0)
        *length = list->count;
    if (list->count != *length || list->count < 0 || list->count > BL_LIST_MAX)
        return bl_fail(BL_INVALID, "%s has %d tensors, expected %d as in the other lists",
                       field->name, list->count, *length);
    for (int i = 0; i < list->count; i++) {
        char *name = bl_list_name(field->name, i);
        bl_status status = name ? check_tensor(graph, field, name, i, &list->at[i], symbols)
                                : bl_no_memory(strlen(field->name) + 12);
        bl_release(name);
        BL_TRY(status);
    }
    return BL_OK;
}

/* The fields of `kind` and of the lists `lists`. */
static bl_status check_fields(bl_graph *graph, const bl_contract *contract, void *fields,
                              bl_field_kind kind, bl_field_kind lists, int *length,
                              bl_symbols *symbols)
{
    int count;
    const bl_field *table = table_of(contract, &count);
    for (int i = 0; i < count; i++) {
        const bl_field *f = &table[i];
        if (f->kind == kind)
            BL_TRY(check_tensor(graph, f, f->name, 0, at(fields, f), symbols));
        else if (f->kind == lists)
            BL_TRY(check_list(graph, f, at(fields, f), length, symbols));
    }
    return BL_OK;
}

/* Every output is set to `value`: to poison, or to what marks it as not yet computed. */
static void set_outputs(const bl_contract *contract, void *fields, bl_tensor value)
{
    int count;
    const bl_field *table = table_of(contract, &count);
    for (int i = 0; i < count; i++) {
        if (table[i].kind == BL_FIELD_OUT)
            *(bl_tensor *)at(fields, &table[i]) = value;
        if (table[i].kind != BL_FIELD_OUTS)
            continue;
        bl_tensors *list = at(fields, &table[i]);
        for (int j = 0; j < BL_LIST_MAX; j++)
            list->at[j] = value;
    }
}

/* The graph of the first tensor that has one; *poison: an operand already failed. */
static bl_graph *graph_of(const bl_contract *contract, const void *fields, bool *poison)
{
    int count;
    const bl_field *table = table_of(contract, &count);
    bl_graph *graph = NULL;
    for (int i = 0; i < count; i++) {
        const bl_field *f = &table[i];
        bool number = f->kind == BL_FIELD_OPTION && f->option == BL_OPTION_NUMBER;
        if (!number && f->kind != BL_FIELD_IN && f->kind != BL_FIELD_INS)
            continue;
        const bl_tensors *list = at(fields, f);
        int n = f->kind == BL_FIELD_INS ? list->count : 1;
        for (int j = 0; j < n && j < BL_LIST_MAX; j++) {
            bl_tensor t = f->kind == BL_FIELD_INS ? list->at[j] : *(bl_tensor *)at(fields, f);
            *poison = *poison || (t.graph && bl_is_poison(t));
            graph = graph ? graph : t.graph;
        }
    }
    return graph;
}

void bl_contract_build_in(bl_graph *graph, const bl_contract *contract, void *fields)
{
    bl_symbols *symbols = bl_alloc(sizeof *symbols);
    int length = -1;
    bl_status status = symbols ? BL_OK : bl_no_memory(sizeof *symbols);
    if (status == BL_OK)
        status = bl_options_check(contract, fields, symbols);
    if (status == BL_OK)
        status = check_fields(graph, contract, fields, BL_FIELD_IN, BL_FIELD_INS, &length, symbols);
    if (status == BL_OK) {
        set_outputs(contract, fields, bl_number((double)NAN));
        bl_scope(graph, contract->name);
        contract->build(graph, fields);
        bl_scope_end(graph);
        status = bl_graph_status(graph);
        if (status == BL_OK)
            status = check_fields(graph, contract, fields, BL_FIELD_OUT, BL_FIELD_OUTS, &length,
                                  symbols);
        else
            status = BL_OK; /* the graph keeps that error; outputs are poison by themselves */
    }
    bl_release(symbols);
    if (status == BL_NO_MEMORY)
        set_outputs(contract, fields, bl_out_of_memory(graph));
    else if (status != BL_OK)
        set_outputs(contract, fields, bl_poison(graph, "%s: %s", contract->name, bl_error()));
}

void bl_contract_build(const bl_contract *contract, void *fields)
{
    bool poison = false;
    bl_graph *graph = graph_of(contract, fields, &poison);
    if (!graph || poison) {
        bl_tensor nothing = {.graph = graph, .id = -1, .number = 0};
        set_outputs(contract, fields, nothing);
        return;
    }
    bl_contract_build_in(graph, contract, fields);
}
