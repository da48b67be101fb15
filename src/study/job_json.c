/* What a run found, as the JSON that workers write and the store keeps. A field that is added here
 * gets a line in docs/json.md. */
#include "study/job.h"

#include <math.h>

json_t *bl_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *metrics_json(const bl_metric *metric, int count)
{
    json_t *json = json_object();
    for (int i = 0; i < count; i++)
        json_object_set_new(json, metric[i].name, bl_json_real(metric[i].value));
    return json;
}

static json_t *effect_json(const bl_arm_effect *e)
{
    return json_pack("{s:I,s:o,s:o,s:o,s:o,s:o,s:b,s:o,s:b}", "sites", (json_int_t)e->sites,
                     "examples_changed", bl_json_real(e->examples_changed), "gradient_share",
                     bl_json_real(e->gradient_share), "update_share", bl_json_real(e->update_share),
                     "host_moved", bl_json_real(e->host_moved), "parameters_moved",
                     bl_json_real(e->parameters_moved), "ended_early", e->ended_early, "measures",
                     metrics_json(e->measure, e->measures), "inert", e->inert);
}

static json_t *groups_json(const bl_run_result *r)
{
    json_t *count = json_array(), *value = json_array();
    for (int i = 0; i < r->groups; i++) {
        json_array_append_new(count, json_integer((json_int_t)r->group[i].count));
        json_array_append_new(value, bl_json_real(r->group[i].value));
    }
    return json_pack("{s:o,s:o}", "count", count, "value", value);
}

static json_t *suspects_json(const bl_run_result *r)
{
    json_t *example = json_array(), *given = json_array(), *believed = json_array(),
           *doubt = json_array(), *truth = json_array();
    bool known = r->suspects && r->suspect[0].truth >= 0;
    for (int i = 0; i < r->suspects; i++) {
        json_array_append_new(example, json_integer(r->suspect[i].example));
        json_array_append_new(given, json_integer(r->suspect[i].given));
        json_array_append_new(believed, json_integer(r->suspect[i].believed));
        json_array_append_new(doubt, bl_json_real(r->suspect[i].doubt));
        if (known)
            json_array_append_new(truth, json_integer(r->suspect[i].truth));
    }
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:I}", "example", example, "given", given, "believed",
                     believed, "doubt", doubt, "truth", truth, "wrong",
                     (json_int_t)r->wrong_labels);
}

json_t *bl_run_result_to_json(const bl_run_result *r)
{
    json_t *curve = json_array();
    for (int i = 0; i < r->curve_count; i++)
        json_array_append_new(curve,
                              json_pack("{s:I,s:o,s:o}", "epoch", (json_int_t)r->curve[i].epoch,
                                        "train_loss", bl_json_real(r->curve[i].train_loss),
                                        "metric", bl_json_real(r->curve[i].metric)));
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:I,s:I,s:b,s:{s:f,s:f,s:I,s:I},s:{s:f,s:f}}", "metrics",
                     metrics_json(r->metric, r->metrics), "curve", curve, "groups",
                     r->groups ? groups_json(r) : json_null(), "suspects",
                     r->doubts ? suspects_json(r) : json_null(), "effect", effect_json(&r->effect),
                     "steps", (json_int_t)r->steps, "epochs", (json_int_t)r->epochs, "diverged",
                     r->diverged, "work", "flops", r->work.flops, "bytes", r->work.bytes, "kernels",
                     (json_int_t)r->work.kernels, "memory", (json_int_t)r->work.memory, "timing",
                     "seconds", r->seconds, "seconds_per_step", r->seconds_per_step);
}
