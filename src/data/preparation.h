/* What a preparation holds; shared by fitting (preparation.c) and JSON (preparation_json.c). */
#ifndef BL_DATA_PREPARATION_H
#define BL_DATA_PREPARATION_H

#include "data/dataset.h"

/* How one column becomes features. */
typedef struct bl_rule {
    char *name;
    bl_column_kind kind;
    double mean, sd; /* numeric; sd 0: constant */
    bool indicator;  /* numeric: a second feature tells whether the cell is missing */
    char **category; /* categorical: sorted by strcmp, one feature each */
    int32_t categories;
    int64_t at; /* the first feature */
} bl_rule;

struct bl_preparation {
    bl_data_kind kind;
    bl_shape shape; /* of one example */
    bl_rule *rule;  /* table */
    int32_t rules;
    double *mean, *sd; /* images: a channel; matrix: a feature; sd 0: constant */
    int64_t statistics;
    char **feature; /* table: names */
    int64_t features;
    bl_target_kind target_kind;
    char *target_name;
    char **class_name;
    int32_t classes;
    double target_mean, target_sd;
};

/* Places the features of the rules one after another, names them, and sets the shape. */
bl_status bl_preparation_place(bl_preparation *p);

/* Leaves a note for every column with texts that the fitted rows did not have, or had too rarely:
 * to the model such a cell is missing. */
bl_status bl_preparation_note_unseen(const bl_preparation *p, bl_dataset *d);

#endif
