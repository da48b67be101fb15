/* The ranks of `mpirun -n K ballast compare ..`: the first owns the study, the store and the
 * output; each has worker processes (pool.h), and a rank other than the first only passes on lines
 * between the first and its workers. So a run that crashes takes its worker along and not a rank,
 * which MPI would answer by ending everything.
 *
 * Messages are a letter and text, and meant for, or from, one worker of a rank. What is said of a
 * job begins with its number ("17 {..}"), as messages cross: a worker that dies idle is reported
 * while its next job is on the way, and an answer must not be taken for that of another job. */
#ifndef BL_STUDY_RANKS_H
#define BL_STUDY_RANKS_H

#include "base/base.h"

struct bl_cluster;
struct bl_cluster_calls;

typedef struct bl_other_rank { /* what the first knows of another rank */
    bool ready;                /* it has said what it is, and was asked for workers */
    bool lost;                 /* nothing was heard of it for too long; it gets no more messages */
    int dying;                 /* its workers, so many, whose death is still to be reported */
    double heard;
    char *host;
} bl_other_rank;

typedef struct bl_ranks {
    void *module;
    const struct bl_cluster_calls *mpi;
    struct bl_cluster *cluster;
    int rank, size;
    bl_other_rank *other; /* [size] */
    int64_t jobs;         /* given to other ranks so far: the number of the last */
    double beaten;
    bool apart; /* some ranks are lost or gone: none waits for the others at its end */
} bl_ranks;

typedef enum bl_rank_kind { /* the letter of a message */
                            BL_RANK_NONE = 0,
                            BL_RANK_ALIVE = 'a',
                            BL_RANK_WORKERS =
                                'w', /* to a rank: have so many workers, with this patience */
                            BL_RANK_JOB = 'j',      /* to a rank: a worker's next line */
                            BL_RANK_QUIT = 'q',     /* to a rank: all end together */
                            BL_RANK_GO = 'g',       /* to a rank: end alone, another is lost */
                            BL_RANK_READY = 'h',    /* from a rank: what it is; see bl_rank_self */
                            BL_RANK_PROGRESS = 'p', /* from here on of a rank's worker */
                            BL_RANK_RESULT = 'r',
                            BL_RANK_ERROR = 'e',
                            BL_RANK_UNFIT = 'u',
                            BL_RANK_DIED = 'd',
                            BL_RANK_BROKEN = 'x' /* from a rank: why it has no workers */
} bl_rank_kind;

typedef struct bl_rank_message {
    bl_rank_kind kind;
    int rank, worker;
    char *text; /* bl_release it */
} bl_rank_message;

/* *out is NULL where this process was started alone. An error where it was started with others, but
 * cannot reach them: no MPI, or another one than mpirun's. Every rank gets the error. */
bl_status bl_ranks_join(bl_ranks **out);
/* After the work. Where the others may be gone already (`orderly` is false) this rank just ends,
 * and mpirun then ends them. */
void bl_ranks_leave(bl_ranks *ranks, bool orderly);

/* What every rank but the first does until the first says quit. */
bl_status bl_ranks_serve(bl_ranks *ranks, const char *const *worker);

bl_status bl_ranks_post(bl_ranks *ranks, int rank, int worker, bl_rank_kind kind, const char *text);
/* BL_RANK_NONE where nothing has come. */
bl_status bl_ranks_take(bl_ranks *ranks, bl_rank_message *message);
/* How many milliseconds to wait between two looks for a message, when nothing has come for so long:
 * a twentieth of it, as a look costs some 50 microseconds of a processor that should train. */
int bl_ranks_pause(double seconds);
/* Tells the other ranks now and then (the first), or the first, that this one lives. */
bl_status bl_ranks_show_life(bl_ranks *ranks);

/* Takes the number off the beginning of a text; -1 where there is none. */
int64_t bl_rank_number(char *text);

/* "HASH INSTRUCTIONS HOST": the build that runs here, and on what. Results are the same, bit for
 * bit, where the first two are. */
bl_status bl_rank_self(const char *program, char **out);

#endif
