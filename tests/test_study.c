/* Studies run by a worker that does not train: a shell script that speaks the protocol and whose
 * scores are made up, so that scheduling, resuming and reporting are tested in seconds. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "study/outcome.h"
#include "study/report.h"
#include "study/store.h"

/* Notes every job it is given in "log"; dies while "die-ARM-REPLICATE" holds lines, one line a
 * death; answers with an error where "error-ARM-REPLICATE" exists. */
static const char script[] =
    "cd \"$1\"\n"
    "while read -r line; do\n"
    "  arm=${line#*\\\"arm\\\":\\\"}; arm=${arm%%\\\"*}\n"
    "  replicate=${line#*\\\"replicate\\\":}; replicate=${replicate%%,*}\n"
    "  echo \"$arm $replicate\" >>log\n"
    "  echo '{\"progress\":0.5}'\n"
    "  sleep 0.01\n"
    "  job=$arm-$replicate\n"
    "  if [ -s die-$job ]; then sed -i 1d die-$job; kill -9 $$; fi\n"
    "  if [ -e error-$job ]; then echo '{\"error\":\"out of luck\"}'; continue; fi\n"
    "  case $arm in baseline) gain=0;; elr) gain=5;; *) gain=$((replicate % 3));; esac\n"
    "  score=$((70 + replicate * 7 % 5 + gain)).$((replicate * 3 % 10))\n"
    "  effect='\"sites\":1,\"examples_changed\":0.5,\"gradient_share\":0.1,\"measures\":{}'\n"
    "  effect=$effect,'\"parameters_moved\":0,\"inert\":false'\n"
    "  echo \"{\\\"result\\\":{\\\"metrics\\\":{\\\"accuracy\\\":$score},\\\"diverged\\\":false,"
    "\\\"effect\\\":{$effect},\\\"work\\\":{\\\"flops\\\":100},\\\"timing\\\":{\\\"seconds\\\":$$}}"
    "}\"\n"
    "done\n";

static const char *const arms[] = {"baseline", "elr", "mixup"};
enum { ARMS = 3, REPLICATES = 8, JOBS = ARMS * REPLICATES };

static char folder[] = "/tmp/ballast-study-XXXXXX";
static bl_plan plan;
static bl_job_data *data;

static char *path_of(const char *name)
{
    char *path = bl_format("%s/%s", folder, name);
    assert_non_null(path);
    return path;
}

static void write_file(const char *name, const char *text)
{
    char *path = path_of(name);
    assert_int_equal(bl_write_file(path, text, strlen(text)), BL_OK);
    bl_release(path);
}

static int open_data(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    write_file("worker.sh", script);
    plan = bl_plan_new();
    plan.data = bl_copy_text("digits");
    plan.study_seed = 1;
    return bl_job_data_open(&plan, &data) == BL_OK ? 0 : -1;
}

static int close_data(void **state)
{
    (void)state;
    bl_job_data_close(data);
    bl_plan_free(&plan);
    char *command = bl_format("rm -rf %s", folder);
    int code = system(command);
    bl_release(command);
    return code;
}

/* --- one study in a folder of its own
 * ---------------------------------------------------------- */
typedef struct fixture {
    char *folder, *script, *store;
    const char *worker[5];
    bl_study_options options;
} fixture;

static void begin(fixture *f, const char *name, int workers)
{
    *f = (fixture){.folder = path_of(name), .script = path_of("worker.sh")};
    assert_int_equal(mkdir(f->folder, 0700), 0);
    f->store = bl_format("%s/studies.db", f->folder);
    const char *const worker[] = {"/bin/sh", f->script, f->folder, NULL};
    memcpy(f->worker, worker, sizeof worker);
    f->options = (bl_study_options){.plan = &plan,
                                    .arm = arms,
                                    .arms = ARMS,
                                    .replicates = REPLICATES,
                                    .workers = workers,
                                    .store = f->store,
                                    .worker = f->worker};
}

static void end(fixture *f)
{
    bl_release(f->folder);
    bl_release(f->script);
    bl_release(f->store);
}

/* The table of a study that is done; bl_release it. */
static char *table_of(const fixture *f)
{
    bl_outcome outcome;
    bl_text text = {0};
    assert_int_equal(bl_outcome_new(&f->options, data, 0.05, 0, &outcome), BL_OK);
    assert_int_equal(bl_outcome_table(&outcome, false, &text), BL_OK);
    bl_outcome_free(&outcome);
    char *table = bl_copy_text(text.at);
    bl_text_free(&text);
    return table;
}

/* How often the workers were given jobs: all of them, or one. */
static int times(const fixture *f, const char *job)
{
    char *path = bl_format("%s/log", f->folder), *log;
    size_t size;
    assert_int_equal(bl_read_file(path, &log, &size), BL_OK);
    bl_release(path);
    int count = 0;
    for (char *line = log, *end = NULL; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        count += !job || !strcmp(line, job);
    }
    bl_release(log);
    return count;
}

static void pause_for(long milliseconds)
{
    struct timespec t = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static pid_t run_apart(const fixture *f)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(bl_study_run(&f->options, data) == BL_OK ? 0 : 1);
    return child;
}

/* --- tests ------------------------------------------------------------------------------------
 */
static void a_table_speaks_of_what_was_measured(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "whole", 2);
    assert_int_equal(bl_study_run(&f.options, data), BL_OK);
    assert_int_equal(times(&f, NULL), JOBS);
    char *table = table_of(&f);
    assert_non_null(strstr(table, " +5.0 ")); /* elr: in every replicate, so without an interval */
    assert_null(strstr(table, "nan"));
    assert_non_null(strstr(table, "50 % of examples changed"));
    for (const char *line = table, *stop; (stop = strchr(line, '\n')); line = stop + 1)
        assert_true(stop - line <= 80 + 2); /* "±" has two bytes, twice in a line */
    bl_release(table);
    assert_int_equal(bl_study_run(&f.options, data), BL_OK); /* nothing is run twice */
    assert_int_equal(times(&f, NULL), JOBS);
    end(&f);
}

/* Killed again and again, at one worker and at two, a study ends in the same bytes, and what was
 * done is not done again. */
static void killed_studies_end_in_the_same_table(void **state)
{
    (void)state;
    fixture whole, killed;
    begin(&whole, "undisturbed", 2);
    assert_int_equal(bl_study_run(&whole.options, data), BL_OK);
    char *expected = table_of(&whole);
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    for (int workers = 1; workers <= 2; workers++) {
        char name[32];
        snprintf(name, sizeof name, "killed-%d", workers);
        begin(&killed, name, workers);
        enum { KILLS = 6 };
        for (int i = 0; i < KILLS; i++) {
            pid_t child = run_apart(&killed);
            pause_for(rand() % 120);
            kill(child, SIGKILL);
            waitpid(child, NULL, 0);
        }
        assert_int_equal(bl_study_run(&killed.options, data), BL_OK);
        char *table = table_of(&killed);
        assert_string_equal(table, expected);
        assert_in_range(times(&killed, NULL), JOBS, JOBS + KILLS * workers);
        bl_release(table);
        end(&killed);
    }
    bl_release(expected);
    end(&whole);
}

static void two_commands_share_the_work(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "shared", 2);
    pid_t first = run_apart(&f), second = run_apart(&f);
    int how;
    waitpid(first, &how, 0);
    assert_int_equal(how, 0);
    waitpid(second, &how, 0);
    assert_int_equal(how, 0);
    assert_int_equal(times(&f, NULL), JOBS); /* every job once */
    char *table = table_of(&f);
    bl_release(table);
    end(&f);
}

static void a_job_is_tried_three_times(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "unlucky", 2);
    write_file("unlucky/die-elr-2", "1\n2\n"); /* then it goes well */
    write_file("unlucky/die-mixup-1", "1\n2\n3\n4\n5\n");
    assert_int_equal(bl_study_run(&f.options, data), BL_OK);
    assert_int_equal(times(&f, "elr 2"), 3);
    assert_int_equal(times(&f, "mixup 1"), 3);
    char *table = table_of(&f);
    assert_non_null(strstr(table, "  = no verdict"));
    assert_non_null(strstr(table, "1 of 8 runs failed: the worker was ended by signal 9"));
    assert_non_null(strstr(table, "Holm over 1 arm "));
    bl_release(table);
    assert_int_equal(bl_study_run(&f.options, data), BL_OK); /* the next command tries again */
    assert_int_equal(times(&f, "mixup 1"), 6);
    assert_int_equal(times(&f, "elr 2"), 3);
    table = table_of(&f);
    assert_null(strstr(table, "runs failed"));
    bl_release(table);
    end(&f);
}

static void an_error_is_the_answer_of_that_job(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "error", 1);
    write_file("error/error-baseline-0", "");
    assert_int_equal(bl_study_run(&f.options, data), BL_OK);
    assert_int_equal(times(&f, NULL), JOBS);
    bl_outcome outcome;
    assert_int_equal(bl_outcome_new(&f.options, data, 0.05, 0, &outcome), BL_INVALID);
    assert_string_equal(bl_error(), "1 of 8 runs of the baseline failed: out of luck");
    end(&f);
}

/* Stops a study when four jobs are done. */
typedef struct stopper {
    int stop, most;
} stopper;

static void stop_at_four(void *context, const bl_study_progress *progress)
{
    stopper *s = context;
    s->stop = progress->done >= 4;
    s->most = progress->done;
}

static void an_interrupted_study_gives_its_jobs_back(void **state)
{
    (void)state;
    fixture f;
    stopper s = {0};
    begin(&f, "stopped", 2);
    f.options.report = stop_at_four;
    f.options.context = &s;
    f.options.stop = &s.stop;
    assert_int_equal(bl_study_run(&f.options, data), BL_INTERRUPTED);
    assert_in_range(s.most, 4, JOBS - 1);
    f.options.stop = NULL;
    assert_int_equal(bl_study_run(&f.options, data), BL_OK);
    assert_in_range(times(&f, NULL), JOBS, JOBS + 2);
    end(&f);
}

static void more_replicates_keep_what_is_there(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "more", 2);
    f.options.replicates = 4;
    f.options.arms = 2;
    assert_int_equal(bl_study_run(&f.options, data), BL_OK);
    assert_int_equal(times(&f, NULL), 8);
    f.options.replicates = REPLICATES;
    f.options.arms = ARMS;
    assert_int_equal(bl_study_run(&f.options, data), BL_OK);
    assert_int_equal(times(&f, NULL), JOBS);
    end(&f);
}

static void json_and_page_tell_of_failed_runs(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "json", 2);
    write_file("json/error-mixup-3", "");
    assert_int_equal(bl_study_run(&f.options, data), BL_OK);
    bl_outcome outcome;
    json_t *json;
    assert_int_equal(bl_outcome_new(&f.options, data, 0.05, 0, &outcome), BL_OK);
    assert_int_equal(bl_outcome_json(&outcome, false, &json), BL_OK);
    json_t *all = json_object_get(json, "arms"), *elr = json_array_get(all, 1),
           *mixup = json_array_get(all, 2), *runs = json_object_get(elr, "runs");
    assert_int_equal(json_array_size(all), ARMS);
    assert_string_equal(json_string_value(json_object_get(elr, "arm")), "elr");
    assert_non_null(json_object_get(elr, "comparison"));
    assert_int_equal(json_array_size(runs), REPLICATES);
    assert_null(json_object_get(json_array_get(runs, 0), "timing")); /* not asked for */
    assert_null(json_object_get(mixup, "comparison"));
    assert_int_equal(json_integer_value(json_object_get(mixup, "failed")), 1);
    assert_string_equal(json_string_value(json_object_get(mixup, "error")), "out of luck");
    assert_true(json_is_null(json_array_get(json_object_get(mixup, "runs"), 3)));
    json_decref(json);

    char *path = bl_format("%s/report.html", f.folder), *page; /* the page tells it too */
    size_t size;
    const bl_outcome *told[] = {&outcome};
    const bl_telling telling = {.outcome = told, .count = 1};
    assert_int_equal(bl_report_write(&telling, "ballast compare digits", path), BL_OK);
    assert_int_equal(bl_read_file(path, &page, &size), BL_OK);
    assert_non_null(strstr(page, "no verdict"));
    assert_non_null(strstr(page, "1 of 8 runs failed: out of luck"));
    assert_null(strstr(page, ">nan"));
    bl_release(page);
    bl_release(path);
    bl_outcome_free(&outcome);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_speaks_of_what_was_measured),
        cmocka_unit_test(killed_studies_end_in_the_same_table),
        cmocka_unit_test(two_commands_share_the_work),
        cmocka_unit_test(a_job_is_tried_three_times),
        cmocka_unit_test(an_error_is_the_answer_of_that_job),
        cmocka_unit_test(an_interrupted_study_gives_its_jobs_back),
        cmocka_unit_test(more_replicates_keep_what_is_there),
        cmocka_unit_test(json_and_page_tell_of_failed_runs),
    };
    return cmocka_run_group_tests(tests, open_data, close_data);
}
