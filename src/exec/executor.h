/* The one interface of an executor.
 *
 * program.c optimises the graph, checks the call and keeps the signature; an executor turns a graph
 * into a plan and runs it. To add one, write a bl_executor and list it in program.c. */
#ifndef BL_EXEC_EXECUTOR_H
#define BL_EXEC_EXECUTOR_H

#include "ballast/program.h"
#include "graph/node.h"

/* What is compiled: an optimised graph, its arguments and results. Donations are checked: types
 * equal, each input and output used once. */
typedef struct bl_signature {
    bl_graph *graph;      /* owned by the program, lives as long as the plan */
    const int32_t *input; /* node ids */
    int inputs;
    const int32_t
        *output; /* node ids; one node may be several outputs, an output may be an input */
    int outputs;
    const bl_donation *donation;
    int donations;
    int threads; /* at least 1 */
    struct bl_check *check; /* is shown every kernel's results (bl_check_node); or NULL */
} bl_signature;

typedef struct bl_executor {
    const char *name;
    bl_status (*compile)(const bl_signature *signature, void **plan);
    /* input[i] and output[o] are the buffers; output[o] == input[i] exactly where donated. */
    bl_status (*run)(void *plan, void *const *input, void *const *output);
    void (*free)(void *plan);
    char *(*explain)(const void *plan); /* malloced */
    bl_work (*work)(const void *plan);
} bl_executor;

struct bl_device {
    const bl_executor *executor;
};

/* OMP_NUM_THREADS, 1 if unset. Solvers on the host take as many. */
int bl_default_threads(void);

/* The error of every executor for element `at` of a node's index that is not in 0 .. rows - 1. */
bl_status bl_index_error(const bl_node *node, int64_t at, int64_t value, int64_t rows);

/* --- loops: a node with a body, whose plan is compiled once by the executor that runs the node */
typedef struct bl_nested bl_nested;
bool bl_is_loop(const bl_node *node);
bl_status bl_nested_new(const bl_executor *executor, const bl_node *node, int threads,
                        bl_nested **out);
/* value[id]: the buffer of every operand of the node, by node id; result: the node's. */
bl_status bl_nested_run(bl_nested *nested, void *const *value, void *result);
void bl_nested_free(bl_nested *nested);
/* Bytes of the plan and of what is carried. */
size_t bl_nested_memory(const bl_nested *nested);

/* --- BL_CHECK=1: what a device computes is compared with the reference loops, kernel by kernel */
typedef struct bl_check bl_check;
/* The signature must outlive the check; `device` names it in messages. */
bl_status bl_check_new(const bl_signature *signature, const char *device, bl_check **out);
/* At the start of a run, before anything is written. Copies the inputs. */
bl_status bl_check_start(bl_check *check, void *const *input);
/* Compares what the device's last kernel wrote for node id, in row-major order. */
bl_status bl_check_node(bl_check *check, int32_t id, const void *value);
/* At the end of a run. */
bl_status bl_check_outputs(bl_check *check, void *const *output);
void bl_check_free(bl_check *check);

extern const bl_executor bl_executor_reference, bl_executor_cpu;

#endif
