/* Compares JSON with docs/json.md, whose tables name each field by its path. */
#ifndef TESTS_JSON_DOCUMENT_H
#define TESTS_JSON_DOCUMENT_H

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"

/* The documentation from the heading `first` up to the heading `last`, or to its end where that is
 * NULL; bl_release it. */
static char *read_sections(const char *first, const char *last)
{
    char *document;
    size_t length;
    assert_int_equal(bl_read_file(BALLAST_SOURCE_DIR "/docs/json.md", &document, &length), BL_OK);
    char *from = bl_format("\n## %s\n", first), *to = bl_format("\n## %s\n", last ? last : "");
    char *begin = strstr(document, from), *end = last ? strstr(document, to) : NULL;
    if (!begin || (last && !end))
        fail_msg("docs/json.md lacks the heading %s or %s", first, last ? last : "");
    char *sections = bl_format("%.*s", end ? (int)(end - begin) : (int)strlen(begin), begin);
    bl_release(from);
    bl_release(to);
    bl_release(document);
    return sections;
}

static const char *type_of(const json_t *value)
{
    return json_is_object(value)    ? "object"
           : json_is_array(value)   ? "list"
           : json_is_string(value)  ? "text"
           : json_is_integer(value) ? "integer"
           : json_is_real(value)    ? "number"
           : json_is_null(value)    ? "null"
                                    : "boolean";
}

/* The documentation's row of a path: "| `arms[].mean` | number or null |". */
static void expect_documented(const char *document, const char *path, const json_t *value)
{
    char *row = bl_format("\n| `%s` | ", path);
    const char *at = strstr(document, row);
    if (!at)
        fail_msg("docs/json.md does not describe %s", path);
    at += strlen(row);
    bl_release(row);
    char type[32];
    snprintf(type, sizeof type, "%.*s", (int)strcspn(at, "|"), at);
    if (!strstr(type, type_of(value)))
        fail_msg("docs/json.md calls %s %s, but it is %s", path, type, type_of(value));
}

/* Walks all fields; adds the path of each, between newlines, to `seen`. */
static void walk(const char *document, const char *prefix, const json_t *object, bl_text *seen)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        char *path = bl_format("%s%s%s", prefix, *prefix ? "." : "", key);
        expect_documented(document, path, value);
        bl_text_add(seen, "\n%s\n", path);
        bool free_names =
            !strcmp(key, "plan") || !strcmp(key, "metrics") || !strcmp(key, "measures");
        bool said = !strcmp(path, "equal_cost[].comparison"); /* as arms[].comparison */
        if (json_is_object(value) && !free_names && !said)
            walk(document, path, value, seen);
        char *inside = bl_format("%s[]", path);
        for (size_t i = 0; i < json_array_size(value); i++)
            if (json_is_object(json_array_get(value, i)))
                walk(document, inside, json_array_get(value, i), seen);
        bl_release(inside);
        bl_release(path);
    }
}

/* What is documented occurs. */
static void expect_printed(const char *document, const char *seen)
{
    int rows = 0;
    for (const char *at = document; (at = strstr(at, "\n| `")); rows++) {
        at += 4;
        char *path = bl_format("\n%.*s\n", (int)strcspn(at, "`"), at);
        if (!strstr(seen, path))
            fail_msg("docs/json.md describes%sbut that is not printed", path);
        bl_release(path);
    }
    assert_true(rows >= 5);
}

#endif
