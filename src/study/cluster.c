/* The only file that knows MPI, and a module of its own, libballast-mpi.so: see cluster.h. It uses
 * nothing else of the library.
 *
 * Messages are sent without waiting, from copies that are kept until MPI is done with them, so two
 * ranks that send each other long messages at once do not lock each other up. They are received by
 * asking whether one is there: MPI's own way of waiting keeps a processor busy, which here should
 * train. */
#include "study/cluster.h"

#include <mpi.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct sending {
    struct sending *next;
    MPI_Request request;
    char bytes[];
} sending;

struct bl_cluster {
    sending *first;
};

static int join(bl_cluster **out, int *rank, int *size)
{
    int provided, code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_rank(MPI_COMM_WORLD, rank);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_size(MPI_COMM_WORLD, size);
    if (code == MPI_SUCCESS && !(*out = calloc(1, sizeof **out)))
        code = MPI_ERR_NO_MEM;
    return code;
}

/* Frees what has been sent; waits for all of it if asked to. */
static int clear_sent(bl_cluster *cluster, int wait)
{
    for (sending **at = &cluster->first; *at;) {
        sending *s = *at;
        int sent = 1, code = wait ? MPI_Wait(&s->request, MPI_STATUS_IGNORE)
                                  : MPI_Test(&s->request, &sent, MPI_STATUS_IGNORE);
        if (code != MPI_SUCCESS)
            return code;
        if (sent) {
            *at = s->next;
            free(s);
        } else {
            at = &s->next;
        }
    }
    return MPI_SUCCESS;
}

static int post(bl_cluster *cluster, const bl_cluster_message *message)
{
    int code = clear_sent(cluster, 0);
    if (code != MPI_SUCCESS)
        return code;
    if (message->count > INT_MAX)
        return MPI_ERR_COUNT;
    sending *s = malloc(sizeof *s + message->count);
    if (!s)
        return MPI_ERR_NO_MEM;
    memcpy(s->bytes, message->bytes, message->count);
    code = MPI_Isend(s->bytes, (int)message->count, MPI_CHAR, message->rank, message->worker,
                     MPI_COMM_WORLD, &s->request);
    if (code != MPI_SUCCESS) {
        free(s);
        return code;
    }
    s->next = cluster->first;
    cluster->first = s;
    return MPI_SUCCESS;
}

static int take(bl_cluster *cluster, bl_cluster_message *message)
{
    *message = (bl_cluster_message){0};
    int there = 0, count = 0, code = clear_sent(cluster, 0);
    MPI_Status from;
    if (code == MPI_SUCCESS)
        code = MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &there, &from);
    if (code != MPI_SUCCESS || !there)
        return code;
    code = MPI_Get_count(&from, MPI_CHAR, &count);
    char *bytes = code == MPI_SUCCESS ? malloc((size_t)count + 1) : NULL;
    if (!bytes)
        return code == MPI_SUCCESS ? MPI_ERR_NO_MEM : code;
    code = MPI_Recv(bytes, count, MPI_CHAR, from.MPI_SOURCE, from.MPI_TAG, MPI_COMM_WORLD,
                    MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS) {
        free(bytes);
        return code;
    }
    bytes[count] = 0;
    *message = (bl_cluster_message){from.MPI_SOURCE, from.MPI_TAG, bytes, (size_t)count};
    return MPI_SUCCESS;
}

static int leave(bl_cluster *cluster)
{
    int code = clear_sent(cluster, 1);
    free(cluster);
    return code == MPI_SUCCESS ? MPI_Finalize() : code;
}

static void describe(int code, char text[256])
{
    char sentence[MPI_MAX_ERROR_STRING] = "";
    int length;
    if (MPI_Error_string(code, sentence, &length) != MPI_SUCCESS)
        length = 0;
    size_t kept = (size_t)length < 255 ? (size_t)length : 255;
    memcpy(text, sentence, kept);
    text[kept] = 0;
}

extern const bl_cluster_calls bl_cluster_mpi;
__attribute__((visibility("default"))) const bl_cluster_calls bl_cluster_mpi = {
    .join = join, .post = post, .take = take, .leave = leave, .describe = describe};
