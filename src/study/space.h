/* Where an arm is searched: the learning rate and the weight decay, which every arm has, and the
 * options of its methods that the user left open.
 *
 * An option's range of search comes from where the option is declared, in the method's file. It is
 * stated there, as one more condition after the range, or it follows from range and default:
 *
 *     OPT(lambda, 3.0, "[0,inf), tune [0.3,30] log", "weight of the term")     stated: by ratio
 *     OPT(p, 0.5, "[0,1), tune [0.05,0.6]", ..)              stated: evenly
 *     OPT(decay, 0.999, "[0,1], tune [0.9,0.9999] complement", ..)   by ratio of 1 - decay
 *     OPT(eps, 1e-4, "(0,0.5), tune never", ..)              stated: left as it is
 *     OPT(lambda, 3.0, "[0,inf)", ..)     a tenth to ten times the default, by ratio
 *     OPT(p, 0.5, "[0,1)", ..)            all of the range but 2 % at each end
 *     OPT(beta, 0.05, "[0,1]", ..)        by ratio, within the range: the default is small in it
 *     OPT(decay, 0.99, "[0,1]", ..)       by ratio of the distance to 1
 *
 * Without a statement these are left as they are: whole numbers, words and flags; numbers without a
 * default, at 0 or below, or under 1e-4 (guards against division); ranges bounded by other options.
 *
 * The points are a scrambled Halton sequence. Point t of two arms has the same rate and decay, so
 * that arms share the luck of the draw. */
#ifndef BL_STUDY_SPACE_H
#define BL_STUDY_SPACE_H

#include "methods/method.h"
#include "train/train.h"

typedef enum bl_scale {
    BL_SCALE_LINEAR,
    BL_SCALE_LOG,       /* by ratio */
    BL_SCALE_COMPLEMENT /* by ratio of 1 - x */
} bl_scale;

enum { BL_SPACE_MOST = 12, BL_SPACE_RATE = 0, BL_SPACE_DECAY = 1 };
enum { BL_RATE_REACH = 10 }; /* learning rates from a tenth to ten times the recipe's */

typedef struct bl_dimension {
    char name[80];         /* "learning_rate", "weight_decay", "elr.lambda" */
    int part;              /* of the arm; -1: of the recipe */
    const bl_field *field; /* NULL: of the recipe */
    double low, high;
    bl_scale scale;
} bl_dimension;

typedef struct bl_space {
    bl_arm arm;
    int count;
    bl_dimension dimension[BL_SPACE_MOST];
    bl_key key; /* of the scrambling */
} bl_space;

/* `given` is the arm as the user wrote it: what it sets is fixed. bl_space_free it. */
bl_status bl_space_new(const char *given, const bl_recipe *recipe, uint64_t seed, bl_space *out);
void bl_space_free(bl_space *space);
/* The setting of trial t; trial 0 is the arm as given with the recipe's rate and decay. */
bl_status bl_space_setting(const bl_space *space, int trial, char **setting);
/* The range in which an option is searched; false: it is left as it is. */
bool bl_option_searched(const bl_field *field, double *low, double *high, bl_scale *scale);
/* Coordinate in [0,1) of point `index` of the scrambled sequence, by dimension. */
double bl_halton(bl_key key, int dimension, uint32_t index);

#endif
