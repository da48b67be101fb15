/* Arms: what is compared. "elr(beta=0.7)+ema" is two methods with options, "baseline" none, and
 * "null" the baseline again with other seeds.
 *
 *     arm    part { "+" part }
 *     part   method [ "(" option "=" value { "," option "=" value } ")" ]
 *
 * Parts are checked against each other here, by what their methods need and give; whether an arm
 * fits a task is the task's business. */
#include "methods/contract.h"

typedef struct reader {
    const char *at; /* what is still to be read */
} reader;

/* What the parts are made of: the record, and the contract that lays out the options. */
static const bl_contract *options_of(const bl_method *method)
{
    return method->options ? method->options : method->functions[0];
}

static void skip_blanks(reader *r)
{
    while (*r->at == ' ' || *r->at == '\t')
        r->at++;
}

/* How far it is to one of `stops`; those inside of a list, [6,3], do not count. */
static size_t length_to(const char *at, const char *stops)
{
    int depth = 0;
    size_t length = 0;
    while (at[length] && !(depth <= 0 && strchr(stops, at[length]))) {
        depth += (at[length] == '[') - (at[length] == ']');
        length++;
    }
    return length;
}

/* Copies up to one of `stops`; trailing blanks are dropped. */
static bl_status read_word(reader *r, const char *stops, const char *what, char *out, size_t size)
{
    skip_blanks(r);
    size_t length = length_to(r->at, stops);
    const char *start = r->at;
    r->at += length;
    while (length > 0 && (start[length - 1] == ' ' || start[length - 1] == '\t'))
        length--;
    if (length == 0)
        return bl_fail(BL_INVALID, "%s expected where it says \"%.20s\"", what,
                       *start ? start : "nothing");
    if (length >= size)
        return bl_fail(BL_INVALID, "\"%.20s..\" is too long for %s", start, what);
    memcpy(out, start, length);
    out[length] = '\0';
    return BL_OK;
}

static bl_status read_option(reader *r, const bl_contract *contract, void *options, char *seen)
{
    char name[64], value[64];
    BL_TRY(read_word(r, "=,)+", "an option", name, sizeof name));
    const bl_field *field = bl_option_find(contract, name);
    if (!field)
        return BL_INVALID;
    if (*r->at != '=')
        return bl_fail(BL_INVALID, "option %s has no value: write %s=VALUE", name, name);
    r->at++;
    BL_TRY(read_word(r, ",)", "a value", value, sizeof value));
    int count;
    ptrdiff_t row = field - contract->table(&count);
    if (row < 64 && seen[row]++)
        return bl_fail(BL_INVALID, "option %s is given twice", name);
    return bl_option_set_text(contract, options, field, value);
}

static bl_status read_options(reader *r, const bl_contract *contract, void *options)
{
    char seen[64] = {0};
    skip_blanks(r);
    if (*r->at != '(')
        return BL_OK;
    r->at++;
    skip_blanks(r);
    while (*r->at != ')') {
        BL_TRY(read_option(r, contract, options, seen));
        skip_blanks(r);
        if (*r->at == ',')
            r->at++;
        else if (*r->at != ')')
            return bl_fail(BL_INVALID, "the bracket is not closed");
    }
    r->at++;
    skip_blanks(r);
    return BL_OK;
}

static bl_status check_options(const bl_contract *contract, const void *options)
{
    bl_symbols *symbols = bl_alloc(sizeof *symbols);
    if (!symbols)
        return bl_no_memory(sizeof *symbols);
    bl_status status = bl_options_check(contract, options, symbols);
    bl_release(symbols);
    return status;
}

static bl_status find_arm(const char *name, const bl_method **out)
{
    const char *known[512];
    int count = 0;
    for (int i = 0; i < bl_method_count() && count < 510; i++) {
        const bl_method *method = bl_method_at(i);
        if (!method->hooks)
            continue;
        known[count++] = method->slug;
        *out = method;
        if (strcmp(method->slug, name) == 0)
            return BL_OK;
    }
    if (bl_method_find(name, out) == BL_OK)
        return bl_fail(BL_INVALID, "%s has functions, but no arm", name);
    known[count++] = "baseline";
    known[count++] = "null";
    const char *nearest = bl_nearest(name, known, count);
    if (nearest)
        return bl_fail(BL_NOT_FOUND, "no method is called %s; did you mean %s?", name, nearest);
    return bl_fail(BL_NOT_FOUND, "no method is called %s; `ballast list` shows all", name);
}

static bl_status read_part(reader *r, bl_arm_part *part)
{
    char name[64];
    const bl_method *method;
    BL_TRY(read_word(r, "(+", "a method", name, sizeof name));
    if (strcmp(name, "baseline") == 0 || strcmp(name, "null") == 0)
        return bl_fail(BL_INVALID, "%s stands alone: it cannot be combined", name);
    BL_TRY(find_arm(name, &method));
    const bl_contract *contract = options_of(method);
    *part = (bl_arm_part){.name = method->slug, .hooks = method->hooks, .traits = method->traits};
    part->options = bl_fields_new(contract);
    if (!part->options)
        return bl_no_memory(contract->size);
    bl_status status = read_options(r, contract, part->options);
    if (status == BL_OK)
        status = check_options(contract, part->options);
    return status == BL_OK ? BL_OK : bl_fail_in(status, "%s", method->slug);
}

/* --- do the parts go together? ---------------------------------------------------------------- */

static bl_status check_pair(const bl_arm *arm, int i, int j)
{
    const bl_arm_part *p = &arm->part[i], *q = &arm->part[j];
    if (i < j && strcmp(p->name, q->name) == 0)
        return bl_fail(BL_INVALID, "%s appears twice", p->name);
    if ((p->traits & BL_HARD_LABELS) && (q->traits & BL_SOFTENS_LABELS))
        return bl_fail(BL_INVALID, "%s needs hard labels, but %s%s makes them soft%s", p->name,
                       q->name, j < i ? " before it" : "",
                       j < i ? "" : ": batches are changed before any loss is taken");
    if ((p->traits & BL_CLASSIFICATION) && (q->traits & BL_REGRESSION))
        return bl_fail(BL_INVALID, "%s is for classification, but %s for regression", p->name,
                       q->name);
    return BL_OK;
}

static bl_status check_pairs(const bl_arm *arm)
{
    for (int i = 0; i < arm->parts; i++)
        for (int j = 0; j < arm->parts; j++)
            if (i != j)
                BL_TRY(check_pair(arm, i, j));
    return BL_OK;
}

/* --- canonical text --------------------------------------------------------------------------- */

static void write_options(const bl_contract *contract, const void *options, bl_text *out)
{
    int count, written = 0;
    const bl_field *table = contract->table(&count);
    for (int i = 0; i < count; i++) {
        bl_text value = {0}, standard = {0};
        if (table[i].kind != BL_FIELD_OPTION)
            continue;
        bl_option_show(contract, options, &table[i], &value);
        bl_option_show_default(&table[i], &standard);
        if (value.failed || standard.failed)
            out->failed = true;
        else if (strcmp(value.at, standard.at) != 0)
            bl_text_add(out, "%s%s=%s", written++ ? "," : "(", table[i].name, value.at);
        bl_text_free(&value);
        bl_text_free(&standard);
    }
    if (written)
        bl_text_add(out, ")");
}

static bl_status write_canonical(bl_arm *arm)
{
    bl_text out = {0};
    if (arm->parts == 0)
        bl_text_add(&out, "%s", arm->null ? "null" : "baseline");
    for (int i = 0; i < arm->parts; i++) {
        const bl_method *method;
        BL_TRY(bl_method_find(arm->part[i].name, &method));
        bl_text_add(&out, "%s%s", i ? "+" : "", method->slug);
        write_options(options_of(method), arm->part[i].options, &out);
    }
    arm->text = out.at;
    return out.failed ? bl_no_memory(out.length) : BL_OK;
}

/* --- the arm ---------------------------------------------------------------------------------- */

static bl_status read_parts(reader *r, bl_arm *arm)
{
    size_t capacity = 0;
    for (;;) {
        if (!BL_GROW(arm->part, arm->parts, capacity))
            return bl_no_memory(sizeof *arm->part);
        arm->part[arm->parts] = (bl_arm_part){0};
        arm->parts++;
        BL_TRY(read_part(r, &arm->part[arm->parts - 1]));
        if (*r->at == '\0')
            return BL_OK;
        if (*r->at != '+')
            return bl_fail(BL_INVALID, "\"+\" expected where it says \"%.20s\"", r->at);
        r->at++;
    }
}

static bool is_word(const char *text, const char *word)
{
    size_t length = strlen(word);
    text += strspn(text, " \t");
    return strncmp(text, word, length) == 0 && text[length + strspn(text + length, " \t")] == '\0';
}

static bl_status parse(const char *text, bl_arm *out)
{
    reader r = {text};
    out->null = is_word(text, "null");
    if (!out->null && !is_word(text, "baseline")) {
        BL_TRY(read_parts(&r, out));
        BL_TRY(check_pairs(out));
    }
    return write_canonical(out);
}

bl_status bl_arm_parse(const char *text, bl_arm *out)
{
    *out = (bl_arm){0};
    bl_status status = parse(text, out);
    if (status != BL_OK) {
        bl_arm_free(out);
        return bl_fail_in(status, "arm \"%s\"", text);
    }
    return BL_OK;
}

void bl_arm_free(bl_arm *arm)
{
    for (int i = 0; i < arm->parts; i++)
        bl_release(arm->part[i].options);
    bl_release(arm->part);
    bl_release(arm->text);
    *arm = (bl_arm){0};
}

unsigned bl_arm_traits(const bl_arm *arm)
{
    unsigned traits = 0;
    for (int i = 0; i < arm->parts; i++)
        traits |= arm->part[i].traits;
    return traits;
}
