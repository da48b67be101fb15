/* Options of contract functions, in JSON. The first two bytes choose the function. */
#include "fuzz.h"

#include "methods/contract.h"

enum { MOST = 1024 };

static void fuzz(const char *bytes, size_t count)
{
    const bl_contract *all[MOST];
    int functions = bl_functions(all, MOST);
    if (count < 2 || functions < 1)
        return;
    int number = (unsigned char)bytes[0] * 256 + (unsigned char)bytes[1];
    const bl_contract *contract = all[number % functions];
    char *text = text_of(bytes + 2, count - 2);
    void *fields = bl_fields_new(contract);
    if (!fields)
        abort();
    bl_symbols symbols = {0};
    bl_status status = bl_options_set_json(contract, fields, text);
    if (status == BL_OK)
        status = bl_options_check(contract, fields, &symbols);
    check_sentence(status);
    bl_text shown = {0};
    int rows;
    const bl_field *table = contract->table(&rows);
    for (int i = 0; i < rows && status == BL_OK; i++)
        if (table[i].kind == BL_FIELD_OPTION)
            bl_option_show(contract, fields, &table[i], &shown);
    bl_text_free(&shown);
    bl_release(fields);
    bl_release(text);
}
