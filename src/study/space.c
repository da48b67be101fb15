/* The space of an arm and its points.
 *
 * Halton, Numerische Mathematik 2, 1960 (the sequence); Owen, "A randomized Halton algorithm in R",
 * arXiv 1706.02808 (random permutations of every digit, without which the coordinates of larger
 * primes walk in step). */
#include "study/space.h"

#include <stdlib.h>

#include "methods/contract.h"
#include "study/setting.h"

/* --- points --- */
double bl_halton(bl_key key, int dimension, uint32_t index)
{
    static const uint32_t primes[BL_SPACE_MOST] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37};
    uint32_t base = primes[dimension];
    double u = 0, place = 1.0 / base;
    bl_key own = bl_key_derive(key, (uint32_t)dimension);
    for (uint32_t k = 0; place > 1e-12; k++, place /= base, index /= base) {
        int32_t digit[37];
        bl_random random = bl_random_new(bl_key_derive(own, k));
        bl_random_permutation(&random, digit, base);
        u += place * digit[index % base];
    }
    return u < 1 ? u : 0;
}

/* Three digits are enough, and are read more easily. */
static double rounded(double x, const char *format)
{
    char text[32];
    snprintf(text, sizeof text, format, x);
    return strtod(text, NULL);
}

static double value_at(const bl_dimension *d, double u)
{
    switch (d->scale) {
    case BL_SCALE_LINEAR:
        return rounded(d->low + u * (d->high - d->low), "%.3g");
    case BL_SCALE_LOG:
        return rounded(d->low * pow(d->high / d->low, u), "%.3g");
    case BL_SCALE_COMPLEMENT:
        return 1 - rounded((1 - d->high) * pow((1 - d->low) / (1 - d->high), u), "%.3g");
    }
    return NAN;
}

/* --- ranges --- */
/* "tune [0.3,30] log" among the conditions; complement: by ratio of the distance to 1. */
static bool stated(const char *conditions, double *low, double *high, bl_scale *scale)
{
    const char *at = strstr(conditions, "tune [");
    char word[12] = "";
    if (!at || sscanf(at, "tune [%lf,%lf] %11[a-z]", low, high, word) < 2)
        return false;
    *scale = !strcmp(word, "log")          ? BL_SCALE_LOG
             : !strcmp(word, "complement") ? BL_SCALE_COMPLEMENT
                                           : BL_SCALE_LINEAR;
    return true;
}

/* Ends of "[0,1)" or ">= 1"; false where they are not numbers. */
static bool bounds(const char *range, double *low, double *high)
{
    char open, close, first[24], second[24];
    *low = -INFINITY;
    *high = INFINITY;
    if (sscanf(range, "%c%23[^,],%23[^])]%c", &open, first, second, &close) == 4 &&
        (open == '[' || open == '('))
        return bl_parse_double(first, low) && bl_parse_double(second, high);
    if (sscanf(range, ">= %lf", low) == 1 || sscanf(range, "> %lf", low) == 1)
        return true;
    return !strcmp(range, "finite");
}

static double least(double a, double b)
{
    return a < b ? a : b;
}

bool bl_option_searched(const bl_field *f, double *low, double *high, bl_scale *scale)
{
    if (f->kind != BL_FIELD_OPTION || strstr(f->conditions, "tune never"))
        return false;
    if (stated(f->conditions, low, high, scale))
        return true;
    double start = f->number, from, to;
    if (f->option != BL_OPTION_NUMBER || !(start >= 1e-4) || strstr(f->conditions, "integer") ||
        !bounds(f->conditions, &from, &to))
        return false;
    *scale = BL_SCALE_LOG;
    *low = start / 10 > from ? start / 10 : from;
    *high = start * 10;
    if (isinf(to))
        return true;
    if (to == 1 && start >= 0.9 && start < 1) {
        *scale = BL_SCALE_COMPLEMENT;
        *low = 1 - least(10 * (1 - start), 1 - from);
        *high = 1 - (1 - start) / 10;
    } else if (start <= from + (to - from) / 5) {
        *high = least(10 * start, from + 0.98 * (to - from));
    } else {
        *scale = BL_SCALE_LINEAR;
        *low = from + 0.02 * (to - from);
        *high = to - 0.02 * (to - from);
    }
    return *low < *high;
}

/* --- the space --- */
/* Whether part number `part` of an arm's text sets option `name`, at its default or not. */
static bool is_given(const char *arm, int part, const char *name)
{
    int depth = 0, at = 0;
    size_t length = strlen(name);
    for (; *arm; arm++) {
        depth += (*arm == '(' || *arm == '[') - (*arm == ')' || *arm == ']');
        at += *arm == '+' && depth == 0;
        if (at != part || depth != 1 || (*arm != '(' && *arm != ','))
            continue;
        const char *word = arm + 1 + strspn(arm + 1, " \t");
        if (!strncmp(word, name, length) && word[length + strspn(word + length, " \t")] == '=')
            return true;
    }
    return false;
}

static const bl_contract *options_of(const char *slug)
{
    const bl_method *method;
    if (bl_method_find(slug, &method) != BL_OK)
        return NULL;
    return method->options ? method->options : method->functions[0];
}

static void add_options(bl_space *s, const char *given, int part)
{
    const bl_contract *contract = options_of(s->arm.part[part].name);
    int count = 0;
    const bl_field *table = contract ? contract->table(&count) : NULL;
    for (int i = 0; i < count && s->count < BL_SPACE_MOST; i++) {
        bl_dimension d = {.part = part, .field = &table[i]};
        if (!bl_option_searched(d.field, &d.low, &d.high, &d.scale) ||
            is_given(given, part, d.field->name))
            continue;
        snprintf(d.name, sizeof d.name, "%s.%s", s->arm.part[part].name, d.field->name);
        s->dimension[s->count++] = d;
    }
}

bl_status bl_space_new(const char *given, const bl_recipe *recipe, uint64_t seed, bl_space *out)
{
    *out = (bl_space){.key = bl_key_derive_name(bl_key_from_seed(seed), "points of search")};
    BL_TRY(bl_arm_parse(given, &out->arm));
    double rate = recipe->learning_rate, decay = recipe->weight_decay;
    out->dimension[BL_SPACE_RATE] = (bl_dimension){.name = "learning_rate",
                                                   .part = -1,
                                                   .low = rate / BL_RATE_REACH,
                                                   .high = rate * BL_RATE_REACH,
                                                   .scale = BL_SCALE_LOG};
    out->dimension[BL_SPACE_DECAY] = (bl_dimension){.name = "weight_decay",
                                                    .part = -1,
                                                    .low = decay > 0 ? decay / 30 : 1e-6,
                                                    .high = decay > 0 ? decay * 30 : 1e-2,
                                                    .scale = BL_SCALE_LOG};
    out->count = 2;
    for (int part = 0; part < out->arm.parts; part++)
        add_options(out, given, part);
    return BL_OK;
}

void bl_space_free(bl_space *space)
{
    bl_arm_free(&space->arm);
    *space = (bl_space){0};
}

/* --- settings --- */
/* "elr(lambda=1.7,beta=0.7)": searched options at their values, the others as in the arm. */
static void write_part(const bl_space *s, int part, const double *value, bl_text *out)
{
    const bl_contract *contract = options_of(s->arm.part[part].name);
    int count = 0, written = 0;
    const bl_field *table = contract->table(&count);
    bl_text_add(out, "%s%s", part ? "+" : "", s->arm.part[part].name);
    for (int i = 0; i < count; i++) {
        if (table[i].kind != BL_FIELD_OPTION)
            continue;
        int d = 2;
        while (d < s->count && (s->dimension[d].part != part || s->dimension[d].field != &table[i]))
            d++;
        bl_text now = {0}, standard = {0};
        if (d < s->count)
            bl_text_add(&now, table[i].option == BL_OPTION_INTEGER ? "%.0f" : "%.6g", value[d]);
        else
            bl_option_show(contract, s->arm.part[part].options, &table[i], &now);
        bl_option_show_default(&table[i], &standard);
        if (now.failed || standard.failed)
            out->failed = true;
        else if (d < s->count || strcmp(now.at, standard.at) != 0)
            bl_text_add(out, "%s%s=%s", written++ ? "," : "(", table[i].name, now.at);
        bl_text_free(&now);
        bl_text_free(&standard);
    }
    if (written)
        bl_text_add(out, ")");
}

/* The setting at a point; BL_INVALID where options contradict each other there. */
static bl_status setting_at(const bl_space *s, uint32_t index, char **setting)
{
    double value[BL_SPACE_MOST];
    bl_text text = {0};
    bl_arm arm = {0};
    for (int d = 0; d < s->count; d++)
        value[d] = value_at(&s->dimension[d], bl_halton(s->key, d, index));
    for (int part = 0; part < s->arm.parts; part++)
        write_part(s, part, value, &text);
    if (!s->arm.parts)
        bl_text_add(&text, "%s", s->arm.text);
    bl_status status = text.failed ? bl_no_memory(text.length) : bl_arm_parse(text.at, &arm);
    if (status == BL_OK) {
        *setting = bl_setting_text(arm.text, value[BL_SPACE_RATE], value[BL_SPACE_DECAY]);
        status = *setting ? BL_OK : bl_no_memory(0);
    }
    bl_arm_free(&arm);
    bl_text_free(&text);
    return status;
}

bl_status bl_space_setting(const bl_space *s, int trial, char **setting)
{
    /* Later points, where those of the first trials contradict themselves. */
    enum { TRIES = 100, STRIDE = 1009 };
    if (trial == 0) {
        *setting = bl_copy_text(s->arm.text);
        return *setting ? BL_OK : bl_no_memory(0);
    }
    bl_status status = BL_INVALID;
    for (uint32_t i = 0; i < TRIES && status == BL_INVALID; i++)
        status = setting_at(s, (uint32_t)trial + i * STRIDE, setting);
    return status;
}
