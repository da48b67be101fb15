/* ballast list: the methods, grouped by the problem that a user has. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "cli.h"
#include "methods/contract.h"

static const char *const families[][2] = {
    {"labels", "wrong or scarce labels"},
    {"inputs", "augmentation, imbalance, attacks"},
    {"weights", "what the weights may be: decay, sparsity, quantization"},
    {"adaptation", "fine-tuning a trained model"},
    {"continual", "learning without forgetting"},
    {"representation", "features without labels, across domains"},
    {"generative", "generators, tokenizers, visualisation"},
    {"solvers", "transport, bilevel search, differential equations"},
    {"theory", "what limits and kernels predict, and how to measure it"},
    {"classical", "the methods that every comparison should contain"},
};

static bool known_family(const char *family)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strcmp(family, families[i][0]) == 0)
            return true;
    return false;
}

static void print_method(const bl_method *m, int width)
{
    enum { COLUMN = 22 };
    printf("  %-*s", COLUMN - 2, m->slug);
    if (strlen(m->slug) > COLUMN - 3) /* a long name has a line of its own */
        printf("\n%*s", COLUMN, "");
    cli_wrap(m->summary, COLUMN, COLUMN, width);
}

/* The methods of one family; of all families that have no heading where `family` is NULL. */
static void print_family(const char *family, const char *heading, int width, bool *first)
{
    bool any = false;
    for (int i = 0; i < bl_method_count(); i++) {
        const bl_method *m = bl_method_at(i);
        if (family ? strcmp(m->family, family) != 0 : known_family(m->family))
            continue;
        if (!any)
            printf("%s%s%s%s\n", *first ? "" : "\n", family ? family : "others", family ? ": " : "",
                   heading);
        any = true;
        *first = false;
        print_method(m, width);
    }
}

/* [{"name": "beta", "default": "0.7", "range": "[0,1]", "text": ".."}] */
static json_t *options_json(const bl_method *m)
{
    const bl_contract *contract = m->options ? m->options : m->functions[0];
    json_t *options = json_array();
    int count;
    const bl_field *table = contract->table(&count);
    for (int i = 0; i < count && m->hooks; i++) {
        if (table[i].kind != BL_FIELD_OPTION)
            continue;
        bl_text value = {0};
        bl_option_show_default(&table[i], &value);
        json_array_append_new(options, json_pack("{s:s, s:s, s:s, s:s}", "name", table[i].name,
                                                 "default", value.at ? value.at : "", "range",
                                                 table[i].conditions, "text", table[i].text));
        bl_text_free(&value);
    }
    return options;
}

static json_t *method_json(const bl_method *m)
{
    json_t *functions = json_array();
    for (int i = 0; i < 40 && m->functions[i]; i++)
        json_array_append_new(functions, json_string(m->functions[i]->name));
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:o, s:o}", "name", m->slug, "family",
                     m->family, "summary", m->summary, "when", m->when ? m->when : "", "paper",
                     m->paper, "arm", m->hooks != NULL, "example", m->example ? m->example : "",
                     "options", options_json(m), "functions", functions);
}

static int print_json(void)
{
    json_t *list = json_array();
    for (int i = 0; i < bl_method_count(); i++)
        json_array_append_new(list, method_json(bl_method_at(i)));
    char *text = json_dumps(list, JSON_INDENT(2));
    json_decref(list);
    if (!text)
        return cli_fail("list", BL_NO_MEMORY);
    puts(text);
    free(text);
    return CLI_OK;
}

int cli_list(int argc, char **argv)
{
    bool json = false;
    const cli_option options[] = {
        {.name = "json", .kind = CLI_FLAG, .value = &json, .text = "print JSON"}, {0}};
    const cli_usage usage = {
        .command = "list",
        .synopsis = "ballast list [--json]",
        .description =
            "Lists the methods by the problem they solve. Each is the arm of that name:\n"
            "  ballast compare DATA --arm baseline --arm mixup\n"
            "`ballast show NAME` explains one.",
        .options = {options}};
    cli_texts operands = {0};
    int status = cli_parse(&usage, argc, argv, &operands);
    if (status >= 0)
        return status;
    if (json)
        return print_json();
    int width = cli_width(STDOUT_FILENO);
    bool first = true;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        print_family(families[i][0], families[i][1], width, &first);
    print_family(NULL, "", width, &first);
    puts("\nbaseline is no method at all; null is the baseline again, with other seeds.");
    return CLI_OK;
}
