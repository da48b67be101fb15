/* Passes that every executor wants.
 *
 * bl_optimize (optimize.c) goes once through the nodes that the outputs need, in order. Each
 * becomes a draft whose operands are nodes of the new graph; the draft is folded (fold.c) and
 * simplified (simplify.c) until nothing changes, then merged with an equal node (merge.c) or added.
 * What lost its last user on the way is left out by a final copy (dead.c). Where a scan repeats
 * what an earlier one did, both are rewritten (keep.c) and all is done once more. Nothing recurses,
 * so depth does not matter, and every step is of constant or near-constant cost.
 *
 * To add an identity, write a function in simplify.c and name it in its table. */
#ifndef BL_GRAPH_PASS_H
#define BL_GRAPH_PASS_H

#include "base/base.h"
#include "graph/node.h"

/* A node about to be added. `node.attr` is &attr and `node.operand` is `operand`. */
typedef struct bl_draft {
    bl_node node;
    bl_attr attr;
    int32_t *operand; /* capacity for the largest number of operands in the graph, at least 3 */
    void *data;       /* of a folded constant: room for FOLD_BYTES */
} bl_draft;

/* Constants are computed up to this many elements; larger ones only where all are equal. */
enum { FOLD_ELEMENTS = 1024, FOLD_BYTES = FOLD_ELEMENTS * 8 };

/* The value of a constant whose elements are all equal. */
bool bl_splat(const bl_graph *g, int32_t id, double *value);
/* Makes the draft a constant with all elements `value`, of its type. */
void bl_draft_splat(bl_draft *draft, double value);

/* If the draft's value is known: makes it a constant and returns true. */
bool bl_fold_constants(const bl_graph *g, bl_draft *draft);

/* BL_KEEP: as it is; BL_CHANGED: the draft is another node of the same value; else the id of a node
 * of the same value. */
enum { BL_KEEP = -1, BL_CHANGED = -2 };
int32_t bl_simplify(const bl_graph *g, bl_draft *draft);

/* Hash table of the nodes of a graph under construction. */
typedef struct bl_merger {
    int32_t *slot;  /* id + 1; 0: empty */
    uint64_t *hash; /* of the node in the slot */
    size_t slots;   /* a power of two, more than twice the nodes that will be added */
} bl_merger;
bl_status bl_merger_new(int64_t nodes, bl_merger *out);
void bl_merger_free(bl_merger *merger);
/* The node equal to the draft, added to the graph if there was none; -1 if memory is short. */
int32_t bl_merge(bl_merger *merger, bl_graph *g, const bl_draft *draft);
/* The same for the draft folded and simplified. */
int32_t bl_merge_simplified(bl_merger *merger, bl_graph *g, bl_draft *draft);

/* --- loops (loop.c) */
/* The draft is a scan or while of g, of which only the results used[i] are needed. Optimises the
 * body, and takes off a scan what only other results need: their carries, rows and outer values.
 * place[i] becomes the new index of result i, or -1. `to` gets what the draft has from then on. */
bl_status bl_rewrite_loop(bl_graph *to, bl_draft *draft, const bool *used, int *place);

/* --- what later loops need again (keep.c) */
/* Rewrites g where a scan would compute sums or maxima again that an earlier one had: the earlier
 * one stacks them. *out is NULL where there is no such; else the tensors become those of *out. */
bl_status bl_keep_results(const bl_graph *g, bl_tensor *inputs, int input_count,
                          bl_tensor *outputs, int output_count, bl_graph **out);

/* --- dead code */
/* Marks what the outputs need: live[id] for every node of g. */
void bl_mark_live(const bl_graph *g, const bl_tensor *outputs, int count, bool *live);
/* Marks what the marked nodes need. */
void bl_mark_operands(const bl_graph *g, bool *live);
/* Copies the inputs and what the outputs need into a new graph. */
bl_status bl_copy_live(const bl_graph *g, const bl_tensor *inputs, int input_count,
                       const bl_tensor *outputs, int output_count, bl_graph **out,
                       bl_tensor *inputs_new, bl_tensor *outputs_new);
/* The largest number of operands of any node. */
int bl_most_operands(const bl_graph *g);

#endif
