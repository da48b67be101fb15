/* Inside the contract machinery: what contract.c, call.c, arm.c and check.c share. Methods include
 * method.h only.
 *
 * types.c and conditions.c read the small languages of a table's rows ("f32[B,S...]",
 * "0 <= . < C"); contract.c walks a table, sets options and builds; call.c runs a function on named
 * arrays. */
#ifndef BL_METHODS_CONTRACT_H
#define BL_METHODS_CONTRACT_H

#include <jansson.h>

#include "methods/method.h"

/* What the letters of a contract stand for in one call: sizes ("B" is 128), shapes ("S..." is
 * [28,28]) and the values of options, which bounds and sizes may mention. A name of more than one
 * entry carries its index: within lists, S of g3 is the S of w3. */
typedef struct bl_symbol {
    char name[24];
    int index;     /* of a shape inside a list; 0 elsewhere */
    bool is_shape; /* else a size or an option's value */
    double value;
    bl_shape shape;
} bl_symbol;

enum { BL_SYMBOLS = 256 };
typedef struct bl_symbols {
    int count;
    bl_symbol at[BL_SYMBOLS];
} bl_symbols;

void bl_symbols_add(bl_symbols *symbols, const char *name, double value);

/* Does `type` fit the pattern ("f32[1] | f32[B]")? New letters are bound; on failure none is. A
 * pattern of u8 or bool also takes i32 and the other, which the caller converts to *wanted. */
bool bl_pattern_match(const char *pattern, int index, bl_type type, bl_symbols *symbols,
                      bl_dtype *wanted);
/* The pattern with known letters replaced: "f32[1] or f32[128]". */
void bl_pattern_show(const char *pattern, int index, const bl_symbols *symbols, bl_text *out);
/* The type that the pattern stands for once its letters are known; false while one is not. */
bool bl_pattern_resolve(const char *pattern, int index, const bl_symbols *symbols, bl_type *out);

bool bl_has_condition(const char *conditions, const char *word); /* "grad", "finite", .. */
/* Conditions on every element, and on the array's first size. The message names the bad element:
 * "[3] is 10, expected 0 <= . < 10". */
bl_status bl_conditions_check(const char *conditions, const bl_symbols *symbols,
                              const bl_array *array);
bl_status bl_rows_check(const char *conditions, bl_shape shape); /* "rows > 0" alone */
/* The range of an option of a number or integer kind. */
bl_status bl_range_check(const char *range, const bl_symbols *symbols, double value);

/* --- options --- */
const bl_field *bl_option_find(const bl_contract *contract, const char *name);
bool bl_option_is_flag(const bl_field *field);
/* A struct of the contract with its options at their defaults, and room for words behind it; the
 * functions that set options work on these only. bl_release it. NULL if memory is short. */
void *bl_fields_new(const bl_contract *contract);
/* Sets one option from text ("0.7", "true", "l1") or JSON, without looking at its range. */
bl_status bl_option_set_text(const bl_contract *contract, void *fields, const bl_field *field,
                             const char *text);
bl_status bl_options_set_json(const bl_contract *contract, void *fields, const char *json);
/* Every option's presence and range; adds their values to `symbols`. */
bl_status bl_options_check(const bl_contract *contract, const void *fields, bl_symbols *symbols);
/* The value as text ("0.7", "true", "l1"); a number moved by a schedule is "scheduled". */
void bl_option_show(const bl_contract *contract, const void *fields, const bl_field *field,
                    bl_text *out);
void bl_option_show_default(const bl_field *field, bl_text *out);
/* Shortest decimal that reads back as the same double. */
#define BL_NUMBER_TEXT 32
char *bl_number_text(double value, char text[BL_NUMBER_TEXT]);

/* The name of element i of a list: "g" gives "g0", "g_new" gives "g0_new". bl_release it. */
char *bl_list_name(const char *name, int i);
bl_status bl_unknown_name(const char *what, const char *name, const char *const *known, int count);

/* "labels must be i32[128], not f32[128]" */
bl_status bl_type_error(const bl_field *field, const char *name, int index, bl_type given,
                        const bl_symbols *symbols);

/* bl_contract_build where the graph is known. */
void bl_contract_build_in(bl_graph *graph, const bl_contract *contract, void *fields);

#endif
