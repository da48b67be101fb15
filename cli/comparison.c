/* Running what comparison.h describes, with a line of progress on standard error. */
#include "comparison.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "methods/method.h"
#include "study/matched.h"
#include "study/record.h"
#include "study/suspects.h"

/* --- arms ------------------------------------------------------------------------------------- */
static void free_arms(cli_arms *arms)
{
    for (int i = 0; i < arms->count; i++)
        bl_release(arms->at[i]);
}

static bl_status add_arm(cli_arms *arms, const bl_job_data *data, const char *text)
{
    bl_arm arm = {0};
    BL_TRY(bl_arm_parse(text, &arm));
    bl_status status = bl_job_check_arm(data, text);
    for (int i = 1; i < arms->count && status == BL_OK; i++)
        if (!strcmp(arms->at[i], arm.text))
            status = bl_fail(BL_INVALID, "the arm %s is given twice", arm.text);
    bool baseline = !strcmp(arm.text, "baseline");
    if (status == BL_OK && (!baseline || !arms->count)) {
        arms->at[arms->count] = bl_copy_text(arm.text);
        arms->given[arms->count] = text;
        status = arms->at[arms->count] ? BL_OK : bl_no_memory(0);
        arms->count += status == BL_OK;
    }
    bl_arm_free(&arm);
    return status;
}

/* Without --arm: a few cheap ones that fit the task. */
static bl_status default_arms(cli_arms *arms, const bl_job_data *data)
{
    static const char *const usual[] = {
        "label_smoothing", "mixup",      "conr", "dropout", "ema(decay=0.99,warmup=true)",
        "early_stopping",  "input_noise"};
    for (size_t i = 0; i < sizeof usual / sizeof *usual && arms->count < 7; i++)
        if (bl_job_check_arm(data, usual[i]) == BL_OK)
            BL_TRY(add_arm(arms, data, usual[i]));
    return BL_OK;
}

static bl_status collect_arms(const cli_compare_flags *f, const bl_job_data *data, cli_arms *arms)
{
    BL_TRY(add_arm(arms, data, "baseline"));
    if (!f->arms.count)
        return default_arms(arms, data);
    for (int i = 0; i < f->arms.count; i++)
        BL_TRY(add_arm(arms, data, f->arms.at[i]));
    if (arms->count < 2)
        return bl_fail(
            BL_INVALID,
            "nothing to compare with the baseline: give an --arm; ballast list names them");
    return BL_OK;
}

/* Whether some arm has suspects to write. */
static bl_status check_suspects(const cli_compare_flags *f, const cli_arms *arms)
{
    for (int i = 0; i < arms->count; i++)
        if (bl_arm_doubts(arms->at[i]))
            return BL_OK;
    return f->suspects ? bl_fail(BL_INVALID, "--suspects: none of the arms keeps beliefs about "
                                             "labels; try --arm elr")
                       : BL_OK;
}

/* --- progress --------------------------------------------------------------------------------- */
static void duration(double seconds, char text[32])
{
    if (seconds < 90)
        snprintf(text, 32, "%.0f s", seconds);
    else if (seconds < 5400)
        snprintf(text, 32, "%.0f min", seconds / 60);
    else
        snprintf(text, 32, "%.1f h", seconds / 3600);
}

/* The data and the recipe, once nothing is left that the user could have got wrong. */
static void show_summary(void *context)
{
    const cli_compare_meter *m = context;
    fprintf(stderr, "%s\n", bl_job_summary(m->data));
}

static void show_progress(void *context, const bl_study_progress *p)
{
    cli_compare_meter *m = context;
    bool finished = p->done + p->failed == p->total;
    if (!m->terminal && (p->seconds - m->last < 5 || finished))
        return;
    m->last = p->seconds;
    double here = p->done - p->done_before + p->doing;
    fprintf(stderr, "%s%d of %d %s", m->terminal ? "\r\033[K" : "", p->done, p->total, m->what);
    if (here >= 0.5 && p->seconds > 0) { /* enough to tell by */
        double rate = here / p->seconds;
        char left[32];
        duration((p->total - p->done - p->failed - p->doing) / rate, left);
        fprintf(stderr, ", %.3g a second, about %s left", rate, left);
    }
    if (!m->terminal)
        fputc('\n', stderr);
    if (m->terminal && finished)
        fputs("\r\033[K", stderr);
    fflush(stderr);
}

/* --- the study -------------------------------------------------------------------------------- */
/* After the first runs: what was stored is forgotten by now, and the data are shown. */
static void go_on(bl_study_options *options)
{
    options->fresh = false;
    options->start = NULL;
}

/* Tunes every arm, or reads the preset, and puts the chosen settings into the options; `setting` is
 * room for them. */
static bl_status freeze(const cli_compare_flags *f, const bl_job_data *data, const cli_arms *arms,
                        cli_compare_meter *m, bl_study_options *options, bl_tuning *tuning,
                        const char **setting)
{
    if (f->preset) {
        BL_TRY(bl_preset_read(f->preset, data, options->arm, options->arms, tuning));
    } else {
        m->what = "trial runs";
        BL_TRY(bl_tune(options, data, arms->given, (int)f->trials, tuning));
        go_on(options);
    }
    BL_TRY(bl_record_choices(options, data, tuning)); /* before any test example is read */
    for (int a = 0; a < options->arms; a++)
        setting[a] = tuning->choice[a].setting;
    options->arm = setting;
    options->choice = tuning->choice;
    return BL_OK;
}

void cli_comparison_close(cli_comparison *s)
{
    bl_outcome_free(&s->outcome);
    bl_screening_free(&s->screening);
    bl_tuning_free(&s->tuning);
    bl_release(s->setting);
    bl_release(s->name);
    bl_release(s->choice);
    free_arms(&s->arms);
    bl_job_data_close(s->data);
    bl_plan_free(&s->plan);
}

bl_status cli_comparison_open(const cli_compare_flags *f, const char *path, cli_comparison *s)
{
    BL_TRY(cli_plan_make(&f->plan, path, &s->plan));
    BL_TRY(bl_job_data_open(&s->plan, &s->data));
    BL_TRY(collect_arms(f, s->data, &s->arms));
    BL_TRY(check_suspects(f, &s->arms));
    size_t arms = (size_t)s->arms.count;
    s->setting = bl_alloc(arms * sizeof *s->setting);
    s->name = bl_alloc(arms * sizeof *s->name);
    s->choice = bl_alloc(arms * sizeof *s->choice);
    return s->setting && s->name && s->choice ? BL_OK : bl_no_memory(arms);
}

/* Leaves in the options the arms that a screening kept. */
static bl_status screen(cli_comparison *s, bl_study_options *options, cli_compare_meter *m)
{
    m->what = "screening runs";
    for (int a = 0; a < options->arms; a++) {
        s->setting[a] = options->arm[a];
        s->name[a] = s->arms.at[a];
        if (options->choice)
            s->choice[a] = options->choice[a];
    }
    BL_TRY(bl_screen(options, s->data, s->name, &s->screening));
    int kept = 1;
    for (int a = 1; a < options->arms; a++)
        if (!s->screening.arm[a - 1].round) {
            s->setting[kept] = s->setting[a];
            s->choice[kept++] = s->choice[a];
        }
    options->arm = s->setting;
    options->choice = options->choice ? s->choice : NULL;
    options->screened = options->arms - kept;
    options->arms = kept;
    go_on(options);
    return BL_OK;
}

static bl_status plan_replicates(const cli_compare_flags *f, cli_comparison *s,
                                 bl_study_options *options, cli_compare_meter *m)
{
    m->what = "pilot runs";
    BL_TRY(bl_plan_replicates(options, s->data, f->alpha, f->min_effect, &s->pilot));
    options->replicates = s->pilot.planned;
    go_on(options);
    return BL_OK;
}

/* All that comes before the comparison: tuning, screening, planning. */
static bl_status prepare(const cli_compare_flags *f, cli_comparison *s, bl_study_options *options,
                         cli_compare_meter *m)
{
    if (f->preset || f->trials > 0)
        BL_TRY(freeze(f, s->data, &s->arms, m, options, &s->tuning, s->setting));
    if (options->arms - 1 > BL_SCREEN_KEEP && !f->no_screen)
        BL_TRY(screen(s, options, m));
    if (!f->replicates)
        BL_TRY(plan_replicates(f, s, options, m));
    m->what = "runs";
    m->last = 0;
    return BL_OK;
}

static bl_status read_outcome(const cli_compare_flags *f, cli_comparison *s,
                              const bl_study_options *options, cli_compare_meter *m)
{
    BL_TRY(bl_outcome_new(options, s->data, f->alpha, f->min_effect, &s->outcome));
    s->outcome.screening = &s->screening;
    s->outcome.pilot = &s->pilot;
    m->what = "runs at equal cost";
    m->last = 0;
    bl_study_options more = *options;
    go_on(&more);
    if (!f->no_equal_cost)
        BL_TRY(bl_match_cost(&more, s->data, &s->outcome));
    return BL_OK;
}

bl_study_options cli_comparison_options(const cli_compare_flags *f, const cli_compare_shared *all,
                                        const cli_comparison *s, cli_compare_meter *m)
{
    *m = (cli_compare_meter){.data = s->data, .what = "runs", .terminal = isatty(STDERR_FILENO)};
    return (bl_study_options){.plan = &s->plan,
                              .arm = (const char *const *)s->arms.at,
                              .arms = s->arms.count,
                              .replicates = f->replicates,
                              .workers = (int)f->workers,
                              .ranks = f->ranks,
                              .patience = f->patience,
                              .store = all->store,
                              .fresh = f->fresh,
                              .worker = all->worker,
                              .start = show_summary,
                              .report = show_progress,
                              .context = m,
                              .stop = cli_catch_interrupt()};
}

static bl_status save_preset(const cli_compare_flags *f, const cli_comparison *s, int count)
{
    const bl_tuning **tuning = bl_alloc((size_t)count * sizeof *tuning);
    const bl_job_data **data = bl_alloc((size_t)count * sizeof *data);
    bl_status status = tuning && data ? BL_OK : bl_no_memory((size_t)count);
    for (int i = 0; i < count && status == BL_OK; i++) {
        tuning[i] = &s[i].tuning;
        data[i] = s[i].data;
    }
    if (status == BL_OK)
        status = bl_preset_write(tuning, data, count, f->save_preset);
    bl_release(tuning);
    bl_release(data);
    return status;
}

/* The study s[i]; those before it have been run. */
bl_status cli_comparison_run(const cli_compare_flags *f, const cli_compare_shared *all,
                             cli_comparison *s, int i)
{
    cli_compare_meter m;
    bl_study_options options = cli_comparison_options(f, all, &s[i], &m);
    bl_status status = prepare(f, &s[i], &options, &m);
    if (status == BL_OK && f->save_preset)
        status = save_preset(f, s, i + 1);
    if (status == BL_OK)
        status = bl_study_run(&options, s[i].data);
    if (status == BL_OK)
        status = read_outcome(f, &s[i], &options, &m);
    return status == BL_INTERRUPTED
               ? bl_fail(BL_INTERRUPTED,
                         "interrupted; what was finished is kept, and the same command goes on")
               : status;
}
