/* Tuning: the space of every arm, trials that never see the test part, an equal budget, and a
 * choice that follows from the stored trials. Workers are a shell script with made-up scores. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "methods/contract.h"
#include "study/budget.h"
#include "study/setting.h"
#include "study/space.h"
#include "study/tune.h"

static char folder[] = "/tmp/ballast-tune-XXXXXX";

static char *path_of(const char *name)
{
    char *path = bl_format("%s/%s", folder, name);
    assert_non_null(path);
    return path;
}

static void write_text(const char *name, const char *text)
{
    char *path = path_of(name);
    assert_int_equal(bl_write_file(path, text, strlen(text)), BL_OK);
    bl_release(path);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char *command = bl_format("rm -rf %s", folder);
    int code = system(command);
    bl_release(command);
    return code;
}

/* --- points ------------------------------------------------------------------------------------
 */
/* The first b^2 points of base b lie one in each of b^2 equal parts, whatever the scrambling. */
static void halton_points_are_spread_evenly(void **state)
{
    (void)state;
    static const int primes[] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37};
    for (uint64_t seed = 0; seed < 5; seed++)
        for (int d = 0; d < BL_SPACE_MOST; d++) {
            int parts = primes[d] * primes[d], seen[37 * 37] = {0};
            for (int i = 0; i < parts; i++) {
                double u = bl_halton(bl_key_from_seed(seed), d, (uint32_t)i);
                assert_true(u >= 0 && u < 1);
                assert_int_equal(seen[(int)(u * parts + 1e-9)]++, 0);
            }
        }
    assert_true(bl_halton(bl_key_from_seed(1), 0, 5) != bl_halton(bl_key_from_seed(2), 0, 5));
}

static bool ranged(double number, const char *conditions, double *low, double *high,
                   bl_scale *scale)
{
    bl_field field = {.kind = BL_FIELD_OPTION,
                      .name = "x",
                      .conditions = conditions,
                      .option = BL_OPTION_NUMBER,
                      .number = number};
    return bl_option_searched(&field, low, high, scale);
}

static void ranges_follow_from_the_declaration(void **state)
{
    (void)state;
    double low, high;
    bl_scale scale;
    assert_true(ranged(3, "[0,inf)", &low, &high, &scale));
    assert_true(low == 0.3 && high == 30 && scale == BL_SCALE_LOG);
    assert_true(ranged(0.5, "[0,1)", &low, &high, &scale));
    assert_true(low == 0.02 && high == 0.98 && scale == BL_SCALE_LINEAR);
    assert_true(ranged(0.05, "[0,1]", &low, &high, &scale));
    assert_true(fabs(low - 0.005) < 1e-12 && fabs(high - 0.5) < 1e-12 && scale == BL_SCALE_LOG);
    assert_true(ranged(0.99, "[0,1]", &low, &high, &scale));
    assert_true(fabs(low - 0.9) < 1e-12 && fabs(high - 0.999) < 1e-12);
    assert_int_equal(scale, BL_SCALE_COMPLEMENT);
    assert_true(ranged(0, "[0,inf), tune [0.3,30] log", &low, &high, &scale));
    assert_true(low == 0.3 && high == 30 && scale == BL_SCALE_LOG);
    assert_true(ranged(7, ">= 1, tune [2,9]", &low, &high, &scale));
    assert_true(low == 2 && high == 9 && scale == BL_SCALE_LINEAR);
    assert_false(ranged(0, "[0,inf)", &low, &high, &scale));
    assert_false(ranged(1e-8, "(0,inf)", &low, &high, &scale));
    assert_false(ranged((double)NAN, "(0,inf)", &low, &high, &scale));
    assert_false(ranged(5, "[1,epochs], integer", &low, &high, &scale));
}

static const bl_recipe recipe = {.learning_rate = 0.05, .weight_decay = 1e-4};

static bool has(const bl_space *s, const char *name)
{
    for (int d = 0; d < s->count; d++)
        if (!strcmp(s->dimension[d].name, name))
            return true;
    return false;
}

/* Arms whose options all have defaults. */
static bool is_plain_arm(const bl_method *method)
{
    bl_arm arm = {0};
    bool plain = method->hooks && bl_arm_parse(method->slug, &arm) == BL_OK;
    bl_arm_free(&arm);
    return plain;
}

/* Rates and decays are those of the baseline's trials, and every option is within its range (or
 * bl_arm_parse would refuse it). */
static void every_method_has_a_space(void **state)
{
    (void)state;
    enum { TRIALS = 13 };
    double rate[TRIALS] = {0}, decay[TRIALS] = {0};
    int arms = 0, wider = 0;
    for (int m = -1; m < bl_method_count(); m++) {
        if (m >= 0 && !is_plain_arm(bl_method_at(m)))
            continue;
        bl_space space;
        assert_int_equal(
            bl_space_new(m < 0 ? "baseline" : bl_method_at(m)->slug, &recipe, 7, &space), BL_OK);
        assert_true(has(&space, "learning_rate") && has(&space, "weight_decay"));
        arms++;
        wider += space.count > 2;
        for (int t = 0; t < TRIALS; t++) {
            char *text;
            bl_setting setting;
            if (bl_space_setting(&space, t, &text) != BL_OK)
                fail_msg("%s, trial %d: %s", space.arm.text, t, bl_error());
            if (bl_setting_parse(text, &setting) != BL_OK)
                fail_msg("%s: %s", text, bl_error());
            assert_true(isnan(setting.learning_rate) == (t == 0));
            if (m < 0) {
                rate[t] = setting.learning_rate;
                decay[t] = setting.weight_decay;
            } else if (t > 0) {
                assert_true(setting.learning_rate == rate[t]);
                assert_true(setting.weight_decay == decay[t]);
            }
            if (t > 0) {
                assert_true(setting.learning_rate >= 0.005 && setting.learning_rate <= 0.5);
                assert_true(setting.weight_decay >= 3.3e-6 && setting.weight_decay <= 3e-3);
            }
            bl_setting_free(&setting);
            bl_release(text);
        }
        bl_space_free(&space);
    }
    assert_true(arms > 20 && wider > 10);
}

static void what_the_user_sets_is_fixed(void **state)
{
    (void)state;
    bl_space space;
    assert_int_equal(bl_space_new("elr", &recipe, 1, &space), BL_OK);
    assert_true(has(&space, "elr.lambda") && has(&space, "elr.beta"));
    bl_space_free(&space);
    /* at its default, and with blanks */
    assert_int_equal(bl_space_new("ema+elr( lambda = 3 )", &recipe, 1, &space), BL_OK);
    assert_true(!has(&space, "elr.lambda") && has(&space, "elr.beta") && has(&space, "ema.decay"));
    bl_space_free(&space);
    assert_int_equal(bl_space_new("elr(lambda=2)", &recipe, 1, &space), BL_OK);
    for (int t = 0; t < 5; t++) {
        char *text;
        assert_int_equal(bl_space_setting(&space, t, &text), BL_OK);
        assert_non_null(strstr(text, "lambda=2"));
        bl_release(text);
    }
    bl_space_free(&space);
}

static void bad_settings_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"elr @ learning_rate=-1", "elr @ learning_rate=x",
                                      "elr @ momentum=0.9", "elr @ learning_rate", "nothing @ "};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bl_setting setting;
        assert_int_not_equal(bl_setting_parse(bad[i], &setting), BL_OK);
        bl_setting_free(&setting);
    }
}

/* --- trials do not see the test part -----------------------------------------------------------
 */
static char *run_text(const bl_plan *plan, const char *arm, int replicate, int64_t *steps)
{
    bl_job_data *data;
    if (bl_job_data_open(plan, &data) != BL_OK)
        fail_msg("%s", bl_error());
    bl_job job = {.plan = plan, .arm = arm, .replicate = replicate};
    bl_run_result result = {0};
    if (bl_job_run(&job, data, NULL, &result) != BL_OK)
        fail_msg("%s: %s", arm, bl_error());
    if (steps)
        *steps = result.steps;
    json_t *json = bl_run_result_to_json(&result);
    json_object_del(json, "timing");
    char *text = json_dumps(json, JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    json_decref(json);
    bl_run_result_free(&result);
    bl_job_data_close(data);
    return text;
}

static void write_table(const char *name, unsigned seed, int rows)
{
    bl_text text = {0};
    bl_text_add(&text, "a,b,kind\n");
    bl_random random = bl_random_new(bl_key_from_seed(seed));
    for (int i = 0; i < rows; i++) {
        double a = bl_random_gauss(&random), b = bl_random_gauss(&random);
        bool odd = a * b + 0.3 * bl_random_gauss(&random) > 0;
        bl_text_add(&text, "%.4f,%.4f,%s\n", a, b, odd ? "odd" : "even");
    }
    write_text(name, text.at);
    bl_text_free(&text);
}

static void trials_and_screening_do_not_read_the_test_part(void **state)
{
    (void)state;
    write_table("train.csv", 1, 200);
    write_table("one.csv", 2, 60);
    write_table("other.csv", 3, 60);
    bl_plan plan = bl_plan_new();
    char *train = path_of("train.csv"), *one = path_of("one.csv"), *other = path_of("other.csv");
    plan.data = train;
    plan.target = bl_copy_text("kind");
    plan.epochs = 3;
    plan.batch = 10;
    static const char *const arms[] = {"baseline", "tuning baseline", "tuning early_stopping",
                                       "screening baseline"};
    int64_t steps[4];
    for (int i = 0; i < 4; i++) {
        plan.test = one;
        char *first = run_text(&plan, arms[i], 0, &steps[i]);
        plan.test = other;
        char *second = run_text(&plan, arms[i], 0, NULL), *next = run_text(&plan, arms[i], 1, NULL);
        assert_true((strcmp(first, second) == 0) == (i > 0));
        assert_string_not_equal(second, next);
        free(first);
        free(second);
        free(next);
    }
    assert_int_equal(steps[0], 3 * 20);
    assert_int_equal(steps[1], 3 * 16); /* of 200, a fifth is scored on */
    assert_int_equal(steps[3], steps[1]);
    assert_true(steps[2] <= 3 * 14); /* and early stopping takes a tenth of the 160 */
    bl_release(one);
    bl_release(other);
    plan.test = NULL;
    bl_plan_free(&plan); /* train is its data */
}

static void a_setting_changes_rate_and_decay(void **state)
{
    (void)state;
    bl_plan plan = bl_plan_new();
    plan.data = bl_copy_text("digits");
    plan.epochs = 1;
    plan.train_count = 100;
    char *as_given = run_text(&plan, "baseline", 0, NULL);
    char *other = run_text(&plan, "baseline @ learning_rate=0.3", 0, NULL);
    plan.learning_rate = 0.3;
    char *planned = run_text(&plan, "baseline", 0, NULL);
    assert_string_not_equal(as_given, other);
    assert_string_equal(planned, other);
    plan.learning_rate = -1;
    char *decayed = run_text(&plan, "baseline @ weight_decay=0.5", 0, NULL);
    assert_string_not_equal(as_given, decayed);
    free(as_given);
    free(other);
    free(planned);
    free(decayed);
    bl_plan_free(&plan);
}

/* --- choosing -----------------------------------------------------------------------------------
 */
/* The nearer the rate to 0.02 the better, but the first trial of elr is the best of all and ema
 * always diverges. */
static const char script[] =
    "cd \"$1\"\n"
    "while read -r line; do\n"
    "  arm=${line#*\\\"arm\\\":\\\"}; arm=${arm%%\\\"*}\n"
    "  replicate=${line#*\\\"replicate\\\":}; replicate=${replicate%%,*}\n"
    "  echo \"$arm, $replicate\" >>log\n"
    "  rate=${arm##*learning_rate=}; rate=${rate%%,*}; diverged=false\n"
    "  case $arm in *@*) ;; *) rate=0.05;; esac\n"
    "  case $arm in *elr) score=99;; *ema*) diverged=true; score=0;;\n"
    "  *) score=$(awk -v r=$rate -v s=$replicate 'BEGIN { d = log(r / 0.02); print 80 - d * d + s "
    "}');; esac\n"
    "  echo "
    "\"{\\\"result\\\":{\\\"metrics\\\":{\\\"accuracy\\\":$score},\\\"diverged\\\":$diverged,"
    "\\\"timing\\\":{\\\"seconds\\\":0.25}}}\"\n"
    "done\n";

typedef struct fixture {
    bl_plan plan;
    bl_job_data *data;
    char *script, *store, *log;
    const char *worker[4];
    bl_study_options options;
} fixture;

static const char *const arms[] = {"baseline", "elr", "ema", "null"};
enum { ARMS = 4, TRIALS = 8 };

static void begin(fixture *f)
{
    *f = (fixture){.plan = bl_plan_new(), .script = path_of("worker.sh")};
    write_text("worker.sh", script);
    f->plan.data = bl_copy_text("digits");
    f->plan.study_seed = 5;
    assert_int_equal(bl_job_data_open(&f->plan, &f->data), BL_OK);
    f->store = path_of("studies.db");
    f->log = path_of("log");
    unlink(f->log);
    f->worker[0] = "/bin/sh";
    f->worker[1] = f->script;
    f->worker[2] = folder;
    f->options = (bl_study_options){.plan = &f->plan,
                                    .arm = arms,
                                    .arms = ARMS,
                                    .replicates = 5,
                                    .workers = 2,
                                    .store = f->store,
                                    .fresh = true,
                                    .worker = f->worker};
}

static void end(fixture *f)
{
    bl_job_data_close(f->data);
    bl_plan_free(&f->plan);
    bl_release(f->script);
    bl_release(f->store);
    bl_release(f->log);
}

static int lines_with(const fixture *f, const char *word)
{
    char *text;
    size_t size;
    if (bl_read_file(f->log, &text, &size) != BL_OK)
        return 0;
    int count = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        count += strstr(line, word) != NULL;
    bl_release(text);
    return count;
}

static double rate_of(const char *setting)
{
    bl_setting parsed;
    assert_int_equal(bl_setting_parse(setting, &parsed), BL_OK);
    double rate = parsed.learning_rate;
    bl_setting_free(&parsed);
    return rate;
}

static void every_arm_has_the_same_budget_and_its_best_is_chosen(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    bl_tuning tuning;
    if (bl_tune(&f.options, f.data, arms, TRIALS, &tuning) != BL_OK)
        fail_msg("%s", bl_error());
    for (int a = 0; a < 3; a++)
        assert_int_equal(lines_with(&f, arms[a]), TRIALS * BL_TUNING_SEEDS);
    assert_int_equal(lines_with(&f, "null"), 0);
    assert_int_equal(lines_with(&f, "tuning "), 3 * TRIALS * BL_TUNING_SEEDS);

    const bl_choice *c = tuning.choice;
    bl_space space;
    assert_int_equal(bl_space_new("baseline", bl_job_recipe(f.data), 5, &space), BL_OK);
    double nearest = fabs(log(0.05 / 0.02));
    for (int t = 1; t < TRIALS; t++) {
        char *text;
        assert_int_equal(bl_space_setting(&space, t, &text), BL_OK);
        double distance = fabs(log(rate_of(text) / 0.02));
        nearest = distance < nearest ? distance : nearest;
        bl_release(text);
    }
    bl_space_free(&space);
    assert_true(c[0].chosen > 0);
    assert_true(fabs(fabs(log(rate_of(c[0].setting) / 0.02)) - nearest) < 1e-9);
    assert_true(fabs(c[0].best[TRIALS - 1] - (80.5 - nearest * nearest)) < 1e-3);
    for (int t = 1; t < TRIALS; t++)
        assert_true(c[0].best[t] >= c[0].best[t - 1]);
    assert_true(fabs(c[0].seconds - 0.25 * TRIALS * BL_TUNING_SEEDS) < 1e-9);

    assert_int_equal(c[1].chosen, 0); /* as good as it gets */
    assert_string_equal(c[1].setting, "elr");
    assert_int_equal(c[2].chosen, 0); /* nothing to choose from */
    assert_int_equal(c[2].diverged, TRIALS);
    assert_true(isnan(c[2].best[TRIALS - 1]));
    assert_true(rate_of(c[3].setting) == rate_of(c[0].setting)); /* null */
    assert_memory_equal(c[3].setting, "null @ ", 7);

    /* asked again: the same from the store, without a run; more trials: only those are run */
    bl_tuning again;
    f.options.fresh = false;
    unlink(f.log);
    assert_int_equal(bl_tune(&f.options, f.data, arms, TRIALS, &again), BL_OK);
    assert_int_equal(lines_with(&f, "tuning"), 0);
    for (int a = 0; a < ARMS; a++)
        assert_string_equal(again.choice[a].setting, c[a].setting);
    bl_tuning_free(&again);
    assert_int_equal(bl_tune(&f.options, f.data, arms, TRIALS + 2, &again), BL_OK);
    assert_int_equal(lines_with(&f, "tuning"), 3 * 2 * BL_TUNING_SEEDS);
    bl_tuning_free(&again);
    bl_tuning_free(&tuning);
    end(&f);
}

static void a_preset_brings_the_choice_back(void **state)
{
    (void)state;
    fixture f;
    begin(&f);
    bl_tuning tuning, preset;
    assert_int_equal(bl_tune(&f.options, f.data, arms, TRIALS, &tuning), BL_OK);
    char *path = path_of("preset.json");
    assert_int_equal(bl_preset_write((const bl_tuning *const[]){&tuning},
                                     (const bl_job_data *const[]){f.data}, 1, path),
                     BL_OK);
    assert_int_equal(bl_preset_read(path, f.data, arms, ARMS, &preset), BL_OK);
    assert_true(preset.preset);
    for (int a = 0; a < ARMS; a++)
        assert_string_equal(preset.choice[a].setting, tuning.choice[a].setting);
    bl_tuning_free(&preset);

    static const char *const other[] = {"baseline", "mixup"};
    assert_int_equal(bl_preset_read(path, f.data, other, 2, &preset), BL_INVALID);
    assert_non_null(strstr(bl_error(), "mixup"));
    bl_tuning_free(&preset);
    static const char *const damaged[] = {
        "{", "[]", "{\"schema\":2,\"arms\":[]}",
        "{\"schema\":1,\"arms\":[{\"arm\":\"baseline\",\"setting\":\"nonsense\"}]}"};
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        write_text("preset.json", damaged[i]);
        assert_int_not_equal(bl_preset_read(path, f.data, arms, ARMS, &preset), BL_OK);
        assert_non_null(strstr(bl_error(), "preset"));
        bl_tuning_free(&preset);
    }
    bl_release(path);
    bl_tuning_free(&tuning);
    end(&f);
}

/* Every option of every arm says in what range it is searched, or that it is not; and what is
 * searched is legal, the default included or close by. */
static void every_arm_states_its_ranges(void **state)
{
    (void)state;
    const bl_symbols none = {0};
    int searched = 0;
    for (int m = 0; m < bl_method_count(); m++) {
        const bl_method *method = bl_method_at(m);
        const bl_contract *contract = method->options ? method->options : method->functions[0];
        int count;
        const bl_field *table = method->hooks && contract ? contract->table(&count) : NULL;
        for (int i = 0; table && i < count; i++) {
            const bl_field *f = &table[i];
            double low, high;
            bl_scale scale;
            if (!bl_option_searched(f, &low, &high, &scale))
                continue;
            searched++;
            if (!strstr(f->conditions, "tune ["))
                fail_msg("%s.%s is searched in a range that it does not state", method->slug,
                         f->name);
            if (bl_range_check(f->conditions, &none, low) != BL_OK ||
                bl_range_check(f->conditions, &none, high) != BL_OK || !(low < high))
                fail_msg("%s.%s is searched in [%g,%g], but must be in %s", method->slug, f->name,
                         low, high, f->conditions);
            if (f->option == BL_OPTION_NUMBER && !(f->number >= low && f->number <= high))
                fail_msg("%s.%s is searched in [%g,%g] without its default %g", method->slug,
                         f->name, low, high, f->number);
        }
    }
    assert_true(searched > 35);
}

/* --- what a search says about itself ---------------------------------------------------------- */
static void expect_curve(const double *score, int trials, bool higher, const double *wanted)
{
    double expected[4];
    bl_expected_best(score, trials, higher, expected);
    for (int k = 0; k < trials; k++)
        assert_true(isnan(wanted[k]) ? isnan(expected[k]) : fabs(expected[k] - wanted[k]) < 1e-12);
}

/* Over all subsets: of {1,2,3,4} the best of two is 2, 3, 4, 3, 4, 4. */
static void best_of_k_is_the_mean_over_subsets(void **state)
{
    (void)state;
    const double score[] = {3, 1, 4, 2}, one_diverged[] = {2, NAN, 4}, none[] = {NAN, NAN};
    expect_curve(score, 4, true, (double[]){2.5, 20.0 / 6, 3.75, 4});
    expect_curve(score, 4, false, (double[]){2.5, 10.0 / 6, 1.25, 1});
    expect_curve(one_diverged, 3, true, (double[]){8.0 / 3, 10.0 / 3, 4});
    expect_curve(one_diverged, 3, false, (double[]){10.0 / 3, 8.0 / 3, 2});
    expect_curve(none, 2, true, (double[]){NAN, NAN});
}

static void good_trials_at_an_end_are_noticed(void **state)
{
    (void)state;
    double place[12], rising[12], peak[12];
    for (int i = 0; i < 12; i++) {
        place[i] = (i * 5 % 12) / 11.0;
        rising[i] = place[i];
        peak[i] = -fabs(place[i] - 0.5);
    }
    assert_int_equal(bl_search_edge(rising, place, 12, true), 1);
    assert_int_equal(bl_search_edge(rising, place, 12, false), -1);
    assert_int_equal(bl_search_edge(peak, place, 12, true), 0);
    assert_int_equal(bl_search_edge(rising, place, 7, true), 0);
    for (int i = 0; i < 12; i++)
        if (place[i] > 0.7)
            rising[i] = NAN; /* too high a rate diverges: no edge */
    assert_int_equal(bl_search_edge(rising, place, 12, true), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_arm_states_its_ranges),
        cmocka_unit_test(halton_points_are_spread_evenly),
        cmocka_unit_test(ranges_follow_from_the_declaration),
        cmocka_unit_test(every_method_has_a_space),
        cmocka_unit_test(what_the_user_sets_is_fixed),
        cmocka_unit_test(bad_settings_are_refused),
        cmocka_unit_test(trials_and_screening_do_not_read_the_test_part),
        cmocka_unit_test(a_setting_changes_rate_and_decay),
        cmocka_unit_test(every_arm_has_the_same_budget_and_its_best_is_chosen),
        cmocka_unit_test(a_preset_brings_the_choice_back),
        cmocka_unit_test(best_of_k_is_the_mean_over_subsets),
        cmocka_unit_test(good_trials_at_an_end_are_noticed),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
