/* What is remembered of a study besides its jobs: its name, what tuning chose, and what a command
 * said at its end. */
#ifndef BL_STUDY_RECORD_H
#define BL_STUDY_RECORD_H

#include "study/outcome.h"

/* Names the study. BL_INVALID, with what differs, where the name is another study's: two
 * configurations under one name would be mistaken for each other. options->fresh takes the name
 * away from the other. */
bl_status bl_record_name(const bl_study_options *options, const bl_job_data *data,
                         const char *name);
bl_status bl_record_choices(const bl_study_options *options, const bl_job_data *data,
                            const bl_tuning *tuning);
/* The table and the JSON of an outcome, as `command` printed them. */
bl_status bl_record_saying(const bl_study_options *options, const bl_outcome *outcome,
                           const char *command);

/* What differs between two studies as the store knows them, "seed 1, now 2; data ..". */
bl_status bl_plan_differences(const char *before, const char *now, bl_text *text);

#endif
