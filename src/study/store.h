/* Where the results of studies are kept: one SQLite file, written by the parent process alone.
 *
 * A job is known by its study (the plan: data, corruption, recipe, seed, version), its arm and its
 * replicate, so a study that is asked for more arms or replicates keeps what it has. States go
 * pending -> running -> done or failed. A running job belongs to an owner: machine, process and
 * when it started. When the process is gone or was stopped, or an owner on another machine has been
 * silent for a minute, the job is pending again. Several commands may use one file. */
#ifndef BL_STUDY_STORE_H
#define BL_STUDY_STORE_H

#include "base/base.h"

typedef struct bl_store bl_store;

typedef struct bl_claim {
    char *arm;
    int replicate;
} bl_claim;

typedef struct bl_store_counts {
    int pending, running, done, failed;
} bl_store_counts;

/* Creates the file and the folders above it. Errors: not a database, another schema, no space. */
bl_status bl_store_open(const char *path, bl_store **out);
void bl_store_close(bl_store *store);

/* Finds or adds the study of a canonical plan; `fresh` forgets its results first. */
bl_status bl_store_study(bl_store *store, const char *plan, bool fresh, int64_t *study);
/* Asks for jobs: arms x replicates 0..replicates-1, those missing are added as pending; failed ones
 * are tried again. */
bl_status bl_store_want(bl_store *store, int64_t study, const char *const *arm, int arms,
                        int replicates);
/* Takes the next pending job among the wanted ones, replicate by replicate in the order of the
 * arms, for this process; claim->arm is NULL if there is none. Jobs of processes that are gone
 * become pending first. */
bl_status bl_store_claim(bl_store *store, int64_t study, const char *const *arm, int arms,
                         int replicates, bl_claim *claim);
void bl_claim_free(bl_claim *claim);
/* Writes down a result; where another process was faster, its result stays. */
bl_status bl_store_finish(bl_store *store, int64_t study, const bl_claim *claim,
                          const char *result);
bl_status bl_store_fail(bl_store *store, int64_t study, const bl_claim *claim, const char *error);
/* A sign of life: every ten seconds or so while jobs are held. */
bl_status bl_store_beat(bl_store *store, int64_t study);
/* Gives back what this process holds. */
bl_status bl_store_release(bl_store *store, int64_t study);
bl_status bl_store_count(bl_store *store, int64_t study, const char *const *arm, int arms,
                         int replicates, bl_store_counts *counts);
/* The result of a job, or NULL with *error set where it failed, or both NULL; bl_release them. */
bl_status bl_store_result(bl_store *store, int64_t study, const char *arm, int replicate,
                          char **result, char **error);

/* --- names, choices and verdicts: what is remembered of a study besides its jobs ---------------
 */

typedef struct bl_store_label {
    const char *name;
    int place;                 /* of the data set in its command, from 0 */
    const char *configuration; /* what the command compares, and how: canonical text */
} bl_store_label;

typedef struct bl_store_other { /* configuration is NULL where an older program did not say */
    char *plan, *configuration;
} bl_store_other;

typedef struct bl_store_saying {               /* texts are valid during a visit */
    const char *name, *command, *table, *json; /* name: NULL where none was given */
    int64_t said;                              /* Unix time; bl_store_say sets it */
} bl_store_saying;

/* Gives the study a name. Where the name is another study's, or this one's with another
 * configuration: BL_OK, with that in *other (bl_store_other_free it) and nothing changed, unless
 * `fresh`, which takes the name. */
bl_status bl_store_name(bl_store *store, int64_t study, const bl_store_label *label, bool fresh,
                        bl_store_other *other);
void bl_store_other_free(bl_store_other *other);
/* The setting that `trials` trials of an arm chose (0: read from a preset). */
bl_status bl_store_choose(bl_store *store, int64_t study, const char *arm, int trials, int chosen,
                          const char *setting);
/* What a command said at its end: its table, and the same as JSON. */
bl_status bl_store_say(bl_store *store, int64_t study, const bl_store_saying *saying);

/* --- looking, from outside a study -------------------------------------------------------------
 */

typedef struct bl_store_row { /* texts are valid during the visit; NULL where there is none */
    int64_t id, made, said;   /* Unix time of the study and of its last verdict; 0: unknown, none */
    const char *name, *plan;  /* name: all it has, "a, b" */
    const char *command, *json; /* of its last verdict */
    bl_store_counts counts;
} bl_store_row;

typedef struct bl_store_choice {
    const char *arm, *setting;
    int trials, chosen; /* trials 0: read from a preset */
} bl_store_choice;

typedef struct bl_store_job {
    const char *arm, *state, *result, *error;
    int replicate;
} bl_store_job;

/* Each calls `visit` for every row, in order of the id, the name and place, the time, the arm and
 * its trials, and the arm and replicate; an error of the visit ends it. */
bl_status bl_store_each(bl_store *store, bl_status (*visit)(void *, const bl_store_row *),
                        void *context);
bl_status bl_store_each_name(bl_store *store,
                             bl_status (*visit)(void *, const char *name, int64_t study),
                             void *context);
bl_status bl_store_each_saying(bl_store *store, int64_t study,
                               bl_status (*visit)(void *, const bl_store_saying *), void *context);
bl_status bl_store_each_choice(bl_store *store, int64_t study,
                               bl_status (*visit)(void *, const bl_store_choice *), void *context);
bl_status bl_store_each_job(bl_store *store, int64_t study,
                            bl_status (*visit)(void *, const bl_store_job *), void *context);
/* Forgets a study with all that belongs to it. BL_INVALID while a living process runs its jobs. */
bl_status bl_store_remove(bl_store *store, int64_t study);

/* For tests: the machine that this process is on, and what its clock says. */
void bl_store_pretend(bl_store *store, const char *host, int64_t (*clock)(void *context),
                      void *context);

/* $XDG_STATE_HOME/ballast/studies.db, or ~/.local/state/ballast/studies.db; bl_release it. */
char *bl_store_default_path(void);

#endif
