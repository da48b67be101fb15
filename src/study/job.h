/* A job: one training run, described by plain data that survives as JSON: which data, corruption,
 * split, recipe, arm and replicate. The same job gives the same result, bit for bit, on the same
 * kind of processor, whoever runs it. */
#ifndef BL_STUDY_JOB_H
#define BL_STUDY_JOB_H

#include "ballast/data.h"
#include "study/plan.h"
#include "train/train.h"

typedef struct bl_job {
    const bl_plan *plan;
    const char *arm; /* canonical text, or a setting of an arm: study/setting.h */
    int replicate;
    const char
        *checkpoint; /* path: resumed from where it exists, written when interrupted; or NULL */
} bl_job;

/* A data set opened once for many jobs of one plan. */
typedef struct bl_job_data bl_job_data;
bl_status bl_job_data_open(const bl_plan *plan, bl_job_data **out);
void bl_job_data_close(bl_job_data *data);
/* The recipe that the task and the plan settle on, and one line about the data ("1797 images 8x8,
 * 10 classes, ..."). */
const bl_recipe *bl_job_recipe(const bl_job_data *data);
const char *bl_job_summary(const bl_job_data *data);
const char *bl_job_primary_metric(const bl_job_data *data, bool *higher_is_better); /* "accuracy" */
uint64_t bl_job_data_hash(const bl_job_data *data);
/* The name of a class; NULL in regression and past the end. */
const char *bl_job_class(const bl_job_data *data, int32_t label);
/* Where an example came from, "prices.csv:12"; NULL where the data set does not know. */
const char *bl_job_example(const bl_job_data *data, int64_t row);
bool bl_job_resplits(const bl_job_data *data); /* no fixed test part: every replicate re-splits */
void bl_job_counts(const bl_job_data *data, int64_t *train, int64_t *test);
/* All examples that splits draw from: more than both parts where training takes a subsample. */
int64_t bl_job_pool(const bl_job_data *data);
/* Test examples over the others of a re-split, which is how much re-splits resemble each other
 * (Nadeau and Bengio 2003, section 3: how many of the others train does not change it); 0 where the
 * test part is fixed. */
double bl_job_overlap(const bl_job_data *data);
bl_status bl_job_check_arm(const bl_job_data *data,
                           const char *arm); /* parses, and fits the task? */

/* Replicate r's keys are derive(derive(study, r), source) for split, noise, init, order,
 * augmentation. The null arm uses other init, order and augmentation keys on the same split and
 * noise. Other purposes (setting.h) draw from keys that no replicate has; a trial ("tuning ..") and
 * a screening run train on four fifths of the training part and are scored on the fifth, spoiled
 * labels included; the test part is not read. */
bl_status bl_job_run(const bl_job *job, const bl_job_data *data, const bl_progress *progress,
                     bl_run_result *result);

/* The preprocessing that the job's training part determines; bl_preparation_free it. */
bl_status bl_job_preparation(const bl_job *job, const bl_job_data *data, bl_preparation **out);

/* A number; null where it is not finite, as JSON has neither infinities nor NaN. */
json_t *bl_json_real(double value);

/* The result as JSON:
 * {"metrics":{..},"curve":[..],"groups":{..},"suspects":{..},"effect":{..},"steps":..,"work":{..},
 * "diverged":..,"timing":{..}}.
 * Everything but "timing" is deterministic. */
json_t *bl_run_result_to_json(const bl_run_result *result);

#endif
