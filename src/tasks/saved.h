/* A trained model as a file: weights, architecture and preprocessing together, so that predictions
 * need nothing but the file and new data in the user's own format.
 *
 * The file is safetensors: parameters under "param/", running statistics under "model/", and the
 * rest as JSON in its metadata ("ballast"). */
#ifndef BL_TASKS_SAVED_H
#define BL_TASKS_SAVED_H

#include "ballast/data.h"
#include "train/train.h"

typedef struct bl_saved {
    bl_architecture architecture; /* its name is kept in `name` */
    char name[32];
    bl_preparation *preparation;
    bl_dictionary state;
    char *arm;     /* how it was trained: "conr(beta=1)" */
    char *metrics; /* held-out metrics of the training run, as JSON */
} bl_saved;

/* Writes whole or not at all. `state` is a run's result. */
bl_status bl_saved_write(const char *path, const bl_architecture *architecture,
                         const bl_preparation *preparation, const char *arm, const char *metrics,
                         const bl_dictionary *state);
/* Errors: not safetensors, not written by this program, a damaged description. */
bl_status bl_saved_read(const char *path, bl_saved *out);
void bl_saved_free(bl_saved *saved);

/* Predictions for every row of `d`, which is opened like the training data
 * (bl_data_options.like): [n,C] class probabilities, or [n,1] values in the user's units. */
bl_status bl_saved_predict(const bl_saved *saved, const bl_dataset *d, bl_array *out);

#endif
