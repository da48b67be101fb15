/* What came out of a study, and how it is told. Everything here is deterministic but for the fields
 * that say so: standard output shows the same bytes however a study was run. */
#ifndef BL_STUDY_OUTCOME_H
#define BL_STUDY_OUTCOME_H

#include "study/pilot.h"
#include "study/screen.h"
#include "study/stats.h"
#include "study/tune.h"

typedef struct bl_group_outcome { /* of an arm, in a group of test examples (train.h) */
    double mean, count;           /* over the runs that did not diverge: its metric, its examples */
    double difference;            /* from the baseline, over the pairs that both have */
    bl_interval interval; /* of that; corrected for nothing. NaN where a run diverged or failed,
                           * or all differences are equal */
} bl_group_outcome;

typedef struct bl_arm_outcome {
    const char *arm;
    const bl_choice *choice; /* how it was tuned; NULL: untuned */
    int runs, failed, diverged;
    char *error;              /* of the first failed run, or NULL */
    json_t **result;          /* [replicates], as bl_run_result_to_json; NULL where it failed */
    double *score;            /* [replicates] primary metric; NaN where it diverged or failed */
    bl_comparison comparison; /* with the baseline; meaningless for the baseline itself. Of an arm
                               * without a verdict: no pairs, NaN throughout, the reason in its
                               * note */
    double mean;
    bl_interval interval;
    bl_group_outcome *group; /* [groups] */
    bl_arm_effect effect;    /* means over the runs that did not diverge */
    int inert;               /* replicates in which the arm did nothing */
    double work;             /* counted operations of a training step; the baseline's is 1 */
    double total_work;       /* the same of a whole run */
    double seconds, seconds_per_step, memory; /* medians over the replicates; not deterministic */
} bl_arm_outcome;

typedef struct bl_matched { /* a row at equal cost: study/matched.h */
    int arm;
    int64_t epochs; /* of the baseline that the arm is compared with */
    bl_comparison comparison;
} bl_matched;

typedef struct bl_outcome {
    int arms, replicates,
        compared; /* arms with a verdict: those with failed runs or that did nothing have none */
    int family;   /* arms that the correction for many counts: bl_study_family */
    bl_arm_outcome *arm; /* the baseline first */
    int groups;
    const char *metric;
    bool higher_is_better, resplit;
    int64_t train_count, test_count;
    double alpha, min_effect; /* min_effect 0: none given */
    const bl_job_data *data;  /* borrowed, as are the plan and the texts of the arms */
    const bl_plan *plan;
    const bl_screening *screening; /* these two may be NULL; borrowed */
    const bl_pilot *pilot;
    bl_matched *matched; /* at equal cost */
    int matches;
} bl_outcome;

/* Reads the results from the store and compares. BL_INVALID if a run of the baseline failed, or
 * there are fewer than two replicates. */
bl_status bl_outcome_new(const bl_study_options *options, const bl_job_data *data, double alpha,
                         double min_effect, bl_outcome *out);
void bl_outcome_free(bl_outcome *outcome);
/* How its arms are compared. */
bl_compare_options bl_outcome_compare_options(const bl_outcome *outcome);

/* An arm without all its runs, or that did nothing in them, has no verdict and is no matter to the
 * others'. */
bool bl_has_verdict(const bl_arm_outcome *arm);

/* Fills in the groups, as the last part of bl_outcome_new. */
bl_status bl_groups_read(bl_outcome *outcome);
const char *bl_group_name(const bl_outcome *outcome, int group);

/* The verdict table, at most 80 columns; with terminal colours if `colour`. */
bl_status bl_outcome_table(const bl_outcome *outcome, bool colour, bl_text *text);
/* What its verdicts speak of, and how far to trust them: a paragraph in one line. */
void bl_outcome_footer(const bl_outcome *outcome, bl_text *line);
/* Everything, as JSON (docs/json.md). With `timing` also what is not deterministic. */
bl_status bl_outcome_json(const bl_outcome *outcome, bool timing, json_t **out);
/* Measured seconds, a line an arm: for standard error. */
bl_status bl_outcome_timing(const bl_outcome *outcome, bl_text *text);
/* "helps", "undecided (about 12 more)". */
void bl_verdict_text(const bl_comparison *comparison, char text[64]);
/* How the numbers of an outcome are shown: divided by a unit, a power of 1000 that is 1 but for
 * very large and very small metrics, with decimals so that the narrowest interval shows two digits.
 */
typedef struct bl_layout {
    double unit;
    int mean, difference;
} bl_layout;
bl_layout bl_outcome_layout(const bl_outcome *outcome);
/* Three significant digits; all before the point where there are up to seven. */
void bl_add_short_number(bl_text *text, double value);
/* "baseline, elr: the best trials crowd ..", once for all arms of which it is true: with the first of
 * them. False where there is nothing to say with arm `a`. */
bool bl_edge_text(const bl_outcome *outcome, int a, bl_text *line);
/* What the arm did, a sentence: "changes 41 % of the gradient, 100 % of the examples". */
void bl_effect_text(const bl_arm_outcome *arm, bl_text *text);

#endif
