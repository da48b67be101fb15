/* Groups of test examples: classes, or thirds of the labels of a regression. For whom does an arm
 * help? The intervals are for looking, as nothing corrects them for so many groups. */
#include "study/outcome.h"

#include <math.h>

/* "value" or "count" of a group in a run; NaN where the run diverged or the group was empty. */
static double number_of(const json_t *result, const char *key, int group)
{
    const json_t *all = json_object_get(json_object_get(result, "groups"), key);
    const json_t *number = json_array_get(all, (size_t)group);
    return json_is_number(number) ? json_number_value(number) : NAN;
}

static double mean_over_runs(const bl_outcome *o, const bl_arm_outcome *arm, const char *key,
                             int group)
{
    double sum = 0;
    int runs = 0;
    for (int r = 0; r < o->replicates; r++)
        if (!isnan(number_of(arm->result[r], "value", group))) {
            sum += number_of(arm->result[r], key, group);
            runs++;
        }
    return runs ? sum / runs : NAN;
}

/* Over the pairs that both have the group, by the variance of the verdicts' test: the test parts of
 * re-splits overlap in a group as they do in all. `difference` is room for the pairs. */
static void compare(const bl_outcome *o, const bl_arm_outcome *arm, int group, double *difference,
                    bl_group_outcome *out)
{
    const bl_arm_outcome *baseline = &o->arm[0];
    bl_compare_options options = bl_outcome_compare_options(o);
    double ratio = o->resplit ? (double)options.test_count / (double)options.train_count : 0;
    int pairs = 0;
    for (int r = 0; r < o->replicates; r++) {
        double d = number_of(arm->result[r], "value", group) -
                   number_of(baseline->result[r], "value", group);
        if (!isnan(d))
            difference[pairs++] = d;
    }
    out->difference = pairs ? bl_average(difference, pairs) : NAN;
    bool whole = !arm->diverged && !arm->failed && !baseline->diverged;
    if (whole && pairs >= 2 && bl_standard_deviation(difference, pairs) > 0)
        out->interval = bl_mean_interval(difference, pairs, ratio, o->alpha);
}

static int groups_of(const bl_outcome *o)
{
    size_t groups = 0;
    for (int r = 0; r < o->replicates && !groups; r++)
        groups = json_array_size(
            json_object_get(json_object_get(o->arm[0].result[r], "groups"), "value"));
    return (int)groups;
}

bl_status bl_groups_read(bl_outcome *o)
{
    o->groups = groups_of(o);
    double *difference = bl_alloc((size_t)o->replicates * sizeof *difference);
    bl_status status = difference ? BL_OK : bl_no_memory((size_t)o->replicates);
    for (int a = 0; a < o->arms && status == BL_OK; a++) {
        bl_arm_outcome *arm = &o->arm[a];
        arm->group = bl_alloc((size_t)o->groups * sizeof *arm->group);
        if (!arm->group)
            status = bl_no_memory((size_t)o->groups * sizeof *arm->group);
        for (int g = 0; g < o->groups && status == BL_OK; g++) {
            arm->group[g] = (bl_group_outcome){.mean = mean_over_runs(o, arm, "value", g),
                                               .count = mean_over_runs(o, arm, "count", g),
                                               .interval = {NAN, NAN}};
            compare(o, arm, g, difference, &arm->group[g]);
        }
    }
    bl_release(difference);
    return status;
}

const char *bl_group_name(const bl_outcome *o, int group)
{
    static const char *const third[] = {"few labels near", "middle", "most labels near"};
    const char *name = bl_job_class(o->data, group);
    return name ? name : third[group < 3 ? group : 2];
}
