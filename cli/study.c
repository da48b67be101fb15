/* ballast study: what the store remembers. list, show, export and rm are operands, each with the
 * studies it is about: a number of `list`, or a name given by compare --name. */
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
typedef struct search {
    const char *wanted;
    int64_t id; /* 0: not found */
    bl_store_counts counts;
} search;

static bl_status compare_row(void *context, const bl_store_row *row)
{
    search *s = context;
    int64_t number;
    bool by_number = bl_parse_int(s->wanted, &number) && number == row->id;
    if (by_number || (row->name && !strcmp(row->name, s->wanted))) {
        s->id = row->id;
        s->counts = row->counts;
    }
    return BL_OK;
}

static bl_status find(bl_store *store, const char *wanted, search *out)
{
    *out = (search){.wanted = wanted};
    BL_TRY(bl_store_each(store, compare_row, out));
    return out->id ? BL_OK
                   : bl_fail(BL_INVALID,
                             "there is no study \"%s\"; ballast study list shows numbers and names",
                             wanted);
}

/* --- list ------------------------------------------------------------------------------------- */
static void show_time(int64_t at, char text[32])
{
    time_t seconds = (time_t)at;
    struct tm t;
    if (!at || !localtime_r(&seconds, &t) || !strftime(text, 32, "%Y-%m-%d %H:%M", &t))
        snprintf(text, 32, "-");
}

static const char *data_of(const json_t *plan)
{
    const char *data = json_string_value(json_object_get(json_object_get(plan, "plan"), "data"));
    return data ? data : "?";
}

typedef struct listing {
    json_t *json; /* NULL: print lines */
    int width, count;
} listing;

static json_t *row_json(const bl_store_row *row, const json_t *plan)
{
    return json_pack("{s:I,s:s?,s:s,s:I,s:I,s:i,s:i,s:i,s:s?}", "id", (json_int_t)row->id, "name",
                     row->name, "data", data_of(plan), "made", (json_int_t)row->made, "said",
                     (json_int_t)row->said, "done", row->counts.done, "failed", row->counts.failed,
                     "unfinished", row->counts.pending + row->counts.running, "command",
                     row->command);
}

static void print_row(const listing *l, const bl_store_row *row, const json_t *plan)
{
    char made[32];
    int unfinished = row->counts.pending + row->counts.running;
    show_time(row->made, made);
    printf("%4lld  %-16s  %s%s%s: %d runs", (long long)row->id, made, row->name ? row->name : "",
           row->name ? ", " : "", data_of(plan), row->counts.done);
    if (row->counts.failed)
        printf(", %d failed", row->counts.failed);
    if (unfinished)
        printf(", %d unfinished", unfinished);
    printf("%s\n      ", row->command ? "" : "; no verdict yet");
    cli_wrap(row->command ? row->command : "", 6, 8, l->width);
}

static bl_status list_row(void *context, const bl_store_row *row)
{
    listing *l = context;
    json_t *plan = json_loads(row->plan, 0, NULL);
    l->count++;
    if (l->json)
        json_array_append_new(l->json, row_json(row, plan));
    else
        print_row(l, row, plan);
    json_decref(plan);
    return BL_OK;
}

static bl_status list(bl_store *store, const flags *f)
{
    listing l = {.json = f->json ? json_array() : NULL, .width = cli_width(STDOUT_FILENO)};
    bl_status status = bl_store_each(store, list_row, &l);
    char *text = l.json ? json_dumps(l.json, JSON_INDENT(1)) : NULL;
    if (text)
        puts(text);
    else if (status == BL_OK && !l.count)
        puts("no studies yet; ballast compare makes one");
    free(text);
    json_decref(l.json);
    return status;
}

/* --- show ------------------------------------------------------------------------------------- */
typedef struct showing {
    const flags *flags;
    bl_text text; /* of the last, or of all */
    int count;
} showing;

static bl_status keep_saying(void *context, const bl_store_saying *saying)
{
    showing *s = context;
    s->count++;
    if (!s->flags->all) {
        bl_text_free(&s->text);
        s->text = (bl_text){0};
    } else {
        bl_text_add(&s->text, "%s$ %s\n\n", s->count > 1 ? "\n" : "", saying->command);
    }
    bl_text_add(&s->text, "%s%s", s->flags->json ? saying->json : saying->table,
                s->flags->json ? "\n" : "");
    return s->text.failed ? bl_no_memory(0) : BL_OK;
}

static bl_status show(bl_store *store, const char *wanted, const flags *f)
{
    search found;
    showing s = {.flags = f};
    BL_TRY(find(store, wanted, &found));
    bl_status status = bl_store_each_saying(store, found.id, keep_saying, &s);
    if (status == BL_OK && !s.count)
        status = bl_fail(BL_INVALID,
                         "study %s has no verdict yet: %d of its runs are done; the command that "
                         "began it goes on",
                         wanted, found.counts.done);
    if (status == BL_OK)
        status = cli_write(f->output, s.text.at);
    bl_text_free(&s.text);
    return status;
}

/* --- export, rm ------------------------------------------------------------------------------- */
static bl_status export_jobs(bl_store *store, const char *wanted, const flags *f)
{
    search found;
    bl_text text = {0};
    BL_TRY(find(store, wanted, &found));
    bl_status status =
        f->json ? bl_export_json(store, found.id, &text) : bl_export_csv(store, found.id, &text);
    if (status == BL_OK)
        status = cli_write(f->output, text.at);
    bl_text_free(&text);
    return status;
}

static bool is_confirmed(const char *wanted, const search *found)
{
    char answer[16] = "";
    fprintf(stderr, "Forget study %s with its %d runs? (yes/no) ", wanted, found->counts.done);
    return fgets(answer, sizeof answer, stdin) && !strcmp(answer, "yes\n");
}

static bl_status forget(bl_store *store, const char *wanted, const flags *f)
{
    search found;
    BL_TRY(find(store, wanted, &found));
    if (!f->yes && !isatty(STDIN_FILENO))
        return bl_fail(BL_INVALID, "study rm forgets %d runs of study %s: say --yes",
                       found.counts.done, wanted);
    if (!f->yes && !is_confirmed(wanted, &found))
        return bl_fail(BL_INVALID, "study %s is kept", wanted);
    BL_TRY(bl_store_remove(store, found.id));
    fprintf(stderr, "forgot study %s and its %d runs\n", wanted, found.counts.done);
    return BL_OK;
}

/* --- the command ------------------------------------------------------------------------------ */
static bl_status check_words(const cli_texts *words, const flags *f)
{
    const char *verb = words->at[0];
    bool is_list = !strcmp(verb, "list"), is_show = !strcmp(verb, "show"),
         is_export = !strcmp(verb, "export"), is_rm = !strcmp(verb, "rm");
    if (!is_list && !is_show && !is_export && !is_rm)
        return bl_fail(BL_INVALID, "there is no \"study %s\", but list, show, export and rm", verb);
    if (is_list != (words->count == 1))
        return bl_fail(BL_INVALID,
                       is_list ? "study list takes no operands"
                               : "study %s needs the number or name of a study",
                       verb);
    if ((is_show || is_export) && words->count > 2)
        return bl_fail(BL_INVALID, "study %s is of one study, but %d are given", verb,
                       words->count - 1);
    if (f->json && f->csv)
        return bl_fail(BL_INVALID, "--json and --csv exclude each other");
    return f->output ? cli_check_output(f->output, "output") : BL_OK;
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
    if (status == BL_OK && !strcmp(words->at[0], "list"))
        status = list(store, f);
    else if (status == BL_OK && !strcmp(words->at[0], "show"))
        status = show(store, words->at[1], f);
    else if (status == BL_OK && !strcmp(words->at[0], "export"))
        status = export_jobs(store, words->at[1], f);
    else
        for (int i = 1; i < words->count && status == BL_OK; i++)
            status = forget(store, words->at[i], f);
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
        .synopsis = "ballast study list | show STUDY | export STUDY | rm STUDY... [OPTION]...",
        .description =
            "Looks into the store of studies, which ballast compare fills. STUDY is a number of "
            "`list`, or a name given by compare --name.\n\n"
            "  ballast study list                      every study, with its runs and command\n"
            "  ballast study show wine                 the table that compare printed\n"
            "  ballast study export wine -o wine.csv   every run: metrics, work, seconds\n"
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
