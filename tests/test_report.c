/* What a study tells: the JSON is as docs/json.md says, field by field, and the report is one
 * well-formed page with the verdicts, which needs nothing from elsewhere.
 *
 * The outcomes are made of chosen scores, so that every verdict occurs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"
#include "study/gnuplot.h"
#include "study/plot.h"
#include "study/report.h"
#include "study/suspects.h"

#include "json_document.h"

enum { ARMS = 5, RUNS = 8 };

static const char *const names[ARMS] = {"baseline", "elr", "mixup(alpha=0.2)+ema", "dropout",
                                        "null"};
static const char *const command = "ballast compare 'a<b>&c.csv' --arm \"elr\"";

typedef struct fixture {
    char folder[64], path[96];
    bl_plan plan;
    bl_job_data *data;
    bl_outcome outcome;
    double score[3], expected[3];
    bl_choice choice[ARMS];
    bl_screened screened;
    bl_screening screening;
    bl_pilot pilot;
    char *page;
} fixture;

/* --- an outcome
 * ------------------------------------------------------------------------------------ */
/* A helps by 5, another hurts by 5, one is equivalent within 1, one spreads too much to tell. */
static double score_of(int a, int r)
{
    static const double gain[ARMS] = {0, 5, -5, 0.01, 0.5};
    double noise = (r % 2 ? 1 : -1) * 0.1 * (1 + r % 3);
    return 80 + r + gain[a] + (a == 4 ? 30 : a ? 1 : 0) * noise;
}

static json_t *result_of(int a, int r, bool diverged)
{
    double score = diverged ? NAN : score_of(a, r);
    bl_curve_point curve[] = {{1, 2.0, 50 + a}, {2, 1.0, score - 1}, {3, 0.5, score}};
    bl_group group[] = {{12, score + 1}, {8, score - 1}};
    bl_suspect suspect[] = {{.example = 7, .given = 1, .believed = 0, .truth = 0, .doubt = 0.9},
                            {.example = r, .given = 0, .believed = 1, .truth = 0, .doubt = 0.2}};
    bl_run_result result = {
        .group = group,
        .groups = 2,
        .suspect = suspect,
        .suspects = a == 1 ? 2 : 0,
        .doubts = a == 1,
        .wrong_labels = a == 1 ? 2 : 0,
        .metric = {{"accuracy", score}, {"nll", 0.5}},
        .metrics = 2,
        .curve = curve,
        .curve_count = a == 1 && r == 0 ? 2 : 3, /* ended early */
        .effect = {.gradient_share = a == 4 ? 0 : 0.25, .inert = a == 4, .measures = 1},
        .steps = 30,
        .epochs = 3,
        .diverged = diverged,
        .work = {.flops = 1000 + 100 * a, .bytes = 10, .kernels = 3, .memory = 64},
        .seconds = 0.5,
        .seconds_per_step = 0.01};
    snprintf(result.effect.measure[0].name, sizeof result.effect.measure[0].name, "<mixed>");
    result.effect.measure[0].value = 0.5;
    json_t *json = bl_run_result_to_json(&result);
    assert_non_null(json);
    return json;
}

static void fill_arm(bl_outcome *o, int a, bool diverged)
{
    bl_arm_outcome *arm = &o->arm[a];
    *arm = (bl_arm_outcome){.arm = names[a],
                            .runs = RUNS,
                            .diverged = diverged,
                            .result = bl_alloc(RUNS * sizeof *arm->result),
                            .score = bl_alloc(RUNS * sizeof *arm->score),
                            .inert = a == 4 ? RUNS : 0,
                            .work = 1 + 0.1 * a,
                            .seconds = 0.5,
                            .seconds_per_step = 0.01};
    assert_true(arm->result && arm->score);
    for (int r = 0; r < RUNS; r++) {
        bool bad = diverged && r == RUNS - 1;
        arm->result[r] = result_of(a, r, bad);
        arm->score[r] = bad ? NAN : score_of(a, r);
    }
    arm->effect = (bl_arm_effect){.gradient_share = a == 4 ? 0 : 0.25, .inert = a == 4};
    if (a == 3)
        arm->effect.update_share = 0.03;
    if (a == 1) {
        arm->effect.measures = 1;
        snprintf(arm->effect.measure[0].name, sizeof arm->effect.measure[0].name, "<mixed>");
    }
}

static void fill(fixture *f, bool diverged, double min_effect)
{
    bl_outcome *o = &f->outcome;
    *o = (bl_outcome){.arms = ARMS,
                      .replicates = RUNS,
                      .arm = bl_alloc(ARMS * sizeof *o->arm),
                      .metric = "accuracy",
                      .higher_is_better = true,
                      .compared = ARMS - 1,
                      .family = ARMS - 1,
                      .train_count = 100,
                      .test_count = 20,
                      .alpha = 0.05,
                      .min_effect = min_effect,
                      .data = f->data,
                      .plan = &f->plan};
    bl_comparison row[ARMS];
    bl_compare_options options = {
        .alpha = 0.05, .min_effect = min_effect, .higher_is_better = true};
    for (int a = 0; a < ARMS; a++) {
        fill_arm(o, a, diverged && a == 2);
        assert_int_equal(bl_compare(&options, o->arm[a].score, o->arm[0].score, RUNS, &row[a]),
                         BL_OK);
    }
    assert_int_equal(bl_verdicts(row + 1, ARMS - 1, 0.05), BL_OK);
    for (int a = 0; a < ARMS; a++) {
        o->arm[a].comparison = row[a];
        o->arm[a].mean = row[a].arm_mean;
        o->arm[a].interval = row[a].arm_interval;
    }
    assert_int_equal(bl_groups_read(o), BL_OK);
}

/* What a study has that was tuned, screened, planned by pilots and matched in cost. */
static void add_rest(fixture *f)
{
    bl_outcome *o = &f->outcome;
    memcpy(f->score, (double[]){80, NAN, 81}, sizeof f->score);
    memcpy(f->expected, (double[]){80.25, 80.5, 81}, sizeof f->expected);
    for (int a = 0; a < ARMS; a++) {
        f->choice[a] = (bl_choice){.arm = (char *)names[a],
                                   .setting = (char *)"elr(<1>) @ learning_rate=0.1",
                                   .trials = 3,
                                   .chosen = 2,
                                   .diverged = 1,
                                   .best = f->expected,
                                   .score = f->score,
                                   .expected = f->expected,
                                   .seconds = 3};
        o->arm[a].choice = &f->choice[a];
    }
    f->choice[1].edge = (char *)"the best trials crowd the upper end";
    f->screened = (bl_screened){.arm = (char *)"sam", .round = 1, .pairs = 4, .difference = -0.5};
    f->screening = (bl_screening){.arms = 1, .rounds = 1, .arm = &f->screened};
    f->pilot = (bl_pilot){
        .planned = 8, .needed = 7, .deviation = 2.5, .min_effect = 1.5, .detectable = 1.25};
    o->screening = &f->screening;
    o->pilot = &f->pilot;
    o->matched = bl_alloc(sizeof *o->matched);
    assert_non_null(o->matched);
    o->matches = 1;
    o->matched[0] = (bl_matched){1, 20, o->arm[1].comparison};
    o->arm[1].total_work = 1.5;
}

/* The data are a table whose name must be escaped. */
static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    if (!f)
        return -1;
    snprintf(f->folder, sizeof f->folder, "/tmp/ballast-report-XXXXXX");
    if (!mkdtemp(f->folder))
        return -1;
    snprintf(f->path, sizeof f->path, "%s/a<b>&c.csv", f->folder);
    bl_text table = {0};
    bl_text_add(&table, "x,y,kind\n");
    for (int i = 0; i < 60; i++)
        bl_text_add(&table, "%d,%d.5,%s\n", i, i * i % 7, i % 2 ? "odd" : "even");
    bl_status status = bl_write_file(f->path, table.at, table.length);
    bl_text_free(&table);
    f->plan = bl_plan_new();
    f->plan.data = bl_copy_text(f->path);
    f->plan.target = bl_copy_text("kind");
    if (status == BL_OK)
        status = bl_job_data_open(&f->plan, &f->data);
    if (status != BL_OK)
        print_message("%s\n", bl_error());
    *state = f;
    return status == BL_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    bl_outcome_free(&f->outcome);
    bl_job_data_close(f->data);
    bl_plan_free(&f->plan);
    bl_release(f->page);
    unlink(f->path);
    snprintf(f->path, sizeof f->path, "%s/report.html", f->folder);
    unlink(f->path);
    rmdir(f->folder);
    free(f);
    return 0;
}

/* --- JSON as documented
 * ------------------------------------------------------------------------------ */
static void json_is_as_documented(void **state)
{
    fixture *f = *state;
    char *document = read_sections("The study", "The plan");
    fill(f, true, 1);
    f->outcome.arm[3].failed = 1; /* some fields are there for such an arm only */
    add_rest(f);
    json_t *json;
    assert_int_equal(bl_outcome_json(&f->outcome, true, &json), BL_OK);
    bl_text seen = {0};
    walk(document, "", json, &seen);
    expect_printed(document, seen.at);
    assert_int_equal(json_integer_value(json_object_get(json, "schema")), 1);
    bl_text_free(&seen);
    bl_release(document);
    json_decref(json);
}

static json_t *arm_json(json_t *json, size_t a, const char *group, const char *field)
{
    json_t *arm = json_array_get(json_object_get(json, "arms"), a);
    return json_object_get(group ? json_object_get(arm, group) : arm, field);
}

static void json_tells_verdicts_and_no_time(void **state)
{
    fixture *f = *state;
    fill(f, true, 1);
    json_t *json;
    assert_int_equal(bl_outcome_json(&f->outcome, false, &json), BL_OK);
    char *text = json_dumps(json, 0);
    assert_null(strstr(text, "seconds"));
    assert_null(strstr(text, "timing"));
    free(text);
    static const char *const verdict[ARMS] = {NULL, "helps", NULL, "equivalent"};
    for (size_t a = 1; a < ARMS; a++)
        if (verdict[a])
            assert_string_equal(json_string_value(arm_json(json, a, "comparison", "verdict")),
                                verdict[a]);
    assert_null(json_object_get(json_array_get(json_object_get(json, "arms"), 0), "comparison"));
    assert_int_equal(json_integer_value(arm_json(json, 2, NULL, "diverged")), 1);
    assert_true(json_is_true(arm_json(json, 4, "effect", "inert")));
    assert_non_null(arm_json(json, 4, NULL, "error"));
    assert_null(arm_json(json, 4, NULL, "comparison"));
    json_t *last = json_array_get(arm_json(json, 2, NULL, "runs"), RUNS - 1);
    assert_true(json_is_null(json_object_get(json_object_get(last, "metrics"), "accuracy")));
    double difference = json_number_value(arm_json(json, 1, "comparison", "difference"));
    assert_true(fabs(difference - 5) < 0.1);
    json_decref(json);
}

static void expect_interval(bl_interval got, bl_interval wanted)
{
    assert_true(fabs(got.low - wanted.low) < 1e-9 && fabs(got.high - wanted.high) < 1e-9);
}

/* Group 0 is the score plus one in every run, so its differences are those of the scores. */
static void groups_have_differences_with_intervals(void **state)
{
    fixture *f = *state;
    bl_outcome *o = &f->outcome;
    fill(f, true, 1);
    const bl_arm_outcome *arm = &o->arm[1];
    assert_true(isfinite(o->arm[2].group[0].difference)); /* over the runs that did not diverge */
    assert_true(isnan(o->arm[2].group[0].interval.low));
    assert_int_equal(o->groups, 2);
    for (int g = 0; g < 2; g++) {
        assert_true(fabs(arm->group[g].difference - arm->comparison.difference) < 1e-9);
        expect_interval(arm->group[g].interval, arm->comparison.difference_interval);
    }
    assert_true(arm->group[0].count == 12 && fabs(arm->group[0].mean - arm->mean - 1) < 1e-9);
    assert_true(isnan(o->arm[0].group[0].interval.low)); /* the baseline beside itself */

    /* Re-splits overlap, in a group as in all. */
    o->resplit = true;
    bl_compare_options options = bl_outcome_compare_options(o);
    bl_comparison c;
    assert_int_equal(bl_compare(&options, arm->score, o->arm[0].score, RUNS, &c), BL_OK);
    for (int a = 0; a < ARMS; a++)
        bl_release(o->arm[a].group);
    assert_int_equal(bl_groups_read(o), BL_OK);
    expect_interval(arm->group[1].interval, c.difference_interval);
    assert_true(c.difference_interval.high > arm->comparison.difference_interval.high);
}

/* --- the page
 * ---------------------------------------------------------------------------------------- */
static const char *write_page(fixture *f, int sets)
{
    char path[96];
    size_t length;
    snprintf(path, sizeof path, "%s/report.html", f->folder);
    const bl_outcome *outcome[] = {&f->outcome, &f->outcome};
    bl_telling telling = {.outcome = outcome, .count = sets};
    if (bl_telling_complete(&telling) != BL_OK || bl_report_write(&telling, command, path) != BL_OK)
        fail_msg("%s", bl_error());
    bl_across_free(&telling.across);
    assert_int_equal(bl_read_file(path, &f->page, &length), BL_OK);
    assert_int_equal(strlen(f->page), length);
    return f->page;
}

static void expect(const char *page, const char *words)
{
    if (!strstr(page, words))
        fail_msg("the report does not say: %s", words);
}

static bool is_void(const char *name)
{
    return !strcmp(name, "meta") || !strcmp(name, "br") || !strcmp(name, "wbr");
}

/* Every element is closed in the order in which it was opened, attributes are quoted, and text has
 * no bare bracket. */
static void expect_well_formed(const char *page)
{
    char open[64][16];
    int depth = 0;
    const char *at = strchr(page + 1, '<'); /* after the doctype */
    for (; at; at = strchr(at, '<')) {
        bool closes = at[1] == '/';
        char name[16];
        size_t length = strspn(at + 1 + closes, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ123456");
        if (!length || length > 15)
            fail_msg("not an element: %.60s", at);
        snprintf(name, sizeof name, "%.*s", (int)length, at + 1 + closes);
        const char *end = at + 1;
        for (char quote = 0; *end && (quote || *end != '>'); end++)
            quote = quote ? (*end == quote ? 0 : quote) : *end == '"' || *end == '\'' ? *end : 0;
        assert_true(*end == '>');
        if (closes) {
            if (!depth || strcmp(open[depth - 1], name) != 0)
                fail_msg("</%s> closes <%s>", name, depth ? open[depth - 1] : "nothing");
            depth--;
        } else if (end[-1] != '/' && !is_void(name)) {
            assert_true(depth < 64);
            memcpy(open[depth++], name, sizeof name);
        }
        at = end;
    }
    if (depth)
        fail_msg("<%s> is not closed", open[depth - 1]);
}

/* Ids occur once, and what refers to one finds it. */
static void expect_ids(const char *page)
{
    for (const char *at = page; (at = strstr(at, " id=")); at++) {
        char *id = bl_format("%.*s", (int)strcspn(at + 5, "\"'") + 6, at);
        if (strstr(at + 1, id))
            fail_msg("twice:%s", id);
        bl_release(id);
    }
    for (const char *at = page; (at = strstr(at, "href='#")); at++) {
        char *id = bl_format(" id='%.*s'", (int)strcspn(at + 7, "'"), at + 7);
        expect(page, id);
        bl_release(id);
    }
}

static void expect_self_contained(const char *page)
{
    static const char *const outside[] = {"http:", "https:", "//",      "<script", "<link",
                                          "<img",  "src=",   "@import", "url(\"",  "url(h"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        const char *at = strstr(page, outside[i]);
        if (at)
            fail_msg("refers to something outside: %.60s", at);
    }
}

static void expect_page(const char *page)
{
    assert_int_equal(strncmp(page, "<!doctype html>", 15), 0);
    expect_well_formed(page);
    expect_ids(page);
    expect_self_contained(page);
    expect(page, "<span class=\"helps\">elr helps</span>");
    expect(page, "<b class=\"verdict equivalent\">equivalent</b>");
    expect(page, "<b class=\"verdict undecided\">undecided</b>");
    expect(page, "a&lt;b&gt;&amp;c.csv");
    expect(page, "ballast compare &#39;a&lt;b&gt;&amp;c.csv&#39; --arm &quot;elr&quot;");
    expect(page, "25 % of the gradient, &lt;mixed&gt;");
    expect(page, "25 % of the gradient, 3 % of the step");
    expect(page, "Error: <code>null</code> did nothing");
    expect(page, "on these 100 examples");
    expect(page, "<h2>Accuracy by class</h2>");
    expect(page, "<tr><th scope=\"row\">even</th><td class=\"n\" data-label=\"test examples\">12");
    expect(page, "50 % of its suspects are wrong, and they are 50 % of all wrong labels");
}

static bool have_gnuplot(void)
{
    bl_text svg = {0};
    bl_status status = bl_gnuplot("plot x\n", 200, 100, "try", "a line", &svg);
    bl_text_free(&svg);
    return status == BL_OK;
}

static void report_is_one_page(void **state)
{
    fixture *f = *state;
    fill(f, false, 1);
    const char *page = write_page(f, 1);
    expect_page(page);
    expect(page, "hurts</span>");
    if (!have_gnuplot())
        return;
    expect(page, "id=\"differences-gnuplot_canvas\"");
    expect(page, "id=\"curve4-gnuplot_canvas\"");
    expect(page, "id=\"gain-gnuplot_canvas\"");
    assert_null(strstr(page, "rgb(")); /* every colour is one of the style sheet */
    assert_null(strstr(page, "'black'"));
}

static void diverged_runs_are_told(void **state)
{
    fixture *f = *state;
    fill(f, true, 0);
    const char *page = write_page(f, 1);
    expect_well_formed(page);
    expect(page, "1 of 8 runs diverged");
    expect(page, "<td class=\"n\">diverged</td>");
    assert_null(strstr(page, "nan"));
    assert_null(strstr(page, "inf,"));
}

static void everything_planned_is_told(void **state)
{
    fixture *f = *state;
    fill(f, false, 1);
    add_rest(f);
    const char *page = write_page(f, 1);
    expect_page(page);
    expect(page, "<h2>At equal cost</h2>");
    expect(page, "data-label=\"baseline's epochs\">20</td>");
    expect(page, "<h2>How arms were screened</h2>");
    expect(page, "in round 1");
    expect(page, "elr(<wbr>&lt;1&gt;) @ learning_rate=0.1");
    expect(page, "data-label=\"best of 2\">80.5");
    expect(page, "the best trials crowd the upper end.");
    expect(page, "5 pilot runs of each arm");
    assert_null(strstr(page, "not tuned"));
    if (have_gnuplot())
        expect(page, "id=\"search4-gnuplot_canvas\"");
}

static void report_without_gnuplot_has_bars(void **state)
{
    fixture *f = *state;
    fill(f, false, 1);
    char *path = bl_copy_text(getenv("PATH"));
    setenv("PATH", "/nonexistent", 1);
    const char *page = write_page(f, 1);
    setenv("PATH", path, 1);
    bl_release(path);
    expect_page(page);
    expect(page, "gnuplot-nox");
    expect(page, "<i class=\"interval helps\" style=\"left:");
    expect(page, "mean accuracy at epoch");
    assert_null(strstr(page, "<svg"));
}

/* Row 7 is doubted in all runs; in run 7 it is also doubted with its true label. */
static void suspects_of_all_runs_are_merged(void **state)
{
    fixture *f = *state;
    fill(f, false, 1);
    bl_suspects s;
    assert_int_equal(bl_suspects_of(&f->outcome, 1, &s), BL_OK);
    assert_int_equal(s.count, 1 + RUNS);
    assert_true(s.at[0].example == 7 && s.at[0].given == 1 && s.at[0].runs == RUNS);
    assert_true(fabs(s.at[0].doubt - 0.9) < 1e-12 && fabs(s.at[1].doubt - 0.2 / RUNS) < 1e-12);
    assert_true(s.suspected == 2 * RUNS && s.right == RUNS && s.wrong == 2 * RUNS);
    bl_release(s.at);
    assert_int_equal(bl_suspects_of(&f->outcome, 2, &s), BL_OK);
    assert_true(s.count == 0 && !s.at);

    bl_text csv = {0};
    assert_int_equal(bl_suspects_csv(&f->outcome, &csv), BL_OK);
    expect(csv.at, "arm,row,source,given,believed,doubt,runs,true\nelr,7,");
    expect(csv.at, "a<b>&c.csv:9,odd,even,0.9000,8,even\n");
    bl_text_free(&csv);
    assert_true(bl_arm_doubts("elr @ learning_rate=0.1") && !bl_arm_doubts("dropout"));
}

static void report_in_no_folder(void **state)
{
    fixture *f = *state;
    fill(f, false, 1);
    const bl_outcome *outcome[] = {&f->outcome};
    const bl_telling telling = {.outcome = outcome, .count = 1};
    assert_int_not_equal(bl_report_write(&telling, command, "/nonexistent/r.html"), BL_OK);
    assert_non_null(strstr(bl_error(), "/nonexistent/r.html"));
}

/* Run 0 of elr ended after epoch 2 at 84.9 - 1; with that, epoch 3 has all eight runs. */
static void ended_run_keeps_its_last_value(void **state)
{
    fixture *f = *state;
    fill(f, false, 1);
    bl_mean_point *points;
    int count;
    assert_int_equal(bl_mean_curve(&f->outcome, &f->outcome.arm[1], &points, &count), BL_OK);
    assert_int_equal(count, 3);
    assert_int_equal(points[0].epoch, 1);
    assert_true(points[0].mean == 51 && points[0].low == 51 && points[0].high == 51);
    double sum = score_of(1, 0) - 1;
    for (int r = 1; r < RUNS; r++)
        sum += score_of(1, r);
    assert_true(fabs(points[2].mean - sum / RUNS) < 1e-9);
    assert_true(points[2].low == score_of(1, 0) - 1);
    bl_release(points);
}

static void gnuplot_that_fails_is_an_error(void **state)
{
    (void)state;
    if (!have_gnuplot())
        skip();
    bl_text svg = {0};
    assert_int_equal(bl_gnuplot("plot (((\n", 200, 100, "bad", "nothing", &svg), BL_IO);
    assert_true(svg.length == 0);
    bl_text_free(&svg);
}

#define REPORT(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* The same study twice: every id has its set's prefix, and the table over both comes first. */
static void a_page_of_several_data_sets_is_well_formed(void **state)
{
    fixture *f = *state;
    fill(f, false, 1);
    const char *page = write_page(f, 2);
    expect_well_formed(page);
    expect_ids(page);
    expect_self_contained(page);
    expect(page, "over 2 data sets</h1>");
    expect(page, "signed-rank over 2 data sets cannot give a p below");
    expect(page, "<a href='#data-2'>");
    expect(page, "<article id='data-2'>");
    assert_true(strstr(page, "Over the data sets") < strstr(page, "<article"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        REPORT(json_is_as_documented),
        REPORT(json_tells_verdicts_and_no_time),
        REPORT(groups_have_differences_with_intervals),
        REPORT(report_is_one_page),
        REPORT(diverged_runs_are_told),
        REPORT(everything_planned_is_told),
        REPORT(report_without_gnuplot_has_bars),
        REPORT(a_page_of_several_data_sets_is_well_formed),
        REPORT(suspects_of_all_runs_are_merged),
        REPORT(report_in_no_folder),
        REPORT(ended_run_keeps_its_last_value),
        cmocka_unit_test(gnuplot_that_fails_is_an_error),
    };
    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
