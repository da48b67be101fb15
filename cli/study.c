/* ballast study: what the store remembers. list, show, export, preset and rm are operands, each
 * with the studies it is about: a number of `list`, or a name given by compare --name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "base/base.h"
#include "cli.h"
#include "study/export.h"

typedef struct flags {
    const char *store, *output;
    bool json, csv, all, yes;
} flags;

/* --- finding ---------------------------------------------------------------------------------- */
/* The studies that a word stands for: one by its number, or those of a name, which has several
 * where its command had several data sets. */
typedef struct search {
    const char *wanted;
    int64_t *id;
    int count, capacity;
    char *name; /* NULL: it was a number */
    bool is_prefix;
} search;

static void free_search(search *s)
{
    bl_release(s->id);
    bl_release(s->name);
    *s = (search){0};
}

static bl_status add_study(search *s, int64_t id)
{
    for (int i = 0; i < s->count; i++)
        if (s->id[i] == id)
            return BL_OK;
    if (s->count == s->capacity) {
        int64_t *grown = bl_alloc((size_t)(2 * s->capacity + 4) * sizeof *grown);
        if (!grown)
            return bl_no_memory(0);
        if (s->count)
            memcpy(grown, s->id, (size_t)s->count * sizeof *grown);
        bl_release(s->id);
        s->id = grown;
        s->capacity = 2 * s->capacity + 4;
    }
    s->id[s->count++] = id;
    return BL_OK;
}

static bl_status compare_number(void *context, const bl_store_row *row)
{
    search *s = context;
    int64_t number;
    return bl_parse_int(s->wanted, &number) && number == row->id ? add_study(s, row->id) : BL_OK;
}

static bl_status compare_name(void *context, const char *name, int64_t study)
{
    search *s = context;
    size_t length = strlen(s->wanted);
    if (s->is_prefix ? strncmp(name, s->wanted, length) != 0 : strcmp(name, s->wanted) != 0)
        return BL_OK;
    if (s->name && strcmp(s->name, name) != 0)
        return bl_fail(BL_INVALID, "\"%s\" may be %s or %s: say more of it", s->wanted, s->name,
                       name);
    if (!s->name && !(s->name = bl_copy_text(name)))
        return bl_no_memory(length);
    return add_study(s, study);
}

/* A number, a name, or the beginning of one name alone. */
static bl_status find(bl_store *store, const char *wanted, search *out)
{
    *out = (search){.wanted = wanted};
    bl_status status = bl_store_each(store, compare_number, out);
    if (status == BL_OK && !out->count)
        status = bl_store_each_name(store, compare_name, out);
    out->is_prefix = true;
    if (status == BL_OK && !out->count && *wanted)
        status = bl_store_each_name(store, compare_name, out);
    if (status == BL_OK && !out->count)
        status =
            bl_fail(BL_INVALID,
                    "there is no study \"%s\"; ballast study list shows numbers and names", wanted);
    if (status != BL_OK)
        free_search(out);
    return status;
}

/* --- list ------------------------------------------------------------------------------------- */
static void show_time(int64_t at, char text[32])
{
    time_t seconds = (time_t)at;
    struct tm t;
    if (!at || !localtime_r(&seconds, &t) || !strftime(text, 32, "%Y-%m-%d %H:%M", &t))
        snprintf(text, 32, "-");
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "?";
}

static const char *data_of(const json_t *plan)
{
    return text_of(json_object_get(plan, "plan"), "data");
}

/* This study's part of what a command said, which may have been of several data sets. */
static const json_t *part_of(const json_t *said, const json_t *plan)
{
    size_t i;
    const json_t *study;
    json_array_foreach(json_object_get(said, "studies"), i, study)
    {
        if (!strcmp(text_of(study, "data_hash"), text_of(plan, "data")))
            return study;
    }
    return said;
}

/* [{"arm": "elr", "verdict": "helps"}, ..]; an arm whose runs failed or that did nothing has none.
 */
static json_t *verdicts_of(const json_t *said)
{
    json_t *list = json_array();
    size_t i;
    const json_t *arm;
    json_array_foreach(json_object_get(said, "arms"), i, arm)
    {
        const char *verdict =
            json_string_value(json_object_get(json_object_get(arm, "comparison"), "verdict"));
        if (i > 0)
            json_array_append_new(
                list, json_pack("{s:s,s:s?}", "arm", text_of(arm, "arm"), "verdict", verdict));
    }
    return list;
}

typedef struct listing {
    json_t *json;     /* NULL: print lines */
    char program[17]; /* the hash of this program */
    int width, count;
} listing;

static bl_status hash_program(char hash[17])
{
    char *program;
    size_t size;
    BL_TRY(bl_read_file("/proc/self/exe", &program, &size));
    snprintf(hash, 17, "%016llx", (unsigned long long)bl_hash(program, size, 0));
    bl_release(program);
    return BL_OK;
}

static json_t *row_json(const listing *l, const bl_store_row *row, const json_t *plan,
                        json_t *verdicts)
{
    return json_pack("{s:I,s:s?,s:s,s:s,s:s,s:b,s:I,s:I,s:i,s:i,s:i,s:s?,s:o}", "id",
                     (json_int_t)row->id, "name", row->name, "data", data_of(plan), "data_hash",
                     text_of(plan, "data"), "ballast", text_of(plan, "version"), "this_build",
                     !strcmp(text_of(plan, "program"), l->program), "made", (json_int_t)row->made,
                     "said", (json_int_t)row->said, "done", row->counts.done, "failed",
                     row->counts.failed, "unfinished", row->counts.pending + row->counts.running,
                     "command", row->command, "verdicts", verdicts);
}

static void print_verdicts(const json_t *verdicts, int width)
{
    bl_text text = {0};
    size_t i;
    const json_t *v;
    json_array_foreach((json_t *)verdicts, i, v)
    {
        const char *verdict = json_string_value(json_object_get(v, "verdict"));
        bl_text_add(&text, "%s%s: %s", i ? ", " : "", text_of(v, "arm"),
                    verdict ? verdict : "no verdict");
    }
    if (text.length && !text.failed) {
        fputs("      ", stdout);
        cli_wrap(text.at, 6, 8, width);
    }
    bl_text_free(&text);
}

static void print_row(const listing *l, const bl_store_row *row, const json_t *plan,
                      const json_t *verdicts)
{
    char made[32];
    int unfinished = row->counts.pending + row->counts.running;
    show_time(row->made, made);
    printf("%4lld  %-16s  %s%s%s: %d runs", (long long)row->id, made, row->name ? row->name : "",
           row->name ? ": " : "", data_of(plan), row->counts.done);
    if (row->counts.failed)
        printf(", %d failed", row->counts.failed);
    if (unfinished)
        printf(", %d unfinished", unfinished);
    printf("; ballast %s%s%s\n", text_of(plan, "version"),
           strcmp(text_of(plan, "program"), l->program) != 0 ? ", another build" : "",
           row->command ? "" : "; no verdict yet");
    print_verdicts(verdicts, l->width);
    if (row->command) {
        fputs("      ", stdout);
        cli_wrap(row->command, 6, 8, l->width);
    }
}

static bl_status list_row(void *context, const bl_store_row *row)
{
    listing *l = context;
    json_t *plan = json_loads(row->plan, 0, NULL),
           *said = row->json ? json_loads(row->json, 0, NULL) : NULL;
    json_t *verdicts = verdicts_of(part_of(said, plan)), *entry = NULL;
    l->count++;
    if (l->json)
        entry = row_json(l, row, plan, json_incref(verdicts));
    else
        print_row(l, row, plan, verdicts);
    bool failed = l->json && json_array_append_new(l->json, entry) != 0;
    json_decref(verdicts);
    json_decref(said);
    json_decref(plan);
    return failed ? bl_no_memory(0) : BL_OK;
}

static bl_status list(bl_store *store, const flags *f)
{
    listing l = {.json = f->json ? json_array() : NULL, .width = cli_width(STDOUT_FILENO)};
    BL_TRY(hash_program(l.program));
    bl_status status = bl_store_each(store, list_row, &l);
    char *text = l.json ? json_dumps(l.json, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
    if (status == BL_OK && text) {
        status = cli_write(f->output, text);
        if (status == BL_OK && !f->output)
            puts("");
    } else if (status == BL_OK && !l.count) {
        puts("no studies yet; ballast compare makes one");
    }
    free(text);
    json_decref(l.json);
    return status;
}

/* --- show ------------------------------------------------------------------------------------- */
typedef struct showing {
    const flags *flags;
    const char *name; /* NULL: what any command said about the study */
    bl_text text;     /* of the last, or of all */
    int count;
} showing;

static bl_status keep_saying(void *context, const bl_store_saying *saying)
{
    showing *s = context;
    if (s->name && (!saying->name || strcmp(saying->name, s->name) != 0))
        return BL_OK;
    s->count++;
    if (!s->flags->all) {
        bl_text_free(&s->text);
        s->text = (bl_text){0};
    } else if (!s->flags->json) {
        bl_text_add(&s->text, "%s$ %s\n\n", s->count > 1 ? "\n" : "", saying->command);
    }
    bl_text_add(&s->text, "%s", s->flags->json ? saying->json : saying->table);
    if (s->text.length && s->text.at[s->text.length - 1] != '\n')
        bl_text_add(&s->text, "\n");
    return s->text.failed ? bl_no_memory(0) : BL_OK;
}

static bl_status show(bl_store *store, const search *found, const flags *f)
{
    showing s = {.flags = f, .name = found->name};
    bl_status status = bl_store_each_saying(store, found->id[0], keep_saying, &s);
    if (status == BL_OK && !s.count)
        status =
            bl_fail(BL_INVALID, "study %s has no verdict yet; the command that began it goes on",
                    found->wanted);
    if (status == BL_OK)
        status = cli_write(f->output, s.text.at);
    bl_text_free(&s.text);
    return status;
}

/* --- export, rm ------------------------------------------------------------------------------- */
static bl_status export_jobs(bl_store *store, const search *found, const flags *f)
{
    bl_text text = {0};
    if (found->count > 1)
        return bl_fail(BL_INVALID,
                       "%s is of %d data sets, the first of which is study %lld: export them by "
                       "their numbers, which ballast study list shows",
                       found->name, found->count, (long long)found->id[0]);
    bl_status status = f->json ? bl_export_json(store, found->id[0], &text)
                               : bl_export_csv(store, found->id[0], &text);
    if (status == BL_OK)
        status = cli_write(f->output, text.at);
    bl_text_free(&text);
    return status;
}

static bl_status export_presets(bl_store *store, const search *found, const flags *f)
{
    bl_text text = {0};
    bl_status status = bl_export_presets(store, found->id, found->count, &text);
    if (status == BL_OK)
        status = cli_write(f->output, text.at);
    bl_text_free(&text);
    return status;
}

/* What would go, in words: "study 3 (wine): prices.csv, 48 runs". */
typedef struct going {
    int64_t id;
    bl_text text;
} going;

static bl_status describe(void *context, const bl_store_row *row)
{
    going *g = context;
    if (row->id != g->id)
        return BL_OK;
    json_t *plan = json_loads(row->plan, 0, NULL);
    bl_text_add(&g->text, "study %lld%s%s%s: %s, %d runs and %s", (long long)row->id,
                row->name ? " (" : "", row->name ? row->name : "", row->name ? ")" : "",
                data_of(plan), row->counts.done, row->command ? "its verdicts" : "no verdict");
    json_decref(plan);
    return g->text.failed ? bl_no_memory(0) : BL_OK;
}

static bool is_confirmed(const char *what)
{
    char answer[16] = "";
    fprintf(stderr, "Forget %s? (yes/no) ", what);
    return fgets(answer, sizeof answer, stdin) && !strcmp(answer, "yes\n");
}

static bl_status forget_study(bl_store *store, int64_t id, const flags *f)
{
    going g = {.id = id};
    bl_status status = bl_store_each(store, describe, &g);
    if (status == BL_OK && !f->yes && !isatty(STDIN_FILENO))
        status = bl_fail(BL_INVALID, "study rm would forget %s: say --yes", g.text.at);
    else if (status == BL_OK && !f->yes && !is_confirmed(g.text.at))
        status = bl_fail(BL_INVALID, "study %lld is kept", (long long)id);
    if (status == BL_OK)
        status = bl_store_remove(store, id);
    if (status == BL_OK)
        fprintf(stderr, "forgot %s\n", g.text.at);
    bl_text_free(&g.text);
    return status;
}

static bl_status forget(bl_store *store, const search *found, const flags *f)
{
    for (int i = 0; i < found->count; i++)
        BL_TRY(forget_study(store, found->id[i], f));
    return BL_OK;
}

/* --- the command ------------------------------------------------------------------------------ */
static bl_status check_words(const cli_texts *words, const flags *f)
{
    const char *verb = words->at[0];
    bool is_list = !strcmp(verb, "list"), is_show = !strcmp(verb, "show"),
         is_export = !strcmp(verb, "export"), is_preset = !strcmp(verb, "preset"),
         is_rm = !strcmp(verb, "rm");
    if (!is_list && !is_show && !is_export && !is_preset && !is_rm)
        return bl_fail(BL_INVALID,
                       "there is no \"study %s\", but list, show, export, preset and rm", verb);
    if (is_list != (words->count == 1))
        return bl_fail(BL_INVALID,
                       is_list ? "study list takes no operands"
                               : "study %s needs the number or name of a study",
                       verb);
    if (!is_rm && words->count > 2)
        return bl_fail(BL_INVALID, "study %s is of one study, but %d are given", verb,
                       words->count - 1);
    if (f->json && f->csv)
        return bl_fail(BL_INVALID, "--json and --csv exclude each other");
    bool file = f->output && strcmp(f->output, "-") != 0; /* that is standard output */
    return file ? cli_check_output(f->output, "output") : BL_OK;
}

/* One study of the command, by number or name. */
static bl_status run_on(bl_store *store, const char *verb, const char *wanted, const flags *f)
{
    search found;
    BL_TRY(find(store, wanted, &found));
    bl_status status = !strcmp(verb, "show")     ? show(store, &found, f)
                       : !strcmp(verb, "export") ? export_jobs(store, &found, f)
                       : !strcmp(verb, "preset") ? export_presets(store, &found, f)
                                                 : forget(store, &found, f);
    free_search(&found);
    return status;
}

static bl_status run(const cli_texts *words, const flags *f)
{
    bl_store *store = NULL;
    BL_TRY(check_words(words, f));
    char *path = f->store ? bl_copy_text(f->store) : bl_store_default_path();
    bl_status status = path ? BL_OK : bl_no_memory(0);
    if (status == BL_OK && f->store && access(path, F_OK) != 0)
        status = bl_fail(BL_INVALID, "store %s: there is no such file", path);
    if (status == BL_OK)
        status = bl_store_open(path, &store);
    if (status == BL_OK && words->count == 1)
        status = list(store, f);
    for (int i = 1; i < words->count && status == BL_OK; i++)
        status = run_on(store, words->at[0], words->at[i], f);
    bl_store_close(store);
    bl_release(path);
    return status;
}

int cli_study(int argc, char **argv)
{
    flags f = {0};
    const cli_option options[] = {
        {.name = "store",
         .kind = CLI_TEXT,
         .value = &f.store,
         .argument = "FILE",
         .text = "where results are kept (default: ~/.local/state/ballast/studies.db)"},
        {.name = "json",
         .kind = CLI_FLAG,
         .value = &f.json,
         .text = "list, show or export JSON; show prints what compare --json did (docs/json.md)"},
        {.name = "csv", .kind = CLI_FLAG, .value = &f.csv, .text = "export CSV (the default)"},
        {.name = "all",
         .kind = CLI_FLAG,
         .value = &f.all,
         .text = "show what every command about this study said, not only the last"},
        {.name = "output",
         .kind = CLI_TEXT,
         .value = &f.output,
         .argument = "FILE",
         .letter = 'o',
         .text = "write to FILE instead of standard output"},
        {.name = "yes", .kind = CLI_FLAG, .value = &f.yes, .text = "rm: do not ask"},
        {0},
    };
    const cli_usage usage = {
        .command = "study",
        .synopsis = "ballast study list|show|export|preset|rm [STUDY]... [OPTION]...",
        .description =
            "Looks into the store of studies, which ballast compare fills. STUDY is a number of "
            "`list`, a name given by compare --name, or the beginning of one. Nothing is run "
            "again, so studies of other builds are shown too.\n\n"
            "  ballast study list                      every study: runs, verdicts, command\n"
            "  ballast study show wine                 the table that compare printed\n"
            "  ballast study export wine -o wine.csv   every run: metrics, work, seconds\n"
            "  ballast study preset wine -o best.json  what tuning chose: for --preset\n"
            "  ballast study rm 3 4 --yes              forgets",
        .options = {options},
        .least = 1,
        .most = -1};
    cli_texts words = {0};
    int code = cli_parse(&usage, argc, argv, &words);
    if (code >= 0)
        return code;
    bl_status status = run(&words, &f);
    return status == BL_OK ? CLI_OK : cli_fail("study", status);
}
