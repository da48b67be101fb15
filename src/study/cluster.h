/* What the program wants from MPI, as a table of calls: the module cluster.c fills it in, and
 * ranks.c opens the module when the program is started under mpirun. So the program itself is not
 * linked with MPI, runs where there is none, and one built with Open MPI is not broken by its
 * absence. Another way to reach other machines is another such module.
 *
 * Calls return 0, or a code for `describe`. None waits but `join` and `leave`. */
#ifndef BL_STUDY_CLUSTER_H
#define BL_STUDY_CLUSTER_H

#include <stddef.h>

typedef struct bl_cluster bl_cluster; /* the module's own */

typedef struct bl_cluster_message {
    int rank;    /* the other end */
    int worker;  /* a small number of the caller's */
    char *bytes; /* of `take`: with a 0 after the end; free() it; NULL: nothing has come */
    size_t count;
} bl_cluster_message;

typedef struct bl_cluster_calls {
    int (*join)(bl_cluster **out, int *rank, int *size);
    /* The bytes are copied; messages from one rank to another arrive in order. */
    int (*post)(bl_cluster *cluster, const bl_cluster_message *message);
    int (*take)(bl_cluster *cluster, bl_cluster_message *message);
    /* After the last message of every rank; all ranks must call it. */
    int (*leave)(bl_cluster *cluster);
    void (*describe)(int code, char text[256]);
} bl_cluster_calls;

#define BL_CLUSTER_MODULE "libballast-mpi.so"
#define BL_CLUSTER_SYMBOL "bl_cluster_mpi"

#endif
