/* A setting: an arm with its options, and the learning rate and weight decay it is trained with. It
 * is text, so that a store and a worker know it by what it says:
 *
 *     elr                                                    the recipe's rate and decay
 *     elr(lambda=1.7) @ learning_rate=0.021,weight_decay=3e-5
 *     baseline @ epochs=41                                   longer than the recipe
 *     tuning elr(lambda=1.7) @ ..                            for another purpose than a verdict */
#ifndef BL_STUDY_SETTING_H
#define BL_STUDY_SETTING_H

#include "methods/method.h"

/* What a run is for. Each purpose draws from replicates of its own, so that no seed is used twice;
 * for tuning and screening a held-out part of the training examples takes the place of the test
 * part, which is not read. */
typedef enum bl_purpose {
    BL_FOR_VERDICT,
    BL_FOR_TUNING,
    BL_FOR_SCREENING,
    BL_FOR_PILOT,
    BL_PURPOSES
} bl_purpose;

typedef struct bl_setting {
    bl_arm arm;
    double learning_rate, weight_decay, epochs; /* NaN: the recipe's */
    bl_purpose purpose;
} bl_setting;

/* Errors: those of bl_arm_parse, and a rate or decay that is none. bl_setting_free it. */
bl_status bl_setting_parse(const char *text, bl_setting *out);
void bl_setting_free(bl_setting *setting);
/* The text of an arm with a rate and a decay, or NULL if memory is short; bl_release it. */
char *bl_setting_text(const char *arm, double learning_rate, double weight_decay);
/* The same setting, which is for a verdict, for another purpose. */
char *bl_setting_for(bl_purpose purpose, const char *setting);
/* The same setting, trained for so many epochs. */
char *bl_setting_lasting(const char *setting, int64_t epochs);

#endif
