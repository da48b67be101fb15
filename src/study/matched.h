/* Equal cost: an arm whose training costs more (or less) than the baseline's is also compared with
 * a baseline that was trained for as many epochs as cost the same. The schedule stretches with
 * them.
 *
 * Cost is counted work, steps times operations a step, so the comparison is as repeatable as the
 * main one. An arm within 5 % of the baseline's cost has no such row, nor has one whose equal would
 * have as many whole epochs as the recipe. */
#ifndef BL_STUDY_MATCHED_H
#define BL_STUDY_MATCHED_H

#include "study/outcome.h"

/* Runs the longer and shorter baselines that the store lacks and fills in outcome->matched. The
 * options are those the outcome was read with. */
bl_status bl_match_cost(const bl_study_options *options, const bl_job_data *data,
                        bl_outcome *outcome);

#endif
