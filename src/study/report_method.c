/* The report, last part: how the arms were tuned, how to read the verdicts, how to do it again. */
#include "study/report_page.h"

#include <stdlib.h>
#include <string.h>

#include "study/plot.h"

/* --- how to read it ------------------------------------------------------- */
static void population(const bl_outcome *o, bl_text *text)
{
    if (o->resplit)
        bl_text_add(text,
                    "<p>The verdicts speak of new random splits of this data into %lld training "
                    "and %lld test examples. The splits overlap, so variances are corrected "
                    "(Nadeau and Bengio 2003). They do not speak of other data.</p>\n",
                    (long long)o->train_count, (long long)o->test_count);
    else
        bl_text_add(text,
                    "<p>The verdicts speak of new training runs on these %lld examples, judged on "
                    "this fixed test set of %lld. They do not speak of other test sets.</p>\n",
                    (long long)o->train_count, (long long)o->test_count);
    bl_text_add(text, "<p>Runs of a pair share split, label noise, initial weights and order.");
    if (!o->arm[0].choice)
        bl_text_add(text, " The arms were not tuned: each ran with its own options and the recipe "
                          "below, so an arm that is undecided or hurts here may do better when "
                          "tuned.");
    bl_text_add(text, "</p>\n");
}

/* How the number of replicates came about. */
static void pilots(const bl_page *p, bl_text *text)
{
    const bl_pilot *pilot = p->outcome->pilot;
    int d = p->digits.difference + 1;
    if (!pilot || !pilot->planned)
        return;
    bl_text_add(text,
                "<p>%d pilot runs of each arm, since dropped, differed from the baseline's by a "
                "standard deviation of up to ",
                BL_PILOT_PAIRS);
    bl_page_number(text, bl_page_scaled(p, pilot->deviation), d, false);
    if (pilot->needed > pilot->planned)
        bl_text_add(text, ": an effect of %g would need %d replicates", pilot->min_effect,
                    pilot->needed);
    else if (pilot->needed < 0)
        bl_text_add(text, ": no number of replicates shows an effect of %g", pilot->min_effect);
    bl_text_add(text, ". The %d that ran show one of ", pilot->planned);
    bl_page_number(text, bl_page_scaled(p, pilot->detectable), d, false);
    bl_text_add(text, " with 80 %% power.</p>\n");
}

/* --- tuning ----------------------------------------------------------------------------------- */
/* The table has the best of k for k = 1, 2, 4, .. and the whole budget. */
static int next_budget(int k, int trials)
{
    return k < trials && 2 * k > trials ? trials : 2 * k;
}

static void tuning_head(int trials, bl_text *text)
{
    bl_text_add(text, "<thead><tr><th scope=\"col\">arm</th><th scope=\"col\">chosen setting</th>");
    for (int k = 1; k <= trials; k = next_budget(k, trials))
        bl_text_add(text, "<th scope=\"col\" class=\"n\">best of %d</th>", k);
    if (trials)
        bl_text_add(text, "<th scope=\"col\" class=\"n\">diverged</th>"
                          "<th scope=\"col\" class=\"n\">seconds</th>");
    bl_text_add(text, "</tr></thead>\n<tbody>\n");
}

static void tuning_row(const bl_page *p, const bl_arm_outcome *arm, bl_text *text)
{
    const bl_choice *c = arm->choice;
    bl_text_add(text, "<tr>");
    bl_page_arm_name(text, arm);
    bl_text_add(text, "<td class=\"words\"><code>");
    bl_page_breakable(text, c->setting);
    bl_text_add(text, "</code></td>");
    for (int k = 1; k <= c->trials; k = next_budget(k, c->trials)) {
        char label[32];
        snprintf(label, sizeof label, "best of %d", k);
        bl_page_open_cell(text, label);
        bl_page_number(text, bl_page_scaled(p, c->expected[k - 1]), p->digits.mean, false);
        bl_text_add(text, "</td>");
    }
    if (c->trials) {
        bl_page_open_cell(text, "diverged");
        bl_text_add(text, "%d</td>", c->diverged);
        bl_page_short_number(text, c->seconds, "seconds");
    }
    bl_text_add(text, "</tr>\n");
}

/* Where the search itself has something to say. */
static void edges(const bl_outcome *o, bl_text *text)
{
    bl_text_add(text, "<ul class=\"notes\">");
    for (int a = 0; a < o->arms; a++) {
        bl_text line = {0};
        if (bl_edge_text(o, a, &line)) {
            bl_text_add(text, "\n<li>");
            bl_page_escaped(text, line.at);
            bl_text_add(text, ".</li>");
        }
        text->failed = text->failed || line.failed;
        bl_text_free(&line);
    }
    bl_text_add(text, "</ul>\n");
}

/* What was searched and how it was scored. */
static void search(const bl_outcome *o, bl_text *text)
{
    const bl_choice *c = o->arm[0].choice;
    bl_text_add(text,
                "<p>Every arm, the baseline included, had %d trials: the first is the arm as "
                "given, the others are points of a scrambled Halton sequence over learning "
                "rate, weight decay and the options that were left open. A trial's score is "
                "the mean of %d seeds, which nothing else uses, on a held-out fifth of the "
                "training examples. The test part was read after the choice.%s</p>\n",
                c->trials, BL_TUNING_SEEDS,
                o->resplit ? " Trials split the data anew, as replicates do, so that an example "
                             "tested here may have been trained on there."
                           : "");
}

static void tuning_table(const bl_page *p, bl_text *text)
{
    const bl_outcome *o = p->outcome;
    int trials = o->arm[0].choice->trials;
    bl_page_open_cards(text);
    tuning_head(trials, text);
    for (int a = 0; a < o->arms; a++)
        tuning_row(p, &o->arm[a], text);
    bl_text_add(text, "</tbody>");
    bl_page_close_table(text);
    if (trials)
        bl_text_add(text,
                    "<p class=\"note\">Best of k: the %s that the best of k trials has on "
                    "average over all choices of k among the %d; a trial that diverged counts as "
                    "the worst of the others. Coloured is the arm, grey the baseline. A curve "
                    "that still rises at its end asks for more --trials.</p>\n",
                    o->metric, trials);
}

void bl_report_tuning(bl_page *p)
{
    const bl_outcome *o = p->outcome;
    const bl_choice *c = o->arm[0].choice;
    bl_text *text = &p->text;
    bl_page_open_section(text, "How the arms were tuned");
    if (!c) {
        bl_text_add(text, "<p>No arm was tuned: each is <b>untuned</b>, with its default options "
                          "and the recipe's learning rate and weight decay. With --trials 12 each "
                          "gets the same search, the baseline included.</p>\n");
        bl_page_close_section(text);
        return;
    }
    if (c->trials)
        search(o, text);
    else
        bl_text_add(text, "<p>The settings were read from a preset.</p>\n");
    if (c->trials > 1)
        (void)bl_page_plots(p, bl_plot_search, text);
    tuning_table(p, text);
    edges(o, text);
    bl_page_close_section(text);
}

void bl_report_reading(bl_page *p)
{
    const bl_outcome *o = p->outcome;
    bl_text *text = &p->text;
    bl_page_open_section(text, "How to read the verdicts");
    population(o, text);
    pilots(p, text);
    bl_text_add(text,
                "<dl>\n<dt><b class=\"verdict helps\">helps</b> <b class=\"verdict "
                "hurts\">hurts</b></dt>\n<dd>The difference is real: if no arm differed, the "
                "chance of any such verdict in this table would be at most %g %% (Holm's "
                "correction over %d arm%s).</dd>\n",
                100 * o->alpha, o->family, o->family == 1 ? "" : "s");
    if (o->min_effect > 0)
        bl_text_add(
            text,
            "<dt><b class=\"verdict equivalent\">equivalent</b></dt>\n<dd>Whatever the "
            "difference is, it is shown to be smaller than %g (two one-sided tests).</dd>\n",
            o->min_effect);
    bl_text_add(text,
                "<dt><b class=\"verdict undecided\">undecided</b></dt>\n<dd>Neither is shown. That "
                "is not evidence of no difference. The number of further replicates is a rough "
                "guide from the difference seen so far.%s</dd>\n",
                o->min_effect > 0 ? ""
                                  : " With --min-effect, the smallest difference that matters, "
                                    "an arm can also be shown to be equivalent.");
    bl_text_add(text, "<dt>P(better)</dt>\n<dd>In how many of the pairs the arm was better than "
                      "the baseline, ties counted half.</dd>\n</dl>\n");
    bl_page_close_section(text);
}

/* --- how to do it again -------------------------------------------------------------------------
 */
static void fact(bl_text *text, const char *name, const char *format, ...) BL_PRINTF(3, 4);
static void fact(bl_text *text, const char *name, const char *format, ...)
{
    char value[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(value, sizeof value, format, arguments);
    va_end(arguments);
    bl_text_add(text, "<tr><th scope=\"row\">%s</th><td class=\"words\">", name);
    bl_page_escaped(text, value);
    bl_text_add(text, "</td></tr>\n");
}

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

static void recipe_facts(const bl_recipe *r, bl_text *text)
{
    fact(text, "model", "%s, width %lld, depth %lld", r->model.name, (long long)r->model.width,
         (long long)r->model.depth);
    if (!strcmp(r->optimizer, "sgd"))
        fact(text, "optimizer", "sgd, momentum %g%s", r->momentum,
             r->nesterov ? " (Nesterov)" : "");
    else
        fact(text, "optimizer", "%s, beta1 %g, beta2 %g, epsilon %g", r->optimizer, r->beta1,
             r->beta2, r->epsilon);
    fact(text, "learning rate", "%g, schedule %s", r->learning_rate, r->schedule);
    fact(text, "weight decay", "%g", r->weight_decay);
    fact(text, "training", "%lld epochs, batches of %lld", (long long)r->epochs,
         (long long)r->batch);
    fact(text, "loss", "%s", r->loss);
}

static void plan_json(const bl_plan *plan, bl_text *text)
{
    json_t *json = bl_plan_to_json(plan);
    char *dump = json ? json_dumps(json, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    bl_text_add(text, "<details><summary>The plan, as workers receive it</summary>\n<pre>");
    if (dump)
        bl_page_escaped(text, dump);
    else
        text->failed = true;
    bl_text_add(text, "</pre></details>\n");
    free(dump);
    json_decref(json);
}

void bl_report_again(bl_page *p, const char *command)
{
    const bl_outcome *o = p->outcome;
    bl_text *text = &p->text;
    bl_page_open_section(text, "How to do it again");
    bl_text_add(text, "<pre>");
    bl_page_escaped(text, command);
    bl_text_add(text, "</pre>\n");
    bl_page_open_table(text);
    bl_text_add(text, "<tbody>\n");
    fact(text, "version", "ballast %s, compiled by %s", BALLAST_VERSION, COMPILER);
    fact(text, "data", "%s", bl_job_summary(o->data));
    fact(text, "data hash", "%016llx", (unsigned long long)bl_job_data_hash(o->data));
    fact(text, "seeds",
         "study seed %llu; replicate r, from 0 to %d, draws split, label noise, initial weights, "
         "order and augmentation from Philox keys of its own, derived from the seed, r and the "
         "source%s",
         (unsigned long long)o->plan->study_seed, o->replicates - 1,
         o->arm[0].choice && o->arm[0].choice->trials ? "; trials from keys that no replicate has"
                                                      : "");
    fact(text, "replicates", "%d of each arm", o->replicates);
    recipe_facts(bl_job_recipe(o->data), text);
    bl_text_add(text, "</tbody>");
    bl_page_close_table(text);
    bl_text_add(text, "<p class=\"note\">On the same kind of processor the same command gives the "
                      "same scores, bit for bit, with any number of workers.</p>\n");
    plan_json(o->plan, text);
    bl_page_close_section(text);
}
