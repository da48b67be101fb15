/* What is remembered of a study besides its jobs: its name, what tuning chose, and what a command
 * said at its end. */
#ifndef BL_STUDY_RECORD_H
#define BL_STUDY_RECORD_H

#include "study/outcome.h"
#include "study/store.h"

/* Names the study. BL_INVALID, with what differs, where the name stands for other data, another
 * plan, program or configuration (arms, replicates, trials, ..): two comparisons under one name
 * would be mistaken for each other, and arms that are added one by one would go without Holm's
 * correction. options->fresh takes the name all the same. */
bl_status bl_record_name(const bl_study_options *options, const bl_job_data *data,
                         const bl_store_label *label);
bl_status bl_record_choices(const bl_study_options *options, const bl_job_data *data,
                            const bl_tuning *tuning);
/* What a command printed, as a table and as JSON. */
bl_status bl_record_saying(const bl_study_options *options, const bl_job_data *data,
                           const bl_store_saying *saying);

/* What differs between two plans, as the store knows studies, or two configurations:
 * "study_seed was 1, now 2; arms: newly \"sam\"". */
bl_status bl_plan_differences(const char *before, const char *now, bl_text *text);

#endif
