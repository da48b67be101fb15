/* Training as plain data: a recipe, data, an arm and keys in; metrics, curves and a model out. */
#ifndef BL_TRAIN_TRAIN_H
#define BL_TRAIN_TRAIN_H

#include "train/step.h"

typedef struct bl_recipe {
    bl_architecture model;
    char optimizer[16]; /* "sgd", "adam", "adamw" */
    double learning_rate, momentum, weight_decay;
    bool nesterov;
    double beta1, beta2, epsilon; /* adam */
    char schedule[16];            /* "constant", "step", "cosine", "one_cycle" */
    double step_at[4]; /* "step": shares of the epochs after which the rate is multiplied; 0 ends */
    double step_factor;
    int64_t epochs, batch;
    char loss[16]; /* "cross_entropy", "squared", "absolute" */
} bl_recipe;

/* Prepared data, borrowed by the run. Inputs are f32 [n,..] or raw u8 images with a normalisation.
 */
typedef struct bl_part {
    int64_t count;
    bl_array inputs;  /* f32 [n,D] or [n,H,W,C], prepared; or u8 images (raw) */
    bl_array targets; /* i32 [n], or f32 [n,L] standardised */
} bl_part;

typedef struct bl_training_data {
    bl_part train, validation, test; /* validation.count may be 0 */
    double mean[4], scale[4];        /* of u8 images: (v - mean[c]) * scale[c]; scale is 1 / sd */
    int64_t classes;                 /* 0: regression */
    double target_scale;
    const int32_t
        *true_labels; /* of the training part, where label noise was injected; else NULL */
} bl_training_data;

/* Separate keys, so that an arm never shifts another's stream. */
typedef struct bl_run_keys {
    bl_key init, order,
        augmentation; /* augmentation also feeds dropout and the methods' own draws */
} bl_run_keys;

typedef struct bl_progress { /* called after every epoch and about five times a second */
    void (*report)(void *context, int64_t step, int64_t steps, int64_t epoch, double loss);
    void *context;
    volatile const int
        *stop; /* non-zero: finish the step, save, return BL_INTERRUPTED; may be NULL */
} bl_progress;

typedef struct bl_experiment {
    bl_recipe recipe;
    const bl_training_data *data;
    const bl_arm *arm;
    bl_run_keys keys;
    const bl_device *device; /* NULL: cpu */
    int threads;
    const char *checkpoint;   /* path, or NULL; resumed from where it exists (bit-exact); whoever
                               * gave it removes it once the result is kept */
    int64_t checkpoint_every; /* epochs; 0: only when interrupted */
    int64_t curve_points;     /* evaluations along the way, on at most 1000 test examples */
    bool details;             /* groups and suspects too */
} bl_experiment;

#define BL_METRICS 12
typedef struct bl_metric {
    char name[24]; /* "accuracy", "nll", "ece", "error"; "mae", "rmse"; "memorised" */
    double value;  /* original units in regression; accuracy, error, ece in percent */
} bl_metric;

typedef struct bl_curve_point {
    int64_t epoch;
    double train_loss, metric; /* metric: the task's primary one */
} bl_curve_point;

/* What the arm did: an arm that did nothing is an error the user sees. */
typedef struct bl_arm_effect {
    int64_t sites;           /* activations and weights that a hook replaced */
    double examples_changed; /* share of the examples whose input or target a hook changed */
    double gradient_share;   /* |g_arm - g_baseline| / |g_baseline| on audited batches, mean */
    double update_share;     /* |step added by update hooks| / |the optimiser's step|, likewise */
    double host_moved; /* largest relative change of the parameters by an init or epoch hook */
    double parameters_moved; /* relative distance of the evaluated weights from the trained ones */
    bool ended_early;        /* an epoch hook ended the run before its last planned epoch */
    bl_metric measure[8];    /* bl_measure, means over the run */
    int measures;
    bool inert; /* none of the five numbers is above 1e-6 (rounding), training did not end early and
                 * the arm holds no examples out */
} bl_arm_effect;

/* A group of the test part: in classification a class, with its accuracy in percent; in regression
 * the third of the test labels that have the fewest training labels near them, the middle and the
 * densest, with their mean absolute error. A group may be empty: NaN. */
typedef struct bl_group {
    int64_t count;
    double value;
} bl_group;

/* A training label that the arm believes to be another. */
typedef struct bl_suspect {
    int32_t example; /* row of the training part */
    int32_t given, believed;
    int32_t truth; /* where label noise was injected; else -1 */
    double doubt;  /* share given to the class believed minus that of the class given */
} bl_suspect;

typedef struct bl_run_result {
    bl_metric metric[BL_METRICS];
    int metrics;
    bl_curve_point *curve;
    int curve_count;
    bl_arm_effect effect;
    int64_t steps, epochs; /* done */
    bool diverged;         /* a loss or parameter stopped being finite */
    bl_work work;          /* of one training step: deterministic, unlike the seconds */
    double seconds, seconds_per_step;
    bl_group *group;     /* [groups] */
    bl_suspect *suspect; /* [suspects], the most doubtful first, at most 1000 */
    int groups, suspects;
    bool doubts;          /* the arm keeps beliefs about labels */
    int64_t wrong_labels; /* of the training part, where label noise was injected and doubts */
    bl_dictionary state;  /* final: evaluated parameters under "param/", statistics under "model/" */
} bl_run_result;

bl_status bl_train(const bl_experiment *experiment, const bl_progress *progress,
                   bl_run_result *result);
void bl_run_result_free(bl_run_result *result);

/* Outputs (logits, or standardised predictions) f32 [n,outputs] of a trained state. */
bl_status bl_predict(const bl_architecture *model, const bl_dictionary *state, const bl_part *part,
                     const bl_training_data *normalisation, const bl_device *device,
                     bl_array *outputs);

#endif
