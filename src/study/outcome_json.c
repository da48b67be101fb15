/* An outcome as JSON, for programs. docs/json.md describes every field: one that is added here gets
 * a line there, and a test compares the two. */
#include "study/outcome.h"

#include <math.h>
#include <stdlib.h>

static json_t *interval(bl_interval i)
{
    return json_pack("[o,o]", bl_json_real(i.low), bl_json_real(i.high));
}

static json_t *comparison_json(const bl_comparison *c)
{
    char verdict[64];
    bl_verdict_text(c, verdict);
    return json_pack("{s:s,s:s,s:i,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:s,s:o,s:o,s:o,s:s}", "verdict",
                     bl_verdict_name(c->verdict), "verdict_text", verdict, "replicates_more",
                     c->verdict == BL_UNDECIDED ? c->pairs_more : 0, "difference",
                     bl_json_real(c->difference), "difference_interval",
                     interval(c->difference_interval), "p", bl_json_real(c->p), "p_adjusted",
                     bl_json_real(c->adjusted_p), "effect_size", bl_json_real(c->d_z), "better",
                     bl_json_real(c->better), "better_interval", interval(c->better_interval),
                     "test", bl_test_name(c->test), "floor", bl_json_real(c->floor), "sign_flip_p",
                     bl_json_real(c->sign_flip_p), "equivalence_p",
                     bl_json_real(c->adjusted_equivalence_p), "note", c->note);
}

static json_t *effect_json(const bl_arm_outcome *arm)
{
    const bl_arm_effect *e = &arm->effect;
    json_t *measures = json_object();
    for (int i = 0; i < e->measures; i++)
        json_object_set_new(measures, e->measure[i].name, bl_json_real(e->measure[i].value));
    return json_pack("{s:I,s:o,s:o,s:o,s:o,s:o,s:b,s:o,s:b,s:i}", "sites", (json_int_t)e->sites,
                     "examples_changed", bl_json_real(e->examples_changed), "gradient_share",
                     bl_json_real(e->gradient_share), "update_share", bl_json_real(e->update_share),
                     "host_moved", bl_json_real(e->host_moved), "parameters_moved",
                     bl_json_real(e->parameters_moved), "ended_early", e->ended_early, "measures",
                     measures, "inert", e->inert, "inert_runs", arm->inert);
}

static json_t *runs_json(const bl_outcome *o, const bl_arm_outcome *arm, bool timing)
{
    json_t *runs = json_array();
    for (int r = 0; r < o->replicates; r++) {
        json_t *run = arm->result[r] ? json_copy(arm->result[r]) : json_null();
        if (!timing)
            json_object_del(run, "timing");
        json_array_append_new(runs, run);
    }
    return runs;
}

static json_t *choice_json(const bl_choice *c, bool timing)
{
    json_t *best = json_array(), *score = json_array(), *expected = json_array();
    for (int i = 0; i < c->trials; i++) {
        json_array_append_new(best, bl_json_real(c->best[i]));
        json_array_append_new(score, bl_json_real(c->score[i]));
        json_array_append_new(expected, bl_json_real(c->expected[i]));
    }
    json_t *json = json_pack("{s:s,s:i,s:i,s:i,s:o}", "setting", c->setting, "trials", c->trials,
                             "chosen", c->chosen, "diverged", c->diverged, "best", best);
    json_object_set_new(json, "scores", score);
    json_object_set_new(json, "expected_best", expected);
    json_object_set_new(json, "edge", c->edge ? json_string(c->edge) : json_null());
    if (json && timing)
        json_object_set_new(json, "timing",
                            json_pack("{s:o}", "seconds", bl_json_real(c->seconds)));
    return json;
}

/* Means of all arms, and how the arms differ from the baseline. */
static void add_groups(const bl_outcome *o, int a, json_t *json)
{
    json_t *mean = json_array(), *difference = json_array(), *between = json_array();
    for (int g = 0; g < o->groups; g++) {
        const bl_group_outcome *group = &o->arm[a].group[g];
        json_array_append_new(mean, bl_json_real(group->mean));
        json_array_append_new(difference, bl_json_real(group->difference));
        json_array_append_new(between, interval(group->interval));
    }
    json_object_set_new(json, "groups", mean);
    if (a > 0) {
        json_object_set_new(json, "group_differences", difference);
        json_object_set_new(json, "group_intervals", between);
    } else {
        json_decref(difference);
        json_decref(between);
    }
}

static json_t *arm_json(const bl_outcome *o, int a, bool timing)
{
    const bl_arm_outcome *arm = &o->arm[a];
    json_t *json = json_pack("{s:s,s:o,s:o,s:i,s:i,s:o,s:o,s:o,s:o}", "arm", arm->arm, "mean",
                             bl_json_real(arm->mean), "interval", interval(arm->interval),
                             "diverged", arm->diverged, "failed", arm->failed, "work",
                             bl_json_real(arm->work), "total_work", bl_json_real(arm->total_work),
                             "effect", effect_json(arm), "runs", runs_json(o, arm, timing));
    add_groups(o, a, json);
    if (json && arm->failed)
        json_object_set_new(json, "error", json_string(arm->error ? arm->error : "not run"));
    if (json && a > 0 && arm->effect.inert && !arm->failed)
        json_object_set_new(json, "error", json_string(arm->comparison.note));
    if (json && a > 0 && bl_has_verdict(arm))
        json_object_set_new(json, "comparison", comparison_json(&arm->comparison));
    if (json && arm->choice)
        json_object_set_new(json, "tuning", choice_json(arm->choice, timing));
    if (json && timing)
        json_object_set_new(json, "timing",
                            json_pack("{s:o,s:o}", "seconds", bl_json_real(arm->seconds),
                                      "seconds_per_step", bl_json_real(arm->seconds_per_step)));
    return json;
}

static json_t *groups_json(const bl_outcome *o)
{
    json_t *names = json_array();
    for (int g = 0; g < o->groups; g++)
        json_array_append_new(names, json_string(bl_group_name(o, g)));
    return names;
}

static json_t *screening_json(const bl_screening *s)
{
    if (!s || !s->rounds)
        return json_null();
    json_t *arms = json_array();
    for (int a = 0; a < s->arms; a++)
        json_array_append_new(arms, json_pack("{s:s,s:i,s:i,s:b,s:o}", "arm", s->arm[a].arm,
                                              "round", s->arm[a].round, "pairs", s->arm[a].pairs,
                                              "inert", s->arm[a].inert, "difference",
                                              bl_json_real(s->arm[a].difference)));
    return json_pack("{s:i,s:o}", "rounds", s->rounds, "arms", arms);
}

static json_t *pilot_json(const bl_pilot *p)
{
    if (!p || !p->planned)
        return json_null();
    return json_pack("{s:i,s:i,s:i,s:i,s:b,s:i,s:o,s:o,s:o}", "pairs", BL_PILOT_PAIRS, "planned",
                     p->planned, "needed", p->needed, "most", BL_PLANNED_MOST, "capped", p->capped,
                     "family", p->family, "deviation", bl_json_real(p->deviation), "min_effect",
                     bl_json_real(p->min_effect), "detectable", bl_json_real(p->detectable));
}

static json_t *matched_json(const bl_outcome *o)
{
    json_t *rows = json_array();
    for (int i = 0; i < o->matches; i++)
        json_array_append_new(rows,
                              json_pack("{s:s,s:I,s:o,s:o}", "arm", o->arm[o->matched[i].arm].arm,
                                        "epochs", (json_int_t)o->matched[i].epochs, "total_work",
                                        bl_json_real(o->arm[o->matched[i].arm].total_work),
                                        "comparison", comparison_json(&o->matched[i].comparison)));
    return rows;
}

bl_status bl_outcome_json(const bl_outcome *o, bool timing, json_t **out)
{
    json_t *arms = json_array();
    for (int a = 0; a < o->arms; a++)
        json_array_append_new(arms, arm_json(o, a, timing));
    char hash[17];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)bl_job_data_hash(o->data));
    *out = json_pack("{s:i,s:s,s:s,s:s,s:o,s:s,s:b,s:b,s:I,s:I,s:i,s:f,s:o,s:b,s:o}", "schema", 1,
                     "ballast", BALLAST_VERSION, "data", bl_job_summary(o->data), "data_hash", hash,
                     "plan", bl_plan_to_json(o->plan), "metric", o->metric, "higher_is_better",
                     o->higher_is_better, "resplit", o->resplit, "train_count",
                     (json_int_t)o->train_count, "test_count", (json_int_t)o->test_count,
                     "replicates", o->replicates, "alpha", o->alpha, "min_effect",
                     o->min_effect > 0 ? json_real(o->min_effect) : json_null(), "tuned",
                     o->arm[0].choice != NULL, "arms", arms);
    if (!*out)
        return bl_fail(BL_NO_MEMORY, "memory is short for the result as JSON");
    json_object_set_new(*out, "family", json_integer(o->family));
    json_object_set_new(*out, "groups", groups_json(o));
    json_object_set_new(*out, "screening", screening_json(o->screening));
    json_object_set_new(*out, "pilot", pilot_json(o->pilot));
    json_object_set_new(*out, "equal_cost", matched_json(o));
    return BL_OK;
}
