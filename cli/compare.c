/* ballast compare: a verdict for every arm, on the user's data. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "comparison.h"
#include "study/record.h"
#include "study/report.h"
#include "study/store.h"
#include "study/suspects.h"
#include "study/tell.h"

enum { UNSET = -1, SEEDS_DEFAULT = 10, SEEDS_MOST = 1000 };

/* --- output
 * -------------------------------------------------------------------------------------------- */
static bl_status print(const bl_telling *telling, const cli_compare_flags *f)
{
    bl_text text = {0};
    bl_status status = f->json    ? bl_tell_json(telling, &text)
                       : f->csv   ? bl_tell_csv(telling, &text)
                       : f->latex ? bl_tell_latex(telling, &text)
                                  : bl_tell_table(telling, cli_colour(STDOUT_FILENO), &text);
    if (status == BL_OK)
        status = cli_write(NULL, text.at);
    bl_text_free(&text);
    return status;
}

static bl_status print_timing(const bl_telling *t)
{
    bl_text text = {0};
    bl_status status = BL_OK;
    fflush(stdout);
    for (int i = 0; i < t->count && status == BL_OK; i++) {
        if (t->count > 1)
            bl_text_add(&text, "%s\n", t->outcome[i]->plan->data);
        status = bl_outcome_timing(t->outcome[i], &text);
    }
    if (status == BL_OK)
        fputs(text.at, stderr);
    bl_text_free(&text);
    return status;
}

static bl_status write_suspects(const bl_outcome *outcome, const char *path)
{
    bl_text text = {0};
    bl_status status = bl_suspects_csv(outcome, &text);
    if (status == BL_OK)
        status = bl_write_file(path, text.at, text.length);
    bl_text_free(&text);
    return status;
}

/* --- what is remembered of a command ---------------------------------------------------------- */
static bl_status hash_file(const char *path, char hash[17])
{
    char *text;
    size_t size;
    BL_TRY(bl_read_file(path, &text, &size));
    snprintf(hash, 17, "%016llx", (unsigned long long)bl_hash(text, size, 0));
    bl_release(text);
    return BL_OK;
}

/* What the name stands for besides the study's plan, with the flags' names as keys. */
static bl_status configuration_of(const cli_compare_flags *f, const cli_comparison *s, int sets,
                                  char **text)
{
    char preset[17] = "";
    if (f->preset)
        BL_TRY(hash_file(f->preset, preset));
    json_t *arms = json_array();
    for (int a = 1; a < s->arms.count; a++)
        json_array_append_new(arms, json_string(s->arms.at[a]));
    json_t *json = json_pack("{s:o,s:s,s:I,s:f,s:f,s:b,s:b,s:i}", "arms", arms, "seeds",
                             f->seeds ? f->seeds : "10", "trials", (json_int_t)f->trials, "alpha",
                             f->alpha, "min_effect", f->min_effect, "no_screen", f->no_screen,
                             "no_equal_cost", f->no_equal_cost, "data_sets", sets);
    if (json && f->preset)
        json_object_set_new(json, "preset", json_string(preset));
    char *dump =
        json ? json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    *text = dump ? bl_copy_text(dump) : NULL;
    free(dump);
    json_decref(json);
    return *text ? BL_OK : bl_no_memory(0);
}

static bl_status name_studies(const cli_compare_flags *f, const cli_compare_shared *all,
                              const cli_comparison *s, int count)
{
    bl_status status = BL_OK;
    for (int i = 0; f->name && i < count && status == BL_OK; i++) {
        cli_compare_meter m;
        char *configuration = NULL;
        bl_study_options options = cli_comparison_options(f, all, &s[i], &m);
        status = configuration_of(f, &s[i], count, &configuration);
        if (status == BL_OK)
            status =
                bl_record_name(&options, s[i].data, &(bl_store_label){f->name, i, configuration});
        bl_release(configuration);
    }
    return status;
}

/* Every study of the command remembers all that it said. */
static bl_status remember(const cli_compare_flags *f, const cli_compare_shared *all,
                          const cli_comparison *s, const bl_telling *t)
{
    bl_text table = {0}, json = {0};
    bl_status status = bl_tell_table(t, false, &table);
    if (status == BL_OK)
        status = bl_tell_json(t, &json);
    const bl_store_saying saying = {
        .name = f->name, .command = f->command, .table = table.at, .json = json.at};
    for (int i = 0; i < t->count && status == BL_OK; i++) {
        cli_compare_meter m;
        bl_study_options options = cli_comparison_options(f, all, &s[i], &m);
        status = bl_record_saying(&options, s[i].data, &saying);
    }
    bl_text_free(&table);
    bl_text_free(&json);
    return status;
}

static bl_status tell(const cli_compare_flags *f, const cli_compare_shared *all,
                      const cli_comparison *s, int count)
{
    bl_telling t;
    bl_status status = bl_telling_new(count, &t);
    for (int i = 0; i < count && status == BL_OK; i++)
        t.outcome[i] = &s[i].outcome;
    if (status == BL_OK)
        status = bl_telling_complete(&t);
    if (status == BL_OK && f->html)
        status = bl_report_write(&t, f->command, f->html);
    if (status == BL_OK && f->suspects)
        status = write_suspects(t.outcome[0], f->suspects);
    if (status == BL_OK)
        status = print(&t, f);
    if (status == BL_OK && !f->json && !f->csv && !f->latex)
        status = print_timing(&t);
    if (status == BL_OK)
        status = remember(f, all, s, &t);
    bl_telling_free(&t);
    return status;
}

/* --- the command
 * ------------------------------------------------------------------------------------------ */
static bl_status own_path(char path[4096])
{
    ssize_t n = readlink("/proc/self/exe", path, 4095);
    if (n < 0)
        return bl_fail(BL_IO, "cannot find the program's own file through /proc/self/exe");
    path[n] = 0;
    return BL_OK;
}

/* A number, or "auto". */
static bl_status read_seeds(cli_compare_flags *f)
{
    int64_t n = SEEDS_DEFAULT;
    bool planned = f->seeds && !strcmp(f->seeds, "auto");
    if (f->seeds && !planned && (!bl_parse_int(f->seeds, &n) || n < 2 || n > SEEDS_MOST))
        return bl_fail(BL_INVALID,
                       "--seeds is \"%s\", but must be auto or a whole number from 2 to %d",
                       f->seeds, SEEDS_MOST);
    if (planned && !(f->min_effect > 0))
        return bl_fail(BL_INVALID, "--seeds auto needs --min-effect: the smallest difference that "
                                   "matters, in units of the metric");
    f->replicates = planned ? 0 : (int)n;
    return BL_OK;
}

static bl_status check_flags(cli_compare_flags *f, int sets)
{
    BL_TRY(read_seeds(f));
    if (f->html)
        BL_TRY(cli_check_output(f->html, "html"));
    if (f->save_preset)
        BL_TRY(cli_check_output(f->save_preset, "save-preset"));
    if (f->suspects)
        BL_TRY(cli_check_output(f->suspects, "suspects"));
    if (f->preset && f->trials > 0)
        return bl_fail(BL_INVALID, "--preset and --trials exclude each other: a preset is tuned");
    if (f->save_preset && !f->preset && f->trials == 0)
        return bl_fail(BL_INVALID, "--save-preset has nothing to save with --trials 0");
    if (f->json + f->csv + f->latex > 1)
        return bl_fail(BL_INVALID, "--json, --csv and --latex exclude each other");
    if (sets > 1 && f->suspects)
        return bl_fail(BL_INVALID, "--suspects is of one data set, but there are %d", sets);
    return BL_OK;
}

static bl_status run_all(const cli_compare_flags *f, const char *store, cli_comparison *s,
                         int count)
{
    cli_compare_shared all = {.store = store};
    BL_TRY(own_path(all.program));
    all.worker[0] = all.program, all.worker[1] = "worker";
    BL_TRY(name_studies(f, &all, s, count));
    for (int i = 0; i < count; i++)
        BL_TRY(cli_comparison_run(f, &all, s, i));
    return tell(f, &all, s, count);
}

/* Says which arms have no verdict, and whether there are any. */
static bool complain(const bl_outcome *o)
{
    bool failed = false;
    for (int a = 1; a < o->arms; a++) {
        const bl_arm_outcome *arm = &o->arm[a];
        failed = failed || arm->failed;
        if (!arm->failed && arm->effect.inert)
            fprintf(stderr, "ballast compare: %s did nothing in any of its runs\n", arm->arm);
    }
    bool idle = false;
    for (int a = 0; o->screening && a < o->screening->arms; a++)
        if (o->screening->arm[a].inert) {
            idle = true;
            fprintf(stderr, "ballast compare: %s did nothing in any of its runs\n",
                    o->screening->arm[a].arm);
        }
    if (failed)
        fprintf(stderr, "ballast compare: some runs failed; the same command tries them again\n");
    return idle || o->compared < o->arms - 1;
}

/* *incomplete: some arm has no verdict, because runs failed or it did nothing. */
static bl_status compare(cli_compare_flags *f, const cli_texts *paths, bool *incomplete)
{
    BL_TRY(check_flags(f, paths->count));
    char *store = f->store ? bl_copy_text(f->store) : bl_store_default_path();
    cli_comparison *s = bl_alloc((size_t)paths->count * sizeof *s);
    bl_status status = store && s ? BL_OK : bl_no_memory(0);
    int opened = 0;
    for (; opened < paths->count && status == BL_OK;
         opened++) /* all that is wrong, before any run */
        status = cli_comparison_open(f, paths->at[opened], &s[opened]);
    if (status == BL_OK)
        status = run_all(f, store, s, opened);
    for (int i = 0; i < opened && status == BL_OK; i++)
        *incomplete = complain(&s[i].outcome) || *incomplete;
    for (int i = 0; i < opened; i++)
        cli_comparison_close(&s[i]);
    bl_release(s);
    bl_release(store);
    return status;
}

static char *joined_command(int argc, char **argv)
{
    bl_text text = {0};
    bl_text_add(&text, "ballast");
    for (int i = 0; i < argc; i++) {
        bool plain = argv[i][0] && !argv[i][strcspn(argv[i], " \t\n\"'\\$&|;<>()*?#~`!{}[]")];
        bl_text_add(&text, plain ? " %s" : " '%s'", argv[i]);
    }
    char *copy = text.failed ? NULL : bl_copy_text(text.at);
    bl_text_free(&text);
    return copy;
}

static int compare_here(int argc, char **argv, bl_ranks *ranks)
{
    cli_compare_flags f = {.trials = UNSET,
                           .workers = ranks ? 1 : sysconf(_SC_NPROCESSORS_ONLN),
                           .alpha = 0.05,
                           .ranks = ranks};
    cli_plan_declare(&f.plan);
    const cli_option options[] = {
        {.name = "", .text = "Comparison"},
        {.name = "arm",
         .kind = CLI_TEXTS,
         .value = &f.arms,
         .argument = "ARM",
         .letter = 'a',
         .text = "a method to compare with the baseline: elr, \"mixup(alpha=0.2)+ema\", null (the "
                 "baseline with "
                 "other seeds); may be repeated (default: a few that fit the task)"},
        {.name = "seeds",
         .kind = CLI_TEXT,
         .value = &f.seeds,
         .argument = "N",
         .text =
             "paired replicates of every arm (default 10); auto: as many, from 6 to 30, as show "
             "--min-effect with 80 % power, by five pilot runs of every arm that are dropped"},
        {.name = "no-screen",
         .kind = CLI_FLAG,
         .value = &f.no_screen,
         .text = "compare all arms; without it more than five are screened by paired halving on "
                 "held-out training examples, and the five that are left are compared on fresh "
                 "replicates"},
        {.name = "no-equal-cost",
         .kind = CLI_FLAG,
         .value = &f.no_equal_cost,
         .text = "leave out the rows at equal cost, for which the baseline is also trained for as "
                 "long as costs what a dearer (or cheaper) arm does"},
        cli_trials_option(
            &f.trials,
            "tune every arm, the baseline included, by N trials of two seeds each, over "
            "learning rate, weight decay and the options that ARM leaves open (default 12, "
            "which makes a study three times as long: a verdict without them is on the recipe "
            "as much as on the method; 0: no tuning, for a first look)"),
        {.name = "save-preset",
         .kind = CLI_TEXT,
         .value = &f.save_preset,
         .argument = "FILE",
         .text = "write the settings that tuning chose, of every data set"},
        {.name = "preset",
         .kind = CLI_TEXT,
         .value = &f.preset,
         .argument = "FILE",
         .text = "use the settings of a file written by --save-preset"},
        {.name = "min-effect",
         .kind = CLI_NUMBER,
         .value = &f.min_effect,
         .argument = "X",
         .text = "smallest difference that matters, in units of the metric: allows the verdict "
                 "equivalent",
         .low = 0,
         .high = INFINITY},
        cli_alpha_option(&f.alpha, "chance of any false verdict (default 0.05)"),
        {.name = "workers",
         .kind = CLI_INTEGER,
         .value = &f.workers,
         .argument = "N",
         .text = "runs at once, one thread each (default: as many as processors; under mpirun, by "
                 "every rank: 1)",
         .low = 1,
         .high = 256},
        {.name = "patience",
         .kind = CLI_NUMBER,
         .value = &f.patience,
         .argument = "SECONDS",
         .text = "a worker that says nothing for so long is ended, and its run given to another "
                 "(default 600)",
         .low = 0.1,
         .high = 1e6},
        {.name = "store",
         .kind = CLI_TEXT,
         .value = &f.store,
         .argument = "FILE",
         .text = "where results are kept (default: ~/.local/state/ballast/studies.db)"},
        {.name = "name",
         .kind = CLI_TEXT,
         .value = &f.name,
         .argument = "NAME",
         .text = "what ballast study calls this comparison; an error that says what differs where "
                 "another one, of other data, arms, options or program, has the name"},
        {.name = "fresh",
         .kind = CLI_FLAG,
         .value = &f.fresh,
         .text = "forget stored results of this study first; with --name, take the name from "
                 "whatever has it"},
        {.name = "json",
         .kind = CLI_FLAG,
         .value = &f.json,
         .text = "print everything as JSON (docs/json.md)"},
        {.name = "csv", .kind = CLI_FLAG, .value = &f.csv, .text = "print the table as CSV"},
        {.name = "latex",
         .kind = CLI_FLAG,
         .value = &f.latex,
         .text = "print the table for LaTeX with booktabs"},
        {.name = "html",
         .kind = CLI_TEXT,
         .value = &f.html,
         .argument = "FILE",
         .text = "also write a report: one self-contained page"},
        {.name = "suspects",
         .kind = CLI_TEXT,
         .value = &f.suspects,
         .argument = "FILE",
         .text = "also write the training labels that an arm such as elr doubts, as CSV"},
        {0},
    };
    const cli_usage usage = {
        .command = "compare",
        .synopsis = "ballast compare DATA... [--target COLUMN] [--arm ARM]... [OPTION]...",
        .description =
            "Trains a baseline and each ARM on DATA several times, in pairs that share split, "
            "noise, initial "
            "weights and order, and prints a verdict for each arm: helps, hurts, equivalent or "
            "undecided.\n\n"
            "DATA is digits, fashion-mnist, a CSV file, an IDX or NPY folder, or a folder of image "
            "folders.\n\n"
            "  ballast compare prices.csv --target price\n"
            "  ballast compare digits --label-noise 0.4 --arm elr --arm \"mixup(alpha=0.2)\"\n\n"
            "Several DATA have a verdict each, and one over them for every arm that all have.\n\n"
            "A killed comparison goes on with the same command, to the same result. mpirun -n K "
            "ballast compare .. shares the runs over K ranks (docs/cluster.md).",
        .options = {options, f.plan.options},
        .least = 1,
        .most = -1};
    cli_texts operands = {0};
    int code = cli_parse(&usage, argc, argv, &operands);
    if (code >= 0)
        return code;
    if (f.trials == UNSET && !f.preset)
        f.trials = 12;
    char *command = joined_command(argc, argv);
    bool incomplete = false;
    f.command = command;
    bl_status status = command ? compare(&f, &operands, &incomplete) : bl_no_memory(0);
    bl_release(command);
    if (status != BL_OK)
        return cli_fail("compare", status);
    return incomplete ? CLI_NO : CLI_OK;
}

/* Under mpirun the first rank does what is said above, the others lend it their workers. */
int cli_compare(int argc, char **argv)
{
    bl_ranks *ranks;
    bl_status status = bl_ranks_join(&ranks);
    if (status != BL_OK)
        return cli_fail("compare", status);
    if (!ranks)
        return compare_here(argc, argv, NULL);
    setenv("NO_COLOR", "1", 1); /* mpirun may give a rank a terminal whose output goes to a file */
    int code;
    if (ranks->rank == 0) {
        code = compare_here(argc, argv, ranks);
    } else {
        char program[4096];
        status = own_path(program);
        const char *const worker[] = {program, "worker", NULL};
        if (status == BL_OK)
            status = bl_ranks_serve(ranks, worker);
        code = status == BL_OK ? CLI_OK : cli_fail("compare", status);
    }
    bl_ranks_leave(ranks, code != CLI_INTERRUPTED && status == BL_OK);
    return code;
}
