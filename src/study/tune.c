/* Tuning: the trials as one more study, then the best of each arm. The preset file is
 * {"schema":1,"metric":"accuracy","trials":12,"seeds":2,"arms":[{"arm":..,"setting":..,"score":..}]}.
 */
#include "study/tune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "study/budget.h"
#include "study/setting.h"
#include "study/space.h"

/* The trials of all arms as arms of a study, arm by arm. */
typedef struct trials {
    int arms, trials;
    char **setting; /* [arms * trials] */
    char **job;     /* the same, as trials */
} trials;

static bool is_null(const char *arm)
{
    return !strcmp(arm, "null");
}

static void free_texts(char **text, int count)
{
    for (int i = 0; text && i < count; i++)
        bl_release(text[i]);
    bl_release(text);
}

static void free_trials(trials *t)
{
    free_texts(t->setting, t->arms * t->trials);
    free_texts(t->job, t->arms * t->trials);
    *t = (trials){0};
}

static bl_status add_trials(const bl_study_options *o, const bl_job_data *data, const char *given,
                            trials *t)
{
    bl_space space;
    bl_status status = bl_space_new(given, bl_job_recipe(data), o->plan->study_seed, &space);
    for (int i = 0; i < t->trials && status == BL_OK; i++) {
        char **setting = &t->setting[t->arms * t->trials + i];
        status = bl_space_setting(&space, i, setting);
        if (status == BL_OK &&
            !(t->job[t->arms * t->trials + i] = bl_setting_for(BL_FOR_TUNING, *setting)))
            status = bl_no_memory(0);
    }
    bl_space_free(&space);
    return status;
}

static bl_status list_trials(const bl_study_options *o, const bl_job_data *data,
                             const char *const *given, int count, trials *t)
{
    size_t room = (size_t)o->arms * (size_t)count;
    *t = (trials){.trials = count,
                  .setting = bl_alloc(room * sizeof *t->setting),
                  .job = bl_alloc(room * sizeof *t->job)};
    bl_status status = t->setting && t->job ? BL_OK : bl_no_memory(room);
    for (int a = 0; a < o->arms && status == BL_OK; a++) {
        if (is_null(o->arm[a]))
            continue;
        status = add_trials(o, data, given[a], t);
        t->arms++;
    }
    return status;
}

/* --- choosing --------------------------------------------------------------------------------- */
/* The mean over the seeds; NaN if one of them diverged or failed. */
static double mean_of(const double *score)
{
    double sum = 0;
    for (int s = 0; s < BL_TUNING_SEEDS; s++)
        sum += score[s];
    return sum / BL_TUNING_SEEDS;
}

static bl_status new_scores(int count, bl_choice *choice)
{
    size_t bytes = (size_t)count * sizeof(double);
    choice->trials = count;
    choice->best = bl_alloc(bytes);
    choice->score = bl_alloc(bytes);
    choice->expected = bl_alloc(bytes);
    return choice->best && choice->score && choice->expected ? BL_OK : bl_no_memory(bytes);
}

/* The best of the trials; of equal ones the first, so that the arm as given wins a tie. */
static bl_status choose(const trials *t, int arm, const double *score, const double *seconds,
                        bool higher, bl_choice *choice)
{
    double best = NAN;
    BL_TRY(new_scores(t->trials, choice));
    for (int i = 0; i < t->trials; i++) {
        double mean = mean_of(score + (arm * t->trials + i) * BL_TUNING_SEEDS);
        if (isnan(mean))
            choice->diverged++;
        else if (isnan(best) || (higher ? mean > best : mean < best)) {
            best = mean;
            choice->chosen = i;
        }
        choice->best[i] = best;
        choice->score[i] = mean;
        choice->seconds += seconds[arm * t->trials + i];
    }
    bl_expected_best(choice->score, t->trials, higher, choice->expected);
    choice->setting = bl_copy_text(t->setting[arm * t->trials + choice->chosen]);
    return choice->setting ? BL_OK : bl_no_memory(0);
}

/* Says so where the good trials crowd an end of the learning rates. Other ranges are those the
 * methods are meant for, and a small weight decay is as good as none. */
static bl_status look_at_edge(const trials *t, int arm, const bl_recipe *recipe, bool higher,
                              bl_choice *choice)
{
    double low = recipe->learning_rate / BL_RATE_REACH, place[BL_TRIALS_MOST],
           high = recipe->learning_rate * BL_RATE_REACH;
    for (int i = 0; i < t->trials; i++) {
        bl_setting setting;
        BL_TRY(bl_setting_parse(t->setting[arm * t->trials + i], &setting));
        double rate = isnan(setting.learning_rate) ? recipe->learning_rate : setting.learning_rate;
        place[i] = log(rate / low) / log(high / low);
        bl_setting_free(&setting);
    }
    int edge = bl_search_edge(choice->score, place, t->trials, higher);
    if (!edge)
        return BL_OK;
    choice->edge = bl_format("the best trials crowd the %s end of the learning rates searched, %g "
                             "to %g: consider --learning-rate %g for all arms",
                             edge > 0 ? "upper" : "lower", low, high, edge > 0 ? high : low);
    return choice->edge ? BL_OK : bl_no_memory(0);
}

/* The baseline's choice under the name of null. */
static bl_status take_over(const bl_choice *baseline, bl_choice *choice)
{
    choice->setting = bl_format("null%s", baseline->setting + strlen("baseline"));
    choice->chosen = baseline->chosen;
    choice->diverged = baseline->diverged;
    if (!choice->setting)
        return bl_no_memory(0);
    if (!baseline->best)
        return BL_OK;
    size_t bytes = (size_t)baseline->trials * sizeof(double);
    BL_TRY(new_scores(baseline->trials, choice));
    memcpy(choice->best, baseline->best, bytes);
    memcpy(choice->score, baseline->score, bytes);
    memcpy(choice->expected, baseline->expected, bytes);
    return BL_OK;
}

static bl_status new_choices(const char *const *arm, int arms, bl_tuning *out)
{
    if (!(out->choice = bl_alloc((size_t)arms * sizeof *out->choice)))
        return bl_no_memory((size_t)arms);
    for (; out->arms < arms; out->arms++)
        if (!(out->choice[out->arms].arm = bl_copy_text(arm[out->arms])))
            return bl_no_memory(0);
    return BL_OK;
}

static bl_status choose_all(const bl_study_options *jobs, const bl_job_data *data, const trials *t,
                            bl_tuning *out)
{
    size_t arms = (size_t)jobs->arms;
    double *score = bl_alloc(arms * BL_TUNING_SEEDS * sizeof *score),
           *seconds = bl_alloc(arms * sizeof *seconds);
    bool higher;
    (void)bl_job_primary_metric(data, &higher);
    bl_status status =
        score && seconds ? bl_study_scores(jobs, data, score, seconds) : bl_no_memory(arms);
    for (int a = 0, tuned = 0; a < out->arms && status == BL_OK; a++) {
        bl_choice *choice = &out->choice[a];
        if (is_null(choice->arm)) {
            status = take_over(&out->choice[0], choice);
            continue;
        }
        status = choose(t, tuned, score, seconds, higher, choice);
        if (status == BL_OK)
            status = look_at_edge(t, tuned, bl_job_recipe(data), higher, choice);
        tuned++;
    }
    bl_release(score);
    bl_release(seconds);
    return status;
}

bl_status bl_tune(const bl_study_options *o, const bl_job_data *data, const char *const *given,
                  int count, bl_tuning *out)
{
    *out = (bl_tuning){.trials = count};
    if (count < 1 || count > BL_TRIALS_MOST)
        return bl_fail(BL_INVALID, "%d trials: must be from 1 to %d", count, BL_TRIALS_MOST);
    if (strcmp(o->arm[0], "baseline") != 0)
        return bl_fail(BL_INVALID, "the first arm must be the baseline, not %s", o->arm[0]);
    trials t;
    bl_status status = list_trials(o, data, given, count, &t);
    bl_study_options jobs = *o;
    jobs.arm = (const char *const *)t.job;
    jobs.arms = t.arms * t.trials;
    jobs.replicates = BL_TUNING_SEEDS;
    if (status == BL_OK)
        status = new_choices(o->arm, o->arms, out);
    if (status == BL_OK)
        status = choose_all(&jobs, data, &t, out);
    free_trials(&t);
    return status;
}

void bl_tuning_free(bl_tuning *tuning)
{
    for (int a = 0; tuning->choice && a < tuning->arms; a++) {
        bl_release(tuning->choice[a].arm);
        bl_release(tuning->choice[a].setting);
        bl_release(tuning->choice[a].best);
        bl_release(tuning->choice[a].score);
        bl_release(tuning->choice[a].expected);
        bl_release(tuning->choice[a].edge);
    }
    bl_release(tuning->choice);
    *tuning = (bl_tuning){0};
}

/* --- telling ---------------------------------------------------------------------------------- */
/* The options of "elr(lambda=1.7)+ema @ learning_rate=.." that the name lacks, and its numbers. */
void bl_choice_text(const bl_choice *choice, bl_text *text)
{
    const char *numbers = strstr(choice->setting, " @ ");
    size_t arm = numbers ? (size_t)(numbers - choice->setting) : strlen(choice->setting);
    bool own = strlen(choice->arm) == arm && !strncmp(choice->arm, choice->setting, arm);
    if (!own)
        bl_text_add(text, "%.*s", (int)arm, choice->setting);
    if (numbers)
        bl_text_add(text, "%s%s", own ? "" : ", ", numbers + 3);
    else if (own)
        bl_text_add(text, "as given");
}

/* --- presets ---------------------------------------------------------------------------------- */
static json_t *choice_json(const bl_choice *c)
{
    double score = c->trials ? c->best[c->trials - 1] : NAN;
    return json_pack("{s:s,s:s,s:o}", "arm", c->arm, "setting", c->setting, "score",
                     isfinite(score) ? json_real(score) : json_null());
}

static void hash_text(const bl_job_data *data, char hash[17])
{
    snprintf(hash, 17, "%016llx", (unsigned long long)bl_job_data_hash(data));
}

static json_t *tuning_json(const bl_tuning *tuning, const bl_job_data *data)
{
    json_t *arms = json_array();
    for (int a = 0; a < tuning->arms; a++)
        json_array_append_new(arms, choice_json(&tuning->choice[a]));
    bool higher;
    char hash[17];
    hash_text(data, hash);
    return json_pack("{s:i,s:s,s:s,s:s,s:i,s:i,s:o}", "schema", 1, "ballast", BALLAST_VERSION,
                     "metric", bl_job_primary_metric(data, &higher), "data_hash", hash, "trials",
                     tuning->trials, "seeds", BL_TUNING_SEEDS, "arms", arms);
}

bl_status bl_preset_write(const bl_tuning *const *tuning, const bl_job_data *const *data, int count,
                          const char *path)
{
    json_t *json = count == 1 ? tuning_json(tuning[0], data[0]) : json_array();
    for (int i = 0; count > 1 && i < count; i++)
        json_array_append_new(json, tuning_json(tuning[i], data[i]));
    bool whole = count == 1 || json_array_size(json) == (size_t)count;
    char *text =
        whole ? json_dumps(json, JSON_INDENT(1) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    bl_status status = text ? bl_write_file(path, text, strlen(text))
                            : bl_fail(BL_NO_MEMORY, "memory is short for the preset");
    free(text);
    json_decref(json);
    return status;
}

static bl_status read_choice(const char *path, const json_t *arms, bl_choice *choice)
{
    size_t i;
    json_t *entry;
    json_array_foreach(arms, i, entry)
    {
        const char *arm = json_string_value(json_object_get(entry, "arm")),
                   *setting = json_string_value(json_object_get(entry, "setting"));
        if (!arm || !setting || strcmp(arm, choice->arm) != 0)
            continue;
        bl_setting parsed;
        bl_status status = bl_setting_parse(setting, &parsed);
        bl_setting_free(&parsed);
        if (status != BL_OK)
            return bl_fail_in(status, "preset %s", path);
        choice->setting = bl_copy_text(setting);
        return choice->setting ? BL_OK : bl_no_memory(strlen(setting));
    }
    return bl_fail(BL_INVALID, "preset %s has no setting for the arm %s: tune it there too", path,
                   choice->arm);
}

static bl_status read_choices(const char *path, const json_t *json, bl_tuning *out)
{
    const json_t *arms = json_object_get(json, "arms");
    if (json_integer_value(json_object_get(json, "schema")) != 1 || !json_is_array(arms))
        return bl_fail(BL_INVALID, "preset %s: not written by --save-preset", path);
    out->preset = true;
    out->trials = (int)json_integer_value(json_object_get(json, "trials"));
    for (int a = 0; a < out->arms; a++)
        if (!is_null(out->choice[a].arm))
            BL_TRY(read_choice(path, arms, &out->choice[a]));
    for (int a = 0; a < out->arms; a++)
        if (is_null(out->choice[a].arm))
            BL_TRY(take_over(&out->choice[0], &out->choice[a]));
    return BL_OK;
}

/* The part of a file that is of these data, or all of it where it is of one data set. */
static bl_status find_part(const char *path, const json_t *json, const bl_job_data *data,
                           const json_t **part)
{
    char hash[17];
    size_t i;
    json_t *entry;
    *part = json;
    if (!json_is_array(json))
        return BL_OK;
    hash_text(data, hash);
    json_array_foreach((json_t *)json, i, entry)
    {
        const char *of = json_string_value(json_object_get(entry, "data_hash"));
        *part = entry;
        if (of && !strcmp(of, hash))
            return BL_OK;
    }
    return bl_fail(BL_INVALID,
                   "preset %s is of %zu data sets, but none has the hash of these data, %s", path,
                   json_array_size(json), hash);
}

bl_status bl_preset_read(const char *path, const bl_job_data *data, const char *const *arm,
                         int arms, bl_tuning *out)
{
    *out = (bl_tuning){0};
    char *text;
    size_t size;
    BL_TRY(bl_read_file(path, &text, &size));
    json_error_t where;
    json_t *json = json_loads(text, 0, &where);
    bl_release(text);
    bl_status status =
        json ? new_choices(arm, arms, out)
             : bl_fail(BL_INVALID, "preset %s, line %d: %s", path, where.line, where.text);
    const json_t *part;
    if (status == BL_OK)
        status = find_part(path, json, data, &part);
    if (status == BL_OK)
        status = read_choices(path, part, out);
    json_decref(json);
    return status;
}
