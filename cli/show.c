/* ballast show NAME: a method or one of its functions, from the tables that also check and run
 * them: nothing here is written twice. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "methods/contract.h"

/* --- rows ------------------------------------------------------------------------------------- */

/* "in  logits  f32[B,C]  (grad)  raw model outputs", in columns. */
static void print_row(const char *kind, const char *name, const char *type, const char *range,
                      const char *text, int width)
{
    int column = printf("  %-7s%-14s %-10s", kind, name, type);
    if (*range)
        column += printf(" %-14s", range);
    enum { TEXT = 35 };
    if (*text && column >= TEXT) {
        putchar('\n');
        column = 0;
    }
    column += printf("%*s", TEXT - column, "");
    cli_wrap(text, column, TEXT, width);
}

static const char *kind_word(const bl_field *field)
{
    switch (field->kind) {
    case BL_FIELD_OPTION:
        return "option";
    case BL_FIELD_IN:
        return "in";
    case BL_FIELD_INS:
        return "in ..";
    case BL_FIELD_OUT:
        return "out";
    case BL_FIELD_OUTS:
        return "out ..";
    }
    return "";
}

static void print_field(const bl_field *field, int width)
{
    if (field->kind != BL_FIELD_OPTION) {
        print_row(kind_word(field), field->name, field->type, field->conditions, field->text,
                  width);
        return;
    }
    bl_text value = {0};
    bl_option_show_default(field, &value);
    bool flag = bl_option_is_flag(field);
    print_row("option", field->name, value.at && !value.failed ? value.at : "",
              flag ? "true|false" : field->conditions, field->text, width);
    bl_text_free(&value);
}

static void print_fields(const bl_contract *contract, bool only_options, int width)
{
    int count;
    const bl_field *table = contract->table(&count);
    for (int i = 0; i < count; i++)
        if (!only_options || table[i].kind == BL_FIELD_OPTION)
            print_field(&table[i], width);
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
    printf("%s: ", contract->name);
    cli_wrap(contract->text, (int)strlen(contract->name) + 2, 2, width);
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
    printf("%s: ", m->slug);
    cli_wrap(m->summary, (int)strlen(m->slug) + 2, 2, width);
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
        nearest ? bl_fail(BL_NOT_FOUND, "nothing is called %s; did you mean %s?", name, nearest)
                : bl_fail(BL_NOT_FOUND, "nothing is called %s; `ballast list` shows all", name);
    return cli_fail("show", status);
}

int cli_show(int argc, char **argv)
{
    const cli_usage usage = {.command = "show",
                             .synopsis = "ballast show NAME",
                             .description =
                                 "Explains a method or one of its functions: when to reach for it, "
                                 "its options with\ndefaults and ranges, and an example. `ballast "
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
