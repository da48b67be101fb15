/* One training step while its graph is being built, and the hooks that methods put into it.
 *
 * step.c calls every hook, in this order:
 *
 *     batch      replace inputs and targets
 *     weight     replace the effective value of a parameter        (inside the forward pass)
 *     site       transform or record an activation at a named site (inside the forward pass)
 *     loss       replace or add to the loss
 *     gradient   edit gradients (clipping is a method too, in the arm's order)
 *     update     edit parameters after the optimiser
 *
 * All of these add nodes to one graph, so a regularizer costs what its maths costs and is fused
 * with the rest. Host hooks run between programs: init once, load on each batch of raw images,
 * epoch after each epoch. evaluate is called while the evaluation graph is built.
 *
 * A method keeps values from step to step by name: bl_state(s, "bank") is this step's value,
 * bl_set_state(s, "bank", t) the next step's. All state is one dictionary of arrays, which is also
 * the checkpoint: "param/dense1/weight", "optimizer/momentum/dense1/weight", "model/norm1/mean",
 * "elr/bank", .. */
#ifndef BL_TRAIN_STEP_H
#define BL_TRAIN_STEP_H

#include "ballast/program.h"
#include "base/base.h"
#include "nn/nn.h"

typedef struct bl_step bl_step;
typedef struct bl_training bl_training;

/* What a batch's targets are. */
typedef enum bl_target_form { BL_LABELS, BL_DISTRIBUTIONS, BL_NUMBERS } bl_target_form;

struct bl_step {
    bl_graph *graph;
    bool training; /* false while an evaluation graph is built */

    bl_tensor inputs;           /* f32 [B,D] or [B,H,W,C], prepared (standardised) */
    bl_tensor targets;          /* LABELS: i32 [B]; DISTRIBUTIONS: f32 [B,C]; NUMBERS: f32 [B,L],
                                   standardised. Evaluation graphs: as given, for metrics only */
    bl_target_form target_form; /* a batch hook that softens labels sets DISTRIBUTIONS */
    bl_tensor labels; /* i32 [B], the labels as given, whatever batch hooks do; regression: unset */
    bl_tensor
        index; /* i32 [B], distinct rows of the training set, 0..examples-1; unset in evaluation */

    bl_tensor logits;   /* [B,C]; predictions [B,L] in regression */
    bl_tensor features; /* [B,K], the classifier's input */
    bl_tensor loss;     /* f32 [], what is minimised: the task's loss until loss hooks change it */

    bl_tensor epoch;         /* f32 [], 1 in the first epoch */
    bl_tensor step;          /* i32 [], 0 at the first step of the run */
    bl_tensor progress;      /* f32 [], share of all planned steps already done */
    bl_tensor learning_rate; /* f32 [] */

    int64_t batch, examples, classes; /* B, N, and C or L */
    int64_t epochs, steps;            /* planned, in all */
    double target_scale;   /* regression: original units in one standardised unit; else 1 */
    const char *loss_name; /* "cross_entropy", "squared", "absolute" */

    int parameters;
    const bl_parameter *parameter; /* [parameters] */
    bl_tensor *raw;                /* this step's value of what the optimiser updates */
    bl_tensor *value;              /* effective value, after weight hooks */
    bl_tensor *gradient;           /* of the loss in raw; edited by gradient hooks */
    bl_tensor *updated;            /* next value of raw; edited by update hooks */

    struct bl_builder *builder; /* step.c's own */
};

/* --- what graph hooks may call ------------------------------------------------------------------
 */
/* State of the method whose hook is running, declared in its bl_hooks.state. Setting it in an
 * evaluation graph is ignored. */
bl_tensor bl_state(bl_step *s, const char *name);
void bl_set_state(bl_step *s, const char *name, bl_tensor next);
/* State beside parameter i, of its shape, declared by first use in any hook (update and evaluate
 * hooks are visited before training starts). It starts as zeros or as the initial parameter. */
typedef enum bl_start { BL_START_ZERO, BL_START_AT_PARAMETER } bl_start;
bl_tensor bl_parameter_state(bl_step *s, const char *name, int i, bl_start start);
void bl_set_parameter_state(bl_step *s, const char *name, int i, bl_tensor next);

/* A key of this step, different for every arm part, name and step, the same when the forward pass
 * is rerun. */
bl_tensor bl_step_key(bl_step *s, const char *name);

/* Another forward pass in the same step, on `inputs`, with `raw` parameters (s->raw or others of
 * the same shapes). Weight and site hooks run again; running statistics are not updated. */
typedef struct bl_outputs {
    bl_tensor logits, features;
} bl_outputs;
bl_outputs bl_forward(bl_step *s, bl_tensor inputs, const bl_tensor *raw);
/* The step's whole loss, loss hooks included, with other raw parameters; state is not set. For a
 * method that needs gradients elsewhere (sharpness-aware minimisation). */
bl_tensor bl_loss_at(bl_step *s, const bl_tensor *raw);

/* The task's own loss of outputs against targets: a mean over the batch. */
bl_tensor bl_task_loss(bl_step *s, bl_tensor logits, bl_tensor targets, bl_target_form form);
/* f32 [B,C]: the targets as distributions (one-hot where they are labels). */
bl_tensor bl_target_distributions(bl_step *s);
/* Reports a number of what the arm did in this step; the run's report shows its mean: ("anchors",
 * share). */
void bl_measure(bl_step *s, const char *name, bl_tensor value);

/* --- what host hooks may call -------------------------------------------------------------------
 */
/* Arrays of the running state, to read or change in place; NULL if absent. */
bl_array *bl_training_state(bl_training *t, const char *name); /* the method's own */
bl_array *bl_training_parameter(bl_training *t, int i);
bl_array *bl_training_parameter_state(bl_training *t, const char *name, int i);
int bl_training_parameters(const bl_training *t, const bl_parameter **parameter);
int64_t bl_training_epoch(const bl_training *t);  /* the one just finished, from 1 */
int64_t bl_training_epochs(const bl_training *t); /* planned */
/* Held-out score after this epoch, lower is better: the mean task loss of the parameters as they
 * are, without any part's evaluate hook. NaN if nothing is held out. */
double bl_training_validation(const bl_training *t);
void bl_training_stop(bl_training *t); /* the run ends after this epoch */
/* Features f32 [n,K] and labels i32 [n] (f32 [n,L]) of the held-out part under the current
 * parameters, without any part's evaluate hook but with site hooks; the caller frees both.
 * BL_NOT_FOUND without a held-out part. */
bl_status bl_training_validation_features(bl_training *t, bl_array *features, bl_array *targets);

/* --- what a method registers ---------------------------------------------------------------------
 */
typedef struct bl_state_declaration {
    const char *name; /* NULL ends the list */
    const char
        *type;      /* "f32[N,C]": N training examples, C classes (or L values), B batch; "i32[]" */
    double initial; /* every element */
} bl_state_declaration;

/* What an arm part needs of a run and what it changes for the parts after it. */
typedef enum bl_trait {
    BL_HARD_LABELS = 1,     /* needs labels that no part before it softened */
    BL_EXAMPLE_INDEX = 2,   /* uses stable rows of the training set */
    BL_CLASSIFICATION = 4,  /* needs the task to be classification */
    BL_REGRESSION = 8,      /* needs the task to be regression */
    BL_IMAGE_INPUTS = 16,   /* needs [B,H,W,C] inputs */
    BL_VALIDATION = 32,     /* needs a held-out part: 10 % of the training data is set aside */
    BL_SOFTENS_LABELS = 64, /* gives: targets become distributions */
    BL_BRANCHES = 128       /* needs a model with residual branches */
} bl_trait;

typedef struct bl_hooks {
    bl_status (*init)(bl_training *t, const void *options);
    bl_status (*load)(bl_training *t, const void *options, const uint8_t *in, uint8_t *out,
                      int64_t n, int64_t h, int64_t w, int64_t c, bl_key key);
    void (*batch)(bl_step *s, const void *options);
    bl_tensor (*weight)(bl_step *s, const void *options, int parameter, bl_tensor value);
    bl_tensor (*site)(bl_step *s, const void *options, const bl_site_info *site, bl_tensor value);
    void (*loss)(bl_step *s, const void *options);
    void (*gradient)(bl_step *s, const void *options);
    void (*update)(bl_step *s, const void *options);
    bl_status (*epoch)(bl_training *t, const void *options);
    void (*evaluate)(bl_step *s,
                     const void *options); /* may replace s->raw[i] before the forward pass */
    bool renew_statistics; /* evaluated parameters are averages: batch-norm statistics are computed
                              anew */
    bl_state_declaration state[6];
    const char *beliefs; /* the state "f32[N,C]" that says what the method thinks each training
                          * example's class is, from which suspect labels are told; or NULL */
} bl_hooks;

/* One method of an arm, with its options as the struct its hooks expect. */
typedef struct bl_arm_part {
    const char *name; /* prefix of its state: "elr" */
    const bl_hooks *hooks;
    unsigned traits;
    void *options;
} bl_arm_part;

typedef struct bl_arm {
    char *text; /* canonical: "elr(beta=0.9)+ema"; options at their default are left out */
    bl_arm_part *part;
    int parts; /* 0: the baseline */
    bool null; /* the baseline again, with other seeds */
} bl_arm;

#endif
