/* A setting: an arm with its options, and the learning rate and weight decay it is trained with. It
 * is text, so that a store and a worker know it by what it says:
 *
 *     elr                                                    the recipe's rate and decay
 *     elr(lambda=1.7) @ learning_rate=0.021,weight_decay=3e-5
 *     tuning elr(lambda=1.7) @ ..                            a trial: see bl_job_run */
#ifndef BL_STUDY_SETTING_H
#define BL_STUDY_SETTING_H

#include "methods/method.h"

typedef struct bl_setting {
    bl_arm arm;
    double learning_rate, weight_decay; /* NaN: the recipe's */
    bool tuning;                        /* scored on a held-out part of the training examples */
} bl_setting;

/* Errors: those of bl_arm_parse, and a rate or decay that is none. bl_setting_free it. */
bl_status bl_setting_parse(const char *text, bl_setting *out);
void bl_setting_free(bl_setting *setting);
/* The text of an arm with a rate and a decay, or NULL if memory is short; bl_release it. */
char *bl_setting_text(const char *arm, double learning_rate, double weight_decay);
/* The same setting as a trial. */
char *bl_setting_trial(const char *setting);

#endif
