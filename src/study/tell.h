/* What a command says at its end, about one data set or several, in every form. */
#ifndef BL_STUDY_TELL_H
#define BL_STUDY_TELL_H

#include "study/across.h"

typedef struct bl_telling {
    const bl_outcome **outcome; /* [count], borrowed outcomes, one a data set */
    int count;
    bl_across across; /* over the data sets, where there are several */
} bl_telling;

bl_status bl_telling_new(int count, bl_telling *out); /* the caller fills outcome[], then: */
bl_status bl_telling_complete(bl_telling *telling);
void bl_telling_free(bl_telling *telling);

/* The tables, each under its data set's name where there are several, and the one over them. */
bl_status bl_tell_table(const bl_telling *telling, bool colour, bl_text *text);
/* docs/json.md, ending in a newline. */
bl_status bl_tell_json(const bl_telling *telling, bl_text *text);
/* As bl_outcome_csv; where there are several, with the columns `data` and `metric` before, and
 * lines of the kind "over data sets" at the end. */
bl_status bl_tell_csv(const bl_telling *telling, bl_text *text);
/* A table environment each. */
bl_status bl_tell_latex(const bl_telling *telling, bl_text *text);

#endif
