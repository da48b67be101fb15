/* The workers of a study, on this machine and on the other ranks, as one row: first this process's
 * own (pool.h), then those of rank 1, and so on. Without ranks a crew is a pool. */
#ifndef BL_STUDY_CREW_H
#define BL_STUDY_CREW_H

#include "study/pool.h"
#include "study/ranks.h"

typedef struct bl_crew bl_crew;

/* `each` workers on every rank, the same for every crew of a process, as `patience` is; ranks may be
 * NULL. */
bl_status bl_crew_start(int each, const char *const *argv, double patience, bl_ranks *ranks,
                        bl_crew **out);
/* Ends the workers of this process; those of other ranks are idle then, and wait for the next. */
void bl_crew_stop(bl_crew *crew);
int bl_crew_count(int each, const bl_ranks *ranks);
/* Whether a worker takes jobs: not before its rank has said what it is, and not when the rank is
 * lost (each of its workers is then a BL_EVENT_DIED). */
bool bl_crew_ready(const bl_crew *crew, int worker);
/* As for a pool. */
bl_status bl_crew_send(bl_crew *crew, int worker, const char *line);
/* As for a pool; besides, an error where a rank runs another build, or cannot have workers. */
bl_status bl_crew_wait(bl_crew *crew, int milliseconds, bl_event *event);

#endif
