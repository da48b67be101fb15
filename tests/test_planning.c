/* What comes before a comparison and beside it: pilots that plan its size, screening of many arms,
 * rows at equal cost. Where jobs are run, a shell script answers with made-up scores. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "study/matched.h"
#include "study/setting.h"

/* Scores: the arm's gain in points, read off its name ("up3", "down2", "baseline"), on a level that
 * depends on the replicate. "dear" costs twice as much as the others, and the baseline gains 4 by
 * more epochs. What was asked for is noted in "log". */
static const char script[] =
    "cd \"$1\"\n"
    "while read -r line; do\n"
    "  arm=${line#*\\\"arm\\\":\\\"}; arm=${arm%%\\\"*}\n"
    "  r=${line#*\\\"replicate\\\":}; r=${r%%,*}\n"
    "  echo \"$arm/$r\" >>log\n"
    "  gain=0; flops=100\n"
    "  case $arm in *up*) gain=${arm##*up};; *down*) gain=-${arm##*down};; esac\n"
    "  case $arm in *epochs=*) gain=4;; dear*) gain=3; flops=200;; esac\n"
    "  case $arm in *broken*) result='\"diverged\":true';; *) result='\"diverged\":false';; esac\n"
    "  score=$((70 + r * 7 % 5 + gain)).$((r * 3 % 10))\n"
    "  result=$result,'\"metrics\":{\"accuracy\":'$score'},\"steps\":10'\n"
    "  effect='\"sites\":1,\"measures\":{},\"inert\":false'\n"
    "  case $arm in *inert*) effect='\"sites\":0,\"measures\":{},\"inert\":true';; esac\n"
    "  result=$result,'\"effect\":{'$effect'},\"work\":{\"flops\":'$flops'},\"timing\":{}'\n"
    "  echo \"{\\\"result\\\":{$result}}\"\n"
    "done\n";

static char folder[] = "/tmp/ballast-planning-XXXXXX";
static bl_plan plan;
static bl_job_data *data;

static int open_data(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    char *path = bl_format("%s/worker.sh", folder);
    bl_status status = bl_write_file(path, script, strlen(script));
    bl_release(path);
    plan = bl_plan_new();
    plan.data = bl_copy_text("digits");
    plan.study_seed = 1;
    return status == BL_OK && bl_job_data_open(&plan, &data) == BL_OK ? 0 : -1;
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

typedef struct fixture {
    char *folder, *script, *store;
    const char *worker[4];
    bl_study_options options;
} fixture;

static void begin(fixture *f, const char *name, const char *const *arm, int arms, int replicates)
{
    *f = (fixture){.folder = bl_format("%s/%s", folder, name),
                   .script = bl_format("%s/worker.sh", folder)};
    assert_int_equal(mkdir(f->folder, 0700), 0);
    f->store = bl_format("%s/studies.db", f->folder);
    const char *const worker[] = {"/bin/sh", f->script, f->folder, NULL};
    memcpy(f->worker, worker, sizeof worker);
    f->options = (bl_study_options){.plan = &plan,
                                    .arm = arm,
                                    .arms = arms,
                                    .replicates = replicates,
                                    .workers = 2,
                                    .store = f->store,
                                    .worker = f->worker};
}

static void end(fixture *f)
{
    bl_release(f->folder);
    bl_release(f->script);
    bl_release(f->store);
}

/* Lines of the log that hold `text`. */
static int asked(const fixture *f, const char *text)
{
    char *path = bl_format("%s/log", f->folder), *log;
    size_t size;
    assert_int_equal(bl_read_file(path, &log, &size), BL_OK);
    bl_release(path);
    int count = 0;
    for (char *at = log; (at = strstr(at, text)); at++)
        count++;
    bl_release(log);
    return count;
}

/* --- settings --------------------------------------------------------------------------------- */
static void settings_say_what_they_are_for(void **state)
{
    (void)state;
    const bl_purpose purpose[] = {BL_FOR_VERDICT, BL_FOR_TUNING, BL_FOR_SCREENING, BL_FOR_PILOT};
    for (size_t i = 0; i < 4; i++) {
        char *text = bl_setting_for(purpose[i], "elr @ learning_rate=0.1,weight_decay=0");
        char *longer = bl_setting_lasting(text, 41);
        bl_setting s;
        assert_int_equal(bl_setting_parse(longer, &s), BL_OK);
        assert_int_equal(s.purpose, purpose[i]);
        assert_true(s.learning_rate == 0.1 && s.epochs == 41);
        bl_setting_free(&s);
        bl_release(text);
        bl_release(longer);
    }
    char *plain = bl_setting_lasting("baseline", 7);
    assert_string_equal(plain, "baseline @ epochs=7");
    bl_release(plain);
}

/* --- pilots ----------------------------------------------------------------------------------- */
static double p_of(bl_random *random, int n, double shift)
{
    double d[BL_PLANNED_MOST], t;
    for (int i = 0; i < n; i++)
        d[i] = shift + bl_random_gauss(random);
    return bl_paired_t(d, n, 0, &t);
}

/* Studies planned by pilots that are dropped keep their level, and find the effect they were
 * planned for as often as they should, though five pilots know the spread badly; pilots that are
 * kept would give too many false alarms. */
static void planned_studies_keep_their_level_and_find_the_effect(void **state)
{
    (void)state;
    enum { STUDIES = 500, SEED = 11 };
    const double effect = 1; /* in standard deviations: 10 pairs if the spread were known */
    bl_random random = bl_random_new(bl_key_from_seed(SEED));
    int alarms = 0, found = 0;
    for (int s = 0; s < STUDIES; s++) {
        double score[2 * BL_PILOT_PAIRS] = {0};
        for (int i = 0; i < BL_PILOT_PAIRS; i++)
            score[BL_PILOT_PAIRS + i] = bl_random_gauss(&random);
        bl_pilot pilot;
        assert_int_equal(bl_plan_from(score, 2, BL_PILOT_PAIRS, 1, 0, 0.05, effect, &pilot), BL_OK);
        assert_in_range(pilot.planned, BL_PLANNED_LEAST, BL_PLANNED_MOST);
        alarms += p_of(&random, pilot.planned, 0) <= 0.05;
        found += p_of(&random, pilot.planned, effect) <= 0.05;
    }
    print_message("seed %d: %d false alarms and %d findings of %d\n", SEED, alarms, found, STUDIES);
    assert_in_range(alarms, 9, 41); /* 25 +- 3.3 sd */
    assert_in_range(found, STUDIES * 78 / 100, STUDIES * 88 / 100);
}

static void plans_say_what_limits_them(void **state)
{
    (void)state;
    const double score[3 * 5] = {1, 2, 3, 4, 5, 1.1, 1.9, 3.1, 4.2, 4.9, 2, 1, 5, 3, 6};
    bl_pilot pilot;
    assert_int_equal(bl_plan_from(score, 3, 5, 2, 0, 0.05, 100, &pilot), BL_OK);
    assert_int_equal(pilot.planned, BL_PLANNED_LEAST);
    assert_false(pilot.capped);
    assert_true(fabs(pilot.deviation - sqrt(1.8)) < 1e-9); /* of 1, -1, 2, -1, 1 */
    assert_int_equal(bl_plan_from(score, 3, 5, 2, 0, 0.05, 1.5, &pilot), BL_OK);
    int few = pilot.planned;
    assert_true(few == pilot.needed && pilot.detectable <= 1.5 && pilot.detectable > 1.4);
    assert_int_equal(bl_plan_from(score, 3, 5, 12, 0, 0.05, 1.5, &pilot), BL_OK);
    assert_true(pilot.planned > few); /* ten more that Holm counts */
    assert_int_equal(bl_plan_from(score, 3, 5, 2, 0, 0.05, 0.5, &pilot), BL_OK);
    assert_int_equal(pilot.planned, BL_PLANNED_MOST);
    assert_true(pilot.capped && pilot.needed > BL_PLANNED_MOST && pilot.detectable > 0.5);
    assert_int_equal(bl_plan_from(score, 3, 5, 2, 0.25, 0.05, 0.5, &pilot), BL_OK);
    assert_int_equal(pilot.needed, -1); /* re-splits share their examples */
    assert_true(pilot.capped);
    const double diverged[2 * 5] = {1, 2, 3, 4, 5, 1, 2, 3, NAN, 5};
    assert_int_equal(bl_plan_from(diverged, 2, 5, 1, 0, 0.05, 1, &pilot), BL_OK);
    assert_int_equal(pilot.planned, BL_PLANNED_MOST); /* nothing is known of the spread */
    assert_true(pilot.capped && pilot.needed == -1 && isnan(pilot.detectable));
    assert_int_equal(bl_plan_from(score, 3, 5, 2, 0, 0.05, 0, &pilot), BL_INVALID);
}

static void pilots_have_runs_of_their_own(void **state)
{
    (void)state;
    static const char *const arm[] = {"baseline", "up1"};
    fixture f;
    begin(&f, "pilots", arm, 2, 8);
    bl_pilot pilot, again;
    assert_int_equal(bl_plan_replicates(&f.options, data, 0.05, 1, &pilot), BL_OK);
    assert_int_equal(asked(&f, "pilot "), 2 * BL_PILOT_PAIRS);
    assert_int_equal(pilot.planned, BL_PLANNED_LEAST); /* differences are the same in every pair */
    assert_int_equal(bl_plan_replicates(&f.options, data, 0.05, 1, &again), BL_OK);
    assert_memory_equal(&pilot, &again, sizeof pilot);
    assert_int_equal(asked(&f, "pilot "), 2 * BL_PILOT_PAIRS); /* nothing is run twice */
    end(&f);
}

/* --- screening -------------------------------------------------------------------------------- */
static void the_better_half_goes_on_until_five_are_left(void **state)
{
    (void)state;
    static const char *const arm[] = {"baseline", "up1", "down1", "up5",   "up2",   "broken",
                                      "down3",    "up4", "up3",   "inert", "down2", "up9"};
    enum { ARMS = 12 };
    static const int round[ARMS - 1] = {2, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0};
    fixture f;
    begin(&f, "screening", arm, ARMS, 8);
    bl_screening s;
    assert_int_equal(bl_screen(&f.options, data, arm, &s), BL_OK);
    assert_int_equal(s.arms, ARMS - 1);
    assert_int_equal(s.rounds, 2);
    int kept = 0;
    for (int a = 0; a < s.arms; a++) {
        assert_string_equal(s.arm[a].arm, arm[a + 1]);
        kept += s.arm[a].round == 0;
    }
    assert_int_equal(kept, BL_SCREEN_KEEP);
    assert_int_equal(s.arm[2].round, round[2]);
    assert_true(s.arm[2].difference == 5 && s.arm[2].pairs == 2 * BL_SCREEN_PAIRS);
    assert_int_equal(s.arm[4].round, 1); /* a run that diverged is worse than any other */
    assert_true(isnan(s.arm[4].difference));
    assert_int_equal(s.arm[0].round, 2);
    for (int a = 0; a < s.arms; a++)
        assert_true(s.arm[a].inert == (strcmp(arm[a + 1], "inert") == 0));
    assert_int_equal(asked(&f, "screening down3/"), BL_SCREEN_PAIRS);
    assert_int_equal(asked(&f, "screening baseline/"), 2 * BL_SCREEN_PAIRS);
    bl_screening_free(&s);
    end(&f);
}

static void five_arms_are_not_screened(void **state)
{
    (void)state;
    static const char *const arm[] = {"baseline", "up1", "up2", "up3", "up4", "up5"};
    fixture f;
    begin(&f, "five", arm, 6, 8);
    bl_screening s;
    assert_int_equal(bl_screen(&f.options, data, arm, &s), BL_OK);
    assert_int_equal(s.rounds, 0);
    bl_screening_free(&s);
    end(&f);
}

static void screening_asks_for_nothing_twice(void **state)
{
    (void)state;
    static const char *const arm[] = {"baseline", "up1", "down1", "up5", "up2", "up3", "up4"};
    fixture f;
    begin(&f, "resumed", arm, 7, 8);
    bl_screening first, again;
    assert_int_equal(bl_screen(&f.options, data, arm, &first), BL_OK);
    int runs = asked(&f, "screening ");
    assert_int_equal(runs, 7 * BL_SCREEN_PAIRS);
    assert_int_equal(bl_screen(&f.options, data, arm, &again), BL_OK);
    assert_int_equal(asked(&f, "screening "), runs);
    for (int a = 0; a < first.arms; a++) {
        assert_int_equal(first.arm[a].round, again.arm[a].round);
        assert_true(first.arm[a].difference == again.arm[a].difference);
    }
    bl_screening_free(&first);
    bl_screening_free(&again);
    end(&f);
}

/* Many studies of ARMS arms that are all as good as the baseline: in how many is some arm found to
 * differ? `luck` is what an arm's scores have in common on one data set, in standard deviations of
 * a run; it lets an arm through, and on re-splits it is there again in the comparison. */
enum { ARMS = 40, PAIRS = 10, TESTED = 60, TRAINED = 240 };

typedef struct contest {
    bl_random random;
    double luck[ARMS + 1];
} contest;

static bl_status contest_scores(void *context, const int *arm, int arms, int pairs, double *score)
{
    contest *c = context;
    for (int i = 0; i < arms; i++)
        for (int r = 0; r < pairs; r++)
            score[i * pairs + r] = c->luck[arm[i]] + bl_random_gauss(&c->random);
    return BL_OK;
}

/* Compares the arms that a screening kept, counting `family` arms. */
static bool found_some(contest *c, const bl_screening *s, bool resplit, int family)
{
    const bl_compare_options options = {.higher_is_better = true,
                                        .train_count = resplit ? TRAINED : 0,
                                        .test_count = resplit ? TESTED : 0};
    bl_comparison row[BL_SCREEN_KEEP];
    double score[(BL_SCREEN_KEEP + 1) * PAIRS];
    int arm[BL_SCREEN_KEEP + 1] = {0}, kept = 1;
    bool found = false;
    for (int a = 0; a < s->arms; a++)
        if (!s->arm[a].round)
            arm[kept++] = a + 1;
    assert_int_equal(kept, BL_SCREEN_KEEP + 1);
    assert_int_equal(contest_scores(c, arm, kept, PAIRS, score), BL_OK);
    for (int i = 1; i < kept; i++)
        assert_int_equal(bl_compare(&options, score + i * PAIRS, score, PAIRS, &row[i - 1]), BL_OK);
    assert_int_equal(bl_verdicts_among(row, BL_SCREEN_KEEP, family, 0.05), BL_OK);
    for (int i = 0; i < BL_SCREEN_KEEP; i++)
        found = found || row[i].verdict != BL_UNDECIDED;
    return found;
}

static int false_alarms(int studies, int seed, double luck, int family)
{
    int alarms = 0;
    for (int s = 0; s < studies; s++) {
        contest c = {
            .random = bl_random_new(bl_key_derive(bl_key_from_seed((uint64_t)seed), (uint32_t)s))};
        for (int a = 0; a <= ARMS; a++)
            c.luck[a] = luck * bl_random_gauss(&c.random);
        bl_screening screening;
        assert_int_equal(bl_screen_rounds(ARMS + 1, true, contest_scores, &c, &screening), BL_OK);
        alarms += found_some(&c, &screening, luck > 0, family);
        bl_screening_free(&screening);
    }
    print_message("seed %d: luck %g, %d arms counted: %d false alarms in %d studies\n", seed, luck,
                  family, alarms, studies);
    return alarms;
}

/* On a fixed test part what was screened out need not count. On re-splits, where the variance of
 * the luck is n_test / n_train times that of a run (what Nadeau and Bengio correct for), it must.
 */
static void screening_raises_no_false_alarms(void **state)
{
    (void)state;
    enum { STUDIES = 800 };
    const double luck = sqrt((double)TESTED / TRAINED);
    const int most = 60; /* 40 + 3.3 sd */
    assert_in_range(false_alarms(STUDIES, 21, 0, BL_SCREEN_KEEP), 10, most);
    assert_true(false_alarms(STUDIES, 22, luck, ARMS) <= most);
    assert_true(false_alarms(STUDIES, 22, luck, BL_SCREEN_KEEP) > most); /* so all must count */
}

/* --- equal cost ------------------------------------------------------------------------------- */
static void a_dear_arm_meets_a_baseline_of_its_cost(void **state)
{
    (void)state;
    static const char *const arm[] = {"baseline", "dear", "up2"};
    fixture f;
    begin(&f, "cost", arm, 3, 8);
    assert_int_equal(bl_study_run(&f.options, data), BL_OK);
    bl_outcome o;
    assert_int_equal(bl_outcome_new(&f.options, data, 0.05, 0, &o), BL_OK);
    assert_int_equal(bl_match_cost(&f.options, data, &o), BL_OK);
    int64_t epochs = 2 * bl_job_recipe(data)->epochs;
    char *job = bl_format("baseline @ epochs=%lld/", (long long)epochs);
    assert_int_equal(asked(&f, job), 8);
    assert_int_equal(o.matches, 1); /* up2 costs what the baseline does */
    assert_int_equal(o.matched[0].epochs, epochs);
    assert_true(fabs(o.matched[0].comparison.difference + 1) < 1e-9); /* 3 against 4 */
    assert_true(fabs(o.arm[1].comparison.difference - 3) < 1e-9);
    bl_text text = {0};
    assert_int_equal(bl_outcome_table(&o, false, &text), BL_OK);
    assert_non_null(strstr(text.at, "at equal cost"));
    bl_text_free(&text);
    bl_release(job);
    bl_outcome_free(&o);
    end(&f);
}

/* --- inert arms ------------------------------------------------------------------------------- */
/* In text and JSON; the others' correction does not count it. */
static void an_arm_that_did_nothing_is_an_error(void **state)
{
    (void)state;
    static const char *const arm[] = {"baseline", "inert", "up2"};
    fixture f;
    begin(&f, "inert", arm, 3, 4);
    assert_int_equal(bl_study_run(&f.options, data), BL_OK);
    bl_outcome o;
    assert_int_equal(bl_outcome_new(&f.options, data, 0.05, 0, &o), BL_OK);
    assert_true(o.arm[1].effect.inert && !o.arm[2].effect.inert);
    assert_true(o.compared == 1 && o.family == 1 && isfinite(o.arm[1].mean));
    assert_true(o.arm[2].comparison.adjusted_p == o.arm[2].comparison.p);
    bl_text text = {0};
    assert_int_equal(bl_outcome_table(&o, false, &text), BL_OK);
    assert_non_null(strstr(text.at, "  = no verdict; untuned; nothing\n    ERROR: this arm did"));
    bl_text_free(&text);
    json_t *json;
    assert_int_equal(bl_outcome_json(&o, false, &json), BL_OK);
    const json_t *inert = json_array_get(json_object_get(json, "arms"), 1);
    const char *error = json_string_value(json_object_get(inert, "error"));
    assert_true(error && strstr(error, "did nothing in any of its 4 runs"));
    assert_null(json_object_get(inert, "comparison"));
    json_decref(json);
    bl_outcome_free(&o);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_say_what_they_are_for),
        cmocka_unit_test(planned_studies_keep_their_level_and_find_the_effect),
        cmocka_unit_test(plans_say_what_limits_them),
        cmocka_unit_test(pilots_have_runs_of_their_own),
        cmocka_unit_test(the_better_half_goes_on_until_five_are_left),
        cmocka_unit_test(five_arms_are_not_screened),
        cmocka_unit_test(screening_asks_for_nothing_twice),
        cmocka_unit_test(screening_raises_no_false_alarms),
        cmocka_unit_test(a_dear_arm_meets_a_baseline_of_its_cost),
        cmocka_unit_test(an_arm_that_did_nothing_is_an_error),
    };
    return cmocka_run_group_tests(tests, open_data, close_data);
}
