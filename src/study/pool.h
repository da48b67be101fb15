/* Worker processes: exec'ed copies of the program that read one job a line on standard input and
 * answer in lines on standard output: {"progress":0.25} while they work, then {"result":{..}},
 * {"error":".."}, or {"unfit":".."} where they can do no job of the study. */
#ifndef BL_STUDY_POOL_H
#define BL_STUDY_POOL_H

#include "base/base.h"

typedef struct bl_pool bl_pool;

enum {
    BL_POOL_MOST = 256,
    BL_POOL_PATIENCE = 600 /* seconds that a worker may be silent over a job, unless said */
};

typedef enum bl_event_kind {
    BL_EVENT_NONE,     /* the time is over */
    BL_EVENT_PROGRESS, /* worker `worker` has done `share` of its job */
    BL_EVENT_RESULT,   /* text is the result, as JSON */
    BL_EVENT_ERROR,    /* text is the sentence */
    BL_EVENT_UNFIT,    /* text says why no job of this study can be done there: its data are
                          missing, or others */
    BL_EVENT_DIED      /* text says how; sending a job starts another worker in its place */
} bl_event_kind;

typedef struct bl_event {
    bl_event_kind kind;
    int worker;
    double share;
    char *text; /* bl_release it */
} bl_event;

/* Starts `count` workers, each running argv[0] with argv (NULL-terminated), one thread each. One
 * that is silent over its job for more than `patience` seconds (0: BL_POOL_PATIENCE) is ended, and
 * BL_EVENT_DIED. */
bl_status bl_pool_start(int count, const char *const *argv, double patience, bl_pool **out);
/* Ends every worker at once. */
void bl_pool_stop(bl_pool *pool);
/* Hands an idle worker its job: one line, without a newline. */
bl_status bl_pool_send(bl_pool *pool, int worker, const char *line);
/* Waits at most `milliseconds` for the next event; returns early when a signal arrives. */
bl_status bl_pool_wait(bl_pool *pool, int milliseconds, bl_event *event);

#endif
