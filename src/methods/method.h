/* What a method's file is written with: contracts, the method record, and how to call a contract
 * from a hook. docs/add-a-method.md walks through one.
 *
 * A contract function is declared once, as a list:
 *
 *     #define ELR_LOSS(IN, OPT, OUT)                                                            \
 *         IN (logits, "f32[B,C]", "grad",        "raw model outputs")                           \
 *         IN (labels, "i32[B]",   "0 <= . < C",  "given class, perhaps wrong")                  \
 *         OPT(lambda, 3.0,        "[0,inf)",     "weight of the term")                          \
 *         OUT(loss,   "f32[]",                   "ce + lambda reg")
 *
 *     BL_CONTRACT(elr_loss, ELR_LOSS, "cross-entropy plus the early-learning term")
 *     {
 *         f->loss = ..;                     f is a struct elr_loss; graph is the graph
 *     }
 *
 * The list expands into `struct elr_loss` and into the table that checks, documents and calls it.
 * BL_HOST is the same for a function on arrays, which returns a bl_status.
 *
 * Types: "f32[B,C]", "i32[]", "f32[S...]" (any shape, the same wherever S stands), "f32[B,S...]",
 * "f32[...]" (any shape), alternatives "f32[1] | f32[B]"; "?" is any size. An OUT of BL_HOST whose
 * sizes depend on values is "i32[?]" and is allocated by the function itself; the others are
 * allocated before it runs. A u8 or bool input may be given as i32 of the same values. In lists
 * (INS, OUTS) S is a shape of each entry: "f32[S...]" in two lists pairs them.
 *
 * Conditions, comma-separated: "grad" (differentiable), "0 <= . < C", "[0,1]", "> 0", "in {-1,1}",
 * "distinct", "permutation", "integer", "finite", "no NaN", "sum > 0" (of all elements), "sums to 1
 * within 1e-4", "rows sum to 1 within 1e-3" (along the last size), "not all 0", "no zero row", "rows
 * > 0" (the first size is at least 1), "optional" (where it is not given, the field is a bare number
 * in BL_CONTRACT, and an array without data in BL_HOST). A letter is a size, or an option. Values are
 * checked on direct calls, and in training once on the data.
 *
 * Options: the default decides the kind. 3.0 is a number (a bl_tensor in BL_CONTRACT, so that a
 * schedule may pass a rank-0 tensor; a double in BL_HOST), 10 an integer (int64_t; a flag where the
 * range is "flag"), "l1" a word (const char *, compare with bl_is), BL_NO_INTEGERS a list of whole
 * numbers or of rows of them (bl_integers, empty where it is not given; the range is each number's).
 * Ranges: "[0,1)", "(0,inf)", ">= 1", "[1,epochs], integer", "odd", "l1|l2" for words. An integer
 * option may name a size: K and "f32[K]". BL_REQUIRED (BL_REQUIRED_INTEGER, BL_REQUIRED_WORD) has no
 * default; an integer with BL_UNSET_INTEGER has one that the body works out from sizes. */
#ifndef BL_METHODS_METHOD_H
#define BL_METHODS_METHOD_H

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "train/step.h"

typedef enum bl_field_kind {
    BL_FIELD_IN,
    BL_FIELD_OPTION,
    BL_FIELD_OUT,
    BL_FIELD_INS, /* a variable number: g0, g1, .. */
    BL_FIELD_OUTS /* likewise: g0_new, g1_new, .. */
} bl_field_kind;

typedef enum bl_option_kind {
    BL_OPTION_NUMBER,
    BL_OPTION_INTEGER,
    BL_OPTION_WORD,
    BL_OPTION_INTEGERS
} bl_option_kind;

/* The value of an option that lists whole numbers, [6,3,8], or rows of equally many, [[0,1],[1,3]]:
 * number j of row i is at[i * columns + j]; columns is 1 for a plain list. */
enum { BL_INTEGERS_MAX = 256 };
typedef struct bl_integers {
    int rows, columns;
    int64_t at[BL_INTEGERS_MAX];
} bl_integers;
#define BL_NO_INTEGERS ((bl_integers){0})

typedef struct bl_field {
    bl_field_kind kind;
    const char *name, *type, *conditions, *text; /* conditions: the range, for an option */
    size_t offset;
    bl_option_kind option;
    double number; /* the default, by kind */
    int64_t integer;
    const char *word;
} bl_field;

/* A check that the conditions cannot express, run on direct calls after them: `in` are the inputs,
 * `options` the contract's struct with its options set. */
typedef bl_status bl_contract_check(const bl_dictionary *in, const void *options);
/* Inside of one: conditions on an input that hold only under some options. */
bl_status bl_input_check(const bl_dictionary *in, const char *name, const char *conditions);

/* codes[M,k], called `name`, are below cards[k], of each column its number of values. */
bl_status bl_codes_check(const bl_array *codes, const char *name, const bl_array *cards);

/* The gradient of a host function, after it has run: `fields` hold its inputs, options and outputs,
 * the OUTs of `cotangent` their cotangents (no data: zero), and the differentiable INs of `gradient`
 * arrays of zeros to be filled. All three are the contract's struct. */
typedef bl_status bl_host_gradient(const void *fields, const void *cotangent, void *gradient);

typedef struct bl_contract {
    const char *name, *text;
    size_t size;    /* of the struct */
    bool on_arrays; /* IN and OUT are bl_array, numbers are double: a host function */
    const bl_field *(*table)(int *count);
    void (*build)(bl_graph *graph,
                  void *fields);     /* a graph function; NULL for a mere option list */
    bl_status (*host)(void *fields); /* a host function */
    bl_host_gradient *host_gradient; /* of a host function that has one; else NULL */
    bl_contract_check *check;        /* of a graph function; NULL: the conditions say it all */
} bl_contract;

/* Defaults of options that must be given. */
#define BL_REQUIRED         ((double)NAN)
#define BL_REQUIRED_INTEGER INT_MIN
#define BL_UNSET_INTEGER    (INT_MIN + 1)
#define BL_REQUIRED_WORD    ((char *)0)

#define BL_LIST_MAX 64
typedef struct bl_tensors {
    int count;
    bl_tensor at[BL_LIST_MAX];
} bl_tensors;

/* --- the list as a struct --- */
#define BL_STRUCT_IN(name, type, conditions, text)  bl_tensor name;
#define BL_STRUCT_OUT(name, type, text)             bl_tensor name;
#define BL_STRUCT_INS(name, type, conditions, text) bl_tensors name;
#define BL_STRUCT_OUTS(name, type, text)            bl_tensors name;
#define BL_STRUCT_OPT(name, default_, range, text)                                                 \
    __typeof__(_Generic((default_), double: (bl_tensor){0}, int: (int64_t)0,                       \
                        char *: (const char *)0, bl_integers: (bl_integers){0})) name;
#define BL_STRUCT_HOST_IN(name, type, conditions, text) bl_array name;
#define BL_STRUCT_HOST_OUT(name, type, text)            bl_array name;
#define BL_STRUCT_HOST_OPT(name, default_, range, text)                                            \
    __typeof__(_Generic((default_), double: (double)0, int: (int64_t)0,                            \
                        char *: (const char *)0, bl_integers: (bl_integers){0})) name;

/* --- the list as a table; bl_this is the struct, inside the table's function --- */
#define BL_TABLE_ROW(kind_, name_, type_, conditions_, text_)                                      \
    {.kind = kind_,                                                                                \
     .name = #name_,                                                                               \
     .type = type_,                                                                                \
     .conditions = conditions_,                                                                    \
     .text = text_,                                                                                \
     .offset = offsetof(bl_this, name_)},
#define BL_TABLE_IN(name, type, conditions, text)                                                  \
    BL_TABLE_ROW(BL_FIELD_IN, name, type, conditions, text)
#define BL_TABLE_OUT(name, type, text) BL_TABLE_ROW(BL_FIELD_OUT, name, type, "", text)
#define BL_TABLE_INS(name, type, conditions, text)                                                 \
    BL_TABLE_ROW(BL_FIELD_INS, name, type, conditions, text)
#define BL_TABLE_OUTS(name, type, text) BL_TABLE_ROW(BL_FIELD_OUTS, name, type, "", text)
#define BL_TABLE_OPT(name_, default_, range_, text_)                                               \
    {.kind = BL_FIELD_OPTION, .name = #name_, .type = "", .conditions = range_, .text = text_,     \
     .offset = offsetof(bl_this, name_),                                                           \
     .option = _Generic((default_), double: BL_OPTION_NUMBER, int: BL_OPTION_INTEGER,              \
                        char *: BL_OPTION_WORD, bl_integers: BL_OPTION_INTEGERS),                  \
     .number = _Generic((default_), double: (default_), default: 0.0),                             \
     .integer = _Generic((default_), int: (default_), default: 0),                                 \
     .word = _Generic((default_), char *: (default_), default: (const char *)0)},
#define BL_TABLE(name, ...)                                                                        \
    static const bl_field *name##_table(int *count)                                                \
    {                                                                                              \
        typedef struct name bl_this;                                                               \
        static const bl_field table[] = {__VA_ARGS__};                                             \
        *count = (int)(sizeof table / sizeof *table);                                              \
        return table;                                                                              \
    }

#define BL_GRAPH_CONTRACT_(name_, text_, check_)                                                   \
    static void name_##_build(bl_graph *graph, struct name_ *f);                                   \
    static void name_##_build_any(bl_graph *graph, void *f)                                        \
    {                                                                                              \
        name_##_build(graph, f);                                                                   \
    }                                                                                              \
    static const bl_contract name_##_contract = {.name = #name_,                                   \
                                                 .text = text_,                                    \
                                                 .size = sizeof(struct name_),                     \
                                                 .table = name_##_table,                           \
                                                 .build = name_##_build_any,                       \
                                                 .check = check_};                                 \
    static void name_##_build(BL_UNUSED_ bl_graph *graph, struct name_ *f)
#define BL_UNUSED_ __attribute__((unused))

/* A graph function. */
#define BL_CONTRACT(name, LIST, text)                                                              \
    struct name {                                                                                  \
        LIST(BL_STRUCT_IN, BL_STRUCT_OPT, BL_STRUCT_OUT)                                           \
    };                                                                                             \
    BL_TABLE(name, LIST(BL_TABLE_IN, BL_TABLE_OPT, BL_TABLE_OUT))                                  \
    BL_GRAPH_CONTRACT_(name, text, NULL)

/* A graph function where an output is called as an input is: output theta is the member out_theta. */
#define BL_CONTRACT_APART(name, LIST, text) BL_CONTRACT_APART_CHECKED(name, LIST, text, NULL)
#define BL_CONTRACT_APART_CHECKED(name, LIST, text, check_)                                        \
    struct name {                                                                                  \
        LIST(BL_STRUCT_IN, BL_STRUCT_OPT, BL_STRUCT_OUT_APART)                                     \
    };                                                                                             \
    BL_TABLE(name, LIST(BL_TABLE_IN, BL_TABLE_OPT, BL_TABLE_OUT_APART))                            \
    BL_GRAPH_CONTRACT_(name, text, check_)
#define BL_STRUCT_OUT_APART(name, type, text) bl_tensor out_##name;

/* A graph function with a check of its own: static bl_contract_check elr_plus_loss_check; */
#define BL_CONTRACT_CHECKED(name, LIST, text, check_)                                              \
    struct name {                                                                                  \
        LIST(BL_STRUCT_IN, BL_STRUCT_OPT, BL_STRUCT_OUT)                                           \
    };                                                                                             \
    BL_TABLE(name, LIST(BL_TABLE_IN, BL_TABLE_OPT, BL_TABLE_OUT))                                  \
    BL_GRAPH_CONTRACT_(name, text, check_)

/* A graph function with inputs whose names are words of C: LIST(IN, OPT, OUT, IN_AS), where
 * IN_AS(fallback, "default", type, conditions, text) is the member fallback for the input default. */
#define BL_CONTRACT_NAMED(name, LIST, text)                                                        \
    struct name {                                                                                  \
        LIST(BL_STRUCT_IN, BL_STRUCT_OPT, BL_STRUCT_OUT, BL_STRUCT_IN_AS)                          \
    };                                                                                             \
    BL_TABLE(name, LIST(BL_TABLE_IN, BL_TABLE_OPT, BL_TABLE_OUT, BL_TABLE_IN_AS))                  \
    BL_GRAPH_CONTRACT_(name, text, NULL)
#define BL_STRUCT_IN_AS(member, name, type, conditions, text) bl_tensor member;
#define BL_TABLE_IN_AS(member, name_, type_, conditions_, text_)                                   \
    {.kind = BL_FIELD_IN,                                                                          \
     .name = name_,                                                                                \
     .type = type_,                                                                                \
     .conditions = conditions_,                                                                    \
     .text = text_,                                                                                \
     .offset = offsetof(bl_this, member)},

/* A graph function with lists of tensors: LIST(IN, OPT, OUT, INS, OUTS). */
#define BL_CONTRACT_LISTS(name, LIST, text)                                                        \
    struct name {                                                                                  \
        LIST(BL_STRUCT_IN, BL_STRUCT_OPT, BL_STRUCT_OUT, BL_STRUCT_INS, BL_STRUCT_OUTS)            \
    };                                                                                             \
    BL_TABLE(name, LIST(BL_TABLE_IN, BL_TABLE_OPT, BL_TABLE_OUT, BL_TABLE_INS, BL_TABLE_OUTS))     \
    BL_GRAPH_CONTRACT_(name, text, NULL)

/* A host function: { .. return BL_OK; } on arrays. */
#define BL_HOST(name, LIST, text)                                                                  \
    BL_HOST_(name, LIST, text, BL_STRUCT_HOST_OUT, BL_TABLE_OUT, NULL)

/* A host function with a gradient of its own: static bl_host_gradient ode_gradient; */
#define BL_HOST_DIFFERENTIABLE(name, LIST, text, gradient_)                                        \
    BL_HOST_(name, LIST, text, BL_STRUCT_HOST_OUT, BL_TABLE_OUT, gradient_)

/* The same where an output is called as an input is: output image is the member out_image. */
#define BL_HOST_APART(name, LIST, text)                                                            \
    BL_HOST_(name, LIST, text, BL_STRUCT_HOST_OUT_APART, BL_TABLE_OUT_APART, NULL)
#define BL_STRUCT_HOST_OUT_APART(name, type, text) bl_array out_##name;
#define BL_TABLE_OUT_APART(name_, type_, text_)                                                    \
    {.kind = BL_FIELD_OUT,                                                                         \
     .name = #name_,                                                                               \
     .type = type_,                                                                                \
     .conditions = "",                                                                             \
     .text = text_,                                                                                \
     .offset = offsetof(bl_this, out_##name_)},

#define BL_HOST_(name_, LIST, text_, STRUCT_OUT, TABLE_OUT, gradient_)                             \
    struct name_ {                                                                                 \
        LIST(BL_STRUCT_HOST_IN, BL_STRUCT_HOST_OPT, STRUCT_OUT)                                    \
    };                                                                                             \
    BL_TABLE(name_, LIST(BL_TABLE_IN, BL_TABLE_OPT, TABLE_OUT))                                    \
    static bl_status name_##_host(struct name_ *f);                                                \
    static bl_status name_##_host_any(void *f)                                                     \
    {                                                                                              \
        return name_##_host(f);                                                                    \
    }                                                                                              \
    static const bl_contract name_##_contract = {.name = #name_,                                   \
                                                 .text = text_,                                    \
                                                 .size = sizeof(struct name_),                     \
                                                 .on_arrays = true,                                \
                                                 .table = name_##_table,                           \
                                                 .host = name_##_host_any,                         \
                                                 .host_gradient = gradient_};                      \
    static bl_status name_##_host(struct name_ *f)

/* The options of an arm, where they are not those of a contract: LIST(OPT). Numbers are bl_tensor.
 */
#define BL_ARM_OPTIONS(name_, LIST)                                                                \
    struct name_ {                                                                                 \
        LIST(BL_STRUCT_OPT)                                                                        \
    };                                                                                             \
    BL_TABLE(name_, LIST(BL_TABLE_OPT))                                                            \
    static const bl_contract name_##_contract = {                                                  \
        .name = #name_, .text = "", .size = sizeof(struct name_), .table = name_##_table};

/* --- use inside hooks and other contracts --- */
static inline bool bl_is(const char *word, const char *value)
{
    return strcmp(word, value) == 0;
}

/* Checks shapes and option ranges and builds: bl_call(elr_loss, &f). What is wrong poisons the
 * outputs and is the graph's error: "elr_loss: labels must be i32[128], not f32[128]". */
#define bl_call(name, f) (bl_at(__FILE__, __LINE__), bl_contract_build(&name##_contract, f))
void bl_contract_build(const bl_contract *contract, void *fields);
/* Sets every option to its default and all else to nothing; contracts called from hooks start here:
 * struct base_mixup f = BL_DEFAULTS(base_mixup); */
void bl_contract_defaults(const bl_contract *contract, void *fields);
#define BL_DEFAULTS(name_)                                                                         \
    (*(struct name_ *)bl_contract_defaulted(&name_##_contract, &(struct name_){0}))
void *bl_contract_defaulted(const bl_contract *contract, void *fields); /* returns fields */

/* --- the method record --- */
typedef struct bl_method {
    const char *slug;    /* the arm's name: "elr" */
    const char *family;  /* "labels", "inputs", "weights", .. */
    const char *paper;   /* "Liu et al. 2020, arXiv 2007.00151" */
    const char *summary; /* a line: what it does for the user */
    const char *when;    /* a sentence or two: when to reach for it, and what it costs */
    const bl_contract *functions[40]; /* NULL ends the list */
    const bl_contract *options; /* of the arm; NULL: those of functions[0]; ignored without hooks */
    const char *example;        /* "--arm \"elr(lambda=3,beta=0.7)\"" */
    unsigned traits;            /* bl_trait */
    const bl_hooks *hooks;      /* NULL: contract functions only, no arm */
} bl_method;

/* methods.def is the only list: METHOD(bl_elr) in the order of `ballast list`. */
int bl_method_count(void);
const bl_method *bl_method_at(int i);
/* Errors name the nearest known one. */
bl_status bl_method_find(const char *slug, const bl_method **out);
bl_status bl_function_find(const char *name, const bl_contract **out);
int bl_functions(const bl_contract **out, int most); /* all, each once; returns how many */

/* --- direct calls on named arrays --- */
/* `in`: the inputs by name; `options`: a JSON object or NULL; `out` is filled with every output.
 * With `gradient`, also the gradients of output `wrt` (or, where `cotangent` is not NULL, of
 * sum over OUT of sum(cotangent.OUT * OUT)) in every differentiable input that is present, by name.
 * Errors: a missing or unknown input or option, a wrong type, size, value or range. */
bl_status bl_function_call(const bl_contract *contract, const bl_device *device,
                           const bl_dictionary *in, const char *options, bl_dictionary *out,
                           const char *wrt, const bl_dictionary *cotangent,
                           bl_dictionary *gradient);

/* --- reference cases (papers' README: in.*, out.*, cot.*, grad.*) --- */
typedef struct bl_check_result {
    bool passed;
    double worst;  /* largest |got - want| / (atol + rtol |want|) */
    char *message; /* why it failed: "out.loss[0]: 1.25, expected 1.5"; bl_release it */
} bl_check_result;
bl_status bl_check_case(const char *path, const bl_device *device, bl_check_result *out);

/* --- arms: "elr(beta=0.7)+ema", "baseline", "null" --- */
/* Errors: unknown method (with the nearest), option (with the nearest), value out of range, two
 * parts that cannot be combined ("elr needs hard labels; mixup makes them soft: .."). */
bl_status bl_arm_parse(const char *text, bl_arm *out);
void bl_arm_free(bl_arm *arm);
unsigned bl_arm_traits(const bl_arm *arm); /* of all parts together */

#endif
