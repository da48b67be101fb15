/* Direct calls: a contract function on named arrays, in and out, with gradients where asked for.
 * What `ballast check`, the language bindings and the tests call. */
#define BL_KEEP_PLACE
#include "methods/contract.h"

/* One array that a call was given, converted where the table wants another dtype. */
typedef struct argument {
    const bl_field *field;
    int index; /* in a list */
    char *name;
    bl_array array;
    bool owned;
    bl_tensor tensor;
} argument;

/* One array that a call returns. */
typedef struct result {
    const char *name; /* borrowed from the table or the arguments, or `own` */
    char *own;
    bool is_gradient;
    bl_tensor tensor;
    bl_array array;
} result;

typedef struct call {
    const bl_contract *contract;
    void *fields;
    bl_symbols *symbols;
    bl_graph *graph;
    argument *argument;
    size_t arguments, argument_capacity;
    result *result;
    size_t results, result_capacity;
} call;

static void *at(const call *c, const bl_field *field)
{
    return (char *)c->fields + field->offset;
}

static bl_status call_begin(call *c, const bl_contract *contract, const char *options)
{
    *c = (call){.contract = contract};
    c->fields = bl_fields_new(contract);
    c->symbols = bl_alloc(sizeof *c->symbols);
    if (!c->fields || !c->symbols)
        return bl_no_memory(sizeof *c->symbols);
    BL_TRY(bl_options_set_json(contract, c->fields, options));
    return bl_options_check(contract, c->fields, c->symbols);
}

static void call_end(call *c)
{
    for (size_t i = 0; i < c->arguments; i++) {
        bl_release(c->argument[i].name);
        if (c->argument[i].owned)
            bl_array_free(&c->argument[i].array);
    }
    for (size_t i = 0; i < c->results; i++) {
        bl_release(c->result[i].own);
        bl_array_free(&c->result[i].array);
    }
    bl_release(c->argument);
    bl_release(c->result);
    bl_graph_free(c->graph);
    bl_release(c->symbols);
    bl_release(c->fields);
}

/* --- arguments -------------------------------------------------------------------------------- */

/* u8 and bool given as i32: the same values, or an error. */
static bl_status convert(argument *a, bl_dtype dtype)
{
    bl_array from = a->array, to = {0};
    BL_TRY(bl_array_new(dtype, from.type.shape, &to));
    double high = dtype == BL_BOOL ? 1 : 255;
    int64_t count = bl_array_count(&from);
    for (int64_t i = 0; i < count; i++) {
        double x = bl_array_get(&from, i);
        if (!(x >= 0 && x <= high)) {
            bl_array_free(&to);
            return bl_fail(BL_INVALID, "%s has the value %g, expected 0..%g", a->name, x, high);
        }
        bl_array_set(&to, i, x);
    }
    a->array = to;
    a->owned = true;
    return BL_OK;
}

static bl_status add_argument(call *c, const bl_field *field, int index, char *name,
                              const bl_array *array)
{
    if (!name || !BL_GROW(c->argument, c->arguments, c->argument_capacity)) {
        bl_release(name);
        return bl_no_memory(sizeof *c->argument);
    }
    argument *a = &c->argument[c->arguments++];
    *a = (argument){.field = field, .index = index, .name = name, .array = *array};
    bl_dtype wanted;
    if (!bl_pattern_match(field->type, index, array->type, c->symbols, &wanted))
        return bl_type_error(field, name, index, array->type, c->symbols);
    return wanted == array->type.dtype ? BL_OK : convert(a, wanted);
}

static bl_status add_arguments(call *c, const bl_field *field, const bl_dictionary *in)
{
    if (field->kind == BL_FIELD_IN) {
        const bl_array *array = bl_dictionary_find(in, field->name);
        if (!array && bl_has_condition(field->conditions, "optional"))
            return BL_OK;
        if (!array)
            return bl_fail(BL_INVALID, "input %s is missing (%s: %s)", field->name, field->type,
                           field->text);
        return add_argument(c, field, 0, bl_copy_text(field->name), array);
    }
    for (int i = 0; i < BL_LIST_MAX; i++) {
        char *name = bl_list_name(field->name, i);
        if (!name)
            return bl_no_memory(strlen(field->name) + 12);
        const bl_array *array = bl_dictionary_find(in, name);
        if (!array) {
            bl_release(name);
            return i ? BL_OK
                     : bl_fail(BL_INVALID, "input %s0 is missing (%s)", field->name, field->text);
        }
        BL_TRY(add_argument(c, field, i, name, array));
    }
    return BL_OK;
}

static bl_status refuse_unknown(const call *c, const bl_dictionary *in)
{
    int count, known = 0;
    const bl_field *table = c->contract->table(&count);
    const char *name[64];
    for (int i = 0; i < count && known < 64; i++)
        if (table[i].kind == BL_FIELD_IN || table[i].kind == BL_FIELD_INS)
            name[known++] = table[i].name;
    for (size_t e = 0; e < in->count; e++) {
        size_t a = 0;
        while (a < c->arguments && strcmp(c->argument[a].name, in->entry[e].name) != 0)
            a++;
        if (a == c->arguments)
            return bl_unknown_name("input", in->entry[e].name, name, known);
    }
    return BL_OK;
}

static bl_status check_values(const char *conditions, const bl_symbols *symbols, const char *name,
                              const bl_array *array)
{
    bl_status status = bl_conditions_check(conditions, symbols, array);
    if (status == BL_INVALID)
        return bl_fail(status, "%s%s%s", name, *bl_error() == '[' ? "" : " ", bl_error());
    return status;
}

/* Values are looked at after all sizes are known: labels may stand before logits. */
static bl_status gather(call *c, const bl_dictionary *in)
{
    int count;
    const bl_field *table = c->contract->table(&count);
    for (int i = 0; i < count; i++)
        if (table[i].kind == BL_FIELD_IN || table[i].kind == BL_FIELD_INS)
            BL_TRY(add_arguments(c, &table[i], in));
    BL_TRY(refuse_unknown(c, in));
    for (size_t i = 0; i < c->arguments; i++) {
        const argument *a = &c->argument[i];
        BL_TRY(check_values(a->field->conditions, c->symbols, a->name, &a->array));
    }
    return BL_OK;
}

bl_status bl_input_check(const bl_dictionary *in, const char *name, const char *conditions)
{
    static const bl_symbols none = {0};
    return check_values(conditions, &none, name, bl_dictionary_find(in, name));
}

bl_status bl_codes_check(const bl_array *codes, const char *name, const bl_array *cards)
{
    long long k = cards->type.shape.dim[0], count = bl_array_count(codes);
    for (long long i = 0; i < count; i++)
        if (bl_i32(codes)[i] >= bl_i32(cards)[i % k])
            return bl_fail(BL_INVALID, "%s[%lld,%lld] is %d, expected 0 <= . < cards[%lld] (%d)",
                           name, i / k, i % k, bl_i32(codes)[i], i % k, bl_i32(cards)[i % k]);
    return BL_OK;
}

/* --- results ---------------------------------------------------------------------------------- */

static result *add_result(call *c, const char *name, char *own)
{
    if (!BL_GROW(c->result, c->results, c->result_capacity)) {
        bl_release(own);
        return NULL;
    }
    result *r = &c->result[c->results++];
    *r = (result){.name = own ? own : name, .own = own};
    return r;
}

static bl_status deliver(call *c, bl_dictionary *out, bl_dictionary *gradient)
{
    for (size_t i = 0; i < c->results; i++) {
        result *r = &c->result[i];
        bl_array array = r->array;
        r->array = (bl_array){0};
        BL_TRY(bl_dictionary_set(r->is_gradient ? gradient : out, r->name, array));
    }
    return BL_OK;
}

/* --- graph functions -------------------------------------------------------------------------- */

static bl_status build(call *c)
{
    c->graph = bl_graph_new();
    if (!c->graph)
        return bl_no_memory(0);
    for (size_t i = 0; i < c->arguments; i++) {
        argument *a = &c->argument[i];
        a->tensor = bl_input(c->graph, a->name, a->array.type.dtype, a->array.type.shape);
        if (a->field->kind == BL_FIELD_IN) {
            *(bl_tensor *)at(c, a->field) = a->tensor;
        } else {
            bl_tensors *list = at(c, a->field);
            list->at[a->index] = a->tensor;
            list->count = a->index + 1;
        }
    }
    BL_TRY(bl_graph_status(c->graph));
    bl_contract_build_in(c->graph, c->contract, c->fields);
    return bl_graph_status(c->graph);
}

static bl_status collect_outputs(call *c)
{
    int count;
    const bl_field *table = c->contract->table(&count);
    for (int i = 0; i < count; i++) {
        const bl_field *f = &table[i];
        if (f->kind == BL_FIELD_OUT) {
            result *r = add_result(c, f->name, NULL);
            if (!r)
                return bl_no_memory(sizeof *r);
            r->tensor = *(bl_tensor *)at(c, f);
        }
        const bl_tensors *list = at(c, f);
        for (int j = 0; f->kind == BL_FIELD_OUTS && j < list->count; j++) {
            char *name = bl_list_name(f->name, j);
            result *r = name ? add_result(c, NULL, name) : NULL;
            if (!r)
                return bl_no_memory(sizeof *r);
            r->tensor = list->at[j];
        }
    }
    return BL_OK;
}

static const result *find_output(const call *c, const char *name)
{
    const char *known[64];
    int outputs = 0;
    for (size_t i = 0; i < c->results; i++) {
        if (strcmp(c->result[i].name, name) == 0)
            return &c->result[i];
        if (outputs < 64)
            known[outputs++] = c->result[i].name;
    }
    (void)bl_unknown_name("output", name, known, outputs);
    return NULL;
}

static bl_status check_cotangent(const struct bl_entry *e, bl_type type)
{
    char want[BL_TYPE_TEXT], got[BL_TYPE_TEXT];
    if (!bl_type_equal(e->array.type, type))
        return bl_fail(BL_INVALID, "the cotangent of %s must be %s, not %s", e->name,
                       bl_type_text(type, want), bl_type_text(e->array.type, got));
    return BL_OK;
}

static bl_status check_scalar(const char *wrt, bl_type type)
{
    char text[BL_TYPE_TEXT];
    if (type.shape.rank != 0)
        return bl_fail(BL_INVALID, "%s is %s, expected a scalar to differentiate", wrt,
                       bl_type_text(type, text));
    return BL_OK;
}

static bl_status need_wrt(const char *wrt)
{
    if (!wrt || !*wrt)
        return bl_fail(BL_INVALID, "a gradient needs the name of a scalar output or cotangents");
    return BL_OK;
}

static bl_status seeds_of_cotangents(const call *c, const bl_dictionary *cotangent,
                                     bl_tensor *output, bl_tensor *seed)
{
    for (size_t i = 0; i < cotangent->count; i++) {
        const struct bl_entry *e = &cotangent->entry[i];
        const result *r = find_output(c, e->name);
        if (!r)
            return BL_INVALID;
        BL_TRY(check_cotangent(e, bl_type_of(r->tensor)));
        output[i] = r->tensor;
        seed[i] = bl_constant(c->graph, &e->array);
    }
    return BL_OK;
}

static bl_status differentiate(call *c, const char *wrt, const bl_dictionary *cotangent,
                               const bl_tensor *x, int count, bl_tensor *dx)
{
    bl_tensor output[64], seed[64];
    if (cotangent && cotangent->count > 64)
        return bl_fail(BL_INVALID, "%zu cotangents, expected at most 64", cotangent->count);
    if (cotangent) {
        BL_TRY(seeds_of_cotangents(c, cotangent, output, seed));
        bl_vjp(output, seed, (int)cotangent->count, x, count, dx);
        return bl_graph_status(c->graph);
    }
    BL_TRY(need_wrt(wrt));
    const result *r = find_output(c, wrt);
    if (!r)
        return BL_INVALID;
    BL_TRY(check_scalar(wrt, bl_type_of(r->tensor)));
    bl_grad(r->tensor, x, count, dx);
    return bl_graph_status(c->graph);
}

static bl_status add_gradients(call *c, const char *wrt, const bl_dictionary *cotangent)
{
    bl_tensor *x = bl_alloc(2 * (c->arguments + 1) * sizeof *x);
    if (!x)
        return bl_no_memory(2 * (c->arguments + 1) * sizeof *x);
    bl_tensor *dx = x + c->arguments + 1;
    int count = 0;
    for (size_t i = 0; i < c->arguments; i++)
        if (bl_has_condition(c->argument[i].field->conditions, "grad"))
            x[count++] = c->argument[i].tensor;
    bl_status status = count ? differentiate(c, wrt, cotangent, x, count, dx) : BL_OK;
    int next = 0;
    for (size_t i = 0; i < c->arguments && status == BL_OK; i++) {
        if (!bl_has_condition(c->argument[i].field->conditions, "grad"))
            continue;
        result *r = add_result(c, c->argument[i].name, NULL);
        if (!r) {
            status = bl_no_memory(sizeof *r);
            break;
        }
        r->is_gradient = true;
        r->tensor = dx[next++];
    }
    bl_release(x);
    return status;
}

static bl_status evaluate(call *c, const bl_device *device)
{
    size_t n = c->arguments, m = c->results;
    bl_tensor *tensor = bl_alloc((n + m + 1) * sizeof *tensor);
    bl_array *array = bl_alloc((n + m + 1) * sizeof *array);
    bl_status status = tensor && array ? BL_OK : bl_no_memory((n + m) * sizeof *array);
    for (size_t i = 0; i < n && status == BL_OK; i++) {
        tensor[i] = c->argument[i].tensor;
        array[i] = c->argument[i].array;
    }
    for (size_t i = 0; i < m && status == BL_OK; i++)
        tensor[n + i] = c->result[i].tensor;
    if (status == BL_OK)
        status = bl_evaluate(device, tensor, array, (int)n, tensor + n, array + n, (int)m);
    for (size_t i = 0; i < m && status == BL_OK; i++)
        c->result[i].array = array[n + i];
    bl_release(tensor);
    bl_release(array);
    return status;
}

/* --- host functions --------------------------------------------------------------------------- */

/* The arrays that a host function fills; "i32[?]" is left to the function. */
static bl_status allocate_outputs(call *c, bool *open)
{
    int count;
    const bl_field *table = c->contract->table(&count);
    for (int i = 0; i < count; i++) {
        const bl_field *f = &table[i];
        bl_type type;
        *open = f->kind == BL_FIELD_OUT && strchr(f->type, '?');
        if (f->kind != BL_FIELD_OUT || *open)
            continue;
        if (!bl_pattern_resolve(f->type, 0, c->symbols, &type))
            return bl_fail(BL_INVALID, "the size of output %s (%s) does not follow from the inputs",
                           f->name, f->type);
        BL_TRY(bl_array_new(type.dtype, type.shape, at(c, f)));
    }
    return BL_OK;
}

/* Moves the outputs out of the struct, so that they are freed with the call whatever happened. */
static bl_status take_outputs(call *c, bl_status status)
{
    int count;
    const bl_field *table = c->contract->table(&count);
    for (int i = 0; i < count; i++) {
        const bl_field *f = &table[i];
        if (f->kind != BL_FIELD_OUT)
            continue;
        bl_array *array = at(c, f);
        result *r = add_result(c, f->name, NULL);
        if (r)
            r->array = *array;
        else
            bl_array_free(array);
        bl_dtype wanted;
        if (!r && status == BL_OK)
            status = bl_no_memory(sizeof *r);
        if (status == BL_OK && !bl_pattern_match(f->type, 0, array->type, c->symbols, &wanted))
            status = bl_type_error(f, f->name, 0, array->type, c->symbols);
    }
    return status;
}

/* The member of another struct of the contract's kind that holds this output. */
static bl_array *output_member(const call *c, void *fields, const char *name)
{
    int count;
    const bl_field *table = c->contract->table(&count);
    for (int i = 0; i < count; i++)
        if (table[i].kind == BL_FIELD_OUT && strcmp(table[i].name, name) == 0)
            return (bl_array *)((char *)fields + table[i].offset);
    return NULL;
}

/* Sets the cotangents that were given; of a scalar `wrt` it is `one`. */
static bl_status seed_host(const call *c, const char *wrt, const bl_dictionary *cotangent,
                           void *seeds, bl_array *one)
{
    for (size_t i = 0; cotangent && i < cotangent->count; i++) {
        const struct bl_entry *e = &cotangent->entry[i];
        const result *r = find_output(c, e->name);
        if (!r)
            return BL_INVALID;
        BL_TRY(check_cotangent(e, r->array.type));
        *output_member(c, seeds, e->name) = e->array;
    }
    if (cotangent)
        return BL_OK;
    BL_TRY(need_wrt(wrt));
    const result *r = find_output(c, wrt);
    if (!r)
        return BL_INVALID;
    BL_TRY(check_scalar(wrt, r->array.type));
    BL_TRY(bl_array_new(r->array.type.dtype, BL_SCALAR, one));
    bl_array_set(one, 0, 1);
    *output_member(c, seeds, wrt) = *one;
    return BL_OK;
}

/* Gradients of zero for every differentiable input, for the function to add to. */
static bl_status allocate_gradients(call *c, void *gradient)
{
    for (size_t i = 0; i < c->arguments; i++) {
        const argument *a = &c->argument[i];
        if (!bl_has_condition(a->field->conditions, "grad"))
            continue;
        result *r = add_result(c, a->name, NULL);
        if (!r)
            return bl_no_memory(sizeof *r);
        r->is_gradient = true;
        BL_TRY(bl_array_new(a->array.type.dtype, a->array.type.shape, &r->array));
        *(bl_array *)((char *)gradient + a->field->offset) = r->array;
    }
    return BL_OK;
}

static bl_status differentiate_host(call *c, const char *wrt, const bl_dictionary *cotangent)
{
    void *seeds = bl_alloc(c->contract->size), *gradient = bl_alloc(c->contract->size);
    bl_array one = {0};
    bl_status status = seeds && gradient ? BL_OK : bl_no_memory(c->contract->size);
    if (status == BL_OK)
        status = seed_host(c, wrt, cotangent, seeds, &one);
    if (status == BL_OK)
        status = allocate_gradients(c, gradient);
    if (status == BL_OK)
        status = c->contract->host_gradient(c->fields, seeds, gradient);
    bl_array_free(&one);
    bl_release(seeds);
    bl_release(gradient);
    return status;
}

static bl_status run_host(call *c, const char *wrt, const bl_dictionary *cotangent, bool gradient)
{
    if (gradient && !c->contract->host_gradient)
        return bl_fail(BL_UNSUPPORTED, "has no gradient: it is a function on arrays");
    for (size_t i = 0; i < c->arguments; i++)
        *(bl_array *)at(c, c->argument[i].field) = c->argument[i].array;
    bool open;
    bl_status status = allocate_outputs(c, &open);
    if (status == BL_OK)
        status = c->contract->host(c->fields);
    status = take_outputs(c, status);
    if (status == BL_OK && gradient)
        status = differentiate_host(c, wrt, cotangent);
    return status;
}

/* --- the call --------------------------------------------------------------------------------- */

static bl_status run_graph(call *c, const bl_device *device, const char *wrt,
                           const bl_dictionary *cotangent, bool gradient)
{
    BL_TRY(build(c));
    BL_TRY(collect_outputs(c));
    if (gradient)
        BL_TRY(add_gradients(c, wrt, cotangent));
    return evaluate(c, device);
}

static bool names_itself(const char *contract)
{
    size_t length = strlen(contract);
    return strncmp(bl_error(), contract, length) == 0 && bl_error()[length] == ':';
}

bl_status bl_function_call(const bl_contract *contract, const bl_device *device,
                           const bl_dictionary *in, const char *options, bl_dictionary *out,
                           const char *wrt, const bl_dictionary *cotangent, bl_dictionary *gradient)
{
    if (!contract->build && !contract->host)
        return bl_fail(BL_INVALID, "%s is a list of options, not a function", contract->name);
    bl_at(NULL, 0); /* inputs have no place in a source file */
    call c;
    bl_status status = call_begin(&c, contract, options);
    if (status == BL_OK)
        status = gather(&c, in);
    if (status == BL_OK && contract->check)
        status = contract->check(in, c.fields);
    if (status == BL_OK)
        status = contract->on_arrays ? run_host(&c, wrt, cotangent, gradient != NULL)
                                     : run_graph(&c, device, wrt, cotangent, gradient != NULL);
    if (status == BL_OK)
        status = deliver(&c, out, gradient);
    call_end(&c);
    if (status != BL_OK && !names_itself(contract->name))
        bl_fail_in(status, "%s", contract->name);
    return status;
}
