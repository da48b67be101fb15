/* ballast show NAME: a method or one of its functions, from the tables that also check and run
 * them: nothing here is written twice. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "methods/contract.h"

/* --- rows ------------------------------------------------------------------------------------- */

/* One row of a contract as it is printed; widths are those of its table. */
typedef struct row {
    const char *kind, *name, *type, *range, *text;
    char value[64]; /* an option's default, in the place of the type */
} row;

typedef struct widths {
    int kind, name, type, range;
} widths;

static row row_of(const bl_field *field)
{
    static const char *const kinds[] = {[BL_FIELD_IN] = "in",
                                        [BL_FIELD_OPTION] = "option",
                                        [BL_FIELD_OUT] = "out",
                                        [BL_FIELD_INS] = "in 0..",
                                        [BL_FIELD_OUTS] = "out 0.."};
    row r = {kinds[field->kind], field->name, field->type, field->conditions, field->text, ""};
    if (field->kind != BL_FIELD_OPTION)
        return r;
    bl_text value = {0};
    bl_option_show_default(field, &value);
    if (value.at && !value.failed)
        snprintf(r.value, sizeof r.value, "%s", value.at);
    bl_text_free(&value);
    r.type = NULL;
    if (bl_option_is_flag(field))
        r.range = "true|false";
    return r;
}

static void widen(int *width, const char *text)
{
    int length = (int)strlen(text);
    *width = length > *width ? length : *width;
}

/* A range that is longer than a line is broken after a bar: "Identity|AutoContrast|..". */
static void print_long_range(const char *range, int indent, int width)
{
    int column = indent;
    printf("\n%*s", indent, "");
    for (size_t length; *range; range += length) {
        length = strcspn(range, "|");
        length += range[length] == '|';
        if (column + (int)length > width && column > indent) {
            printf("\n%*s", indent, "");
            column = indent;
        }
        printf("%.*s", (int)length, range);
        column += (int)length;
    }
}

/* The text stands beside the columns where it has room, else below them. No line ends in spaces. */
static void print_row(const row *r, const widths *w, int width)
{
    int column = 2 + w->kind + 2 + w->name + 2 + w->type + 2 + w->range + 2;
    bool beside = width - column >= 24,
         fits = column - 2 - w->range + (int)strlen(r->range) <= width;
    int indent = beside ? column : 2 + w->kind + 2;
    char left[512];
    int end = snprintf(left, sizeof left, "  %-*s  %-*s  %-*s  %s", w->kind, r->kind, w->name,
                       r->name, w->type, r->type ? r->type : r->value, fits ? r->range : "");
    if (end >= (int)sizeof left)
        end = (int)sizeof left - 1;
    while (left[end - 1] == ' ')
        end--;
    printf("%.*s", end, left);
    if (!fits)
        print_long_range(r->range, indent, width);
    if (!*r->text) {
        putchar('\n');
        return;
    }
    if (beside)
        printf("%*s", column - end, "");
    else
        printf("\n%*s", indent, "");
    cli_wrap(r->text, indent, indent, width);
}

static void print_fields(const bl_contract *contract, bool only_options, int width)
{
    int count;
    const bl_field *table = contract->table(&count);
    widths w = {0};
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < count; i++) {
            row r = row_of(&table[i]);
            if (only_options && table[i].kind != BL_FIELD_OPTION)
                continue;
            widen(&w.kind, r.kind);
            widen(&w.name, r.name);
            widen(&w.type, r.type ? r.type : r.value);
            widen(&w.range, r.range);
            if (pass)
                print_row(&r, &w, width);
        }
    }
}

static bool has_options(const bl_contract *contract)
{
    int count;
    const bl_field *table = contract->table(&count);
    for (int i = 0; i < count; i++)
        if (table[i].kind == BL_FIELD_OPTION)
            return true;
    return false;
}

/* --- methods and functions -------------------------------------------------------------------- */

static void print_function(const bl_contract *contract, int width)
{
    printf("%s:", contract->name);
    cli_wrap(contract->text, (int)strlen(contract->name) + 1, 2, width);
    print_fields(contract, false, width);
    if (contract->on_arrays)
        puts("  A function on arrays: it has no gradient.");
}

static void print_needs(unsigned traits, int width)
{
    static const struct need {
        unsigned trait;
        const char *text;
    } needs[] = {
        {BL_CLASSIFICATION, "a classification task"},
        {BL_REGRESSION, "a regression task"},
        {BL_IMAGE_INPUTS, "images"},
        {BL_HARD_LABELS, "labels that no other part of the arm makes soft"},
        {BL_BRANCHES, "a model with residual branches"},
        {BL_VALIDATION, "a tenth of the training data, held out"},
    };
    bool any = false;
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
        if (!(traits & needs[i].trait))
            continue;
        printf(any ? "; %s" : "\nNeeds %s", needs[i].text);
        any = true;
    }
    if (any)
        puts(".");
    if (traits & BL_SOFTENS_LABELS)
        cli_wrap("Makes labels soft: not to be combined with methods that need hard ones.", 0, 0,
                 width);
}

static void print_arm(const bl_method *m, int width)
{
    const bl_contract *options = m->options ? m->options : m->functions[0];
    if (has_options(options)) {
        puts("\nOptions of the arm (default, range):");
        print_fields(options, true, width);
    }
    print_needs(m->traits, width);
}

static void print_method(const bl_method *m, int width)
{
    printf("%s:", m->slug);
    cli_wrap(m->summary, (int)strlen(m->slug) + 1, 2, width);
    puts(m->paper);
    if (m->when) {
        putchar('\n');
        cli_wrap(m->when, 0, 0, width);
    }
    if (m->hooks)
        print_arm(m, width);
    if (m->example)
        printf("\nExample:\n  %s%s\n",
               strncmp(m->example, "ballast", 7) ? "ballast compare DATA " : "", m->example);
    for (int i = 0; i < 40 && m->functions[i]; i++) {
        putchar('\n');
        print_function(m->functions[i], width);
    }
}

/* Methods and functions share one space of names; the nearest is sought among both. */
static int unknown(const char *name)
{
    const char *known[2048];
    const bl_contract *function[1024];
    int count = 0, functions = bl_functions(function, 1024);
    for (int i = 0; i < bl_method_count() && count < 1024; i++)
        known[count++] = bl_method_at(i)->slug;
    for (int i = 0; i < functions; i++)
        known[count++] = function[i]->name;
    const char *nearest = bl_nearest(name, known, count);
    bl_status status =
        nearest ? bl_fail(BL_NOT_FOUND, "nothing is called \"%s\"; did you mean %s?", name, nearest)
                : bl_fail(BL_NOT_FOUND, "nothing is called \"%s\"; `ballast list` shows all", name);
    return cli_fail("show", status);
}

int cli_show(int argc, char **argv)
{
    const cli_usage usage = {.command = "show",
                             .synopsis = "ballast show NAME",
                             .description =
                                 "Explains a method or one of its functions: when to reach for it, "
                                 "its options with defaults and ranges, and an example. `ballast "
                                 "list` has the names.",
                             .least = 1,
                             .most = 1};
    cli_texts operands = {0};
    int status = cli_parse(&usage, argc, argv, &operands);
    if (status >= 0)
        return status;
    int width = cli_width(STDOUT_FILENO);
    const bl_method *method;
    const bl_contract *function;
    if (bl_method_find(operands.at[0], &method) == BL_OK)
        print_method(method, width > 100 ? 100 : width);
    else if (bl_function_find(operands.at[0], &function) == BL_OK)
        print_function(function, width > 100 ? 100 : width);
    else
        return unknown(operands.at[0]);
    return CLI_OK;
}
