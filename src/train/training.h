/* What the files of train/ share: the running training and the graph that is being built.
 *
 *     state.c       slots: every array that lives from step to step, by name
 *     builder.c     a graph's view of the slots, and what hooks may call
 *     step.c        the order of one training step, all hooks in sight
 *     optimizer.c   one update rule each
 *     call.c        a compiled program bound to slots and to a batch
 *     evaluate.c    forward passes over a whole part; statistics; prediction
 *     audit.c       what the arm did
 *     detail.c      groups of the test part, suspect labels
 *     checkpoint.c  the state as a file
 *     loop.c        the run */
#ifndef BL_TRAIN_TRAINING_H
#define BL_TRAIN_TRAINING_H

#include "train/train.h"

/* --- state: one flat list of named arrays ----------------------------------------------------- */
enum { BL_NO_SLOT = -1 };
typedef struct bl_slot {
    const char *name; /* "param/dense1/weight", "optimizer/momentum/..", "model/..", "elr/bank" */
    bl_type type;
    double initial; /* every element, unless it starts as a copy */
    int copies;     /* the parameter whose initial value it copies, or BL_NO_SLOT */
    bl_array value;
} bl_slot;

/* What is known of a batch besides the state; every program takes these first, in this order. */
typedef enum bl_argument {
    BL_ARG_INPUTS,
    BL_ARG_TARGETS,
    BL_ARG_INDEX,
    BL_ARG_EPOCH,
    BL_ARG_STEP,
    BL_ARG_PROGRESS,
    BL_ARG_LEARNING_RATE,
    BL_ARG_KEY,
    BL_ARG_STATISTIC_RATE,
    BL_ARGS
} bl_argument;

typedef struct bl_batch {
    int64_t size;
    bl_array argument[BL_ARGS];
    uint8_t *raw, *loaded; /* images before normalisation: as stored, and after load hooks */
} bl_batch;

/* A compiled program with its argument lists. */
typedef struct bl_call {
    bl_program *program;
    bl_array *in, *out;
    int *in_slot, *out_slot; /* which slot an argument is bound to, or BL_NO_SLOT */
    int ins, outs;
    int owned; /* the first outputs are arrays of the call's own */
} bl_call;

#define BL_MEASURES 8

/* Sums over the run; plain doubles, so that a checkpoint holds them exactly. */
typedef struct bl_tally {
    double step;       /* steps done */
    double epoch_loss; /* sum in the current epoch */
    double epoch_steps;
    double train_loss; /* mean of the last finished epoch */
    double validation;
    double stop, host_moved;
    double audits, changed, gradient_share, update_share;
    double measure_steps, measure[BL_MEASURES];
} bl_tally;

struct bl_training {
    const bl_experiment *experiment;
    const bl_training_data *data;
    const bl_arm *arm; /* never NULL */
    bl_arena *arena;

    bl_parameter *parameter; /* parameter i lives in slot i */
    int parameters;
    size_t parameter_capacity;
    bl_slot *slot;
    int slots;
    size_t slot_capacity;
    bool started; /* new slots are filled at once */

    int64_t batch, batches, steps; /* size; in an epoch; in the run */
    int64_t epoch;                 /* the one just finished; 0 before the first ends */
    int part;                      /* whose host hook is running */
    double lookup[4][256];         /* normalised value of a pixel, by channel */

    bl_call step, audit, evaluate, plain, renew;
    bl_batch train_batch, evaluation_batch;
    bl_array *renewed; /* by slot: recomputed statistics for the evaluated parameters, or no data */
    int renewed_slots;
    bl_array loss, measure[BL_MEASURES];
    const char *measure_name[BL_MEASURES];
    int measures;
    int64_t sites;

    int32_t *order; /* of the training examples in this epoch */
    int64_t ordered_epoch;
    bl_tally tally;
    bl_curve_point *curve;
    size_t curve_count, curve_capacity;
};

/* state.c */
bl_status bl_training_new(const bl_experiment *experiment,
                          bl_training **out); /* declared, no data */
void bl_training_free(bl_training *t);
int bl_slot_find(const bl_training *t, const char *name);
/* Finds or adds; BL_NO_SLOT if memory is short. */
int bl_slot_add(bl_training *t, const char *name, bl_type type, double initial, int copies);
bl_status bl_training_start(bl_training *t); /* fills slots, draws parameters, runs init hooks */
bl_status bl_run_host_hooks(bl_training *t, bool init); /* or epoch; adds to tally.host_moved */
/* Returns |a - b|^2 and adds |b|^2 to *norm. */
double bl_squared_distance(const float *a, const float *b, int64_t count, double *norm);

/* call.c */
void bl_argument_types(const bl_training *t, int64_t batch, bl_type type[BL_ARGS]);
bl_status bl_batch_new(const bl_training *t, int64_t size, bl_batch *out);
void bl_batch_free(bl_batch *batch);
void bl_batch_set(bl_training *t, bl_batch *batch, int64_t step); /* the scalars of a step */
/* Copies n rows of a part, filling up with the first of them. Images go to batch->raw, from where
 * bl_batch_normalise brings them to the inputs. */
void bl_batch_gather(bl_batch *batch, const bl_part *part, const int32_t *rows, int64_t n);
void bl_batch_normalise(const bl_training *t, bl_batch *batch);
/* Where output o goes to slot out_slot[o] it is donated if the slot is an input too. */
struct bl_builder;
bl_status bl_call_compile(struct bl_builder *b, const bl_tensor *outputs, const int *out_slot,
                          int count, bl_call *call);
/* Sets the arrays: slots to their values, or to the renewed statistics where `renewed`. */
void bl_call_bind(bl_training *t, bl_call *call, const bl_batch *batch, bool renewed);
void bl_call_free(bl_call *call);

/* --- a graph being built -----------------------------------------------------------------------
 */
typedef struct bl_builder {
    bl_training *t;
    bl_step step;
    bl_model model;
    bl_tensor argument[BL_ARGS];
    bl_tensor *now, *next; /* by slot; graph is NULL where unused */
    int slots;             /* room in now and next */
    bool *seen;            /* by parameter: its effective value is known in this forward pass */
    int part;              /* whose hook is running, or -1 */
    int frozen;            /* above 0: settings of state and measures are ignored */
    bool plain;            /* no hooks at all: the baseline */
    bool counting;         /* replaced sites and weights count */
    bool in_loss;          /* a loss hook is running */
    int64_t replaced;
    bl_tensor *optimised; /* what the optimiser made of raw, before update hooks */
    bl_tensor measure[BL_MEASURES];
    const char *measure_name[BL_MEASURES];
    int measures;
} bl_builder;

/* builder.c */
bl_status bl_builder_open(bl_training *t, bool training, int64_t batch, bl_builder *b);
void bl_builder_close(bl_builder *b);
bl_tensor bl_builder_now(bl_builder *b, int slot);
void bl_builder_set(bl_builder *b, int slot, bl_tensor next);
bl_outputs bl_builder_forward(bl_builder *b); /* of the step's inputs and raw parameters */
bl_tensor bl_builder_weight(bl_builder *b, int parameter, bl_tensor raw);
#define BL_EACH_PART(b, i) for (int i = 0; !(b)->plain && i < (b)->t->arm->parts; i++)
bl_status bl_builder_collect(bl_builder *b, bl_tensor *outputs, int *out_slot, int *count);

/* step.c */
void bl_step_build(bl_builder *b); /* fills s->updated and the next state */
void bl_step_build_baseline(bl_builder *b, bl_tensor *gradient); /* of the same step, no hooks */
bl_status bl_step_compile(bl_training *t);

/* optimizer.c */
void bl_optimizer_build(bl_builder *b);
bl_status bl_optimizer_check(const bl_recipe *recipe);

/* schedule.c */
double bl_learning_rate(const bl_recipe *recipe, int64_t step, int64_t steps);
bl_status bl_schedule_check(const bl_recipe *recipe);

/* evaluate.c */
bl_status bl_evaluate_compile(bl_training *t, bool hooks, bl_call *call);
/* logits f32 [rows,C] and, unless NULL, features; rows NULL: all of the part in order. */
bl_status bl_evaluate_rows(bl_training *t, bl_call *call, const bl_part *part, const int32_t *rows,
                           int64_t count, bl_array *logits, bl_array *features);
bl_status bl_renew_statistics(bl_training *t); /* does nothing where no part asks for it */
/* The effective parameters as they are evaluated; and how far they are from those trained. */
bl_status bl_export(bl_training *t, bl_dictionary *out, double *moved);
bl_status bl_validate(bl_training *t, double *score);

/* metric.c */
/* targets i32 [n] or f32 [n,L]; scale: units of one standardised unit. */
int bl_metrics_classification(const bl_array *logits, const int32_t *labels, bl_metric *out);
int bl_metrics_regression(const bl_array *predictions, const float *targets, double scale,
                          bl_metric *out);
double bl_mean_loss(const bl_array *logits, const bl_array *targets, const char *loss);

/* detail.c */
bl_status bl_find_groups(const bl_training *t, const bl_array *outputs, bl_run_result *result);
bl_status bl_find_suspects(bl_training *t, bl_run_result *result);

/* audit.c */
bl_status bl_audit_compile(bl_training *t);
bool bl_audit_due(const bl_training *t, int64_t step);
bl_status bl_audit_run(bl_training *t);
void bl_audit_report(const bl_training *t, double moved, bool finished, bl_arm_effect *effect);

/* checkpoint.c */
bl_status bl_checkpoint_save(const bl_training *t, const char *path);
bl_status bl_checkpoint_load(bl_training *t, const char *path); /* BL_NOT_FOUND if there is none */

#endif
