/* The list of methods, from methods.def, and finding one by name. */
#include "methods/contract.h"

#define METHOD(name) extern const bl_method name;
#include "methods/methods.def"
#undef METHOD

static const bl_method *const methods[] = {
#define METHOD(name) &name,
#include "methods/methods.def"
#undef METHOD
    NULL};

int bl_method_count(void)
{
    return (int)(sizeof methods / sizeof *methods) - 1;
}

const bl_method *bl_method_at(int i)
{
    return i >= 0 && i < bl_method_count() ? methods[i] : NULL;
}

static bl_status not_found(const char *what, const char *name, const char *const *known, int count)
{
    const char *nearest = bl_nearest(name, known, count);
    if (nearest)
        return bl_fail(BL_NOT_FOUND, "no %s is called %s; did you mean %s?", what, name, nearest);
    return bl_fail(BL_NOT_FOUND, "no %s is called %s; `ballast list` shows all", what, name);
}

bl_status bl_method_find(const char *slug, const bl_method **out)
{
    const char *known[sizeof methods / sizeof *methods] = {0};
    for (int i = 0; i < bl_method_count(); i++) {
        *out = methods[i];
        if (strcmp(methods[i]->slug, slug) == 0)
            return BL_OK;
        known[i] = methods[i]->slug;
    }
    *out = NULL;
    return not_found("method", slug, known, bl_method_count());
}

enum { MOST_FUNCTIONS = 1024 };

/* The functions of all methods, each once: several arms may share one. */
int bl_functions(const bl_contract **out, int most)
{
    int count = 0;
    for (int i = 0; i < bl_method_count(); i++) {
        const size_t slots = sizeof methods[i]->functions / sizeof *methods[i]->functions;
        for (size_t j = 0; j < slots && methods[i]->functions[j]; j++) {
            const bl_contract *f = methods[i]->functions[j];
            int k = 0;
            while (k < count && out[k] != f)
                k++;
            if (k == count && count < most)
                out[count++] = f;
        }
    }
    return count;
}

bl_status bl_function_find(const char *name, const bl_contract **out)
{
    const bl_contract *function[MOST_FUNCTIONS] = {0};
    const char *known[MOST_FUNCTIONS] = {0};
    int count = bl_functions(function, MOST_FUNCTIONS);
    for (int i = 0; i < count; i++) {
        *out = function[i];
        if (strcmp(function[i]->name, name) == 0)
            return BL_OK;
        known[i] = function[i]->name;
    }
    *out = NULL;
    return not_found("function", name, known, count);
}
